//! How bytes reach a broker: TCP, and what becomes of it (see `tls`). Everything above sees only a
//! pair of boxed halves.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream, lookup_host};

use super::ClusterConfig;

/// Reading half of a connection.
pub(super) type ReadHalf = Box<dyn AsyncRead + Send + Unpin>;
/// Writing half of a connection.
pub(super) type WriteHalf = Box<dyn AsyncWrite + Send + Unpin>;

/// Connects to `address` (`host:port`), trying every address that the name resolves to, all of it
/// within `connect_timeout`.
pub(super) async fn connect(config: &ClusterConfig, address: &str) -> io::Result<TcpStream> {
    let connecting = connect_any(address, config.socket_buffer_bytes);
    let stream = tokio::time::timeout(config.connect_timeout, connecting)
        .await
        .map_err(|_| {
            io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no connection within {:?}", config.connect_timeout),
            )
        })??;
    // Requests are written whole: waiting for more would only add latency.
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The two halves of a connection without TLS.
pub(super) fn plain(stream: TcpStream) -> (ReadHalf, WriteHalf) {
    let (reader, writer) = stream.into_split();
    (Box::new(reader), Box::new(writer))
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
