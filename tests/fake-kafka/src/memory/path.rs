//! How a process reaches a cluster.

use super::ON_THE_WAY_MAX;
use crate::world::clock;

/// What becomes of new connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Connects {
    /// They reach the broker.
    #[default]
    Work,
    /// Refused at once.
    Refused,
    /// Nobody answers.
    Hang,
}

/// Directions in which nothing passes; what was sent waits, as TCP sends it again and again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Blocked {
    /// Requests.
    pub to_broker: bool,
    /// Answers.
    pub to_client: bool,
}

/// The way between a process and a cluster.
#[derive(Clone, Debug)]
pub struct Path {
    /// One way, to the brokers.
    pub to_broker_us: i64,
    /// One way, back.
    pub to_client_us: i64,
    /// Up to so much more, each time another.
    pub jitter_us: i64,
    /// What all connections of it share, each way; `None`: whatever comes.
    pub bytes_per_second: Option<i64>,
    /// What one connection may have on its way, each way, as the socket buffers of brokers bound it.
    pub in_flight_bytes: usize,
    /// New connections.
    pub connects: Connects,
    /// Where nothing passes.
    pub blocked: Blocked,
}

impl Default for Path {
    fn default() -> Self {
        Self {
            to_broker_us: 300,
            to_client_us: 300,
            jitter_us: 200,
            bytes_per_second: None,
            in_flight_bytes: ON_THE_WAY_MAX,
            connects: Connects::Work,
            blocked: Blocked::default(),
        }
    }
}

impl Path {
    pub(super) fn to_broker_us(&self, chance: &mut u64) -> i64 {
        self.to_broker_us + self.jitter(chance)
    }

    pub(super) fn to_client_us(&self, chance: &mut u64) -> i64 {
        self.to_client_us + self.jitter(chance)
    }

    /// How long the line is busy with that.
    pub(super) fn busy_us(&self, bytes: usize) -> i64 {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.bytes_per_second
            .map_or(0, |rate| bytes.saturating_mul(1_000_000) / rate.max(1))
    }

    fn jitter(&self, chance: &mut u64) -> i64 {
        let random = clock::next_random(chance) >> 33;
        i64::try_from(random).unwrap_or(0) % (self.jitter_us + 1).max(1)
    }
}
