//! Simulated applications: producers that note what was acknowledged, consumers that commit.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fake_kafka::batch::{Header, Record, add_to_sequence, produced};
use fake_kafka::kafka_protocol::error::ResponseError;
use fake_kafka::kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use fake_kafka::kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use fake_kafka::kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use fake_kafka::kafka_protocol::messages::produce_request::{
    PartitionProduceData, TopicProduceData,
};
use fake_kafka::kafka_protocol::messages::{
    AddPartitionsToTxnRequest, EndTxnRequest, FindCoordinatorRequest, GroupId,
    InitProducerIdRequest, JoinGroupRequest, LeaveGroupRequest, OffsetCommitRequest,
    ProduceRequest, ProducerId, SyncGroupRequest, TopicName, TransactionalId,
};
use fake_kafka::kafka_protocol::protocol::StrBytes;
use fake_kafka::world::{Brokers, Client, Ctx, Failure, clock};
use tokio::time::{Instant, sleep};

use super::logs;
use super::model::{Acked, Place, Side};
use super::plan::{Dice, Sort};
use super::scene::TRANSACTIONAL;

const PRODUCE_VERSION: i16 = 9;
const INIT_VERSION: i16 = 4;
const COORDINATOR_VERSION: i16 = 3;
const ADD_VERSION: i16 = 3;
const END_VERSION: i16 = 3;
const COMMIT_VERSION: i16 = 8;
/// Before members had to ask for their id first.
const JOIN_VERSION: i16 = 3;
const SYNC_VERSION: i16 = 2;
const LEAVE_VERSION: i16 = 2;
const TRANSACTIONS: i8 = 1;
const GROUPS: i8 = 0;
const BETWEEN_TRIES: Duration = Duration::from_millis(100);
const A_WEEK_MS: i64 = 7 * 24 * 3_600_000;

/// What was acknowledged so far.
pub type Notes = Arc<Mutex<Vec<Acked>>>;

pub fn lock(notes: &Notes) -> MutexGuard<'_, Vec<Acked>> {
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a client works at.
#[derive(Clone)]
pub struct Job {
    pub brokers: Brokers,
    pub side: Side,
    pub topic: String,
    pub partitions: i32,
    pub sort: Sort,
    pub per_second: i64,
    pub records_per_batch: i64,
    /// It begins nothing new after this.
    pub work: Duration,
    /// It tries nothing again after this.
    pub patience: Duration,
    pub seed: u64,
    pub notes: Notes,
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// The broker that coordinates a group or a transactional id.
async fn coordinator(client: &mut Client, key: &str, kind: i8) -> Result<i32, Failure> {
    let request = FindCoordinatorRequest::default()
        .with_key(text(key))
        .with_key_type(kind);
    let answer = client.call(-1, &request, COORDINATOR_VERSION).await?;
    Failure::check(answer.error_code)?;
    Ok(answer.node_id.0)
}

/// An idempotent or transactional producer.
struct Producer {
    client: Client,
    job: Job,
    dice: Dice,
    began: Instant,
    named: u64,
    id: Option<(i64, i16)>,
    sequences: BTreeMap<i32, i32>,
}

/// Writes to a topic, with `acks=all`, until its work is done.
pub async fn produce(ctx: Ctx, job: Job) {
    let client = Client::new(&ctx, &job.brokers).patience(Duration::from_secs(3));
    let mut producer = Producer::new(client, job);
    let pause = Duration::from_micros(1_000_000 / producer.job.per_second.unsigned_abs().max(1));
    while producer.began.elapsed() < producer.job.work {
        let transactional = producer.job.sort == Sort::Transactional;
        if !transactional || !producer.write_transaction().await {
            producer.write_one().await;
        }
        sleep(pause).await;
    }
}

impl Producer {
    fn new(client: Client, job: Job) -> Self {
        Self {
            client,
            dice: Dice::new(job.seed),
            job,
            began: Instant::now(),
            named: 0,
            id: None,
            sequences: BTreeMap::new(),
        }
    }

    fn gives_up(&self) -> bool {
        self.began.elapsed() > self.job.patience
    }

    /// A batch for a partition, not yet anybody's.
    fn batch(&mut self) -> (i32, Vec<String>, Header, Bytes) {
        let partition = self.dice.between(0, i64::from(self.job.partitions) - 1);
        let partition = i32::try_from(partition).expect("a small number");
        let count = self.dice.between(1, self.job.records_per_batch);
        let mut names = Vec::new();
        let mut records = Vec::new();
        for _ in 0..count {
            self.named += 1;
            let name = format!("{:?}-{}-{}", self.job.side, self.job.topic, self.named);
            let key = match self.job.sort {
                Sort::Compacted => format!("key-{}", self.dice.between(1, 6)),
                _ => format!("key-of-{name}"),
            };
            let bytes = usize::try_from(self.dice.between(0, 300)).expect("not negative");
            let value = logs::value(&name, bytes);
            records.push(Record::new(Some(key.as_bytes()), Some(value.as_bytes())));
            names.push(name);
        }
        let age_ms = match self.job.sort {
            Sort::Old => A_WEEK_MS,
            _ => 0,
        };
        let (header, encoded) = produced(&records, clock::broker_ms(clock::now_us()) - age_ms);
        (partition, names, header, encoded)
    }

    fn note(&self, partition: i32, names: Vec<String>, first: Option<i64>) {
        for (name, at) in names.into_iter().zip(0..) {
            lock(&self.job.notes).push(Acked {
                side: self.job.side,
                place: Place::new(&self.job.topic, partition),
                offset: first.map(|first| first + at),
                name,
                at_ms: clock::now_us() / 1_000,
            });
        }
    }

    /// Writes one batch, and tries the same again until it is known what became of it.
    async fn write_one(&mut self) {
        let (partition, names, mut header, encoded) = self.batch();
        while !self.gives_up() {
            match self.try_one(partition, &mut header, &encoded).await {
                Ok(first) => {
                    let next = add_to_sequence(header.base_sequence, header.count);
                    self.sequences.insert(partition, next);
                    return self.note(partition, names, first);
                }
                Err(Failure::Refused(
                    ResponseError::OutOfOrderSequenceNumber
                    | ResponseError::UnknownProducerId
                    | ResponseError::InvalidProducerEpoch
                    | ResponseError::ProducerFenced
                    | ResponseError::InvalidTxnState,
                )) => break,
                Err(_) => {
                    self.client.forget();
                    sleep(BETWEEN_TRIES).await;
                }
            }
        }
        // It may be there or not.
        self.forget_id();
    }

    fn forget_id(&mut self) {
        self.id = None;
        self.sequences.clear();
    }

    async fn try_one(
        &mut self,
        partition: i32,
        header: &mut Header,
        encoded: &Bytes,
    ) -> Result<Option<i64>, Failure> {
        let (id, epoch) = match self.id {
            Some(id) => id,
            None => {
                let id = self.init(-1, None).await?;
                self.id = Some(id);
                id
            }
        };
        header.producer_id = id;
        header.producer_epoch = epoch;
        header.base_sequence = self.sequences.get(&partition).copied().unwrap_or(0);
        let batch = header.seal(encoded);
        match self.append(partition, batch, None).await {
            Ok(first) => Ok(Some(first)),
            Err(Failure::Refused(ResponseError::DuplicateSequenceNumber)) => Ok(None),
            Err(other) => Err(other),
        }
    }

    async fn init(
        &mut self,
        broker: i32,
        transactional_id: Option<&str>,
    ) -> Result<(i64, i16), Failure> {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(transactional_id.map(|it| TransactionalId(text(it))))
            .with_transaction_timeout_ms(10_000)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        let answer = self.client.call(broker, &request, INIT_VERSION).await?;
        Failure::check(answer.error_code)?;
        Ok((answer.producer_id.0, answer.producer_epoch))
    }

    async fn append(
        &mut self,
        partition: i32,
        batch: Bytes,
        transactional_id: Option<&str>,
    ) -> Result<i64, Failure> {
        let leader = self.client.leader(&self.job.topic, partition).await?;
        let data = PartitionProduceData::default()
            .with_index(partition)
            .with_records(Some(batch));
        let request = ProduceRequest::default()
            .with_acks(-1)
            .with_timeout_ms(3_000)
            .with_transactional_id(transactional_id.map(|it| TransactionalId(text(it))))
            .with_topic_data(vec![
                TopicProduceData::default()
                    .with_name(TopicName(text(&self.job.topic)))
                    .with_partition_data(vec![data]),
            ]);
        let answer = self.client.call(leader, &request, PRODUCE_VERSION).await?;
        let answers = answer.responses.iter();
        let mut partitions = answers.flat_map(|of| &of.partition_responses);
        let appended = partitions.next().expect("one was asked for");
        Failure::check(appended.error_code)?;
        Ok(appended.base_offset)
    }

    /// A transaction of a few batches, sometimes. `false` if it is to be something else this time. What
    /// fails in it is aborted, and nothing is acknowledged before the commit is.
    async fn write_transaction(&mut self) -> bool {
        if !self.dice.percent(60) {
            return false;
        }
        let id = format!("tx-{}", self.job.topic);
        let commits = self.dice.percent(75);
        let count = self.dice.between(1, 3);
        if let Ok(written) = self.try_transaction(&id, count, commits).await {
            for (partition, names, first) in written {
                self.note(partition, names, Some(first));
            }
        } else {
            self.client.forget();
            sleep(BETWEEN_TRIES).await;
        }
        true
    }

    async fn try_transaction(
        &mut self,
        id: &str,
        count: i64,
        commits: bool,
    ) -> Result<Vec<(i32, Vec<String>, i64)>, Failure> {
        // Addresses of brokers come with the leaders.
        self.client.leader(&self.job.topic, 0).await?;
        let broker = coordinator(&mut self.client, id, TRANSACTIONS).await?;
        // What the last one left open is aborted by this.
        let (producer_id, epoch) = self.init(broker, Some(id)).await?;
        let mut sequences: BTreeMap<i32, i32> = BTreeMap::new();
        let mut written = Vec::new();
        for _ in 0..count {
            let (partition, names, mut header, encoded) = self.batch();
            if !sequences.contains_key(&partition) {
                self.add(broker, id, (producer_id, epoch), partition)
                    .await?;
            }
            let sequence = sequences.entry(partition).or_insert(0);
            header.producer_id = producer_id;
            header.producer_epoch = epoch;
            header.base_sequence = *sequence;
            header.attributes |= TRANSACTIONAL;
            *sequence += header.count;
            let first = self
                .append(partition, header.seal(&encoded), Some(id))
                .await?;
            written.push((partition, names, first));
        }
        let request = EndTxnRequest::default()
            .with_transactional_id(TransactionalId(text(id)))
            .with_producer_id(ProducerId(producer_id))
            .with_producer_epoch(epoch)
            .with_committed(commits);
        let answer = self.client.call(broker, &request, END_VERSION).await?;
        Failure::check(answer.error_code)?;
        if !commits {
            written.clear();
        }
        Ok(written)
    }

    async fn add(
        &mut self,
        broker: i32,
        id: &str,
        (producer_id, epoch): (i64, i16),
        partition: i32,
    ) -> Result<(), Failure> {
        let topic = AddPartitionsToTxnTopic::default()
            .with_name(TopicName(text(&self.job.topic)))
            .with_partitions(vec![partition]);
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(TransactionalId(text(id)))
            .with_v3_and_below_producer_id(ProducerId(producer_id))
            .with_v3_and_below_producer_epoch(epoch)
            .with_v3_and_below_topics(vec![topic]);
        loop {
            let answer = self.client.call(broker, &request, ADD_VERSION).await?;
            let answers = answer.results_by_topic_v3_and_below.iter();
            let mut of = answers.flat_map(|it| &it.results_by_partition);
            let code = of.next().expect("one was asked for").partition_error_code;
            match Failure::check(code) {
                // The last transaction's end is still being written.
                Err(Failure::Refused(ResponseError::ConcurrentTransactions))
                    if !self.gives_up() =>
                {
                    sleep(BETWEEN_TRIES).await;
                }
                outcome => return outcome,
            }
        }
    }
}

/// Commits positions of a group in a topic, behind records that were acknowledged, until its work is done.
pub async fn commit(ctx: Ctx, job: Job, group: String) {
    let mut client = Client::new(&ctx, &job.brokers).patience(Duration::from_secs(3));
    let began = Instant::now();
    let mut positions: BTreeMap<i32, i64> = BTreeMap::new();
    while began.elapsed() < job.work {
        sleep(Duration::from_millis(300)).await;
        let mut newest: BTreeMap<i32, i64> = BTreeMap::new();
        for ack in lock(&job.notes).iter() {
            if ack.side == job.side
                && ack.place.topic == job.topic
                && let Some(offset) = ack.offset
            {
                let position = newest.entry(ack.place.partition).or_default();
                *position = (*position).max(offset + 1);
            }
        }
        newest.retain(|partition, position| positions.get(partition) != Some(position));
        if newest.is_empty() {
            continue;
        }
        while began.elapsed() < job.patience {
            if try_commit(&mut client, &job.topic, &group, &newest)
                .await
                .is_ok()
            {
                positions.extend(newest);
                break;
            }
            client.forget();
            sleep(BETWEEN_TRIES).await;
        }
    }
}

/// Commits the positions 1 to `count` of a group in partition 0, one after the other.
pub async fn commit_often(
    ctx: Ctx,
    brokers: Brokers,
    topic: &'static str,
    group: &'static str,
    count: i64,
    pause_ms: u64,
) {
    let mut client = Client::new(&ctx, &brokers);
    for position in 1..=count {
        let positions = BTreeMap::from([(0, position)]);
        while try_commit(&mut client, topic, group, &positions)
            .await
            .is_err()
        {
            client.forget();
            sleep(BETWEEN_TRIES).await;
        }
        sleep(Duration::from_millis(pause_ms)).await;
    }
}

/// The only member of a group: commits the first of two positions in partition 0 of its topic, and when it `leaves` the
/// last one.
pub async fn member(
    ctx: Ctx,
    brokers: Brokers,
    (topic, group): (&'static str, &'static str),
    (first, last): (i64, i64),
    leaves: impl Fn() -> bool,
) {
    let mut client = Client::new(&ctx, &brokers);
    let joined = loop {
        if let Ok(joined) = try_join(&mut client, topic, group).await {
            break joined;
        }
        client.forget();
        sleep(BETWEEN_TRIES).await;
    };
    let (broker, as_member) = joined;
    let position = |at: i64| BTreeMap::from([(0, at)]);
    let commit = commit_request(topic, group, &position(first), &as_member);
    committed(&mut client, broker, &commit)
        .await
        .expect("its first one");
    while !leaves() {
        sleep(Duration::from_millis(1)).await;
    }
    let commit = commit_request(topic, group, &position(last), &as_member);
    committed(&mut client, broker, &commit)
        .await
        .expect("its last one");
    let leave = LeaveGroupRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_member_id(text(&as_member.id));
    let left = client.call(broker, &leave, LEAVE_VERSION).await;
    Failure::check(left.expect("it answers").error_code).expect("it leaves");
}

/// Who commits.
struct AsMember {
    id: String,
    generation: i32,
}

impl AsMember {
    fn nobody() -> Self {
        Self {
            id: String::new(),
            generation: -1,
        }
    }
}

/// The group's coordinator, and who it takes us for.
async fn try_join(
    client: &mut Client,
    topic: &str,
    group: &str,
) -> Result<(i32, AsMember), Failure> {
    client.leader(topic, 0).await?;
    let broker = coordinator(client, group, GROUPS).await?;
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(Bytes::from_static(b"wants"));
    let join = JoinGroupRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_session_timeout_ms(600_000)
        .with_rebalance_timeout_ms(600_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol]);
    let joined = client.call(broker, &join, JOIN_VERSION).await?;
    Failure::check(joined.error_code)?;
    let sync = SyncGroupRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_member_id(joined.member_id.clone())
        .with_generation_id(joined.generation_id);
    let synced = client.call(broker, &sync, SYNC_VERSION).await?;
    Failure::check(synced.error_code)?;
    let as_member = AsMember {
        id: joined.member_id.to_string(),
        generation: joined.generation_id,
    };
    Ok((broker, as_member))
}

async fn try_commit(
    client: &mut Client,
    topic: &str,
    group: &str,
    positions: &BTreeMap<i32, i64>,
) -> Result<(), Failure> {
    client.leader(topic, 0).await?;
    let broker = coordinator(client, group, GROUPS).await?;
    let request = commit_request(topic, group, positions, &AsMember::nobody());
    committed(client, broker, &request).await
}

fn commit_request(
    topic: &str,
    group: &str,
    positions: &BTreeMap<i32, i64>,
    as_member: &AsMember,
) -> OffsetCommitRequest {
    let partitions = positions.iter().map(|(partition, position)| {
        OffsetCommitRequestPartition::default()
            .with_partition_index(*partition)
            .with_committed_offset(*position)
            .with_committed_leader_epoch(-1)
            .with_committed_metadata(Some(text("")))
    });
    let topic = OffsetCommitRequestTopic::default()
        .with_name(TopicName(text(topic)))
        .with_partitions(partitions.collect());
    OffsetCommitRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_generation_id_or_member_epoch(as_member.generation)
        .with_member_id(text(&as_member.id))
        .with_topics(vec![topic])
}

async fn committed(
    client: &mut Client,
    broker: i32,
    request: &OffsetCommitRequest,
) -> Result<(), Failure> {
    let answer = client.call(broker, request, COMMIT_VERSION).await?;
    for topic in &answer.topics {
        for partition in &topic.partitions {
            Failure::check(partition.error_code)?;
        }
    }
    Ok(())
}

/// Begins a transaction of this id in partition 0 of a topic, and never writes a record in it.
pub async fn register(ctx: Ctx, brokers: Brokers, topic: &'static str, id: &'static str) {
    let job = Job {
        brokers,
        side: Side::Primary,
        topic: topic.to_owned(),
        partitions: 1,
        sort: Sort::Transactional,
        per_second: 1,
        records_per_batch: 1,
        work: Duration::ZERO,
        patience: Duration::from_secs(10),
        seed: 1,
        notes: Notes::default(),
    };
    let client = Client::new(&ctx, &job.brokers);
    let mut producer = Producer::new(client, job);
    while producer.try_register(id).await.is_err() {
        producer.client.forget();
        sleep(BETWEEN_TRIES).await;
    }
}

impl Producer {
    async fn try_register(&mut self, id: &str) -> Result<(), Failure> {
        self.client.leader(&self.job.topic, 0).await?;
        let broker = coordinator(&mut self.client, id, TRANSACTIONS).await?;
        let producer = self.init(broker, Some(id)).await?;
        self.add(broker, id, producer, 0).await
    }
}
