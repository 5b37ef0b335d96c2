//! `twinlog failover`: makes the standby the primary. Shows the plan first; `--yes` carries it out.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::format::clean;
use super::{Exit, output};
use crate::config::{ClusterSection, Config, FlowConfig};
use crate::cutover::{
    self, AcceptedLoss, Check, CutoverError, FenceMode, Options, Plan, Report, Tell, Weight,
};
use crate::state::CutoverKind;

/// The options of `failover`.
#[derive(Debug, Args)]
pub(super) struct FailoverArgs {
    /// The flow; may be left out when the config has only one.
    #[arg(long, value_name = "NAME")]
    flow: Option<String>,
    /// Only this topic, by its name on the source; may be given several times.
    #[arg(long = "topic", value_name = "TOPIC")]
    topics: Vec<String>,
    /// The source is gone: go on with what the standby has.
    #[arg(long)]
    unplanned: bool,
    /// With --unplanned: go on although so many records may be missing, or `any` number.
    #[arg(long, value_name = "RECORDS", value_parser = AcceptedLoss::parse, default_value = "0")]
    accept_loss: AcceptedLoss,
    /// How writers are kept from the source: `acl` denies them, `manual` waits until you have
    /// stopped them.
    #[arg(long, value_enum, value_name = "HOW", default_value = "acl")]
    fence: FenceMode,
    /// With --unplanned: offsets of padding per partition; the config's `failover.padding` by
    /// default.
    #[arg(long, value_name = "OFFSETS")]
    padding: Option<u64>,
    /// How long to wait for writers, transactions and the copy, each.
    #[arg(long, value_name = "SECONDS", default_value = "60")]
    wait: u64,
    /// Carry it out.
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
    /// Only show it (the default).
    #[arg(long)]
    dry_run: bool,
    /// Undo the open plan, as long as no client has written to the standby.
    #[arg(long, conflicts_with_all = ["topics", "unplanned"])]
    abort: bool,
}

/// What is shown without `--yes`.
#[derive(Serialize)]
struct Shown<'a> {
    flow: &'a str,
    kind: &'static str,
    continues: Option<String>,
    steps: Vec<&'static str>,
    checks: &'a [Check],
    may_begin: bool,
}

/// Shows, carries out, or undoes a failover.
pub(super) async fn run(config: &Config, args: &FailoverArgs, json: bool) -> Exit {
    let flow = match (&args.flow, config.flows.len()) {
        (Some(name), _) => match config.flows.get(name) {
            Some(flow) => flow,
            None => return output::fail(Exit::Usage, &format!("there is no flow {name}")),
        },
        (None, 1) => match config.flows.values().next() {
            Some(flow) => flow,
            None => return output::fail(Exit::Usage, &"the config has no flow"),
        },
        (None, _) => return output::fail(Exit::Usage, &"name one of the flows with --flow"),
    };
    let cluster = |name: &str| {
        let found = config.clusters.get(name);
        found.ok_or_else(|| output::fail(Exit::Usage, &format!("there is no cluster {name}")))
    };
    let (source, target) = match (cluster(&flow.source), cluster(&flow.target)) {
        (Ok(source), Ok(target)) => (source, target),
        (Err(exit), _) | (_, Err(exit)) => return exit,
    };
    // How it goes is on stderr: the answer alone is on stdout.
    let tell: Tell = Arc::new(move |line: &str| eprintln!("{}", clean(line)));
    if args.abort {
        return abort(flow, (source, target), args, tell, json).await;
    }
    let options = Options {
        kind: if args.unplanned {
            CutoverKind::Unplanned
        } else {
            CutoverKind::Planned
        },
        topics: args.topics.iter().cloned().collect(),
        accept_loss: args.accept_loss,
        fence: args.fence,
        padding: args.padding.unwrap_or(flow.failover.padding),
        wait: Duration::from_secs(args.wait),
    };
    let kind = options.kind;
    let plan = match cutover::look(flow, source, target, options).await {
        Ok(plan) => plan,
        Err(error) => return refuse(&error),
    };
    let worst = cutover::worst(&plan.checks);
    if !args.yes {
        let written = show(flow, kind, &plan, json);
        return match worst {
            Weight::LosesData => Exit::Refused,
            Weight::Blocker => Exit::Failed,
            Weight::Ok | Weight::Warning => written,
        };
    }
    if worst >= Weight::Blocker {
        show(flow, kind, &plan, json);
    }
    match cutover::apply(plan, tell).await {
        Ok(ended) => account(ended, json),
        Err(error) => refuse(&error),
    }
}

async fn abort(
    flow: &FlowConfig,
    (source, target): (&ClusterSection, &ClusterSection),
    args: &FailoverArgs,
    tell: Tell,
    json: bool,
) -> Exit {
    if !args.yes {
        return output::print(&format!(
            "would undo the last plan of flow {}; add --yes to do it\n",
            flow.name
        ));
    }
    match cutover::abort(flow, source, target, tell).await {
        Ok(ended) => account(ended, json),
        Err(error) => refuse(&error),
    }
}

/// Prints the account, and what stopped it.
fn account((report, error): (Report, Option<CutoverError>), json: bool) -> Exit {
    let written = if json {
        output::print_json(&report)
    } else {
        output::print(&clean_lines(&report.render()))
    };
    match error {
        Some(error) => refuse(&error),
        None => written,
    }
}

fn refuse(error: &CutoverError) -> Exit {
    let exit = if error.loses_data {
        Exit::Refused
    } else {
        Exit::Failed
    };
    output::fail(exit, error)
}

fn show(flow: &FlowConfig, kind: CutoverKind, plan: &Plan, json: bool) -> Exit {
    let may_begin = cutover::worst(&plan.checks) < Weight::Blocker;
    if json {
        return output::print_json(&Shown {
            flow: &flow.name,
            kind: kind.word(),
            continues: plan.continues.as_ref().map(|open| open.plan.to_string()),
            steps: plan.steps.iter().map(|step| step.name()).collect(),
            checks: &plan.checks,
            may_begin,
        });
    }
    let mut text = String::new();
    // Writing to a string can't fail.
    let _ = writeln!(
        text,
        "{} failover of flow {}: {} -> {}",
        kind.word(),
        flow.name,
        flow.source,
        flow.target
    );
    if let Some(open) = &plan.continues {
        let _ = writeln!(text, "continues plan {} of {} ms", open.plan, open.began_ms);
    }
    for check in &plan.checks {
        let mark = match check.weight {
            Weight::Ok => "ok     ",
            Weight::Warning => "warning",
            Weight::Blocker => "blocker",
            Weight::LosesData => "LOSS   ",
        };
        let _ = writeln!(text, "{mark}  {}: {}", check.subject, clean(&check.reason));
        if let Some(hint) = &check.hint {
            let _ = writeln!(text, "         -> {}", clean(hint));
        }
    }
    let _ = writeln!(text, "steps:");
    for step in &plan.steps {
        let _ = writeln!(text, "  {:<13} {}", step.name(), step.in_words());
    }
    let _ = writeln!(
        text,
        "{}",
        if may_begin {
            "nothing was changed; --yes carries it out"
        } else {
            "it can't begin like this"
        }
    );
    output::print(&text)
}

fn clean_lines(text: &str) -> String {
    text.lines().map(|line| clean(line) + "\n").collect()
}
