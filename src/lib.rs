//! Twinlog: an offset-identical hot standby for Apache Kafka.
//!
//! Dependencies point downward:
//! `cli -> drill/orphans -> cutover -> flow -> verify/http -> groups/metadata -> state -> connect -> telemetry/config -> wire -> batch/offsets`.
//! One arrow points up: `flow` asks `cutover` about orphans and about a plan that is open. A test holds the order
//! (`docs/ARCHITECTURE.md` has the map). `environment` is how connections are made and who this process is; a config section carries it.
//! `batch` and `offsets` are pure: no I/O, no tokio, nothing of ours.

pub mod batch;
pub mod cli;
pub mod config;
pub mod connect;
pub mod cutover;
pub mod drill;
pub mod environment;
pub mod flow;
#[cfg(test)]
mod fuzz;
pub mod groups;
pub mod http;
pub mod metadata;
pub mod offsets;
pub mod orphans;
pub mod shell;
#[cfg(test)]
mod simulated;
pub mod state;
pub mod tasks;
pub mod telemetry;
pub mod verify;
pub mod wire;
