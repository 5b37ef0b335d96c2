//! `twinlog held`: what waits on the standby for the failover, and releasing it.
//!
//! Works with the target alone: what is held is remembered there.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use clap::Args;
use serde::Serialize;

use super::format::{clean, plural};
use super::{Exit, output};
use crate::config::{Config, FlowConfig};
use crate::connect;
use crate::flow::own_principal;
use crate::metadata::acls::{Change, HeldAcl, ReleaseDone, ReleaseError, ReleasePlan, Which};
use crate::metadata::{self, Held};
use crate::state::StateStore;
use crate::wire::Cluster;

/// The options of `held`.
#[derive(Debug, Args)]
pub(super) struct HeldArgs {
    /// The flow; without it all are listed. To release or withdraw it is needed if the config has several.
    #[arg(long, value_name = "NAME")]
    flow: Option<String>,
    /// Put what is held on the target. Clients may then write to the copy, and a write stops its
    /// partition.
    #[arg(long, conflicts_with = "withdraw")]
    release: bool,
    /// Take back what was released.
    #[arg(long)]
    withdraw: bool,
    /// Only what is about this topic, by its name on the target; may be given more than once.
    #[arg(long = "topic", value_name = "TOPIC")]
    topics: Vec<String>,
    /// Do it; without this it is only shown.
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
    /// Only show it (the default).
    #[arg(long)]
    dry_run: bool,
}

impl HeldArgs {
    /// The flow that is named.
    pub(super) fn flow(&self) -> Option<&str> {
        self.flow.as_deref()
    }
}

/// What is held, as JSON.
#[derive(Serialize)]
struct Listed<'a> {
    held: &'a [Held],
}

/// What a release or withdrawal does, as JSON.
#[derive(Serialize)]
struct Answer {
    flow: String,
    /// Whether it was done, or is only shown.
    applied: bool,
    create: Vec<String>,
    delete: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<ReleaseDone>,
}

/// Lists what is held, or changes what is released.
pub(super) async fn run(config: &Config, args: &HeldArgs, json: bool) -> Exit {
    let change = match (args.release, args.withdraw) {
        (true, _) => Change::Release,
        (_, true) => Change::Withdraw,
        _ if args.yes || args.dry_run => {
            let problem = "--yes and --dry-run belong to --release or --withdraw";
            return output::fail(Exit::Usage, &problem);
        }
        _ => return list(config, args, json).await,
    };
    let flow = match config.flow(args.flow.as_deref()) {
        Ok(flow) => flow,
        Err(problem) => return output::fail(Exit::Usage, &problem),
    };
    match self::change(config, flow, change, args, json).await {
        Ok(exit) => exit,
        Err(error @ (ReleaseError::EverythingIsReleased | ReleaseError::NothingHeld(_))) => {
            output::fail(Exit::Usage, &error)
        }
        Err(error) => {
            let cure = error.cure_if_not_reached();
            output::fail(
                Exit::Failed,
                &output::with_cure(output::chain(&error), cure),
            )
        }
    }
}

async fn open(
    config: &Config,
    flow: &FlowConfig,
) -> Result<Option<(Cluster, StateStore)>, ReleaseError> {
    let Some(section) = config.clusters.get(&flow.target) else {
        return Ok(None);
    };
    let target = connect::cluster(section);
    let store = StateStore::open_existing(&target).await?;
    Ok(store.map(|store| (target, store)))
}

async fn list(config: &Config, args: &HeldArgs, json: bool) -> Exit {
    let mut all = Vec::new();
    if let Some(name) = &args.flow
        && let Err(problem) = config.flow(Some(name))
    {
        return output::fail(Exit::Usage, &problem);
    }
    let asked = |flow: &&FlowConfig| args.flow.as_ref().is_none_or(|name| *name == flow.name);
    let mut problems = Vec::new();
    for flow in config.flows.values().filter(asked) {
        let found = async {
            match open(config, flow).await? {
                Some((_, store)) => Ok(metadata::held(&store, &flow.name)?),
                None => Ok::<_, ReleaseError>(Vec::new()),
            }
        };
        match found.await {
            Ok(found) => all.extend(found),
            // The other flows' targets may answer.
            Err(error) => {
                let problem = format!("flow {}: {}", flow.name, output::chain(&error));
                problems.push(output::with_cure(problem, error.cure_if_not_reached()));
            }
        }
    }
    if !args.topics.is_empty() {
        all.retain(|held| is_about(held, &args.topics));
    }
    let is_told = problems.is_empty() || !all.is_empty();
    let printed = match (is_told, json) {
        (false, _) => Exit::Done,
        (true, true) => output::print_answer(Listed { held: &all }),
        (true, false) => output::print(&render(&all)),
    };
    match problems.is_empty() {
        true => printed,
        false => output::fail(Exit::Failed, &problems.join("\n")),
    }
}

fn is_about(held: &Held, topics: &[String]) -> bool {
    match held {
        Held::Acl(acl) => acl.topic_is_one_of(topics),
        Held::Quota { .. } => false,
        Held::TopicConfig { subject, .. } => {
            let topic = subject.strip_prefix("topic ");
            topics.iter().any(|asked| topic == Some(asked.as_str()))
        }
    }
}

fn render(all: &[Held]) -> String {
    if all.is_empty() {
        return "nothing is held\n".to_owned();
    }
    let mut text = String::new();
    for held in all {
        // Writing to a string can't fail.
        let _ = writeln!(text, "{}", clean(&line(held)));
    }
    let acls = |is_released: bool| {
        let is_one = |held: &&Held| matches!(held, Held::Acl(acl) if acl.released == is_released);
        all.iter().filter(is_one).count() as u64
    };
    let (held, released) = (acls(false), acls(true));
    if held > 0 {
        let held = plural(held, "ACL");
        let _ = writeln!(
            text,
            "{held} held; `twinlog held --release` puts what is held on the target"
        );
    }
    if released > 0 {
        let released = plural(released, "ACL");
        let _ = writeln!(
            text,
            "{released} released; `twinlog held --withdraw` takes what is released away again"
        );
    }
    let others = all.len() as u64 - held - released;
    if others > 0 {
        let _ = writeln!(
            text,
            "{} for the failover alone",
            plural(others, "quota or config")
        );
    }
    text
}

fn line(held: &Held) -> String {
    match held {
        Held::Acl(held) => {
            let state = if held.released { "released" } else { "held" };
            let HeldAcl {
                flow,
                subject,
                acl,
                why,
                ..
            } = held;
            format!("flow {flow}: {state} {subject}: {acl} ({why})")
        }
        Held::Quota {
            flow,
            subject,
            key,
            value,
        } => {
            format!("flow {flow}: held {subject}: {key}={value} (it would throttle Twinlog)")
        }
        Held::TopicConfig {
            flow,
            subject,
            key,
            value,
        } => {
            format!(
                "flow {flow}: held {subject}: {key}={value} (a mirror keeps the source's timestamps)"
            )
        }
    }
}

async fn change(
    config: &Config,
    flow: &FlowConfig,
    change: Change,
    args: &HeldArgs,
    json: bool,
) -> Result<Exit, ReleaseError> {
    let Some((target, store)) = open(config, flow).await? else {
        let problem = "the target has no Twinlog state: `twinlog run` never ran";
        return Ok(output::fail(Exit::Failed, &problem));
    };
    let which = match &args.topics[..] {
        [] => Which::Everything,
        topics => Which::Topics(topics.iter().cloned().collect::<BTreeSet<_>>()),
    };
    let section = config.clusters.get(&flow.target);
    let own = section.and_then(|section| own_principal(flow, section));
    let of = (flow.name.as_str(), own.as_deref());
    let plan = ReleasePlan::new(&target, &store, of, change, &which).await?;
    let mut answer = Answer {
        flow: flow.name.clone(),
        applied: args.yes,
        create: plan.created(),
        delete: plan.deleted(),
        result: None,
    };
    if !json {
        output::print(&shown(&answer, change, plan.may_shut_us_out()));
        for waiting in plan.waiting() {
            let (acl, message) = (clean(&waiting.acl), clean(&waiting.message));
            output::print(&format!("held still: {acl}: {message}\n"));
        }
    }
    if args.yes {
        let done = plan.apply(&target, &store).await?;
        if !json {
            output::print(&format!("{} done\n", plural(done.done, "change")));
            for failed in &done.failed {
                let (acl, message) = (clean(&failed.acl), clean(&failed.message));
                output::fail(Exit::Failed, &format!("{acl}: {message}"));
            }
        }
        answer.result = Some(done);
    }
    if json {
        output::print_answer(&answer);
    }
    Ok(match answer.result {
        Some(done) if done.failed.is_empty() => Exit::Done,
        Some(_) => Exit::Failed,
        None => {
            if !json {
                output::print("nothing was changed; --yes carries it out\n");
            }
            Exit::Done
        }
    })
}

fn shown(answer: &Answer, change: Change, may_shut_us_out: bool) -> String {
    let mut text = String::new();
    // Writing to a string can't fail.
    for acl in &answer.create {
        let _ = writeln!(text, "create {}", clean(acl));
    }
    for acl in &answer.delete {
        let _ = writeln!(text, "delete {}", clean(acl));
    }
    if answer.create.is_empty() && answer.delete.is_empty() {
        text.push_str("no ACL on the target has to be changed\n");
    }
    if change == Change::Release {
        text.push_str(
            "warning: clients may change the copy then; a write there stops the mirrored \
             partition for good\n",
        );
    }
    if may_shut_us_out {
        text.push_str(
            "warning: the denials are for Twinlog too, unless it is a super user of the target: \
             then it can neither copy nor read its state\n",
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_and_what_is_released_are_told_apart() {
        let held = HeldAcl {
            flow: "dr".to_owned(),
            subject: "topic orders".to_owned(),
            acl: "ALLOW WRITE User:bob from *".to_owned(),
            source: "ALLOW WRITE User:bob from * on topic orders".to_owned(),
            why: "why".to_owned(),
            released: false,
            about_topics: None,
        };
        let released = HeldAcl {
            released: true,
            ..held.clone()
        };
        let text = render(&[Held::Acl(held), Held::Acl(released)]);
        assert!(text.contains("held topic orders: ALLOW WRITE User:bob from * (why)"));
        assert!(text.contains("released topic orders"));
        assert!(
            text.contains("1 ACL held; `twinlog held --release`"),
            "{text}"
        );
        assert!(
            text.contains("1 ACL released; `twinlog held --withdraw`"),
            "{text}"
        );
        assert_eq!(render(&[]), "nothing is held\n");
    }
}
