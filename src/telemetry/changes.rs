//! Whether anything of a flow's partitions changes. At rest nobody needs to look at each of thousands again and again.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::progress::note_time;

/// A rest is looked into again after so long, whatever nobody has told.
pub const REST_MAX: Duration = Duration::from_secs(30);

/// Counts all that changes what is known of a flow's partitions: their states, where source and copy end, what is in flight.
#[derive(Debug)]
pub struct Changes {
    count: AtomicU64,
    rest: Mutex<Option<Rest>>,
    /// Until when nothing had changed since all were looked at, milliseconds since the epoch; -1 if never.
    still_ms: AtomicI64,
}

/// All were looked at, and looking again would tell nothing new.
#[derive(Clone, Copy, Debug)]
struct Rest {
    count: u64,
    since_ms: i64,
}

impl Default for Changes {
    fn default() -> Self {
        Self {
            count: AtomicU64::new(0),
            rest: Mutex::default(),
            still_ms: AtomicI64::new(-1),
        }
    }
}

impl Changes {
    /// How many there were. Who looks asks before: what changes behind that is seen the next time.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Notes one, behind it.
    pub fn note(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether nothing has changed since all were looked at, as of now.
    pub(super) fn is_still(&self, now_ms: i64) -> bool {
        let count = self.count();
        let rest = *self.rest();
        let lasts_ms = i64::try_from(REST_MAX.as_millis()).unwrap_or(i64::MAX);
        let holds = |it: Rest| it.count == count && (0..lasts_ms).contains(&(now_ms - it.since_ms));
        let is_still = rest.is_some_and(holds);
        if is_still {
            note_time(&self.still_ms, now_ms);
        }
        is_still
    }

    /// All were looked at, when there were so many.
    pub(super) fn looked(&self, count: u64, is_still: bool, now_ms: i64) {
        let since_ms = now_ms;
        *self.rest() = is_still.then_some(Rest { count, since_ms });
    }

    /// Until when nothing had changed; for those who were looked at, and at rest.
    pub(super) fn still_ms(&self) -> i64 {
        self.still_ms.load(Ordering::Relaxed)
    }

    fn rest(&self) -> MutexGuard<'_, Option<Rest>> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
