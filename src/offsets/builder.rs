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
