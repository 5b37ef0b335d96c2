//! A client's end of a connection.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Event, HostId, LinkId, Network, Phase};
use crate::world::clock;

/// A connection to a broker. Closed when both halves are gone.
pub struct Stream {
    reader: Reader,
    writer: Writer,
}

/// What comes from the broker.
pub struct Reader(Arc<End>);

/// What goes to the broker.
pub struct Writer(Arc<End>);

struct End {
    network: Network,
    id: LinkId,
}

impl Drop for End {
    fn drop(&mut self) {
        let mut inner = self.network.lock();
        let now_us = clock::now_us();
        let Some(link) = inner.links.get_mut(&self.id) else {
            return;
        };
        match link.phase {
            // Its machine has lost power: the broker hears nothing.
            Phase::Gone(_) => {}
            Phase::Reset | Phase::Refused => {
                inner.links.remove(&self.id);
            }
            Phase::Connecting | Phase::Open | Phase::Ended => {
                link.phase = Phase::Gone(now_us);
                inner.send_to_broker(self.id, Event::ClientClosed(self.id));
            }
        }
    }
}

impl Network {
    /// Connects a process to `address` (`host:port`).
    pub(crate) async fn connect(&self, host: HostId, address: &str) -> io::Result<Stream> {
        let id = self.lock().connect(host, address)?;
        let end = Arc::new(End {
            network: self.clone(),
            id,
        });
        poll_fn(|context| end.poll_connected(context)).await?;
        Ok(Stream {
            reader: Reader(end.clone()),
            writer: Writer(end),
        })
    }
}

impl End {
    fn poll_connected(&self, context: &Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.network.lock();
        let Some(link) = inner.links.get_mut(&self.id) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        match link.phase {
            Phase::Connecting => {
                link.reader = Some(context.waker().clone());
                Poll::Pending
            }
            Phase::Open | Phase::Ended => Poll::Ready(Ok(())),
            Phase::Refused => Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into())),
            Phase::Reset | Phase::Gone(_) => {
                Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
            }
        }
    }

    fn poll_read(&self, context: &Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.network.lock();
        let Some(link) = inner.links.get_mut(&self.id) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        if link.phase == Phase::Reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let mut has_read = false;
        while let Some(bytes) = link.inbox.front_mut()
            && buffer.remaining() > 0
        {
            let count = buffer.remaining().min(bytes.len());
            buffer.put_slice(&bytes[..count]);
            bytes.advance(count);
            has_read = true;
            if bytes.is_empty() {
                link.inbox.pop_front();
            }
        }
        if has_read || link.phase == Phase::Ended {
            return Poll::Ready(Ok(()));
        }
        link.reader = Some(context.waker().clone());
        Poll::Pending
    }

    fn poll_write(&self, context: &Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut inner = self.network.lock();
        let Some(link) = inner.links.get(&self.id) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        if link.phase != Phase::Open {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let on_the_way = link.on_the_way;
        let most = inner.path(&inner.links[&self.id]).in_flight_bytes;
        let room = most.saturating_sub(on_the_way);
        let Some(link) = inner.links.get_mut(&self.id) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        if room == 0 {
            link.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let host = link.host;
        if !inner.lives_to_write(host) {
            // The process is dead, it only hasn't fallen yet: nothing of it reaches anybody any more.
            return Poll::Pending;
        }
        let bytes = joined(parts, room);
        let count = bytes.len();
        if let Some(link) = inner.links.get_mut(&self.id) {
            link.on_the_way += count;
        }
        if count > 0 {
            inner.send_to_broker(self.id, Event::ToBroker(self.id, bytes));
        }
        Poll::Ready(Ok(count))
    }
}

fn joined(parts: &[IoSlice<'_>], most: usize) -> Bytes {
    let wanted: usize = parts.iter().map(|part| part.len()).sum();
    let mut bytes = BytesMut::with_capacity(wanted.min(most));
    for part in parts {
        let room = most - bytes.len();
        bytes.extend_from_slice(&part[..part.len().min(room)]);
    }
    bytes.freeze()
}

impl Stream {
    /// Both halves.
    pub fn into_split(self) -> (Reader, Writer) {
        (self.reader, self.writer)
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.poll_read(context, buffer)
    }
}

impl AsyncWrite for Writer {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_write(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_write(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Kafka's brokers close a connection whose client has shut down its half.
        Poll::Ready(Ok(()))
    }
}
