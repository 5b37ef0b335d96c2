//! The coordinators: one per partition of `__consumer_offsets` (`GroupCoordinatorShard`,
//! `CoordinatorRuntime`).

use std::collections::{BTreeMap, VecDeque};

use kafka_protocol::ResponseError;
use uuid::Uuid;

use super::classic::{Answers, ClassicGroup, Settings, Step, Ticket};
use super::journal::{self, Entry, Producer};
use super::offsets::{At, Offsets};
use super::records::{self, CoordinatorRecord, Key, OffsetValue};
use super::{TOPIC, classic};
use crate::acls::CLIENT_HOST;
use crate::state::{Condition, State};

/// All coordinators of a cluster.
#[derive(Debug, Default)]
pub struct Groups {
    /// The brokers' configuration.
    pub settings: Settings,
    /// So many commits of one group are taken in a second, as some services do (THROTTLING_QUOTA_EXCEEDED); 0 is any number.
    pub commits_per_second: u32,
    /// How many were refused for that.
    pub throttled: u64,
    /// When the last ones of each group were taken.
    taken: BTreeMap<String, VecDeque<i64>>,
    shards: BTreeMap<i32, Shard>,
    answers: Answers,
    /// The share groups.
    pub shares: BTreeMap<String, StartOffsets>,
}

/// Where a share group begins, by topic and partition.
pub type StartOffsets = BTreeMap<(String, i32), i64>;

/// What one coordinator knows.
#[derive(Debug)]
pub struct Shard {
    broker: i32,
    leader_epoch: i32,
    /// A topic that came again is another one.
    topic_id: Uuid,
    /// Up to here the log was read.
    replayed_to: i64,
    /// When the next timer was ordered.
    wakes_at_ms: Option<i64>,
    /// By name.
    pub(crate) groups: BTreeMap<String, ClassicGroup>,
    /// All offsets.
    pub(crate) offsets: Offsets,
}

/// What was appended by a request, so that its answer can wait until it is replicated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    partition: i32,
    leader_epoch: i32,
    end: i64,
}

/// `Utils.abs(groupId.hashCode()) % numPartitions`, for groups and transactional ids alike
/// (`GroupCoordinatorService.partitionFor`, `TransactionStateManager.partitionFor`).
pub fn partition_for(name: &str, partitions: i32) -> i32 {
    let hash = name.encode_utf16().fold(0_i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    });
    hash.checked_abs().unwrap_or(0) % partitions.max(1)
}

impl Groups {
    /// Counts a commit of a group, unless there is no quota for it.
    pub(crate) fn is_over_quota(&mut self, group: &str, now_ms: i64) -> bool {
        if self.commits_per_second == 0 {
            return false;
        }
        let taken = self.taken.entry(group.to_owned()).or_default();
        while taken.front().is_some_and(|at| now_ms - at >= 1_000) {
            taken.pop_front();
        }
        let is_over = taken.len() >= self.commits_per_second as usize;
        match is_over {
            true => self.throttled += 1,
            false => taken.push_back(now_ms),
        }
        is_over
    }

    /// The number of a request that may have to wait.
    pub(crate) fn joined(&mut self, ticket: Ticket) -> Option<classic::Joined> {
        self.answers.joined.remove(&ticket)
    }

    pub(crate) fn synced(&mut self, ticket: Ticket) -> Option<classic::Synced> {
        self.answers.synced.remove(&ticket)
    }
}

impl Shard {
    /// A coordinator that was just elected reads its log.
    fn loaded(
        broker: i32,
        leader_epoch: i32,
        topic_id: Uuid,
        entries: Vec<Entry>,
        now_ms: i64,
    ) -> Self {
        let mut shard = Self {
            broker,
            leader_epoch,
            topic_id,
            replayed_to: 0,
            wakes_at_ms: None,
            groups: BTreeMap::new(),
            offsets: Offsets::default(),
        };
        for entry in entries {
            shard.replay(entry, Some(now_ms));
        }
        shard
    }

    /// Takes what is in the log. A coordinator that writes a group's members knows them already and
    /// takes them from the log only when it is loaded.
    fn replay(&mut self, entry: Entry, loading_at_ms: Option<i64>) {
        match entry {
            Entry::Record {
                offset,
                producer,
                record,
            } => self.replay_record(offset, producer, record, loading_at_ms),
            Entry::Marker { producer, commit } => self.offsets.end_transaction(producer, commit),
        }
    }

    fn replay_record(
        &mut self,
        record_offset: i64,
        producer: Option<i64>,
        record: CoordinatorRecord,
        loading_at_ms: Option<i64>,
    ) {
        match records::read_key(record.key) {
            Some(Key::Offset {
                group,
                topic,
                partition,
            }) => {
                let value = record.value.and_then(records::read_offset);
                if value.is_some() {
                    self.get_or_create(&group);
                }
                let at = (topic, partition);
                self.offsets
                    .replay(record_offset, producer, &group, at, value);
            }
            Some(Key::Group(group)) => match (record.value, loading_at_ms) {
                (None, _) => {
                    self.groups.remove(&group);
                }
                (Some(value), Some(now_ms)) => {
                    if let Some(value) = records::read_group(value) {
                        let loaded = ClassicGroup::loaded(&group, value, now_ms);
                        self.groups.insert(group, loaded);
                    }
                }
                (Some(_), None) => {}
            },
            Some(Key::Other(_)) | None => {}
        }
    }

    /// A group that was only committed for is one without members and type
    /// (`getOrMaybeCreateClassicGroup`).
    pub(crate) fn get_or_create(&mut self, group: &str) -> &mut ClassicGroup {
        self.groups
            .entry(group.to_owned())
            .or_insert_with(|| ClassicGroup::new(group))
    }

    /// What deleting a group appends (`GroupCoordinatorShard.deleteGroups`).
    ///
    /// # Errors
    /// NON_EMPTY_GROUP, GROUP_ID_NOT_FOUND.
    pub(crate) fn delete(&self, group: &str, step: &mut Step<'_>) -> Result<(), ResponseError> {
        let found = self.groups.get(group);
        found
            .ok_or(ResponseError::GroupIdNotFound)?
            .check_delete()?;
        let partitions = self.offsets.partitions_of(group).into_iter();
        let tombstones =
            partitions.map(|(topic, number)| records::offset_tombstone(group, &topic, number));
        step.records.extend(tombstones);
        step.records.push(records::group_tombstone(group));
        Ok(())
    }

    /// Takes back offsets whose retention is over, and groups that are left with nothing
    /// (`GroupCoordinatorShard.cleanupGroupMetadata`, `OffsetMetadataManager.cleanupExpiredOffsets`).
    fn expire(&self, now_ms: i64, step: &mut Step<'_>) {
        for (id, group) in &self.groups {
            let mut all_expired = true;
            for (at, stored) in self.offsets.of_group(id) {
                let value = &stored.value;
                let is_over = is_expired(group, value, now_ms, step.settings.offsets_retention_ms)
                    && !group.is_subscribed_to(&at.0)
                    && !self.offsets.is_pending(id, at);
                if is_over {
                    let tombstone = records::offset_tombstone(id, &at.0, at.1);
                    step.records.push(tombstone);
                } else {
                    all_expired = false;
                }
            }
            let is_empty = group.state() == classic::State::Empty;
            if all_expired && is_empty && !self.offsets.has_open_transaction(id) {
                step.records.push(records::group_tombstone(id));
            }
        }
    }

    fn next_timer_ms(&self) -> Option<i64> {
        let timers = self.groups.values().filter_map(ClassicGroup::next_timer_ms);
        timers.min()
    }
}

/// `OffsetExpirationConditionImpl.isOffsetExpired`.
fn is_expired(group: &ClassicGroup, value: &OffsetValue, now_ms: i64, retention_ms: i64) -> bool {
    match group.retention_runs_since(value.committed_at_ms) {
        None => false,
        Some(since_ms) => match value.expires_at_ms {
            Some(expires_at_ms) => now_ms >= expires_at_ms,
            None => now_ms - since_ms >= retention_ms,
        },
    }
}

/// Who coordinates a partition's groups, since which epoch: what they were asked before is
/// answered by nobody else (`GroupMetadataManager.onUnloaded`).
pub(crate) fn reign(state: &State, partition: i32) -> Option<(i32, i32)> {
    journal::leader(state, partition)
}

/// How many partitions `__consumer_offsets` has; `None` before it is made.
pub(crate) fn partitions(state: &State) -> Option<i32> {
    let topic = state.topics.get(TOPIC)?;
    i32::try_from(topic.partitions.len()).ok()
}

/// The partition of a group's records.
///
/// # Errors
/// NOT_COORDINATOR: nobody is, before the topic is there.
pub(crate) fn partition_of(state: &State, group: &str) -> Result<i32, ResponseError> {
    let partitions = partitions(state).ok_or(ResponseError::NotCoordinator)?;
    Ok(partition_for(group, partitions))
}

/// Runs `act` on the coordinator of a partition, and appends what it wants appended.
///
/// # Errors
/// NOT_COORDINATOR at a broker that isn't; whatever keeps the records from being appended.
pub(crate) fn on_shard<T>(
    state: &mut State,
    broker: i32,
    partition: i32,
    act: impl FnOnce(&mut Shard, &mut Step<'_>) -> T,
) -> Result<(T, Option<Written>), ResponseError> {
    let mut shard = enter(state, broker, partition)?;
    let settings = state.groups.settings.clone();
    let mut answers = std::mem::take(&mut state.groups.answers);
    let mut records = Vec::new();
    let mut step = Step {
        now_ms: state.now_ms,
        settings: &settings,
        answers: &mut answers,
        records: &mut records,
    };
    let value = act(&mut shard, &mut step);
    state.groups.answers = answers;
    let written = append(state, partition, &mut shard, &records, None);
    leave(state, partition, shard);
    Ok((value, written?))
}

/// Appends records as part of a transaction.
///
/// # Errors
/// As [`on_shard`].
pub(crate) fn append_transactional(
    state: &mut State,
    broker: i32,
    partition: i32,
    records: &[CoordinatorRecord],
    producer: Producer,
) -> Result<Option<Written>, ResponseError> {
    let mut shard = enter(state, broker, partition)?;
    let written = append(state, partition, &mut shard, records, Some(producer));
    leave(state, partition, shard);
    written
}

/// Looks at all coordinators of a broker.
pub(crate) fn on_all_shards(state: &mut State, broker: i32, mut see: impl FnMut(&Shard)) {
    for partition in 0..partitions(state).unwrap_or(0) {
        if let Ok(shard) = enter(state, broker, partition) {
            see(&shard);
            leave(state, partition, shard);
        }
    }
}

/// The coordinator, up to date with its log, out of the state.
fn enter(state: &mut State, broker: i32, partition: i32) -> Result<Shard, ResponseError> {
    let (leader, leader_epoch) =
        journal::leader(state, partition).ok_or(ResponseError::NotCoordinator)?;
    if leader != broker {
        return Err(ResponseError::NotCoordinator);
    }
    let known = state.groups.shards.remove(&partition);
    let topic_id = state
        .topics
        .get(TOPIC)
        .map_or(Uuid::nil(), |topic| topic.id);
    let reign = (broker, leader_epoch, topic_id);
    let known = known.filter(|it| (it.broker, it.leader_epoch, it.topic_id) == reign);
    let mut shard = match known {
        Some(shard) => shard,
        None => {
            let entries = journal::read(state, partition, 0);
            let mut shard = Shard::loaded(broker, leader_epoch, topic_id, entries, state.now_ms);
            shard.replayed_to = journal::end(state, partition);
            shard
        }
    };
    catch_up(state, partition, &mut shard);
    Ok(shard)
}

/// Takes what the log got meanwhile: markers come from transactions' coordinators.
fn catch_up(state: &State, partition: i32, shard: &mut Shard) {
    for entry in journal::read(state, partition, shard.replayed_to) {
        shard.replay(entry, None);
    }
    shard.replayed_to = journal::end(state, partition);
}

fn append(
    state: &mut State,
    partition: i32,
    shard: &mut Shard,
    records: &[CoordinatorRecord],
    producer: Option<Producer>,
) -> Result<Option<Written>, ResponseError> {
    if records.is_empty() {
        return Ok(None);
    }
    journal::append(state, shard.broker, partition, records, producer).map_err(as_answered)?;
    catch_up(state, partition, shard);
    Ok(Some(Written {
        partition,
        leader_epoch: shard.leader_epoch,
        end: shard.replayed_to,
    }))
}

fn leave(state: &mut State, partition: i32, mut shard: Shard) {
    if let Some(due_ms) = shard.next_timer_ms()
        && shard
            .wakes_at_ms
            .is_none_or(|wakes_at_ms| wakes_at_ms > due_ms)
    {
        shard.wakes_at_ms = Some(due_ms);
        state.at(due_ms, move |state| tick(state, partition));
    }
    state.groups.shards.insert(partition, shard);
}

/// A coordinator's timers are due.
fn tick(state: &mut State, partition: i32) {
    let Some(shard) = state.groups.shards.get_mut(&partition) else {
        return;
    };
    shard.wakes_at_ms = None;
    let broker = shard.broker;
    match state.condition(broker) {
        Condition::Up => {
            // An append that fails leaves the group as it is in memory, as `CoordinatorRuntime`
            // would after its retries.
            let _ = on_shard(state, broker, partition, |shard, step| {
                for group in shard.groups.values_mut() {
                    group.tick(step);
                }
            });
        }
        // Its clock goes on once it thaws.
        Condition::Frozen => {
            let again_ms = state.now_ms + 100;
            state.at(again_ms, move |state| tick(state, partition));
        }
        Condition::Stopped => {}
    }
}

/// Whether what was written is replicated: then it can be answered
/// (`CoordinatorRuntime.CoordinatorContext.updateLastCommittedOffset`).
pub(crate) fn outcome(
    state: &State,
    written: &Written,
    timed_out: bool,
) -> Option<Result<(), ResponseError>> {
    match journal::leader(state, written.partition) {
        Some((_, epoch)) if epoch == written.leader_epoch => {}
        _ => return Some(Err(ResponseError::NotCoordinator)),
    }
    if journal::committed(state, written.partition) >= written.end {
        return Some(Ok(()));
    }
    timed_out.then_some(Err(ResponseError::CoordinatorNotAvailable))
}

/// What clients hear instead of the log's own errors
/// (`GroupCoordinatorService.handleOperationException`).
fn as_answered(error: ResponseError) -> ResponseError {
    match error {
        ResponseError::UnknownTopicOrPartition
        | ResponseError::NotEnoughReplicas
        | ResponseError::RequestTimedOut => ResponseError::CoordinatorNotAvailable,
        ResponseError::NotLeaderOrFollower | ResponseError::KafkaStorageError => {
            ResponseError::NotCoordinator
        }
        ResponseError::MessageTooLarge
        | ResponseError::RecordListTooLarge
        | ResponseError::InvalidFetchSize => ResponseError::UnknownServerError,
        other => other,
    }
}

/// A member's address as Java prints it.
pub(crate) fn client_host() -> String {
    format!("/{CLIENT_HOST}")
}

/// What a test may do to groups, and see of them.
impl State {
    /// Makes `__consumer_offsets`, as configured. Without it the first one who asks for a
    /// coordinator has it made, and must ask again.
    pub fn create_offsets_topic(&mut self) {
        let settings = &self.groups.settings;
        let (partitions, replication) = (settings.topic_partitions, settings.topic_replication);
        journal::create(self, partitions, replication);
    }

    /// Runs the cleaner of expired offsets at every coordinator, which a broker does every
    /// `offsets.retention.check.interval.ms`.
    pub fn expire_offsets(&mut self) {
        for partition in 0..partitions(self).unwrap_or(0) {
            let Some((broker, _)) = journal::leader(self, partition) else {
                continue;
            };
            let now_ms = self.clock_ms(broker);
            let _ = on_shard(self, broker, partition, |shard, step| {
                shard.expire(now_ms, step);
            });
        }
    }

    /// Takes back the offsets of a topic that is gone
    /// (`GroupCoordinatorService.onPartitionsDeleted`).
    pub fn forget_offsets_of_topic(&mut self, topic: &str) {
        for partition in 0..partitions(self).unwrap_or(0) {
            let Some((broker, _)) = journal::leader(self, partition) else {
                continue;
            };
            let _ = on_shard(self, broker, partition, |shard, step| {
                let gone = shard.offsets.of_topic(topic).into_iter();
                let gone = gone.map(|(group, at)| records::offset_tombstone(&group, &at.0, at.1));
                step.records.extend(gone);
            });
        }
    }

    /// A group's committed offset, as its coordinator knows it now.
    pub fn committed_offset(
        &mut self,
        group: &str,
        topic: &str,
        partition: i32,
    ) -> Option<OffsetValue> {
        let at: At = (topic.to_owned(), partition);
        let number = partition_of(self, group).ok()?;
        let (broker, _) = journal::leader(self, number)?;
        let found = on_shard(self, broker, number, |shard, _| {
            shard.offsets.get(group, &at).cloned()
        });
        Some(found.ok()?.0?.value)
    }

    /// Another cluster has other groups.
    pub(crate) fn forget_groups(&mut self) {
        self.groups.shards.clear();
        self.groups.answers = Answers::default();
    }

    /// A group's state, as its coordinator knows it now.
    pub fn group_state(&mut self, group: &str) -> Option<classic::State> {
        let number = partition_of(self, group).ok()?;
        let (broker, _) = journal::leader(self, number)?;
        let found = on_shard(self, broker, number, |shard, _| {
            shard.groups.get(group).map(ClassicGroup::state)
        });
        found.ok()?.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::state::Options;

    #[test]
    fn a_group_s_partition_is_java_s_hash_of_its_name() {
        // "orders".hashCode() is -1008770331, that of "ü" is 252.
        assert_eq!(partition_for("orders", 50), 31);
        assert_eq!(partition_for("", 50), 0);
        assert_eq!(partition_for("ü", 50), 2);
        // Integer.MIN_VALUE has no positive counterpart: Utils.abs says 0.
        assert_eq!(partition_for("polygenelubricants", 50), 0);
    }

    /// The partition of the group "g", and who leads it.
    fn place(state: &State) -> (i32, i32) {
        let partition = partition_of(state, "g").expect("the topic is there");
        let (broker, _) = journal::leader(state, partition).expect("a leader");
        (partition, broker)
    }

    fn with_topic() -> State {
        let mut state = State::new(Options {
            brokers: 2,
            ..Options::default()
        });
        state.create_offsets_topic();
        state
    }

    fn commit(state: &mut State, offset: i64) -> Written {
        let (partition, broker) = place(state);
        let value = OffsetValue {
            offset,
            leader_epoch: -1,
            metadata: String::new(),
            committed_at_ms: state.now_ms,
            expires_at_ms: None,
            topic_id: None,
        };
        let (_, written) = on_shard(state, broker, partition, |_, step| {
            step.records.push(records::offset("g", "t", 0, &value));
        })
        .expect("it coordinates the group");
        written.expect("something was written")
    }

    fn committed(state: &mut State) -> Option<i64> {
        state.committed_offset("g", "t", 0).map(|it| it.offset)
    }

    #[test]
    fn a_new_coordinator_knows_what_is_left_in_the_log() {
        let mut state = with_topic();
        commit(&mut state, 1);
        let (partition, broker) = place(&state);
        let end = journal::end(&state, partition);
        commit(&mut state, 2);
        assert_eq!(committed(&mut state), Some(2));
        let other = 3 - broker;
        state.move_leader(TOPIC, partition, other);
        assert_eq!(committed(&mut state), Some(2));
        let nobody = on_shard(&mut state, broker, partition, |_, _| ());
        assert_eq!(nobody.err(), Some(ResponseError::NotCoordinator));
        state.truncate(TOPIC, partition, end);
        assert_eq!(
            committed(&mut state),
            Some(1),
            "the same broker, elected anew"
        );
        state.recreate_topic(TOPIC);
        assert_eq!(committed(&mut state), None);
    }

    #[test]
    fn a_commit_is_answered_when_it_is_replicated() {
        let mut state = with_topic();
        let (partition, broker) = place(&state);
        let other = 3 - broker;
        state.lag(TOPIC, partition, other);
        let written = commit(&mut state, 1);
        assert_eq!(outcome(&state, &written, false), None);
        let late = Some(Err(ResponseError::CoordinatorNotAvailable));
        assert_eq!(outcome(&state, &written, true), late);
        state.catch_up(TOPIC, partition, other);
        assert_eq!(outcome(&state, &written, false), Some(Ok(())));
        state.move_leader(TOPIC, partition, other);
        let elsewhere = Some(Err(ResponseError::NotCoordinator));
        assert_eq!(outcome(&state, &written, false), elsewhere);
    }

    #[test]
    fn offsets_expire_when_a_test_says_so() {
        let mut state = with_topic();
        commit(&mut state, 1);
        let retention_ms = state.groups.settings.offsets_retention_ms;
        state.advance_to(retention_ms - 1);
        state.expire_offsets();
        assert_eq!(committed(&mut state), Some(1));
        state.advance_to(retention_ms);
        assert_eq!(committed(&mut state), Some(1), "not by itself");
        state.expire_offsets();
        assert_eq!(committed(&mut state), None);
        assert_eq!(state.group_state("g"), None, "nothing is left of it");
    }
}
