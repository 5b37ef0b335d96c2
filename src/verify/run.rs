//! One run, from the question to the report.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::VerifyError;
use super::board::Side;
use super::configs::{self, Compaction, Configs, Forgets};
use super::groups::{self, Copied, Judgement, Position};
use super::identity;
use super::partitions::{self, Depth, Inputs, Outcome, PAUSE};
use super::progress::{Phase, Progress};
use super::reach::reach;
use super::replicas;
use super::report::{
    Compared, Coverage, Difference, DifferenceKind, GroupsReport, Mode, PartitionReport,
    REPORT_VERSION, Report, SampleReport, Totals, Verdict, found_again, lasting,
};
use super::sample::Sampling;
use super::scope::{self, Place};
use super::sizes::Sizes;
use super::span::Span;
use super::standby::why_no_standby;
use crate::config::{ClusterSection, FlowConfig, Selector, Start, is_internal_topic};
use crate::connect;
use crate::groups as groups_of;
use crate::state::{GroupPositions, StateStore, TopicRecord, keys};
use crate::telemetry::progress::now_ms;
use crate::wire::{MostSay, TopicPartition};

/// While a flow runs its maps are stored this often: what the map doesn't know yet isn't judged
/// before.
const MAPS_STORED_WITHIN: Duration = Duration::from_secs(12);

/// What else a standby has, and nothing here compares.
const NOT_LOOKED_AT: [&str; 6] = [
    "users' passwords (no broker tells)",
    "share groups",
    "what groups wrote beside their positions (their metadata)",
    "leader epochs, and whether a timestamp was the producer's or the broker's (a copy has its own)",
    "transactions that were open when it began",
    "quotas, users, and ACLs that open no copy, that only the target has (they stay)",
];

/// Before a group is looked at again: Twinlog commits within a second and remembers what it
/// committed every 5 s.
const GROUPS_PAUSE: Duration = Duration::from_secs(6);

/// Longer nobody who waits for an answer waits for what `run` may be about to mend.
pub const AGAIN_WITHIN: Duration = Duration::from_secs(30);

/// When something that differs is looked at again, where `run` looks at it every so often: it has looked by then,
/// unless it does so more rarely than `within` allows for.
pub fn again_after(interval: Duration, within: Option<Duration>) -> Duration {
    let looked = interval.saturating_mul(2).max(PAUSE);
    looked.min(within.unwrap_or(Duration::MAX))
}

/// What is to be compared.
#[derive(Clone, Debug)]
pub struct Request {
    /// The flow.
    pub flow: FlowConfig,
    /// Its source.
    pub source: ClusterSection,
    /// Its target.
    pub target: ClusterSection,
    /// Only these topics, by their names on the source; all that the flow copies if `None`.
    pub topics: Option<Selector>,
    /// How much.
    pub mode: Mode,
    /// How `sample` draws.
    pub sampling: Sampling,
    /// Bytes of keys, values and headers that are read per second at most, both sides together.
    pub bytes_per_second: Option<u64>,
    /// Partitions that are read at the same time, 1 to 8.
    pub partitions_at_once: usize,
    /// No longer is waited for what `run` may be about to mend; `None` where nobody waits for the report.
    pub again_within: Option<Duration>,
}

impl Request {
    fn again_after(&self, interval: Duration) -> Duration {
        again_after(interval, self.again_within)
    }
}

/// Compares a flow's target with its source. `store` is the state on the target, opened for the
/// flow with its maps.
///
/// # Errors
/// When nothing can be compared at all. What can't be compared of it is in the report.
pub async fn verify(
    request: &Request,
    store: &StateStore,
    progress: Arc<Progress>,
    cancel: &CancellationToken,
) -> Result<Report, VerifyError> {
    let started_ms = now_ms();
    let cancelled = Arc::new(AtomicBool::new(false));
    let _end_threads = SetOnDrop(cancelled.clone());
    let run = Run {
        request,
        store,
        progress,
        cancelled,
        started_ms,
    };
    tokio::select! {
        report = run.compare() => report,
        () = cancel.cancelled() => Err(VerifyError::Cancelled),
    }
}

/// Ends what still runs in threads when nobody waits for it any more.
struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What most of a cluster's brokers say of topics.
async fn ask_most(section: &ClusterSection, topics: &[String]) -> identity::Told {
    identity::ask(&connect::cluster(section), topics, section.request_timeout).await
}

/// What a look at groups found.
struct Looked {
    found: Vec<(Position, Judgement)>,
    not_compared: Vec<String>,
}

impl Looked {
    /// Nothing could be asked.
    fn failed(why: String) -> Self {
        Self {
            found: Vec::new(),
            not_compared: vec![why],
        }
    }
}

/// Partitions of the source of which nothing is copied, and whether the copier knows of them.
type Uncopied = BTreeMap<(String, i32), bool>;

struct Run<'a> {
    request: &'a Request,
    store: &'a StateStore,
    progress: Arc<Progress>,
    cancelled: Arc<AtomicBool>,
    started_ms: i64,
}

impl Run<'_> {
    async fn compare(&self) -> Result<Report, VerifyError> {
        reach(&self.request.source, &self.request.target).await?;
        let places = self.places()?;
        if places.is_empty() && !self.knows_a_topic() {
            return Err(VerifyError::NothingSelected(self.request.flow.name.clone()));
        }
        let (source, target) = self.configs(&places).await?;
        let mut outcomes = self.records(&places, &source, &target).await?;
        self.doubt_what_is_gone(&mut outcomes).await;
        // That took hours, perhaps. From here on nothing ends the run: what can't be asked is in the report.
        let outcomes = self.judge_beyond(outcomes).await;
        self.progress.enter(Phase::Groups);
        let (configs, mut more) = self.compare_configs(&outcomes, &source, &target).await;
        let (groups, moved) = self.compare_groups(&outcomes).await;
        more.extend(moved);
        let names = Self::topic_names(&outcomes);
        let mut report = self.report(outcomes, configs, more);
        report.groups = groups;
        self.compare_replicas(&names, &mut report).await;
        if let Err(error) = self.partitions_not_copied(&mut report).await {
            report.leave_out("partitions that aren't copied", &error);
        }
        match self.topics_made_anew().await {
            Ok((found, untold)) => {
                report.add(found);
                report.not_compared.extend(untold);
            }
            Err(error) => report.leave_out("whether topics were made anew", &error),
        }
        match self.topics_not_copied().await {
            Ok(topics) => report.topics_not_copied = topics,
            Err(error) => report.leave_out("topics that aren't copied", &error),
        }
        match self.topics_only_on_target().await {
            Ok(topics) => report.topics_only_on_target = topics,
            Err(error) => report.leave_out("topics that only the target has", &error),
        }
        report.finish(now_ms());
        Ok(report)
    }

    /// Whether a selected topic is known to be copied: there may be nothing of it yet, or its maps are gone.
    fn knows_a_topic(&self) -> bool {
        let flow = &self.request.flow;
        let prefix = keys::topic(&flow.name, "");
        let asked = self.request.topics.as_ref();
        let is_selected = |topic: &str| {
            flow.topics.matches(topic) && asked.is_none_or(|asked| asked.matches(topic))
        };
        let keys = self.store.keys(&prefix);
        let mut topics = keys.iter().filter_map(|key| key.strip_prefix(&*prefix));
        topics.any(is_selected)
    }

    fn places(&self) -> Result<Vec<Arc<Place>>, VerifyError> {
        let topics = self.request.topics.as_ref();
        let is_selected = |topic: &str| topics.is_none_or(|topics| topics.matches(topic));
        Ok(scope::places(self.store, &self.request.flow, &is_selected)?)
    }

    /// Both sides' configs of the topics.
    async fn configs(&self, places: &[Arc<Place>]) -> Result<(Configs, Configs), VerifyError> {
        let names = |name: fn(&Place) -> &str| -> Vec<String> {
            let names: BTreeSet<&str> = places.iter().map(|place| name(place)).collect();
            names.into_iter().map(str::to_owned).collect()
        };
        let (source, target) = (
            names(|place| &place.topic),
            names(|place| &place.target_topic),
        );
        tokio::try_join!(
            configs::describe(&self.request.source, &source),
            configs::describe(&self.request.target, &target)
        )
    }

    async fn records(
        &self,
        places: &[Arc<Place>],
        source: &Configs,
        target: &Configs,
    ) -> Result<Vec<Outcome>, VerifyError> {
        let entries = |configs: &Configs, topic: &str| {
            configs
                .get(topic)
                .and_then(|entries| entries.as_ref().ok())
                .cloned()
        };
        let topics: BTreeMap<&str, &str> = places
            .iter()
            .map(|place| (place.topic.as_str(), place.target_topic.as_str()))
            .collect();
        // By the source's word alone: a cleaner that runs only on the target takes records from the copy.
        let compactions: BTreeMap<String, Compaction> = topics
            .keys()
            .map(|topic| ((*topic).to_owned(), Compaction::of(source.get(*topic))))
            .collect();
        let forgets: BTreeMap<String, Forgets> = topics
            .iter()
            .filter_map(|(topic, target_topic)| {
                let here = Forgets::of(&entries(target, target_topic)?)?;
                let there = Forgets::of(&entries(source, topic)?)?;
                Some(((*topic).to_owned(), here.at_most_as(there)))
            })
            .collect();
        let is_sized = |place: &&Arc<Place>| {
            let forgets = forgets.get(&place.topic);
            forgets.is_some_and(|forgets| forgets.above_bytes.is_some())
        };
        let sized = places.iter().filter(is_sized);
        let sized: Vec<TopicPartition> = sized
            .map(|place| TopicPartition::new(place.topic.as_str(), place.partition))
            .collect();
        let sizes = Sizes::ask(&self.request.source, &sized).await;
        let places = places.to_vec();
        self.in_thread(move |inputs| {
            partitions::compare(&Inputs {
                places: &places,
                compaction: &|topic| {
                    let known = compactions.get(topic).cloned();
                    known.unwrap_or_else(|| Compaction::of(None))
                },
                forgets: &|topic| forgets.get(topic).copied(),
                source_bytes: &|topic, partition| sizes.of(topic, partition),
                ..inputs
            })
        })
        .await
    }

    /// Runs what blocks where it may.
    async fn in_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(Inputs<'_>) -> Result<T, VerifyError> + Send + 'static,
    ) -> Result<T, VerifyError> {
        let (request, progress) = (self.request.clone(), self.progress.clone());
        let cancelled = self.cancelled.clone();
        let working = tokio::task::spawn_blocking(move || {
            work(Inputs {
                sections: (&request.source, &request.target),
                places: &[],
                compaction: &|_| Compaction::of(None),
                forgets: &|_| None,
                source_bytes: &|_, _| Err("nobody was asked".to_owned()),
                depth: match request.mode {
                    Mode::Quick => Depth::Ends,
                    Mode::Sample => Depth::Sample(request.sampling),
                    Mode::Full => Depth::Full,
                },
                bytes_per_second: request.bytes_per_second,
                open_max: request.partitions_at_once,
                progress: &progress,
                cancelled: &cancelled,
            })
        });
        working
            .await
            .unwrap_or_else(|crash| Err(VerifyError::Bug(crash.to_string())))
    }

    /// Target logs that go on where the source's end: looked at again, with the newest maps.
    async fn judge_beyond(&self, mut outcomes: Vec<Outcome>) -> Vec<Outcome> {
        let mut suspects: Vec<usize> = (0..outcomes.len())
            .filter(|index| outcomes[*index].beyond.is_some())
            .collect();
        let deadline = tokio::time::Instant::now() + MAPS_STORED_WITHIN;
        while !suspects.is_empty() {
            tokio::time::sleep(PAUSE).await;
            if let Err(error) = self.look_beyond(&mut outcomes, &mut suspects).await {
                for index in &suspects {
                    outcomes[*index].unanswered = Some(error.to_string());
                }
            }
            // A map may say more in a while, and who didn't answer may answer.
            let is_open = suspects.iter().any(|index| {
                let one = &outcomes[*index];
                one.report.offsets == "mapped" || one.unanswered.is_some()
            });
            if !is_open || tokio::time::Instant::now() >= deadline {
                break;
            }
        }
        outcomes.iter_mut().for_each(Outcome::conclude_beyond);
        outcomes
    }

    /// One more look: those that are explained by now are no suspects any more.
    async fn look_beyond(
        &self,
        outcomes: &mut [Outcome],
        suspects: &mut Vec<usize>,
    ) -> Result<(), VerifyError> {
        self.store.refresh().await?;
        let newest = self.places()?;
        let fresh: Vec<Arc<Place>> = suspects
            .iter()
            .filter_map(|index| {
                let place = &outcomes[*index].place;
                let is_same = |new: &&Arc<Place>| {
                    new.topic == place.topic && new.partition == place.partition
                };
                newest.iter().find(is_same).cloned()
            })
            .collect();
        let asked = fresh.clone();
        let spans = self
            .in_thread(move |inputs| partitions::spans(&inputs, &asked))
            .await?;
        let key = |place: &Place| (place.topic.clone(), place.partition);
        let mut found: BTreeMap<(String, i32), Result<Span, String>> =
            fresh.iter().map(|place| key(place)).zip(spans).collect();
        suspects.retain(|index| {
            let outcome = &mut outcomes[*index];
            let gone = || Err("nothing is known of it any more".to_owned());
            let span = found.remove(&key(&outcome.place)).unwrap_or_else(gone);
            outcome.look_beyond_again(span);
            outcome.beyond.is_some()
        });
        Ok(())
    }

    /// The groups' positions; those that aren't where they should be are looked at again after a
    /// pause, since groups move.
    async fn compare_groups(&self, outcomes: &[Outcome]) -> (GroupsReport, Vec<Difference>) {
        if self.request.flow.groups.include().is_empty() {
            return (GroupsReport::default(), Vec::new());
        }
        let first = self.look_at_groups(outcomes, None).await;
        let Looked {
            mut found,
            mut not_compared,
        } = first.unwrap_or_else(|error| Looked::failed(error.to_string()));
        let suspects: BTreeSet<String> = found
            .iter()
            .filter(|(_, judgement)| matches!(judgement, Judgement::Wrong(_)))
            .map(|(position, _)| position.group.clone())
            .collect();
        if !suspects.is_empty() {
            tokio::time::sleep(GROUPS_PAUSE).await;
            let again = self.look_again_at_groups(outcomes, &suspects).await;
            let again = again.unwrap_or_else(|error| {
                let count = suspects.len();
                Looked::failed(format!(
                    "{count} group(s) weren't where they should be, and can't be looked at again: {error}"
                ))
            });
            found.retain(|(position, _)| !suspects.contains(&position.group));
            found.extend(again.found);
            not_compared.extend(again.not_compared);
        }
        not_compared.extend(self.groups_unseen().await);
        let (positions, judgements): (Vec<Position>, Vec<Judgement>) = found.into_iter().unzip();
        groups::report(&positions, &judgements, not_compared)
    }

    async fn look_again_at_groups(
        &self,
        outcomes: &[Outcome],
        suspects: &BTreeSet<String>,
    ) -> Result<Looked, VerifyError> {
        self.store.refresh().await?;
        self.look_at_groups(outcomes, Some(suspects.clone())).await
    }

    /// Why groups may be missing in a cluster's list, a line for each cluster: what may not be described
    /// is left out of it without a word.
    async fn groups_unseen(&self) -> Vec<String> {
        let look = async |side: &str, section: &ClusterSection| {
            let cluster = connect::cluster(section);
            let looking = groups_of::hidden(&cluster, &self.request.flow.groups);
            let why = match tokio::time::timeout(section.request_timeout, looking).await {
                Ok(Ok(hidden)) => hidden?,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "whether all of them may be seen isn't answered".to_owned(),
            };
            Some(format!("on the {side}: {why}"))
        };
        let (source, target) = tokio::join!(
            look("source", &self.request.source),
            look("target", &self.request.target)
        );
        source.into_iter().chain(target).collect()
    }

    async fn look_at_groups(
        &self,
        outcomes: &[Outcome],
        only: Option<BTreeSet<String>>,
    ) -> Result<Looked, VerifyError> {
        let known = self.known_groups()?;
        let selected = self.request.flow.groups.clone();
        let compared = outcomes.iter().filter(|one| one.is_measured());
        let places: Vec<Arc<Place>> = compared.map(|one| one.place.clone()).collect();
        let (asked, followed) = (places.clone(), known.clone());
        let (positions, ends, mut not_compared) = self
            .in_thread(move |inputs| {
                let ask = groups::Ask {
                    sections: inputs.sections,
                    selected: &selected,
                    known: &followed,
                    places: &asked,
                    cancelled: inputs.cancelled,
                };
                let (names, unlisted) = match only {
                    Some(only) => (only, Vec::new()),
                    None => ask.names(),
                };
                let (positions, mut not_compared) = ask.positions(&names)?;
                not_compared.extend(unlisted);
                // After the positions: what is copied by then is the most that they may reach.
                let ends = partitions::spans(&inputs, &asked)?;
                Ok((positions, ends, not_compared))
            })
            .await?;
        let spans: BTreeMap<(&str, i32), (&Place, &Span)> = places
            .iter()
            .zip(&ends)
            .filter_map(|(place, span)| {
                let key = (place.topic.as_str(), place.partition);
                Some((key, (&**place, span.as_ref().ok()?)))
            })
            .collect();
        for (place, span) in places.iter().zip(&ends) {
            if let Err(reason) = span {
                let at = format!("{}-{}", place.topic, place.partition);
                not_compared.push(format!("positions in {at}: {reason}"));
            }
        }
        let judged = positions.into_iter().map(|position| {
            let span = spans.get(&(position.topic.as_str(), position.partition));
            let judgement = span.map_or(Judgement::Nothing, |(place, span)| {
                let copied = Copied {
                    place,
                    from: span.range.start,
                    to: span.range.end,
                };
                groups::judge(&position, &copied, groups::followed(&known, &position))
            });
            (position, judgement)
        });
        let found = judged.collect();
        Ok(Looked {
            found,
            not_compared,
        })
    }

    fn known_groups(&self) -> Result<BTreeMap<String, GroupPositions>, VerifyError> {
        let prefix = keys::groups(&self.request.flow.name);
        let mut known = BTreeMap::new();
        for key in self.store.keys(&prefix) {
            if let Some(positions) = self.store.get::<GroupPositions>(&key)? {
                known.insert(key[prefix.len()..].to_owned(), positions);
            }
        }
        Ok(known)
    }

    /// Topics that aren't those that were copied, now and after a pause: a flow that runs copies them anew. With those of
    /// which that isn't known, a line for each reason. Of the target's, the records tell where they are compared.
    async fn topics_made_anew(&self) -> Result<(Vec<Difference>, Vec<String>), VerifyError> {
        let known = self.topic_records()?;
        let first = self.look_for_others(&known).await;
        if first.others.is_empty() {
            return Ok((Vec::new(), first.untold()));
        }
        let flow = &self.request.flow;
        tokio::time::sleep(self.request.again_after(flow.discovery_interval)).await;
        self.store.refresh().await?;
        let mut known = self.topic_records()?;
        known.retain(|topic, _| {
            let mut others = first.others.iter();
            others.any(|it| it.topic.as_ref() == Some(topic))
        });
        let mut again = self.look_for_others(&known).await;
        let others = found_again(&first.others, std::mem::take(&mut again.others));
        again.take_untold(first, |topic| known.contains_key(topic));
        Ok((others, again.untold()))
    }

    async fn look_for_others(&self, known: &BTreeMap<String, TopicRecord>) -> identity::Found {
        let source: Vec<String> = known.keys().cloned().collect();
        let target = match self.request.mode {
            Mode::Quick => known.values().map(|it| it.target_topic.clone()).collect(),
            Mode::Sample | Mode::Full => Vec::new(),
        };
        let (source, target) = tokio::join!(
            ask_most(&self.request.source, &source),
            ask_most(&self.request.target, &target)
        );
        identity::made_anew(known, (&source, &target))
    }

    /// What one broker says isn't there: the others are asked before it is believed, since one that is cut off from them
    /// knows topics as they were.
    async fn doubt_what_is_gone(&self, outcomes: &mut [Outcome]) {
        for side in [Side::Source, Side::Target] {
            let section = match side {
                Side::Source => &self.request.source,
                Side::Target => &self.request.target,
            };
            let gone = outcomes.iter().filter(|one| one.gone_on == Some(side));
            let topics: BTreeSet<String> = gone.map(|one| one.place.on(side).to_owned()).collect();
            let topics: Vec<String> = topics.into_iter().collect();
            let told = ask_most(section, &topics).await;
            for one in outcomes.iter_mut().filter(|it| it.gone_on == Some(side)) {
                match told.get(one.place.on(side)) {
                    Some(MostSay::Gone) => {}
                    Some(MostSay::Untold(why)) => one.doubt(side, why),
                    Some(MostSay::There(_)) | None => one.doubt(side, "others have it"),
                }
            }
        }
    }

    /// Topics that the flow selects, that the source has and that nothing is known of, now and
    /// after a pause.
    async fn topics_not_copied(&self) -> Result<Vec<String>, VerifyError> {
        let mut waiting: Vec<String> = Vec::new();
        for look in 0..2 {
            let names = self
                .in_thread(|inputs| partitions::source_topics(&inputs))
                .await?;
            let flow = &self.request.flow;
            let topics = self.request.topics.as_ref();
            let is_unknown = |topic: &String| {
                let key = keys::topic(&flow.name, topic);
                flow.topics.matches(topic)
                    && !is_internal_topic(topic)
                    && topics.is_none_or(|topics| topics.matches(topic))
                    && self.store.bytes(&key).is_none()
                    && (look == 0 || waiting.contains(topic))
            };
            waiting = names.into_keys().filter(is_unknown).collect();
            if waiting.is_empty() {
                break;
            }
            if look == 0 {
                tokio::time::sleep(
                    self.request
                        .again_after(self.request.flow.discovery_interval),
                )
                .await;
                self.store.refresh().await?;
            }
        }
        waiting.sort_unstable();
        Ok(waiting)
    }

    /// Topics of the target that are no copies of this flow's, and whose names the flow would give to a
    /// topic that the source doesn't have.
    async fn topics_only_on_target(&self) -> Result<Vec<String>, VerifyError> {
        let topics = self.in_thread(|inputs| {
            let source = partitions::source_topics(&inputs)?;
            Ok((source, partitions::target_topics(&inputs)?))
        });
        let (source, target) = topics.await?;
        let flow = &self.request.flow;
        let mut copies = BTreeSet::new();
        for key in self.store.keys(&keys::topic(&flow.name, "")) {
            let record = self.store.get::<TopicRecord>(&key)?;
            copies.extend(record.map(|record| record.target_topic));
        }
        let is_own = |name: &String| {
            let unapplied = flow.rename.unapply(&flow.source, name);
            let is_selected = unapplied.is_some_and(|topic| {
                let asked = self.request.topics.as_ref();
                flow.topics.matches(&topic)
                    && asked.is_none_or(|asked| asked.matches(&topic))
                    && !source.contains_key(&*topic)
            });
            is_selected && !is_internal_topic(name) && !copies.contains(name)
        };
        let mut own: Vec<String> = target.into_keys().filter(is_own).collect();
        own.sort_unstable();
        Ok(own)
    }

    /// Partitions of copied topics that the source has and of which nothing is copied, now and after
    /// a pause: those that the copier knows of are behind, the others are lacking.
    async fn partitions_not_copied(&self, report: &mut Report) -> Result<(), VerifyError> {
        let (mut found, unknown) = self.uncopied().await?;
        if found.is_empty() {
            report.not_compared.extend(unknown);
            return Ok(());
        }
        tokio::time::sleep(
            self.request
                .again_after(self.request.flow.discovery_interval),
        )
        .await;
        self.store.refresh().await?;
        let (again, unknown) = self.uncopied().await?;
        report.not_compared.extend(unknown);
        found.retain(|place, _| again.contains_key(place));
        let asked: Vec<(String, i32)> = found.keys().cloned().collect();
        let offsets = {
            let asked = asked.clone();
            self.in_thread(move |inputs| partitions::source_offsets(&inputs, &asked))
                .await?
        };
        for ((topic, partition), offsets) in asked.into_iter().zip(offsets) {
            let is_known = again.get(&(topic.clone(), partition)) == Some(&true);
            if !is_known {
                let detail = "the source has this partition, and it isn't copied".to_owned();
                let lacking = Difference::new(DifferenceKind::Partitions, detail);
                report.add(vec![lacking.at(&topic, partition)]);
            }
            let (lag_offsets, failure) = match offsets {
                Ok(count) => (count, None),
                Err(why) => (0, Some(why)),
            };
            report.take_in_uncopied(PartitionReport {
                topic,
                partition,
                lag_offsets,
                failure,
                skipped: Some("nothing of it is copied yet".to_owned()),
                ..PartitionReport::default()
            });
        }
        Ok(())
    }

    /// Partitions of the source without a place, and whether the copier knows of them; and the topics whose partitions
    /// nobody tells, a line for each.
    async fn uncopied(&self) -> Result<(Uncopied, Vec<String>), VerifyError> {
        let records = self.topic_records()?;
        let topics: Vec<String> = records.keys().cloned().collect();
        let counts = self
            .in_thread(move |inputs| partitions::source_counts(&inputs, &topics))
            .await?;
        let places = self.places()?;
        let copied: BTreeSet<(&str, i32)> = places
            .iter()
            .map(|place| (place.topic.as_str(), place.partition))
            .collect();
        let (mut uncopied, mut unknown) = (Uncopied::new(), Vec::new());
        for (topic, record) in records {
            let count = match counts.get(&topic) {
                Some(Ok(count)) => *count,
                Some(Err(why)) => {
                    unknown.push(format!("whether {topic} has more partitions: {why}"));
                    continue;
                }
                // Not listed, and nobody has it by its name: it is gone.
                None => 0,
            };
            for (index, partition) in (0..count).zip(0_i32..) {
                if !copied.contains(&(&*topic, partition)) {
                    let is_known = index < record.origins.len();
                    uncopied.insert((topic.clone(), partition), is_known);
                }
            }
        }
        Ok((uncopied, unknown))
    }

    /// What is known of the selected topics.
    fn topic_records(&self) -> Result<BTreeMap<String, TopicRecord>, VerifyError> {
        let flow = &self.request.flow;
        let asked = self.request.topics.as_ref();
        let prefix = keys::topic(&flow.name, "");
        let mut records = BTreeMap::new();
        for key in self.store.keys(&prefix) {
            let topic = &key[prefix.len()..];
            if !flow.topics.matches(topic) || asked.is_some_and(|asked| !asked.matches(topic)) {
                continue;
            }
            if let Some(record) = self.store.get::<TopicRecord>(&key)? {
                records.insert(topic.to_owned(), record);
            }
        }
        Ok(records)
    }

    /// The topics that both sides have, by their names there; without those that were there before the
    /// copy, which have their owner's replicas.
    fn topic_names(outcomes: &[Outcome]) -> BTreeSet<(String, String)> {
        let made = outcomes
            .iter()
            .filter(|one| one.is_measured() && !one.place.is_continued);
        made.map(|one| (one.place.topic.clone(), one.place.target_topic.clone()))
            .collect()
    }

    /// How many replicas the copies have, now and, where they are too few, after a pause.
    async fn compare_replicas(&self, names: &BTreeSet<(String, String)>, report: &mut Report) {
        let mut looked = self.replicas(names).await;
        if let Ok(first) = &looked
            && !first.1.is_empty()
        {
            tokio::time::sleep(PAUSE).await;
            looked = self
                .replicas(names)
                .await
                .map(|again| lasting(first, again));
        }
        match looked {
            Ok((compared, found)) => {
                report.replicas = compared;
                report.add(found);
            }
            Err(error) => report.replicas.not_compared.push(error.to_string()),
        }
    }

    async fn replicas(
        &self,
        names: &BTreeSet<(String, String)>,
    ) -> Result<(Compared, Vec<Difference>), VerifyError> {
        let asked = self.request.flow.replication_factor;
        let layouts = self.in_thread(|inputs| {
            let (source, target) = inputs.sections;
            Ok((replicas::layout(source)?, replicas::layout(target)?))
        });
        let (source, target) = layouts.await?;
        let names: Vec<(&str, &str)> = names
            .iter()
            .map(|(topic, target_topic)| (&**topic, &**target_topic))
            .collect();
        Ok(replicas::differences(asked, &names, (&source, &target)))
    }

    /// What this comparison rests on without having looked.
    fn believed(outcomes: &[Outcome]) -> Vec<String> {
        let is_mapped = |one: &&Outcome| one.report.offsets == "mapped";
        let mapped = outcomes.iter().filter(is_mapped).count();
        let mut believed =
            vec!["which topics are copied, and where each copy begins (`begins_at`)".to_owned()];
        if mapped > 0 {
            believed.push(format!("the offset maps of {mapped} partition(s)"));
        }
        if outcomes.iter().any(|one| one.place.is_continued) {
            believed.push("what was stranded on one side by a failover".to_owned());
        }
        believed
    }

    async fn compare_configs(
        &self,
        outcomes: &[Outcome],
        source: &Configs,
        target: &Configs,
    ) -> (Compared, Vec<Difference>) {
        let present = outcomes.iter().filter(|one| one.is_measured());
        let places: Vec<Arc<Place>> = present.map(|one| one.place.clone()).collect();
        let places = &places[..];
        let first = self.config_differences(places, source, target);
        if first.1.is_empty() {
            return first;
        }
        // The flow may be about to set them.
        tokio::time::sleep(
            self.request
                .again_after(self.request.flow.metadata.interval),
        )
        .await;
        match self.configs(places).await {
            Ok((source, target)) => {
                lasting(&first, self.config_differences(places, &source, &target))
            }
            Err(error) => {
                let (mut compared, found) = first;
                let count = found.len();
                compared.not_compared.push(format!(
                    "{count} setting(s) differ, and can't be looked at again: {error}"
                ));
                (compared, Vec::new())
            }
        }
    }

    fn config_differences(
        &self,
        places: &[Arc<Place>],
        source: &Configs,
        target: &Configs,
    ) -> (Compared, Vec<Difference>) {
        let rules = &self.request.flow.metadata.configs;
        let mut compared = Compared::default();
        let mut found = Vec::new();
        if !rules.enabled {
            return (
                Compared::skipped("configs don't follow in this flow"),
                found,
            );
        }
        // It was read when the topics were: what can't be read now isn't known to be otherwise.
        if let Ok(Some(why)) = why_no_standby(self.store, &self.request.flow) {
            return (Compared::skipped(&why), found);
        }
        let topics: BTreeMap<&str, &str> = places
            .iter()
            .map(|place| (place.topic.as_str(), place.target_topic.as_str()))
            .collect();
        for (topic, target_topic) in topics {
            match (source.get(topic), target.get(target_topic)) {
                (Some(Ok(source)), Some(Ok(target))) => {
                    compared.count += 1;
                    found.extend(configs::differences(rules, topic, source, target));
                }
                // A topic that is gone is told of with its partitions.
                (Some(Err(reason)), _) | (_, Some(Err(reason))) => {
                    compared.not_compared.push(format!("{topic}: {reason}"));
                }
                _ => {}
            }
        }
        (compared, found)
    }

    fn report(&self, outcomes: Vec<Outcome>, configs: Compared, more: Vec<Difference>) -> Report {
        let mut report = Report {
            version: REPORT_VERSION,
            flow: self.request.flow.name.clone(),
            mode: self.request.mode,
            sample: (self.request.mode == Mode::Sample).then_some(SampleReport {
                percent: self.request.sampling.percent,
                seed: self.request.sampling.seed,
            }),
            started_ms: self.started_ms,
            ended_ms: 0,
            verdict: Verdict::Same,
            coverage: Coverage::default(),
            totals: Totals::default(),
            differences: Vec::new(),
            topics_not_copied: Vec::new(),
            topics_only_on_target: Vec::new(),
            partitions: Vec::new(),
            groups: GroupsReport::default(),
            configs,
            acls: Compared::default(),
            quotas: Compared::default(),
            users: Compared::default(),
            held: Compared::default(),
            replicas: Compared::default(),
            not_compared: Vec::new(),
            believed: Vec::new(),
            not_looked_at: Vec::new(),
        };
        report.believed = Self::believed(&outcomes);
        report.not_looked_at = NOT_LOOKED_AT.map(str::to_owned).to_vec();
        if let Ok(Some(why)) = why_no_standby(self.store, &self.request.flow) {
            report.not_looked_at.push(format!(
                "configs, ACLs, quotas, users and what is held ({why}; what was written and read there since differs)"
            ));
        }
        let begins_with_the_source = self.request.flow.start == Start::Earliest;
        for mut outcome in outcomes {
            let is_whole = outcome.report.offsets == "identical" && !outcome.place.is_continued;
            if begins_with_the_source && is_whole && outcome.report.before_copy_offsets > 0 {
                outcome.report.late = Some(
                    "the source has older records than where the copy is said to begin".to_owned(),
                );
            }
            report.take_in(outcome.comparable, outcome.report, outcome.listed);
        }
        report.add(more);
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_the_time_waits_until_run_has_looked() {
        let minutes = |count: u64| Duration::from_secs(60 * count);
        for (interval, within, expected) in [
            (
                Duration::from_secs(3),
                Some(AGAIN_WITHIN),
                Duration::from_secs(6),
            ),
            (minutes(10), Some(AGAIN_WITHIN), AGAIN_WITHIN),
            (minutes(10), None, minutes(20)),
            (Duration::ZERO, None, PAUSE),
        ] {
            assert_eq!(again_after(interval, within), expected);
        }
    }
}
