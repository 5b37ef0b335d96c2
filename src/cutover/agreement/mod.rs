//! Up to where an old primary still has what was copied from it.
//!
//! A primary that lost its power comes back with less than was copied (Kafka doesn't wait for the
//! disk), and takes other records in the place of what it lost. How long its log is says nothing
//! then. So the log is looked at:
//!
//! ```text
//! old primary:  ... the same | strangers ............... > its log's end
//! new primary:  ... the same | copied, lost over there | padding | new records
//!                       agreed                       fork
//! ```
//!
//! 1. By epochs: a new leader appends in an epoch of its own (KIP-101), so the epoch of what was
//!    copied last ends before the fork where a tail was lost (`LeaderEpochFileCache.endOffsetFor`).
//! 2. By records: what stands right before that has to be the same on both sides, and from there on
//!    both agree up to the first difference. A cluster that was set back as a whole may use the
//!    same epochs again, and an epoch that was seen half a minute ago says nothing of what came after it.
//!
//! Where they part before the recorded fork, the fork is where they part.

mod compare;
mod learned;
mod log;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use self::compare::{Compared, Rules, compare};
use self::learned::Learned;
use self::log::Log;
use super::error::CutoverError;
use super::hidden::hidden;
use super::pairs::Offsets;
use crate::offsets::{OffsetMap, SourceOffset, TargetOffset, Translation};
use crate::state::keys::{self, MapKeys};
use crate::state::{Fork, ForkRecord, StateStore, TopicRecord, maps};
use crate::wire::{self, Cluster, OffsetSpec, TopicPartition};

/// How long a broker that doesn't answer is waited for.
const PATIENCE: Duration = Duration::from_secs(8);
/// Partitions that are looked at together.
const AT_ONCE: usize = 32;
/// Each look back for a record that both have is so many times further than the one before.
const FURTHER: i64 = 16;

/// The forks as the logs are now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Agreed {
    /// By topic, as on the old primary.
    pub forks: BTreeMap<String, ForkRecord>,
    /// Copied offsets that the old primary has lost, where there are any.
    pub lost: BTreeMap<TopicPartition, i64>,
    /// Partitions, as on the old primary, that can't be looked at now, and why. Their forks are as recorded.
    pub unseen: BTreeMap<TopicPartition, String>,
    /// Maps that were stored before the last of the copy was, up to the forks. By the old primary's partitions.
    pub learned: BTreeMap<TopicPartition, OffsetMap>,
}

impl Agreed {
    /// Where a partition parts.
    fn set(&mut self, at: &TopicPartition, parts: Fork) {
        let forks = self.forks.get_mut(&at.topic);
        let number = usize::try_from(at.partition).unwrap_or(usize::MAX);
        if let Some(fork) = forks.and_then(|it| it.partitions.get_mut(number)) {
            *fork = parts;
        }
    }

    /// The maps of a topic that were completed, by partition.
    pub fn learned_of(&self, topic: &str) -> BTreeMap<i32, OffsetMap> {
        let learned = self.learned.iter().filter(|(at, _)| at.topic == topic);
        learned
            .map(|(at, map)| (at.partition, map.clone()))
            .collect()
    }

    /// What the old primary has lost of a topic, by partition.
    pub fn lost_of(&self, topic: &str) -> BTreeMap<i32, i64> {
        let lost = self.lost.iter().filter(|(at, _)| at.topic == topic);
        lost.map(|(at, lost)| (at.partition, *lost)).collect()
    }
}

/// A partition that is looked at.
struct Job {
    at: TopicPartition,
    copy: TopicPartition,
    fork: Fork,
    map: Option<OffsetMap>,
    /// What one side alone has, by the source's offsets and by the copy's.
    only_old: Vec<(i64, i64)>,
    only_new: Vec<(i64, i64)>,
    /// Both have had something from here on.
    start: i64,
    /// Neither reaches further.
    end: i64,
    /// Up to here epochs say that nothing was lost.
    by_epochs: i64,
}

/// Looks how far each partition of these topics is the same on both clusters. `store` is the state
/// of `flow`, which copied from `old` to `new`. Topics that one of them doesn't have any more, or
/// has made again, stay as they are. A partition that can't be asked or read stops nobody else.
///
/// # Errors
/// When the state can't be read, or a cluster that was asked for topics by their names doesn't answer.
pub(crate) async fn look(
    (old, new): (&Cluster, &Cluster),
    store: &StateStore,
    flow: &str,
    forks: &BTreeMap<String, ForkRecord>,
) -> Result<Agreed, CutoverError> {
    // What a list of all topics leaves out isn't gone.
    tokio::try_join!(
        old.describe_unlisted(forks.keys()),
        new.describe_unlisted(forks.values().map(|fork| &fork.target_topic)),
    )?;
    let mut agreed = Agreed {
        forks: forks.clone(),
        unseen: hidden_from_us((old, new), forks),
        ..Agreed::default()
    };
    let jobs = jobs((old, new), store, flow, forks)?;
    let jobs = learn((old, new), jobs, &mut agreed).await?;
    let (jobs, unseen) = measure(old, new, jobs).await;
    agreed.unseen.extend(unseen);
    let looks = jobs.into_iter().map(|job| {
        let (old, new) = (old.clone(), new.clone());
        async move {
            let agreed = agreed_end(&old, &new, &job).await;
            (job, agreed)
        }
    });
    for (job, end) in side_by_side(looks).await? {
        let end = match end {
            Ok(end) => end,
            Err(error) => {
                agreed.unseen.insert(job.at, error.message);
                continue;
            }
        };
        if end < job.fork.source_end {
            agreed.set(&job.at, moved(&job, end));
            let lost = job.fork.source_end - end;
            *agreed.lost.entry(job.at).or_default() += lost;
        }
    }
    Ok(agreed)
}

/// What all of these looks find, [`AT_ONCE`] of them at a time.
///
/// # Errors
/// When one of them panics.
async fn side_by_side<T: Send + 'static>(
    all: impl Iterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Result<Vec<T>, CutoverError> {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut looks = JoinSet::new();
    for look in all {
        let room = room.clone();
        looks.spawn(async move {
            let _permit = room.acquire().await;
            look.await
        });
    }
    let mut found = Vec::with_capacity(looks.len());
    while let Some(looked) = looks.join_next().await {
        found.push(looked.map_err(|error| CutoverError::failed(error.to_string()))?);
    }
    Ok(found)
}

/// Completes the maps that don't reach their forks, and moves the forks on the old primary to where the copy ends there. The
/// partitions that can be looked at.
async fn learn(
    (old, new): (&Cluster, &Cluster),
    jobs: Vec<Job>,
    agreed: &mut Agreed,
) -> Result<Vec<Job>, CutoverError> {
    let (short, mut jobs): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(learned::is_short);
    let looks = short.into_iter().map(|job| {
        let (old, new) = (old.clone(), new.clone());
        async move {
            let learned = match &job.map {
                Some(map) => learned::complete(&old, &new, &job, map).await.map(Some),
                None => Ok(None),
            };
            (job, learned)
        }
    });
    for (mut job, learned) in side_by_side(looks).await? {
        match learned {
            Ok(Some(learned)) => {
                job.learn(&learned);
                agreed.set(&job.at, job.fork.clone());
                if learned.lost > 0 {
                    agreed.lost.insert(job.at.clone(), learned.lost);
                }
                agreed.learned.insert(job.at.clone(), learned.map);
                jobs.push(job);
            }
            Ok(None) => jobs.push(job),
            Err(error) => {
                agreed.unseen.insert(job.at, error.message);
            }
        }
    }
    Ok(jobs)
}

/// The fork where the logs part: what the copy has behind it is copied back as what is new there.
fn moved(job: &Job, end: i64) -> Fork {
    let there = there(job.map.as_ref(), end);
    Fork {
        source_end: end,
        target_end: there,
        padded_end: there,
        ..job.fork.clone()
    }
}

/// Where a source offset is on the target.
fn there(map: Option<&OffsetMap>, offset: i64) -> i64 {
    let Some(map) = map else {
        return offset;
    };
    match map.translate(SourceOffset(offset)) {
        Translation::Exact(offset) => offset.0,
        Translation::BeforeStart { first } => there(Some(map), first.0),
        Translation::NotYetCopied { .. } => map.target_end().0,
    }
}

/// The partitions of topics that one of the clusters doesn't describe to us, and why.
fn hidden_from_us(
    (old, new): (&Cluster, &Cluster),
    forks: &BTreeMap<String, ForkRecord>,
) -> Unseen {
    let (on_old, on_new) = (old.cached(), new.cached());
    let mut unseen = Unseen::new();
    for (topic, fork) in forks {
        let sides = [(&on_old, topic, old), (&on_new, &fork.target_topic, new)];
        let mut why = sides.into_iter().filter_map(|(known, name, cluster)| {
            let code = known.described(name).err()?;
            Some(format!("{name} on {}: {code}", cluster.name()))
        });
        let Some(why) = why.next() else {
            continue;
        };
        let of_topic = (0..).zip(&fork.partitions);
        let at = |(number, _)| (TopicPartition::new(&**topic, number), why.clone());
        unseen.extend(of_topic.map(at));
    }
    unseen
}

fn jobs(
    (old, new): (&Cluster, &Cluster),
    store: &StateStore,
    flow: &str,
    forks: &BTreeMap<String, ForkRecord>,
) -> Result<Vec<Job>, CutoverError> {
    let (on_old, on_new) = (old.cached(), new.cached());
    let mut jobs = Vec::new();
    for (topic, fork) in forks {
        let Some(record) = store.get::<TopicRecord>(&keys::topic(flow, topic))? else {
            continue;
        };
        let (Ok(Some(source)), Ok(Some(target))) = (
            on_old.described(topic),
            on_new.described(&fork.target_topic),
        ) else {
            continue;
        };
        if wire::is_other_topic(record.source_topic_id, source.topic_id)
            || wire::is_other_topic(record.target_topic_id, target.topic_id)
        {
            continue;
        }
        for (number, at_fork) in (0..).zip(&fork.partitions) {
            // Of a copy with other offsets the fork may name less than there is.
            let has_copies =
                at_fork.source_end > 0 || (record.is_mapped(number) && at_fork.target_end > 0);
            let Some(origin) = record.origin(number).filter(|_| has_copies) else {
                continue;
            };
            let keys = MapKeys::new(flow, topic, number);
            let map = match record.is_mapped(number) {
                true => maps::load(store, &keys)?,
                false => None,
            };
            if record.is_mapped(number) && map.is_none() {
                // Whoever needs it says that it is missing.
                continue;
            }
            let before = record.continued.as_ref();
            let mut only_new = before.map_or_else(Vec::new, |it| it.only_on_target(number).into());
            only_new.extend(record.foreign(number));
            jobs.push(Job {
                at: TopicPartition::new(&**topic, number),
                copy: TopicPartition::new(&*fork.target_topic, number),
                start: map.as_ref().map_or(origin, |map| map.source_start().0),
                end: at_fork.source_end,
                by_epochs: at_fork.source_end,
                fork: at_fork.clone(),
                map,
                only_old: before.map_or_else(Vec::new, |it| it.only_on_source(number).into()),
                only_new,
            });
        }
    }
    Ok(jobs)
}

/// Partitions that can't be looked at, and why.
type Unseen = BTreeMap<TopicPartition, String>;

/// Where the logs begin and end, and what epochs say.
async fn measure(old: &Cluster, new: &Cluster, jobs: Vec<Job>) -> (Vec<Job>, Unseen) {
    let on_old: Vec<TopicPartition> = jobs.iter().map(|job| job.at.clone()).collect();
    let on_new: Vec<TopicPartition> = jobs.iter().map(|job| job.copy.clone()).collect();
    let epochs: Vec<(TopicPartition, i32)> = jobs
        .iter()
        .filter(|job| job.fork.source_epoch >= 0)
        .map(|job| (job.at.clone(), job.fork.source_epoch))
        .collect();
    let (old_starts, old_ends, new_starts, new_ends, epoch_ends) = tokio::join!(
        wire::list_offsets_within(old, &on_old, OffsetSpec::Earliest, PATIENCE),
        wire::list_offsets_within(old, &on_old, OffsetSpec::Latest, PATIENCE),
        wire::list_offsets_within(new, &on_new, OffsetSpec::Earliest, PATIENCE),
        wire::list_offsets_within(new, &on_new, OffsetSpec::Latest, PATIENCE),
        wire::offset_for_leader_epoch_within(old, &epochs, PATIENCE),
    );
    let asked = |job: &Job| {
        let epoch_end = match job.fork.source_epoch >= 0 {
            true => Some(known(&epoch_ends, &job.at, old)?.1),
            false => None,
        };
        Ok::<_, String>(Measured {
            old_start: known(&old_starts, &job.at, old)?,
            old_end: known(&old_ends, &job.at, old)?,
            new_start: known(&new_starts, &job.copy, new)?,
            new_end: known(&new_ends, &job.copy, new)?,
            epoch_end,
        })
    };
    let (mut measured, mut unseen, mut short) = (Vec::new(), Unseen::new(), Offsets::new());
    for mut job in jobs {
        match asked(&job) {
            Ok(found) => {
                if found.new_end < job.fork.target_end {
                    short.insert(job.copy.clone(), found.new_end);
                }
                job.take(&found);
                measured.push(job);
            }
            Err(why) => {
                unseen.insert(job.at, why);
            }
        }
    }
    let hidden = hidden(new, &short).await;
    measured.retain(|job| {
        let why = match &hidden {
            Ok(hidden) if !hidden.contains(&job.copy) => None,
            Ok(_) => Some(format!(
                "replicas on {} lag behind their leader: what they don't have yet can't be compared",
                new.name()
            )),
            Err(error) => short.contains_key(&job.copy).then(|| error.message.clone()),
        };
        let is_seen = why.is_none();
        unseen.extend(why.map(|why| (job.at.clone(), why)));
        is_seen
    });
    (measured, unseen)
}

/// What both leaders say of a partition.
struct Measured {
    old_start: i64,
    old_end: i64,
    new_start: i64,
    new_end: i64,
    /// Where the epoch ends on the old primary that was copied last, where one is known.
    epoch_end: Option<i64>,
}

impl Job {
    /// Its map reaches as far as both sides have the same.
    fn learn(&mut self, learned: &Learned) {
        self.fork.source_end = learned.map.source_end().0;
        if learned.lost > 0 {
            // What the old primary has lost of it is copied back as what is new.
            self.fork.target_end = learned.map.target_end().0;
            self.fork.padded_end = self.fork.target_end;
        }
        self.end = self.fork.source_end;
        self.by_epochs = self.fork.source_end;
        self.map = Some(learned.map.clone());
    }

    fn take(&mut self, found: &Measured) {
        let (map, fork) = (self.map.as_ref(), &self.fork);
        self.start =
            self.start
                .max(found.old_start)
                .max(on_source(map, found.new_start, fork.source_end));
        self.end = self.end.min(found.old_end);
        if found.new_end < fork.target_end {
            self.end = self.end.min(on_source(map, found.new_end, fork.source_end));
        }
        self.by_epochs = match found.epoch_end {
            Some(end) => by_epochs(fork, end).min(self.end),
            None => self.end,
        };
    }
}

/// Up to where an epoch that ends at `end` on the old primary says that nothing was lost. What was
/// copied behind what the epoch is known of may be of a later one.
fn by_epochs(fork: &Fork, end: i64) -> i64 {
    let known_to = fork.source_epoch_to.min(fork.source_end);
    match (0..known_to).contains(&end) {
        true => end,
        false => fork.source_end,
    }
}

fn on_source(map: Option<&OffsetMap>, target: i64, source_end: i64) -> i64 {
    let Some(map) = map else {
        return target.min(source_end);
    };
    match map.reverse(TargetOffset(target)) {
        Translation::Exact(offset) => offset.0,
        Translation::BeforeStart { .. } => map.source_start().0,
        Translation::NotYetCopied { .. } => source_end,
    }
}

fn known<T: Copy>(
    answers: &HashMap<TopicPartition, Result<T, wire::WireError>>,
    at: &TopicPartition,
    cluster: &Cluster,
) -> Result<T, String> {
    let why = match answers.get(at) {
        Some(Ok(answer)) => return Ok(*answer),
        Some(Err(error)) => error.to_string(),
        None => "no answer".to_owned(),
    };
    Err(format!("{at} on {}: {why}", cluster.name()))
}

/// Where both logs part; the recorded fork where they don't before it.
async fn agreed_end(old: &Cluster, new: &Cluster, job: &Job) -> Result<i64, CutoverError> {
    let mut back = 1;
    let anchor = job.by_epochs;
    loop {
        let from = anchor.saturating_sub(back).max(job.start);
        let found = range(old, new, job, from, anchor).await?;
        if let Some(differs_at) = found.differs_at
            && (found.same > 0 || from <= job.start)
        {
            return Ok(differs_at);
        }
        if found.same > 0 || from <= job.start {
            break;
        }
        back = back.saturating_mul(FURTHER);
    }
    let rest = range(old, new, job, anchor.max(job.start), job.end).await?;
    Ok(match rest.differs_at {
        Some(differs_at) => differs_at,
        // Nothing is left that could be compared, and an epoch that ended early is certain.
        None if rest.same == 0 => job.by_epochs,
        None => job.end,
    })
}

/// Compares a range of both logs, up to the first difference.
async fn range(
    old: &Cluster,
    new: &Cluster,
    job: &Job,
    from: i64,
    to: i64,
) -> Result<Compared, CutoverError> {
    let map = job.map.as_ref();
    let within = |ranges: &[(i64, i64)], offset: i64| {
        ranges
            .iter()
            .any(|(from, to)| (*from..*to).contains(&offset))
    };
    let rules = Rules {
        is_excused: &|offset| {
            within(&job.only_old, offset) || within(&job.only_new, there(map, offset))
        },
        is_mapped: &|offset| map.map(|it| there(Some(it), offset + 1) > there(Some(it), offset)),
    };
    let (old_log, new_log) = (
        Log {
            cluster: old,
            at: &job.at,
            map: None,
        },
        Log {
            cluster: new,
            at: &job.copy,
            map,
        },
    );
    let mut next = from;
    let mut found = Compared::default();
    while next < to {
        let (old_piece, new_piece) =
            tokio::try_join!(old_log.read(next, to), new_log.read(next, to))?;
        let until = old_piece.to.min(new_piece.to).min(to);
        let compared = compare(&old_piece, &new_piece, next..until, &rules);
        found.same += compared.same;
        if compared.differs_at.is_some() {
            found.differs_at = compared.differs_at;
            break;
        }
        next = until;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_tells_only_of_what_it_is_known_of() {
        let fork = |source_epoch_to| Fork {
            source_end: 1_000,
            source_epoch: 5,
            source_epoch_to,
            target_end: 1_000,
            padded_end: 1_100,
            observed_end: 1_000,
        };
        assert_eq!(by_epochs(&fork(1_000), 950), 950, "its end was cut off");
        assert_eq!(by_epochs(&fork(1_000), 1_200), 1_000);
        // A later epoch may have begun at 960.
        assert_eq!(by_epochs(&fork(960), 960), 1_000);
        assert_eq!(by_epochs(&fork(960), 950), 950);
        // The broker knows no epoch that old.
        assert_eq!(by_epochs(&fork(1_000), -1), 1_000);
        // Nothing is known of the epoch, as in the forks of an older Twinlog.
        assert_eq!(by_epochs(&fork(-1), 950), 1_000);
    }
}
