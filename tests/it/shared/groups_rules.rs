//! The rules by which groups are followed, between real clusters: what the fake has no answer to, and
//! that it tells the truth.

use std::time::Duration;

use crate::fake::groups_rules::{
    Case, DEADLINE, commits_in_transactions, member, moves_forward_and_back,
};
use crate::support::failover::{failover, words};
use crate::support::flow::flow_config;
use crate::support::groups::{committed, has_had_groups, next_records};
use crate::support::streams::commit_as_streams;
use crate::support::{
    KafkaVersion, Load, Twinlog, await_caught_up, create_topic, eventually, mirror_tools, pair,
};
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

fn case(name: &'static str, lines: &str, group_lines: &str) -> Case {
    let (source, target) = pair(KafkaVersion::V4_3);
    Case::between(
        (source.bootstrap(), target.bootstrap()),
        name,
        lines,
        group_lines,
    )
}

#[test]
fn a_group_that_moves_forward_and_back_is_followed() {
    moves_forward_and_back(&case("back", "", ""));
}

#[test]
fn a_transaction_s_positions_count_when_it_commits() {
    commits_in_transactions(&case("exactly-once", "", ""));
}

#[test]
fn a_kip_848_group_goes_on_as_one() {
    let case = case("kip-848", "", "");
    case.commit_on_source(0);
    let consumer = member(&case.source, "kip-848", "consumer");
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("kip-848", 0, Offset::Offset(64))
        .expect("a valid offset");
    consumer
        .commit(&list, CommitMode::Sync)
        .expect("it commits");
    case.await_on_target(64);
    drop(consumer);
    let next = next_records(&case.target, "kip-848", "kip-848", 1);
    assert_eq!(next[&0].as_ref().map(|(offset, _)| *offset), Some(64));
    let consumer = member(&case.target, "kip-848", "consumer");
    let message = eventually(DEADLINE, "the member reads on", || {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => Ok(message.detach()),
            _ => Err(()),
        }
    });
    assert!(message.offset() >= 64, "{}", message.offset());
}

/// A group of Kafka Streams' own protocol is one that commits positions, for the tail as for the last barrier.
#[test]
fn a_streams_group_is_brought_by_a_failover_as_any_other() {
    let (source, target) = pair(KafkaVersion::V4_3);
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "streams", 1, &[]);
    Load::new("streams", 100).produce(&source);
    has_had_groups(&source);
    commit_as_streams(&source, "streams", "streams", 30);
    let mut twinlog = Twinlog::start(&flow_config("streams", "streams", &source, &target, ""));
    await_caught_up(&twinlog, DEADLINE);
    let on_target = || committed(&target, "streams", "streams", 1)[0];
    eventually(DEADLINE, "the group is followed", || match on_target() {
        Some(30) => Ok(()),
        found => Err(found),
    });
    let config = twinlog.config_file().to_owned();
    assert!(twinlog.terminate().success());
    commit_as_streams(&source, "streams", "streams", 70);
    let plan = failover(&config, &["--fence", "manual"]);
    let said = words(&plan);
    assert!(said.contains("1 group(s) are followed"), "{said}");
    let done = failover(&config, &["--fence", "manual", "--yes"]);
    assert_eq!(done.status.code(), Some(0), "{}", words(&done));
    assert_eq!(on_target(), Some(70), "{}", words(&done));
}

/// The whole way: a flow with `mirrormaker_compat`, read by MirrorMaker 2's own Java client.
#[test]
fn mirrormaker_s_own_tools_translate_a_followed_group() {
    let case = case("mm2-tools", "mirrormaker_compat: true", "");
    // Ours has the topic's name on the target: a flow must not copy another into it.
    create_topic(&case.source, "heartbeats", 1, &[]);
    case.commit_on_source(40);
    case.await_on_target(40);
    case.commit_on_source(71);
    case.await_on_target(71);
    let wanted = "offset mm2-tools mm2-tools 0 71";
    eventually(DEADLINE, "the tools translate the group", || {
        let said = mirror_tools(
            KafkaVersion::V4_3,
            &case.target,
            "identity",
            "primary",
            &["mm2-tools"],
        );
        let has = |line: &str| said.iter().any(|said| said.starts_with(line));
        if has(wanted) && has("upstream primary") {
            Ok(())
        } else {
            Err(said)
        }
    });
}
