//! Whether this process stood still (`SIGSTOP`, a machine out of memory) since it last looked at its claim.
//!
//! A broker that remembers our producer refuses what an owner sends who was frozen, and wakes up behind a new one: the
//! sequences were used. One that has forgotten it (`producer.id.expiration.ms`, by the times of the *records*) takes any
//! batch, and the record would be there twice. And nothing refuses a group's commit: it would set the group back on the target.
//! So whoever finds that it stood still sends nothing, records and commits included, before it has looked at its claim once
//! more. What it had handed to a connection before may still leave. It is found by the clock: somebody notes at least once a
//! second that this process runs, and whoever sends looks how long ago that was. Where it runs, an unreadable claim holds no
//! record up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Nobody noted for so long that this process runs: it didn't. The looks at the claim note it every second. Where it only was
/// busy, that costs a look.
const STOOD_STILL: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug)]
pub(super) struct Awake {
    seen: Mutex<Seen>,
    /// Another one has the flow.
    is_over: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    /// When it was last seen to run.
    at: Instant,
    /// When it was first seen again behind the last standstill.
    woke_at: Option<Instant>,
}

impl Default for Awake {
    fn default() -> Self {
        let seen = Seen {
            at: Instant::now(),
            woke_at: None,
        };
        Self {
            seen: Mutex::new(seen),
            is_over: AtomicBool::new(false),
        }
    }
}

impl Awake {
    /// Notes that it runs now.
    pub(super) fn note(&self) {
        drop(self.seen());
    }

    /// Another one has the flow: no look is good any more.
    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Whether a look that began then was behind the last standstill, and showed that we have the flow.
    pub(super) fn is_since(&self, looked_at: Instant) -> bool {
        if self.is_over.load(Ordering::Relaxed) {
            return false;
        }
        let woke_at = self.seen().woke_at;
        woke_at.is_none_or(|woke_at| looked_at >= woke_at)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if now.duration_since(seen.at) >= STOOD_STILL {
            seen.woke_at = Some(now);
        }
        seen.at = now;
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulated::simulated;

    #[test]
    fn a_look_of_before_a_standstill_is_none() {
        simulated(|| async {
            let awake = Awake::default();
            let looked_at = Instant::now();
            for _ in 0..20 {
                tokio::time::sleep(Duration::from_secs(1)).await;
                assert!(awake.is_since(looked_at), "it runs, and can't look");
            }
            tokio::time::sleep(STOOD_STILL).await;
            // Whoever is the first to see it.
            awake.note();
            assert!(!awake.is_since(looked_at));
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(!awake.is_since(looked_at), "until it has looked");
            let looked_at = Instant::now();
            assert!(awake.is_since(looked_at));
        });
    }
}
