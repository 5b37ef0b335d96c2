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

/// The two producer ids of a flow, and the filler's epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Producers {
    /// Writes records. Always epoch 0: a second writer with the same state is deduplicated.
    pub data_id: i64,
    /// Writes invisible end markers.
    pub filler_id: i64,
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
    /// Fillers since the opening beyond what the records are worth ([`fill`]).
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
    let filler = |state: &&ProducerState| state.producer_id == producers.filler_id;
    states.iter().find(filler).map(|it| it.coordinator_epoch)
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

/// `one - other` as far as brokers count.
pub fn count_difference(one: i64, other: i64) -> i64 {
    signed_difference(one, other)
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
    let filler = states
        .iter()
        .find(|state| state.producer_id == producers.filler_id);
    match (data, filler) {
        (None, None) => Witness::Unknown { fillers: 0 },
        // Fillers alone already outnumber what readers can see.
        (None, Some(filler)) if signed_difference(end, i64::from(filler.coordinator_epoch)) < 0 => {
            Witness::Behind {
                written: end - signed_difference(end, i64::from(filler.coordinator_epoch)),
            }
        }
        // Without data of ours still known, the filler's count fixes the sequence.
        (None, Some(filler)) => Witness::Unknown {
            fillers: i64::from(filler.coordinator_epoch),
        },
        (Some(data), filler) => {
            let fillers = filler.map_or(0, |filler| i64::from(filler.coordinator_epoch));
            let records = i64::from(data.last_sequence) + 1;
            let difference = signed_difference(end, records + fillers);
            match difference {
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

/// `end - count` in the ring of sequences, nearest to zero.
fn signed_difference(end: i64, count: i64) -> i64 {
    let ring = (end - count) & SEQUENCE_MASK;
    if ring > SEQUENCE_MASK / 2 {
        ring - SEQUENCE_MASK - 1
    } else {
        ring
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRODUCERS: Producers = Producers {
        data_id: 7,
        filler_id: 8,
    };

    fn data(last_sequence: i32) -> ProducerState {
        state(7, last_sequence, -1)
    }

    fn filler(count: i32) -> ProducerState {
        state(8, -1, count)
    }

    fn state(producer_id: i64, last_sequence: i32, coordinator_epoch: i32) -> ProducerState {
        ProducerState {
            producer_id,
            producer_epoch: 0,
            last_sequence,
            last_timestamp_ms: 0,
            coordinator_epoch,
            current_txn_start_offset: -1,
        }
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

    #[test]
    fn an_expired_count_is_not_guessed() {
        assert_eq!(
            witness(&[data(9)], PRODUCERS, 12),
            Witness::Unknown { fillers: 2 }
        );
        assert_eq!(witness(&[], PRODUCERS, 12), Witness::Unknown { fillers: 0 });
    }
}
