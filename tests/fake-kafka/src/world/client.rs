//! A small client of its own for simulated applications: typed requests, one at a time per broker, no
//! retries. What it can't do a scenario does with [`Client::call`].

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    MetadataRequest, ProduceRequest, RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Brokers, Ctx};
use crate::batch::{self, Record};
use crate::memory::{Reader, Writer};

const METADATA_VERSION: i16 = 12;
/// The last one that names topics by name.
const PRODUCE_VERSION: i16 = 12;

/// Why a request didn't work.
#[derive(Debug)]
pub enum Failure {
    /// No answer: what was asked may have been done or not.
    Lost(io::Error),
    /// A broker refuses.
    Refused(ResponseError),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(error) => write!(f, "no answer: {error}"),
            Self::Refused(error) => write!(f, "refused: {error:?}"),
        }
    }
}

impl std::error::Error for Failure {}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

impl Failure {
    /// An answer's error code, if it is one.
    ///
    /// # Errors
    /// When it is one.
    pub fn check(code: i16) -> Result<(), Self> {
        ResponseError::try_from_code(code).map_or(Ok(()), |error| Err(Self::Refused(error)))
    }
}

/// A client of one cluster, in one process.
pub struct Client {
    ctx: Ctx,
    client_id: String,
    bootstrap: Vec<String>,
    patience: Duration,
    addresses: BTreeMap<i32, String>,
    leaders: BTreeMap<(String, i32), i32>,
    connections: BTreeMap<i32, Link>,
}

struct Link {
    reader: Reader,
    writer: Writer,
    asked: i32,
}

impl Client {
    /// A client that waits 10 s for an answer. Connects nothing yet.
    pub fn new(ctx: &Ctx, brokers: &Brokers) -> Self {
        Self::to(ctx, &brokers.bootstrap())
    }

    /// A client of the cluster behind these `bootstrap.servers`.
    pub fn to(ctx: &Ctx, bootstrap: &str) -> Self {
        Self {
            ctx: ctx.clone(),
            client_id: ctx.name.clone(),
            bootstrap: bootstrap.split(',').map(str::to_owned).collect(),
            patience: Duration::from_secs(10),
            addresses: BTreeMap::new(),
            leaders: BTreeMap::new(),
            connections: BTreeMap::new(),
        }
    }

    /// Waits so long for an answer.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Asks a broker, -1 for any. After a failure the connection is closed; nothing is tried again.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn call<R: Request>(
        &mut self,
        broker: i32,
        request: &R,
        version: i16,
    ) -> io::Result<R::Response> {
        let patience = self.patience;
        let answer = tokio::time::timeout(patience, self.ask(broker, request, version))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        if answer.is_err() {
            self.connections.remove(&broker);
        }
        answer
    }

    async fn ask<R: Request>(
        &mut self,
        broker: i32,
        request: &R,
        version: i16,
    ) -> io::Result<R::Response> {
        if !self.connections.contains_key(&broker) {
            let link = self.connect(broker).await?;
            self.connections.insert(broker, link);
        }
        let client_id = self.client_id.clone();
        let link = self.connections.get_mut(&broker).expect("just made");
        link.asked += 1;
        let frame = request_frame(request, version, link.asked, &client_id);
        link.writer.write_all(&frame).await?;
        let length = link.reader.read_u32().await? as usize;
        let mut answer = vec![0; length];
        link.reader.read_exact(&mut answer).await?;
        let mut answer = Bytes::from(answer);
        let unreadable = |error| io::Error::new(io::ErrorKind::InvalidData, format!("{error}"));
        let header = R::Response::header_version(version);
        let header = ResponseHeader::decode(&mut answer, header).map_err(unreadable)?;
        assert_eq!(
            header.correlation_id, link.asked,
            "the answer to what was asked"
        );
        R::Response::decode(&mut answer, version).map_err(unreadable)
    }

    async fn connect(&self, broker: i32) -> io::Result<Link> {
        let known = self.addresses.get(&broker).cloned();
        let candidates = known.map_or_else(|| self.bootstrap.clone(), |address| vec![address]);
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for address in candidates {
            match self.ctx.connect(&address).await {
                Ok(stream) => {
                    let (reader, writer) = stream.into_split();
                    return Ok(Link {
                        reader,
                        writer,
                        asked: 0,
                    });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Who leads a partition, asked once and again after [`forget`](Self::forget).
    ///
    /// # Errors
    /// When nobody answers, or nobody leads it.
    pub async fn leader(&mut self, topic: &str, partition: i32) -> Result<i32, Failure> {
        let key = (topic.to_owned(), partition);
        if let Some(leader) = self.leaders.get(&key) {
            return Ok(*leader);
        }
        let name = TopicName(StrBytes::from_string(topic.to_owned()));
        let request = MetadataRequest::default()
            .with_topics(Some(vec![
                MetadataRequestTopic::default().with_name(Some(name)),
            ]))
            .with_allow_auto_topic_creation(false);
        let answer = self.call(-1, &request, METADATA_VERSION).await?;
        for broker in &answer.brokers {
            let address = format!("{}:{}", broker.host, broker.port);
            self.addresses.insert(broker.node_id.0, address);
        }
        for of in &answer.topics {
            Failure::check(of.error_code)?;
            for at in &of.partitions {
                if at.leader_id.0 >= 0 {
                    self.leaders
                        .insert((topic.to_owned(), at.partition_index), at.leader_id.0);
                }
            }
        }
        let leader = self.leaders.get(&key).copied();
        leader.ok_or(Failure::Refused(ResponseError::LeaderNotAvailable))
    }

    /// Appends records as a producer without idempotence, `acks=all`. Returns the first one's offset.
    ///
    /// # Errors
    /// When the answer is lost, then it may be there or not; or it is refused.
    pub async fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        records: &[Record],
    ) -> Result<i64, Failure> {
        let (header, encoded) = batch::produced(records, wall_clock_ms());
        self.append(topic, partition, header.seal(&encoded)).await
    }

    /// Appends a batch as it is, `acks=all`. Returns its first offset.
    ///
    /// # Errors
    /// As [`produce`](Self::produce).
    pub async fn append(
        &mut self,
        topic: &str,
        partition: i32,
        batch: Bytes,
    ) -> Result<i64, Failure> {
        let leader = self.leader(topic, partition).await?;
        let data = PartitionProduceData::default()
            .with_index(partition)
            .with_records(Some(batch));
        let request = ProduceRequest::default()
            .with_acks(-1)
            .with_timeout_ms(30_000)
            .with_topic_data(vec![
                TopicProduceData::default()
                    .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
                    .with_partition_data(vec![data]),
            ]);
        let answer = self.call(leader, &request, PRODUCE_VERSION).await?;
        let answers = answer.responses.iter();
        let mut partitions = answers.flat_map(|of| &of.partition_responses);
        let appended = partitions.next().ok_or_else(missing)?;
        Failure::check(appended.error_code)?;
        Ok(appended.base_offset)
    }

    /// Leaders are asked for again, and connections made again.
    pub fn forget(&mut self) {
        self.leaders.clear();
        self.connections.clear();
    }
}

fn missing() -> Failure {
    io::Error::new(io::ErrorKind::InvalidData, "the answer doesn't name it").into()
}

fn wall_clock_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}

fn request_frame<R: Request>(
    request: &R,
    version: i16,
    correlation_id: i32,
    client_id: &str,
) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u32(0);
    RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_string(client_id.to_owned())))
        .encode(&mut frame, R::header_version(version))
        .expect("a header of known version encodes");
    request
        .encode(&mut frame, version)
        .expect("the scenario asks in a version that has its fields");
    let length = u32::try_from(frame.len() - 4).expect("a request fits a frame");
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame.freeze()
}
