//! The partitions that have work for a lane, in the order of their turns.
//!
//! Those that are far behind have gigabytes to send, the others a record now and then: so each request takes
//! what the current ones have, and the rest of it belongs to those behind.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::flow::partition::Partition;

/// See the module. A partition is in it once at most.
#[derive(Default)]
pub(super) struct Waiting {
    current: VecDeque<Arc<Partition>>,
    behind: VecDeque<Arc<Partition>>,
}

impl Waiting {
    pub(super) fn push(&mut self, partition: Arc<Partition>) {
        match partition.meter.is_behind() {
            true => self.behind.push_back(partition),
            false => self.current.push_back(partition),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.current.is_empty() && self.behind.is_empty()
    }

    /// One turn of each that waits now: what is pushed meanwhile has to wait for the next one.
    pub(super) fn round(&self) -> Round {
        Round {
            current: self.current.len(),
            behind: self.behind.len(),
        }
    }
}

/// Who still has a turn in this round.
pub(super) struct Round {
    current: usize,
    behind: usize,
}

impl Round {
    /// The next one, current ones first.
    pub(super) fn next(&mut self, waiting: &mut Waiting) -> Option<Arc<Partition>> {
        if self.current > 0 {
            self.current -= 1;
            return waiting.current.pop_front();
        }
        self.behind = self.behind.checked_sub(1)?;
        waiting.behind.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::flow::partition::PartitionParts;

    fn partitions(count: usize) -> Vec<Arc<Partition>> {
        let (trouble, _) = mpsc::unbounded_channel();
        let parts = || PartitionParts::for_tests(trouble.clone());
        (0..count)
            .map(|_| Arc::new(Partition::new(parts())))
            .collect()
    }

    #[test]
    fn current_ones_come_first_and_each_has_one_turn_in_a_round() {
        let all = partitions(4);
        all[0].meter.set_behind(true);
        all[2].meter.set_behind(true);
        let mut waiting = Waiting::default();
        all.iter().for_each(|it| waiting.push(it.clone()));
        let mut round = waiting.round();
        let mut order = Vec::new();
        while let Some(next) = round.next(&mut waiting) {
            order.push(all.iter().position(|it| Arc::ptr_eq(it, &next)));
            // It falls behind, or catches up, and has more: that is for the next round.
            next.meter.set_behind(!next.meter.is_behind());
            waiting.push(next);
        }
        assert_eq!(order, [Some(1), Some(3), Some(0), Some(2)]);
        assert!(!waiting.is_empty());
    }
}
