//! Writing answers and problems.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use super::Exit;
pub(super) use crate::telemetry::logging::with_causes as chain;

/// The version of the shapes that are the command line's own.
const VERSION: u32 = 1;

/// An answer whose shape has no version of its own, with one.
#[derive(Serialize)]
struct Versioned<T> {
    version: u32,
    #[serde(flatten)]
    answer: T,
}

/// Whether something was written to stdout.
static IS_ANSWERED: AtomicBool = AtomicBool::new(false);
/// The problems that were written to stderr.
static PROBLEMS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// What a script gets instead of an answer.
#[derive(Serialize)]
struct Failure {
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
    print_answer(Failure {
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

/// Writes an answer to stdout as indented JSON, with the version of its shape. It is an object: there is
/// room for more in it.
pub(super) fn print_answer(answer: impl Serialize) -> Exit {
    let version = VERSION;
    print_json(&Versioned { version, answer })
}

/// Writes a report, which has a version of its own, to stdout as indented JSON.
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
    }
    note(problem);
    exit
}

/// A problem with a line for what to look at, if anything is known.
pub(super) fn with_cure(problem: String, cure: Option<&str>) -> String {
    match cure {
        Some(cure) => format!("{problem}\n{cure}"),
        None => problem,
    }
}

/// Remembers a problem that is on stderr for [`answer_failure`].
pub(super) fn note(problem: &impl Display) {
    let text = problem.to_string();
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let mut problems = PROBLEMS.lock().unwrap_or_else(PoisonError::into_inner);
    problems.extend(lines.map(str::to_owned));
}
