//! The rules by which groups are followed.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::support::failover::{failover, words};
use crate::support::flow::{block_on, flow_config, wire_cluster};
use crate::support::groups::{
    commit, commit_with, committed, group_client, has_had_groups, next_records,
};
use crate::support::{Load, Twinlog, admin, create_topic, end_offset, eventually, fake_pair};
use fake_kafka::faults::{Action, Fault};
use fake_kafka::groups::classic::Settings;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::ApiKey;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;
use twinlog::state::{GroupPositions, StateStore, keys};
use twinlog::wire::{self, GroupOffset, TopicPartition};

pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
const ANSWER: Duration = Duration::from_secs(60);

/// A topic with one partition and 100 records, and a flow that copies it and follows one group.
pub(crate) struct Case {
    name: &'static str,
    pub(crate) source: String,
    pub(crate) target: String,
    twinlog: Twinlog,
}

impl Case {
    fn new(name: &'static str, lines: &str, group_lines: &str) -> Self {
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

    fn on_target(&self) -> Option<i64> {
        committed(&self.target, self.name, self.name, 1)[0]
    }

    pub(crate) fn await_on_target(&self, offset: i64) {
        let what = format!("{} is at {offset} on the target", self.name);
        eventually(DEADLINE, &what, || match self.on_target() {
            Some(found) if found == offset => Ok(()),
            found => Err(found),
        });
    }

    fn await_state(&self, state: &str) -> Value {
        self.twinlog.await_group(self.name, state, DEADLINE)
    }

    /// Waits until Twinlog has seen this position on the source and stands so.
    fn await_seen(&self, source_position: i64, state: &str) {
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

    /// Waits until the state topic has a record of the group that is so.
    fn await_remembered(&self, is_so: impl Fn(&GroupPositions) -> bool) {
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
    commit(&case.target, "diverged", &[("diverged", 0, 77)]);
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
    commit(&case.target, "repair", &[("repair", 0, 40)]);
    case.await_state("diverged");
    commit(&case.target, "repair", &[("repair", 0, 30)]);
    case.await_state("followed");
    assert_eq!(case.on_target(), Some(30));
    case.commit_on_source(35);
    case.await_on_target(35);

    // The same while nobody looks, later than Twinlog would have committed.
    commit(&case.target, "repair", &[("repair", 0, 45)]);
    case.await_state("diverged");
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
    commit(&case.target, "kept", &[("kept", 0, 77)]);
    case.commit_on_source(40);
    case.await_seen(40, "diverged");
    case.await_remembered(|record| !record.foreign.is_empty());
    let config = case.twinlog.config_file().to_owned();
    assert!(case.twinlog.terminate().success());
    for extra in [&["--fence", "manual"][..], &["--fence", "manual", "--yes"]] {
        let done = failover(&config, extra);
        let said = words(&done);
        assert_eq!(done.status.code(), Some(0), "{said}");
        assert_eq!(case.on_target(), Some(77), "{said}");
        let is_named = said.lines().any(|line| line.contains("of their own"));
        assert!(is_named && said.contains("kept"), "{said}");
    }
}

/// Its time alone would make it one of ours that wasn't remembered any more.
#[test]
fn a_position_that_a_client_committed_is_left_to_it_over_a_crash() {
    let mut case = Case::new("left", "", "");
    case.commit_on_source(20);
    case.await_on_target(20);
    commit(&case.target, "left", &[("left", 0, 77)]);
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

/// Twinlog looks twice a second for the log of groups of a target that never had one. What is committed
/// before it was found and read is taken for long past, and nothing is known of it until then.
#[test]
#[should_panic(
    expected = "16: what a client commits before the log of groups is read is overwritten"
)]
fn a_position_that_a_client_committed_before_the_target_s_log_is_read_stays() {
    let (source, target) = fake_pair();
    let addresses = (source.bootstrap(), target.bootstrap());
    let case = Case::between(addresses, "unseen", "", "");
    let reads = Fault::on_topic(ApiKey::ListOffsets, "__consumer_offsets");
    target.fault(reads, Action::Refuse(ResponseError::NotLeaderOrFollower));
    case.commit_on_source(20);
    // Asking the target makes its log of groups, and Twinlog would wait for that: it is asked itself.
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
    eventually(DEADLINE, "it is decided about the next one", || {
        let found = &case.twinlog.groups()["groups"][0];
        let is_decided = found["state"] == "diverged" || found["target_position"] == 30;
        match is_decided && found["source_position"] == 30 {
            true => Ok(()),
            false => Err(found.clone()),
        }
    });
    assert_eq!(
        case.on_target(),
        Some(77),
        "16: what a client commits before the log of groups is read is overwritten"
    );
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
    Load::new("ahead", 6_000)
        .first(100)
        .value_bytes(1_000)
        .produce(&case.source);
    let end = end_offset(&case.source, "ahead", 0);
    case.commit_on_source(end);
    case.await_seen(end, "not_yet_copied");
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
    let case = Case::new("lagging", "limits: { bytes_per_second: 1MiB }", "");
    Load::new("lagging", 8_000)
        .first(100)
        .value_bytes(1_000)
        .produce(&case.source);
    let end = end_offset(&case.source, "lagging", 0);
    let mut position = 1_000;
    eventually(DEADLINE, "a position on the way is committed", || {
        position = (position + 20).min(end - 1);
        case.commit_on_source(position);
        match case.on_target() {
            Some(found) if found >= 1_000 => Ok(()),
            found => Err(found),
        }
    });
    assert!(
        end_offset(&case.target, "lagging", 0) < end,
        "it was not committed before the copy had come to its end"
    );
    eventually(DEADLINE, "the last one follows", || {
        match case.on_target() {
            Some(found) if found == position => Ok(()),
            found => Err((found, position)),
        }
    });
    case.await_state("followed");
}

#[test]
fn a_deleted_group_stays_on_the_target_unless_the_config_says_otherwise() {
    for (name, lines, stays) in [("kept", "", true), ("dropped", ", delete: true", false)] {
        let case = Case::new(name, "", lines);
        case.commit_on_source(20);
        case.await_on_target(20);
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
    producer.init_transactions(ANSWER).expect("a producer id");
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

/// A target that takes a few commits a second gets the newest position of a group, not each.
#[test]
fn commits_are_merged_where_the_target_takes_few_of_them() {
    let (source, target) = fake_pair();
    has_had_groups(&target.bootstrap());
    let addresses = (source.bootstrap(), target.bootstrap());
    let case = Case::between(addresses, "merged", "", "");
    case.commit_on_source(1);
    case.await_on_target(1);
    let commits = Fault::on(ApiKey::OffsetCommit).group("merged");
    let slow = target.fault(commits, Action::Delay(300));
    let client = group_client(&case.source, "merged");
    for offset in 2..=60 {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("merged", 0, Offset::Offset(offset))
            .expect("a valid offset");
        client.commit(&list, CommitMode::Sync).expect("it commits");
    }
    case.await_on_target(60);
    let sent = target.fired(slow);
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
