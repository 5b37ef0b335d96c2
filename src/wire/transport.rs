//! How bytes reach a broker: TCP unless somebody hands in another way, and what becomes of it (see
//! `tls`). Everything above sees only a pair of boxed halves.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream, lookup_host};

use super::ClusterConfig;

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
}

/// Connections over TCP, to any address that the name resolves to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp {
    /// Socket send and receive buffers; `None` leaves them to the system's auto-tuning.
    pub socket_buffer_bytes: Option<usize>,
}

impl Dial for Tcp {
    fn dial<'a>(&'a self, address: &'a str) -> Dialing<'a> {
        Box::pin(async move {
            let stream = connect_any(address, self.socket_buffer_bytes).await?;
            // Requests are written whole: waiting for more would only add latency.
            stream.set_nodelay(true)?;
            let (reader, writer) = stream.into_split();
            let halves: (ReadHalf, WriteHalf) = (Box::new(reader), Box::new(writer));
            Ok(halves)
        })
    }
}

/// Connects to `address` (`host:port`) within `connect_timeout`.
pub(super) async fn connect(
    config: &ClusterConfig,
    address: &str,
) -> io::Result<(ReadHalf, WriteHalf)> {
    let connecting = config.dial.dial(address);
    tokio::time::timeout(config.connect_timeout, connecting)
        .await
        .map_err(|_| {
            io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no connection within {:?}", config.connect_timeout),
            )
        })?
}

async fn connect_any(address: &str, buffer_bytes: Option<usize>) -> io::Result<TcpStream> {
    let mut last = None;
    for candidate in lookup_host(address).await? {
        match connect_one(candidate, buffer_bytes).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, "the name resolves to no address")
    }))
}

async fn connect_one(address: SocketAddr, buffer_bytes: Option<usize>) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Before connecting, so that the window scale of the handshake fits.
    if let Some(bytes) = buffer_bytes {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        socket.set_recv_buffer_size(bytes)?;
        socket.set_send_buffer_size(bytes)?;
    }
    socket.connect(address).await
}
