//! `twinlog failover`: makes the standby the primary. Shows the plan first; `--yes` carries it out.

use std::time::Duration;

use clap::Args;

use super::Exit;
use super::cutover::{
    Chosen, account, carried_out, carry_out, choose, quiet_for_fits, refuse, show_undoing, tell,
};
use crate::config::{ClusterSection, Config, FlowConfig};
use crate::cutover::{self, AcceptedLoss, FenceMode, Options, QUIET_FOR_SECONDS_MAX};
use crate::state::CutoverKind;

/// The options of `failover`.
#[derive(Debug, Args)]
pub(super) struct FailoverArgs {
    /// The flow; needed only if the config has several.
    #[arg(long, value_name = "NAME")]
    flow: Option<String>,
    /// Only this topic, by its name on the source; may be given several times.
    #[arg(long = "topic", value_name = "TOPIC")]
    topics: Vec<String>,
    /// The source is gone: go on with what the standby has.
    #[arg(long)]
    unplanned: bool,
    /// With --unplanned: go on although up to this many records may be missing, or `any` number.
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
    /// With --fence manual: how long nothing may be written before that proves that all producers are
    /// stopped; 5 by default. Choose less only if you know that they are: records of a producer that only
    /// paused stay behind on the old primary.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=QUIET_FOR_SECONDS_MAX))]
    quiet_for: Option<u64>,
    /// Do it; without this it is only shown.
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
    /// Only show it (the default).
    #[arg(long)]
    dry_run: bool,
    /// Undo the open plan, as long as no client has written to the standby.
    #[arg(long, conflicts_with_all = ["topics", "unplanned"])]
    abort: bool,
    /// Show the report of the last failover again, with records that were written to the old primary since.
    #[arg(long, conflicts_with_all = ["yes", "abort", "unplanned", "topics"])]
    report: bool,
}

impl FailoverArgs {
    /// The flow that is named.
    pub(super) fn flow(&self) -> Option<&str> {
        self.flow.as_deref()
    }

    /// Whether it goes without the source. Where a secret of it is missing, nothing is asked there but whether anybody
    /// takes a connection.
    pub(super) fn needs_the_target_alone(&self) -> bool {
        self.unplanned || self.report
    }
}

/// Shows, carries out, or undoes a failover.
pub(super) async fn run(config: &Config, args: &FailoverArgs, json: bool) -> Exit {
    let Chosen {
        flow,
        source,
        target,
    } = match choose(config, args.flow.as_deref()) {
        Ok(chosen) => chosen,
        Err(exit) => return exit,
    };
    if let Err(exit) = quiet_for_fits(args.fence, args.quiet_for) {
        return exit;
    }
    if args.report {
        return match cutover::last_report(flow, source, target).await {
            Ok(report) => account((report, None), json),
            Err(error) => refuse(&error),
        };
    }
    if args.abort {
        return abort(flow, (source, target), args, json).await;
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
        quiet_for: args.quiet_for.map(Duration::from_secs),
    };
    let kind = options.kind;
    match cutover::look(flow, source, target, options).await {
        Ok(plan) => carry_out(flow, kind, plan, args.yes, json).await,
        Err(error) => refuse(&error),
    }
}

async fn abort(
    flow: &FlowConfig,
    (source, target): (&ClusterSection, &ClusterSection),
    args: &FailoverArgs,
    json: bool,
) -> Exit {
    if !args.yes {
        return match cutover::look_abort(flow, source, target).await {
            Ok(undoing) => show_undoing(flow, &undoing, json),
            Err(error) => refuse(&error),
        };
    }
    carried_out(cutover::abort(flow, source, target, tell()), json).await
}
