//! How far a run is, for whoever watches.

use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};

/// What a run is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Asking both clusters what there is.
    Preparing,
    /// Reading records.
    Records,
    /// Looking at differences again, after a pause.
    SecondLook,
    /// Comparing groups.
    Groups,
}

/// Counters of a run; both sides are counted.
#[derive(Debug, Default)]
pub struct Progress {
    phase: AtomicU8,
    /// Source offsets to compare.
    pub(super) total_offsets: AtomicI64,
    /// Offsets read, of both sides together.
    pub(super) read_offsets: AtomicI64,
    /// Bytes of keys, values and headers read on both sides.
    pub(super) bytes: AtomicU64,
    /// Records read on both sides.
    pub(super) records: AtomicU64,
}

impl Progress {
    pub(super) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// What the run is at.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Preparing,
            1 => Phase::Records,
            2 => Phase::SecondLook,
            _ => Phase::Groups,
        }
    }

    /// How much of the records was read, 0 to 1.
    pub fn ratio(&self) -> f64 {
        let total = self.total_offsets.load(Ordering::Relaxed);
        if total <= 0 {
            return if self.phase() == Phase::Preparing {
                0.0
            } else {
                1.0
            };
        }
        let read = self.read_offsets.load(Ordering::Relaxed) as f64 / 2.0;
        (read / total as f64).clamp(0.0, 1.0)
    }

    /// Bytes of keys, values and headers read on both sides.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Records read on both sides.
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }
}
