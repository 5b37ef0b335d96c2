//! Where the two sides' readers meet: which ranges are being read, and the chunks that only one
//! side has read yet.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::digest::chunk_of;
use super::records::Content;
use super::scope::Place;

/// Ranges that are read at the same time, each of another partition.
pub const OPEN_MAX: usize = 8;
/// A range of no more offsets is a small one: most of its time is waiting, and it needs little memory.
const SMALL_OFFSETS: i64 = 256;
/// So many small ones are read at the same time instead of another one.
const SMALL_FOR_ONE: usize = 4;
/// How far ahead a range of a partition that isn't being read is looked for.
const LOOK_AHEAD: usize = 1_024;

/// The two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Source,
    Target,
}

impl Side {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Source => Self::Target,
            Self::Target => Self::Source,
        }
    }
}

/// Source offsets of one partition to be read on both sides.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    pub place: Arc<Place>,
    pub from: i64,
    /// The first offset not to be read; `i64::MAX` reads to the ends of the logs.
    pub to: i64,
}

impl Unit {
    /// Topic, and first and last + 1 offset, on a side.
    pub(super) fn on(&self, side: Side) -> (&str, i64, i64) {
        match side {
            Side::Source => (&self.place.topic, self.from, self.to),
            Side::Target => {
                let link = &self.place.link;
                let to = match self.to {
                    i64::MAX => i64::MAX,
                    to => link.target_floor(to),
                };
                (&self.place.target_topic, link.target_floor(self.from), to)
            }
        }
    }
}

/// Takes the unit, the chunk's number, and what the source and the target have in it; `None` for a
/// side without records.
pub(super) type Compare<'a, C> = Box<dyn FnMut(usize, i64, Option<C>, Option<C>) + Send + 'a>;

pub(super) struct Board<'a, C> {
    pub units: &'a [Unit],
    inner: Mutex<Inner<'a, C>>,
    /// Grows whenever a unit begins or ends.
    version: AtomicU64,
    cancelled: &'a AtomicBool,
    open_max: usize,
}

struct Inner<'a, C> {
    waiting: VecDeque<usize>,
    open: BTreeMap<usize, Open<C>>,
    /// Bytes of chunks that wait for the other side.
    weights: [usize; 2],
    failed: Vec<(usize, String)>,
    compare: Compare<'a, C>,
}

struct Open<C> {
    halves: [Half<C>; 2],
}

struct Half<C> {
    chunks: BTreeMap<i64, C>,
    /// All chunks before this one are here, or have no records.
    complete_to: i64,
}

impl<C> Default for Half<C> {
    fn default() -> Self {
        Self {
            chunks: BTreeMap::new(),
            complete_to: i64::MIN,
        }
    }
}

impl<'a, C: Content> Board<'a, C> {
    pub(super) fn new(
        units: &'a [Unit],
        open_max: usize,
        cancelled: &'a AtomicBool,
        compare: Compare<'a, C>,
    ) -> Self {
        let board = Self {
            units,
            inner: Mutex::new(Inner {
                waiting: (0..units.len()).collect(),
                open: BTreeMap::new(),
                weights: [0; 2],
                failed: Vec::new(),
                compare,
            }),
            version: AtomicU64::new(1),
            cancelled,
            open_max: open_max.clamp(1, OPEN_MAX),
        };
        board.begin(&mut board.inner());
        board
    }

    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// The units that this side has yet to read to their ends; `None` when all are done.
    pub(super) fn open(&self, side: Side) -> Option<Vec<usize>> {
        let inner = self.inner();
        if inner.open.is_empty() && inner.waiting.is_empty() {
            return None;
        }
        let to_read = inner
            .open
            .iter()
            .filter(|(_, open)| open.halves[side as usize].complete_to < i64::MAX);
        Some(to_read.map(|(unit, _)| *unit).collect())
    }

    /// Whether the side should wait until the other one has caught up.
    pub(super) fn is_ahead(&self, side: Side) -> bool {
        let weights = self.inner().weights;
        weights[side as usize] > C::WEIGHT_MAX
            && weights[side as usize] > weights[side.other() as usize]
    }

    /// A chunk has been read, and nothing before `complete_to` is still to come.
    pub(super) fn deliver(
        &self,
        side: Side,
        unit: usize,
        chunk: Option<(i64, C)>,
        complete_to: i64,
    ) {
        let mut inner = self.inner();
        let inner = &mut *inner;
        let Some(open) = inner.open.get_mut(&unit) else {
            return;
        };
        let half = &mut open.halves[side as usize];
        half.complete_to = complete_to;
        if let Some((number, content)) = chunk {
            inner.weights[side as usize] += content.weight();
            half.chunks.insert(number, content);
        }
        let both = open.halves[0].complete_to.min(open.halves[1].complete_to);
        while let Some(number) = open.first_chunk().filter(|number| *number < both) {
            let mut take = |side: Side| {
                let content = open.halves[side as usize].chunks.remove(&number);
                let weight = content.as_ref().map_or(0, Content::weight);
                inner.weights[side as usize] -= weight;
                content
            };
            let (source, target) = (take(Side::Source), take(Side::Target));
            (inner.compare)(unit, number, source, target);
        }
        if both == i64::MAX {
            inner.open.remove(&unit);
            self.begin(inner);
        }
    }

    /// Gives a unit up: neither side reads it any further.
    pub(super) fn fail(&self, unit: usize, reason: String) {
        let mut inner = self.inner();
        let inner = &mut *inner;
        if let Some(open) = inner.open.remove(&unit) {
            for (side, half) in open.halves.iter().enumerate() {
                let weight: usize = half.chunks.values().map(Content::weight).sum();
                inner.weights[side] -= weight;
            }
            // What waits of the same partition would stall as long, one range after the other.
            let place = &self.units[unit].place;
            let is_same = |other: &usize| Arc::ptr_eq(&self.units[*other].place, place);
            let (same, others) = inner.waiting.drain(..).partition::<VecDeque<_>, _>(is_same);
            inner.waiting = others;
            let failed = std::iter::once(unit).chain(same);
            inner
                .failed
                .extend(failed.map(|unit| (unit, reason.clone())));
            self.begin(inner);
        }
    }

    /// The units that were given up, and why.
    pub(super) fn into_failed(self) -> Vec<(usize, String)> {
        let inner = self.inner.into_inner();
        inner.unwrap_or_else(PoisonError::into_inner).failed
    }

    /// What a unit takes of what may be open, in small units.
    fn cost(&self, unit: usize) -> usize {
        let unit = &self.units[unit];
        if unit.to.saturating_sub(unit.from) <= SMALL_OFFSETS {
            1
        } else {
            SMALL_FOR_ONE
        }
    }

    fn begin(&self, inner: &mut Inner<'a, C>) {
        let mut open: usize = inner.open.keys().map(|unit| self.cost(*unit)).sum();
        while open < self.open_max * SMALL_FOR_ONE {
            let is_free = |unit: &usize| {
                let place = &self.units[*unit].place;
                !inner
                    .open
                    .keys()
                    .any(|open| Arc::ptr_eq(&self.units[*open].place, place))
            };
            let next = inner.waiting.iter().take(LOOK_AHEAD).position(is_free);
            let Some(unit) = next.and_then(|next| inner.waiting.remove(next)) else {
                break;
            };
            let halves = [Half::default(), Half::default()];
            inner.open.insert(unit, Open { halves });
            open += self.cost(unit);
        }
        self.version.fetch_add(1, Ordering::Release);
    }

    fn inner(&self) -> MutexGuard<'_, Inner<'a, C>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C> Open<C> {
    fn first_chunk(&self) -> Option<i64> {
        let first = self.halves.iter();
        first
            .filter_map(|half| half.chunks.keys().next())
            .min()
            .copied()
    }
}

/// Up to which chunk everything has been read once this source offset was.
pub(super) fn complete_to(source_offset: i64) -> i64 {
    chunk_of(source_offset)
}

#[cfg(test)]
mod tests {
    use super::super::link::Link;
    use super::super::records::Digests;
    use super::*;

    fn place(partition: i32) -> Arc<Place> {
        Arc::new(Place {
            topic: "t".to_owned(),
            target_topic: "t".to_owned(),
            partition,
            origin: 0,
            link: Link::Identical,
            is_continued: false,
            strangers: Arc::default(),
            copied_to: None,
            missed_deletes: None,
        })
    }

    #[test]
    fn a_range_that_stalls_takes_what_waits_of_its_partition_along() {
        let places = [place(0), place(1)];
        let units: Vec<Unit> = (0..10)
            .map(|number| Unit {
                place: places[number % 2].clone(),
                from: number as i64 * 1_000,
                to: number as i64 * 1_000 + 1_000,
            })
            .collect();
        let cancelled = AtomicBool::new(false);
        let ignore: Compare<'_, Digests> = Box::new(|_, _, _, _| {});
        let board = Board::new(&units, OPEN_MAX, &cancelled, ignore);
        assert_eq!(board.open(Side::Source), Some(vec![0, 1]));
        board.fail(0, "it gives no record".to_owned());
        assert_eq!(board.open(Side::Source), Some(vec![1]));
        let failed: Vec<usize> = board.into_failed().iter().map(|it| it.0).collect();
        assert_eq!(failed, [0, 2, 4, 6, 8]);
    }
}
