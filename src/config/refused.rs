//! Properties and values that only one of our two clients can do. They are known, and refused with
//! the reason: a cluster section must mean the same to both.

/// Why a key is refused; `None` for one that isn't.
pub(super) fn key(key: &str) -> Option<String> {
    let (_, why) = KEYS
        .iter()
        .find(|(pattern, _)| match pattern.strip_suffix('*') {
            Some(start) => key.starts_with(start),
            None => key == *pattern,
        })?;
    Some((*why).to_owned())
}

const FILES: &str = "librdkafka can read a key store, Twinlog's own client can't; give PEM files with `ssl.certificate.location` and `ssl.key.location` (`openssl pkcs12 -in STORE` writes them)";
const JAVA: &str = "is a property of the Java client; the PEM files go to `ssl.ca.location`, `ssl.certificate.location` and `ssl.key.location`";
const OPENSSL: &str = "librdkafka can hand this to OpenSSL, Twinlog's own client (rustls) can't; remove it: TLS 1.2 and 1.3 with their usual ciphers are used";
const TOKENS: &str = "librdkafka can make unsigned tokens for tests, Twinlog's own client can't; use `sasl.oauthbearer.method: oidc`";
const GRANT: &str = "Twinlog gets tokens with client credentials only; use `sasl.oauthbearer.client.id` and `sasl.oauthbearer.client.secret`";
const KERBEROS: &str = "librdkafka can do Kerberos, Twinlog's own client can't; use SCRAM, OAUTHBEARER or a client certificate";

/// `*` at the end stands for anything.
const KEYS: [(&str, &str); 22] = [
    ("ssl.keystore.type", JAVA),
    ("ssl.keystore.*", FILES),
    ("ssl.truststore.*", JAVA),
    ("ssl.enabled.protocols", JAVA),
    ("ssl.engine.*", OPENSSL),
    ("ssl.providers", OPENSSL),
    ("ssl.cipher.suites", OPENSSL),
    ("ssl.curves.list", OPENSSL),
    ("ssl.sigalgs.list", OPENSSL),
    (
        "ssl.crl.location",
        "librdkafka can check a revocation list, Twinlog's own client doesn't; remove it",
    ),
    (
        "ssl.ca.certificate.stores",
        "is for librdkafka on Windows; use `ssl.ca.location`",
    ),
    ("sasl.kerberos.*", KERBEROS),
    (
        "sasl.jaas.config",
        "is a property of the Java client; use `sasl.username` and `sasl.password`",
    ),
    (
        "sasl.login.*",
        "is a property of the Java client; use `sasl.oauthbearer.*`",
    ),
    (
        "sasl.client.callback.handler.class",
        "is a property of the Java client; remove it",
    ),
    ("sasl.oauthbearer.config", TOKENS),
    ("enable.sasl.oauthbearer.unsecure.jwt", TOKENS),
    ("sasl.oauthbearer.grant.type", GRANT),
    ("sasl.oauthbearer.assertion.*", GRANT),
    ("sasl.oauthbearer.metadata.*", GRANT),
    (
        "sasl.oauthbearer.extensions",
        "Twinlog's own client can send extensions, its librdkafka client can't: the binding hands over the token only; use a listener that needs none",
    ),
    (
        "https.ca.pem",
        "put the certificates in a file and give `https.ca.location`",
    ),
];

/// Why a mechanism is refused; `None` for one that isn't known at all.
pub(super) fn mechanism(name: &str) -> Option<&'static str> {
    match name {
        "GSSAPI" => Some(KERBEROS),
        "AWS_MSK_IAM" => Some(
            "Twinlog's own client could do it, librdkafka can't; use SCRAM, which MSK offers too",
        ),
        "SCRAM-SHA-1" => Some("Kafka has no SCRAM-SHA-1; use SCRAM-SHA-256 or SCRAM-SHA-512"),
        _ => None,
    }
}
