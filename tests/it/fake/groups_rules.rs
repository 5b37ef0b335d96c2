//! The rules by which groups are followed.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::failover::{failover, words};
use crate::support::flow::{block_on, flow_config, opened_state, wire_cluster, with_state};
use crate::support::groups::{
    commit, commit_with, committed, group_client, has_had_groups, next_records,
};
use crate::support::{
    Load, Twinlog, admin, create_topic, delete_topic, end_offset, eventually, fake_pair,
};
use fake_kafka::acls::{Acl, Operation, ResourceType};
use fake_kafka::faults::{Action, Fault, Hook};
use fake_kafka::groups::classic::Settings;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::ApiKey;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;
use twinlog::state::{Claim, GroupPositions, StateStore, keys};
use twinlog::wire::{self, GroupOffset, TopicPartition};

pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
const ANSWER: Duration = Duration::from_secs(60);
pub(super) const LOG: &str = "__consumer_offsets";

/// A topic with one partition and 100 records, and a flow that copies it and follows one group.
pub(crate) struct Case {
    name: &'static str,
    pub(crate) source: String,
    pub(crate) target: String,
    pub(super) twinlog: Twinlog,
}

impl Case {
    pub(super) fn new(name: &'static str, lines: &str, group_lines: &str) -> Self {
        let (source, target) = fake_pair();
        has_had_groups(&target.bootstrap());
        Self::between(
            (source.bootstrap(), target.bootstrap()),
            name,
            lines,
            group_lines,
        )
    }

    /// Between a source and a target that are running.
    pub(crate) fn between(
        (source, target): (String, String),
        name: &'static str,
        lines: &str,
        group_lines: &str,
    ) -> Self {
        create_topic(&source, name, 1, &[]);
        Load::new(name, 100).produce(&source);
        let lines = format!("groups: {{ include: [\"{name}\"]{group_lines} }}\n{lines}");
        let config = flow_config(name, name, &source, &target, &lines);
        let twinlog = Twinlog::start(&config);
        crate::support::await_caught_up(&twinlog, DEADLINE);
        Self {
            name,
            source,
            target,
            twinlog,
        }
    }

    pub(crate) fn commit_on_source(&self, offset: i64) {
        commit(&self.source, self.name, &[(self.name, 0, offset)]);
    }

    /// Somebody commits on the target, and Twinlog has seen it. Before that it may move the group on, and put it back
    /// a moment later.
    pub(super) fn commit_of_a_client(&self, offset: i64) {
        commit(&self.target, self.name, &[(self.name, 0, offset)]);
        self.await_state("diverged");
    }

    /// What somebody else committed stays where it is, and is named: when a failover is looked at, and when it is done.
    pub(super) fn is_kept_by_a_failover(&self, config: &Path, group: &str, theirs: i64) {
        for extra in [&["--fence", "manual"][..], &["--fence", "manual", "--yes"]] {
            let done = failover(config, extra);
            let said = words(&done);
            assert_eq!(done.status.code(), Some(0), "{said}");
            assert_eq!(self.on_target(), Some(theirs), "{said}");
            let is_named = said.lines().any(|line| line.contains("of their own"));
            assert!(is_named && said.contains(group), "{said}");
        }
    }

    pub(super) fn on_target(&self) -> Option<i64> {
        committed(&self.target, self.name, self.name, 1)[0]
    }

    pub(crate) fn await_on_target(&self, offset: i64) {
        let what = format!("{} is at {offset} on the target", self.name);
        eventually(DEADLINE, &what, || match self.on_target() {
            Some(found) if found == offset => Ok(()),
            found => Err(found),
        });
    }

    pub(super) fn await_state(&self, state: &str) -> Value {
        self.twinlog.await_group(self.name, state, DEADLINE)
    }

    /// Waits until Twinlog has seen this position on the source and stands so.
    pub(super) fn await_seen(&self, source_position: i64, state: &str) {
        let what = format!("{} is seen at {source_position}, {state}", self.name);
        eventually(DEADLINE, &what, || {
            let found = self.await_state(state);
            if found["source_position"] == source_position {
                Ok(())
            } else {
                Err(found)
            }
        });
    }

    /// Waits until Twinlog has its answer for this position. Who asks the target may see it before.
    fn await_answered(&self, offset: i64) {
        self.twinlog.await_followed(self.name, offset, DEADLINE);
    }

    /// Waits until the state topic has a record of the group that is so.
    pub(super) fn await_remembered(&self, is_so: impl Fn(&GroupPositions) -> bool) {
        let key = keys::group(self.name, self.name);
        eventually(DEADLINE, "that is remembered", || {
            let cluster = wire_cluster(&self.target);
            let store = block_on(StateStore::open_existing(&cluster)).expect("it can be read");
            let record =
                store.and_then(|store| store.get::<GroupPositions>(&key).expect("readable"));
            match record.is_some_and(|record| is_so(&record)) {
                true => Ok(()),
                false => Err(()),
            }
        });
    }

    /// Waits until all is read that was committed on the source by now: a position of a topic that isn't copied
    /// is behind it in the same log.
    fn await_all_read(&self) {
        let beside = format!("{}-beside", self.name);
        create_topic(&self.source, &beside, 1, &[]);
        commit(&self.source, self.name, &[(&beside, 0, 0)]);
        eventually(DEADLINE, "the last commit is seen", || {
            let path = format!("/api/v1/groups/{}", self.name);
            let explained = self.twinlog.get(&path);
            match explained
                .as_ref()
                .is_ok_and(|(_, body)| body.contains(&beside))
            {
                true => Ok(()),
                false => Err(explained),
            }
        });
    }

    fn explain(&self) -> Value {
        let path = format!("/api/v1/groups/{}", self.name);
        let (code, body) = self.twinlog.get(&path).expect("twinlog answers");
        assert_eq!(code, 200, "{body}");
        serde_json::from_str(&body).expect("JSON")
    }
}

pub(super) fn record_of(case: &Case, key: &str) -> GroupPositions {
    with_state(&case.target, |store| {
        let record = store.get(key).expect("readable");
        record.expect("a record")
    })
}

pub(super) fn put_record(case: &Case, key: &str, record: &GroupPositions) {
    let cluster = wire_cluster(&case.target);
    block_on(async {
        let store = opened_state(&cluster, case.name).await;
        store.put(key, record).await.expect("it is written");
    });
}

/// A member of the group on one cluster, with its partition.
pub(crate) fn member(bootstrap: &str, group: &str, protocol: &str) -> BaseConsumer {
    let consumer: BaseConsumer = admin::client(bootstrap)
        .set("group.id", group)
        .set("group.protocol", protocol)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .create()
        .expect("valid settings");
    consumer.subscribe(&[group]).expect("a topic");
    eventually(DEADLINE, "the member has its partition", || {
        let polled = consumer.poll(Duration::from_millis(100));
        assert!(
            polled.as_ref().is_none_or(Result::is_ok),
            "{:?}",
            polled.map(|message| message.map(|m| m.offset()))
        );
        match consumer.assignment().expect("an assignment").count() {
            0 => Err(()),
            _ => Ok(()),
        }
    });
    consumer
}

#[test]
fn a_group_that_moves_forward_and_back_is_followed() {
    moves_forward_and_back(&Case::new("back", "", ""));
}

pub(crate) fn moves_forward_and_back(case: &Case) {
    for offset in [40, 90, 10, 100, 0] {
        case.commit_on_source(offset);
        case.await_on_target(offset);
    }
    let explained = case.explain();
    let position = &explained[0]["partitions"][0];
    assert_eq!(position["source_offset"], 0, "{explained:#}");
    assert_eq!(position["wanted_offset"], 0, "{explained:#}");
}

#[test]
fn what_a_group_wrote_beside_its_position_is_kept_and_no_epoch_is_invented() {
    let case = Case::new("beside", "", "");
    commit_with(&case.source, "beside", 0, 33, "checkpoint:ä|7");
    case.await_on_target(33);
    let cluster = wire_cluster(&case.target);
    let found = block_on(wire::fetch_group_offsets(&cluster, &["beside".to_owned()]));
    let found = found["beside"].as_ref().expect("an answer");
    let found = &found[&TopicPartition::new("beside", 0)];
    assert_eq!(found.metadata, "checkpoint:ä|7");
    assert_eq!(found.leader_epoch, -1);
}

#[test]
fn a_group_with_members_on_the_target_is_not_moved_until_they_are_gone() {
    let case = Case::new("active", "", "");
    case.commit_on_source(20);
    case.await_on_target(20);
    let member = member(&case.target, "active", "classic");
    case.commit_on_source(70);
    case.await_seen(70, "active_on_target");
    assert_eq!(case.on_target(), Some(20));
    drop(member);
    case.await_on_target(70);
    case.await_state("followed");
}

#[test]
fn a_position_that_a_client_committed_on_the_target_stays() {
    let case = Case::new("diverged", "", "");
    case.commit_on_source(20);
    case.await_on_target(20);
    case.commit_of_a_client(77);
    case.commit_on_source(30);
    case.await_seen(30, "diverged");
    case.commit_on_source(31);
    case.await_seen(31, "diverged");
    assert_eq!(case.on_target(), Some(77));
    let explained = case.explain();
    let steps = explained[0]["partitions"][0]["steps"].to_string();
    assert!(
        steps.contains("77") && steps.contains("--delete-offsets"),
        "{explained:#}"
    );

    // What stood in the way goes: the position is applied.
    let cluster = wire_cluster(&case.target);
    let deleted = block_on(wire::delete_groups(&cluster, &["diverged".to_owned()]));
    assert!(deleted["diverged"].is_ok(), "{deleted:?}");
    case.await_on_target(31);
    case.await_state("followed");
}

/// The coordinator writes a commit, and dies before it has answered. The group has moved on by then: the
/// position is neither where it goes now nor what was answered last, and ours all the same.
#[test]
fn a_commit_that_is_never_answered_is_no_client_s() {
    let (source, target) = fake_pair();
    has_had_groups(&target.bootstrap());
    let addresses = (source.bootstrap(), target.bootstrap());
    let case = Case::between(addresses, "unanswered", "", "");
    case.commit_on_source(20);
    case.await_on_target(20);
    let commits = Fault::on(ApiKey::OffsetCommit).group("unanswered");
    target.fault(commits.times(1), Action::SwallowAfter);
    case.commit_on_source(30);
    case.await_on_target(30);
    case.commit_on_source(40);
    eventually(DEADLINE, "40 is seen", || {
        let found = &case.twinlog.groups()["groups"][0];
        match found["source_position"] == 40 {
            true => Ok(()),
            false => Err(found.clone()),
        }
    });
    target.control(|state| {
        state.stop_broker(1);
        state.start_broker(1);
    });
    case.await_on_target(40);
    case.await_state("followed");
}

/// A tool commits without an epoch, as Twinlog does.
#[test]
fn a_repair_by_hand_is_the_newest_word() {
    let mut case = Case::new("repair", "", "");
    case.commit_on_source(30);
    case.await_on_target(30);
    case.commit_of_a_client(40);
    commit(&case.target, "repair", &[("repair", 0, 30)]);
    case.await_state("followed");
    assert_eq!(case.on_target(), Some(30));
    case.commit_on_source(35);
    case.await_on_target(35);

    // The same while nobody looks, later than Twinlog would have committed.
    case.commit_of_a_client(45);
    case.await_remembered(|record| !record.foreign.is_empty());
    case.twinlog.kill9();
    commit(&case.target, "repair", &[("repair", 0, 20)]);
    case.twinlog.launch();
    case.await_state("diverged");
    assert_eq!(case.on_target(), Some(20), "theirs, as it was left");
    let (code, body) = case
        .twinlog
        .get("/api/v1/groups/repair")
        .expect("an answer");
    assert!(code == 200 && !body.contains("\"45\""), "{body}");
}

/// What somebody committed on the standby with a tool, long ago, is theirs in a failover, too: named before, kept
/// and named in the report.
#[test]
fn a_failover_keeps_what_was_committed_without_an_epoch() {
    let mut case = Case::new("kept", "", "");
    case.commit_on_source(30);
    case.await_on_target(30);
    case.commit_of_a_client(77);
    case.commit_on_source(40);
    case.await_seen(40, "diverged");
    case.await_remembered(|record| !record.foreign.is_empty());
    let config = case.twinlog.config_file().to_owned();
    assert!(case.twinlog.terminate().success());
    case.is_kept_by_a_failover(&config, "kept", 77);
}

/// It needs nothing of what Twinlog does while it runs: who ends in order has remembered all that was its own.
#[test]
fn what_a_tool_commits_behind_an_orderly_end_stays() {
    // At once, with nothing left to copy for the failover.
    let mut case = Case::new("reset", "", "");
    case.commit_on_source(30);
    case.await_on_target(30);
    let config = case.twinlog.config_file().to_owned();
    assert!(case.twinlog.terminate().success());
    commit(&case.target, "reset", &[("reset", 0, 77)]);
    case.commit_on_source(31);
    case.is_kept_by_a_failover(&config, "reset", 77);
}

#[test]
fn what_a_tool_commits_between_two_starts_stays() {
    for (name, is_polled) in [("between", false), ("between-polled", true)] {
        let mut case = Case::new(name, "", "");
        let (_source, target) = fake_pair();
        if is_polled {
            target.control(|state| {
                state.acls.is_on = true;
                state.acls.allow_if_no_acl_found = true;
                let read = Operation::Read;
                let denied = Acl::allow("User:ANONYMOUS", read, ResourceType::Topic, LOG);
                state.acls.all.insert(denied.denied());
            });
        }
        case.commit_on_source(30);
        case.await_on_target(30);
        assert!(case.twinlog.terminate().success());
        commit(&case.target, name, &[(name, 0, 77)]);
        case.commit_on_source(31);
        case.twinlog.launch();
        case.await_seen(31, "diverged");
        assert_eq!(case.on_target(), Some(77));
        // What was found so is theirs behind a crash, too.
        case.await_remembered(|record| !record.foreign.is_empty());
        case.twinlog.kill9();
        case.commit_on_source(32);
        case.twinlog.launch();
        case.await_seen(32, "diverged");
        assert_eq!(case.on_target(), Some(77));
    }
}

/// The first one dies before it has remembered its last commit; the next one finds that, and remembers it in its place.
#[test]
fn what_was_committed_before_a_crash_stays_ours_behind_an_orderly_end() {
    let mut case = Case::new("heirs", "", "");
    case.commit_on_source(30);
    case.await_on_target(30);
    case.await_remembered(|record| record.on_target("heirs", 0) == Some(30));
    let key = keys::group("heirs", "heirs");
    let before = record_of(&case, &key);
    case.commit_on_source(40);
    case.await_on_target(40);
    case.twinlog.kill9();
    // As if it had died before it was stored.
    put_record(&case, &key, &before);
    // Where the group is on the source can't be told meanwhile: nothing is decided.
    let (source, _) = fake_pair();
    let refuse = Action::Refuse(ResponseError::NotLeaderOrFollower);
    let away = source.fault(Fault::on_topic(ApiKey::ListOffsets, LOG), refuse);
    case.twinlog.launch();
    case.await_remembered(|record| record.also.contains_key("heirs"));
    assert!(case.twinlog.terminate().success());
    source.clear(away);
    case.commit_on_source(50);
    case.twinlog.launch();
    case.await_on_target(50);
}

/// A topic of the group isn't copied any more: its copy stays, or is deleted.
#[test]
fn what_was_committed_before_a_crash_is_found_without_a_topic_that_is_gone() {
    for (name, on_delete) in [
        ("gone-kept", "keep"),
        ("gone-deleted", "{ mode: delete, grace: 0s }"),
    ] {
        let (source, target) = fake_pair();
        has_had_groups(&target.bootstrap());
        let (source, target) = (source.bootstrap(), target.bootstrap());
        let dropped = format!("{name}-dropped");
        for topic in [name, &dropped] {
            create_topic(&source, topic, 1, &[]);
            Load::new(topic, 100).produce(&source);
        }
        let lines = format!(
            "groups: {{ include: [\"{name}\"] }}\ndiscovery_interval: 200ms\non_delete: {on_delete}"
        );
        let config = flow_config(name, &format!("{name}.*"), &source, &target, &lines);
        let twinlog = Twinlog::start(&config);
        crate::support::await_caught_up(&twinlog, DEADLINE);
        let mut case = Case {
            name,
            source,
            target,
            twinlog,
        };
        commit(&case.source, name, &[(name, 0, 30), (&dropped, 0, 31)]);
        case.await_on_target(30);
        case.await_remembered(|record| record.on_target(&dropped, 0) == Some(31));
        case.twinlog.kill9();
        delete_topic(&case.source, &dropped);
        case.twinlog.launch();
        case.commit_on_source(50);
        case.await_on_target(50);
        if on_delete != "keep" {
            eventually(DEADLINE, "the copy is forgotten", || {
                let is_known = with_state(&case.target, |store| {
                    store.bytes(&keys::topic(name, &dropped)).is_some()
                });
                if is_known { Err(()) } else { Ok(()) }
            });
        }
        assert!(case.twinlog.terminate().success());
        let claim: Claim = with_state(&case.target, |store| {
            let claim = store.get(&keys::claim(name)).expect("readable");
            claim.expect("a claim")
        });
        assert!(claim.released && claim.remembers_groups, "{claim:?}");
    }
}

/// The log of groups begins with what is long past. Its partition is away when everything else was read, and needs more than
/// one answer when it is back.
#[test]
fn an_old_position_of_a_partition_that_is_read_late_is_not_committed() {
    let mut case = Case::new("past", "", "");
    case.commit_on_source(30);
    case.await_on_target(30);
    case.await_remembered(|record| record.on_target("past", 0) == Some(30));
    assert!(case.twinlog.terminate().success());
    let client = group_client(&case.source, "past");
    for number in 0..1_100 {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("past", 0, Offset::Offset(40 + number % 50))
            .expect("a valid offset");
        for mut at in list.elements_for_topic("past") {
            at.set_metadata("m".repeat(4_000));
        }
        client.commit(&list, CommitMode::Sync).expect("it commits");
    }
    case.commit_on_source(30);
    let (source, target) = fake_pair();
    let refuse = Action::Refuse(ResponseError::NotLeaderOrFollower);
    let away = source.fault(Fault::on_topic(ApiKey::ListOffsets, LOG), refuse);
    let ignored: Hook = Box::new(|_, _| {});
    let commits = Fault::on(ApiKey::OffsetCommit).group("past");
    let commits = target.fault(commits, Action::Arrives(ignored));
    let logged = case.twinlog.log().len();
    case.twinlog.launch();
    case.twinlog.await_log("the partitions are missed", |log| {
        log[logged..].contains("aren't read to their ends")
    });
    source.clear(away);
    case.await_seen(30, "followed");
    assert_eq!(target.fired(commits), 0, "it was where it belongs");
    assert_eq!(case.on_target(), Some(30));
}

/// A transaction of the source that commits a position of the group of this name and nothing else.
fn commit_in_a_transaction(case: &Case, offset: i64) {
    let producer: BaseProducer = admin::client(&case.source)
        .set("transactional.id", case.name)
        .create()
        .expect("valid settings");
    producer.init_transactions(ANSWER).expect("a producer id");
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(case.name, 0, Offset::Offset(offset))
        .expect("a valid offset");
    producer.begin_transaction().expect("it begins");
    let consumer = group_client(&case.source, case.name);
    let group = consumer.group_metadata().expect("the group's name");
    producer
        .send_offsets_to_transaction(&list, &group, ANSWER)
        .expect("offsets are sent");
    producer.commit_transaction(ANSWER).expect("it commits");
}

/// The end of a transaction is acknowledged before its marker is in the log of groups, whose end nobody proves.
#[test]
fn a_failover_waits_for_the_marker_of_a_group_s_transaction() {
    for (name, before) in [("marked", Some(20)), ("marked-first", None)] {
        let mut case = Case::new(name, "", "");
        let (source, _target) = fake_pair();
        if let Some(offset) = before {
            case.commit_on_source(offset);
            case.await_on_target(offset);
        }
        let config = case.twinlog.config_file().to_owned();
        assert!(case.twinlog.terminate().success());
        source.control(|state| state.hold_markers(true));
        commit_in_a_transaction(&case, 40);
        // One is the look before the failover, two would be enough to find that nothing moves.
        let asked = Fault::on(ApiKey::OffsetFetch).group(name).nth(6).times(1);
        let let_go: Hook = Box::new(|state, _| state.hold_markers(false));
        source.fault(asked, Action::Arrives(let_go));
        let done = failover(&config, &["--fence", "manual", "--yes"]);
        let said = words(&done);
        assert_eq!(done.status.code(), Some(0), "{said}");
        assert_eq!(case.on_target(), Some(40), "{said}");
        assert!(said.contains("nothing has to be reset"), "{said}");
    }
}

/// It doesn't come.
#[test]
fn a_failover_names_the_group_whose_marker_is_missing() {
    let mut case = Case::new("unmarked", "", "");
    let (source, _target) = fake_pair();
    case.commit_on_source(20);
    case.await_on_target(20);
    let config = case.twinlog.config_file().to_owned();
    assert!(case.twinlog.terminate().success());
    source.control(|state| state.hold_markers(true));
    commit_in_a_transaction(&case, 40);
    let done = failover(&config, &["--fence", "manual", "--yes", "--wait", "6"]);
    let said = words(&done);
    assert_eq!(done.status.code(), Some(0), "{said}");
    assert_eq!(case.on_target(), Some(20), "{said}");
    let mut lines = said.lines();
    assert!(
        lines.any(|line| line.contains("transaction") && line.contains("unmarked")),
        "{said}"
    );
    assert!(!said.contains("nothing has to be reset"), "{said}");
}

/// Its consumer has begun to read, and commits every five seconds.
#[test]
fn a_failover_waits_for_the_first_commit_of_a_live_group() {
    for (name, commits) in [("fresh", true), ("fresh-silent", false)] {
        let mut case = Case::new(name, "", "");
        let (source, _target) = fake_pair();
        let config = case.twinlog.config_file().to_owned();
        assert!(case.twinlog.terminate().success());
        let consumer: BaseConsumer = admin::client(&case.source)
            .set("group.id", name)
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .create()
            .expect("valid settings");
        consumer.subscribe(&[name]).expect("a topic");
        eventually(DEADLINE, "the member has read", || {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(_)) => Ok(()),
                _ => Err(()),
            }
        });
        // One is the look before the failover, and two looks at a group that isn't waited for are two questions each. What
        // was committed by then is in the answer.
        let asked = Fault::on(ApiKey::OffsetFetch).group(name).nth(6).times(1);
        let mut held = commits.then(|| source.fault(asked, Action::Hold));
        let said = std::thread::scope(|scope| {
            let failing_over = scope.spawn(|| failover(&config, &["--fence", "manual", "--yes"]));
            while !failing_over.is_finished() {
                let _ = consumer.poll(Duration::from_millis(100));
                if let Some(fault) = held.filter(|fault| source.fired(*fault) > 0) {
                    let mut list = TopicPartitionList::new();
                    list.add_partition_offset(name, 0, Offset::Offset(100))
                        .expect("a valid offset");
                    consumer
                        .commit(&list, CommitMode::Sync)
                        .expect("it commits");
                    source.clear(fault);
                    held = None;
                }
            }
            let done = failing_over.join().expect("it ends");
            let said = words(&done);
            assert_eq!(done.status.code(), Some(0), "{said}");
            said
        });
        assert_eq!(case.on_target(), commits.then_some(100), "{said}");
        let mut lines = said.lines();
        let is_named = lines.any(|line| line.contains("committed nothing") && line.contains(name));
        assert_eq!(is_named, !commits, "{said}");
        assert_eq!(said.contains("nothing has to be reset"), commits, "{said}");
    }
}

/// Its time alone would make it one of ours that wasn't remembered any more.
#[test]
fn a_position_that_a_client_committed_is_left_to_it_over_a_crash() {
    let mut case = Case::new("left", "", "");
    case.commit_on_source(20);
    case.await_on_target(20);
    case.commit_of_a_client(77);
    case.commit_on_source(30);
    case.await_seen(30, "diverged");
    let theirs = BTreeMap::from([("left".to_owned(), vec![(0, 77)])]);
    case.await_remembered(|record| record.foreign == theirs);
    case.twinlog.kill9();
    case.commit_on_source(31);
    case.twinlog.launch();
    case.await_seen(31, "diverged");
    assert_eq!(case.on_target(), Some(77));
}

/// The first commit of ours makes the log of groups of a target that never had one, and clients may commit there before it
/// is found: until it is read nothing is decided.
#[test]
fn a_position_that_a_client_committed_before_the_target_s_log_is_read_stays() {
    let (source, target) = fake_pair();
    let addresses = (source.bootstrap(), target.bootstrap());
    let case = Case::between(addresses, "unseen", "", "");
    // Asking for a group makes the target's log of groups. It isn't found, so nobody waits for it.
    let looks = Fault::on_topic(ApiKey::Metadata, LOG);
    let unshown = target.fault(
        looks,
        Action::Refuse(ResponseError::UnknownTopicOrPartition),
    );
    case.commit_on_source(20);
    // Asked itself.
    eventually(DEADLINE, "the first one is committed", || {
        let found = &case.twinlog.groups()["groups"][0];
        match found["target_position"] == 20 {
            true => Ok(()),
            false => Err(found.clone()),
        }
    });
    case.await_on_target(20);
    commit(&case.target, "unseen", &[("unseen", 0, 77)]);
    case.commit_on_source(30);
    case.await_all_read();
    target.clear(unshown);
    case.await_seen(30, "diverged");
    assert_eq!(case.on_target(), Some(77));
}

#[test]
fn a_consumer_that_read_on_the_target_while_twinlog_was_down_is_not_moved() {
    let mut case = Case::new("meanwhile", "", "");
    case.commit_on_source(20);
    case.await_on_target(20);
    case.twinlog.kill9();
    let consumer = group_client(&case.target, "meanwhile");
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("meanwhile", 0, Offset::Offset(50))
        .expect("a valid offset");
    consumer.assign(&list).expect("a partition");
    let message = eventually(DEADLINE, "a record is read", || {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => Ok(message.detach()),
            _ => Err(()),
        }
    });
    assert_eq!(message.offset(), 50);
    // With the epoch that it read with, as consumers do.
    eventually(DEADLINE, "the consumer commits", || {
        consumer.commit_consumer_state(CommitMode::Sync)
    });
    case.commit_on_source(90);
    case.twinlog.launch();
    case.await_seen(90, "diverged");
    assert_eq!(case.on_target(), Some(51));
}

#[test]
fn others_positions_are_overwritten_where_the_config_says_so() {
    let case = Case::new("overwrite", "", ", on_diverged: follow");
    case.commit_on_source(20);
    case.await_on_target(20);
    commit(&case.target, "overwrite", &[("overwrite", 0, 77)]);
    case.await_on_target(20);
}

#[test]
fn a_position_past_the_copy_waits_for_its_record() {
    let case = Case::new("ahead", "limits: { bytes_per_second: 1MiB }", "");
    let (_, target) = fake_pair();
    let held = target.fault(
        Fault::on(ApiKey::Produce).topic("ahead"),
        Action::Refuse(ResponseError::NotEnoughReplicas),
    );
    Load::new("ahead", 6_000)
        .first(100)
        .value_bytes(1_000)
        .produce(&case.source);
    let end = end_offset(&case.source, "ahead", 0);
    case.commit_on_source(end);
    case.await_seen(end, "not_yet_copied");
    target.clear(held);
    eventually(DEADLINE, "the position is applied", || {
        match case.on_target() {
            None => Err(()),
            Some(found) => {
                // Never past what is there to be read.
                assert!(end_offset(&case.target, "ahead", 0) >= found);
                assert_eq!(found, end);
                Ok(())
            }
        }
    });
    case.await_state("followed");
}

/// A copy that lags behind a group that goes on: what it has reached is committed all the same, so
/// that a failover now reads again from there and not from where the lag began.
#[test]
fn a_moving_group_is_followed_as_far_as_a_lagging_copy_has_come() {
    let case = Case::new("lagging", "", "");
    let (_, target) = fake_pair();
    let refused = || {
        let fault = Fault::on(ApiKey::Produce).topic("lagging");
        (fault, Action::Refuse(ResponseError::NotEnoughReplicas))
    };
    let (fault, refuse) = refused();
    let held = target.fault(fault, refuse);
    Load::new("lagging", 8_000)
        .first(100)
        .value_bytes(1_000)
        .produce(&case.source);
    let end = end_offset(&case.source, "lagging", 0);
    let positions = [1_000, 4_000, 7_000];
    for position in positions {
        case.commit_on_source(position);
        case.await_seen(position, "not_yet_copied");
    }
    // The copy comes as far as the first of them, and then stands still again.
    let stands = Arc::new(Mutex::new(None));
    let told = stands.clone();
    let stand: Hook = Box::new(move |state, _| {
        let partition = state.partition("lagging", 0).expect("it is there");
        let copied = partition.leader_log().expect("it is led").end_offset();
        let mut stands = told.lock().expect("no panic");
        if copied >= 1_000 && stands.is_none() {
            let (fault, refuse) = refused();
            *stands = Some(state.faults.add(fault, refuse));
        }
    });
    let copied = Fault::on(ApiKey::Produce).topic("lagging");
    target.fault(copied, Action::HasTakenEffect(stand));
    target.clear(held);
    case.await_on_target(positions[0]);
    assert!(
        end_offset(&case.target, "lagging", 0) < end,
        "it was not committed before the copy had come to its end"
    );
    // It stays there: without it the hook would make another one.
    let stands = *stands.lock().expect("no panic");
    target.clear(stands.expect("it stands"));
    case.await_on_target(positions[2]);
    case.await_state("followed");
}

#[test]
fn a_deleted_group_stays_on_the_target_unless_the_config_says_otherwise() {
    for (name, lines, stays) in [("kept", "", true), ("dropped", ", delete: true", false)] {
        let case = Case::new(name, "", lines);
        case.commit_on_source(20);
        case.await_answered(20);
        let cluster = wire_cluster(&case.source);
        let deleted = block_on(wire::delete_groups(&cluster, &[name.to_owned()]));
        assert!(deleted[name].is_ok(), "{deleted:?}");
        if stays {
            case.await_state("gone_on_source");
            assert_eq!(case.on_target(), Some(20));
        } else {
            eventually(DEADLINE, "the group is gone", || match case.on_target() {
                None => Ok(()),
                found => Err(found),
            });
        }
        // It comes back, and is followed again.
        case.commit_on_source(60);
        case.await_on_target(60);
    }
}

#[test]
fn a_transaction_s_positions_count_when_it_commits() {
    commits_in_transactions(&Case::new("exactly-once", "", ""));
}

/// The case's name is `exactly-once`.
pub(crate) fn commits_in_transactions(case: &Case) {
    let producer: BaseProducer = admin::client(&case.source)
        .set("transactional.id", "exactly-once")
        .create()
        .expect("valid settings");
    crate::support::produce::begin(&producer).expect("a producer id");
    let consumer = group_client(&case.source, "exactly-once");
    let send = |offset: i64| {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("exactly-once", 0, Offset::Offset(offset))
            .expect("a valid offset");
        producer.begin_transaction().expect("it begins");
        let group = consumer.group_metadata().expect("the group's name");
        producer
            .send_offsets_to_transaction(&list, &group, ANSWER)
            .expect("offsets are sent");
    };
    send(11);
    producer.commit_transaction(ANSWER).expect("it commits");
    case.await_on_target(11);
    send(22);
    producer.abort_transaction(ANSWER).expect("it aborts");
    send(33);
    // Another group is not held up by the open transaction, and nothing of it shows.
    let seen = case.await_state("followed");
    assert_eq!(seen["source_position"], 11, "{seen:#}");
    assert_eq!(case.on_target(), Some(11));
    producer.commit_transaction(ANSWER).expect("it commits");
    case.await_on_target(33);

    // The newest record counts, not the newest marker.
    send(40);
    case.commit_on_source(50);
    case.await_on_target(50);
    producer.commit_transaction(ANSWER).expect("it commits");
    case.await_all_read();
    assert_eq!(
        committed(&case.source, case.name, case.name, 1)[0],
        Some(50)
    );
    assert_eq!(case.on_target(), Some(50));
}

/// Java's client refuses to commit it, the coordinator takes it, and every reader takes it for none.
#[test]
fn an_offset_below_zero_is_no_position() {
    let case = Case::new("below", "", "");
    let nowhere = GroupOffset {
        offset: -1,
        leader_epoch: -1,
        metadata: String::new(),
    };
    let commits = BTreeMap::from([(TopicPartition::new("below", 0), nowhere)]);
    let commits = HashMap::from([("below".to_owned(), commits)]);
    let cluster = wire_cluster(&case.source);
    let done = block_on(wire::commit_group_offsets(&cluster, &commits));
    assert!(done["below"].values().all(Result::is_ok), "{done:?}");
    case.await_all_read();
    assert_eq!(case.on_target(), None, "nothing, as on the source");
    case.commit_on_source(30);
    case.await_on_target(30);
}

#[test]
fn metadata_that_is_too_large_for_the_target_costs_no_position() {
    let (source, target) = fake_pair();
    source.control(|state| state.groups.settings.offset_metadata_max = 16_384);
    has_had_groups(&target.bootstrap());
    let addresses = (source.bootstrap(), target.bootstrap());
    let case = Case::between(addresses, "heavy", "", "");
    commit_with(&case.source, "heavy", 0, 60, &"x".repeat(8_000));
    case.await_on_target(60);
    case.await_state("followed");
    // It isn't sent again and again: there is one more commit in the target's log.
    let commits = || -> i64 {
        let partitions = 0..Settings::default().topic_partitions;
        let ends = partitions.map(|number| end_offset(&case.target, "__consumer_offsets", number));
        ends.sum()
    };
    let before = commits();
    commit_with(&case.source, "heavy", 0, 70, &"x".repeat(8_000));
    case.await_on_target(70);
    case.await_all_read();
    assert_eq!(commits() - before, 1);
}

/// A target that takes its time for a commit gets the newest position of a group then, not each.
#[test]
fn commits_are_merged_where_the_target_takes_few_of_them() {
    let (source, target) = fake_pair();
    has_had_groups(&target.bootstrap());
    let addresses = (source.bootstrap(), target.bootstrap());
    let case = Case::between(addresses, "merged", "", "");
    case.commit_on_source(1);
    case.await_on_target(1);
    let commits = || Fault::on(ApiKey::OffsetCommit).group("merged");
    let sent = target.fault(commits(), Action::Delay(0));
    let held = target.fault(commits().times(1), Action::Hold);
    let client = group_client(&case.source, "merged");
    for offset in 2..=60 {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("merged", 0, Offset::Offset(offset))
            .expect("a valid offset");
        client.commit(&list, CommitMode::Sync).expect("it commits");
    }
    eventually(DEADLINE, "one is held, and the last one is seen", || {
        let found = &case.twinlog.groups()["groups"][0];
        match target.fired(held) == 1 && found["source_position"] == 60 {
            true => Ok(()),
            false => Err(found.clone()),
        }
    });
    target.clear(held);
    case.await_on_target(60);
    let sent = target.fired(sent);
    assert!((1..=20).contains(&sent), "{sent}");
}

#[test]
fn a_group_on_an_empty_partition_and_one_at_the_end_have_their_place() {
    let case = Case::new("edges", "", "");
    create_topic(&case.source, "edges-empty", 1, &[]);
    let config = flow_config(
        "edges-empty",
        "edges-empty",
        &case.source,
        &case.target,
        "groups: { include: [\"edges-empty\"] }",
    );
    let _twinlog = Twinlog::start(&config);
    commit(&case.source, "edges-empty", &[("edges-empty", 0, 0)]);
    eventually(
        DEADLINE,
        "the empty partition's position arrives",
        || match committed(&case.target, "edges-empty", "edges-empty", 1)[0] {
            Some(0) => Ok(()),
            found => Err(found),
        },
    );
    case.commit_on_source(100);
    case.await_on_target(100);
    let next = next_records(&case.target, "edges", "edges", 1);
    assert_eq!(next[&0], None, "nothing is left to read");
}
