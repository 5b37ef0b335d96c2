//! The values in the state topic. Fields are only ever added.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::wire::TopicPartition;

/// `flow/<flow>`: written once, when the flow first runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowRecord {
    /// Format version, 1.
    pub v: u32,
    /// The source cluster's id.
    pub source_cluster_id: Option<String>,
    /// The producer id of every copied record.
    pub data_producer_id: i64,
    /// The producer id of every filler.
    pub filler_producer_id: i64,
}

/// `filler/<flow>/<era>/<producer id>`: another producer id of the flow's fillers, from when the one before
/// had no more epochs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FillerRecord {
    /// Format version, 1. A Twinlog that doesn't know of these takes the fillers for a stranger's.
    pub v: u32,
    /// Which one it is, counted from 1.
    pub era: u64,
    /// The producer id.
    pub producer_id: i64,
}

/// `topic/<flow>/<source topic>`: a topic that this flow copies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicRecord {
    /// Format version, 1.
    pub v: u32,
    /// The source topic's id; another one means that it was recreated.
    pub source_topic_id: uuid::Uuid,
    /// The name on the target.
    pub target_topic: String,
    /// The target topic's id.
    pub target_topic_id: uuid::Uuid,
    /// True when Twinlog created the target topic: only then may it ever delete it.
    pub created: bool,
    /// True when offsets differ in every partition and maps are kept.
    pub mapped: bool,
    /// Why, in one line; empty when offsets aren't different everywhere.
    pub reason: String,
    /// Per partition, the source offset at which the copy begins. Below it, on the target, is the
    /// burned prefix. Negative while it isn't known, since the partition has had no leader so far:
    /// `ListOffsets`' number for where it is to begin, -2 for the log's start, -1 for its end.
    pub origins: Vec<i64>,
    /// Where a log is continued that was there before us: an old primary's, after a failover.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continued: Option<ContinuedLog>,
    /// Partitions whose offsets alone differ. An entry stays as long as the copy: what is written
    /// behind it has other offsets. Its map is stored before it, and it before the first such record.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub turned: BTreeMap<i32, TurnedPartition>,
    /// When the copy was begun, milliseconds since the epoch; absent where an older Twinlog or another primary did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun_at_ms: Option<i64>,
}

/// A partition that is mapped in a topic whose others aren't.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnedPartition {
    /// The first source offset that isn't its own place: up to there offsets are the same.
    pub from: i64,
    /// Fillers that the target has before it, and for ever: sequences are counted without them.
    pub fillers: i64,
    /// Why, in one line with numbers.
    pub reason: String,
    /// Offsets of the target that somebody else wrote: no copies, and counted by no producer of ours.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign: Ranges,
}

impl TurnedPartition {
    /// How many offsets of the target somebody else wrote.
    pub fn strangers(&self) -> i64 {
        self.foreign.iter().map(|(from, to)| to - from).sum()
    }
}

impl TopicRecord {
    /// Whether a partition's offsets differ and a map is kept.
    pub fn is_mapped(&self, partition: i32) -> bool {
        self.mapped || self.turned.contains_key(&partition)
    }

    /// Whether any partition's do.
    pub fn has_maps(&self) -> bool {
        self.mapped || !self.turned.is_empty()
    }

    /// Offsets of a partition's copy that somebody else wrote.
    pub fn foreign(&self, partition: i32) -> &[(i64, i64)] {
        let turned = self.turned.get(&partition);
        turned.map_or(&[], |turned| turned.foreign.as_slice())
    }

    /// Why offsets differ, in one line; empty when they are identical.
    pub fn why_mapped(&self) -> String {
        let mut why = match self.turned.first_key_value() {
            Some((number, first)) if !self.mapped => {
                let (some, all) = (self.turned.len(), self.origins.len());
                format!("{some} of {all} partition(s), {number}: {}", first.reason)
            }
            _ => self.reason.clone(),
        };
        let strangers: i64 = self.turned.values().map(TurnedPartition::strangers).sum();
        if strangers > 0 {
            let what = format!("; the copy has {strangers} offset(s) that somebody else wrote");
            why.push_str(&what);
        }
        why
    }

    /// Where a partition's copy begins; `None` while that isn't known.
    pub fn origin(&self, partition: i32) -> Option<i64> {
        let origin = *self.origins.get(usize::try_from(partition).ok()?)?;
        (origin >= 0).then_some(origin)
    }

    /// The partitions whose copy hasn't begun, and how their origin is asked for.
    pub fn unknown_origins(&self) -> Vec<(i32, i64)> {
        let all = (0..).zip(self.origins.iter().copied());
        all.filter(|(_, origin)| *origin < 0).collect()
    }
}

/// A log that a flow goes on writing behind somebody else's records. Sequences and fillers are
/// counted from there, by producer ids that have written nothing before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContinuedLog {
    /// The plan whose forks are continued: the same log is never continued twice from the same fork.
    pub plan: uuid::Uuid,
    /// The producer id of every record that is copied behind them.
    pub data_producer_id: i64,
    /// The producer id of every filler there.
    pub filler_producer_id: i64,
    /// Per partition, the first target offset that is ours. Of later partitions all are.
    pub bases: Vec<i64>,
    /// Per partition, offsets of records that the target's log has and the source's hasn't: what
    /// was stranded there by unplanned failovers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only_on_target: Vec<Ranges>,
    /// The same the other way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only_on_source: Vec<Ranges>,
}

/// Offsets: the first one, and the first one behind; in order.
pub type Ranges = Vec<(i64, i64)>;

fn ranges(all: &[Ranges], partition: i32) -> &[(i64, i64)] {
    let index = usize::try_from(partition).ok();
    let ranges = index.and_then(|index| all.get(index));
    ranges.map_or(&[], Vec::as_slice)
}

impl ContinuedLog {
    /// The first target offset of a partition that is ours.
    pub fn base(&self, partition: i32) -> i64 {
        let index = usize::try_from(partition).ok();
        let base = index.and_then(|index| self.bases.get(index));
        base.copied().unwrap_or(0)
    }

    /// Offsets of a partition that only the target has.
    pub fn only_on_target(&self, partition: i32) -> &[(i64, i64)] {
        ranges(&self.only_on_target, partition)
    }

    /// Offsets of a partition that only the source has.
    pub fn only_on_source(&self, partition: i32) -> &[(i64, i64)] {
        ranges(&self.only_on_source, partition)
    }

    /// Where a position on the source is on the target, offsets being the same: behind what only
    /// the target has.
    pub fn past_strangers(&self, partition: i32, position: i64) -> i64 {
        let within = |(from, to): &&(i64, i64)| (*from..*to).contains(&position);
        let range = self.only_on_target(partition).iter().find(within);
        range.map_or(position, |(_, to)| *to)
    }
}

/// `map/<flow>/<source topic>/<partition>`: the offset map of a mapped partition, without its
/// closed segments. Those are `segment/<flow>/<source topic>/<partition>/<number>`, written before
/// the head that names them and never changed. [`maps`](super::maps) puts them together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapRecord {
    /// Format version, 1.
    pub v: u32,
    /// The map's ends, open runs and the numbers of its segments.
    pub map: crate::offsets::MapHead,
}

/// `seen/<flow>/<source topic>`: how far each partition was copied, and the source leader's epoch
/// there. Stored now and then; it finds a source that lost records while nobody was looking.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenRecord {
    /// Format version, 1.
    pub v: u32,
    /// Per partition, the leader epoch of the newest batch seen, or -1.
    pub epochs: Vec<i32>,
    /// Per partition, the first source offset not yet copied then.
    pub positions: Vec<i64>,
}

/// `gap/<flow>/<source topic>/<partition>/<from>`: source records that retention took first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapRecord {
    /// Format version, 1.
    pub v: u32,
    /// First lost source offset.
    pub from: i64,
    /// First source offset after the gap.
    pub to: i64,
    /// When it was noticed, milliseconds since the epoch.
    pub noticed_at_ms: i64,
}

/// `damage/<flow>/<source topic>/<partition>`: a record of ours stands at a wrong target offset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamageRecord {
    /// Format version, 1.
    pub v: u32,
    /// The id of the target topic: the damage goes with it.
    pub target_topic_id: uuid::Uuid,
    /// The target offset that the record was made for, or the log end that was meant.
    pub expected: i64,
    /// The offset that it got, or the log end that was found.
    pub found: i64,
    /// When it was noticed, milliseconds since the epoch.
    pub noticed_at_ms: i64,
}

/// `missed-deletes/<flow>/<source topic>/<partition>`: the source's cleaner may have removed tombstones before they
/// were copied, so that keys live on in the copy that the source has no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissedDeletesRecord {
    /// Format version, 1.
    pub v: u32,
    /// The source topic's id.
    pub source_topic_id: uuid::Uuid,
    /// The id of the target topic: what was missed goes with it.
    pub target_topic_id: uuid::Uuid,
    /// Where, and since when the copy was behind.
    #[serde(flatten)]
    pub missed: crate::telemetry::up_to_date::MissedDeletes,
}

/// `group/<flow>/<group>`: what was committed for a consumer group on the target. It tells our own
/// commits from those of others after a restart, and where groups were when the source is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupPositions {
    /// Format version, 1.
    pub v: u32,
    /// When this was stored, milliseconds since the epoch by the clocks of the target's coordinators, as
    /// far as their newest commit tells it. A commit that comes within 15 s of it may be ours. 0 where nobody has
    /// followed the group since its positions were noted, [`GroupPositions::NEVER`] where nothing was ever committed for it.
    pub seen_until_ms: i64,
    /// By source topic: partition, position on the source, position on the target.
    pub topics: BTreeMap<String, Vec<(i32, i64, i64)>>,
    /// By source topic: partition and position on the source, where that is ahead of what was
    /// committed on the target, such as beyond the copy's end.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ahead: BTreeMap<String, Vec<(i32, i64)>>,
    /// By source topic: partition and position on the target that somebody else committed, and that is
    /// left to them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub foreign: BTreeMap<String, Vec<(i32, i64)>>,
    /// By source topic: partition and positions on the target that are ours as well, if one of them stands there: what
    /// was sent and not answered, and what stood there before that.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub also: BTreeMap<String, Vec<(i32, i64)>>,
    /// The generation of the claim with which `run` stored it; 0 where a cut-over did. What an owner had on its way when it was
    /// cut off may arrive behind a new one's, and doesn't count then.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub generation: u64,
}

/// Whether what is remembered of groups has all that was committed for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Whoever committed has ended in order, and stored it behind the last commit.
    Whole,
    /// The last commits may be missing: who made them died, or is at it.
    MayLackTheLast,
}

/// So many positions of ours are remembered of one partition besides the last one.
const ALSO_MAX: usize = 4;

impl GroupPositions {
    /// Of a group that was seen on the source, and for which nothing was ever committed on the target: then nothing there
    /// is ours, whatever its time.
    pub const NEVER: i64 = i64::MIN;

    /// Whether the last commits of ours may be missing here. Whoever commits for a group stores its record before, with the
    /// time; and who notes positions without a time commits nothing behind that.
    pub fn may_lack_the_last(&self) -> bool {
        self.seen_until_ms > 0
    }

    /// The position on the source and on the target that were committed last.
    pub fn pair(&self, topic: &str, partition: i32) -> Option<(i64, i64)> {
        let positions = self.topics.get(topic)?.iter();
        let mut found = positions.filter(|(number, _, _)| *number == partition);
        found.next().map(|(_, source, target)| (*source, *target))
    }

    /// What was committed on the target last.
    pub fn on_target(&self, topic: &str, partition: i32) -> Option<i64> {
        self.pair(topic, partition).map(|(_, target)| target)
    }

    /// What somebody else committed on the target, as far as that was seen.
    pub fn strangers(&self, topic: &str, partition: i32) -> Option<i64> {
        let positions = self.foreign.get(topic)?.iter();
        let mut found = positions.filter(|(number, _)| *number == partition);
        found.next().map(|(_, target)| *target)
    }

    /// Notes that what somebody else committed on the target stands there again: nothing of ours does.
    pub fn give_back(&mut self, (topic, partition): (&str, i32)) {
        if let Some(positions) = self.topics.get_mut(topic) {
            positions.retain(|(number, _, _)| *number != partition);
        }
        self.topics.retain(|_, positions| !positions.is_empty());
    }

    /// Whether a position on the target is known to be ours: the one that was committed last, or one that stands there
    /// if that wasn't taken.
    pub fn is_ours(&self, (topic, partition): (&str, i32), offset: i64) -> bool {
        self.on_target(topic, partition) == Some(offset)
            || self.is_also_ours((topic, partition), offset)
    }

    /// Whether a position on the target is ours because it was sent and not answered, or stood there before that.
    pub fn is_also_ours(&self, (topic, partition): (&str, i32), offset: i64) -> bool {
        let positions = self.also.get(topic);
        positions.is_some_and(|positions| positions.contains(&(partition, offset)))
    }

    /// Remembers that a position on the target is ours as well, if it stands there.
    pub fn note_also(&mut self, (topic, partition): (&str, i32), target: i64) {
        let positions = self.also.entry(topic.to_owned()).or_default();
        positions.retain(|known| *known != (partition, target));
        let of_partition = positions.iter().filter(|(number, _)| *number == partition);
        if of_partition.count() >= ALSO_MAX
            && let Some(oldest) = positions
                .iter()
                .position(|(number, _)| *number == partition)
        {
            positions.remove(oldest);
        }
        positions.push((partition, target));
    }

    /// Remembers these positions of a partition of which nothing is remembered so far, the newest last.
    pub fn note_all_also(
        &mut self,
        (topic, partition): (&str, i32),
        targets: impl Iterator<Item = i64>,
    ) {
        let mut newest: Vec<i64> = Vec::new();
        for target in targets {
            newest.retain(|known| *known != target);
            newest.push(target);
        }
        let gone = newest.len().saturating_sub(ALSO_MAX);
        let kept = newest.into_iter().skip(gone);
        let mut kept = kept.map(|target| (partition, target)).peekable();
        if kept.peek().is_some() {
            self.also.entry(topic.to_owned()).or_default().extend(kept);
        }
    }

    /// Notes that a position is about to be committed on the target over whatever stands there. What we had committed
    /// before stays ours: it is what stands there if this isn't taken.
    pub fn note(&mut self, (topic, partition): (&str, i32), source: i64, target: i64) {
        if let Some(before) = self.on_target(topic, partition).filter(|it| *it != target) {
            self.note_also((topic, partition), before);
        }
        let positions = self.topics.entry(topic.to_owned()).or_default();
        positions.retain(|(number, _, _)| *number != partition);
        positions.push((partition, source, target));
        if let Some(positions) = self.foreign.get_mut(topic) {
            positions.retain(|(number, _)| *number != partition);
        }
        self.foreign.retain(|_, positions| !positions.is_empty());
    }

    /// The group's last known positions on the source.
    pub fn known_on_source(&self) -> BTreeMap<TopicPartition, i64> {
        let mut known = BTreeMap::new();
        for (topic, positions) in &self.topics {
            for (partition, source, _) in positions {
                known.insert(TopicPartition::new(topic, *partition), *source);
            }
        }
        for (topic, positions) in &self.ahead {
            for (partition, source) in positions {
                let position = known.entry(TopicPartition::new(topic, *partition));
                let position = position.or_insert(*source);
                *position = (*position).max(*source);
            }
        }
        known
    }
}

/// `share/<flow>/<group>`: where a share group was set to begin on the target. It tells our own
/// start offsets from those of others after a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareOffsets {
    /// Format version, 1.
    pub v: u32,
    /// By source topic.
    pub topics: BTreeMap<String, Vec<ShareOffset>>,
}

/// One partition of [`ShareOffsets`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareOffset {
    /// The partition.
    pub partition: i32,
    /// The start offset on the source.
    pub source: i64,
    /// What was set for it on the target; absent before the first time.
    pub target: Option<i64>,
    /// What was being set when this was stored: it may or may not have arrived.
    pub sending: Option<i64>,
}

/// `claim/<flow>`: the process that runs the flow. The highest generation wins, of equal ones the
/// first in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Format version, 1.
    pub v: u32,
    /// Random, one per process and start.
    pub owner: uuid::Uuid,
    /// The machine: host name, boot id and process id namespace.
    pub host: String,
    /// The process id there.
    pub pid: u32,
    /// When it was claimed, milliseconds since the epoch.
    pub claimed_at_ms: i64,
    /// True when the owner ended in order.
    pub released: bool,
    /// Given back behind the record of all that was committed for groups, by its owner and those before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub remembers_groups: bool,
    /// Whoever had it was silent when a cut-over took it from him: he may still wake up and send what he has in hand. Carried on
    /// by those who come behind, until one of them gives it back who has seen the source.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left_open: bool,
    /// The plan of the role that the owner knew when it claimed the flow: what that role stops, it
    /// doesn't copy.
    #[serde(default)]
    pub role_plan: Option<uuid::Uuid>,
    /// One more than the highest that its owner had seen; 0 from a Twinlog that gave none.
    #[serde(default)]
    pub generation: u64,
    /// How long its owner takes from one look at the state topic to the next, where that is long.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pace_ms: u64,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// `turn/<flow>`: a process that waits for the flow asks its owner for a sign of life. Of several that wait
/// the last question stands, and is answered for all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// Format version, 1.
    pub v: u32,
    /// Random, one per wait.
    pub asker: uuid::Uuid,
    /// Counts its questions.
    pub number: u64,
}

/// `beat/<flow>`: the owner's answer to a [`Turn`], or a sign that it is ending for a cut-over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// Format version, 1.
    pub v: u32,
    /// As in the owner's [`Claim`].
    pub owner: uuid::Uuid,
    /// Counts its answers.
    pub number: u64,
}

/// `config/<flow>/<source topic>`: what the source has of the configs that a mirror must have
/// otherwise while it is one. The failover sets them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldConfigs {
    /// Format version, 1.
    pub v: u32,
    /// By key: the value to set, or `None` to remove the override.
    pub values: BTreeMap<String, Option<String>>,
}

/// `build/<flow>`: which build of the source cluster is copied: a cluster that is built anew may have the id of the one
/// before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildRecord {
    /// Format version, 1.
    pub v: u32,
    /// The id of its `__consumer_offsets`.
    pub offsets_topic_id: uuid::Uuid,
}

/// `gone/<flow>/<source topic>`: a copied topic that is no longer on the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoneRecord {
    /// Format version, 1.
    pub v: u32,
    /// When it was first missed, milliseconds since the epoch, by Twinlog's clock.
    pub since_ms: i64,
}

/// `acl/<flow>/<the ACL>`: an ACL that the target has because of this flow, or will have. Stored
/// before it is created; one without a record was made by somebody else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclRecord {
    /// Format version, 1.
    pub v: u32,
    /// The ACL on the target, by the protocol's numbers.
    pub resource_type: i8,
    /// As above.
    pub pattern_type: i8,
    /// The resource's name on the target.
    pub name: String,
    /// Such as `User:alice`.
    pub principal: String,
    /// An address, or `*`.
    pub host: String,
    /// By the protocol's numbers.
    pub operation: i8,
    /// As above.
    pub permission: i8,
    /// The source's ACL that it comes from, in words.
    pub source: String,
    /// What became of it.
    pub state: AclState,
    /// Why it is or was held, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// For one topic out of a held pattern, which was released for that topic alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_part: bool,
}

/// What became of an ACL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AclState {
    /// We made it on the target.
    Applied,
    /// It waits; if the target has it nevertheless, somebody else made it.
    Held,
    /// It waited, and we made it when that was released.
    Released,
}

/// `release/<flow>`: held ACLs are to be on the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseRecord {
    /// Format version, 1.
    pub v: u32,
    /// The topics by their names on the target; `None` for everything that is held.
    pub topics: Option<std::collections::BTreeSet<String>>,
    /// When that was last changed, milliseconds since the epoch.
    pub released_at_ms: i64,
}

/// `quota/<flow>/<entity>`: what this flow set of a quota entity on the target, and what it keeps
/// ready. Values are decimal text, since JSON has no number for all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaRecord {
    /// Format version, 1.
    pub v: u32,
    /// Whom the quotas are for: `user` and `client-id` with their name, `null` for the default.
    pub entity: BTreeMap<String, Option<String>>,
    /// By key what was set, stored before it was.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub made: BTreeMap<String, MadeQuota>,
    /// By key what the failover sets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub held: BTreeMap<String, String>,
}

/// One quota of [`QuotaRecord::made`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeQuota {
    /// The value, and before it the one that it was to replace if that was ours too: until the
    /// answer arrives, either may be there.
    pub values: Vec<String>,
    /// Set by the failover: following leaves it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub released: bool,
    /// What the target had before the failover set it, if that wasn't ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
}

/// `verify/<flow>`: the last results of comparing the target with the source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VerifyRecord {
    /// Format version, 1.
    pub v: u32,
    /// By mode: `quick`, `sample`, `full`, `background`.
    pub last: BTreeMap<String, crate::telemetry::verify::VerifyResult>,
}
