//! A Kafka cluster in the process, for tests.
//!
//! It speaks the wire protocol, so every client can be the judge: Twinlog's own, librdkafka, Java. Its core does no I/O and knows no
//! clock: a [`connection::Connection`] takes bytes and a time and gives bytes back. [`tcp::Server`] puts it behind sockets. Rules are
//! those of Apache Kafka 4.3, each named by the class that decides it there.

pub mod acls;
pub mod api;
pub mod batch;
pub mod cleaner;
pub mod client;
pub mod cluster;
pub mod codec;
pub mod configs;
pub mod connection;
pub mod controls;
pub mod faults;
pub mod groups;
mod hooks;
pub mod log;
pub mod memory;
pub mod partition;
pub mod producers;
pub mod quotas;
pub mod scenarios;
pub mod state;
pub mod tcp;
pub mod topics;
pub mod transactions;
pub mod users;
pub mod world;

pub use cluster::Cluster;
pub use kafka_protocol;
pub use state::{Options, State};
