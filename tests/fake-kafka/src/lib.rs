//! A Kafka cluster in the process, for tests.
//!
//! It speaks the wire protocol, so every client can be the judge: Twinlog's own, librdkafka, Java. Its core does no I/O and knows no
//! clock: a [`connection::Connection`] takes bytes and a time and gives bytes back. [`tcp::Server`] puts it behind sockets. Rules are
//! those of Apache Kafka 4.3, each named by the class that decides it there.
//!
//! - **A rule** is in the file of its API ([`api`]) or of what it is about ([`log`], [`producers`], [`partition`], [`topics`],
//!   [`configs`], ...). Whoever adds one adds a scenario to [`scenarios`], which the tests play on the fake and on real brokers.
//! - **An API** is one file and one line in the table of [`api`].
//! - **Groups** are in [`groups`], with their coordinators and `__consumer_offsets`, which is a topic as any other; [`transactions`],
//!   [`acls`] (an authorizer that is off until a test turns it on), [`quotas`] and [`users`] (SASL) are beside them.
//! - **What a test may do** to a cluster is in [`controls`]: stop, freeze and fence brokers, move leaders, let followers lag, truncate,
//!   clean, forget. **What goes wrong** with single requests is in [`faults`].
//! - **Time** is what drivers say. [`state::State::at`] calls something later; [`api::Reply::Wait`] is asked again whenever something
//!   changed.
//!
//! Known to be simpler than Kafka: a log is one segment, so nothing depends on where segments end; followers fetch at once or not at
//! all, and know the high watermark as soon as they may; a new leader knows it, too, so OFFSET_NOT_AVAILABLE is never answered;
//! producers of a log that was truncated are known from the records that are left; a group's offsets are told before they are
//! replicated; what a transaction's coordinator knows is not in `__transaction_state`, so no election loses it; groups are classic
//! ones, no share groups and none of the new protocol; of quotas only a client id's bytes of producers slow anybody down; a broker has one listener.

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
mod metadata_log;
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
