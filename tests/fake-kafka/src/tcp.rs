//! A cluster behind real sockets on 127.0.0.1, in real time: for other processes and for librdkafka.

use std::collections::BTreeMap;
use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::cluster::Cluster;
use crate::connection::Connection;
use crate::state::Condition;

/// Listens for every broker until it is dropped. It has a thread of its own, so tests of any kind can hold it.
pub struct Server {
    addresses: BTreeMap<i32, SocketAddr>,
    /// Sockets that never listen: nobody else gets the port of a broker that is stopped.
    _ports: Vec<TcpSocket>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Takes a free port for every broker, and tells the cluster, so that metadata names them.
    pub fn start(cluster: &Cluster) -> Self {
        let (mut listeners, mut ports) = (BTreeMap::new(), Vec::new());
        for id in cluster.look(|state| state.brokers.keys().copied().collect::<Vec<_>>()) {
            let port = bound((Ipv4Addr::LOCALHOST, 0).into());
            let address = port.local_addr().expect("bound");
            let listener = std::net::TcpListener::bind(address).expect("our own port");
            listener
                .set_nonblocking(true)
                .expect("a socket can be nonblocking");
            listeners.insert(id, listener);
            ports.push(port);
        }
        let addresses: BTreeMap<i32, SocketAddr> = listeners
            .iter()
            .map(|(&id, listener)| (id, listener.local_addr().expect("bound")))
            .collect();
        cluster.control(|state| {
            for (id, address) in &addresses {
                let broker = state.brokers.get_mut(id).expect("just listed");
                broker.host = address.ip().to_string();
                broker.port = address.port();
            }
        });
        let (stop, stopped) = oneshot::channel();
        let cluster = cluster.clone();
        let thread = std::thread::Builder::new()
            .name("fake-kafka".to_owned())
            .spawn(move || serve(&cluster, listeners, stopped))
            .expect("a thread starts");
        Self {
            addresses,
            _ports: ports,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// All brokers, as `bootstrap.servers`.
    pub fn bootstrap(&self) -> String {
        let all: Vec<String> = self.addresses.values().map(ToString::to_string).collect();
        all.join(",")
    }

    /// One broker's address.
    pub fn address(&self, broker: i32) -> SocketAddr {
        self.addresses[&broker]
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in there was printed by its thread already.
            let _ = thread.join();
        }
    }
}

/// The brokers' clock in real time.
pub fn wall_clock_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn serve(
    cluster: &Cluster,
    listeners: BTreeMap<i32, std::net::TcpListener>,
    stopped: oneshot::Receiver<()>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime starts");
    runtime.block_on(async {
        let mut brokers = JoinSet::new();
        for (id, listener) in listeners {
            let address = listener.local_addr().expect("bound");
            let listener = TcpListener::from_std(listener).expect("a bound socket");
            brokers.spawn(listen(cluster.clone(), id, address, listener));
        }
        // The sender is dropped to say stop.
        let _ = stopped.await;
    });
}

/// Accepts while the broker runs; connections to a stopped one are refused.
async fn listen(cluster: Cluster, broker: i32, address: SocketAddr, first: TcpListener) {
    let mut changes = cluster.on_change();
    let mut connections = JoinSet::new();
    let open = Arc::new(AtomicUsize::new(0));
    let mut listener = Some(first);
    loop {
        let alive = cluster.look(|state| state.condition(broker) != Condition::Stopped);
        if !alive {
            listener = None;
        } else if listener.is_none() {
            listener = Some(bind_again(address));
        }
        tokio::select! {
            accepted = accept(listener.as_ref()) => {
                let (most, pause_ms) = cluster.look(|state| {
                    let options = &state.options;
                    (options.connections_max, options.connection_pause_ms)
                });
                if most.is_none_or(|most| open.load(Ordering::SeqCst) < most) {
                    let one = One::of(&open);
                    let conversing = converse(cluster.clone(), broker, accepted);
                    connections.spawn(async move {
                        conversing.await;
                        drop(one);
                    });
                }
                tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            }
            _ = changes.changed() => {}
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

/// One of the connections that are open.
struct One(Arc<AtomicUsize>);

impl One {
    fn of(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::SeqCst);
        Self(open.clone())
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn accept(listener: Option<&TcpListener>) -> TcpStream {
    let Some(listener) = listener else {
        return pending().await;
    };
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            return stream;
        }
    }
}

/// The port was ours before; old connections to it may still linger.
fn bind_again(address: SocketAddr) -> TcpListener {
    bound(address).listen(128).expect("a bound socket listens")
}

/// A socket at an address that it shares with others of ours, of which one listens.
fn bound(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("an option of sockets");
    socket.bind(address).expect("a free port on 127.0.0.1");
    socket
}

async fn converse(cluster: Cluster, broker: i32, mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut changes = cluster.on_change();
    let mut connection = Connection::new(&cluster, broker);
    let mut buffer = BytesMut::with_capacity(64 * 1024);
    loop {
        changes.mark_unchanged();
        let now_ms = wall_clock_ms();
        let output = connection.advance(now_ms);
        if !output.bytes.is_empty() && stream.write_all(&output.bytes).await.is_err() {
            return;
        }
        if output.close {
            return;
        }
        tokio::select! {
            read = stream.read_buf(&mut buffer) => match read {
                Ok(0) | Err(_) => return,
                Ok(_) => {
                    connection.receive(&buffer);
                    buffer.clear();
                }
            },
            _ = changes.changed() => {}
            () = sleep_until(output.wake_at_ms, now_ms) => {}
        }
    }
}

async fn sleep_until(wake_at_ms: Option<i64>, now_ms: i64) {
    match wake_at_ms {
        None => pending().await,
        Some(at_ms) => {
            let wait_ms = u64::try_from(at_ms - now_ms).unwrap_or(0);
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::state::Options;

    const DEADLINE: Duration = Duration::from_secs(60);

    fn until(what: &str, is_so: impl Fn() -> bool) {
        let began = Instant::now();
        while !is_so() {
            assert!(
                began.elapsed() < DEADLINE,
                "not within {DEADLINE:?}: {what}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Somebody else's cluster, which answers there, would be taken for the one that was stopped.
    #[test]
    fn nobody_else_gets_the_port_of_a_broker_that_is_stopped() {
        let cluster = Cluster::new(Options::default());
        let server = Server::start(&cluster);
        let address = server.address(1);
        let connects = || std::net::TcpStream::connect(address).is_ok();
        until("it listens", connects);
        for _ in 0..3 {
            cluster.control(|state| state.stop_broker(1));
            until("it is stopped", || !connects());
            let stranger = TcpSocket::new_v4().expect("a socket");
            let taken = stranger.bind(address).expect_err("it is taken");
            assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
            cluster.control(|state| state.start_broker(1));
            until("it is back", connects);
        }
    }
}
