//! What can go wrong with a partition or a flow, and the one table that says what follows.

use std::cmp::Ordering;

use super::fill::DearHole;
use crate::batch::BatchError;
use crate::state::{LOST_HINT, Loss, NEWER_HINT, SETTINGS_HINT, STATE_TOPIC, StateError};
use crate::tasks::Broken;
use crate::telemetry::up_to_date::{MissedDeletes, in_words as missed_in_words};
use crate::wire::WireError;

/// What makes brokers tell topics' ids (KIP-516).
pub(super) const NO_TOPIC_ID_HINT: &str = "brokers with ZooKeeper give topics ids once inter.broker.protocol.version is 2.8 or later: raise it on all of \
     them; it is tried again by itself";

/// The copy goes on, so nothing of it is tried again.
const MISSED_DELETES_HINT: &str = "the copy goes on, and with `on_missed_deletes: mend` it is mended before; else it stays named until it is made anew: \
     `twinlog verify --full` lists what it has more than the source, delete the target topic so that it is copied again";

/// What follows from a problem. The only place where this is decided is [`Trouble::policy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Close the partition, find its position again from the target, go on. With backoff.
    Reopen,
    /// Stop this partition until an operator acts; the others go on.
    StopPartition,
}

/// Why a partition can't go on as it is.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Trouble {
    /// A connection or a call failed.
    #[error("{0}")]
    Wire(#[from] WireError),
    /// The broker answered one partition with an error.
    #[error("the {cluster} broker answered {code}{}", message.as_deref().map(|m| format!(" ({m})")).unwrap_or_default())]
    Broker {
        /// `source` or `target`, with the cluster's name.
        cluster: String,
        /// Kafka's error name.
        code: kafka_protocol::ResponseError,
        /// The broker's own words, if any.
        message: Option<String>,
    },
    /// A batch is larger than the target topic takes.
    #[error("the {cluster} broker refused a batch of {bytes} bytes for the topic's {key}")]
    TooLarge {
        /// `target`, with the cluster's name.
        cluster: String,
        /// The batch's size, as it was sent.
        bytes: usize,
        /// The setting that is too small.
        key: &'static str,
        /// Whether the setting may be raised.
        is_cured: bool,
    },
    /// The target refused a batch by POLICY_VIOLATION: mostly it means "slower".
    #[error("the {cluster} broker refused a batch of {bytes} bytes by POLICY_VIOLATION{}", message.as_deref().map(|m| format!(" ({m})")).unwrap_or_default())]
    Slower {
        /// `target`, with the cluster's name.
        cluster: String,
        /// The batch's size, as it was sent.
        bytes: usize,
        /// The broker's own words, if any.
        message: Option<String>,
    },
    /// The same for so long, and of a batch so small, that it won't be taken.
    #[error("the {cluster} broker has refused a batch of only {bytes} bytes by POLICY_VIOLATION for {minutes} minutes{}", message.as_deref().map(|m| format!(" ({m})")).unwrap_or_default())]
    RefusedByPolicy {
        /// `target`, with the cluster's name.
        cluster: String,
        /// The batch's size, as it was sent.
        bytes: usize,
        /// The broker's own words, if any.
        message: Option<String>,
        /// For how long.
        minutes: u64,
    },
    /// The source's log has records without a key from before its topic was compacted.
    #[error("the {cluster} broker refused records without a key, since the topic is compacted{}", message.as_deref().map(|m| format!(" ({m})")).unwrap_or_default())]
    WithoutKey {
        /// `target`, with the cluster's name.
        cluster: String,
        /// The broker's own words, if any.
        message: Option<String>,
    },
    /// The partition's leader moved or isn't known yet.
    #[error("the {cluster} leader moved")]
    LeaderMoved {
        /// `source` or `target`, with the cluster's name.
        cluster: String,
    },
    /// The partition has had no leader so far, so nothing is known of it.
    #[error("the partition has no leader on {cluster}")]
    NoLeader {
        /// The cluster's name.
        cluster: String,
    },
    /// The log of a partition that had no leader when the copy of its topic began starts too high.
    #[error("the source log starts at {origin}, beyond offsets.burn_limit {limit}")]
    BeyondBurnLimit {
        /// The source's start.
        origin: i64,
        /// The limit.
        limit: u64,
    },
    /// A fetched batch can't be read.
    #[error("unreadable batch: {0}")]
    Batch(#[from] BatchError),
    /// The target answered with another offset than the next one: someone else wrote there.
    #[error("expected target offset {expected}, found {found}")]
    ForeignWrite {
        /// The offset that the next record must get.
        expected: i64,
        /// The offset that it got, or the log end that was found.
        found: i64,
    },
    /// The same where what was written is kept (`on_foreign_write: map`).
    #[error("expected target offset {expected}, found {found}: somebody else wrote there")]
    Stranger {
        /// The offset that the next record was to get.
        expected: i64,
        /// The offset that it got, or the log end that was found.
        found: i64,
    },
    /// A batch of ours stands at a lower target offset than the one it was made for: what had to come
    /// before it was refused or lost, and the broker took it all the same. It checks sequences only
    /// while it remembers the producer (`ProducerAppendInfo.checkSequence`).
    #[error(
        "a batch made for target offset {expected} stands at {found}: records that belong before it are missing"
    )]
    Overtaken {
        /// The offset that was meant, or the log end that was meant.
        expected: i64,
        /// The offset that it got, or the log end that was found.
        found: i64,
    },
    /// Records of a copy with the source's offsets don't stand where the source has them: markers between them were
    /// refused while what comes behind was on its way.
    #[error("from target offset {from} on the copy's records aren't at the source's offsets")]
    Misplaced {
        /// The first offset that may differ.
        from: i64,
    },
    /// The target's replicas don't yet agree on what was written.
    #[error("the target's high watermark {high_watermark} is below what was written ({written})")]
    TargetBehind {
        /// What readers can see.
        high_watermark: i64,
        /// What the producer state says was written.
        written: i64,
    },
    /// Records arrived that don't begin where the copy stands: a defect of ours, caught here.
    #[error("the copy stands at source offset {position}, but records from {fetched_from} arrived")]
    Discontinuous {
        /// The next source offset.
        position: i64,
        /// The offset that was fetched.
        fetched_from: i64,
    },
    /// Another process may have filled holes since the position was read.
    #[error("another Twinlog ran this flow until just now; its last fillers are waited for")]
    TakingOver,
    /// A hole comes next, and fillers may only be written by whoever sees that the flow is still its own.
    #[error(
        "a hole comes next, and it is filled when the claim in {STATE_TOPIC} can be looked at again: {why}"
    )]
    ClaimUnseen {
        /// Why it can't.
        why: String,
    },
    /// The source's retention removed records before they were copied.
    #[error("source offsets {from}..{to} were deleted before they were copied")]
    Gap {
        /// First lost offset.
        from: i64,
        /// First offset that still exists.
        to: i64,
    },
    /// The source log ends before what was already copied.
    #[error(
        "the source log ends at {source_end}, but {copied_end} offsets were copied: the source lost records"
    )]
    SourceTruncated {
        /// The source's end now.
        source_end: i64,
        /// The copied end.
        copied_end: i64,
    },
    /// What was fetched from isn't the log that was copied; opening the partition again finds out.
    #[error("the source broker's log has epoch {epoch} up to {end} only")]
    SourceDiverges {
        /// The largest epoch that both may have.
        epoch: i32,
        /// Where it ends on the broker.
        end: i64,
    },
    /// Who calls itself the leader was one before what was copied was written.
    #[error(
        "the source leader that answered is of epoch {epoch}, and what was copied was written in epoch {known}"
    )]
    StaleLeader {
        /// Its epoch.
        epoch: i32,
        /// The epoch of the last record copied, as far as is known.
        known: i32,
    },
    /// The replica that was fetched from isn't kept up to date.
    #[error("the replica on broker {broker} ends at {end}, its leader at {leader_end}")]
    FollowerLags {
        /// The follower's id.
        broker: i64,
        /// Where its committed data ends.
        end: i64,
        /// Where its leader's ended some seconds before.
        leader_end: i64,
    },
    /// The source topic was deleted and created anew.
    #[error("the source topic was deleted and created again")]
    SourceRecreated,
    /// The topic has another id, and so has what nobody makes anew: the whole source was.
    #[error("{0}; the copy is kept")]
    SourceBuiltAnew(String),
    /// The target refuses a topic like the source's, in every way that we know.
    #[error("the {cluster} brokers refuse to make the topic: {message}")]
    NotCreated {
        /// `target`, with the cluster's name.
        cluster: String,
        /// Their words.
        message: String,
    },
    /// The target topic was replaced by another one under the same name.
    #[error("the target topic was deleted and created again by someone else")]
    TargetRecreated,
    /// The target topic holds data that this flow did not write.
    #[error("the target topic already holds data that this flow did not write")]
    TargetNotEmpty,
    /// The target topic is set to give records the broker's time, and can't be set otherwise.
    #[error(
        "the target topic would replace the records' timestamps (message.timestamp.type is {found}), and can't be changed: {why}"
    )]
    AppendTime {
        /// What it is set to.
        found: String,
        /// Why it can't be changed.
        why: String,
    },
    /// The target gave a batch its own time.
    #[error(
        "the target replaced the records' timestamps by its own time (message.timestamp.type is LogAppendTime): \
         those of target offsets {from}..{to} are lost, and maybe some next to them"
    )]
    TimesReplaced {
        /// The first target offset of the batch.
        from: i64,
        /// The offset behind its last one.
        to: i64,
    },
    /// The brokers don't tell the topic's id.
    #[error(
        "the {cluster} brokers tell no id of the topic, by which it is fetched and known again"
    )]
    NoTopicId {
        /// `source`, with the cluster's name.
        cluster: String,
    },
    /// The target topic has more partitions than the source's.
    #[error("the target topic has {target} partitions, the source topic {source_count}")]
    TargetPartitions {
        /// The target's count.
        target: usize,
        /// The source's count.
        source_count: usize,
    },
    /// `offsets: identical` was asked for and can't be had.
    #[error("identical offsets can't be had: {0}")]
    NotIdentical(String),
    /// Holes that cost more than they are worth: the partition is opened again, as a mapped one.
    #[error("{0}: the partition goes on mapped from here")]
    TurnsMapped(DearHole),
    /// The same with `offsets: identical`.
    #[error("identical offsets would cost too much: {0}")]
    TooManyHoles(DearHole),
    /// The source's cleaner may have removed tombstones before they were copied: the partition is opened again when that
    /// is written down, and goes on.
    #[error("{}", missed_in_words(.0))]
    DeletesMissed(MissedDeletes),
    /// The target's log end moved without us; opening the partition again finds out why.
    #[error("the target log should end at {expected} and ends at {found}")]
    LogEndDiffers {
        /// What was written.
        expected: i64,
        /// The end now.
        found: i64,
    },
    /// The state topic on the target isn't the one that was read.
    #[error("the state topic on the target is lost: {0}")]
    StateLost(Loss),
    /// The state topic can't be relied on as it is configured.
    #[error("{0}")]
    StateSettings(String),
    /// A newer Twinlog wrote what this partition needs from the state topic.
    #[error("{0}")]
    StateNewer(String),
    /// A task of ours ended by a panic.
    #[error("a defect in Twinlog: {0}")]
    Defect(String),
    /// The map of a `mapped` partition doesn't agree with the target's log.
    #[error("the stored offset map ends at target offset {map_end}, the log at {log_end}")]
    MapMismatch {
        /// The map's end.
        map_end: i64,
        /// The log's end.
        log_end: i64,
    },
}

/// Only a value that can't be read needs an operator: a broker that was away or a batch that was
/// damaged on its way is asked for again.
impl From<StateError> for Trouble {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Wire(error) => Self::Wire(error),
            StateError::Batch(error) => Self::Batch(error),
            StateError::Lost(loss) => Self::StateLost(loss),
            StateError::Settings { .. } => Self::StateSettings(error.to_string()),
            StateError::Newer { .. } => Self::StateNewer(error.without_hint()),
            StateError::Value { .. } | StateError::Overtaken | StateError::Unsure => {
                Self::NotIdentical(error.to_string())
            }
        }
    }
}

impl Trouble {
    /// A broker's error for one partition, with leader moves told apart.
    pub fn broker(
        cluster: &str,
        code: kafka_protocol::ResponseError,
        message: Option<String>,
    ) -> Self {
        use kafka_protocol::ResponseError as E;
        match code {
            E::NotLeaderOrFollower
            | E::LeaderNotAvailable
            | E::FencedLeaderEpoch
            | E::UnknownLeaderEpoch
            | E::ReplicaNotAvailable
            | E::KafkaStorageError
            | E::OffsetNotAvailable => Self::LeaderMoved {
                cluster: cluster.to_owned(),
            },
            _ => Self::Broker {
                cluster: cluster.to_owned(),
                code,
                message,
            },
        }
    }

    /// Compares the offset that a batch was made for with the one that it got.
    ///
    /// # Errors
    /// [`Self::ForeignWrite`] or [`Self::Overtaken`] if they differ.
    pub fn check_offset(expected: i64, found: i64) -> Result<(), Self> {
        match found.cmp(&expected) {
            Ordering::Equal => Ok(()),
            Ordering::Greater => Err(Self::ForeignWrite { expected, found }),
            Ordering::Less => Err(Self::Overtaken { expected, found }),
        }
    }

    /// The policy table.
    pub fn policy(&self) -> Policy {
        use kafka_protocol::ResponseError as E;
        match self {
            // The settings that allow it follow within seconds.
            Self::TooLarge { .. } | Self::WithoutKey { .. } | Self::Slower { .. } => Policy::Reopen,
            // A policy can be changed while we wait, and the topic made by hand.
            Self::NotCreated { .. } => Policy::Reopen,
            Self::Wire(_)
            | Self::LeaderMoved { .. }
            | Self::NoLeader { .. }
            | Self::TargetBehind { .. }
            | Self::Discontinuous { .. }
            | Self::TakingOver
            | Self::ClaimUnseen { .. }
            | Self::TurnsMapped(_)
            | Self::DeletesMissed(_)
            | Self::SourceDiverges { .. }
            | Self::LogEndDiffers { .. }
            | Self::Stranger { .. }
            | Self::AppendTime { .. }
            | Self::NoTopicId { .. }
            | Self::FollowerLags { .. }
            | Self::StaleLeader { .. }
            | Self::Defect(_) => Policy::Reopen,
            Self::Broker { code, .. } => match code {
                E::InvalidRecord
                | E::UnsupportedCompressionType
                | E::UnsupportedForMessageFormat => Policy::StopPartition,
                // Rights can be granted and replicas come back while we wait. A fenced filler
                // (TransactionCoordinatorFenced) was not appended: its number was already taken
                // by what a dead connection left in the broker, and the log says by how many.
                // What somebody set on the target that refuses timestamps (InvalidTimestamp) is set
                // back within seconds. PolicyViolation is how some managed brokers say "slower"; no broker of
                // Apache Kafka's answers a batch so.
                _ => Policy::Reopen,
            },
            // A damaged batch may be damage on the way; it is fetched again, with backoff.
            Self::Batch(_) => Policy::Reopen,
            Self::ForeignWrite { .. }
            | Self::Overtaken { .. }
            | Self::Misplaced { .. }
            | Self::Gap { .. }
            | Self::SourceTruncated { .. }
            | Self::SourceRecreated
            | Self::SourceBuiltAnew(_)
            | Self::TargetRecreated
            | Self::TargetNotEmpty
            | Self::TimesReplaced { .. }
            | Self::RefusedByPolicy { .. }
            | Self::StateLost(_)
            | Self::StateNewer(_)
            | Self::StateSettings(_)
            | Self::TargetPartitions { .. }
            | Self::NotIdentical(_)
            | Self::TooManyHoles(_)
            | Self::BeyondBurnLimit { .. }
            | Self::MapMismatch { .. } => Policy::StopPartition,
        }
    }

    /// Whether a record stands where it must not, or has another time than its own. It counts whenever it is
    /// learnt, also behind a milder trouble of the same partition: a reopened partition would go on behind the damage.
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::ForeignWrite { .. } | Self::Overtaken { .. } | Self::TimesReplaced { .. }
        )
    }

    /// Whether the target's settings refuse what the source has: they are looked at right away.
    pub fn is_about_settings(&self) -> bool {
        matches!(self.reason(), "too_large" | "invalid_timestamp")
            || matches!(self, Self::WithoutKey { .. })
    }

    /// A short, stable word for metrics and status.
    pub fn reason(&self) -> &'static str {
        use kafka_protocol::ResponseError as E;
        match self {
            Self::Wire(error) => error.kind(),
            Self::Broker { code, .. } => match code {
                E::TopicAuthorizationFailed | E::ClusterAuthorizationFailed => "not_authorized",
                E::OutOfOrderSequenceNumber | E::DuplicateSequenceNumber => "sequence",
                E::NotEnoughReplicas | E::NotEnoughReplicasAfterAppend => "not_enough_replicas",
                E::InvalidTimestamp => "invalid_timestamp",
                E::InvalidRecord => "rejected",
                E::PolicyViolation => "policy_violation",
                E::UnknownTopicOrPartition | E::UnknownTopicId => "topic_missing",
                _ => "broker_error",
            },
            Self::TooLarge { .. } => "too_large",
            Self::Slower { .. } | Self::RefusedByPolicy { .. } => "policy_violation",
            Self::WithoutKey { .. } => "rejected",
            Self::NotCreated { .. } => "not_created",
            Self::LeaderMoved { .. } => "leader_moved",
            Self::NoLeader { .. } => "no_leader",
            Self::Batch(_) => "unreadable_batch",
            Self::ForeignWrite { .. } | Self::Stranger { .. } => "foreign_write",
            Self::Overtaken { .. } => "overtaken",
            Self::Misplaced { .. } => "misplaced",
            Self::TargetBehind { .. } => "target_behind",
            Self::TakingOver => "taking_over",
            Self::ClaimUnseen { .. } => "claim_unseen",
            Self::Discontinuous { .. } => "discontinuous",
            Self::Gap { .. } => "gap",
            Self::SourceTruncated { .. } => "source_truncated",
            Self::SourceDiverges { .. } => "source_diverges",
            Self::StaleLeader { .. } => "stale_leader",
            Self::FollowerLags { .. } => "follower_lags",
            Self::SourceRecreated => "source_recreated",
            Self::SourceBuiltAnew(_) => "source_replaced",
            Self::NoTopicId { .. } => "no_topic_id",
            Self::TargetRecreated => "target_recreated",
            Self::TargetNotEmpty => "target_not_empty",
            Self::AppendTime { .. } | Self::TimesReplaced { .. } => "log_append_time",
            Self::TargetPartitions { .. } => "target_partitions",
            Self::TurnsMapped(_) => "turns_mapped",
            Self::DeletesMissed(_) => "missed_deletes",
            Self::NotIdentical(_) | Self::TooManyHoles(_) | Self::BeyondBurnLimit { .. } => {
                "not_identical"
            }
            Self::LogEndDiffers { .. } => "log_end_differs",
            Self::StateLost(_) => "state_lost",
            Self::StateNewer(_) => "state_newer",
            Self::StateSettings(_) => "state_settings",
            Self::Defect(_) => "defect",
            Self::MapMismatch { .. } => "map_mismatch",
        }
    }

    /// What an operator can do about it.
    pub fn hint(&self) -> &'static str {
        use kafka_protocol::ResponseError as E;
        match self {
            Self::Broker {
                code: E::TopicAuthorizationFailed,
                cluster,
                ..
            } if cluster.starts_with("source") => {
                "grant READ and DESCRIBE on this topic to Twinlog's principal on the source"
            }
            Self::Broker {
                code: E::TopicAuthorizationFailed,
                ..
            } => {
                "grant WRITE, READ and DESCRIBE on this topic to Twinlog's principal on the target"
            }
            Self::Broker {
                code: E::ClusterAuthorizationFailed,
                ..
            } => {
                "grant CLUSTER_ACTION on the target cluster to Twinlog's principal, or set `offsets: mapped`"
            }
            Self::TooLarge { is_cured: true, .. } => {
                "it is tried again: Twinlog raises the setting of the target topic to what the source's log needs, \
                 unless a missing right (`plan` names it) keeps it from doing so"
            }
            Self::TooLarge {
                is_cured: false, ..
            } => {
                "it is tried again until the target topic takes it: configs.enabled, configs.fixed or configs.ignore \
                 keeps Twinlog from raising the setting, so give it a value there that is larger than the batch \
                 (in configs.fixed; on the target topic where it is left alone)"
            }
            Self::NotCreated { .. } => {
                "it is tried again until they take it, also without the settings that they refuse: give it what they \
                 ask for by configs.fixed or replication_factor, or make it on the target by hand, empty and with the \
                 source's partitions"
            }
            Self::WithoutKey { .. } => {
                "it is tried again: until the copy has caught up, Twinlog gives the target topic cleanup.policy=delete \
                 without a limit, then the source's cleanup.policy again"
            }
            Self::Broker {
                code: E::InvalidRecord,
                ..
            } => {
                "most often a record without a key for a target topic that is compacted by configs.fixed or \
                 configs.ignore, or while configs.enabled is false: give it cleanup.policy delete there, or exclude \
                 the topic, then restart Twinlog; else the target broker's log says why"
            }
            Self::RefusedByPolicy { .. } => {
                "either one of the service's policies refuses these records: its log says why, and the topic can be excluded; \
                 or it throttles and takes nothing at all any more: give it more throughput units. Then restart Twinlog"
            }
            Self::Slower { .. }
            | Self::Broker {
                code: E::PolicyViolation,
                ..
            } => {
                "it is tried again, more slowly: either the service throttles (give it more throughput units, or lower \
                 limits.bytes_per_second), or one of its policies refuses these records: then it stays so, and the \
                 service's log says why"
            }
            Self::Broker {
                code: E::InvalidTimestamp,
                ..
            } => {
                "it is tried again until the target topic takes all timestamps: Twinlog sets message.timestamp.before.max.ms, \
                 .after.max.ms and (before 4.0) .difference.max.ms to 9223372036854775807 there by itself; where \
                 configs.enabled or a missing right (`plan` names it) keeps it from doing so, set all of them"
            }
            Self::ForeignWrite { .. } => {
                "find out who writes to this mirror topic; then delete the target topic so that it is copied again, or set \
                 `on_foreign_write: map` to keep what was written and go on mapped behind it, and restart Twinlog"
            }
            Self::Stranger { .. } => {
                "the foreign records are kept: the partition goes on behind them within moments, with mapped offsets (on_foreign_write: map)"
            }
            Self::DeletesMissed(_) => MISSED_DELETES_HINT,
            Self::Overtaken { .. } => {
                "records are missing on the target from this offset on, and others stand in their place: \
                 delete the target topic so that it is copied again"
            }
            Self::Misplaced { .. } => {
                "no record is missing: set `offsets: auto` to go on mapped from there, or delete the target topic so that \
                 it is copied again; then restart Twinlog"
            }
            Self::Gap { .. } => {
                "set `on_gap: record` to go on after the gap, or delete the target topic to copy anew"
            }
            Self::SourceTruncated { .. } => {
                "the source lost acknowledged records (unclean leader election or a restored disk); the target still has them: \
                 keep them, or delete the target topic to copy anew. It is looked at again, and goes on by itself only where \
                 the source has the copied records after all"
            }
            Self::StaleLeader { .. } => {
                "that broker is cut off from its cluster (it is tried again until another one leads), or the cluster \
                 was restored from a backup: then delete the target topic to copy anew"
            }
            Self::FollowerLags { .. } => {
                "it is fetched from its leader instead; look after that broker's replication if it stays behind"
            }
            Self::SourceRecreated => {
                "set `on_recreate: recreate` to replace the copy, or rename the old copy first"
            }
            Self::SourceBuiltAnew(_) => {
                "the standby has what the old source had: fail over to it if that is needed (`twinlog failover --unplanned --accept-loss any`); \
                 to copy the new source instead, delete the copy on the target"
            }
            Self::TargetRecreated => {
                "delete or rename the target topic, or exclude the topic from the flow"
            }
            Self::TargetNotEmpty => {
                "delete or rename the target topic, or exclude the topic from the flow; if it is this flow's own copy, \
                 the state topic __twinlog_state lost its record: restore that topic, or delete the copy to copy anew"
            }
            Self::StateLost(_) => LOST_HINT,
            Self::AppendTime { .. } => {
                "grant ALTER_CONFIGS and DESCRIBE_CONFIGS on the target topic to Twinlog's principal, or set its \
                 message.timestamp.type to CreateTime; it is tried again by itself"
            }
            Self::TimesReplaced { .. } => {
                "find out what sets message.timestamp.type of the target topic or of its brokers; then delete the target topic so \
                 that it is copied again, or restart Twinlog to go on with these times lost"
            }
            Self::NoTopicId { .. } => NO_TOPIC_ID_HINT,
            Self::StateNewer(_) => NEWER_HINT,
            Self::StateSettings(_) => SETTINGS_HINT,
            Self::TargetPartitions { .. } => {
                "delete the target topic, or exclude the topic from the flow"
            }
            Self::TooManyHoles(_) => {
                "raise `offsets.fill_limit`, or set `offsets: auto` to go on mapped from there; then restart Twinlog"
            }
            Self::NotIdentical(_) => "remove the obstacle, or set `offsets: auto`",
            Self::ClaimUnseen { .. } => {
                "look after the target brokers that have the replicas of __twinlog_state; it goes on by itself"
            }
            Self::NoLeader { .. } => {
                "start the brokers that have its replicas; it is copied as soon as it has a leader"
            }
            Self::BeyondBurnLimit { .. } => {
                "raise `offsets.burn_limit`, or delete the target topic so that all of it is copied anew"
            }
            Self::MapMismatch { .. } => "delete the target topic so that it is copied again",
            _ if self.policy() == Policy::StopPartition => {
                "remove what the target broker complains about, then restart Twinlog"
            }
            _ => "it is tried again by itself",
        }
    }
}

/// What can be done about two clusters with one id.
pub const SAME_CLUSTER_HINT: &str = "check the bootstrap addresses; two clusters that were formatted with the same id (a copied CLUSTER_ID \
     of docker compose, `kafka-storage.sh format -t`) look alike: format one of them with an id of its own";

/// Why a whole flow ended.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FlowError {
    /// Another Twinlog runs the same flow and is newer.
    #[error("another Twinlog took over this flow: {0}")]
    Superseded(String),
    /// Source and target are the same cluster.
    #[error("source and target are the same cluster ({0}); {SAME_CLUSTER_HINT}")]
    SameCluster(String),
    /// The state on the target can't be read.
    #[error("the state on the target can't be used: {0}")]
    State(String),
    /// The state topic can't be relied on as it is configured.
    #[error("{0}")]
    StateSettings(String),
    /// A newer Twinlog wrote some of the flow's state.
    #[error("{0}")]
    StateNewer(String),
    /// The state topic on the target was deleted, made anew, or lost what this flow lives by.
    #[error("the state topic on the target is lost: {0}. {LOST_HINT}")]
    StateLost(String),
    /// A task of the flow ended that should have gone on.
    #[error(
        "a defect in Twinlog: {0}. Restart it: the copy goes on where the target's log ends; and report it with what it logged"
    )]
    Broken(Broken),
    /// A call failed.
    #[error(transparent)]
    Wire(#[from] WireError),
}

impl FlowError {
    /// A short, stable word for metrics and status, for what ends a flow that had begun.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Superseded(_) => "superseded",
            Self::SameCluster(_) => "same_cluster",
            Self::State(_) => "state",
            Self::StateNewer(_) => "state_newer",
            Self::StateSettings(_) => "state_settings",
            Self::StateLost(_) => "state_lost",
            Self::Broken(_) => "defect",
            Self::Wire(error) => error.kind(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ErrorContext;

    #[test]
    fn a_stopped_partition_never_claims_to_be_tried_again() {
        use kafka_protocol::ResponseError as E;
        for code in [
            E::InvalidRecord,
            E::PolicyViolation,
            E::NotEnoughReplicas,
            E::InvalidTimestamp,
        ] {
            let trouble = Trouble::broker("target (standby)", code, None);
            let stopped = trouble.policy() == Policy::StopPartition;
            let again = trouble.hint().contains("tried again");
            assert_ne!(stopped, again, "{code}: {}", trouble.hint());
        }
    }

    #[test]
    fn each_end_of_a_flow_has_its_own_word() {
        let text = || "why".to_owned();
        let context = ErrorContext::cluster("standby");
        let code = kafka_protocol::ResponseError::NotEnoughReplicas;
        let reasons = [
            FlowError::Superseded(text()),
            FlowError::SameCluster(text()),
            FlowError::State(text()),
            FlowError::StateNewer(text()),
            FlowError::StateSettings(text()),
            FlowError::StateLost(text()),
            FlowError::Broken(Broken::Ended { task: "lane" }),
            FlowError::Wire(WireError::server(context, code, None)),
        ]
        .map(|error| error.reason());
        let mut told = reasons.to_vec();
        told.sort_unstable();
        told.dedup();
        assert_eq!(told.len(), reasons.len(), "{reasons:?}");
    }

    #[test]
    fn only_state_that_cannot_be_read_stops_a_partition() {
        let context = ErrorContext::cluster("standby");
        let busy = kafka_protocol::ResponseError::NotEnoughReplicas;
        let away = StateError::Wire(WireError::server(context, busy, None));
        assert_eq!(Trouble::from(away).policy(), Policy::Reopen);
        let value = StateError::Value {
            key: "key".to_owned(),
            reason: "not JSON".to_owned(),
        };
        assert_eq!(Trouble::from(value).policy(), Policy::StopPartition);
    }
}
