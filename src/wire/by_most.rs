//! What most of a cluster's brokers say of a topic.
//!
//! A broker gets the controller's log when it gets it. One that is cut off from its controllers, and not from us, goes on
//! describing topics as they were: one that was deleted and made again has its old id there. An answer like any other says so,
//! and the next one takes it back. What can't be undone rests on more than half of them.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::MetadataResponse;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::cluster::{Cluster, Described};
use super::{Connection, ErrorContext, Role, TopicMetadata, WireError};
use crate::tasks::brought;

/// So long those that haven't answered are waited for when most have.
const OTHERWISE_WITHIN: Duration = Duration::from_millis(500);

/// Topics that each broker is asked about at once.
const TOPICS_AT_ONCE: usize = 1_000;

/// By broker, the topic's id; nil where that one says that there is none.
type Said = BTreeMap<i32, Uuid>;

/// The id that more than half of so many brokers say. Who says nothing says no other one.
fn settled<T: Copy + PartialEq>(said: &BTreeMap<i32, T>, brokers: usize) -> Option<T> {
    let count = |id: &T| said.values().filter(|it| *it == id).count();
    said.values().copied().find(|id| count(id) * 2 > brokers)
}

/// What a cluster's brokers say of a topic, each asked for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MostSay {
    /// More than half: it is there, with this id; nil from a cluster that gives none.
    There(Uuid),
    /// More than half: there is none.
    Gone,
    /// Not that many say the same, and why.
    Untold(String),
}

/// What was said of one topic so far: by whom that it is there, with its id, or that it isn't.
#[derive(Default)]
struct Votes {
    said: BTreeMap<i32, Option<Uuid>>,
    /// Why one that was asked doesn't say it.
    refused: Option<ResponseError>,
}

impl Votes {
    fn take(&mut self, broker: i32, (code, id): (i16, Uuid)) {
        let said = match ResponseError::try_from_code(code) {
            None => Some(id),
            Some(ResponseError::UnknownTopicOrPartition) => None,
            Some(other) => {
                self.refused = Some(other);
                return;
            }
        };
        self.said.insert(broker, said);
    }

    fn judge(&self, brokers: usize, silent: Option<&str>) -> MostSay {
        match (settled(&self.said, brokers), self.refused, silent) {
            (Some(Some(id)), ..) => MostSay::There(id),
            (Some(None), ..) => MostSay::Gone,
            (None, Some(code), _) => MostSay::Untold(code.to_string()),
            (None, None, Some(why)) => MostSay::Untold(why.to_owned()),
            (None, None, None) => MostSay::Untold("its brokers don't agree".to_owned()),
        }
    }
}

/// The id in an answer about one topic; nil where there is none. Who may not say so, or can't, says neither.
fn id_in(response: &MetadataResponse) -> Result<Uuid, ResponseError> {
    let Some(topic) = response.topics.first() else {
        return Ok(Uuid::nil());
    };
    match topic.error_code {
        0 => Ok(topic.topic_id),
        code => match ResponseError::try_from_code(code) {
            Some(ResponseError::UnknownTopicOrPartition) => Ok(Uuid::nil()),
            other => Err(other.unwrap_or(ResponseError::UnknownServerError)),
        },
    }
}

impl Cluster {
    fn refusal(&self, broker: i32, topic: &str, code: ResponseError) -> WireError {
        let context = ErrorContext {
            broker: Some(broker),
            api: Some("Metadata"),
            subject: Some(topic.to_owned()),
            ..ErrorContext::cluster(self.name())
        };
        WireError::server(context, code, None)
    }

    /// The topic as more than half of the brokers describe it, each asked for itself; `None` where that many don't agree, or
    /// say that there is none. What they say is known then, and who says otherwise is asked last for a while.
    ///
    /// # Errors
    /// When that many don't answer.
    pub async fn by_most(&self, topic: &str) -> Result<Option<TopicMetadata>, WireError> {
        let asked = [topic.to_owned()];
        let brokers: Vec<i32> = self
            .metadata(Some(&[]))
            .await?
            .brokers
            .keys()
            .copied()
            .collect();
        let within = self.answers_within();
        let mut asking = JoinSet::new();
        for broker in brokers.iter().copied() {
            let (cluster, asked) = (self.clone(), asked.clone());
            asking.spawn(async move {
                let answer = cluster.ask_metadata(broker, Some(&asked));
                let answer = tokio::time::timeout(within, answer).await;
                let late = |_| {
                    let context = ErrorContext {
                        broker: Some(broker),
                        api: Some("Metadata"),
                        subject: Some(asked[0].clone()),
                        ..ErrorContext::cluster(cluster.name())
                    };
                    let context = Arc::new(context);
                    Err(WireError::Timeout {
                        context,
                        after: within,
                    })
                };
                (broker, answer.unwrap_or_else(late))
            });
        }
        let (mut said, mut answers, mut silent) = (Said::new(), BTreeMap::new(), None);
        loop {
            // Enough have said it: the others have a moment to say otherwise.
            let patience = match settled(&said, brokers.len()) {
                Some(_) => OTHERWISE_WITHIN.min(within),
                None => within,
            };
            let Ok(Some(answered)) = tokio::time::timeout(patience, asking.join_next()).await
            else {
                break;
            };
            match brought(answered) {
                (broker, Ok(Described::Anew(response, _))) => match id_in(&response) {
                    Ok(id) => {
                        said.insert(broker, id);
                        answers.insert(broker, response);
                    }
                    Err(code) => silent = Some(self.refusal(broker, topic, code)),
                },
                // Only an answer about all topics can say nothing new.
                (_, Ok(Described::AsBefore)) => {}
                (_, Err(error)) => silent = Some(error),
            }
        }
        let Some(id) = settled(&said, brokers.len()) else {
            return silent.map_or(Ok(None), Err);
        };
        let mut known = None;
        for (broker, response) in answers {
            match said[&broker] == id {
                true => known = Some(self.merge(Described::Anew(response, None), false)),
                false => self.ask_last(broker),
            }
        }
        let known = known.and_then(|known| known.topics.get(topic).cloned());
        Ok(known.filter(|it| it.error.is_none()))
    }

    /// What more than half of the brokers say of each of these topics, however many they are: each broker is asked about many
    /// at once, and one that is silent is waited for once, for so long: a description of a thousand topics is no short
    /// answer. What is known of topics stays as it is.
    ///
    /// # Errors
    /// When nobody says who the brokers are.
    pub async fn most_say(
        &self,
        topics: &[String],
        patience: Duration,
    ) -> Result<BTreeMap<String, MostSay>, WireError> {
        let within = self.or_longer(patience);
        let known = self.metadata(Some(&[])).await?;
        let all = known.brokers.len();
        let mut asked: BTreeSet<i32> = known.brokers.keys().copied().collect();
        let mut silent: Option<String> = None;
        let mut found = BTreeMap::new();
        for some in topics.chunks(TOPICS_AT_ONCE) {
            let some: Arc<[String]> = some.into();
            let mut votes: BTreeMap<&str, Votes> =
                some.iter().map(|it| (&**it, Votes::default())).collect();
            let mut asking = JoinSet::new();
            for broker in asked.iter().copied() {
                asking.spawn(ask_one(self.clone(), broker, some.clone(), within));
            }
            while let Some(answered) = asking.join_next().await {
                let (broker, answer) = brought(answered);
                match answer {
                    Ok(topics) => {
                        for (name, said) in &topics {
                            if let Some(votes) = votes.get_mut(&**name) {
                                votes.take(broker, *said);
                            }
                        }
                    }
                    Err(error) => {
                        asked.remove(&broker);
                        silent = Some(error.to_string());
                    }
                }
                if votes.values().all(|it| settled(&it.said, all).is_some()) {
                    break;
                }
            }
            let judged = votes.into_iter();
            found.extend(
                judged.map(|(name, it)| (name.to_owned(), it.judge(all, silent.as_deref()))),
            );
        }
        Ok(found)
    }
}

/// What one broker says of topics.
type ToldOf = Vec<(String, (i16, Uuid))>;

async fn ask_one(
    cluster: Cluster,
    broker: i32,
    topics: Arc<[String]>,
    within: Duration,
) -> (i32, Result<ToldOf, WireError>) {
    let asking = cluster.ask_metadata(broker, Some(&topics));
    let answer = match tokio::time::timeout(within, asking).await {
        Ok(answer) => answer,
        Err(_) => {
            let context = ErrorContext {
                broker: Some(broker),
                api: Some("Metadata"),
                ..ErrorContext::cluster(cluster.name())
            };
            Err(WireError::Timeout {
                context: Arc::new(context),
                after: within,
            })
        }
    };
    let told = answer.map(|described| match described {
        Described::Anew(response, _) => response
            .topics
            .into_iter()
            .filter_map(|it| Some((it.name?.0.to_string(), (it.error_code, it.topic_id))))
            .collect(),
        // Only an answer about all topics can say nothing new.
        Described::AsBefore => Vec::new(),
    });
    (broker, told)
}

/// What each broker answered by itself, and how many brokers there are.
pub(super) struct Told<T> {
    pub(super) answers: Vec<T>,
    brokers: usize,
}

impl<T> Told<T> {
    /// Whether more than half of all brokers have answered so.
    pub(super) fn agree(&self, is_so: impl Fn(&T) -> bool) -> bool {
        self.answers.iter().filter(|it| is_so(it)).count() * 2 > self.brokers
    }

    /// Whether more than half of all brokers have answered: less can't show that anything is gone.
    fn is_enough(&self) -> bool {
        self.agree(|_| true)
    }
}

impl<T: Clone + Ord> Told<BTreeSet<T>> {
    /// All but what more than half of the brokers lack; `None` where too few have answered to tell.
    pub(super) fn not_gone(&self) -> Option<BTreeSet<T>> {
        let lack = |item: &T| self.answers.iter().filter(|it| !it.contains(item)).count();
        let known: BTreeSet<&T> = self.answers.iter().flatten().collect();
        let there = known.into_iter().filter(|it| lack(it) * 2 <= self.brokers);
        self.is_enough().then(|| there.cloned().collect())
    }
}

/// Asks each broker for itself, side by side. Who doesn't answer in time is left out.
pub(super) async fn told_by_each<T, F, Fut>(cluster: &Cluster, question: F) -> Told<T>
where
    T: Send + 'static,
    F: Fn(Connection) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<T, WireError>> + Send,
{
    let brokers: Vec<i32> = cluster.cached().brokers.keys().copied().collect();
    let within = cluster.answers_within();
    let mut asking = JoinSet::new();
    for broker in brokers.iter().copied() {
        let (cluster, question) = (cluster.clone(), question.clone());
        let asked = async move {
            let connection = cluster.connection(broker, Role::Admin).await?;
            question(connection).await
        };
        asking.spawn(tokio::time::timeout(within, asked));
    }
    let mut answers = Vec::new();
    while let Some(answered) = asking.join_next().await {
        answers.extend(brought(answered).into_iter().flatten());
    }
    Told {
        answers,
        brokers: brokers.len(),
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::metadata_response::MetadataResponseTopic;

    use super::*;

    #[test]
    fn who_may_not_say_it_says_nothing() {
        let answer = |code: i16| {
            let topic = MetadataResponseTopic::default()
                .with_error_code(code)
                .with_topic_id(Uuid::from_u128(7));
            MetadataResponse::default().with_topics(vec![topic])
        };
        assert_eq!(id_in(&answer(0)), Ok(Uuid::from_u128(7)));
        let unknown = ResponseError::UnknownTopicOrPartition;
        assert_eq!(id_in(&answer(unknown.code())), Ok(Uuid::nil()));
        let refused = ResponseError::TopicAuthorizationFailed;
        assert_eq!(id_in(&answer(refused.code())), Err(refused));
    }

    #[test]
    fn more_than_half_of_all_brokers_agree() {
        let agree = |answers: &[u8], brokers| {
            let answers = answers.to_vec();
            Told { answers, brokers }.agree(|it| *it == 1)
        };
        assert!(agree(&[1], 1) && agree(&[1, 1, 2], 3) && agree(&[1, 1], 3));
        assert!(!agree(&[1], 2) && !agree(&[1, 2], 2) && !agree(&[], 0));
    }

    #[test]
    fn what_most_brokers_lack_is_gone() {
        let told = |answers: &[&[u8]], brokers| {
            let answers = answers.iter().map(|it| it.iter().copied().collect());
            let told = Told {
                answers: answers.collect::<Vec<BTreeSet<u8>>>(),
                brokers,
            };
            told.not_gone()
                .map(|it| it.into_iter().collect::<Vec<u8>>())
        };
        assert_eq!(
            told(&[&[1], &[1, 2]], 2),
            Some(vec![1, 2]),
            "which is late?"
        );
        assert_eq!(told(&[&[1], &[1], &[1, 2]], 3), Some(vec![1]));
        assert_eq!(told(&[&[1], &[1, 2], &[1, 2]], 3), Some(vec![1, 2]));
        assert_eq!(told(&[&[1], &[1]], 3), Some(vec![1]), "two of three");
        assert_eq!(told(&[&[1]], 2), None);
        assert_eq!(told(&[&[]], 1), Some(vec![]));
    }

    #[test]
    fn what_more_than_half_of_all_brokers_say_counts() {
        let (old, new) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let said = |ids: &[Uuid]| -> Said { (1..).zip(ids.iter().copied()).collect() };
        assert_eq!(settled(&said(&[new, new, old]), 3), Some(new));
        assert_eq!(
            settled(&said(&[old, new]), 2),
            None,
            "one is behind: which?"
        );
        assert_eq!(settled(&said(&[old]), 3), None, "two say nothing");
        assert_eq!(settled(&said(&[new, new]), 3), Some(new));
        assert_eq!(settled(&said(&[old]), 1), Some(old));
        assert_eq!(settled(&Said::new(), 0), None);
    }
}
