//! A map from parts that nobody vouches for.

use std::collections::VecDeque;

use super::run::{Order, Pair, split};
use super::segment::Segment;
use super::{OffsetMap, Run};

/// Takes in the parts in order and checks each.
pub(super) struct Builder {
    map: OffsetMap,
    order: Order,
}

impl Builder {
    pub(super) fn new(start: Pair, segment_runs: usize) -> Self {
        Self {
            map: OffsetMap {
                source_start: start.0,
                target_start: start.1,
                source_end: start.0,
                target_end: start.1,
                first_segment: 0,
                closed: VecDeque::new(),
                open: Vec::new(),
                segment_runs,
            },
            order: Order::from(start),
        }
    }

    /// Takes in the closed segments: each begins where the one before ended, and the oldest is not
    /// wholly before the map's start.
    pub(super) fn close(
        &mut self,
        first: u64,
        segments: VecDeque<Segment>,
    ) -> Result<(), &'static str> {
        let count = segments.len() as u64;
        first.checked_add(count).ok_or("too many segments")?;
        self.map.first_segment = first;
        let Some(oldest) = segments.front() else {
            return Ok(());
        };
        check_start(oldest, self.map.start())?;
        let mut end = oldest.base();
        for segment in &segments {
            if segment.base() != end {
                return Err("two segments don't join");
            }
            end = segment.ends();
        }
        self.order = Order::behind(end);
        self.map.closed = segments;
        Ok(())
    }

    /// Where the closed segments end, or the map begins.
    pub(super) fn end(&self) -> Pair {
        self.map.closed_end()
    }

    pub(super) fn push(&mut self, run: Run) -> Result<(), &'static str> {
        self.order.next(&run)?;
        self.map.append(run);
        Ok(())
    }

    pub(super) fn finish(mut self, end: Pair) -> Result<OffsetMap, &'static str> {
        if self.map.source_start.0 < 0 || self.map.target_start.0 < 0 {
            return Err("an offset is negative");
        }
        self.order.end(end.0.0, end.1.0)?;
        (self.map.source_end, self.map.target_end) = end;
        Ok(self.map)
    }
}

/// A map may begin inside its oldest segment, but only between two runs, or in one at the same
/// place on both sides.
fn check_start(oldest: &Segment, start: Pair) -> Result<(), &'static str> {
    let is_gone = |ends: Pair| ends.0 <= start.0 && ends.1 <= start.1;
    let (_, left) = split(oldest.runs(), is_gone);
    let run = left.ok_or("the oldest segment is before the start")?;
    let cut = run.before(start);
    let rest = run.without(cut);
    if cut > 0 && (rest.len == 0 || (rest.source_start, rest.target_start) != start) {
        return Err("the map doesn't begin at a place that both sides have");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offsets::{SourceOffset, TargetOffset};

    fn pair(source: i64, target: i64) -> Pair {
        (SourceOffset(source), TargetOffset(target))
    }

    #[test]
    fn no_offset_is_negative_on_either_side() {
        for start in [pair(-1, 0), pair(0, -1), pair(-1, -1)] {
            assert!(Builder::new(start, 4).finish(start).is_err(), "{start:?}");
        }
        let start = pair(0, 0);
        assert!(Builder::new(start, 4).finish(start).is_ok());
    }

    /// Ten offsets from 10 on, at 20 and on.
    fn from(start: Pair) -> Result<(), &'static str> {
        let run = Run {
            source_start: SourceOffset(10),
            target_start: TargetOffset(20),
            len: 10,
        };
        check_start(&Segment::close(pair(10, 20), &[run]), start)
    }

    #[test]
    fn a_map_begins_where_both_sides_do() {
        for start in [pair(10, 20), pair(5, 7), pair(14, 24)] {
            assert_eq!(from(start), Ok(()), "{start:?}");
        }
        // Within the run, each side elsewhere; or at its end on one of them.
        for start in [
            pair(14, 25),
            pair(15, 24),
            pair(20, 25),
            pair(15, 30),
            pair(20, 20),
        ] {
            assert!(from(start).is_err(), "{start:?}");
        }
        // Behind all of it.
        assert!(from(pair(20, 30)).is_err());
    }
}
