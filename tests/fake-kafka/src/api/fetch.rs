//! Fetch (`KafkaApis.handleFetchRequest`, `ReplicaManager.fetchMessages`, `DelayedFetch`, KIP-74, KIP-227).

mod session;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::fetch_response::{
    AbortedTransaction, EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint,
    PartitionData,
};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, ProducerId};
use uuid::Uuid;

use super::{Asked, Body, Reply, Served, Subject, text};
use crate::acls::Operation;
use crate::log::Log;
use crate::partition::Partition;
use crate::state::State;

pub(crate) use session::Session;
use session::{Context, Wanted};

/// `fetch.max.bytes`.
const MAX_FETCH_BYTES: usize = 57_671_680;
/// From this version on a follower may answer (KIP-392).
const FOLLOWERS_ANSWER_FROM: i16 = 11;
/// From this version on the right leader is told (KIP-951).
const LEADERS_TOLD_FROM: i16 = 16;
/// Names a class by which leaders send readers to other replicas.
const REPLICA_SELECTOR: &str = "replica.selector.class";
/// The class that does so by racks.
const RACK_AWARE: &str = "RackAwareReplicaSelector";
/// From this version on topics are named by id.
const TOPIC_IDS_FROM: i16 = 13;

impl Served for FetchRequest {
    fn about(&self, state: &State) -> Vec<Subject> {
        let mut about = Vec::new();
        for topic in &self.topics {
            let name = match topic.topic_id {
                id if id.is_nil() => Some(topic.topic.to_string()),
                id => state.topic_name(id).map(str::to_owned),
            };
            let partitions = topic.partitions.iter().map(|p| p.partition);
            about.extend(name.into_iter().flat_map(|name| {
                partitions
                    .clone()
                    .map(move |p| Subject::Partition(name.clone(), p))
            }));
        }
        // What a session fetches without being told again counts, too.
        about.extend(session::partitions(state, self.session_id));
        about
    }
}

pub(crate) fn handle(state: &mut State, asked: &Asked<'_>, request: FetchRequest) -> Reply {
    let context = match session::context(state, asked, &request) {
        Ok(context) => context,
        Err(error) => {
            return asked.send(&FetchResponse::default().with_error_code(error.code()));
        }
    };
    let refused = context
        .wanted
        .iter()
        .map(|wanted| {
            let name = wanted.name.as_deref()?;
            let denied = || state.check_topic(asked, Operation::Read, name).err();
            asked.refused(name, wanted.partition).or_else(denied)
        })
        .collect();
    if context.wanted.is_empty() {
        // Nothing was asked for, so no fault can have been for a partition of it.
        asked.refusal_used.set(true);
    }
    let until_ms = state.now_ms + i64::from(request.max_wait_ms.max(0));
    let remote = first_remote(state, &context.wanted);
    if let Some((_, due_ms)) = remote {
        state.at(due_ms, State::changed);
    }
    let mut fetch = Fetch {
        broker: asked.broker,
        version: asked.api_version,
        min_bytes: usize::try_from(request.min_bytes).unwrap_or(0),
        max_bytes: usize::try_from(request.max_bytes)
            .unwrap_or(0)
            .min(MAX_FETCH_BYTES),
        committed_only: request.isolation_level == 1,
        rack: request.rack_id.to_string(),
        refused,
        context,
        remote,
    };
    Reply::Wait {
        until_ms,
        ready: Box::new(move |state, timed_out| fetch.ready(state, timed_out)),
    }
}

fn is_remote(state: &State, wanted: &Wanted) -> bool {
    let name = wanted.name.as_ref();
    let partition = name.and_then(|name| state.partition(name, wanted.partition));
    let remote = partition.and_then(|partition| partition.remote);
    remote.is_some_and(|remote| wanted.offset < remote.below)
}

/// The partition that is read from remote storage, and when that has answered.
fn first_remote(state: &State, wanted: &[Wanted]) -> Option<(usize, i64)> {
    let nth = wanted.iter().position(|wanted| is_remote(state, wanted))?;
    let name = wanted[nth].name.as_ref()?;
    let remote = state.partition(name, wanted[nth].partition)?.remote?;
    Some((nth, state.now_ms + remote.delay_ms))
}

/// A fetch on its way.
struct Fetch {
    broker: i32,
    version: i16,
    min_bytes: usize,
    max_bytes: usize,
    committed_only: bool,
    rack: String,
    refused: Vec<Option<ResponseError>>,
    context: Context,
    /// Which partition is read from remote storage, and when that has answered.
    remote: Option<(usize, i64)>,
}

impl Fetch {
    /// `ReplicaManager.fetchMessages` answers at once with enough bytes, on any error, and when nothing was asked for.
    fn ready(&mut self, state: &mut State, timed_out: bool) -> Option<Body> {
        // All of the answer waits for the storage, and not longer than the fetch (`DelayedRemoteFetch`).
        if !timed_out && self.remote.is_some_and(|(_, due_ms)| state.now_ms < due_ms) {
            return None;
        }
        let answers = self.read(state);
        let bytes: usize = answers
            .iter()
            .filter_map(|a| Some(a.records.as_ref()?.len()))
            .sum();
        let at_once = answers.is_empty()
            || bytes >= self.min_bytes
            || answers
                .iter()
                .any(|a| a.error_code != 0 || a.diverging_epoch.epoch >= 0 || names_another(a));
        (timed_out || at_once).then(|| self.body(state, answers))
    }

    fn read(&self, state: &State) -> Vec<PartitionData> {
        let mut room = self.max_bytes;
        let mut nothing_yet = true;
        let mut answers = Vec::new();
        for (nth, (wanted, refused)) in self.context.wanted.iter().zip(&self.refused).enumerate() {
            // One is read for each fetch, and only where the storage has answered.
            let has_come = self
                .remote
                .is_some_and(|(of, due_ms)| of == nth && state.now_ms >= due_ms);
            let is_away = is_remote(state, wanted) && !has_come;
            let room_here = if is_away { 0 } else { room };
            let read = match refused {
                Some(error) => Err(*error),
                None => self.read_one(state, wanted, room_here, nothing_yet && !is_away),
            };
            let answer = match read {
                Ok(answer) => answer,
                Err(error) => self.failed(state, wanted, error),
            };
            let size = answer.records.as_ref().map_or(0, Bytes::len);
            nothing_yet &= size == 0;
            room = room.saturating_sub(size);
            answers.push(answer.with_partition_index(wanted.partition));
        }
        answers
    }

    fn read_one(
        &self,
        state: &State,
        wanted: &Wanted,
        room: usize,
        at_least_one: bool,
    ) -> Result<PartitionData, ResponseError> {
        let name = wanted.name.as_ref().ok_or(ResponseError::UnknownTopicId)?;
        let partition = if self.version >= FOLLOWERS_ANSWER_FROM {
            let hosted = state.hosted(self.broker, name, wanted.partition)?;
            hosted.check_epoch(wanted.current_leader_epoch)?;
            hosted
        } else {
            state.led(
                self.broker,
                name,
                wanted.partition,
                wanted.current_leader_epoch,
            )?
        };
        // A replica whose leader is gone serves nobody (`Partition.localLogWithEpochOrThrow`).
        if partition.leader.is_none() {
            return Err(ResponseError::NotLeaderOrFollower);
        }
        let log = &partition.logs[&self.broker];
        let closer = self.closer_replica(state, partition, wanted);
        let answer = PartitionData::default()
            .with_high_watermark(log.high_watermark())
            .with_last_stable_offset(log.last_stable_offset())
            .with_log_start_offset(log.start_offset())
            .with_aborted_transactions(self.committed_only.then(Vec::new))
            .with_records(Some(Bytes::new()));
        if let Some(closer) = closer {
            return Ok(answer.with_preferred_read_replica(BrokerId(closer)));
        }
        if let Some(diverging) = diverging(log, wanted)? {
            return Ok(answer.with_diverging_epoch(diverging));
        }
        if wanted.offset < log.start_offset() || wanted.offset > log.end_offset() {
            return Err(ResponseError::OffsetOutOfRange);
        }
        let max_bytes = wanted.max_bytes.min(room);
        let below = if self.committed_only {
            log.last_stable_offset()
        } else {
            log.high_watermark()
        };
        let read = log.read(wanted.offset, below, max_bytes, at_least_one);
        let aborted = self
            .committed_only
            .then(|| aborted(log, wanted.offset, read.next_offset));
        Ok(answer
            .with_records(Some(read.bytes))
            .with_aborted_transactions(aborted))
    }

    /// The replica in the reader's rack, where the leader isn't there: one that is in sync and has what is asked for
    /// (`ReplicaManager.findPreferredReadReplica`, `RackAwareReplicaSelector`).
    fn closer_replica(&self, state: &State, partition: &Partition, wanted: &Wanted) -> Option<i32> {
        let selector = state.options.broker_configs.get(REPLICA_SELECTOR)?;
        let is_asked = self.version >= FOLLOWERS_ANSWER_FROM && !self.rack.is_empty();
        if !is_asked || !selector.ends_with(RACK_AWARE) || partition.leader != Some(self.broker) {
            return None;
        }
        let is_near = |id: i32| {
            let rack = state.brokers.get(&id).and_then(|it| it.rack.as_ref());
            rack == Some(&self.rack) && state.is_alive(id)
        };
        if is_near(self.broker) {
            return None;
        }
        let in_sync = partition.in_sync.iter().copied();
        let has_it = |id: &i32| {
            partition
                .logs
                .get(id)
                .is_some_and(|log| (log.start_offset()..=log.end_offset()).contains(&wanted.offset))
        };
        in_sync
            .filter(|id| is_near(*id) && has_it(id))
            .max_by_key(|id| partition.logs[id].end_offset())
    }

    /// What goes with an error: no offset is known.
    fn failed(&self, state: &State, wanted: &Wanted, error: ResponseError) -> PartitionData {
        let answer = PartitionData::default()
            .with_error_code(error.code())
            .with_high_watermark(-1)
            .with_last_stable_offset(-1)
            .with_log_start_offset(-1)
            .with_aborted_transactions(self.committed_only.then(Vec::new))
            .with_records(Some(Bytes::new()));
        let moved = matches!(
            error,
            ResponseError::NotLeaderOrFollower | ResponseError::FencedLeaderEpoch
        );
        let partition = wanted
            .name
            .as_ref()
            .and_then(|name| state.partition(name, wanted.partition));
        match partition {
            Some(partition) if moved && self.version >= LEADERS_TOLD_FROM => answer
                .with_current_leader(
                    LeaderIdAndEpoch::default()
                        .with_leader_id(BrokerId(partition.leader.unwrap_or(-1)))
                        .with_leader_epoch(partition.leader_epoch),
                ),
            _ => answer,
        }
    }

    fn body(&self, state: &mut State, answers: Vec<PartitionData>) -> Body {
        let told = self.context.to_tell(state, self.broker, answers);
        let endpoints = endpoints(state, told.iter().map(|(_, answer)| answer));
        let mut topics: Vec<FetchableTopicResponse> = Vec::new();
        for (wanted, answer) in told {
            let same = |t: &&mut FetchableTopicResponse| {
                t.topic_id == wanted.id && t.topic.as_str() == wanted.asked_name
            };
            match topics.last_mut().filter(|t| same(t)) {
                Some(topic) => topic.partitions.push(answer),
                None => topics.push(new_topic(wanted, answer, self.version)),
            }
        }
        let answer = FetchResponse::default()
            .with_session_id(self.context.session_id)
            .with_responses(topics)
            .with_node_endpoints(endpoints);
        Body::of(&answer, self.version)
    }
}

fn new_topic(wanted: &Wanted, answer: PartitionData, version: i16) -> FetchableTopicResponse {
    let topic = FetchableTopicResponse::default().with_partitions(vec![answer]);
    if version >= TOPIC_IDS_FROM {
        topic.with_topic_id(wanted.id)
    } else {
        topic
            .with_topic(text(&wanted.asked_name).into())
            .with_topic_id(Uuid::nil())
    }
}

/// Whether the leader sends the reader to another replica.
fn names_another(answer: &PartitionData) -> bool {
    answer.preferred_read_replica.0 >= 0
}

/// Where the reader's log and this one part, if they do (KIP-595, `Partition.readRecords`).
fn diverging(log: &Log, wanted: &Wanted) -> Result<Option<EpochEndOffset>, ResponseError> {
    if wanted.last_fetched_epoch < 0 {
        return Ok(None);
    }
    let (epoch, end_offset) = log
        .end_of_epoch(wanted.last_fetched_epoch)
        .ok_or(ResponseError::OffsetOutOfRange)?;
    let parted = epoch < wanted.last_fetched_epoch || end_offset < wanted.offset;
    Ok(parted.then(|| {
        EpochEndOffset::default()
            .with_epoch(epoch)
            .with_end_offset(end_offset)
    }))
}

fn aborted(log: &Log, from: i64, below: i64) -> Vec<AbortedTransaction> {
    log.aborted(from, below)
        .into_iter()
        .map(|aborted| {
            AbortedTransaction::default()
                .with_producer_id(ProducerId(aborted.producer_id))
                .with_first_offset(aborted.first_offset)
        })
        .collect()
}

fn endpoints<'a>(
    state: &State,
    answers: impl Iterator<Item = &'a PartitionData>,
) -> Vec<NodeEndpoint> {
    let mut leaders: Vec<i32> = answers.map(|a| a.current_leader.leader_id.0).collect();
    leaders.sort_unstable();
    leaders.dedup();
    leaders
        .into_iter()
        .filter_map(|id| {
            let broker = state.brokers.get(&id)?;
            Some(
                NodeEndpoint::default()
                    .with_node_id(BrokerId(id))
                    .with_host(text(&broker.host))
                    .with_port(i32::from(broker.port))
                    .with_rack(broker.rack.as_ref().map(text)),
            )
        })
        .collect()
}
