//! What became of every record. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::reader::Read;
use super::writer::Written;

/// The account of a rehearsal's own records.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// Acknowledged by the source before the cut.
    pub acknowledged_before: u64,
    /// Acknowledged by the standby after it.
    pub acknowledged_after: u64,
    /// Of those before the cut, not on the standby.
    pub lost: u64,
    /// From the acknowledgement of the oldest of these to the cut, or to the last acknowledgement
    /// where that came later, seconds.
    pub lost_seconds: f64,
    /// On the standby more than once.
    pub doubled: u64,
    /// On the standby and never read by the group.
    pub skipped: u64,
    /// Read by the group on both clusters.
    pub read_again: u64,
    /// Read by the group on the source, and on the standby.
    pub read: (u64, u64),
}

/// Makes the account. `on_standby` are the numbers of all records there, in any order; `cut_ms` is
/// when the source stopped counting.
pub fn account(
    before: &Written,
    after: &Written,
    on_standby: &[u64],
    read_before: &[Read],
    read_after: &[Read],
    cut_ms: i64,
) -> Account {
    let mut times: HashMap<u64, u64> = HashMap::new();
    for number in on_standby {
        *times.entry(*number).or_default() += 1;
    }
    let lost: BTreeMap<u64, i64> = before
        .acked
        .iter()
        .filter(|(number, _)| !times.contains_key(number))
        .map(|(number, acked)| (*number, acked.at_ms))
        .collect();
    let oldest = lost.values().min();
    let until_ms = before.last_ms().map_or(cut_ms, |last| last.max(cut_ms));
    let numbers = |read: &[Read]| read.iter().map(|it| it.number).collect::<BTreeSet<u64>>();
    let (first, second) = (numbers(read_before), numbers(read_after));
    let is_read = |number: &&u64| first.contains(number) || second.contains(number);
    Account {
        acknowledged_before: before.acked.len() as u64,
        acknowledged_after: after.acked.len() as u64,
        lost: lost.len() as u64,
        lost_seconds: oldest.map_or(0.0, |at| (until_ms - at) as f64 / 1_000.0),
        doubled: times.values().filter(|times| **times > 1).count() as u64,
        skipped: times.keys().filter(|number| !is_read(number)).count() as u64,
        read_again: second.intersection(&first).count() as u64,
        read: (first.len() as u64, second.len() as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::super::writer::Acked;
    use super::*;

    fn written(numbers: std::ops::Range<u64>) -> Written {
        let acked = numbers.map(|number| {
            let offset = i64::try_from(number).unwrap_or(0);
            let acked = Acked {
                partition: 0,
                offset,
                at_ms: offset * 100,
            };
            (number, acked)
        });
        Written {
            acked: acked.collect(),
            ..Written::default()
        }
    }

    fn read(numbers: std::ops::Range<u64>) -> Vec<Read> {
        numbers.map(|number| Read { number, at_ms: 0 }).collect()
    }

    #[test]
    fn nothing_is_wrong_when_everything_is_there_and_read_once() {
        let on_standby: Vec<u64> = (0..15).collect();
        let account = account(
            &written(0..10),
            &written(10..15),
            &on_standby,
            &read(0..7),
            &read(7..15),
            1_000,
        );
        let expected = Account {
            acknowledged_before: 10,
            acknowledged_after: 5,
            read: (7, 8),
            ..Account::default()
        };
        assert_eq!(account, expected);
    }

    #[test]
    fn what_is_missing_doubled_skipped_and_read_again_is_counted() {
        let mut on_standby: Vec<u64> = (0..8).chain(10..15).collect();
        on_standby.push(3);
        let account = account(
            &written(0..10),
            &written(10..15),
            &on_standby,
            &read(0..7),
            &read(5..14),
            1_200,
        );
        assert_eq!(account.lost, 2);
        // Number 8 was acknowledged at 800 ms.
        assert!((account.lost_seconds - 0.4).abs() < 1e-9, "{account:?}");
        assert_eq!(account.doubled, 1);
        assert_eq!(account.skipped, 1, "number 14");
        assert_eq!(account.read_again, 2, "numbers 5 and 6");
    }

    #[test]
    fn what_was_acknowledged_after_the_cut_is_a_loss_as_well() {
        // Number 8 at 800 ms, number 9 at 900 ms, the cut at 750 ms.
        let on_standby: Vec<u64> = (0..8).collect();
        let account = account(
            &written(0..10),
            &Written::default(),
            &on_standby,
            &[],
            &[],
            750,
        );
        assert_eq!(account.lost, 2);
        assert!((account.lost_seconds - 0.1).abs() < 1e-9, "{account:?}");
    }

    #[test]
    fn a_record_without_an_answer_may_be_there() {
        // Sent, copied, and the answer was lost: neither lost nor doubled.
        let account = account(
            &written(0..3),
            &Written::default(),
            &[0, 1, 2, 3],
            &read(0..4),
            &[],
            0,
        );
        assert_eq!((account.lost, account.doubled, account.skipped), (0, 0, 0));
    }
}
