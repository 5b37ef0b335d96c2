//! Waiting on conditions with a deadline, never for time.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// How long to leave the processors alone between two looks at a condition, at first.
const PAUSE: Duration = Duration::from_millis(50);

/// And after some seconds: a look is often a new client, which costs a broker more than what the
/// test waits for.
const PAUSE_MAX: Duration = Duration::from_millis(400);

/// A deadline stretches to so many times its length at most.
const STRETCH_MAX: u32 = 4;

/// Time as it passes on a machine with a processor to spare: while somebody on this one stands in line for a processor, a
/// disk or memory, whoever is waited for may be the one. Where the kernel doesn't tell that, all time counts.
#[derive(Debug)]
pub struct Stopwatch {
    began: Instant,
    in_line: [Duration; 3],
}

impl Stopwatch {
    /// Begins now.
    pub fn start() -> Self {
        Self {
            began: Instant::now(),
            in_line: in_line(),
        }
    }

    /// How much of that time has passed: a quarter of what the clock says at least.
    pub fn counted(&self) -> Duration {
        let took = self.began.elapsed();
        took.saturating_sub(self.stood()).max(took / STRETCH_MAX)
    }

    /// For how long somebody has stood in line since.
    pub fn stood(&self) -> Duration {
        let now = in_line().into_iter().zip(self.in_line);
        let stood = now.map(|(now, before)| now.saturating_sub(before)).max();
        stood.unwrap_or_default()
    }
}

/// How long somebody on this machine has stood in line so far, for processors, disks and memory.
fn in_line() -> [Duration; 3] {
    ["cpu", "io", "memory"].map(|what| {
        let told = std::fs::read_to_string(format!("/proc/pressure/{what}")).unwrap_or_default();
        let some = told.lines().find(|line| line.starts_with("some "));
        let total = some.and_then(|some| some.rsplit_once("total="));
        let micros = total.and_then(|(_, micros)| micros.trim().parse().ok());
        Duration::from_micros(micros.unwrap_or(0))
    })
}

/// Counts time as a [`Stopwatch`] does. Besides, a step that takes longer than it takes on a machine with a processor to
/// spare counts as much as it takes there: whoever is waited for is held up as we are.
#[derive(Debug)]
pub struct Patience {
    deadline: Duration,
    started: Instant,
    counted: Duration,
    step: Stopwatch,
}

impl Patience {
    /// Ends after so much of that time.
    pub fn new(deadline: Duration) -> Self {
        Self {
            deadline,
            started: Instant::now(),
            counted: Duration::ZERO,
            step: Stopwatch::start(),
        }
    }

    /// Leaves the processors alone until it is time for the next look: for longer the longer it has
    /// lasted, up to an eighth more.
    pub fn pause(&mut self) {
        let pause = (self.started.elapsed() / 8).clamp(PAUSE, PAUSE_MAX);
        std::thread::sleep(pause);
        self.end_step(pause);
    }

    /// A step is done, a look and a pause; a quick look is all that it needs beside the pause.
    fn end_step(&mut self, pause: Duration) {
        self.counted += self.step.counted().min(pause * 2);
        self.step = Stopwatch::start();
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
            Err(_) => patience.pause(),
        }
    }
}
