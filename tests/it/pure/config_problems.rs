//! Every problem at once, each with its place, its reason and a hint.

use std::collections::BTreeMap;

use twinlog::config::{self, Problems};

fn problems(text: &str) -> Vec<String> {
    problems_in(text, &[])
}

fn problems_in(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let variables: BTreeMap<String, String> = variables
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect();
    match config::parse_with_environment(text, "t.yaml", &variables) {
        Ok(_) => Vec::new(),
        Err(Problems(problems)) => problems.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn the_background_of_verify_has_bounds() {
    let text = "\
clusters: { primary: { bootstrap.servers: 'h:1' }, standby: { bootstrap.servers: 'h:2' } }
flows:
  dr:
    source: primary
    target: standby
    verify: { background: sometimes, bytes_per_second: 1KiB, interval: 10ms, rate: 1 }
";
    let found = problems(text);
    let expected = [
        "flows.dr.verify.background: unknown value `sometimes`; expected `off` or `on`",
        "flows.dr.verify.bytes_per_second: `1KiB` is too small; at least `64KiB`",
        "flows.dr.verify.interval: `10ms` is too short; at least `1s`",
        "flows.dr.verify.rate: unknown key",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.contains(expected), "{found}");
    }
    let right = text.replace(
        "sometimes, bytes_per_second: 1KiB, interval: 10ms, rate: 1",
        "on",
    );
    assert!(problems(&right).is_empty());
}

#[test]
fn one_pass_reports_all_of_them_in_order() {
    let text = "\
clusters:
  primary:
    bootstrap.server: 'h:1'
    security.protocol: SASL_SSL
  standby: { bootstrap.servers: 'h:99999', request.timeout.ms: soon }
flows:
  dr:
    source: primry
    target: standby
    offsets: identica
    rename: '{cluster}.{topic}'
    topics: { include: ['(?!x).*', '('] }
    limits: { in_flight: 64Mb/s, bytes_per_second: 0 }
    discovery_interval: 5
    on_gap: [stop]
    on_gap: stop
  self: { source: standby, target: standby }
http: { listen: 'localhost:80' }
htpp: {}
";
    let expected = [
        "t.yaml:2:3: clusters.primary.bootstrap.servers: missing; for example `bootstrap.servers: \"127.0.0.1:9092\"`",
        "t.yaml:2:3: clusters.primary.sasl.mechanism: missing; for example `sasl.mechanism: SCRAM-SHA-512`",
        "t.yaml:3:5: clusters.primary.bootstrap.server: unknown key; did you mean `bootstrap.servers`?",
        "t.yaml:5:33: clusters.standby.bootstrap.servers: bad port: 99999 is not between 1 and 65535",
        "t.yaml:5:64: clusters.standby.request.timeout.ms: `soon` is not a whole number",
        "t.yaml:8:13: flows.dr.source: unknown cluster `primry`; did you mean `primary`?",
        "t.yaml:10:14: flows.dr.offsets: unknown value `identica`; expected `auto`, `identical` or `mapped`",
        "t.yaml:11:13: flows.dr.rename: `{cluster}.{topic}` is wrong at `{cluster}.`; placeholders are `{topic}` and `{source}`",
        "t.yaml:12:25: flows.dr.topics.include[0]: `(?!x).*` is not a regular expression: look-around, including look-ahead and look-behind, is not supported; write what is wanted in `include` and what is not in `exclude`",
        "t.yaml:12:36: flows.dr.topics.include[1]: `(` is not a regular expression: unclosed group",
        "t.yaml:13:26: flows.dr.limits.in_flight: `64Mb/s` is not a size; write a whole number and kB, MB, GB, KiB, MiB or GiB, such as `64MiB`",
        "t.yaml:13:52: flows.dr.limits.bytes_per_second: 0 would copy nothing; write a size or `unlimited`",
        "t.yaml:14:25: flows.dr.discovery_interval: `5` is not a duration; write a whole number and ms, s, m or h, such as `500ms`",
        "t.yaml:15:13: flows.dr.on_gap: expected a single value, found a list",
        "t.yaml:16:5: flows.dr.on_gap: given twice; the first is on line 15",
        "t.yaml:17:36: flows.self.target: is the source too, `standby`; a flow needs two clusters",
        "t.yaml:18:17: http.listen: `localhost:80` is not an address to listen on; write `127.0.0.1:8088`, `0.0.0.0:8088` for every interface, or `off`",
        "t.yaml:19:1: htpp: unknown key; did you mean `http`?",
    ];
    let found = problems(text);
    assert_eq!(found, expected, "\n{}", found.join("\n"));
}

#[test]
fn what_is_not_yaml_has_its_line() {
    let found = problems("clusters:\n  a: [1\nflows: }\n");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("t.yaml:3:"), "{found:?}");
    assert!(found[0].contains("not valid YAML"), "{found:?}");
    assert!(!found[0].contains('\n'), "{found:?}");
}

#[test]
fn a_slip_in_the_indentation_is_named_where_it_is() {
    let head = "clusters:\n  a: { bootstrap.servers: 'h:1' }\n  b: { bootstrap.servers: 'h:2' }\n";
    for (rest, place, words) in [
        (
            "flows:\n\tdr: { source: a, target: b }\n",
            "t.yaml:5:1:",
            "indent with spaces",
        ),
        (
            "flows:\n  dr:\n    source: a\n\ttarget: b\n",
            "t.yaml:7:1:",
            "indent with spaces",
        ),
        (
            "flows:\n  dr:\n    source: a\n      target: b\n",
            "t.yaml:7:7:",
            "indented deeper than the one before",
        ),
        (
            "flows:\n  dr:\n    source: a\n   target: b\n",
            "t.yaml:7:4:",
            "indented otherwise",
        ),
    ] {
        let found = problems(&format!("{head}{rest}"));
        assert_eq!(found.len(), 1, "{rest}: {found:?}");
        assert!(found[0].starts_with(place), "{rest}: {found:?}");
        assert!(found[0].contains(words), "{rest}: {found:?}");
    }
}

/// What only follows from a mistake isn't a second one.
#[test]
fn a_cluster_that_is_there_twice_is_one_problem() {
    let found = problems(
        "clusters:\n  a: { bootstrap.servers: 'h:1' }\n  a: { bootstrap.servers: 'h:2' }\n",
    );
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("given twice"), "{found:?}");
}

#[test]
fn nothing_and_the_wrong_shape_are_one_problem() {
    let pair = "clusters:\n  a: { bootstrap.servers: 'h:1' }\n  b: { bootstrap.servers: 'h:2' }\n";
    let needed = "clusters: a source and a target are needed";
    for (text, words) in [
        ("", needed),
        ("# only a comment\n", needed),
        ("~", needed),
        ("clusters:", needed),
        ("[]", "expected a table of `key: value`, found a list"),
        (
            "hello",
            "expected a table of `key: value`, found a single value",
        ),
        ("clusters: 5", "clusters: expected a table"),
        (
            &format!("{pair}flows:\n  - dr: {{ source: a, target: b }}\n"),
            "flows: expected a table of `key: value`, found a list",
        ),
        (
            &format!("{pair}flows: {{ dr: a to b }}\n"),
            "flows.dr: expected a table",
        ),
        (
            "clusters: { primary: 'h:1', standby: { bootstrap.servers: 'h:2' } }",
            "clusters.primary: expected a table",
        ),
        (
            "clusters: { primary: { bootstrap.servers: ['h:1', 'h:3'] }, standby: { bootstrap.servers: 'h:2' } }",
            "several addresses are one value with commas",
        ),
    ] {
        let found = problems(text);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(found[0].contains(words), "{text}: {found:?}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_one_problem_and_says_why() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let garbled = folder.path().join("garbled.yaml");
    std::fs::write(&garbled, [0xff, 0xfe, 0x00]).expect("writes");
    let here = std::env::current_dir().expect("a folder");
    let from_here = format!("there is no such file in {}", here.display());
    for (path, why) in [
        ("/does/not/exist.yaml".as_ref(), "there is no such file"),
        ("does-not-exist.yaml".as_ref(), from_here.as_str()),
        (folder.path(), "it is a folder; name the file in it"),
        (garbled.as_path(), "it isn't a text file (UTF-8)"),
    ] {
        let Err(Problems(problems)) = config::load(path) else {
            panic!("it was read");
        };
        let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
        let expected = format!("{}: can't read the config: {why}", path.display());
        assert_eq!(said, [expected]);
    }
}

#[test]
fn the_default_flow_needs_the_two_names() {
    let with = |second: &str| {
        format!(
            "clusters:\n  primary: {{ bootstrap.servers: 'h:1' }}\n  {second}: {{ bootstrap.servers: 'h:2' }}\n"
        )
    };
    assert_eq!(problems(&with("standby")), [""; 0]);
    let found = problems(&with("other"));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].contains("write `flows: { dr: { source: primary, target: other } }`"),
        "{found:?}"
    );
}

fn two_flows(left: &str, right: &str) -> Vec<String> {
    problems(&format!(
        "clusters:
  a: {{ bootstrap.servers: 'h:1' }}
  b: {{ bootstrap.servers: 'h:2' }}
  c: {{ bootstrap.servers: 'h:3' }}
flows:
  left: {{ {left} }}
  right: {{ {right} }}
"
    ))
}

#[test]
fn two_writers_of_one_topic_are_a_problem() {
    for (left, right) in [
        ("source: a, target: c", "source: b, target: c"),
        ("source: a, target: c", "source: a, target: c"),
        (
            "source: a, target: c, topics: { include: ['orders.*'] }",
            "source: b, target: c",
        ),
        (
            "source: a, target: c, topics: { include: ['orders.*'] }",
            "source: b, target: c, topics: { include: [pay, '.*-eu'] }",
        ),
        (
            "source: a, target: c, rename: 'x.{topic}'",
            "source: b, target: c, topics: { include: ['x\\.y'] }",
        ),
    ] {
        let found = two_flows(left, right);
        assert_eq!(found.len(), 1, "{left} | {right}: {found:?}");
        assert!(
            found[0].starts_with(
                "t.yaml:7:3: flows.right: flow `left` writes the same topics to `c`, such as `"
            ),
            "{found:?}"
        );
    }
}

#[test]
fn flows_that_keep_apart_are_right() {
    for (left, right) in [
        ("source: a, target: b", "source: a, target: c"),
        ("source: a, target: b", "source: b, target: c"),
        (
            "source: a, target: c, rename: '{source}.{topic}'",
            "source: b, target: c, rename: '{source}.{topic}'",
        ),
        (
            "source: a, target: c, topics: { include: ['orders.*'] }",
            "source: b, target: c, topics: { include: ['pay.*'] }",
        ),
        (
            "source: a, target: c, topics: { include: ['.*'], exclude: ['pay.*'] }",
            "source: b, target: c, topics: { include: ['pay.*'] }",
        ),
        (
            "source: a, target: b, rename: '{source}.{topic}', topics: { exclude: ['b\\..*'] }",
            "source: b, target: a, rename: '{source}.{topic}', topics: { exclude: ['a\\..*'] }",
        ),
    ] {
        assert_eq!(two_flows(left, right), [""; 0], "{left} | {right}");
    }
}

#[test]
fn a_circle_is_a_problem() {
    for rename in ["{topic}", "{source}.{topic}"] {
        let found = two_flows(
            &format!("source: a, target: b, rename: '{rename}'"),
            &format!("source: b, target: a, rename: '{rename}'"),
        );
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].contains("topics would go in a circle: `left` writes `"),
            "{found:?}"
        );
    }
}

#[test]
fn a_missing_variable_is_named() {
    let text = "clusters:
  primary: { bootstrap.servers: \"${KAFKA_HOST}:1\", client.id: \"${OPEN\" }
  standby: { bootstrap.servers: 'h:2' }
";
    let found = problems(text);
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(
        found[0],
        "t.yaml:2:33: clusters.primary.bootstrap.servers: environment variable `KAFKA_HOST` is not set"
    );
    assert!(found[1].contains("without a closing `}`"), "{found:?}");
}

#[test]
fn a_problem_from_the_environment_names_the_variable() {
    let text = "clusters:
  primary: { bootstrap.servers: 'h:1' }
  standby: { bootstrap.servers: 'h:2' }
";
    let variables = [
        ("TWINLOG__HTTP__LISTEN", "nowhere"),
        ("TWINLOG__CLUSTERS__PRIMARY", "h:1"),
        ("TWINLOG__HTTP__PORT", "1"),
    ];
    let found = problems_in(text, &variables);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(
        found.iter().any(
            |p| p.starts_with("t.yaml: http.listen: `nowhere` is not an address")
                && p.ends_with("(set by TWINLOG__HTTP__LISTEN)")
        ),
        "{found:?}"
    );
    assert!(
        found
            .iter()
            .any(|p| p.contains("clusters.primary: is not a single value")
                && p.ends_with("(set by TWINLOG__CLUSTERS__PRIMARY)")),
        "{found:?}"
    );
    assert!(
        found
            .iter()
            .any(|p| p.contains("http.port: unknown key")
                && p.ends_with("(set by TWINLOG__HTTP__PORT)")),
        "{found:?}"
    );
}

#[test]
fn bad_values_have_a_reason() {
    for (rest, reason) in [
        (
            "limits: { in_flight: 1MiB }",
            "`1MiB` is too small; at least `4MiB`",
        ),
        (
            "limits: { in_flight: 8MiB, partition_in_flight: 9MiB }",
            "`9MiB` is more than `in_flight`",
        ),
        ("limits: { in_flight: 99999999999GiB }", "is too large"),
        ("limits: { in_flite: 8MiB }", "did you mean `in_flight`?"),
        (
            "limits: { connections: 2 }",
            "did you mean `connections_per_broker`?",
        ),
        ("topics: { include: [] }", "no topic would be copied"),
        ("topics: { include: ['*'] }", "any name is `.*`"),
        (
            "topics: ['a']",
            "expected a table of `key: value`, found a list; its keys are `include`",
        ),
        ("topics: { include: 'a' }", "expected a list"),
        ("rename: fixed", "no `{topic}`"),
        ("rename: '{topic}{topic}'", "more than once"),
        ("rename: 'a b{topic}'", "letters, digits"),
        (
            "replication_factor: 0",
            "0 is not between 1 and 1000, or `auto`",
        ),
        ("replication_factor: -1", "is not a whole number"),
        ("discovery_interval: 1ms", "too short"),
        ("start: ", "no value given"),
        (
            "offsets: { mode: best }",
            "flows.f.offsets.mode: unknown value `best`",
        ),
        ("offsets: { burn_limit: -3 }", "`-3` is not a whole number"),
        (
            "offsets: identical, on_foreign_write: map",
            "`offsets` asks for identical ones",
        ),
        ("on_recreate: record", "expected `stop` or `recreate`"),
        ("mirrormaker_compat: yes", "expected `true` or `false`"),
    ] {
        let text = format!(
            "clusters:
  a: {{ bootstrap.servers: 'h:1' }}
  b: {{ bootstrap.servers: 'h:2' }}
flows:
  f: {{ source: a, target: b, {rest} }}
"
        );
        let found = problems(&text);
        assert_eq!(found.len(), 1, "{rest}: {found:?}");
        assert!(found[0].contains(reason), "{rest}: {found:?}");
        assert!(found[0].starts_with("t.yaml:5:"), "{rest}: {found:?}");
    }
}

#[test]
fn http_problems_have_a_reason() {
    for (rest, place, reason) in [
        (
            "listen: '0.0.0.0:8088'",
            "4:17: http.listen:",
            "set `tls: { certificate: FILE, key: FILE }`, or `insecure: true`",
        ),
        (
            "listen: '[::]:8088', insecure: false",
            "4:17: http.listen:",
            "`[::]:8088` is reached by other machines",
        ),
        (
            "listen: '0.0.0.0:8088', tls: { certificate: /c }",
            "4:33: http.tls.key:",
            "missing; for example",
        ),
        (
            "tls: { crt: /c, certificate: /c, key: /k }",
            "4:16: http.tls.crt:",
            "unknown key",
        ),
        (
            "tls: { certificate: '', key: /k }",
            "4:29: http.tls.certificate:",
            "is empty",
        ),
        (
            "insecure: yes",
            "4:19: http.insecure:",
            "expected `true` or `false`",
        ),
        ("token: ''", "4:16: http.token:", "is empty"),
        (
            "token: hunter2hunter2",
            "4:16: http.token:",
            "has 14 letters, at least 16",
        ),
        (
            "read_token: 'hunter2 hunter2 x'",
            "4:21: http.read_token:",
            "has a space",
        ),
        (
            "token: hunter2hunter2hun, read_token: hunter2hunter2hun",
            "4:47: http.read_token:",
            "is the same as `token`",
        ),
        (
            "token: 'file:/nowhere/token'",
            "4:16: http.token:",
            "cannot read `/nowhere/token`",
        ),
    ] {
        let text = format!(
            "clusters:\n  primary: {{ bootstrap.servers: 'h:1' }}\n  standby: {{ bootstrap.servers: 'h:2' }}\nhttp: {{ {rest} }}\n"
        );
        let found = problems(&text);
        assert_eq!(found.len(), 1, "{rest}: {found:?}");
        assert!(
            found[0].starts_with(&format!("t.yaml:{place}")),
            "{rest}: {found:?}"
        );
        assert!(found[0].contains(reason), "{rest}: {found:?}");
        assert!(
            !found[0].contains("hunter2"),
            "a secret is shown: {found:?}"
        );
    }
}

#[test]
fn a_broken_file_shows_no_secret() {
    const SECRET: &str = "hunter2hunter2hunter2";
    for rest in [
        "token: \"@",
        "token: '@\n",
        "token: @ : x",
        "token: [@",
        "token: {@: 1}",
        "token: !!int @",
        "token: !!bool \"@\"",
        "token: *@",
        "token: |\n@",
        "token: \"@\\q\"",
        "token: [@]",
        "token: \"${@\"",
        "token: '@ @'",
        "tls: @",
        "tls: { key_password: [@], certificate: /c, key: /k }",
    ] {
        let rest = rest.replace('@', SECRET);
        let text = format!(
            "clusters:\n  primary: {{ bootstrap.servers: 'h:1' }}\n  standby: {{ bootstrap.servers: 'h:2' }}\nhttp:\n  {rest}\n"
        );
        let found = problems(&text).join("\n");
        assert!(!found.is_empty(), "{rest} was taken");
        assert!(!found.contains(SECRET), "{rest}: {found}");
    }
}

#[test]
fn bad_addresses_have_a_reason() {
    for (address, reason) in [
        ("''", "no server given"),
        ("host", "`host` is not an address; write `host:port`"),
        ("':9092'", "is not an address"),
        ("'::1:9092'", "IPv6 as `[::1]:9092`"),
        ("'h:0'", "bad port: 0 is not between 1 and 65535"),
        ("'h:x'", "bad port: `x` is not a whole number"),
        ("'h:1,,i:70000'", "bad port: 70000"),
        ("'SSL://h:1'", "remove `SSL://`"),
        ("'a b:1'", "is not a host name"),
        ("['h:1']", "expected a single value, found a list"),
    ] {
        let text = format!(
            "clusters:\n  primary: {{ bootstrap.servers: {address} }}\n  standby: {{ bootstrap.servers: 'h:2' }}\n"
        );
        let found = problems(&text);
        assert_eq!(found.len(), 1, "{address}: {found:?}");
        assert!(found[0].contains(reason), "{address}: {found:?}");
    }
}

#[test]
fn names_must_fit_in_topic_names() {
    let text = "clusters:
  'my cluster': { bootstrap.servers: 'h:1' }
  b: { bootstrap.servers: 'h:2' }
flows:
  'a/b': { source: my cluster, target: b }
";
    let found = problems(text);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found
            .iter()
            .all(|problem| problem.contains("cannot be a name")),
        "{found:?}"
    );
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "[a-z:{}\\[\\],'\"&*!|>#%@` \n-]{0,80}") {
        let _ = problems(&text);
    }

    #[test]
    fn no_mutation_of_a_good_config_panics(at in 0usize..5000, with in "[ -~\n]{0,3}") {
        let mut text = include_str!("../../../configs/reference.yaml").to_owned();
        // The file is ASCII: every byte is a boundary.
        text.insert_str(at.min(text.len()), &with);
        let _ = problems(&text);
    }
}
