//! Typed calls: each finds the broker that can answer, asks, and answers per partition or topic, so
//! that one partition's trouble is never another's.
//!
//! While a cluster is moving leaders, or a topic was just created, answers are refused for a moment.
//! Calls ask again with refreshed metadata, for up to five seconds (two for a partition that the
//! cluster doesn't know), then give the last error.

mod acls;
mod by_leader;
mod configs;
mod coordinators;
mod groups;
mod list_offsets;
mod log_dirs;
mod many;
mod markers;
mod offset_for_leader_epoch;
mod one;
mod partition;
mod pieces;
mod producers;
mod quotas;
mod records;
mod retry;
mod rights;
mod scram;
mod topics;
mod transactions;

pub use acls::{
    AclAnswer, AclBinding, acls_not_gone, create_acls, delete_acls, denied_topics_at,
    describe_acls, unseen_acls,
};
pub use configs::{
    ConfigSource, ConfigValue, ConfigValues, Described, TopicChanges, alter_many_topic_configs,
    alter_topic_configs, caps_min_in_sync, configs_agreed_on, describe_broker_config,
    describe_topic_configs, describe_topic_configs_at, is_open_by_default,
};
pub use coordinators::Leaderless;
pub use groups::{
    GroupOffset, ListedGroup, ListedGroups, OFFSETS_TOPIC, StartOffsets, Taken,
    alter_share_group_offsets, asks_for_patience, by_coordinator, commit_group_offsets,
    commit_group_offsets_within, coordinator_by, coordinator_partition, delete_groups,
    describe_share_group_offsets, fetch_group_offsets, group_rights, is_refused_group,
    is_unsupported, list_groups, pending_group_offsets,
};
pub use list_offsets::{OffsetSpec, list_offsets, list_offsets_within};
pub use log_dirs::{LogDir, describe_log_dirs, partition_sizes};
pub use many::{FetchFrom, fetch_many};
pub use markers::{Filler, probe_marker_right, write_markers_request};
pub use offset_for_leader_epoch::{offset_for_leader_epoch, offset_for_leader_epoch_within};
pub use one::{FetchOne, fetch_committed, fetch_one, produce_one};
pub use partition::TopicPartition;
pub use pieces::in_pieces;
pub use producers::{ProducerState, describe_producers, init_producer_id};
pub use quotas::{
    ClientQuotas, QuotaChange, QuotaEntity, alter_client_quotas, describe_client_quotas,
    quotas_not_gone,
};
pub use records::delete_records;
pub use rights::{Operation, Rights, cluster_rights, topic_rights};
pub use scram::{ScramMechanism, ScramUsers, describe_scram_users};
pub use topics::{
    could_create_topic, create_partitions, create_topic, delete_topic, delete_topic_with_id,
};
pub use transactions::{OpenTransactions, TRANSACTIONS_TOPIC, open_transactions};
