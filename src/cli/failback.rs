//! `twinlog failback`: goes back to the old primary. Shows the plan first; `--yes` carries it out.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::cutover::{carried_out, carry_out, choose, quiet_for_fits, refuse, show_undoing, tell};
use super::{Exit, output};
use crate::config::{ClusterSection, Config, FlowConfig};
use crate::cutover::{
    self, AcceptedLoss, BackScope, FenceMode, KeptFence, Options, QUIET_FOR_SECONDS_MAX,
};
use crate::orphans;
use crate::state::CutoverKind;

/// The options of `failback`.
#[derive(Debug, Args)]
pub(super) struct FailbackArgs {
    /// The flow; needed only if the config has several.
    #[arg(long, value_name = "NAME")]
    flow: Option<String>,
    /// Only begin to copy back: the standby stays the primary, and `twinlog run` keeps the old primary up to date.
    #[arg(long)]
    start: bool,
    /// Go back although the old primary has records that were never copied and that nobody has decided
    /// about (`twinlog orphans`). They stay there; consumers that read that far back meet them.
    #[arg(long)]
    accept_orphans: bool,
    /// How writers are kept from the standby while the roles change: `acl` denies them, `manual`
    /// waits until you have stopped them.
    #[arg(long, value_enum, value_name = "HOW", default_value = "acl")]
    fence: FenceMode,
    /// How long to wait for writers, transactions and the copy, each, while nothing moves.
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
    /// Undo a failback that isn't finished: the standby stays the primary.
    #[arg(long, conflicts_with = "start")]
    abort: bool,
    /// The standby was the primary and died for good: make the old primary the primary again with what was copied back so
    /// far. Needs nothing of the standby. Its records that weren't copied back are lost; without --yes the command shows how
    /// many that may be.
    #[arg(long, conflicts_with_all = ["start", "abort", "lift_fence", "accept_orphans", "quiet_for"])]
    give_up: bool,
    /// After a failback only Twinlog may write to the copies on the standby: let others write there again.
    #[arg(long, conflicts_with_all = ["start", "abort"])]
    lift_fence: bool,
}

impl FailbackArgs {
    /// The flow that is named.
    pub(super) fn flow(&self) -> Option<&str> {
        self.flow.as_deref()
    }

    /// Whether it goes without the standby. Where a secret of it is missing, nothing is asked there but whether anybody
    /// takes a connection.
    pub(super) fn gives_up(&self) -> bool {
        self.give_up
    }
}

/// What is answered about the fence around the copies.
#[derive(Serialize)]
struct Fence<'a> {
    flow: &'a str,
    applied: bool,
    /// `lifted` (or would be), `none` or `protected`.
    fence: &'static str,
}

async fn lift_fence(flow: &FlowConfig, target: &ClusterSection, yes: bool, json: bool) -> Exit {
    let found = match yes {
        true => cutover::lift_kept_fence(flow, target).await,
        false => cutover::look_kept_fence(flow, target).await,
    };
    let found = match found {
        Ok(found) => found,
        Err(error) => return refuse(&error),
    };
    let fence = match found {
        KeptFence::Lifted => "lifted",
        KeptFence::None => "none",
        KeptFence::Protected => "protected",
    };
    if json {
        return output::print_answer(Fence {
            flow: &flow.name,
            applied: yes,
            fence,
        });
    }
    match (found, yes) {
        (KeptFence::Lifted, true) => output::print("nobody is kept from the copies any more\n"),
        (KeptFence::Lifted, false) => output::print(&format!(
            "everybody may write to the copies of flow {} then whom ACLs let\n\
             nothing was changed; --yes carries it out\n",
            flow.name
        )),
        (KeptFence::None, _) => output::print("nobody is kept from the copies by a failback\n"),
        (KeptFence::Protected, _) => output::print(&format!(
            "others stay kept from the copies: flow {} has `protect: true`; without it `twinlog run` lifts that\n",
            flow.name
        )),
    }
}

async fn abort(
    flow: &FlowConfig,
    (source, target): (&ClusterSection, &ClusterSection),
    yes: bool,
    json: bool,
) -> Exit {
    if !yes {
        return match cutover::look_abort_back(flow, source, target).await {
            Ok(undoing) => show_undoing(flow, &undoing, json),
            Err(error) => refuse(&error),
        };
    }
    carried_out(cutover::abort_back(flow, source, target, tell()), json).await
}

/// Shows, carries out, or undoes a failback.
pub(super) async fn run(config: &Config, args: &FailbackArgs, json: bool) -> Exit {
    let chosen = match choose(config, args.flow.as_deref()) {
        Ok(chosen) => chosen,
        Err(exit) => return exit,
    };
    let (flow, source, target) = (chosen.flow, chosen.source, chosen.target);
    if let Err(exit) = quiet_for_fits(args.fence, args.quiet_for) {
        return exit;
    }
    if args.abort {
        return abort(flow, (source, target), args.yes, json).await;
    }
    if args.give_up {
        return match cutover::look_give_up(flow, source, target).await {
            Ok(plan) => carry_out(flow, CutoverKind::Failback, plan, args.yes, json).await,
            Err(error) => refuse(&error),
        };
    }
    if args.lift_fence {
        return lift_fence(flow, target, args.yes, json).await;
    }
    let options = Options {
        kind: CutoverKind::Failback,
        topics: BTreeSet::new(),
        accept_loss: AcceptedLoss::Records(0),
        fence: args.fence,
        padding: 0,
        wait: Duration::from_secs(args.wait),
        quiet_for: args.quiet_for.map(Duration::from_secs),
    };
    let (undecided, unseen) = match orphans::undecided_partitions(&flow.name, source, target).await
    {
        Ok(looked) => looked,
        Err(error) => return output::fail(Exit::Failed, &error),
    };
    let scope = BackScope {
        start_only: args.start,
        accept_orphans: args.accept_orphans,
        undecided,
        unseen,
    };
    match cutover::look_back(flow, source, target, options, scope).await {
        Ok(plan) => carry_out(flow, CutoverKind::Failback, plan, args.yes, json).await,
        Err(error) => refuse(&error),
    }
}
