//! `twinlog plan`: what `run` would change, nothing changed.

use std::fmt::Write as _;

use super::format::{clean, plural};
use super::{Exit, output};
use crate::config::Config;
use crate::flow;
use crate::telemetry::finding::PlannedChange;

/// Asks every flow what it would change, and shows it.
pub(super) async fn run(config: &Config, json: bool) -> Exit {
    match flow::plan(config).await {
        Err(error) => output::fail(Exit::Failed, &output::chain(&error)),
        Ok(changes) if json => output::print_json(&changes),
        Ok(changes) => output::print(&render(&changes)),
    }
}

fn render(changes: &[PlannedChange]) -> String {
    if changes.is_empty() {
        return "nothing would be changed\n".to_owned();
    }
    let mut text = String::new();
    for change in changes {
        // Writing to a string can't fail.
        let _ = writeln!(
            text,
            "flow {}: {} {}: {}",
            clean(&change.flow),
            clean(&change.action),
            clean(&change.subject),
            clean(&change.detail)
        );
    }
    let _ = writeln!(
        text,
        "{} in total; `twinlog run` would make them",
        plural(changes.len() as u64, "change")
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_change_is_said_too() {
        assert_eq!(render(&[]), "nothing would be changed\n");
    }
}
