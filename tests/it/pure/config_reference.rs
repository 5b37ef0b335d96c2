//! The two shipped configs, and what is resolved when nothing is written.

use std::path::Path;
use std::time::Duration;

use twinlog::config::{self, OffsetsMode, OnGap, OnRecreate, Start};

fn shipped(name: &str) -> config::Config {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("configs")
        .join(name);
    config::load(&path).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn the_reference_spells_every_default() {
    assert_eq!(shipped("reference.yaml"), shipped("minimal.yaml"));
}

#[test]
fn defaults_are_right_for_a_hot_standby() {
    let config = shipped("minimal.yaml");
    assert_eq!(config.http.listen, Some("127.0.0.1:8088".parse().unwrap()));
    assert!(!config.http.insecure);
    assert_eq!((config.http.tls, config.http.token), (None, None));
    assert_eq!(config.http.read_token, None);
    let primary = &config.clusters["primary"];
    assert_eq!(primary.bootstrap, ["127.0.0.1:19092"]);
    assert_eq!(primary.client_id, "twinlog");
    assert_eq!(primary.client_rack, None);
    assert_eq!(primary.request_timeout, Duration::from_secs(30));
    assert_eq!(primary.connect_timeout, Duration::from_secs(10));
    assert_eq!(config.flows.keys().collect::<Vec<_>>(), ["dr"]);
    let flow = &config.flows["dr"];
    assert_eq!(
        (flow.source.as_str(), flow.target.as_str()),
        ("primary", "standby")
    );
    assert!(flow.topics.matches("orders"));
    assert!(flow.groups.matches("billing"));
    assert!(!flow.groups.matches("console-consumer-123"));
    assert!(flow.rename.is_identity());
    assert_eq!(flow.offsets, OffsetsMode::Auto);
    assert_eq!(flow.burn_limit, 100_000_000);
    assert_eq!(flow.fill_limit, 1_000_000);
    assert_eq!(flow.start, Start::Earliest);
    assert_eq!(flow.limits.bytes_per_second, None);
    assert_eq!(flow.limits.in_flight_bytes, 64 << 20);
    assert_eq!(flow.limits.partition_in_flight_bytes, 16 << 20);
    assert_eq!(flow.limits.connections_per_broker, 16);
    assert_eq!(flow.on_gap, OnGap::Stop);
    assert_eq!(flow.on_foreign_write, twinlog::config::OnForeignWrite::Stop);
    assert_eq!(flow.on_recreate, OnRecreate::Stop);
    assert_eq!(flow.discovery_interval, Duration::from_secs(1));
    assert_eq!(flow.replication_factor, None);
    assert!(!flow.mirrormaker_compat && !flow.protect);
}

/// rdkafka judges the names and values: what we hand over must make a client.
#[test]
fn properties_make_an_rdkafka_client() {
    use rdkafka::config::FromClientConfig;
    let config = shipped("minimal.yaml");
    let mut client = rdkafka::ClientConfig::new();
    client.extend(config.clusters["primary"].properties.expose());
    rdkafka::consumer::BaseConsumer::from_config(client.set("group.id", "check")).unwrap();
}

/// The same for every way to be secure, through what makes clients of a section.
#[test]
fn secured_properties_make_an_rdkafka_client() {
    use rdkafka::consumer::BaseConsumer;
    for lines in [
        "security.protocol: SSL",
        "security.protocol: SSL, ssl.endpoint.identification.algorithm: none",
        "security.protocol: SSL, enable.ssl.certificate.verification: false",
        "security.protocol: SASL_PLAINTEXT, sasl.mechanism: PLAIN, sasl.username: u, sasl.password: p",
        "security.protocol: SASL_SSL, sasl.mechanisms: SCRAM-SHA-256, sasl.username: u, sasl.password: p",
        "security.protocol: sasl_ssl, sasl.mechanism: SCRAM-SHA-512, sasl.username: u, sasl.password: p",
        "security.protocol: SASL_SSL, sasl.mechanism: OAUTHBEARER, sasl.oauthbearer.method: oidc, sasl.oauthbearer.client.id: c, sasl.oauthbearer.client.secret: s, sasl.oauthbearer.token.endpoint.url: 'https://h/t'",
    ] {
        let text = format!(
            "clusters:\n  primary: {{ bootstrap.servers: 'h:1', {lines} }}\n  standby: {{ bootstrap.servers: 'h:2' }}\n"
        );
        let config = config::parse(&text, "t.yaml").unwrap_or_else(|problems| panic!("{problems}"));
        let (mut client, context) = twinlog::connect::librdkafka(&config.clusters["primary"]);
        let made: Result<BaseConsumer<_>, _> =
            client.set("group.id", "check").create_with_context(context);
        made.unwrap_or_else(|error| panic!("{lines}: {error}"));
    }
}
