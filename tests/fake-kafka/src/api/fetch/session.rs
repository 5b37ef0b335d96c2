//! Fetch sessions (`FetchSession`, KIP-227): what a client wants is remembered, and only what changed is told.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::FetchRequest;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use uuid::Uuid;

use crate::api::{Asked, Subject};
use crate::state::State;

use super::TOPIC_IDS_FROM;

/// `max.incremental.fetch.session.cache.slots`.
const MAX_SESSIONS: usize = 1_000;
/// Closes a session, or asks for none.
const FINAL_EPOCH: i32 = -1;
/// Asks for a new session.
const FIRST_EPOCH: i32 = 0;

/// A partition that a client wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) asked_name: String,
    pub(crate) id: Uuid,
    /// Unknown ids have no name.
    pub(crate) name: Option<String>,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) max_bytes: usize,
    pub(crate) current_leader_epoch: i32,
    pub(crate) last_fetched_epoch: i32,
}

impl Wanted {
    fn is_about(&self, other: (&str, Uuid, i32)) -> bool {
        (self.asked_name.as_str(), self.id, self.partition) == other
    }
}

/// A session.
#[derive(Debug)]
pub(crate) struct Session {
    epoch: i32,
    topic_ids: bool,
    partitions: Vec<(Wanted, Option<Told>)>,
}

/// What the client was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    high_watermark: i64,
    log_start: i64,
}

/// What one request is about.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) session_id: i32,
    pub(super) wanted: Vec<Wanted>,
    /// Only what changed is told.
    incremental: bool,
}

/// The partitions of a session; for faults, which don't know the broker.
pub(super) fn partitions(state: &State, session_id: i32) -> Vec<Subject> {
    let sessions = state.fetch_sessions.iter();
    sessions
        .filter(|((_, id), _)| *id == session_id)
        .flat_map(|(_, session)| &session.partitions)
        .filter_map(|(wanted, _)| Some(Subject::Partition(wanted.name.clone()?, wanted.partition)))
        .collect()
}

/// `FetchManager.newContext`.
pub(super) fn context(
    state: &mut State,
    asked: &Asked<'_>,
    request: &FetchRequest,
) -> Result<Context, ResponseError> {
    let topic_ids = asked.api_version >= TOPIC_IDS_FROM;
    let key = (asked.broker, request.session_id);
    let full = matches!(request.session_epoch, FIRST_EPOCH | FINAL_EPOCH);
    if full {
        state.fetch_sessions.remove(&key);
        let wanted = wanted(state, &request.topics);
        let session_id = match request.session_epoch {
            FINAL_EPOCH => 0,
            _ => open(state, asked.broker, topic_ids, &wanted),
        };
        return Ok(Context {
            session_id,
            wanted,
            incremental: false,
        });
    }
    let changes = wanted(state, &request.topics);
    let session = state
        .fetch_sessions
        .get_mut(&key)
        .ok_or(ResponseError::FetchSessionIdNotFound)?;
    if session.topic_ids != topic_ids {
        return Err(ResponseError::FetchSessionTopicIdError);
    }
    if session.epoch != request.session_epoch {
        return Err(ResponseError::InvalidFetchSessionEpoch);
    }
    session.change(changes, request);
    session.epoch = next_epoch(session.epoch);
    let wanted: Vec<Wanted> = session.partitions.iter().map(|(w, _)| w.clone()).collect();
    if wanted.is_empty() {
        state.fetch_sessions.remove(&key);
        return Ok(Context {
            session_id: 0,
            wanted,
            incremental: false,
        });
    }
    let wanted = with_names(state, wanted);
    Ok(Context {
        session_id: request.session_id,
        wanted,
        incremental: true,
    })
}

/// A topic may have been created, or deleted, since the session began.
fn with_names(state: &State, mut wanted: Vec<Wanted>) -> Vec<Wanted> {
    for one in &mut wanted {
        if !one.id.is_nil() {
            one.name = state.topic_name(one.id).map(str::to_owned);
        }
    }
    wanted
}

fn next_epoch(epoch: i32) -> i32 {
    epoch.checked_add(1).unwrap_or(1)
}

fn open(state: &mut State, broker: i32, topic_ids: bool, wanted: &[Wanted]) -> i32 {
    let held = state.fetch_sessions.keys().filter(|(id, _)| *id == broker);
    if held.count() >= MAX_SESSIONS {
        return 0;
    }
    let id = i32::try_from(state.next_id()).expect("31 bits of ids");
    let session = Session {
        epoch: next_epoch(FIRST_EPOCH),
        topic_ids,
        partitions: wanted.iter().map(|w| (w.clone(), None)).collect(),
    };
    state.fetch_sessions.insert((broker, id), session);
    id
}

fn wanted(state: &State, topics: &[FetchTopic]) -> Vec<Wanted> {
    topics
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(move |p| (topic, p)))
        .map(|(topic, partition)| want(state, topic, partition))
        .collect()
}

fn want(state: &State, topic: &FetchTopic, partition: &FetchPartition) -> Wanted {
    let name = match topic.topic_id {
        id if id.is_nil() => Some(topic.topic.to_string()),
        id => state.topic_name(id).map(str::to_owned),
    };
    Wanted {
        asked_name: topic.topic.to_string(),
        id: topic.topic_id,
        name,
        partition: partition.partition,
        offset: partition.fetch_offset,
        max_bytes: usize::try_from(partition.partition_max_bytes).unwrap_or(0),
        current_leader_epoch: partition.current_leader_epoch,
        last_fetched_epoch: partition.last_fetched_epoch,
    }
}

impl Session {
    /// `FetchSession.update`.
    fn change(&mut self, changes: Vec<Wanted>, request: &FetchRequest) {
        for change in changes {
            let about = (change.asked_name.as_str(), change.id, change.partition);
            match self.partitions.iter_mut().find(|(w, _)| w.is_about(about)) {
                Some((wanted, _)) => *wanted = change,
                None => self.partitions.push((change, None)),
            }
        }
        for topic in &request.forgotten_topics_data {
            for &partition in &topic.partitions {
                let about = (topic.topic.as_str(), topic.topic_id, partition);
                self.partitions
                    .retain(|(wanted, _)| !wanted.is_about(about));
            }
        }
    }

    /// Where a partition is. It is nearly always where it was when the fetch began: sessions of thousands would be
    /// gone through for each of their partitions.
    fn position(&self, wanted: &Wanted, guess: usize) -> Option<usize> {
        let about = (wanted.asked_name.as_str(), wanted.id, wanted.partition);
        let is_there = |at: &usize| {
            let there = self.partitions.get(*at);
            there.is_some_and(|(wanted, _)| wanted.is_about(about))
        };
        let anywhere = || self.partitions.iter().position(|(w, _)| w.is_about(about));
        Some(guess).filter(is_there).or_else(anywhere)
    }

    /// Whether a partition's answer is news (`CachedPartition.maybeUpdateResponseData`). Notes what is told.
    fn is_news(&mut self, at: usize, answer: &PartitionData) -> bool {
        let (_, told) = &mut self.partitions[at];
        let now = Told {
            high_watermark: answer.high_watermark,
            log_start: answer.log_start_offset,
        };
        let news = answer.records.as_ref().is_some_and(|r| !r.is_empty())
            || *told != Some(now)
            || answer.error_code != 0
            || answer.diverging_epoch.epoch >= 0
            // `FetchResponse.isPreferredReplica`.
            || super::names_another(answer);
        // After an error everything is news again.
        *told = (answer.error_code == 0).then_some(now);
        news
    }
}

impl Context {
    /// What of the answers the client is told.
    pub(super) fn to_tell(
        &self,
        state: &mut State,
        broker: i32,
        answers: Vec<PartitionData>,
    ) -> Vec<(&Wanted, PartitionData)> {
        let mut told = Vec::new();
        let mut session = state.fetch_sessions.get_mut(&(broker, self.session_id));
        for (nth, (wanted, answer)) in self.wanted.iter().zip(answers).enumerate() {
            let news = match &mut session {
                None => true,
                Some(session) => session
                    .position(wanted, nth)
                    .is_none_or(|at| session.is_news(at, &answer)),
            };
            if news || !self.incremental {
                told.push((wanted, answer));
            }
        }
        if self.incremental
            && let Some(session) = session
        {
            session.move_back(&told);
        }
        told
    }
}

impl Session {
    /// Partitions that gave something wait until others had their turn.
    fn move_back(&mut self, told: &[(&Wanted, PartitionData)]) {
        for (wanted, answer) in told {
            if answer.records.as_ref().is_none_or(|r| r.is_empty()) {
                continue;
            }
            let about = (wanted.asked_name.as_str(), wanted.id, wanted.partition);
            if let Some(at) = self.partitions.iter().position(|(w, _)| w.is_about(about)) {
                let moved = self.partitions.remove(at);
                self.partitions.push(moved);
            }
        }
    }
}
