//! The brokers' APIs: one file each, one line each in the table below.

mod acls;
mod api_versions;
mod create_partitions;
mod create_topics;
mod delete_records;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_log_dirs;
mod describe_producers;
mod fetch;
mod groups;
mod incremental_alter_configs;
mod init_producer_id;
mod list_offsets;
mod metadata;
mod offset_for_leader_epoch;
mod produce;
mod quotas;
mod transactions;
mod users;
mod write_txn_markers;

pub(crate) use fetch::Session;
pub(crate) use init_producer_id::refused as refused_producer;

use std::cell::Cell;

use bytes::{Bytes, BytesMut};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Encodable, HeaderVersion, Request, StrBytes};

use crate::state::State;

/// What a request may be about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A topic.
    Topic(String),
    /// A partition.
    Partition(String, i32),
    /// A group.
    Group(String),
    /// A transactional id.
    TransactionalId(String),
}

impl Subject {
    /// Whether a fault for this is one for `other`, too: a topic's is one for its partitions.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Topic(topic), Self::Partition(of, _)) => topic == of,
            _ => self == other,
        }
    }
}

/// The body of an answer, encoded.
#[derive(Debug, Clone)]
pub struct Body(pub(crate) Bytes);

impl Body {
    /// Encodes an answer in the version of its request.
    pub fn of<T: Encodable>(answer: &T, version: i16) -> Self {
        let mut bytes = BytesMut::new();
        answer.encode(&mut bytes, version).unwrap_or_else(|e| {
            panic!("the fake can't encode an answer in version {version}: {e}")
        });
        Self(bytes.freeze())
    }
}

/// Asked again when something changed, and once more at the deadline, when it must answer.
pub type Ready = Box<dyn FnMut(&mut State, /* timed out */ bool) -> Option<Body> + Send>;

/// What a handler says.
pub enum Reply {
    /// The answer.
    Send(Body),
    /// Not yet.
    Wait {
        /// The deadline.
        until_ms: i64,
        /// Says when.
        ready: Ready,
    },
    /// Never answered; the connection's later requests aren't either.
    Silence,
    /// No answer: the connection is closed.
    Close,
    /// No answer, and none is expected (`acks=0`).
    Nothing,
}

/// Who asks what.
pub struct Asked<'a> {
    /// The broker that was asked.
    pub broker: i32,
    /// The connection's number.
    pub connection: u64,
    /// Who asks.
    pub client_id: &'a str,
    /// As whom.
    pub principal: &'a str,
    /// In which version.
    pub api_version: i16,
    pub(crate) refusal: Option<&'a (ResponseError, Option<Subject>)>,
    pub(crate) refusal_used: Cell<bool>,
    pub(crate) cluster_id: Option<&'a str>,
}

impl Asked<'_> {
    /// An answer, encoded.
    pub fn send<T: Encodable>(&self, answer: &T) -> Reply {
        Reply::Send(Body::of(answer, self.api_version))
    }

    /// The error that a fault wants in this partition. Handlers that answer per partition ask first of all.
    pub fn refused(&self, topic: &str, partition: i32) -> Option<ResponseError> {
        self.refused_about(&Subject::Partition(topic.to_owned(), partition))
    }

    /// The error that a fault wants for this topic.
    pub fn refused_topic(&self, topic: &str) -> Option<ResponseError> {
        self.refused_about(&Subject::Topic(topic.to_owned()))
    }

    /// The error that a fault wants for what the request is about.
    pub fn refused_about(&self, about: &Subject) -> Option<ResponseError> {
        let (error, subject) = self.refusal?;
        self.refusal_used.set(true);
        subject
            .as_ref()
            .is_none_or(|subject| subject.covers(about))
            .then_some(*error)
    }
}

/// What faults need to know of a request. Empty for requests that need no faults about something.
pub trait Served: Request {
    /// What it is about.
    fn about(&self, _state: &State) -> Vec<Subject> {
        Vec::new()
    }

    /// The answer that refuses it whole. `None` if its handler refuses per partition, by [`Asked::refused`].
    fn refuse(&self, _error: ResponseError) -> Option<Self::Response> {
        None
    }
}

type Run = Box<dyn FnOnce(&mut State, &Asked<'_>) -> Reply + Send>;

/// A request that was decoded and is still to be handled.
pub(crate) struct Call {
    pub(crate) about: Vec<Subject>,
    pub(crate) response_header_version: i16,
    pub(crate) run: Run,
    /// It changes nothing, so nobody who waits must look again.
    pub(crate) only_reads: bool,
}

/// The table: request, versions, handler. An API that is `reads` changes nothing.
macro_rules! apis {
    ($($request:ty, $min:literal ..= $max:literal, $handle:path $(, $reads:ident)?;)*) => {
        /// Key, lowest and highest version of every API.
        pub(crate) const VERSIONS: &[(i16, i16, i16)] =
            &[$((<$request as Request>::KEY, $min, $max)),*];

        fn decode_body(state: &State, key: i16, version: i16, body: Bytes) -> Option<Call> {
            $(if key == <$request as Request>::KEY {
                return call::<$request>(state, version, body, $handle, [$(stringify!($reads),)? ""][0] == "reads");
            })*
            None
        }
    };
}

apis! {
    ApiVersionsRequest, 0..=4, api_versions::handle, reads;
    ProduceRequest, 3..=13, produce::handle;
    FetchRequest, 4..=18, fetch::handle, reads;
    ListOffsetsRequest, 1..=10, list_offsets::handle, reads;
    MetadataRequest, 0..=13, metadata::handle;
    CreateTopicsRequest, 2..=7, create_topics::handle;
    DeleteTopicsRequest, 1..=6, delete_topics::handle;
    DeleteRecordsRequest, 0..=2, delete_records::handle;
    InitProducerIdRequest, 0..=5, init_producer_id::handle;
    OffsetForLeaderEpochRequest, 2..=4, offset_for_leader_epoch::handle, reads;
    WriteTxnMarkersRequest, 1..=1, write_txn_markers::handle;
    DescribeConfigsRequest, 1..=4, describe_configs::handle, reads;
    DescribeLogDirsRequest, 1..=4, describe_log_dirs::handle, reads;
    CreatePartitionsRequest, 0..=3, create_partitions::handle;
    IncrementalAlterConfigsRequest, 0..=1, incremental_alter_configs::handle;
    DescribeClusterRequest, 0..=2, describe_cluster::handle, reads;
    DescribeProducersRequest, 0..=0, describe_producers::handle, reads;
    OffsetCommitRequest, 2..=9, groups::commit::handle;
    OffsetFetchRequest, 1..=9, groups::fetch::handle;
    FindCoordinatorRequest, 0..=6, groups::find::handle;
    JoinGroupRequest, 0..=9, groups::join::handle;
    SyncGroupRequest, 0..=5, groups::sync::handle;
    HeartbeatRequest, 0..=4, groups::heartbeat::handle;
    LeaveGroupRequest, 0..=5, groups::leave::handle;
    ListGroupsRequest, 0..=5, groups::list::handle;
    DescribeGroupsRequest, 0..=6, groups::describe::handle;
    DeleteGroupsRequest, 0..=2, groups::delete::handle;
    OffsetDeleteRequest, 0..=0, groups::offset_delete::handle;
    DescribeShareGroupOffsetsRequest, 0..=0, groups::share::handle_describe, reads;
    AlterShareGroupOffsetsRequest, 0..=0, groups::share::handle_alter;
    ConsumerGroupDescribeRequest, 0..=1, groups::describe::handle_consumer, reads;
    AddPartitionsToTxnRequest, 0..=3, transactions::add::handle;
    AddOffsetsToTxnRequest, 0..=4, transactions::add::handle_offsets;
    EndTxnRequest, 0..=5, transactions::end::handle;
    TxnOffsetCommitRequest, 0..=5, transactions::commit_offsets::handle;
    ListTransactionsRequest, 0..=1, transactions::describe::handle_list, reads;
    DescribeTransactionsRequest, 0..=0, transactions::describe::handle, reads;
    DescribeAclsRequest, 1..=3, acls::describe::handle, reads;
    CreateAclsRequest, 1..=3, acls::create::handle;
    DeleteAclsRequest, 1..=3, acls::delete::handle;
    DescribeClientQuotasRequest, 0..=1, quotas::describe::handle, reads;
    AlterClientQuotasRequest, 0..=1, quotas::alter::handle;
    DescribeUserScramCredentialsRequest, 0..=0, users::scram::handle, reads;
    AlterUserScramCredentialsRequest, 0..=0, users::scram::handle_alter;
    SaslHandshakeRequest, 1..=1, users::sasl::handle_handshake;
    SaslAuthenticateRequest, 0..=2, users::sasl::handle;
}

/// A request's body, decoded and ready to be handled. `None`: the broker closes the connection (`RequestContext.parseRequest`).
pub(crate) fn decode(state: &State, key: i16, version: i16, body: Bytes) -> Option<Call> {
    let served = VERSIONS
        .iter()
        .any(|&(k, min, max)| k == key && (min..=max).contains(&version));
    // ApiVersions is answered in any version (KIP-511).
    if !served && key != ApiVersionsRequest::KEY {
        return None;
    }
    decode_body(state, key, version, body)
}

fn call<R: Served + Send + 'static>(
    state: &State,
    version: i16,
    mut body: Bytes,
    handle: fn(&mut State, &Asked<'_>, R) -> Reply,
    only_reads: bool,
) -> Option<Call> {
    let request = if version > R::VERSIONS.max {
        None
    } else {
        Some(R::decode(&mut body, version).ok()?)
    };
    let Some(request) = request else {
        return Some(api_versions::unsupported());
    };
    Some(Call {
        about: request.about(state),
        response_header_version: R::Response::header_version(version),
        run: Box::new(move |state, asked| handle_or_refuse(state, asked, request, handle)),
        only_reads,
    })
}

fn handle_or_refuse<R: Served>(
    state: &mut State,
    asked: &Asked<'_>,
    request: R,
    handle: fn(&mut State, &Asked<'_>, R) -> Reply,
) -> Reply {
    if let Some((error, _)) = asked.refusal
        && let Some(answer) = request.refuse(*error)
    {
        return asked.send(&answer);
    }
    let reply = handle(state, asked, request);
    assert!(
        asked.refusal.is_none() || asked.refusal_used.get(),
        "a fault wants API {} refused, which its handler never asks after",
        R::KEY
    );
    reply
}

/// A string of the protocol.
pub(crate) fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}
