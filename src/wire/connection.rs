//! One TCP connection to one broker: requests go out in the order in which they were started, and
//! answers come back in that order.
//!
//! A reader task and a writer task belong to each connection and end with its last handle. The
//! first failure (a broken frame, a timeout, the broker hanging up) poisons the connection: everyone
//! who waits gets that error, and so does everyone who asks later. Nothing is repaired; callers get
//! a new connection from [`Cluster::connection`](super::Cluster::connection).

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use kafka_protocol::protocol::{Decodable, Request, StrBytes};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

use super::codec;
use super::error::{ErrorContext, WireError};
use super::handshake::{FIRST_VERSION, versions_request};
use super::io_tasks::{FRAME_BYTES_MAX, STRANGERS_FRAME_BYTES_MAX, read_answers, write_requests};
use super::moves::{Counters, Moves};
use super::throttle::LONGEST;
use super::tls::TlsFacts;
use super::transport::{ReadHalf, WriteHalf};
use super::versions::{VersionTable, api_name, first_bounded, is_bounded};

/// So long the oldest question, which was given up, brings no answer nearer: then another connection is quicker.
const CLOGGED_AFTER: Duration = Duration::from_secs(2);

/// A handle on a connection; the connection closes when the last one is gone.
#[derive(Clone)]
pub struct Connection {
    inner: Arc<Inner>,
}

struct Inner {
    broker: i32,
    versions: VersionTable,
    /// How long the first question took, which nothing of ours was before.
    round_trip: Duration,
    shared: Arc<Shared>,
    tls: Option<TlsFacts>,
    /// The reader, the writer and perhaps one that proves again who we are; dropping the set ends
    /// them, which closes the socket.
    tasks: JoinSet<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Answers still on their way will not be read.
        self.shared.poison(WireError::Disconnected {
            context: Arc::new(self.shared.context.clone()),
        });
    }
}

/// What handles, waiting futures and the two tasks have in common.
pub(super) struct Shared {
    pub(super) context: ErrorContext,
    /// Cancelled when the connection is poisoned: both tasks end.
    pub(super) closed: CancellationToken,
    client_id: StrBytes,
    request_timeout: Duration,
    opened_at: Instant,
    /// The broker has proven who it is, as far as the cluster's settings ask for it, and so have we.
    is_introduced: AtomicBool,
    state: Mutex<State>,
}

struct State {
    poison: Option<WireError>,
    next_correlation_id: i32,
    waiters: VecDeque<Waiter>,
    outgoing: mpsc::UnboundedSender<Frame>,
    counters: Counters,
    quiet_until: Option<Instant>,
    /// While this is there, requests wait in it, in order: the broker takes only authentication.
    held: Option<VecDeque<(Option<Waiter>, Frame)>>,
}

/// Which way a request goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lane {
    /// In order with all others.
    Ordinary,
    /// Past those that are held back: part of an authentication.
    Authentication,
}

/// A request as it goes on the wire: length and header, then the body in pieces.
pub(super) struct Frame {
    pub(super) correlation_id: i32,
    pub(super) segments: Vec<Bytes>,
}

/// Someone who expects the next answer.
pub(super) struct Waiter {
    pub(super) correlation_id: i32,
    pub(super) api_key: i16,
    pub(super) version: i16,
    pub(super) header_version: i16,
    asked_at: Instant,
    /// When the request had left whole.
    left_at: Option<Instant>,
    pub(super) answer: oneshot::Sender<Result<Bytes, WireError>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is never left half-changed, so a panic elsewhere doesn't spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives up the connection. Only the first error counts.
    pub(super) fn poison(&self, error: WireError) {
        let waiters = {
            let mut state = self.lock();
            if state.poison.is_some() {
                return;
            }
            state.poison = Some(error.clone());
            let held = state.held.take().unwrap_or_default();
            let waiters = std::mem::take(&mut state.waiters);
            waiters
                .into_iter()
                .chain(held.into_iter().filter_map(|(waiter, _)| waiter))
        };
        self.closed.cancel();
        for waiter in waiters {
            // A waiter that is gone needs no answer.
            let _ = waiter.answer.send(Err(error.clone()));
        }
    }

    /// The one who expects the answer that came.
    pub(super) fn next_waiter(&self) -> Option<Waiter> {
        let mut state = self.lock();
        state.counters.answered();
        state.waiters.pop_front()
    }

    /// The longest answer that is taken now.
    pub(super) fn frame_bytes_max(&self) -> usize {
        match self.is_introduced.load(Ordering::Acquire) {
            true => FRAME_BYTES_MAX,
            false => STRANGERS_FRAME_BYTES_MAX,
        }
    }

    /// Bytes of an answer came.
    pub(super) fn note_read(&self, bytes: usize) {
        self.lock().counters.read(bytes);
    }

    /// Bytes of requests left; with them the last ones of these.
    pub(super) fn note_written(&self, bytes: usize, whole: &[i32]) {
        let mut state = self.lock();
        state.counters.written(bytes);
        for correlation_id in whole {
            // They leave in the order in which they are waited for. An answer may be quicker than this note.
            let at = state.waiters.partition_point(|it| it.left_at.is_some());
            if let Some(waiter) = state.waiters.get_mut(at)
                && waiter.correlation_id == *correlation_id
            {
                waiter.left_at = Some(Instant::now());
            }
        }
    }

    /// What has moved, as far as it matters to this request.
    fn moves(&self, correlation_id: i32) -> Moves {
        let state = self.lock();
        let mut waiters = state.waiters.iter();
        let waiter = waiters.find(|it| it.correlation_id == correlation_id);
        let left_at = waiter.and_then(|waiter| waiter.left_at);
        state.counters.seen(left_at, state.quiet_until)
    }

    /// The broker asked for silence.
    pub(super) fn stay_quiet_for(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut state = self.lock();
        state.quiet_until = Some(state.quiet_until.map_or(until, |known| known.max(until)));
    }

    /// Until when nothing may be sent.
    pub(super) fn quiet_until(&self) -> Option<Instant> {
        self.lock().quiet_until
    }

    fn poison_error(&self) -> Option<WireError> {
        self.lock().poison.clone()
    }

    /// From now on requests wait, except those of an authentication. What was sent before is
    /// answered as ever.
    pub(super) fn hold_back(&self) {
        self.lock().held.get_or_insert_default();
    }

    /// Sends what was held back, in order, before anything newer.
    pub(super) fn let_go(&self) {
        let mut state = self.lock();
        for (waiter, frame) in state.held.take().into_iter().flatten() {
            state.send(waiter, frame);
        }
    }

    /// Whether an authentication is under way and has every answer that it asked for.
    pub(super) fn verdict_is_due(&self) -> bool {
        let state = self.lock();
        state.held.is_some() && state.waiters.is_empty()
    }

    /// A request of an authentication.
    pub(super) fn start_authentication<R: Request>(
        self: &Arc<Self>,
        version: i16,
        request: &R,
    ) -> Result<Pending<R::Response>, WireError> {
        let body = self.encode::<R>(version, request)?;
        let decode = match is_bounded::<R>(version) {
            true => decode_answer::<R::Response>,
            false => codec::decode_plain_body::<R::Response>,
        };
        self.enqueue::<R, R::Response>(Lane::Authentication, version, vec![body], decode)
    }

    /// How long a request may take.
    pub(super) fn request_timeout(&self) -> Duration {
        self.request_timeout
    }

    /// Since when nothing was said; `None` while somebody waits for an answer, or nothing may be said.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let state = self.lock();
        let is_busy = !state.waiters.is_empty() || state.held.is_some();
        let is_muted = state
            .quiet_until
            .is_some_and(|until| until > Instant::now());
        let last = state.counters.moved_at().unwrap_or(self.opened_at);
        (!is_busy && !is_muted).then(|| last.max(self.opened_at))
    }

    /// Asks whether the broker is still there.
    pub(super) fn start_heartbeat(
        self: &Arc<Self>,
        version: i16,
        request: &ApiVersionsRequest,
    ) -> Result<Pending<RawAnswer>, WireError> {
        // Old versions have no field for who asks.
        let nothing = ApiVersionsRequest::default();
        let request = if version < 3 { &nothing } else { request };
        let body = vec![self.encode(version, request)?];
        self.enqueue::<ApiVersionsRequest, RawAnswer>(Lane::Ordinary, version, body, raw_answer)
    }

    pub(super) fn context_of<R: Request>(&self) -> Arc<ErrorContext> {
        let mut context = self.context.clone();
        context.api = Some(api_name::<R>());
        Arc::new(context)
    }

    fn encode<R: Request>(&self, version: i16, request: &R) -> Result<Bytes, WireError> {
        codec::encode_body(request, version).map_err(|detail| WireError::Decode {
            context: self.context_of::<R>(),
            detail,
        })
    }

    fn enqueue<R: Request, T>(
        self: &Arc<Self>,
        lane: Lane,
        version: i16,
        body: Vec<Bytes>,
        decode: fn(Bytes, i16) -> Result<T, String>,
    ) -> Result<Pending<T>, WireError> {
        let (answer, receiver) = oneshot::channel();
        let (correlation_id, seen) = self.push::<R>(lane, version, body, Some(answer))?;
        Ok(Pending {
            receiver,
            deadline: Box::pin(tokio::time::sleep(self.request_timeout)),
            timeout: self.request_timeout,
            started: Instant::now(),
            correlation_id,
            seen,
            shared: self.clone(),
            api: api_name::<R>(),
            version,
            decode,
        })
    }

    /// Gives the connection up if the oldest question has waited too long, and whoever asked it waits no more.
    ///
    /// Most questions are waited for by somebody who has less time than a connection has. If its host has vanished
    /// without a word, each of them would go on to the next question, and nobody to another connection.
    fn leave_if_deserted(&self) {
        let waited_since = {
            let state = self.lock();
            let oldest = state.waiters.front();
            oldest
                .filter(|oldest| oldest.answer.is_closed())
                .map(|oldest| state.waits_since(oldest))
        };
        let is_over = |since: Instant| since + self.request_timeout <= Instant::now();
        if waited_since.is_some_and(is_over) {
            self.poison(WireError::Timeout {
                context: Arc::new(self.context.clone()),
                after: self.request_timeout,
            });
        }
    }

    /// Sends a request; the next answer is for `answer`, where one comes. Its correlation id, and what had moved
    /// before it.
    fn push<R: Request>(
        &self,
        lane: Lane,
        version: i16,
        body: Vec<Bytes>,
        answer: Option<oneshot::Sender<Result<Bytes, WireError>>>,
    ) -> Result<(i32, Moves), WireError> {
        let body_bytes = body.iter().map(Bytes::len).sum();
        self.leave_if_deserted();
        // One lock over numbering, expecting and sending: this is what makes answers match.
        let mut state = self.lock();
        if let Some(error) = &state.poison {
            return Err(error.clone().about(api_name::<R>(), None));
        }
        let correlation_id = state.next_correlation_id;
        let head = codec::request_head::<R>(version, correlation_id, &self.client_id, body_bytes)
            .map_err(|detail| WireError::Decode {
            context: self.context_of::<R>(),
            detail,
        })?;
        state.next_correlation_id = correlation_id.wrapping_add(1) & i32::MAX;
        let waiter = answer.map(|answer| Waiter {
            correlation_id,
            api_key: R::KEY,
            version,
            header_version: codec::response_header_version::<R>(version),
            asked_at: Instant::now(),
            left_at: None,
            answer,
        });
        let mut segments = Vec::with_capacity(1 + body.len());
        segments.push(head.freeze());
        segments.extend(body.into_iter().filter(|segment| !segment.is_empty()));
        let frame = Frame {
            correlation_id,
            segments,
        };
        let seen = state.counters.seen(None, None);
        match &mut state.held {
            Some(held) if lane == Lane::Ordinary => held.push_back((waiter, frame)),
            _ => state.send(waiter, frame),
        }
        Ok((correlation_id, seen))
    }
}

impl State {
    /// Since when nothing moved that brings this answer nearer.
    fn waits_since(&self, waiter: &Waiter) -> Instant {
        let moves = self.counters.seen(waiter.left_at, self.quiet_until);
        let moved_at = moves.since();
        moved_at.map_or(waiter.asked_at, |at| at.max(waiter.asked_at))
    }

    fn send(&mut self, waiter: Option<Waiter>, frame: Frame) {
        self.waiters.extend(waiter);
        // The writer only ends when the connection is poisoned, and that drains the waiters.
        let _ = self.outgoing.send(frame);
    }
}

impl Connection {
    /// Starts the two tasks on an open transport. Until
    /// [`with_versions`](Connection::with_versions), only [`start_raw`](Connection::start_raw)
    /// works.
    pub(super) fn open(
        (reader, writer): (ReadHalf, WriteHalf),
        context: ErrorContext,
        client_id: &str,
        request_timeout: Duration,
    ) -> Opening {
        let (outgoing, frames) = mpsc::unbounded_channel();
        let broker = context.broker.unwrap_or(-1);
        let shared = Arc::new(Shared {
            context,
            closed: CancellationToken::new(),
            client_id: StrBytes::from_string(client_id.to_owned()),
            request_timeout,
            opened_at: Instant::now(),
            is_introduced: AtomicBool::new(false),
            state: Mutex::new(State {
                poison: None,
                next_correlation_id: 0,
                waiters: VecDeque::new(),
                outgoing,
                counters: Counters::default(),
                quiet_until: None,
                held: None,
            }),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(read_answers(reader, shared.clone()));
        tasks.spawn(write_requests(writer, frames, shared.clone()));
        Opening(Inner {
            broker,
            versions: VersionTable::default(),
            round_trip: Duration::ZERO,
            shared,
            tls: None,
            tasks,
        })
    }

    /// Id of the broker at the other end; negative for a bootstrap address.
    pub fn broker(&self) -> i32 {
        self.inner.broker
    }

    /// `host:port` of the broker.
    pub fn address(&self) -> &str {
        self.inner.shared.context.address.as_deref().unwrap_or("")
    }

    /// How long the way there and back took when it was opened.
    pub fn round_trip(&self) -> Duration {
        self.inner.round_trip
    }

    /// What TLS it has, if any.
    pub fn tls(&self) -> Option<&TlsFacts> {
        self.inner.tls.as_ref()
    }

    /// Whether both are handles on the same connection.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Whether the connection failed or was closed.
    pub fn is_poisoned(&self) -> bool {
        self.inner.shared.closed.is_cancelled()
    }

    /// Whether a question would wait behind one that nobody waits for any more, and that isn't answered.
    ///
    /// A broker takes up the next request of a connection when it has answered the one before. One that can't reach its
    /// controller keeps a change that it passes on for minutes, and would answer at once what it knows by itself.
    pub(super) fn is_clogged(&self) -> bool {
        let state = self.inner.shared.lock();
        let deserted = state.waiters.front().filter(|it| it.answer.is_closed());
        deserted.is_some_and(|it| state.waits_since(it) + CLOGGED_AFTER <= Instant::now())
    }

    /// The cluster's finalized features by level, such as `metadata.version`, as this broker had them
    /// when it was connected to; empty from brokers that don't tell.
    pub fn features(&self) -> &std::collections::BTreeMap<String, i16> {
        self.inner.versions.features()
    }

    /// How far the broker's image of the cluster has come, as it tells with its versions (see [`news`](super::news)); -1
    /// where it tells nothing of the kind.
    pub(super) async fn metadata_come_to(&self) -> Result<i64, WireError> {
        let known = self
            .inner
            .versions
            .pick_plain::<ApiVersionsRequest>(FIRST_VERSION);
        if known != Some(FIRST_VERSION) {
            return Ok(-1);
        }
        let shared = &self.inner.shared;
        let asked = shared.start_heartbeat(FIRST_VERSION, &versions_request())?;
        let RawAnswer { body, version } = asked.await?;
        let answer: Result<ApiVersionsResponse, String> = codec::decode_body(body, version);
        let answer = answer.map_err(|detail| WireError::Decode {
            context: shared.context_of::<ApiVersionsRequest>(),
            detail,
        })?;
        Ok(answer.finalized_features_epoch)
    }

    /// The highest version of the call that we, the broker and the caller (`max`) allow.
    pub fn version<R: Request>(&self, max: i16) -> Result<i16, WireError> {
        self.inner
            .versions
            .pick::<R>(max)
            .ok_or_else(|| WireError::UnsupportedVersion {
                context: self.inner.shared.context_of::<R>(),
                ours: (first_bounded::<R>(), R::VERSIONS.max.min(max)),
                broker: self.inner.versions.range(R::KEY),
            })
    }

    /// The version to speak, where older ones than `least` can't do what is needed.
    ///
    /// # Errors
    /// `UnsupportedVersion` when the broker is too old.
    pub fn version_at_least<R: Request>(&self, least: i16, max: i16) -> Result<i16, WireError> {
        let version = self.version::<R>(max)?;
        if version < least {
            let context = ErrorContext::clone(&self.inner.shared.context_of::<R>());
            return Err(WireError::unsupported(context, least, version));
        }
        Ok(version)
    }

    /// Sends a request and waits for its answer, as long as the cluster's request timeout.
    pub async fn call<R: Request>(&self, request: R, max: i16) -> Result<R::Response, WireError> {
        self.start(&request, max)?.await
    }

    /// Like [`call`](Connection::call) with another timeout, for calls that wait on the broker.
    pub async fn call_with_timeout<R: Request>(
        &self,
        request: R,
        max: i16,
        timeout: Duration,
    ) -> Result<R::Response, WireError> {
        self.start(&request, max)?.with_timeout(timeout).await
    }

    /// Queues the request and returns a future for its answer. Requests reach the broker in the
    /// order of these calls. The queue has no bound of its own: whoever pipelines bounds what is
    /// in flight.
    ///
    /// A request that has no answer (Produce with acks 0) must not be sent.
    pub fn start<R: Request>(
        &self,
        request: &R,
        max: i16,
    ) -> Result<Pending<R::Response>, WireError> {
        let version = self.version::<R>(max)?;
        self.inner.start::<R>(version, request)
    }

    /// Sends a request that the broker answers with nothing (Produce with acks 0), its body as it is.
    ///
    /// # Errors
    /// When the connection is closed.
    pub fn start_unanswered<R: Request>(
        &self,
        version: i16,
        body: Vec<Bytes>,
    ) -> Result<(), WireError> {
        let shared = &self.inner.shared;
        shared.push::<R>(Lane::Ordinary, version, body, None)?;
        Ok(())
    }

    /// Like [`start`](Connection::start), with a body that is already encoded for `version`, in
    /// pieces that are written without copying them.
    pub fn start_raw<R: Request>(
        &self,
        version: i16,
        body: Vec<Bytes>,
    ) -> Result<Pending<R::Response>, WireError> {
        self.inner.start_raw::<R>(version, body)
    }

    /// Like [`start`](Connection::start); the answer is handed out as it came, for callers that may
    /// not have to decode it.
    pub fn start_undecoded<R: Request>(
        &self,
        request: &R,
        max: i16,
    ) -> Result<Pending<RawAnswer>, WireError> {
        let version = self.version::<R>(max)?;
        let shared = &self.inner.shared;
        let body = shared.encode::<R>(version, request)?;
        shared.enqueue::<R, RawAnswer>(Lane::Ordinary, version, vec![body], raw_answer)
    }

    /// Decodes what [`start_undecoded`](Connection::start_undecoded) gave.
    ///
    /// # Errors
    /// When it isn't an answer to such a request.
    pub fn decode<R: Request>(&self, answer: RawAnswer) -> Result<R::Response, WireError> {
        codec::decode_body(answer.body, answer.version).map_err(|detail| WireError::Decode {
            context: self.inner.shared.context_of::<R>(),
            detail,
        })
    }

    /// Since when the oldest request waits and nothing moves that would bring its answer nearer; in the
    /// future while the broker wants silence. `None` while nothing is asked.
    pub fn waits_since(&self) -> Option<Instant> {
        let state = self.inner.shared.lock();
        let oldest = state.waiters.front()?;
        Some(state.waits_since(oldest))
    }

    /// When anything moved on it last, in either direction.
    #[cfg(test)]
    pub(super) fn moved_at(&self) -> Option<Instant> {
        self.inner.shared.lock().counters.moved_at()
    }

    /// Until when the broker wants silence, because of a quota.
    pub fn quiet_until(&self) -> Option<Instant> {
        let until = self.inner.shared.quiet_until();
        until.filter(|until| *until > Instant::now())
    }

    /// Notes that the broker wants silence, as somebody else was told by it.
    pub fn stay_quiet_for(&self, time: Duration) {
        self.inner.shared.stay_quiet_for(time.min(LONGEST));
    }

    /// Until when the broker wanted silence last, which may be over.
    pub fn quiet_until_last(&self) -> Option<Instant> {
        self.inner.shared.quiet_until()
    }

    /// Closes the connection for everyone.
    pub fn close(&self) {
        let shared = &self.inner.shared;
        shared.poison(WireError::Disconnected {
            context: Arc::new(shared.context.clone()),
        });
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("broker", &self.broker())
            .field("address", &self.address())
            .field("poisoned", &self.is_poisoned())
            .finish()
    }
}

/// A connection that doesn't know the broker's versions yet.
pub(super) struct Opening(Inner);

impl Opening {
    /// Sends a request at a version of our choice.
    pub(super) fn start<R: Request>(
        &self,
        version: i16,
        request: &R,
    ) -> Result<Pending<RawAnswer>, WireError> {
        let shared = &self.0.shared;
        let body = shared.encode::<R>(version, request)?;
        // The answer's version isn't known before it is seen: hand out the bytes.
        shared.enqueue::<R, RawAnswer>(Lane::Ordinary, version, vec![body], raw_answer)
    }

    pub(super) fn context<R: Request>(&self) -> Arc<ErrorContext> {
        self.0.shared.context_of::<R>()
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    pub(super) fn set_round_trip(&mut self, took: Duration) {
        self.0.round_trip = took;
    }

    pub(super) fn set_tls(&mut self, facts: Option<TlsFacts>) {
        self.0.tls = facts;
    }

    /// Runs a task as long as the connection is there.
    pub(super) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.tasks.spawn(task);
    }

    pub(super) fn with_versions(mut self, versions: VersionTable) -> Connection {
        self.0.versions = versions;
        self.0.shared.is_introduced.store(true, Ordering::Release);
        Connection {
            inner: Arc::new(self.0),
        }
    }
}

/// The body of an answer as it came, and the version in which it is written.
#[derive(Debug)]
pub struct RawAnswer {
    /// What comes after the header.
    pub body: Bytes,
    /// The request's version.
    pub version: i16,
}

fn raw_answer(body: Bytes, version: i16) -> Result<RawAnswer, String> {
    Ok(RawAnswer { body, version })
}

impl Inner {
    fn start<R: Request>(
        &self,
        version: i16,
        request: &R,
    ) -> Result<Pending<R::Response>, WireError> {
        let body = self.shared.encode::<R>(version, request)?;
        self.start_raw::<R>(version, vec![body])
    }

    fn start_raw<R: Request>(
        &self,
        version: i16,
        body: Vec<Bytes>,
    ) -> Result<Pending<R::Response>, WireError> {
        let decode = decode_answer::<R::Response>;
        self.shared
            .enqueue::<R, R::Response>(Lane::Ordinary, version, body, decode)
    }
}

fn decode_answer<T: Decodable>(body: Bytes, version: i16) -> Result<T, String> {
    codec::decode_body(body, version)
}

/// An answer that is on its way. It is decoded by whoever awaits it, not by the reader task.
///
/// Dropping it is safe: the answer is read and thrown away. The time runs from the start of the
/// request, and anew from each byte that brings the answer nearer (see `moves`). When it is over the
/// whole connection is given up, because answers come in order and a missing one blocks those behind it.
#[must_use = "the request is sent, but its outcome is lost"]
pub struct Pending<T> {
    receiver: oneshot::Receiver<Result<Bytes, WireError>>,
    deadline: Pin<Box<Sleep>>,
    timeout: Duration,
    started: Instant,
    correlation_id: i32,
    /// What had moved when it was looked last.
    seen: Moves,
    shared: Arc<Shared>,
    api: &'static str,
    version: i16,
    decode: fn(Bytes, i16) -> Result<T, String>,
}

impl<T> Pending<T> {
    /// The same with another timeout, still from the start of the request.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self.deadline.as_mut().reset(self.started + timeout);
        self
    }

    fn context(&self) -> Arc<ErrorContext> {
        let mut context = self.shared.context.clone();
        context.api = Some(self.api);
        Arc::new(context)
    }

    /// Time is up only if nothing moved, and only if we were allowed to send.
    fn out_of_time(&mut self, cx: &mut Context<'_>) -> bool {
        while self.deadline.as_mut().poll(cx).is_ready() {
            let moves = self.shared.moves(self.correlation_id);
            match moves.deadline(&self.seen, self.timeout) {
                Some(later) if later > Instant::now() => self.deadline.as_mut().reset(later),
                _ => return true,
            }
            self.seen = moves;
        }
        false
    }

    fn decoded(&self, body: Bytes) -> Result<T, WireError> {
        (self.decode)(body, self.version).map_err(|detail| WireError::Decode {
            context: self.context(),
            detail,
        })
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T, WireError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(answer) = Pin::new(&mut self.receiver).poll(cx) {
            return Poll::Ready(match answer {
                Ok(Ok(body)) => self.decoded(body),
                Ok(Err(error)) => Err(error.about(self.api, None)),
                // The reader went away without a word: only when the runtime shuts down.
                Err(_) => {
                    Err(self
                        .shared
                        .poison_error()
                        .unwrap_or_else(|| WireError::Disconnected {
                            context: self.context(),
                        }))
                }
            });
        }
        if !self.out_of_time(cx) {
            return Poll::Pending;
        }
        let error = WireError::Timeout {
            context: self.context(),
            after: self.timeout,
        };
        self.shared.poison(error.clone());
        Poll::Ready(Err(error))
    }
}
