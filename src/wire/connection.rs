//! One TCP connection to one broker: requests go out in the order in which they were started, and
//! answers come back in that order.
//!
//! A reader task and a writer task belong to each connection and end with its last handle. The
//! first failure (a broken frame, a timeout, the broker hanging up) poisons the connection: everyone
//! who waits gets that error, and so does everyone who asks later. Nothing is repaired; callers get
//! a new connection from [`Cluster::connection`](super::Cluster::connection).

use std::collections::VecDeque;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::protocol::{Decodable, Request, StrBytes};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

use super::codec;
use super::error::{ErrorContext, WireError};
use super::io_tasks::{read_answers, write_requests};
use super::transport::{ReadHalf, WriteHalf};
use super::versions::{VersionTable, api_name};

/// A handle on a connection; the connection closes when the last one is gone.
#[derive(Clone)]
pub struct Connection {
    inner: Arc<Inner>,
}

struct Inner {
    broker: i32,
    versions: VersionTable,
    client_id: StrBytes,
    request_timeout: Duration,
    shared: Arc<Shared>,
    /// The reader and the writer; dropping the set ends both, which closes the socket.
    _tasks: JoinSet<()>,
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
    state: Mutex<State>,
}

struct State {
    poison: Option<WireError>,
    next_correlation_id: i32,
    waiters: VecDeque<Waiter>,
    outgoing: mpsc::UnboundedSender<Frame>,
    quiet_until: Option<Instant>,
}

/// A request as it goes on the wire: length and header, then the body in pieces.
pub(super) struct Frame {
    pub(super) segments: Vec<Bytes>,
}

/// Someone who expects the next answer.
pub(super) struct Waiter {
    pub(super) correlation_id: i32,
    pub(super) api_key: i16,
    pub(super) version: i16,
    pub(super) header_version: i16,
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
            std::mem::take(&mut state.waiters)
        };
        self.closed.cancel();
        for waiter in waiters {
            // A waiter that is gone needs no answer.
            let _ = waiter.answer.send(Err(error.clone()));
        }
    }

    /// The one who expects the answer that comes next.
    pub(super) fn next_waiter(&self) -> Option<Waiter> {
        self.lock().waiters.pop_front()
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
            state: Mutex::new(State {
                poison: None,
                next_correlation_id: 0,
                waiters: VecDeque::new(),
                outgoing,
                quiet_until: None,
            }),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(read_answers(reader, shared.clone()));
        tasks.spawn(write_requests(writer, frames, shared.clone()));
        Opening(Inner {
            broker,
            versions: VersionTable::default(),
            client_id: StrBytes::from_string(client_id.to_owned()),
            request_timeout,
            shared,
            _tasks: tasks,
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

    /// Whether the connection failed or was closed.
    pub fn is_poisoned(&self) -> bool {
        self.inner.shared.closed.is_cancelled()
    }

    /// The highest version of the call that we, the broker and the caller (`max`) allow.
    pub fn version<R: Request>(&self, max: i16) -> Result<i16, WireError> {
        self.inner
            .versions
            .pick::<R>(max)
            .ok_or_else(|| WireError::UnsupportedVersion {
                context: self.inner.context::<R>(),
                ours: (R::VERSIONS.min, R::VERSIONS.max.min(max)),
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
            let context = ErrorContext::clone(&self.inner.context::<R>());
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

    /// Like [`start`](Connection::start), with a body that is already encoded for `version`, in
    /// pieces that are written without copying them.
    pub fn start_raw<R: Request>(
        &self,
        version: i16,
        body: Vec<Bytes>,
    ) -> Result<Pending<R::Response>, WireError> {
        self.inner.start_raw::<R>(version, body)
    }

    /// Like [`start`](Connection::start) at a version that [`version`](Connection::version) gave;
    /// the answer is decoded when it is asked to.
    pub(super) fn start_undecoded<R: Request>(
        &self,
        version: i16,
        request: &R,
    ) -> Result<impl Future<Output = Result<Undecoded<R>, WireError>> + Send + use<R>, WireError>
    {
        let body = self.inner.encode::<R>(version, request)?;
        let context = self.inner.context::<R>();
        let answer = self
            .inner
            .enqueue::<R, RawAnswer>(version, vec![body], |body, _| Ok(RawAnswer(body)))?;
        Ok(async move {
            let RawAnswer(body) = answer.await?;
            Ok(Undecoded {
                body,
                version,
                context,
                request: PhantomData,
            })
        })
    }

    /// Closes the connection for everyone.
    pub(super) fn close(&self) {
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
        let body = self.0.encode::<R>(version, request)?;
        // The answer's version isn't known before it is seen: hand out the bytes.
        self.0
            .enqueue::<R, RawAnswer>(version, vec![body], |body, _| Ok(RawAnswer(body)))
    }

    pub(super) fn context<R: Request>(&self) -> Arc<ErrorContext> {
        self.0.context::<R>()
    }

    pub(super) fn with_versions(mut self, versions: VersionTable) -> Connection {
        self.0.versions = versions;
        Connection {
            inner: Arc::new(self.0),
        }
    }
}

/// The body of an answer as it came.
pub(super) struct RawAnswer(pub(super) Bytes);

/// An answer as it came, for whom equal bytes are equal answers.
#[derive(Debug)]
pub(super) struct Undecoded<R> {
    body: Bytes,
    version: i16,
    context: Arc<ErrorContext>,
    request: PhantomData<fn() -> R>,
}

impl<R: Request> Undecoded<R> {
    /// The answer behind its header.
    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    /// Where it came from.
    pub(super) fn context(&self) -> ErrorContext {
        ErrorContext::clone(&self.context)
    }

    /// What it says.
    pub(super) fn decode(self) -> Result<R::Response, WireError> {
        codec::decode_body(self.body, self.version).map_err(|detail| WireError::Decode {
            context: self.context,
            detail,
        })
    }
}

impl Inner {
    fn context<R: Request>(&self) -> Arc<ErrorContext> {
        let mut context = self.shared.context.clone();
        context.api = Some(api_name::<R>());
        Arc::new(context)
    }

    fn encode<R: Request>(&self, version: i16, request: &R) -> Result<Bytes, WireError> {
        codec::encode_body(request, version).map_err(|detail| WireError::Decode {
            context: self.context::<R>(),
            detail,
        })
    }

    fn start<R: Request>(
        &self,
        version: i16,
        request: &R,
    ) -> Result<Pending<R::Response>, WireError> {
        let body = self.encode::<R>(version, request)?;
        self.start_raw::<R>(version, vec![body])
    }

    fn start_raw<R: Request>(
        &self,
        version: i16,
        body: Vec<Bytes>,
    ) -> Result<Pending<R::Response>, WireError> {
        self.enqueue::<R, R::Response>(version, body, decode_answer::<R::Response>)
    }

    fn enqueue<R: Request, T>(
        &self,
        version: i16,
        body: Vec<Bytes>,
        decode: fn(Bytes, i16) -> Result<T, String>,
    ) -> Result<Pending<T>, WireError> {
        let body_bytes = body.iter().map(Bytes::len).sum();
        let (answer, receiver) = oneshot::channel();
        {
            // One lock over numbering, expecting and sending: this is what makes answers match.
            let mut state = self.shared.lock();
            if let Some(error) = &state.poison {
                return Err(error.clone().about(api_name::<R>(), None));
            }
            let correlation_id = state.next_correlation_id;
            let head =
                codec::request_head::<R>(version, correlation_id, &self.client_id, body_bytes)
                    .map_err(|detail| WireError::Decode {
                        context: self.context::<R>(),
                        detail,
                    })?;
            state.next_correlation_id = correlation_id.wrapping_add(1) & i32::MAX;
            state.waiters.push_back(Waiter {
                correlation_id,
                api_key: R::KEY,
                version,
                header_version: codec::response_header_version::<R>(version),
                answer,
            });
            let mut segments = Vec::with_capacity(1 + body.len());
            segments.push(head.freeze());
            segments.extend(body.into_iter().filter(|segment| !segment.is_empty()));
            // The writer only ends when the connection is poisoned, and that drains the waiters.
            let _ = state.outgoing.send(Frame { segments });
        }
        Ok(Pending {
            receiver,
            deadline: Box::pin(tokio::time::sleep(self.request_timeout)),
            timeout: self.request_timeout,
            started: Instant::now(),
            shared: self.shared.clone(),
            api: api_name::<R>(),
            version,
            decode,
        })
    }
}

fn decode_answer<T: Decodable>(body: Bytes, version: i16) -> Result<T, String> {
    codec::decode_body(body, version)
}

/// An answer that is on its way. It is decoded by whoever awaits it, not by the reader task.
///
/// Dropping it is safe: the answer is read and thrown away. The time runs from the start of the
/// request; when it is over the whole connection is given up, because answers come in order and a
/// missing one blocks those behind it.
#[must_use = "the request is sent, but its outcome is lost"]
pub struct Pending<T> {
    receiver: oneshot::Receiver<Result<Bytes, WireError>>,
    deadline: Pin<Box<Sleep>>,
    timeout: Duration,
    started: Instant,
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

    /// Time is up only if we were allowed to send: silence that the broker asked for doesn't count.
    fn out_of_time(&mut self, cx: &mut Context<'_>) -> bool {
        while self.deadline.as_mut().poll(cx).is_ready() {
            match self.shared.quiet_until().map(|until| until + self.timeout) {
                Some(later) if later > Instant::now() => self.deadline.as_mut().reset(later),
                _ => return true,
            }
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
