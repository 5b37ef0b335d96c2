//! A broker of the source whose connection to the controller is cut hears of no fence, and goes on accepting.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};

use crate::support::admin::client;
use crate::support::failover::{answer, failover, fenceable, words};
use crate::support::ports::Port;
use crate::support::proxy::Proxy;
use crate::support::{
    Cluster, ClusterOptions, KafkaVersion, Load, Twinlog, await_caught_up, create_topic, eventually,
};

const DEADLINE: Duration = Duration::from_secs(120);
const TOPIC: &str = "orders";
/// The node that hears late.
const LATE: usize = 3;
/// So long the controller takes it for alive.
const SESSION_MS: u64 = 60_000;

/// The offsets that were acknowledged to a producer, and why the last record wasn't that was refused.
#[derive(Clone, Default)]
struct Acknowledged(Arc<Mutex<Vec<i64>>>, Arc<Mutex<Option<String>>>);

impl Acknowledged {
    fn count(&self) -> usize {
        let offsets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        offsets.len()
    }

    /// For a test that waits in vain: a broker that refuses has heard of the fence, and isn't cut off.
    fn why_not(&self) -> Option<String> {
        let why = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        why.clone()
    }
}

impl ClientContext for Acknowledged {
    fn log(&self, _: rdkafka::config::RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: rdkafka::error::KafkaError, _: &str) {}
}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(message) => {
                let mut offsets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                offsets.push(message.offset());
            }
            Err((error, _)) => {
                let mut why = self.1.lock().unwrap_or_else(PoisonError::into_inner);
                *why = Some(error.to_string());
            }
        }
    }
}

/// Writes a record as one who begins at this broker: it goes by that one's word. A producer that lives on asks another one as
/// soon as an answer is late.
fn write_at(broker: &str, partition: i32, acknowledged: &Acknowledged) {
    let producer: ThreadedProducer<Acknowledged> = client(broker)
        .set("acks", "1")
        .create_with_context(acknowledged.clone())
        .expect("valid settings");
    let record = BaseRecord::<str, str, ()>::to(TOPIC).partition(partition);
    let _ = producer.send(record.key("late").payload("late"));
    let _ = producer.flush(Duration::from_secs(5));
}

/// Who leads a partition, by the word of these brokers.
fn leader(bootstrap: &str, partition: i32) -> Option<i32> {
    let consumer: BaseConsumer = client(bootstrap).create().expect("valid settings");
    let metadata = consumer
        .fetch_metadata(Some(TOPIC), Duration::from_secs(5))
        .ok()?;
    let partitions = metadata.topics().first()?.partitions();
    let found = partitions.iter().find(|it| it.id() == partition)?;
    Some(found.leader())
}

/// Node [`LATE`] begins again, and reaches the other controllers over these lines.
fn behind_lines(source: &mut Cluster) -> Vec<Proxy> {
    let folder = source.data_folder(LATE);
    let path = folder
        .parent()
        .expect("the node's folder")
        .join("server.properties");
    let text = std::fs::read_to_string(&path).expect("it was written");
    let mut lines = Vec::new();
    let text: Vec<String> = text
        .lines()
        .map(
            |line| match line.strip_prefix("controller.quorum.voters=") {
                Some(voters) => format!(
                    "controller.quorum.voters={}",
                    over_lines(voters, &mut lines)
                ),
                None => line.to_owned(),
            },
        )
        .collect();
    std::fs::write(&path, text.join("\n")).expect("our folder is writable");
    source.restart(LATE);
    lines
}

fn over_lines(voters: &str, lines: &mut Vec<Proxy>) -> String {
    let over = |voter: &str| {
        let (id, address) = voter.split_once('@').expect("id@address");
        if id == LATE.to_string() {
            return voter.to_owned();
        }
        let at = Port::reserve().address();
        lines.push(Proxy::start(&at, address, Duration::ZERO));
        format!("{id}@{at}")
    };
    let over: Vec<String> = voters.split(',').map(over).collect();
    over.join(",")
}

/// A failover that is judged: the broker that hears late is named with what it would do, and nothing is proven.
fn must_name(config: &Path, wait: &str) -> String {
    let output = failover(config, &["--yes", "--json", "--wait", wait]);
    let said = words(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("broker {LATE} (")), "{said}");
    assert!(said.contains("would take records"), "{said}");
    said
}

#[test]
fn a_broker_without_its_controller_is_named_and_nothing_is_proven() {
    let three = ClusterOptions {
        nodes: 3,
        ..fenceable("source")
    }
    .with("min.insync.replicas", 1)
    .with("broker.session.timeout.ms", SESSION_MS);
    let mut source = Cluster::launch(KafkaVersion::V4_3, three);
    let mut target = Cluster::launch(KafkaVersion::V4_3, ClusterOptions::named("target"));
    source.await_ready();
    target.await_ready();
    let lines = behind_lines(&mut source);
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, TOPIC, 6, &[]);
    let led = |partition: &i32| leader(&from, *partition) == Some(LATE as i32);
    let partition = (0..6).find(led).expect("it leads one");
    Load::new(TOPIC, 60).produce(&from);
    let twinlog = Twinlog::start(&Twinlog::config(&from, &to, "replication_factor: 1"));
    await_caught_up(&twinlog, DEADLINE);
    let config = twinlog.config_file().to_owned();

    let acknowledged = Acknowledged::default();
    let (late, counted) = (source.node_address(LATE), acknowledged.clone());
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let writer = std::thread::spawn(move || {
        while stopped.recv_timeout(Duration::from_secs(3)).is_err() {
            write_at(&late, partition, &counted);
        }
    });
    eventually(DEADLINE, "it writes", || match acknowledged.count() {
        0 => Err("nothing is acknowledged"),
        _ => Ok(()),
    });
    let cut_at = Instant::now();
    for line in &lines {
        line.stall();
    }

    // The others count it still.
    must_name(&config, "8");
    assert!(
        cut_at.elapsed() < Duration::from_millis(SESSION_MS),
        "too slow to tell"
    );
    // They don't any more, and others lead what it led.
    let others = source.node_address(1);
    eventually(DEADLINE, "another one leads", || {
        match leader(&others, partition) {
            Some(id) if id != LATE as i32 => Ok(()),
            found => Err(found),
        }
    });
    let before = acknowledged.count();
    eventually(DEADLINE, "it still takes records", || {
        match acknowledged.count() {
            now if now > before => Ok(()),
            now => Err((now, acknowledged.why_not())),
        }
    });
    must_name(&config, "8");

    source.kill(LATE);
    let _ = stop.send(());
    writer.join().expect("it ended");
    let report = answer(&failover(&config, &["--yes", "--json"]), 0);
    assert_eq!(report["state"], "done", "{report:#}");
    assert_eq!(report["lost"]["is_proven"], true, "{report:#}");
}
