//! The secured clusters of the harness, judged by foreign clients only: who gets in, who doesn't,
//! and what those who are in may do.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use crate::support::acls::{self, Acl, Operation, Resource};
use crate::support::as_user::{is_denied, try_produce_with, try_read_with};
use crate::support::logins::{self, Login};
use crate::support::security::TWINLOG;
use crate::support::topic_configs::{Change, Source};
use crate::support::{
    Cluster, ClusterOptions, Isolation, KafkaVersion, Load, Security, ServerCertificate,
    assert_same, create_topic, eventually, java_produce, java_read, quotas, read_all,
    topic_configs, try_produce_as, try_read_as, users,
};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

const DEADLINE: Duration = Duration::from_secs(30);

/// One node of each version, which takes every way in. Twinlog's user has no right there.
fn cluster(version: KafkaVersion) -> &'static Cluster {
    static V3_9: OnceLock<Cluster> = OnceLock::new();
    static V4_3: OnceLock<Cluster> = OnceLock::new();
    let (cell, mechanism) = match version {
        KafkaVersion::V3_9 => (&V3_9, "SCRAM-SHA-256"),
        KafkaVersion::V4_3 => (&V4_3, "SCRAM-SHA-512"),
    };
    cell.get_or_init(|| {
        let security = Security {
            mechanism,
            client_certificates: true,
            oauthbearer: true,
            ..Security::default()
        };
        let options = ClusterOptions::secured("secured", security.with_bare_twinlog());
        Cluster::start(version, options)
    })
}

fn code<T>(result: Result<T, KafkaError>) -> Option<RDKafkaErrorCode> {
    result.err().and_then(|error| error.rdkafka_error_code())
}

/// Both clients write and read: with a password, and with a certificate.
fn clients_get_in(version: KafkaVersion) {
    let cluster = cluster(version);
    let certificates = cluster.certificate_bootstrap();
    for (topic, bootstrap) in [("password", cluster.bootstrap()), ("shown", certificates)] {
        create_topic(&bootstrap, topic, 2, &[]);
        Load::new(topic, 100).produce(&bootstrap);
        java_produce(version, &bootstrap, topic, &["count=50", "first=100"]);
        let seen = read_all(&bootstrap, topic, Isolation::ReadCommitted);
        assert_eq!(seen.len(), 150);
        let by_java = java_read(version, &bootstrap, topic, Isolation::ReadCommitted);
        assert_same(&seen, &by_java);
    }

    let bootstrap = cluster.bootstrap();
    let admin = logins::find(&bootstrap).expect("secured").clients;
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let login = admin.clone().with("sasl.mechanism", mechanism);
        assert_eq!(try_produce_with(&bootstrap, &login, "password"), Ok(()));
    }
    let token = Login::default()
        .with("security.protocol", "SASL_SSL")
        .with("ssl.ca.location", cluster.ca().display())
        .with("sasl.mechanism", "OAUTHBEARER")
        .with("enable.sasl.oauthbearer.unsecure.jwt", true);
    let admins = token
        .clone()
        .with("sasl.oauthbearer.config", "principal=admin");
    assert_eq!(try_produce_with(&bootstrap, &admins, "password"), Ok(()));
    // Whom the token names is who it is.
    let guests = token.with("sasl.oauthbearer.config", "principal=guest");
    let refused = try_produce_with(&bootstrap, &guests, "password");
    assert!(refused.as_ref().is_err_and(is_denied), "{refused:?}");
}

#[test]
fn clients_get_in_on_kafka_4_3() {
    clients_get_in(KafkaVersion::V4_3);
}

#[test]
fn clients_get_in_on_kafka_3_9() {
    clients_get_in(KafkaVersion::V3_9);
}

/// Nobody gets in without what it takes.
fn strangers_stay_out(version: KafkaVersion) {
    let cluster = cluster(version);
    let bootstrap = cluster.bootstrap();
    create_topic(&bootstrap, "closed", 1, &[]);
    let admin = logins::find(&bootstrap).expect("secured").clients;
    assert_eq!(try_produce_with(&bootstrap, &admin, "closed"), Ok(()));

    let authentication = Some(RDKafkaErrorCode::Authentication);
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let right = admin.clone().with("sasl.mechanism", mechanism);
        let wrong_password = right.clone().with("sasl.password", "wrong");
        let wrong_user = right.with("sasl.username", "nobody");
        for wrong in [wrong_password, wrong_user] {
            let refused = try_produce_with(&bootstrap, &wrong, "closed");
            assert_eq!(code(refused), authentication, "{wrong:?}");
            let refused = try_read_with(&bootstrap, &wrong, "closed");
            assert_eq!(code(refused), authentication, "{wrong:?}");
        }
    }
    // Without our authority the system's count, and none of those has signed for the brokers.
    let distrustful = admin.without("ssl.ca.location");
    let refused = try_produce_with(&bootstrap, &distrustful, "closed");
    assert_eq!(code(refused), Some(RDKafkaErrorCode::SSL));

    // A client that was told nothing speaks plaintext and gets no answer at all.
    let answers = |config: &rdkafka::ClientConfig, patience| {
        let consumer: BaseConsumer = config.create().expect("valid settings");
        consumer.fetch_metadata(None, patience).map(drop)
    };
    let mut told_nothing = crate::support::admin::client_with(&bootstrap, &Login::default());
    assert!(answers(&told_nothing, Duration::from_secs(3)).is_err());
    told_nothing.set("bootstrap.servers", cluster.internal_bootstrap());
    assert_eq!(answers(&told_nothing, DEADLINE), Ok(()));

    // The listener for certificates takes nobody without one.
    let certificates = cluster.certificate_bootstrap();
    let shown = logins::find(&certificates).expect("secured").clients;
    assert_eq!(try_produce_with(&certificates, &shown, "closed"), Ok(()));
    let bare = shown
        .without("ssl.certificate.location")
        .without("ssl.key.location");
    // The refusal comes after TLS 1.3's handshake: librdkafka takes it for a broken connection.
    let bare = crate::support::admin::client_with(&certificates, &bare);
    assert!(answers(&bare, Duration::from_secs(3)).is_err());
    assert_eq!(
        read_all(&bootstrap, "closed", Isolation::ReadCommitted).len(),
        2
    );
}

#[test]
fn strangers_stay_out_on_kafka_4_3() {
    strangers_stay_out(KafkaVersion::V4_3);
}

#[test]
fn strangers_stay_out_on_kafka_3_9() {
    strangers_stay_out(KafkaVersion::V3_9);
}

/// A user has the rights that ACLs give, and no other.
fn rights_are_what_acls_say(version: KafkaVersion) {
    let bootstrap = cluster(version).bootstrap();
    for topic in ["ours", "ours.too", "theirs"] {
        create_topic(&bootstrap, topic, 1, &[]);
    }
    users::create(&bootstrap, "alice");
    let denied = |result: Result<(), KafkaError>| {
        assert!(result.as_ref().is_err_and(is_denied), "{result:?}");
    };
    for user in ["alice", TWINLOG] {
        denied(try_produce_as(&bootstrap, user, "ours"));
        denied(try_read_as(&bootstrap, user, "ours").map(drop));
    }

    let about_ours = |acl: &Acl| acl.resource.name.starts_with("ours");
    acls::allow(
        &bootstrap,
        "User:alice",
        Operation::Write,
        Resource::topic("ours"),
    );
    assert_eq!(try_produce_as(&bootstrap, "alice", "ours"), Ok(()));
    denied(try_read_as(&bootstrap, "alice", "ours").map(drop));
    denied(try_produce_as(&bootstrap, TWINLOG, "ours"));
    let prefixed = Resource::prefixed(acls::Kind::Topic, "ours");
    let read = Acl::allow("User:alice", Operation::Read, prefixed);
    acls::add(&bootstrap, std::slice::from_ref(&read));
    assert_eq!(try_read_as(&bootstrap, "alice", "ours"), Ok(1));
    assert_eq!(try_read_as(&bootstrap, "alice", "ours.too"), Ok(0));
    denied(try_read_as(&bootstrap, "alice", "theirs").map(drop));
    acls::deny(
        &bootstrap,
        "User:*",
        Operation::Read,
        Resource::topic("ours"),
    );
    denied(try_read_as(&bootstrap, "alice", "ours").map(drop));
    assert_eq!(try_read_as(&bootstrap, "alice", "ours.too"), Ok(0));

    let mut found = acls::list(&bootstrap);
    found.retain(about_ours);
    let mut wanted = vec![
        Acl::allow("User:alice", Operation::Write, Resource::topic("ours")),
        Acl::deny("User:*", Operation::Read, Resource::topic("ours")),
        read.clone(),
    ];
    wanted.sort();
    assert_eq!(found, wanted);
    acls::remove(&bootstrap, &read);
    assert!(!acls::list(&bootstrap).contains(&read));
    denied(try_read_as(&bootstrap, "alice", "ours.too").map(drop));

    assert_eq!(try_produce_as(&bootstrap, "alice", "ours"), Ok(()));
    users::delete(&bootstrap, "alice");
    eventually(DEADLINE, "alice is nobody any more", || {
        match code(try_produce_as(&bootstrap, "alice", "ours")) {
            Some(RDKafkaErrorCode::Authentication) => Ok(()),
            other => Err(other),
        }
    });
}

#[test]
fn rights_are_what_acls_say_on_kafka_4_3() {
    rights_are_what_acls_say(KafkaVersion::V4_3);
}

#[test]
fn rights_are_what_acls_say_on_kafka_3_9() {
    rights_are_what_acls_say(KafkaVersion::V3_9);
}

/// Quotas and topic configs come back as they were set.
fn quotas_and_configs_are_kept(version: KafkaVersion) {
    let bootstrap = cluster(version).bootstrap();
    let both = quotas::entity(&[("user", Some("bob")), ("client-id", Some("shop"))]);
    let anybody = quotas::entity(&[("user", None)]);
    let before = quotas::list(&bootstrap);
    assert!(
        !before.contains_key(&both) && !before.contains_key(&anybody),
        "{before:?}"
    );
    let rate = ("consumer_byte_rate", Some(2_000_000.0));
    quotas::set(
        &bootstrap,
        &both,
        &[("producer_byte_rate", Some(1_000_000.0)), rate],
    );
    quotas::set(&bootstrap, &anybody, &[("request_percentage", Some(50.5))]);
    quotas::set(&bootstrap, &both, &[("producer_byte_rate", None)]);
    let found = quotas::list(&bootstrap);
    let of = |key: &str, value| BTreeMap::from([(key.to_owned(), value)]);
    assert_eq!(found[&both], of("consumer_byte_rate", 2_000_000.0));
    assert_eq!(found[&anybody], of("request_percentage", 50.5));

    create_topic(&bootstrap, "configured", 1, &[("retention.ms", "7200000")]);
    let own =
        |wanted: &[(&str, &str)]| {
            let wanted = wanted
                .iter()
                .map(|(key, value)| ((*key).into(), (*value).into()));
            let wanted: BTreeMap<String, String> = wanted.collect();
            eventually(DEADLINE, "the topic has these values of its own", || {
                match topic_configs::own(&bootstrap, "configured") {
                    found if found == wanted => Ok(()),
                    found => Err(found),
                }
            });
        };
    own(&[("retention.ms", "7200000")]);
    topic_configs::set(&bootstrap, "configured", "max.message.bytes", "2000000");
    topic_configs::unset(&bootstrap, "configured", "retention.ms");
    let list = [("cleanup.policy", Change::Append("compact"))];
    topic_configs::alter(&bootstrap, "configured", &list);
    own(&[
        ("cleanup.policy", "delete,compact"),
        ("max.message.bytes", "2000000"),
    ]);
    let all = topic_configs::list(&bootstrap, "configured");
    assert_eq!(all["retention.ms"].source, Source::StaticBroker);
    assert_eq!(all["segment.bytes"].source, Source::Default);
    let list = [("cleanup.policy", Change::Subtract("delete"))];
    topic_configs::alter(&bootstrap, "configured", &list);
    own(&[
        ("cleanup.policy", "compact"),
        ("max.message.bytes", "2000000"),
    ]);
}

#[test]
fn quotas_and_configs_are_kept_on_kafka_4_3() {
    quotas_and_configs_are_kept(KafkaVersion::V4_3);
}

#[test]
fn quotas_and_configs_are_kept_on_kafka_3_9() {
    quotas_and_configs_are_kept(KafkaVersion::V3_9);
}

/// Each bad certificate is bad indeed: clients that trust the cluster's authority stay away.
#[test]
fn bad_certificates_are_refused_by_clients() {
    let kinds = [
        ServerCertificate::Expired,
        ServerCertificate::WrongName,
        ServerCertificate::ForeignAuthority,
    ];
    let launched: Vec<Cluster> = kinds
        .into_iter()
        .map(|server_certificate| {
            let security = Security {
                server_certificate,
                ..Security::default()
            };
            let options = ClusterOptions::secured("bad-certificate", security);
            Cluster::launch(KafkaVersion::V4_3, options)
        })
        .collect();
    for (mut cluster, kind) in launched.into_iter().zip(kinds) {
        cluster.await_ready();
        let bootstrap = cluster.bootstrap();
        create_topic(&cluster.internal_bootstrap(), "unseen", 1, &[]);
        let admin = logins::find(&bootstrap).expect("secured").clients;
        let refused = try_produce_with(&bootstrap, &admin, "unseen");
        assert_eq!(code(refused), Some(RDKafkaErrorCode::SSL), "{kind:?}");
        // There is nothing else wrong with it.
        let trustful = match kind {
            ServerCertificate::WrongName => {
                admin.with("ssl.endpoint.identification.algorithm", "none")
            }
            _ => admin.with("enable.ssl.certificate.verification", false),
        };
        assert_eq!(
            try_produce_with(&bootstrap, &trustful, "unseen"),
            Ok(()),
            "{kind:?}"
        );
    }
}

/// Three nodes: each of them takes logins, also after a restart.
#[test]
fn every_node_is_secured() {
    let options = ClusterOptions {
        nodes: 3,
        ..ClusterOptions::secured("secured-three", Security::default())
    };
    let mut cluster = Cluster::start(KafkaVersion::V4_3, options);
    let bootstrap = cluster.bootstrap();
    create_topic(&bootstrap, "spread", 6, &[]);
    Load::new("spread", 60).produce(&bootstrap);
    cluster.kill(2);
    cluster.restart(2);
    for id in 1..=3 {
        let seen = read_all(
            &cluster.node_address(id),
            "spread",
            Isolation::ReadCommitted,
        );
        assert_eq!(seen.len(), 60);
    }
}
