//! What most scenarios begin with: two clusters, a flow between them, notes of what was acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use fake_kafka::Options;
use fake_kafka::batch::{Marker, Record as Encoded, produced};
use fake_kafka::memory::Connects;
use fake_kafka::topics::NewTopic;
use fake_kafka::world::{Brokers, Process, World, clock};
use twinlog::telemetry::status::PartitionStatus;

use super::clients;
use super::logs;
use super::model::{
    Acked, Case, GroupCase, Log, Offsets, Place, Record, Says, Side, Violation, copy_of, judge,
    judge_group, judge_group_now,
};
use super::process::{self, Running};

/// Two clusters and what is known of them.
pub struct Scene {
    pub source: Brokers,
    pub target: Brokers,
    /// The config of the flow `dr`.
    pub text: String,
    /// What was acknowledged.
    pub acked: Vec<Acked>,
    /// What went from the source in order: by retention or compaction.
    pub gone: BTreeMap<Place, Vec<Record>>,
    planted: u64,
}

/// How records are written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Write {
    /// In a transaction that ends so: committed or not.
    pub transaction: Option<bool>,
    /// The value's size at least.
    pub bytes: usize,
    /// So many keys, in turn; 0: a key of its own for each.
    pub keys: u64,
    /// The records' times are so much before now.
    pub age_ms: i64,
}

impl Write {
    /// In a transaction of its own, which is committed: it has a hole behind it.
    pub const COMMITTED: Self = Self {
        transaction: Some(true),
        bytes: 0,
        keys: 0,
        age_ms: 0,
    };
}

impl Scene {
    /// Topic `t` of one partition with `records` records, which a first Twinlog has copied, between two
    /// clusters that know groups.
    pub fn with_groups(world: &mut World, records: i64, twinlog: &str) -> (Self, Running, Place) {
        let mut scene = Self::new(world, 1, "");
        scene.topic("t", 1, 1, &[]);
        for brokers in [&scene.source, &scene.target] {
            brokers
                .cluster
                .control(|state| state.create_offsets_topic());
        }
        let place = Place::new("t", 0);
        let running = scene.twinlog(world, twinlog);
        let records = u64::try_from(records).expect("not negative");
        scene.write(world, Side::Primary, &place, records, Write::default());
        scene.must_copy(world, std::slice::from_ref(&place), 30_000);
        (scene, running, place)
    }

    /// `group` commits the positions 1 to `count` of topic `t` on the source, `pause_ms` after one another.
    pub fn commits(&self, world: &mut World, count: i64, pause_ms: u64) -> Process<()> {
        let source = self.source.clone();
        world.process("group", move |ctx| {
            clients::commit_often(ctx, source.clone(), "t", "group", count, pause_ms)
        })
    }

    /// One transaction in each partition of topic `t` every `every_ms`.
    pub fn commit_for(&mut self, world: &mut World, partitions: i32, for_ms: i64, every_ms: i64) {
        for _ in 0..for_ms / every_ms {
            for partition in 0..partitions {
                let place = Place::new("t", partition);
                self.write(world, Side::Primary, &place, 1, Write::COMMITTED);
            }
            world.run_for(every_ms);
        }
    }

    /// Two clusters of so many brokers each. `lines` are lines of the flow in the config.
    pub fn new(world: &mut World, brokers: i32, lines: &str) -> Self {
        let options = Options {
            brokers,
            ..Options::default()
        };
        Self::with(world, options.clone(), options, lines)
    }

    /// Two clusters, each with its options.
    pub fn with(world: &mut World, source: Options, target: Options, lines: &str) -> Self {
        let source = world.cluster("source", source);
        let target = world.cluster("target", target);
        Self {
            text: process::config(&source, &target, lines),
            source,
            target,
            acked: Vec::new(),
            gone: BTreeMap::new(),
            planted: 0,
        }
    }

    pub fn side(&self, side: Side) -> &Brokers {
        match side {
            Side::Primary => &self.source,
            Side::Standby => &self.target,
        }
    }

    /// Makes a topic on the source.
    pub fn topic(&self, name: &str, partitions: i32, replication: i16, configs: &[(&str, &str)]) {
        let configs = configs.iter();
        let new = NewTopic {
            partitions,
            replication,
            configs: configs
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            ..NewTopic::default()
        };
        let made = self
            .source
            .cluster
            .control(|state| state.create_topic(name, &new));
        made.unwrap_or_else(|(error, why)| panic!("{error:?}: {why}"));
    }

    /// Appends `count` records to a partition, each a batch of its own, as clients of that cluster
    /// would, and notes them as acknowledged. Takes no time.
    ///
    /// # Panics
    /// When nobody leads the partition, or its leader refuses them.
    pub fn write(&mut self, world: &World, side: Side, place: &Place, count: u64, how: Write) {
        for _ in 0..count {
            self.write_batch(world, side, place, 1, how);
        }
    }

    /// The same, in one batch.
    pub fn write_batch(
        &mut self,
        world: &World,
        side: Side,
        place: &Place,
        count: u64,
        how: Write,
    ) {
        let now_ms = clock::broker_ms(world.now_ms() * 1_000);
        let mut names = Vec::new();
        let mut records = Vec::new();
        for _ in 0..count {
            self.planted += 1;
            let name = format!("{side:?}-{}", self.planted);
            let key = match how.keys {
                0 => format!("key-of-{name}"),
                keys => format!("key-{}", self.planted % keys),
            };
            let value = logs::value(&name, how.bytes);
            records.push(Encoded::new(Some(key.as_bytes()), Some(value.as_bytes())));
            names.push(name);
        }
        let (mut header, encoded) = produced(&records, now_ms - how.age_ms);
        let brokers = self.side(side).clone();
        let first = brokers.cluster.control(|state| {
            let found = state.partition(&place.topic, place.partition);
            let found = found.unwrap_or_else(|| panic!("there is no {place}"));
            let leader = found
                .leader
                .unwrap_or_else(|| panic!("nobody leads {place}"));
            let epoch = found.leader_epoch;
            let rules = state.append_rules(&place.topic, leader);
            let producer = how
                .transaction
                .map(|commit| (state.next_producer_id(), commit));
            if let Some((id, _)) = producer {
                header.producer_id = id;
                header.producer_epoch = 0;
                header.base_sequence = 0;
                header.attributes |= TRANSACTIONAL;
            }
            let found = state
                .partition_mut(&place.topic, place.partition)
                .expect("just looked at");
            let log = found.leader_log_mut().expect("somebody leads");
            let batch = header.seal(&encoded);
            let appended = log
                .append(&batch, &rules, epoch, now_ms, false)
                .unwrap_or_else(|why| panic!("{place}: {why:?}"));
            if let Some((id, commit)) = producer {
                let marker = Marker {
                    commit,
                    coordinator_epoch: 0,
                };
                log.append_marker(marker, id, 0, &rules, epoch, now_ms)
                    .expect("its own transaction");
            }
            state.replicate(&place.topic, place.partition);
            appended.first_offset
        });
        if how.transaction == Some(false) {
            return;
        }
        for (name, offset) in names.into_iter().zip(first..) {
            self.acked.push(Acked {
                side,
                place: place.clone(),
                offset: Some(offset),
                name,
                at_ms: world.now_ms(),
            });
        }
    }

    /// Nothing reaches the source any more, and nobody is told.
    pub fn lose_source(&self, world: &World) {
        world.paths(&self.source, |path| {
            path.blocked.to_broker = true;
            path.blocked.to_client = true;
            path.connects = Connects::Hang;
        });
    }

    /// It is back, with all that it had.
    pub fn find_source(&self, world: &World) {
        world.paths(&self.source, |path| {
            path.blocked.to_broker = false;
            path.blocked.to_client = false;
            path.connects = Connects::Work;
        });
    }

    /// The same of the target.
    pub fn lose_target(&self, world: &World) {
        world.paths(&self.target, |path| {
            path.blocked.to_broker = true;
            path.blocked.to_client = true;
            path.connects = Connects::Hang;
        });
    }

    /// It can be reached again, with all that it had.
    pub fn find_target(&self, world: &World) {
        world.paths(&self.target, |path| {
            path.blocked.to_broker = false;
            path.blocked.to_client = false;
            path.connects = Connects::Work;
        });
    }

    /// Who is the primary by the role that is stored on the target.
    pub fn role(&self) -> Side {
        let role = logs::newest(&self.target, "__twinlog_state", "role/dr");
        let role = role.map(|it| serde_json::from_str(&it).expect("a role is JSON"));
        let is_target = |it: serde_json::Value| it["primary"] == "target";
        match role.is_some_and(is_target) {
            true => Side::Standby,
            false => Side::Primary,
        }
    }

    /// Starts `twinlog run` on a machine of its own.
    pub fn twinlog(&self, world: &mut World, name: &str) -> Running {
        process::run(world, name, &self.text)
    }

    /// Waits until the target has of these partitions what the source has.
    pub fn must_copy(&self, world: &mut World, places: &[Place], within_ms: i64) {
        let (source, target, places) = (self.source.clone(), self.target.clone(), places.to_vec());
        world.must("all is copied", within_ms, move |_| {
            places
                .iter()
                .all(|at| names(&source, at) == names(&target, at))
        });
    }

    /// The cleaner of the source runs over what is below `below`.
    pub fn compact(&mut self, place: &Place, below: i64) {
        let gone = logs::compact(&self.source, place, below);
        self.gone.entry(place.clone()).or_default().extend(gone);
    }

    /// It took these only.
    pub fn clean(&mut self, place: &Place, stays: impl Fn(i64) -> bool) {
        let gone = logs::clean(&self.source, place, stays);
        self.gone.entry(place.clone()).or_default().extend(gone);
    }

    /// The copy of a partition against its source, as Twinlog tells of it.
    pub fn judge_copy(
        &self,
        world: &World,
        twinlog: &Running,
        place: &Place,
        offsets: Offsets,
        excuses: &[&'static str],
    ) -> Vec<Violation> {
        judge(&self.case(place, says(world, twinlog, place), offsets, excuses))
    }

    /// Where a group would go on with a partition on the target, against the source, once all is at rest.
    pub fn judge_group(&self, group: &str, place: &Place) -> Vec<Violation> {
        let case = self.group(group, place);
        case.as_ref().map_or_else(Vec::new, judge_group)
    }

    /// The same at any moment.
    pub fn judge_group_now(&self, group: &str, place: &Place) -> Vec<Violation> {
        let case = self.group(group, place);
        case.as_ref().map_or_else(Vec::new, judge_group_now)
    }

    fn group(&self, group: &str, place: &Place) -> Option<GroupCase> {
        let committed = |side: Side| {
            self.side(side).cluster.control(|state| {
                let value = state.committed_offset(group, &place.topic, place.partition);
                value.map(|it| it.offset)
            })
        };
        Some(GroupCase {
            group: group.to_owned(),
            place: place.clone(),
            committed: committed(Side::Primary)?,
            copied: committed(Side::Standby),
            source: logs::read(&self.source, place),
            target: logs::read(&self.target, place),
        })
    }

    /// The copy of a partition against its source.
    pub fn case(
        &self,
        place: &Place,
        says: Says,
        offsets: Offsets,
        excuses: &[&'static str],
    ) -> Case {
        let gone = self.gone.get(place).map_or(&[][..], Vec::as_slice);
        Case {
            place: place.clone(),
            offsets,
            says,
            excuses: excuses.iter().copied().collect(),
            expected: copy_of(&logs::read(&self.source, place), gone),
            strangers: BTreeSet::new(),
            barred: BTreeSet::new(),
            found: logs::read(&self.target, place),
        }
    }
}

/// `RecordBatch.isTransactional`.
pub const TRANSACTIONAL: i16 = 0x10;

/// The names of a partition's records.
pub fn names(brokers: &Brokers, place: &Place) -> Vec<String> {
    let Log { records, .. } = logs::read(brokers, place);
    records.into_iter().map(|it| it.name).collect()
}

/// What Twinlog says of a partition. One that it doesn't know is none that it calls sick.
pub fn says(world: &World, twinlog: &Running, place: &Place) -> Says {
    let Some(status) = partition_status(world, twinlog, place) else {
        return Says::Copying { lag: None };
    };
    match (status.state.as_str(), status.reason) {
        ("copying", _) => Says::Copying {
            lag: status.lag_records,
        },
        ("opening", _) => Says::Copying { lag: None },
        (state, reason) => Says::Stopped {
            reason: reason.unwrap_or_else(|| state.to_owned()),
        },
    }
}

/// The status of a partition.
pub fn partition_status(
    world: &World,
    twinlog: &Running,
    place: &Place,
) -> Option<PartitionStatus> {
    let status = twinlog.status(world);
    let topics = status.flows.into_iter().flat_map(|flow| flow.topics);
    let mut topic = topics.filter(|topic| topic.name == place.topic);
    let partitions = topic.next()?.partitions;
    partitions
        .into_iter()
        .find(|it| it.partition == place.partition)
}
