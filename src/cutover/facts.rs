//! Finds out what the preflight judges.

use std::collections::HashSet;
use std::time::Duration;

use kafka_protocol::messages::FetchRequest;

use super::context::{Scene, without_copy};
use super::error::CutoverError;
use super::options::{FenceMode, Options};
use super::padding::Reach;
use super::pairs::{Maps, Offsets, Pair, copied_end, ends, on_source, on_target};
use super::preflight::{self, Check, Facts};
use super::steps::bound_now;
use super::{capacity, group_facts, padding, reread};
use crate::flow::{self, claim, deny};
use crate::metadata::acls;
use crate::state::{
    self, CutoverKind, EndsRecord, ObservedRecord, RoleRecord, keys, missing_replicas,
};
use crate::telemetry::failover::{self, StandbyHealth};
use crate::telemetry::metadata::DriftAction;
use crate::telemetry::progress::now_ms;
use crate::wire::{self, OffsetSpec};

/// Comparing metadata is for information: nobody waits for it longer.
const METADATA_FOR: Duration = Duration::from_secs(3);

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
        capacity::look(&scene.target, &pairs),
        flow::standby_abilities(&scene.target),
    );
    common.standby = standby;
    common.room = Some(room);
    common.standby_abilities = abilities.ok();
    if options.kind == CutoverKind::Unplanned {
        unplanned(scene, options, &pairs, &mut facts).await?;
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
    facts.open_transactions = logs.open_transactions(pairs);
    // What groups do keeps nobody from a failover: what can't be asked is named.
    let (unfollowed, groups, abilities) = tokio::join!(
        unfollowed_groups(scene, pairs),
        group_facts::look(scene, pairs, &logs),
        flow::source_abilities(&scene.source),
    );
    facts.unfollowed_groups = unfollowed.unwrap_or_default();
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
    let error = deny::missing(source, topics).await.err()?;
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
    for topic in &scene.topics {
        let key = keys::ends(&scene.flow.name, &topic.name);
        let record: Option<EndsRecord> = scene.store.get(&key)?;
        for (number, reason) in record.into_iter().flat_map(|record| record.stopped) {
            stopped.push((format!("{}-{number}", topic.name), reason));
        }
    }
    Ok(stopped)
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
    /// On the target.
    pub(super) target: Offsets,
    /// Of the mapped partitions.
    pub(super) maps: Maps,
}

impl Logs {
    async fn look(scene: &Scene, pairs: &[Pair]) -> Result<Self, CutoverError> {
        let sources = on_source(pairs);
        let targets = on_target(pairs);
        let (source, target) = tokio::try_join!(
            ends(&scene.source, &sources, OffsetSpec::Latest),
            ends(&scene.target, &targets, OffsetSpec::Latest),
        )?;
        // Asked for behind the ends: what is stable by then and lower is held by a transaction, not
        // by records that came in between.
        let stable = ends(&scene.source, &sources, OffsetSpec::LatestStable).await?;
        let maps = scene.maps(pairs)?;
        Ok(Self {
            stable,
            source,
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

/// Groups with positions in these topics that the config leaves out. `console-consumer-...` are
/// left out by default, for nobody misses them.
async fn unfollowed_groups(scene: &Scene, pairs: &[Pair]) -> Result<Vec<String>, wire::WireError> {
    let listed = wire::list_groups(&scene.source).await?;
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
    let mut reading: Vec<String> = positions
        .into_iter()
        .filter(|(_, positions)| {
            let positions = positions.as_ref().ok();
            positions.is_some_and(|positions| positions.keys().any(|at| sources.contains(at)))
        })
        .map(|(group, _)| group)
        .collect();
    reading.sort();
    Ok(reading)
}

/// Whether the standby can take writes.
async fn standby(scene: &Scene) -> StandbyHealth {
    let names: Vec<String> = scene
        .topics
        .iter()
        .map(|topic| topic.record.target_topic.clone())
        .collect();
    let configs = wire::describe_topic_configs(&scene.target, &names).await;
    let caps = caps_min_in_sync(&scene.target).await;
    let target = scene.target.cached();
    let mut health = StandbyHealth {
        state_replicas: missing_replicas(&target).map(|missing| (missing.has, missing.wanted)),
        ..StandbyHealth::default()
    };
    for name in &names {
        let min_in_sync = configs
            .get(name)
            .and_then(|values| values.as_ref().ok())
            .and_then(|values| values.get("min.insync.replicas"))
            .and_then(|value| value.value.as_deref()?.parse::<usize>().ok())
            .unwrap_or(1);
        let partitions = target.topics.get(name).map(|topic| &topic.partitions);
        for partition in partitions.into_iter().flatten() {
            let (in_sync, replicas) = (partition.in_sync.len(), partition.replicas.len());
            let min_in_sync = match caps {
                true => min_in_sync.min(replicas),
                false => min_in_sync,
            };
            health.add(partition.leader, in_sync, replicas, min_in_sync);
        }
    }
    health
}

/// Whether the brokers ask for no more in-sync replicas than a partition has: from 3.7 on
/// (`Partition.effectiveMinIsr`, KAFKA-15583), which is also when Fetch 16 came.
async fn caps_min_in_sync(target: &wire::Cluster) -> bool {
    let connection = target.any_connection().await;
    connection.is_ok_and(|connection| {
        connection
            .version::<FetchRequest>(16)
            .is_ok_and(|it| it >= 16)
    })
}

async fn metadata(scene: &Scene, facts: &mut failover::Facts) {
    let compared = flow::metadata_report(
        &scene.flow,
        &scene.target_section,
        (&scene.source, &scene.target),
        &scene.store,
    );
    let Ok(report) = tokio::time::timeout(METADATA_FOR, compared).await else {
        let text = "configs, ACLs, quotas and users took too long to compare";
        facts.obstacles.push(text.to_owned());
        return;
    };
    for drift in report.drift {
        if drift.action == DriftAction::Operator {
            let text = match drift.detail.as_str() {
                "" => drift.subject,
                detail => format!("{}: {detail}", drift.subject),
            };
            facts.for_the_operator.push(text);
        }
    }
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
    pairs: &[Pair],
    facts: &mut Facts,
) -> Result<(), CutoverError> {
    let found = bound_now(scene, pairs).await?;
    facts.common.loss = Some(found.loss);
    match reread::look(scene, pairs).await {
        Ok(reread) => facts.common.groups = Some(reread::facts(&reread)),
        Err(error) => tracing::debug!(%error, "the groups can't be looked at"),
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
