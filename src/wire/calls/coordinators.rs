//! Questions of which every coordinator answers its own part, so that each broker is asked.
//!
//! What is lacking is told with the answers: brokers that are silent, and coordinators that don't exist now, since their
//! partition has no leader. Who may not describe the coordinators' topic doesn't know of those.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::tasks::resume_panic;
use crate::wire::{Cluster, ErrorContext, Metadata, WireError};

/// How long the answers of others wait for a broker that doesn't answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the coordinators of a cluster have answered.
pub(super) struct Told<T> {
    /// One answer of each broker that gave one.
    pub answers: Vec<T>,
    /// The brokers that gave none, and why.
    pub silent: Vec<WireError>,
    /// What nobody coordinates now.
    pub leaderless: Leaderless,
}

/// The partitions of a coordinators' topic that have no leader: nobody knows now what they hold.
#[derive(Clone, Debug)]
pub enum Leaderless {
    /// So many.
    Partitions(usize),
    /// The topic can't be described, so there may be any number.
    Unknown(WireError),
}

impl Default for Leaderless {
    fn default() -> Self {
        Self::Partitions(0)
    }
}

impl Leaderless {
    fn of(metadata: &Metadata, topic: &str, context: ErrorContext) -> Self {
        match metadata.described(topic) {
            Ok(described) => {
                let partitions = described.into_iter().flat_map(|it| &it.partitions);
                Self::Partitions(partitions.filter(|it| it.leader < 0).count())
            }
            Err(code) => Self::Unknown(WireError::server(context, code, None)),
        }
    }

    /// That there are some, in words.
    pub fn known(&self, topic: &str) -> Option<String> {
        match self {
            Self::Partitions(0) | Self::Unknown(_) => None,
            Self::Partitions(count) => {
                Some(format!("{count} partition(s) of {topic} have no leader"))
            }
        }
    }

    /// That there may be some, in words.
    pub fn unknown(&self, topic: &str) -> Option<String> {
        match self {
            Self::Partitions(_) => None,
            Self::Unknown(error) => Some(format!(
                "whether all partitions of {topic} have a leader isn't known (DESCRIBE on it): {error}"
            )),
        }
    }
}

/// Asks every broker, each for itself: one that hangs keeps nobody's answer back.
///
/// # Errors
/// When nobody tells which brokers there are.
pub(super) async fn ask_all<T, F, Fut>(
    cluster: &Cluster,
    (topic, api): (&'static str, &'static str),
    ask: F,
) -> Result<Told<T>, WireError>
where
    T: Send + 'static,
    F: Fn(Cluster, i32) -> Fut,
    Fut: Future<Output = Result<T, WireError>> + Send + 'static,
{
    let metadata = cluster.metadata(Some(&[topic.to_owned()])).await?;
    let patience = cluster.or_longer(PATIENCE);
    let mut asked = JoinSet::new();
    for broker in metadata.brokers.keys().copied() {
        let asking = tokio::time::timeout(patience, ask(cluster.clone(), broker));
        let context = context(cluster, broker, api);
        asked.spawn(async move {
            asking.await.unwrap_or_else(|_| {
                Err(WireError::Timeout {
                    context: Arc::new(context),
                    after: patience,
                })
            })
        });
    }
    let about_topic = ErrorContext {
        api: Some("Metadata"),
        subject: Some(topic.to_owned()),
        ..ErrorContext::cluster(cluster.name())
    };
    let mut told = Told {
        answers: Vec::new(),
        silent: Vec::new(),
        leaderless: Leaderless::of(&metadata, topic, about_topic),
    };
    while let Some(answer) = asked.join_next().await {
        match answer {
            Ok(Ok(answer)) => told.answers.push(answer),
            Ok(Err(error)) => told.silent.push(error),
            Err(error) => resume_panic(error),
        }
    }
    Ok(told)
}

/// What an error of one broker is about.
pub(super) fn context(cluster: &Cluster, broker: i32, api: &'static str) -> ErrorContext {
    ErrorContext {
        broker: Some(broker),
        api: Some(api),
        ..ErrorContext::cluster(cluster.name())
    }
}
