//! The rules of `/readyz`: ready means that the standby is being kept up to date right
//! now. A quiet source is fine; a partition that is behind and stands still is not.

use std::collections::BTreeSet;

use super::cut_over::OpenCutOver;
use super::metadata::{DriftKind, MetadataSummary, Obstacle};
use super::status::{FlowStatus, PartitionStatus};

/// A partition may be without a copy in progress this long before it counts: leader moves
/// and broker restarts are over in less.
pub const UNHEALTHY_SECONDS_MAX: f64 = 30.0;
/// A partition may be behind without moving this long before it counts as stuck.
pub const NO_PROGRESS_SECONDS_MAX: f64 = 60.0;
/// Configs, ACLs and quotas may be uncompared this long before it counts.
pub const METADATA_AGE_SECONDS_MAX: i64 = 60;
/// What keeps configs or ACLs from being compared may last this long before it counts.
pub const OBSTACLE_SECONDS_MAX: i64 = 60;
/// All groups may fail this long before it counts.
pub const GROUPS_FAILED_SECONDS_MAX: i64 = 60;
/// A source that hasn't told for longer where its logs end hangs. It is asked every few seconds at least, also where
/// nothing can be fetched; half a minute is what a request of some MiB takes on a very slow line.
pub const SOURCE_SILENT_SECONDS_MAX: i64 = 20;
/// More reasons than this are counted instead of listed.
const LISTED_MAX: usize = 50;

/// Why the process isn't ready, a line each; empty when it is.
pub fn problems(flows: &[FlowStatus], now_ms: i64) -> Vec<String> {
    if flows.is_empty() {
        return vec!["no flow has started".to_owned()];
    }
    let mut problems: Vec<String> = flows
        .iter()
        .flat_map(|flow| flow_problems(flow, now_ms))
        .collect();
    if problems.len() > LISTED_MAX {
        let more = problems.len() - LISTED_MAX;
        problems.truncate(LISTED_MAX);
        problems.push(format!("and {more} more"));
    }
    problems
}

/// For how long the source hasn't answered, where that is too long although nothing failed: a host that is frozen
/// refuses nobody.
pub fn source_silent_seconds(flow: &FlowStatus, now_ms: i64) -> Option<i64> {
    let is_asked = flow.state == "running" && flow.totals.partitions > 0;
    let seen_ms = flow.source_seen_ms.filter(|_| is_asked)?;
    let seconds = now_ms.saturating_sub(seen_ms) / 1_000;
    (seconds > SOURCE_SILENT_SECONDS_MAX).then_some(seconds)
}

/// Whether the partition is behind and its position hasn't moved for too long.
pub fn is_stuck(partition: &PartitionStatus) -> bool {
    partition.no_progress_seconds > NO_PROGRESS_SECONDS_MAX
}

/// What a planned failover would wait for in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InTheWay {
    /// It isn't copied, or for moments only, and is tried again.
    Retrying,
    /// It is behind and doesn't move.
    Stands,
}

/// Whether a partition that isn't stopped stands in the way of a planned failover. The flow's readiness and, by what the
/// flow notes for it, the plan go by this.
pub fn in_the_way(retrying_seconds: f64, no_progress_seconds: f64) -> Option<InTheWay> {
    if retrying_seconds > UNHEALTHY_SECONDS_MAX {
        return Some(InTheWay::Retrying);
    }
    (no_progress_seconds > NO_PROGRESS_SECONDS_MAX).then_some(InTheWay::Stands)
}

fn flow_problems(flow: &FlowStatus, now_ms: i64) -> Vec<String> {
    let mut problems = Vec::new();
    if flow.state != "running" {
        problems.push(format!(
            "flow {} is {}{}",
            flow.name,
            flow.state,
            because(flow.reason.as_deref(), flow.detail.as_deref())
        ));
    } else if !flow.discovered {
        problems.push(format!(
            "flow {} hasn't discovered its topics yet",
            flow.name
        ));
    }
    if let Some(problem) = flow.cut_over.as_ref().and_then(OpenCutOver::problem) {
        problems.push(format!("flow {}: {problem}", flow.name));
    }
    if let Some(seconds) = source_silent_seconds(flow, now_ms) {
        problems.push(format!(
            "flow {}: {} hasn't answered for {seconds} s",
            flow.name, flow.source
        ));
    }
    if let Some(why) = &flow.nothing_selected {
        problems.push(format!("flow {} copies nothing: {why}", flow.name));
    }
    if let Some(groups) = &flow.groups {
        for (cluster, watching) in [
            (&flow.source, &groups.source),
            (&flow.target, &groups.target),
        ] {
            let is_followed = watching.state == "following";
            if !is_followed || watching.detail.is_some() {
                problems.push(format!(
                    "flow {}: {} groups of {cluster} aren't followed{}",
                    flow.name,
                    if is_followed { "some" } else { "the" },
                    match &watching.detail {
                        // Those of others are followed: the state of all says nothing here.
                        Some(detail) if is_followed => format!(": {detail}"),
                        detail => because(Some(&watching.state), detail.as_deref()),
                    }
                ));
            }
        }
    }
    problems.extend(all_groups_fail(flow, now_ms));
    // A flow that doesn't run compares nothing, and has said so.
    if let Some(metadata) = flow.metadata.as_ref().filter(|_| flow.state == "running") {
        problems.extend(obstacle_problems(flow, metadata, now_ms));
        let age_seconds = (now_ms - metadata.compared_at_ms) / 1_000;
        if age_seconds > METADATA_AGE_SECONDS_MAX {
            problems.push(format!(
                "flow {}: configs, ACLs and quotas haven't been compared for {age_seconds} s",
                flow.name
            ));
        }
    }
    for topic in &flow.topics {
        for partition in &topic.partitions {
            if let Some(problem) = partition_problem(partition) {
                problems.push(format!(
                    "flow {}, {}-{} {problem}",
                    flow.name, topic.name, partition.partition
                ));
            }
        }
    }
    problems
}

/// Nobody who fails over finds his place then.
fn all_groups_fail(flow: &FlowStatus, now_ms: i64) -> Option<String> {
    let groups = flow.groups.as_ref()?;
    let seconds = now_ms.saturating_sub(groups.failed_since_ms?) / 1_000;
    let count = groups.groups.get("failed").copied().unwrap_or(0);
    (seconds > GROUPS_FAILED_SECONDS_MAX).then(|| {
        format!(
            "flow {}: {} has taken no position of any of {count} group(s) for {seconds} s (failed)",
            flow.name, flow.target
        )
    })
}

/// What has been in the way of comparing for too long, one of a kind and cluster.
fn obstacle_problems(
    flow: &FlowStatus,
    metadata: &MetadataSummary,
    now_ms: i64,
) -> BTreeSet<String> {
    let problems = metadata.obstacles.iter().filter_map(|obstacle| {
        let seconds = now_ms.saturating_sub(obstacle.since_ms) / 1_000;
        let is_long = obstacle.since_ms > 0 && seconds > OBSTACLE_SECONDS_MAX;
        (is_long && is_in_the_way(obstacle)).then(|| {
            let cluster = match obstacle.cluster.as_str() {
                "source" => &flow.source,
                _ => &flow.target,
            };
            format!(
                "flow {}: {} of {cluster} can't be compared for {seconds} s ({})",
                flow.name,
                obstacle.kind.plural(),
                obstacle.reason
            )
        })
    });
    problems.collect()
}

/// Without ACLs nobody may read or write behind a failover. Whoever doesn't grant the right to topic configs has chosen
/// so; quotas and users are missed by somebody, and stop nobody.
fn is_in_the_way(obstacle: &Obstacle) -> bool {
    let counts = match obstacle.kind {
        DriftKind::Acl => true,
        DriftKind::TopicConfig => obstacle.reason != "not_authorized",
        DriftKind::Topic | DriftKind::Quota | DriftKind::User => false,
    };
    counts && obstacle.is_problem
}

fn partition_problem(partition: &PartitionStatus) -> Option<String> {
    let why = || because(partition.reason.as_deref(), partition.detail.as_deref());
    match partition.state.as_str() {
        "stopped" => Some(format!("is stopped{}", why())),
        "retrying" if partition.unhealthy_seconds > UNHEALTHY_SECONDS_MAX => Some(format!(
            "hasn't been copying for {:.0} s and is retrying{}",
            partition.unhealthy_seconds,
            why()
        )),
        _ if partition.restless_seconds() > UNHEALTHY_SECONDS_MAX => {
            let restless = partition.restless.as_ref()?;
            Some(format!(
                "has been opened again and again for {:.0} s{}",
                restless.seconds,
                because(Some(&restless.reason), Some(&restless.detail))
            ))
        }
        _ if is_stuck(partition) => Some(match partition.lag_records {
            Some(lag) => format!(
                "makes no progress: {lag} offsets behind and not moved for {:.0} s",
                partition.no_progress_seconds
            ),
            None => format!(
                "makes no progress: {} for {:.0} s without a known position",
                partition.state, partition.no_progress_seconds
            ),
        }),
        _ => None,
    }
}

fn because(reason: Option<&str>, detail: Option<&str>) -> String {
    match (reason, detail) {
        (Some(reason), Some(detail)) if !detail.is_empty() => format!(" ({reason}): {detail}"),
        (Some(reason), _) => format!(" ({reason})"),
        _ => String::new(),
    }
}
