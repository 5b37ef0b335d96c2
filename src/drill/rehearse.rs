//! What both kinds of rehearsal share: a private flow that copies, clients under load, the cut-over
//! itself by the code of `twinlog failover`, and clients that move.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::canary::{self, FIRST, FIRST_AFTER, Reader, Writer, Written, account};
use super::context::{Copied, Scene};
use super::copier::Copier;
use super::derive::{CopyOrder, private_flow};
use super::error::DrillError;
use super::names::Kind;
use super::peek;
use super::report::{Phase, Rehearsal, Rto};
use crate::config::FlowConfig;
use crate::cutover::pairs::{Offsets, copied_end, ends, on_source, on_target};
use crate::state::{EndsRecord, ObservedRecord, StateStore, keys};
use crate::telemetry::progress::now_ms;
use crate::telemetry::utc::to_the_second as utc;
use crate::wire::{self, OffsetSpec, ResponseError, TopicPartition};

const AGAIN: Duration = Duration::from_millis(100);
/// While topics are copied all of both clusters' metadata is asked for each time.
const COPY_LOOK_EVERY: Duration = Duration::from_millis(250);
/// The rehearsal's own topic.
const CANARY_PARTITIONS: i32 = 3;
const CANARY_RETENTION_MS: &str = "3600000";
/// The load on it.
const RECORDS_PER_SECOND: u32 = 200;
/// The load must have gone on for so many records before the cut, and after it.
const RECORDS_BEFORE: usize = 400;
const READ_BEFORE: usize = 100;
const RECORDS_AFTER: usize = 100;

/// A rehearsal under way.
pub struct Rehearsing<'a> {
    /// What it works with.
    pub scene: &'a Scene,
    /// The private flow.
    pub flow: FlowConfig,
    /// What the copying process was told.
    pub order: CopyOrder,
    /// The state, opened for the private flow.
    pub store: Arc<StateStore>,
    /// The account of it.
    pub result: Rehearsal,
    phase_began: Instant,
}

impl<'a> Rehearsing<'a> {
    /// Prepares the private flow. Makes nothing yet.
    ///
    /// # Errors
    /// When the state can't be read.
    pub async fn new(scene: &'a Scene, kind: Kind) -> Result<Self, DrillError> {
        let mut topics: Vec<String> = match kind {
            Kind::Planned => Vec::new(),
            Kind::Unplanned => {
                let taken = scene.choice.taken.iter();
                taken.map(|topic| topic.name.clone()).collect()
            }
        };
        let mut groups = Vec::new();
        if scene.request.may_use_source {
            topics.push(scene.names.canary(kind));
            groups.push(scene.names.readers(kind));
        }
        let order = CopyOrder {
            of: scene.flow.name.clone(),
            name: scene.names.flow(kind),
            topics,
            groups,
            rename: scene.names.rename(kind),
            bytes_per_second: scene.request.bytes_per_second,
        };
        let flow = private_flow(&scene.flow, &order).map_err(DrillError::failed)?;
        let store = Arc::new(StateStore::open(&scene.target, &flow.name).await?);
        Ok(Self {
            scene,
            flow,
            order,
            store,
            result: Rehearsal {
                kind,
                cut: None,
                phases: Vec::new(),
                plan: None,
                fence: match kind {
                    Kind::Planned => "acl".to_owned(),
                    Kind::Unplanned => "gone".to_owned(),
                },
                fence_seconds: None,
                rto: None,
                account: None,
                missing: None,
                groups: None,
                verify: None,
                failure: None,
            },
            phase_began: Instant::now(),
        })
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        self.result.kind
    }

    /// Says what is done next.
    pub fn begin(&mut self, what: &str) {
        (self.scene.tell)(&format!("{}: {what}", self.kind().word()));
        self.phase_began = Instant::now();
    }

    /// Notes what came out.
    pub fn end(&mut self, phase: &str, result: impl Into<String>) {
        self.result.phases.push(Phase {
            phase: phase.to_owned(),
            seconds: self.phase_began.elapsed().as_secs_f64(),
            result: result.into(),
        });
    }

    /// Makes the rehearsal's own topic on the source.
    ///
    /// # Errors
    /// When it can't be made.
    pub async fn make_canary(&mut self) -> Result<(), DrillError> {
        let topic = self.scene.names.canary(self.kind());
        self.begin("a topic of the rehearsal's own is made on the source");
        let configs = BTreeMap::from([
            ("cleanup.policy".to_owned(), "delete".to_owned()),
            ("retention.ms".to_owned(), CANARY_RETENTION_MS.to_owned()),
        ]);
        let made =
            wire::create_topic(&self.scene.source, &topic, CANARY_PARTITIONS, -1, &configs).await;
        made.map_err(|error| {
            let problem = DrillError::failed(format!("{topic} can't be made: {error}"));
            match error.server_code() {
                Some(
                    ResponseError::TopicAuthorizationFailed
                    | ResponseError::ClusterAuthorizationFailed,
                ) => problem.with_hint(
                    "grant CREATE on topics named `__twinlog_drill.` on the source \
                     (docs/DRILL.md), or leave the source alone with --no-source",
                ),
                _ => problem,
            }
        })?;
        self.end("prepare", topic);
        Ok(())
    }

    /// Starts the clients on the source.
    ///
    /// # Errors
    /// When librdkafka refuses their settings.
    pub fn start_clients(&mut self) -> Result<(Writer, Reader), DrillError> {
        let (topic, group) = (
            self.scene.names.canary(self.kind()),
            self.scene.names.readers(self.kind()),
        );
        let section = &self.scene.source_section;
        let writer = Writer::start(section, &topic, FIRST, RECORDS_PER_SECOND)?;
        let reader = Reader::start(section, &topic, &group)?;
        Ok((writer, reader))
    }

    /// Starts the copying process and waits until everything is copied that was on the source when
    /// all its topics were found.
    ///
    /// # Errors
    /// When it isn't in time, says why a partition is stopped, or the process ended.
    pub async fn copy(&mut self) -> Result<Copier, DrillError> {
        let names: Vec<&str> = self.order.topics.iter().map(String::as_str).collect();
        self.begin(&format!("{} topic(s) are copied", names.len()));
        let config_file = &self.scene.request.config_file;
        let mut copier = Copier::start(config_file, &self.order)
            .map_err(|error| DrillError::failed(format!("the copy can't be started: {error}")))?;
        let deadline = Instant::now() + self.scene.request.wait;
        let mut wanted: Option<Offsets> = None;
        loop {
            if copier.has_ended() {
                return Err(DrillError::failed("the copying process ended by itself"));
            }
            let copied = self.scene.copied(&self.flow, &self.store).await?;
            let metadata = self.scene.source.cached();
            let topics: Vec<(String, usize)> = self
                .order
                .topics
                .iter()
                .map(|name| {
                    let topic = metadata.topics.get(name);
                    (
                        name.clone(),
                        topic.map_or(1, |topic| topic.partitions.len()),
                    )
                })
                .collect();
            let mut left = None;
            if copied.is_complete(&topics) {
                let wanted = match &wanted {
                    Some(wanted) => wanted,
                    None => {
                        let sources = on_source(&copied.pairs);
                        wanted.insert(
                            ends(&self.scene.source, &sources, OffsetSpec::LatestStable).await?,
                        )
                    }
                };
                let behind = self.behind(&copied, wanted).await?;
                if behind == 0 {
                    let offsets: i64 = wanted.values().sum();
                    let (count, total) = (copied.topics.len(), copied.pairs.len());
                    self.end(
                        "copy",
                        format!("{count} topic(s), {total} partition(s), ends add up to {offsets}"),
                    );
                    return Ok(copier);
                }
                left = Some(behind);
            }
            if let Some((at, why)) = self.stopped(&copied)? {
                return Err(DrillError::failed(format!(
                    "the copy of {at} stopped: {why}"
                )));
            }
            if Instant::now() >= deadline {
                let what = match left {
                    Some(left) => format!("{left} offset(s) aren't copied"),
                    None => format!("{} of {} topic(s) begun", copied.topics.len(), topics.len()),
                };
                let waited = self.scene.request.wait.as_secs();
                return Err(DrillError::failed(format!("after {waited} s {what}"))
                    .with_hint("copy less (--topic, --bytes), or wait longer (--wait)"));
            }
            tokio::time::sleep(COPY_LOOK_EVERY).await;
        }
    }

    async fn behind(&self, copied: &Copied, wanted: &Offsets) -> Result<i64, DrillError> {
        let targets = on_target(&copied.pairs);
        let there = ends(&self.scene.target, &targets, OffsetSpec::Latest).await?;
        let behind = copied.pairs.iter().map(|pair| {
            let there = there.get(&pair.target).copied().unwrap_or(0);
            let wanted = wanted.get(&pair.source).copied().unwrap_or(0);
            (wanted - copied_end(pair, there, &copied.maps)).max(0)
        });
        Ok(behind.sum())
    }

    fn stopped(&self, copied: &Copied) -> Result<Option<(String, String)>, DrillError> {
        for topic in &copied.topics {
            let key = keys::ends(&self.flow.name, &topic.name);
            let record: Option<EndsRecord> = self.store.get(&key)?;
            if let Some((number, why)) = record.and_then(|it| it.stopped.into_iter().next()) {
                return Ok(Some((format!("{}-{number}", topic.name), why)));
            }
        }
        Ok(None)
    }

    /// Waits until clients have written and read under load, and the copying process has noted
    /// what it sees of the source.
    ///
    /// # Errors
    /// When they haven't in time.
    pub async fn await_load(
        &mut self,
        clients: Option<(&Writer, &Reader)>,
    ) -> Result<(), DrillError> {
        self.begin("clients write and read");
        let deadline = Instant::now() + self.scene.request.wait;
        loop {
            self.store.refresh().await?;
            let observed: Option<ObservedRecord> =
                self.store.get(&keys::observed(&self.flow.name))?;
            let mut has_ends = true;
            let mut per_second = 0;
            for topic in &self.order.topics {
                let record: Option<EndsRecord> =
                    self.store.get(&keys::ends(&self.flow.name, topic))?;
                let record = record.unwrap_or_default();
                has_ends &= !record.ends.is_empty() && record.ends.iter().all(|end| *end >= 0);
                per_second += record.per_second.iter().sum::<u64>();
            }
            let (written, read) = clients
                .map_or((RECORDS_BEFORE, READ_BEFORE), |(writer, reader)| {
                    (writer.count(), reader.count())
                });
            let is_loaded = written >= RECORDS_BEFORE && read >= READ_BEFORE;
            // Rates are known when ends were seen twice: the bound of a loss needs them.
            let has_rates = clients.is_none() || per_second > 0;
            if is_loaded && observed.is_some() && has_ends && has_rates {
                let text = match clients {
                    Some(_) => format!("{written} record(s) acknowledged, {read} read"),
                    None => "the source's ends are noted".to_owned(),
                };
                self.end("load", text);
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(DrillError::failed(format!(
                    "after {} s clients of the source had {written} record(s) acknowledged and {read} read",
                    self.scene.request.wait.as_secs()
                )));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// The clients move: they write and read on the standby. Fills the times and the account.
    ///
    /// # Errors
    /// When they can't.
    pub async fn move_clients(&mut self, moved: Moved) -> Result<(), DrillError> {
        self.begin("the clients move to the standby");
        let section = self.scene.target_section.clone();
        let plan_done_ms = now_ms();
        let writer = Writer::start(&section, &moved.topic, FIRST_AFTER, RECORDS_PER_SECOND)?;
        let reader = Reader::start(&section, &moved.topic, &moved.group)?;
        let deadline = Instant::now() + self.scene.request.wait;
        while writer.count() < RECORDS_AFTER || reader.count() == 0 {
            if Instant::now() >= deadline {
                let written = writer.so_far();
                return Err(DrillError::failed(format!(
                    "after {} s clients of the standby had {} record(s) acknowledged, {} refused, \
                     {} failed, and {} read",
                    self.scene.request.wait.as_secs(),
                    written.acked.len(),
                    written.refused,
                    written.failed,
                    reader.count()
                )));
            }
            tokio::time::sleep(AGAIN).await;
        }
        let written = blocking(move || writer.stop()).await?;
        let targets = self.scene.target.metadata(None).await?;
        let partitions = targets
            .topics
            .get(&moved.topic)
            .map_or(0, |topic| topic.partitions.len());
        let places: Vec<TopicPartition> = (0..)
            .take(partitions)
            .map(|number| TopicPartition::new(&*moved.topic, number))
            .collect();
        let there = ends(&self.scene.target, &places, OffsetSpec::Latest).await?;
        let (group, patience) = (self.scene.names.root(), self.scene.request.wait);
        let numbers = blocking(move || peek::numbers(&section, &group, &there, patience)).await??;
        // Until the group has read what is there, or clearly won't.
        loop {
            let before = reader.count();
            let read: std::collections::HashSet<u64> = reader
                .so_far()
                .iter()
                .chain(&moved.read)
                .map(|it| it.number)
                .collect();
            if numbers.iter().all(|number| read.contains(number)) {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            if reader.count() == before && Instant::now() >= deadline {
                break;
            }
        }
        let read_after = blocking(move || reader.stop()).await?;
        let since =
            |ms: Option<i64>, from: i64| ms.map_or(0.0, |ms| (ms - from).max(0) as f64 / 1_000.0);
        self.result.rto = Some(Rto {
            plan_seconds: since(Some(plan_done_ms), moved.write_from_ms),
            write_seconds: since(written.first_ms(), moved.write_from_ms),
            read_seconds: since(
                read_after.iter().map(|it| it.at_ms).min(),
                moved.read_from_ms,
            ),
        });
        let account = account(
            &moved.written,
            &written,
            &numbers,
            &moved.read,
            &read_after,
            moved.write_from_ms,
        );
        self.end(
            "move",
            format!(
                "{} record(s) acknowledged by the standby, {} read there",
                account.acknowledged_after, account.read.1
            ),
        );
        self.result.account = Some(account);
        self.result.cut = Some(utc(moved.write_from_ms));
        Ok(())
    }
}

/// What clients leave behind when they move.
pub struct Moved {
    /// The topic that they use on the standby.
    pub topic: String,
    /// The group that reads there.
    pub group: String,
    /// What was written on the source.
    pub written: Written,
    /// What was read there.
    pub read: Vec<canary::Read>,
    /// From when writers stood still, milliseconds since the epoch.
    pub write_from_ms: i64,
    /// From when readers did.
    pub read_from_ms: i64,
}

/// Something that blocks, in a thread of its own.
///
/// # Errors
/// When the thread was lost.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, DrillError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| DrillError::failed(error.to_string()))
}

/// By source partition where the copy ends, as the plan has recorded it.
///
/// # Errors
/// When the state can't be read.
pub fn forks(
    store: &StateStore,
    flow: &str,
    topics: &[String],
) -> Result<HashMap<TopicPartition, i64>, DrillError> {
    let mut found = HashMap::new();
    for topic in topics {
        let fork: Option<crate::state::ForkRecord> = store.get(&keys::fork(flow, topic))?;
        let partitions = fork.map(|fork| fork.partitions).unwrap_or_default();
        for (number, fork) in (0..).zip(partitions) {
            found.insert(TopicPartition::new(&**topic, number), fork.source_end);
        }
    }
    Ok(found)
}
