//! Producer ids: getting one, and what partitions remember of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::{DescribeProducersRequest, InitProducerIdRequest};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::by_leader::{Answers, Asked, ask_leaders_undecoded};
use super::partition::{TopicPartition, by_topic};
use super::retry::{ask_anyone, worth_asking_again};
use crate::tasks::brought;
use crate::wire::{Cluster, Connection, ErrorContext, RawAnswer, WireError};

/// Just after a broker starts it has no block of producer ids yet and answers retriable errors.
const INIT_BUDGET: Duration = Duration::from_secs(10);

/// A new producer id and its epoch, without a transactional id.
pub async fn init_producer_id(cluster: &Cluster) -> Result<(i64, i16), WireError> {
    ask_anyone(cluster, INIT_BUDGET, |connection| async move {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            // Unused without transactions, but the broker's schema wants a value.
            .with_transaction_timeout_ms(60_000);
        let response = connection.call(request, 4).await?;
        match ResponseError::try_from_code(response.error_code) {
            None => Ok((response.producer_id.0, response.producer_epoch)),
            Some(code) => {
                let context = ErrorContext {
                    broker: Some(connection.broker()),
                    api: Some("InitProducerId"),
                    ..ErrorContext::cluster(cluster.name())
                };
                Err(WireError::server(context, code, None))
            }
        }
    })
    .await
}

/// What a partition's leader remembers of a producer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProducerState {
    /// The producer.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i32,
    /// Sequence of the last record of its last batch; -1 if only markers were written.
    pub last_sequence: i32,
    /// Timestamp of its last batch, ms since 1970; -1 if unknown.
    pub last_timestamp_ms: i64,
    /// Epoch of the last marker's coordinator; -1 if there was none.
    pub coordinator_epoch: i32,
    /// Where its open transaction began; -1 if there is none.
    pub current_txn_start_offset: i64,
}

/// After an answer, the next may be about so many times as many partitions.
const GROWTH: usize = 16;
/// About the size of an answer. A producer has 38 bytes in it, and where each request of a client's has an id of its own a
/// partition has millions.
const ANSWER_BYTES: usize = 4 * 1024 * 1024;
const PRODUCER_BYTES: usize = 38;
/// What may be larger shares so much memory, of all leaders and clusters: a leader that takes long keeps what its own
/// answer may need, and the others go on.
const LARGE_KIB: u32 = 256 * 1024;
static LARGE: Semaphore = Semaphore::const_new(LARGE_KIB as usize);

/// The producers that each partition remembers, as far as they are wanted: no filter of the request tells which. Each leader
/// is asked apart, about as many partitions at a time as the last answers were large. Producers are forgotten some time after
/// their last write (`producer.id.expiration.ms`, a day by default).
pub async fn describe_producers(
    cluster: &Cluster,
    partitions: &[TopicPartition],
    is_wanted: impl Fn(&TopicPartition, &ProducerState) -> bool + Send + Sync + 'static,
) -> HashMap<TopicPartition, Result<Vec<ProducerState>, WireError>> {
    let (known, is_wanted) = (cluster.cached(), Arc::new(is_wanted));
    let mut by_leader: HashMap<Option<i32>, Vec<TopicPartition>> = HashMap::new();
    for at in partitions {
        let leader = known.leader(&at.topic, at.partition).map(|(id, _)| id);
        by_leader.entry(leader).or_default().push(at.clone());
    }
    let mut asking = JoinSet::new();
    for (leader, partitions) in by_leader {
        let (cluster, is_wanted) = (cluster.clone(), is_wanted.clone());
        asking.spawn(async move { in_slices(&cluster, leader, &partitions, &*is_wanted).await });
    }
    let mut all = HashMap::with_capacity(partitions.len());
    while let Some(answered) = asking.join_next().await {
        all.extend(brought(answered));
    }
    all
}

type Told = HashMap<TopicPartition, Result<Vec<ProducerState>, WireError>>;

async fn in_slices(
    cluster: &Cluster,
    leader: Option<i32>,
    partitions: &[TopicPartition],
    is_wanted: &(dyn Fn(&TopicPartition, &ProducerState) -> bool + Send + Sync),
) -> Told {
    let mut all = Told::with_capacity(partitions.len());
    let (mut rest, mut slice) = (partitions, Slice::after(cluster.producers_most(leader)));
    while !rest.is_empty() {
        let (now, later) = rest.split_at(slice.at_once.min(rest.len()));
        let permit = match slice.large_kib(now.len()) {
            Some(kib) => LARGE.acquire_many(kib).await.ok(),
            None => None,
        };
        let most = AtomicUsize::new(0);
        let told = ask(cluster, now, is_wanted, &most).await;
        drop(permit);
        if now.len() > 1 && told.values().any(is_too_large) {
            slice.at_once = 1;
            continue;
        }
        let most = most.into_inner();
        slice.learn(most);
        cluster.note_producers(leader, most);
        rest = later;
        let silent = told.values().find_map(|told| match told {
            Err(error @ WireError::Timeout { .. }) => Some(error.clone()),
            _ => None,
        });
        all.extend(told);
        // A broker that lets a whole time-out pass isn't asked about the others.
        if let Some(error) = silent {
            all.extend(rest.iter().map(|at| (at.clone(), Err(error.clone()))));
            break;
        }
    }
    all
}

/// How many partitions are asked about at once.
struct Slice {
    at_once: usize,
    /// Producers that a partition had at most, so far.
    most: usize,
}

impl Slice {
    /// Where a partition of the leader had so many at most when it was asked before. Where nothing is known it begins with one.
    fn after(most: usize) -> Self {
        let mut slice = Self {
            at_once: 1,
            most: 0,
        };
        if most > 0 {
            slice.learn(most);
        }
        slice
    }

    /// How large an answer may be, where that is much.
    fn large_kib(&self, partitions: usize) -> Option<u32> {
        let bytes = partitions
            .saturating_mul(self.most)
            .saturating_mul(PRODUCER_BYTES);
        let kib = u32::try_from(bytes / 1024).unwrap_or(LARGE_KIB);
        (bytes > ANSWER_BYTES).then(|| kib.min(LARGE_KIB))
    }

    /// Of a partition in the last answer that had so many.
    fn learn(&mut self, most: usize) {
        self.most = self.most.max(most);
        let fits = ANSWER_BYTES / (self.most.max(1) * PRODUCER_BYTES);
        self.at_once = fits.clamp(1, self.at_once * GROWTH);
    }
}

/// An answer beyond what a connection takes ends it.
fn is_too_large(told: &Result<Vec<ProducerState>, WireError>) -> bool {
    matches!(told, Err(WireError::Framing { .. }))
}

async fn ask(
    cluster: &Cluster,
    partitions: &[TopicPartition],
    is_wanted: &(dyn Fn(&TopicPartition, &ProducerState) -> bool + Send + Sync),
    most: &AtomicUsize,
) -> Told {
    let request = |asked: &[Asked<'_>]| {
        let topics = by_topic(asked, |a| a.partition, |a| a.partition.partition);
        let topics = topics.into_iter().map(|(name, indexes)| {
            TopicRequest::default()
                .with_name(name)
                .with_partition_indexes(indexes)
        });
        DescribeProducersRequest::default().with_topics(topics.collect())
    };
    let read = |connection: &Connection, answer: RawAnswer| {
        let read = answer::read(answer.body, is_wanted);
        let (answers, in_one) = read.map_err(|detail| {
            let context = Arc::new(ErrorContext {
                broker: Some(connection.broker()),
                api: Some("DescribeProducers"),
                ..ErrorContext::cluster(cluster.name())
            });
            let detail = detail.to_owned();
            WireError::Decode { context, detail }
        })?;
        most.fetch_max(in_one, Ordering::Relaxed);
        Ok(answers)
    };
    // One that is too large is as large the next time: fewer are asked about.
    let worth = |error: &WireError, elapsed| {
        let is_large = partitions.len() > 1 && matches!(error, WireError::Framing { .. });
        !is_large && worth_asking_again(error, elapsed)
    };
    ask_leaders_undecoded(cluster, partitions, 0, request, read, worth).await
}

/// An answer to DescribeProducers, version 0. It may have a hundred megabytes, of which a few bytes are wanted: nothing is made
/// of the others.
mod answer {
    use bytes::{Buf, Bytes};

    use super::{Answers, ProducerState, TopicPartition};

    const CUT_OFF: &str = "the answer ends too early";
    /// A topic's name has no more.
    const NAME_BYTES_MAX: usize = 249;

    type Read<T> = Result<T, &'static str>;

    /// What was wanted, and how many producers a partition had at most.
    pub(super) fn read(
        mut body: Bytes,
        is_wanted: &(dyn Fn(&TopicPartition, &ProducerState) -> bool + Send + Sync),
    ) -> Read<(Answers<Vec<ProducerState>>, usize)> {
        let (mut answers, mut most) = (Answers::new(), 0);
        let _throttle_ms = body.try_get_i32().map_err(|_| CUT_OFF)?;
        for _ in 0..length(&mut body)? {
            let topic = text(&mut body)?.filter(|it| it.len() <= NAME_BYTES_MAX);
            let topic = topic.ok_or("a topic without a name")?;
            for _ in 0..length(&mut body)? {
                let number = body.try_get_i32().map_err(|_| CUT_OFF)?;
                let error = body.try_get_i16().map_err(|_| CUT_OFF)?;
                let message = text(&mut body)?;
                let at = TopicPartition::new(topic.clone(), number);
                let count = length(&mut body)?;
                most = most.max(count);
                let mut kept = Vec::new();
                for _ in 0..count {
                    let state = producer(&mut body)?;
                    if is_wanted(&at, &state) {
                        kept.push(state);
                    }
                }
                skip_tags(&mut body)?;
                let outcome = match error {
                    0 => Ok(kept),
                    code => Err((code, message)),
                };
                answers.push((at, outcome));
            }
            skip_tags(&mut body)?;
        }
        Ok((answers, most))
    }

    fn producer(body: &mut Bytes) -> Read<ProducerState> {
        const BYTES: usize = 36;
        if body.remaining() < BYTES {
            return Err(CUT_OFF);
        }
        let state = ProducerState {
            producer_id: body.get_i64(),
            producer_epoch: body.get_i32(),
            last_sequence: body.get_i32(),
            last_timestamp_ms: body.get_i64(),
            coordinator_epoch: body.get_i32(),
            current_txn_start_offset: body.get_i64(),
        };
        skip_tags(body)?;
        Ok(state)
    }

    /// Of an array: no element is shorter than a byte.
    fn length(body: &mut Bytes) -> Read<usize> {
        let length = number(body)?.saturating_sub(1);
        match length <= body.remaining() {
            true => Ok(length),
            false => Err(CUT_OFF),
        }
    }

    fn text(body: &mut Bytes) -> Read<Option<String>> {
        let Some(length) = number(body)?.checked_sub(1) else {
            return Ok(None);
        };
        if length > body.remaining() {
            return Err(CUT_OFF);
        }
        let bytes = body.split_to(length);
        let text = str::from_utf8(&bytes).map_err(|_| "a text that isn't UTF-8")?;
        Ok(Some(text.to_owned()))
    }

    fn skip_tags(body: &mut Bytes) -> Read<()> {
        for _ in 0..number(body)? {
            let _tag = number(body)?;
            let bytes = number(body)?;
            if bytes > body.remaining() {
                return Err(CUT_OFF);
            }
            body.advance(bytes);
        }
        Ok(())
    }

    /// An unsigned number of up to five groups of seven bits.
    fn number(body: &mut Bytes) -> Read<usize> {
        let mut number = 0_u64;
        for shift in (0..35).step_by(7) {
            let byte = body.try_get_u8().map_err(|_| CUT_OFF)?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return usize::try_from(number).map_err(|_| CUT_OFF);
            }
        }
        Err("a number without an end")
    }
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use kafka_protocol::messages::describe_producers_response::{
        PartitionResponse, ProducerState as Encoded, TopicResponse,
    };
    use kafka_protocol::messages::{DescribeProducersResponse, ProducerId};
    use kafka_protocol::protocol::Encodable;

    use fake_kafka::faults::{Action, Fault};
    use fake_kafka::kafka_protocol::messages::ApiKey;
    use fake_kafka::state::Options;
    use fake_kafka::tcp::Server;
    use fake_kafka::topics::NewTopic;

    use super::super::partition::{text, topic_name};
    use super::*;
    use crate::fuzz::{Dice, Input, Target, memory_of};
    use crate::wire::ClusterConfig;

    const PRODUCERS: Target = Target {
        name: "producers",
        rounds: 2_000,
        bytes_base: 64 << 10,
        bytes_per_byte: 64,
    };

    #[test]
    fn fuzz_producers() {
        let make = |dice: &mut Dice| {
            let many = i64::try_from(dice.below(40)).expect("few");
            let refused = partition(1, 0..0)
                .with_error_code(29)
                .with_error_message(Some(text("no")));
            let body = encoded(vec![partition(0, 0..many), refused]);
            Input::new("", dice.damage(&body))
        };
        PRODUCERS.hunt(make, |input| {
            let _ = answer::read(input.bytes.clone(), &|_, _| true);
        });
    }

    fn partition(index: i32, producers: std::ops::Range<i64>) -> PartitionResponse {
        let producers = producers.map(|id| {
            Encoded::default()
                .with_producer_id(ProducerId(id))
                .with_producer_epoch(3)
                .with_last_sequence(9)
                .with_last_timestamp(77)
                .with_coordinator_epoch(5)
        });
        PartitionResponse::default()
            .with_partition_index(index)
            .with_error_message(None)
            .with_active_producers(producers.collect())
    }

    fn encoded(partitions: Vec<PartitionResponse>) -> Bytes {
        let topic = TopicResponse::default()
            .with_name(topic_name("orders"))
            .with_partitions(partitions);
        let answer = DescribeProducersResponse::default().with_topics(vec![topic]);
        let mut body = BytesMut::new();
        answer.encode(&mut body, 0).expect("an answer");
        body.freeze()
    }

    #[test]
    fn of_hundreds_of_thousands_only_those_are_kept_that_are_wanted() {
        let body = encoded(vec![partition(0, 0..300_000), partition(1, 0..2)]);
        assert!(body.len() > 11_000_000);
        let is_wanted = |_: &TopicPartition, it: &ProducerState| it.producer_id == 299_999;
        let (read, bytes) = memory_of(|| answer::read(body, &is_wanted));
        let (answers, most) = read.expect("readable");
        assert!(bytes < 10_000, "{bytes} bytes");
        assert_eq!(most, 300_000);
        let state = ProducerState {
            producer_id: 299_999,
            producer_epoch: 3,
            last_sequence: 9,
            last_timestamp_ms: 77,
            coordinator_epoch: 5,
            current_txn_start_offset: -1,
        };
        let at = |partition| TopicPartition::new("orders", partition);
        assert_eq!(answers, [(at(0), Ok(vec![state])), (at(1), Ok(vec![]))]);
    }

    #[test]
    fn an_error_is_told_in_the_broker_s_words_and_what_is_cut_off_is_none() {
        let refused = partition(4, 0..0)
            .with_error_code(29)
            .with_error_message(Some(text("no")));
        let body = encoded(vec![refused, partition(5, 7..9)]);
        let (answers, _) = answer::read(body.clone(), &|_, _| true).expect("readable");
        assert_eq!(answers[0].1, Err((29, Some("no".to_owned()))));
        assert_eq!(answers[1].1.as_ref().map(Vec::len), Ok(2));
        // Without the tags behind the last topic and behind all.
        for end in 0..body.len() - 1 {
            assert!(
                answer::read(body.slice(..end), &|_, _| true).is_err(),
                "{end}"
            );
        }
    }

    #[test]
    fn partitions_with_many_producers_are_asked_about_one_by_one() {
        let mut slice = Slice::after(0);
        assert_eq!(slice.at_once, 1, "nothing is known");
        slice.learn(2);
        assert_eq!(slice.at_once, 16);
        slice.learn(2);
        slice.learn(2);
        assert_eq!(slice.at_once, 4_096);
        slice.learn(3_000);
        assert_eq!(slice.at_once, 36);
        assert_eq!(slice.large_kib(36), None);
        slice.learn(1_000_000);
        assert_eq!(slice.at_once, 1);
        assert_eq!(slice.large_kib(1), Some(37_109));
        assert_eq!(
            slice.large_kib(20),
            Some(LARGE_KIB),
            "it has to come some time"
        );
        slice.learn(2);
        assert_eq!(slice.at_once, 1, "there may be more of them");
        let again = Slice::after(1_000_000);
        assert!(again.large_kib(1).is_some(), "what was learnt is kept");
    }

    /// One has partitions with a million of them.
    #[tokio::test]
    async fn a_leader_with_many_producers_makes_no_other_ones_answers_small() {
        let fake = fake_kafka::Cluster::new(Options {
            brokers: 2,
            ..Options::default()
        });
        let server = Server::start(&fake);
        let new = NewTopic {
            assignments: (0..100).map(|partition| (partition, vec![2])).collect(),
            ..NewTopic::default()
        };
        let made = fake.control(|state| state.create_topic("t", &new));
        made.expect("it can be made");
        let bootstrap = server.bootstrap();
        let bootstrap = bootstrap.split(',').map(str::to_owned).collect();
        let cluster = Cluster::new(ClusterConfig::new("target", bootstrap));
        cluster.metadata(None).await.expect("an answer");
        cluster.note_producers(Some(1), 1_000_000);
        let ignored = Box::new(|_: &mut _, _: &_| {});
        let requests = Fault::on(ApiKey::DescribeProducers).broker(2);
        let requests = fake.fault(requests, Action::Arrives(ignored));
        let all: Vec<_> = (0..100).map(|it| TopicPartition::new("t", it)).collect();
        let told = describe_producers(&cluster, &all, |_, _| true).await;
        assert!(told.values().all(Result::is_ok), "{told:?}");
        // Of one, of sixteen, of the others.
        assert_eq!(fake.fired(requests), 3);
    }

    #[tokio::test]
    async fn a_leader_that_takes_long_holds_up_no_other_ones_large_answer() {
        let fake = fake_kafka::Cluster::new(Options {
            brokers: 3,
            ..Options::default()
        });
        let server = Server::start(&fake);
        let new = NewTopic {
            partitions: 3,
            replication: 1,
            ..NewTopic::default()
        };
        let made = fake.control(|state| state.create_topic("t", &new));
        made.expect("it can be made");
        let bootstrap = server.bootstrap();
        let bootstrap = bootstrap.split(',').map(str::to_owned).collect();
        let cluster = Cluster::new(ClusterConfig::new("target", bootstrap));
        let known = cluster.metadata(None).await.expect("an answer");
        (1..=3).for_each(|broker| cluster.note_producers(Some(broker), 300_000));
        let (slow, _) = known.leader("t", 0).expect("it is led");
        let fault = Fault::on(ApiKey::DescribeProducers).broker(slow);
        fake.fault(fault, Action::Swallow);
        let at = |partition| TopicPartition::new("t", partition);
        let asked = cluster.clone();
        let hangs = tokio::spawn(async move {
            describe_producers(&asked, &[at(0)], |_, _| true).await;
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
        let others = [at(1), at(2)];
        let asking = describe_producers(&cluster, &others, |_, _| true);
        let told = tokio::time::timeout(Duration::from_secs(20), asking).await;
        let told = told.expect("the others needn't wait for it");
        assert!(told.values().all(Result::is_ok), "{told:?}");
        hangs.abort();
    }
}
