//! TLS: which brokers are believed, and what is said about the others.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustls::version::{TLS12, TLS13};

use super::broker::{self, Broker};
use super::certificates::{
    Authority, Signed, acceptor, acceptor_of_version_1, of_version_1, pem_of,
};
use super::{section, soon, write};
use crate::connect;
use crate::wire::tests::fake::{Fake, Peer};
use crate::wire::{TlsProblem, WireError};

const HOSTS: [&str; 2] = ["localhost", "127.0.0.1"];

fn innermost(error: WireError) -> WireError {
    match error {
        WireError::Unreachable { last, .. } => innermost(*last),
        other => other,
    }
}

/// Connects with these lines after `security.protocol: SSL`.
async fn connect(fake: &Fake, lines: &[&str]) -> Result<&'static str, WireError> {
    let mut all = vec!["security.protocol: SSL"];
    all.extend(lines);
    let cluster = connect::cluster(&section(&fake.address, &all));
    soon(cluster.metadata(None)).await.map_err(innermost)?;
    let connection = soon(cluster.any_connection()).await.map_err(innermost)?;
    Ok(connection.tls().expect("TLS").version)
}

async fn serve(signed: &Signed, clients: Option<&Authority>) -> (Arc<Broker>, Fake) {
    let broker = Arc::new(Broker::default());
    let tls = acceptor(signed, clients, &[&TLS12, &TLS13]);
    let fake = broker::start(broker.clone(), Some(tls)).await;
    (broker, fake)
}

fn problem(outcome: Result<&'static str, WireError>) -> (TlsProblem, String) {
    let error = outcome.expect_err("refused");
    assert_eq!(error.kind(), "tls", "{error}");
    assert!(error.is_retriable());
    match &error {
        WireError::Tls { problem, .. } => (*problem, error.to_string()),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_broker_that_our_authority_signed_is_believed() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new();
    let ca = write(folder.path(), "ca.pem", &authority.pem());
    let line = format!("ssl.ca.location: {ca}");
    for (version, name) in [(&TLS12, "TLS 1.2"), (&TLS13, "TLS 1.3")] {
        let tls = acceptor(&authority.sign("broker", &HOSTS), None, &[version]);
        let fake = broker::start(Arc::default(), Some(tls)).await;
        assert_eq!(connect(&fake, &[&line]).await.expect("connects"), name);
    }
}

#[tokio::test]
async fn certificates_may_stand_in_the_config() {
    let authority = Authority::new();
    let (_, fake) = serve(&authority.sign("broker", &HOSTS), None).await;
    let pem = authority.pem().replace('\n', "\n      ");
    let line = format!("ssl.ca.pem: |\n      {pem}");
    connect(&fake, &[&line]).await.expect("connects");
}

#[tokio::test]
async fn each_bad_certificate_has_its_own_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ours, foreign) = (Authority::new(), Authority::new());
    let ca = write(folder.path(), "ca.pem", &ours.pem());
    let line = format!("ssl.ca.location: {ca}");
    for (signed, expected, words) in [
        (ours.sign_expired(&HOSTS), TlsProblem::Expired, "expired"),
        (
            ours.sign_early(&HOSTS),
            TlsProblem::NotYetValid,
            "isn't valid yet",
        ),
        (
            foreign.sign("x", &HOSTS),
            TlsProblem::UnknownIssuer,
            "ssl.ca.location",
        ),
        (
            ours.sign("x", &["elsewhere.example"]),
            TlsProblem::WrongName,
            "isn't for 127.0.0.1, but for elsewhere.example",
        ),
    ] {
        let (broker, fake) = serve(&signed, None).await;
        let (found, text) = problem(connect(&fake, &[&line]).await);
        assert_eq!(found, expected, "{text}");
        assert!(text.contains(words), "{text}");
        assert_eq!(broker.connections.load(Ordering::SeqCst), 0);
        // Without any check every one is taken.
        let unchecked = [line.as_str(), "enable.ssl.certificate.verification: false"];
        connect(&fake, &unchecked).await.expect("connects");
        // Without the check of the host only that one.
        let any_host = [line.as_str(), "ssl.endpoint.identification.algorithm: none"];
        let outcome = connect(&fake, &any_host).await;
        assert_eq!(
            outcome.is_ok(),
            expected == TlsProblem::WrongName,
            "{expected:?}"
        );
    }
}

/// Java's brokers and clients, and OpenSSL, take certificates of X.509 version 1.
#[tokio::test]
async fn a_certificate_of_version_1_is_named_with_its_cure() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new();
    let signed = authority.sign("broker", &HOSTS);
    let ca = write(folder.path(), "ca.pem", &authority.pem());
    let line = format!("ssl.ca.location: {ca}");
    let fake = broker::start(Arc::default(), Some(acceptor_of_version_1(&signed))).await;
    let (found, text) = problem(connect(&fake, &[&line]).await);
    assert_eq!(found, TlsProblem::Other, "{text}");
    for words in ["the broker's", "version 1", "subjectAltName", "-extfile"] {
        assert!(text.contains(words), "{text}");
    }
    // Ours.
    let (_, fake) = serve(&signed, Some(&authority)).await;
    let us = authority.sign("twinlog", &[]);
    let certificate = write(folder.path(), "us.pem", &pem_of(&of_version_1(&us)));
    let certificate = format!("ssl.certificate.location: {certificate}");
    let key = write(folder.path(), "us.key", &us.key.serialize_pem());
    let key = format!("ssl.key.location: {key}");
    let (found, text) = problem(connect(&fake, &[&line, &certificate, &key]).await);
    assert_eq!(found, TlsProblem::Local, "{text}");
    for words in ["ssl.certificate is", "version 1", "-extfile"] {
        assert!(text.contains(words), "{text}");
    }
}

#[tokio::test]
async fn our_certificate_is_shown_with_a_plain_or_an_encrypted_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new();
    let (_, fake) = serve(&authority.sign("broker", &HOSTS), Some(&authority)).await;
    let us = authority.sign("twinlog", &[]);
    let file = |name: &str, text: &str| write(folder.path(), name, text);
    let ca = format!("ssl.ca.location: {}", file("ca.pem", &authority.pem()));
    let certificate = file("us.pem", &us.certificate.pem());
    let certificate = format!("ssl.certificate.location: {certificate}");
    let plain = file("us.key", &us.key.serialize_pem());
    let plain = format!("ssl.key.location: {plain}");
    let secret = file("us.encrypted", &us.encrypted_key("open sesame"));
    let secret = format!("ssl.key.location: {secret}");
    let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    let old = format!("ssl.key.location: {}", file("old.key", old));
    let other = file("other.key", &authority.sign("x", &[]).key.serialize_pem());
    let other = format!("ssl.key.location: {other}");
    connect(&fake, &[&ca, &certificate, &plain])
        .await
        .expect("plain");
    let password = "ssl.key.password: open sesame";
    connect(&fake, &[&ca, &certificate, &secret, password])
        .await
        .expect("encrypted");

    let (found, text) = problem(connect(&fake, &[&ca]).await);
    assert_eq!(found, TlsProblem::Refused, "{text}");
    assert!(text.contains("ssl.certificate.location"), "{text}");
    for (lines, words) in [
        (vec![&secret], "set ssl.key.password"),
        (vec![&old], "openssl pkcs8 -topk8"),
        (vec![&other], "the key must be the certificate's"),
    ] {
        let lines: Vec<&str> = [&ca, &certificate]
            .into_iter()
            .chain(lines)
            .map(String::as_str)
            .collect();
        let (found, text) = problem(connect(&fake, &lines).await);
        assert_eq!(found, TlsProblem::Local, "{text}");
        assert!(text.contains(words), "{text}");
    }
    let wrong = "ssl.key.password: wrong";
    let (found, text) = problem(connect(&fake, &[&ca, &certificate, &secret, wrong]).await);
    assert_eq!(found, TlsProblem::Local, "{text}");
    assert!(
        text.contains("check ssl.key.password") && !text.contains("wrong"),
        "{text}"
    );
    let missing = "ssl.key.location: /does/not/exist";
    let (_, text) = problem(connect(&fake, &[&ca, &certificate, missing]).await);
    assert!(text.contains("/does/not/exist can't be read"), "{text}");
}

#[tokio::test]
async fn a_renewed_certificate_is_used_without_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let (old, new) = (Authority::new(), Authority::new());
    let ca = write(folder.path(), "ca.pem", &old.pem());
    let (_, first) = serve(&old.sign("broker", &HOSTS), None).await;
    let (_, second) = serve(&new.sign("broker", &HOSTS), None).await;
    let servers = format!("{},{}", first.address, second.address);
    let line = format!("ssl.ca.location: {ca}");
    let lines = ["security.protocol: SSL", &line];
    let access = connect::Access::new(&section(&servers, &lines));
    let tls = access.tls().expect("TLS");
    let settings = || crate::wire::TlsSettings::current(tls).expect("settings");
    let before = settings();
    assert!(Arc::ptr_eq(&before, &settings()), "made once");
    write(folder.path(), "ca.pem", "half a file");
    assert!(
        Arc::ptr_eq(&before, &settings()),
        "the old one, rather than none"
    );
    write(
        folder.path(),
        "ca.pem",
        &format!("{}\n{}", old.pem(), new.pem()),
    );
    assert!(!Arc::ptr_eq(&before, &settings()), "made anew");
    let cluster = access.cluster();
    for broker in [-1, -2] {
        soon(cluster.connection(broker, crate::wire::Role::Admin))
            .await
            .expect("both authorities are trusted");
    }
}

#[tokio::test]
async fn a_plaintext_port_and_a_tls_port_are_told_apart() {
    let authority = Authority::new();
    let (_, tls) = serve(&authority.sign("broker", &HOSTS), None).await;
    let cluster = connect::cluster(&section(&tls.address, &[]));
    let error = innermost(soon(cluster.metadata(None)).await.expect_err("refused"));
    let WireError::Tls { problem: found, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(*found, TlsProblem::BrokerWantsTls);
    assert!(
        error.to_string().contains("security.protocol to SSL"),
        "{error}"
    );

    // A broker takes the first bytes of TLS for a request of 369 MB and hangs up.
    let plain = Fake::start(async |_peer: Peer| {}).await;
    let lines = ["enable.ssl.certificate.verification: false"];
    let (found, text) = problem(connect(&plain, &lines).await);
    assert_eq!(found, TlsProblem::BrokerSpeaksPlaintext, "{text}");
    assert!(
        text.contains("set security.protocol to PLAINTEXT"),
        "{text}"
    );
}
