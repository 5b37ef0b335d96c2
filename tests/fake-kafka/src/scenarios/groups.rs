//! Groups and their members (`GroupMetadataManager`, `ClassicGroup`).

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka_protocol::messages::describe_groups_response::DescribedGroup;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, DeleteGroupsRequest, DescribeGroupsRequest,
    FindCoordinatorRequest, GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse,
    LeaveGroupRequest, ListGroupsRequest, SyncGroupRequest, SyncGroupResponse,
};

use super::offsets::Commit;
use super::{Stage, text};
use crate::client::Client;

const ILLEGAL_GENERATION: i16 = 22;
const INCONSISTENT_PROTOCOL: i16 = 23;
const UNKNOWN_MEMBER: i16 = 25;
const INVALID_SESSION_TIMEOUT: i16 = 26;
const REBALANCING: i16 = 27;
const NON_EMPTY: i16 = 68;
const NOT_FOUND: i16 = 69;
const MEMBER_ID_REQUIRED: i16 = 79;
const FENCED: i16 = 82;

/// The version of JoinGroup that scenarios speak.
const JOIN: i16 = 9;
const SYNC: i16 = 5;

#[derive(Clone, Debug)]
struct Member {
    group: String,
    id: String,
    instance: Option<&'static str>,
    generation: i32,
}

impl Member {
    fn join(&self) -> JoinGroupRequest {
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(text("range"))
            .with_metadata(Bytes::from_static(b"wants"));
        JoinGroupRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_member_id(text(&self.id))
            .with_group_instance_id(self.instance.map(text))
            .with_session_timeout_ms(10_000)
            .with_rebalance_timeout_ms(10_000)
            .with_protocol_type(text("other"))
            .with_protocols(vec![protocol])
    }

    fn sync(&self, assignments: &[(&str, &'static [u8])]) -> SyncGroupRequest {
        let assignments = assignments.iter().map(|(id, assignment)| {
            SyncGroupRequestAssignment::default()
                .with_member_id(text(id))
                .with_assignment(Bytes::from_static(assignment))
        });
        SyncGroupRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_member_id(text(&self.id))
            .with_group_instance_id(self.instance.map(text))
            .with_generation_id(self.generation)
            .with_protocol_type(Some(text("other")))
            .with_protocol_name(Some(text("range")))
            .with_assignments(assignments.collect())
    }
}

impl Stage {
    /// A group whose coordinator has read its log.
    pub(super) fn group(&mut self, of: &str) -> String {
        let group = self.name(of);
        let find = FindCoordinatorRequest::default()
            .with_key_type(0)
            .with_coordinator_keys(vec![text(&group)]);
        self.until(|stage| stage.call(&find, 4).coordinators[0].error_code == 0);
        self.until(|stage| stage.all_committed(&group).error_code == 0);
        self.until(|stage| stage.call(&ListGroupsRequest::default(), 5).error_code == 0);
        group
    }

    /// The one of Kafka 4.0 and later, and of the fake.
    pub(super) fn has_new_coordinator(&mut self) -> bool {
        self.speaks::<DescribeGroupsRequest>(6)
    }

    /// A member that has its id, but hasn't joined yet.
    fn newcomer(&mut self, group: &str) -> Member {
        let mut member = Member {
            group: group.to_owned(),
            id: String::new(),
            instance: None,
            generation: -1,
        };
        let answer = self.call(&member.join(), JOIN);
        assert_eq!(answer.error_code, MEMBER_ID_REQUIRED);
        assert!(answer.member_id.starts_with("scenario-"));
        member.id = answer.member_id.to_string();
        member
    }

    /// The only member of a group, which knows what is its.
    fn only_member(&mut self, group: &str) -> Member {
        let mut member = self.newcomer(group);
        let answer = self.call(&member.join(), JOIN);
        assert_eq!(answer.error_code, 0);
        member.generation = answer.generation_id;
        let sync = member.sync(&[(&member.id.clone(), b"all")]);
        assert_eq!(self.call(&sync, SYNC).error_code, 0);
        member
    }

    fn beat(&mut self, member: &Member) -> i16 {
        let request = HeartbeatRequest::default()
            .with_group_id(GroupId(text(&member.group)))
            .with_member_id(text(&member.id))
            .with_group_instance_id(member.instance.map(text))
            .with_generation_id(member.generation);
        self.call(&request, 4).error_code
    }

    fn leave(&mut self, member: &Member) -> i16 {
        let identity = MemberIdentity::default().with_member_id(text(&member.id));
        let request = LeaveGroupRequest::default()
            .with_group_id(GroupId(text(&member.group)))
            .with_members(vec![identity]);
        let answer = self.call(&request, 5);
        assert_eq!(answer.error_code, 0);
        answer.members[0].error_code
    }

    fn described_group(&mut self, group: &str, version: i16) -> DescribedGroup {
        let request = DescribeGroupsRequest::default().with_groups(vec![GroupId(text(group))]);
        self.call(&request, version).groups.remove(0)
    }

    fn listed(&mut self, group: &str, request: &ListGroupsRequest) -> Option<ListedGroup> {
        let answer = self.call(request, 5);
        assert_eq!(answer.error_code, 0);
        let mut groups = answer.groups.into_iter();
        groups.find(|listed| listed.group_id.as_str() == group)
    }

    pub(super) fn delete_group(&mut self, group: &str) -> i16 {
        let request = DeleteGroupsRequest::default().with_groups_names(vec![GroupId(text(group))]);
        self.call(&request, 2).results[0].error_code
    }
}

pub(super) fn members(stage: &mut Stage) {
    let topic = stage.topic("a", 1, &[]);
    let group = stage.group("g");
    let mut member = stage.newcomer(&group);
    // The first to come has the group made, once that is in the log.
    stage.until(|stage| stage.described_group(&group, 5).group_state.as_str() == "Empty");
    let joined = stage.call(&member.join(), JOIN);
    assert_eq!((joined.error_code, joined.generation_id), (0, 1));
    assert_eq!(joined.leader.as_str(), member.id);
    assert_eq!(joined.protocol_name.as_deref(), Some("range"));
    assert_eq!(joined.protocol_type.as_deref(), Some("other"));
    assert_eq!(joined.members.len(), 1);
    assert_eq!(joined.members[0].metadata, Bytes::from_static(b"wants"));
    member.generation = 1;
    let described = stage.described_group(&group, 5);
    assert_eq!(described.group_state.as_str(), "CompletingRebalance");
    assert_eq!(
        described.protocol_data.as_str(),
        "",
        "not before it is stable"
    );

    // Before it knows what is its, a member commits nothing.
    let by = |generation, member: &Member| Commit {
        member: member.id.clone(),
        generation,
        ..Commit::of(7)
    };
    let commit = by(1, &member);
    assert_eq!(stage.commit(&group, &topic, &commit), REBALANCING);
    let sync = member.sync(&[(&member.id.clone(), b"all")]);
    let synced = stage.call(&sync, SYNC);
    assert_eq!((synced.error_code, synced.assignment), (0, "all".into()));
    assert_eq!(synced.protocol_name.as_deref(), Some("range"));
    assert_eq!(stage.beat(&member), 0);
    assert_eq!(stage.commit(&group, &topic, &commit), 0);
    for (commit, error) in [
        (by(2, &member), ILLEGAL_GENERATION),
        (by(0, &member), ILLEGAL_GENERATION),
        (Commit::of(8), UNKNOWN_MEMBER),
        (
            Commit {
                member: "nobody".to_owned(),
                generation: 1,
                ..Commit::of(8)
            },
            UNKNOWN_MEMBER,
        ),
    ] {
        assert_eq!(stage.commit(&group, &topic, &commit), error, "{commit:?}");
    }
    assert_eq!(stage.committed(&group, &topic).committed_offset, 7);

    let described = stage.described_group(&group, 5);
    assert_eq!(described.group_state.as_str(), "Stable");
    assert_eq!(described.protocol_data.as_str(), "range");
    let told = &described.members[0];
    assert_eq!(told.member_id.as_str(), member.id);
    assert_eq!(told.client_id.as_str(), "scenario");
    assert!(told.client_host.starts_with('/'));
    assert_eq!(told.member_metadata, Bytes::from_static(b"wants"));
    assert_eq!(told.member_assignment, Bytes::from_static(b"all"));
    assert_eq!(stage.delete_group(&group), NON_EMPTY);
    let odd = Member {
        generation: 9,
        ..member.clone()
    };
    assert_eq!(stage.beat(&odd), ILLEGAL_GENERATION);
    assert_eq!(stage.leave(&member), 0);
    assert_eq!(stage.leave(&member), UNKNOWN_MEMBER);
    assert_eq!(stage.beat(&member), UNKNOWN_MEMBER);
    let described = stage.described_group(&group, 5);
    assert_eq!(described.group_state.as_str(), "Empty");
    assert_eq!(described.protocol_type.as_str(), "other");
    assert_eq!(stage.commit(&group, &topic, &Commit::of(9)), 0);
    assert_eq!(stage.delete_group(&group), 0);
    assert_eq!(stage.delete_group(&group), NOT_FOUND);
}

pub(super) fn who_may_join(stage: &mut Stage) {
    let group = stage.group("g");
    let stranger = Member {
        group: group.clone(),
        id: "stranger".to_owned(),
        instance: None,
        generation: -1,
    };
    // Only without an id a group is made.
    let answer = stage.call(&stranger.join(), JOIN);
    assert_eq!(
        (answer.error_code, answer.generation_id),
        (UNKNOWN_MEMBER, -1)
    );
    assert_eq!(
        stage.described_group(&group, 5).group_state.as_str(),
        "Dead"
    );
    let hasty = stranger
        .join()
        .with_member_id(text(""))
        .with_session_timeout_ms(1);
    let answer = stage.call(&hasty, JOIN);
    assert_eq!(answer.error_code, INVALID_SESSION_TIMEOUT);

    let member = stage.only_member(&group);
    let answer = stage.call(&stranger.join(), JOIN);
    assert_eq!(answer.error_code, UNKNOWN_MEMBER);
    let other = JoinGroupRequestProtocol::default().with_name(text("other"));
    for odd in [
        member.join().with_protocol_type(text("odd")),
        member.join().with_protocols(vec![other]),
    ] {
        let odd = odd.with_member_id(text(""));
        assert_eq!(stage.call(&odd, JOIN).error_code, INCONSISTENT_PROTOCOL);
    }
    let odd = member.sync(&[]).with_protocol_name(Some(text("odd")));
    assert_eq!(stage.call(&odd, SYNC).error_code, INCONSISTENT_PROTOCOL);
    assert_eq!(stage.leave(&member), 0);
}

/// Sends on another connection what will be answered later.
fn ask_to_join(stage: &Stage, member: &Member) -> Client {
    let mut client = stage.another();
    client.send(&member.join(), JOIN).expect("sent");
    client
}

fn joined(client: &mut Client) -> JoinGroupResponse {
    client.receive::<JoinGroupRequest>(JOIN).expect("joined")
}

fn synced(client: &mut Client) -> SyncGroupResponse {
    client.receive::<SyncGroupRequest>(SYNC).expect("synced")
}

pub(super) fn rebalances(stage: &mut Stage) {
    let group = stage.group("g");
    let mut first = stage.only_member(&group);
    let mut second = stage.newcomer(&group);
    let mut waiting = ask_to_join(stage, &second);
    // The first member hears of it with its heartbeat.
    stage.until(|stage| stage.beat(&first) == REBALANCING);
    let answer = stage.call(&first.join(), JOIN);
    assert_eq!((answer.error_code, answer.generation_id), (0, 2));
    assert_eq!(answer.leader.as_str(), first.id);
    assert_eq!(answer.members.len(), 2);
    let answer = joined(&mut waiting);
    assert_eq!((answer.error_code, answer.generation_id), (0, 2));
    assert!(answer.members.is_empty(), "only the leader is told");
    first.generation = 2;
    second.generation = 2;
    // The follower waits for what the leader says.
    waiting.send(&second.sync(&[]), SYNC).expect("sent");
    let says = first.sync(&[(&second.id.clone(), b"half")]);
    let answer = stage.call(&says, SYNC);
    assert_eq!((answer.error_code, answer.assignment.len()), (0, 0));
    let answer = synced(&mut waiting);
    assert_eq!((answer.error_code, answer.assignment), (0, "half".into()));
    assert_eq!((stage.beat(&first), stage.beat(&second)), (0, 0));
    // A follower that says the same as before changes nothing.
    let answer = stage.call(&second.join(), JOIN);
    assert_eq!((answer.error_code, answer.generation_id), (0, 2));
    assert_eq!(stage.leave(&second), 0);
    assert_eq!(stage.beat(&first), REBALANCING);
    let answer = stage.call(&first.join(), JOIN);
    assert_eq!((answer.generation_id, answer.members.len()), (3, 1));
    assert_eq!(stage.leave(&first), 0);
}

pub(super) fn static_members(stage: &mut Stage) {
    let group = stage.group("g");
    let mut member = Member {
        group: group.clone(),
        id: String::new(),
        instance: Some("fixed"),
        generation: 1,
    };
    let answer = stage.call(&member.join(), JOIN);
    assert_eq!((answer.error_code, answer.generation_id), (0, 1));
    assert!(answer.member_id.starts_with("fixed-"));
    member.id = answer.member_id.to_string();
    let sync = member.sync(&[(&member.id.clone(), b"all")]);
    assert_eq!(stage.call(&sync, SYNC).error_code, 0);

    let newcomer = Member {
        id: String::new(),
        ..member.clone()
    };
    let answer = stage.call(&newcomer.join(), JOIN);
    assert_eq!(
        (answer.error_code, answer.generation_id),
        (0, 1),
        "no rebalance"
    );
    assert!(answer.skip_assignment);
    let back = Member {
        id: answer.member_id.to_string(),
        ..member.clone()
    };
    assert_eq!(answer.leader.as_str(), back.id);
    assert_eq!(stage.beat(&member), FENCED);
    let answer = stage.call(&back.sync(&[]), SYNC);
    assert_eq!((answer.error_code, answer.assignment), (0, "all".into()));
    // Others take it out by its name.
    let identity = MemberIdentity::default().with_group_instance_id(Some(text("fixed")));
    let request = LeaveGroupRequest::default()
        .with_group_id(GroupId(text(&group)))
        .with_members(vec![identity]);
    assert_eq!(stage.call(&request, 5).members[0].error_code, 0);
    assert_eq!(stage.beat(&back), UNKNOWN_MEMBER);
}

pub(super) fn listed(stage: &mut Stage) {
    let topic = stage.topic("a", 1, &[]);
    let group = stage.group("g");
    let all = ListGroupsRequest::default();
    assert!(stage.listed(&group, &all).is_none());
    assert_eq!(stage.commit(&group, &topic, &Commit::of(1)), 0);
    let listed = stage.listed(&group, &all).expect("listed");
    assert_eq!(listed.group_state.as_str(), "Empty");
    assert_eq!(listed.group_type.as_str(), "classic");
    assert_eq!(listed.protocol_type.as_str(), "", "nobody was ever in it");
    let wanted = |states: &[&str], types: &[&str]| {
        ListGroupsRequest::default()
            .with_states_filter(states.iter().map(|name| text(name)).collect())
            .with_types_filter(types.iter().map(|name| text(name)).collect())
    };
    let cases = BTreeMap::from([
        (("Empty", "classic"), true),
        (("empty", "Classic"), true),
        (("Stable", "classic"), false),
        (("Empty", "consumer"), false),
        (("Odd", "classic"), false),
    ]);
    for ((state, kind), is_listed) in cases {
        let found = stage.listed(&group, &wanted(&[state], &[kind]));
        assert_eq!(found.is_some(), is_listed, "{state} {kind}");
    }
    // From version 6 on, what isn't there is an error.
    let missing = stage.name("missing");
    let described = stage.described_group(&missing, 5);
    assert_eq!(
        (described.error_code, described.group_state.as_str()),
        (0, "Dead")
    );
    if stage.has_new_coordinator() {
        assert_eq!(stage.described_group(&missing, 6).error_code, NOT_FOUND);
    }
    // Of the new protocol there is no such group, either.
    if !stage.has_new_coordinator() {
        return;
    }
    for name in [&missing, &group] {
        let request =
            ConsumerGroupDescribeRequest::default().with_group_ids(vec![GroupId(text(name))]);
        let answer = stage.call(&request, 0);
        assert_eq!(answer.groups[0].error_code, NOT_FOUND);
    }
}
