//! The map of a flow that goes the other way.

use super::{MapError, OffsetMap, SourceOffset, TargetOffset};

impl OffsetMap {
    /// The same pairs of offsets seen from the other side: what was the target is the source.
    #[must_use]
    pub fn turned(&self) -> Self {
        let mut turned = Self::starting_at(
            SourceOffset(self.target_start.0),
            TargetOffset(self.source_start.0),
        )
        .with_segment_runs(self.segment_runs);
        for run in self.runs() {
            let (source, target) = (run.target_start.0, run.source_start.0);
            // Runs are monotone on both sides, so each comes behind the one before.
            let pushed = turned.push_copied(SourceOffset(source), TargetOffset(target), run.len);
            debug_assert_eq!(pushed, Ok(()));
        }
        turned.source_end = SourceOffset(self.target_end.0);
        turned.target_end = TargetOffset(self.source_end.0);
        turned
    }

    /// The map as it was when only what lies before `end` on the source was copied.
    #[must_use]
    pub fn cut_at(&self, end: SourceOffset) -> Self {
        if end >= self.source_end {
            return self.clone();
        }
        let mut cut = Self::starting_at(self.source_start, self.target_start)
            .with_segment_runs(self.segment_runs);
        let end = end.max(self.source_start);
        for run in self.runs().filter(|run| run.source_start < end) {
            let left = u64::try_from(end.0 - run.source_start.0).unwrap_or(0);
            // A part of a map is as monotone as the whole.
            let pushed = cut.push_copied(run.source_start, run.target_start, run.len.min(left));
            debug_assert_eq!(pushed, Ok(()));
        }
        cut.source_end = end;
        cut
    }

    /// What is copied next is at `source`, and gets `target`: what lies between the ends so far and
    /// these has no counterpart on the other side.
    ///
    /// # Errors
    /// [`MapError`] if either side goes back; nothing changes then.
    pub fn continue_at(
        &mut self,
        source: SourceOffset,
        target: TargetOffset,
    ) -> Result<(), MapError> {
        if source < self.source_end {
            let (given, end) = (source, self.source_end);
            return Err(MapError::SourceNotMonotone { given, end });
        }
        if target < self.target_end {
            let (given, end) = (target, self.target_end);
            return Err(MapError::TargetNotMonotone { given, end });
        }
        (self.source_end, self.target_end) = (source, target);
        Ok(())
    }
}
