//! Where a partition stands, and the arithmetic that makes the target log the checkpoint.
//!
//! A mirror partition is written by two producer ids only: the flow's *data* producer and its
//! *filler* producer (empty end markers). Both keep a running count on the broker:
//!
//! - the data producer's sequence: `base_sequence = (target offset - base - fillers so far) mod 2^31`,
//!   where `base` is the first offset that is ours (not 0 only in a log that was continued behind
//!   somebody else's records);
//! - the filler's `coordinator_epoch`: the number of fillers so far. The broker keeps the last one
//!   per partition (`ProducerAppendInfo.appendEndTxnMarker`), refuses a lower one, and returns it
//!   in `DescribeProducers`.
//!
//! So `base + last_sequence + 1 + fillers == log end (mod 2^31)` holds after every append of ours, and
//! breaks with every append of anybody else's. No local state, no scan of the log.

use super::fill;
use crate::wire::ProducerState;

/// Sequences wrap from 2^31 - 1 to 0 (`DefaultRecordBatch.incrementSequence`).
const SEQUENCE_MASK: i64 = 0x7fff_ffff;

/// Replicas lag by no more records than this: all requests of a lane, full of one partition's records of a
/// byte each.
const BEHIND_MAX: i64 = 1 << 28;

/// So many former filler ids are known. An era lasts more than half a year; brokers have forgotten the
/// producers of older ones, and a log that ends with their markers is a quiet one.
pub const FORMER_IDS: usize = 8;

/// The producer ids of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Producers {
    /// Writes records. Always epoch 0: a second writer with the same state is deduplicated.
    pub data_id: i64,
    /// Writes invisible end markers.
    pub filler_id: i64,
    /// Wrote them before, newest first ([`super::fillers`]).
    pub former_filler_ids: [Option<i64>; FORMER_IDS],
}

impl Producers {
    /// Of a flow whose fillers have had one id so far.
    pub const fn first(data_id: i64, filler_id: i64) -> Self {
        Self {
            data_id,
            filler_id,
            former_filler_ids: [None; FORMER_IDS],
        }
    }

    /// The ids of fillers, newest first.
    pub fn filler_ids(self) -> impl Iterator<Item = i64> {
        [Some(self.filler_id)]
            .into_iter()
            .chain(self.former_filler_ids)
            .flatten()
    }

    /// Whether a producer is one of fillers.
    pub fn is_filler(self, producer_id: i64) -> bool {
        self.filler_ids().any(|id| id == producer_id)
    }

    /// Whether a producer is ours.
    pub fn is_ours(self, producer_id: i64) -> bool {
        self.data_id == producer_id || self.is_filler(producer_id)
    }
}

/// The next thing to copy and where it goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The next source offset.
    pub source: i64,
    /// The target offset that it gets.
    pub target: i64,
    /// Fillers written to this target partition so far.
    pub fillers: i64,
    /// The first target offset that is ours: from here on sequences and fillers are counted.
    pub base: i64,
    /// True when holes are skipped (a map) instead of filled (the same offsets).
    pub mapped: bool,
    /// Fillers since the opening beyond what the records are worth (`fill`).
    pub debt: i64,
    /// A hole that isn't filled comes next: nothing moves until the partition is opened again.
    pub halted: bool,
}

impl Position {
    /// The data producer's sequence for a record at the target position.
    pub fn sequence(&self) -> i32 {
        sequence(self.target - self.base, self.fillers)
    }

    /// Moves past `count` records.
    pub fn copied(&mut self, source_next: i64, count: i64) {
        self.source = source_next;
        self.target += count;
        self.debt = fill::after_records(self.debt, count);
    }

    /// Moves past `count` offsets that have no record.
    pub fn passed_hole(&mut self, count: i64) {
        self.source += count;
        if !self.mapped {
            self.target += count;
            self.fillers += count;
            self.debt = fill::after_fill(self.debt, count);
        }
    }
}

/// Whether two numbers of fillers are the same, as far as brokers count.
pub fn is_same_count(one: i64, other: i64) -> bool {
    (one - other) & SEQUENCE_MASK == 0
}

/// The running number of the newest filler that the leader knows.
pub fn newest_filler(states: &[ProducerState], producers: Producers) -> Option<i32> {
    filler_state(states, producers).map(|it| it.coordinator_epoch)
}

/// What the leader knows of the newest filler: a newer id has the higher numbers.
fn filler_state(states: &[ProducerState], producers: Producers) -> Option<&ProducerState> {
    let state = |id: i64| states.iter().find(|state| state.producer_id == id);
    producers.filler_ids().find_map(state)
}

/// The newest producer epoch of a filler that the leader knows: it refuses a lower one.
pub fn filler_epoch(states: &[ProducerState], producers: Producers) -> i16 {
    let filler = |state: &&ProducerState| state.producer_id == producers.filler_id;
    let epoch = states.iter().find(filler).map(|it| it.producer_epoch);
    epoch.and_then(|it| i16::try_from(it).ok()).unwrap_or(0)
}

/// The newest record time of the data producer's last batch, ms since 1970, if the leader knows that
/// producer's sequence.
pub fn appended_timestamp_ms(states: &[ProducerState], producers: Producers) -> Option<i64> {
    let data =
        |state: &&ProducerState| state.producer_id == producers.data_id && state.last_sequence >= 0;
    states
        .iter()
        .find(data)
        .map(|state| state.last_timestamp_ms)
}

/// The data producer's last sequence, if the leader knows it.
pub fn last_sequence(states: &[ProducerState], producers: Producers) -> Option<i32> {
    let data =
        |state: &&ProducerState| state.producer_id == producers.data_id && state.last_sequence >= 0;
    states.iter().find(data).map(|state| state.last_sequence)
}

/// The sequence that is `count` behind this one.
pub fn next_sequence(sequence: i32, count: i32) -> i32 {
    // The mask leaves 31 bits, which always fit.
    ((i64::from(sequence) + i64::from(count)) & SEQUENCE_MASK) as i32
}

/// `one - other` in the ring of sequences, nearest to zero.
pub fn count_difference(one: i64, other: i64) -> i64 {
    let ring = (one - other) & SEQUENCE_MASK;
    match ring > SEQUENCE_MASK / 2 {
        true => ring - SEQUENCE_MASK - 1,
        false => ring,
    }
}

fn sequence(target: i64, fillers: i64) -> i32 {
    // The mask leaves 31 bits, which always fit.
    ((target - fillers) & SEQUENCE_MASK) as i32
}

/// What the producer states of a partition say about its log end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Witness {
    /// Both counts agree with the log end. The number of fillers.
    Agrees {
        /// Fillers so far.
        fillers: i64,
    },
    /// More was written than readers can see: replicas are catching up.
    Behind {
        /// The log end that the counts imply.
        written: i64,
    },
    /// The log is longer than what we wrote.
    Longer {
        /// The log end that the counts imply.
        written: i64,
    },
    /// A count has expired (`producer.id.expiration.ms`): only the tail can tell.
    Unknown {
        /// Fillers, as implied by what is known.
        fillers: i64,
    },
}

/// Compares the producer states with the target's end offset, both counted from the first offset
/// that is ours.
pub fn witness(states: &[ProducerState], producers: Producers, end: i64) -> Witness {
    let data = states
        .iter()
        .find(|state| state.producer_id == producers.data_id && state.last_sequence >= 0);
    let filler = filler_state(states, producers);
    match (data, filler) {
        (None, None) => Witness::Unknown { fillers: 0 },
        // The number of fillers is below 2^31, so it is all there: they may outnumber what readers can
        // see. Else the filler's count fixes the sequence.
        (None, Some(filler)) => match i64::from(filler.coordinator_epoch) {
            fillers if fillers > end => Witness::Behind { written: fillers },
            fillers => Witness::Unknown { fillers },
        },
        (Some(data), filler) => {
            let fillers = filler.map_or(0, |filler| i64::from(filler.coordinator_epoch));
            let records = i64::from(data.last_sequence) + 1;
            match distance(end, records + fillers) {
                0 => Witness::Agrees { fillers },
                less if less < 0 => Witness::Behind {
                    written: end - less,
                },
                more if filler.is_some() => Witness::Longer {
                    written: end - more,
                },
                // Fillers of the past whose count has expired, or a stranger: the tail decides.
                more => Witness::Unknown { fillers: more },
            }
        }
    }
}

/// `end - count` in the ring of sequences. What is missing in the count, fillers that the broker has
/// forgotten or a stranger's records, can be as much as the whole log. What readers can't see yet is what
/// was on its way at once.
pub fn distance(end: i64, count: i64) -> i64 {
    let ring = (end - count) & SEQUENCE_MASK;
    let behind = SEQUENCE_MASK + 1 - ring;
    match ring > end || behind <= BEHIND_MAX {
        true => -behind,
        false => ring,
    }
}

/// What a leader knows of a producer, for tests.
#[cfg(test)]
pub(super) fn producer_state(
    producer_id: i64,
    last_sequence: i32,
    coordinator_epoch: i32,
) -> ProducerState {
    ProducerState {
        producer_id,
        producer_epoch: 0,
        last_sequence,
        last_timestamp_ms: 0,
        coordinator_epoch,
        current_txn_start_offset: -1,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PRODUCERS: Producers = Producers::first(7, 8);

    fn data(last_sequence: i32) -> ProducerState {
        producer_state(7, last_sequence, -1)
    }

    fn filler(count: i32) -> ProducerState {
        producer_state(8, -1, count)
    }

    #[test]
    fn counts_that_add_up_agree() {
        assert_eq!(
            witness(&[data(9), filler(5)], PRODUCERS, 15),
            Witness::Agrees { fillers: 5 }
        );
        assert_eq!(
            witness(&[data(9)], PRODUCERS, 10),
            Witness::Agrees { fillers: 0 }
        );
    }

    #[test]
    fn a_stranger_and_a_lagging_replica_are_told_apart() {
        assert_eq!(
            witness(&[data(9), filler(5)], PRODUCERS, 18),
            Witness::Longer { written: 15 }
        );
        assert_eq!(
            witness(&[data(9), filler(5)], PRODUCERS, 12),
            Witness::Behind { written: 15 }
        );
    }

    #[test]
    fn a_log_of_fillers_alone_can_lag_too() {
        assert_eq!(
            witness(&[filler(5)], PRODUCERS, 3),
            Witness::Behind { written: 5 }
        );
        assert_eq!(
            witness(&[filler(5)], PRODUCERS, 5),
            Witness::Unknown { fillers: 5 }
        );
    }

    #[test]
    fn fillers_are_counted_on_under_a_new_id() {
        let mut producers = Producers::first(7, 9);
        producers.former_filler_ids[0] = Some(8);
        let newer = producer_state(9, -1, 6);
        for states in [
            vec![data(9), filler(6)],
            vec![data(9), filler(5), newer],
            vec![data(9), newer],
        ] {
            let agrees = Witness::Agrees { fillers: 6 };
            assert_eq!(witness(&states, producers, 16), agrees);
        }
        // The epoch is each id's own.
        assert_eq!(filler_epoch(&[filler(5)], producers), 0);
    }

    #[test]
    fn sequences_wrap() {
        let end = (1_i64 << 31) + 5;
        let position = Position {
            source: end,
            target: end,
            fillers: 0,
            base: 0,
            ..Position::default()
        };
        assert_eq!(position.sequence(), 5);
        assert_eq!(
            witness(&[data(4)], PRODUCERS, end),
            Witness::Agrees { fillers: 0 }
        );
    }

    #[test]
    fn a_continued_log_is_counted_from_its_base() {
        let position = Position {
            source: 107,
            target: 107,
            fillers: 2,
            base: 100,
            ..Position::default()
        };
        assert_eq!(position.sequence(), 5);
        assert_eq!(
            witness(&[data(4), filler(2)], PRODUCERS, 107 - position.base),
            Witness::Agrees { fillers: 2 }
        );
    }

    proptest! {
        #[test]
        fn counts_are_told_apart_up_to_the_last_one(
            records in 1_i64..1 << 34,
            fillers in 0_i64..1 << 31,
            lag in 1_i64..1 << 20,
        ) {
            let known = data(((records - 1) & SEQUENCE_MASK) as i32);
            let end = records + fillers;
            let counted = filler(fillers as i32);
            prop_assert_eq!(witness(&[known, counted], PRODUCERS, end), Witness::Agrees { fillers });
            prop_assert_eq!(witness(&[counted], PRODUCERS, end), Witness::Unknown { fillers });
            // Forgotten fillers: however many, where the log has no more offsets than there are sequences.
            let is_sure = end <= SEQUENCE_MASK - BEHIND_MAX || fillers < SEQUENCE_MASK - BEHIND_MAX;
            let expected = match fillers {
                0 => Witness::Agrees { fillers },
                fillers => Witness::Unknown { fillers },
            };
            prop_assert!(!is_sure || witness(&[known], PRODUCERS, end) == expected);
            // Replicas that lag, also behind a log that is longer than the ring.
            let seen = (end - lag).max(0);
            if seen < end {
                let behind = Witness::Behind { written: end };
                prop_assert_eq!(witness(&[known, counted], PRODUCERS, seen), behind);
                if fillers == 0 {
                    prop_assert_eq!(witness(&[known], PRODUCERS, seen), behind);
                }
            }
        }
    }

    #[test]
    fn a_log_of_many_records_does_not_lag_behind_its_fillers() {
        let end = (3 << 29) + 5;
        assert_eq!(
            witness(&[filler(5)], PRODUCERS, end),
            Witness::Unknown { fillers: 5 }
        );
    }

    #[test]
    fn an_expired_count_is_not_guessed() {
        assert_eq!(
            witness(&[data(9)], PRODUCERS, 12),
            Witness::Unknown { fillers: 2 }
        );
        assert_eq!(witness(&[], PRODUCERS, 12), Witness::Unknown { fillers: 0 });
    }
}
