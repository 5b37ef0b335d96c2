//! Which offsets of a partition can be compared. Pure.

use std::ops::Range;

use super::link::Link;
use super::scope::Place;

/// Where a partition's logs begin and end on both sides; the ends are the last stable offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Logs {
    pub source: (i64, i64),
    pub target: (i64, i64),
}

/// What can be compared, in source offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// What both sides should have.
    pub range: Range<i64>,
    /// Offsets before it that only one side has.
    pub not_comparable: i64,
    /// Of these, those that the source still has and the target's log once had.
    pub lost: Range<i64>,
    /// Source offsets before the copy's beginning.
    pub before: i64,
    /// Source offsets that aren't copied yet.
    pub lag: i64,
    /// Target offsets after those of everything that the source has.
    pub beyond: Option<Range<i64>>,
}

impl Span {
    pub(super) fn of(place: &Place, logs: Logs) -> Self {
        let (source_start, source_end) = logs.source;
        let (target_start, target_end) = logs.target;
        let (first, copied_end, should_end, beyond) = match &place.link {
            Link::Identical => {
                // What is known to have been copied must be there, wherever the target's log ends.
                let known = place.copied_to.unwrap_or(0).min(source_end);
                let beyond = (target_end > source_end).then_some(source_end..target_end);
                (place.origin, target_end, target_end.max(known), beyond)
            }
            Link::Mapped(map) => {
                let (end, target) = (map.source_end().0, map.target_end().0);
                let beyond = (target_end > target).then_some(target..target_end);
                (map.source_start().0, end, end, beyond)
            }
        };
        let target_start = begins_at(place, first.max(source_start), target_start);
        let from = first.max(source_start).max(target_start);
        let one_side_from = first.max(source_start.min(target_start));
        let to = should_end.min(source_end).max(from);
        let lost_from = first.max(source_start);
        let lost_to = target_start.min(source_end).max(lost_from);
        Self {
            lost: lost_from..lost_to,
            before: (first.min(source_end) - source_start).max(0),
            range: from..to,
            not_comparable: (from.min(source_end.max(should_end)) - one_side_from).max(0),
            lag: (source_end - copied_end.max(source_start).max(first)).max(0),
            beyond,
        }
    }
}

/// Where the target's log begins, in source offsets. Where it has the place of all that the source has from `wanted`
/// on, holes before the first record are none that it lacks.
fn begins_at(place: &Place, wanted: i64, target_start: i64) -> i64 {
    let begins = place.link.source_of(target_start);
    match target_start <= place.link.target_floor(wanted) {
        true => begins.min(wanted),
        false => begins,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offsets::{OffsetMap, SourceOffset, TargetOffset};
    use std::sync::Arc;

    fn place(origin: i64, link: Link) -> Place {
        Place {
            missed_deletes: None,
            topic: "t".to_owned(),
            target_topic: "t".to_owned(),
            partition: 0,
            origin,
            is_continued: false,
            link,
            copied_to: None,
            strangers: Arc::default(),
        }
    }

    /// Without what [`what_only_the_source_has_is_told`] is about.
    fn of(place: &Place, logs: Logs) -> Span {
        Span {
            lost: 0..0,
            before: 0,
            ..Span::of(place, logs)
        }
    }

    fn identical(source: (i64, i64), target: (i64, i64)) -> Span {
        of(&place(0, Link::Identical), Logs { source, target })
    }

    #[test]
    fn what_only_the_source_has_is_told() {
        let told = |origin, source, target| {
            let span = Span::of(&place(origin, Link::Identical), Logs { source, target });
            (span.before, span.lost.end - span.lost.start)
        };
        assert_eq!(told(0, (0, 100), (0, 100)), (0, 0));
        // A head that was deleted on the target alone, all of it too.
        assert_eq!(told(0, (0, 100), (90, 100)), (0, 90));
        assert_eq!(told(0, (0, 100), (100, 100)), (0, 100));
        // On both, and on the source alone.
        assert_eq!(told(0, (90, 100), (90, 100)), (0, 0));
        assert_eq!(told(0, (90, 100), (0, 100)), (0, 0));
        // Begun late, and then lost.
        assert_eq!(told(50, (10, 100), (50, 100)), (40, 0));
        assert_eq!(told(50, (10, 100), (70, 100)), (40, 20));
    }

    fn span(range: Range<i64>, not_comparable: i64, lag: i64) -> Span {
        Span {
            lost: 0..0,
            before: 0,
            range,
            not_comparable,
            lag,
            beyond: None,
        }
    }

    #[test]
    fn what_is_not_copied_yet_is_lag() {
        assert_eq!(identical((0, 100), (0, 100)), span(0..100, 0, 0));
        assert_eq!(identical((0, 100), (0, 60)), span(0..60, 0, 40));
        assert_eq!(identical((0, 0), (0, 0)), span(0..0, 0, 0));
    }

    #[test]
    fn what_retention_took_on_one_side_is_not_compared() {
        assert_eq!(identical((30, 100), (0, 100)), span(30..100, 30, 0));
        assert_eq!(identical((0, 100), (30, 90)), span(30..90, 30, 10));
        assert_eq!(identical((30, 100), (30, 100)), span(30..100, 0, 0));
        assert_eq!(identical((100, 100), (0, 100)), span(100..100, 100, 0));
    }

    #[test]
    fn a_copy_that_begins_late_is_compared_from_there() {
        let logs = |target| Logs {
            source: (10, 100),
            target,
        };
        let late = place(50, Link::Identical);
        assert_eq!(of(&late, logs((50, 100))), span(50..100, 0, 0));
        // While the prefix is being burned nothing is copied.
        assert_eq!(of(&late, logs((0, 20))), span(50..50, 0, 50));
    }

    #[test]
    fn a_target_that_lost_what_it_had_is_compared_to_where_it_was() {
        let mut known = place(0, Link::Identical);
        known.copied_to = Some(80);
        let logs = Logs {
            source: (0, 100),
            target: (0, 60),
        };
        assert_eq!(of(&known, logs).range, 0..80);
    }

    #[test]
    fn a_target_that_goes_on_where_the_source_ends_is_seen() {
        assert_eq!(identical((0, 50), (0, 52)).beyond, Some(50..52));
    }

    #[test]
    fn a_map_says_what_belongs_together() {
        let mut map = OffsetMap::starting_at(SourceOffset(10), TargetOffset(0));
        map.advance(40).unwrap();
        let mapped = place(10, Link::Mapped(Arc::new(map)));
        let logs = |target| Logs {
            source: (15, 70),
            target,
        };
        assert_eq!(of(&mapped, logs((0, 40))), span(15..50, 5, 20));
        assert_eq!(of(&mapped, logs((8, 40))), span(18..50, 3, 20));
        assert_eq!(of(&mapped, logs((0, 45))).beyond, Some(40..45));
    }

    #[test]
    fn a_hole_at_the_beginning_is_nothing_that_a_mapped_copy_lacks() {
        let mut map = OffsetMap::starting_at(SourceOffset(0), TargetOffset(0));
        map.push_hole(SourceOffset(0), 2).unwrap();
        map.advance(10).unwrap();
        let mapped = place(0, Link::Mapped(Arc::new(map)));
        let span = |target_start| {
            let logs = Logs {
                source: (0, 12),
                target: (target_start, 10),
            };
            Span::of(&mapped, logs)
        };
        assert_eq!((span(0).lost, span(0).range), (0..0, 0..12));
        assert_eq!(span(0).not_comparable, 0);
        assert_eq!((span(3).lost, span(3).range), (0..5, 5..12));
    }
}
