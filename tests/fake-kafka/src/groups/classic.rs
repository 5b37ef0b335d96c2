//! A group of the classic protocol: who is a member, and how a rebalance goes.
//!
//! `ClassicGroup`, `ClassicGroupMember` and the `classicGroup*` methods of `GroupMetadataManager` in
//! Kafka's source. Answers that must wait for other members are kept under the number of their
//! request (a [`Ticket`]); time is only what the caller says.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use kafka_protocol::ResponseError;

use super::records::{self, CoordinatorRecord, GroupValue, MemberValue};

/// The protocol type of consumers.
pub const CONSUMER: &str = "consumer";

/// A request that waits for its answer.
pub type Ticket = u64;

/// What a broker's configuration says about groups.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `group.min.session.timeout.ms`.
    pub session_timeout_ms_min: i32,
    /// `group.max.session.timeout.ms`.
    pub session_timeout_ms_max: i32,
    /// `group.max.size`.
    pub members_max: usize,
    /// `group.initial.rebalance.delay.ms`.
    pub initial_rebalance_delay_ms: i32,
    /// How long a new member's first join may wait
    /// (`GroupCoordinatorConfig.CLASSIC_GROUP_NEW_MEMBER_JOIN_TIMEOUT_MS`).
    pub new_member_join_timeout_ms: i32,
    /// `offset.metadata.max.bytes`.
    pub offset_metadata_max: usize,
    /// `offsets.retention.minutes`, in milliseconds.
    pub offsets_retention_ms: i64,
    /// `offsets.commit.timeout.ms`.
    pub commit_timeout_ms: i64,
    /// `offsets.topic.num.partitions`. Kafka's default is 50.
    pub topic_partitions: i32,
    /// `offsets.topic.replication.factor`, or as many brokers as there are.
    pub topic_replication: i32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            session_timeout_ms_min: 6_000,
            session_timeout_ms_max: 1_800_000,
            members_max: i32::MAX as usize,
            initial_rebalance_delay_ms: 0,
            new_member_join_timeout_ms: 300_000,
            offset_metadata_max: 4_096,
            offsets_retention_ms: 7 * 24 * 60 * 60 * 1_000,
            commit_timeout_ms: 5_000,
            topic_partitions: 4,
            topic_replication: 3,
        }
    }
}

/// `ClassicGroupState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No members; there may be offsets.
    Empty,
    /// Members are waited for.
    PreparingRebalance,
    /// The leader's assignment is waited for.
    CompletingRebalance,
    /// Everybody knows what is theirs.
    Stable,
}

impl State {
    /// As the protocol has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// A JoinGroup request.
#[derive(Clone, Debug, Default)]
pub struct Join {
    /// Empty for a new member.
    pub member_id: String,
    /// What a new member's id will be.
    pub new_member_id: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    /// `client.id`.
    pub client_id: String,
    /// Where it connects from.
    pub client_host: String,
    /// How long it may be silent.
    pub session_timeout_ms: i32,
    /// How long it may take to join again.
    pub rebalance_timeout_ms: i32,
    /// `consumer` for consumers.
    pub protocol_type: String,
    /// Assignors and what it says to each, most wanted first.
    pub protocols: Vec<(String, Bytes)>,
    /// Whether a new dynamic member gets its id first (`JoinGroupRequest.requiresKnownMemberId`).
    pub needs_known_member_id: bool,
    /// Whether a static leader that is back may be told to leave the assignment as it is
    /// (`JoinGroupRequest.supportsSkippingAssignment`).
    pub skips_assignment: bool,
}

/// A JoinGroup answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Joined {
    /// What went wrong.
    pub error: Option<ResponseError>,
    /// The member's id.
    pub member_id: String,
    /// The generation; -1 with an error.
    pub generation: i32,
    /// `consumer` for consumers.
    pub protocol_type: Option<String>,
    /// The assignor.
    pub protocol: Option<String>,
    /// The leader's member id.
    pub leader: String,
    /// The leader needn't assign.
    pub skip_assignment: bool,
    /// For the leader: id, instance id and subscription of each member.
    pub members: Vec<(String, Option<String>, Bytes)>,
}

impl Joined {
    fn refused(member_id: &str, error: ResponseError) -> Self {
        Self {
            error: Some(error),
            member_id: member_id.to_owned(),
            generation: -1,
            ..Self::default()
        }
    }
}

/// A SyncGroup request.
#[derive(Clone, Debug, Default)]
pub struct Sync {
    /// The member.
    pub member_id: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    /// The generation that it knows.
    pub generation: i32,
    /// Its protocol type, since version 5.
    pub protocol_type: Option<String>,
    /// Its assignor, since version 5.
    pub protocol: Option<String>,
    /// The leader's assignment by member.
    pub assignments: BTreeMap<String, Bytes>,
}

/// A SyncGroup answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Synced {
    /// What went wrong.
    pub error: Option<ResponseError>,
    /// `consumer` for consumers.
    pub protocol_type: Option<String>,
    /// The assignor.
    pub protocol: Option<String>,
    /// What is the member's.
    pub assignment: Bytes,
}

impl Synced {
    fn refused(error: ResponseError) -> Self {
        Self {
            error: Some(error),
            ..Self::default()
        }
    }
}

/// A member of the group.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its id.
    pub id: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    /// `client.id`.
    pub client_id: String,
    /// Where it connects from.
    pub client_host: String,
    /// How long it may take to join again.
    pub rebalance_timeout_ms: i32,
    /// How long it may be silent.
    pub session_timeout_ms: i32,
    /// Assignors and what it says to each.
    pub protocols: Vec<(String, Bytes)>,
    /// What the leader said is its.
    pub assignment: Bytes,
    protocol_type: String,
    awaiting_join: Option<Ticket>,
    awaiting_sync: Option<Ticket>,
    is_new: bool,
}

impl Member {
    /// What it says to an assignor.
    pub fn subscription(&self, protocol: &str) -> Bytes {
        let said = self.protocols.iter().find(|(name, _)| name == protocol);
        said.map(|(_, said)| said.clone()).unwrap_or_default()
    }

    /// `ClassicGroupMember.hasSatisfiedHeartbeat`.
    fn has_satisfied_heartbeat(&self) -> bool {
        !self.is_new && (self.awaiting_join.is_some() || self.awaiting_sync.is_some())
    }

    /// `ClassicGroupMember.vote`.
    fn vote<'a>(&'a self, candidates: &BTreeSet<&str>) -> Option<&'a str> {
        let mut names = self.protocols.iter().map(|(name, _)| name.as_str());
        names.find(|name| candidates.contains(name))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Heartbeat(String),
    Join,
    Sync,
}

/// When the first rebalance of a group may still be put off.
#[derive(Clone, Copy, Debug)]
struct InitialDelay {
    delay_ms: i32,
    remaining_ms: i32,
}

/// What one step of the group may touch.
pub struct Step<'a> {
    /// The time.
    pub now_ms: i64,
    /// The broker's configuration.
    pub settings: &'a Settings,
    /// Answers to requests that waited, and to the one at hand.
    pub answers: &'a mut Answers,
    /// What must be appended to the log.
    pub records: &'a mut Vec<CoordinatorRecord>,
}

/// Answers by request, until they are fetched.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// To JoinGroup.
    pub joined: BTreeMap<Ticket, Joined>,
    /// To SyncGroup.
    pub synced: BTreeMap<Ticket, Synced>,
}

/// The group.
#[derive(Clone, Debug)]
pub struct ClassicGroup {
    id: String,
    state: State,
    previous_state: State,
    state_since_ms: Option<i64>,
    generation: i32,
    protocol_type: Option<String>,
    protocol: Option<String>,
    leader: Option<String>,
    members: BTreeMap<String, Member>,
    static_members: BTreeMap<String, String>,
    pending_join: BTreeSet<String>,
    pending_sync: BTreeSet<String>,
    new_member_added: bool,
    initial_delay: Option<InitialDelay>,
    subscribed_topics: Option<BTreeSet<String>>,
    timers: BTreeMap<Timer, i64>,
}

impl ClassicGroup {
    /// A group without members.
    pub fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            state: State::Empty,
            previous_state: State::Empty,
            state_since_ms: None,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            pending_join: BTreeSet::new(),
            pending_sync: BTreeSet::new(),
            new_member_added: false,
            initial_delay: None,
            subscribed_topics: None,
            timers: BTreeMap::new(),
        }
    }

    /// A group as a new coordinator finds it in the log
    /// (`GroupMetadataManager.replay(GroupMetadataKey, ..)`, `onLoaded`): every member gets a whole
    /// session to show itself.
    pub fn loaded(id: &str, value: GroupValue, now_ms: i64) -> Self {
        let mut group = Self::new(id);
        group.state = match value.members.is_empty() {
            true => State::Empty,
            false => State::Stable,
        };
        group.previous_state = group.state;
        group.generation = value.generation;
        group.protocol = value.protocol;
        group.leader = value.leader;
        group.state_since_ms = Some(value.state_since_ms).filter(|since| *since >= 0);
        group.protocol_type = Some(value.protocol_type).filter(|it| !it.is_empty());
        for member in value.members {
            let protocol = group.protocol.clone().unwrap_or_default();
            let member = Member {
                id: member.member_id,
                instance_id: member.instance_id,
                client_id: member.client_id,
                client_host: member.client_host,
                rebalance_timeout_ms: member.rebalance_timeout_ms,
                session_timeout_ms: member.session_timeout_ms,
                protocols: vec![(protocol, member.subscription)],
                assignment: member.assignment,
                protocol_type: group.protocol_type.clone().unwrap_or_default(),
                awaiting_join: None,
                awaiting_sync: None,
                is_new: false,
            };
            group.expect_heartbeat(&member.id, member.session_timeout_ms, now_ms);
            group.add(member);
        }
        group.subscribed_topics = group.subscriptions();
        group
    }

    /// Its name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Its generation.
    pub fn generation(&self) -> i32 {
        self.generation
    }

    /// `consumer` for consumers; `None` for a group that was only committed for.
    pub fn protocol_type(&self) -> Option<&str> {
        self.protocol_type.as_deref()
    }

    /// The assignor.
    pub fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }

    /// Its members.
    pub fn members(&self) -> impl ExactSizeIterator<Item = &Member> {
        self.members.values()
    }

    /// Whether members read the topic (`ClassicGroup.isSubscribedToTopic`).
    pub fn is_subscribed_to(&self, topic: &str) -> bool {
        self.subscribed_topics
            .as_ref()
            .is_some_and(|topics| topics.contains(topic))
    }

    /// Since when an offset's retention runs; `None` while it doesn't
    /// (`ClassicGroup.offsetExpirationCondition`).
    pub fn retention_runs_since(&self, committed_at_ms: i64) -> Option<i64> {
        match (&self.protocol_type, self.state) {
            (None, _) => Some(committed_at_ms),
            (Some(_), State::Empty) => Some(self.state_since_ms.unwrap_or(committed_at_ms)),
            (Some(kind), State::Stable) if kind == CONSUMER && self.subscribed_topics.is_some() => {
                Some(committed_at_ms)
            }
            _ => None,
        }
    }

    /// The group as it is stored, with each member's assignment
    /// (`GroupCoordinatorRecordHelpers.newGroupMetadataRecord`).
    pub fn record(&self, assignments: &BTreeMap<String, Bytes>) -> CoordinatorRecord {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let members = self.members.values().map(|member| MemberValue {
            member_id: member.id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
            subscription: member.subscription(protocol),
            assignment: assignments.get(&member.id).cloned().unwrap_or_default(),
        });
        let value = GroupValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            state_since_ms: self.state_since_ms.unwrap_or(-1),
            members: members.collect(),
        };
        records::group(&self.id, &value)
    }

    /// A new group as it is stored (`GroupCoordinatorRecordHelpers.newEmptyGroupMetadataRecord`).
    pub fn empty_record(&self) -> CoordinatorRecord {
        let value = GroupValue {
            state_since_ms: self.state_since_ms.unwrap_or(-1),
            ..GroupValue::default()
        };
        records::group(&self.id, &value)
    }

    /// `ClassicGroup.validateOffsetCommit`.
    ///
    /// # Errors
    /// Why the commit isn't taken. UNKNOWN_MEMBER_ID for one from outside while there are members.
    pub fn check_commit(
        &self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        is_transactional: bool,
    ) -> Result<(), ResponseError> {
        if generation < 0 && self.state == State::Empty {
            return Ok(());
        }
        if generation >= 0 || !member_id.is_empty() || instance_id.is_some() {
            self.check_member(member_id, instance_id)?;
            if generation != self.generation {
                return Err(ResponseError::IllegalGeneration);
            }
        } else if !is_transactional && self.state != State::Empty {
            return Err(ResponseError::UnknownMemberId);
        }
        if !is_transactional && self.state == State::CompletingRebalance {
            return Err(ResponseError::RebalanceInProgress);
        }
        Ok(())
    }

    /// `ClassicGroup.validateOffsetDelete`.
    ///
    /// # Errors
    /// NON_EMPTY_GROUP for members that aren't consumers: what they read isn't known.
    pub fn check_offset_delete(&self) -> Result<(), ResponseError> {
        let are_consumers = self.protocol_type.as_deref() == Some(CONSUMER);
        match self.state {
            State::Empty => Ok(()),
            _ if are_consumers => Ok(()),
            _ => Err(ResponseError::NonEmptyGroup),
        }
    }

    /// `ClassicGroup.validateDeleteGroup`.
    ///
    /// # Errors
    /// NON_EMPTY_GROUP while there are members.
    pub fn check_delete(&self) -> Result<(), ResponseError> {
        match self.state {
            State::Empty => Ok(()),
            _ => Err(ResponseError::NonEmptyGroup),
        }
    }

    /// A commit of a member is a sign of life (`OffsetMetadataManager.commitOffset`).
    pub fn note_commit(&mut self, member_id: &str, now_ms: i64) {
        if matches!(self.state, State::Stable | State::PreparingRebalance) {
            self.note_alive(member_id, now_ms);
        }
    }

    /// `GroupMetadataManager.classicGroupJoinToClassicGroup`: the answer to `ticket` is there at
    /// once or later.
    pub fn join(&mut self, join: &Join, ticket: Ticket, step: &mut Step<'_>) {
        if !self.has_room_for(&join.member_id, step) {
            self.remove(&join.member_id);
            let answer = Joined::refused("", ResponseError::GroupMaxSizeReached);
            step.answers.joined.insert(ticket, answer);
        } else if !self.supports(join) {
            let answer = Joined::refused(&join.member_id, ResponseError::InconsistentGroupProtocol);
            step.answers.joined.insert(ticket, answer);
        } else if join.member_id.is_empty() {
            self.join_new(join, ticket, step);
        } else {
            self.join_known(join, ticket, step);
        }
    }

    /// `GroupMetadataManager.acceptJoiningMember`.
    fn has_room_for(&self, member_id: &str, step: &Step<'_>) -> bool {
        let max = step.settings.members_max;
        let member = self.members.get(member_id);
        match self.state {
            State::Empty => true,
            State::PreparingRebalance => {
                member.is_some_and(|member| member.awaiting_join.is_some())
                    || self.awaiting_join() < max
            }
            State::CompletingRebalance | State::Stable => {
                member.is_some() || self.members.len() < max
            }
        }
    }

    /// `ClassicGroup.supportsProtocols`.
    fn supports(&self, join: &Join) -> bool {
        if self.state == State::Empty {
            return !join.protocol_type.is_empty() && !join.protocols.is_empty();
        }
        let by_all = |name: &str| self.supporters(name) == self.members.len();
        self.protocol_type.as_deref() == Some(join.protocol_type.as_str())
            && join.protocols.iter().any(|(name, _)| by_all(name))
    }

    fn supporters(&self, protocol: &str) -> usize {
        let names = self.members.values().flat_map(|member| &member.protocols);
        names.filter(|(name, _)| name == protocol).count()
    }

    /// `GroupMetadataManager.classicGroupJoinNewMember`.
    fn join_new(&mut self, join: &Join, ticket: Ticket, step: &mut Step<'_>) {
        let existing = join
            .instance_id
            .as_ref()
            .and_then(|instance| self.static_members.get(instance));
        match (&join.instance_id, existing) {
            (Some(instance), Some(existing)) => {
                let existing = existing.clone();
                self.replace_static(instance.clone().as_str(), &existing, join, ticket, step);
            }
            (Some(_), None) => self.add_and_rebalance(&join.new_member_id, join, ticket, step),
            (None, _) if join.needs_known_member_id => {
                self.pending_join.insert(join.new_member_id.clone());
                self.expect_heartbeat(&join.new_member_id, join.session_timeout_ms, step.now_ms);
                let answer = Joined::refused(&join.new_member_id, ResponseError::MemberIdRequired);
                step.answers.joined.insert(ticket, answer);
            }
            (None, _) => self.add_and_rebalance(&join.new_member_id, join, ticket, step),
        }
    }

    /// `GroupMetadataManager.classicGroupJoinExistingMember`.
    fn join_known(&mut self, join: &Join, ticket: Ticket, step: &mut Step<'_>) {
        let id = join.member_id.as_str();
        if self.pending_join.contains(id) {
            return self.add_and_rebalance(id, join, ticket, step);
        }
        if let Err(error) = self.check_member(id, join.instance_id.as_deref()) {
            let answer = Joined::refused(id, error);
            step.answers.joined.insert(ticket, answer);
            return;
        }
        let same = self
            .members
            .get(id)
            .is_some_and(|member| member.protocols == join.protocols);
        let is_leader = self.is_leader(id);
        match self.state {
            State::PreparingRebalance => self.update_and_rebalance(id, join, ticket, step),
            // The first answer was lost, perhaps.
            State::CompletingRebalance if same => {
                let answer = self.joined(id, is_leader);
                step.answers.joined.insert(ticket, answer);
            }
            // A leader asks for a rebalance with that; a member that says nothing new doesn't.
            State::Stable if same && !is_leader => {
                let answer = self.joined(id, false);
                step.answers.joined.insert(ticket, answer);
            }
            State::CompletingRebalance | State::Stable => {
                self.update_and_rebalance(id, join, ticket, step);
            }
            State::Empty => {
                let answer = Joined::refused(id, ResponseError::UnknownMemberId);
                step.answers.joined.insert(ticket, answer);
            }
        }
    }

    /// The current generation as a member is told of it.
    fn joined(&self, member_id: &str, with_members: bool) -> Joined {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let members = self.members.values().map(|member| {
            let subscription = member.subscription(protocol);
            (member.id.clone(), member.instance_id.clone(), subscription)
        });
        Joined {
            error: None,
            member_id: member_id.to_owned(),
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            skip_assignment: false,
            members: members.take_while(|_| with_members).collect(),
        }
    }

    /// `GroupMetadataManager.addMemberThenRebalanceOrCompleteJoin`.
    fn add_and_rebalance(&mut self, id: &str, join: &Join, ticket: Ticket, step: &mut Step<'_>) {
        let member = Member {
            id: id.to_owned(),
            instance_id: join.instance_id.clone(),
            client_id: join.client_id.clone(),
            client_host: join.client_host.clone(),
            rebalance_timeout_ms: join.rebalance_timeout_ms,
            session_timeout_ms: join.session_timeout_ms,
            protocols: join.protocols.clone(),
            assignment: Bytes::new(),
            protocol_type: join.protocol_type.clone(),
            awaiting_join: Some(ticket),
            awaiting_sync: None,
            is_new: true,
        };
        if self.state == State::PreparingRebalance && self.previous_state == State::Empty {
            self.new_member_added = true;
        }
        self.add(member);
        // It can't send heartbeats before it knows its id.
        let timeout_ms = step.settings.new_member_join_timeout_ms;
        self.expect_heartbeat(id, timeout_ms, step.now_ms);
        self.rebalance_or_complete(step);
    }

    /// `ClassicGroup.add`.
    fn add(&mut self, member: Member) {
        if self.members.is_empty() {
            self.protocol_type = Some(member.protocol_type.clone());
        }
        if self.leader.is_none() {
            self.leader = Some(member.id.clone());
        }
        if let Some(instance) = &member.instance_id {
            self.static_members
                .insert(instance.clone(), member.id.clone());
        }
        self.pending_join.remove(&member.id);
        self.members.insert(member.id.clone(), member);
    }

    /// `GroupMetadataManager.updateMemberThenRebalanceOrCompleteJoin`.
    fn update_and_rebalance(&mut self, id: &str, join: &Join, ticket: Ticket, step: &mut Step<'_>) {
        self.update(id, join, ticket);
        self.rebalance_or_complete(step);
    }

    /// `ClassicGroup.updateMember`.
    fn update(&mut self, id: &str, join: &Join, ticket: Ticket) {
        if let Some(member) = self.members.get_mut(id) {
            member.protocols = join.protocols.clone();
            member.rebalance_timeout_ms = join.rebalance_timeout_ms;
            member.session_timeout_ms = join.session_timeout_ms;
            member.awaiting_join = Some(ticket);
        }
    }

    /// A static member is back under a new member id
    /// (`GroupMetadataManager.updateStaticMemberThenRebalanceOrCompleteJoin`).
    fn replace_static(
        &mut self,
        instance: &str,
        old_id: &str,
        join: &Join,
        ticket: Ticket,
        step: &mut Step<'_>,
    ) {
        let old_leader = self.leader.clone();
        let Some(mut member) = self.members.remove(old_id) else {
            return;
        };
        // Whoever still waits under the old id is fenced (`ClassicGroup.replaceStaticMember`).
        if let Some(waiting) = member.awaiting_join.take() {
            let answer = Joined::refused(old_id, ResponseError::FencedInstanceId);
            step.answers.joined.insert(waiting, answer);
        }
        if let Some(waiting) = member.awaiting_sync.take() {
            let answer = Synced::refused(ResponseError::FencedInstanceId);
            step.answers.synced.insert(waiting, answer);
        }
        let new_id = join.new_member_id.clone();
        member.id = new_id.clone();
        self.members.insert(new_id.clone(), member);
        self.static_members
            .insert(instance.to_owned(), new_id.clone());
        if self.is_leader(old_id) {
            self.leader = Some(new_id.clone());
        }
        self.pending_sync.remove(old_id);
        self.timers.remove(&Timer::Heartbeat(old_id.to_owned()));
        self.update(&new_id, join, ticket);
        self.note_alive(&new_id, step.now_ms);
        match self.state {
            State::Stable if self.select_protocol() == self.protocol => {
                // Nothing changes for the others: the new id is stored, no rebalance.
                step.records.push(self.record(&self.assignments()));
                let is_leader = self.is_leader(&new_id);
                let answer = match join.skips_assignment {
                    true => Joined {
                        skip_assignment: is_leader,
                        ..self.joined(&new_id, is_leader)
                    },
                    false => Joined {
                        leader: old_leader.unwrap_or_default(),
                        ..self.joined(&new_id, false)
                    },
                };
                self.answer_join(&new_id, answer, step);
            }
            State::Stable => self.rebalance_or_complete(step),
            State::CompletingRebalance => self.prepare_rebalance(step),
            State::PreparingRebalance | State::Empty => self.maybe_complete_join(step),
        }
    }

    /// `GroupMetadataManager.classicGroupSyncToClassicGroup`.
    pub fn sync(&mut self, sync: &Sync, ticket: Ticket, step: &mut Step<'_>) {
        if let Err(error) = self.check_sync(sync) {
            step.answers.synced.insert(ticket, Synced::refused(error));
            return;
        }
        let id = sync.member_id.as_str();
        match self.state {
            State::PreparingRebalance => {
                let answer = Synced::refused(ResponseError::RebalanceInProgress);
                step.answers.synced.insert(ticket, answer);
            }
            State::CompletingRebalance => {
                if let Some(member) = self.members.get_mut(id) {
                    member.awaiting_sync = Some(ticket);
                }
                self.note_synced(id);
                if self.is_leader(id) {
                    let assignments = self.members.keys().map(|id| {
                        let assigned = sync.assignments.get(id).cloned();
                        (id.clone(), assigned.unwrap_or_default())
                    });
                    let assignments: BTreeMap<String, Bytes> = assignments.collect();
                    step.records.push(self.record(&assignments));
                    for (id, assignment) in assignments {
                        if let Some(member) = self.members.get_mut(&id) {
                            member.assignment = assignment;
                        }
                    }
                    self.propagate(None, step);
                    self.enter(State::Stable, step.now_ms);
                }
            }
            State::Stable => {
                self.note_synced(id);
                let answer = self.synced(id);
                step.answers.synced.insert(ticket, answer);
            }
            State::Empty => {
                let answer = Synced::refused(ResponseError::UnknownMemberId);
                step.answers.synced.insert(ticket, answer);
            }
        }
    }

    /// `GroupMetadataManager.validateSyncGroup`. A group without members says UNKNOWN_MEMBER_ID
    /// (`classicGroupSync`), which nobody being a member amounts to.
    fn check_sync(&self, sync: &Sync) -> Result<(), ResponseError> {
        self.check_member(&sync.member_id, sync.instance_id.as_deref())?;
        if sync.generation != self.generation {
            return Err(ResponseError::IllegalGeneration);
        }
        let differs = |said: &Option<String>, ours: &Option<String>| {
            said.is_some() && ours.is_some() && said != ours
        };
        if differs(&sync.protocol_type, &self.protocol_type)
            || differs(&sync.protocol, &self.protocol)
        {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        Ok(())
    }

    fn note_synced(&mut self, id: &str) {
        self.pending_sync.remove(id);
        if self.pending_sync.is_empty() {
            self.timers.remove(&Timer::Sync);
        }
    }

    fn synced(&self, id: &str) -> Synced {
        let member = self.members.get(id);
        Synced {
            error: None,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: member
                .map(|member| member.assignment.clone())
                .unwrap_or_default(),
        }
    }

    /// `GroupMetadataManager.propagateAssignment`.
    fn propagate(&mut self, error: Option<ResponseError>, step: &mut Step<'_>) {
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let answer = match error {
                Some(error) => Synced::refused(error),
                None => self.synced(&id),
            };
            let waiting = self
                .members
                .get_mut(&id)
                .and_then(|member| member.awaiting_sync.take());
            if let Some(ticket) = waiting {
                step.answers.synced.insert(ticket, answer);
                self.note_alive(&id, step.now_ms);
            }
        }
    }

    /// `GroupMetadataManager.classicGroupHeartbeatToClassicGroup`.
    ///
    /// # Errors
    /// Why the member must join again, or can't.
    pub fn heartbeat(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        now_ms: i64,
    ) -> Result<(), ResponseError> {
        self.check_member(member_id, instance_id)?;
        if generation != self.generation {
            return Err(ResponseError::IllegalGeneration);
        }
        match self.state {
            State::Empty => Err(ResponseError::UnknownMemberId),
            State::PreparingRebalance => {
                self.note_alive(member_id, now_ms);
                Err(ResponseError::RebalanceInProgress)
            }
            State::CompletingRebalance | State::Stable => {
                self.note_alive(member_id, now_ms);
                Ok(())
            }
        }
    }

    /// Takes members out, and says of each what became of it
    /// (`GroupMetadataManager.classicGroupLeaveToClassicGroup`).
    pub fn leave(
        &mut self,
        members: &[(String, Option<String>)],
        step: &mut Step<'_>,
    ) -> Vec<Result<(), ResponseError>> {
        let results = members.iter().map(|(id, instance)| {
            let left = self.leaving(id, instance.as_deref())?;
            self.timers.remove(&Timer::Heartbeat(left.clone()));
            if !self.pending_join.contains(&left) {
                let answer = Joined::refused("", ResponseError::UnknownMemberId);
                self.answer_join(&left, answer, step);
            }
            self.remove(&left);
            Ok(())
        });
        let results: Vec<Result<(), ResponseError>> = results.collect();
        if results.iter().any(Result::is_ok) {
            match self.state {
                State::Stable | State::CompletingRebalance => self.rebalance_or_complete(step),
                State::PreparingRebalance => self.maybe_complete_join(step),
                State::Empty => {}
            }
        }
        results
    }

    /// Who leaves: a static member may be named by its instance alone.
    fn leaving(&self, id: &str, instance: Option<&str>) -> Result<String, ResponseError> {
        if id.is_empty() {
            let named = instance.and_then(|instance| self.static_members.get(instance));
            return named.cloned().ok_or(ResponseError::UnknownMemberId);
        }
        if !self.pending_join.contains(id) {
            self.check_member(id, instance)?;
        }
        Ok(id.to_owned())
    }

    /// `ClassicGroup.validateMember`.
    fn check_member(&self, id: &str, instance: Option<&str>) -> Result<(), ResponseError> {
        if let Some(instance) = instance {
            match self.static_members.get(instance) {
                None => return Err(ResponseError::UnknownMemberId),
                Some(existing) if existing != id => return Err(ResponseError::FencedInstanceId),
                Some(_) => {}
            }
        }
        match self.members.contains_key(id) {
            true => Ok(()),
            false => Err(ResponseError::UnknownMemberId),
        }
    }

    /// `GroupMetadataManager.maybePrepareRebalanceOrCompleteJoin`.
    fn rebalance_or_complete(&mut self, step: &mut Step<'_>) {
        match self.state {
            State::PreparingRebalance => self.maybe_complete_join(step),
            State::Empty | State::CompletingRebalance | State::Stable => {
                self.prepare_rebalance(step);
            }
        }
    }

    /// `GroupMetadataManager.prepareRebalance`.
    fn prepare_rebalance(&mut self, step: &mut Step<'_>) {
        if self.state == State::CompletingRebalance {
            for member in self.members.values_mut() {
                member.assignment = Bytes::new();
            }
            self.propagate(Some(ResponseError::RebalanceInProgress), step);
        }
        self.pending_sync.clear();
        self.timers.remove(&Timer::Sync);
        let is_initial = self.state == State::Empty;
        self.enter(State::PreparingRebalance, step.now_ms);
        if is_initial {
            let delay_ms = step.settings.initial_rebalance_delay_ms;
            let remaining_ms = (self.rebalance_timeout_ms() - delay_ms).max(0);
            self.initial_delay = Some(InitialDelay {
                delay_ms,
                remaining_ms,
            });
            self.timers
                .insert(Timer::Join, step.now_ms + i64::from(delay_ms));
            if delay_ms == 0 {
                self.end_initial_delay(step);
            }
        } else if self.has_all_joined() {
            self.complete_join(step);
        } else {
            let due = step.now_ms + i64::from(self.rebalance_timeout_ms());
            self.timers.insert(Timer::Join, due);
        }
    }

    /// `GroupMetadataManager.maybeCompleteJoinPhase`.
    fn maybe_complete_join(&mut self, step: &mut Step<'_>) {
        let may = self.state == State::PreparingRebalance
            && self.previous_state != State::Empty
            && self.has_all_joined();
        if may {
            self.complete_join(step);
        }
    }

    /// `GroupMetadataManager.tryCompleteInitialRebalanceElseSchedule`.
    fn end_initial_delay(&mut self, step: &mut Step<'_>) {
        let delay = self.initial_delay.take();
        match delay {
            Some(InitialDelay {
                delay_ms,
                remaining_ms,
            }) if self.new_member_added && remaining_ms != 0 => {
                self.new_member_added = false;
                let next_ms = step.settings.initial_rebalance_delay_ms.min(remaining_ms);
                self.initial_delay = Some(InitialDelay {
                    delay_ms: next_ms,
                    remaining_ms: (remaining_ms - delay_ms).max(0),
                });
                self.timers
                    .insert(Timer::Join, step.now_ms + i64::from(next_ms));
            }
            _ => self.complete_join(step),
        }
    }

    /// `GroupMetadataManager.completeClassicGroupJoin`.
    fn complete_join(&mut self, step: &mut Step<'_>) {
        self.timers.remove(&Timer::Join);
        self.initial_delay = None;
        let missing = self.members.values();
        let missing = missing.filter(|it| it.awaiting_join.is_none() && it.instance_id.is_none());
        let missing: Vec<String> = missing.map(|member| member.id.clone()).collect();
        for id in missing {
            self.remove(&id);
            self.timers.remove(&Timer::Heartbeat(id));
        }
        if !self.elect_joined_leader() && !self.members.is_empty() {
            // Only static members that haven't come back: their sessions decide.
            let due = step.now_ms + i64::from(self.rebalance_timeout_ms());
            self.timers.insert(Timer::Join, due);
            return;
        }
        self.next_generation(step.now_ms);
        if self.state == State::Empty {
            step.records.push(self.record(&BTreeMap::new()));
            return;
        }
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in &ids {
            let answer = self.joined(id, self.is_leader(id));
            self.answer_join(id, answer, step);
            self.note_alive(id, step.now_ms);
            if let Some(member) = self.members.get_mut(id) {
                member.is_new = false;
            }
            self.pending_sync.insert(id.clone());
        }
        let due = step.now_ms + i64::from(self.rebalance_timeout_ms());
        self.timers.insert(Timer::Sync, due);
    }

    /// `ClassicGroup.maybeElectNewJoinedLeader`.
    fn elect_joined_leader(&mut self) -> bool {
        let Some(leader) = self.leader.as_ref().and_then(|id| self.members.get(id)) else {
            return false;
        };
        if leader.awaiting_join.is_some() {
            return true;
        }
        let mut joined = self.members.values();
        match joined.find(|member| member.awaiting_join.is_some()) {
            Some(member) => {
                self.leader = Some(member.id.clone());
                true
            }
            None => false,
        }
    }

    /// `ClassicGroup.initNextGeneration`.
    fn next_generation(&mut self, now_ms: i64) {
        self.generation += 1;
        self.protocol = self.select_protocol();
        self.subscribed_topics = self.subscriptions();
        let next = match self.members.is_empty() {
            true => State::Empty,
            false => State::CompletingRebalance,
        };
        self.enter(next, now_ms);
        self.pending_sync.clear();
    }

    /// `ClassicGroup.selectProtocol`: of what all support, what most want most.
    fn select_protocol(&self) -> Option<String> {
        let names = self.members.values().flat_map(|member| &member.protocols);
        let candidates: BTreeSet<&str> = names
            .map(|(name, _)| name.as_str())
            .filter(|name| self.supporters(name) == self.members.len())
            .collect();
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        let voters = self.members.values();
        for name in voters.filter_map(|member| member.vote(&candidates)) {
            *votes.entry(name).or_default() += 1;
        }
        let most = votes.into_iter().max_by_key(|(_, votes)| *votes);
        most.map(|(name, _)| name.to_owned())
    }

    /// `ClassicGroup.computeSubscribedTopics`: the first version of the consumer protocol is the
    /// beginning of all others.
    fn subscriptions(&self) -> Option<BTreeSet<String>> {
        if self.protocol_type.as_deref() != Some(CONSUMER) {
            return None;
        }
        if self.members.is_empty() {
            return Some(BTreeSet::new());
        }
        let protocol = self.protocol.as_deref()?;
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(subscribed(member.subscription(protocol))?);
        }
        Some(topics)
    }

    /// When something happens to the group by itself.
    pub fn next_timer_ms(&self) -> Option<i64> {
        self.timers.values().min().copied()
    }

    /// What is due by now.
    pub fn tick(&mut self, step: &mut Step<'_>) {
        loop {
            let first = self.timers.iter().min_by_key(|(_, due)| **due);
            let Some((timer, due)) = first.map(|(timer, due)| (timer.clone(), *due)) else {
                return;
            };
            if due > step.now_ms {
                return;
            }
            self.timers.remove(&timer);
            match timer {
                Timer::Heartbeat(id) => self.expire_session(&id, step),
                Timer::Join if self.initial_delay.is_some() => self.end_initial_delay(step),
                Timer::Join => self.complete_join(step),
                Timer::Sync => self.expire_sync(step),
            }
        }
    }

    /// `GroupMetadataManager.expireClassicGroupMemberHeartbeat`.
    fn expire_session(&mut self, id: &str, step: &mut Step<'_>) {
        if self.pending_join.contains(id) {
            self.remove(id);
        } else if let Some(member) = self.members.get(id) {
            if member.has_satisfied_heartbeat() {
                return;
            }
            let answer = Joined::refused("", ResponseError::UnknownMemberId);
            self.answer_join(id, answer, step);
            self.remove(id);
            if matches!(self.state, State::Stable | State::CompletingRebalance) {
                return self.rebalance_or_complete(step);
            }
        } else {
            return;
        }
        if self.state == State::PreparingRebalance && self.has_all_joined() {
            self.complete_join(step);
        }
    }

    /// `GroupMetadataManager.expirePendingSync`.
    fn expire_sync(&mut self, step: &mut Step<'_>) {
        let is_awaited = matches!(self.state, State::CompletingRebalance | State::Stable);
        if !is_awaited || self.pending_sync.is_empty() {
            return;
        }
        for id in std::mem::take(&mut self.pending_sync) {
            self.remove(&id);
            self.timers.remove(&Timer::Heartbeat(id));
        }
        self.prepare_rebalance(step);
    }

    /// `ClassicGroup.remove`.
    fn remove(&mut self, id: &str) {
        if let Some(member) = self.members.remove(id)
            && let Some(instance) = member.instance_id
        {
            self.static_members.remove(&instance);
        }
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
        self.pending_join.remove(id);
        self.pending_sync.remove(id);
    }

    fn answer_join(&mut self, id: &str, answer: Joined, step: &mut Step<'_>) {
        let waiting = self
            .members
            .get_mut(id)
            .and_then(|member| member.awaiting_join.take());
        if let Some(ticket) = waiting {
            step.answers.joined.insert(ticket, answer);
        }
    }

    fn note_alive(&mut self, id: &str, now_ms: i64) {
        if let Some(member) = self.members.get(id) {
            self.expect_heartbeat(id, member.session_timeout_ms, now_ms);
        }
    }

    fn expect_heartbeat(&mut self, id: &str, timeout_ms: i32, now_ms: i64) {
        let due = now_ms + i64::from(timeout_ms);
        self.timers.insert(Timer::Heartbeat(id.to_owned()), due);
    }

    fn enter(&mut self, state: State, now_ms: i64) {
        self.previous_state = self.state;
        self.state = state;
        self.state_since_ms = Some(now_ms);
    }

    fn is_leader(&self, id: &str) -> bool {
        self.leader.as_deref() == Some(id)
    }

    fn awaiting_join(&self) -> usize {
        let members = self.members.values();
        members.filter(|it| it.awaiting_join.is_some()).count()
    }

    /// `ClassicGroup.hasAllMembersJoined`.
    fn has_all_joined(&self) -> bool {
        self.awaiting_join() == self.members.len() && self.pending_join.is_empty()
    }

    fn rebalance_timeout_ms(&self) -> i32 {
        let timeouts = self.members.values().map(|it| it.rebalance_timeout_ms);
        timeouts.max().unwrap_or(0)
    }

    fn assignments(&self) -> BTreeMap<String, Bytes> {
        let members = self.members.values();
        members
            .map(|member| (member.id.clone(), member.assignment.clone()))
            .collect()
    }
}

/// The topics in a `ConsumerProtocolSubscription`.
fn subscribed(mut subscription: Bytes) -> Option<BTreeSet<String>> {
    use bytes::Buf as _;
    let _version = subscription.try_get_i16().ok()?;
    let mut topics = BTreeSet::new();
    for _ in 0..subscription.try_get_i32().ok()? {
        let length = usize::try_from(subscription.try_get_i16().ok()?).ok()?;
        let topic = (subscription.len() >= length).then(|| subscription.split_to(length))?;
        topics.insert(String::from_utf8(topic.to_vec()).ok()?);
    }
    Some(topics)
}

#[cfg(test)]
mod tests;
