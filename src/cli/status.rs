//! `twinlog status`: what the running process is doing, asked over HTTP.

use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use tokio::time::MissedTickBehavior;

use super::running::{self, Running};
use super::status_table::{self, TableOptions};
use super::{Exit, http_get, output};
use crate::config::{Config, forth_name};
use crate::http::STATUS_PATH;
use crate::telemetry::failover::Verdict;
use crate::telemetry::readiness;
use crate::telemetry::status::{FlowStatus, STATUS_VERSION, StatusReport};

const REFRESH_EVERY: Duration = Duration::from_secs(1);
/// While watching, only so many topics are listed: troubled ones and the furthest behind
/// first.
const WATCHED_TOPICS_MAX: usize = 15;
/// Back to the top, and clear what is below.
const CLEAR_SCREEN: &str = "\x1b[H\x1b[J";

/// The options of `status`.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Refresh every second until Ctrl-C.
    #[arg(long, short)]
    watch: bool,
    /// Only this flow, and its way back; else every one.
    #[arg(long, value_name = "NAME")]
    flow: Option<String>,
    /// List every partition instead of the troubled ones.
    #[arg(long)]
    partitions: bool,
    /// Exit with 1 unless all is ready and a failover could be done now, or was done.
    #[arg(long, conflicts_with = "watch")]
    exit_code: bool,
}

/// Asks once, or every second with `--watch`.
pub(super) async fn run(config: &Config, path: &Path, args: &StatusArgs, json: bool) -> Exit {
    if let Some(name) = &args.flow
        && let Err(problem) = config.flow(Some(name))
    {
        return output::fail(Exit::Usage, &problem);
    }
    let running = match running::find(config, path, "status") {
        Ok(running) => running,
        Err(exit) => return exit,
    };
    if args.watch {
        return watch(&running, args, json).await;
    }
    match ask(&running, args, json).await {
        Ok(answer) => match output::print(&answer.text) {
            Exit::Done if args.exit_code && !answer.is_well => Exit::Failed,
            exit => exit,
        },
        Err(problem) => output::fail(Exit::Failed, &problem),
    }
}

/// What is to be printed.
struct Answer {
    text: String,
    /// Whether nobody has to do anything.
    is_well: bool,
}

/// Whether nobody has to do anything: the standby is kept up to date and could take over, or has done so.
fn is_well(report: &StatusReport) -> bool {
    let has_failed_over = |flow: &FlowStatus| {
        let readiness = flow.failover.as_ref();
        readiness.is_some_and(|it| it.can_fail_over == Verdict::FailedOver)
    };
    let could = |flow: &FlowStatus| {
        let readiness = flow.failover.as_ref();
        readiness.is_none_or(|it| matches!(it.can_fail_over, Verdict::Yes | Verdict::FailedOver))
    };
    let is_over = !report.flows.is_empty() && report.flows.iter().all(has_failed_over);
    is_over || (report.ready && report.flows.iter().all(could))
}

/// Ctrl-C ends the process by itself: nothing has to be put in order.
async fn watch(running: &Running, args: &StatusArgs, json: bool) -> Exit {
    let clear = !json && std::io::stdout().is_terminal();
    let mut ticks = tokio::time::interval(REFRESH_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let text = match ask(running, args, json).await {
            Ok(answer) => answer.text,
            // On a terminal the next answer takes its place: it may just be restarting.
            Err(problem) if clear => format!("{problem}\n"),
            Err(problem) => {
                output::fail(Exit::Failed, &problem);
                continue;
            }
        };
        let prefix = if clear { CLEAR_SCREEN } else { "" };
        if !output::write(&format!("{prefix}{text}")) {
            return Exit::Done;
        }
    }
}

/// The answer as it is to be printed, or what is wrong in one line.
async fn ask(running: &Running, args: &StatusArgs, json: bool) -> Result<Answer, String> {
    let every_partition = args.partitions || (json && !args.watch);
    let query = if every_partition {
        ""
    } else {
        "?partitions=troubled"
    };
    let body = http_get::get(running, &format!("{STATUS_PATH}{query}"))
        .await
        .map_err(|error| error.to_string())?;
    let foreign = |what: &str| format!("something other than this Twinlog answers: {what}");
    if json {
        // As the process wrote it, so that nothing that it knows is lost on the way.
        let mut value: serde_json::Value =
            serde_json::from_slice(&body).map_err(|_| foreign("not JSON"))?;
        let mut report: Option<StatusReport> = serde_json::from_slice(&body).ok();
        if let Some(flow) = &args.flow {
            let report = report.as_mut().ok_or_else(|| foreign("not a status"))?;
            narrow(report, flow)?;
            narrow_json(&mut value, report);
        }
        let is_well = report.is_some_and(|report| is_well(&report));
        let text = match args.watch {
            true => format!("{value}\n"),
            false => format!("{value:#}\n"),
        };
        return Ok(Answer { text, is_well });
    }
    let version: Version = serde_json::from_slice(&body).map_err(|_| foreign("not a status"))?;
    if version.version != STATUS_VERSION {
        return Err(format!(
            "the running process reports status version {}, this command reads {STATUS_VERSION}: \
             use the same Twinlog for both",
            version.version
        ));
    }
    let mut report: StatusReport =
        serde_json::from_slice(&body).map_err(|error| foreign(&error.to_string()))?;
    if let Some(flow) = &args.flow {
        narrow(&mut report, flow)?;
    }
    let options = TableOptions {
        width: status_table::terminal_width(),
        every_partition: args.partitions,
        topics_max: (args.watch && !args.partitions).then_some(WATCHED_TOPICS_MAX),
    };
    Ok(Answer {
        text: status_table::render(&report, &options),
        is_well: is_well(&report),
    })
}

/// What a report says of one flow and its way back: whether it is ready is theirs alone then.
fn narrow(report: &mut StatusReport, flow: &str) -> Result<(), String> {
    report.flows.retain(|it| forth_name(&it.name) == flow);
    if report.flows.is_empty() {
        return Err(format!(
            "the running process has no flow {flow}: it was started with another config"
        ));
    }
    report.not_ready = readiness::problems(&report.flows, report.now_ms);
    report.ready = report.not_ready.is_empty();
    Ok(())
}

/// The same of the report as the process wrote it.
fn narrow_json(written: &mut serde_json::Value, report: &StatusReport) {
    let is_meant = |flow: &serde_json::Value| {
        let mut meant = report.flows.iter();
        meant.any(|it| flow["name"] == *it.name)
    };
    if let Some(flows) = written["flows"].as_array_mut() {
        flows.retain(is_meant);
    }
    written["ready"] = report.ready.into();
    written["not_ready"] = report.not_ready.clone().into();
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}
