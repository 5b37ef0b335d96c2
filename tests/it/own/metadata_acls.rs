//! Real clients under the copied ACLs, and after a failover with the source gone.

use crate::fake::metadata_acls::{DEADLINE, OFTEN, await_held, await_looks, the_first_acl};
use crate::support::admin::client_with;
use crate::support::failover::fenceable;
use crate::support::logins::{self, Login};
use crate::support::wait::Stopwatch;
use crate::support::{
    Cluster, ClusterOptions, KafkaVersion, Load, Security, Twinlog, add_acls, await_same,
    create_topic, eventually, users,
};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;
use std::time::Duration;

/// Only a real broker tells what it says of the property, and whom it takes a plaintext client for.
#[test]
fn the_first_acl_of_an_open_target_does_not_shut_twinlog_out() {
    let [mut source, mut target] =
        ["source", "target"].map(|name| Cluster::launch(KafkaVersion::V4_3, fenceable(name)));
    source.await_ready();
    target.await_ready();
    the_first_acl(&source.bootstrap(), &target.bootstrap());
}

/// Real clients under the copied ACLs.
#[test]
fn a_reader_may_read_on_the_standby_and_a_writer_writes_when_that_is_released() {
    let secured = |name| ClusterOptions::secured(name, Security::default());
    let mut source_cluster = Cluster::launch(KafkaVersion::V4_3, secured("source"));
    let mut target_cluster = Cluster::launch(KafkaVersion::V4_3, secured("target"));
    source_cluster.await_ready();
    target_cluster.await_ready();
    let (source, target) = (source_cluster.bootstrap(), target_cluster.bootstrap());
    for topic in ["orders", "bills"] {
        create_topic(&source, topic, 1, &[]);
        Load::new(topic, 20).produce(&source);
    }
    add_acls(
        &source,
        &[
            "ALLOW READ User:alice * topic orders",
            "ALLOW READ User:alice * group readers",
            "ALLOW WRITE User:bob * topic orders",
            "ALLOW ALL User:bob * topic-prefix bil",
        ],
    );
    let (from, to) = (logins::internal(&source), logins::internal(&target));
    let twinlog = Twinlog::start(&Twinlog::config(&from, &to, OFTEN));
    for topic in ["orders", "bills"] {
        await_same(&source, &target, topic, DEADLINE);
    }
    let alice = users::create(&target, "alice");
    let bob = users::create(&target, "bob");
    let read_orders = || read(&target, &alice, "orders", "readers");
    let write_to = |topic: &'static str| write(&target, &bob, topic);
    let dropped = [
        "topic orders: ALLOW WRITE User:bob from *",
        "topic prefix bil: ALLOW ALL User:bob from *",
    ];
    await_held(&twinlog, &dropped);
    succeeds(read_orders, "alice reads");
    fails(
        || read(&target, &alice, "bills", "readers"),
        "alice reads what she may not",
    );
    fails(|| write_to("orders"), "bob writes too early");
    fails(|| write_to("bills"), "bob writes too early");

    // Only shown.
    let held = |arguments: &[&str]| {
        let output = twinlog.command("held", arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), text)
    };
    let (code, text) = held(&["--release", "--dry-run"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("create ALLOW WRITE User:bob from * on topic orders"),
        "{text}"
    );
    assert!(text.contains("stops the mirrored partition"), "{text}");
    let (code, text) = held(&["--release"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("nothing was changed"), "{text}");
    assert_eq!(held(&["--release", "--yes", "--topic", "oders"]).0, Some(2));
    fails(
        || write_to("orders"),
        "bob writes though nothing was released",
    );

    // One topic, whose grant is a pattern.
    let (code, text) = held(&["--release", "--topic", "bills", "--yes"]);
    assert_eq!(code, Some(0), "{text}");
    succeeds(|| write_to("bills"), "bob writes to the released topic");
    fails(|| write_to("orders"), "bob writes to another topic");
    assert_eq!(
        held(&["--withdraw", "--topic", "bills", "--yes"]).0,
        Some(0)
    );
    fails(|| write_to("bills"), "bob writes after the withdrawal");

    // Everything, and a follower that runs on doesn't take it back.
    let (code, text) = held(&["--release", "--yes"]);
    assert_eq!(code, Some(0), "{text}");
    succeeds(|| write_to("orders"), "bob writes after the release");
    await_looks(&twinlog, 3);
    succeeds(|| write_to("orders"), "bob still writes");
    let (code, text) = held(&["--json"]);
    assert_eq!(code, Some(0));
    let answer: Value = serde_json::from_str(&text).expect("JSON");
    let listed = &answer["held"];
    assert_eq!(listed.as_array().map(Vec::len), Some(2), "{text}");
    assert!(
        listed
            .as_array()
            .into_iter()
            .flatten()
            .all(|held| held["released"] == true)
    );

    assert_eq!(held(&["--withdraw", "--yes"]).0, Some(0));
    fails(|| write_to("orders"), "bob writes after the withdrawal");
    await_looks(&twinlog, 3);
    fails(|| write_to("orders"), "bob writes after the withdrawal");
    await_held(&twinlog, &dropped);

    // The failover's case: nothing but the target is there.
    let mut twinlog = twinlog;
    twinlog.kill9();
    source_cluster.kill(1);
    let output = twinlog.command("held", &["--release", "--yes"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    succeeds(|| write_to("orders"), "bob writes after the failover");
    succeeds(|| write_to("bills"), "bob writes after the failover");
    succeeds(read_orders, "alice still reads");
}

/// Delivery reports of one message.
#[derive(Default)]
struct Delivered(std::sync::Mutex<Option<Result<(), String>>>);

impl rdkafka::ClientContext for Delivered {}

impl rdkafka::producer::ProducerContext for Delivered {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &rdkafka::message::DeliveryResult<'_>, (): ()) {
        let result = result.as_ref().map(|_| ());
        *self.0.lock().expect("no panic") = Some(result.map_err(|(error, _)| error.to_string()));
    }
}

/// Writes one record as somebody.
fn write(bootstrap: &str, login: &Login, topic: &str) -> Result<(), String> {
    let producer: BaseProducer<Delivered> = client_with(bootstrap, login)
        .set("message.timeout.ms", "5000")
        .create_with_context(Delivered::default())
        .expect("valid settings");
    let record = BaseRecord::<(), [u8]>::to(topic).partition(0).payload(b"x");
    producer
        .send(record)
        .map_err(|(error, _)| error.to_string())?;
    producer
        .flush(Duration::from_secs(10))
        .map_err(|error| error.to_string())?;
    let delivered = producer.context().0.lock().expect("no panic").take();
    delivered.unwrap_or_else(|| Err("no report".to_owned()))
}

/// Reads a record as a member of a group.
fn read(bootstrap: &str, login: &Login, topic: &str, group: &str) -> Result<(), String> {
    let consumer: BaseConsumer = client_with(bootstrap, login)
        .set("group.id", group)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .create()
        .expect("valid settings");
    consumer
        .subscribe(&[topic])
        .map_err(|error| error.to_string())?;
    let watch = Stopwatch::start();
    while watch.counted() < Duration::from_secs(10) {
        // Nothing also stands for a rebalance.
        if let Some(message) = consumer.poll(Duration::from_secs(1)) {
            return message.map(drop).map_err(|error| error.to_string());
        }
    }
    Err("no record".to_owned())
}

fn is_refused(result: &Result<(), String>) -> bool {
    let error = result.as_ref().err();
    error.is_some_and(|error| error.to_lowercase().contains("authorization"))
}

fn succeeds(mut act: impl FnMut() -> Result<(), String>, what: &str) {
    eventually(DEADLINE, what, &mut act);
}

fn fails(mut act: impl FnMut() -> Result<(), String>, what: &str) {
    eventually(DEADLINE, what, || match act() {
        result if is_refused(&result) => Ok(()),
        result => Err(result),
    });
}
