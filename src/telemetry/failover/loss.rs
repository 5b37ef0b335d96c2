//! How much may be missing when the source is gone. Pure.
//!
//! Known: each partition's end on the source as it was seen last, when that was, how fast it
//! grew, and the most that came at once. `missing = seen end - copied + rate x time since + what came at once`. With
//! producers that go on as before, in their bursts as well, that is what is lost at most; a source that died at once has
//! lost less. What came after the last look and is more than was ever seen of late can't be in it, unless the copy shows
//! it, and the words say so. Where the end or the rate was never seen there is no bound: unknown isn't zero.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::telemetry::finding::counted;
use crate::telemetry::size::bytes;

/// The loss that is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptedLoss {
    /// So many records at most.
    Records(u64),
    /// Whatever it is, also where nobody can say.
    Any,
}

impl AcceptedLoss {
    /// From the command line: a number or `any`.
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "any" => Ok(Self::Any),
            number => number
                .replace([',', '_'], "")
                .parse()
                .map(Self::Records)
                .map_err(|_| format!("`{number}` is neither a number of records nor `any`")),
        }
    }
}

/// What an operator takes to type the command again.
const DECIDES_SECONDS: u64 = 60;

/// What is known of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The first source offset that isn't on the target.
    pub copied: i64,
    /// The source's end as it was seen last; `None` if it never was.
    pub observed: Option<i64>,
    /// Records per second then; `None` if that was never measured.
    pub per_second: Option<u64>,
    /// How it is written to besides that.
    pub habit: Habit,
}

/// A rate is a mean: who writes a batch now and then has hardly any just before the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Habit {
    /// The most records that came in two looks, of late.
    pub at_once: u64,
    /// Records in an hour, where somebody writes now and then.
    pub per_hour: u64,
}

impl Habit {
    /// What may have come in so long by that.
    fn within(self, age_ms: u64) -> u64 {
        let steady = self.per_hour.saturating_mul(age_ms);
        steady.div_ceil(HOUR_MS)
    }
}

const HOUR_MS: u64 = 3_600_000;
/// A running flow looks every two seconds.
const TWO_LOOKS_MS: u64 = 4_000;

/// The bound of one partition, in records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Seen on the source and not copied.
    pub seen: u64,
    /// What may have been written since; `None` where nobody can say.
    pub unseen: Option<u64>,
}

impl Bound {
    /// Of a partition that lacks nothing.
    pub const NOTHING: Self = Self {
        seen: 0,
        unseen: Some(0),
    };
    /// Of a partition of which nothing is known.
    pub const UNKNOWN: Self = Self {
        seen: 0,
        unseen: None,
    };

    /// Both, as far as they are known.
    pub fn records(self) -> u64 {
        self.seen.saturating_add(self.unseen.unwrap_or(0))
    }
}

/// Bounds what one partition lacks, `age_ms` after the source was seen last.
///
/// What was copied beyond the end that was seen was written since, within seconds: a process that lives
/// looks every two. Whoever wrote it may have written at that rate ever since, whatever the rate was before.
pub fn bound(seen: Seen, age_ms: i64) -> Bound {
    let Some(observed) = seen.observed else {
        return Bound::UNKNOWN;
    };
    let age_ms = u64::try_from(age_ms).unwrap_or(0);
    let copied_since = match age_ms {
        0 => 0,
        _ => u64::try_from(seen.copied.saturating_sub(observed)).unwrap_or(0),
    };
    let at_once = if age_ms > 0 { seen.habit.at_once } else { 0 };
    let unseen = |per_second: u64| {
        let rate = per_second.max(copied_since);
        let steady = |ms: u64| rate.saturating_mul(ms).div_ceil(1_000);
        // What came at once came in two looks at most: of a steady producer it is what its rate says.
        let beside = age_ms.saturating_sub(TWO_LOOKS_MS);
        let besides = steady(beside).max(seen.habit.within(age_ms));
        steady(age_ms)
            .max(copied_since)
            .max(at_once.saturating_add(besides))
    };
    Bound {
        seen: u64::try_from(observed.saturating_sub(seen.copied)).unwrap_or(0),
        unseen: seen.per_second.map(unseen),
    }
}

/// What a topic may lack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicLoss {
    /// Records, at most.
    pub records: u64,
    /// Of these, seen on the source and not copied.
    pub seen_records: u64,
    /// Bytes, from the mean record size.
    pub bytes: u64,
    /// Partitions that nobody can bound: their end on the source, or how fast it grew, was never seen.
    pub unknown_partitions: u64,
    /// How long ago the oldest of them may have been written, seconds; absent if that isn't known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_seconds: Option<u64>,
}

impl TopicLoss {
    /// What makes one topic's loss worse than another's.
    pub(super) fn badness(&self) -> (u64, u64) {
        (self.records, self.unknown_partitions)
    }
}

/// What all topics may lack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Records, at most.
    pub records: u64,
    /// Of these, seen on the source and not copied; the others are what may have been written since,
    /// at the rates seen.
    #[serde(default)]
    pub seen_records: u64,
    /// Bytes, about.
    pub bytes: u64,
    /// How long ago the oldest missing record may have been written, seconds; absent if nothing is
    /// missing or that isn't known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_seconds: Option<u64>,
    /// Seconds since the source was seen last; absent if it never was.
    pub seconds: Option<u64>,
    /// By how many records the bound grows in a second.
    #[serde(default)]
    pub per_second: u64,
    /// Partitions that nobody can bound: their end on the source, or how fast it grew, was never seen. What was
    /// seen of them is in the sums.
    pub unknown_partitions: u64,
    /// The topics that lack anything.
    pub topics: BTreeMap<String, TopicLoss>,
}

impl Loss {
    /// Adds one partition.
    pub fn add(&mut self, topic: &str, bound: Bound, record_bytes: u64) {
        let is_unknown = bound.unseen.is_none();
        if bound.records() == 0 && !is_unknown {
            return;
        }
        let bytes = bound.records().saturating_mul(record_bytes);
        self.records = self.records.saturating_add(bound.records());
        self.seen_records = self.seen_records.saturating_add(bound.seen);
        self.bytes = self.bytes.saturating_add(bytes);
        self.unknown_partitions += u64::from(is_unknown);
        let of_topic = self.topics.entry(topic.to_owned()).or_default();
        of_topic.records = of_topic.records.saturating_add(bound.records());
        of_topic.seen_records = of_topic.seen_records.saturating_add(bound.seen);
        of_topic.bytes = of_topic.bytes.saturating_add(bytes);
        of_topic.unknown_partitions += u64::from(is_unknown);
    }

    /// Notes since when something of a topic may be missing.
    pub fn note_oldest(&mut self, topic: &str, seconds: u64) {
        self.oldest_seconds = self.oldest_seconds.max(Some(seconds));
        if let Some(of_topic) = self.topics.get_mut(topic) {
            of_topic.oldest_seconds = of_topic.oldest_seconds.max(Some(seconds));
        }
    }

    /// Whether so much may be lost.
    pub fn is_accepted(&self, accepted: AcceptedLoss) -> bool {
        match accepted {
            AcceptedLoss::Any => true,
            AcceptedLoss::Records(most) => self.unknown_partitions == 0 && self.records <= most,
        }
    }

    /// What the operator types to go on all the same.
    pub fn how_to_accept(&self) -> String {
        let how = if self.unknown_partitions > 0 {
            "any".to_owned()
        } else {
            // The bound grows while the operator decides.
            let grows = self.per_second.saturating_mul(DECIDES_SECONDS);
            self.records.saturating_add(grows).to_string()
        };
        format!("to go on and lose that: `--accept-loss {how}`")
    }

    /// In one line.
    pub fn in_words(&self) -> String {
        let mut text = if self.records == 0 {
            "nothing is known to be missing".to_owned()
        } else {
            let topics = self.topics.values().filter(|topic| topic.records > 0);
            format!(
                "up to {} ({}) of {} may be missing; {} of them were seen on the source",
                counted(
                    usize::try_from(self.records).unwrap_or(usize::MAX),
                    "record"
                ),
                bytes(self.bytes as f64),
                counted(topics.count(), "topic"),
                self.seen_records
            )
        };
        match self.seconds {
            // A rate is no promise: what came faster than before, after the last look, is unknown.
            Some(seconds) => text.push_str(&format!(
                "; as far as was observed {seconds} s ago, and with the rates and bursts seen until then"
            )),
            None => text.push_str("; when the source was seen last isn't known"),
        }
        if self.unknown_partitions > 0 {
            text.push_str(&format!(
                "; of {} nothing is known: not seen, or not for long enough to tell how fast they grow",
                counted(usize::try_from(self.unknown_partitions).unwrap_or(usize::MAX), "partition")
            ));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seen(copied: i64, observed: i64, per_second: u64) -> Seen {
        Seen {
            copied,
            observed: Some(observed),
            per_second: Some(per_second),
            habit: Habit::default(),
        }
    }

    #[test]
    fn a_batch_that_comes_now_and_then_may_have_come_again() {
        let habit = Habit {
            at_once: 1_000,
            per_hour: 60_000,
        };
        let seen = Seen {
            habit,
            ..seen(100, 100, 0)
        };
        assert_eq!(bound(seen, 0).records(), 0);
        assert_eq!(bound(seen, 1).records(), 1_001);
        assert_eq!(bound(seen, 600_000).records(), 11_000);
    }

    #[test]
    fn what_comes_at_once_of_a_steady_producer_is_in_its_rate() {
        let habit = Habit {
            at_once: 400,
            per_hour: 0,
        };
        let seen = Seen {
            habit,
            ..seen(100, 100, 100)
        };
        assert_eq!(bound(seen, 0).records(), 0);
        assert_eq!(bound(seen, 500).records(), 400);
        assert_eq!(bound(seen, 60_000).records(), 6_000);
    }

    #[test]
    fn what_was_seen_and_what_came_since_add_up() {
        let all = bound(seen(90, 100, 7), 2_500);
        assert_eq!((all.seen, all.unseen), (10, Some(18)));
        assert_eq!(bound(seen(100, 100, 0), 1 << 40).records(), 0);
        // The copy is ahead of what was seen: that was only seen earlier.
        assert_eq!(bound(seen(120, 100, 0), 0).records(), 0);
        // It is ahead because somebody wrote since: he may have gone on.
        let still_quiet = "this is no quiet partition";
        assert_eq!(bound(seen(120, 100, 0), 500).records(), 20, "{still_quiet}");
        assert_eq!(bound(seen(120, 100, 0), 60_000).records(), 1_200);
        assert_eq!(bound(seen(120, 100, 80), 500).records(), 40);
        let never = Seen {
            observed: None,
            ..seen(5, 0, 9)
        };
        assert_eq!(bound(never, 1_000), Bound::UNKNOWN);
        let unmeasured = Seen {
            per_second: None,
            ..seen(90, 100, 0)
        };
        let unknown = bound(unmeasured, 1_000);
        assert_eq!((unknown.seen, unknown.unseen), (10, None));
    }

    #[test]
    fn the_unknown_is_never_accepted_by_a_number() {
        let mut loss = Loss::default();
        loss.add("a", bound(seen(0, 10, 0), 0), 100);
        assert_eq!((loss.records, loss.bytes), (10, 1_000));
        assert!(loss.is_accepted(AcceptedLoss::Records(10)));
        assert!(!loss.is_accepted(AcceptedLoss::Records(9)));
        let unmeasured = Bound {
            seen: 3,
            unseen: None,
        };
        loss.add("b", unmeasured, 0);
        assert_eq!((loss.records, loss.unknown_partitions), (13, 1));
        assert!(!loss.is_accepted(AcceptedLoss::Records(u64::MAX)));
        assert!(loss.is_accepted(AcceptedLoss::Any));
    }

    proptest! {
        /// Producers that go no faster than they were seen to go lose no more than the bound says.
        #[test]
        fn a_steady_producer_never_loses_more(
            copied in 0..1_000_000_i64,
            ahead in 0..1_000_i64,
            per_second in 0..100_000_u64,
            age_ms in 0..100_000_i64,
        ) {
            let observed = copied + ahead;
            let written_since = per_second * u64::try_from(age_ms).expect("positive") / 1_000;
            let end = observed + i64::try_from(written_since).expect("small");
            let bound = bound(seen(copied, observed, per_second), age_ms);
            let lost = u64::try_from(end - copied).expect("positive");
            prop_assert!(bound.records() >= lost);
            prop_assert!(bound.records() <= lost + 1);
        }
    }
}
