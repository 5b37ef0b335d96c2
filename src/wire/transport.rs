//! How bytes reach a broker: TCP unless somebody hands in another way, and what becomes of it (see
//! `tls`). Everything above sees only a pair of boxed halves.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::names::Names;
use super::{ClusterConfig, Role};
use crate::tasks::resume_panic;

/// Reading half of a connection.
pub type ReadHalf = Box<dyn AsyncRead + Send + Unpin>;
/// Writing half of a connection.
pub type WriteHalf = Box<dyn AsyncWrite + Send + Unpin>;
/// A connection that is being made.
pub type Dialing<'a> = Pin<Box<dyn Future<Output = io::Result<(ReadHalf, WriteHalf)>> + Send + 'a>>;

/// How connections are made. Dropping both halves closes one.
pub trait Dial: fmt::Debug + Send + Sync {
    /// Connects to `address` (`host:port`). Whoever asks limits the time.
    fn dial<'a>(&'a self, address: &'a str) -> Dialing<'a>;

    /// The same, for much data to somebody who may let it wait for long.
    fn dial_for_bulk<'a>(&'a self, address: &'a str) -> Dialing<'a> {
        self.dial(address)
    }

    /// The last connection to `address` was taken, and nothing was said on it. Whether another one may lead to
    /// somebody else: the name may have several addresses, and what is behind one of them may be gone.
    fn was_silent(&self, _address: &str) -> bool {
        false
    }
}

/// How long an address of a name may take before the next one is tried beside it (RFC 8305 says 250 ms).
const NEXT_AFTER: Duration = Duration::from_millis(250);
/// More addresses of a name aren't tried.
const ADDRESSES_MAX: usize = 16;

/// After so much silence the system asks whether the other end is still there, and so often. A broker that works for long on
/// a request, or is frozen, has a system that answers.
const PROBE_AFTER: Duration = Duration::from_secs(5);
const PROBE_EVERY: Duration = Duration::from_secs(2);
const PROBES: u32 = 3;
/// How long what was sent may go unacknowledged by the other end's system, or unsent because that has no room.
///
/// Not for [bulk](is_bulk): the system counts a broker that reads nothing as one that is dead, although its own system answers each
/// probe. One that holds us back for a quota, or works on a request for long, may read nothing for minutes of what is on its way
/// already. Nothing else is so much that it doesn't fit into a socket's buffer, and behind an answer that asks for silence nothing is
/// sent. See `moves`.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(12);

/// Connections over TCP, to any address that the name resolves to. Clones look names up together.
#[derive(Clone, Debug, Default)]
pub struct Tcp {
    names: Arc<Names>,
}

impl Dial for Tcp {
    fn dial<'a>(&'a self, address: &'a str) -> Dialing<'a> {
        Box::pin(self.connect(address, Some(ACKNOWLEDGED_WITHIN)))
    }

    fn dial_for_bulk<'a>(&'a self, address: &'a str) -> Dialing<'a> {
        Box::pin(self.connect(address, None))
    }

    fn was_silent(&self, address: &str) -> bool {
        self.names.was_silent(address)
    }
}

impl Tcp {
    /// With another resolver than the system's.
    #[cfg(test)]
    pub(crate) fn resolved_by(
        lookup: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Self {
        let names = Arc::new(Names::new(Arc::new(lookup)));
        Self { names }
    }

    async fn connect(
        &self,
        address: &str,
        acknowledged_within: Option<Duration>,
    ) -> io::Result<(ReadHalf, WriteHalf)> {
        let candidates = self.names.addresses(address).await?;
        let (peer, stream) = connect_any(candidates).await?;
        self.names.connected(address, peer);
        prepare(&stream, acknowledged_within)?;
        let (reader, writer) = stream.into_split();
        let halves: (ReadHalf, WriteHalf) = (Box::new(reader), Box::new(writer));
        Ok(halves)
    }
}

fn prepare(stream: &TcpStream, acknowledged_within: Option<Duration>) -> io::Result<()> {
    // Requests are written whole: waiting for more would only add latency.
    stream.set_nodelay(true)?;
    let probes = TcpKeepalive::new()
        .with_time(PROBE_AFTER)
        .with_interval(PROBE_EVERY)
        .with_retries(PROBES);
    let socket = SockRef::from(stream);
    // Other systems have no such option.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(acknowledged_within)?;
    #[cfg(not(target_os = "linux"))]
    let _ = acknowledged_within;
    socket.set_tcp_keepalive(&probes)
}

/// Whether so much is sent there that a socket's buffer doesn't hold it while the broker reads nothing: records, our own state's, too,
/// and what fills prefixes.
fn is_bulk(role: Role) -> bool {
    matches!(
        role,
        Role::Produce(_) | Role::Slow | Role::State | Role::StateWrites
    )
}

/// Connects to `address` (`host:port`) within `connect_timeout`.
pub(super) async fn connect(
    config: &ClusterConfig,
    address: &str,
    role: Role,
) -> io::Result<(ReadHalf, WriteHalf)> {
    let connecting = match role {
        role if is_bulk(role) => config.dial.dial_for_bulk(address),
        _ => config.dial.dial(address),
    };
    tokio::time::timeout(config.connect_timeout, connecting)
        .await
        .map_err(|_| {
            io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no connection within {:?}", config.connect_timeout),
            )
        })?
}

/// The first address that takes the connection. One that doesn't answer keeps the others waiting for a moment only.
async fn connect_any(addresses: Vec<SocketAddr>) -> io::Result<(SocketAddr, TcpStream)> {
    let mut candidates = addresses.into_iter().take(ADDRESSES_MAX);
    let mut connecting = JoinSet::new();
    let mut last = None;
    loop {
        let next = candidates.next();
        let is_last = next.is_none();
        if let Some(address) = next {
            connecting.spawn(async move { (address, TcpStream::connect(address).await) });
        }
        let patience = if is_last { Duration::MAX } else { NEXT_AFTER };
        match tokio::time::timeout(patience, connecting.join_next()).await {
            Ok(Some(Ok((address, Ok(stream))))) => return Ok((address, stream)),
            Ok(Some(Ok((_, Err(error))))) => last = Some(error),
            Ok(Some(Err(error))) => resume_panic(error),
            Ok(None) if is_last => break,
            Ok(None) | Err(_) => {}
        }
    }
    Err(last.unwrap_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, "the name resolves to no address")
    }))
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};
    use tokio::time::Instant;

    use super::*;

    /// A listener that takes no connection: its queue is full, so packets to it are dropped.
    async fn black_hole() -> (SocketAddr, Vec<TcpStream>, TcpListener) {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .expect("a free port");
        let listener = socket.listen(1).expect("listens");
        let address = listener.local_addr().expect("bound");
        let mut kept = Vec::new();
        loop {
            let moment = Duration::from_millis(300);
            match tokio::time::timeout(moment, TcpStream::connect(address)).await {
                Ok(stream) => kept.push(stream.expect("connects")),
                Err(_) => return (address, kept, listener),
            }
        }
    }

    fn dials(addresses: Vec<SocketAddr>) -> Tcp {
        Tcp::resolved_by(move |_: &str| Ok(addresses.clone()))
    }

    #[tokio::test]
    async fn a_black_hole_among_a_name_s_addresses_costs_a_moment() {
        let (hole, _kept, _listener) = black_hole().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let alive = listener.local_addr().expect("bound");
        let began = Instant::now();
        let dialed = dials(vec![hole, hole, alive]).dial("broker:9092").await;
        assert!(dialed.is_ok());
        // The system itself takes two minutes to give one up.
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "{:?}",
            began.elapsed()
        );
    }

    #[tokio::test]
    async fn addresses_that_refuse_cost_nothing_and_the_reason_is_told() {
        // Nobody listens there, and nobody else gets it.
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .expect("a free port");
        let gone = socket.local_addr().expect("bound");
        let refused = dials(vec![gone, gone]).dial("broker:9092").await;
        let Err(error) = refused else {
            panic!("nobody listens there")
        };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn the_system_asks_whether_a_silent_other_end_is_still_there() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let stream = TcpStream::connect(address).await.expect("connects");
        prepare(&stream, Some(ACKNOWLEDGED_WITHIN)).expect("options");
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().expect("an option"));
        assert_eq!(socket.tcp_keepalive_time().expect("an option"), PROBE_AFTER);
        let every = socket.tcp_keepalive_interval().expect("an option");
        let probes = socket.tcp_keepalive_retries().expect("an option");
        // Well within what a request may take (`request.timeout.ms`).
        assert!(PROBE_AFTER + every * probes < Duration::from_secs(15));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn what_nobody_acknowledges_ends_a_connection_and_records_may_wait() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        for within in [Some(ACKNOWLEDGED_WITHIN), None] {
            let stream = TcpStream::connect(address).await.expect("connects");
            prepare(&stream, within).expect("options");
            let set = SockRef::from(&stream).tcp_user_timeout();
            assert_eq!(set.expect("an option"), within);
        }
    }

    #[test]
    fn where_much_is_sent_a_broker_may_read_nothing_for_long() {
        for role in [Role::Produce(0), Role::Slow, Role::State, Role::StateWrites] {
            assert!(is_bulk(role), "{role:?}");
        }
        for role in [Role::Admin, Role::Fetch(0), Role::Read, Role::Alive] {
            assert!(!is_bulk(role), "{role:?}");
        }
    }

    /// Fills the way to somebody who reads nothing; what the system says of it within that time.
    #[cfg(target_os = "linux")]
    async fn filled(
        acknowledged_within: Option<Duration>,
        within: Duration,
    ) -> Option<io::ErrorKind> {
        use tokio::io::AsyncWriteExt;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let mut stream = TcpStream::connect(address).await.expect("connects");
        let (_reads_nothing, _) = listener.accept().await.expect("connects");
        prepare(&stream, acknowledged_within).expect("options");
        let piece = vec![0; 1 << 20];
        let filling = async {
            loop {
                if let Err(error) = stream.write_all(&piece).await {
                    return error.kind();
                }
            }
        };
        tokio::time::timeout(within, filling).await.ok()
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn who_reads_nothing_is_waited_for_only_where_there_is_no_limit() {
        let limit = Some(Duration::from_secs(1));
        let (soon, late) = (Duration::from_secs(5), Duration::from_secs(60));
        let (limited, bulk) = tokio::join!(filled(limit, late), filled(None, soon));
        assert_eq!(limited, Some(io::ErrorKind::TimedOut));
        assert_eq!(bulk, None);
    }
}
