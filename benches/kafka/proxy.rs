//! A long line: a loopback proxy that delivers every byte a fixed time after it came.
//!
//! Bandwidth is not limited: the delay line takes whatever comes, up to a bound that no
//! contestant reaches (it would then be the bound that is measured).

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Read at once, bytes.
const CHUNK_BYTES: usize = 256 * 1024;
/// Chunks on the line in one direction.
const CHUNKS_MAX: usize = 4_096;

/// A running proxy; ends when dropped.
pub struct Proxy {
    _runtime: tokio::runtime::Runtime,
}

impl Proxy {
    /// Listens on `from` and leads to `to`, `delay` each way.
    pub fn start(from: &str, to: &str, delay: Duration) -> Self {
        let from: SocketAddr = from.parse().expect("IP:port");
        let to: SocketAddr = to.parse().expect("IP:port");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime starts");
        let listener = runtime
            .block_on(TcpListener::bind(from))
            .expect("the port is ours");
        runtime.spawn(accept(listener, to, delay));
        Self { _runtime: runtime }
    }
}

async fn accept(listener: TcpListener, to: SocketAddr, delay: Duration) {
    while let Ok((client, _)) = listener.accept().await {
        tokio::spawn(async move {
            // The handshake itself takes the line's time, once each way.
            tokio::time::sleep(2 * delay).await;
            let Ok(server) = TcpStream::connect(to).await else {
                return;
            };
            let _ = client.set_nodelay(true);
            let _ = server.set_nodelay(true);
            let (client_in, client_out) = client.into_split();
            let (server_in, server_out) = server.into_split();
            tokio::join!(
                line(client_in, server_out, delay),
                line(server_in, client_out, delay)
            );
        });
    }
}

async fn line(mut input: OwnedReadHalf, mut output: OwnedWriteHalf, delay: Duration) {
    let (chunks, mut due) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS_MAX);
    let read = async move {
        let mut buffer = vec![0; CHUNK_BYTES];
        while let Ok(count @ 1..) = input.read(&mut buffer).await {
            let chunk = buffer[..count].to_vec();
            if chunks.send((Instant::now() + delay, chunk)).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((at, chunk)) = due.recv().await {
            tokio::time::sleep_until(at).await;
            if output.write_all(&chunk).await.is_err() {
                return;
            }
        }
        let _ = output.shutdown().await;
    };
    tokio::join!(read, write);
}
