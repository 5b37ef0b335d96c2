//! A broker that is cut off from the others goes on calling itself the leader, and its metadata names it. Who only
//! ever asks that one never learns of another: so the others are asked now and then. A broker that is cut off loses all
//! that it led with others, so one topic of each broker tells: a small question every few seconds, and one about
//! everything only where that has moved.
//!
//! Whoever learns of a newer leader, by whatever question: nobody waits for the old one from then on. A host that is
//! gone without a word never answers, and its connections look well for as long as a time-out takes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::error::Trouble;
use super::partition::Partition;
use super::shared::Flow;
use crate::tasks::brought;
use crate::wire::{Cluster, Metadata, Rate, TopicPartition, WireError};

/// How often another broker is asked.
const EVERY: Duration = Duration::from_secs(3);
/// How often one is asked about all topics, and the share of what rest may cost.
const ALL_EVERY: Duration = Duration::from_secs(60);
const ALL_PACE: Rate = Rate {
    bytes_per_second: 2_000,
    most: Duration::from_secs(900),
};
/// How long it may take at least to answer: the next one is asked then.
const PATIENCE: Duration = Duration::from_secs(5);
/// So many are asked whether one that takes long leads no more.
const OTHERS_ASKED: usize = 2;
/// What is open is looked at again after this, also if nothing new is known: it may have been opened just then.
const ALL_AGAIN: Duration = Duration::from_secs(10);

/// How often it is looked, where something new is known or answers are waited for. Looking at what is known asks nobody.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A target broker that leads no longer and is there answers what it has within this. What may be carried out twice without
/// harm isn't waited for any longer.
const ANSWERS_WITHIN: Duration = Duration::from_millis(400);

/// Partitions that were closed because another broker of the target leads them, and whose last requests may still be on
/// their way to the one before.
#[derive(Debug, Default)]
pub struct Left {
    list: Mutex<Vec<LeftOne>>,
    /// Tells of one more.
    noted: Notify,
}

#[derive(Debug)]
struct LeftOne {
    partition: Arc<Partition>,
    closed_at: Instant,
    /// Whether it was looked who leads it since the broker fell silent.
    is_looked_at: bool,
}

impl Left {
    /// Notes one that was closed just now.
    pub(super) fn note(&self, partition: Arc<Partition>) {
        let is_looked_at = partition.meter.silent_for().is_some();
        self.list().push(LeftOne {
            partition,
            closed_at: Instant::now(),
            is_looked_at,
        });
        self.noted.notify_one();
    }

    /// Notes that it was looked who leads what this silent broker has led.
    pub(super) fn note_looked(&self, broker: i32) {
        for one in self.list().iter_mut() {
            one.is_looked_at |= one.partition.target_leader.0 == broker;
        }
    }

    /// Gives up the answers that nobody needs to wait for.
    fn give_up(&self, target: &Metadata) {
        self.list().retain(|one| {
            let partition = &one.partition;
            if partition.unanswered() == 0 {
                return false;
            }
            let silent = partition.meter.silent_for();
            let what = OnTheWay {
                is_led_elsewhere: is_led_elsewhere(
                    target,
                    &partition.target,
                    partition.target_leader,
                ),
                has_fillers: partition.fillers_end().is_some(),
                is_silent: silent.is_some() && one.is_looked_at,
            };
            let is_waited_for = what.is_waited_for(one.closed_at.elapsed());
            if !is_waited_for {
                partition.note_left_behind(partition.target_leader.0, silent.unwrap_or_default());
                partition.abandon();
            }
            is_waited_for
        });
    }

    fn is_empty(&self) -> bool {
        self.list().is_empty()
    }

    fn list(&self) -> MutexGuard<'_, Vec<LeftOne>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a partition has on the way to a broker that doesn't lead it any more.
///
/// A batch that is carried out after all is known by its sequence. A filler isn't: if that broker leads again before it works
/// on it, it may stand in the log twice. So fillers are waited for as long as the broker shows that it is there.
#[derive(Clone, Copy, Debug)]
struct OnTheWay {
    /// Another one leads, in a newer epoch, as far as is known now.
    is_led_elsewhere: bool,
    has_fillers: bool,
    /// Nothing has moved on the way to the broker for seconds.
    is_silent: bool,
}

impl OnTheWay {
    fn is_waited_for(self, closed_for: Duration) -> bool {
        let is_over = closed_for >= ANSWERS_WITHIN && !self.has_fillers;
        !self.is_led_elsewhere || !(self.is_silent || is_over)
    }
}

/// Closes partitions whose leader isn't the one that they were opened at, as soon as that is known, until cancelled: they
/// are opened anew at the newer one.
pub(super) async fn leave(flow: Arc<Flow>, cancel: CancellationToken) {
    let mut seen = (flow.source.cached(), flow.target.cached());
    let (mut looked_at, mut changes) = (Instant::now(), None);
    while cancel
        .run_until_cancelled(something_new(&flow, &seen))
        .await
        .is_some()
    {
        let now = (flow.source.cached(), flow.target.cached());
        flow.left.give_up(&now.1);
        let is_known = Arc::ptr_eq(&seen.0, &now.0) && Arc::ptr_eq(&seen.1, &now.1);
        let changes_now = Some(flow.progress.changes.count());
        // Whoever was opened since is a change.
        if is_known && (looked_at.elapsed() < ALL_AGAIN || changes == changes_now) {
            continue;
        }
        (looked_at, changes) = (Instant::now(), changes_now);
        leave_old_leaders(&flow);
        seen = now;
    }
}

/// Until there is reason to look, [`LOOK_EVERY`] at least: many at once are one look.
async fn something_new(flow: &Flow, (source, target): &(Arc<Metadata>, Arc<Metadata>)) {
    let began = Instant::now();
    if flow.left.is_empty() {
        tokio::select! {
            () = flow.source.learns(source) => {}
            () = flow.target.learns(target) => {}
            () = flow.left.noted.notified() => {}
            () = tokio::time::sleep(ALL_AGAIN) => {}
        }
    }
    tokio::time::sleep_until(began + LOOK_EVERY).await;
}

/// Whether a broker leads the partition that isn't this one, in a newer epoch.
pub(super) fn is_led_elsewhere(
    known: &Metadata,
    at: &TopicPartition,
    (broker, epoch): (i32, i32),
) -> bool {
    let newest = known.leader(&at.topic, at.partition);
    newest.is_some_and(|(leader, newer)| leader != broker && newer > epoch)
}

/// Asks until cancelled. What comes of it is [`leave`]'s.
pub(super) async fn watch(flow: Arc<Flow>, cancel: CancellationToken) {
    let all = async {
        tokio::join!(
            flow.source
                .ask_others(flow.source.describes_within(PATIENCE)),
            flow.target
                .ask_others(flow.target.describes_within(PATIENCE))
        )
    };
    if cancel.run_until_cancelled(all).await.is_none() {
        return;
    }
    let mut source = Others::new(&flow.source);
    let mut target = Others::new(&flow.target);
    while cancel
        .run_until_cancelled(tokio::time::sleep(EVERY))
        .await
        .is_some()
    {
        let asked = async { tokio::join!(source.ask(), target.ask()) };
        if cancel.run_until_cancelled(asked).await.is_none() {
            return;
        }
    }
}

/// Why a broker wasn't heard.
#[derive(Debug, thiserror::Error)]
enum Unheard {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("no answer in time")]
    Late(#[from] Elapsed),
}

/// The brokers of a cluster, asked in turn.
struct Others<'a> {
    cluster: &'a Cluster,
    turn: usize,
    all_at: Instant,
    /// The topics that are asked about, and what was known when they were chosen.
    sample: (Arc<Metadata>, Vec<String>),
}

impl<'a> Others<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        let known = cluster.cached();
        let names = sampled(&known);
        Self {
            cluster,
            turn: 0,
            all_at: Instant::now(),
            sample: (known, names),
        }
    }

    async fn ask(&mut self) {
        let known = self.cluster.cached();
        if !Arc::ptr_eq(&self.sample.0, &known) {
            self.sample = (known.clone(), sampled(&known));
        }
        self.turn = self.turn.wrapping_add(1);
        let mut brokers: Vec<i32> = known.brokers.keys().copied().collect();
        brokers.sort_unstable();
        let Some(broker) = (brokers.len() > 1).then(|| brokers[self.turn % brokers.len()]) else {
            return;
        };
        let all_every = ALL_PACE.every(self.cluster.metadata_bytes()).max(ALL_EVERY);
        let is_all = self.sample.1.is_empty() || self.all_at.elapsed() >= all_every;
        let asked = async {
            let within = self.cluster.or_longer(PATIENCE);
            let asked = self.cluster.metadata_at(broker, &self.sample.1);
            let now = timeout(within, asked).await??;
            Ok::<_, Unheard>(has_moved(&known, &now, &self.sample.1))
        };
        let asks_all = match is_all {
            true => Ok(true),
            false => asked.await,
        };
        let heard = match asks_all {
            Ok(true) => self.ask_another().await,
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = heard {
            tracing::debug!(
                cluster = self.cluster.name(),
                "another broker doesn't say who leads: {error}"
            );
        }
        if is_all {
            self.all_at = Instant::now();
        }
    }

    /// A description of all topics needs what it needed the last time.
    async fn ask_another(&self) -> Result<(), Unheard> {
        let within = self.cluster.describes_within(PATIENCE);
        Ok(timeout(within, self.cluster.ask_another()).await??)
    }
}

/// Asks others about a topic that this broker has led. One that knows another one to lead it by now, if any does: it is
/// worth asking about all topics. A broker takes long for many reasons, and a description of all topics is large.
pub(super) async fn look_beside(cluster: &Cluster, broker: i32) -> Option<i32> {
    let known = cluster.cached();
    let topic = sample(&known).remove(&broker)?;
    // Openings, and whoever looks for topics, needn't wait for one that may be gone.
    cluster.ask_last(broker);
    let topics = [topic.to_owned()];
    let within = cluster.answers_within();
    let others = cluster.best_first();
    let mut others = others.into_iter().filter(|other| *other != broker);
    let mut asking = JoinSet::new();
    let mut is_short = OTHERS_ASKED;
    loop {
        // For each that says nothing another one is asked: where one broker is gone others may be.
        for other in others.by_ref().take(is_short) {
            let (cluster, topics) = (cluster.clone(), topics.clone());
            asking.spawn(async move {
                let asked = timeout(within, cluster.metadata_at(other, &topics));
                (other, asked.await.ok().and_then(Result::ok))
            });
        }
        is_short = 0;
        match brought(asking.join_next().await?) {
            (other, Some(now)) if has_moved(&known, &now, &topics) => return Some(other),
            (_, Some(_)) => {}
            (other, None) => {
                cluster.ask_last(other);
                is_short = 1;
            }
        }
    }
}

/// The topics of [`sample`].
fn sampled(known: &Metadata) -> Vec<String> {
    let names: BTreeSet<&str> = sample(known).into_values().collect();
    names.into_iter().map(str::to_owned).collect()
}

/// For each broker the smallest topic of which it leads a partition that others could lead. Rather one that another one is
/// in sync with: else nobody is elected when the leader goes.
fn sample(known: &Metadata) -> BTreeMap<i32, &str> {
    let mut of_broker: BTreeMap<i32, ((bool, usize), &str)> = BTreeMap::new();
    for (name, topic) in known.topics.iter().filter(|(_, it)| it.error.is_none()) {
        let count = topic.partitions.len();
        for partition in &topic.partitions {
            if partition.leader < 0 || partition.replicas.len() < 2 {
                continue;
            }
            let rank = (partition.in_sync.len() < 2, count);
            let best = of_broker.entry(partition.leader).or_insert((rank, name));
            if rank < best.0 {
                *best = (rank, name);
            }
        }
    }
    let names = of_broker.into_iter();
    names.map(|(broker, (_, name))| (broker, name)).collect()
}

/// Whether a partition of these topics has a newer leader than it had.
fn has_moved(before: &Metadata, now: &Metadata, topics: &[String]) -> bool {
    topics.iter().any(|name| {
        let partitions = before.topics.get(name).map(|topic| &topic.partitions);
        partitions.into_iter().flatten().any(|partition| {
            let at = TopicPartition::new(name.clone(), partition.index);
            is_led_elsewhere(now, &at, (partition.leader, partition.leader_epoch))
        })
    })
}

/// A broker that isn't cut off says itself that it leads no longer; one that is, or is gone, says nothing.
fn leave_old_leaders(flow: &Flow) {
    let (source, target) = (flow.source.cached(), flow.target.cached());
    let is_old_source = |partition: &Partition| {
        let at = &partition.source;
        let newest = source.leader(&at.topic, at.partition);
        newest.is_some_and(|(_, epoch)| partition.epochs.is_led_elsewhere(epoch))
    };
    let open: Vec<Arc<Partition>> = flow.open.iter().map(|it| it.value().clone()).collect();
    for partition in open {
        if is_led_elsewhere(&target, &partition.target, partition.target_leader) {
            let cluster = format!("target ({})", flow.target.name());
            partition.fail(Trouble::LeaderMoved { cluster });
            flow.left.note(partition);
        } else if is_old_source(&partition) {
            let cluster = format!("source ({})", flow.source.name());
            partition.fail(Trouble::LeaderMoved { cluster });
        }
    }
}

#[cfg(test)]
mod tests {
    use fake_kafka::state::Options;
    use fake_kafka::tcp::Server;
    use fake_kafka::topics::NewTopic;

    use super::*;
    use crate::wire::ClusterConfig;
    use crate::wire::{PartitionMetadata, TopicMetadata};

    #[test]
    fn what_another_one_could_lead_tells_whether_it_does() {
        let partition = |in_sync: &[i32]| PartitionMetadata {
            index: 0,
            leader: 1,
            leader_epoch: 3,
            replicas: vec![1, 2],
            in_sync: in_sync.to_vec(),
            offline: Vec::new(),
            error: None,
        };
        let topic = |partitions: Vec<PartitionMetadata>| TopicMetadata {
            topic_id: uuid::Uuid::nil(),
            internal: false,
            error: None,
            partitions,
        };
        let mut known = Metadata {
            cluster_id: None,
            controller_id: -1,
            brokers: std::collections::HashMap::new(),
            topics: BTreeMap::new(),
            absent: BTreeMap::new(),
        };
        let alone = topic(vec![partition(&[1])]);
        known.topics.insert("alone".to_owned(), alone);
        assert_eq!(sample(&known), [(1, "alone")].into());
        let both = topic(vec![partition(&[1, 2]), partition(&[1, 2])]);
        known.topics.insert("both".to_owned(), both);
        assert_eq!(sample(&known), [(1, "both")].into(), "larger, and told");
    }

    #[tokio::test]
    async fn where_others_are_gone_too_the_next_ones_are_asked() {
        let fake = fake_kafka::Cluster::new(Options {
            brokers: 5,
            ..Options::default()
        });
        let server = Server::start(&fake);
        let new = NewTopic {
            partitions: 1,
            replication: 5,
            ..NewTopic::default()
        };
        let made = fake.control(|state| state.create_topic("t", &new));
        made.expect("it can be made");
        let bootstrap = server.bootstrap();
        let bootstrap = bootstrap.split(',').map(str::to_owned).collect();
        let cluster = Cluster::new(ClusterConfig::new("target", bootstrap));
        let known = cluster.metadata(None).await.expect("an answer");
        let (leader, _) = known.leader("t", 0).expect("it is led");
        let others = (1..=5).filter(|id| *id != leader).take(2);
        fake.control(|state| {
            others
                .chain([leader])
                .for_each(|id| state.freeze_broker(id));
            state.fence_broker(leader);
        });
        let looked = timeout(Duration::from_secs(20), look_beside(&cluster, leader)).await;
        let found = looked.expect("those that say nothing aren't waited for");
        assert!(found.is_some_and(|it| it != leader), "{found:?}");
    }

    #[test]
    fn fillers_are_waited_for_as_long_as_the_broker_is_there() {
        let (soon, late) = (Duration::from_millis(399), Duration::from_secs(20));
        let batches = OnTheWay {
            is_led_elsewhere: true,
            has_fillers: false,
            is_silent: false,
        };
        assert!(batches.is_waited_for(soon));
        assert!(!batches.is_waited_for(ANSWERS_WITHIN));
        let fillers = OnTheWay {
            has_fillers: true,
            ..batches
        };
        assert!(fillers.is_waited_for(late), "it answers others");
        let silent = OnTheWay {
            is_silent: true,
            ..fillers
        };
        assert!(!silent.is_waited_for(soon), "it is gone");
        let leads_again = OnTheWay {
            is_led_elsewhere: false,
            ..silent
        };
        assert!(leads_again.is_waited_for(late), "it may do it yet");
    }
}
