//! A running flow's readiness, from what its registry holds already. Pure: nobody is asked.

use super::check::{Check, Weight};
use super::facts::{Facts, GroupFacts};
use super::judge::{Intent, judge};
use super::loss::{Bound, Loss, Seen, bound};
use super::{Failback, GroupReread, Readiness, Reread, Verdict};
use crate::telemetry::cut_over::OpenCutOver;
use crate::telemetry::groups::{FlowGroups, GroupKind};
use crate::telemetry::metadata::{Drift, MetadataSummary};
use crate::telemetry::readiness::{
    InTheWay, METADATA_AGE_SECONDS_MAX, in_the_way, source_silent_seconds,
};
use crate::telemetry::role::RoleStatus;
use crate::telemetry::status::{FirstCopy, FlowStatus, PartitionStatus};

/// A transaction that is open for longer hangs, most likely: producers abort theirs after a minute
/// (`transaction.timeout.ms`).
const HANGING_SECONDS: f64 = 60.0;

/// So much is copied in a moment, or in so many seconds at the rate of now.
const NEAR_OFFSETS: i64 = 10_000;
const NEAR_SECONDS: f64 = 10.0;

/// What the name of a flow that copies back ends with; no flow of a config can have it.
const BACK: &str = "~back";

/// Judges a flow as it is shown, with its groups where they are followed.
pub fn now(flow: &FlowStatus, groups: Option<&FlowGroups>, now_ms: i64) -> Readiness {
    let reread = groups.map(reread).unwrap_or_default();
    let mut readiness = Readiness {
        flow: flow.name.clone(),
        kind: "planned".to_owned(),
        primary: primary(flow.role.as_ref()),
        computed_at_ms: now_ms,
        source_seen_ms: flow.source_seen_ms,
        failback: flow.role.as_ref().map(failback),
        ..Readiness::default()
    };
    if let Some(role) = flow.role.as_ref().filter(|role| role.topics.is_none()) {
        // Nothing is copied: what the registry holds of the copy is over.
        let weight = match role.primary.as_str() {
            "target" => {
                readiness.can_fail_over = Verdict::FailedOver;
                Weight::Ok
            }
            _ => Weight::Blocker,
        };
        readiness.checks = vec![Check::new("role", weight, role.in_words())];
        readiness
            .checks
            .extend(flow.cut_over.iter().map(OpenCutOver::check));
        return readiness;
    }
    let mut facts = facts(flow, groups, now_ms);
    let loss = loss(flow, now_ms);
    facts.loss = Some(loss.clone());
    readiness.checks = judge(Intent::Know, &facts);
    readiness
        .checks
        .extend(flow.cut_over.iter().map(OpenCutOver::check));
    readiness
        .checks
        .sort_by_key(|check| std::cmp::Reverse(check.weight));
    readiness.can_fail_over = verdict(&facts, &readiness.checks);
    if flow.name.ends_with(BACK) {
        readiness.kind = "failback".to_owned();
        for check in &mut readiness.checks {
            // The ways out are the failover's.
            check.hint = None;
        }
    } else if facts.source_problem.is_some() {
        readiness.kind = "unplanned".to_owned();
    }
    readiness.loss = loss;
    readiness.reread = reread;
    readiness
}

fn verdict(facts: &Facts, checks: &[Check]) -> Verdict {
    let is_in_the_way = |check: &Check| check.weight >= Weight::Blocker && check.subject != "loss";
    let loses = |check: &Check| check.weight == Weight::LosesData && check.subject == "loss";
    if checks.iter().any(is_in_the_way) {
        Verdict::No
    } else if checks.iter().any(loses) || facts.copy_problem.is_some() {
        Verdict::WithLoss
    } else {
        Verdict::Yes
    }
}

fn primary(role: Option<&RoleStatus>) -> String {
    match role {
        None => "source".to_owned(),
        Some(role) if role.topics.is_some() => "mixed".to_owned(),
        Some(role) => role.primary.clone(),
    }
}

fn facts(flow: &FlowStatus, groups: Option<&FlowGroups>, now_ms: i64) -> Facts {
    let mut facts = Facts {
        topics: flow.topics.len(),
        partitions: usize::try_from(flow.totals.partitions).unwrap_or(usize::MAX),
        first_copy_percent: flow.first_copy.as_ref().map(|copy| copy.percent),
        first_copy_is_near: flow.first_copy.as_ref().is_some_and(is_near),
        gap_offsets: flow.totals.counters.gap_offsets,
        is_copied: true,
        standby: flow.standby.unwrap_or_default(),
        unfenceable: flow.unfenceable.clone(),
        groups: groups.map(group_facts),
        ..Facts::default()
    };
    state(flow, &mut facts);
    // A host that is frozen refuses nobody.
    if let Some(seconds) = source_silent_seconds(flow, now_ms) {
        facts.source_problem = Some(format!("no answer for {seconds} s"));
    }
    // What isn't known isn't 0.
    facts.lag = (flow.discovered && flow.totals.partitions > flow.totals.lag_unknown_partitions)
        .then_some(flow.totals.lag_records);
    for topic in &flow.topics {
        for partition in &topic.partitions {
            of_partition(&topic.name, partition, &mut facts);
        }
        // Nobody fails over to what isn't there; without the source nobody asks for it.
        if topic.target_topic.is_none() && facts.source_problem.is_none() {
            facts.without_copy.push(topic.name.clone());
        }
    }
    if let Some(metadata) = &flow.metadata {
        of_metadata(metadata, now_ms, &mut facts);
    }
    let newest = flow.verify.as_ref().and_then(|verify| verify.newest());
    facts.differences = newest
        .filter(|(_, result)| result.verdict == "different")
        .map(|(_, result)| result.count());
    facts
}

/// Whether a first copy comes to its end in a moment; a partition that is only just opened says nothing yet.
fn is_near(copy: &FirstCopy) -> bool {
    let is_soon = |seconds| seconds <= NEAR_SECONDS;
    copy.total_offsets - copy.done_offsets <= NEAR_OFFSETS
        || copy.estimated_seconds.is_some_and(is_soon)
}

/// What the flow's state says of both clusters.
fn state(flow: &FlowStatus, facts: &mut Facts) {
    let words = || {
        let detail = flow.detail.clone().or_else(|| flow.reason.clone());
        detail.unwrap_or_else(|| flow.state.clone())
    };
    match (flow.state.as_str(), flow.reason.as_deref()) {
        ("running", _) if flow.discovered => {}
        ("running", _) => facts.copy_problem = Some("topics aren't discovered yet".to_owned()),
        ("waiting", Some("source_unreachable" | "source_replaced")) => {
            facts.source_problem = Some(words());
            if flow.totals.partitions == 0 {
                let problem = "the source was away already when this process began";
                facts.copy_problem = Some(problem.to_owned());
            }
        }
        ("waiting", Some("target_unreachable" | "target_replaced")) => {
            facts.standby_problem = Some(words());
        }
        ("starting", None) => facts.copy_problem = Some("the flow is starting".to_owned()),
        _ => facts.copy_problem = Some(format!("the flow is {}: {}", flow.state, words())),
    }
}

fn of_partition(topic: &str, partition: &PartitionStatus, facts: &mut Facts) {
    let name = || format!("{topic}-{}", partition.partition);
    let reason = || {
        let restless = partition.restless.as_ref().map(|it| &it.reason);
        let reason = partition.reason.as_ref().or(restless);
        reason.cloned().unwrap_or_default()
    };
    if partition.transaction_open_seconds > HANGING_SECONDS {
        let seconds = partition.transaction_open_seconds;
        let text = format!("{} ({seconds:.0} s)", name());
        facts.hanging_transactions.push(text);
    }
    if partition.missed_deletes.is_some() {
        facts.missed_deletes.push(name());
    }
    if partition.state == "stopped" {
        facts.stopped.push((name(), reason()));
        return;
    }
    if facts.source_problem.is_some() {
        // That nothing moves then is no second problem.
        return;
    }
    match in_the_way(partition.retrying_seconds(), partition.no_progress_seconds) {
        Some(InTheWay::Retrying) => facts.retrying.push((name(), reason())),
        Some(InTheWay::Stands) => facts.no_progress.push(name()),
        None => {}
    }
}

fn of_metadata(metadata: &MetadataSummary, now_ms: i64, facts: &mut Facts) {
    let drift = || metadata.attention.iter();
    let told = drift().filter_map(Drift::for_the_operator);
    facts.for_the_operator.extend(told);
    let late = drift().filter_map(Drift::not_followed);
    facts.not_followed.extend(late);
    for obstacle in metadata.obstacles.iter().filter(|it| it.is_problem) {
        let (kind, cluster) = (obstacle.kind.plural(), &obstacle.cluster);
        let text = format!("{kind} of the {cluster} ({})", obstacle.reason);
        facts.obstacles.push(text);
    }
    let age_seconds = (now_ms - metadata.compared_at_ms) / 1_000;
    if facts.source_problem.is_none() && age_seconds > METADATA_AGE_SECONDS_MAX {
        facts.obstacles.push(format!(
            "configs, ACLs, quotas and users, for {age_seconds} s"
        ));
    }
}

fn group_facts(groups: &FlowGroups) -> GroupFacts {
    let mut facts = GroupFacts {
        total: groups.groups.len(),
        ..GroupFacts::default()
    };
    for (cluster, watching) in [("source", &groups.source), ("standby", &groups.target)] {
        if watching.state == "failing" || watching.detail.is_some() {
            let why = watching.detail.as_deref().unwrap_or("failing");
            facts.unwatched.push(format!("of the {cluster}: {why}"));
        }
    }
    let sight = &groups.sight;
    let of_source = |name: &String| format!("{name} (source)");
    facts.refused.extend(sight.refused.iter().map(of_source));
    let hidden = sight.hidden.iter();
    facts
        .hidden
        .extend(hidden.map(|why| format!("of the source: {why}")));
    let types = sight.unknown_types.iter();
    facts
        .unknown_types
        .extend(types.map(|(name, of_type)| format!("{name} ({of_type})")));
    for group in &groups.groups {
        facts.behind += usize::from(group.behind_records > 0);
        facts.behind_records = facts.behind_records.saturating_add(group.behind_records);
        facts.rereading += usize::from(group.reread_records > 0);
        facts.reread_records = facts.reread_records.saturating_add(group.reread_records);
        facts.unplaced_positions += group.unplaced_partitions;
        let names = match group.state.as_str() {
            "active_on_target" => &mut facts.active_on_target,
            "diverged" => &mut facts.diverged,
            "failed" => &mut facts.failed,
            "unknown" => &mut facts.unknown,
            "not_supported" if group.kind == GroupKind::Share => {
                facts.share += 1;
                continue;
            }
            _ => continue,
        };
        names.push(group.group.clone());
    }
    facts
}

fn reread(groups: &FlowGroups) -> Reread {
    let mut reread = Reread {
        groups_total: groups.groups.len() as u64,
        ..Reread::default()
    };
    for group in &groups.groups {
        let (records, unplaced) = (group.reread_records, group.unplaced_partitions);
        reread.records = reread.records.saturating_add(records);
        reread.records_max = reread.records_max.max(records);
        reread.unplaced_positions += unplaced;
        if records > 0 || unplaced > 0 {
            reread.groups.push(GroupReread {
                group: group.group.clone(),
                records,
                unplaced_positions: unplaced,
                state: group.state.clone(),
            });
        }
    }
    let badness = |group: &GroupReread| (group.records, group.unplaced_positions);
    reread
        .groups
        .sort_by_key(|group| std::cmp::Reverse(badness(group)));
    reread
}

/// What would be missing if the source were lost at this moment.
fn loss(flow: &FlowStatus, now_ms: i64) -> Loss {
    let mut loss = Loss::default();
    let age_ms = |seen_ms: i64| (now_ms - seen_ms).max(0);
    loss.seconds = flow
        .source_seen_ms
        .and_then(|seen_ms| u64::try_from(age_ms(seen_ms) / 1_000).ok());
    let counters = &flow.totals.counters;
    let usual_bytes = counters.bytes / counters.records.max(1);
    for topic in &flow.topics {
        for partition in &topic.partitions {
            let seen_ms = end_seen_ms(flow, partition);
            let per_second = partition.source_per_second;
            let seen = partition.source_position.map(|copied| Seen {
                copied,
                observed: partition.source_high_watermark,
                per_second: (!partition.source_rate_unknown).then_some(per_second),
                habit: partition.source_habit,
            });
            let bounded = seen.zip(seen_ms).map_or(Bound::UNKNOWN, |(seen, seen_ms)| {
                bound(seen, age_ms(seen_ms))
            });
            let counters = &partition.counters;
            let bytes = match counters.records {
                0 => usual_bytes,
                records => counters.bytes / records,
            };
            loss.per_second = loss.per_second.saturating_add(partition.source_per_second);
            loss.add(&topic.name, bounded, bytes);
            if bounded.records() > 0 {
                let unseen_seconds =
                    seen_ms.map_or(0.0, |seen_ms| age_ms(seen_ms) as f64 / 1_000.0);
                let seconds = partition
                    .lag_seconds
                    .max(partition.transaction_open_seconds)
                    .max(unseen_seconds);
                loss.note_oldest(&topic.name, seconds.ceil() as u64);
            }
        }
    }
    loss
}

/// When a partition's end on the source was seen last.
fn end_seen_ms(flow: &FlowStatus, partition: &PartitionStatus) -> Option<i64> {
    partition.source_end_seen_ms.or(flow.source_seen_ms)
}

fn failback(role: &RoleStatus) -> Failback {
    let mut waits_for = Vec::new();
    match role.old_primary.as_str() {
        "fenced" => waits_for.push(Check::new(
            "old_primary",
            Weight::Ok,
            "answers, and its writers are refused",
        )),
        "writable" => {
            let why = role.fence_problem.as_deref().unwrap_or("unknown");
            let reason = format!("answers, and writers can't be kept from it: {why}");
            waits_for.push(
                Check::new("old_primary", Weight::Warning, reason)
                    .with_hint("stop its producers, or grant ALTER on its cluster to Twinlog"),
            );
        }
        "given_up" => waits_for.push(
            Check::new(
                "old_primary",
                Weight::Blocker,
                "is the primary again: this standby was given up",
            )
            .with_hint("keep clients away from here, and build the standby anew"),
        ),
        _ => waits_for.push(
            Check::new("old_primary", Weight::Blocker, "doesn't answer")
                .with_hint("bring it back; what it has is looked at then"),
        ),
    }
    match role.orphan_offsets {
        Some(0) => waits_for.push(Check::new(
            "orphans",
            Weight::Ok,
            "nothing is stranded there",
        )),
        Some(offsets) => {
            let reason = format!(
                "{offsets} offset(s) there were never copied, on {} partition(s)",
                role.orphans.len()
            );
            // Whoever has begun to copy back has decided to leave them there.
            let weight = match role.is_copied_back {
                true => Weight::Warning,
                false => Weight::LosesData,
            };
            waits_for.push(Check::new("orphans", weight, reason).with_hint(
                "decide about them with `twinlog orphans`, or leave them there: `--accept-orphans`",
            ));
        }
        None => waits_for.push(Check::new(
            "orphans",
            Weight::Blocker,
            "what is stranded there isn't measured yet",
        )),
    }
    if role.is_copied_back {
        waits_for.push(Check::new(
            "copy_back",
            Weight::Ok,
            "what is new on the target is being copied back",
        ));
    }
    Failback {
        old_primary: role.old_primary.clone(),
        orphan_offsets: role.orphan_offsets,
        waits_for,
    }
}
