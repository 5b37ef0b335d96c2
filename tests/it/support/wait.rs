//! Waiting on conditions with a deadline, never for time.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// How long to leave the processors alone between two looks at a condition.
const POLL_PAUSE: Duration = Duration::from_millis(50);

/// Looks at a condition until it yields a value.
///
/// `Err` carries what was seen instead; the last one is in the panic message.
///
/// # Panics
/// When `deadline` passes first.
pub fn eventually<T, S: Debug>(
    deadline: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<T, S>,
) -> T {
    let started = Instant::now();
    loop {
        match look() {
            Ok(value) => return value,
            Err(seen) if started.elapsed() >= deadline => {
                panic!("not within {deadline:?}: {what}; last seen: {seen:#?}")
            }
            Err(_) => std::thread::sleep(POLL_PAUSE),
        }
    }
}
