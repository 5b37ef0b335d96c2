//! Which producer id and which epoch fillers have.
//!
//! A filler's producer epoch is the generation of the claim under which it was written, so that a
//! partition refuses those of older owners. A producer id has 32,767 epochs, so generations are counted
//! in *eras* of that many, and each era has an id of its own. The running numbers of a partition's
//! fillers go on across eras.
//!
//! A partition takes markers of any id. So before an owner of a new era fills with its own id, the first
//! filler in each partition is one of the era before with the last of its epochs, which no claim has:
//! behind it the partition refuses every filler of an owner of that era
//! (`ProducerAppendInfo.checkProducerEpoch`). It also is all that the target's cleaner keeps of that id.

use crate::state::{FillerRecord, StateError, StateStore, keys};
use crate::wire::ProducerState;

use super::position::{FORMER_IDS, Producers};

/// The last epoch but the coordinators' own (`TransactionMetadata.isProducerEpochExhausted`): that of the
/// filler that ends an era.
pub const CLOSING: i16 = i16::MAX - 1;
/// Generations of an era: the epochs below [`CLOSING`].
const EPOCHS: u64 = CLOSING as u64;

/// Which era a claim's generation is in.
pub fn era(generation: u64) -> u64 {
    generation / EPOCHS
}

/// The producer epoch of the fillers of a claim.
pub fn epoch(generation: u64) -> i16 {
    i16::try_from(generation % EPOCHS).unwrap_or(CLOSING)
}

/// The generation whose fillers have this epoch, in the era of another one.
pub fn beside(generation: u64, epoch: i16) -> u64 {
    era(generation) * EPOCHS + u64::try_from(epoch).unwrap_or(0).min(EPOCHS - 1)
}

/// The next generation; the last of an era stays.
pub fn next_in_era(generation: u64) -> u64 {
    let last = era(generation) * EPOCHS + EPOCHS - 1;
    (generation + 1).min(last)
}

/// The producer ids of a flow's fillers beyond the first ones.
#[derive(Clone, Debug, Default)]
pub struct Fillers {
    /// Oldest era first. Two owners that began an era at once may each have made one: the first counts,
    /// and the other is known.
    later: Vec<FillerRecord>,
}

impl Fillers {
    /// What the state topic knows.
    ///
    /// # Errors
    /// When a record can't be read.
    pub fn known(store: &StateStore, flow: &str) -> Result<Self, StateError> {
        let keys = store.keys(&keys::fillers(flow));
        let later = keys.iter().filter_map(|key| store.get(key).transpose());
        Ok(Self::of(later.collect::<Result<_, _>>()?))
    }

    fn of(mut later: Vec<FillerRecord>) -> Self {
        later.sort_by_key(|record| (record.era, record.producer_id));
        Self { later }
    }

    /// The newest era that has an id.
    pub fn era(&self) -> u64 {
        self.later.last().map_or(0, |record| record.era)
    }

    /// The producers of a log whose first fillers have the id `filler_id`.
    pub fn producers(&self, data_id: i64, filler_id: i64) -> Producers {
        let mut by_era = self.later.chunk_by(|one, other| one.era == other.era).rev();
        let id = |record: &FillerRecord| record.producer_id;
        let firsts = by_era.clone().filter_map(|era| era.first().map(id));
        let others = by_era.by_ref().flat_map(|era| era.iter().skip(1).map(id));
        let mut ids = firsts.chain([filler_id]).chain(others);
        let newest = ids.next().unwrap_or(filler_id);
        let mut former_filler_ids = [None; FORMER_IDS];
        for (slot, id) in former_filler_ids.iter_mut().zip(ids) {
            *slot = Some(id);
        }
        Producers {
            data_id,
            filler_id: newest,
            former_filler_ids,
        }
    }

    /// The epoch with which whoever takes the claim without an id for its era bars its former owner.
    pub fn barring_epoch(&self, generation: u64) -> i16 {
        match era(generation) == self.era() {
            true => epoch(generation),
            false => CLOSING,
        }
    }
}

/// The id of the era before whose fillers a partition still takes.
pub fn to_close(states: &[ProducerState], producers: Producers) -> Option<i64> {
    let state = |id: i64| states.iter().find(|state| state.producer_id == id);
    let former = producers.former_filler_ids[0]?;
    let is_closed = state(former).is_some_and(|it| it.producer_epoch == i32::from(CLOSING));
    (state(producers.filler_id).is_none() && !is_closed).then_some(former)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::position::producer_state;

    fn record(era: u64, producer_id: i64) -> FillerRecord {
        FillerRecord {
            v: 1,
            era,
            producer_id,
        }
    }

    fn state(producer_id: i64, producer_epoch: i16) -> ProducerState {
        ProducerState {
            producer_epoch: producer_epoch.into(),
            ..producer_state(producer_id, -1, 5)
        }
    }

    #[test]
    fn an_era_has_every_epoch_but_the_last() {
        assert_eq!((era(0), epoch(0)), (0, 0));
        assert_eq!((era(32_765), epoch(32_765)), (0, 32_765));
        assert_eq!((era(32_766), epoch(32_766)), (1, 0));
        assert_eq!((era(65_532), epoch(65_533)), (2, 1));
        assert_eq!((beside(70_000, 9), epoch(beside(70_000, 9))), (65_541, 9));
        assert_eq!((next_in_era(4), next_in_era(32_765)), (5, 32_765));
        assert!((0..100_000).all(|generation| (0..CLOSING).contains(&epoch(generation))));
    }

    #[test]
    fn the_newest_era_fills_and_all_ids_are_known() {
        let first = Fillers::default();
        assert_eq!(first.producers(1, 7), Producers::first(1, 7));
        let later = Fillers::of(vec![record(2, 31), record(1, 22), record(1, 21)]);
        assert_eq!(later.era(), 2);
        let producers = later.producers(1, 7);
        assert_eq!(producers.filler_id, 31);
        let former: Vec<i64> = producers.former_filler_ids.into_iter().flatten().collect();
        assert_eq!(former, [21, 7, 22], "what is closed comes first");
        assert!([31, 21, 7, 22].iter().all(|id| producers.is_filler(*id)));
        assert!(!producers.is_filler(1) && !producers.is_filler(-1));
    }

    #[test]
    fn the_era_before_is_closed_once() {
        let producers = Fillers::of(vec![record(1, 21)]).producers(1, 7);
        assert_eq!(to_close(&[state(7, 32_765)], producers), Some(7));
        // Whoever was silent until now may still be there.
        assert_eq!(to_close(&[], producers), Some(7));
        assert_eq!(to_close(&[state(7, CLOSING)], producers), None);
        assert_eq!(to_close(&[state(21, 0)], producers), None);
        assert_eq!(to_close(&[state(7, 3)], Producers::first(1, 7)), None);
    }

    #[test]
    fn without_an_id_of_its_own_era_a_cut_over_closes_the_last_one() {
        let fillers = Fillers::of(vec![record(1, 21)]);
        assert_eq!(fillers.barring_epoch(32_770), 4);
        assert_eq!(fillers.barring_epoch(65_532), CLOSING);
        assert_eq!(Fillers::default().barring_epoch(9), 9);
    }
}
