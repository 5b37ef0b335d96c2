//! `twinlog failback`: goes back to the old primary. Shows the plan first; `--yes` carries it out.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;

use super::cutover::{account, carry_out, choose, quiet_for_fits, refuse, tell};
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
    /// The flow; may be left out when the config has only one.
    #[arg(long, value_name = "NAME")]
    flow: Option<String>,
    /// Only begin to copy back, and leave the standby the primary: `twinlog run` keeps it up.
    #[arg(long)]
    start: bool,
    /// Go back although the old primary has records that were never copied and nobody has decided
    /// about (`twinlog orphans`): they stay there, and who reads that far back meets them.
    #[arg(long)]
    accept_orphans: bool,
    /// How writers are kept from the standby for the moment of the change: `acl` denies them,
    /// `manual` waits until you have stopped them.
    #[arg(long, value_enum, value_name = "HOW", default_value = "acl")]
    fence: FenceMode,
    /// How long to wait for writers, transactions and the copy, each, while nothing moves.
    #[arg(long, value_name = "SECONDS", default_value = "60")]
    wait: u64,
    /// With --fence manual: for so long nothing may be written before that counts as proof that all producers
    /// are stopped; 5 by default. Shorter is for who knows that they are: one that pauses for longer and
    /// goes on afterwards writes what is left behind on the old primary.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=QUIET_FOR_SECONDS_MAX))]
    quiet_for: Option<u64>,
    /// Carry it out.
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
    /// Only show it (the default).
    #[arg(long)]
    dry_run: bool,
    /// Undo a failback that isn't through: the standby stays the primary.
    #[arg(long, conflicts_with = "start")]
    abort: bool,
    /// The standby died while it was the primary, and never comes back: make the old primary the primary again with what was
    /// copied back so far. Asks nothing of the standby. What it had acknowledged and didn't arrive is lost; without --yes it is
    /// shown how much that may be.
    #[arg(long, conflicts_with_all = ["start", "abort", "lift_fence", "accept_orphans", "quiet_for"])]
    give_up: bool,
    /// After a failback nobody but Twinlog may write to the copies on the standby: let others write there again.
    #[arg(long, conflicts_with_all = ["start", "abort"])]
    lift_fence: bool,
}

async fn lift_fence(flow: &FlowConfig, target: &ClusterSection, yes: bool) -> Exit {
    if !yes {
        return output::print(&format!(
            "would let everybody write to the copies of flow {} whom ACLs let; add --yes to do it\n",
            flow.name
        ));
    }
    match cutover::lift_kept_fence(flow, target).await {
        Ok(KeptFence::Lifted) => output::print("nobody is kept from the copies any more\n"),
        Ok(KeptFence::None) => output::print("nobody was kept from the copies by a failback\n"),
        Ok(KeptFence::Protected) => output::print(&format!(
            "others are still kept from the copies: flow {} has `protect: true`; without it `twinlog run` lifts that\n",
            flow.name
        )),
        Err(error) => refuse(&error),
    }
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
        if !args.yes {
            return output::print(&format!(
                "would undo the failback of flow {}; add --yes to do it\n",
                flow.name
            ));
        }
        return match cutover::abort_back(flow, source, target, tell()).await {
            Ok(ended) => account(ended, json),
            Err(error) => refuse(&error),
        };
    }
    if args.give_up {
        return match cutover::look_give_up(flow, source, target).await {
            Ok(plan) => carry_out(flow, CutoverKind::Failback, plan, args.yes, json).await,
            Err(error) => refuse(&error),
        };
    }
    if args.lift_fence {
        return lift_fence(flow, target, args.yes).await;
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
    let undecided = match orphans::undecided_partitions(&flow.name, source, target).await {
        Ok(undecided) => undecided,
        Err(error) => return output::fail(Exit::Failed, &error),
    };
    let scope = BackScope {
        start_only: args.start,
        accept_orphans: args.accept_orphans,
        undecided,
    };
    match cutover::look_back(flow, source, target, options, scope).await {
        Ok(plan) => carry_out(flow, CutoverKind::Failback, plan, args.yes, json).await,
        Err(error) => refuse(&error),
    }
}
