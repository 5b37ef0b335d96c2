//! A TCP proxy on 127.0.0.1 that delivers every byte later than it came, holds bytes back, or cuts
//! its connections.
//!
//! The delay is a line's, not a queue's: bytes that came together leave together, each chunk at
//! its own due time, so any amount can be on the way at once.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often a line that holds its bytes back looks whether it still shall.
const STALL_PAUSE: Duration = Duration::from_millis(20);

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
    line.connections().insert(number, [near_end, far_end]);
    forward(line, number, near, far);
    forward(line, number, far, near);
}

/// Carries one direction: one thread reads and stamps, another waits and writes.
fn forward(line: &Arc<Line>, number: u64, from: &TcpStream, to: &TcpStream) {
    let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else {
        return;
    };
    let _ = to.set_nodelay(true);
    let (chunks, arrivals) = channel::<(Instant, Vec<u8>)>();
    let (near, far) = (line.clone(), line.clone());
    std::thread::spawn(move || {
        let mut chunk = vec![0; 256 * 1024];
        while let Ok(count) = from.read(&mut chunk) {
            let sent = chunks.send((Instant::now() + near.delay(), chunk[..count].to_vec()));
            if count == 0 || sent.is_err() {
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
