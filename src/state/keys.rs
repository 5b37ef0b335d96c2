//! The keys of the state topic. Topics are named as on the source.

const SEGMENTS: &str = "segment/";
/// What the keys of all flows' ACLs begin with.
pub const ALL_ACLS: &str = "acl/";
/// What the keys of all flows' quotas begin with.
pub const ALL_QUOTAS: &str = "quota/";

/// A [`FlowRecord`](super::FlowRecord).
pub fn flow(flow: &str) -> String {
    format!("flow/{flow}")
}

/// A [`FillerRecord`](super::FillerRecord).
pub fn filler(flow: &str, era: u64, producer_id: i64) -> String {
    format!("{}{era}/{producer_id}", fillers(flow))
}

/// What the keys of all [`FillerRecord`](super::FillerRecord)s of a flow begin with.
pub fn fillers(flow: &str) -> String {
    format!("filler/{flow}/")
}

/// A [`Claim`](super::Claim).
pub fn claim(flow: &str) -> String {
    format!("claim/{flow}")
}

/// A [`Turn`](super::Turn).
pub fn turn(flow: &str) -> String {
    format!("turn/{flow}")
}

/// A [`Beat`](super::Beat).
pub fn beat(flow: &str) -> String {
    format!("beat/{flow}")
}

/// A [`TopicRecord`](super::TopicRecord).
pub fn topic(flow: &str, topic: &str) -> String {
    format!("topic/{flow}/{topic}")
}

/// The keys of one partition's offset map: a [`MapRecord`](super::MapRecord), and its segments,
/// whose values are bytes.
#[derive(Clone, Debug)]
pub struct MapKeys {
    head: String,
    segments: String,
}

impl MapKeys {
    /// Of this partition.
    pub fn new(flow: &str, topic: &str, partition: i32) -> Self {
        Self {
            head: format!("map/{flow}/{topic}/{partition}"),
            segments: format!("{}{topic}/{partition}/", segments_of_flow(flow)),
        }
    }

    /// The key of the record that names the segments.
    pub fn head(&self) -> &str {
        &self.head
    }

    /// The key of a segment; keys are in the order of the numbers.
    pub fn segment(&self, number: u64) -> String {
        format!("{}{number:020}", self.segments)
    }

    /// What the segments' keys begin with.
    pub fn segments(&self) -> &str {
        &self.segments
    }
}

/// What the keys of all segments of a flow's maps begin with.
pub fn segments_of_flow(flow: &str) -> String {
    format!("{SEGMENTS}{flow}/")
}

/// Whether a key of whatever kind is a flow's.
pub(super) fn is_of(key: &str, flow: &str) -> bool {
    key.split('/').nth(1) == Some(flow)
}

/// Whether this is a map segment's key, of any flow.
pub(super) fn is_segment(key: &str) -> bool {
    key.starts_with(SEGMENTS)
}

/// Whether the log's order of a key's values counts, and not the newest alone: a flow's claim and a plan's lease.
pub(super) fn is_ordered(key: &str) -> bool {
    key.starts_with("claim/") || key.starts_with("cutover-lease/")
}

/// Whether this is a [`FlowRecord`](super::FlowRecord)'s key.
pub(super) fn is_flow(key: &str) -> bool {
    key.starts_with("flow/")
}

/// A [`SeenRecord`](super::SeenRecord).
pub fn seen(flow: &str, topic: &str) -> String {
    format!("seen/{flow}/{topic}")
}

/// A [`GapRecord`](super::GapRecord) that begins at a source offset.
pub fn gap(flow: &str, topic: &str, partition: i32, from: i64) -> String {
    format!("gap/{flow}/{topic}/{partition}/{from}")
}

/// A [`DamageRecord`](super::DamageRecord).
pub fn damage(flow: &str, topic: &str, partition: i32) -> String {
    format!("damage/{flow}/{topic}/{partition}")
}

/// A [`MissedDeletesRecord`](super::MissedDeletesRecord).
pub fn missed_deletes(flow: &str, topic: &str, partition: i32) -> String {
    format!("{}{topic}/{partition}", all_missed_deletes(flow))
}

/// What the keys of all of a flow's missed deletes begin with.
pub fn all_missed_deletes(flow: &str) -> String {
    format!("missed-deletes/{flow}/")
}

/// What the keys of all ends of a flow's topics begin with.
pub fn all_ends(flow: &str) -> String {
    format!("ends/{flow}/")
}

/// A [`GroupPositions`](super::GroupPositions).
pub fn group(flow: &str, group: &str) -> String {
    format!("{}{group}", groups(flow))
}

/// Whether this is a [`GroupPositions`](super::GroupPositions)'s key.
pub(super) fn is_group(key: &str) -> bool {
    key.starts_with("group/")
}

/// What the keys of a flow's groups begin with.
pub fn groups(flow: &str) -> String {
    format!("group/{flow}/")
}

/// A [`ShareOffsets`](super::ShareOffsets).
pub fn share(flow: &str, group: &str) -> String {
    format!("{}{group}", shares(flow))
}

/// What the keys of a flow's share groups begin with.
pub fn shares(flow: &str) -> String {
    format!("share/{flow}/")
}

/// A [`RoleRecord`](super::RoleRecord).
pub fn role(flow: &str) -> String {
    format!("role/{flow}")
}

/// A [`CutoverRecord`](super::CutoverRecord).
pub fn cutover(flow: &str) -> String {
    format!("cutover/{flow}")
}

/// A [`LeaseRecord`](super::LeaseRecord).
pub fn cutover_lease(flow: &str) -> String {
    format!("cutover-lease/{flow}")
}

/// A [`ForkRecord`](super::ForkRecord).
pub fn fork(flow: &str, topic: &str) -> String {
    format!("fork/{flow}/{topic}")
}

/// A [`FenceRecord`](super::FenceRecord).
pub fn fence(flow: &str) -> String {
    format!("fence/{flow}")
}

/// A [`GivenUpRecord`](super::GivenUpRecord).
pub fn given_up(flow: &str) -> String {
    format!("given-up/{flow}")
}

/// A [`FenceRecord`](super::FenceRecord): what keeps others from a flow's copies, on the target.
pub fn protect(flow: &str) -> String {
    format!("protect/{flow}")
}

/// An [`ObservedRecord`](super::ObservedRecord).
pub fn observed(flow: &str) -> String {
    format!("ends/{flow}")
}

/// An [`EndsRecord`](super::EndsRecord).
pub fn ends(flow: &str, topic: &str) -> String {
    format!("ends/{flow}/{topic}")
}

/// An [`OrphansRecord`](super::OrphansRecord).
pub fn orphans(flow: &str) -> String {
    format!("orphans/{flow}")
}

/// What a flow's target had when it became the primary.
pub fn reign(flow: &str) -> String {
    format!("reign/{flow}")
}

/// The same of one topic, by its name on the source.
pub fn reign_of_topic(flow: &str, topic: &str) -> String {
    format!("reign/{flow}/{topic}")
}

/// An [`OrphanDecisions`](super::OrphanDecisions).
pub fn orphan_decisions(flow: &str, topic: &str) -> String {
    format!("orphan-decision/{flow}/{topic}")
}

/// A [`ReplayRecord`](super::ReplayRecord).
pub fn orphans_replay(flow: &str, topic: &str, partition: i32) -> String {
    format!("{}{topic}/{partition}", orphans_replays(flow))
}

/// What the keys of a flow's replays begin with.
pub fn orphans_replays(flow: &str) -> String {
    format!("orphans-replay/{flow}/")
}

/// A [`HeldConfigs`](super::HeldConfigs).
pub fn held_configs(flow: &str, topic: &str) -> String {
    format!("config/{flow}/{topic}")
}

/// A [`BuildRecord`](super::BuildRecord).
pub fn build(flow: &str) -> String {
    format!("build/{flow}")
}

/// A [`GoneRecord`](super::GoneRecord).
pub fn gone(flow: &str, topic: &str) -> String {
    format!("{}{topic}", all_gone(flow))
}

/// What the keys of a flow's gone topics begin with.
pub fn all_gone(flow: &str) -> String {
    format!("gone/{flow}/")
}

/// An [`AclRecord`](super::AclRecord); `acl` is the end of the key, the ACL itself.
pub fn acl(flow: &str, acl: &str) -> String {
    format!("{}{acl}", acls(flow))
}

/// What the keys of a flow's ACLs begin with.
pub fn acls(flow: &str) -> String {
    format!("{ALL_ACLS}{flow}/")
}

/// A [`ReleaseRecord`](super::ReleaseRecord).
pub fn release(flow: &str) -> String {
    format!("release/{flow}")
}

/// A [`QuotaRecord`](super::QuotaRecord), by an entity's text without `/` in its names.
pub fn quota(flow: &str, entity: &str) -> String {
    format!("{}{entity}", quotas(flow))
}

/// What the keys of a flow's quotas begin with.
pub fn quotas(flow: &str) -> String {
    format!("{ALL_QUOTAS}{flow}/")
}

/// A [`VerifyRecord`](super::VerifyRecord).
pub fn verify(flow: &str) -> String {
    format!("verify/{flow}")
}

/// A [`DrillRecord`](super::DrillRecord).
pub fn drill(flow: &str) -> String {
    format!("drill/{flow}")
}

/// An [`OpenDrill`](super::OpenDrill).
pub fn open_drill(flow: &str, id: &str) -> String {
    format!("{}{id}", open_drills(flow))
}

/// What the keys of a flow's open drills begin with.
pub fn open_drills(flow: &str) -> String {
    format!("drill-open/{flow}/")
}
