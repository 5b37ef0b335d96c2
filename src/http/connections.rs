//! Connections: a bounded number, each with deadlines, none in another's way.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{self, AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// No more connections are open at a time. One more closes the one that was used least recently,
/// so that nobody keeps others out by opening connections and doing nothing.
pub const CONNECTIONS_MAX: usize = 256;

/// A client that doesn't complete the TLS handshake holds a connection no longer.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// The same for the head of a request, or for the next request after an answer.
const HEAD_WITHIN: Duration = Duration::from_secs(30);
/// No connection lives longer, however slowly it takes its answer. Clients connect again.
const LIFE_MAX: Duration = Duration::from_secs(600);
/// At the end of its life, or of the server, what is under way gets this long to be finished.
const FINISH_WITHIN: Duration = Duration::from_secs(1);
/// A request's head; ours are far smaller.
const HEAD_BYTES_MAX: usize = 16 * 1_024;
/// After an error that isn't one connection's own, such as too many open files.
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(1);

/// Accepts until cancelled, then ends with all connections.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    cancel: CancellationToken,
) {
    let mut tasks = JoinSet::new();
    let mut open = Open::default();
    loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => break,
            Some(ended) = tasks.join_next_with_id() => {
                open.forget(match ended {
                    Ok((id, ())) => id,
                    Err(crash) => crash.id(),
                });
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                open.make_room();
                let used = open.clock.clone();
                let connection = Connection {
                    peer,
                    router: router.clone(),
                    last_use: Arc::default(),
                    clock: used,
                    cancel: cancel.clone(),
                };
                connection.touch();
                let last_use = connection.last_use.clone();
                let handle = tasks.spawn(connection.run(stream, tls.clone()));
                open.add(handle, last_use);
            }
            Err(error) if is_one_connection_s(&error) => {}
            Err(error) => {
                warn!("the HTTP server can't accept connections at the moment: {error}");
                tokio::select! {
                    () = cancel.cancelled() => break,
                    () = sleep(PAUSE_AFTER_ERROR) => {}
                }
            }
        }
    }
    drop(listener);
    // They end by themselves, by the same token.
    while tasks.join_next().await.is_some() {}
}

fn is_one_connection_s(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

/// The open connections with the time of their last use, in ticks of a common clock that goes
/// on by one with every use.
#[derive(Default)]
struct Open {
    connections: HashMap<task::Id, (AbortHandle, Arc<AtomicU64>)>,
    clock: Arc<AtomicU64>,
}

impl Open {
    fn add(&mut self, handle: AbortHandle, last_use: Arc<AtomicU64>) {
        self.connections.insert(handle.id(), (handle, last_use));
    }

    fn forget(&mut self, id: task::Id) {
        self.connections.remove(&id);
    }

    /// Closes the connection that was used least recently when there are too many.
    fn make_room(&mut self) {
        if self.connections.len() < CONNECTIONS_MAX {
            return;
        }
        let oldest = self
            .connections
            .values()
            .min_by_key(|(_, last_use)| last_use.load(Ordering::Relaxed))
            .map(|(handle, _)| handle.clone());
        if let Some(oldest) = oldest {
            oldest.abort();
            self.forget(oldest.id());
        }
    }
}

struct Connection {
    peer: SocketAddr,
    router: Router,
    last_use: Arc<AtomicU64>,
    clock: Arc<AtomicU64>,
    cancel: CancellationToken,
}

impl Connection {
    fn touch(&self) {
        let now = self.clock.fetch_add(1, Ordering::Relaxed);
        self.last_use.store(now, Ordering::Relaxed);
    }

    /// What goes wrong on one connection is its client's business.
    async fn run(self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        let peer = self.peer;
        // Without it answers are only slower.
        let _ = stream.set_nodelay(true);
        let Some(tls) = tls else {
            return self.speak(stream).await;
        };
        let handshake = timeout(HANDSHAKE_WITHIN, tls.accept(stream));
        let shaken = tokio::select! {
            () = self.cancel.cancelled() => return,
            shaken = handshake => shaken,
        };
        match shaken {
            Ok(Ok(stream)) => self.speak(stream).await,
            Ok(Err(error)) => debug!(%peer, "no TLS handshake: {error}"),
            Err(_) => debug!(%peer, "no TLS handshake in time"),
        }
    }

    async fn speak(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let (peer, cancel) = (self.peer, self.cancel.clone());
        let router = TowerToHyperService::new(self.router.clone());
        let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
            self.touch();
            request.extensions_mut().insert(ConnectInfo(peer));
            router.call(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WITHIN)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = async { tokio::select! { () = cancel.cancelled() => {}, () = sleep(LIFE_MAX) => {} } } => {
                connection.as_mut().graceful_shutdown();
                timeout(FINISH_WITHIN, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            debug!(%peer, "the connection broke: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_least_recently_used_makes_room() {
        let mut tasks = JoinSet::new();
        let mut open = Open::default();
        let mut ids = Vec::new();
        for number in 0..CONNECTIONS_MAX as u64 {
            let handle = tasks.spawn(std::future::pending::<()>());
            ids.push(handle.id());
            // The third one is the oldest: the first two were used again.
            let last_use = if number < 2 { 1_000 } else { number };
            open.add(handle, Arc::new(AtomicU64::new(last_use)));
        }
        open.make_room();
        let crash = tasks
            .join_next_with_id()
            .await
            .expect("one has ended")
            .expect_err("aborted");
        assert_eq!(crash.id(), ids[2]);
        assert_eq!(open.connections.len(), CONNECTIONS_MAX - 1);
        // One fewer than the limit: there is room.
        open.make_room();
        assert_eq!(open.connections.len(), CONNECTIONS_MAX - 1);
    }
}
