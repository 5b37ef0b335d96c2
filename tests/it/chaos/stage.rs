//! The clusters, the lines between them and Twinlog, and how an action is done and undone.

use std::time::{Duration, Instant};

use kafka_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, BrokerId, ElectLeadersRequest, TopicName,
};
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::actions::{Action, NODES, Resource, Side};
use super::journal::Journal;
use super::topics::{MAPPED, SHORTENED, TOPICS, Topic};
use crate::support::admin::{client, watermarks};
use crate::support::operator::{call, text};
use crate::support::proxy::Proxy;
use crate::support::topic_configs::{Change, alter};
use crate::support::{
    Cluster, ClusterOptions, KafkaVersion, Twinlog, create_topic, delete_records, eventually,
};

/// How long after its newest record the target forgets a producer that is silent.
const FORGETS_PRODUCERS_MS: u32 = 30_000;
/// Too small for any batch of ours.
const TOO_SMALL_BYTES: &str = "60";
/// How long a Twinlog that was superseded may take to notice.
const NOTICES: Duration = Duration::from_secs(5);
/// How long Twinlog may take to end when it is asked to, whatever hangs.
const ENDS: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// Everything that runs. Dropping it ends all of it; a killed test process takes it along.
#[derive(Debug)]
pub struct Stage {
    // Dropped first: it copies the logs.
    pub journal: Journal,
    twinlogs: [Twinlog; 2],
    /// Which of the two runs while nothing happens to it.
    active: usize,
    source_lines: Vec<Proxy>,
    target_lines: Vec<Proxy>,
    source: Cluster,
    target: Cluster,
    lasting: Vec<Lasting>,
}

/// An action that has to be undone.
#[derive(Debug)]
struct Lasting {
    until: Instant,
    action: Action,
}

impl Stage {
    /// Starts the clusters, makes the topics and starts Twinlog.
    pub fn start(seed: u64) -> Self {
        let options = |name: &str| {
            ClusterOptions {
                nodes: NODES,
                proxied: true,
                ..ClusterOptions::named(name)
            }
            .with("min.insync.replicas", 2)
        };
        let target_options = options("target")
            .with("producer.id.expiration.ms", FORGETS_PRODUCERS_MS)
            .with("producer.id.expiration.check.interval.ms", 2_000);
        let mut source = Cluster::launch(KafkaVersion::V4_3, options("source"));
        let mut target = Cluster::launch(KafkaVersion::V4_3, target_options);
        source.await_ready();
        target.await_ready();
        for Topic {
            name,
            partitions,
            configs,
            ..
        } in TOPICS
        {
            create_topic(&source.bootstrap(), name, partitions, configs);
        }
        let config = config(&source.proxied_bootstrap(), &target.proxied_bootstrap());
        let mut twinlogs = [Twinlog::prepare(&config), Twinlog::prepare(&config)];
        let mut journal = Journal::new(seed);
        for (name, cluster) in [("source", &source), ("target", &target)] {
            for node in 1..=NODES {
                journal.knows_log(&format!("{name}-{node}.log"), &cluster.log(node));
            }
        }
        for (number, twinlog) in twinlogs.iter().enumerate() {
            let log = twinlog.config_file().with_file_name("twinlog.log");
            journal.knows_log(&format!("twinlog-{number}.log"), &log);
        }
        let (source_lines, target_lines) = (lines(&source), lines(&target));
        twinlogs[0].launch();
        Self {
            journal,
            twinlogs,
            active: 0,
            source_lines,
            target_lines,
            source,
            target,
            lasting: Vec::new(),
        }
    }

    /// Where clients find the source; no action on a line concerns them.
    pub fn source(&self) -> String {
        self.source.bootstrap()
    }

    /// Where clients find the target.
    pub fn target(&self) -> String {
        self.target.bootstrap()
    }

    /// The Twinlog that runs while nothing happens.
    pub fn twinlog(&self) -> &Twinlog {
        &self.twinlogs[self.active]
    }

    /// Both logs.
    pub fn twinlog_logs(&self) -> [String; 2] {
        [self.twinlogs[0].log(), self.twinlogs[1].log()]
    }

    /// Lets time pass, and undoes what is due.
    pub fn pass(&mut self, time: Duration) {
        let until = Instant::now() + time;
        loop {
            self.undo_due();
            self.assert_twinlog_runs();
            if Instant::now() >= until {
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Does an action, after what it can't go with has been undone.
    pub fn act(&mut self, action: Action) {
        while self.is_busy(action.resource()) {
            self.pass(PAUSE);
        }
        for side in needs_whole(action) {
            while self.is_busy(Resource::Brokers(*side)) {
                self.pass(PAUSE);
            }
            self.cluster(*side).await_ready();
        }
        self.journal.say(&action.to_string());
        self.journal.count(action.kind());
        self.begin(action);
        if action.lasts_ms() > 0 {
            let until = Instant::now() + Duration::from_millis(action.lasts_ms());
            self.lasting.push(Lasting { until, action });
        }
    }

    /// Undoes everything, and waits until both clusters are whole.
    pub fn heal(&mut self) {
        self.journal.say("all is healed");
        while let Some(Lasting { action, .. }) = self.lasting.pop() {
            self.undo(action);
        }
        self.source.await_ready();
        self.target.await_ready();
        self.assert_twinlog_runs();
    }

    fn is_busy(&self, resource: Resource) -> bool {
        let mut lasting = self.lasting.iter();
        lasting.any(|lasting| lasting.action.resource() == resource)
    }

    fn undo_due(&mut self) {
        let now = Instant::now();
        let due = self.lasting.extract_if(.., |lasting| lasting.until <= now);
        for Lasting { action, .. } in due.collect::<Vec<_>>() {
            self.undo(action);
        }
    }

    /// # Panics
    /// When Twinlog has ended by itself.
    fn assert_twinlog_runs(&mut self) {
        if !self.is_busy(Resource::Twinlog) {
            let ended = self.twinlogs[self.active].ended();
            assert!(ended.is_none(), "Twinlog has ended by itself: {ended:?}");
        }
    }

    fn begin(&mut self, action: Action) {
        let (active, other) = (self.active, 1 - self.active);
        match action {
            Action::FreezeTwinlog { .. } => self.twinlogs[active].signal("STOP"),
            Action::KillTwinlog { .. } => self.twinlogs[active].kill9(),
            Action::RestartTwinlog => {
                let status = self.twinlogs[active].terminate_within(ENDS);
                self.journal.say(&format!("Twinlog's end: {status}"));
                self.twinlogs[active].launch();
            }
            Action::Twins { .. } => self.twinlogs[other].launch(),
            Action::FreezeBeyondClaim { .. } => {
                self.twinlogs[active].signal("STOP");
                self.twinlogs[other].launch();
            }
            Action::KillBroker { side, node, .. } => self.cluster(side).kill(node),
            Action::StopBroker { side, node, .. } => self.cluster(side).stop(node),
            Action::FreezeBroker { side, node, .. } => self.cluster(side).signal(node, "STOP"),
            Action::MoveLeaders { side, turn } => {
                move_leaders(&self.cluster(side).bootstrap(), turn)
            }
            Action::SlowLine { side, delay_ms, .. } => {
                self.delay(side, Duration::from_millis(delay_ms));
            }
            Action::StallLine { side, node, .. } => self.lines(side)[node - 1].stall(),
            Action::CutLine { side } => self.lines(side).iter().for_each(Proxy::cut),
            Action::Shrink { topic, .. } => {
                let change = [("max.message.bytes", Change::Set(TOO_SMALL_BYTES))];
                alter(&self.target(), TOPICS[topic].name, &change);
            }
            Action::Shorten => self.shorten(),
        }
    }

    fn undo(&mut self, action: Action) {
        self.journal.say(&format!("    over: {action}"));
        let (active, other) = (self.active, 1 - self.active);
        match action {
            Action::FreezeTwinlog { .. } => self.twinlogs[active].signal("CONT"),
            Action::KillTwinlog { .. } => self.twinlogs[active].launch(),
            Action::Twins { keeps_newer, .. } => {
                if keeps_newer {
                    self.active = other;
                    self.twinlogs[active].kill9();
                } else {
                    self.twinlogs[other].kill9();
                }
                self.relaunch_superseded();
            }
            Action::FreezeBeyondClaim { .. } => {
                self.active = other;
                self.wake_the_superseded(active);
                self.relaunch_superseded();
            }
            Action::KillBroker { side, node, .. } | Action::StopBroker { side, node, .. } => {
                self.cluster(side).relaunch(node);
            }
            Action::FreezeBroker { side, node, .. } => self.cluster(side).signal(node, "CONT"),
            Action::SlowLine { side, .. } => self.delay(side, Duration::ZERO),
            Action::StallLine { side, node, .. } => self.lines(side)[node - 1].resume(),
            // Twinlog gives the topic the source's settings again.
            Action::Shrink { .. }
            | Action::RestartTwinlog
            | Action::MoveLeaders { .. }
            | Action::CutLine { .. }
            | Action::Shorten => {}
        }
    }

    /// A Twinlog that isn't the newest ends, or waits: one of the two has to go on.
    fn relaunch_superseded(&mut self) {
        if let Some(status) = self.twinlogs[self.active].ended() {
            self.journal.say(&format!("it was superseded: {status}"));
            self.twinlogs[self.active].launch();
        }
    }

    /// It goes on in the middle of what it did, and may write until it notices.
    fn wake_the_superseded(&mut self, frozen: usize) {
        self.twinlogs[frozen].signal("CONT");
        let until = Instant::now() + NOTICES;
        while self.twinlogs[frozen].ended().is_none() && Instant::now() < until {
            std::thread::sleep(PAUSE);
        }
        self.twinlogs[frozen].kill9();
    }

    /// Deletes from the source what the target has for sure.
    fn shorten(&mut self) {
        let (source, target) = (self.source(), self.target());
        let topic = TOPICS.iter().find(|topic| topic.name == SHORTENED);
        for partition in 0..topic.expect("one of them").partitions {
            let (source_start, _) = watermarks(&source, SHORTENED, partition);
            let (_, copied) = watermarks(&target, SHORTENED, partition);
            if copied > source_start {
                delete_records(&source, SHORTENED, partition, copied);
            }
        }
    }

    fn cluster(&mut self, side: Side) -> &mut Cluster {
        match side {
            Side::Source => &mut self.source,
            Side::Target => &mut self.target,
        }
    }

    fn lines(&self, side: Side) -> &[Proxy] {
        match side {
            Side::Source => &self.source_lines,
            Side::Target => &self.target_lines,
        }
    }

    fn delay(&self, side: Side, delay: Duration) {
        for line in self.lines(side) {
            line.delay(delay);
        }
    }
}

/// The clusters that must be whole when it begins: never more than one broker is away, and what is
/// asked of a controller may hang for a minute while one is.
fn needs_whole(action: Action) -> &'static [Side] {
    match (action, action.resource()) {
        (Action::Shrink { .. }, _) | (_, Resource::Brokers(Side::Target)) => &[Side::Target],
        (Action::Shorten, _) => &[Side::Source, Side::Target],
        (_, Resource::Brokers(Side::Source)) => &[Side::Source],
        _ => &[],
    }
}

/// Two flows: all topics but one at the source's offsets, one mapped.
fn config(source: &str, target: &str) -> String {
    let identical = format!(
        "topics: {{ exclude: [\"{MAPPED}\"] }}\ngroups: {{ exclude: [\"{MAPPED}-readers\"] }}\noffsets: identical"
    );
    let mut text = Twinlog::config(source, target, &identical);
    text.push_str(&format!(
        "  {MAPPED}:
    source: primary
    target: standby
    topics: {{ include: [\"{MAPPED}\"] }}
    groups: {{ include: [\"{MAPPED}-readers\"] }}
    offsets: mapped
"
    ));
    text
}

/// One proxy for each node.
fn lines(cluster: &Cluster) -> Vec<Proxy> {
    let lines = cluster.lines();
    let start =
        |(outside, inside): &(String, String)| Proxy::start(outside, inside, Duration::ZERO);
    lines.iter().map(start).collect()
}

/// Turns every partition's list of replicas, and lets the first of them lead.
fn move_leaders(bootstrap: &str, turn: usize) {
    let mut reassign = AlterPartitionReassignmentsRequest::default().with_timeout_ms(10_000);
    let mut elect = ElectLeadersRequest::default()
        .with_election_type(0)
        .with_timeout_ms(10_000);
    let mut elected = Vec::new();
    for (topic, replicas) in replicas(bootstrap) {
        let name = TopicName(text(&topic));
        let turned = (0..).zip(&replicas).map(|(partition, replicas)| {
            let mut replicas: Vec<BrokerId> = replicas.iter().map(|id| BrokerId(*id)).collect();
            let turn = turn % replicas.len().max(1);
            replicas.rotate_left(turn);
            ReassignablePartition::default()
                .with_partition_index(partition)
                .with_replicas(Some(replicas))
        });
        let reassigned = ReassignableTopic::default()
            .with_name(name.clone())
            .with_partitions(turned.collect());
        reassign.topics.push(reassigned);
        let partitions = (0..).take(replicas.len()).collect();
        let of_topic = TopicPartitions::default()
            .with_topic(name)
            .with_partitions(partitions);
        elected.push(of_topic);
    }
    elect.topic_partitions = Some(elected);
    call(bootstrap, reassign, 0);
    call(bootstrap, elect, 2);
}

/// The replicas of all partitions of our topics.
fn replicas(bootstrap: &str) -> Vec<(String, Vec<Vec<i32>>)> {
    let consumer: BaseConsumer = client(bootstrap).create().expect("valid settings");
    let metadata = eventually(Duration::from_secs(60), "the cluster answers", || {
        consumer.fetch_metadata(None, Duration::from_secs(5))
    });
    let ours = metadata
        .topics()
        .iter()
        .filter(|found| TOPICS.iter().any(|topic| topic.name == found.name()));
    ours.map(|topic| {
        let partitions = topic.partitions().iter();
        let mut lists: Vec<(i32, Vec<i32>)> = partitions
            .map(|partition| (partition.id(), partition.replicas().to_vec()))
            .collect();
        lists.sort();
        let lists = lists.into_iter().map(|(_, replicas)| replicas);
        (topic.name().to_owned(), lists.collect())
    })
    .collect()
}
