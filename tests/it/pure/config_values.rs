//! What single values mean, and what the environment does to them.

use std::collections::BTreeMap;
use std::time::Duration;

use twinlog::config::{self, Config, OffsetsMode, OnGap, OnRecreate, Rename, Selector, Start};

const CLUSTERS: &str = "clusters:
  a: { bootstrap.servers: 'h:1' }
  b: { bootstrap.servers: 'h:2, [::1]:3' }
";

fn flow(rest: &str) -> config::FlowConfig {
    let text = format!("{CLUSTERS}flows:\n  f: {{ source: a, target: b, {rest} }}\n");
    let mut config = parse_in(&text, &[]).unwrap_or_else(|problems| panic!("{problems}"));
    config.flows.remove("f").unwrap()
}

fn parse_in(text: &str, variables: &[(&str, &str)]) -> Result<Config, config::Problems> {
    let variables: BTreeMap<String, String> = variables
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect();
    config::parse_with_environment(text, "t.yaml", &variables)
}

#[test]
fn every_flow_key_has_its_effect() {
    let flow = flow(
        "rename: '{source}.{topic}', offsets: { mode: mapped, burn_limit: 5, fill_limit: 6 }, start: latest, \
         limits: { bytes_per_second: 10MiB, in_flight: 8 MB, partition_in_flight: 2097152 }, \
         on_gap: record, on_foreign_write: map, protect: true, on_recreate: recreate, discovery_interval: 250ms, replication_factor: 3, \
         mirrormaker_compat: true, topics: { include: [a.*, b], exclude: [ab] }",
    );
    assert_eq!(flow.rename.apply("a", "t"), "a.t");
    assert_eq!((flow.offsets, flow.burn_limit), (OffsetsMode::Mapped, 5));
    assert_eq!(flow.fill_limit, 6);
    assert_eq!(flow.start, Start::Latest);
    assert_eq!(flow.limits.bytes_per_second, Some(10 << 20));
    assert_eq!(flow.limits.in_flight_bytes, 8_000_000);
    assert_eq!(flow.limits.partition_in_flight_bytes, 2 << 20);
    assert_eq!(flow.on_gap, OnGap::Record);
    assert_eq!(flow.on_foreign_write, twinlog::config::OnForeignWrite::Map);
    assert_eq!(flow.on_recreate, OnRecreate::Recreate);
    assert_eq!(flow.discovery_interval, Duration::from_millis(250));
    assert_eq!(flow.replication_factor, Some(3));
    assert!(flow.mirrormaker_compat && flow.protect);
    assert!(flow.topics.matches("ac") && !flow.topics.matches("ab"));
    // Not written, so still the default.
    assert!(!flow.groups.matches("console-consumer-1"));
}

#[test]
fn a_small_flow_limit_lowers_the_partition_default() {
    let limits = flow("limits: { in_flight: 5MiB }").limits;
    assert_eq!(limits.partition_in_flight_bytes, 5 << 20);
}

#[test]
fn the_short_form_of_offsets_keeps_the_default_limit() {
    let flow = flow("offsets: identical");
    assert_eq!(
        (flow.offsets, flow.burn_limit),
        (OffsetsMode::Identical, 100_000_000)
    );
}

#[test]
fn cluster_keys_have_their_effect() {
    let text = "clusters:
  primary:
    bootstrap.servers: h:1,i:2
    client.id: me
    client.rack: r1
    request.timeout.ms: 5000
    socket.connection.setup.timeout.ms: 2000
    security.protocol: plaintext
  standby: { bootstrap.servers: 'h:3' }
http: { listen: off }
";
    let config = parse_in(text, &[]).unwrap_or_else(|problems| panic!("{problems}"));
    let cluster = &config.clusters["primary"];
    assert_eq!(cluster.bootstrap, ["h:1", "i:2"]);
    assert_eq!(cluster.client_id, "me");
    assert_eq!(cluster.client_rack.as_deref(), Some("r1"));
    assert_eq!(cluster.request_timeout, Duration::from_secs(5));
    assert_eq!(cluster.connect_timeout, Duration::from_secs(2));
    assert_eq!(cluster.properties.get("bootstrap.servers"), Some("h:1,i:2"));
    assert_eq!(cluster.properties.get("socket.timeout.ms"), Some("5000"));
    assert_eq!(cluster.properties.get("client.rack"), Some("r1"));
    assert_eq!(config.http.listen, None);
}

fn http(text: &str, variables: &[(&str, &str)]) -> config::HttpConfig {
    let text = format!("{CLUSTERS}flows:\n  f: {{ source: a, target: b }}\nhttp: {text}\n");
    let config = parse_in(&text, variables).unwrap_or_else(|problems| panic!("{problems}"));
    config.http
}

#[test]
fn http_keys_have_their_effect() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "from-a-file-0123\n").unwrap();
    let text = format!(
        "{{ listen: '10.0.0.1:8443', tls: {{ certificate: /c, key: /k, key_password: \"${{PW}}\" }}, \
         token: \"${{TOKEN}}\", read_token: 'file:{}' }}",
        file.display()
    );
    let http = http(&text, &[("PW", "pw"), ("TOKEN", "from-the-environment")]);
    let tls = http.tls.as_ref().unwrap();
    assert_eq!(
        (tls.certificate.to_str(), tls.key.to_str()),
        (Some("/c"), Some("/k"))
    );
    assert_eq!(tls.key_password.as_ref().unwrap().expose(), "pw");
    assert_eq!(
        http.token.as_ref().unwrap().expose(),
        "from-the-environment"
    );
    assert_eq!(
        http.read_token.as_ref().unwrap().expose(),
        "from-a-file-0123"
    );
    let printed = format!("{http:?}");
    for secret in ["\"pw\"", "from-the", "from-a-file"] {
        assert!(!printed.contains(secret), "{printed}");
    }
}

#[test]
fn other_addresses_are_served_with_tls_or_on_purpose() {
    let address: std::net::SocketAddr = "0.0.0.0:8088".parse().unwrap();
    for text in [
        "{ listen: '0.0.0.0:8088', insecure: true }",
        "{ listen: '0.0.0.0:8088', tls: { certificate: /c, key: /k } }",
    ] {
        assert_eq!(http(text, &[]).listen, Some(address), "{text}");
    }
    for text in [
        "{ listen: '127.0.0.1:1' }",
        "{ listen: '[::1]:1' }",
        "{ listen: '127.0.0.1:1', insecure: true }",
        "{ listen: '[::ffff:127.0.0.1]:1' }",
    ] {
        assert!(http(text, &[]).listen.is_some(), "{text}");
    }
}

#[test]
fn selectors_match_whole_names_and_exclude_wins() {
    let selector = Selector::new(&["orders|pay.*", "x"], &["payroll", ".*-tmp"]).unwrap();
    for name in ["orders", "payments", "x"] {
        assert!(selector.matches(name), "{name}");
    }
    for name in [
        "my-orders",
        "orders2",
        "xx",
        "payroll",
        "pay-tmp",
        "",
        "orders\n",
    ] {
        assert!(!selector.matches(name), "{name}");
    }
    assert!(
        Selector::new(&["a)|(b"], &[]).is_err(),
        "anchors cannot be broken out of"
    );
    assert!(!Selector::new::<&str>(&[], &[]).unwrap().matches("a"));
}

#[test]
fn renames_are_undone_by_unapply() {
    let rename = Rename::new("{source}.{topic}_copy").unwrap();
    let name = rename.apply("primary", "orders");
    assert_eq!(name, "primary.orders_copy");
    assert_eq!(rename.unapply("primary", &name).as_deref(), Some("orders"));
    assert_eq!(rename.unapply("other", &name), None);
    assert!(!rename.is_identity());
    // A topic's name is data, not a template.
    assert_eq!(
        Rename::new("{topic}").unwrap().apply("p", "{source}"),
        "{source}"
    );
}

#[test]
fn internal_topics_are_those_with_a_known_owner() {
    for name in [
        "__consumer_offsets",
        "__transaction_state",
        "__share_group_state",
        "__cluster_metadata",
        "__twinlog",
        "__twinlog.state",
        "mm2-offset-syncs.b.internal",
        "mm2-configs.a.internal",
        "mm2-offset-syncs-b-internal",
        "a.checkpoints.internal",
        "a-checkpoints-internal",
        "strimzi.cruisecontrol.metrics",
        "strimzi.cruisecontrol.partitionmetricsamples",
        "strimzi.cruisecontrol.modeltrainingsamples",
        "__strimzi_store_topic",
        "kminion-end-to-end",
    ] {
        assert!(config::is_internal_topic(name), "{name}");
    }
    for name in [
        "orders",
        "orders-internal",
        "orders.internal",
        "internal",
        "mm2-internal-things",
        "heartbeats",
        "a.heartbeats",
        "__mine",
        "_schemas",
        "strimzi.orders",
        "strimzi.cruisecontrol",
        "kminion",
        "checkpoints.internal",
        "mm2",
    ] {
        assert!(!config::is_internal_topic(name), "{name}");
    }
}

#[test]
fn variables_are_expanded_once() {
    let text = "clusters:
  primary: { bootstrap.servers: \"${HOST}:${PORT}\", client.id: \"$${HOST}-$5-${ODD}\" }
  standby: { bootstrap.servers: 'h:2' }
";
    let variables = [("HOST", "kafka"), ("PORT", "9092"), ("ODD", "${HOST}")];
    let config = parse_in(text, &variables).unwrap_or_else(|problems| panic!("{problems}"));
    let cluster = &config.clusters["primary"];
    assert_eq!(cluster.bootstrap, ["kafka:9092"]);
    assert_eq!(cluster.client_id, "${HOST}-$5-${HOST}");
}

#[test]
fn the_environment_overrides_single_values() {
    let text = "clusters:
  primary: { bootstrap.servers: 'h:1' }
  standby:
flows:
  dr: { source: primary, target: standby, limits: { in_flight: 8MiB } }
";
    let variables = [
        ("TWINLOG__HTTP__LISTEN", "off"),
        ("TWINLOG__CLUSTERS__PRIMARY__BOOTSTRAP_SERVERS", "x:9"),
        ("TWINLOG__CLUSTERS__STANDBY__BOOTSTRAP_SERVERS", "y:9"),
        ("TWINLOG__FLOWS__DR__LIMITS__IN_FLIGHT", "16MiB"),
        ("TWINLOG__FLOWS__DR__START", "latest"),
        ("TWINLOG_CONFIG", "is another program option"),
        ("OTHER", "x"),
    ];
    let config = parse_in(text, &variables).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(config.http.listen, None);
    assert_eq!(config.clusters["primary"].bootstrap, ["x:9"]);
    assert_eq!(config.clusters["standby"].bootstrap, ["y:9"]);
    assert_eq!(config.flows["dr"].limits.in_flight_bytes, 16 << 20);
    assert_eq!(config.flows["dr"].start, Start::Latest);
}

#[test]
fn anchors_and_merges_work() {
    let text = "clusters:
  primary: &c { bootstrap.servers: 'h:1', client.id: me }
  standby: { <<: *c, bootstrap.servers: 'h:2' }
";
    let config = parse_in(text, &[]).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(config.clusters["standby"].client_id, "me");
    assert_eq!(config.clusters["standby"].bootstrap, ["h:2"]);
}

#[test]
fn flows_that_go_the_other_way_know_each_other() {
    let text = r#"
clusters: { a: { bootstrap.servers: "h:1" }, b: { bootstrap.servers: "h:2" }, c: { bootstrap.servers: "h:3" } }
flows:
  there: { source: a, target: b, topics: { exclude: ["b[.].*"] }, rename: "{source}.{topic}" }
  back: { source: b, target: a, topics: { exclude: ["a[.].*"] }, rename: "{source}.{topic}" }
  on: { source: b, target: c }
"#;
    let config = config::parse(text, "test.yaml").unwrap_or_else(|e| panic!("{e}"));
    let opposite = |flow: &str| config.flows[flow].opposite.clone();
    assert_eq!(opposite("there"), ["back"]);
    assert_eq!(opposite("back"), ["there"]);
    assert!(opposite("on").is_empty());
}

/// `10` is ten bytes a second: whoever meant ten megabytes is told so before the first copy takes years.
#[test]
fn a_rate_that_lacks_its_unit_is_doubted() {
    let doubt = |rate: &str| {
        let text = format!(
            "clusters:\n  primary: {{ bootstrap.servers: 'h:1' }}\n  standby: {{ bootstrap.servers: 'h:2' }}\n\
             flows: {{ dr: {{ source: primary, target: standby, limits: {{ bytes_per_second: {rate} }} }} }}\n"
        );
        let config = config::parse_with_environment(&text, "t.yaml", &BTreeMap::new());
        config.expect("right").flows["dr"].limits.doubt()
    };
    assert_eq!(
        doubt("10").expect("doubted"),
        "limits.bytes_per_second is 10 bytes per second (the least is 1024): a batch of 1 MiB takes 17 minutes, \
         1 GiB takes 12 days"
    );
    assert_eq!(
        doubt("10kB").expect("doubted"),
        "limits.bytes_per_second is 10000 bytes per second: a batch of 1 MiB takes 113 s, 1 GiB takes 32 hours"
    );
    for right in ["unlimited", "64KiB", "10MiB"] {
        assert_eq!(doubt(right), None, "{right}");
    }
}
