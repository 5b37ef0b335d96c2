//! A long line: a TCP proxy on 127.0.0.1 that delivers every byte later than it came.
//!
//! The delay is a line's, not a queue's: bytes that came together leave together, each chunk at
//! its own due time, so any amount can be on the way at once.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// A running proxy; dropping it stops accepting.
#[derive(Debug)]
pub struct Proxy {
    address: String,
    ended: Arc<AtomicBool>,
}

impl Proxy {
    /// Listens on `address` and forwards to `to`, with `delay` each way.
    ///
    /// # Panics
    /// When the address can't be listened on.
    pub fn start(address: &str, to: &str, delay: Duration) -> Self {
        let listener = TcpListener::bind(address)
            .unwrap_or_else(|error| panic!("the proxy can't listen on {address}: {error}"));
        let ended = Arc::new(AtomicBool::new(false));
        let (seen, to) = (ended.clone(), to.to_owned());
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                if seen.load(Ordering::Acquire) {
                    return;
                }
                let Ok(far) = TcpStream::connect(&to) else {
                    continue;
                };
                forward(&near, &far, delay);
                forward(&far, &near, delay);
            }
        });
        Self {
            address: address.to_owned(),
            ended,
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        // Wakes the listener, which then ends.
        let _ = TcpStream::connect(&self.address);
    }
}

/// Carries one direction: one thread reads and stamps, another waits and writes.
fn forward(from: &TcpStream, to: &TcpStream, delay: Duration) {
    let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else {
        return;
    };
    let _ = to.set_nodelay(true);
    let (line, arrivals) = channel::<(Instant, Vec<u8>)>();
    std::thread::spawn(move || {
        let mut chunk = vec![0; 256 * 1024];
        while let Ok(count) = from.read(&mut chunk) {
            let sent = line.send((Instant::now() + delay, chunk[..count].to_vec()));
            if count == 0 || sent.is_err() {
                return;
            }
        }
    });
    std::thread::spawn(move || {
        for (due, bytes) in arrivals {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if bytes.is_empty() || to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}
