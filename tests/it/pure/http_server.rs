//! The HTTP surface over a real socket.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use twinlog::http;
use twinlog::telemetry::progress::{FlowState, PartitionState, Registry};
use twinlog::telemetry::status::StatusReport;

const DEADLINE: Duration = Duration::from_secs(60);

struct Server {
    address: SocketAddr,
    registry: Arc<Registry>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

async fn start() -> Server {
    let registry = Arc::new(Registry::default());
    let cancel = CancellationToken::new();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = http::bind(any).await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let task = tokio::spawn(http::serve_on(
        listener,
        http::Door::default(),
        registry.clone(),
        cancel.clone(),
    ));
    Server {
        address,
        registry,
        cancel,
        task,
    }
}

/// The status line with the headers, and the body.
async fn get(address: SocketAddr, path: &str) -> (String, String) {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.expect("connects");
        let request = format!("GET {path} HTTP/1.0\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("writes");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("reads");
        let (head, body) = answer.split_once("\r\n\r\n").expect("HTTP");
        (head.to_owned(), body.to_owned())
    };
    tokio::time::timeout(DEADLINE, exchange)
        .await
        .expect("answers in time")
}

#[tokio::test]
async fn health_readiness_metrics_status_and_page_are_served() {
    let server = start().await;
    let (head, body) = get(server.address, "/healthz").await;
    assert!(
        head.contains(" 200 ") && body == "alive\n",
        "{head}\n{body}"
    );
    let (head, body) = get(server.address, "/readyz").await;
    assert!(
        head.contains(" 503 ") && body.contains("no flow has started"),
        "{head}\n{body}"
    );

    let flow = server.registry.flow("dr", "primary", "standby");
    flow.set_state(FlowState::Running);
    flow.discovered.store(true, Relaxed);
    let (head, body) = get(server.address, "/readyz").await;
    assert!(
        head.contains(" 200 ") && body == "ready\n",
        "{head}\n{body}"
    );

    let partition = flow.partition(&Arc::from("<b>orders"), 0);
    partition.set_state(PartitionState::Stopped {
        reason: "foreign_write",
        detail: "d".into(),
    });
    flow.partition(&Arc::from("<b>orders"), 1)
        .set_state(PartitionState::Copying);
    let (head, body) = get(server.address, "/readyz").await;
    assert!(
        head.contains(" 503 ") && body.contains("foreign_write"),
        "{head}\n{body}"
    );

    let (head, body) = get(server.address, "/metrics").await;
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    assert!(body.contains("twinlog_ready 0"), "{body}");

    for (path, listed) in [("", 2), ("?partitions=troubled", 1)] {
        let (head, body) = get(server.address, &format!("/api/v1/status{path}")).await;
        assert!(
            head.to_lowercase()
                .contains("content-type: application/json"),
            "{head}"
        );
        let report: StatusReport = serde_json::from_str(&body).expect("a status");
        assert_eq!(report.flows[0].topics[0].partitions.len(), listed);
    }

    let (head, body) = get(server.address, "/").await;
    assert!(
        head.to_lowercase()
            .contains("content-security-policy: default-src 'none'"),
        "{head}"
    );
    for outside in [
        "http://",
        "https://",
        "//cdn",
        "innerHTML",
        "document.write",
        "src=",
    ] {
        assert!(!body.contains(outside), "the page uses {outside}");
    }
    let (head, _) = get(server.address, "/nothing").await;
    assert!(head.contains(" 404 "), "{head}");
}

#[tokio::test]
async fn cancellation_ends_it_even_with_a_silent_connection_open() {
    let server = start().await;
    let mut silent = TcpStream::connect(server.address).await.expect("connects");
    silent.write_all(b"GET / HT").await.expect("writes");
    get(server.address, "/healthz").await;
    server.cancel.cancel();
    tokio::time::timeout(DEADLINE, server.task)
        .await
        .expect("ends in time")
        .expect("no panic");
}

#[tokio::test]
async fn a_taken_address_is_named_with_what_to_do() {
    let server = start().await;
    let error = http::serve(
        server.address,
        http::Door::default(),
        Arc::default(),
        CancellationToken::new(),
    )
    .await
    .expect_err("taken");
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    let text = error.to_string();
    assert!(
        text.contains(&server.address.to_string()) && text.contains("http.listen"),
        "{text}"
    );
}

/// A state that the page doesn't know is missing from its sums.
#[test]
fn the_page_knows_every_state_of_a_group() {
    let page = include_str!("../../../src/http/page.html");
    let readme = include_str!("../../../README.md");
    let (_, section) = readme.split_once("## Consumer groups").expect("a section");
    let rows = section.lines().skip_while(|line| !line.starts_with("| `"));
    let states: Vec<&str> = rows
        .map_while(|line| line.strip_prefix("| `"))
        .filter_map(|row| row.split('`').next())
        .collect();
    assert!(states.len() >= 10, "{states:?}");
    for state in states {
        assert!(page.contains(&format!("\"{state}\"")), "{state}");
    }
}
