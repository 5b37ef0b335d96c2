//! How often a flow looks at its role: while somebody carries out a cut-over clients wait for each look.

use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use crate::state::{LeaseRecord, StateStore, keys};

/// While a cut-over is under way.
const SOON: Duration = Duration::from_millis(100);
/// Its holder says each second that he lives: a lease that a killed command left is none for longer than this.
const LIVES_FOR: Duration = Duration::from_secs(5);

/// What was seen of the lease of the flow's cut-over.
#[derive(Debug, Default)]
pub(super) struct Haste {
    /// Up to where in the log its records were read.
    read_to: Option<i64>,
    seen: Option<(Uuid, u64)>,
    moved_at: Option<Instant>,
}

impl Haste {
    /// How long until the next look: `usual`, or less while a cut-over is under way.
    pub fn pause(&mut self, store: &StateStore, flow: &str, usual: Duration) -> Duration {
        match self.is_under_way(store, flow) {
            true => usual.min(SOON),
            false => usual,
        }
    }

    /// Whether somebody carries out a cut-over now.
    pub fn is_under_way(&mut self, store: &StateStore, flow: &str) -> bool {
        let key = keys::cutover_lease(flow);
        let newest = store.newest_in_order(&key);
        if newest != self.read_to {
            self.read_to = newest;
            let leases = store.in_order::<LeaseRecord>(&key);
            let lease = leases.ok().and_then(LeaseRecord::holder);
            let held = lease.filter(|lease| !lease.released);
            self.take(held.map(|lease| (lease.owner, lease.beat)), Instant::now());
        }
        self.moved_at.is_some_and(|at| at.elapsed() < LIVES_FOR)
    }

    fn take(&mut self, held: Option<(Uuid, u64)>, now: Instant) {
        if held != self.seen {
            self.moved_at = held.map(|_| now);
            self.seen = held;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_hurries_while_the_holder_of_the_lease_lives() {
        let (owner, now) = (Uuid::from_u128(1), Instant::now());
        let mut haste = Haste::default();
        let mut moved = |held, now| {
            haste.take(held, now);
            haste.moved_at
        };
        assert_eq!(moved(None, now), None);
        assert_eq!(moved(Some((owner, 0)), now), Some(now));
        let later = now + LIVES_FOR;
        assert_eq!(moved(Some((owner, 0)), later), Some(now), "it was killed");
        assert_eq!(moved(Some((owner, 1)), later), Some(later));
        assert_eq!(moved(None, later), None, "it is given back");
    }
}
