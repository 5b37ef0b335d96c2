//! A run of an offset map, and what a list of runs must keep to.

use super::{SourceOffset, TargetOffset};

/// A source offset and a target offset.
pub(super) type Pair = (SourceOffset, TargetOffset);

/// `len` consecutive source offsets at `len` consecutive target offsets. 24 bytes in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first source offset of the run.
    pub source_start: SourceOffset,
    /// Where that offset is on the target.
    pub target_start: TargetOffset,
    /// How many offsets the run covers; never 0.
    pub len: u64,
}

const _: () = assert!(size_of::<Run>() == 24, "the memory bound in the docs");

impl Run {
    /// The source offset just past the run.
    pub fn source_end(&self) -> SourceOffset {
        SourceOffset(self.source_start.0 + self.len as i64)
    }

    /// The target offset just past the run.
    pub fn target_end(&self) -> TargetOffset {
        TargetOffset(self.target_start.0 + self.len as i64)
    }

    /// The offsets just past the run.
    pub(super) fn ends(&self) -> Pair {
        (self.source_end(), self.target_end())
    }

    /// Target offset minus source offset, the same for every offset of the run.
    pub fn shift(&self) -> i64 {
        self.target_start.0 - self.source_start.0
    }

    /// How many of the first offsets lie before `start` on either side.
    pub(super) fn before(&self, start: Pair) -> u64 {
        let cut = (start.0.0 - self.source_start.0).max(start.1.0 - self.target_start.0);
        u64::try_from(cut).unwrap_or(0).min(self.len)
    }

    /// The run without its first `cut` offsets.
    pub(super) fn without(mut self, cut: u64) -> Self {
        self.source_start.0 += cut as i64;
        self.target_start.0 += cut as i64;
        self.len -= cut;
        self
    }
}

/// Checks that each run begins where the one before allows it.
#[derive(Clone, Copy)]
pub(super) struct Order {
    source: i64,
    target: i64,
    first: bool,
}

impl Order {
    /// The first run begins no earlier than this.
    pub(super) fn from((source, target): Pair) -> Self {
        Self {
            source: source.0,
            target: target.0,
            first: true,
        }
    }

    /// The first run begins behind one that ended here.
    pub(super) fn behind(end: Pair) -> Self {
        Self {
            first: false,
            ..Self::from(end)
        }
    }

    /// Takes in the next run, without trusting any field.
    pub(super) fn next(&mut self, run: &Run) -> Result<(), &'static str> {
        if run.len == 0 {
            return Err("a run is empty");
        }
        if run.source_start.0 < self.source || run.target_start.0 < self.target {
            return Err("runs are not monotone");
        }
        let touches = (run.source_start.0, run.target_start.0) == (self.source, self.target);
        if touches && !self.first {
            return Err("two runs should be one");
        }
        let end = |start: i64| {
            start
                .checked_add_unsigned(run.len)
                .ok_or("a run is too long")
        };
        self.source = end(run.source_start.0)?;
        self.target = end(run.target_start.0)?;
        self.first = false;
        Ok(())
    }

    /// The ends of the map are no earlier than the last run's.
    pub(super) fn end(&self, source: i64, target: i64) -> Result<(), &'static str> {
        if source < self.source || target < self.target {
            return Err("the end is before the last run");
        }
        Ok(())
    }
}

/// The ends of the last run that is gone, and the first that isn't.
pub(super) fn split(
    runs: impl Iterator<Item = Run>,
    is_gone: impl Fn(Pair) -> bool,
) -> (Option<Pair>, Option<Run>) {
    let mut gone = None;
    for run in runs {
        if !is_gone(run.ends()) {
            return (gone, Some(run));
        }
        gone = Some(run.ends());
    }
    (gone, None)
}
