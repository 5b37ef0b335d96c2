//! When a copy had all that its source had, and whether it may have missed what was deleted since. Pure.
//!
//! A key is deleted by a tombstone, and the source's cleaner removes that some time after its first pass over
//! it (`delete.retention.ms`, KIP-534). It never goes beyond the last stable offset
//! (`LogCleanerManager.cleanableOffsets`). So what a copy had not read when it stood at the source's end was not
//! cleaned by then: a tombstone among it stays for `delete.retention.ms` from that time at least. Whoever reads it
//! later than that may find a hole in its place, and a key that is deleted lives on in the copy. Where there is no
//! hole, nothing has vanished: a cleaner leaves every other record at its offset.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::progress::is_set_back;

/// Ends that were seen and not reached yet. Of more of them every other one is forgotten: what is left tells of
/// earlier times, never of later ones.
const AHEAD_MAX: usize = 32;
/// Changes of `delete.retention.ms` that are told apart.
const RETENTIONS_MAX: usize = 8;
/// An end may be told later than it was so, and a cleaner's pass begins before it shows.
const MARGIN_MS: i64 = 60_000;

/// Source offsets in which tombstones may have been removed before they were copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissedDeletes {
    /// The first source offset without a record that may have been one.
    pub from: i64,
    /// Where the source ended when it was noticed: what lies behind was read in time.
    pub until: i64,
    /// When the copy had all before `from` and the source had no more, milliseconds since the epoch; absent
    /// where nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<i64>,
    /// When it was noticed, milliseconds since the epoch.
    pub noticed_at_ms: i64,
    /// How many keys are known to live on, where that was looked for and can't be mended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<u64>,
}

impl MissedDeletes {
    /// Both in one.
    #[must_use]
    pub fn and(self, later: Self) -> Self {
        Self {
            from: self.from.min(later.from),
            until: self.until.max(later.until),
            since_ms: self.since_ms.min(later.since_ms),
            noticed_at_ms: self.noticed_at_ms,
            keys: None,
        }
    }
}

/// For a person.
pub fn in_words(missed: &MissedDeletes) -> String {
    let MissedDeletes {
        from,
        until,
        since_ms,
        noticed_at_ms,
        keys,
    } = missed;
    let since = match since_ms {
        Some(since_ms) => {
            let seconds = (noticed_at_ms - since_ms).max(0) / 1_000;
            format!("{seconds} s after the copy had last been at the source's end")
        }
        None => "nobody knows how long after they were written".to_owned(),
    };
    let what = match keys {
        Some(keys) => format!("{keys} key(s)"),
        None => "keys".to_owned(),
    };
    format!(
        "source offsets {from}..{until} were read {since}, longer than delete.retention.ms: tombstones may have been \
         removed from them, and {what} live on in the copy that the source has deleted"
    )
}

/// How long a tombstone stays, and from when on that was so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Retention {
    from_ms: i64,
    ms: i64,
}

/// The values of `delete.retention.ms` since the copy was last at the source's end, in order.
///
/// A cleaner writes down at its first pass when a tombstone may go (KIP-534), so each of them may have decided about
/// what isn't copied yet, whatever holds by now.
#[derive(Debug, Default)]
struct Retentions(Vec<Retention>);

impl Retentions {
    /// This holds now; `before` held when a process before looked.
    fn note(&mut self, now_ms: i64, ms: i64, before: Option<i64>) {
        if self.0.is_empty() {
            let ms = before.unwrap_or(ms);
            self.0.push(Retention {
                from_ms: i64::MIN,
                ms,
            });
        }
        if self.0.last().is_some_and(|last| last.ms == ms) {
            return;
        }
        self.0.push(Retention {
            from_ms: now_ms,
            ms,
        });
        if self.0.len() > RETENTIONS_MAX {
            // As if the shorter one had held for both.
            let first = self.0.remove(0);
            self.0[0] = Retention {
                from_ms: first.from_ms,
                ms: first.ms.min(self.0[0].ms),
            };
        }
    }

    /// The shortest that held at this time, or since.
    fn least_since(&self, since_ms: Option<i64>) -> Option<i64> {
        let since_ms = since_ms.unwrap_or(i64::MIN);
        let ends = self.0.iter().skip(1).map(|it| it.from_ms);
        let ends = ends.chain([i64::MAX]);
        let held = self.0.iter().zip(ends).filter(|(_, end)| *end > since_ms);
        held.map(|(it, _)| it.ms).min()
    }
}

/// The source ended here at this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SeenEnd {
    end: i64,
    at_ms: i64,
}

/// How a copy stands to its source's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has all up to the end that was seen last.
    AtEnd,
    /// It had all at this time, if that is known.
    BehindSince(Option<i64>),
    /// Nothing is known of it in this process.
    Unopened,
}

/// What is known of one partition, whatever opens and closes it.
#[derive(Debug, Default)]
pub struct UpToDate {
    /// The source's and the target's topic.
    of: Option<(Uuid, Uuid)>,
    /// Where the copy begins; `None` where its log has records from before.
    origin: Option<i64>,
    /// Up to here it is copied.
    position: i64,
    /// When all before `position` was copied and there was no more.
    since_ms: Option<i64>,
    /// Later ends beyond `position`, in order.
    ahead: VecDeque<SeenEnd>,
    missed: Option<MissedDeletes>,
    /// Before this nothing is noticed again.
    noticed_to: i64,
    retentions: Retentions,
}

impl UpToDate {
    /// The partition is opened at this position. `known` tells what a process before knew of it.
    pub fn begin(
        &mut self,
        of: (Uuid, Uuid),
        (origin, position): (Option<i64>, i64),
        known: impl FnOnce() -> Option<i64>,
        missed: Option<MissedDeletes>,
    ) {
        let is_same = self.of == Some(of) && position >= self.position;
        if !is_same {
            *self = Self {
                of: Some(of),
                since_ms: known(),
                ..Self::default()
            };
        }
        self.origin = origin;
        self.note_missed(missed);
        self.reach(position);
    }

    /// Tombstones stay for so long by now; `before` is what held when a process before looked.
    pub fn note_retention(&mut self, now_ms: i64, ms: i64, before: Option<i64>) {
        self.retentions.note(now_ms, ms, before);
    }

    /// For how long tombstones that aren't copied yet stay at least; `None` where nobody has said.
    pub fn least_retention(&self) -> Option<i64> {
        self.retentions.least_since(self.since_ms)
    }

    /// What is known to have been missed now; nothing if it is mended.
    pub fn note_missed(&mut self, missed: Option<MissedDeletes>) {
        self.missed = missed;
        let until = missed.map_or(0, |missed| missed.until);
        self.noticed_to = self.noticed_to.max(until);
    }

    /// The source was seen to end there, while the copy was at `position`.
    pub fn note_end(&mut self, end: i64, at_ms: i64, position: i64) {
        if self.of.is_none() || end < 0 || at_ms < 0 {
            return;
        }
        let last = self.ahead.back().copied();
        let last_ms = last.map(|it| it.at_ms).or(self.since_ms);
        if last_ms.is_some_and(|last_ms| is_set_back(last_ms, at_ms)) {
            // Nobody knows how long it took.
            self.ahead.clear();
            self.since_ms = None;
        } else if last_ms.is_some_and(|last_ms| at_ms < last_ms) {
            self.reach(position);
            return;
        }
        match self.ahead.back_mut() {
            Some(last) if last.end == end => last.at_ms = at_ms,
            // A new leader learns the high watermark only when its followers ask.
            Some(last) if last.end > end => {}
            _ => self.ahead.push_back(SeenEnd { end, at_ms }),
        }
        self.reach(position);
        if self.ahead.len() > AHEAD_MAX {
            let mut count = 0;
            self.ahead.retain(|_| {
                count += 1;
                count % 2 == 1
            });
        }
    }

    fn reach(&mut self, position: i64) {
        self.position = self.position.max(position);
        while let Some(first) = self.ahead.front().filter(|it| it.end <= self.position) {
            self.since_ms = Some(first.at_ms);
            self.ahead.pop_front();
        }
    }

    /// How the copy stands to an end that the source told since the opening.
    pub fn standing(&self, end: i64) -> Standing {
        match self.of {
            None => Standing::Unopened,
            Some(_) if end >= 0 && end <= self.position && self.since_ms.is_some() => {
                Standing::AtEnd
            }
            Some(_) => Standing::BehindSince(self.since_ms),
        }
    }

    /// What is known to have been missed.
    pub fn missed(&self) -> Option<MissedDeletes> {
        self.missed
    }

    /// What may have been missed at source offset `hole`, which has no record in what was read from `from` on; `end` is
    /// where the source ends.
    pub fn judge(
        &self,
        (from, hole): (i64, i64),
        end: i64,
        now_ms: i64,
        delete_retention_ms: i64,
    ) -> Option<MissedDeletes> {
        // One answer is of one segment, and that is cleaned as a whole: where nothing was copied before it, no key of it
        // can have been deleted since.
        let is_first = self.origin.is_some_and(|origin| from <= origin);
        if is_first || hole < self.noticed_to {
            return None;
        }
        let reached = self.ahead.iter().rev().find(|it| it.end <= hole);
        let since_ms = reached.map(|it| it.at_ms).or(self.since_ms);
        let least = self.retentions.least_since(since_ms);
        let delete_retention_ms =
            least.map_or(delete_retention_ms, |it| it.min(delete_retention_ms));
        may_be_over(since_ms, now_ms, delete_retention_ms).then_some(MissedDeletes {
            from: hole,
            until: end.max(hole + 1),
            since_ms,
            noticed_at_ms: now_ms,
            keys: None,
        })
    }
}

/// Whether tombstones that were written at this time may be gone.
fn may_be_over(since_ms: Option<i64>, now_ms: i64, delete_retention_ms: i64) -> bool {
    let Some(since_ms) = since_ms else {
        return true;
    };
    let margin_ms = MARGIN_MS.min(delete_retention_ms / 2);
    let passed_ms = now_ms.saturating_sub(since_ms);
    is_set_back(since_ms, now_ms) || passed_ms >= delete_retention_ms - margin_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF: (Uuid, Uuid) = (Uuid::nil(), Uuid::nil());
    const DAY_MS: i64 = 86_400_000;

    fn opened(position: i64, since_ms: Option<i64>) -> UpToDate {
        let mut it = UpToDate::default();
        it.begin(OF, (Some(0), position), || since_ms, None);
        it
    }

    fn is_missed(it: &UpToDate, hole: i64, now_ms: i64) -> bool {
        it.judge((hole, hole), hole + 5, now_ms, DAY_MS).is_some()
    }

    #[test]
    fn a_hole_that_is_read_in_time_hides_nothing() {
        let it = opened(10, Some(1_000));
        assert!(!is_missed(&it, 10, DAY_MS - MARGIN_MS));
        assert!(is_missed(&it, 10, DAY_MS + 1_000 - MARGIN_MS));
        assert!(is_missed(&opened(10, None), 10, 1_000), "nobody knows");
        assert!(
            is_missed(&it, 10, 1_000 - 2 * MARGIN_MS),
            "a clock that was set back tells nothing"
        );
        let missed = it.judge((10, 12), 30, 2 * DAY_MS, DAY_MS);
        let expected = MissedDeletes {
            from: 12,
            until: 30,
            since_ms: Some(1_000),
            noticed_at_ms: 2 * DAY_MS,
            keys: None,
        };
        assert_eq!(missed, Some(expected));
    }

    #[test]
    fn a_longer_life_of_tombstones_brings_none_back() {
        let mut it = opened(10, Some(1_000));
        it.note_retention(2_000, DAY_MS, Some(5_000));
        assert_eq!(
            it.least_retention(),
            Some(5_000),
            "that of the process before"
        );
        assert!(is_missed(&it, 10, 10_000));
        // Once the copy was at the end the former one decides about nothing that is to come.
        it.note_end(20, 12_000, 20);
        assert_eq!(it.least_retention(), Some(DAY_MS));
        assert!(!is_missed(&it, 20, 20_000));
        // Nor does what came and went while it was there.
        it.note_retention(30_000, 10, None);
        it.note_retention(40_000, DAY_MS, None);
        assert!(is_missed(&it, 20, 50_000));
        it.note_end(30, 60_000, 30);
        assert!(!is_missed(&it, 30, 70_000));
    }

    #[test]
    fn of_many_changes_the_shortest_is_kept() {
        let mut it = opened(10, Some(1_000));
        it.note_retention(2_000, 7, None);
        for at in 0..100 {
            it.note_retention(3_000 + at, DAY_MS + at % 2, None);
        }
        assert_eq!(it.retentions.0.len(), RETENTIONS_MAX);
        assert_eq!(it.least_retention(), Some(7));
    }

    #[test]
    fn what_is_read_first_can_hide_nothing_that_was_copied() {
        let it = opened(0, None);
        assert_eq!(it.judge((0, 5), 9, 1_000, 0), None);
        assert!(it.judge((3, 5), 9, 1_000, 0).is_some());
        let mut continued = UpToDate::default();
        continued.begin(OF, (None, 0), || None, None);
        assert!(
            continued.judge((0, 5), 9, 1_000, 0).is_some(),
            "its log has records of before"
        );
    }

    #[test]
    fn a_copy_that_keeps_up_is_never_old() {
        let mut it = opened(0, Some(0));
        for round in 1..10_000 {
            // Always some records behind.
            it.note_end(round * 10, round * 60_000, round * 10 - 5);
        }
        assert!(!is_missed(&it, 99_985, 10_000 * 60_000));
        assert_eq!(it.ahead.len(), 1);
        assert_eq!(
            it.standing(99_990),
            Standing::BehindSince(Some(9_998 * 60_000))
        );
    }

    #[test]
    fn one_that_falls_behind_grows_old_and_young_again() {
        let mut it = opened(0, Some(0));
        // A slow copy: at the end of the day it has what there was in the morning.
        let hour_ms = 3_600_000;
        for hour in 1..=48 {
            it.note_end(hour * 100, hour * hour_ms, hour);
        }
        assert!(it.ahead.len() <= AHEAD_MAX);
        assert!(is_missed(&it, 50, 48 * hour_ms), "read after two days");
        assert!(
            !is_missed(&it, 4_700, 48 * hour_ms),
            "young when it is read now"
        );
        assert!(is_missed(&it, 900, 48 * hour_ms));
        it.note_end(4_800, 49 * hour_ms, 4_800);
        assert_eq!(it.standing(4_800), Standing::AtEnd);
        assert!(!is_missed(&it, 4_800, 50 * hour_ms));
    }

    #[test]
    fn what_is_left_of_many_ends_never_makes_the_copy_younger() {
        let (mut it, mut all) = (opened(0, Some(0)), Vec::new());
        for step in 1..=1_000 {
            it.note_end(step * 7, step * 10, 0);
            all.push((step * 7, step * 10));
        }
        for hole in (1..7_000).step_by(13) {
            let truth = all.iter().rev().find(|(end, _)| *end <= hole);
            let truth = truth.map_or(0, |(_, at_ms)| *at_ms);
            let told = it
                .judge((hole, hole), 8_000, 10_000, 0)
                .expect("no retention");
            assert!(told.since_ms <= Some(truth), "{hole}: {told:?}, {truth}");
        }
    }

    #[test]
    fn an_opening_goes_on_with_what_is_known_of_the_same_copy() {
        let mut it = opened(10, Some(1_000));
        it.note_end(10, 5_000, 10);
        it.begin(OF, (Some(0), 10), || panic!("it is known"), None);
        assert_eq!(it.standing(10), Standing::AtEnd);
        assert_eq!(it.since_ms, Some(5_000));
        it.begin(OF, (Some(0), 7), || Some(3), None);
        assert_eq!(it.since_ms, Some(3), "the target lost its end");
        let other = (Uuid::max(), Uuid::nil());
        it.begin(other, (None, 20), || None, None);
        assert_eq!(it.standing(20), Standing::BehindSince(None));
        assert_eq!(UpToDate::default().standing(0), Standing::Unopened);
    }

    #[test]
    fn what_was_noticed_is_said_once() {
        let missed = opened(10, None)
            .judge((10, 10), 50, 9, DAY_MS)
            .expect("unknown is old");
        let mut it = UpToDate::default();
        it.begin(OF, (Some(0), 10), || None, Some(missed));
        assert!(!is_missed(&it, 49, 10), "known already");
        assert!(is_missed(&it, 50, 10), "and never at the end since");
        it.note_end(50, 20, 50);
        assert!(!is_missed(&it, 50, 30));
        let later = it
            .judge((60, 60), 90, 2 * DAY_MS, DAY_MS)
            .expect("another one");
        let both = missed.and(later);
        assert_eq!((both.from, both.until, both.since_ms), (10, 90, None));
    }

    #[test]
    fn a_clock_that_is_set_back_makes_the_copy_old_until_it_is_at_the_end() {
        let mut it = opened(10, Some(DAY_MS));
        it.note_end(20, 1_000, 10);
        assert!(is_missed(&it, 10, 2_000));
        it.note_end(20, 2_000, 20);
        assert!(!is_missed(&it, 20, 3_000));
    }

    #[test]
    fn an_end_that_goes_back_is_a_leader_that_does_not_know_it_yet() {
        let mut it = opened(10, Some(1_000));
        it.note_end(30, 5_000, 10);
        it.note_end(10, 9_000, 10);
        assert_eq!(it.standing(30), Standing::BehindSince(Some(1_000)));
    }
}
