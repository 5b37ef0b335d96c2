//! The flow itself, only looked at: would a failover work now, and what would be lost or read again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::context::{Copied, Scene};
use super::error::DrillError;
use super::peek;
use super::report::{Compared, GroupsNow, Production, RpoNow};
use crate::config::{FlowConfig, Selector};
use crate::cutover::Check;
use crate::cutover::pairs::{Offsets, copied_end, ends, on_source, on_target, translate};
use crate::groups;
use crate::state::{AclRecord, AclState, EndsRecord, StateStore, keys};
use crate::telemetry::progress::now_ms;
use crate::telemetry::utc::to_the_second as utc;
use crate::verify::{self, Mode, Progress, Request, Sampling};
use crate::wire::{self, OffsetSpec, TopicPartition};

/// How often the lag is looked at, and the pause between.
const LOOKS: u32 = 5;
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Records whose age is asked for in one look.
const AGES_MAX: usize = 50;
const AGE_WITHIN: Duration = Duration::from_secs(5);
/// What isn't known of a record's size.
pub const RECORD_BYTES: u64 = 1_024;
/// More lines of one kind aren't listed.
const LISTED_MAX: usize = 20;

/// Looks at the flow. Changes nothing on either cluster.
///
/// # Errors
/// When a cluster doesn't answer.
pub async fn look(scene: &Scene, checks: Vec<Check>) -> Result<Production, DrillError> {
    let copied = scene.copied(&scene.flow, &scene.store).await?;
    let rpo = rpo(scene, &copied).await?;
    let groups = groups_now(scene, &copied).await?;
    let (mut gaps, mut held_grants) = (0, 0);
    gaps += scene.store.keys(&format!("gap/{}/", scene.flow.name)).len() as u64;
    for key in scene.store.keys(&keys::acls(&scene.flow.name)) {
        let acl: Option<AclRecord> = scene.store.get(&key)?;
        held_grants += u64::from(acl.is_some_and(|acl| acl.state == AclState::Held));
    }
    Ok(Production {
        checks,
        rpo,
        groups,
        gaps,
        held_grants,
        verify: None,
    })
}

/// What would be lost now: the worst of some looks.
async fn rpo(scene: &Scene, copied: &Copied) -> Result<RpoNow, DrillError> {
    let mut worst = RpoNow {
        looks: LOOKS,
        partitions: copied.pairs.len(),
        ..RpoNow::default()
    };
    let mut sizes: HashMap<&str, u64> = HashMap::new();
    for topic in &copied.topics {
        sizes.insert(&topic.name, record_bytes(scene, &topic.name)?);
    }
    for look in 0..LOOKS {
        if look > 0 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let (lagging, looked_ms) = lag(scene, &scene.flow, &scene.store, copied).await?;
        let records: u64 = lagging.values().map(|(_, missing)| missing).sum();
        let bytes = lagging
            .iter()
            .map(|(at, (_, missing))| {
                let size = sizes.get(at.topic.as_str()).copied();
                missing.saturating_mul(size.unwrap_or(RECORD_BYTES))
            })
            .fold(0, u64::saturating_add);
        let firsts = lagging.into_iter().map(|(at, (from, _))| (at, from));
        let seconds = oldest(scene, firsts.collect(), looked_ms).await?;
        worst.records = worst.records.max(records);
        worst.bytes = worst.bytes.max(bytes);
        worst.seconds = worst.seconds.max(seconds);
    }
    Ok(worst)
}

/// The mean size of a topic's records, as the running flow saw them.
///
/// # Errors
/// When the state can't be read.
pub fn record_bytes(scene: &Scene, topic: &str) -> Result<u64, DrillError> {
    let key = keys::ends(&scene.flow.name, topic);
    let record: Option<EndsRecord> = scene.store.get(&key)?;
    let bytes = record.map_or(0, |record| record.record_bytes);
    Ok(if bytes == 0 { RECORD_BYTES } else { bytes })
}

/// The first missing source offset of each partition and how many are missing, and when that was.
type Lag = (BTreeMap<TopicPartition, (i64, u64)>, i64);

/// What isn't copied. The source is asked first: what is copied meanwhile isn't missing.
async fn lag(
    scene: &Scene,
    flow: &FlowConfig,
    store: &StateStore,
    copied: &Copied,
) -> Result<Lag, DrillError> {
    let pairs = &copied.pairs;
    let source = ends(&scene.source, &on_source(pairs), OffsetSpec::Latest).await?;
    let looked_ms = now_ms();
    let target = ends(&scene.target, &on_target(pairs), OffsetSpec::Latest).await?;
    let maps = if copied.maps.is_empty() {
        HashMap::new()
    } else {
        store.refresh().await?;
        crate::cutover::pairs::load_maps(store, &flow.name, pairs)?
    };
    let mut lagging = BTreeMap::new();
    for pair in pairs {
        let end = source.get(&pair.source).copied().unwrap_or(0);
        let there = target.get(&pair.target).copied().unwrap_or(0);
        let copied = copied_end(pair, there, &maps);
        if let Ok(missing @ 1..) = u64::try_from(end - copied) {
            lagging.insert(pair.source.clone(), (copied, missing));
        }
    }
    Ok((lagging, looked_ms))
}

/// How old the oldest of these records of the source was at a moment, seconds; by the time that is
/// in the record.
///
/// # Errors
/// When librdkafka refuses its settings.
pub async fn oldest(
    scene: &Scene,
    mut places: Vec<(TopicPartition, i64)>,
    at_ms: i64,
) -> Result<f64, DrillError> {
    if places.is_empty() {
        return Ok(0.0);
    }
    places.truncate(AGES_MAX);
    let (section, group) = (scene.source_section.clone(), scene.names.root());
    let looking = tokio::task::spawn_blocking(move || {
        peek::next_records(&section, &group, &places, AGE_WITHIN)
    });
    let seen = looking
        .await
        .map_err(|error| DrillError::failed(error.to_string()))??;
    let oldest = seen
        .values()
        .map(|record| record.timestamp_ms)
        .filter(|ms| *ms >= 0)
        .min();
    Ok(oldest.map_or(0.0, |ms| (at_ms - ms).max(0) as f64 / 1_000.0))
}

/// The groups of the source that the flow follows.
#[derive(Default)]
pub struct Followed {
    /// Their names, in order.
    pub names: Vec<String>,
    /// Why there may be more, a line each.
    pub unseen: Vec<String>,
}

/// The groups of the source that the flow follows: those that its coordinators list, and those that the flow has
/// followed so far, for one whose coordinator is away is in no list.
///
/// # Errors
/// When no broker lists any.
pub async fn followed_groups(scene: &Scene) -> Result<Followed, DrillError> {
    if scene.flow.groups.include().is_empty() {
        return Ok(Followed::default());
    }
    let selected = &scene.flow.groups;
    let (listed, unseen) = groups::listed_of_consumers(&scene.source, selected).await?;
    let prefix = keys::groups(&scene.flow.name);
    let remembered = scene.store.keys(&prefix).into_iter();
    let remembered = remembered.map(|key| key[prefix.len()..].to_owned());
    let names: BTreeSet<String> = listed
        .into_iter()
        .chain(remembered)
        .filter(|name| {
            scene.flow.groups.matches(name) && !name.starts_with(crate::config::DRILL_PREFIX)
        })
        .collect();
    Ok(Followed {
        names: names.into_iter().collect(),
        unseen,
    })
}

async fn groups_now(scene: &Scene, copied: &Copied) -> Result<GroupsNow, DrillError> {
    let Followed { names, unseen } = followed_groups(scene).await?;
    let mut now = GroupsNow {
        unseen,
        ..GroupsNow::default()
    };
    if names.is_empty() || copied.pairs.is_empty() {
        return Ok(now);
    }
    // The source first: what moves meanwhile moves on the standby as well.
    let on_source = wire::fetch_group_offsets(&scene.source, &names).await;
    let targets = on_target(&copied.pairs);
    let (starts, there) = tokio::try_join!(
        ends(&scene.target, &targets, OffsetSpec::Earliest),
        ends(&scene.target, &targets, OffsetSpec::Latest),
    )?;
    let on_standby = wire::fetch_group_offsets(&scene.target, &names).await;
    let (mut behind, mut ahead) = (BTreeMap::<String, u64>::new(), Vec::new());
    for name in &names {
        let (positions, copies) = match (on_source.get(name), on_standby.get(name)) {
            (Some(Ok(positions)), Some(Ok(copies))) => (positions, copies),
            (Some(Err(error)), _) | (_, Some(Err(error))) => {
                now.unseen.push(format!("{name}: {error}"));
                continue;
            }
            (None, _) | (_, None) => {
                now.unseen.push(format!("{name}: it was not answered"));
                continue;
            }
        };
        let mut has_any = false;
        for pair in &copied.pairs {
            let Some(position) = positions.get(&pair.source) else {
                continue;
            };
            has_any = true;
            now.positions += 1;
            let place = place(&starts, &there, copied, pair, position.offset);
            match (copies.get(&pair.target), place) {
                (None, _) => now.missing.push(format!("{name} {}", pair.source)),
                (Some(copy), Some(wanted)) if copy.offset < wanted => {
                    let records = u64::try_from(wanted - copy.offset).unwrap_or(0);
                    *behind.entry(name.clone()).or_default() += records;
                }
                (Some(copy), Some(wanted)) if copy.offset > wanted => {
                    ahead.push((name.clone(), pair.clone()));
                }
                // Beyond the copy: it follows when the copy gets there.
                (Some(_), _) => now.exact += 1,
            }
        }
        now.groups += usize::from(has_any);
    }
    // The source moved on between the two looks: only who stays ahead would skip anything.
    if !ahead.is_empty() {
        let again = wire::fetch_group_offsets(&scene.source, &names).await;
        for (name, pair) in ahead {
            let position = again
                .get(&name)
                .and_then(|it| it.as_ref().ok()?.get(&pair.source));
            let copy = on_standby
                .get(&name)
                .and_then(|it| it.as_ref().ok()?.get(&pair.target));
            let there_now = ends(
                &scene.target,
                std::slice::from_ref(&pair.target),
                OffsetSpec::Latest,
            )
            .await?;
            let wanted = position
                .and_then(|position| place(&starts, &there_now, copied, &pair, position.offset));
            match (copy, wanted) {
                (Some(copy), Some(wanted)) if copy.offset > wanted => {
                    now.ahead.push(format!("{name} {}", pair.source));
                }
                _ => now.exact += 1,
            }
        }
    }
    now.read_again = behind.values().sum();
    let mut worst: Vec<(String, u64)> = behind.into_iter().collect();
    worst.sort_by(|a, b| (b.1, &a.0).cmp(&(a.1, &b.0)));
    worst.truncate(LISTED_MAX);
    now.worst = worst;
    shorten(&mut now.missing);
    shorten(&mut now.unseen);
    shorten(&mut now.ahead);
    Ok(now)
}

fn place(
    starts: &Offsets,
    ends: &Offsets,
    copied: &Copied,
    pair: &crate::cutover::pairs::Pair,
    position: i64,
) -> Option<i64> {
    let start = starts.get(&pair.target).copied()?;
    let end = ends.get(&pair.target).copied()?;
    Some(translate(pair, end, &copied.maps, position)?.max(start))
}

/// Keeps the first lines, and says how many more there are.
pub fn shorten(lines: &mut Vec<String>) {
    if lines.len() > LISTED_MAX {
        let more = lines.len() - LISTED_MAX;
        lines.truncate(LISTED_MAX);
        lines.push(format!("and {more} more"));
    }
}

/// Compares a flow's target with its source.
///
/// # Errors
/// When nothing can be compared at all.
pub async fn compare(
    scene: &Scene,
    flow: &FlowConfig,
    store: &StateStore,
    topics: Option<Selector>,
    mode: Mode,
    percent: f64,
) -> Result<Compared, DrillError> {
    let request = Request {
        flow: flow.clone(),
        source: scene.source_section.clone(),
        target: scene.target_section.clone(),
        topics,
        mode,
        sampling: Sampling {
            percent,
            seed: rand::random(),
        },
        bytes_per_second: scene.request.bytes_per_second,
        partitions_at_once: verify::PARTITIONS_AT_ONCE,
        again_within: Some(verify::AGAIN_WITHIN),
    };
    let progress = Arc::new(Progress::default());
    let report = verify::verify(&request, store, progress, &CancellationToken::new())
        .await
        .map_err(|error| DrillError::failed(error.to_string()))?;
    let mut findings: Vec<String> = report
        .differences
        .iter()
        .map(|it| {
            let value = serde_json::to_value(it).unwrap_or_default();
            let word = |key: &str| match &value[key] {
                serde_json::Value::Null => String::new(),
                serde_json::Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let text = format!(
                "{} {} {} {}",
                word("kind"),
                word("topic"),
                word("partition"),
                word("detail")
            );
            text.split_whitespace().collect::<Vec<_>>().join(" ")
        })
        .collect();
    let failures = report.partitions.iter().filter_map(|one| {
        let failure = one.failure.as_ref()?;
        Some(format!("{}-{}: {failure}", one.topic, one.partition))
    });
    findings.extend(failures);
    let not_copied = report.topics_not_copied.iter();
    findings.extend(not_copied.map(|topic| format!("not copied: {topic}")));
    let lists = [
        &report.not_compared,
        &report.groups.not_compared,
        &report.configs.not_compared,
        &report.replicas.not_compared,
    ];
    findings.extend(lists.into_iter().flatten().cloned());
    shorten(&mut findings);
    tracing::debug!(flow = %flow.name, at = %utc(now_ms()), "compared");
    Ok(Compared {
        verdict: report.verdict.word().to_owned(),
        records: report.totals.records,
        coverage: report.coverage.ratio,
        findings,
    })
}
