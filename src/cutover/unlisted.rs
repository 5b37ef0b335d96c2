//! Copied topics that a list of all topics leaves out.
//!
//! Such a list holds what we may describe, as far as the broker that was asked knows it: what it lacks may be gone, may be
//! hidden by a right that was lost, or may be news to that broker. Asked for by its name, a hidden topic is
//! TOPIC_AUTHORIZATION_FAILED (`KafkaApis.handleTopicMetadataRequest`), and other brokers are asked about one that isn't
//! known. A failover that takes either for gone would leave it out without a word.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::error::CutoverError;
use super::pairs::CutTopic;
use super::preflight::{Check, Weight, named};
use crate::config::Selector;
use crate::groups;
use crate::wire::{self, Cluster, ResponseError, WireError};

/// What a cluster says of topics that its list lacks, by their name on the source.
#[derive(Debug, Default)]
pub struct Unlisted {
    /// It doesn't tell, and why: they may be there.
    pub hidden: BTreeMap<String, String>,
    /// It has no such topic, or another one under that name.
    pub gone: Vec<String>,
}

/// On which cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Where it is copied from.
    Source,
    /// Where the copy is.
    Target,
}

impl Side {
    fn name(self, topic: &CutTopic) -> &String {
        match self {
            Self::Source => &topic.name,
            Self::Target => &topic.record.target_topic,
        }
    }

    fn id(self, topic: &CutTopic) -> Uuid {
        match self {
            Self::Source => topic.record.source_topic_id,
            Self::Target => topic.record.target_topic_id,
        }
    }
}

/// Asks by their names for those that the list lacked, and that nobody has asked for so far. Mostly there is none.
///
/// # Errors
/// When nobody answers.
pub async fn ask(cluster: &Cluster, topics: &[CutTopic], side: Side) -> Result<(), WireError> {
    let names = topics.iter().map(|topic| side.name(topic));
    cluster.describe_unlisted(names).await?;
    Ok(())
}

/// Which of these the cluster hides, by their names there, and why, by what was asked so far.
pub fn hidden<'a>(
    cluster: &Cluster,
    names: impl IntoIterator<Item = &'a String>,
) -> BTreeMap<String, String> {
    let known = cluster.cached();
    let why = |name: &String| match known.described(name) {
        Err(code) => Some((name.clone(), format!("{name}: {code}"))),
        Ok(_) => None,
    };
    names.into_iter().filter_map(why).collect()
}

/// Takes out those of which a cluster says that it has no such topic. What it hides stays.
///
/// # Errors
/// When nobody answers.
pub async fn without_gone(
    cluster: &Cluster,
    topics: &mut Vec<CutTopic>,
    side: Side,
) -> Result<(), WireError> {
    ask(cluster, topics, side).await?;
    let gone: BTreeSet<String> = look(cluster, topics, side).gone.into_iter().collect();
    topics.retain(|it| !gone.contains(&it.name));
    Ok(())
}

/// What became of those that aren't there.
pub fn look(cluster: &Cluster, topics: &[CutTopic], side: Side) -> Unlisted {
    let known = cluster.cached();
    let mut unlisted = Unlisted::default();
    for topic in topics {
        let name = side.name(topic);
        match known.described(name) {
            Err(code) => {
                let why = format!("{name}: {code}");
                unlisted.hidden.insert(topic.name.clone(), why);
            }
            Ok(Some(there)) if !wire::is_other_topic(side.id(topic), there.topic_id) => {}
            Ok(_) => unlisted.gone.push(topic.name.clone()),
        }
    }
    unlisted
}

/// Refuses to go on beside topics that a cluster hides: writers of the source would go on there, and what is on the target
/// would be left as it is.
///
/// # Errors
/// Those that are hidden; or when nobody answers.
pub async fn refuse_hidden(
    cluster: &Cluster,
    topics: &[CutTopic],
    side: Side,
) -> Result<(), CutoverError> {
    ask(cluster, topics, side).await?;
    refuse(cluster, &look(cluster, topics, side).hidden)
}

/// Refuses to go on beside these, which a cluster hides.
///
/// # Errors
/// Where there are any.
pub fn refuse(cluster: &Cluster, hidden: &BTreeMap<String, String>) -> Result<(), CutoverError> {
    match check(cluster, hidden) {
        None => Ok(()),
        // Within a plan its topics are chosen: none can be left out any more.
        Some(check) => Err(CutoverError::refused(check.reason).with_hint(GRANT)),
    }
}

/// What helps wherever nothing can be left out.
const GRANT: &str = "grant DESCRIBE on them to Twinlog there, and run this again";

/// The same as [`check`], on the way back: all that was failed over is part of it.
pub fn check_back(cluster: &Cluster, hidden: &BTreeMap<String, String>) -> Option<Check> {
    check(cluster, hidden).map(|it| it.with_hint(GRANT))
}

/// What the operator is told of copied topics that a cluster hides.
pub fn check(cluster: &Cluster, hidden: &BTreeMap<String, String>) -> Option<Check> {
    let reason = format!(
        "{} copied topic(s) can't be seen on {}: {}",
        hidden.len(),
        cluster.name(),
        named(hidden.iter().map(|(topic, why)| format!("{topic} ({why})")))
    );
    let check = Check::new("hidden_topics", Weight::LosesData, reason).with_hint(
        "grant DESCRIBE on them to Twinlog there, exclude them in the config, or name the others with --topic",
    );
    (!hidden.is_empty()).then_some(check)
}

/// Whether the source may have topics that are selected and that we may not see: nobody would copy them, keep their writers
/// away, or name them.
///
/// Rights are on names and on beginnings of names, so one on a name that nobody has yet tells the same as one on a topic.
/// What can't be told so are single topics that a DENY hides within a right that is wider.
///
/// # Errors
/// When nobody answers.
pub async fn others_check(source: &Cluster, topics: &Selector) -> Result<Option<Check>, WireError> {
    let names = topics.include().iter().filter_map(|it| groups::one_of(it));
    let names: BTreeSet<String> = names.chain([groups::ANY.to_owned()]).collect();
    let names: Vec<String> = names.into_iter().collect();
    let known = source.metadata(Some(&names)).await?;
    let is_refused =
        |name: &str| known.error_of(name) == Some(ResponseError::TopicAuthorizationFailed);
    if !is_refused(groups::ANY) {
        return Ok(None);
    }
    let taken = |pattern: &&String| groups::one_of(pattern).is_none_or(|name| is_refused(&name));
    let hidden: Vec<String> = topics.include().iter().filter(taken).cloned().collect();
    let reason = format!(
        "there may be topics on {} that topics.include takes and that can't be seen: nothing would be done for them ({})",
        source.name(),
        named(hidden.iter().cloned())
    );
    let check = Check::new("hidden_topics", Weight::Warning, reason)
        .with_hint("grant DESCRIBE on all that these take to Twinlog there, or name the topics");
    Ok((!hidden.is_empty()).then_some(check))
}

/// What a plan leaves as it is, for the source has no such topic any more.
pub fn gone_check(gone: &[String]) -> Option<Check> {
    let reason = format!(
        "{} copied topic(s) are gone from the source, so they aren't failed over; their copies stay as they are: {}",
        gone.len(),
        named(gone.iter().cloned())
    );
    (!gone.is_empty()).then(|| Check::new("gone_topics", Weight::Ok, reason))
}
