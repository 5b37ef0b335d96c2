//! The security of a cluster section: what works, what can't, and that secrets stay secret.

use std::collections::BTreeMap;

use twinlog::config::{self, Config, Pem, Problems, SaslSection, TlsCheck};

fn parse(lines: &str, variables: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let lines: String = lines
        .lines()
        .map(|line| format!("    {}\n", line.trim_start()))
        .collect();
    let text = format!(
        "clusters:\n  standby: {{ bootstrap.servers: 'h:2' }}\n  primary:\n    bootstrap.servers: 'h:1'\n{lines}"
    );
    let variables: BTreeMap<String, String> = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    config::parse_with_environment(&text, "t.yaml", &variables)
        .map_err(|Problems(problems)| problems.iter().map(ToString::to_string).collect())
}

fn good(lines: &str) -> config::ClusterSection {
    let config = parse(lines, &[]).unwrap_or_else(|problems| panic!("{lines}: {problems:?}"));
    config.clusters["primary"].clone()
}

const LOGIN: &str = "sasl.username: u\nsasl.password: p";
const TOKENS: &str = "sasl.mechanism: OAUTHBEARER
    sasl.oauthbearer.method: oidc
    sasl.oauthbearer.client.id: c
    sasl.oauthbearer.client.secret: s
    sasl.oauthbearer.token.endpoint.url: https://h/t";

#[test]
fn what_works_is_resolved() {
    let plaintext = good("");
    assert_eq!(plaintext.security.protocol(), "PLAINTEXT");
    assert_eq!(plaintext.notes, []);
    let tls = good(
        "security.protocol: ssl
        ssl.ca.location: /ca
        ssl.certificate.location: /crt
        ssl.key.location: /key",
    );
    assert_eq!(tls.security.protocol(), "SSL");
    assert_eq!(tls.notes, []);
    let tls = tls.security.tls.expect("TLS");
    assert_eq!(tls.check, TlsCheck::ChainAndHost);
    assert_eq!(tls.ca, Some(Pem::File("/ca".into())));
    let identity = tls.identity.expect("a certificate");
    assert_eq!(identity.certificate, Pem::File("/crt".into()));
    assert_eq!(identity.key, Pem::File("/key".into()));
    for key in ["sasl.mechanism", "sasl.mechanisms"] {
        let section = good(&format!(
            "security.protocol: SASL_SSL\n{key}: SCRAM-SHA-512\n{LOGIN}"
        ));
        assert_eq!(section.security.protocol(), "SASL_SSL");
        let sasl = section.security.sasl.expect("SASL");
        assert_eq!(sasl.mechanism(), "SCRAM-SHA-512");
        assert_eq!(
            section.properties.get("sasl.mechanism"),
            Some("SCRAM-SHA-512")
        );
    }
    let section = good(&format!("security.protocol: SASL_SSL\n{TOKENS}"));
    let Some(SaslSection::Oidc(oidc)) = section.security.sasl else {
        panic!("tokens")
    };
    assert_eq!(
        (oidc.token_urls, oidc.scope),
        (vec!["https://h/t".to_owned()], None)
    );
    // Tokens come from us: librdkafka must not look for them itself.
    assert_eq!(section.properties.get("sasl.oauthbearer.method"), None);
}

#[test]
fn what_can_not_work_has_a_reason_and_a_place() {
    let pem = "'-----BEGIN CERTIFICATE-----'";
    let tokens = |without: &str, more: &str| {
        let lines: Vec<&str> = TOKENS
            .lines()
            .filter(|line| !line.contains(without))
            .collect();
        format!("security.protocol: SASL_SSL\n{}\n{more}", lines.join("\n"))
    };
    for (lines, expected) in [
        ("security.protocol: TLS".to_owned(), "5:24: security.protocol: unknown value `TLS`; expected `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`"),
        ("ssl.ca.location: /ca".to_owned(), "5:22: ssl.ca.location: has no effect with `PLAINTEXT`"),
        ("enable.ssl.certificate.verification: false".to_owned(), "5:42: enable.ssl.certificate.verification: has no effect"),
        ("security.protocol: SSL\nsasl.mechanism: PLAIN".to_owned(), "6:21: sasl.mechanism: has no effect with `SSL`; set `security.protocol` to `SASL_SSL`"),
        ("security.protocol: SASL_PLAINTEXT\nsasl.mechanism: PLAIN\nsasl.username: u\nsasl.password: p\nssl.key.password: x".to_owned(), "9:23: ssl.key.password: has no effect with `SASL_PLAINTEXT`"),
        ("security.protocol: SSL\nssl.certificate.location: /c".to_owned(), "6:31: ssl.certificate.location: needs its key"),
        (format!("security.protocol: SSL\nssl.certificate.pem: {pem}"), "6:26: ssl.certificate.pem: needs its key"),
        ("security.protocol: SSL\nssl.key.location: /k".to_owned(), "6:23: ssl.key.location: needs its certificate"),
        ("security.protocol: SSL\nssl.key.password: x".to_owned(), "6:23: ssl.key.password: is for a key, and none is given"),
        (format!("security.protocol: SSL\nssl.ca.location: /c\nssl.ca.pem: {pem}"), "7:17: ssl.ca.pem: `ssl.ca.location` is given too"),
        ("security.protocol: SSL\nssl.ca.pem: /etc/ca.crt".to_owned(), "6:17: ssl.ca.pem: is not PEM"),
        ("security.protocol: SSL\nssl.endpoint.identification.algorithm: HTTPS".to_owned(), "expected `https` or `none`"),
        ("security.protocol: SSL\nenable.ssl.certificate.verification: 1".to_owned(), "expected `true` or `false`"),
        (format!("security.protocol: SASL_SSL\n{LOGIN}"), "3:3: clusters.primary.sasl.mechanism: missing; for example"),
        (format!("security.protocol: SASL_SSL\nsasl.mechanism: scram\n{LOGIN}"), "unknown value `scram`; expected `PLAIN`, `SCRAM-SHA-256`"),
        (format!("security.protocol: SASL_SSL\nsasl.mechanism: PLAIN\nsasl.mechanisms: PLAIN\n{LOGIN}"), "7:22: sasl.mechanisms: is the same as `sasl.mechanism`"),
        ("security.protocol: SASL_SSL\nsasl.mechanism: PLAIN\nsasl.password: p".to_owned(), "sasl.username: missing"),
        ("security.protocol: SASL_SSL\nsasl.mechanism: SCRAM-SHA-256\nsasl.username: u".to_owned(), "sasl.password: missing; for example `sasl.password: ${NAME"),
        (format!("security.protocol: SASL_SSL\nsasl.mechanism: PLAIN\n{LOGIN}\nsasl.oauthbearer.scope: x"), "9:29: sasl.oauthbearer.scope: has no effect with `PLAIN`"),
        (format!("security.protocol: SASL_SSL\nsasl.mechanism: GSSAPI\n{LOGIN}"), "`GSSAPI`: librdkafka can do Kerberos, Twinlog's own client can't"),
        (format!("security.protocol: SASL_SSL\nsasl.mechanism: AWS_MSK_IAM\n{LOGIN}"), "`AWS_MSK_IAM`: Twinlog's own client could do it, librdkafka can't"),
        (tokens("none", "sasl.username: u"), "sasl.username: has no effect with `OAUTHBEARER`"),
        (tokens("method", "sasl.oauthbearer.method: default"), "use `oidc`"),
        (tokens("method", ""), "sasl.oauthbearer.method: missing"),
        (tokens("client.id", ""), "sasl.oauthbearer.client.id: missing"),
        (tokens("client.secret", ""), "sasl.oauthbearer.client.secret: missing"),
        (tokens("url", ""), "sasl.oauthbearer.token.endpoint.url: missing"),
        (tokens("url", "sasl.oauthbearer.token.endpoint.url: ftp://h"), "`ftp://h` is not a URL"),
        (tokens("url", "sasl.oauthbearer.token.endpoint.url: https://u:p@h/t"), "sasl.oauthbearer.token.endpoint.url: has a user or a password in it"),
        (tokens("none", "sasl.oauthbearer.extensions: a=b"), "sasl.oauthbearer.extensions: Twinlog's own client can send extensions"),
        (tokens("none", "sasl.oauthbearer.config: a=b"), "librdkafka can make unsigned tokens"),
        ("security.protocol: SSL\nssl.keystore.location: /k.p12".to_owned(), "6:5: clusters.primary.ssl.keystore.location: librdkafka can read a key store, Twinlog's own client can't"),
        ("security.protocol: SSL\nssl.truststore.password: x".to_owned(), "is a property of the Java client"),
        ("security.protocol: SSL\nssl.cipher.suites: x".to_owned(), "librdkafka can hand this to OpenSSL"),
        ("security.protocol: SSL\nssl.engine.id: x".to_owned(), "librdkafka can hand this to OpenSSL"),
        ("sasl.kerberos.keytab: x".to_owned(), "librdkafka can do Kerberos"),
        ("sasl.pasword: x".to_owned(), "unknown key; did you mean `sasl.password`?"),
    ] {
        let found = parse(&lines, &[]).expect_err(&lines);
        assert_eq!(found.len(), 1, "{lines}: {found:?}");
        let found = found[0].replace("t.yaml:", "");
        let short = found.replace("clusters.primary.", "");
        assert!(found.contains(expected) || short.contains(expected), "{lines}: {found}");
    }
}

#[test]
fn what_is_unwise_is_noted() {
    let login = |protocol: &str, mechanism: &str| {
        format!(
            "security.protocol: {protocol}\nsasl.mechanism: {mechanism}\nsasl.username: u\nsasl.password: ${{P}}"
        )
    };
    let url = TOKENS
        .replace("https:", "http:")
        .replace("secret: s", "secret: ${P}");
    let tokens = format!("security.protocol: SASL_SSL\n{url}");
    for (lines, expected) in [
        (login("SASL_SSL", "PLAIN"), None),
        (login("SASL_PLAINTEXT", "SCRAM-SHA-256"), None),
        (
            login("SASL_PLAINTEXT", "PLAIN"),
            Some("the password travels unencrypted"),
        ),
        (tokens, Some("the client secret travels unencrypted")),
        (
            "security.protocol: SSL\nssl.endpoint.identification.algorithm: none".to_owned(),
            Some("accepted for any host"),
        ),
        (
            "security.protocol: SSL\nenable.ssl.certificate.verification: false".to_owned(),
            Some("not checked"),
        ),
        (
            format!("security.protocol: SASL_SSL\nsasl.mechanism: PLAIN\n{LOGIN}"),
            Some("sasl.password stands in the config file itself"),
        ),
    ] {
        let config = parse(&lines, &[("P", "x")]).unwrap_or_else(|found| panic!("{found:?}"));
        let notes = &config.clusters["primary"].notes;
        assert_eq!(
            notes.len(),
            usize::from(expected.is_some()),
            "{lines}: {notes:?}"
        );
        if let Some(expected) = expected {
            assert!(notes[0].message.contains(expected), "{notes:?}");
            assert!(!notes[0].hint.is_empty());
        }
    }
}

#[test]
fn secrets_come_from_variables_and_files() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    let from_file = format!(
        "security.protocol: SASL_SSL\nsasl.mechanism: PLAIN\nsasl.username: u\nsasl.password: file:{}",
        file.display()
    );
    let password = |config: &Config| {
        let sasl = config.clusters["primary"].security.sasl.clone();
        let Some(SaslSection::Password { password, .. }) = sasl else {
            panic!("a password")
        };
        let mut exposed = config.clusters["primary"].properties.expose();
        let given = exposed
            .find(|(key, _)| key == "sasl.password")
            .expect("given");
        assert_eq!(given.1, password.expose());
        password.expose().to_owned()
    };
    for (text, expected) in [
        ("a b\n", "a b"),
        ("a\r\n", "a"),
        ("a", "a"),
        ("a\n\n", "a\n"),
    ] {
        std::fs::write(&file, text).unwrap();
        let config = parse(&from_file, &[]).unwrap_or_else(|found| panic!("{found:?}"));
        assert_eq!(password(&config), expected);
        assert_eq!(config.clusters["primary"].notes, []);
    }
    std::fs::write(&file, "\n").unwrap();
    let found = parse(&from_file, &[]).expect_err("nothing in it");
    assert!(found[0].ends_with("password` is empty"), "{found:?}");
    std::fs::remove_file(&file).unwrap();
    let found = parse(&from_file, &[]).expect_err("no file");
    assert!(
        found[0].starts_with("t.yaml:8:20: clusters.primary.sasl.password: cannot read `"),
        "{found:?}"
    );

    let lines = "security.protocol: SASL_SSL\nsasl.mechanism: PLAIN\nsasl.username: u";
    let variable = [("TWINLOG__CLUSTERS__PRIMARY__SASL_PASSWORD", "from outside")];
    let config = parse(lines, &variable).unwrap_or_else(|found| panic!("{found:?}"));
    assert_eq!(password(&config), "from outside");
    assert_eq!(config.clusters["primary"].notes, []);
    let with = format!("{lines}\nsasl.password: '${{A}}-${{B}}'");
    let config =
        parse(&with, &[("A", "1"), ("B", "2")]).unwrap_or_else(|found| panic!("{found:?}"));
    assert_eq!(password(&config), "1-2");
}

/// Every secret is `hush`: neither the config nor any problem may show one.
#[test]
fn secrets_are_never_shown() {
    let key = "\"-----BEGIN PRIVATE KEY-----hush\"";
    let crt = "\"-----BEGIN CERTIFICATE-----\"";
    for lines in [
        format!(
            "security.protocol: SSL\nssl.certificate.pem: {crt}\nssl.key.pem: {key}\nssl.key.password: hush"
        ),
        "security.protocol: SASL_SSL\nsasl.mechanism: PLAIN\nsasl.username: u\nsasl.password: hush"
            .to_owned(),
        format!(
            "security.protocol: SASL_SSL\n{}",
            TOKENS.replace("secret: s", "secret: hush")
        ),
    ] {
        let config = parse(&lines, &[]).unwrap_or_else(|found| panic!("{found:?}"));
        let shown = format!("{config:?} {config:#?}");
        assert!(shown.contains("[redacted]"), "{lines}");
        assert!(!shown.contains("hush"), "{shown}");
        let access = twinlog::connect::Access::new(&config.clusters["primary"]);
        let clients = format!(
            "{access:?} {:?} {:?}",
            access.cluster(),
            access.cluster().config()
        );
        assert!(!clients.contains("hush"), "{clients}");
        assert!(
            access.cluster().config().security.tls.is_some(),
            "{clients}"
        );
    }
    for lines in [
        "sasl.password: hush",
        "security.protocol: SSL\nssl.key.pem: hush\nssl.key.password: hush",
        "security.protocol: SASL_SSL\nsasl.mechanism: PLAIN\nsasl.username: u\nsasl.password: \"hush\\0\"",
        "security.protocol: SASL_SSL\nsasl.mechanism: GSSAPI\nsasl.password: hush",
        "sasl.pasword: hush",
    ] {
        let found = parse(lines, &[]).expect_err(lines).join("\n");
        assert!(!found.contains("hush"), "{found}");
    }
}
