//! Writing answers and problems.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use super::Exit;
pub(super) use crate::telemetry::logging::with_causes as chain;

/// The version of [`Failure`]'s shape.
const FAILURE_VERSION: u32 = 1;

/// Whether something was written to stdout.
static IS_ANSWERED: AtomicBool = AtomicBool::new(false);
/// The problems that were written to stderr.
static PROBLEMS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// What a script gets instead of an answer.
#[derive(Serialize)]
struct Failure {
    version: u32,
    /// The exit code.
    exit: u8,
    /// What was written to stderr, a line each.
    errors: Vec<String>,
}

/// Says in JSON why there is no answer, if there is none: a script reads stdout, and nothing isn't JSON.
pub(super) fn answer_failure(exit: Exit) {
    if matches!(exit, Exit::Done) || IS_ANSWERED.load(Ordering::Relaxed) {
        return;
    }
    let errors = PROBLEMS.lock().unwrap_or_else(PoisonError::into_inner);
    print_json(&Failure {
        version: FAILURE_VERSION,
        exit: exit.code(),
        errors: errors.clone(),
    });
}

/// Writes an answer to stdout. A reader that has gone away (`twinlog status | head`) is no
/// failure.
pub(super) fn print(text: &str) -> Exit {
    match try_write(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            fail(Exit::Failed, &format!("can't write the answer: {error}"))
        }
        _ => Exit::Done,
    }
}

/// Writes to stdout; false when nobody reads it any more.
pub(super) fn write(text: &str) -> bool {
    try_write(text).is_ok()
}

fn try_write(text: &str) -> io::Result<()> {
    IS_ANSWERED.store(true, Ordering::Relaxed);
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Writes an answer to stdout as indented JSON.
pub(super) fn print_json(answer: &impl Serialize) -> Exit {
    match serde_json::to_string_pretty(answer) {
        Ok(text) => print(&format!("{text}\n")),
        Err(error) => fail(Exit::Failed, &format!("can't write JSON: {error}")),
    }
}

/// Writes a problem, or several in a line each, to stderr and returns the exit code.
pub(super) fn fail(exit: Exit, problem: &impl Display) -> Exit {
    for line in problem.to_string().lines() {
        // Nothing is left to do if even this can't be written.
        let _ = writeln!(io::stderr(), "error: {line}");
        let mut problems = PROBLEMS.lock().unwrap_or_else(PoisonError::into_inner);
        problems.push(line.to_owned());
    }
    exit
}
