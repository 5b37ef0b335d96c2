//! `twinlog groups`: where consumer groups are on both clusters.
//!
//! The running process is asked. When it doesn't answer, the target tells what it remembers, so
//! that the question is answered in a disaster too.

use std::path::Path;

use clap::Args;
use serde::Serialize;

use super::http_get::{self, GetError};
use super::running::{self, Running};
use super::{Exit, groups_table, output};
use crate::config::{Config, forth_name};
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
    /// Only this flow, and its way back; else every one.
    #[arg(long, value_name = "NAME")]
    flow: Option<String>,
    /// Only groups that aren't followed.
    #[arg(long, conflicts_with = "explain")]
    troubled: bool,
    /// Ask the target instead of the running process: what was committed there, and for which
    /// position on the source.
    #[arg(long, conflicts_with_all = ["explain", "troubled"])]
    remembered: bool,
}

impl GroupsArgs {
    /// Whether no process is asked.
    pub(super) fn asks_the_target(&self) -> bool {
        self.remembered
    }
}

/// Asks the running process, else the target.
pub(super) async fn run(config: &Config, path: &Path, args: &GroupsArgs, json: bool) -> Exit {
    if let Some(name) = &args.flow
        && let Err(problem) = config.flow(Some(name))
    {
        return output::fail(Exit::Usage, &problem);
    }
    let flow = args.flow.as_deref();
    if args.remembered {
        return from_target(config, flow, json).await;
    }
    let running = match running::find(config, path, "groups") {
        Ok(running) => running,
        Err(exit) => return exit,
    };
    match &args.explain {
        Some(group) => explain(&running, group, flow, json).await,
        None => list(&running, args.troubled, flow, json).await,
    }
}

async fn list(running: &Running, troubled: bool, flow: Option<&str>, json: bool) -> Exit {
    let mut report: GroupsReport = match ask(running, GROUPS_PATH).await {
        Ok(report) => report,
        Err(problem) => {
            return output::fail(
                Exit::Failed,
                &format!("{problem}\n`twinlog groups --remembered` asks the target instead"),
            );
        }
    };
    report.flows.retain(|it| is_of(&it.flow, flow));
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

/// Whether something is of the flow that is meant, or of its way back.
fn is_of(name: &str, flow: Option<&str>) -> bool {
    flow.is_none_or(|flow| forth_name(name) == flow)
}

async fn explain(running: &Running, group: &str, flow: Option<&str>, json: bool) -> Exit {
    let path = format!("{GROUPS_PATH}/{}", escaped(group));
    let mut explained: Vec<GroupExplained> = match ask(running, &path).await {
        Ok(explained) => explained,
        Err(AskError::Call(GetError::Refused { status: 404, .. })) => {
            return output::fail(
                Exit::Failed,
                &format!(
                    "no flow follows a group {group}; `twinlog groups` lists those that are followed"
                ),
            );
        }
        Err(problem) => return output::fail(Exit::Failed, &problem),
    };
    explained.retain(|it| is_of(&it.flow, flow));
    if explained.is_empty() {
        return output::fail(
            Exit::Failed,
            &format!("the flow doesn't follow a group {group}"),
        );
    }
    if json {
        return output::print_answer(Explained {
            explained: &explained,
        });
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

async fn from_target(config: &Config, only: Option<&str>, json: bool) -> Exit {
    let mut all: Vec<RememberedGroup> = Vec::new();
    let mut problems = Vec::new();
    let flows = config.flows.values();
    for flow in flows.filter(|flow| is_of(&flow.name, only)) {
        let Some(target) = config.clusters.get(&flow.target) else {
            continue;
        };
        match remembered(&flow.name, &connect::cluster(target)).await {
            Ok(groups) => all.extend(groups),
            // The other flows' targets may answer.
            Err(error) => {
                let problem = format!("flow {}: {}", flow.name, output::chain(&error));
                problems.push(output::with_cure(problem, error.cure_if_not_reached()));
            }
        }
    }
    let is_told = problems.is_empty() || !all.is_empty();
    let printed = match (is_told, json) {
        (false, _) => Exit::Done,
        (true, true) => output::print_answer(Remembered { groups: &all }),
        (true, false) => output::print(&groups_table::remembered(&all)),
    };
    match problems.is_empty() {
        true => printed,
        false => output::fail(Exit::Failed, &problems.join("\n")),
    }
}

/// What is answered in JSON about one group.
#[derive(Serialize)]
struct Explained<'a> {
    /// By flow.
    explained: &'a [GroupExplained],
}

/// What is answered in JSON where the target was asked.
#[derive(Serialize)]
struct Remembered<'a> {
    groups: &'a [RememberedGroup],
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
