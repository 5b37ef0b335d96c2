//! OAUTHBEARER with an endpoint of the test's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use kafka_protocol::messages::{InitProducerIdRequest, ProducerId};
use rdkafka::client::ClientContext;
use rustls::version::TLS13;
use secrecy::ExposeSecret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::broker::{self, Broker};
use super::certificates::{Authority, acceptor};
use super::{section, soon, write};
use crate::config::{ClusterSection, SaslSection};
use crate::connect;
use crate::connect::oidc::Tokens;
use crate::wire::{Role, TokenSource};

/// Of a life of 600 s: another token is asked for beside it.
const TIME_FOR_ANOTHER: Duration = Duration::from_secs(485);
/// And it is given only where there is no other one.
const NEARLY_OVER: Duration = Duration::from_secs(545);

/// Answers with a status and a text; counts, and notes what it was asked.
struct Endpoint {
    answer: (u16, String),
    slowness: Duration,
    /// Nobody is answered while a test has it, but for the first so many.
    gate: tokio::sync::RwLock<()>,
    before_the_gate: AtomicUsize,
    asked: AtomicUsize,
    last: std::sync::Mutex<(String, String)>,
}

async fn token(
    State(endpoint): State<Arc<Endpoint>>,
    headers: HeaderMap,
    form: String,
) -> (StatusCode, String) {
    let before = endpoint.asked.fetch_add(1, Ordering::SeqCst);
    let authorization = headers["authorization"].to_str().expect("ASCII").to_owned();
    *endpoint.last.lock().expect("fine") = (authorization, form);
    tokio::time::sleep(endpoint.slowness).await;
    if before >= endpoint.before_the_gate.load(Ordering::SeqCst) {
        drop(endpoint.gate.read().await);
    }
    let (status, text) = endpoint.answer.clone();
    (StatusCode::from_u16(status).expect("a status"), text)
}

async fn serve(status: u16, text: &str) -> (Arc<Endpoint>, String, JoinSet<()>) {
    let endpoint = Arc::new(Endpoint {
        answer: (status, text.to_owned()),
        slowness: Duration::from_millis(50),
        gate: tokio::sync::RwLock::default(),
        before_the_gate: AtomicUsize::new(0),
        asked: AtomicUsize::new(0),
        last: std::sync::Mutex::default(),
    });
    let app = Router::new()
        .route("/token", post(token))
        .with_state(endpoint.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let url = format!("http://{}/token", listener.local_addr().expect("bound"));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, app).await.expect("serves") });
    (endpoint, url, tasks)
}

fn bearer(address: &str, url: &str) -> ClusterSection {
    let url = format!("sasl.oauthbearer.token.endpoint.url: {url}");
    section(
        address,
        &[
            "security.protocol: SASL_PLAINTEXT",
            "sasl.mechanism: OAUTHBEARER",
            "sasl.oauthbearer.method: oidc",
            "sasl.oauthbearer.client.id: twin log",
            "sasl.oauthbearer.client.secret: 's3cret:+'",
            "sasl.oauthbearer.scope: kafka.read kafka.write",
            &url,
        ],
    )
}

async fn oauth_broker() -> (Arc<Broker>, crate::wire::tests::fake::Fake) {
    oauth_broker_for(0).await
}

/// With the life of a session in milliseconds.
async fn oauth_broker_for(lifetime_ms: i64) -> (Arc<Broker>, crate::wire::tests::fake::Fake) {
    let broker = Arc::new(Broker {
        mechanisms: vec!["OAUTHBEARER"],
        lifetime_ms,
        ..Broker::default()
    });
    let fake = broker::start(broker.clone(), None).await;
    (broker, fake)
}

/// Only the broker's own part of proving it again holds requests back.
#[tokio::test]
async fn requests_go_on_while_a_new_token_is_asked_for() {
    let (endpoint, url, _tasks) =
        serve(200, r#"{"access_token":"good.1","expires_in":0.01}"#).await;
    let (broker, fake) = oauth_broker_for(1_000).await;
    let cluster = connect::cluster(&bearer(&fake.address, &url));
    // Only the first token comes, however late this task goes on.
    endpoint.before_the_gate.store(1, Ordering::SeqCst);
    let nobody = endpoint.gate.write().await;
    let connection = soon(cluster.connection(-1, Role::Admin))
        .await
        .expect("connects");
    soon(async {
        while endpoint.asked.load(Ordering::SeqCst) < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let request = InitProducerIdRequest::default().with_producer_id(ProducerId(7));
    let answer = soon(connection.call(request, 4)).await.expect("answered");
    assert_eq!(answer.producer_id.0, 7);
    assert_eq!(broker.done.load(Ordering::SeqCst), 1, "not proven again");
    drop(nobody);
    soon(async {
        while broker.done.load(Ordering::SeqCst) < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn one_token_serves_all_connections_of_both_clients() {
    let (endpoint, url, _tasks) = serve(200, r#"{"access_token":"good.1","expires_in":600}"#).await;
    let (broker, fake) = oauth_broker().await;
    let access = connect::Access::new(&bearer(&fake.address, &url));
    let cluster = access.cluster();
    for lane in 0..5 {
        soon(cluster.connection(-1, Role::Fetch(lane)))
            .await
            .expect("connects");
    }
    let (_, context) = access.librdkafka();
    // As on a thread of the runtime: blocking on a future would panic there.
    let token = context.generate_oauth_token(None).expect("a token");
    assert_eq!(
        (token.token.as_str(), token.principal_name.as_str()),
        ("good.1", "twin log")
    );
    assert!(token.lifetime_ms > 0);
    assert_eq!(endpoint.asked.load(Ordering::SeqCst), 1);
    assert_eq!(broker.done.load(Ordering::SeqCst), 5);
    let (authorization, form) = endpoint.last.lock().expect("fine").clone();
    // base64("twin+log:s3cret%3A%2B")
    assert_eq!(authorization, "Basic dHdpbitsb2c6czNjcmV0JTNBJTJC");
    assert_eq!(
        form,
        "grant_type=client_credentials&scope=kafka.read+kafka.write"
    );
    let first = broker.tokens.lock().expect("fine")[0].clone();
    assert_eq!(first, "n,,\u{1}auth=Bearer good.1\u{1}\u{1}");
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends() {
    let (endpoint, url, _tasks) = serve(200, r#"{"access_token":"good","expires_in":1}"#).await;
    let tokens = Tokens::new(match bearer("h:1", &url).security.sasl {
        Some(SaslSection::Oidc(oidc)) => oidc,
        other => panic!("{other:?}"),
    });
    soon(async {
        while endpoint.asked.load(Ordering::SeqCst) < 3 {
            let asked_at = SystemTime::now();
            let token = tokens.token().await.expect("a token");
            assert!(token.expires > asked_at, "over already");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

fn tokens_of(url: &str) -> Tokens {
    match bearer("h:1", url).security.sasl {
        Some(SaslSection::Oidc(oidc)) => Tokens::new(oidc),
        other => panic!("{other:?}"),
    }
}

/// The identity provider hangs, as one in a region that is going down: who has a token that is good waits for nothing.
#[tokio::test]
async fn a_token_that_is_good_is_given_while_a_new_one_is_asked_for() {
    let (endpoint, url, _tasks) = serve(200, r#"{"access_token":"good","expires_in":600}"#).await;
    let tokens = tokens_of(&url);
    soon(tokens.token()).await.expect("a token");
    let nobody = endpoint.gate.write().await;
    tokens.age(TIME_FOR_ANOTHER);
    // Until a minute before its end.
    for _ in 0..10 {
        let at_once = tokio::time::timeout(Duration::ZERO, tokens.token()).await;
        let token = at_once.expect("at once").expect("the old one");
        assert!(token.expires > SystemTime::now());
    }
    soon(async {
        while endpoint.asked.load(Ordering::SeqCst) < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // When it is over somebody has to wait; and one new one is there for all.
    tokens.age(NEARLY_OVER - TIME_FOR_ANOTHER);
    drop(nobody);
    soon(tokens.token()).await.expect("the new one");
    assert_eq!(endpoint.asked.load(Ordering::SeqCst), 2);
}

/// One that is nearly over would be over when the broker gets it, where there is another.
#[tokio::test]
async fn a_token_that_is_nearly_over_is_given_where_the_server_gives_no_other() {
    let (endpoint, url, mut tasks) =
        serve(200, r#"{"access_token":"good","expires_in":600}"#).await;
    let tokens = tokens_of(&url);
    let first = soon(tokens.token()).await.expect("a token");
    tokens.age(NEARLY_OVER);
    let second = soon(tokens.token()).await.expect("another");
    assert!(second.expires > first.expires);
    assert_eq!(endpoint.asked.load(Ordering::SeqCst), 2);
    tasks.shutdown().await;
    tokens.age(NEARLY_OVER);
    let last = soon(tokens.token()).await.expect("better than none");
    assert_eq!(last.expires, second.expires - NEARLY_OVER);
}

#[tokio::test]
async fn of_several_servers_the_next_is_asked_and_the_one_that_gave_a_token_again() {
    let (refuses, first, _first) = serve(503, "no").await;
    let (gives, second, _second) = serve(200, r#"{"access_token":"good","expires_in":0.01}"#).await;
    let tokens = tokens_of(&format!("'http://127.0.0.1:1/token, {first}, {second}'"));
    for turn in 1..=3 {
        soon(tokens.token()).await.expect("a token");
        tokio::time::sleep(Duration::from_millis(20)).await;
        let asked = |endpoint: &Endpoint| endpoint.asked.load(Ordering::SeqCst);
        assert_eq!((asked(&refuses), asked(&gives)), (1, turn));
    }
    let none = tokens_of(&format!("'http://127.0.0.1:1/token, {first}'"));
    let lack = soon(none.token()).await.expect_err("none");
    for words in ["127.0.0.1:1/token can't be reached", "503"] {
        assert!(lack.message.contains(words), "{}", lack.message);
    }
}

#[tokio::test]
async fn a_token_that_the_broker_refuses_is_an_error_of_the_broker() {
    let (_, url, _tasks) = serve(200, r#"{"access_token":"bad","expires_in":600}"#).await;
    let (_, fake) = oauth_broker().await;
    let cluster = connect::cluster(&bearer(&fake.address, &url));
    let error = soon(cluster.connection(-1, Role::Admin))
        .await
        .expect_err("refused");
    assert_eq!(error.kind(), "authentication");
    assert!(
        error.to_string().contains("Authentication failed"),
        "{error}"
    );
    assert!(
        error.hint().is_some_and(|hint| hint.contains("audience")),
        "{error}"
    );
}

#[tokio::test]
async fn an_endpoint_that_refuses_is_quoted_and_not_flooded() {
    let long = "x".repeat(400_000);
    let quoted = r#"{"error":"invalid_client","error_description":"no such client"}"#;
    for (status, text, words) in [
        (
            401,
            quoted,
            "401 Unauthorized: invalid_client: no such client",
        ),
        (404, "<html>", "404 Not Found"),
        (
            200,
            r#"{"access_token":""}"#,
            "gave a token that can't be one",
        ),
        (
            200,
            r#"{"access_token":7,"x":"s3cret"}"#,
            "no `access_token`",
        ),
        (
            200,
            long.as_str(),
            "broke off its answer: length limit exceeded",
        ),
    ] {
        let (endpoint, url, _tasks) = serve(status, text).await;
        let (broker, fake) = oauth_broker().await;
        let cluster = connect::cluster(&bearer(&fake.address, &url));
        let began = Instant::now();
        for lane in 0..10 {
            let error = soon(cluster.connection(-1, Role::Fetch(lane)))
                .await
                .expect_err("none");
            assert_eq!(error.kind(), "authentication");
            assert!(error.to_string().contains(words), "{error}");
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
        // Again after a second at the earliest, should this machine stand still for so long.
        let (asked, took) = (endpoint.asked.load(Ordering::SeqCst), began.elapsed());
        let most = 1 + usize::try_from(took.as_secs()).expect("short");
        assert!((1..=most).contains(&asked), "{asked} in {took:?}");
        assert_eq!(broker.begun.load(Ordering::SeqCst), 0);
    }
    let (_, fake) = oauth_broker().await;
    let cluster = connect::cluster(&bearer(&fake.address, "http://127.0.0.1:1/token"));
    let error = soon(cluster.connection(-1, Role::Admin))
        .await
        .expect_err("none");
    assert!(
        error
            .to_string()
            .contains("http://127.0.0.1:1/token can't be reached"),
        "{error}"
    );
}

/// The endpoint's certificate is checked like a broker's.
#[tokio::test]
async fn tokens_come_over_https_from_a_server_that_is_trusted() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ours, foreign) = (Authority::new(), Authority::new());
    let tls = acceptor(&ours.sign("login", &["localhost"]), None, &[&TLS13]);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = tls.accept(stream).await else {
                continue;
            };
            let mut asked = Vec::new();
            while !asked.ends_with(b"client_credentials&scope=kafka.read+kafka.write") {
                let count = stream.read_buf(&mut asked).await.expect("reads");
                assert!(count > 0, "hung up");
            }
            let body = r#"{"access_token":"good.https"}"#;
            let length = body.len();
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).await.expect("writes");
            stream.flush().await.expect("writes");
        }
    });
    for (authority, host, words) in [
        (&ours, "localhost", ""),
        (&ours, "127.0.0.1", "can't be reached"),
        (&foreign, "localhost", "invalid peer certificate"),
    ] {
        let ca = write(folder.path(), "ca.pem", &authority.pem());
        let mut section = bearer("h:1", &format!("https://{host}:{port}/token"));
        let Some(SaslSection::Oidc(oidc)) = &mut section.security.sasl else {
            panic!("tokens")
        };
        oidc.ca = Some(ca.into());
        let tokens = Tokens::new(oidc.clone());
        match soon(tokens.token()).await {
            Ok(token) => {
                assert_eq!(token.value.expose_secret(), "good.https");
                assert_eq!(words, "", "{host}");
            }
            Err(lack) => {
                assert!(
                    !words.is_empty() && lack.message.contains(words),
                    "{}",
                    lack.message
                );
            }
        }
    }
}
