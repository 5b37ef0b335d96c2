//! Produce (`KafkaApis.handleProduceRequest`, `ReplicaManager.appendRecords`, `DelayedProduce`).

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse,
    TopicProduceResponse,
};
use kafka_protocol::messages::{BrokerId, ProduceRequest, ProduceResponse};

use super::{Asked, Body, Reply, Served, Subject, text};
use crate::acls::{Operation, ResourceType};
use crate::batch::{self, Header};
use crate::codec::Codec;
use crate::hooks::{self, Unverified};
use crate::log::{Appended, Rejected};
use crate::state::State;

/// `AdminUtils.ADMIN_CLIENT_ID`.
const MAY_WRITE_INTERNAL_TOPICS: &str = "__admin_client";

impl Served for ProduceRequest {
    fn about(&self, state: &State) -> Vec<Subject> {
        let mut about = Vec::new();
        for topic in &self.topic_data {
            let Some(name) = name_of(state, topic) else {
                continue;
            };
            let partitions = topic.partition_data.iter();
            about.extend(partitions.map(|p| Subject::Partition(name.clone(), p.index)));
        }
        about
    }
}

fn name_of(state: &State, topic: &TopicProduceData) -> Option<String> {
    if topic.topic_id.is_nil() {
        Some(topic.name.to_string())
    } else {
        state.topic_name(topic.topic_id).map(str::to_owned)
    }
}

pub(crate) fn handle(state: &mut State, asked: &Asked<'_>, request: ProduceRequest) -> Reply {
    let acks = request.acks;
    if let Some(error) = refused_whole(state, asked, &request) {
        return answer(asked, &request, |_| failed(error));
    }
    let mut topics = Vec::new();
    for topic in &request.topic_data {
        topics.push(append_topic(state, asked, &request, topic));
    }
    let mut pending = Pending {
        broker: asked.broker,
        version: asked.api_version,
        topics,
        throttle_ms: throttle(state, asked, &request),
    };
    match acks {
        // An error can only be told by closing the connection.
        0 if pending.has_error() => Reply::Close,
        0 => Reply::Nothing,
        1 => Reply::Send(pending.body(state)),
        _ => Reply::Wait {
            until_ms: state.now_ms + i64::from(request.timeout_ms.max(0)),
            ready: Box::new(move |state, timed_out| pending.ready(state, timed_out)),
        },
    }
}

/// Mutes the connection for as long as a quota says, also where nothing is answered (`requestHelper.throttle`).
fn throttle(state: &mut State, asked: &Asked<'_>, request: &ProduceRequest) -> i32 {
    const HEAD_BYTES: usize = 64;
    let partitions = request
        .topic_data
        .iter()
        .flat_map(|topic| &topic.partition_data);
    let bytes: usize = partitions
        .filter_map(|partition| Some(partition.records.as_ref()?.len()))
        .sum();
    let who = (asked.broker, asked.client_id);
    let bytes = HEAD_BYTES + bytes;
    let time_ms = state.rates.record(&state.quotas, who, bytes, state.now_ms);
    if time_ms > 0 {
        state.muted.insert(asked.connection, state.now_ms + time_ms);
    }
    i32::try_from(time_ms).unwrap_or(i32::MAX)
}

fn refused_whole(
    state: &State,
    asked: &Asked<'_>,
    request: &ProduceRequest,
) -> Option<ResponseError> {
    if !matches!(request.acks, -1..=1) {
        return Some(ResponseError::InvalidRequiredAcks);
    }
    let mut writers = request
        .topic_data
        .iter()
        .flat_map(|topic| &topic.partition_data)
        .filter_map(|partition| Header::read(partition.records.as_deref()?))
        .filter(Header::is_transactional)
        .map(|header| (header.producer_id, header.producer_epoch));
    let first = writers.next()?;
    let id = request.transactional_id.as_deref();
    let kind = ResourceType::TransactionalId;
    if !id.is_some_and(|id| state.allows(asked, Operation::Write, kind, id)) {
        return Some(ResponseError::TransactionalIdAuthorizationFailed);
    }
    // `ReplicaManager.handleProduceAppend`.
    writers
        .any(|other| other != first)
        .then_some(ResponseError::InvalidProducerIdMapping)
}

fn answer(
    asked: &Asked<'_>,
    request: &ProduceRequest,
    each: impl Fn(i32) -> PartitionProduceResponse,
) -> Reply {
    let topics = request.topic_data.iter().map(|topic| {
        let partitions = topic.partition_data.iter();
        TopicProduceResponse::default()
            .with_name(topic.name.clone())
            .with_topic_id(topic.topic_id)
            .with_partition_responses(
                partitions
                    .map(|p| each(p.index).with_index(p.index))
                    .collect(),
            )
    });
    let answer = ProduceResponse::default().with_responses(topics.collect());
    match request.acks {
        0 => Reply::Close,
        _ => asked.send(&answer),
    }
}

fn failed(error: ResponseError) -> PartitionProduceResponse {
    PartitionProduceResponse::default()
        .with_error_code(error.code())
        .with_base_offset(-1)
        .with_log_append_time_ms(-1)
        .with_log_start_offset(-1)
}

/// The answer as far as it is known, and what it still waits for.
struct Pending {
    broker: i32,
    version: i16,
    topics: Vec<TopicSlots>,
    throttle_ms: i32,
}

struct TopicSlots {
    head: TopicProduceResponse,
    name: String,
    slots: Vec<Slot>,
}

struct Slot {
    answer: PartitionProduceResponse,
    /// The high watermark that it waits for, in the topic with this id.
    required: Option<i64>,
}

fn append_topic(
    state: &mut State,
    asked: &Asked<'_>,
    request: &ProduceRequest,
    topic: &TopicProduceData,
) -> TopicSlots {
    let name = name_of(state, topic);
    let mut slots = Vec::new();
    for partition in &topic.partition_data {
        let outcome = match &name {
            None => Err(rejected(
                ResponseError::UnknownTopicId,
                "no topic has this id",
            )),
            Some(name) => append(state, asked, request, name, partition),
        };
        slots.push(slot(
            state,
            asked,
            name.as_deref(),
            partition.index,
            outcome,
        ));
    }
    TopicSlots {
        head: TopicProduceResponse::default()
            .with_name(topic.name.clone())
            .with_topic_id(topic.topic_id),
        name: name.unwrap_or_default(),
        slots,
    }
}

fn slot(
    state: &State,
    asked: &Asked<'_>,
    topic: Option<&str>,
    partition: i32,
    outcome: Result<Appended, Rejected>,
) -> Slot {
    let log_start = topic
        .and_then(|topic| state.partition(topic, partition))
        .and_then(|partition| partition.logs.get(&asked.broker))
        .map_or(-1, |log| log.start_offset());
    match outcome {
        Ok(appended) => Slot {
            answer: PartitionProduceResponse::default()
                .with_index(partition)
                .with_base_offset(appended.first_offset)
                .with_log_append_time_ms(appended.log_append_time)
                .with_log_start_offset(log_start),
            required: Some(appended.last_offset + 1),
        },
        Err(rejected) => Slot {
            answer: refusal(&rejected, log_start).with_index(partition),
            required: None,
        },
    }
}

fn refusal(rejected: &Rejected, log_start: i64) -> PartitionProduceResponse {
    let records = rejected.records.iter().map(|(index, message)| {
        BatchIndexAndErrorMessage::default()
            .with_batch_index(*index)
            .with_batch_index_error_message(Some(text(message)))
    });
    let answer = failed(rejected.error)
        .with_record_errors(records.collect())
        .with_error_message(Some(text(&rejected.message)));
    // `ReplicaManager.appendToLocalLog`: these say nothing of the log.
    match rejected.error {
        ResponseError::UnknownTopicOrPartition
        | ResponseError::UnknownTopicId
        | ResponseError::NotLeaderOrFollower
        | ResponseError::MessageTooLarge
        | ResponseError::CorruptMessage => answer,
        _ => answer.with_log_start_offset(log_start),
    }
}

fn rejected(error: ResponseError, message: &str) -> Rejected {
    Rejected {
        error,
        message: message.to_owned(),
        records: Vec::new(),
    }
}

/// One partition: every check in the broker's order, then the append.
fn append(
    state: &mut State,
    asked: &Asked<'_>,
    request: &ProduceRequest,
    topic: &str,
    data: &PartitionProduceData,
) -> Result<Appended, Rejected> {
    let partition = data.index;
    if let Some(error) = asked.refused(topic, partition) {
        return Err(rejected(error, "refused by a fault"));
    }
    state
        .check_topic(asked, Operation::Write, topic)
        .map_err(|error| rejected(error, "Topic authorization failed."))?;
    // `KafkaApis` looks into its metadata first, whoever leads.
    let known = state
        .partition(topic, partition)
        .ok_or_else(|| rejected(ResponseError::UnknownTopicOrPartition, "no such partition"))?;
    let replicas = known.replicas.len();
    let (batch, header) = only_batch(data.records.as_ref(), asked.api_version)?;
    let internal = state.topics.get(topic).is_some_and(|topic| topic.internal);
    if internal && asked.client_id != MAY_WRITE_INTERNAL_TOPICS {
        return Err(rejected(
            ResponseError::InvalidTopicException,
            &format!("Cannot append to internal topic {topic}"),
        ));
    }
    let transactions_v2 = verify(state, asked, request, topic, partition, &header)?;
    let led = state
        .led(asked.broker, topic, partition, -1)
        .map_err(|error| rejected(error, "this broker doesn't lead the partition"))?;
    if request.acks == -1 && led.in_sync.len() < state.min_in_sync(topic, asked.broker, replicas) {
        return Err(rejected(
            ResponseError::NotEnoughReplicas,
            "the in-sync set is too small",
        ));
    }
    let rules = state.append_rules(topic, asked.broker);
    let now_ms = state.clock_ms(asked.broker);
    let found = state
        .partition_mut(topic, partition)
        .expect("looked up before");
    let epoch = found.leader_epoch;
    let log = found.leader_log_mut().expect("led by this broker");
    let appended = log.append(&batch, &rules, epoch, now_ms, transactions_v2)?;
    state.replicate(topic, partition);
    Ok(appended)
}

fn verify(
    state: &mut State,
    asked: &Asked<'_>,
    request: &ProduceRequest,
    topic: &str,
    partition: i32,
    header: &Header,
) -> Result<bool, Rejected> {
    let (id, epoch) = (header.producer_id, header.producer_epoch);
    let open = state
        .partition(topic, partition)
        .and_then(|partition| partition.leader_log())
        .is_some_and(|log| log.has_open_transaction(id, epoch));
    if !header.is_transactional() || open {
        return Ok(false);
    }
    let unverified = Unverified {
        transactional_id: request
            .transactional_id
            .as_deref()
            .map_or("", |id| id.as_str()),
        producer_id: id,
        producer_epoch: epoch,
        topic,
        partition,
    };
    hooks::verify(state, asked, &unverified)
        .map_err(|error| rejected(error, "the transaction's coordinator doesn't know of it"))
}

/// `ProduceRequest.validateRecords`: exactly one batch, of version 2.
fn only_batch(records: Option<&Bytes>, version: i16) -> Result<(Bytes, Header), Rejected> {
    let invalid = |why: &str| Err(rejected(ResponseError::InvalidRecord, why));
    let Some(records) = records else {
        return invalid("Produce requests must have at least one record batch per partition");
    };
    if records.len() > 16 && records[16] != 2 {
        return invalid(
            "Produce requests are only allowed to contain batches with magic version 2",
        );
    }
    let batches = batch::split(records);
    let Some(first) = batches.first() else {
        return invalid("Produce requests must have at least one record batch per partition");
    };
    let header = Header::read(first).expect("a whole batch");
    if batches.len() > 1 {
        return invalid(
            "Produce requests are only allowed to contain one record batch per partition",
        );
    }
    if version < 7 && header.codec() == Codec::Zstd.number() {
        return Err(rejected(
            ResponseError::UnsupportedCompressionType,
            "Produce requests before version 7 can't have zstd",
        ));
    }
    Ok((first.clone(), header))
}

impl Pending {
    fn has_error(&self) -> bool {
        let mut slots = self.topics.iter().flat_map(|topic| &topic.slots);
        slots.any(|slot| slot.answer.error_code != 0)
    }

    fn ready(&mut self, state: &mut State, timed_out: bool) -> Option<Body> {
        for topic in &mut self.topics {
            for slot in &mut topic.slots {
                slot.look(state, self.broker, &topic.name);
                if timed_out && slot.required.take().is_some() {
                    slot.answer.error_code = ResponseError::RequestTimedOut.code();
                }
            }
        }
        let mut slots = self.topics.iter().flat_map(|topic| &topic.slots);
        slots
            .all(|slot| slot.required.is_none())
            .then(|| self.body(state))
    }

    fn body(&mut self, state: &State) -> Body {
        let mut leaders = Vec::new();
        let mut topics = Vec::new();
        for topic in &mut self.topics {
            let mut answers = Vec::new();
            for slot in topic.slots.drain(..) {
                answers.push(with_leader(state, &topic.name, slot.answer, &mut leaders));
            }
            topics.push(topic.head.clone().with_partition_responses(answers));
        }
        let answer = ProduceResponse::default()
            .with_responses(topics)
            .with_throttle_time_ms(self.throttle_ms)
            .with_node_endpoints(endpoints(state, leaders));
        Body::of(&answer, self.version)
    }
}

impl Slot {
    /// `Partition.checkEnoughReplicasReachOffset`.
    fn look(&mut self, state: &State, broker: i32, topic: &str) {
        let Some(required) = self.required else {
            return;
        };
        let error = match state.led(broker, topic, self.answer.index, -1) {
            Err(error) => Some(error),
            Ok(led) => {
                let log = led.leader_log().expect("led by this broker");
                if log.high_watermark() < required {
                    return;
                }
                let min = state.min_in_sync(topic, broker, led.replicas.len());
                (led.in_sync.len() < min).then_some(ResponseError::NotEnoughReplicasAfterAppend)
            }
        };
        self.required = None;
        self.answer.error_code = error.map_or(0, |error| error.code());
    }
}

/// KIP-951: whoever asked the wrong broker is told the right one.
fn with_leader(
    state: &State,
    topic: &str,
    answer: PartitionProduceResponse,
    leaders: &mut Vec<i32>,
) -> PartitionProduceResponse {
    if answer.error_code != ResponseError::NotLeaderOrFollower.code() {
        return answer;
    }
    let Some(partition) = state.partition(topic, answer.index) else {
        return answer;
    };
    let leader = partition.leader.unwrap_or(-1);
    leaders.push(leader);
    answer.with_current_leader(
        LeaderIdAndEpoch::default()
            .with_leader_id(BrokerId(leader))
            .with_leader_epoch(partition.leader_epoch),
    )
}

fn endpoints(state: &State, mut leaders: Vec<i32>) -> Vec<NodeEndpoint> {
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
