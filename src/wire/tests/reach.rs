//! Brokers and what stands before them: gone, silent, half alive, forgetful.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_response::MetadataResponseBroker;
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse};
use kafka_protocol::protocol::StrBytes;
use tokio::io::duplex;
use tokio::time::Instant;

use super::fake::{Fake, Peer, api_versions, body};
use crate::simulated::simulated;
use crate::wire::{Cluster, ClusterConfig, Dial, Dialing, ReadHalf, Role, Tcp, WriteHalf};

const VERSIONS: [(i16, i16, i16); 2] = [(18, 0, 3), (3, 0, 12)];
const METADATA: i16 = 3;
/// The port of brokers that think for long about a description of all topics.
const FAR: i32 = 9_092;
/// And of those that don't.
const NEAR: i32 = 9_093;
const THINKS_FOR: Duration = Duration::from_secs(100);

/// Answers everything.
async fn alive(mut peer: Peer) {
    let port = peer.port();
    peer.greet(&VERSIONS).await;
    serve(&mut peer, port, usize::MAX).await;
}

/// Answers so many questions, and then none.
async fn serve(peer: &mut Peer, port: i32, questions: usize) {
    let mut answered = 0;
    while let Some(asked) = peer.next().await {
        answered += 1;
        if answered > questions {
            continue;
        }
        let (id, version) = (
            asked.header.correlation_id,
            asked.header.request_api_version,
        );
        if asked.header.request_api_key == METADATA {
            if body::<MetadataRequest>(&asked).topics.is_none() && port == FAR {
                tokio::time::sleep(THINKS_FOR).await;
            }
            let broker = MetadataResponseBroker::default()
                .with_node_id(BrokerId(1))
                .with_host(StrBytes::from_static_str("127.0.0.1"))
                .with_port(port);
            let answer = MetadataResponse::default().with_brokers(vec![broker]);
            peer.answer(id, 1, &answer, version).await;
        } else {
            peer.answer(id, 0, &api_versions(&VERSIONS), version).await;
        }
    }
}

/// Addresses that begin with `hole` take no connection and refuse none.
#[derive(Debug)]
struct Holes(Lines);

impl Dial for Holes {
    fn dial<'a>(&'a self, address: &'a str) -> Dialing<'a> {
        match address.starts_with("hole") {
            true => Box::pin(std::future::pending()),
            false => self.0.dial(address),
        }
    }
}

fn cluster(bootstrap: Vec<String>) -> Cluster {
    let mut config = ClusterConfig::new("test", bootstrap);
    config.connect_timeout = Duration::from_secs(10);
    Cluster::new(config)
}

/// In simulated time.
fn near(bootstrap: Vec<String>) -> Cluster {
    let mut config = ClusterConfig::new("test", bootstrap);
    config.connect_timeout = Duration::from_secs(10);
    config.dial = Arc::new(Holes(Lines {
        port: NEAR,
        ..Lines::default()
    }));
    Cluster::new(config)
}

fn holes(count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("hole-{number}:9092"))
        .collect()
}

#[test]
fn ten_dead_addresses_before_a_living_one_cost_seconds() {
    simulated(|| async {
        let mut addresses = holes(10);
        addresses.push("alive:9093".to_owned());
        let began = Instant::now();
        let known = near(addresses.clone())
            .metadata(None)
            .await
            .expect("one lives");
        assert_eq!(known.brokers.len(), 1);
        let connected = near(addresses).any_connection().await;
        assert_eq!(connected.expect("one lives").address(), "alive:9093");
        assert!(
            began.elapsed() < Duration::from_secs(9),
            "{:?}",
            began.elapsed()
        );
    });
}

#[test]
fn a_load_balancer_with_nothing_behind_it_is_called_silent_and_left_in_seconds() {
    simulated(|| async {
        let (nobody, alive) = ("silent:9093".to_owned(), "alive:9093".to_owned());
        let began = Instant::now();
        let alone = near(vec![nobody.clone()]);
        let error = alone.metadata(None).await.expect_err("nobody answers");
        assert!(
            error.to_string().contains("accepted, but silent"),
            "{error}"
        );
        assert!(
            began.elapsed() < Duration::from_secs(8),
            "{:?}",
            began.elapsed()
        );
        let began = Instant::now();
        let both = near(vec![nobody, alive]);
        both.metadata(None).await.expect("the other one answers");
        both.connection(1, Role::Read)
            .await
            .expect("it is connected");
        assert!(
            began.elapsed() < Duration::from_secs(3),
            "{:?}",
            began.elapsed()
        );
    });
}

#[test]
fn a_broker_that_tells_its_versions_and_nothing_else_is_called_silent() {
    simulated(|| async {
        let (_, cluster) = over(Lines {
            questions: 0,
            ..Lines::default()
        });
        let began = Instant::now();
        let error = cluster.any_connection().await;
        let error = error.expect_err("nothing but versions");
        assert!(
            error
                .to_string()
                .contains("told its versions, and silent since"),
            "{error}"
        );
        assert!(
            began.elapsed() < Duration::from_secs(8),
            "{:?}",
            began.elapsed()
        );
    });
}

/// A broker whose cluster has another one, by a name that the resolver doesn't answer.
async fn with_a_neighbour_that_has_no_address(mut peer: Peer) {
    let port = peer.port();
    peer.greet(&VERSIONS).await;
    while let Some(asked) = peer.next().await {
        let version = asked.header.request_api_version;
        let broker = |id: i32, host: &'static str| {
            MetadataResponseBroker::default()
                .with_node_id(BrokerId(id))
                .with_host(StrBytes::from_static_str(host))
                .with_port(port)
        };
        let brokers = vec![broker(1, "here"), broker(2, "away")];
        let answer = MetadataResponse::default().with_brokers(brokers);
        peer.answer(asked.header.correlation_id, 1, &answer, version)
            .await;
    }
}

#[tokio::test]
async fn a_name_that_the_resolver_does_not_answer_keeps_nobody_else_waiting() {
    let fake = Fake::start(with_a_neighbour_that_has_no_address).await;
    let here: SocketAddr = fake.address.parse().expect("an address");
    let mut config = ClusterConfig::new(
        "test",
        vec!["away:9092".to_owned(), format!("here:{}", here.port())],
    );
    config.connect_timeout = Duration::from_secs(2);
    config.dial = Arc::new(Tcp::resolved_by(move |name: &str| {
        if name.starts_with("away") {
            std::thread::sleep(Duration::from_secs(60));
        }
        Ok(vec![here])
    }));
    let cluster = Cluster::new(config);
    let began = Instant::now();
    let known = cluster.metadata(None).await.expect("one has an address");
    assert_eq!(known.brokers.len(), 2);
    let (away, beside) = tokio::join!(cluster.connection(2, Role::Read), async {
        let connected = cluster.connection(1, Role::Read).await;
        (connected, began.elapsed())
    });
    let (connected, after) = beside;
    connected.expect("it has an address");
    // Not for as long as the resolver takes.
    assert!(after < Duration::from_secs(30), "{after:?}");
    let error = away.expect_err("it has none").to_string();
    assert!(error.contains("no connection within 2s"), "{error}");
    assert!(error.contains("away"), "{error}");
}

/// What a broker of 4.4 tells a client whose question for its versions names another cluster or broker (KIP-1242). Ours
/// doesn't name any (ApiVersions 3), and learns the same by asking for the cluster's id; what stands between may still
/// answer so.
#[tokio::test]
async fn a_connection_that_is_refused_as_misrouted_is_left_for_another_and_tried_again() {
    let refused = Arc::new(AtomicUsize::new(0));
    let count = refused.clone();
    let fake = Fake::start(move |mut peer: Peer| {
        let count = count.clone();
        async move {
            let port = peer.port();
            if count.fetch_add(1, Ordering::SeqCst) > 0 {
                peer.greet(&VERSIONS).await;
                return serve(&mut peer, port, usize::MAX).await;
            }
            let asked = peer.expect().await;
            let version = asked.header.request_api_version;
            assert!(version < 5, "version 5 names whom it takes the broker for");
            let code = ResponseError::RebootstrapRequired.code();
            let answer = api_versions(&VERSIONS).with_error_code(code);
            peer.answer(asked.header.correlation_id, 0, &answer, version)
                .await;
            peer.until_closed().await;
        }
    })
    .await;
    let other = Fake::start(alive).await;
    let began = Instant::now();
    let both = cluster(vec![fake.address.clone(), other.address.clone()]);
    both.metadata(None).await.expect("the other one answers");
    // Alone it is asked again, and answers by then.
    let alone = cluster(vec![fake.address.clone()]);
    let known = alone.metadata(None).await;
    assert_eq!(known.expect("it answers by now").brokers.len(), 1);
    assert!(refused.load(Ordering::SeqCst) > 1, "it was tried again");
    assert!(
        began.elapsed() < Duration::from_secs(30),
        "{:?}",
        began.elapsed()
    );
}

/// Connections within the process, to brokers. Nobody is behind addresses that begin with `silent`.
struct Lines {
    made: AtomicUsize,
    /// On which they listen, by their own word.
    port: i32,
    /// How many questions each answers.
    questions: usize,
    /// From which connection on nobody is behind them.
    silent_from: usize,
    /// From which on none is taken.
    untaken_from: usize,
}

impl Default for Lines {
    fn default() -> Self {
        Self {
            made: AtomicUsize::new(0),
            port: FAR,
            questions: usize::MAX,
            silent_from: usize::MAX,
            untaken_from: usize::MAX,
        }
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lines")
    }
}

impl Dial for Lines {
    fn dial<'a>(&'a self, address: &'a str) -> Dialing<'a> {
        Box::pin(async move {
            let number = self.made.fetch_add(1, Ordering::SeqCst);
            if number >= self.untaken_from {
                return std::future::pending().await;
            }
            let (near, far) = duplex(64 << 10);
            let is_silent = number >= self.silent_from || address.starts_with("silent");
            let (port, questions) = (self.port, self.questions);
            tokio::spawn(async move {
                let mut peer = Peer::over(far);
                if is_silent {
                    return peer.until_closed().await;
                }
                peer.greet(&VERSIONS).await;
                serve(&mut peer, port, questions).await;
            });
            let (reader, writer) = tokio::io::split(near);
            let halves: (ReadHalf, WriteHalf) = (Box::new(reader), Box::new(writer));
            Ok::<_, io::Error>(halves)
        })
    }
}

fn over(lines: Lines) -> (Arc<Lines>, Cluster) {
    let lines = Arc::new(lines);
    let mut config = ClusterConfig::new("test", vec!["broker:9092".to_owned()]);
    config.dial = lines.clone();
    (lines, Cluster::new(config))
}

/// A service that needs seconds for a description of all topics is slow, and not away.
#[test]
fn a_description_that_takes_a_minute_is_waited_for_while_the_broker_lives() {
    simulated(|| async {
        let (_, slow) = over(Lines::default());
        let began = Instant::now();
        let known = slow.metadata_if_there(Duration::from_secs(3)).await;
        let known = known
            .expect("it says something at once")
            .expect("it says all in the end");
        assert!(began.elapsed() >= THINKS_FOR, "{:?}", began.elapsed());
        assert_eq!(known.brokers.len(), 1);
    });
}

/// A long line and a login have their time where somebody takes the connection now, not where somebody once did.
#[test]
fn who_took_a_connection_before_the_cluster_was_gone_is_not_waited_for() {
    const SECOND: Duration = Duration::from_secs(1);
    simulated(|| async {
        // The look at which cluster it is, and nothing more.
        let (lines, gone) = over(Lines {
            questions: 1,
            untaken_from: 1,
            ..Lines::default()
        });
        let before = gone.any_connection().await.expect("connects");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(before.is_poisoned());
        let began = Instant::now();
        let waited = gone.is_there(SECOND, 8 * SECOND).await;
        assert_eq!(waited.expect_err("nobody is there"), SECOND);
        assert!(lines.made.load(Ordering::SeqCst) > 1);
        assert!(
            began.elapsed() < 2 * SECOND,
            "{:?} is longer than it had",
            began.elapsed()
        );

        let (_, silent) = over(Lines {
            silent_from: 0,
            ..Lines::default()
        });
        let began = Instant::now();
        let waited = silent.is_there(SECOND, 3 * SECOND).await;
        assert_eq!(waited.expect_err("nobody says anything"), 3 * SECOND);
        assert!(began.elapsed() >= 3 * SECOND, "{:?}", began.elapsed());
    });
}

#[test]
fn a_description_is_not_waited_for_where_nobody_is_any_more() {
    simulated(|| async {
        let lines = Lines {
            silent_from: 1,
            ..Lines::default()
        };
        let (_, dead) = over(lines);
        let began = Instant::now();
        let error = dead
            .metadata(None)
            .await
            .expect_err("it died while it thought");
        assert_eq!(error.kind(), "unreachable");
        assert!(
            began.elapsed() < Duration::from_secs(40),
            "{:?}",
            began.elapsed()
        );
    });
}

/// What stands in between forgets connections that are idle for a minute; in these ten, something is said.
#[test]
fn an_idle_connection_is_never_idle_for_long() {
    simulated(|| async {
        let (lines, cluster) = over(Lines::default());
        let before = cluster.any_connection().await.expect("connects");
        for _ in 0..20 {
            let seen = before.moved_at();
            tokio::time::sleep(Duration::from_secs(30)).await;
            assert!(before.moved_at() > seen, "nothing was said for 30 s");
        }
        let after = cluster.any_connection().await.expect("is connected");
        assert!(after.is(&before) && lines.made.load(Ordering::SeqCst) == 1);
    });
}

/// It was forgotten all the same: that is noticed before somebody needs it.
#[test]
fn a_connection_that_died_while_it_was_idle_is_another_one_when_it_is_needed() {
    simulated(|| async {
        // The look at which cluster it is, and nothing more.
        let (lines, cluster) = over(Lines {
            questions: 1,
            ..Lines::default()
        });
        let before = cluster.any_connection().await.expect("connects");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(before.is_poisoned());
        let began = Instant::now();
        let after = cluster.any_connection().await.expect("connects again");
        assert!(!after.is(&before) && lines.made.load(Ordering::SeqCst) == 2);
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "{:?}",
            began.elapsed()
        );
    });
}
