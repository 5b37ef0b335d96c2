//! Panics of simulated processes. tokio keeps a task's panic for whoever waits for the task; where
//! nobody does, it would go unseen.

use std::cell::RefCell;
use std::sync::Once;

use super::clock;

thread_local! {
    static PROCESS: RefCell<Option<String>> = const { RefCell::new(None) };
    static SEEN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Notes panics from here on, besides what is done with them.
pub(super) fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if clock::simulates() {
                PROCESS.with_borrow(|process| {
                    if let Some(process) = process {
                        SEEN.with_borrow_mut(|seen| seen.push(format!("{process}: {info}")));
                    }
                });
            }
            before(info);
        }));
    });
}

/// Runs something as a process.
pub(super) fn of_process<T>(name: &str, act: impl FnOnce() -> T) -> T {
    PROCESS.set(Some(name.to_owned()));
    let outcome = act();
    PROCESS.set(None);
    outcome
}

/// What was noted since this was asked last.
pub(super) fn take() -> Vec<String> {
    SEEN.take()
}
