//! The status report: what `/api/v1/status`, the page, `/readyz`, `/metrics` and
//! `twinlog status` are all made from.
//!
//! The JSON is an interface: fields may be added, never changed or removed without
//! raising [`STATUS_VERSION`]. States and reasons are plain words, so that an older
//! reader shows a newer state instead of failing on it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};

use serde::{Deserialize, Serialize};

use super::cut_over::OpenCutOver;
use super::drill::DrillResult;
use super::failover::{self, Habit, Readiness, StandbyHealth, Unfenceable};
use super::groups::GroupTotals;
use super::metadata::MetadataSummary;
use super::progress::{FlowProgress, FlowState, PartitionProgress, PartitionState, Registry};
use super::protect::ProtectStatus;
use super::rates::Counters;
use super::readiness;
use super::role::RoleStatus;
use super::traffic::TrafficStatus;
use super::up_to_date::MissedDeletes;
use super::verify::VerifySummary;

/// The version of the report's shape.
pub const STATUS_VERSION: u32 = 1;

/// Everything that is known about this process' flows at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// The version of this shape, [`STATUS_VERSION`].
    pub version: u32,
    /// Twinlog's version.
    pub twinlog: String,
    /// When the report was made, milliseconds since the epoch.
    pub now_ms: i64,
    /// Whether `/readyz` answers 200.
    pub ready: bool,
    /// Why not, a line each; empty when ready.
    pub not_ready: Vec<String>,
    /// The flows by name.
    pub flows: Vec<FlowStatus>,
}

/// One flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowStatus {
    /// The flow's name in the config.
    pub name: String,
    /// The source cluster's name in the config.
    pub source: String,
    /// The target cluster's name in the config.
    pub target: String,
    /// `starting`, `running`, `waiting` or `stopped`.
    pub state: String,
    /// A short, stable word when waiting or stopped.
    pub reason: Option<String>,
    /// One line for a person when waiting or stopped.
    pub detail: Option<String>,
    /// Whether topic discovery has succeeded at least once.
    pub discovered: bool,
    /// Why no topic is selected, where the source has topics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nothing_selected: Option<String>,
    /// Topics that were found and aren't copied yet: their copies are made, or looked at.
    #[serde(default)]
    pub topics_to_prepare: u64,
    /// When the source last told where its logs end, milliseconds since the epoch; absent if it never
    /// did.
    #[serde(default)]
    pub source_seen_ms: Option<i64>,
    /// The standby's partitions, as its metadata has them; absent before it was looked at.
    #[serde(default)]
    pub standby: Option<StandbyHealth>,
    /// Why writers can't be kept from the source by ACLs, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfenceable: Option<Unfenceable>,
    /// Bytes fetched and not yet acknowledged by the target.
    pub in_flight_bytes: u64,
    /// The configured bound of `in_flight_bytes`.
    pub in_flight_limit_bytes: u64,
    /// Bytes that are copied per second at most; absent where nothing limits them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_bytes_per_second: Option<u64>,
    /// Bytes of its connections to both clusters since the process started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub traffic: Vec<TrafficStatus>,
    /// Errors by kind since the process started.
    pub errors: BTreeMap<String, u64>,
    /// The sums over all partitions, removed ones included in the counters.
    pub totals: Totals,
    /// The first copy's progress; absent once every partition has been caught up.
    pub first_copy: Option<FirstCopy>,
    /// What is left of a backlog, and for how long; absent while no partition is behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catch_up: Option<CatchUp>,
    /// The consumer groups in sum; absent where none are followed.
    #[serde(default)]
    pub groups: Option<GroupTotals>,
    /// Configs, ACLs, quotas and users in sum; absent before they were compared.
    #[serde(default)]
    pub metadata: Option<MetadataSummary>,
    /// Comparisons of the target with the source; absent where there were none.
    #[serde(default)]
    pub verify: Option<VerifySummary>,
    /// The last rehearsal of a failover; absent where there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drill: Option<DrillResult>,
    /// Which side is the primary; absent while it is the source, of all topics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<RoleStatus>,
    /// The cut-over that isn't finished; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_over: Option<OpenCutOver>,
    /// Whether others are kept from writing to the copies; absent unless `protect` asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protect: Option<ProtectStatus>,
    /// Whether a failover could be done now, what it would lose, and what stands in the way.
    #[serde(default)]
    pub failover: Option<Readiness>,
    /// The topics by name.
    pub topics: Vec<TopicStatus>,
}

/// One source topic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopicStatus {
    /// The topic's name on the source.
    pub name: String,
    /// Its name on the target, once known.
    pub target_topic: Option<String>,
    /// `identical` or `mapped`, once known.
    pub offsets: Option<String>,
    /// Why the offsets are mapped.
    pub offsets_reason: Option<String>,
    /// The sums over its partitions.
    pub totals: Totals,
    /// The partitions by number.
    pub partitions: Vec<PartitionStatus>,
}

/// Sums over partitions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// How many partitions.
    pub partitions: u64,
    /// How many of them are finding their position.
    pub opening: u64,
    /// How many of them are copying or caught up.
    pub copying: u64,
    /// How many of them are trying again after a problem.
    pub retrying: u64,
    /// How many of them wait for an operator.
    pub stopped: u64,
    /// The lag in offsets, summed where it is known.
    pub lag_records: i64,
    /// How many partitions' lag isn't known and so isn't in the sum.
    pub lag_unknown_partitions: u64,
    /// The estimated lag in bytes, summed.
    pub lag_bytes: i64,
    /// The largest lag in seconds; in a flow's totals, while it has no partitions and isn't
    /// running or hasn't discovered its topics, the time since its start.
    pub lag_seconds: f64,
    /// Records per second, over the last seconds.
    pub records_per_second: f64,
    /// Bytes per second, over the last seconds.
    pub bytes_per_second: f64,
    /// How many partitions may have missed deletes of the source.
    #[serde(default)]
    pub missed_deletes_partitions: u64,
    /// The counters, summed.
    #[serde(flatten)]
    pub counters: Counters,
}

/// A partition that is opened again and again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Restless {
    /// For how long.
    pub seconds: f64,
    /// A short, stable word for the last trouble.
    pub reason: String,
    /// One line for a person.
    pub detail: String,
}

/// One partition. Offsets are absent while unknown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartitionStatus {
    /// The partition's number.
    pub partition: i32,
    /// `opening`, `copying`, `retrying` or `stopped`.
    pub state: String,
    /// A short, stable word when retrying or stopped.
    pub reason: Option<String>,
    /// One line for a person when retrying or stopped.
    pub detail: Option<String>,
    /// Since when the state is what it is, milliseconds since the epoch.
    pub since_ms: i64,
    /// How long the partition hasn't been copying; 0 while it is.
    pub unhealthy_seconds: f64,
    /// While it is copied for moments only, between one trouble and the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restless: Option<Restless>,
    /// How long it has been behind without its position moving; 0 while nothing is left
    /// to copy. This is what tells "no progress" from "no traffic".
    pub no_progress_seconds: f64,
    /// The source's log start offset.
    pub source_log_start: Option<i64>,
    /// The source's last stable offset.
    pub source_stable_end: Option<i64>,
    /// The source's high watermark.
    pub source_high_watermark: Option<i64>,
    /// When the source last told its end, milliseconds since the epoch; absent while that is when it told any
    /// (see [`FlowStatus::source_seen_ms`]), and if it never did.
    #[serde(default)]
    pub source_end_seen_ms: Option<i64>,
    /// By how many records a second the source grew when it was seen last; falls slowly.
    #[serde(default)]
    pub source_per_second: u64,
    /// Whether that isn't measured yet: then it is no bound.
    #[serde(default)]
    pub source_rate_unknown: bool,
    /// How it is written to besides that rate: for the bound of a loss.
    #[serde(skip)]
    pub source_habit: Habit,
    /// How long one and the same transaction has been open on the source; 0 while none is.
    #[serde(default)]
    pub transaction_open_seconds: f64,
    /// The broker that it is fetched from: the leader, or a closer replica (KIP-392).
    #[serde(default)]
    pub source_broker: Option<i64>,
    /// The next source offset to be acknowledged on the target.
    pub source_position: Option<i64>,
    /// The target offset that `source_position` will get.
    pub target_position: Option<i64>,
    /// The largest record timestamp copied, milliseconds since the epoch.
    pub last_timestamp_ms: Option<i64>,
    /// Source offsets between the position and the stable end.
    pub lag_records: Option<i64>,
    /// How many of these are in the source's remote storage, which is read at its own pace.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub remote_records: i64,
    /// The same in bytes, estimated from the mean record size.
    pub lag_bytes: i64,
    /// 0 when caught up with the stable end; otherwise the time since it last was, or
    /// since the partition was found if it never was. Never 0 when blocked or stopped.
    pub lag_seconds: f64,
    /// Records per second, over the last seconds.
    pub records_per_second: f64,
    /// Bytes per second, over the last seconds.
    pub bytes_per_second: f64,
    /// Deletes of the source that the copy may have missed: keys may live on that the source has no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed_deletes: Option<MissedDeletes>,
    /// The counters.
    #[serde(flatten)]
    pub counters: Counters,
}

/// How far the first copy is, counted in source offsets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FirstCopy {
    /// Offsets behind us.
    pub done_offsets: i64,
    /// Offsets from where the copy began to the stable ends.
    pub total_offsets: i64,
    /// `done_offsets` of `total_offsets`, 0 to 100.
    pub percent: f64,
    /// The time left at the present rate, with the source's growth taken off; absent
    /// while nothing is gained on the source.
    pub estimated_seconds: Option<f64>,
    /// Partitions whose position isn't known yet and that aren't in the numbers.
    pub unknown_partitions: u64,
}

/// Partitions that are behind, and how long until they aren't.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CatchUp {
    /// Partitions that have been behind for some seconds.
    pub partitions: u64,
    /// Their lag in offsets, summed.
    pub lag_records: i64,
    /// How many of these are in the source's remote storage.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub remote_records: i64,
    /// The same in bytes, estimated.
    pub lag_bytes: i64,
    /// The time left at the present rate, with the source's growth taken off; absent while nothing is gained on the
    /// source.
    pub estimated_seconds: Option<f64>,
}

impl StatusReport {
    /// The report on everything in the registry.
    pub fn build(registry: &Registry, now_ms: i64) -> Self {
        let mut flows: Vec<FlowStatus> = registry
            .flows
            .iter()
            .map(|flow| FlowStatus::build(&flow, now_ms))
            .collect();
        flows.sort_by(|a, b| a.name.cmp(&b.name));
        let not_ready = readiness::problems(&flows, now_ms);
        Self {
            version: STATUS_VERSION,
            twinlog: env!("CARGO_PKG_VERSION").to_owned(),
            now_ms,
            ready: not_ready.is_empty(),
            not_ready,
            flows,
        }
    }

    /// Leaves only the partitions that somebody should look at; sums stay as they are.
    /// This keeps the answer small on clusters with thousands of partitions.
    pub fn keep_troubled_partitions(&mut self) {
        for flow in &mut self.flows {
            if let Some(readiness) = &mut flow.failover {
                readiness.keep_worst();
            }
            for topic in &mut flow.topics {
                topic.partitions.retain(PartitionStatus::is_troubled);
            }
        }
    }
}

impl FlowStatus {
    fn build(flow: &FlowProgress, now_ms: i64) -> Self {
        let flow_state = flow.state();
        let running = flow_state == FlowState::Running;
        let source_seen_ms = known(&flow.source_seen_ms);
        let mut topics: BTreeMap<String, TopicStatus> = BTreeMap::new();
        for note in &flow.topics {
            let topic = topics
                .entry(note.key().to_string())
                .or_insert_with(|| TopicStatus::named(note.key()));
            topic.target_topic = Some(note.target_topic.clone());
            topic.offsets = Some(note.offsets.to_owned());
            topic.offsets_reason = Some(note.reason.clone()).filter(|reason| !reason.is_empty());
        }
        let mut first_copy = FirstCopySum::default();
        let mut catch_up = CatchUpSum::default();
        let mut totals = Totals::default();
        for entry in &flow.partitions {
            let (topic_name, number) = entry.key();
            let of_flow = (running, source_seen_ms);
            let partition = PartitionStatus::build(*number, entry.value(), of_flow, now_ms);
            first_copy.add(entry.value(), &partition);
            catch_up.add(entry.value(), &partition);
            totals.add(&partition);
            let topic = topics
                .entry(topic_name.to_string())
                .or_insert_with(|| TopicStatus::named(topic_name));
            topic.totals.add(&partition);
            topic.partitions.push(partition);
        }
        totals.counters.add(&flow.retired());
        let discovered = flow.discovered.load(Ordering::Relaxed);
        if totals.partitions == 0 && !(running && discovered) {
            // Without partitions nothing would show that nothing is being copied.
            let waited_ms = (now_ms - flow.created_at_ms()).max(1);
            totals.lag_seconds = waited_ms as f64 / 1_000.0;
        }
        let mut topics: Vec<TopicStatus> = topics.into_values().collect();
        for topic in &mut topics {
            topic.partitions.sort_by_key(|p| p.partition);
        }
        let (state, reason, detail) = flow_words(flow_state);
        let reporter = flow.groups();
        let groups = reporter.as_ref().map(|reporter| reporter.report());
        let mut status = Self {
            name: flow.name.clone(),
            source: flow.source.clone(),
            target: flow.target.clone(),
            state: state.to_owned(),
            reason,
            detail,
            discovered,
            source_seen_ms,
            standby: flow.standby(),
            nothing_selected: flow.nothing_selected(),
            topics_to_prepare: flow.topics_to_prepare.load(Ordering::Relaxed),
            unfenceable: flow.unfenceable(),
            in_flight_bytes: flow.in_flight_bytes.load(Ordering::Relaxed),
            in_flight_limit_bytes: flow.in_flight_limit_bytes.load(Ordering::Relaxed),
            limit_bytes_per_second: Some(flow.bytes_per_second_limit.load(Ordering::Relaxed))
                .filter(|rate| *rate > 0),
            traffic: flow.traffic(),
            errors: flow
                .errors
                .iter()
                .map(|entry| ((*entry.key()).to_owned(), *entry.value()))
                .collect(),
            totals,
            first_copy: first_copy.finish(),
            catch_up: catch_up.finish(),
            groups: reporter
                .zip(groups.as_ref())
                .map(|(reporter, groups)| GroupTotals::new(groups, reporter.delays())),
            metadata: flow.metadata().map(|report| MetadataSummary::new(&report)),
            verify: flow.verify().map(|summary| (*summary).clone()),
            drill: flow.drill(),
            role: flow.role(),
            cut_over: flow.cut_over(),
            protect: flow.protect(),
            failover: None,
            topics,
        };
        status.failover = Some(failover::now(&status, groups.as_ref(), now_ms));
        status
    }
}

impl TopicStatus {
    fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            target_topic: None,
            offsets: None,
            offsets_reason: None,
            totals: Totals::default(),
            partitions: Vec::new(),
        }
    }
}

impl PartitionStatus {
    fn build(
        number: i32,
        progress: &PartitionProgress,
        (running, source_seen_ms): (bool, Option<i64>),
        now_ms: i64,
    ) -> Self {
        let (state, since_ms) = progress.state();
        let copying = state == PartitionState::Copying;
        let (state, reason, detail) = partition_words(state);
        let lag_records = Some(progress.lag_offsets()).filter(|lag| *lag >= 0);
        let seconds_since = |then_ms: i64| (now_ms - then_ms).max(0) as f64 / 1_000.0;

        let created_at_ms = progress.created_at_ms();
        let caught_up_at_ms = progress.was_caught_up_ms();
        let lag_seconds = if running && copying && lag_records == Some(0) {
            0.0
        } else {
            // One millisecond at least: "never 0 when blocked".
            seconds_since(caught_up_at_ms.unwrap_or(created_at_ms)).max(0.001)
        };
        let no_progress_seconds = progress.no_progress_seconds(now_ms);
        let rates = progress.rates();
        Self {
            partition: number,
            state: state.to_owned(),
            reason,
            detail,
            since_ms,
            unhealthy_seconds: progress.unhealthy_seconds(now_ms),
            restless: progress.restless(now_ms).map(|it| Restless {
                seconds: seconds_since(it.since_ms),
                reason: it.reason.to_owned(),
                detail: it.detail,
            }),
            no_progress_seconds,
            source_log_start: known(&progress.source_log_start),
            source_stable_end: known(&progress.source_stable_end),
            source_high_watermark: known(&progress.source_high_watermark),
            source_end_seen_ms: progress
                .end_seen_ms()
                .filter(|seen_ms| source_seen_ms.is_none_or(|newest_ms| *seen_ms < newest_ms)),
            source_per_second: known(&progress.source_per_second)
                .map_or(0, i64::unsigned_abs)
                .max(rates.growth_per_second.ceil() as u64),
            source_rate_unknown: known(&progress.source_per_second).is_none(),
            source_habit: Habit {
                at_once: known(&progress.source_habit.0).map_or(0, i64::unsigned_abs),
                per_hour: known(&progress.source_habit.1).map_or(0, i64::unsigned_abs),
            },
            transaction_open_seconds: progress.transaction_since_ms().map_or(0.0, seconds_since),
            source_broker: known(&progress.source_broker),
            source_position: known(&progress.source_position),
            target_position: known(&progress.target_position),
            last_timestamp_ms: known(&progress.last_timestamp_ms),
            lag_records,
            remote_records: progress.remote_offsets(),
            lag_bytes: progress.lag_bytes(),
            lag_seconds,
            records_per_second: rates.records_per_second,
            bytes_per_second: rates.bytes_per_second,
            missed_deletes: progress.missed_deletes(),
            counters: progress.counters(),
        }
    }

    /// Whether somebody should look at it: it isn't copying, or for moments only, it is behind and stands, or it may have
    /// missed deletes.
    pub fn is_troubled(&self) -> bool {
        self.state != "copying"
            || self.restless_seconds() > readiness::UNHEALTHY_SECONDS_MAX
            || readiness::is_stuck(self)
            || self.missed_deletes.is_some()
    }

    /// For how long it has been tried again, whether or not it is copied in between; 0 where it isn't.
    pub fn retrying_seconds(&self) -> f64 {
        let now = match self.state.as_str() {
            "retrying" => self.unhealthy_seconds,
            _ => 0.0,
        };
        now.max(self.restless_seconds())
    }

    /// For how long it has been copied for moments only; 0 where it isn't so.
    pub fn restless_seconds(&self) -> f64 {
        self.restless.as_ref().map_or(0.0, |it| it.seconds)
    }
}

impl Totals {
    fn add(&mut self, partition: &PartitionStatus) {
        self.partitions += 1;
        match partition.state.as_str() {
            "opening" => self.opening += 1,
            "copying" => self.copying += 1,
            "retrying" => self.retrying += 1,
            _ => self.stopped += 1,
        }
        match partition.lag_records {
            Some(lag) => self.lag_records += lag,
            None => self.lag_unknown_partitions += 1,
        }
        self.lag_bytes += partition.lag_bytes;
        self.lag_seconds = self.lag_seconds.max(partition.lag_seconds);
        self.records_per_second += partition.records_per_second;
        self.bytes_per_second += partition.bytes_per_second;
        self.missed_deletes_partitions += u64::from(partition.missed_deletes.is_some());
        self.counters.add(&partition.counters);
    }
}

/// Adds up [`FirstCopy`] over a flow's partitions.
#[derive(Default)]
struct FirstCopySum {
    done: i64,
    total: i64,
    gain_per_second: f64,
    unknown: u64,
    unfinished: bool,
}

impl FirstCopySum {
    fn add(&mut self, progress: &PartitionProgress, partition: &PartitionStatus) {
        if partition.state == "stopped" {
            // It will not get further by itself; an estimate with it in would never end.
            return;
        }
        let (Some(first), Some(position), Some(end)) = (
            known(&progress.first_position),
            partition.source_position,
            partition.source_stable_end,
        ) else {
            self.unknown += 1;
            self.unfinished = true;
            return;
        };
        let done = (position - first).max(0);
        self.done += done;
        if progress.was_caught_up_ms().is_some() || partition.lag_records == Some(0) {
            self.total += done;
            return;
        }
        let rates = progress.rates();
        self.total += (end - first).max(done);
        self.gain_per_second += rates.offsets_per_second - rates.growth_per_second;
        self.unfinished = true;
    }

    fn finish(self) -> Option<FirstCopy> {
        if !self.unfinished {
            return None;
        }
        let percent = if self.total == 0 {
            0.0
        } else {
            self.done as f64 * 100.0 / self.total as f64
        };
        let left = (self.total - self.done) as f64;
        Some(FirstCopy {
            done_offsets: self.done,
            total_offsets: self.total,
            percent,
            estimated_seconds: (self.gain_per_second > 0.0).then(|| left / self.gain_per_second),
            unknown_partitions: self.unknown,
        })
    }
}

/// Adds up [`CatchUp`] over a flow's partitions.
#[derive(Default)]
struct CatchUpSum {
    partitions: u64,
    records: i64,
    remote: i64,
    bytes: i64,
    gain_per_second: f64,
}

/// Who has been behind for less isn't catching up: he was just asked.
const BEHIND_SECONDS: f64 = 10.0;

impl CatchUpSum {
    fn add(&mut self, progress: &PartitionProgress, partition: &PartitionStatus) {
        let lag = partition.lag_records.unwrap_or(0);
        // A stopped one gets no further by itself.
        if partition.state == "stopped" || lag == 0 || partition.lag_seconds < BEHIND_SECONDS {
            return;
        }
        let rates = progress.rates();
        self.partitions += 1;
        self.records += lag;
        self.remote += partition.remote_records;
        self.bytes += partition.lag_bytes;
        self.gain_per_second += rates.offsets_per_second - rates.growth_per_second;
    }

    fn finish(self) -> Option<CatchUp> {
        (self.partitions > 0).then(|| CatchUp {
            partitions: self.partitions,
            lag_records: self.records,
            remote_records: self.remote,
            lag_bytes: self.bytes,
            estimated_seconds: (self.gain_per_second > 0.0)
                .then(|| self.records as f64 / self.gain_per_second),
        })
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(value: &i64) -> bool {
    *value == 0
}

fn known(value: &AtomicI64) -> Option<i64> {
    Some(value.load(Ordering::Relaxed)).filter(|value| *value >= 0)
}

type Words = (&'static str, Option<String>, Option<String>);

fn flow_words(state: FlowState) -> Words {
    match state {
        FlowState::Starting => ("starting", None, None),
        FlowState::Running => ("running", None, None),
        FlowState::Waiting { reason, detail } => ("waiting", Some(reason.into()), Some(detail)),
        FlowState::Stopped { reason, detail } => ("stopped", Some(reason.into()), Some(detail)),
    }
}

fn partition_words(state: PartitionState) -> Words {
    match state {
        PartitionState::Opening => ("opening", None, None),
        PartitionState::Burning { done, of } => {
            let detail = format!("burning {done} of {of} offsets below the source's log start");
            ("opening", Some("burning".into()), Some(detail))
        }
        PartitionState::Copying => ("copying", None, None),
        PartitionState::Retrying { reason, detail } => {
            ("retrying", Some(reason.into()), Some(detail))
        }
        PartitionState::Stopped { reason, detail } => {
            ("stopped", Some(reason.into()), Some(detail))
        }
    }
}
