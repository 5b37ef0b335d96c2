//! What members see of a group's life.

use super::*;

/// A group with the clock and the answers that a coordinator would have around it.
struct Stage {
    group: ClassicGroup,
    now_ms: i64,
    settings: Settings,
    answers: Answers,
    records: Vec<CoordinatorRecord>,
    tickets: Ticket,
}

impl Stage {
    fn new() -> Self {
        Self {
            group: ClassicGroup::new("g"),
            now_ms: 1_000,
            settings: Settings::default(),
            answers: Answers::default(),
            records: Vec::new(),
            tickets: 0,
        }
    }

    fn step<T>(&mut self, act: impl FnOnce(&mut ClassicGroup, &mut Step<'_>) -> T) -> T {
        let mut step = Step {
            now_ms: self.now_ms,
            settings: &self.settings,
            answers: &mut self.answers,
            records: &mut self.records,
        };
        act(&mut self.group, &mut step)
    }

    fn join(&mut self, join: &Join) -> Ticket {
        self.tickets += 1;
        let ticket = self.tickets;
        self.step(|group, step| group.join(join, ticket, step));
        ticket
    }

    fn sync(&mut self, sync: &Sync) -> Ticket {
        self.tickets += 1;
        let ticket = self.tickets;
        self.step(|group, step| group.sync(sync, ticket, step));
        ticket
    }

    fn advance(&mut self, by_ms: i64) {
        self.now_ms += by_ms;
        self.step(|group, step| group.tick(step));
    }

    fn joined(&mut self, ticket: Ticket) -> Option<Joined> {
        self.answers.joined.remove(&ticket)
    }

    fn synced(&mut self, ticket: Ticket) -> Option<Synced> {
        self.answers.synced.remove(&ticket)
    }

    /// Members that joined and were assigned what is called as they are.
    fn stable(&mut self, members: &[&str]) {
        let tickets: Vec<Ticket> = members.iter().map(|id| self.join(&new(id))).collect();
        // The first member's generation ended when the second came.
        let again: Vec<Ticket> = members[..members.len() - 1]
            .iter()
            .map(|id| self.join(&known(id)))
            .collect();
        for ticket in tickets.into_iter().chain(again) {
            self.joined(ticket);
        }
        let generation = self.group.generation();
        let leader = self.group.leader.clone().expect("a leader");
        let assignments = members.iter().map(|id| ((*id).to_owned(), said(id)));
        let assignments: BTreeMap<String, Bytes> = assignments.collect();
        for id in members {
            let sync = Sync {
                member_id: (*id).to_owned(),
                generation,
                assignments: match *id == leader {
                    true => assignments.clone(),
                    false => BTreeMap::new(),
                },
                ..Sync::default()
            };
            self.sync(&sync);
        }
        assert_eq!(self.group.state(), State::Stable);
        self.answers = Answers::default();
        self.records.clear();
    }
}

fn said(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// A client whose first join makes it a member at once (before version 4).
fn new(id: &str) -> Join {
    Join {
        new_member_id: id.to_owned(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: CONSUMER.to_owned(),
        protocols: vec![("range".to_owned(), said("s"))],
        ..Join::default()
    }
}

fn known(id: &str) -> Join {
    Join {
        member_id: id.to_owned(),
        ..new(id)
    }
}

#[test]
fn a_new_dynamic_member_gets_its_id_first() {
    let mut stage = Stage::new();
    let asks = Join {
        needs_known_member_id: true,
        ..new("a")
    };
    let ticket = stage.join(&asks);
    let answer = stage.joined(ticket).expect("at once");
    assert_eq!(answer.error, Some(ResponseError::MemberIdRequired));
    assert_eq!(answer.member_id, "a");
    assert_eq!(stage.group.state(), State::Empty);

    let ticket = stage.join(&known("a"));
    let answer = stage.joined(ticket).expect("nobody else is waited for");
    assert_eq!((answer.error, answer.generation), (None, 1));
    assert_eq!(answer.leader, "a");
    assert_eq!(answer.members.len(), 1);
    assert_eq!(stage.group.state(), State::CompletingRebalance);
}

#[test]
fn the_leader_s_assignment_is_stored_and_reaches_everybody() {
    let mut stage = Stage::new();
    let first = stage.join(&new("a"));
    assert!(stage.joined(first).is_some());
    let second = stage.join(&new("b"));
    assert_eq!(stage.joined(second), None, "the leader is waited for");
    let again = stage.join(&known("a"));
    let leader = stage.joined(again).expect("all are there");
    assert_eq!((leader.generation, leader.members.len()), (2, 2));
    let follower = stage.joined(second).expect("all are there");
    assert_eq!((follower.generation, follower.members.len()), (2, 0));

    let sync = |id: &str| Sync {
        member_id: id.to_owned(),
        generation: 2,
        ..Sync::default()
    };
    let follower = stage.sync(&sync("b"));
    assert_eq!(stage.synced(follower), None, "the leader is waited for");
    let leader = stage.sync(&Sync {
        assignments: BTreeMap::from([("b".to_owned(), said("theirs"))]),
        ..sync("a")
    });
    assert_eq!(stage.synced(leader).expect("at once").assignment, "");
    let follower = stage.synced(follower).expect("now");
    assert_eq!(follower.assignment, said("theirs"));
    assert_eq!(follower.protocol.as_deref(), Some("range"));
    assert_eq!(stage.group.state(), State::Stable);
    let stored = stage.records.pop().and_then(|record| record.value);
    let stored = stored.and_then(records::read_group).expect("stored");
    assert_eq!((stored.generation, stored.members.len()), (2, 2));
    assert_eq!(stored.members[1].assignment, said("theirs"));
}

#[test]
fn a_member_that_is_silent_is_taken_out_after_its_session() {
    let mut stage = Stage::new();
    stage.stable(&["a", "b"]);
    stage.advance(9_000);
    let generation = stage.group.generation();
    let now_ms = stage.now_ms;
    let alive = stage.group.heartbeat("a", None, generation, now_ms);
    assert_eq!(alive, Ok(()));
    assert_eq!(stage.group.next_timer_ms(), Some(1_000 + 10_000));
    stage.advance(1_000);
    let alive = stage.group.heartbeat("a", None, generation, stage.now_ms);
    assert_eq!(alive, Err(ResponseError::RebalanceInProgress));
    let ticket = stage.join(&known("a"));
    let answer = stage.joined(ticket).expect("it is the only one");
    assert_eq!(
        (answer.generation, answer.members.len()),
        (generation + 1, 1)
    );
}

#[test]
fn the_last_member_that_leaves_leaves_an_empty_group() {
    let mut stage = Stage::new();
    stage.stable(&["a"]);
    let members = [("a".to_owned(), None), ("x".to_owned(), None)];
    let left = stage.step(|group, step| group.leave(&members, step));
    assert_eq!(left, [Ok(()), Err(ResponseError::UnknownMemberId)]);
    assert_eq!(stage.group.state(), State::Empty);
    let stored = stage.records.pop().and_then(|record| record.value);
    let stored = stored.and_then(records::read_group).expect("stored");
    assert_eq!((stored.generation, stored.members.len()), (2, 0));
    assert_eq!(stored.protocol_type, CONSUMER);
}

#[test]
fn a_member_that_does_not_join_again_in_time_is_left_behind() {
    let mut stage = Stage::new();
    stage.stable(&["a", "b"]);
    let ticket = stage.join(&known("a"));
    // "b" shows that it lives, but doesn't join.
    for _ in 0..7 {
        stage.advance(8_999);
        let generation = stage.group.generation();
        let _ = stage.group.heartbeat("b", None, generation, stage.now_ms);
    }
    let answer = stage.joined(ticket).expect("the rebalance timed out");
    assert_eq!(answer.members.len(), 1);
}

#[test]
fn commits_are_taken_from_members_of_the_generation_and_from_outside_only_without_members() {
    let mut stage = Stage::new();
    let outside = |stage: &Stage| stage.group.check_commit("", None, -1, false);
    assert_eq!(outside(&stage), Ok(()));
    stage.stable(&["a"]);
    assert_eq!(outside(&stage), Err(ResponseError::UnknownMemberId));
    let member =
        |stage: &Stage, id: &str, generation| stage.group.check_commit(id, None, generation, false);
    assert_eq!(member(&stage, "a", 1), Ok(()));
    assert_eq!(
        member(&stage, "a", 2),
        Err(ResponseError::IllegalGeneration)
    );
    assert_eq!(member(&stage, "x", 1), Err(ResponseError::UnknownMemberId));
    // A transaction of an old client names no member, and is let in.
    assert_eq!(stage.group.check_commit("", None, -1, true), Ok(()));
    let ticket = stage.join(&known("a"));
    assert!(stage.joined(ticket).is_some());
    assert_eq!(
        member(&stage, "a", 2),
        Err(ResponseError::RebalanceInProgress)
    );
}

#[test]
fn deleting_needs_a_group_without_members() {
    let mut stage = Stage::new();
    assert_eq!(stage.group.check_delete(), Ok(()));
    stage.stable(&["a"]);
    assert_eq!(
        stage.group.check_delete(),
        Err(ResponseError::NonEmptyGroup)
    );
    assert_eq!(stage.group.check_offset_delete(), Ok(()), "consumers");
}

#[test]
fn another_protocol_is_refused_while_there_are_members() {
    let mut stage = Stage::new();
    stage.stable(&["a"]);
    let other = Join {
        protocols: vec![("other".to_owned(), said("s"))],
        ..new("b")
    };
    let ticket = stage.join(&other);
    let answer = stage.joined(ticket).expect("at once");
    assert_eq!(answer.error, Some(ResponseError::InconsistentGroupProtocol));
}

#[test]
fn a_static_member_that_is_back_takes_its_place_without_a_rebalance() {
    let mut stage = Stage::new();
    let fixed = |id: &str| Join {
        instance_id: Some("i".to_owned()),
        skips_assignment: true,
        ..new(id)
    };
    let ticket = stage.join(&fixed("i-1"));
    assert!(stage.joined(ticket).is_some());
    let sync = Sync {
        member_id: "i-1".to_owned(),
        instance_id: Some("i".to_owned()),
        generation: 1,
        assignments: BTreeMap::from([("i-1".to_owned(), said("x"))]),
        ..Sync::default()
    };
    stage.sync(&sync);
    let ticket = stage.join(&fixed("i-2"));
    let answer = stage.joined(ticket).expect("at once");
    assert_eq!((answer.generation, answer.leader.as_str()), (1, "i-2"));
    assert!(answer.skip_assignment);
    let old = stage.group.heartbeat("i-1", Some("i"), 1, stage.now_ms);
    assert_eq!(old, Err(ResponseError::FencedInstanceId));
    let sync = Sync {
        member_id: "i-2".to_owned(),
        ..sync
    };
    let ticket = stage.sync(&sync);
    assert_eq!(stage.synced(ticket).expect("stable").assignment, said("x"));
}

#[test]
fn a_loaded_group_is_stable_and_expects_its_members() {
    let mut stage = Stage::new();
    stage.stable(&["a", "b"]);
    let record = stage.group.record(&stage.group.assignments());
    let value = record.value.and_then(records::read_group).expect("a group");
    stage.group = ClassicGroup::loaded("g", value, 5_000);
    stage.now_ms = 5_000;
    assert_eq!(stage.group.state(), State::Stable);
    let generation = stage.group.generation();
    let alive = stage.group.heartbeat("a", None, generation, 5_000);
    assert_eq!(alive, Ok(()));
    stage.advance(10_000);
    assert_eq!(stage.group.state(), State::Empty);
}

#[test]
fn subscribed_topics_are_read_from_the_consumer_protocol() {
    let subscription = [
        &[0, 3][..],
        &[0, 0, 0, 2],
        &[0, 1, b'x'],
        &[0, 2, b'y', b'z'],
        &[0, 0, 0, 0, 9],
    ];
    let mut stage = Stage::new();
    let consumer = Join {
        protocols: vec![("range".to_owned(), subscription.concat().into())],
        ..new("a")
    };
    let ticket = stage.join(&consumer);
    assert!(stage.joined(ticket).is_some());
    assert!(stage.group.is_subscribed_to("x") && stage.group.is_subscribed_to("yz"));
    assert!(!stage.group.is_subscribed_to("y"));
}

#[test]
fn the_first_rebalance_waits_for_more_members_as_long_as_configured() {
    let mut stage = Stage::new();
    stage.settings.initial_rebalance_delay_ms = 3_000;
    let first = stage.join(&new("a"));
    stage.advance(2_000);
    let second = stage.join(&new("b"));
    stage.advance(1_000);
    assert_eq!(stage.joined(first), None, "a new member came meanwhile");
    stage.advance(3_000);
    assert_eq!(stage.joined(first).expect("now").generation, 1);
    assert_eq!(stage.joined(second).expect("now").generation, 1);
}
