//! Who gets in at the HTTP server: TLS, tokens, and a bounded number of connections.

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::support::http::{self as client, Answer};
use crate::support::https::{Authority, Pair};
use crate::support::ports::Port;
use crate::support::{Twinlog, eventually};
use tokio_util::sync::CancellationToken;
use twinlog::config::{HttpConfig, HttpTls, Secret};
use twinlog::http;
use twinlog::telemetry::progress::Registry;

const DEADLINE: Duration = Duration::from_secs(60);
const TOKEN: &str = "changing-0123456789";
const READ_TOKEN: &str = "reading-0123456789";

/// A server on a thread of its own; it ends with the test.
struct Server {
    address: String,
    registry: Arc<Registry>,
    cancel: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.cancel.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic there is printed there.
            let _ = thread.join();
        }
    }
}

fn start(config: &HttpConfig) -> Server {
    let door = http::Door::open(config).unwrap_or_else(|error| panic!("{error}"));
    let (registry, cancel) = (Arc::new(Registry::default()), CancellationToken::new());
    let (bound, await_bound) = std::sync::mpsc::channel();
    let thread = {
        let (registry, cancel) = (registry.clone(), cancel.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let any = SocketAddr::from(([127, 0, 0, 1], 0));
                let listener = http::bind(any).await.expect("a free port");
                let address = listener.local_addr().expect("bound");
                bound.send(address.to_string()).expect("the test waits");
                http::serve_on(listener, door, registry, cancel).await;
            });
        })
    };
    Server {
        address: await_bound.recv_timeout(DEADLINE).expect("binds"),
        registry,
        cancel,
        thread: Some(thread),
    }
}

fn config() -> HttpConfig {
    HttpConfig {
        listen: None,
        insecure: false,
        tls: None,
        token: None,
        read_token: None,
        hosts: vec!["twinlog.example.com".to_owned()],
    }
}

fn secret(text: &str) -> Option<Secret> {
    Some(Secret::from(text.to_owned()))
}

fn with_tls(folder: &Path, pair: &Pair) -> HttpConfig {
    write(folder, pair);
    HttpConfig {
        tls: Some(HttpTls {
            certificate: folder.join("tls.crt"),
            key: folder.join("tls.key"),
            key_password: None,
        }),
        ..config()
    }
}

fn write(folder: &Path, pair: &Pair) {
    std::fs::write(folder.join("tls.crt"), &pair.certificate).expect("writes");
    std::fs::write(folder.join("tls.key"), &pair.key).expect("writes");
}

fn call(server: &Server, call: &str, token: Option<&str>) -> Answer {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let header = bearer.as_deref().map(|value| ("Authorization", value));
    client::call(&server.address, call, header.as_slice()).expect("answers")
}

#[test]
fn a_name_that_somebody_else_owns_is_not_answered() {
    let server = start(&config());
    let asked = |path: &str, host: &str, origin: Option<&str>| {
        let mut headers = vec![("Host", host)];
        headers.extend(origin.map(|origin| ("Origin", origin)));
        let answer = client::call(&server.address, &format!("GET {path}"), &headers);
        answer.expect("answers").status
    };
    for path in [
        "/",
        "/metrics",
        "/api/v1/status",
        "/api/v1/groups",
        "/nothing",
    ] {
        assert_eq!(asked(path, "evil.example:8088", None), 421, "{path}");
        let origin = Some("http://evil.example:8088");
        assert_eq!(asked(path, "evil.example:8088", origin), 421, "{path}");
    }
    assert_eq!(asked("/api/v1/status", "twinlog.example.com", None), 200);
    assert_eq!(asked("/api/v1/status", "localhost:1", None), 200);
    assert_eq!(asked("/healthz", "evil.example", None), 200);
    assert_ne!(asked("/readyz", "twinlog.ns.svc.cluster.local", None), 421);
}

#[test]
fn tls_is_for_those_who_trust_the_certificate() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let folder = tempfile::TempDir::new().expect("a folder");
    let server = start(&with_tls(folder.path(), &authority.issue()));
    let answer = authority.call(&server.address, "GET /healthz", &[]);
    let answer = answer.expect("a handshake");
    assert_eq!((answer.status, &*answer.body), (200, "alive\n"));
    let page = authority
        .call(&server.address, "GET /", &[])
        .expect("a handshake");
    assert!(page.body.contains("<html"), "{}", page.body);

    let error = stranger
        .call(&server.address, "GET /healthz", &[])
        .expect_err("who isn't trusted has no connection");
    assert!(
        error.to_string().contains("invalid peer certificate"),
        "{error}"
    );
    client::call(&server.address, "GET /healthz", &[]).expect_err("nothing is served without TLS");
}

#[test]
fn a_new_certificate_is_taken_and_a_broken_one_is_not() {
    let (authority, other) = (Authority::new(), Authority::new());
    let folder = tempfile::TempDir::new().expect("a folder");
    write(folder.path(), &authority.issue_expired());
    let port = Port::reserve();
    let address = port.address();
    // Nobody is there to be copied from, which doesn't matter to HTTP.
    let flow = Twinlog::config("127.0.0.1:1", "127.0.0.1:1", "");
    let twinlog = Twinlog::start(&format!(
        "{flow}http:\n  listen: \"{address}\"\n  tls: {{ certificate: \"{0}/tls.crt\", key: \"{0}/tls.key\" }}\n",
        folder.path().display()
    ));
    let ask = |authority: &Authority| {
        let answer = authority.call(&address, "GET /healthz", &[]);
        answer.map_err(|error| error.to_string())
    };
    eventually(DEADLINE, "an expired one is shown as it is", || {
        match ask(&authority) {
            Err(error) if error.contains("xpired") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });

    write(folder.path(), &authority.issue());
    eventually(DEADLINE, "the new one is taken", || ask(&authority));

    // A key that isn't the certificate's, then one that is gone: what works stays.
    let complaints = || twinlog.log().matches("keeps its certificate").count();
    std::fs::write(folder.path().join("tls.key"), authority.issue().key).expect("writes");
    eventually(DEADLINE, "the wrong key is noticed", || {
        match complaints() {
            1 => Ok(()),
            other => Err(other),
        }
    });
    ask(&authority).expect("the one in use is kept");
    std::fs::remove_file(folder.path().join("tls.key")).expect("removes");
    eventually(
        DEADLINE,
        "the missing key is noticed",
        || match complaints() {
            2 => Ok(()),
            other => Err(other),
        },
    );
    ask(&authority).expect("the one in use is kept");
    let log = twinlog.log();
    for what in ["is not the one of the first certificate", "cannot read"] {
        assert!(log.contains(what), "{what} isn't in the log");
    }

    write(folder.path(), &other.issue());
    eventually(DEADLINE, "after all that it still looks", || ask(&other));
    assert_eq!(
        complaints(),
        2,
        "each problem is said once:\n{}",
        twinlog.log()
    );
}

#[test]
fn a_certificate_that_cannot_be_used_is_no_door() {
    let authority = Authority::new();
    let folder = tempfile::TempDir::new().expect("a folder");
    let config = with_tls(folder.path(), &authority.issue());
    std::fs::write(folder.path().join("tls.key"), authority.issue().key).expect("writes");
    let Err(error) = http::Door::open(&config) else {
        panic!("a key of another certificate was taken");
    };
    assert!(error.to_string().contains("is not the one of"), "{error}");
}

#[test]
fn a_changing_call_needs_the_token() {
    let server = start(&HttpConfig {
        token: secret(TOKEN),
        ..config()
    });
    let flow = server.registry.flow("dr", "primary", "standby");
    // Takes what was asked for, without waiting.
    let looked = || std::pin::pin!(flow.look_now.notified()).enable();
    let look = "POST /api/v1/flows/dr/look";
    for wrong in [None, Some("changing-012345678"), Some("")] {
        let answer = call(&server, look, wrong);
        assert_eq!(answer.status, 401, "{answer:?}");
        let asked_for = answer.header("www-authenticate");
        assert!(asked_for.is_some_and(|value| value.starts_with("Bearer")));
        assert!(answer.body.contains("http.token"), "{answer:?}");
        assert!(!looked(), "a refused call had an effect");
    }
    assert_eq!(call(&server, look, Some(TOKEN)).status, 202);
    assert!(looked());
    let answer = call(&server, "POST /api/v1/flows/other/look", Some(TOKEN));
    assert_eq!(answer.status, 404, "{answer:?}");
    assert!(answer.body.contains("no flow other"), "{answer:?}");
    assert!(!looked());
    // Reading is free.
    assert_eq!(call(&server, "GET /api/v1/status", None).status, 200);
    // A GET changes nothing, whatever it brings.
    let answer = call(&server, "GET /api/v1/flows/dr/look", Some(TOKEN));
    assert_eq!(answer.status, 405, "{answer:?}");
    assert!(!looked());
}

#[test]
fn without_a_configured_token_nothing_can_be_changed() {
    let server = start(&config());
    server.registry.flow("dr", "primary", "standby");
    for token in [None, Some(""), Some(TOKEN)] {
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            let answer = call(&server, &format!("{method} /api/v1/flows/dr/look"), token);
            assert_eq!(answer.status, 403, "{answer:?}");
            assert!(answer.body.contains("set http.token"), "{answer:?}");
        }
    }
}

#[test]
fn reading_can_need_a_token_too() {
    let server = start(&HttpConfig {
        token: secret(TOKEN),
        read_token: secret(READ_TOKEN),
        ..config()
    });
    for path in [
        "/metrics",
        "/readyz",
        "/api/v1/status",
        "/api/v1/groups",
        "/api/v1/readiness",
        "/x",
    ] {
        let get = format!("GET {path}");
        assert_eq!(call(&server, &get, None).status, 401, "{path}");
        for token in [READ_TOKEN, TOKEN] {
            assert_ne!(call(&server, &get, Some(token)).status, 401, "{path}");
        }
    }
    for open in ["/healthz", "/"] {
        assert_eq!(call(&server, &format!("GET {open}"), None).status, 200);
    }
    let look = "POST /api/v1/flows/dr/look";
    assert_eq!(call(&server, look, Some(READ_TOKEN)).status, 401);
}

#[test]
fn every_answer_has_the_protecting_headers_and_lets_no_other_page_read() {
    let server = start(&HttpConfig {
        token: secret(TOKEN),
        ..config()
    });
    for (path, status) in [
        ("GET /", 200),
        ("GET /metrics", 200),
        ("GET /api/v1/status", 200),
        ("GET /api/v1/groups/none", 404),
        ("GET /nothing", 404),
        ("POST /api/v1/status", 401),
    ] {
        let origin = [("Origin", "https://elsewhere.example")];
        let answer = client::call(&server.address, path, &origin).expect("answers");
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("x-frame-options"), Some("DENY"));
        assert!(answer.header("content-security-policy").is_some());
        let cached = if path == "GET /" {
            "no-cache"
        } else {
            "no-store"
        };
        assert_eq!(answer.header("cache-control"), Some(cached), "{path}");
        for name in ["access-control-allow-origin", "set-cookie"] {
            assert_eq!(answer.header(name), None, "{path}");
        }
    }
}

#[test]
fn silent_connections_keep_nobody_out() {
    let authority = Authority::new();
    let folder = tempfile::TempDir::new().expect("a folder");
    for (tls, beginning) in [(false, "GET /healthz HT"), (true, "\x16\x03\x01")] {
        let server = start(&if tls {
            with_tls(folder.path(), &authority.issue())
        } else {
            config()
        });
        let silent: Vec<TcpStream> = (0..http::CONNECTIONS_MAX + 50)
            .map(|_| {
                let mut stream = TcpStream::connect(&server.address).expect("connects");
                // The oldest may be closed already.
                let _ = stream.write_all(beginning.as_bytes());
                stream
            })
            .collect();
        let answer = if tls {
            authority.call(&server.address, "GET /healthz", &[])
        } else {
            client::call(&server.address, "GET /healthz", &[])
        };
        assert_eq!(answer.expect("answers").body, "alive\n");
        // The limit holds: the first one had to go.
        let mut first = &silent[0];
        first
            .set_read_timeout(Some(DEADLINE))
            .expect("a time to wait");
        let read = io::Read::read(&mut first, &mut [0; 1]);
        let closed = match &read {
            Ok(bytes) => *bytes == 0,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        };
        assert!(closed, "{read:?}");
    }
}

#[test]
fn a_connection_in_use_survives_the_silent_ones() {
    let server = start(&config());
    let mut used = client::connect(&server.address).expect("connects");
    let mut ask = || {
        used.write_all(b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n")?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0; 1];
            io::Read::read_exact(&mut used, &mut byte)?;
            answer.push(byte[0]);
        }
        Ok::<_, io::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    let mut silent = Vec::new();
    for number in 0..2 * http::CONNECTIONS_MAX {
        silent.push(TcpStream::connect(&server.address).expect("connects"));
        if number % 50 == 0 {
            let answer = ask().expect("it is kept open");
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
    }
    ask().expect("it is kept open");
}
