//! How far a long read is.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Asking both clusters.
    Asking,
    /// Reading the orphans.
    Reading,
    /// Reading what was written on the new primary since the fork.
    Comparing,
    /// Writing files.
    Exporting,
    /// Appending to the new primary.
    Replaying,
}

/// Counters that whoever waits may look at.
#[derive(Debug, Default)]
pub struct Progress {
    phase: AtomicU8,
    records: AtomicU64,
    offsets: AtomicU64,
    offsets_total: AtomicU64,
}

impl Progress {
    pub(super) fn enter(&self, phase: Phase, offsets_total: i64) {
        self.records.store(0, Ordering::Relaxed);
        self.offsets.store(0, Ordering::Relaxed);
        let total = u64::try_from(offsets_total).unwrap_or(0);
        self.offsets_total.store(total, Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    pub(super) fn passed(&self, records: u64, offsets: i64) {
        let offsets = u64::try_from(offsets).unwrap_or(0);
        self.records.fetch_add(records, Ordering::Relaxed);
        self.offsets.fetch_add(offsets, Ordering::Relaxed);
    }

    /// What is being done.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            1 => Phase::Reading,
            2 => Phase::Comparing,
            3 => Phase::Exporting,
            4 => Phase::Replaying,
            _ => Phase::Asking,
        }
    }

    /// Records of this phase so far.
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// How much of this phase is done, 0 to 1.
    pub fn ratio(&self) -> f64 {
        let total = self.offsets_total.load(Ordering::Relaxed);
        let done = self.offsets.load(Ordering::Relaxed);
        if total == 0 {
            0.0
        } else {
            (done as f64 / total as f64).min(1.0)
        }
    }
}
