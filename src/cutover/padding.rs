//! How far a padded log reaches. Pure.
//!
//! No offset may name an orphan on the old primary and a new record on the new one. So the new
//! primary's first record goes beyond everything that the old one can have: what was seen there, twice what
//! may have come since, and a margin.

use serde::{Deserialize, Serialize};

use super::loss::Bound;

/// Invisible markers that a broker appends in a second, for the estimate: 82,000 were measured over
/// 1,000 partitions.
pub const MARKERS_PER_SECOND: u64 = 80_000;

/// A log whose index has no entry yet gets one by so many, and that makes its files: 4.3 ms were measured over
/// 18,000 partitions.
const INDEXED_FROM: u64 = 52;
const INDEX_MS: u64 = 5;

/// A marker in the log: a batch's header and one control record.
pub const MARKER_BYTES: u64 = 78;

/// The part of the margin that a partition gets to which nothing had come for [`QUIET_MS`] when it was seen last: most
/// partitions of a large cluster are quiet, and each offset costs the broker an append. Who was seen for a second only, by a
/// process that had just begun, may have paused for that second.
const RESTING_SHARE: u64 = 10;
/// The part where that is certain. So few markers need no entry in a log's index (`index.interval.bytes`, 4 KiB),
/// whose first one makes two files.
const QUIET_SHARE: u64 = 100;
/// It is certain where nothing had come for so long, and for as long as nobody has seen it since.
const QUIET_MS: i64 = 10_000;

/// Where nobody can say how much may have come, a partition gets the margin so many times.
const WIDE: u64 = 10;
/// As long as it isn't more in all.
const WIDE_IN_ALL: u64 = 2_000_000;

/// So many offsets are passed in all and no more, whatever may have come: an emergency waits for them, and each is bytes in
/// every replica's log.
pub const OFFSETS_MAX: u64 = 4_000_000;
/// So long is waited for them and no longer, however slow the brokers are.
pub const SECONDS_MAX: u64 = 60;

/// How far the old primary may have gone beyond the copy, in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// Seen there and not copied.
    seen: u64,
    /// What may have come since; `None` where nobody can say.
    unseen: Option<u64>,
    /// Whether it is certain that nobody wrote.
    is_quiet: bool,
    /// Whether nothing had come for long when it was seen last.
    #[serde(default)]
    is_resting: bool,
}

impl Reach {
    /// Where nobody can say.
    pub const UNKNOWN: Self = Self {
        seen: 0,
        unseen: None,
        is_quiet: false,
        is_resting: false,
    };

    /// By the bound of what it lacks. `quiet_ms`: for how long nothing had come when it was seen last, `age_ms` ago.
    pub fn of(bound: Bound, quiet_ms: Option<i64>, age_ms: Option<i64>) -> Self {
        let is_for = |least_ms: i64| quiet_ms.is_some_and(|it| it >= least_ms.max(QUIET_MS));
        Self {
            seen: bound.seen,
            unseen: bound.unseen,
            is_quiet: age_ms.is_some_and(is_for),
            is_resting: is_for(QUIET_MS),
        }
    }

    /// By the records that may be missing in all, as older versions noted them; `None` where nobody could say.
    pub fn of_records(records: Option<u64>) -> Self {
        Self {
            unseen: records,
            ..Self::UNKNOWN
        }
    }

    /// The same where nobody can say what has come since.
    #[must_use]
    pub fn with_unknown(self) -> Self {
        Self {
            seen: self.seen,
            ..Self::UNKNOWN
        }
    }

    /// Besides, what it may lack by what a process before the last one saw of it, if nobody saw more.
    #[must_use]
    pub fn with_carried(self, carried: Option<Bound>) -> Self {
        let reach = carried.map_or(0, |it| {
            let unseen = it.unseen.unwrap_or(0);
            unseen.saturating_mul(2).saturating_add(it.seen)
        });
        Self {
            seen: self.seen.max(reach),
            ..self
        }
    }
}

/// How many offsets each of these partitions passes.
pub fn offsets(reaches: &[Reach], margin: u64) -> Vec<u64> {
    let unknown = reaches.iter().filter(|it| it.unseen.is_none()).count();
    let share = WIDE_IN_ALL / u64::try_from(unknown).unwrap_or(u64::MAX).max(1);
    let wide = share.clamp(margin, margin.saturating_mul(WIDE));
    let of = |reach: &Reach| match (reach.seen, reach.unseen) {
        (0, Some(0)) if reach.is_quiet => margin.div_ceil(QUIET_SHARE),
        (0, Some(0)) if reach.is_resting => margin.div_ceil(RESTING_SHARE),
        (seen, Some(unseen)) => unseen
            .saturating_mul(2)
            .saturating_add(seen)
            .saturating_add(margin),
        (seen, None) => seen.saturating_add(wide),
    };
    reaches.iter().map(of).collect()
}

/// What is passed in all, within a ceiling.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Of each partition, in their order.
    pub offsets: Vec<u64>,
    /// Which of them get less than they need, by their places in that order.
    pub short: Vec<usize>,
}

/// As [`offsets`], and never more than [`OFFSETS_MAX`] in all.
pub fn passed(reaches: &[Reach], margin: u64) -> Passed {
    within(offsets(reaches, margin), OFFSETS_MAX)
}

/// Who needs least gets all of it: so as few as possible get less. These share what is left.
fn within(mut offsets: Vec<u64>, most: u64) -> Passed {
    let mut places: Vec<usize> = (0..offsets.len()).collect();
    places.sort_by_key(|place| offsets[*place]);
    let mut left = most;
    let mut short = Vec::new();
    for (before, place) in places.iter().enumerate() {
        let open = u64::try_from(places.len() - before).unwrap_or(u64::MAX);
        let share = left / open;
        if offsets[*place] > share {
            offsets[*place] = share;
            short.push(*place);
        }
        left -= offsets[*place];
    }
    short.sort_unstable();
    Passed { offsets, short }
}

/// The first target offset that a client may get, for a log that ends at `target_end`.
pub fn padded_end(target_end: i64, offsets: u64) -> i64 {
    target_end.saturating_add(i64::try_from(offsets).unwrap_or(i64::MAX))
}

/// What padding costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaddingCost {
    /// Invisible markers in all.
    pub markers: u64,
    /// How long that takes, about.
    pub seconds: u64,
    /// By how much the logs grow, on each replica.
    #[serde(default)]
    pub bytes: u64,
    /// Partitions that get less than they may need: in all there are more offsets than are passed in an emergency.
    #[serde(default, skip_serializing_if = "is_none")]
    pub short_partitions: u64,
}

fn is_none(count: &u64) -> bool {
    *count == 0
}

/// What that costs at most, of one broker.
pub fn cost_of(passed: &Passed) -> PaddingCost {
    PaddingCost {
        short_partitions: u64::try_from(passed.short.len()).unwrap_or(u64::MAX),
        ..cost(&passed.offsets)
    }
}

/// What so many markers in each partition cost at most, of one broker.
fn cost(offsets: &[u64]) -> PaddingCost {
    let markers = offsets
        .iter()
        .fold(0, |sum: u64, it| sum.saturating_add(*it));
    let indexed = offsets.iter().filter(|it| **it >= INDEXED_FROM).count();
    let indexed_ms = u64::try_from(indexed)
        .unwrap_or(u64::MAX)
        .saturating_mul(INDEX_MS);
    let seconds = markers
        .div_ceil(MARKERS_PER_SECOND)
        .saturating_add(indexed_ms / 1_000);
    PaddingCost::of(markers, seconds)
}

impl PaddingCost {
    /// So many markers in so many seconds.
    pub fn of(markers: u64, seconds: u64) -> Self {
        Self {
            markers,
            seconds,
            bytes: markers.saturating_mul(MARKER_BYTES),
            short_partitions: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cutover::loss::{self, Seen};
    use crate::state::EndsRecord;

    fn reach(seen: u64, unseen: Option<u64>) -> Reach {
        Reach {
            seen,
            unseen,
            is_quiet: false,
            is_resting: false,
        }
    }

    #[test]
    fn the_margin_stands_also_where_nothing_is_missing() {
        let one = |it: Reach, margin| offsets(&[it], margin)[0];
        let begun = reach(0, Some(0));
        let resting = Reach {
            is_resting: true,
            ..begun
        };
        let quiet = Reach {
            is_quiet: true,
            ..resting
        };
        assert_eq!(one(begun, 1_001), 1_001, "it was seen for a moment only");
        assert_eq!(one(resting, 1_001), 101);
        assert_eq!(one(quiet, 1_001), 11);
        assert_eq!((one(resting, 0), one(quiet, 0)), (0, 0));
        assert_eq!(one(reach(3, Some(4)), 10), 21, "what was seen is certain");
        let behind = Reach {
            is_quiet: true,
            ..reach(7, Some(0))
        };
        assert_eq!(one(behind, 10), 17);
        assert_eq!(cost(&[80_000, 1]).seconds, 2);
        let many = cost(&[100; 18_000]);
        assert_eq!((many.seconds, many.bytes), (113, 140_400_000));
        assert_eq!(cost(&[10; 18_000]).seconds, 3);
    }

    #[test]
    fn the_unknown_gets_the_widest_margin_as_long_as_it_isnt_everything() {
        let unknown = [Reach::UNKNOWN; 2];
        assert_eq!(offsets(&unknown, 1_000), [10_000; 2]);
        let all = [Reach::UNKNOWN; 18_000];
        assert_eq!(offsets(&all, 1_000)[0], 1_000);
        assert_eq!(offsets(&[reach(5, None)], 100), [1_005]);
    }

    #[test]
    fn what_nobody_has_seen_since_a_restart_gets_what_may_have_come_since_it_was() {
        // 1,000 of 1,100 are copied; then 100 a second, and nobody looked for an hour.
        let record = EndsRecord {
            ends: vec![1_100],
            per_second: vec![100],
            unmeasured: [0].into(),
            carried_ms: [(0, 5_000)].into(),
            ..EndsRecord::default()
        };
        let seen = Seen {
            copied: 1_000,
            observed: loss::observed_end(Some(&record), 0),
            per_second: loss::rate(Some(&record), 0),
            habit: loss::habit(Some(&record), 0),
        };
        let fresh = loss::bound(seen, 500);
        assert_eq!((fresh.seen, fresh.unseen), (100, None), "nobody can say");
        let carried = loss::carried(Some(&record), (0, 1_000), 3_605_000);
        let reach = Reach::of(fresh, None, Some(500)).with_carried(carried);
        assert_eq!(offsets(&[reach], 1_000), [720_100 + 10_000]);
        let no_time = EndsRecord {
            carried_ms: [(0, -1)].into(),
            ..record
        };
        assert_eq!(loss::carried(Some(&no_time), (0, 1_000), 3_605_000), None);
    }

    #[test]
    fn what_was_quiet_for_as_long_as_nobody_looked_is_quiet() {
        let nothing = Bound {
            seen: 0,
            unseen: Some(0),
        };
        let is_quiet = |quiet_ms, age_ms| Reach::of(nothing, quiet_ms, age_ms).is_quiet;
        assert!(is_quiet(Some(10_000), Some(10_000)));
        assert!(!is_quiet(Some(9_999), Some(500)), "not for long enough");
        assert!(!is_quiet(Some(60_000), Some(60_001)), "too long ago");
        assert!(!is_quiet(None, Some(500)) && !is_quiet(Some(60_000), None));
        let is_resting = |quiet_ms, age_ms| Reach::of(nothing, quiet_ms, age_ms).is_resting;
        assert!(is_resting(Some(10_000), Some(3_600_000)) && is_resting(Some(10_000), None));
        assert!(!is_resting(Some(750), Some(500)) && !is_resting(None, Some(500)));
    }

    #[test]
    fn beyond_the_ceiling_who_needs_least_gets_all_of_it() {
        let of = |offsets: &[u64], most| within(offsets.to_vec(), most);
        assert_eq!(
            of(&[50, 10, 40], 100),
            Passed {
                offsets: vec![50, 10, 40],
                short: vec![]
            }
        );
        assert_eq!(
            of(&[90, 10, 40], 100),
            Passed {
                offsets: vec![50, 10, 40],
                short: vec![0]
            }
        );
        assert_eq!(
            of(&[90, 10, 80], 100),
            Passed {
                offsets: vec![45, 10, 45],
                short: vec![0, 2]
            }
        );
        // A reach of years is none that anybody waits for.
        let all = passed(&[reach(0, Some(0)), reach(0, Some(u64::MAX))], 1_000);
        assert_eq!(all.offsets, [1_000, OFFSETS_MAX - 1_000]);
        assert_eq!(cost_of(&all).short_partitions, 1);
    }

    proptest! {
        /// Nobody gets more than he needs, all together no more than the ceiling, and who gets less gets as much as anybody.
        #[test]
        fn the_ceiling_holds_and_takes_from_the_largest(
            wanted in prop::collection::vec(0..5_000u64, 0..40),
            most in 0..50_000u64,
        ) {
            let found = within(wanted.clone(), most);
            prop_assert!(found.offsets.iter().sum::<u64>() <= most);
            let largest = found.offsets.iter().max().copied().unwrap_or(0);
            for (place, (wanted, found_of)) in wanted.iter().zip(&found.offsets).enumerate() {
                let is_short = found.short.contains(&place);
                prop_assert_eq!(is_short, found_of < wanted);
                prop_assert!(found_of <= wanted);
                prop_assert!(!is_short || *found_of + 1 >= largest.min(*wanted));
            }
        }

        /// Whatever the old primary can have by the bound lies below the first new record.
        #[test]
        fn no_orphan_shares_an_offset_with_a_new_record(
            end in 0..i64::MAX / 4,
            seen in 0..u64::MAX,
            unseen in 0..u64::MAX,
            margin in 0..u64::MAX,
            is_quiet: bool,
        ) {
            let bound = Bound { seen, unseen: Some(unseen) };
            let reach = Reach { is_quiet, ..reach(seen, Some(unseen)) };
            let padded = padded_end(end, offsets(&[reach], margin)[0]);
            let reach = i64::try_from(bound.records()).unwrap_or(i64::MAX);
            prop_assert!(padded >= end.saturating_add(reach));
            prop_assert!(padded >= end);
        }
    }
}
