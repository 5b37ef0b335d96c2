//! What integration tests share: real Kafka clusters, real clients, a handle on `twinlog`.
//!
//! Everything is started on 127.0.0.1, lives in one temporary folder per test process, and is gone
//! when that process is gone, however it ended (see [`process`] and [`scratch`]).

pub mod acl_lines;
pub mod acls;
pub mod admin;
pub mod apps;
pub mod as_user;
pub mod background;
pub mod book;
pub mod certificates;
pub mod class_archive;
pub mod cluster;
pub mod compacted;
pub mod compare;
pub mod crash;
pub mod ends;
pub mod failover;
pub mod fake;
pub mod flow;
pub mod groups;
pub mod http;
pub mod https;
pub mod java;
pub mod laws;
pub mod listeners;
pub mod logins;
pub mod mapped;
pub mod mirror_tools;
pub mod operator;
pub mod planted;
pub mod pool;
pub mod ports;
pub mod process;
pub mod produce;
pub mod proxy;
pub mod quotas;
pub mod read;
pub mod runbook;
pub mod scratch;
pub mod security;
pub mod share;
pub mod stage;
pub mod steps;
pub mod streams;
pub mod strict;
pub mod topic_configs;
pub mod twinlog;
pub mod untouched;
pub mod users;
pub mod verified;
pub mod version;
pub mod wait;

pub use acl_lines::{acls, add_acls, await_acls, remove_acls};
pub use admin::{
    add_partitions, create_topic, delete_records, delete_topic, end_offset, place_topic,
};
pub use as_user::{try_produce_as, try_read_as};
pub use background::Background;
pub use certificates::ServerCertificate;
pub use cluster::{Cluster, ClusterOptions};
pub use compacted::await_compacted_same;
pub use compare::{assert_same, assert_topic_same, await_same, digest};
pub use crash::{Dice, await_all_same, await_caught_up, two_clusters};
pub use ends::Ends;
pub use fake::{FakeCluster, fake_pair};
pub use java::{java_produce, java_read};
pub use mirror_tools::mirror_tools;
pub use pool::pair;
pub use produce::{Codec, HeaderStyle, Load, Transactions};
pub use read::{Isolation, Seen, read_all};
pub use security::Security;
pub use twinlog::Twinlog;
pub use version::KafkaVersion;
pub use wait::eventually;
