//! The rules of `/readyz`: ready means that the standby is being kept up to date right
//! now. A quiet source is fine; a partition that is behind and stands still is not.

use super::status::{FlowStatus, PartitionStatus};

/// A partition may be without a copy in progress this long before it counts: leader moves
/// and broker restarts are over in less.
pub const UNHEALTHY_SECONDS_MAX: f64 = 30.0;
/// A partition may be behind without moving this long before it counts as stuck.
pub const NO_PROGRESS_SECONDS_MAX: f64 = 60.0;
/// Configs, ACLs and quotas may be uncompared this long before it counts.
pub const METADATA_AGE_SECONDS_MAX: i64 = 60;
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
                    because(Some(&watching.state), watching.detail.as_deref())
                ));
            }
        }
    }
    if let Some(metadata) = &flow.metadata {
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

fn partition_problem(partition: &PartitionStatus) -> Option<String> {
    let why = || because(partition.reason.as_deref(), partition.detail.as_deref());
    match partition.state.as_str() {
        "stopped" => Some(format!("is stopped{}", why())),
        "retrying" if partition.unhealthy_seconds > UNHEALTHY_SECONDS_MAX => Some(format!(
            "hasn't been copying for {:.0} s and is retrying{}",
            partition.unhealthy_seconds,
            why()
        )),
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
