//! The unplanned cut-over, rehearsed on copies of the flow's topics.
//!
//! The source is only read. The copying process is killed at the moment at which the source counts
//! as gone: the worst case, in which it had no time to finish anything. From then on the plan is
//! given a source that doesn't answer.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::canary::{Reader, Writer, Written};
use super::context::{Copied, Scene};
use super::copier::Copier;
use super::error::DrillError;
use super::groups::{self, Brought};
use super::names::Kind;
use super::production::{compare, oldest};
use super::rehearse::{Moved, Rehearsing, blocking, forks};
use super::report::{Missing, Rehearsal};
use crate::config::{ClusterSection, Selector};
use crate::cutover::pairs::{ends, on_source, on_target};
use crate::cutover::{self, AcceptedLoss, FenceMode, Options};
use crate::state::CutoverKind;
use crate::telemetry::progress::now_ms;
use crate::verify::Mode;
use crate::wire::{self, GroupOffset, OffsetSpec, TopicPartition};

/// Nobody listens on it.
const NOBODY: &str = "127.0.0.1:1";
/// How long each step of the plan may wait.
const PLAN_WAIT: Duration = Duration::from_secs(60);

/// Rehearses it.
///
/// # Errors
/// When the state can't be read. Why it didn't come to its end is in the result.
pub async fn rehearse(scene: &Scene) -> Result<Rehearsal, DrillError> {
    let mut it = Rehearsing::new(scene, Kind::Unplanned).await?;
    if let Err(error) = go(&mut it).await {
        it.result.failure = Some(error.to_string());
    }
    Ok(it.result)
}

async fn go(it: &mut Rehearsing<'_>) -> Result<(), DrillError> {
    let clients = if it.scene.request.may_use_source {
        it.make_canary().await?;
        Some(it.start_clients()?)
    } else {
        None
    };
    let copier = it.copy().await?;
    let copied = it.scene.copied(&it.flow, &it.store).await?;
    let brought = bring_groups(it, &copied).await?;
    verify(it).await?;
    let loaded = clients.as_ref().map(|(writer, reader)| (writer, reader));
    it.await_load(loaded).await?;
    let (cut_ms, source_ends, written, read) = cut(it, &copied, copier, clients).await?;
    let bound = plan(it).await?;
    missing(it, &source_ends, cut_ms, bound).await?;
    let moved = match written {
        Some(written) => Moved {
            topic: it
                .scene
                .names
                .copy_of(&it.scene.names.canary(Kind::Unplanned)),
            group: it.scene.names.readers(Kind::Unplanned),
            // Nothing was acknowledged after the cut that the cut could have kept.
            written,
            read,
            write_from_ms: cut_ms,
            read_from_ms: cut_ms,
        },
        None => on_a_copy(it, &copied, cut_ms).await?,
    };
    it.move_clients(moved).await?;
    check_groups(it, brought).await
}

async fn bring_groups(
    it: &mut Rehearsing<'_>,
    copied: &Copied,
) -> Result<Vec<Brought>, DrillError> {
    it.begin("the groups' positions are brought to copies of the groups");
    let (brought, result) = groups::bring(it.scene, copied).await?;
    it.end(
        "groups",
        format!(
            "{} group(s), {} position(s)",
            result.groups, result.positions
        ),
    );
    it.result.groups = Some(result);
    Ok(brought)
}

async fn check_groups(it: &mut Rehearsing<'_>, brought: Vec<Brought>) -> Result<(), DrillError> {
    it.begin("the copied groups' next records are compared");
    let ends = forks(&it.store, &it.flow.name, &it.order.topics)?;
    let mut result = it.result.groups.take().unwrap_or_default();
    groups::check(it.scene, brought, &ends, &mut result).await?;
    it.end(
        "check groups",
        format!(
            "{} exact, {} at the end, {} not checked, {} wrong",
            result.exact,
            result.at_end,
            result.not_checked,
            result.wrong.len()
        ),
    );
    it.result.groups = Some(result);
    Ok(())
}

/// Compares the copies while everything that was asked for is there.
async fn verify(it: &mut Rehearsing<'_>) -> Result<(), DrillError> {
    let taken = &it.scene.choice.taken;
    if taken.is_empty() || it.scene.request.verify_percent == Some(0.0) {
        return Ok(());
    }
    it.begin("the copies are compared with the source");
    let names: Vec<String> = taken.iter().map(|it| regex::escape(&it.name)).collect();
    let topics = Selector::new::<String>(&names, &[]).map_err(DrillError::failed)?;
    // Its groups are the rehearsal's own clients: they have an account.
    let flow = crate::config::FlowConfig {
        groups: Selector::new::<&str>(&[], &[]).map_err(DrillError::failed)?,
        ..it.flow.clone()
    };
    let mut compared = compare(it.scene, &flow, &it.store, Some(topics), Mode::Full, 100.0).await?;
    compared.findings.truncate(20);
    it.end(
        "verify",
        format!("{}: {} record(s)", compared.verdict, compared.records),
    );
    it.result.verify = Some(compared);
    Ok(())
}

type Cut = (
    i64,
    HashMap<TopicPartition, i64>,
    Option<Written>,
    Vec<super::canary::Read>,
);

/// The source is gone: the copying process with it, and the clients that used it.
async fn cut(
    it: &mut Rehearsing<'_>,
    copied: &Copied,
    copier: Copier,
    clients: Option<(Writer, Reader)>,
) -> Result<Cut, DrillError> {
    it.begin("the source counts as gone");
    let cut_ms = now_ms();
    copier.kill();
    if let Some((writer, _)) = &clients {
        writer.cease();
    }
    // What the source had: the true one still answers, and production goes on there.
    let sources = on_source(&copied.pairs);
    let source_ends = ends(&it.scene.source, &sources, OffsetSpec::LatestStable).await?;
    let (mut written, mut read) = (None, Vec::new());
    if let Some((writer, reader)) = clients {
        (written, read) = blocking(move || {
            let read = reader.crash();
            (Some(writer.stop()), read)
        })
        .await?;
    }
    it.end("cut", "the copying process and the clients were killed");
    Ok((cut_ms, source_ends, written, read))
}

/// Carries the plan out without a source; answers how many records it says to miss at most.
async fn plan(it: &mut Rehearsing<'_>) -> Result<u64, DrillError> {
    it.begin("unplanned failover of the copies");
    let options = Options {
        kind: CutoverKind::Unplanned,
        topics: std::collections::BTreeSet::new(),
        accept_loss: AcceptedLoss::Any,
        fence: FenceMode::Manual,
        padding: it.flow.failover.padding,
        wait: PLAN_WAIT,
        quiet_for: None,
    };
    let gone = ClusterSection {
        bootstrap: vec![NOBODY.to_owned()],
        ..it.scene.source_section.clone()
    };
    let plan = cutover::look(&it.flow, &gone, &it.scene.target_section, options).await?;
    let (report, error) = cutover::apply(plan, it.scene.tell.clone()).await?;
    it.store.refresh().await?;
    let bound = report.lost.records;
    it.end("failover", report.lost.text.clone());
    it.result.plan = Some(report);
    match error {
        Some(error) => Err(error.into()),
        None => Ok(bound),
    }
}

/// What the source had at the cut and the copies hadn't.
async fn missing(
    it: &mut Rehearsing<'_>,
    source_ends: &HashMap<TopicPartition, i64>,
    cut_ms: i64,
    bound_records: u64,
) -> Result<(), DrillError> {
    let forks = forks(&it.store, &it.flow.name, &it.order.topics)?;
    let mut records = 0_u64;
    let mut firsts = Vec::new();
    for (at, end) in source_ends {
        let copied = forks.get(at).copied().unwrap_or(*end);
        if let Ok(missing @ 1..) = u64::try_from(end - copied) {
            records += missing;
            firsts.push((at.clone(), copied));
        }
    }
    let seconds = oldest(it.scene, firsts, cut_ms).await?;
    it.result.missing = Some(Missing {
        records,
        seconds,
        bound_records,
    });
    Ok(())
}

/// Without a topic of the rehearsal's own: clients use one of the copies, from its end on.
async fn on_a_copy(it: &Rehearsing<'_>, copied: &Copied, cut_ms: i64) -> Result<Moved, DrillError> {
    let topic = copied
        .topics
        .first()
        .map(|topic| topic.record.target_topic.clone())
        .ok_or_else(|| DrillError::failed("there is no copy that could be written to"))?;
    let places: Vec<TopicPartition> = on_target(&copied.pairs)
        .into_iter()
        .filter(|at| at.topic == topic)
        .collect();
    let there = ends(&it.scene.target, &places, OffsetSpec::Latest).await?;
    let group = it.scene.names.readers(Kind::Unplanned);
    let positions: BTreeMap<TopicPartition, GroupOffset> = there
        .into_iter()
        .map(|(at, offset)| {
            let position = GroupOffset {
                offset,
                leader_epoch: -1,
                metadata: String::new(),
            };
            (at, position)
        })
        .collect();
    let commits = HashMap::from([(group.clone(), positions)]);
    for (_, answers) in wire::commit_group_offsets(&it.scene.target, &commits).await {
        for (_, answer) in answers {
            answer?;
        }
    }
    Ok(Moved {
        topic,
        group,
        written: Written::default(),
        read: Vec::new(),
        write_from_ms: cut_ms,
        read_from_ms: cut_ms,
    })
}
