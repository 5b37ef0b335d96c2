//! What an unplanned failover goes on without: topics that the standby can't serve now.
//!
//! The disaster may have taken a broker of the standby along. A partition without a leader takes no
//! writes, whoever is the primary; all others do. So its topic stays a copy, is named, and is failed
//! over later by the same command.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::pairs::{CutTopic, on_target, pairs, topics_of};
use super::preflight::{Check, Weight};
use crate::wire::{self, Cluster, Metadata, OffsetSpec, TopicPartition};

/// Where another replica can lead, it does so within this: a broker that is gone is noticed after
/// `broker.session.timeout.ms` (9 s).
const MOVES_WITHIN: Duration = Duration::from_secs(12);
/// Where none can, its leader has so long to answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);
const AGAIN: Duration = Duration::from_millis(250);
/// More of one thing are counted, not named.
const NAMED_MAX: usize = 5;

/// Topics, by their name on the source, and why the target can't serve them.
pub type LeftOut = BTreeMap<String, String>;

/// Which of these topics the target can't serve.
pub async fn unavailable(target: &Cluster, topics: &[CutTopic]) -> LeftOut {
    let deadline = Instant::now() + MOVES_WITHIN;
    let all = pairs(topics);
    let mut open = on_target(&all);
    let mut silent = BTreeMap::new();
    loop {
        let patience = target.or_longer(ANSWERS_WITHIN);
        let answers = wire::list_offsets_within(target, &open, OffsetSpec::Latest, patience).await;
        let failed = |at: &TopicPartition| match answers.get(at) {
            Some(Ok(_)) => None,
            Some(Err(error)) => Some(error.to_string()),
            None => Some("no answer".to_owned()),
        };
        let known = target.cached();
        let (hopeless, others): (Vec<_>, Vec<_>) = open
            .iter()
            .filter_map(|at| Some((at.clone(), failed(at)?)))
            .partition(|(at, _)| !can_move(&known, at));
        silent.extend(hopeless);
        if others.is_empty() || Instant::now() >= deadline {
            silent.extend(others);
            break;
        }
        open = others.into_iter().map(|(at, _)| at).collect();
        tokio::time::sleep(AGAIN).await;
        // If nobody answers, the next round says so.
        let topics = topics_of(&open);
        let _ = tokio::time::timeout(patience, target.metadata(Some(&topics))).await;
    }
    let mut left_out = LeftOut::new();
    for pair in all {
        if let Some(why) = silent.get(&pair.target) {
            let why = format!("{}: {why}", pair.target);
            left_out.entry(pair.source.topic).or_insert(why);
        }
    }
    left_out
}

/// Whether another replica than the leader could lead.
fn can_move(known: &Metadata, at: &TopicPartition) -> bool {
    let topic = known.topics.get(&at.topic);
    let partition = topic.and_then(|topic| {
        let mut partitions = topic.partitions.iter();
        partitions.find(|it| it.index == at.partition)
    });
    partition.is_some_and(|it| it.in_sync.iter().any(|replica| *replica != it.leader))
}

/// Takes them out; `false` where nothing would be left.
pub fn take_out(topics: &mut Vec<CutTopic>, left_out: &LeftOut) -> bool {
    let rest = topics.iter().any(|it| !left_out.contains_key(&it.name));
    if rest {
        topics.retain(|it| !left_out.contains_key(&it.name));
    }
    rest
}

/// The names of these topics.
pub fn names(topics: &[CutTopic]) -> BTreeSet<String> {
    topics.iter().map(|topic| topic.name.clone()).collect()
}

/// What the operator is told.
pub fn check(left_out: &LeftOut) -> Check {
    Check::new("left_out", Weight::Warning, in_words(left_out)).with_hint(
        "they stay copies: when their brokers are back, and Twinlog may see them, run the same command again for them",
    )
}

/// In one line.
pub fn in_words(left_out: &LeftOut) -> String {
    let named: Vec<String> = left_out
        .iter()
        .take(NAMED_MAX)
        .map(|(topic, why)| format!("{topic} ({why})"))
        .collect();
    let more = match left_out.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "{} topic(s) are left out, for the standby can't serve all their partitions now: {}{more}",
        left_out.len(),
        named.join(", ")
    )
}
