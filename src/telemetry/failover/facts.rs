//! What is known before a failover, whoever found it out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::check::{Check, Weight};
use super::loss::Loss;
use super::versions::Abilities;

/// What was found out. What is empty or absent wasn't looked at, or is fine.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Why the source can't be asked, if so.
    pub source_problem: Option<String>,
    /// Whether somebody answers there and refuses us, so that it isn't known whether it is gone.
    pub source_refuses: bool,
    /// Its address isn't known, so nobody was asked.
    pub is_source_unasked: bool,
    /// Why the standby can't be asked, if so.
    pub standby_problem: Option<String>,
    /// Why nothing is known of the copy, if so.
    pub copy_problem: Option<String>,
    /// Topics that are cut over.
    pub topics: usize,
    /// Their partitions.
    pub partitions: usize,
    /// How much of the first copy is done, percent; absent when it is done.
    pub first_copy_percent: Option<f64>,
    /// Whether what is left of it is copied in a moment.
    pub first_copy_is_near: bool,
    /// Partitions that haven't been at the source's end for long, and move.
    pub behind: Vec<String>,
    /// Selected topics on the source without a copy, or with fewer partitions there.
    pub without_copy: Vec<String>,
    /// Partitions whose copy is stopped, with the reason.
    pub stopped: Vec<(String, String)>,
    /// Partitions that haven't been copied for some time and are tried again, with the reason.
    pub retrying: Vec<(String, String)>,
    /// Partitions that are behind and don't move.
    pub no_progress: Vec<String>,
    /// Source offsets that retention took before they were copied.
    pub gap_offsets: u64,
    /// Partitions whose copy may have missed deletes of the source.
    pub missed_deletes: Vec<String>,
    /// Source offsets that aren't on the target.
    pub lag: Option<i64>,
    /// Whether a process seems to copy the flow.
    pub is_copied: bool,
    /// Partitions with an open transaction on the source.
    pub open_transactions: usize,
    /// Partitions with a transaction that has been open for too long.
    pub hanging_transactions: Vec<String>,
    /// Groups that the flow doesn't follow although they read its topics.
    pub unfollowed_groups: Vec<String>,
    /// Why there may be more of these, a line each: what wasn't answered.
    pub unfollowed_unseen: Vec<String>,
    /// Whether there may be more of these that Twinlog has no right to see.
    pub unfollowed_hidden: bool,
    /// Groups that are followed.
    pub groups: Option<GroupFacts>,
    /// The standby's partitions.
    pub standby: StandbyHealth,
    /// Topics there that don't tell their `min.insync.replicas`: how many, and why one doesn't.
    pub unknown_min_in_sync: Option<(usize, String)>,
    /// The standby's disks.
    pub room: Option<Room>,
    /// Why writers can't be kept from the source by ACLs, if so.
    pub unfenceable: Option<Unfenceable>,
    /// What the source can do.
    pub source_abilities: Option<Abilities>,
    /// What the standby can do.
    pub standby_abilities: Option<Abilities>,
    /// By how many seconds the clock of the process that copies is ahead of this one's.
    pub clock_skew_seconds: Option<i64>,
    /// What of the metadata differs and Twinlog can't mend, a line each.
    pub for_the_operator: Vec<String>,
    /// Configs, ACLs and quotas that differ although `run` should have changed them, with why.
    pub not_followed: Vec<String>,
    /// What of the metadata can't be compared, a line each.
    pub obstacles: Vec<String>,
    /// What the last comparison of records found, if not the same.
    pub differences: Option<u64>,
    /// The bound of what is missing.
    pub loss: Option<Loss>,
}

/// Why writers can't be kept from a cluster by ACLs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfenceable {
    /// What was found.
    pub reason: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Unfenceable {
    /// The failover would fail in its first step.
    pub fn check(&self) -> Check {
        let check = Check::new("fence", Weight::Blocker, &*self.reason);
        match &self.hint {
            Some(hint) => check.with_hint(&**hint),
            None => check,
        }
    }
}

/// The standby's partitions, as its metadata has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandbyHealth {
    /// Partitions without a leader.
    pub leaderless: usize,
    /// Partitions that would refuse acks=all: too few in-sync replicas.
    pub below_min_in_sync: usize,
    /// Partitions that will always refuse acks=all: `min.insync.replicas` is above their replicas.
    pub unsatisfiable: usize,
    /// Partitions with replicas out of sync.
    pub under_replicated: usize,
    /// Replicas that the state topic has and should have, where it lacks some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_replicas: Option<(usize, usize)>,
}

impl StandbyHealth {
    /// Adds one partition.
    pub fn add(&mut self, leader: i32, in_sync: usize, replicas: usize, min_in_sync: usize) {
        if leader < 0 {
            self.leaderless += 1;
        } else if replicas < min_in_sync {
            self.unsatisfiable += 1;
        } else if in_sync < min_in_sync {
            self.below_min_in_sync += 1;
        } else if in_sync < replicas {
            self.under_replicated += 1;
        }
    }
}

/// How many replicas of a topic have to be in sync before it takes what is sent with acks=all; 1 where nobody has asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MinInSync {
    /// `min.insync.replicas` by topic.
    pub by_topic: BTreeMap<String, usize>,
    /// Whether the brokers ask for no more than a partition has.
    pub is_capped: bool,
    /// How many topics didn't tell, and why one of them didn't.
    pub unknown: Option<(usize, String)>,
}

impl MinInSync {
    /// Of a partition with so many replicas.
    pub fn of(&self, topic: &str, replicas: usize) -> usize {
        let wanted = self.by_topic.get(topic).copied().unwrap_or(1);
        match self.is_capped {
            true => wanted.min(replicas),
            false => wanted,
        }
    }
}

/// Groups that are followed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupFacts {
    /// How many.
    pub total: usize,
    /// Why they can't be watched, a line each.
    pub unwatched: Vec<String>,
    /// Those whose positions on one of the clusters can't be seen.
    pub unknown: Vec<String>,
    /// Those that may not be described on one of the clusters, with its name.
    pub refused: Vec<String>,
    /// Why there may be more that no list shows, a line each.
    pub hidden: Vec<String>,
    /// Those of a type that this version doesn't know, with the type.
    pub unknown_types: Vec<String>,
    /// Those with members on the source; absent where that wasn't asked.
    pub with_members: Option<usize>,
    /// How many are behind on the source.
    pub behind: usize,
    /// By how many records, together.
    pub behind_records: i64,
    /// Those with members on the standby, which can't be moved.
    pub active_on_target: Vec<String>,
    /// Those with positions of their own on the standby.
    pub diverged: Vec<String>,
    /// Those whose position the standby refuses.
    pub failed: Vec<String>,
    /// Positions that the standby doesn't have.
    pub unplaced_positions: u64,
    /// Positions that the standby has, but not the newest ones.
    pub outdated_positions: u64,
    /// How many groups would read records again.
    pub rereading: usize,
    /// How many records, together, at most.
    pub reread_records: i64,
    /// Those that speak the consumer protocol of KIP-848 on the source.
    pub new_protocol: usize,
    /// Share groups on the source.
    pub share: usize,
}

/// The standby's disks, as its brokers describe their log folders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Why it can't be said, if so.
    pub problem: Option<String>,
    /// Folders that the brokers have lost.
    pub offline: Vec<String>,
    /// The fullest volume: where, its free bytes, its size. Absent from brokers before 3.3 (KIP-827).
    pub fullest: Option<(String, u64, u64)>,
    /// Bytes of all logs there.
    pub log_bytes: u64,
}
