//! Decisions: made for the offsets that were looked at, and no others.

use std::collections::BTreeMap;

use serde::Serialize;

use super::OrphansError;
use super::list::Listing;
use super::position::{self, Positions};
use super::scene::Scene;
use crate::cutover::operator;
use crate::state::{OrphanChoice, OrphanDecision, OrphanDecisions, ReplayRecord, StateStore, keys};
use crate::telemetry::progress::now_ms;

/// A decision that was recorded.
#[derive(Clone, Debug, Serialize)]
pub struct Decided {
    /// The topic's name on the source.
    pub topic: String,
    /// The decision.
    pub decision: OrphanDecision,
}

/// Offset ranges by topic: partition, first, and the one after the last.
type ByTopic = BTreeMap<String, Vec<(i32, i64, i64)>>;

/// Records a decision about everything that is undecided in a scene and was listed. What a replay
/// that wasn't finished has appended already is recorded as replayed.
///
/// # Errors
/// When nothing may be decided now, or it can't be recorded.
pub async fn decide(
    scene: &mut Scene,
    listing: &Listing,
    choice: OrphanChoice,
) -> Result<Vec<Decided>, OrphansError> {
    scene.may_decide().await?;
    let positions = position::read(scene).await?;
    let mut made = settle(scene, &positions).await?;
    let by_topic = undecided_by_topic(scene);
    for (topic, ranges) in by_topic {
        let Some(listed) = listing.topics.iter().find(|listed| listed.topic == topic) else {
            continue;
        };
        let replayed = made.iter().filter(|it: &&Decided| it.topic == topic);
        let replayed: u64 = replayed.map(|it| it.decision.records).sum();
        let decision = decision(scene, &topic, choice, ranges);
        let decision = OrphanDecision {
            records: listed.undecided_records.saturating_sub(replayed),
            ..decision
        };
        record(scene, &topic, decision.clone()).await?;
        made.push(Decided { topic, decision });
    }
    Ok(made)
}

/// Records what replays have appended, as far as no decision says so yet.
pub(super) async fn settle(
    scene: &mut Scene,
    positions: &Positions,
) -> Result<Vec<Decided>, OrphansError> {
    let mut by_topic = ByTopic::new();
    for stranded in &scene.stranded {
        let place = (stranded.topic.clone(), stranded.partition);
        let Some(position) = positions.get(&place).filter(|it| it.plan == stranded.plan) else {
            continue;
        };
        for range in &stranded.can_decide {
            let to = range.end.min(position.next);
            if range.start < to {
                let ranges = by_topic.entry(stranded.topic.clone()).or_default();
                ranges.push((stranded.partition, range.start, to));
            }
        }
    }
    let mut made = Vec::new();
    for (topic, ranges) in by_topic {
        let decision = decision(scene, &topic, OrphanChoice::Replay, ranges);
        let replayed = replayed(positions, &topic, &decision);
        let counted: u64 = scene
            .decisions_of(&topic)
            .decisions
            .iter()
            .filter(|it| it.plan == decision.plan && it.decision == OrphanChoice::Replay)
            .map(|it| it.records)
            .sum();
        let decision = OrphanDecision {
            records: replayed.saturating_sub(counted),
            ..decision
        };
        record(scene, &topic, decision.clone()).await?;
        made.push(Decided { topic, decision });
    }
    Ok(made)
}

/// All records of a topic that were replayed for this plan.
fn replayed(positions: &Positions, topic: &str, decision: &OrphanDecision) -> u64 {
    positions
        .iter()
        .filter(|((of, _), it): &(_, &ReplayRecord)| of == topic && it.plan == decision.plan)
        .map(|(_, it)| it.records)
        .sum()
}

fn undecided_by_topic(scene: &Scene) -> ByTopic {
    let mut topics = ByTopic::new();
    for stranded in &scene.stranded {
        for range in &stranded.can_decide {
            let ranges = topics.entry(stranded.topic.clone()).or_default();
            ranges.push((stranded.partition, range.start, range.end));
        }
    }
    topics
}

fn decision(
    scene: &Scene,
    topic: &str,
    decision: OrphanChoice,
    ranges: Vec<(i32, i64, i64)>,
) -> OrphanDecision {
    let plan = scene.stranded.iter().find(|it| it.topic == topic);
    OrphanDecision {
        plan: plan.map(|it| it.plan).unwrap_or_default(),
        decision,
        operator: operator(scene.target_section.environment.machine.as_ref()),
        at_ms: now_ms(),
        ranges,
        records: 0,
    }
}

/// Appends a decision to what is recorded, and takes note of it.
async fn record(
    scene: &mut Scene,
    topic: &str,
    decision: OrphanDecision,
) -> Result<(), OrphansError> {
    let store: &StateStore = &scene.store;
    let key = keys::orphan_decisions(&scene.flow.name, topic);
    store.refresh().await?;
    let mut record: OrphanDecisions = store.get(&key)?.unwrap_or_default();
    record.v = 1;
    record.decisions.push(decision.clone());
    store.put(&key, &record).await?;
    scene.decisions.insert(topic.to_owned(), record);
    for stranded in scene.stranded.iter_mut().filter(|it| it.topic == topic) {
        stranded.take(&decision);
    }
    Ok(())
}
