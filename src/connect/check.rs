//! What `check` tells about the way into a cluster.

use std::time::{Duration, SystemTime};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use tokio::time::Instant;

use super::access::Access;
use super::certificates::Facts;
use crate::config::{ClusterSection, SaslSection};
use crate::telemetry::finding::{Finding, counted};
use crate::wire::Connection;

/// How long librdkafka may take, and how many ways there and back more.
const ANSWER: Duration = Duration::from_secs(10);
/// See [`ANSWER`]: with TLS and a login, to an address and then to a broker.
const ROUND_TRIPS: u32 = 40;
/// How long its answer is waited for at first: it is polled meanwhile, which brings tokens and errors. An answer that
/// comes later is thrown away, so each turn is longer than the one before.
const TURN: Duration = Duration::from_millis(200);

/// What somebody should know about a section, whether or not the cluster can be reached.
pub fn notes(section: &ClusterSection) -> Vec<Finding> {
    let subject = format!("cluster {}", section.name);
    let notes = section.notes.iter();
    notes
        .map(|note| Finding::warning(&subject, &note.message).with_hint(&note.hint))
        .collect()
}

/// Where a flow's target gets its tokens from the region of its source: with that gone nobody can log in to the standby.
pub fn shared_endpoints(source: &ClusterSection, target: &ClusterSection) -> Option<Finding> {
    let theirs: Vec<&str> = source.bootstrap.iter().map(|it| host_of(it)).collect();
    let givers = hosts_of_tokens(source);
    let ours = hosts_of_tokens(target);
    let is_shared = |host: &&str| givers.contains(host) || theirs.contains(host);
    if ours.is_empty() || !ours.iter().all(is_shared) {
        return None;
    }
    let (from, to) = (&source.name, &target.name);
    let message = format!(
        "its tokens come from {}, as those of cluster {from} or from a host of it: if that goes down with {from}, nobody \
         can log in to {to}",
        ours.join(", ")
    );
    let hint = "add the URL of a server elsewhere to sasl.oauthbearer.token.endpoint.url, behind a comma, if there is one";
    Some(Finding::warning(format!("cluster {to}"), message).with_hint(hint))
}

/// The hosts that are asked for a cluster's tokens.
fn hosts_of_tokens(section: &ClusterSection) -> Vec<&str> {
    let Some(SaslSection::Oidc(oidc)) = &section.security.sasl else {
        return Vec::new();
    };
    let mut hosts: Vec<&str> = oidc.token_urls.iter().map(|url| host_of(url)).collect();
    hosts.dedup();
    hosts
}

/// The host of a URL or of `host:port`.
fn host_of(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|it| it.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// How a cluster is reached, given a connection of ours to it, and whether librdkafka gets there
/// with the same section.
pub async fn check(access: &Access, connection: &Connection) -> Vec<Finding> {
    let section = access.section();
    let subject = format!("cluster {}", section.name);
    let mut findings = vec![Finding::ok(&subject, how(access, connection))];
    findings.extend(certificates(access, connection, &subject));
    let within = ANSWER + ROUND_TRIPS * connection.round_trip();
    findings.push(librdkafka(access, &subject, within).await);
    findings
}

fn how(access: &Access, connection: &Connection) -> String {
    let security = &access.section().security;
    let mut how = format!("connected by {}", security.protocol());
    if let Some(sasl) = &security.sasl {
        how.push_str(&format!(", {}", sasl.mechanism()));
    }
    if let Some(tls) = connection.tls() {
        how.push_str(&format!(", {}", tls.version));
    }
    how
}

/// The broker's certificate and ours.
fn certificates(access: &Access, connection: &Connection, subject: &str) -> Vec<Finding> {
    let now = SystemTime::now();
    let theirs = connection.tls().and_then(|tls| tls.certificate.as_deref());
    let ours = access.tls().and_then(|tls| tls.own_certificates().ok());
    let ours = ours.and_then(|ours| ours.into_iter().next());
    let both = [
        ("the broker's certificate", theirs, "renew it"),
        (
            "our certificate",
            ours.as_deref(),
            "put a new one in ssl.certificate.location; it is read without a restart",
        ),
    ];
    let facts = both.into_iter().filter_map(|(what, der, hint)| {
        let facts = Facts::of(der?, now)?;
        let message = format!("{what} ({}) {}", facts.subject, facts.end());
        Some(if facts.ends_soon() {
            Finding::warning(subject, message).with_hint(hint)
        } else {
            Finding::ok(subject, message)
        })
    });
    facts.collect()
}

async fn librdkafka(access: &Access, subject: &str, within: Duration) -> Finding {
    let access = access.clone();
    let asked = tokio::task::spawn_blocking(move || ask_librdkafka(&access, within)).await;
    match asked.unwrap_or_else(|error| Err(error.to_string())) {
        Ok(brokers) => Finding::ok(
            subject,
            format!("librdkafka connects in the same way and sees {}", counted(brokers, "broker")),
        ),
        Err(error) => Finding::error(subject, format!("librdkafka can't connect: {error}"))
            .with_hint("Twinlog's own client could: compare what the two trust (ssl.ca.*), and the broker's log"),
    }
}

fn ask_librdkafka(access: &Access, within: Duration) -> Result<usize, String> {
    let (mut config, context) = access.librdkafka();
    // A consumer is the smallest client; it needs a group that it never joins.
    config.set("group.id", "twinlog-check");
    let consumer: BaseConsumer<_> = config
        .create_with_context(context.clone())
        .map_err(|error| without_value(&error))?;
    let until = Instant::now() + within;
    let mut turn = TURN;
    loop {
        // Polling brings tokens and errors.
        let _ = consumer.poll(Duration::ZERO);
        match consumer.fetch_metadata(None, turn) {
            Ok(metadata) => return Ok(metadata.brokers().len()),
            Err(error) if Instant::now() > until => {
                return Err(context.last_error().unwrap_or_else(|| error.to_string()));
            }
            Err(_) => turn *= 2,
        }
    }
}

/// librdkafka's words for a property that it doesn't take have the value in them, which may be
/// secret.
fn without_value(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, reason, key, value) => {
            let reason = if value.is_empty() {
                reason.clone()
            } else {
                reason.replace(value, "...")
            };
            format!("it doesn't take {key}: {reason}")
        }
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::types::RDKafkaConfRes;

    use super::*;

    #[test]
    fn a_refused_property_is_named_without_its_value() {
        let error = KafkaError::ClientConfig(
            RDKafkaConfRes::RD_KAFKA_CONF_INVALID,
            "Invalid value \"pa55\" for it".to_owned(),
            "sasl.password".to_owned(),
            "pa55".to_owned(),
        );
        let text = without_value(&error);
        assert!(text.contains("sasl.password"), "{text}");
        assert!(!text.contains("pa55"), "{text}");
    }

    fn section(name: &str, bootstrap: &str, urls: &str) -> ClusterSection {
        let text = format!(
            "clusters:\n  {name}:\n    bootstrap.servers: '{bootstrap}'\n    security.protocol: SASL_SSL\n    \
             sasl.mechanism: OAUTHBEARER\n    sasl.oauthbearer.method: oidc\n    sasl.oauthbearer.client.id: c\n    \
             sasl.oauthbearer.client.secret: s\n    sasl.oauthbearer.token.endpoint.url: '{urls}'\n  \
             other: {{ bootstrap.servers: 'h:2' }}\nflows: {{ f: {{ source: {name}, target: other }} }}\n"
        );
        let config =
            crate::config::parse(&text, "t.yaml").unwrap_or_else(|error| panic!("{error}"));
        config.clusters[name].clone()
    }

    #[test]
    fn tokens_that_come_from_the_primary_s_region_alone_are_a_warning() {
        let primary = section("primary", "kafka-a:9092,kafka-b:9092", "https://id.a/t");
        for (urls, is_told) in [
            ("https://id.a/other", true),
            ("https://id.a:8443/t", true),
            ("https://kafka-b/t", true),
            ("https://id.b/t", false),
            ("https://id.a/t, https://id.b/t?scopes=x,y", false),
            ("https://id.a/t,https://kafka-a:1/t", true),
        ] {
            let standby = section("standby", "kafka-c:9092", urls);
            let found = shared_endpoints(&primary, &standby);
            assert_eq!(found.is_some(), is_told, "{urls}");
        }
    }
}
