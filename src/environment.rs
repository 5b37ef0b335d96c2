//! The world around a process, as far as the engine asks about it: how its connections are made, and
//! who it is on which machine. Time is tokio's clock and the system's wall clock.
//!
//! A cluster section carries it to everything that is made of the section. Tests hand in another
//! one, so that two simulated processes in one real process are two.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::wire::{Dial, Tcp};

/// What a process finds around itself.
#[derive(Clone, Debug)]
pub struct Environment {
    /// How connections are made.
    pub dial: Arc<dyn Dial>,
    /// Where the process runs, and as which one.
    pub machine: Arc<dyn Machine>,
}

impl Default for Environment {
    fn default() -> Self {
        Self {
            dial: Arc::new(Tcp::default()),
            machine: Arc::new(ThisMachine),
        }
    }
}

/// The environment is no part of what a config says: two configs that say the same are equal.
impl PartialEq for Environment {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Environment {}

/// A machine, as a process on it sees it.
pub trait Machine: fmt::Debug + Send + Sync {
    /// Tells it apart from any other machine, also after that one was started again.
    fn host(&self) -> String;
    /// The number of the process that asks.
    fn pid(&self) -> u32;
    /// Whether a process with this number runs here.
    fn runs(&self, pid: u32) -> bool;
}

/// The machine that this process really runs on, from Linux's `/proc`.
#[derive(Clone, Copy, Debug)]
pub struct ThisMachine;

impl Machine for ThisMachine {
    /// The boot id tells machines and containers' hosts apart better than a host name, which images
    /// share; the host name tells containers on one machine apart.
    fn host(&self) -> String {
        let read = |path: &str| {
            std::fs::read_to_string(path)
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        // Containers that share a host's name have process ids of their own.
        let processes = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        format!(
            "{}/{}/{}",
            read("/proc/sys/kernel/hostname"),
            read("/proc/sys/kernel/random/boot_id"),
            processes.display()
        )
    }

    fn pid(&self) -> u32 {
        std::process::id()
    }

    fn runs(&self, pid: u32) -> bool {
        Path::new(&format!("/proc/{pid}")).exists()
    }
}
