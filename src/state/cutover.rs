//! What a cut-over leaves in the state topic: roles, the journal, forks, fences, observed ends.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::wire::AclBinding;

/// Numbers of `org.apache.kafka.common.resource` and `.acl`.
const TOPIC: i8 = 2;
const LITERAL: i8 = 3;
const DENY: i8 = 2;
const ALLOW: i8 = 3;

/// Which topics, by their names on the flow's source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TopicSet {
    /// All that the flow copies.
    #[default]
    All,
    /// These.
    List(BTreeSet<String>),
}

impl TopicSet {
    /// Whether a topic is one of them.
    pub fn contains(&self, topic: &str) -> bool {
        match self {
            Self::All => true,
            Self::List(topics) => topics.contains(topic),
        }
    }

    /// Both together.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::List(left), Self::List(right)) => {
                Self::List(left.union(right).cloned().collect())
            }
            _ => Self::All,
        }
    }
}

/// Which side of a flow takes writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Primary {
    /// The source; the flow copies.
    Source,
    /// Neither, for a moment: a plan is making the target the primary. Nothing is copied any more.
    Promoting,
    /// The target. The flow must not copy.
    Target,
}

impl Primary {
    /// The word for JSON and status.
    pub fn word(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Promoting => "promoting",
            Self::Target => "target",
        }
    }
}

/// `role/<flow>`, on both clusters: which side is the primary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleRecord {
    /// Format version, 1.
    pub v: u32,
    /// Which side. Of topics that aren't in `topics` it is the source.
    pub primary: Primary,
    /// The topics that this is about.
    pub topics: TopicSet,
    /// Counts the cut-overs of the flow.
    pub epoch: u64,
    /// The plan that wrote this.
    pub plan: Uuid,
    /// Since when, milliseconds since the epoch.
    pub since_ms: i64,
    /// The source cluster's id, as far as known.
    pub source_cluster_id: Option<String>,
    /// The target cluster's id.
    pub target_cluster_id: Option<String>,
    /// While the target is the primary: what is new there is copied back to the source.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_copied_back: bool,
    /// While the target is the primary: the source is about to become it again, so nobody is kept
    /// from writing there any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_handed_back: bool,
    /// Behind a failback: nobody but Twinlog writes to the copies, until the operator lifts that or the target is
    /// the primary again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_kept_fenced: bool,
}

impl RoleRecord {
    /// Whether others are kept from the copies, whatever the config says.
    pub fn keeps_others_out(&self) -> bool {
        self.is_kept_fenced && !self.stops_all()
    }

    /// The topics that are copied back from the target, if they are.
    pub fn copied_back(&self) -> Option<&TopicSet> {
        (self.primary == Primary::Target && self.is_copied_back).then_some(&self.topics)
    }

    /// The topics that the flow must not copy; `None` when it may copy all.
    pub fn not_copied(&self) -> Option<&TopicSet> {
        (self.primary != Primary::Source).then_some(&self.topics)
    }

    /// Whether the flow must copy nothing at all.
    pub fn stops_all(&self) -> bool {
        self.not_copied() == Some(&TopicSet::All)
    }
}

/// What kind of cut-over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CutoverKind {
    /// Failover with the source reachable: nothing is lost.
    Planned,
    /// Failover with the source gone.
    Unplanned,
    /// Back, after a failover: the same as a planned failover, of the flow that copies back.
    Failback,
}

impl CutoverKind {
    /// The word for JSON and people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Unplanned => "unplanned",
            Self::Failback => "failback",
        }
    }

    /// Whether both clusters take part, so that nothing is lost.
    pub fn loses_nothing(self) -> bool {
        self != Self::Unplanned
    }
}

/// Where a plan stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CutoverState {
    /// Begun and not at its end; it can be continued or aborted.
    Open,
    /// Every step is done.
    Done,
    /// Being undone; it can only be undone further.
    Aborting,
    /// Undone.
    Aborted,
}

/// Where a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// Not begun.
    Pending,
    /// Begun. After a crash nobody knows how far it got, so it is done again.
    Doing,
    /// Done.
    Done,
    /// It failed; it is done again when the plan is continued.
    Failed,
    /// Being undone.
    Undoing,
    /// Undone.
    Undone,
}

/// A step of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Its name.
    pub step: String,
    /// Where it stands.
    pub state: StepState,
    /// When it was begun (last), milliseconds since the epoch; 0 before.
    pub began_ms: i64,
    /// How long it took; 0 before its end.
    pub took_ms: u64,
    /// What came out, or why it failed, in one line.
    pub result: String,
}

/// Who carries out a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operator {
    /// The machine: host name, boot id and process id namespace.
    pub host: String,
    /// The process there.
    pub pid: u32,
    /// The user there.
    pub user: String,
    /// When the process began with it, milliseconds since the epoch.
    pub since_ms: i64,
}

/// `cutover/<flow>`: the journal of the flow's last plan, written before and after every step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutoverRecord {
    /// Format version, 1.
    pub v: u32,
    /// The plan's id.
    pub plan: Uuid,
    /// Its kind.
    pub kind: CutoverKind,
    /// Where it stands.
    pub state: CutoverState,
    /// The topics that are cut over.
    pub topics: TopicSet,
    /// Who carries it out.
    pub operator: Operator,
    /// When it was begun, milliseconds since the epoch.
    pub began_ms: i64,
    /// The role before it; `None` for the first plan of a flow.
    pub role_before: Option<RoleRecord>,
    /// How writers are kept from the source: `acl` or `manual`.
    pub fence: String,
    /// Offsets of padding beyond twice the bound.
    pub padding: u64,
    /// Records that may be lost; `None` when any number may.
    pub accept_loss: Option<u64>,
    /// The steps in order.
    pub steps: Vec<StepRecord>,
    /// What the steps found, for the report: one small JSON value each.
    #[serde(default)]
    pub facts: BTreeMap<String, serde_json::Value>,
}

/// `cutover-lease/<flow>`: whose process carries out the plan. Written every second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// Format version, 1.
    pub v: u32,
    /// Random, one per process and start.
    pub owner: Uuid,
    /// The plan.
    pub plan: Uuid,
    /// Who.
    pub operator: Operator,
    /// Counts the heartbeats.
    pub beat: u64,
    /// True when the process ended in order.
    pub released: bool,
    /// The producer id of everything that holders of this lease write; -1 of an older Twinlog.
    #[serde(default = "unknown_offset")]
    pub producer_id: i64,
    /// The epoch of what this one writes: each holder's is higher than that of the one before.
    #[serde(default)]
    pub producer_epoch: i16,
}

impl LeaseRecord {
    /// Whose a lease is, by its records in the log's order.
    ///
    /// A holder's successor writes with the same producer id in a higher epoch, so that the broker refuses the holder from
    /// then on. Nothing refuses him where two come before there is any id: each gets one of his own, and over a long line
    /// the second one's record may arrive when the first has looked for it long ago. So a record with another id takes
    /// nothing from somebody who hasn't given it back, whenever it comes.
    ///
    /// The cleaner may drop the first record and leave the second: who has a heartbeat has looked behind his record and
    /// found nobody before it.
    pub fn holder(in_order: impl IntoIterator<Item = Self>) -> Option<Self> {
        in_order.into_iter().fold(None, |held, next| match held {
            Some(held) if !next.follows(&held) => Some(held),
            _ => Some(next),
        })
    }

    fn follows(&self, held: &Self) -> bool {
        let is_older_twinlog = held.producer_id < 0;
        let is_used_up = held.producer_epoch == i16::MAX;
        held.released
            || is_older_twinlog
            || is_used_up
            || self.producer_id == held.producer_id
            || self.beat > 0 && held.beat == 0
    }
}

/// `fork/<flow>/<source topic>`: where the two logs of each partition part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForkRecord {
    /// Format version, 1.
    pub v: u32,
    /// The plan that made it.
    pub plan: Uuid,
    /// The name on the target.
    pub target_topic: String,
    /// True where offsets differ and the map tells.
    pub mapped: bool,
    /// By partition number.
    pub partitions: Vec<Fork>,
}

/// What a record of an older Twinlog doesn't tell.
fn unknown_offset() -> i64 {
    -1
}

/// The fork of one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fork {
    /// The first source offset that was not copied.
    pub source_end: i64,
    /// No record before `source_epoch_to` is of a later leader epoch of the source than this one; -1
    /// if unknown.
    pub source_epoch: i32,
    /// The source offset up to which that is known; -1 if it isn't.
    #[serde(default = "unknown_offset")]
    pub source_epoch_to: i64,
    /// The first target offset that isn't a copy.
    pub target_end: i64,
    /// The first target offset that a client can write: what lies between is padding.
    pub padded_end: i64,
    /// The source's log end as it was seen last; -1 if it never was.
    pub observed_end: i64,
}

/// `fence/<flow>`: the ACLs that keep writers from the copied topics on the source. Only those that
/// weren't there before are listed: these are removed again, and never copied to the target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceRecord {
    /// Format version, 1.
    pub v: u32,
    /// The plan that they belong to.
    pub plan: Uuid,
    /// The ACLs.
    pub acls: Vec<FenceAcl>,
}

/// One ACL of a fence: literal topic, every host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FenceAcl {
    /// The topic on the source.
    pub topic: String,
    /// Kafka's number of the operation.
    pub operation: i8,
    /// True for DENY. ALLOW only where the first ACL of a topic would take away every other right
    /// (`allow.everyone.if.no.acl.found`), and for Twinlog itself.
    pub deny: bool,
    /// Whom it is about; `None` for everybody (`User:*`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
}

impl FenceAcl {
    /// As the cluster has it.
    pub fn binding(&self) -> AclBinding {
        AclBinding {
            resource_type: TOPIC,
            pattern_type: LITERAL,
            name: self.topic.clone(),
            principal: self
                .principal
                .clone()
                .unwrap_or_else(|| "User:*".to_owned()),
            host: "*".to_owned(),
            operation: self.operation,
            permission: if self.deny { DENY } else { ALLOW },
        }
    }
}

/// `ends/<flow>`: when the running flow last saw the source. At least every ten seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedRecord {
    /// Format version, 1.
    pub v: u32,
    /// Milliseconds since the epoch, by the clock of the machine that ran the flow.
    pub at_ms: i64,
    /// The source's brokers that have answered: who begins behind a cut knows by them who is on its other side. Empty in
    /// what an older Twinlog wrote.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub heard: BTreeSet<i32>,
}

/// `ends/<flow>/<source topic>`: the source's log ends as the running flow saw them, every two
/// seconds while they move.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndsRecord {
    /// Format version, 1.
    pub v: u32,
    /// When, milliseconds since the epoch.
    pub at_ms: i64,
    /// By partition: the high watermark; -1 while unknown.
    pub ends: Vec<i64>,
    /// By partition: records per second, rounded up; 0 for a quiet one.
    pub per_second: Vec<u64>,
    /// Partitions whose rate isn't known: they weren't seen for long enough.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unmeasured: BTreeSet<i32>,
    /// By partition: the most records that came in two looks, of late. Absent for one that is quiet.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub at_once: BTreeMap<i32, u64>,
    /// By partition: records in an hour, where somebody writes now and then: the rate at the last look may be that of a
    /// pause. Absent for others.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub per_hour: BTreeMap<i32, u64>,
    /// Partitions whose source leader hasn't answered the process that wrote this: their ends and rates are those of
    /// a process before, which saw them last at this time, milliseconds since the epoch; -1 while unknown.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub carried_ms: BTreeMap<i32, i64>,
    /// By partition: since when nothing came, milliseconds since the epoch: its last growth, or the first look.
    /// -1 while unknown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quiet_since_ms: Vec<i64>,
    /// The mean size of a record, bytes.
    pub record_bytes: u64,
    /// Partitions that are stopped, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub stopped: BTreeMap<i32, String>,
    /// Partitions that hadn't been copied for long, and are tried again, with the reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub retrying: BTreeMap<i32, String>,
    /// Partitions that were behind and hadn't moved for long.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub no_progress: BTreeSet<i32>,
    /// Partitions of which the copy didn't have all up to these ends when this was written, or of which that wasn't
    /// known: since when, milliseconds since the epoch, or -1 if nobody knows. Of the others it had all, and has had
    /// since, until the ends were last seen.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub behind: BTreeMap<i32, i64>,
    /// The shortest `delete.retention.ms` that may have decided about tombstones beyond the copy, milliseconds. Absent in
    /// what an older Twinlog wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete_retention_ms: Option<i64>,
}

/// `given-up/<flow>`, on the old primary: it is the primary again, though the standby that was it never said so. What a
/// standby that comes back all the same says of these failovers counts no more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenUpRecord {
    /// Format version, 1.
    pub v: u32,
    /// The plan that gave it up last.
    pub plan: Uuid,
    /// When, milliseconds since the epoch.
    pub at_ms: i64,
    /// The failovers that are over by that, in this and in earlier times.
    pub ended: BTreeSet<Uuid>,
    /// The old primary hadn't been told of the failover: all are over that were before `at_ms`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_untold: bool,
}

impl GivenUpRecord {
    /// Whether this is the end of the failover that a role is about.
    pub fn ends(&self, role: &RoleRecord) -> bool {
        self.ended.contains(&role.plan) || (self.is_untold && role.since_ms <= self.at_ms)
    }
}

/// `reign/<flow>`: what the target had of its own when it became the primary. It isn't copied back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReignRecord {
    /// Format version, 1.
    pub v: u32,
    /// Its ACLs, each as a hash in hexadecimal; absent where they couldn't be read.
    pub acls: Option<BTreeSet<String>>,
    /// Its topics that are no copies.
    pub own_topics: BTreeSet<String>,
    /// Its quotas of users and client ids; absent where they couldn't be read, and of an older Twinlog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quotas: Option<Vec<ReignQuotas>>,
}

/// The quotas of one entity in a [`ReignRecord`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReignQuotas {
    /// Whom they are for: `user` and `client-id` with their name, `null` for the default.
    pub entity: BTreeMap<String, Option<String>>,
    /// By key, in decimal: JSON has no number for all of them.
    pub values: BTreeMap<String, String>,
}

/// `orphans/<flow>`: what the returned old primary has that was never copied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrphansRecord {
    /// Format version, 1.
    pub v: u32,
    /// The plan whose forks were compared.
    pub plan: Uuid,
    /// By source topic: the first offset that was not copied and the log's end, of each partition
    /// that has any.
    pub topics: BTreeMap<String, Vec<(i32, i64, i64)>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(owner: u128, producer: (i64, i16), beat: u64) -> LeaseRecord {
        LeaseRecord {
            v: 1,
            owner: Uuid::from_u128(owner),
            plan: Uuid::nil(),
            operator: Operator {
                host: String::new(),
                pid: 1,
                user: String::new(),
                since_ms: 0,
            },
            beat,
            released: false,
            producer_id: producer.0,
            producer_epoch: producer.1,
        }
    }

    fn given_back(lease: LeaseRecord) -> LeaseRecord {
        LeaseRecord {
            released: true,
            ..lease
        }
    }

    #[test]
    fn the_log_says_whose_the_lease_is() {
        let (a, b) = ((7, 0), (8, 0));
        let (first, second) = (lease(1, a, 0), lease(2, b, 0));
        let next = lease(3, (7, 1), 0);
        let last_epoch = lease(1, (7, i16::MAX), 0);
        let older = lease(1, (-1, 0), 9);
        let living = lease(1, a, 5);
        let cases = [
            ("nobody's", vec![], None),
            ("the first of two", vec![&first, &second], Some(1)),
            ("however late", vec![&first, &living, &second], Some(1)),
            ("it goes on", vec![&first, &second, &living], Some(1)),
            ("of the next generation", vec![&first, &next], Some(3)),
            ("beside a second", vec![&first, &second, &next], Some(3)),
            ("all epochs used up", vec![&last_epoch, &second], Some(2)),
            ("an older Twinlog's", vec![&older, &second], Some(2)),
            ("cleaned before", vec![&second, &living], Some(1)),
        ];
        for (what, records, owner) in cases {
            let holder = LeaseRecord::holder(records.into_iter().cloned());
            assert_eq!(holder.map(|it| it.owner.as_u128()), owner, "{what}");
        }
        let free = [first.clone(), given_back(first), second];
        let holder = LeaseRecord::holder(free).map(|it| it.owner.as_u128());
        assert_eq!(holder, Some(2), "given back");
    }
}
