//! A TCP proxy on 127.0.0.1 that delivers every byte later than it came, holds bytes back, or cuts
//! its connections.
//!
//! The delay is a line's, not a queue's: bytes that came together leave together, each chunk at
//! its own due time, so any amount can be on the way at once. A thin one has a rate that all of its
//! connections share, and bounds what one of them may have on its way, as brokers' socket buffers do.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often a line that holds its bytes back looks whether it still shall.
const STALL_PAUSE: Duration = Duration::from_millis(20);

/// Read at once.
const CHUNK_BYTES: usize = 256 * 1024;
/// Read at once where the line is thin.
const PIECE_BYTES: usize = 8 * 1024;

/// A line that carries little.
#[derive(Clone, Copy, Debug)]
pub struct Thin {
    /// What all connections share, each way.
    pub bytes_per_second: u64,
    /// What one connection may have on its way, each way.
    pub in_flight_bytes: usize,
}

/// What has gone over a line so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Connections that were made.
    pub connections: u64,
    /// Bytes to the broker.
    pub there: u64,
    /// Bytes from the broker.
    pub back: u64,
}

/// A running proxy; dropping it stops accepting.
#[derive(Debug)]
pub struct Proxy {
    address: String,
    line: Arc<Line>,
}

/// What all connections of a proxy share.
#[derive(Debug)]
struct Line {
    delay_ms: AtomicU64,
    is_stalled: AtomicBool,
    has_ended: AtomicBool,
    /// Connections that were idle for so long are forgotten; 0 for never.
    forgets_after_ms: AtomicU64,
    thin: Mutex<Option<Thin>>,
    /// Until when a thin line is busy, there and back.
    busy_until: [Mutex<Option<Instant>>; 2],
    connections_made: AtomicU64,
    /// Bytes there and back.
    carried: [AtomicU64; 2],
    /// Both ends of every connection, by number, to be cut.
    connections: Mutex<BTreeMap<u64, [TcpStream; 2]>>,
}

impl Proxy {
    /// Listens on `address` and forwards to `to`, with `delay` each way.
    ///
    /// # Panics
    /// When the address can't be listened on.
    pub fn start(address: &str, to: &str, delay: Duration) -> Self {
        let listener = TcpListener::bind(address)
            .unwrap_or_else(|error| panic!("the proxy can't listen on {address}: {error}"));
        let line = Arc::new(Line {
            delay_ms: AtomicU64::new(0),
            is_stalled: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            forgets_after_ms: AtomicU64::new(0),
            thin: Mutex::default(),
            busy_until: Default::default(),
            connections_made: AtomicU64::new(0),
            carried: Default::default(),
            connections: Mutex::default(),
        });
        let proxy = Self {
            address: address.to_owned(),
            line: line.clone(),
        };
        proxy.delay(delay);
        let to = to.to_owned();
        std::thread::spawn(move || {
            for (number, near) in (0..).zip(listener.incoming().flatten()) {
                if line.has_ended.load(Ordering::Acquire) {
                    return;
                }
                if let Ok(far) = TcpStream::connect(&to) {
                    connect(&line, number, &near, &far);
                }
            }
        });
        proxy
    }

    /// Delivers what comes from now on so much later, each way.
    pub fn delay(&self, delay: Duration) {
        let delay_ms = u64::try_from(delay.as_millis()).expect("a short delay");
        self.line.delay_ms.store(delay_ms, Ordering::Release);
    }

    /// Forgets every connection that is idle for so long, as a firewall does: what is sent on it then is swallowed,
    /// and nobody is told.
    pub fn forget_idle(&self, after: Duration) {
        let after_ms = u64::try_from(after.as_millis()).expect("a short time");
        self.line
            .forgets_after_ms
            .store(after_ms, Ordering::Release);
    }

    /// From now on it carries only so much.
    pub fn make_thin(&self, thin: Thin) {
        *self.line.thin() = Some(thin);
    }

    /// What it has carried so far.
    pub fn traffic(&self) -> Traffic {
        let [there, back] = &self.line.carried;
        Traffic {
            connections: self.line.connections_made.load(Ordering::Acquire),
            there: there.load(Ordering::Acquire),
            back: back.load(Ordering::Acquire),
        }
    }

    /// Delivers nothing until [`Self::resume`]: connections stay open.
    pub fn stall(&self) {
        self.line.is_stalled.store(true, Ordering::Release);
    }

    /// Delivers what was held back, and goes on.
    pub fn resume(&self) {
        self.line.is_stalled.store(false, Ordering::Release);
    }

    /// Cuts every connection that there is, with what is on its way.
    pub fn cut(&self) {
        for (_, ends) in std::mem::take(&mut *self.line.connections()) {
            for end in ends {
                let _ = end.shutdown(Shutdown::Both);
            }
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.line.has_ended.store(true, Ordering::Release);
        self.resume();
        // Wakes the listener, which then ends.
        let _ = TcpStream::connect(&self.address);
    }
}

impl Line {
    fn connections(&self) -> MutexGuard<'_, BTreeMap<u64, [TcpStream; 2]>> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn thin(&self) -> MutexGuard<'_, Option<Thin>> {
        self.thin.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When so many bytes have left, which share the line with all others that go the same way.
    fn left_at(&self, way: usize, bytes: usize, thin: Thin) -> Instant {
        let busy = &self.busy_until[way];
        let mut until = busy.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let from = until.map_or(now, |until| until.max(now));
        let left_at = from + Duration::from_secs_f64(bytes as f64 / thin.bytes_per_second as f64);
        *until = Some(left_at);
        left_at
    }

    /// Whether a connection on which something comes is forgotten.
    fn has_forgotten(&self, memory: &Memory) -> bool {
        let mut last = memory.lock().unwrap_or_else(PoisonError::into_inner);
        let after_ms = self.forgets_after_ms.load(Ordering::Acquire);
        let after = Duration::from_millis(after_ms);
        *last = last.filter(|last| after_ms == 0 || last.elapsed() < after);
        let is_forgotten = last.is_none();
        *last = last.map(|_| Instant::now());
        is_forgotten
    }

    fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms.load(Ordering::Acquire))
    }

    fn await_flow(&self) {
        while self.is_stalled.load(Ordering::Acquire) {
            std::thread::sleep(STALL_PAUSE);
        }
    }
}

/// Carries a connection both ways.
fn connect(line: &Arc<Line>, number: u64, near: &TcpStream, far: &TcpStream) {
    let (Ok(near_end), Ok(far_end)) = (near.try_clone(), far.try_clone()) else {
        return;
    };
    line.connections_made.fetch_add(1, Ordering::AcqRel);
    line.connections().insert(number, [near_end, far_end]);
    let memory = Arc::new(Mutex::new(Some(Instant::now())));
    forward(line, (number, 0), near, far, memory.clone());
    forward(line, (number, 1), far, near, memory);
}

/// When something came on a connection last; nothing once it is forgotten.
type Memory = Arc<Mutex<Option<Instant>>>;

/// Carries one direction: one thread reads and stamps, another waits and writes.
fn forward(
    line: &Arc<Line>,
    (number, way): (u64, usize),
    from: &TcpStream,
    to: &TcpStream,
    memory: Memory,
) {
    let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else {
        return;
    };
    let _ = to.set_nodelay(true);
    let (chunks, arrivals) = channel::<(Instant, Vec<u8>)>();
    let (near, far) = (line.clone(), line.clone());
    std::thread::spawn(move || {
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut on_the_way = OnTheWay::default();
        loop {
            let thin = *near.thin();
            let most = thin.map_or(CHUNK_BYTES, |_| PIECE_BYTES);
            let Ok(count) = from.read(&mut chunk[..most]) else {
                return;
            };
            if count > 0 && near.has_forgotten(&memory) {
                continue;
            }
            near.carried[way].fetch_add(count as u64, Ordering::AcqRel);
            let left_at = match thin {
                Some(thin) => {
                    on_the_way.await_room(count, thin.in_flight_bytes);
                    near.left_at(way, count, thin)
                }
                None => Instant::now(),
            };
            let due = left_at + near.delay();
            on_the_way.add(due + near.delay(), count);
            if chunks.send((due, chunk[..count].to_vec())).is_err() || count == 0 {
                return;
            }
        }
    });
    std::thread::spawn(move || {
        for (due, bytes) in arrivals {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            far.await_flow();
            if bytes.is_empty() || to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        far.connections().remove(&number);
    });
}

/// What one direction of a connection has on its way, and when its sender knows that it has arrived.
#[derive(Default)]
struct OnTheWay {
    bytes: usize,
    known: VecDeque<(Instant, usize)>,
}

impl OnTheWay {
    fn add(&mut self, known_at: Instant, bytes: usize) {
        while let Some((at, arrived)) = self.known.front().copied()
            && at <= Instant::now()
        {
            self.known.pop_front();
            self.bytes -= arrived;
        }
        self.bytes += bytes;
        self.known.push_back((known_at, bytes));
    }

    fn await_room(&mut self, bytes: usize, most: usize) {
        while self.bytes + bytes > most
            && let Some((known_at, arrived)) = self.known.pop_front()
        {
            std::thread::sleep(known_at.saturating_duration_since(Instant::now()));
            self.bytes -= arrived;
        }
    }
}
