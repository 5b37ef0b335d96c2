//! Asks the old primary what lies beyond the forks.

use std::collections::BTreeMap;
use std::time::Duration;

use super::OrphansError;
use super::scene::Stranded;
use super::undecided::{Log, stranded};
use crate::config::back_name;
use crate::cutover::agreement;
use crate::flow::restrain;
use crate::state::{
    ContinuedLog, ForkRecord, OrphanDecisions, STATE_TOPIC, StateError, StateStore, TopicRecord,
    TopicSet, keys,
};
use crate::wire::{self, Cluster, OffsetSpec, ResponseError, TopicPartition};

/// How long the old primary may take for its first answer.
const FIRST_ANSWER_WITHIN: Duration = Duration::from_secs(8);
/// How long each of its leaders may take: one holds up the partitions of nobody else.
const LEADER_WITHIN: Duration = Duration::from_secs(8);

/// What was found.
pub(super) struct Survey {
    /// In the order of topics and partitions.
    pub stranded: Vec<Stranded>,
    /// The decisions so far, of each topic that has a fork.
    pub decisions: BTreeMap<String, OrphanDecisions>,
    /// What should be known besides.
    pub notes: Vec<String>,
    /// Topics that the old primary has now and that have no fork.
    pub without_fork: Vec<String>,
    /// Partitions that can't be looked at now, and why: nothing is known of what they have.
    pub unseen: BTreeMap<TopicPartition, String>,
}

pub(super) async fn survey(
    store: &StateStore,
    source: &Cluster,
    flow: &str,
    topics: &TopicSet,
) -> Result<Survey, OrphansError> {
    let away = |problem: String| {
        OrphansError::new(format!(
            "the old primary {} doesn't answer: {problem}",
            source.name()
        ))
        .with_hint(
            "its orphans can be read when it is back; until then `twinlog status` says what it \
             was seen to have",
        )
    };
    // It has to say something in this time. A description of thousands of topics may take longer.
    let metadata = match source.metadata_if_there(FIRST_ANSWER_WITHIN).await {
        Ok(Ok(metadata)) => metadata,
        Ok(Err(error)) => return Err(away(error.to_string())),
        Err(_) => {
            let seconds = FIRST_ANSWER_WITHIN.as_secs();
            return Err(away(format!("nothing within {seconds} s")));
        }
    };
    let all = restrain::forks(store, flow, &TopicSet::All)?;
    // A list of all topics leaves out those that we may not describe: they aren't gone.
    let unlisted = all.keys().filter(|it| topics.contains(it));
    let unlisted: Vec<String> = unlisted
        .filter(|it| !metadata.has_topic(it))
        .cloned()
        .collect();
    let metadata = match unlisted.is_empty() {
        true => metadata,
        false => {
            let asked = source.metadata(Some(&unlisted)).await;
            asked.map_err(|error| away(error.to_string()))?
        }
    };
    let mut hidden = BTreeMap::new();
    let mut notes = Vec::new();
    let mut forks: BTreeMap<String, ForkRecord> = BTreeMap::new();
    for (topic, fork) in &all {
        if !topics.contains(topic) {
            continue;
        }
        let known: Option<TopicRecord> = store.get(&keys::topic(flow, topic))?;
        match (metadata.described(topic), known) {
            (Err(code), _) => {
                for (number, _) in (0..).zip(&fork.partitions) {
                    let at = TopicPartition::new(&**topic, number);
                    hidden.insert(at, format!("{topic} on {}: {code}", source.name()));
                }
            }
            (Ok(None), _) => notes.push(format!(
                "{topic}: the old primary has no such topic any more"
            )),
            (Ok(Some(now)), Some(known))
                if wire::is_other_topic(known.source_topic_id, now.topic_id) =>
            {
                notes.push(format!(
                    "{topic}: it was made again on the old primary; the fork says nothing about \
                     its records"
                ));
            }
            _ => {
                forks.insert(topic.clone(), fork.clone());
            }
        }
    }
    let without_fork = metadata
        .topics
        .keys()
        .filter(|topic| topics.contains(topic) && !all.contains_key(*topic))
        .cloned()
        .collect();
    let (mut logs, mut unseen) = logs(source, &forks).await;
    let back = back_store(source).await?;
    let (forks, not_compared) =
        where_they_part(store, (source, back.as_ref()), flow, forks).await?;
    unseen.extend(not_compared);
    unseen.extend(hidden);
    // Less than all of a partition would be taken for all of it.
    for (at, why) in &unseen {
        if let Some(logs) = logs.get_mut(&at.topic) {
            logs.remove(&at.partition);
        }
        let (topic, partition) = (&at.topic, at.partition);
        notes.push(format!(
            "{topic}: partition {partition} can't be looked at now, so what it has isn't among this: {why}"
        ));
    }
    without_copied_back(back.as_ref(), flow, &forks, &mut logs)?;
    let mut decisions = BTreeMap::new();
    let mut found = Vec::new();
    for (topic, fork) in &forks {
        let made: OrphanDecisions = store
            .get(&keys::orphan_decisions(flow, topic))?
            .unwrap_or_default();
        if let Some(logs) = logs.get(topic) {
            found.extend(stranded(topic, fork, &made, logs));
        }
        decisions.insert(topic.clone(), made);
    }
    Ok(Survey {
        stranded: found,
        decisions,
        notes,
        without_fork,
        unseen,
    })
}

/// The state on the old primary: without one nothing was ever copied back. One that can't be read may say that
/// something was, and that would be taken for stranded.
async fn back_store(source: &Cluster) -> Result<Option<StateStore>, OrphansError> {
    let unread = |error: &dyn std::fmt::Display| {
        OrphansError::new(format!(
            "what was copied back to the old primary {} can't be told, for the state there ({STATE_TOPIC}) can't be \
             read: {error}",
            source.name()
        ))
    };
    let wait = "wait until its leader answers: what was copied back would be taken for stranded";
    let store = StateStore::open_existing(source).await;
    store.map_err(|error| match &error {
        StateError::Wire(wire)
            if wire.server_code() == Some(ResponseError::TopicAuthorizationFailed) =>
        {
            let grant = format!("grant READ on topic {STATE_TOPIC} there to Twinlog's principal");
            unread(wire).with_hint(grant)
        }
        error => unread(error).with_hint(wait),
    })
}

/// The log that is copied back from this fork, if it is.
fn continued_back(
    back: Option<&StateStore>,
    flow: &str,
    fork: &ForkRecord,
) -> Result<Option<ContinuedLog>, OrphansError> {
    let Some(back) = back else {
        return Ok(None);
    };
    let key = keys::topic(&back_name(flow), &fork.target_topic);
    let record: Option<TopicRecord> = back.get(&key)?;
    let continued = record.and_then(|record| record.continued);
    Ok(continued.filter(|it| it.plan == fork.plan))
}

/// The forks as the logs are now: an old primary that has lost a tail has others' records in its
/// place. Once it is copied back, what was found when that began counts.
async fn where_they_part(
    store: &StateStore,
    (source, back): (&Cluster, Option<&StateStore>),
    flow: &str,
    forks: BTreeMap<String, ForkRecord>,
) -> Result<
    (
        BTreeMap<String, ForkRecord>,
        BTreeMap<TopicPartition, String>,
    ),
    OrphansError,
> {
    let mut known = BTreeMap::new();
    let mut open = BTreeMap::new();
    for (topic, mut fork) in forks {
        let Some(continued) = continued_back(back, flow, &fork)? else {
            open.insert(topic, fork);
            continue;
        };
        for (number, fork) in (0..).zip(&mut fork.partitions) {
            let stranded = continued.only_on_target(number).last();
            if let Some((from, _)) = stranded.filter(|it| it.1 == continued.base(number)) {
                fork.source_end = fork.source_end.min(*from);
            }
        }
        known.insert(topic, fork);
    }
    let target = store.cluster();
    target
        .metadata(None)
        .await
        .map_err(|error| OrphansError::new(error.to_string()))?;
    let agreed = agreement::look((source, target), store, flow, &open).await;
    let agreed = agreed.map_err(|error| OrphansError::new(error.to_string()))?;
    known.extend(agreed.forks);
    Ok((known, agreed.unseen))
}

/// Once it is copied back, what lies behind the orphans is a copy of the new primary's.
fn without_copied_back(
    back: Option<&StateStore>,
    flow: &str,
    forks: &BTreeMap<String, ForkRecord>,
    logs: &mut BTreeMap<String, BTreeMap<i32, Log>>,
) -> Result<(), OrphansError> {
    for (topic, fork) in forks {
        let Some(continued) = continued_back(back, flow, fork)? else {
            continue;
        };
        for (partition, log) in logs.get_mut(topic).into_iter().flatten() {
            let base = continued.base(*partition);
            log.end = log.end.min(base);
            log.stable_end = log.stable_end.min(base);
        }
    }
    Ok(())
}

/// The logs of all partitions that have a fork, by topic, and those that don't answer.
async fn logs(
    source: &Cluster,
    forks: &BTreeMap<String, ForkRecord>,
) -> (
    BTreeMap<String, BTreeMap<i32, Log>>,
    BTreeMap<TopicPartition, String>,
) {
    let partitions: Vec<TopicPartition> = forks
        .iter()
        .flat_map(|(topic, fork)| {
            (0..)
                .zip(&fork.partitions)
                .map(move |(number, _)| TopicPartition::new(&**topic, number))
        })
        .collect();
    let ask = |spec| wire::list_offsets_within(source, &partitions, spec, LEADER_WITHIN);
    // The stable end first: what ends meanwhile is seen the next time.
    let stable = ask(OffsetSpec::LatestStable).await;
    let (starts, ends) = tokio::join!(ask(OffsetSpec::Earliest), ask(OffsetSpec::Latest));
    let mut logs: BTreeMap<String, BTreeMap<i32, Log>> = BTreeMap::new();
    let mut silent = BTreeMap::new();
    for at in partitions {
        let one =
            |answers: &std::collections::HashMap<_, Result<i64, wire::WireError>>| match answers
                .get(&at)
            {
                Some(Ok(offset)) => Ok(*offset),
                Some(Err(error)) => Err(error.to_string()),
                None => Err("no answer".to_owned()),
            };
        match (one(&starts), one(&stable), one(&ends)) {
            (Ok(start), Ok(stable_end), Ok(end)) => {
                let log = Log {
                    start,
                    stable_end,
                    end,
                };
                logs.entry(at.topic).or_default().insert(at.partition, log);
            }
            (Err(why), _, _) | (_, Err(why), _) | (_, _, Err(why)) => {
                silent.insert(at, why);
            }
        }
    }
    (logs, silent)
}
