//! Writing answers and problems.

use std::fmt::Display;
use std::io::{self, Write as _};

use serde::Serialize;

use super::Exit;
pub(super) use crate::telemetry::logging::with_causes as chain;

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
    }
    exit
}
