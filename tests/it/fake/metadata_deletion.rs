//! Topics that grow or go on the source: their copies follow, and nothing else is deleted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fake_kafka::faults::{Action, Fault, Hook};
use fake_kafka::topics::NewTopic;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;

use crate::support::admin::partition_count;
use crate::support::failover::{failover, failover_exiting_at, words};
use crate::support::flow::{
    await_stopped, block_on, flow_config, is_caught_up, opened_state, topic_status, wire_cluster,
    with_state,
};
use crate::support::{
    FakeCluster, Load, Twinlog, add_partitions, assert_topic_same, await_same, create_topic,
    delete_topic, end_offset, eventually, fake_pair,
};
use twinlog::config::OnDelete;
use twinlog::flow::gone_topics;
use twinlog::state::{FlowRecord, GoneRecord, SourceIs, keys};
use twinlog::telemetry::metadata::DriftAction;
use twinlog::telemetry::progress::now_ms;

/// The promise: new partitions are there within this time.
const PROMISED: Duration = Duration::from_secs(5);
const DEADLINE: Duration = Duration::from_secs(60);

/// Since when the flow misses the topic on the source.
fn gone_since(target: &str, flow: &str, topic: &str) -> Option<i64> {
    let key = keys::gone(flow, topic);
    let record = with_state(target, |store| store.get::<GoneRecord>(&key));
    record
        .expect("it can be read")
        .map(|record| record.since_ms)
}

fn await_gone(target: &str, flow: &str, topic: &str) -> i64 {
    eventually(DEADLINE, &format!("{topic} is missed"), || {
        gone_since(target, flow, topic).ok_or("not yet")
    })
}

fn await_deleted(target: &str, topic: &str) {
    eventually(
        DEADLINE,
        &format!("the copy {topic} is deleted"),
        || match partition_count(target, topic) {
            0 => Ok(()),
            count => Err(count),
        },
    );
}

/// Creates topics on the source with some records, and waits until the flow has copied them.
fn await_copied(twinlog: &Twinlog, source: &str, topics: &[&str]) {
    for topic in topics {
        if partition_count(source, topic) == 0 {
            create_topic(source, topic, 1, &[]);
        }
        Load::new(topic, 100).produce(source);
    }
    twinlog.wait_until(DEADLINE, "the topics are copied", |status| {
        topics.iter().all(|topic| {
            is_caught_up(status, topic, 0)
                && topic_status(status, topic)["partitions"][0]["source_position"] == 100
        })
    });
}

#[test]
fn new_partitions_follow_in_time() {
    let (source, target) = fake_pair();
    new_partitions_follow(&source.bootstrap(), &target.bootstrap());
}

pub(crate) fn new_partitions_follow(source: &str, target: &str) {
    create_topic(source, "grows", 1, &[]);
    let config = flow_config("grows", "grows", source, target, "");
    let twinlog = Twinlog::start(&config);
    await_copied(&twinlog, source, &["grows"]);
    add_partitions(source, "grows", 4);
    eventually(
        PROMISED,
        "the copy has as many partitions",
        || match partition_count(target, "grows") {
            4 => Ok(()),
            count => Err(count),
        },
    );
    Load::new("grows", 400).first(100).produce(source);
    await_same(source, target, "grows", DEADLINE);
}

#[test]
fn a_copy_is_deleted_after_the_grace_period_and_a_restart_does_not_prolong_it() {
    let (source, target) = fake_pair();
    deleted_after_the_grace_period(&source.bootstrap(), &target.bootstrap());
}

pub(crate) fn deleted_after_the_grace_period(source: &str, target: &str) {
    let lines = "discovery_interval: 200ms\non_delete: { mode: delete, grace: 10s }";
    let flow = "deletes";
    let config = flow_config(flow, "deletes[.].*", source, target, lines);
    let mut twinlog = Twinlog::start(&config);
    await_copied(&twinlog, source, &["deletes.goes", "deletes.stays"]);

    delete_topic(source, "deletes.goes");
    let since = await_gone(target, flow, "deletes.goes");
    let shown = with_state(target, |store| {
        let grace = Duration::from_secs(4 * 3_600);
        gone_topics(
            store,
            flow,
            OnDelete::Delete { grace },
            since + 48 * 60 * 1_000,
        )
    });
    let [(topic, drift)] = &shown[..] else {
        panic!("{shown:#?}");
    };
    assert_eq!(
        (&**topic, drift.action),
        ("deletes.goes", DriftAction::Remove)
    );
    assert_eq!(drift.why.as_deref(), Some("deleted in 3 h 12 min"));
    twinlog.kill9();
    twinlog.launch();
    eventually(DEADLINE, "the copy is deleted", || {
        let known = gone_since(target, flow, "deletes.goes");
        assert!(known.is_none_or(|known| known == since), "{known:?}");
        match partition_count(target, "deletes.goes") {
            0 => Ok(()),
            count => Err(count),
        }
    });
    assert!(
        now_ms() - since >= 10_000,
        "only {} ms later",
        now_ms() - since
    );

    // Nothing is left of it, and nothing else is touched.
    eventually(DEADLINE, "the topic is forgotten", || {
        let left = with_state(target, |store| {
            let all = ["topic", "seen", "gone", "config"].map(|kind| format!("{kind}/{flow}/"));
            let keys = all.iter().flat_map(|prefix| store.keys(prefix));
            keys.filter(|key| key.ends_with("deletes.goes"))
                .collect::<Vec<_>>()
        });
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    assert_topic_same(source, target, "deletes.stays");
    let log = twinlog.log();
    assert!(log.contains("its copy is deleted in 10 s"), "{log}");

    // The same name, again: copied from its first record.
    create_topic(source, "deletes.goes", 1, &[]);
    Load::new("deletes.goes", 50).produce(source);
    await_same(source, target, "deletes.goes", DEADLINE);
}

#[test]
fn what_is_back_or_was_not_made_by_the_flow_stays() {
    let (source, target) = fake_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    let flow = "spares";
    let lines = "discovery_interval: 200ms\non_delete: { mode: delete, grace: 12s }";
    let config = flow_config(flow, "spares[.].*", &source, &target, lines);
    create_topic(&target, "spares.adopted", 1, &[]);
    let twinlog = Twinlog::start(&config);
    let topics = ["spares.adopted", "spares.back", "spares.made"];
    await_copied(&twinlog, &source, &topics);

    for topic in ["spares.adopted", "spares.back"] {
        delete_topic(&source, topic);
        await_gone(&target, flow, topic);
    }
    create_topic(&source, "spares.back", 1, &[]);
    eventually(DEADLINE, "it is known to be back", || {
        gone_since(&target, flow, "spares.back").map_or(Ok(()), Err)
    });
    // By the rule for topics that were made again.
    await_stopped(&twinlog, "spares.back", 0, "source_recreated");

    // Missed after the others, so it is the last that falls due.
    delete_topic(&source, "spares.made");
    await_deleted(&target, "spares.made");
    for topic in ["spares.adopted", "spares.back"] {
        assert_eq!(end_offset(&target, topic, 0), 100, "{topic}");
    }
    // What was deleted is forgotten a moment later.
    eventually(DEADLINE, "the adopted one is all that is left", || {
        let shown = with_state(&target, |store| {
            let grace = Duration::from_secs(12);
            gone_topics(store, flow, OnDelete::Delete { grace }, now_ms())
        });
        match &shown[..] {
            [(topic, drift)] if topic == "spares.adopted" && drift.action == DriftAction::Leave => {
                Ok(())
            }
            _ => Err(shown),
        }
    });
}

#[test]
fn a_copy_is_kept_by_default() {
    let (source, target) = fake_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    let flow = "keeps";
    let lines = "discovery_interval: 200ms";
    let config = flow_config(flow, "keeps[.].*", &source, &target, lines);
    let twinlog = Twinlog::start(&config);
    await_copied(&twinlog, &source, &["keeps.gone"]);
    delete_topic(&source, "keeps.gone");
    await_gone(&target, flow, "keeps.gone");
    // Several looks later it is still there.
    await_copied(&twinlog, &source, &["keeps.next"]);
    assert_eq!(end_offset(&target, "keeps.gone", 0), 100);
    let log = twinlog.log();
    assert!(
        log.contains("the source topic is gone; its copy is kept"),
        "{log}"
    );
}

/// The source's disks are lost, and it is formatted with the id that it had.
fn build_anew(source: &FakeCluster, topics_made_again: &[&str]) {
    source.control(|state| {
        let before: Vec<String> = state.topics.keys().cloned().collect();
        before.iter().for_each(|name| {
            state.delete_topic(name);
        });
        state.create_offsets_topic();
    });
    for topic in topics_made_again {
        create_topic(&source.bootstrap(), topic, 1, &[]);
    }
}

#[test]
fn a_source_that_was_built_anew_under_the_same_id_takes_nothing_from_the_standby() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    source.control(|state| state.create_offsets_topic());
    let lines =
        "discovery_interval: 200ms\non_recreate: recreate\non_delete: { mode: delete, grace: 0s }";
    let config = flow_config("rebuilt", "rebuilt[.].*", &from, &to, lines);
    let mut twinlog = Twinlog::start(&config);
    await_copied(
        &twinlog,
        &from,
        &["rebuilt.lost", "rebuilt.empty", "rebuilt.restart"],
    );
    let is = |twinlog: &str| {
        let source = wire_cluster(&from);
        let cluster = wire_cluster(&to);
        block_on(async {
            let store = opened_state(&cluster, twinlog).await;
            SourceIs::ask(&store, twinlog, &source).await
        })
    };
    assert!(matches!(is("rebuilt"), Ok(Ok(SourceIs::Known))));
    // Whom nobody describes it to can't tell.
    let hidden = Fault::on_topic(ApiKey::Metadata, "__consumer_offsets");
    let hidden = source.fault(
        hidden,
        Action::Refuse(ResponseError::TopicAuthorizationFailed),
    );
    assert!(matches!(is("rebuilt"), Ok(Ok(SourceIs::BuiltAnew { .. }))));
    source.clear(hidden);
    build_anew(&source, &["rebuilt.empty"]);
    assert!(matches!(is("rebuilt"), Ok(Ok(SourceIs::BuiltAnew { .. }))));
    let is_kept = |twinlog: &Twinlog| {
        twinlog.wait_until(
            DEADLINE,
            "the new topic isn't taken for the old one",
            |status| {
                let partition = &topic_status(status, "rebuilt.empty")["partitions"][0];
                partition["reason"] == "source_replaced"
            },
        );
    };
    is_kept(&twinlog);
    let undeleted = |twinlog: &Twinlog| {
        twinlog.wait_until(DEADLINE, "why the copy stays is said", |status| {
            status
                .to_string()
                .contains("built anew under the same cluster id")
        });
    };
    undeleted(&twinlog);
    let looked = |options: &[&str]| words(&failover(twinlog.config_file(), options));
    eventually(
        DEADLINE,
        "the stopped partition is known to a failover",
        || {
            let plan = looked(&["--unplanned"]);
            match plan.contains("rebuilt.empty-0 (source_replaced)") {
                true => Ok(()),
                false => Err(plan),
            }
        },
    );
    // Nobody can mend it: it is taken as it is.
    assert!(looked(&["--unplanned"]).contains("LOSS     stopped"));
    let accepted = looked(&["--unplanned", "--accept-loss", "any"]);
    assert!(accepted.contains("warning  stopped"), "{accepted}");
    assert!(twinlog.terminate().success());
    // A failover that is undone says nothing of who the source is.
    let options = [
        "--unplanned",
        "--yes",
        "--accept-loss",
        "any",
        "--fence",
        "manual",
    ];
    let before_padding = Some("stop_copying:worked");
    let crashed = failover_exiting_at(twinlog.config_file(), &options, before_padding);
    assert_eq!(crashed.status.code(), Some(137), "{}", words(&crashed));
    let undone = failover(twinlog.config_file(), &["--abort", "--yes"]);
    assert!(undone.status.success(), "{}", words(&undone));
    twinlog.launch();
    is_kept(&twinlog);
    undeleted(&twinlog);
    for topic in ["rebuilt.lost", "rebuilt.empty", "rebuilt.restart"] {
        assert_eq!(end_offset(&to, topic, 0), 100, "{topic}");
    }
    // As the hint says.
    // It is made anew at once: nobody waits to see it gone.
    assert!(target.control(|state| state.delete_topic("rebuilt.empty")));
    Load::new("rebuilt.empty", 7).produce(&from);
    await_same(&from, &to, "rebuilt.empty", DEADLINE);
}

/// It comes between the source's word that it is gone and the deletion, which a process that was frozen may send late.
#[test]
fn a_topic_that_comes_back_right_before_its_copy_is_deleted_keeps_it() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    let flow = "returns";
    let lines = "discovery_interval: 200ms\non_delete: { mode: delete, grace: 0s }";
    let config = flow_config(flow, "returns[.].*", &from, &to, lines);
    let twinlog = Twinlog::start(&config);
    await_copied(&twinlog, &from, &["returns.late"]);
    let [is_told, is_back] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    let asked = || Fault::on_topic(ApiKey::Metadata, "returns.late");
    let tells = is_told.clone();
    let told: Hook = Box::new(move |state, _| {
        let is_gone = !state.topics.contains_key("returns.late");
        tells.fetch_or(is_gone, Ordering::Relaxed);
    });
    source.fault(asked(), Action::Arrives(told));
    let (there, came) = ((*source).clone(), is_back.clone());
    let comes_back: Hook = Box::new(move |_, _| {
        there.control(|state| {
            let is_gone = !state.topics.contains_key("returns.late");
            if is_told.load(Ordering::Relaxed) && is_gone {
                let new = NewTopic {
                    partitions: 1,
                    replication: 1,
                    ..NewTopic::default()
                };
                state
                    .create_topic("returns.late", &new)
                    .expect("it is made");
                came.store(true, Ordering::Relaxed);
            }
        });
    });
    // Whether the copy is there is asked behind the source's word.
    target.fault(asked(), Action::Arrives(comes_back));
    delete_topic(&from, "returns.late");
    await_stopped(&twinlog, "returns.late", 0, "source_recreated");
    assert!(is_back.load(Ordering::Relaxed));
    assert_eq!(end_offset(&to, "returns.late", 0), 100);
}

#[test]
fn another_source_deletes_nothing() {
    let (source, target) = fake_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    let flow = "swapped";
    let lines = "discovery_interval: 200ms\non_delete: { mode: delete, grace: 1s }";
    let config = flow_config(flow, "swapped[.].*", &source, &target, lines);
    let mut twinlog = Twinlog::start(&config);
    await_copied(&twinlog, &source, &["swapped.one"]);
    assert!(twinlog.terminate().success());

    // The state says that it was made from another cluster.
    let cluster = wire_cluster(&target);
    let key = keys::flow(flow);
    block_on(async {
        let store = opened_state(&cluster, flow).await;
        let record: Option<FlowRecord> = store.get(&key).expect("readable");
        let mut record = record.expect("it is there");
        record.source_cluster_id = Some("another".to_owned());
        store.remove(&key).await.expect("removed");
        store.put(&key, &record).await.expect("written");
    });
    delete_topic(&source, "swapped.one");
    twinlog.launch();
    twinlog.wait_until(DEADLINE, "the source isn't believed", |status| {
        status["flows"][0]["reason"] == "source_replaced"
    });
    assert_eq!(end_offset(&target, "swapped.one", 0), 100);
}
