//! Free ports on 127.0.0.1 that stay ours.
//!
//! They come from below the ephemeral range, so that no outgoing connection sits on the port of
//! a broker that is being restarted, and each is held by a locked file, so that test processes
//! running side by side never choose the same one. The lock goes with the process.

use std::fs::{File, OpenOptions};
use std::net::TcpListener;

/// Ports to choose from; Linux gives 32768 and up to outgoing connections.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// A port that is ours for as long as this value lives.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Finds a free port and reserves it.
    ///
    /// # Panics
    /// When no port of the range is free.
    pub fn reserve() -> Self {
        let folder = super::version::cache_folder().join("ports");
        std::fs::create_dir_all(&folder).expect("the cache is writable");
        let start = rand::random_range(RANGE);
        let candidates = (start..RANGE.end).chain(RANGE.start..start);
        for number in candidates {
            let Ok(lock) = OpenOptions::new()
                .create(true)
                .append(true)
                .open(folder.join(number.to_string()))
            else {
                continue;
            };
            if lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Self {
                    number,
                    _lock: lock,
                };
            }
        }
        panic!("no free port in {RANGE:?}");
    }

    /// The port as `127.0.0.1:N`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }
}
