//! Bytes that went over the connections to a cluster, by what they were for. Below TLS: what a line carries, and is paid
//! for.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Role;
use super::transport::{ReadHalf, WriteHalf};

/// What connections are for, as far as bytes are counted apart.
const PURPOSES: [&str; 5] = ["fetch", "produce", "groups", "state", "other"];

/// One count of [`Traffic`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    /// What the connections were for.
    pub purpose: &'static str,
    /// Bytes to the cluster.
    pub sent: u64,
    /// Bytes from it.
    pub received: u64,
}

/// The counts of one cluster.
#[derive(Debug, Default)]
pub struct Traffic {
    sent: [AtomicU64; PURPOSES.len()],
    received: [AtomicU64; PURPOSES.len()],
}

impl Traffic {
    /// What it is now.
    pub fn carried(&self) -> Vec<Carried> {
        let counts = PURPOSES.iter().zip(self.sent.iter().zip(&self.received));
        counts
            .map(|(purpose, (sent, received))| Carried {
                purpose,
                sent: sent.load(Ordering::Relaxed),
                received: received.load(Ordering::Relaxed),
            })
            .collect()
    }

    /// The same halves, counted.
    pub(super) fn counted(
        self: &Arc<Self>,
        (reader, writer): (ReadHalf, WriteHalf),
        role: Role,
    ) -> (ReadHalf, WriteHalf) {
        let purpose = purpose(role);
        let reader = Counted {
            half: reader,
            traffic: self.clone(),
            purpose,
        };
        let writer = Counted {
            half: writer,
            traffic: self.clone(),
            purpose,
        };
        (Box::new(reader), Box::new(writer))
    }
}

/// Its place in [`PURPOSES`].
fn purpose(role: Role) -> usize {
    match role {
        Role::Fetch(_) => 0,
        Role::Produce(_) | Role::Quota => 1,
        Role::Coordinator | Role::Tail => 2,
        Role::State | Role::StateWrites => 3,
        Role::Admin | Role::Alive | Role::Members | Role::Read | Role::Slow => 4,
    }
}

struct Counted<H> {
    half: H,
    traffic: Arc<Traffic>,
    purpose: usize,
}

impl<H: AsyncRead + Unpin> AsyncRead for Counted<H> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.half).poll_read(context, buffer);
        let count = buffer.filled().len() - before;
        self.traffic.received[self.purpose].fetch_add(count as u64, Ordering::Relaxed);
        polled
    }
}

impl<H> Counted<H> {
    fn wrote(&self, polled: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(count)) = polled {
            self.traffic.sent[self.purpose].fetch_add(*count as u64, Ordering::Relaxed);
        }
    }
}

impl<H: AsyncWrite + Unpin> AsyncWrite for Counted<H> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.half).poll_write(context, bytes);
        self.wrote(&polled);
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.half).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.half).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.half).poll_write_vectored(context, slices);
        self.wrote(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.half.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn bytes_are_counted_both_ways_by_what_they_are_for() {
        let traffic = Arc::new(Traffic::default());
        let (near, mut far) = tokio::io::duplex(64);
        let (reader, writer) = tokio::io::split(near);
        let halves = (Box::new(reader) as ReadHalf, Box::new(writer) as WriteHalf);
        let (mut reader, mut writer) = traffic.counted(halves, Role::Fetch(3));
        writer.write_all(b"question").await.expect("open");
        far.write_all(b"an answer").await.expect("open");
        let mut answer = [0; 9];
        reader.read_exact(&mut answer).await.expect("open");
        let fetch = traffic.carried()[0];
        assert_eq!((fetch.purpose, fetch.sent, fetch.received), ("fetch", 8, 9));
        let others = traffic.carried().into_iter().skip(1);
        assert_eq!(others.map(|it| it.sent + it.received).sum::<u64>(), 0);
    }
}
