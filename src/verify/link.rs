//! Where a partition's records are on the other side.

use std::sync::Arc;

use crate::offsets::{OffsetMap, SourceOffset, TargetOffset, Translation};

/// How a partition's offsets on the two sides belong together.
#[derive(Clone, Debug)]
pub enum Link {
    /// Every offset is itself.
    Identical,
    /// By a map.
    Mapped(Arc<OffsetMap>),
}

impl Link {
    /// Where a source record must be on the target; `None` when the map has no place for it.
    pub fn target_of(&self, source: i64) -> Option<i64> {
        let Self::Mapped(map) = self else {
            return Some(source);
        };
        let Translation::Exact(target) = map.translate(SourceOffset(source)) else {
            return None;
        };
        // In a hole the next record's place is given: that is not this record's.
        let back = map.reverse(target);
        (back == Translation::Exact(SourceOffset(source)) && target < map.target_end())
            .then_some(target.0)
    }

    /// Where reading on from a source offset goes on on the target: its record's place or the next
    /// one's. The map's ends are kept.
    pub fn target_of_next(&self, source: i64) -> i64 {
        let Self::Mapped(map) = self else {
            return source;
        };
        match map.translate(SourceOffset(source)) {
            Translation::Exact(target) => target.0,
            Translation::NotYetCopied { .. } => map.target_end().0,
            Translation::BeforeStart { .. } => map.target_start().0,
        }
    }

    /// The source offset that a target offset stands for, or, where it stands for none, the next
    /// one that has a place; the ends are kept.
    pub fn source_of(&self, target: i64) -> i64 {
        let Self::Mapped(map) = self else {
            return target;
        };
        match map.reverse(TargetOffset(target)) {
            Translation::Exact(source) => source.0,
            Translation::NotYetCopied { .. } => map.source_end().0,
            Translation::BeforeStart { .. } => map.source_start().0,
        }
    }

    /// Whether a target offset is the place of a source offset.
    pub fn is_place(&self, target: i64) -> bool {
        let Self::Mapped(_) = self else {
            return true;
        };
        self.target_of(self.source_of(target)) == Some(target)
    }

    /// The first target offset whose [`source_of`](Self::source_of) is at least `source`.
    pub fn target_floor(&self, source: i64) -> i64 {
        let Self::Mapped(map) = self else {
            return source;
        };
        let (mut low, mut high) = (map.target_start().0, map.target_end().0);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.source_of(middle) < source {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Source 10..15 at 100..105, 15..18 have no place, 18..20 at 107..109.
    fn mapped() -> Link {
        let mut map = OffsetMap::starting_at(SourceOffset(10), TargetOffset(100));
        map.advance(5).unwrap();
        map.push_hole(SourceOffset(15), 3).unwrap();
        map.push_copied(SourceOffset(18), TargetOffset(107), 2)
            .unwrap();
        Link::Mapped(Arc::new(map))
    }

    #[test]
    fn a_source_record_has_its_place_or_none() {
        let link = mapped();
        let places: Vec<_> = (9..21).map(|source| link.target_of(source)).collect();
        let some = |range: std::ops::Range<i64>| range.map(Some).collect::<Vec<_>>();
        let wanted = [
            vec![None],
            some(100..105),
            vec![None; 3],
            some(107..109),
            vec![None],
        ];
        assert_eq!(places, wanted.concat());
    }

    #[test]
    fn a_target_offset_that_nothing_was_put_at_belongs_to_the_next_record() {
        let link = mapped();
        let sources: Vec<_> = (104..109).map(|target| link.source_of(target)).collect();
        assert_eq!(sources, [14, 18, 18, 18, 19]);
        let is_place: Vec<_> = (104..109).map(|target| link.is_place(target)).collect();
        assert_eq!(is_place, [true, false, false, true, true]);
    }

    #[test]
    fn ranges_on_both_sides_meet() {
        let link = mapped();
        for source in 10..=20 {
            let floor = link.target_floor(source);
            for target in 100..=109 {
                assert_eq!(
                    target >= floor,
                    link.source_of(target) >= source,
                    "{source} {target}"
                );
            }
        }
        assert_eq!(Link::Identical.target_floor(7), 7);
    }
}
