//! Waiting on conditions with a deadline, never for time.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// How long to leave the processors alone between two looks at a condition.
pub(super) const POLL_PAUSE: Duration = Duration::from_millis(50);

/// A deadline stretches to so many times its length at most.
const STRETCH_MAX: u32 = 4;

/// Counts time as it passes on a machine with a processor to spare. A step that takes longer than it
/// takes there counts as much as it takes there: whoever is waited for is held up as we are.
#[derive(Debug)]
pub struct Patience {
    deadline: Duration,
    started: Instant,
    counted: Duration,
    step_began: Instant,
}

impl Patience {
    /// Ends after so much of that time.
    pub fn new(deadline: Duration) -> Self {
        let now = Instant::now();
        Self {
            deadline,
            started: now,
            counted: Duration::ZERO,
            step_began: now,
        }
    }

    /// A step is done, a look and a pause; a quick look is all that it needs beside the pause.
    pub fn step(&mut self, pause: Duration) {
        let took = self.step_began.elapsed();
        self.counted += took.min(pause * 2);
        self.step_began = Instant::now();
    }

    /// How much of that time has passed.
    pub fn counted(&self) -> Duration {
        self.counted
    }

    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        self.counted >= self.deadline || self.started.elapsed() >= self.deadline * STRETCH_MAX
    }
}

/// Looks at a condition until it yields a value.
///
/// The deadline is that of a machine with a processor to spare ([`Patience`]). `Err` carries what was
/// seen instead; the last one is in the panic message.
///
/// # Panics
/// When `deadline` passes first.
pub fn eventually<T, S: Debug>(
    deadline: Duration,
    what: &str,
    look: impl FnMut() -> Result<T, S>,
) -> T {
    eventually_after(deadline, what, look).0
}

/// The same, and how much of that time had passed by then.
///
/// # Panics
/// When `deadline` passes first.
pub fn eventually_after<T, S: Debug>(
    deadline: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<T, S>,
) -> (T, Duration) {
    let mut patience = Patience::new(deadline);
    loop {
        match look() {
            Ok(value) => return (value, patience.counted()),
            Err(seen) if patience.is_over() => panic!(
                "not within {deadline:?} ({:?} by the clock): {what}; last seen: {seen:#?}",
                patience.started.elapsed()
            ),
            Err(_) => std::thread::sleep(POLL_PAUSE),
        }
        patience.step(POLL_PAUSE);
    }
}
