//! What may happen.

use std::fmt;

use rand::Rng;
use rand::rngs::StdRng;

/// A cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Where clients write.
    Source,
    /// Where the copy is.
    Target,
}

/// Nodes of each cluster.
pub const NODES: usize = 3;

/// Something that happens. What lasts is undone after so many milliseconds, while other things happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// SIGSTOP and, later, SIGCONT to Twinlog.
    FreezeTwinlog { lasts_ms: u64 },
    /// kill -9 of Twinlog, and a start a little later.
    KillTwinlog { lasts_ms: u64 },
    /// SIGTERM to Twinlog, and a start.
    RestartTwinlog,
    /// A second Twinlog runs beside the first one; then one of the two is killed.
    Twins { lasts_ms: u64, keeps_newer: bool },
    /// Twinlog is frozen, another one takes over, and the first one wakes up.
    FreezeBeyondClaim { lasts_ms: u64 },
    /// kill -9 of a broker, and a restart.
    KillBroker {
        side: Side,
        node: usize,
        lasts_ms: u64,
    },
    /// SIGTERM to a broker, and a restart.
    StopBroker {
        side: Side,
        node: usize,
        lasts_ms: u64,
    },
    /// SIGSTOP and SIGCONT to a broker.
    FreezeBroker {
        side: Side,
        node: usize,
        lasts_ms: u64,
    },
    /// Every partition's replicas are turned by so many places, and the first of them leads.
    MoveLeaders { side: Side, turn: usize },
    /// Everything between Twinlog and a cluster takes so much longer, each way.
    SlowLine {
        side: Side,
        delay_ms: u64,
        lasts_ms: u64,
    },
    /// Nothing comes through between Twinlog and a broker, and then all of it.
    StallLine {
        side: Side,
        node: usize,
        lasts_ms: u64,
    },
    /// Every connection between Twinlog and a cluster is cut, with what is on its way.
    CutLine { side: Side },
    /// No batch is small enough for a topic of the target.
    Shrink { topic: usize, lasts_ms: u64 },
    /// Retention deletes the beginning of a topic that is copied to its end.
    Shorten,
}

/// The kinds by name, and how often each of them happens, in some unit.
pub const WEIGHTS: [(&str, u32); 14] = [
    ("freeze-twinlog", 8),
    ("kill-twinlog", 12),
    ("restart-twinlog", 4),
    ("twins", 5),
    ("freeze-beyond-claim", 4),
    ("kill-broker", 12),
    ("stop-broker", 4),
    ("freeze-broker", 10),
    ("move-leaders", 8),
    ("slow-line", 6),
    ("stall-line", 8),
    ("cut-line", 10),
    ("shrink", 8),
    ("shorten", 5),
];

/// What an action has for itself while it lasts: two of one kind don't happen at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// The process, or the two.
    Twinlog,
    /// A cluster's brokers: never more than one of them is away.
    Brokers(Side),
    /// The line to a cluster.
    Line(Side),
    /// Configs of the target's topics.
    Settings,
    /// The beginning of a topic.
    Retention,
}

impl Action {
    /// One at random, by the weights.
    pub fn random(dice: &mut StdRng) -> Self {
        let sum = WEIGHTS.iter().map(|(_, weight)| weight).sum();
        let mut left = dice.random_range(0..sum);
        let drawn = WEIGHTS.iter().find(|(_, weight)| {
            let is_it = left < *weight;
            left = left.saturating_sub(*weight);
            is_it
        });
        Self::of_kind(drawn.expect("below the sum").0, dice)
    }

    /// One of a kind.
    fn of_kind(kind: &str, dice: &mut StdRng) -> Self {
        let side = if dice.random_bool(0.6) {
            Side::Target
        } else {
            Side::Source
        };
        let node = dice.random_range(1..=NODES);
        let brief_ms = dice.random_range(100..3_000);
        // A broker that is silent for more than 5 s loses its leaders.
        let long_ms = dice.random_range(500..14_000);
        match kind {
            "freeze-twinlog" => Self::FreezeTwinlog { lasts_ms: long_ms },
            "kill-twinlog" => Self::KillTwinlog { lasts_ms: brief_ms },
            "restart-twinlog" => Self::RestartTwinlog,
            "twins" => Self::Twins {
                lasts_ms: brief_ms * 2,
                keeps_newer: dice.random_bool(0.5),
            },
            "freeze-beyond-claim" => Self::FreezeBeyondClaim {
                lasts_ms: 2_000 + long_ms,
            },
            "kill-broker" => Self::KillBroker {
                side,
                node,
                lasts_ms: long_ms,
            },
            "stop-broker" => Self::StopBroker {
                side,
                node,
                lasts_ms: brief_ms,
            },
            "freeze-broker" => Self::FreezeBroker {
                side,
                node,
                lasts_ms: long_ms,
            },
            "move-leaders" => Self::MoveLeaders {
                side,
                turn: dice.random_range(1..NODES),
            },
            "slow-line" => Self::SlowLine {
                side,
                delay_ms: dice.random_range(5..400),
                lasts_ms: long_ms,
            },
            "stall-line" => Self::StallLine {
                side,
                node,
                // Also beyond the 30 s after which a request is given up.
                lasts_ms: long_ms * dice.random_range(1..=3),
            },
            "cut-line" => Self::CutLine { side },
            "shrink" => Self::Shrink {
                topic: dice.random_range(0..super::topics::TOPICS.len()),
                lasts_ms: brief_ms,
            },
            "shorten" => Self::Shorten,
            other => panic!("{other} is no kind of action"),
        }
    }

    /// Its kind by name.
    pub fn kind(&self) -> &'static str {
        let index = match self {
            Self::FreezeTwinlog { .. } => 0,
            Self::KillTwinlog { .. } => 1,
            Self::RestartTwinlog => 2,
            Self::Twins { .. } => 3,
            Self::FreezeBeyondClaim { .. } => 4,
            Self::KillBroker { .. } => 5,
            Self::StopBroker { .. } => 6,
            Self::FreezeBroker { .. } => 7,
            Self::MoveLeaders { .. } => 8,
            Self::SlowLine { .. } => 9,
            Self::StallLine { .. } => 10,
            Self::CutLine { .. } => 11,
            Self::Shrink { .. } => 12,
            Self::Shorten => 13,
        };
        WEIGHTS[index].0
    }

    /// What it has for itself.
    pub fn resource(&self) -> Resource {
        match self {
            Self::FreezeTwinlog { .. }
            | Self::KillTwinlog { .. }
            | Self::RestartTwinlog
            | Self::Twins { .. }
            | Self::FreezeBeyondClaim { .. } => Resource::Twinlog,
            Self::KillBroker { side, .. }
            | Self::StopBroker { side, .. }
            | Self::FreezeBroker { side, .. }
            | Self::MoveLeaders { side, .. } => Resource::Brokers(*side),
            Self::SlowLine { side, .. } | Self::StallLine { side, .. } | Self::CutLine { side } => {
                Resource::Line(*side)
            }
            Self::Shrink { .. } => Resource::Settings,
            Self::Shorten => Resource::Retention,
        }
    }

    /// How long until it is undone; 0 where there is nothing to undo.
    pub fn lasts_ms(&self) -> u64 {
        match *self {
            Self::FreezeTwinlog { lasts_ms }
            | Self::KillTwinlog { lasts_ms }
            | Self::Twins { lasts_ms, .. }
            | Self::FreezeBeyondClaim { lasts_ms }
            | Self::KillBroker { lasts_ms, .. }
            | Self::StopBroker { lasts_ms, .. }
            | Self::FreezeBroker { lasts_ms, .. }
            | Self::SlowLine { lasts_ms, .. }
            | Self::StallLine { lasts_ms, .. }
            | Self::Shrink { lasts_ms, .. } => lasts_ms,
            Self::RestartTwinlog
            | Self::MoveLeaders { .. }
            | Self::CutLine { .. }
            | Self::Shorten => 0,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
