//! `twinlog groups`: where consumer groups are on both clusters.
//!
//! The running process is asked. When it doesn't answer, the target tells what it remembers, so
//! that the question is answered in a disaster too.

use std::path::Path;

use clap::Args;

use super::http_get::{self, GetError};
use super::running::{self, Running};
use super::{Exit, groups_table, output};
use crate::config::Config;
use crate::connect;
use crate::groups::{RememberedGroup, remembered};
use crate::http::GROUPS_PATH;
use crate::telemetry::groups::{GroupExplained, GroupsReport};

/// The options of `groups`.
#[derive(Debug, Args)]
pub(super) struct GroupsArgs {
    /// One group, with each step from its commit on the source to the one on the target.
    #[arg(long, value_name = "GROUP")]
    explain: Option<String>,
    /// Only groups that aren't followed.
    #[arg(long, conflicts_with = "explain")]
    troubled: bool,
    /// Don't ask the running process but the target: what was committed there, and for which
    /// position on the source.
    #[arg(long, conflicts_with_all = ["explain", "troubled"])]
    remembered: bool,
}

/// Asks the running process, else the target.
pub(super) async fn run(config: &Config, path: &Path, args: &GroupsArgs, json: bool) -> Exit {
    if args.remembered {
        return from_target(config, json).await;
    }
    let running = match running::find(config, path, "groups") {
        Ok(running) => running,
        Err(exit) => return exit,
    };
    match &args.explain {
        Some(group) => explain(&running, group, json).await,
        None => list(&running, args.troubled, json).await,
    }
}

async fn list(running: &Running, troubled: bool, json: bool) -> Exit {
    let mut report: GroupsReport = match ask(running, GROUPS_PATH).await {
        Ok(report) => report,
        Err(problem) => {
            return output::fail(
                Exit::Failed,
                &format!("{problem}\n`twinlog groups --remembered` asks the target instead"),
            );
        }
    };
    if troubled {
        for flow in &mut report.flows {
            let is_troubled =
                |state: &str| !matches!(state, "followed" | "gone_on_source" | "not_copied");
            flow.groups.retain(|group| is_troubled(&group.state));
        }
    }
    if json {
        return output::print_json(&report);
    }
    output::print(&groups_table::list(&report))
}

async fn explain(running: &Running, group: &str, json: bool) -> Exit {
    let path = format!("{GROUPS_PATH}/{}", escaped(group));
    let explained: Vec<GroupExplained> = match ask(running, &path).await {
        Ok(explained) => explained,
        Err(AskError::Call(GetError::Refused { status: 404, .. })) => {
            return output::fail(Exit::Failed, &format!("no flow follows a group {group}"));
        }
        Err(problem) => return output::fail(Exit::Failed, &problem),
    };
    if json {
        return output::print_json(&explained);
    }
    let text: String = explained.iter().map(groups_table::explained).collect();
    output::print(&text)
}

#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error(transparent)]
    Call(#[from] GetError),
    #[error("something other than this Twinlog answers: {0}")]
    NotOurs(#[from] serde_json::Error),
}

async fn ask<T: serde::de::DeserializeOwned>(running: &Running, path: &str) -> Result<T, AskError> {
    let body = http_get::get(running, path).await?;
    Ok(serde_json::from_slice(&body)?)
}

/// A path segment: everything but letters, digits, `-`, `.` and `_` as percent and number.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

async fn from_target(config: &Config, json: bool) -> Exit {
    let mut all: Vec<RememberedGroup> = Vec::new();
    for flow in config.flows.values() {
        let Some(target) = config.clusters.get(&flow.target) else {
            continue;
        };
        match remembered(&flow.name, &connect::cluster(target)).await {
            Ok(groups) => all.extend(groups),
            Err(error) => return output::fail(Exit::Failed, &output::chain(&error)),
        }
    }
    if json {
        return output::print_json(&all);
    }
    output::print(&groups_table::remembered(&all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_s_name_is_one_path_segment() {
        assert_eq!(escaped("billing-1.x_y"), "billing-1.x_y");
        assert_eq!(escaped("a/b c?"), "a%2Fb%20c%3F");
    }
}
