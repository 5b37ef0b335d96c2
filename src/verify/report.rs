//! The report of a run: an interface for scripts. Fields are only ever added.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::VerifyError;
use super::listed::Listed;
use super::metadata::MetadataFound;
use crate::telemetry::up_to_date::MissedDeletes;

/// The version of [`Report`]'s shape.
pub const REPORT_VERSION: u32 = 1;

/// How much is compared.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// No records: partitions, log starts and ends, configs, groups.
    Quick,
    /// Ranges of records drawn by chance as well.
    Sample,
    /// Every record as well.
    Full,
}

impl Mode {
    /// The word for JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Sample => "sample",
            Self::Full => "full",
        }
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`REPORT_VERSION`].
    pub version: u32,
    /// The flow.
    pub flow: String,
    /// How much was compared.
    pub mode: Mode,
    /// For `sample`: percent of the offsets that were drawn, and the seed that draws them again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<SampleReport>,
    /// Milliseconds since the epoch.
    pub started_ms: i64,
    /// Milliseconds since the epoch.
    pub ended_ms: i64,
    /// `same`, `different`, or `incomplete` when nothing differs but something couldn't be compared.
    pub verdict: Verdict,
    /// How much of what both sides should have was compared.
    pub coverage: Coverage,
    /// The sums over all partitions.
    pub totals: Totals,
    /// Every difference that is listed: of records no more than 100 a partition.
    pub differences: Vec<Difference>,
    /// Topics that the flow should copy and hasn't begun to.
    pub topics_not_copied: Vec<String>,
    /// Topics that the target alone has, by their names there, and that the flow would select: its own, or
    /// somebody's. They stay, and are no difference.
    #[serde(default)]
    pub topics_only_on_target: Vec<String>,
    /// The partitions.
    pub partitions: Vec<PartitionReport>,
    /// The groups.
    pub groups: GroupsReport,
    /// The topics' configs.
    pub configs: Compared,
    /// The ACLs.
    pub acls: Compared,
    /// The quotas.
    #[serde(default)]
    pub quotas: Compared,
    /// The users that can log in (SCRAM): names and mechanisms.
    #[serde(default)]
    pub users: Compared,
    /// What waits for the failover.
    #[serde(default)]
    pub held: Compared,
    /// How many replicas the copies have.
    #[serde(default)]
    pub replicas: Compared,
    /// What else couldn't be compared, a line each.
    #[serde(default)]
    pub not_compared: Vec<String>,
    /// What was taken from what the copier remembers, a line each.
    #[serde(default)]
    pub believed: Vec<String>,
    /// What nothing here looks at, a line each.
    #[serde(default)]
    pub not_looked_at: Vec<String>,
}

/// See [`Report::verdict`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything that was compared is the same.
    Same,
    /// Something differs.
    Different,
    /// Something couldn't be compared, and nothing that was differs.
    Incomplete,
}

impl Verdict {
    /// The word for JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Different => "different",
            Self::Incomplete => "incomplete",
        }
    }
}

/// How ranges were drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleReport {
    /// Of the offsets.
    pub percent: f64,
    /// Draws the same ranges again, while the logs are the same.
    pub seed: u64,
}

/// How much was compared.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Coverage {
    /// Source offsets that both sides should have: those too that the target has lost.
    pub comparable_offsets: i64,
    /// Of these, how many were compared.
    pub compared_offsets: i64,
    /// 0 to 1; 1 where there is nothing to compare.
    pub ratio: f64,
}

/// Sums.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Partitions looked at.
    pub partitions: u64,
    /// Source records compared.
    pub records: u64,
    /// Their bytes: keys, values and headers.
    pub bytes: u64,
    /// Differences by kind, those too that aren't listed.
    pub differences: BTreeMap<String, u64>,
    /// Offsets that only one side still has or ever had: retention, a deleted head.
    pub not_comparable_offsets: i64,
    /// Of these, what the source still has and the target has lost, though its retention didn't take it.
    #[serde(default)]
    pub lost_offsets: i64,
    /// Source offsets before the beginnings of the copies.
    #[serde(default)]
    pub before_copy_offsets: i64,
    /// Records that only one side of a compacted topic has, as it may be.
    pub compacted: u64,
    /// Source offsets that aren't copied yet.
    pub lag_offsets: i64,
    /// Headers whose key isn't UTF-8: librdkafka's Rust binding can't read them.
    pub unreadable_headers: u64,
}

/// What kind of thing differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DifferenceKind {
    /// A record isn't what it is on the source.
    Changed,
    /// Two records changed places.
    Swapped,
    /// A record is missing on the target.
    Missing,
    /// The target has a record that the source doesn't have.
    Added,
    /// The target's log goes on where the source's ends.
    AddedAtEnd,
    /// The target lacks partitions.
    Partitions,
    /// A group's position.
    Group,
    /// A topic's config.
    Config,
    /// An ACL.
    Acl,
    /// A quota.
    Quota,
    /// A user that can't log in on the target.
    User,
    /// What waits for the failover isn't what should.
    Held,
    /// A copy has too few replicas.
    Replicas,
    /// A topic was deleted and made again since it was copied.
    MadeAnew,
}

impl DifferenceKind {
    /// All.
    pub const ALL: [Self; 14] = [
        Self::Changed,
        Self::Swapped,
        Self::Missing,
        Self::Added,
        Self::AddedAtEnd,
        Self::Partitions,
        Self::Group,
        Self::Config,
        Self::Acl,
        Self::Quota,
        Self::User,
        Self::Held,
        Self::Replicas,
        Self::MadeAnew,
    ];

    /// The word for JSON and labels.
    pub fn word(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Swapped => "swapped",
            Self::Missing => "missing",
            Self::Added => "added",
            Self::AddedAtEnd => "added_at_end",
            Self::Partitions => "partitions",
            Self::Group => "group",
            Self::Config => "config",
            Self::Acl => "acl",
            Self::Quota => "quota",
            Self::User => "user",
            Self::Held => "held",
            Self::Replicas => "replicas",
            Self::MadeAnew => "made_anew",
        }
    }
}

/// One difference. What records hold is never in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// What kind.
    pub kind: DifferenceKind,
    /// The topic by its name on the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// The partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<i32>,
    /// The group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The source offset; for a group its position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_offset: Option<i64>,
    /// The target offset; for a group its position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_offset: Option<i64>,
    /// `key`, `value`, `headers`, `timestamp`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<String>,
    /// The source's record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<RecordShape>,
    /// The target's record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<RecordShape>,
    /// In one line.
    pub detail: String,
}

impl Difference {
    /// Of this kind, in these words.
    pub fn new(kind: DifferenceKind, detail: String) -> Self {
        Self {
            kind,
            topic: None,
            partition: None,
            group: None,
            source_offset: None,
            target_offset: None,
            parts: Vec::new(),
            source: None,
            target: None,
            detail,
        }
    }

    /// In a partition.
    #[must_use]
    pub fn at(mut self, topic: &str, partition: i32) -> Self {
        self.topic = Some(topic.to_owned());
        self.partition = Some(partition);
        self
    }
}

/// A record without what it holds. Digests can be compared within one report only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordShape {
    /// The key's length; absent for null.
    pub key_bytes: Option<i64>,
    /// The value's length; absent for null.
    pub value_bytes: Option<i64>,
    /// How many headers.
    pub headers: u32,
    /// Milliseconds since the epoch; -1 without one.
    pub timestamp_ms: i64,
    /// Of the key.
    pub key_digest: String,
    /// Of the value.
    pub value_digest: String,
    /// Of the headers.
    pub headers_digest: String,
}

/// One partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionReport {
    /// The topic by its name on the source.
    pub topic: String,
    /// Its name on the target.
    pub target_topic: String,
    /// The partition.
    pub partition: i32,
    /// `identical` or `mapped`.
    pub offsets: String,
    /// Whether the topic is compacted on the source.
    pub is_compacted: bool,
    /// The source's log start.
    pub source_start: i64,
    /// The source's last stable offset.
    pub source_end: i64,
    /// The target's log start.
    pub target_start: i64,
    /// The target's last stable offset.
    pub target_end: i64,
    /// Where the two logs meet, in source offsets: the first one that both have.
    pub from: i64,
    /// The first one that isn't compared.
    pub to: i64,
    /// The ranges of source offsets that were compared, `[from, to)`; no more than 1,000.
    pub compared: Vec<(i64, i64)>,
    /// How many offsets they are.
    pub compared_offsets: i64,
    /// Source records compared.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many differences, those too that aren't listed.
    pub differences: u64,
    /// Offsets that only one side still has or ever had.
    pub not_comparable_offsets: i64,
    /// Of these, what the source still has and the target has lost, though its retention didn't take it.
    #[serde(default)]
    pub lost_offsets: i64,
    /// The source offset at which the copy begins, as the copier remembers it.
    #[serde(default)]
    pub begins_at: i64,
    /// Source offsets before that.
    #[serde(default)]
    pub before_copy_offsets: i64,
    /// Why these are a surprise, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late: Option<String>,
    /// Records that only one side has, as it may be in a compacted topic.
    pub compacted: u64,
    /// Source offsets that aren't copied yet.
    pub lag_offsets: i64,
    /// Headers that can't be read.
    pub unreadable_headers: u64,
    /// Deletes of the source that the copy may have missed: a full comparison lists the keys as added records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed_deletes: Option<MissedDeletes>,
    /// Why it isn't compared, where that is in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// Why it could not be compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// The groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupsReport {
    /// How many groups were compared.
    pub groups: u64,
    /// How many positions.
    pub positions: u64,
    /// How many of them are exactly where they should be.
    pub same: u64,
    /// Positions that are behind for a reason, by reason.
    pub behind: BTreeMap<String, u64>,
    /// Positions in copied topics that only the target has, by group: its own readers', or what stayed
    /// when the source's went.
    #[serde(default)]
    pub only_on_target: BTreeMap<String, u64>,
    /// What could not be compared, a line each.
    pub not_compared: Vec<String>,
}

/// Something that is compared as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// How many things.
    pub count: u64,
    /// Why it isn't compared, where that is in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// Why not, if it wasn't compared, a line each.
    pub not_compared: Vec<String>,
    /// What only the target has and somebody should know of, a line each: no difference, since it stays.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only_on_target: Vec<String>,
}

impl Compared {
    /// Not compared, and that is in order.
    pub fn skipped(why: &str) -> Self {
        Self {
            skipped: Some(why.to_owned()),
            ..Self::default()
        }
    }
}

/// Those that were found both times.
pub(super) fn found_again(first: &[Difference], mut second: Vec<Difference>) -> Vec<Difference> {
    second.retain(|difference| first.contains(difference));
    second
}

/// What a second look says of what two looks found: what `run` was about to change at the first is no difference, and
/// what only the second could see isn't let go with it.
pub(super) fn lasting(
    (before, first): &(Compared, Vec<Difference>),
    (mut now, mut second): (Compared, Vec<Difference>),
) -> (Compared, Vec<Difference>) {
    let all = second.len();
    second = found_again(first, second);
    if second.len() < all {
        let unsaid = before
            .not_compared
            .iter()
            .filter(|line| !now.not_compared.contains(line));
        let unsaid: Vec<String> = unsaid.cloned().collect();
        now.not_compared.extend(unsaid);
    }
    (now, second)
}

impl Report {
    /// Adds a partition, of which `comparable` offsets should be on both sides.
    pub(super) fn take_in(&mut self, comparable: i64, mut one: PartitionReport, listed: Listed) {
        one.differences = listed.total();
        self.coverage.comparable_offsets += comparable;
        self.coverage.compared_offsets += one.compared_offsets;
        let totals = &mut self.totals;
        totals.partitions += 1;
        totals.records += one.records;
        totals.bytes += one.bytes;
        totals.not_comparable_offsets += one.not_comparable_offsets;
        totals.lost_offsets += one.lost_offsets;
        totals.before_copy_offsets += one.before_copy_offsets;
        totals.compacted += one.compacted;
        totals.lag_offsets += one.lag_offsets;
        totals.unreadable_headers += one.unreadable_headers;
        for (kind, count) in listed.counts {
            *totals
                .differences
                .entry(kind.word().to_owned())
                .or_default() += count;
        }
        self.differences.extend(listed.list);
        self.partitions.push(one);
    }

    /// Adds a partition of which nothing is copied yet.
    pub(super) fn take_in_uncopied(&mut self, one: PartitionReport) {
        self.take_in(0, one, Listed::default());
    }

    /// Adds differences that aren't a partition's.
    pub(super) fn add(&mut self, differences: Vec<Difference>) {
        for difference in &differences {
            let kind = difference.kind.word().to_owned();
            *self.totals.differences.entry(kind).or_default() += 1;
        }
        self.differences.extend(differences);
    }

    /// Notes that something couldn't be looked at.
    pub(super) fn leave_out(&mut self, what: &str, why: &VerifyError) {
        self.not_compared.push(format!("{what}: {why}"));
    }

    /// Adds what was found of ACLs, quotas, users and what is held.
    pub fn set_metadata(&mut self, found: MetadataFound) {
        let (acls, quotas, users, held) = (found.acls, found.quotas, found.users, found.held);
        self.acls = acls.0;
        self.quotas = quotas.0;
        self.users = users.0;
        self.held = held.0;
        for differences in [acls.1, quotas.1, users.1, held.1] {
            self.add(differences);
        }
        self.judge();
    }

    /// Sets what follows from the rest.
    pub(super) fn finish(&mut self, ended_ms: i64) {
        self.ended_ms = ended_ms;
        self.judge();
    }

    fn judge(&mut self) {
        let coverage = &mut self.coverage;
        coverage.ratio = match coverage.comparable_offsets {
            0 => 1.0,
            all => coverage.compared_offsets as f64 / all as f64,
        };
        let lists = [
            &self.groups.not_compared,
            &self.configs.not_compared,
            &self.acls.not_compared,
            &self.quotas.not_compared,
            &self.users.not_compared,
            &self.held.not_compared,
            &self.replicas.not_compared,
            &self.topics_not_copied,
            &self.not_compared,
        ];
        let is_incomplete = |one: &PartitionReport| {
            one.failure.is_some() || one.lost_offsets > 0 || one.late.is_some()
        };
        let has_failure = self.partitions.iter().any(is_incomplete);
        self.verdict = if self.totals.differences.values().sum::<u64>() > 0 {
            Verdict::Different
        } else if has_failure || lists.iter().any(|list| !list.is_empty()) {
            Verdict::Incomplete
        } else {
            Verdict::Same
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_a_second_look_could_see_stays_not_compared() {
        let of = |lines: &[&str], found: &[&str]| {
            let compared = Compared {
                not_compared: lines.iter().map(|line| (*line).to_owned()).collect(),
                ..Compared::default()
            };
            let new = |detail: &&str| Difference::new(DifferenceKind::Config, (*detail).to_owned());
            (compared, found.iter().map(new).collect::<Vec<_>>())
        };
        let first = of(&["b: no answer"], &["a differs"]);
        // What was there to be mended is mended; b answers, and differs.
        let (compared, found) = lasting(&first, of(&[], &["b differs"]));
        assert_eq!((compared.not_compared.len(), found.len()), (1, 0));
        let (compared, found) = lasting(&first, of(&[], &[]));
        assert_eq!((compared.not_compared.len(), found.len()), (0, 0));
        let (compared, found) = lasting(&first, of(&[], &["a differs"]));
        assert_eq!((compared.not_compared.len(), found.len()), (0, 1));
    }
}
