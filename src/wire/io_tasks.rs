//! The two tasks of a connection: one writes requests, one reads answers.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::ResponseHeader;
use kafka_protocol::protocol::Decodable;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::connection::{Frame, Shared};
use super::error::WireError;
use super::throttle::throttle_of;
use super::tls;
use super::transport::{ReadHalf, WriteHalf};

/// Largest answer that is accepted. A length beyond it means that the other end isn't Kafka
/// (`HTTP` read as a length is 1.2 GB) or that framing is lost.
pub(super) const FRAME_BYTES_MAX: usize = 256 * 1024 * 1024;
/// The same while it isn't known yet who answers: versions and an authentication are a few kilobytes.
pub(super) const STRANGERS_FRAME_BYTES_MAX: usize = 1024 * 1024;

const LENGTH_BYTES: usize = 4;
/// Memory that is taken for an answer's word. What a longer one needs more comes with its bytes: four bytes that
/// say 256 MiB, on each of some dozen connections, are no reason to take gigabytes.
const AT_ONCE_MAX: usize = 32 * 1024 * 1024;
/// How long the one who authenticates may take to look at an answer.
const VERDICT: Duration = Duration::from_secs(1);
/// Pieces handed to the system in one write; the common limit of `writev` is 1,024.
const SEGMENTS_PER_WRITE: usize = 64;
/// Requests taken from the queue in one go.
const FRAMES_PER_WRITE: usize = 16;

/// Reads answers and hands each to the one who waits for it, until the connection is closed.
pub(super) async fn read_answers(mut reader: ReadHalf, shared: Arc<Shared>) {
    let error = tokio::select! {
        () = shared.closed.cancelled() => return,
        error = read_until_broken(&mut reader, &shared) => error,
    };
    if shared.verdict_is_due() {
        // A broker says no and hangs up. Whoever heard the no gives up the connection for it, so
        // that the reason isn't lost; this is for them to get their turn.
        let _ = tokio::time::timeout(VERDICT, shared.closed.cancelled()).await;
    }
    shared.poison(error);
}

async fn read_until_broken(reader: &mut ReadHalf, shared: &Shared) -> WireError {
    let mut frames = FrameReader::default();
    loop {
        let (bytes_max, came) = (|| shared.frame_bytes_max(), |bytes| shared.note_read(bytes));
        let outcome = match frames.next(reader, &bytes_max, &came).await {
            Ok(frame) => deliver(frame, shared),
            Err(error) => Err(error),
        };
        let context = || Arc::new(shared.context.clone());
        match outcome {
            Ok(()) => {}
            Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return WireError::Disconnected { context: context() };
            }
            Err(ReadError::Io(error)) => return io_error(error, shared),
            Err(ReadError::Tls) => return tls::broker_wants_tls(&shared.context),
            Err(ReadError::Framing(detail)) => {
                return WireError::Framing {
                    context: context(),
                    detail,
                };
            }
        }
    }
}

fn io_error(error: io::Error, shared: &Shared) -> WireError {
    tls::of_io(&error, &shared.context).unwrap_or_else(|| WireError::Io {
        context: Arc::new(shared.context.clone()),
        error: Arc::new(error),
    })
}

enum ReadError {
    Io(io::Error),
    /// The other end speaks TLS.
    Tls,
    Framing(String),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Takes frames off a stream. Each frame is read straight into a buffer of its own, whose bytes
/// then live on as slices in the decoded answer; nothing is copied or zeroed on the way.
///
/// While reading a frame it asks for the four bytes after it as well: a read that comes back short
/// tells that nothing more is there without asking again, and when answers are pipelined the next
/// length comes for free.
#[derive(Default)]
struct FrameReader {
    /// What is known of the next length, 0 to 4 bytes.
    length: Vec<u8>,
    /// Memory of the last frames, newest last.
    used: VecDeque<Used>,
}

/// A frame's memory: its size, and an empty handle that can take the memory back when nobody looks
/// at the frame any more.
struct Used {
    bytes: usize,
    rest: BytesMut,
}

/// How many frames' memory is kept for reuse. Fresh memory for every large frame costs more than
/// reading it (the system clears each page); and because small answers push large ones out, a
/// connection that became quiet holds nothing big.
const USED_KEPT: usize = 3;

impl FrameReader {
    /// The next frame, of at most `bytes_max()` bytes; `came` is told of bytes as they come.
    async fn next(
        &mut self,
        reader: &mut ReadHalf,
        bytes_max: &(dyn Fn() -> usize + Sync),
        came: &(dyn Fn(usize) + Sync),
    ) -> Result<Bytes, ReadError> {
        while self.length.len() < LENGTH_BYTES {
            let missing = LENGTH_BYTES - self.length.len();
            came(fill(reader, &mut self.length, missing).await?);
        }
        let Some(length) = self.length.first_chunk::<LENGTH_BYTES>().copied() else {
            return Err(ReadError::Framing("length is missing".to_owned()));
        };
        if tls::is_tls_alert(length) {
            return Err(ReadError::Tls);
        }
        let length = frame_length(i32::from_be_bytes(length), bytes_max())?;
        self.length.clear();

        let (mut frame, bytes) = self.buffer(length + LENGTH_BYTES);
        while frame.len() < length {
            let wanted = length + LENGTH_BYTES - frame.len();
            if frame.len() == frame.capacity() {
                frame.reserve(wanted.min(frame.len()));
            }
            came(fill(reader, &mut frame, wanted).await?);
        }
        self.length.extend_from_slice(&frame[length..]);
        let whole = frame.split_to(length).freeze();
        frame.clear();
        if self.used.len() == USED_KEPT {
            self.used.pop_front();
        }
        self.used.push_back(Used { bytes, rest: frame });
        Ok(whole)
    }

    /// An empty buffer for `wanted` bytes, and its size. Memory is only reused for frames of about
    /// its size, so that a small answer never keeps a large block alive.
    fn buffer(&mut self, wanted: usize) -> (BytesMut, usize) {
        let fits = |used: &mut Used| {
            (wanted..=wanted.saturating_mul(4)).contains(&used.bytes)
                && used.rest.try_reclaim(wanted)
        };
        if let Some(at) = self.used.iter_mut().position(fits)
            && let Some(used) = self.used.remove(at)
        {
            return (used.rest, used.bytes);
        }
        (BytesMut::with_capacity(wanted.min(AT_ONCE_MAX)), wanted)
    }
}

/// Reads once, at most `wanted` bytes; returns how many it were.
async fn fill<B: BufMut>(
    reader: &mut ReadHalf,
    buffer: &mut B,
    wanted: usize,
) -> io::Result<usize> {
    match reader.read_buf(&mut buffer.limit(wanted)).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        count => Ok(count),
    }
}

fn frame_length(length: i32, bytes_max: usize) -> Result<usize, ReadError> {
    match usize::try_from(length) {
        Ok(length) if (LENGTH_BYTES..=bytes_max).contains(&length) => Ok(length),
        // "HTTP" as a length.
        _ if length.to_be_bytes() == *b"HTTP" => Err(ReadError::Framing(
            "an HTTP server answers there, no Kafka broker".to_owned(),
        )),
        _ => Err(ReadError::Framing(format!(
            "an answer of {length} bytes (4 to {bytes_max} are possible): is this a Kafka listener, and without TLS?"
        ))),
    }
}

/// Checks that the answer is the expected one and hands its body over.
fn deliver(mut frame: Bytes, shared: &Shared) -> Result<(), ReadError> {
    let Some(waiter) = shared.next_waiter() else {
        return Err(ReadError::Framing(
            "an answer that nobody asked for".to_owned(),
        ));
    };
    // Put the waiter's fate into the poison's hands: if the answer is unusable everyone fails alike.
    let outcome = (|| {
        let correlation_id = frame.first_chunk::<4>().map(|id| i32::from_be_bytes(*id));
        if correlation_id != Some(waiter.correlation_id) {
            return Err(format!(
                "answer to request {correlation_id:?} instead of {}",
                waiter.correlation_id
            ));
        }
        ResponseHeader::decode(&mut frame, waiter.header_version)
            .map_err(|error| format!("unreadable header: {error}"))
    })();
    if let Err(detail) = outcome {
        let context = Arc::new(shared.context.clone());
        let error = WireError::Framing {
            context,
            detail: detail.clone(),
        };
        let _ = waiter.answer.send(Err(error));
        return Err(ReadError::Framing(detail));
    }
    if let Some(time) = throttle_of(waiter.api_key, waiter.version, &frame) {
        shared.stay_quiet_for(time);
    }
    // A waiter that gave up doesn't want the answer any more.
    let _ = waiter.answer.send(Ok(frame));
    Ok(())
}

/// Writes queued requests in order, until the connection is closed.
pub(super) async fn write_requests(
    mut writer: WriteHalf,
    mut frames: mpsc::UnboundedReceiver<Frame>,
    shared: Arc<Shared>,
) {
    let outcome = tokio::select! {
        () = shared.closed.cancelled() => return,
        outcome = write_until_broken(&mut writer, &mut frames, &shared) => outcome,
    };
    shared.poison(match outcome {
        Err(error) => io_error(error, &shared),
        Ok(()) => WireError::Disconnected {
            context: Arc::new(shared.context.clone()),
        },
    });
}

async fn write_until_broken(
    writer: &mut WriteHalf,
    frames: &mut mpsc::UnboundedReceiver<Frame>,
    shared: &Shared,
) -> io::Result<()> {
    let mut taken = Vec::with_capacity(FRAMES_PER_WRITE);
    let mut leaving = Leaving::default();
    while frames.recv_many(&mut taken, FRAMES_PER_WRITE).await > 0 {
        // It may be asked for more of it meanwhile.
        while let Some(until) = shared.quiet_until().filter(|it| *it > Instant::now()) {
            tokio::time::sleep_until(until).await;
        }
        taken.drain(..).for_each(|frame| leaving.add(frame));
        write_segments(writer, &mut leaving, shared).await?;
        writer.flush().await?;
    }
    Ok(())
}

/// Requests that are being written.
#[derive(Default)]
struct Leaving {
    segments: VecDeque<Bytes>,
    /// The end of each, in bytes from the beginning of the first, and its correlation id.
    ends: VecDeque<(usize, i32)>,
    /// Bytes added and written since the first.
    added: usize,
    written: usize,
}

impl Leaving {
    fn add(&mut self, frame: Frame) {
        if self.segments.is_empty() {
            (self.added, self.written) = (0, 0);
        }
        self.added += frame.segments.iter().map(Bytes::len).sum::<usize>();
        self.ends.push_back((self.added, frame.correlation_id));
        self.segments.extend(frame.segments);
    }

    /// Forgets the first `count` bytes; returns the requests of which these were the last.
    fn consume(&mut self, count: usize) -> Vec<i32> {
        consume(&mut self.segments, count);
        self.written += count;
        let mut whole = Vec::new();
        while let Some((end, id)) = self.ends.front().copied()
            && end <= self.written
        {
            self.ends.pop_front();
            whole.push(id);
        }
        whole
    }
}

async fn write_segments(
    writer: &mut WriteHalf,
    leaving: &mut Leaving,
    shared: &Shared,
) -> io::Result<()> {
    while !leaving.segments.is_empty() {
        let written = {
            let mut slices = [IoSlice::new(&[]); SEGMENTS_PER_WRITE];
            let count = leaving.segments.len().min(SEGMENTS_PER_WRITE);
            for (slice, segment) in slices.iter_mut().zip(leaving.segments.iter()) {
                *slice = IoSlice::new(segment);
            }
            writer.write_vectored(&slices[..count]).await?
        };
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let whole = leaving.consume(written);
        shared.note_written(written, &whole);
    }
    Ok(())
}

/// Forgets the first `count` bytes.
fn consume(segments: &mut VecDeque<Bytes>, mut count: usize) {
    while count > 0 {
        let Some(first) = segments.front_mut() else {
            return;
        };
        if first.len() > count {
            first.advance(count);
            return;
        }
        count -= first.len();
        segments.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::{Dice, Input, Target, memory_of};

    /// What a stranger may send before it is known who it is.
    const FRAMES: Target = Target {
        name: "frames",
        rounds: 2_000,
        bytes_base: STRANGERS_FRAME_BYTES_MAX + (64 << 10),
        bytes_per_byte: 16,
    };

    #[test]
    fn fuzz_frames() {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.expect("a runtime");
        let make = |dice: &mut Dice| {
            let mut bytes = Vec::new();
            for _ in 0..=dice.below(4) {
                let length = dice.below(3_000);
                bytes.extend(u32::try_from(length).expect("short").to_be_bytes());
                bytes.extend(dice.bytes(length));
            }
            Input::new("", dice.damage(&bytes))
        };
        FRAMES.hunt(make, |input| {
            let mut reader: ReadHalf = Box::new(io::Cursor::new(input.bytes.clone()));
            let mut frames = FrameReader::default();
            runtime.block_on(async {
                let most = || STRANGERS_FRAME_BYTES_MAX;
                while let Ok(frame) = frames.next(&mut reader, &most, &|_| ()).await {
                    drop(frame);
                }
            });
        });
    }

    /// Four bytes say how long an answer is. Its memory is taken when it comes, not for their word.
    #[tokio::test]
    async fn a_frame_that_only_says_how_long_it_is_takes_little() {
        let length = u32::try_from(FRAME_BYTES_MAX).expect("it fits");
        let bytes = [&length.to_be_bytes()[..], &[7; 100]].concat();
        let mut reader: ReadHalf = Box::new(io::Cursor::new(bytes));
        let mut frames = FrameReader::default();
        let (most, came) = (|| FRAME_BYTES_MAX, |_: usize| ());
        let reading = frames.next(&mut reader, &most, &came);
        let mut reading = std::pin::pin!(reading);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        // A cursor never keeps anybody waiting.
        let (read, bytes) = memory_of(|| reading.as_mut().poll(&mut context).is_ready());
        assert!(read && bytes <= 2 * AT_ONCE_MAX, "{bytes} bytes");
    }

    /// Longer than what is taken at once.
    #[tokio::test]
    async fn a_long_frame_arrives_whole() {
        let length = AT_ONCE_MAX * 2 + 12_345;
        let frame: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        let header = u32::try_from(length).expect("it fits").to_be_bytes();
        let bytes = [&header[..], &frame].concat();
        let mut reader: ReadHalf = Box::new(io::Cursor::new(bytes));
        let mut frames = FrameReader::default();
        let Ok(read) = frames.next(&mut reader, &|| FRAME_BYTES_MAX, &|_| ()).await else {
            panic!("a frame")
        };
        assert!(read == frame, "it is another one");
    }

    /// Frames of very different sizes, some kept while later ones are read: memory that is used
    /// again must never be memory that someone still looks at.
    #[tokio::test]
    async fn frames_that_are_kept_stay_as_they_were() {
        let sizes = [
            5, 70_000, 70_000, 4, 70_000, 300_000, 20_000, 70_000, 70_000, 4_000, 70_000,
        ];
        let (near, mut far) = tokio::io::duplex(10_000);
        let sender = tokio::spawn(async move {
            for (mark, size) in (0u8..).zip(sizes) {
                far.write_i32(size).await.expect("read");
                let frame = vec![mark; usize::try_from(size).expect("positive")];
                far.write_all(&frame).await.expect("read");
            }
        });
        let mut reader: ReadHalf = Box::new(near);
        let mut frames = FrameReader::default();
        let mut kept = Vec::new();
        for (mark, size) in (0u8..).zip(sizes) {
            let Ok(frame) = frames.next(&mut reader, &|| FRAME_BYTES_MAX, &|_| ()).await else {
                panic!("frame {mark}")
            };
            assert_eq!(frame.len(), usize::try_from(size).expect("positive"));
            // Every third is kept to the end; the others' memory may be used again.
            if mark % 3 == 1 {
                kept.push((mark, frame));
            }
        }
        sender.await.expect("sent all");
        for (mark, frame) in kept {
            assert!(frame.iter().all(|byte| *byte == mark), "frame {mark}");
        }
    }
}
