//! The handle to a cluster: what drivers and tests hold.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::state::{Options, State};

/// A cluster; clones are the same one.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    changes: watch::Sender<u64>,
}

impl Cluster {
    /// A cluster without topics.
    pub fn new(options: Options) -> Self {
        Self {
            inner: Arc::new(Inner {
                state: Mutex::new(State::new(options)),
                changes: watch::Sender::new(0),
            }),
        }
    }

    /// Grows with every change, so that drivers know when to advance their connections.
    pub fn changes(&self) -> u64 {
        *self.inner.changes.borrow()
    }

    /// Tells of changes as they happen.
    pub fn on_change(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// Changes anything, as a test may.
    pub fn control<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        self.with(|state| {
            let outcome = act(state);
            state.changed();
            outcome
        })
    }

    /// Looks at anything.
    pub fn look<T>(&self, see: impl FnOnce(&State) -> T) -> T {
        self.with(|state| see(state))
    }

    /// Runs `act` under the lock, then tells of the changes that it noted.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        // A test that failed inside a control must not turn every other failure into a poisoned lock.
        let mut state = self
            .inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let outcome = act(&mut state);
        let changes = state.changes();
        self.inner.changes.send_if_modified(|seen| {
            let modified = *seen != changes;
            *seen = changes;
            modified
        });
        outcome
    }
}
