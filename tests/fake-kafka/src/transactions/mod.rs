//! Transactions: who coordinates them, and how they end (`TransactionCoordinator`,
//! `TransactionStateManager`, `TransactionMarkerChannelManager`).
//!
//! The leader of a partition of `__transaction_state` coordinates the ids of that partition. What
//! it knows isn't in the log here, so it isn't lost with it.

pub mod transaction;

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;

use crate::batch::Marker;
use crate::groups::coordinator::partition_for;
use crate::state::{Condition, State};
use crate::topics::NewTopic;

pub use transaction::{At, Transaction};
use transaction::{End, Init, State as Stage};

/// The coordinators' topic.
pub const TOPIC: &str = "__transaction_state";

/// How long until a marker that couldn't be written is tried again.
const MARKER_RETRY_MS: i64 = 20;

/// What a broker's configuration says about transactions.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `transaction.max.timeout.ms`.
    pub timeout_ms_max: i32,
    /// `transaction.abort.timed.out.transaction.cleanup.interval.ms`.
    pub abort_check_interval_ms: i64,
    /// `transaction.state.log.num.partitions`. Kafka's default is 50.
    pub topic_partitions: i32,
    /// `transaction.state.log.replication.factor`, or as many brokers as there are.
    pub topic_replication: i32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            timeout_ms_max: 900_000,
            abort_check_interval_ms: 10_000,
            topic_partitions: 4,
            topic_replication: 3,
        }
    }
}

/// All transactional ids of a cluster.
#[derive(Debug, Default)]
pub struct Transactions {
    /// The brokers' configuration.
    pub settings: Settings,
    /// Coordinators decide how transactions end, but write no markers.
    pub markers_are_held: bool,
    by_id: BTreeMap<String, Transaction>,
    is_checked: bool,
}

impl Transactions {
    /// All transactional ids.
    pub fn all(&self) -> impl Iterator<Item = (&String, &Transaction)> {
        self.by_id.iter()
    }

    /// Another cluster has none of them.
    pub(crate) fn forget(&mut self) {
        self.by_id.clear();
    }

    /// One of them.
    pub fn get(&self, id: &str) -> Option<&Transaction> {
        self.by_id.get(id)
    }
}

impl State {
    /// Makes `__transaction_state`, as configured. Without it the first one who asks for a
    /// coordinator has it made, and must ask again.
    pub fn create_transactions_topic(&mut self) {
        let settings = &self.transactions.settings;
        let alive = self.brokers.keys().filter(|id| self.is_alive(**id));
        let alive = i32::try_from(alive.count()).unwrap_or(i32::MAX);
        // `TransactionStateManager.transactionTopicConfigs`.
        let configs = [
            ("cleanup.policy", "compact"),
            ("compression.type", "uncompressed"),
            ("segment.bytes", "104857600"),
            ("unclean.leader.election.enable", "false"),
        ];
        let configs = configs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let new = NewTopic {
            partitions: settings.topic_partitions,
            replication: i16::try_from(settings.topic_replication.min(alive)).unwrap_or(1),
            configs: BTreeMap::from(configs),
            ..NewTopic::default()
        };
        // It is there, or no broker is: either way whoever asks again finds out.
        let _ = self.create_topic(TOPIC, &new);
    }

    /// From now on markers are decided, but not written, until they are let go.
    pub fn hold_markers(&mut self, hold: bool) {
        self.transactions.markers_are_held = hold;
        if !hold {
            let ids: Vec<String> = self.transactions.by_id.keys().cloned().collect();
            for id in ids {
                self.write_markers(&id);
            }
        }
    }

    /// Aborts the transaction of an id as if it had been open too long. Says whether one was.
    pub fn time_out_transaction(&mut self, id: &str) -> bool {
        let Some(transaction) = self.transactions.by_id.get_mut(id) else {
            return false;
        };
        let is_open = transaction.state == Stage::Ongoing;
        if is_open {
            transaction.fence();
            self.write_markers(id);
        }
        is_open
    }

    /// Writes what is missing of an id's markers; what can't be written now is tried again.
    fn write_markers(&mut self, id: &str) {
        if self.transactions.markers_are_held {
            return;
        }
        let Some(transaction) = self.transactions.by_id.get(id) else {
            return;
        };
        let commit = match transaction.state {
            Stage::PrepareCommit => true,
            Stage::PrepareAbort => false,
            _ => return,
        };
        let producer = (transaction.producer_id, transaction.epoch);
        let mut missing = transaction.partitions.clone();
        if let Some((_, coordinator_epoch)) = coordinator(self, id) {
            let marker = Marker {
                commit,
                coordinator_epoch,
            };
            missing.retain(|at| !write_marker(self, at, producer, marker));
        }
        let is_done = missing.is_empty();
        if let Some(transaction) = self.transactions.by_id.get_mut(id) {
            transaction.partitions = missing;
            if is_done {
                transaction.complete();
            }
        }
        if !is_done {
            let id = id.to_owned();
            let again_ms = self.now_ms + MARKER_RETRY_MS;
            self.at(again_ms, move |state| state.write_markers(&id));
        }
        self.changed();
    }
}

/// Appends a marker at the partition's leader; `false` if that can't be done now
/// (`TransactionMarkerRequestCompletionHandler`).
fn write_marker(
    state: &mut State,
    (topic, number): &At,
    (producer_id, epoch): (i64, i16),
    marker: Marker,
) -> bool {
    let Some(partition) = state.partition(topic, *number) else {
        // Gone with its topic.
        return true;
    };
    let Some(leader) = partition.leader else {
        return false;
    };
    if state.condition(leader) != Condition::Up {
        return false;
    }
    let rules = state.append_rules(topic, leader);
    let clock_ms = state.clock_ms(leader);
    let Some(partition) = state.partition_mut(topic, *number) else {
        return true;
    };
    let leader_epoch = partition.leader_epoch;
    if let Some(log) = partition.leader_log_mut() {
        // Fenced: somebody else has ended it.
        let _ = log.append_marker(marker, producer_id, epoch, &rules, leader_epoch, clock_ms);
    }
    state.replicate(topic, *number);
    true
}

/// Who coordinates an id, and the coordinator's epoch.
fn coordinator(state: &State, id: &str) -> Option<(i32, i32)> {
    let topic = state.topics.get(TOPIC)?;
    let count = i32::try_from(topic.partitions.len()).ok()?;
    let partition = topic.partitions.get(&partition_for(id, count))?;
    Some((partition.leader?, partition.leader_epoch))
}

/// Whether the broker coordinates the id.
///
/// # Errors
/// NOT_COORDINATOR.
pub(crate) fn check_coordinator(state: &State, broker: i32, id: &str) -> Result<(), ResponseError> {
    match coordinator(state, id) {
        Some((leader, _)) if leader == broker => Ok(()),
        _ => Err(ResponseError::NotCoordinator),
    }
}

/// InitProducerId with a transactional id (`TransactionCoordinator.handleInitProducerId`).
///
/// # Errors
/// CONCURRENT_TRANSACTIONS while an open transaction is being aborted for it.
pub(crate) fn init(
    state: &mut State,
    broker: i32,
    id: &str,
    timeout_ms: i32,
    expected: Option<(i64, i16)>,
) -> Result<(i64, i16), ResponseError> {
    if id.is_empty() {
        return Err(ResponseError::InvalidRequest);
    }
    if timeout_ms <= 0 || timeout_ms > state.transactions.settings.timeout_ms_max {
        return Err(ResponseError::InvalidTransactionTimeout);
    }
    check_coordinator(state, broker, id)?;
    check_regularly(state);
    // Only used if it is needed: ids are never given twice.
    let new_id = state.next_producer_id();
    let known = state.transactions.by_id.entry(id.to_owned());
    let transaction = known.or_insert_with(|| Transaction::new(new_id, timeout_ms));
    match transaction.init(timeout_ms, expected, || new_id)? {
        Init::Ready(producer_id, epoch) => Ok((producer_id, epoch)),
        Init::Fenced => {
            state.write_markers(id);
            Err(ResponseError::ConcurrentTransactions)
        }
    }
}

/// Puts partitions into the transaction (`TransactionCoordinator.handleAddPartitionsToTransaction`).
///
/// # Errors
/// Why they aren't in it.
pub(crate) fn add(
    state: &mut State,
    broker: i32,
    id: &str,
    (producer_id, epoch): (i64, i16),
    partitions: impl IntoIterator<Item = At>,
) -> Result<(), ResponseError> {
    if id.is_empty() {
        return Err(ResponseError::InvalidRequest);
    }
    check_coordinator(state, broker, id)?;
    let now_ms = state.now_ms;
    known(state, id)?.add(producer_id, epoch, partitions, now_ms)
}

/// Puts a partition into the transaction for its leader, which asks the coordinator
/// (`AddPartitionsToTxnManager.addOrVerifyTransaction`).
///
/// # Errors
/// As the coordinator answers.
pub(crate) fn add_for_broker(
    state: &mut State,
    id: &str,
    producer: (i64, i16),
    at: At,
) -> Result<(), ResponseError> {
    let found = coordinator(state, id);
    let (broker, _) = found.ok_or(ResponseError::CoordinatorNotAvailable)?;
    add(state, broker, id, producer, [at])
}

/// Whether the coordinator has the partition in the transaction, as a partition's leader asks it
/// (`TransactionCoordinator.handleVerifyPartitionsInTransaction`).
///
/// # Errors
/// As the coordinator answers.
pub(crate) fn verify(
    state: &mut State,
    id: &str,
    (producer_id, epoch): (i64, i16),
    at: &At,
) -> Result<(), ResponseError> {
    coordinator(state, id).ok_or(ResponseError::CoordinatorNotAvailable)?;
    known(state, id)?.verify(producer_id, epoch, at)
}

/// Ends the transaction; its markers are on their way when that is answered
/// (`TransactionCoordinator.endTransaction`). Returns the producer's id and epoch from now on.
///
/// # Errors
/// Why it doesn't end so.
pub(crate) fn end(
    state: &mut State,
    broker: i32,
    id: &str,
    (producer_id, epoch): (i64, i16),
    commit: bool,
    bumps: bool,
) -> Result<(i64, i16), ResponseError> {
    if id.is_empty() {
        return Err(ResponseError::InvalidRequest);
    }
    check_coordinator(state, broker, id)?;
    let new_id = state.next_producer_id();
    let transaction = known(state, id)?;
    let end = transaction.end(producer_id, epoch, commit, bumps, || new_id)?;
    let producer = (transaction.producer_id, transaction.epoch);
    if end == End::Markers {
        state.write_markers(id);
    }
    Ok(producer)
}

fn known<'a>(state: &'a mut State, id: &str) -> Result<&'a mut Transaction, ResponseError> {
    let found = state.transactions.by_id.get_mut(id);
    found.ok_or(ResponseError::InvalidProducerIdMapping)
}

/// Coordinators look through their transactions again and again, from the first one on
/// (`TransactionCoordinator.abortTimedOutTransactions`).
fn check_regularly(state: &mut State) {
    if !state.transactions.is_checked {
        state.transactions.is_checked = true;
        let next_ms = state.now_ms + state.transactions.settings.abort_check_interval_ms;
        state.at(next_ms, check);
    }
}

fn check(state: &mut State) {
    let now_ms = state.now_ms;
    let all = state.transactions.by_id.iter();
    let overdue = all.filter(|(_, transaction)| transaction.is_overdue(now_ms));
    let overdue: Vec<String> = overdue.map(|(id, _)| id.clone()).collect();
    for id in overdue {
        let broker = coordinator(state, &id).map(|(broker, _)| broker);
        if broker.is_some_and(|broker| state.condition(broker) == Condition::Up) {
            state.time_out_transaction(&id);
        }
    }
    state.transactions.is_checked = false;
    check_regularly(state);
}
