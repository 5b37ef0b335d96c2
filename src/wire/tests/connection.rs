//! What a connection does with order, failure and nonsense.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{
    ApiVersionsResponse, InitProducerIdRequest, InitProducerIdResponse, ProduceRequest, ProducerId,
};
use tokio::sync::mpsc;

use super::fake::{Fake, Peer, api_versions, body};
use crate::wire::{Cluster, ClusterConfig, Connection, Pending, WireError};

const INIT: (i16, i16, i16) = (22, 0, 4);
const PRODUCE: (i16, i16, i16) = (0, 3, 11);

fn cluster(fake: &Fake) -> Cluster {
    let mut config = ClusterConfig::new("test", vec![fake.address.clone()]);
    config.request_timeout = Duration::from_secs(10);
    config.backoff_min = Duration::from_millis(1);
    config.backoff_max = Duration::from_millis(5);
    Cluster::new(config)
}

/// Nothing here may hang.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what)
        .await
        .expect("in time")
}

async fn connected<F, Fut>(script: F) -> (Fake, Connection)
where
    F: Fn(Peer) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let fake = Fake::start(script).await;
    let connection = soon(cluster(&fake).any_connection())
        .await
        .expect("connects");
    (fake, connection)
}

fn ask(connection: &Connection, mark: i64) -> Pending<InitProducerIdResponse> {
    let request = InitProducerIdRequest::default().with_producer_id(ProducerId(mark));
    connection.start(&request, 4).expect("starts")
}

/// Answers with the producer id that was asked with, so that answers can be told apart.
async fn echo(peer: &mut Peer) -> bool {
    let Some(asked) = peer.next().await else {
        return false;
    };
    let request: InitProducerIdRequest = body(&asked);
    let answer = InitProducerIdResponse::default().with_producer_id(request.producer_id);
    let version = asked.header.request_api_version;
    peer.answer(asked.header.correlation_id, 1, &answer, version)
        .await;
    true
}

#[tokio::test]
async fn pipelined_answers_find_their_askers() {
    let (_fake, connection) = connected(async |mut peer: Peer| {
        peer.greet(&[INIT]).await;
        while echo(&mut peer).await {}
    })
    .await;
    let pending: Vec<_> = (3..103)
        .map(|mark| (mark, ask(&connection, mark)))
        .collect();
    // Awaited backwards: the order of answers is the connection's affair, not the askers'.
    for (mark, answer) in pending.into_iter().rev() {
        assert_eq!(soon(answer).await.expect("answered").producer_id.0, mark);
    }
}

#[tokio::test]
async fn requests_are_on_the_wire_in_the_order_of_starts() {
    let (seen, mut order) = mpsc::unbounded_channel();
    let (_fake, connection) = connected(move |mut peer: Peer| {
        let seen = seen.clone();
        async move {
            peer.greet(&[INIT]).await;
            while let Some(asked) = peer.next().await {
                let request: InitProducerIdRequest = body(&asked);
                seen.send(request.producer_id.0).expect("the test listens");
            }
        }
    })
    .await;
    let pending: Vec<_> = (10..60).map(|mark| ask(&connection, mark)).collect();
    for mark in 10..60 {
        assert_eq!(soon(order.recv()).await, Some(mark));
    }
    drop(pending);
}

#[tokio::test]
async fn a_dropped_answer_disturbs_nobody() {
    let (_fake, connection) = connected(async |mut peer: Peer| {
        peer.greet(&[INIT]).await;
        while echo(&mut peer).await {}
    })
    .await;
    drop(ask(&connection, 5));
    assert_eq!(
        soon(ask(&connection, 6))
            .await
            .expect("answered")
            .producer_id
            .0,
        6
    );
}

#[tokio::test]
async fn raw_bodies_arrive_in_one_piece() {
    let (seen, mut bodies) = mpsc::unbounded_channel();
    let (_fake, connection) = connected(move |mut peer: Peer| {
        let seen = seen.clone();
        async move {
            peer.greet(&[PRODUCE]).await;
            let asked = peer.expect().await;
            seen.send((asked.header.request_api_version, asked.body))
                .expect("the test listens");
            peer.until_closed().await;
        }
    })
    .await;
    // More pieces than fit in one write, some empty, some large enough to be written in parts.
    let pieces: Vec<Bytes> = (0..200)
        .map(|n: u8| Bytes::from(vec![n; usize::from(n % 7) * 30_000]))
        .collect();
    let whole: Vec<u8> = pieces.iter().flatten().copied().collect();
    let _answer = connection
        .start_raw::<ProduceRequest>(9, pieces)
        .expect("starts");
    let (version, body) = soon(bodies.recv()).await.expect("arrives");
    assert_eq!(version, 9);
    assert!(
        body == whole,
        "{} bytes instead of {}",
        body.len(),
        whole.len()
    );
}

#[tokio::test]
async fn everyone_who_waits_hears_of_a_disconnect() {
    let (_fake, connection) = connected(async |mut peer: Peer| {
        peer.greet(&[INIT]).await;
        for _ in 0..3 {
            peer.expect().await;
        }
    })
    .await;
    let pending: Vec<_> = (0..3).map(|mark| ask(&connection, mark)).collect();
    for answer in pending {
        let error = soon(answer).await.expect_err("the broker hung up");
        // Hanging up with unread bytes is a reset.
        assert!(matches!(error.kind(), "disconnected" | "io"), "{error}");
        assert!(error.is_retriable());
        assert_eq!(error.context().api, Some("InitProducerId"));
    }
    assert!(connection.is_poisoned());
    let late = connection.start(&InitProducerIdRequest::default(), 4);
    assert!(late.is_err());
}

async fn poisoned_by(bytes: &'static [u8]) -> WireError {
    let (_fake, connection) = connected(move |mut peer: Peer| async move {
        peer.greet(&[INIT]).await;
        peer.expect().await;
        peer.raw(bytes).await;
        peer.until_closed().await;
    })
    .await;
    let second = connection.clone();
    let error = soon(ask(&connection, 1))
        .await
        .expect_err("nonsense is no answer");
    assert!(second.is_poisoned());
    assert_eq!(
        second
            .start(&InitProducerIdRequest::default(), 4)
            .err()
            .map(|e| e.kind()),
        Some("framing")
    );
    error
}

#[tokio::test]
async fn broken_framing_poisons() {
    let cases: [(&str, &[u8]); 7] = [
        ("text", b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        ("negative length", &[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]),
        ("zero length", &[0, 0, 0, 0, 0, 0, 0, 0]),
        ("shorter than a correlation id", &[0, 0, 0, 3, 1, 2, 3]),
        ("one above the limit", &[0x10, 0, 0, 1, 0, 0, 0, 1]),
        ("another correlation id", &[0, 0, 0, 5, 0, 0, 0, 99, 0]),
        (
            "header cut off in its tags",
            &[0, 0, 0, 5, 0, 0, 0, 1, 0x85],
        ),
    ];
    for (case, bytes) in cases {
        let error = poisoned_by(bytes).await;
        assert_eq!(error.kind(), "framing", "{case}: {error}");
    }
}

#[tokio::test]
async fn an_answer_that_nobody_asked_for_poisons() {
    let (_fake, connection) = connected(async |mut peer: Peer| {
        peer.greet(&[INIT]).await;
        peer.answer(7, 1, &InitProducerIdResponse::default(), 4)
            .await;
        peer.until_closed().await;
    })
    .await;
    soon(async {
        while !connection.is_poisoned() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_unreadable_body_fails_its_asker_only() {
    let (_fake, connection) = connected(async |mut peer: Peer| {
        peer.greet(&[INIT]).await;
        let asked = peer.expect().await;
        // A good header (correlation id, no tags), then half a body.
        let id = asked.header.correlation_id.to_be_bytes();
        peer.raw(&[0, 0, 0, 7, id[0], id[1], id[2], id[3], 0, 1, 2])
            .await;
        while echo(&mut peer).await {}
    })
    .await;
    let error = soon(ask(&connection, 1)).await.expect_err("too short");
    assert_eq!(error.kind(), "decode");
    assert_eq!(
        soon(ask(&connection, 2))
            .await
            .expect("answered")
            .producer_id
            .0,
        2
    );
}

#[tokio::test]
async fn a_timeout_gives_the_connection_up() {
    let (_fake, connection) = connected(async |mut peer: Peer| {
        peer.greet(&[INIT]).await;
        peer.until_closed().await;
    })
    .await;
    let waiting = ask(&connection, 1);
    let error = connection.call_with_timeout(
        InitProducerIdRequest::default(),
        4,
        Duration::from_millis(20),
    );
    let error = soon(error).await.expect_err("nobody answers");
    assert_eq!(error.kind(), "timeout");
    assert_eq!(soon(waiting).await.expect_err("FIFO").kind(), "timeout");
    assert!(connection.is_poisoned());
}

#[tokio::test]
async fn the_socket_closes_with_the_last_handle() {
    let (closed, mut heard) = mpsc::unbounded_channel();
    let fake = Fake::start(move |mut peer: Peer| {
        let closed = closed.clone();
        async move {
            peer.greet(&[INIT]).await;
            peer.until_closed().await;
            closed.send(()).expect("the test listens");
        }
    })
    .await;
    let cluster = cluster(&fake);
    let first = soon(cluster.any_connection()).await.expect("connects");
    let second = soon(cluster.any_connection()).await.expect("connects");
    drop(cluster);
    drop(first);
    assert!(!second.is_poisoned());
    assert!(heard.try_recv().is_err(), "one handle is left");
    drop(second);
    assert_eq!(soon(heard.recv()).await, Some(()));
}

#[tokio::test]
async fn a_poisoned_connection_is_replaced() {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    let fake = Fake::start(move |mut peer: Peer| {
        let nth = counter.fetch_add(1, Ordering::SeqCst);
        async move {
            peer.greet(&[INIT]).await;
            if nth == 0 {
                peer.expect().await;
                return;
            }
            while echo(&mut peer).await {}
        }
    })
    .await;
    let cluster = cluster(&fake);
    let first = soon(cluster.any_connection()).await.expect("connects");
    soon(ask(&first, 1)).await.expect_err("hung up");
    let second = soon(cluster.any_connection())
        .await
        .expect("connects again");
    assert_eq!(
        soon(ask(&second, 2)).await.expect("answered").producer_id.0,
        2
    );
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn old_brokers_are_asked_again_in_version_0() {
    let (_fake, connection) = connected(async |mut peer: Peer| {
        let asked = peer.expect().await;
        assert_eq!(asked.header.request_api_version, 3);
        let refusal = ApiVersionsResponse::default()
            .with_error_code(ResponseError::UnsupportedVersion.code());
        peer.answer(asked.header.correlation_id, 0, &refusal, 0)
            .await;
        let asked = peer.expect().await;
        assert_eq!(asked.header.request_api_version, 0);
        peer.answer(
            asked.header.correlation_id,
            0,
            &api_versions(&[(22, 0, 3)]),
            0,
        )
        .await;
        peer.until_closed().await;
    })
    .await;
    assert_eq!(connection.version::<InitProducerIdRequest>(4).ok(), Some(3));
    assert_eq!(connection.version::<InitProducerIdRequest>(2).ok(), Some(2));
    let plain = connection.version::<InitProducerIdRequest>(1);
    assert!(plain.is_err(), "its lengths can't be checked");
    let missing = connection
        .version::<ProduceRequest>(9)
        .expect_err("not offered");
    assert_eq!(missing.kind(), "unsupported_version");
}

/// Both ends of a connection in memory, in simulated time.
mod slow_lines {
    use bytes::{BufMut, BytesMut};
    use kafka_protocol::messages::{ProduceRequest, ProduceResponse};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::time::Instant;

    use super::*;
    use crate::simulated::simulated;
    use crate::wire::ErrorContext;
    use crate::wire::versions::VersionTable;

    const TIMEOUT: Duration = Duration::from_secs(10);
    const MOMENT: Duration = Duration::from_millis(50);
    /// What a Produce request of this many bytes is answered with.
    const BODY_BYTES: usize = 400_000;

    fn open(on_the_way: usize) -> (Connection, DuplexStream) {
        let (near, far) = tokio::io::duplex(on_the_way);
        let (reader, writer) = tokio::io::split(near);
        let halves = (Box::new(reader) as _, Box::new(writer) as _);
        let context = ErrorContext::cluster("test");
        let opening = Connection::open(halves, context, "test", TIMEOUT);
        let versions = api_versions(&[INIT, PRODUCE]);
        let connection = opening.with_versions(VersionTable::new(&versions));
        (connection, far)
    }

    fn send(connection: &Connection, bytes: usize) -> Pending<ProduceResponse> {
        let body = vec![Bytes::from(vec![0; bytes])];
        connection
            .start_raw::<ProduceRequest>(9, body)
            .expect("starts")
    }

    /// A frame with this correlation id: the answer to an InitProducerId or a Produce request.
    fn answer(id: i32, body: &[u8]) -> BytesMut {
        let mut frame = BytesMut::new();
        frame.put_i32(i32::try_from(body.len()).expect("small") + 5);
        frame.put_i32(id);
        frame.put_u8(0);
        frame.put_slice(body);
        frame
    }

    /// Error code, id and epoch behind the throttle time; then no tags.
    fn init_answer(id: i32, throttle_ms: i32) -> BytesMut {
        let mut body = BytesMut::new();
        body.put_i32(throttle_ms);
        body.put_bytes(0, 2 + 8 + 2 + 1);
        answer(id, &body)
    }

    /// Takes so many bytes of requests, `rate` a second.
    async fn take(far: &mut DuplexStream, bytes: usize, rate: usize) {
        let mut buffer = vec![0; rate];
        let mut left = bytes;
        while left > 0 {
            let most = left.min(rate);
            let count = far.read(&mut buffer[..most]).await.expect("open");
            assert!(count > 0, "it hung up with {left} bytes left");
            left -= count;
            tokio::time::sleep(Duration::from_secs(1).mul_f64(count as f64 / rate as f64)).await;
        }
    }

    /// Lets the client have an answer, `rate` bytes a second.
    async fn give(far: &mut DuplexStream, frame: &[u8], rate: usize) -> bool {
        for chunk in frame.chunks(rate) {
            if far.write_all(chunk).await.is_err() {
                return false;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        true
    }

    /// Who asks has less patience than the connection: one that is dead must not be asked for ever.
    #[test]
    fn a_silent_connection_that_everybody_gives_up_early_is_left() {
        simulated(|| async {
            let (connection, far) = open(4_096);
            let request = InitProducerIdRequest::default();
            let began = Instant::now();
            let error = loop {
                match connection.start_undecoded(&request, 4) {
                    Ok(asked) => assert!(tokio::time::timeout(MOMENT, asked).await.is_err()),
                    Err(error) => break error,
                }
                assert!(began.elapsed() < 2 * TIMEOUT, "it is asked again and again");
            };
            assert!(matches!(error, WireError::Timeout { .. }), "{error}");
            assert!(began.elapsed() >= TIMEOUT);
            drop(far);
        });
    }

    #[test]
    fn an_answer_that_is_still_arriving_is_waited_for() {
        simulated(|| async {
            let (connection, mut far) = open(4_096);
            let request = InitProducerIdRequest::default();
            let waiting = connection.start_undecoded(&request, 4).expect("starts");
            let behind = connection.start_undecoded(&request, 4).expect("starts");
            let broker = tokio::spawn(async move {
                assert!(give(&mut far, &answer(0, &vec![7; BODY_BYTES]), 4_000).await);
                assert!(give(&mut far, &answer(1, &[]), 4_000).await);
                far
            });
            let began = Instant::now();
            waiting.await.expect("it came, slowly");
            assert!(began.elapsed() > 9 * TIMEOUT, "{:?}", began.elapsed());
            behind.await.expect("so did the next one");
            drop(broker);
        });
    }

    #[test]
    fn a_request_that_is_still_leaving_is_waited_for() {
        simulated(|| async {
            let (connection, mut far) = open(4_096);
            let waiting = send(&connection, BODY_BYTES);
            let behind = ask(&connection, 1);
            let broker = tokio::spawn(async move {
                take(&mut far, BODY_BYTES, 4_000).await;
                // No topic, no throttle time, no tags.
                give(&mut far, &answer(0, &[1, 0, 0, 0, 0, 0]), 100).await;
                give(&mut far, &init_answer(1, 0), 100).await;
                far
            });
            let began = Instant::now();
            waiting.await.expect("it left, slowly");
            assert!(began.elapsed() > 9 * TIMEOUT, "{:?}", began.elapsed());
            behind.await.expect("so did the next one");
            drop(broker);
        });
    }

    #[test]
    fn a_broker_that_only_trickles_is_left() {
        simulated(|| async {
            let (connection, mut far) = open(4_096);
            let request = InitProducerIdRequest::default();
            let waiting = connection.start_undecoded(&request, 4).expect("starts");
            let broker = tokio::spawn(async move {
                give(&mut far, &answer(0, &vec![7; BODY_BYTES]), 20).await;
            });
            let began = Instant::now();
            let error = waiting.await.expect_err("it would take six hours");
            assert_eq!(error.kind(), "timeout");
            // That it had left whole counted once.
            assert!(began.elapsed() < 2 * TIMEOUT, "{:?}", began.elapsed());
            drop(broker);
        });
    }

    #[test]
    fn a_line_that_falls_silent_is_left_as_soon_after_its_last_byte() {
        simulated(|| async {
            let (connection, mut far) = open(1_000_000);
            let request = InitProducerIdRequest::default();
            let waiting = connection.start_undecoded(&request, 4).expect("starts");
            let broker = tokio::spawn(async move {
                let frame = answer(0, &vec![7; BODY_BYTES]);
                tokio::time::sleep(Duration::from_secs(3)).await;
                far.write_all(&frame[..BODY_BYTES / 2]).await.expect("open");
                far
            });
            let began = Instant::now();
            let error = waiting.await.expect_err("half of it never comes");
            assert_eq!(error.kind(), "timeout");
            let expected = TIMEOUT + Duration::from_secs(3);
            assert!((expected..expected + MOMENT).contains(&began.elapsed()));
            drop(broker);
        });
    }

    /// The broker reads them all.
    #[test]
    fn requests_that_leave_behind_it_do_not_keep_one_waiting() {
        simulated(|| async {
            let (connection, far) = open(1_000_000);
            let waiting = ask(&connection, 1);
            let began = Instant::now();
            let others = async {
                loop {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    drop(send(&connection, 50_000));
                }
            };
            let error = tokio::select! {
                answer = waiting => answer.expect_err("nobody answers"),
                () = others => unreachable!(),
            };
            assert_eq!(error.kind(), "timeout");
            assert!(began.elapsed() < TIMEOUT + MOMENT, "{:?}", began.elapsed());
            drop(far);
        });
    }

    #[test]
    fn a_throttled_client_is_quiet() {
        simulated(|| async {
            let (connection, far) = open(4_096);
            let broker = tokio::spawn(async move {
                let mut peer = Peer::over(far);
                let asked = peer.expect().await;
                let answer = InitProducerIdResponse::default().with_throttle_time_ms(300);
                peer.answer(asked.header.correlation_id, 1, &answer, 4)
                    .await;
                while echo(&mut peer).await {}
            });
            ask(&connection, 1).await.expect("answered");
            let before = Instant::now();
            // Shorter than the silence: waiting to be allowed to send isn't waiting for the broker.
            let late = ask(&connection, 2).with_timeout(Duration::from_millis(200));
            late.await.expect("answered");
            assert!(
                before.elapsed() >= Duration::from_millis(250),
                "{:?}",
                before.elapsed()
            );
            drop(broker);
        });
    }

    #[test]
    fn silence_that_a_broker_asks_for_is_kept_for_as_long_as_it_says() {
        simulated(|| async {
            let (connection, mut far) = open(1_000_000);
            let first = ask(&connection, 1);
            let pipelined = ask(&connection, 2);
            let broker = tokio::spawn(async move {
                give(&mut far, &init_answer(0, 300_000), 100).await;
                // It reads nothing in that time, and answers nothing.
                tokio::time::sleep(Duration::from_secs(305)).await;
                give(&mut far, &init_answer(1, 0), 100).await;
                tokio::time::sleep(Duration::from_secs(5)).await;
                give(&mut far, &init_answer(2, 0), 100).await;
                far
            });
            first.await.expect("answered");
            let began = Instant::now();
            let late = ask(&connection, 3);
            pipelined.await.expect("answered behind the silence");
            late.await.expect("answered");
            assert!(began.elapsed() > Duration::from_secs(300));
            assert!(!connection.is_poisoned());
            drop(broker);
        });
    }
}
