//! A flow: what is copied from which cluster to which, and how.

use std::time::Duration;

use super::metadata::{self, MetadataRules};
use super::reader::{Reader, Table};
use super::tree::{Kind, Place};
use super::verify::{self, VerifyRules};
use super::{Rename, Selector, selector, values};

/// One direction of copying.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowConfig {
    /// The name that the config gives it.
    pub name: String,
    /// The cluster that is read, a key of [`Config::clusters`](super::Config::clusters).
    pub source: String,
    /// The cluster that is written, another one.
    pub target: String,
    /// The flows of the same config that go the other way.
    pub opposite: Vec<String>,
    /// Which topics; internal ones are never among them. Default all.
    pub topics: Selector,
    /// Which consumer groups. Default all but `console-consumer-.*`.
    pub groups: Selector,
    /// How they are followed.
    pub group_rules: GroupRules,
    /// What a topic is called on the target. Default the same.
    pub rename: Rename,
    /// Whether target offsets are to be the source's. Default auto.
    pub offsets: OffsetsMode,
    /// `offsets.burn_limit`: how many offsets before a log's start are burned on the target at
    /// most to make its offsets the same, per partition. Default 100,000,000 offsets.
    pub burn_limit: u64,
    /// `offsets.fill_limit`: how many offsets without a record are filled on the target at most to
    /// make its offsets the same, per hole and for what they are worth. Default 1,000,000 offsets.
    pub fill_limit: u64,
    /// Where a topic that was never copied starts. Default earliest.
    pub start: Start,
    /// Limits of memory and rate.
    pub limits: Limits,
    /// What to do when the source no longer has what comes next. Default stop.
    pub on_gap: OnGap,
    /// What to do when somebody else writes to a copy. Default stop.
    pub on_foreign_write: OnForeignWrite,
    /// Whether everybody but Twinlog is kept from writing to copies, by ACLs on the target. Default false.
    pub protect: bool,
    /// What to do when a source topic was deleted and created anew. Default stop.
    pub on_recreate: OnRecreate,
    /// What to do when deletes of the source may have been missed. Default report.
    pub on_missed_deletes: OnMissedDeletes,
    /// How often new topics and partitions are looked for. Default 1 s.
    pub discovery_interval: Duration,
    /// Replicas of topics made on the target; `None` (`auto`, the default) takes the source's,
    /// lowered to the number of target brokers.
    pub replication_factor: Option<i16>,
    /// Whether MirrorMaker 2's checkpoints and heartbeats are written to the target too, for tools
    /// that read them (`RemoteClusterUtils`, `MirrorClient`). Default false.
    pub mirrormaker_compat: bool,
    /// What follows besides records and groups.
    pub metadata: MetadataRules,
    /// Whether the target is compared with the source while the flow runs.
    pub verify: VerifyRules,
    /// How a failover is done.
    pub failover: FailoverRules,
}

impl FlowConfig {
    /// The keys, as they are written, in which another config of this flow differs.
    pub fn differing_keys(&self, other: &Self) -> Vec<&'static str> {
        // Named one by one: a field that is added must be placed here.
        let Self {
            name: _,
            source,
            target,
            opposite: _,
            topics,
            groups,
            group_rules,
            rename,
            offsets,
            burn_limit,
            fill_limit,
            start,
            limits,
            on_gap,
            on_foreign_write,
            protect,
            on_recreate,
            on_missed_deletes,
            discovery_interval,
            replication_factor,
            mirrormaker_compat,
            metadata,
            verify,
            failover,
        } = self;
        let is_offsets_same = *offsets == other.offsets
            && *burn_limit == other.burn_limit
            && *fill_limit == other.fill_limit;
        let is_groups_same = *groups == other.groups && *group_rules == other.group_rules;
        let same = [
            ("source", *source == other.source),
            ("target", *target == other.target),
            ("topics", *topics == other.topics),
            ("groups", is_groups_same),
            ("rename", *rename == other.rename),
            ("offsets", is_offsets_same),
            ("start", *start == other.start),
            ("limits", *limits == other.limits),
            ("on_gap", *on_gap == other.on_gap),
            (
                "on_foreign_write",
                *on_foreign_write == other.on_foreign_write,
            ),
            ("protect", *protect == other.protect),
            ("on_recreate", *on_recreate == other.on_recreate),
            (
                "on_missed_deletes",
                *on_missed_deletes == other.on_missed_deletes,
            ),
            (
                "discovery_interval",
                *discovery_interval == other.discovery_interval,
            ),
            (
                "replication_factor",
                *replication_factor == other.replication_factor,
            ),
            (
                "mirrormaker_compat",
                *mirrormaker_compat == other.mirrormaker_compat,
            ),
            (
                "configs, acls, quotas or on_delete",
                *metadata == other.metadata,
            ),
            ("verify", *verify == other.verify),
            ("failover", *failover == other.failover),
        ];
        let differing = same.into_iter().filter(|(_, is_same)| !is_same);
        differing.map(|(key, _)| key).collect()
    }
}

/// How a failover is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailoverRules {
    /// `failover.padding`: offsets per partition that an unplanned failover passes on the target
    /// beyond what was seen on the source and twice what may have come since, so that nothing stranded
    /// there has the offset of a new record. A partition to which nothing came gets a tenth, and a
    /// hundredth where that is certain; one that nobody can bound ten times as many. Default 1,000 offsets.
    pub padding: u64,
}

/// How groups are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupRules {
    /// `groups.delete`: a group that is deleted on the source is deleted on the target. Default
    /// false.
    pub delete: bool,
    /// `groups.on_diverged`. Default keep.
    pub on_diverged: OnDiverged,
}

/// What to do about a position that somebody else committed on the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDiverged {
    /// Keep it and say so.
    Keep,
    /// Put the source's in its place.
    Follow,
}

/// Whether target offsets are to be the source's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetsMode {
    /// Identical where it can be had, else mapped, with the reason shown.
    Auto,
    /// Identical; a partition where it cannot be had stops.
    Identical,
    /// Mapped: offsets without a record are not filled.
    Mapped,
}

/// Where a topic that was never copied starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the first offset that the source still has.
    Earliest,
    /// At the end: only what is written from now on.
    Latest,
}

/// What to do when the source no longer has the records that come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnGap {
    /// Stop the partition and say so.
    Stop,
    /// Record the gap, say so and go on after it.
    Record,
}

/// What to do when somebody else writes to a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnForeignWrite {
    /// Stop the partition and say so.
    Stop,
    /// Keep what was written, say so and go on mapped behind it.
    Map,
}

/// What to do when a source topic was deleted and created anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRecreate {
    /// Stop the topic's partitions and say so.
    Stop,
    /// Delete the target topic, if this flow made it, and copy the new one.
    Recreate,
}

/// What to do when the source's cleaner may have removed tombstones before they were copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnMissedDeletes {
    /// Say so and go on.
    Report,
    /// Compare all keys of both logs, and give those that the source has no more a tombstone on the target.
    Mend,
}

/// Limits of one flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of batches that are produced per second at most; `None` (`unlimited`) is the default.
    pub bytes_per_second: Option<u64>,
    /// `in_flight`: bytes fetched and not yet acknowledged by the target, in the whole flow.
    pub in_flight_bytes: u64,
    /// `partition_in_flight`: the same for one partition; never more than the flow's.
    pub partition_in_flight_bytes: u64,
    /// `connections_per_broker`: over how many connections the partitions of one broker may be spread, for
    /// fetching and for producing each.
    pub connections_per_broker: u16,
}

/// Below this rate one batch of Kafka's default size takes longer than a quarter of a minute.
const USUAL_RATE_MIN: u64 = 64 << 10;
/// Rates are kept in steps of this many bytes, and no rate is less than one step.
const RATE_STEP: u64 = 1 << 10;

impl Limits {
    /// What `bytes_per_second` means where it is so low that a unit was probably forgotten.
    pub fn doubt(&self) -> Option<String> {
        let rate = self
            .bytes_per_second
            .filter(|rate| *rate < USUAL_RATE_MIN)?;
        let kept = (rate / RATE_STEP).max(1) * RATE_STEP;
        let takes = |bytes: u64| match bytes / kept {
            seconds @ 0..120 => format!("{seconds} s"),
            seconds @ 120..7_200 => format!("{} minutes", seconds / 60),
            seconds @ 7_200..172_800 => format!("{} hours", seconds / 3_600),
            seconds => format!("{} days", seconds / 86_400),
        };
        let floor = if rate < RATE_STEP {
            " (the least is 1024)"
        } else {
            ""
        };
        Some(format!(
            "limits.bytes_per_second is {rate} bytes per second{floor}: a batch of 1 MiB takes {}, 1 GiB takes {}",
            takes(1 << 20),
            takes(1 << 30)
        ))
    }
}

/// What to do about a [doubt](Limits::doubt).
pub const RATE_HINT: &str = "a number without a unit is bytes: write it with one, such as `10MiB`";

pub(super) const KEYS: [&str; 23] = [
    "source",
    "target",
    "topics",
    "groups",
    "rename",
    "offsets",
    "start",
    "limits",
    "on_gap",
    "on_foreign_write",
    "protect",
    "on_recreate",
    "on_missed_deletes",
    "discovery_interval",
    "replication_factor",
    "mirrormaker_compat",
    "metadata_interval",
    "configs",
    "acls",
    "quotas",
    "on_delete",
    "verify",
    "failover",
];
pub(super) const SELECTOR_KEYS: [&str; 2] = ["include", "exclude"];
pub(super) const GROUPS_KEYS: [&str; 4] = ["include", "exclude", "delete", "on_diverged"];
pub(super) const OFFSETS_KEYS: [&str; 3] = ["mode", "burn_limit", "fill_limit"];
pub(super) const LIMITS_KEYS: [&str; 4] = [
    "bytes_per_second",
    "in_flight",
    "partition_in_flight",
    "connections_per_broker",
];

pub(super) const FAILOVER_KEYS: [&str; 1] = ["padding"];

const PADDING: u64 = 1_000;
const PADDING_MAX: u64 = 100_000_000;
const BURN_LIMIT: u64 = 100_000_000;
const FILL_LIMIT: u64 = 1_000_000;
const IN_FLIGHT_BYTES: u64 = 64 << 20;
const IN_FLIGHT_BYTES_MIN: u64 = 4 << 20;
const PARTITION_IN_FLIGHT_BYTES: u64 = 16 << 20;
/// Kafka's default `max.message.bytes` is a little more than this; one batch always passes.
const PARTITION_IN_FLIGHT_BYTES_MIN: u64 = 1 << 20;
/// 8 MB/s and broker at 200 ms there and back, with the buffers that brokers have by default.
const CONNECTIONS_PER_BROKER: u16 = 16;
const CONNECTIONS_PER_BROKER_MAX: u64 = 256;
const DISCOVERY_INTERVAL: Duration = Duration::from_secs(1);
const DISCOVERY_INTERVAL_MIN: Duration = Duration::from_millis(100);

const OFFSETS_MODES: [(&str, OffsetsMode); 3] = [
    ("auto", OffsetsMode::Auto),
    ("identical", OffsetsMode::Identical),
    ("mapped", OffsetsMode::Mapped),
];

/// Reads a flow. `clusters` are the names that exist; without `table` fields for source and target
/// `default_pair` is taken, if there is one.
pub(super) fn read(
    reader: &mut Reader,
    name: &str,
    table: &Table,
    clusters: &[&str],
    default_pair: Option<(&str, &str)>,
) -> FlowConfig {
    let (source, target) = match default_pair {
        Some((source, target)) => (source.to_owned(), target.to_owned()),
        None => ends(reader, table, clusters),
    };
    let offsets = offsets(reader, table);
    let groups = reader.inner(table, "groups", &GROUPS_KEYS);
    FlowConfig {
        name: name.to_owned(),
        source,
        target,
        opposite: Vec::new(),
        topics: topics(reader, table),
        groups: select(reader, &groups, &["console-consumer-.*"]),
        group_rules: group_rules(reader, &groups),
        rename: reader
            .value(table, "rename", Rename::new)
            .unwrap_or_else(|| Rename::new("{topic}").expect("the identity is a template")),
        offsets: offsets.mode,
        burn_limit: offsets.burn_limit,
        fill_limit: offsets.fill_limit,
        start: reader
            .value(table, "start", |text| {
                let choices = [("earliest", Start::Earliest), ("latest", Start::Latest)];
                values::choice(text, &choices)
            })
            .unwrap_or(Start::Earliest),
        limits: limits(reader, table),
        on_gap: reader
            .value(table, "on_gap", |text| {
                values::choice(text, &[("stop", OnGap::Stop), ("record", OnGap::Record)])
            })
            .unwrap_or(OnGap::Stop),
        on_foreign_write: on_foreign_write(reader, table, offsets.mode),
        protect: reader
            .value(table, "protect", |text| {
                values::choice(text, &[("true", true), ("false", false)])
            })
            .unwrap_or(false),
        on_recreate: reader
            .value(table, "on_recreate", |text| {
                let choices = [
                    ("stop", OnRecreate::Stop),
                    ("recreate", OnRecreate::Recreate),
                ];
                values::choice(text, &choices)
            })
            .unwrap_or(OnRecreate::Stop),
        on_missed_deletes: reader
            .value(table, "on_missed_deletes", |text| {
                let choices = [
                    ("report", OnMissedDeletes::Report),
                    ("mend", OnMissedDeletes::Mend),
                ];
                values::choice(text, &choices)
            })
            .unwrap_or(OnMissedDeletes::Report),
        discovery_interval: reader
            .value(table, "discovery_interval", |text| {
                let interval = values::duration(text)?;
                if interval < DISCOVERY_INTERVAL_MIN {
                    return Err(format!("`{text}` is too short; at least `100ms`"));
                }
                Ok(interval)
            })
            .unwrap_or(DISCOVERY_INTERVAL),
        replication_factor: reader
            .value(table, "replication_factor", replication_factor)
            .flatten(),
        mirrormaker_compat: reader
            .value(table, "mirrormaker_compat", |text| {
                values::choice(text, &[("true", true), ("false", false)])
            })
            .unwrap_or(false),
        metadata: metadata::read(reader, table),
        verify: verify::read(reader, table),
        failover: failover(reader, table),
    }
}

fn on_foreign_write(reader: &mut Reader, table: &Table, offsets: OffsetsMode) -> OnForeignWrite {
    let choices = [("stop", OnForeignWrite::Stop), ("map", OnForeignWrite::Map)];
    let chosen = reader.value(table, "on_foreign_write", |text| {
        match values::choice(text, &choices)? {
            OnForeignWrite::Map if offsets == OffsetsMode::Identical => {
                Err("`map` gives other offsets, and `offsets` asks for identical ones".to_owned())
            }
            chosen => Ok(chosen),
        }
    });
    chosen.unwrap_or(OnForeignWrite::Stop)
}

fn failover(reader: &mut Reader, table: &Table) -> FailoverRules {
    let inner = reader.inner(table, "failover", &FAILOVER_KEYS);
    FailoverRules {
        padding: reader
            .value(&inner, "padding", |text| {
                values::number(text, 0, PADDING_MAX)
            })
            .unwrap_or(PADDING),
    }
}

fn ends(reader: &mut Reader, table: &Table, clusters: &[&str]) -> (String, String) {
    let mut end = |key: &str, example: &str| {
        reader.required(table, key, example, |text| {
            values::reference(text, "cluster", clusters)
        })
    };
    let source = end("source", "primary");
    let target = end("target", "standby");
    if let (Some(source), Some(target)) = (&source, &target)
        && source == target
    {
        let node = table.get("target");
        let place = node.map_or_else(Place::default, |node| node.place.clone());
        let message = format!("is the source too, `{source}`; a flow needs two clusters");
        reader.problem(&place, &table.path_of("target"), message);
    }
    (source.unwrap_or_default(), target.unwrap_or_default())
}

fn topics(reader: &mut Reader, table: &Table) -> Selector {
    let inner = reader.inner(table, "topics", &SELECTOR_KEYS);
    let selector = select(reader, &inner, &[]);
    if selector.include().is_empty()
        && let Some(node) = table.get("topics")
    {
        let path = format!("{}.include", table.path_of("topics"));
        let message = "is empty: no topic would be copied; `[\".*\"]` takes all";
        reader.problem(&node.place, &path, message);
    }
    selector
}

fn group_rules(reader: &mut Reader, table: &Table) -> GroupRules {
    let delete = reader.value(table, "delete", |text| {
        values::choice(text, &[("true", true), ("false", false)])
    });
    let on_diverged = reader.value(table, "on_diverged", |text| {
        let choices = [("keep", OnDiverged::Keep), ("follow", OnDiverged::Follow)];
        values::choice(text, &choices)
    });
    GroupRules {
        delete: delete.unwrap_or(false),
        on_diverged: on_diverged.unwrap_or(OnDiverged::Keep),
    }
}

fn select(reader: &mut Reader, table: &Table, exclude: &[&str]) -> Selector {
    let include = patterns(reader, table, "include", &[".*"]);
    let exclude = patterns(reader, table, "exclude", exclude);
    Selector::new(&include, &exclude).unwrap_or_else(|message| {
        // Each pattern alone is right by now: together they are too large.
        reader.problem(&table.place, &table.path, message);
        Selector::new::<&str>(&[], &[]).expect("no pattern is no error")
    })
}

/// A list of patterns, the wrong ones reported and left out.
pub(super) fn patterns(
    reader: &mut Reader,
    table: &Table,
    key: &str,
    default: &[&str],
) -> Vec<String> {
    let Some(node) = table.get(key) else {
        return default.iter().map(|&pattern| pattern.to_owned()).collect();
    };
    let path = table.path_of(key);
    let Kind::List(items) = &node.kind else {
        let message = "expected a list of regular expressions, such as `[\"orders.*\"]`";
        reader.problem(&node.place, &path, message);
        return default.iter().map(|&pattern| pattern.to_owned()).collect();
    };
    let mut patterns = Vec::new();
    let mut wrong = 0;
    for (index, item) in items.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let Some(pattern) = reader.text(item, &path) else {
            wrong += 1;
            continue;
        };
        match selector::check(&pattern) {
            Ok(()) => patterns.push(pattern),
            Err(message) => {
                wrong += 1;
                reader.problem(&item.place, &path, message);
            }
        }
    }
    if patterns.is_empty() && wrong > 0 {
        // Not empty as written: no second problem about that.
        return default.iter().map(|&pattern| pattern.to_owned()).collect();
    }
    patterns
}

struct Offsets {
    mode: OffsetsMode,
    burn_limit: u64,
    fill_limit: u64,
}

fn offsets(reader: &mut Reader, table: &Table) -> Offsets {
    let mode = |text: &str| values::choice(text, &OFFSETS_MODES);
    let (mode, burn_limit, fill_limit) = match table.get("offsets").map(|node| &node.kind) {
        // `offsets: auto` is short for `offsets: { mode: auto }`.
        Some(Kind::Text(_)) => (reader.value(table, "offsets", mode), None, None),
        _ => {
            let inner = reader.inner(table, "offsets", &OFFSETS_KEYS);
            let limit = |text: &str| values::number(text, 0, i64::MAX as u64);
            (
                reader.value(&inner, "mode", mode),
                reader.value(&inner, "burn_limit", limit),
                reader.value(&inner, "fill_limit", limit),
            )
        }
    };
    Offsets {
        mode: mode.unwrap_or(OffsetsMode::Auto),
        burn_limit: burn_limit.unwrap_or(BURN_LIMIT),
        fill_limit: fill_limit.unwrap_or(FILL_LIMIT),
    }
}

fn limits(reader: &mut Reader, table: &Table) -> Limits {
    let inner = reader.inner(table, "limits", &LIMITS_KEYS);
    let bytes_per_second = reader
        .value(&inner, "bytes_per_second", |text| match text {
            "unlimited" => Ok(None),
            text => match values::size(text)? {
                0 => Err("0 would copy nothing; write a size or `unlimited`".to_owned()),
                size => Ok(Some(size)),
            },
        })
        .flatten();
    let in_flight_bytes = reader
        .value(&inner, "in_flight", |text| {
            at_least(text, IN_FLIGHT_BYTES_MIN, "4MiB")
        })
        .unwrap_or(IN_FLIGHT_BYTES);
    let partition_in_flight_bytes = reader
        .value(&inner, "partition_in_flight", |text| {
            let size = at_least(text, PARTITION_IN_FLIGHT_BYTES_MIN, "1MiB")?;
            if size > in_flight_bytes {
                return Err(format!(
                    "`{text}` is more than `in_flight`, {in_flight_bytes} bytes"
                ));
            }
            Ok(size)
        })
        .unwrap_or(PARTITION_IN_FLIGHT_BYTES.min(in_flight_bytes));
    let connections_per_broker = reader
        .value(&inner, "connections_per_broker", |text| {
            values::number(text, 1, CONNECTIONS_PER_BROKER_MAX)
        })
        .and_then(|number| u16::try_from(number).ok())
        .unwrap_or(CONNECTIONS_PER_BROKER);
    Limits {
        bytes_per_second,
        in_flight_bytes,
        partition_in_flight_bytes,
        connections_per_broker,
    }
}

fn at_least(text: &str, min: u64, min_written: &str) -> Result<u64, String> {
    let size = values::size(text)?;
    if size < min {
        return Err(format!("`{text}` is too small; at least `{min_written}`"));
    }
    Ok(size)
}

fn replication_factor(text: &str) -> Result<Option<i16>, String> {
    if text == "auto" {
        return Ok(None);
    }
    let factor = values::number(text, 1, 1000).map_err(|reason| format!("{reason}, or `auto`"))?;
    Ok(Some(i16::try_from(factor).expect("at most 1000")))
}
