//! A broker of the source that is cut off from its controllers answers with an image of before. What isn't in that isn't
//! gone.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::fake::metadata_acls::{OFTEN, await_looks, start};
use crate::support::flow::{block_on, wire_cluster};
use crate::support::{FakeCluster, add_acls, await_acls, create_topic, eventually, remove_acls};
use fake_kafka::faults::{Action, Fault, FaultId, Hook};
use fake_kafka::state::{Options, State};
use kafka_protocol::messages::ApiKey;
use twinlog::wire::{self, QuotaChange, QuotaEntity};

const DEADLINE: Duration = Duration::from_secs(60);

fn three_brokers(name: &str) -> FakeCluster {
    let cluster = FakeCluster::start(Options {
        cluster_id: name.to_owned(),
        brokers: 3,
        ..Options::default()
    });
    cluster.control(|state: &mut State| {
        state.acls.is_on = true;
        state.acls.super_users.insert("User:ANONYMOUS".to_owned());
    });
    cluster
}

/// Does something before a question has its effect and something behind it, to one and the same: nobody asks between the
/// two faults.
fn around_one(
    cluster: &FakeCluster,
    asked: impl Fn() -> Fault,
    before: Hook,
    behind: Hook,
) -> FaultId {
    cluster.control(|state| {
        state.faults.add(asked(), Action::Arrives(before));
        state.faults.add(asked(), Action::HasTakenEffect(behind))
    })
}

#[test]
fn a_broker_that_never_heard_of_an_acl_takes_none_away() {
    let (source, target) = (three_brokers("source"), three_brokers("target"));
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, "pii", 1, &[]);
    let denied = "DENY READ User:bi * topic pii";
    add_acls(&from, &[denied]);
    let twinlog = start(&from, &to, OFTEN);
    await_acls(&to, &[denied], DEADLINE);

    // Whoever is asked next is cut off from then on.
    let removed = target.fault(
        Fault::on(ApiKey::DeleteAcls),
        Action::Arrives(Box::new(|_, _| {})),
    );
    let asked = Fault::on(ApiKey::DescribeAcls).times(1);
    let late = source.fault(
        asked,
        Action::Arrives(Box::new(|state, seen| state.acls.forget(seen.broker))),
    );
    eventually(
        DEADLINE,
        "a broker with an old image is asked",
        || match source.fired(late) {
            0 => Err(0),
            _ => Ok(()),
        },
    );
    await_looks(&twinlog, 3);
    assert_eq!(target.fired(removed), 0, "nobody takes the denial away");
    await_acls(&to, &[denied], DEADLINE);

    // What the others lack, too, goes.
    remove_acls(&from, &[denied]);
    await_acls::<&str>(&to, &[], DEADLINE);
}

#[test]
fn a_broker_that_never_heard_of_a_quota_takes_none_away() {
    let (source, target) = (three_brokers("source"), three_brokers("target"));
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, "orders", 1, &[]);
    let entity = QuotaEntity::new([("user", Some("bi"))]);
    let set = |value: Option<f64>| {
        let change = QuotaChange {
            entity: entity.clone(),
            key: "consumer_byte_rate".to_owned(),
            value,
        };
        let done = block_on(wire::alter_client_quotas(&wire_cluster(&from), &[change]));
        assert!(done.is_ok_and(|done| done[0].is_ok()), "it can be set");
    };
    let on_target = || {
        let quotas = block_on(wire::describe_client_quotas(&wire_cluster(&to)));
        let quotas = quotas.expect("quotas");
        quotas.get(&entity)?.get("consumer_byte_rate").copied()
    };
    let await_there = |wanted: Option<f64>| {
        eventually(DEADLINE, "the quota follows", || match on_target() {
            found if found == wanted => Ok(()),
            found => Err(found),
        });
    };
    set(Some(1_000_000.0));
    let twinlog = start(&from, &to, OFTEN);
    await_there(Some(1_000_000.0));

    let removed = target.fault(
        Fault::on(ApiKey::AlterClientQuotas),
        Action::Arrives(Box::new(|_, _| {})),
    );
    // One answer is told from an image of before there were any.
    let image = Arc::new(Mutex::new(None));
    let kept = image.clone();
    let asked = || Fault::on(ApiKey::DescribeClientQuotas).times(1);
    let takes: Hook = Box::new(move |state, _| {
        let quotas = std::mem::take(&mut state.quotas);
        *kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(quotas);
    });
    let gives_back: Hook = Box::new(move |state, _| {
        let quotas = image.lock().unwrap_or_else(PoisonError::into_inner).take();
        state.quotas = quotas.unwrap_or_default();
    });
    let told = around_one(&source, asked, takes, gives_back);
    eventually(DEADLINE, "it is told from an old image", || {
        match source.fired(told) {
            0 => Err(0),
            _ => Ok(()),
        }
    });
    await_looks(&twinlog, 2);
    assert_eq!(target.fired(removed), 0, "nobody takes the quota away");
    assert_eq!(on_target(), Some(1_000_000.0));

    set(None);
    await_there(None);
}

#[test]
fn a_broker_that_tells_an_old_retention_takes_no_records() {
    let (source, target) = (three_brokers("source"), three_brokers("target"));
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, "orders", 1, &[("retention.ms", "604800000")]);
    let twinlog = start(&from, &to, OFTEN);
    let retention = |bootstrap: &str| {
        let asked = ["orders".to_owned()];
        let told = block_on(wire::describe_topic_configs(
            &wire_cluster(bootstrap),
            &asked,
        ));
        let configs = told["orders"].as_ref().ok()?;
        configs.get("retention.ms")?.value.clone()
    };
    let await_retention = |wanted: &str| {
        eventually(DEADLINE, "the setting follows", || match retention(&to) {
            Some(found) if found == wanted => Ok(()),
            found => Err(found),
        });
    };
    await_retention("604800000");
    // The copy has it from its creation; what is to be changed of its settings is behind these.
    await_looks(&twinlog, 2);

    let changed = target.fault(
        Fault::on(ApiKey::IncrementalAlterConfigs).topic("orders"),
        Action::Arrives(Box::new(|_, _| {})),
    );
    // One answer is told from an image of when it was an hour.
    let set = |value: &'static str| {
        move |state: &mut State, _: &fake_kafka::faults::Seen| {
            let topic = state.topics.get_mut("orders").expect("it is there");
            topic.configs.insert("retention.ms".into(), value.into());
        }
    };
    let asked = || Fault::on(ApiKey::DescribeConfigs).topic("orders").times(1);
    let (before, behind) = (set("3600000"), set("604800000"));
    let told = around_one(&source, asked, Box::new(before), Box::new(behind));
    eventually(DEADLINE, "it is told from an old image", || {
        match source.fired(told) {
            0 => Err(0),
            _ => Ok(()),
        }
    });
    await_looks(&twinlog, 3);
    assert_eq!(target.fired(changed), 0, "nobody shortens it");
    assert_eq!(retention(&to).as_deref(), Some("604800000"));

    source.control(|state: &mut State| {
        let topic = state.topics.get_mut("orders").expect("it is there");
        topic
            .configs
            .insert("retention.ms".into(), "7200000".into());
    });
    await_retention("7200000");
}
