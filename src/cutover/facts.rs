//! Finds out what the preflight judges.

use std::collections::HashSet;
use std::time::Duration;

use super::context::{Scene, without_copy};
use super::error::CutoverError;
use super::options::{FenceMode, Options};
use super::padding::Reach;
use super::pairs::{Maps, Offsets, Pair, copied_end, ends, on_source, on_target};
use super::preflight::{self, Check, Facts};
use super::steps::{add_uncopied, bound_now, gone};
use super::{capacity, group_facts, padding, reread};
use crate::flow::{self, claim, deny};
use crate::groups;
use crate::metadata::acls;
use crate::state::{
    self, CutoverKind, EndsRecord, ObservedRecord, RoleRecord, keys, missing_replicas,
};
use crate::telemetry::failover::{self, GroupFacts, StandbyHealth};
use crate::telemetry::metadata::Drift;
use crate::telemetry::progress::now_ms;
use crate::wire::{self, OffsetSpec};

/// What stands in the way counts for so long: a running flow notes it every ten seconds, while it does.
const NOTED_FOR_MS: i64 = 30_000;

/// Comparing metadata is for information: nobody waits for it longer than so long and a little for each topic, which
/// a service that describes them slowly needs on each cluster.
const METADATA_FOR: Duration = Duration::from_secs(3);
const METADATA_PER_TOPIC: Duration = Duration::from_millis(40);
/// Who was at the source's end so lately is there again in a moment.
const BEHIND_FOR_MS: i64 = 60_000;

fn metadata_patience(topics: usize) -> Duration {
    let topics = u32::try_from(topics).unwrap_or(u32::MAX);
    METADATA_FOR.saturating_add(METADATA_PER_TOPIC.saturating_mul(topics))
}

/// Looks at both clusters. `source_problem` says why the source can't be asked, if so.
///
/// # Errors
/// When the target can't be asked.
pub async fn collect(
    scene: &Scene,
    options: &Options,
    role: Option<&RoleRecord>,
    source_problem: Option<String>,
) -> Result<Facts, CutoverError> {
    let pairs = scene.pairs();
    let mut facts = Facts {
        mapped: pairs.iter().filter(|pair| pair.mapped).count(),
        strangers: preflight::strangers(scene.topics.iter().map(|topic| &topic.record)),
        unreleased: unreleased(scene)?,
        ..Facts::default()
    };
    let common = &mut facts.common;
    common.topics = scene.topics.len();
    common.partitions = pairs.len();
    common.stopped = stopped(scene)?;
    common.missed_deletes = missed_deletes(scene)?;
    common.is_copied = is_copied(scene)?;
    common.clock_skew_seconds = clock_skew_seconds(scene)?;
    let (standby, room, abilities) = tokio::join!(
        standby(scene),
        capacity::look(&scene.target, &pairs, options.kind),
        flow::standby_abilities(&scene.target),
    );
    (common.standby, common.unknown_min_in_sync) = standby;
    common.room = Some(room);
    common.standby_abilities = abilities.ok();
    if options.kind == CutoverKind::Unplanned {
        unplanned(scene, options, role, &pairs, &mut facts).await?;
    } else if source_problem.is_none() {
        planned(scene, options, role, &pairs, common).await?;
    }
    facts.common.source_problem = source_problem;
    Ok(facts)
}

/// Held ACLs that a release leaves out.
fn unreleased(scene: &Scene) -> Result<Vec<String>, CutoverError> {
    if !scene.flow.metadata.acls.enabled {
        return Ok(Vec::new());
    }
    let held = acls::held(&scene.store, &scene.flow.name)?;
    let waiting = held.iter().filter(|acl| acl.waits_for_our_name());
    Ok(waiting
        .map(|acl| format!("{}: {}", acl.subject, acl.acl))
        .collect())
}

async fn planned(
    scene: &Scene,
    options: &Options,
    role: Option<&RoleRecord>,
    pairs: &[Pair],
    facts: &mut failover::Facts,
) -> Result<(), CutoverError> {
    let logs = Logs::look(scene, pairs).await?;
    facts.lag = Some(logs.lag(pairs));
    if facts.is_copied {
        in_the_way(scene, facts)?;
    }
    facts.open_transactions = logs.open_transactions(pairs);
    // What groups do keeps nobody from a failover: what can't be asked is named.
    let (unfollowed, groups, abilities) = tokio::join!(
        unfollowed_groups(scene, pairs),
        group_facts::look(scene, pairs, &logs),
        flow::source_abilities(&scene.source),
    );
    facts.unfollowed_groups = unfollowed.reading;
    facts.unfollowed_unseen = unfollowed.unseen;
    facts.unfollowed_hidden = unfollowed.hidden;
    facts.groups = Some(groups);
    facts.source_abilities = abilities.ok();
    facts.without_copy = without_copy(scene, &options.topic_set(), role);
    metadata(scene, facts).await;
    Ok(())
}

/// Why writers can't be kept from the source as it is asked for, if so: the first step would fail.
pub(super) async fn fence_check(
    source: &wire::Cluster,
    topics: &[String],
    fence: FenceMode,
) -> Option<Check> {
    if fence == FenceMode::Manual {
        return None;
    }
    let error = deny::missing(source, topics, &[]).await.err()?;
    Some(flow::unfenceable(&error).check())
}

/// By how much the clock of the process that copies is ahead: what it has seen can't have been seen
/// in our future. That it is behind can't be told from a source that was seen long ago.
fn clock_skew_seconds(scene: &Scene) -> Result<Option<i64>, CutoverError> {
    let observed: Option<ObservedRecord> = scene.store.get(&keys::observed(&scene.flow.name))?;
    Ok(observed.map(|observed| ((observed.at_ms - now_ms()) / 1_000).max(0)))
}

/// What the running flow noted of partitions that it had to stop.
fn stopped(scene: &Scene) -> Result<Vec<(String, String)>, CutoverError> {
    let mut stopped = Vec::new();
    let gone = gone(scene);
    let topics = scene.topics.iter();
    for topic in topics.filter(|topic| !gone.contains(&topic.name)) {
        let key = keys::ends(&scene.flow.name, &topic.name);
        let record: Option<EndsRecord> = scene.store.get(&key)?;
        for (number, reason) in record.into_iter().flat_map(|record| record.stopped) {
            stopped.push((format!("{}-{number}", topic.name), reason));
        }
    }
    Ok(stopped)
}

/// What the running flow notes of partitions that this would wait for in vain: its readiness goes by the same.
fn in_the_way(scene: &Scene, facts: &mut failover::Facts) -> Result<(), CutoverError> {
    for topic in &scene.topics {
        let key = keys::ends(&scene.flow.name, &topic.name);
        let record: Option<EndsRecord> = scene.store.get(&key)?;
        let name = |number: i32| format!("{}-{number}", topic.name);
        // Written when somebody falls behind or has caught up. Since when isn't known of who never was at the end.
        let is_long = |since_ms: i64| since_ms < 0 || now_ms() - since_ms > BEHIND_FOR_MS;
        let behind = record.iter().flat_map(|it| &it.behind);
        let behind = behind.filter(|(_, since_ms)| is_long(**since_ms));
        facts.behind.extend(behind.map(|(number, _)| name(*number)));
        // Whoever noted it may be gone: then this command copies.
        let is_fresh = |it: &EndsRecord| (now_ms() - it.at_ms).abs() < NOTED_FOR_MS;
        let Some(record) = record.filter(is_fresh) else {
            continue;
        };
        let retrying = record.retrying.into_iter();
        facts
            .retrying
            .extend(retrying.map(|(number, reason)| (name(number), reason)));
        facts
            .no_progress
            .extend(record.no_progress.into_iter().map(name));
    }
    Ok(())
}

/// Where the copy may have missed deletes of the source, as the state topic knows it.
fn missed_deletes(scene: &Scene) -> Result<Vec<String>, CutoverError> {
    let mut found = Vec::new();
    for topic in &scene.topics {
        let missed =
            state::missed_deletes(&scene.store, &scene.flow.name, &topic.name, &topic.record)?;
        let names = missed.iter();
        found.extend(names.map(|number| format!("{}-{number}", topic.name)));
    }
    Ok(found)
}

fn is_copied(scene: &Scene) -> Result<bool, CutoverError> {
    let claim = claim::current(&scene.store, &scene.flow.name)?;
    Ok(claim.is_some_and(|claim| claim::may_run(&claim, scene.machine())))
}

/// Where the logs of both clusters end.
pub(super) struct Logs {
    stable: Offsets,
    source: Offsets,
    /// Where logs on the target begin.
    target_starts: Offsets,
    /// On the target.
    pub(super) target: Offsets,
    /// Of the mapped partitions.
    pub(super) maps: Maps,
}

impl Logs {
    async fn look(scene: &Scene, pairs: &[Pair]) -> Result<Self, CutoverError> {
        let sources = on_source(pairs);
        let targets = on_target(pairs);
        let (source, target, target_starts) = tokio::try_join!(
            ends(&scene.source, &sources, OffsetSpec::Latest),
            ends(&scene.target, &targets, OffsetSpec::Latest),
            ends(&scene.target, &targets, OffsetSpec::Earliest),
        )?;
        // Asked for behind the ends: what is stable by then and lower is held by a transaction, not
        // by records that came in between.
        let stable = ends(&scene.source, &sources, OffsetSpec::LatestStable).await?;
        let maps = scene.maps(pairs)?;
        Ok(Self {
            stable,
            source,
            target_starts,
            target,
            maps,
        })
    }

    /// Where readers of the source end.
    pub(super) fn stable_end(&self, pair: &Pair) -> i64 {
        self.stable.get(&pair.source).copied().unwrap_or(0)
    }

    /// The end of the copy's log.
    pub(super) fn target_end(&self, pair: &Pair) -> i64 {
        self.target.get(&pair.target).copied().unwrap_or(0)
    }

    /// The first position that a reader of the copy can have.
    pub(super) fn target_start(&self, pair: &Pair) -> i64 {
        self.target_starts.get(&pair.target).copied().unwrap_or(0)
    }

    /// The offsets that aren't copied.
    fn lag(&self, pairs: &[Pair]) -> i64 {
        let of_one = |pair: &Pair| {
            let end = self.source.get(&pair.source).copied().unwrap_or(0);
            (end - copied_end(pair, self.target_end(pair), &self.maps)).max(0)
        };
        pairs.iter().map(of_one).sum()
    }

    /// How many partitions have one.
    fn open_transactions(&self, pairs: &[Pair]) -> usize {
        let is_open = |pair: &&Pair| {
            let end = self.source.get(&pair.source).copied().unwrap_or(0);
            let stable = self.stable.get(&pair.source);
            stable.is_some_and(|stable| *stable < end)
        };
        pairs.iter().filter(is_open).count()
    }
}

/// Groups of which the flow takes nothing along.
#[derive(Default)]
struct Unfollowed {
    /// Those with positions in these topics.
    reading: Vec<String>,
    /// Why there may be more: what wasn't answered.
    unseen: Vec<String>,
    /// Whether brokers keep some out of their lists, for want of a right.
    hidden: bool,
}

/// Groups with positions in these topics that the config leaves out. `console-consumer-...` are
/// left out by default, for nobody misses them.
async fn unfollowed_groups(scene: &Scene, pairs: &[Pair]) -> Unfollowed {
    let mut found = Unfollowed::default();
    let (listed, hidden) = tokio::join!(
        wire::list_groups(&scene.source),
        groups::hidden_of_all(&scene.source),
    );
    // Who doesn't answer hides nothing, and nothing is known of it either.
    found.hidden = hidden.unwrap_or_else(|error| {
        found
            .unseen
            .push(format!("whether all may be seen: {error}"));
        false
    });
    let listed = match listed {
        Ok(listed) => listed,
        Err(error) => {
            found.unseen.push(error.to_string());
            return found;
        }
    };
    found.unseen.extend(listed.why_incomplete());
    let unfollowed: Vec<String> = listed
        .groups
        .into_iter()
        .filter(|group| {
            group.is_of_consumers()
                && !group.group_id.starts_with("console-consumer-")
                && !scene.flow.groups.matches(&group.group_id)
        })
        .map(|group| group.group_id)
        .collect();
    let sources: HashSet<_> = pairs.iter().map(|pair| &pair.source).collect();
    let positions = wire::fetch_group_offsets(&scene.source, &unfollowed).await;
    for (group, positions) in positions {
        match positions {
            Ok(positions) if positions.keys().any(|at| sources.contains(at)) => {
                found.reading.push(group);
            }
            Ok(_) => {}
            Err(error) => found.unseen.push(format!("{group}: {error}")),
        }
    }
    found.reading.sort();
    found.unseen.sort();
    found
}

/// Whether the standby can take writes, and of which topics that isn't known, with one's reason.
async fn standby(scene: &Scene) -> (StandbyHealth, Option<(usize, String)>) {
    let names: Vec<String> = scene
        .topics
        .iter()
        .map(|topic| topic.record.target_topic.clone())
        .collect();
    let min = flow::min_in_sync(&scene.target, &names).await;
    let target = scene.target.cached();
    let mut health = StandbyHealth {
        state_replicas: missing_replicas(&target).map(|missing| (missing.has, missing.wanted)),
        ..StandbyHealth::default()
    };
    for name in &names {
        let partitions = target.topics.get(name).map(|topic| &topic.partitions);
        for partition in partitions.into_iter().flatten() {
            let (in_sync, replicas) = (partition.in_sync.len(), partition.replicas.len());
            let wanted = min.of(name, replicas);
            health.add(partition.leader, in_sync, replicas, wanted);
        }
    }
    (health, min.unknown)
}

async fn metadata(scene: &Scene, facts: &mut failover::Facts) {
    let compared = flow::metadata_report(
        &scene.flow,
        &scene.target_section,
        (&scene.source, &scene.target),
        &scene.store,
    );
    let patience = metadata_patience(scene.topics.len());
    let Ok(report) = tokio::time::timeout(patience, compared).await else {
        let text = format!(
            "configs, ACLs, quotas and users took longer than {} s to compare",
            patience.as_secs()
        );
        facts.obstacles.push(text);
        return;
    };
    let drift = || report.drift.iter();
    let told = drift().filter_map(Drift::for_the_operator);
    facts.for_the_operator.extend(told);
    let late = drift().filter_map(Drift::not_followed);
    facts.not_followed.extend(late);
    for obstacle in report.obstacles.into_iter().filter(|it| it.is_problem) {
        let kind = obstacle.kind.plural();
        facts.obstacles.push(format!(
            "{kind} of the {} ({})",
            obstacle.cluster, obstacle.reason
        ));
    }
}

async fn unplanned(
    scene: &Scene,
    options: &Options,
    role: Option<&RoleRecord>,
    pairs: &[Pair],
    facts: &mut Facts,
) -> Result<(), CutoverError> {
    let mut found = bound_now(scene, pairs).await?;
    facts.uncopied = add_uncopied(scene, &scene.asked, role, &mut found.loss)?;
    facts.common.loss = Some(found.loss);
    match reread::look(scene, pairs).await {
        Ok(reread) => facts.common.groups = Some(reread::facts(&reread)),
        Err(error) => {
            let unwatched = vec![format!("of the standby: {error}")];
            facts.common.groups = Some(GroupFacts {
                unwatched,
                ..GroupFacts::default()
            });
        }
    }
    facts.may_pad = wire::probe_marker_right(&scene.target).await?;
    let reaches: Vec<Reach> = pairs
        .iter()
        .zip(found.partitions)
        .filter(|(pair, _)| !pair.mapped)
        .map(|(_, of)| of.reach)
        .collect();
    let passed = padding::passed(&reaches, options.padding);
    facts.padding = Some(padding::cost_of(&passed));
    Ok(())
}
