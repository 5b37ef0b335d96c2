//! Who we are: each mechanism, its refusals, and proving it again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use kafka_protocol::messages::{InitProducerIdRequest, ProducerId};

use super::broker::{self, Broker};
use super::{section, soon};
use crate::connect;
use crate::wire::tests::fake::Fake;
use crate::wire::{Cluster, Role, WireError};

const ALL: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

fn cluster(fake: &Fake, mechanism: &str, password: &str) -> Cluster {
    let (mechanism, password) = (
        format!("sasl.mechanism: {mechanism}"),
        format!("sasl.password: {password}"),
    );
    let lines = [
        "security.protocol: SASL_PLAINTEXT",
        "sasl.username: user",
        &mechanism,
        &password,
    ];
    connect::cluster(&section(&fake.address, &lines))
}

async fn serve(broker: Broker) -> (Arc<Broker>, Fake) {
    let broker = Arc::new(broker);
    let fake = broker::start(broker.clone(), None).await;
    (broker, fake)
}

async fn refused(cluster: &Cluster) -> String {
    let error = soon(cluster.connection(-1, Role::Admin))
        .await
        .expect_err("refused");
    assert_eq!(error.kind(), "authentication", "{error}");
    assert!(error.is_retriable());
    error.to_string()
}

#[tokio::test]
async fn every_mechanism_gets_in_with_the_right_password_only() {
    for mechanism in ALL {
        let (broker, fake) = serve(Broker {
            mechanisms: ALL.to_vec(),
            ..Broker::default()
        })
        .await;
        soon(cluster(&fake, mechanism, broker::PASSWORD).metadata(None))
            .await
            .unwrap_or_else(|error| panic!("{mechanism}: {error}"));
        assert!(broker.done.load(Ordering::SeqCst) > 0);
        let text = refused(&cluster(&fake, mechanism, "pencils")).await;
        assert!(text.contains("Authentication failed"), "{text}");
        assert!(
            text.contains("check sasl.username and sasl.password"),
            "{text}"
        );
        assert!(!text.contains("pencil"), "{text}");
        assert_eq!(*broker.offences.lock().expect("fine"), [""; 0]);
    }
}

#[tokio::test]
async fn a_broker_without_the_mechanism_or_without_authentication_says_so() {
    let (_, fake) = serve(Broker {
        mechanisms: vec!["PLAIN", "OAUTHBEARER"],
        ..Broker::default()
    })
    .await;
    let text = refused(&cluster(&fake, "SCRAM-SHA-256", "pencil")).await;
    assert!(
        text.contains("doesn't offer it, but PLAIN, OAUTHBEARER"),
        "{text}"
    );
    let (_, fake) = serve(Broker::default()).await;
    let text = refused(&cluster(&fake, "SCRAM-SHA-256", "pencil")).await;
    assert!(
        text.contains("set security.protocol to PLAINTEXT or SSL"),
        "{text}"
    );
}

#[tokio::test]
async fn a_broker_that_does_not_know_the_password_is_not_believed() {
    for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let (broker, fake) = serve(Broker {
            mechanisms: ALL.to_vec(),
            lies: true,
            ..Broker::default()
        })
        .await;
        let text = refused(&cluster(&fake, mechanism, "pencil")).await;
        assert!(text.contains("could not prove"), "{text}");
        assert_eq!(
            broker.done.load(Ordering::SeqCst),
            1,
            "the broker was content"
        );
    }
}

#[tokio::test]
async fn a_broker_can_not_make_us_compute_for_ever() {
    for iterations in [1, 4_000_000_000] {
        let (_, fake) = serve(Broker {
            mechanisms: ALL.to_vec(),
            iterations,
            ..Broker::default()
        })
        .await;
        let text = refused(&cluster(&fake, "SCRAM-SHA-256", "pencil")).await;
        assert!(text.contains("iterations"), "{text}");
    }
}

/// Many who ask at once, and again and again, make few tries: one at a time and a second apart.
#[tokio::test]
async fn a_wrong_password_does_not_flood_the_broker() {
    let (broker, fake) = serve(Broker {
        mechanisms: ALL.to_vec(),
        ..Broker::default()
    })
    .await;
    let cluster = cluster(&fake, "PLAIN", "wrong");
    let started = Instant::now();
    let mut asked = 0;
    while started.elapsed() < Duration::from_millis(1500) || asked < 400 {
        let roles = (0..20).map(Role::Fetch).chain((0..20).map(Role::Produce));
        let mut asking = tokio::task::JoinSet::new();
        for role in roles {
            let cluster = cluster.clone();
            asking.spawn(async move { cluster.connection(-1, role).await });
        }
        for outcome in soon(asking.join_all()).await {
            let error = outcome.expect_err("refused");
            assert!(matches!(error, WireError::Authentication { .. }), "{error}");
            asked += 1;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (tries, took) = (broker.begun.load(Ordering::SeqCst), started.elapsed());
    // The first, one after a second, and another for each further second that this took.
    let most = 2 + usize::try_from(took.as_secs().saturating_sub(1)).expect("short");
    assert!((1..=most).contains(&tries), "{tries} tries in {took:?}");
}

async fn echo(connection: &crate::wire::Connection, mark: i64) -> Result<i64, WireError> {
    let request = InitProducerIdRequest::default().with_producer_id(ProducerId(mark));
    let answer = connection.call(request, 4).await?;
    Ok(answer.producer_id.0)
}

/// The broker counts every request that a real one would have hung up for.
#[tokio::test]
async fn proving_it_again_under_load_loses_nothing() {
    let (broker, fake) = serve(Broker {
        mechanisms: ALL.to_vec(),
        lifetime_ms: 1_000,
        slowness: Duration::from_millis(20),
        ..Broker::default()
    })
    .await;
    let cluster = cluster(&fake, "SCRAM-SHA-256", "pencil");
    let connection = soon(cluster.connection(-1, Role::Fetch(0)))
        .await
        .expect("connects");
    let mut askers = tokio::task::JoinSet::new();
    for asker in 0..8_i64 {
        let (connection, broker) = (connection.clone(), broker.clone());
        askers.spawn(async move {
            let mut asked = 0_i64;
            while broker.done.load(Ordering::SeqCst) < 4 {
                let mark = asker * 1_000_000 + asked;
                assert_eq!(echo(&connection, mark).await.expect("answered"), mark);
                asked += 1;
            }
            asked
        });
    }
    let asked: i64 = soon(askers.join_all()).await.into_iter().sum();
    assert!(asked > 100, "{asked}");
    assert_eq!(*broker.offences.lock().expect("fine"), [""; 0]);
    // A machine that stands still makes one late, and not all three.
    assert!(broker.in_time.load(Ordering::SeqCst) > 0, "all are late");
    assert_eq!(
        broker.connections.load(Ordering::SeqCst),
        1,
        "the same connection"
    );
}

/// What is held back goes out in the order in which it was started, behind what was on its way.
#[tokio::test]
async fn proving_it_again_keeps_the_order_of_the_wire() {
    let (broker, fake) = serve(Broker {
        mechanisms: ALL.to_vec(),
        lifetime_ms: 1_500,
        slowness: Duration::from_millis(30),
        ..Broker::default()
    })
    .await;
    let cluster = cluster(&fake, "PLAIN", "pencil");
    let connection = soon(cluster.connection(-1, Role::Produce(0)))
        .await
        .expect("connects");
    let mut started = 0;
    let mut waiting = std::collections::VecDeque::new();
    soon(async {
        while broker.done.load(Ordering::SeqCst) < 3 {
            let request = InitProducerIdRequest::default().with_producer_id(ProducerId(started));
            waiting.push_back(connection.start(&request, 4).expect("starts"));
            started += 1;
            if waiting.len() == 50 {
                let first = waiting.pop_front().expect("50 of them");
                first.await.expect("answered");
            }
        }
        for answer in waiting {
            answer.await.expect("answered");
        }
    })
    .await;
    let marks = broker.marks.lock().expect("fine").clone();
    assert_eq!(marks, (0..started).collect::<Vec<_>>());
    assert_eq!(*broker.offences.lock().expect("fine"), [""; 0]);
}

#[tokio::test]
async fn a_proof_that_is_not_taken_any_more_ends_the_connection() {
    let (broker, fake) = serve(Broker {
        mechanisms: ALL.to_vec(),
        lifetime_ms: 500,
        ..Broker::default()
    })
    .await;
    let cluster = cluster(&fake, "PLAIN", "pencil");
    let connection = soon(cluster.connection(-1, Role::Admin))
        .await
        .expect("connects");
    broker.closed.store(true, Ordering::SeqCst);
    let error = soon(async {
        loop {
            match echo(&connection, 1).await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(error) => break error,
            }
        }
    })
    .await;
    assert_eq!(error.kind(), "authentication", "{error}");
    assert!(connection.is_poisoned());
}
