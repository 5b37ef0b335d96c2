//! One connection as a broker sees it: bytes in, bytes out, no I/O.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, ResponseHeader};
use kafka_protocol::protocol::{Encodable, decode_request_header_from_buffer};
use std::cell::Cell;

use crate::api::{self, Asked, Body, Call, Ready, Reply};
use crate::cluster::Cluster;
use crate::faults::{self, Fate, Seen, Verdict};
use crate::state::{Condition, State};

/// Whoever doesn't say who they are (`KafkaPrincipal.ANONYMOUS`).
const ANONYMOUS: &str = "User:ANONYMOUS";
/// `socket.request.max.bytes`.
const MAX_REQUEST_BYTES: usize = 100 * 1024 * 1024;

/// The broker's end of a connection. Its requests are handled one after the other, as `SocketServer` mutes a channel until it answered.
pub struct Connection {
    cluster: Cluster,
    who: Who,
    received: BytesMut,
    current: Option<Current>,
    closed: bool,
}

struct Who {
    broker: i32,
    number: u64,
    generation: u64,
    principal: String,
}

/// What came of advancing.
#[derive(Debug, Default)]
pub struct Output {
    /// To be sent to the client.
    pub bytes: Bytes,
    /// Nothing comes after these bytes; the connection is closed.
    pub close: bool,
    /// Advance again at this time at the latest.
    pub wake_at_ms: Option<i64>,
}

/// The request that is being worked on.
struct Current {
    correlation_id: i32,
    response_header_version: i16,
    only_reads: bool,
    seen: Seen,
    verdict: Verdict,
    step: Step,
}

enum Step {
    Delayed { until_ms: i64, run: Run },
    Waiting { until_ms: i64, ready: Ready },
    Late { until_ms: i64, body: Option<Body> },
    Silent,
}

type Run = Box<dyn FnOnce(&mut State, &Asked<'_>) -> Reply + Send>;

/// What became of a step.
enum Next {
    Stay(Step),
    Answer(Option<Body>),
    Close,
}

impl Connection {
    /// Somebody connected to a broker, without saying who.
    pub fn new(cluster: &Cluster, broker: i32) -> Self {
        Self::as_principal(cluster, broker, ANONYMOUS)
    }

    /// Somebody connected to a broker and proved who they are.
    pub fn as_principal(cluster: &Cluster, broker: i32, principal: &str) -> Self {
        let (number, generation) = cluster.with(|state| (state.next_id(), state.generation));
        Self {
            cluster: cluster.clone(),
            who: Who {
                broker,
                number,
                generation,
                principal: principal.to_owned(),
            },
            received: BytesMut::new(),
            current: None,
            closed: false,
        }
    }

    /// What the client sent.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
    }

    /// Whether it has anything to work on, so that a change of the cluster or of the time may matter to it.
    pub fn has_work(&self) -> bool {
        self.current.is_some() || !self.received.is_empty()
    }

    /// Handles what can be handled. To be called after bytes were received, when the cluster changed, and at the time that it said.
    pub fn advance(&mut self, now_ms: i64) -> Output {
        let cluster = self.cluster.clone();
        cluster.with(|state| {
            state.advance_to(now_ms);
            self.work(state)
        })
    }

    fn work(&mut self, state: &mut State) -> Output {
        let mut bytes = BytesMut::new();
        loop {
            match state.condition(self.who.broker) {
                Condition::Stopped => self.closed = true,
                Condition::Frozen => break,
                Condition::Up => {}
            }
            self.closed |= self.who.generation != state.generation;
            if self.closed {
                break;
            }
            let Some(current) = self.current.take().or_else(|| self.unmuted(state)) else {
                break;
            };
            if !self.step(state, current, &mut bytes) {
                break;
            }
        }
        Output {
            bytes: bytes.freeze(),
            close: self.closed,
            wake_at_ms: self.wake_at_ms(state),
        }
    }

    fn wake_at_ms(&self, state: &State) -> Option<i64> {
        let own = match self.current.as_ref().map(|current| &current.step) {
            Some(
                Step::Delayed { until_ms, .. }
                | Step::Waiting { until_ms, .. }
                | Step::Late { until_ms, .. },
            ) => Some(*until_ms),
            None => self.muted_until_ms(state),
            Some(Step::Silent) => None,
        };
        own.into_iter().chain(state.next_timer_ms()).min()
    }

    /// Until when nothing is read from it.
    fn muted_until_ms(&self, state: &State) -> Option<i64> {
        let until_ms = state.muted.get(&self.who.number).copied();
        until_ms.filter(|until_ms| *until_ms > state.now_ms)
    }

    fn unmuted(&mut self, state: &mut State) -> Option<Current> {
        match self.muted_until_ms(state) {
            Some(_) => None,
            None => self.next(state),
        }
    }

    /// The next request, when all of it is here. A malformed one closes the connection.
    fn next(&mut self, state: &mut State) -> Option<Current> {
        let mut frame = match next_frame(&mut self.received) {
            Ok(frame) => frame?,
            Err(TooLong) => {
                self.closed = true;
                return None;
            }
        };
        let decoded = self.decode(state, &mut frame);
        self.closed |= decoded.is_none();
        decoded
    }

    fn decode(&self, state: &mut State, frame: &mut Bytes) -> Option<Current> {
        if frame.len() < 8 {
            return None;
        }
        let head = (&frame[0..2]).get_i16();
        let version = (&frame[2..4]).get_i16();
        let correlation_id = (&frame[4..8]).get_i32();
        let key = ApiKey::try_from(head).ok()?;
        let known = api::VERSIONS
            .iter()
            .any(|&(k, min, max)| k == head && (min..=max).contains(&version));
        // The header of a version of ApiVersions that isn't known can't be trusted (`RequestHeader.parse`).
        let client_id = if known {
            decode_request_header_from_buffer(frame).ok()?.client_id
        } else {
            None
        };
        let call: Call = api::decode(state, head, version, frame.clone())?;
        let seen = Seen {
            key,
            version,
            broker: self.who.broker,
            connection: self.who.number,
            client_id: client_id.map(|id| id.to_string()).unwrap_or_default(),
            about: call.about,
        };
        let verdict = faults::arrives(state, &seen);
        Some(Current {
            correlation_id,
            response_header_version: call.response_header_version,
            only_reads: call.only_reads,
            step: Step::Delayed {
                until_ms: state.now_ms + verdict.delay_ms,
                run: call.run,
            },
            seen,
            verdict,
        })
    }

    /// One step with the current request; `false` when nothing more can be done now.
    fn step(&mut self, state: &mut State, mut current: Current, bytes: &mut BytesMut) -> bool {
        // A hook may just have frozen or stopped the broker, before the effect.
        if state.condition(self.who.broker) != Condition::Up {
            self.current = Some(current);
            return state.condition(self.who.broker) == Condition::Stopped;
        }
        let step = std::mem::replace(&mut current.step, Step::Silent);
        let broker = self.who.broker;
        let act = |state: &mut State| self.who.next(state, &current, step);
        let next = match is_forwarded(current.seen.key) {
            true => act(state),
            false => state.as_seen_by(broker, act),
        };
        match next {
            Next::Stay(step) => {
                let again = matches!(&step, Step::Late { until_ms, .. } | Step::Delayed { until_ms, .. } if *until_ms <= state.now_ms);
                current.step = step;
                self.current = Some(current);
                again
            }
            Next::Answer(body) => {
                if let Some(body) = body {
                    put_answer(bytes, &current, &body);
                }
                true
            }
            Next::Close => {
                self.closed = true;
                false
            }
        }
    }
}

impl Who {
    fn next(&self, state: &mut State, current: &Current, step: Step) -> Next {
        match step {
            Step::Delayed { until_ms, run }
                if until_ms > state.now_ms && !state.faults.has_let_go(&current.verdict) =>
            {
                Next::Stay(Step::Delayed { until_ms, run })
            }
            Step::Delayed { run, .. } => self.run(state, current, run),
            Step::Waiting {
                until_ms,
                mut ready,
            } => match ready(state, until_ms <= state.now_ms) {
                Some(body) => effect(state, current, Some(body)),
                None => Next::Stay(Step::Waiting { until_ms, ready }),
            },
            Step::Late { until_ms, body } if until_ms > state.now_ms => {
                Next::Stay(Step::Late { until_ms, body })
            }
            Step::Late { body, .. } => Next::Answer(body),
            Step::Silent => Next::Stay(Step::Silent),
        }
    }

    /// Before the login there is little to ask (`SaslServerAuthenticator.handleKafkaRequest`).
    fn may_ask(&self, state: &State, key: ApiKey) -> bool {
        let is_login = matches!(
            key,
            ApiKey::ApiVersions | ApiKey::SaslHandshake | ApiKey::SaslAuthenticate
        );
        is_login || self.principal != ANONYMOUS || !state.users.must_log_in(self.number)
    }

    fn run(&self, state: &mut State, current: &Current, run: Run) -> Next {
        match current.verdict.fate {
            Fate::Swallowed => return Next::Stay(Step::Silent),
            Fate::CutBefore => return Next::Close,
            Fate::Answered | Fate::SwallowedAfter | Fate::CutAfter => {}
        }
        if !self.may_ask(state, current.seen.key) {
            return Next::Close;
        }
        let logged_in = state.users.principal(self.number).map(str::to_owned);
        let asked = Asked {
            broker: self.broker,
            connection: self.number,
            client_id: &current.seen.client_id,
            principal: logged_in.as_deref().unwrap_or(&self.principal),
            api_version: current.seen.version,
            refusal: current.verdict.refuse.as_ref(),
            refusal_used: Cell::new(false),
            cluster_id: current.verdict.cluster_id.as_deref(),
        };
        let reply = run(state, &asked);
        if !current.only_reads {
            state.changed();
        }
        match reply {
            Reply::Send(body) => effect(state, current, Some(body)),
            Reply::Nothing => effect(state, current, None),
            Reply::Wait {
                until_ms,
                mut ready,
            } => match ready(state, until_ms <= state.now_ms) {
                Some(body) => effect(state, current, Some(body)),
                None => Next::Stay(Step::Waiting { until_ms, ready }),
            },
            Reply::Silence => Next::Stay(Step::Silent),
            Reply::Close => Next::Close,
        }
    }
}

/// The request has taken effect: whether and when it is answered.
fn effect(state: &mut State, current: &Current, body: Option<Body>) -> Next {
    if !current.only_reads {
        state.changed();
    }
    faults::has_taken_effect(state, &current.seen);
    match current.verdict.fate {
        Fate::SwallowedAfter => Next::Stay(Step::Silent),
        Fate::CutAfter => Next::Close,
        Fate::Answered | Fate::Swallowed | Fate::CutBefore => Next::Stay(Step::Late {
            until_ms: state.now_ms + current.verdict.late_ms,
            body,
        }),
    }
}

/// Whether the controller does it, whoever is asked (`ForwardingManager`).
fn is_forwarded(key: ApiKey) -> bool {
    matches!(
        key,
        ApiKey::CreateTopics | ApiKey::DeleteTopics | ApiKey::CreatePartitions
    )
}

struct TooLong;

fn next_frame(received: &mut BytesMut) -> Result<Option<Bytes>, TooLong> {
    if received.len() < 4 {
        return Ok(None);
    }
    let length = usize::try_from((&received[..4]).get_i32()).map_err(|_| TooLong)?;
    if length > MAX_REQUEST_BYTES {
        return Err(TooLong);
    }
    if received.len() < 4 + length {
        return Ok(None);
    }
    received.advance(4);
    Ok(Some(received.split_to(length).freeze()))
}

fn put_answer(bytes: &mut BytesMut, current: &Current, body: &Body) {
    let start = bytes.len();
    bytes.put_i32(0);
    ResponseHeader::default()
        .with_correlation_id(current.correlation_id)
        .encode(bytes, current.response_header_version)
        .expect("a header of known version encodes");
    bytes.extend_from_slice(&body.0);
    let length = i32::try_from(bytes.len() - start - 4).expect("an answer fits a frame");
    bytes[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Options;
    use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse, RequestHeader};
    use kafka_protocol::protocol::{Decodable, HeaderVersion, Request};

    fn frame(version: i16) -> BytesMut {
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        RequestHeader::default()
            .with_request_api_key(ApiVersionsRequest::KEY)
            .with_request_api_version(version)
            .with_correlation_id(7)
            .encode(&mut frame, ApiVersionsRequest::header_version(version))
            .expect("encodes");
        if version <= 4 {
            ApiVersionsRequest::default()
                .encode(&mut frame, version)
                .expect("encodes");
        }
        let length = i32::try_from(frame.len() - 4).expect("short");
        frame[..4].copy_from_slice(&length.to_be_bytes());
        frame
    }

    #[test]
    fn a_version_that_is_too_new_is_told_what_there_is() {
        let cluster = Cluster::new(Options::default());
        for (version, error) in [(3, 0), (4, 0), (5, 35)] {
            let mut connection = Connection::new(&cluster, 1);
            let request = frame(version);
            connection.receive(&request[..9]);
            assert!(connection.advance(1).bytes.is_empty(), "half a request");
            connection.receive(&request[9..]);
            let mut answer = connection.advance(1).bytes;
            assert_eq!(answer.get_i32() as usize, answer.remaining());
            assert_eq!(answer.get_i32(), 7);
            let answer =
                ApiVersionsResponse::decode(&mut answer, if error == 0 { version } else { 0 })
                    .expect("decodes");
            assert_eq!(answer.error_code, error);
            assert!(answer.api_keys.iter().any(|key| key.api_key == 18));
        }
    }
}
