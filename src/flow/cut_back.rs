//! A mapped partition whose target lost the end of its log.
//!
//! An unclean election on the target takes the last records away. Where offsets are identical the log's end alone says where
//! the copy goes on. A stored map that knows more than the log has would keep such a partition stopped for good. It is cut
//! back to what is left, and the copy goes on from there, if three things agree: the leader's log ends there (not only what
//! readers see of it), the counts of our producers are those of a log that ends there, and its last records are the
//! source's, where the map says.
//!
//! The topic's record is stored first and the map behind it: a process that dies in between finds the longer map, and
//! does it again. The log's end is asked for once more right before that. A leader that is cut off from its cluster, and that we
//! reach, can still bring it about while the state topic's leader is another one: then the next opening finds records behind
//! the map's end and learns them again (`relearn`), or, where the cut went back behind the turn, the counts no longer agree and the
//! partition stops by name.

use std::ops::Range;

use super::error::Trouble;
use super::foreign::{self, Foreign};
use super::lost;
use super::position::{self, Producers, Witness, witness};
use super::relearn::{self, Logs};
use super::resume::Candidate;
use super::shared::Flow;
use super::turn::{self, Settled};
use crate::offsets::{OffsetMap, TargetOffset};
use crate::state::{MapRecord, Ranges, TopicRecord, maps};
use crate::wire::ProducerState;

/// Cuts a stored map back to the end of the target's log, if it ends behind that.
///
/// # Errors
/// [`Trouble::MapMismatch`] where it can't be told whether that is right; [`Trouble::TargetBehind`] while replicas lag.
pub(super) async fn to_log(
    flow: &Flow,
    one: &Candidate,
    logs: Logs,
    states: &[ProducerState],
) -> Result<(), Trouble> {
    let Some(settled) = flow.settled(&one.topic, one.partition) else {
        return Ok(());
    };
    let keys = flow.map_keys(&one.topic.source_topic, one.partition);
    let end = logs.target.end;
    let head = flow.store.get::<MapRecord>(keys.head())?;
    let Some(head_end) = head.map(|it| it.map.target_end().0) else {
        return Ok(());
    };
    // What others wrote is stored at once, the map some seconds behind it. Where nobody did, no record is read for it.
    let strangers_end = match settled.strangers {
        0 => 0,
        _ => foreign::known(flow, one)?.last().map_or(0, |it| it.1),
    };
    let map_end = head_end.max(strangers_end);
    if map_end <= end {
        return Ok(());
    }
    let mismatch = Trouble::MapMismatch {
        map_end,
        log_end: end,
    };
    let target = one.topic.target(one.partition);
    let lags = || Trouble::TargetBehind {
        high_watermark: end,
        written: map_end,
    };
    if !lost::ends_at(flow, &target, end).await? {
        return Err(lags());
    }
    let known = known(flow, one)?;
    let counts = Counts {
        producers: one.topic.rules.producers,
        base: one.topic.base(one.partition),
        settled,
        turned_at: known.turned_at,
    };
    let left = counts.left(states, &known.foreign, end);
    let map = maps::load(&*flow.store, &keys)?;
    let cut = map.and_then(|map| map.cut_back(TargetOffset(end)));
    let (Some(left), Some(cut)) = (left, cut) else {
        return Err(mismatch);
    };
    if !is_sources(flow, one, &cut, &logs).await? {
        return Err(mismatch);
    }
    // The comparison may have taken long, and the leader may be another one by now.
    if !lost::ends_at(flow, &target, end).await? {
        return Err(lags());
    }
    tracing::warn!(
        topic = &*one.topic.source_topic,
        partition = one.partition,
        from = end,
        to = map_end,
        "the target lost the end of its log (an unclean election there?): it is copied again from there"
    );
    if left != settled {
        turn::cut_back(flow, one, end, left.fillers).await?;
    }
    if head_end > end {
        maps::save(&flow.store, &keys, &cut).await?;
    }
    flow.note_moved(one.key());
    Ok(())
}

/// What is stored of a partition's turn.
struct Known {
    /// From where on offsets may differ.
    turned_at: i64,
    foreign: Ranges,
}

fn known(flow: &Flow, one: &Candidate) -> Result<Known, Trouble> {
    let key = flow.topic_key(&one.topic.source_topic);
    let record = flow.store.get::<TopicRecord>(&key)?;
    let turned = record.as_ref().and_then(|it| it.turned.get(&one.partition));
    Ok(Known {
        turned_at: turned.map_or(0, |it| it.from),
        foreign: foreign::known(flow, one)?,
    })
}

/// What the counts of our producers are compared with.
struct Counts {
    producers: Producers,
    /// The first offset of the target that is ours.
    base: i64,
    /// What isn't counted in the longer log.
    settled: Settled,
    turned_at: i64,
}

impl Counts {
    /// What isn't counted in a log that ends at `end`, if it can be one that was cut there. Behind the turn the number of
    /// fillers is the one that was stored; a log that ends before the turn has lost some of them.
    fn left(&self, states: &[ProducerState], foreign: &[(i64, i64)], end: i64) -> Option<Settled> {
        let strangers: i64 = within(foreign, end).iter().map(|it| it.1 - it.0).sum();
        let offsets = end - self.base - strangers;
        if offsets < 0 {
            return None;
        }
        let told = match witness(states, self.producers, offsets) {
            Witness::Agrees { fillers } => Some(fillers),
            Witness::Unknown { fillers } => {
                let knows_some = position::last_sequence(states, self.producers).is_some()
                    || position::newest_filler(states, self.producers).is_some();
                knows_some.then_some(fillers)
            }
            Witness::Behind { .. } | Witness::Longer { .. } => return None,
        };
        let stored = self.settled.fillers;
        let fillers = match told {
            _ if offsets == 0 => Some(0),
            Some(told) if end < self.turned_at => (told <= stored).then_some(told),
            Some(told) => position::is_same_count(told, stored).then_some(stored),
            None => (stored == 0 || end >= self.turned_at).then_some(stored),
        };
        fillers.map(|fillers| Settled { fillers, strangers })
    }
}

/// These ranges without what lies from `end` on.
pub(super) fn within(ranges: &[(i64, i64)], end: i64) -> Ranges {
    let cut = ranges.iter().map(|(from, to)| (*from, (*to).min(end)));
    cut.filter(|(from, to)| from < to).collect()
}

/// Whether the last records of the target are those of the source to which the map leads. Where nothing can be compared any
/// more the counts decide, if no cleaner could have taken one record among others.
async fn is_sources(
    flow: &Flow,
    one: &Candidate,
    cut: &OffsetMap,
    logs: &Logs,
) -> Result<bool, Trouble> {
    let foreign = Foreign::new(foreign::known(flow, one)?);
    let last = Range {
        start: logs.source_start,
        end: cut.source_end().0,
    };
    let compared = relearn::compare_by_map(flow, one, (cut, &foreign), logs, last).await?;
    Ok(match compared {
        Some(is_same) => is_same,
        None => {
            let is_empty = logs.target.is_empty();
            is_empty || !(one.topic.rules.source_compacted || one.topic.rules.target_compacted)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::position::producer_state;

    fn counts(fillers: i64, turned_at: i64) -> Counts {
        Counts {
            producers: Producers::first(7, 8),
            base: 0,
            settled: Settled {
                fillers,
                strangers: 7,
            },
            turned_at,
        }
    }

    fn data(last_sequence: i32) -> ProducerState {
        producer_state(7, last_sequence, -1)
    }

    fn filler(count: i32) -> ProducerState {
        producer_state(8, -1, count)
    }

    #[test]
    fn a_log_that_was_cut_has_counts_that_add_up() {
        let strangers = [(100, 107)];
        let left = |states: &[ProducerState], end| counts(3, 50).left(states, &strangers, end);
        let settled = |fillers, strangers| Some(Settled { fillers, strangers });
        // 120 offsets: 3 fillers, 7 of others, the rest are records.
        assert_eq!(left(&[data(109), filler(3)], 120), settled(3, 7));
        // Some of the strangers' went with it, or all.
        assert_eq!(left(&[data(96), filler(3)], 104), settled(3, 4));
        assert_eq!(left(&[data(86), filler(3)], 90), settled(3, 0));
        // Before the turn fillers went as well.
        assert_eq!(left(&[data(37), filler(2)], 40), settled(2, 0));
        assert_eq!(left(&[data(39)], 40), settled(0, 0));
        assert_eq!(left(&[], 0), settled(0, 0));
    }

    #[test]
    fn counts_that_do_not_add_up_cut_nothing() {
        let strangers = [(100, 107)];
        let left = |states: &[ProducerState], end| counts(3, 50).left(states, &strangers, end);
        assert_eq!(left(&[data(108), filler(3)], 120), None, "one of another");
        assert_eq!(left(&[data(110), filler(3)], 120), None, "one is missing");
        assert_eq!(left(&[data(87), filler(2)], 90), None, "behind the turn");
        assert_eq!(
            left(&[data(34), filler(5)], 40),
            None,
            "more than there were"
        );
        assert_eq!(left(&[], 40), None, "nobody knows how many are left");
        let forgotten = counts(3, 50).left(&[], &strangers, 90);
        assert_eq!(forgotten.map(|it| it.fillers), Some(3));
    }

    #[test]
    fn ranges_end_where_the_log_does() {
        assert_eq!(within(&[(1, 3), (5, 9), (12, 14)], 7), [(1, 3), (5, 7)]);
        assert_eq!(within(&[(5, 9)], 5), []);
    }
}
