//! One run, from the question to the report.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::VerifyError;
use super::configs::{self, Configs};
use super::groups::{self, Copied, Judgement, Position};
use super::partitions::{self, Depth, Inputs, Outcome, PAUSE};
use super::progress::{Phase, Progress};
use super::report::{
    Compared, Coverage, Difference, DifferenceKind, GroupsReport, Mode, PartitionReport,
    REPORT_VERSION, Report, SampleReport, Totals, Verdict,
};
use super::sample::Sampling;
use super::scope::{self, Place};
use super::span::Span;
use crate::config::{ClusterSection, FlowConfig, Selector, Start, is_internal_topic};
use crate::state::{GroupPositions, StateStore, TopicRecord, keys};
use crate::telemetry::progress::now_ms;

/// While a flow runs its maps are stored this often: what the map doesn't know yet isn't judged
/// before.
const MAPS_STORED_WITHIN: Duration = Duration::from_secs(12);

/// What else a standby has, and nothing here compares.
const NOT_LOOKED_AT: [&str; 6] = [
    "quotas and users (`twinlog plan` does)",
    "held grants, configs and quotas (`twinlog held` lists them)",
    "positions of groups that only the target has",
    "share groups",
    "how many replicas partitions have",
    "transactions that were open when it began",
];

/// Before a group is looked at again: Twinlog commits within a second and remembers what it
/// committed every 5 s.
const GROUPS_PAUSE: Duration = Duration::from_secs(6);

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

/// What a look at groups found.
struct Looked {
    found: Vec<(Position, Judgement)>,
    not_compared: Vec<String>,
}

impl Looked {
    fn iter(&self) -> impl Iterator<Item = &(Position, Judgement)> {
        self.found.iter()
    }
}

struct Run<'a> {
    request: &'a Request,
    store: &'a StateStore,
    progress: Arc<Progress>,
    cancelled: Arc<AtomicBool>,
    started_ms: i64,
}

impl Run<'_> {
    async fn compare(&self) -> Result<Report, VerifyError> {
        let places = self.places()?;
        if places.is_empty() {
            return Err(VerifyError::NothingSelected(self.request.flow.name.clone()));
        }
        let (source, target) = self.configs(&places).await?;
        let outcomes = self.records(&places, &source, &target).await?;
        let outcomes = self.judge_beyond(outcomes).await?;
        self.progress.enter(Phase::Groups);
        let (configs, mut more) = self.compare_configs(&outcomes, &source, &target).await?;
        let (groups, moved) = self.compare_groups(&outcomes).await?;
        more.extend(moved);
        let mut report = self.report(outcomes, configs, more);
        report.groups = groups;
        self.partitions_not_copied(&mut report).await?;
        report.topics_not_copied = self.topics_not_copied().await?;
        report.finish(now_ms());
        Ok(report)
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
        // By the source's word alone: a cleaner that runs only on the target takes records from the copy.
        let is_compacted =
            |topic: &str| entries(source, topic).is_some_and(|it| configs::is_compacted(&it));
        let topics: BTreeMap<&str, &str> = places
            .iter()
            .map(|place| (place.topic.as_str(), place.target_topic.as_str()))
            .collect();
        let compacted: BTreeSet<String> = topics
            .keys()
            .filter(|topic| is_compacted(topic))
            .map(|topic| (*topic).to_owned())
            .collect();
        let forgets: BTreeMap<String, Option<i64>> = topics
            .iter()
            .filter_map(|(topic, target_topic)| {
                let after = configs::forgets_after_ms(&entries(target, target_topic)?)?;
                // What the source doesn't tell its own log to forget, the target mustn't either.
                let there = configs::forgets_after_ms(&entries(source, topic)?)?;
                let after = match (after, there) {
                    (Some(here), Some(there)) => Some(here.max(there)),
                    (None, Some(there)) => Some(there),
                    (here, None) => here,
                };
                Some(((*topic).to_owned(), after))
            })
            .collect();
        let places = places.to_vec();
        self.in_thread(move |inputs| {
            partitions::compare(&Inputs {
                places: &places,
                is_compacted: &|topic| compacted.contains(topic),
                forgets_after_ms: &|topic| forgets.get(topic).copied(),
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
                is_compacted: &|_| false,
                forgets_after_ms: &|_| None,
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
    async fn judge_beyond(&self, mut outcomes: Vec<Outcome>) -> Result<Vec<Outcome>, VerifyError> {
        let mut suspects: Vec<usize> = (0..outcomes.len())
            .filter(|index| outcomes[*index].beyond.is_some())
            .collect();
        let deadline = tokio::time::Instant::now() + MAPS_STORED_WITHIN;
        while !suspects.is_empty() {
            tokio::time::sleep(PAUSE).await;
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
            let beyond = self
                .in_thread(move |inputs| partitions::spans(&inputs, &asked))
                .await?;
            let mut still = BTreeMap::new();
            for (place, beyond) in fresh.iter().zip(beyond) {
                if let Some(beyond) = beyond.and_then(|span| span.beyond) {
                    still.insert((place.topic.clone(), place.partition), beyond);
                }
            }
            // What was there at first and is explained by now is none; what came later isn't asked.
            suspects.retain(|index| {
                let outcome = &mut outcomes[*index];
                let key = (outcome.place.topic.clone(), outcome.place.partition);
                let first = outcome.beyond.clone().unwrap_or_default();
                let now = still.get(&key).filter(|now| now.start < first.end);
                outcome.beyond = now.map(|now| now.start..first.end);
                now.is_some()
            });
            let is_mapped = suspects
                .iter()
                .any(|index| outcomes[*index].report.offsets == "mapped");
            if !is_mapped || tokio::time::Instant::now() >= deadline {
                break;
            }
        }
        for outcome in &mut outcomes {
            if let Some(beyond) = outcome.beyond.take() {
                let detail = format!(
                    "the target has {} offset(s) from {} on that are no copies",
                    beyond.end - beyond.start,
                    beyond.start
                );
                let place = &outcome.place;
                let mut found = Difference::new(DifferenceKind::AddedAtEnd, detail)
                    .at(&place.topic, place.partition);
                found.target_offset = Some(beyond.start);
                outcome.listed.push(found);
            }
        }
        Ok(outcomes)
    }

    /// The groups' positions; those that aren't where they should be are looked at again after a
    /// pause, since groups move.
    async fn compare_groups(
        &self,
        outcomes: &[Outcome],
    ) -> Result<(GroupsReport, Vec<Difference>), VerifyError> {
        if self.request.flow.groups.include().is_empty() {
            return Ok((GroupsReport::default(), Vec::new()));
        }
        let first = self.look_at_groups(outcomes, None).await?;
        let suspects: BTreeSet<String> = first
            .iter()
            .filter(|(_, judgement)| matches!(judgement, Judgement::Wrong(_)))
            .map(|(position, _)| position.group.clone())
            .collect();
        let Looked {
            found,
            mut not_compared,
        } = first;
        let mut found = found;
        if !suspects.is_empty() {
            tokio::time::sleep(GROUPS_PAUSE).await;
            self.store.refresh().await?;
            let again = self
                .look_at_groups(outcomes, Some(suspects.clone()))
                .await?;
            found.retain(|(position, _)| !suspects.contains(&position.group));
            found.extend(again.found);
            not_compared.extend(again.not_compared);
        }
        let (positions, judgements): (Vec<Position>, Vec<Judgement>) = found.into_iter().unzip();
        Ok(groups::report(&positions, &judgements, not_compared))
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
        let (positions, ends, not_compared) = self
            .in_thread(move |inputs| {
                let ask = groups::Ask {
                    sections: inputs.sections,
                    selected: &selected,
                    known: &followed,
                    places: &asked,
                    cancelled: inputs.cancelled,
                };
                let names = match only {
                    Some(only) => only,
                    None => ask.names()?,
                };
                let (positions, not_compared) = ask.positions(&names)?;
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
                Some((key, (&**place, span.as_ref()?)))
            })
            .collect();
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
                tokio::time::sleep(PAUSE.max(self.request.flow.discovery_interval * 2)).await;
                self.store.refresh().await?;
            }
        }
        waiting.sort_unstable();
        Ok(waiting)
    }

    /// Partitions of copied topics that the source has and of which nothing is copied, now and after
    /// a pause: those that the copier knows of are behind, the others are lacking.
    async fn partitions_not_copied(&self, report: &mut Report) -> Result<(), VerifyError> {
        let mut found = self.uncopied().await?;
        if found.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(PAUSE.max(self.request.flow.discovery_interval * 2)).await;
        self.store.refresh().await?;
        let again = self.uncopied().await?;
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

    /// Partitions of the source without a place, and whether the copier knows of them.
    async fn uncopied(&self) -> Result<BTreeMap<(String, i32), bool>, VerifyError> {
        let counts = self
            .in_thread(|inputs| partitions::source_topics(&inputs))
            .await?;
        let places = self.places()?;
        let copied: BTreeSet<(&str, i32)> = places
            .iter()
            .map(|place| (place.topic.as_str(), place.partition))
            .collect();
        let mut uncopied = BTreeMap::new();
        let flow = &self.request.flow;
        let prefix = keys::topic(&flow.name, "");
        for key in self.store.keys(&prefix) {
            let topic = &key[prefix.len()..];
            let is_selected = self
                .request
                .topics
                .as_ref()
                .is_none_or(|it| it.matches(topic));
            let record = match flow.topics.matches(topic) && is_selected {
                true => self.store.get::<TopicRecord>(&key)?,
                false => None,
            };
            let Some(record) = record else {
                continue;
            };
            let count = counts.get(topic).copied().unwrap_or(0);
            for (index, partition) in (0..count).zip(0_i32..) {
                if !copied.contains(&(topic, partition)) {
                    let is_known = index < record.origins.len();
                    uncopied.insert((topic.to_owned(), partition), is_known);
                }
            }
        }
        Ok(uncopied)
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
    ) -> Result<(Compared, Vec<Difference>), VerifyError> {
        let present = outcomes.iter().filter(|one| one.is_measured());
        let places: Vec<Arc<Place>> = present.map(|one| one.place.clone()).collect();
        let places = &places[..];
        let (compared, found) = self.config_differences(places, source, target);
        if found.is_empty() {
            return Ok((compared, found));
        }
        // The flow may be about to set them.
        tokio::time::sleep(PAUSE.max(self.request.flow.metadata.interval)).await;
        let (source, target) = self.configs(places).await?;
        let (compared, again) = self.config_differences(places, &source, &target);
        let lasting = again
            .into_iter()
            .filter(|difference| found.contains(difference));
        Ok((compared, lasting.collect()))
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
            compared.skipped = Some("configs don't follow in this flow".to_owned());
            return (compared, found);
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
            partitions: Vec::new(),
            groups: GroupsReport::default(),
            configs,
            acls: Compared::default(),
            believed: Vec::new(),
            not_looked_at: Vec::new(),
        };
        report.believed = Self::believed(&outcomes);
        report.not_looked_at = NOT_LOOKED_AT.map(str::to_owned).to_vec();
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
