//! A cluster section: how to reach one Kafka cluster, by librdkafka's property names.

use std::time::Duration;

use super::reader::{Reader, Table};
use super::secret::Properties;
use super::security::{Note, SaslSection, SecuritySection};
use super::tree::{Kind, Node, Place};
use super::{refused, secure, values};
use crate::environment::Environment;

/// How to reach a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSection {
    /// The name that the config gives it.
    pub name: String,
    /// `bootstrap.servers`: `host:port` each, at least one.
    pub bootstrap: Vec<String>,
    /// `client.id`, seen in broker logs and quotas. Default `twinlog`.
    pub client_id: String,
    /// `client.rack`: fetch from a replica in this rack (KIP-392). Empty, the default: the leader.
    pub client_rack: Option<String>,
    /// `request.timeout.ms`: how long an answer may take. Default 30 s.
    pub request_timeout: Duration,
    /// `socket.connection.setup.timeout.ms`: how long connecting may take. Default 10 s.
    pub connect_timeout: Duration,
    /// How connections are secured.
    pub security: SecuritySection,
    /// What of the section can't be had, and why, where the cluster isn't needed. It is connected to all the same, to see
    /// whether anybody is there.
    pub lacks: Option<String>,
    /// What works, but somebody should know; `check` shows it.
    pub notes: Vec<Note>,
    /// The section for an rdkafka client of any kind: every property with its resolved value.
    ///
    /// `request.timeout.ms` is given as `socket.timeout.ms`: in librdkafka that is the timeout of
    /// every request, and the other a producer's only. `sasl.oauthbearer.*` isn't in it: Twinlog
    /// gets the tokens for both clients.
    pub properties: Properties,
    /// Where a process with this section runs; nothing that is written.
    pub environment: Environment,
}

impl ClusterSection {
    /// Whom brokers with the default rules take a client with this section for: `User:` and the
    /// SASL user name, `User:ANONYMOUS` without TLS and SASL; `None` where a certificate or a token
    /// decides.
    pub fn principal(&self) -> Option<String> {
        match (&self.security.tls, &self.security.sasl) {
            (_, Some(SaslSection::Password { username, .. })) => Some(format!("User:{username}")),
            (None, None) => Some("User:ANONYMOUS".to_owned()),
            (_, Some(SaslSection::Oidc(_))) | (Some(_), None) => None,
        }
    }
}

/// The properties that are known, in the order of the reference.
pub(super) const KEYS: [&str; 25] = [
    "bootstrap.servers",
    "client.id",
    "client.rack",
    "request.timeout.ms",
    "socket.connection.setup.timeout.ms",
    "security.protocol",
    "ssl.ca.location",
    "ssl.ca.pem",
    "ssl.certificate.location",
    "ssl.certificate.pem",
    "ssl.key.location",
    "ssl.key.pem",
    "ssl.key.password",
    "ssl.endpoint.identification.algorithm",
    "enable.ssl.certificate.verification",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.username",
    "sasl.password",
    "sasl.oauthbearer.method",
    "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.token.endpoint.url",
    "sasl.oauthbearer.scope",
    "https.ca.location",
];

const CLIENT_ID: &str = "twinlog";
const REQUEST_TIMEOUT_MS: u64 = 30_000;
const CONNECT_TIMEOUT_MS: u64 = 10_000;
/// librdkafka's lower bound of the connection setup timeout, and more than its default
/// `fetch.wait.max.ms` plus the second that it demands for `socket.timeout.ms`.
const REQUEST_TIMEOUT_MS_MIN: u64 = 2_000;
const CONNECT_TIMEOUT_MS_MIN: u64 = 1_000;
/// librdkafka's upper bound of both.
const TIMEOUT_MS_MAX: u64 = 300_000;

/// The section as a table. Keys that only one of the clients could follow are refused with the
/// reason, others that aren't known are reported as such.
pub(super) fn table<'n>(
    reader: &mut Reader,
    node: &'n Node,
    place: &Place,
    path: &str,
) -> Table<'n> {
    let table = reader.table(Some(node), place, path);
    reader.unknown_keys(&table, &KEYS, |key| refused::key(key).is_some());
    for (key, place, _) in table.fields() {
        if let Some(why) = refused::key(key) {
            reader.problem(place, &table.path_of(key), why);
        }
    }
    table
}

/// Where to begin. A list is what YAML users write first; librdkafka's key is one value.
fn bootstrap(reader: &mut Reader, table: &Table) -> Vec<String> {
    const KEY: &str = "bootstrap.servers";
    if let Some(node) = table.get(KEY)
        && matches!(node.kind, Kind::List(_))
    {
        let message = "expected a single value, found a list; several addresses are one value with commas: \
                       `\"kafka-1:9092,kafka-2:9092\"`";
        reader.problem(&node.place, &table.path_of(KEY), message);
        return Vec::new();
    }
    let servers = reader.required(table, KEY, "\"127.0.0.1:9092\"", values::bootstrap);
    servers.unwrap_or_default()
}

pub(super) fn read(reader: &mut Reader, name: &str, table: &Table) -> ClusterSection {
    let (mut section, lacks) =
        reader.of_one_who_may_be_gone(|reader| read_values(reader, name, table));
    section.lacks = section.lacks.or(lacks);
    section
}

fn read_values(reader: &mut Reader, name: &str, table: &Table) -> ClusterSection {
    let bootstrap = bootstrap(reader, table);
    let client_id = reader
        .value(table, "client.id", |text| {
            if text.is_empty() {
                return Err("is empty; remove the key to get `twinlog`".to_owned());
            }
            Ok(text.to_owned())
        })
        .unwrap_or_else(|| CLIENT_ID.to_owned());
    let client_rack = reader
        .value(table, "client.rack", |text| Ok(text.to_owned()))
        .filter(|rack| !rack.is_empty());
    let request_timeout_ms = reader
        .value(table, "request.timeout.ms", |text| {
            values::number(text, REQUEST_TIMEOUT_MS_MIN, TIMEOUT_MS_MAX)
        })
        .unwrap_or(REQUEST_TIMEOUT_MS);
    let connect_timeout_ms = reader
        .value(table, "socket.connection.setup.timeout.ms", |text| {
            values::number(text, CONNECT_TIMEOUT_MS_MIN, TIMEOUT_MS_MAX)
        })
        .unwrap_or(CONNECT_TIMEOUT_MS);

    let mut properties = Properties::default();
    properties.set("bootstrap.servers", bootstrap.join(","));
    properties.set("client.id", client_id.as_str());
    properties.set("socket.timeout.ms", request_timeout_ms.to_string());
    properties.set(
        "socket.connection.setup.timeout.ms",
        connect_timeout_ms.to_string(),
    );
    if let Some(rack) = &client_rack {
        properties.set("client.rack", rack.as_str());
    }
    let secure = secure::read(reader, table, &mut properties);
    ClusterSection {
        name: name.to_owned(),
        bootstrap,
        client_id,
        client_rack,
        request_timeout: Duration::from_millis(request_timeout_ms),
        connect_timeout: Duration::from_millis(connect_timeout_ms),
        security: secure.security,
        lacks: secure.lacks,
        notes: secure.notes,
        properties,
        environment: Environment::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{reader, resolve, tree};
    use super::*;

    /// What makes a section of it in which the key has a meaning.
    fn beside(key: &str) -> Vec<(&'static str, &'static str)> {
        const CERTIFICATE: (&str, &str) = ("ssl.certificate.location", "/crt");
        const KEY: (&str, &str) = ("ssl.key.location", "/key");
        let mut beside = vec![("bootstrap.servers", "h:1")];
        let tls = ("security.protocol", "SSL");
        let sasl = ("security.protocol", "SASL_SSL");
        if key.starts_with("ssl.certificate") {
            beside.extend([tls, KEY]);
        } else if key == "ssl.key.password" {
            beside.extend([tls, CERTIFICATE, KEY]);
        } else if key.starts_with("ssl.key") {
            beside.extend([tls, CERTIFICATE]);
        } else if key.starts_with("ssl.") || key.starts_with("enable.ssl") {
            beside.push(tls);
        } else if key.starts_with("sasl.oauthbearer") || key.starts_with("https.") {
            beside.extend([
                sasl,
                ("sasl.mechanism", "OAUTHBEARER"),
                ("sasl.oauthbearer.method", "oidc"),
                ("sasl.oauthbearer.client.id", "c"),
                ("sasl.oauthbearer.client.secret", "s"),
                ("sasl.oauthbearer.token.endpoint.url", "https://h/t"),
            ]);
        } else if key.starts_with("sasl.") || key == "security.protocol" {
            beside.extend([sasl, ("sasl.username", "u"), ("sasl.password", "p")]);
            if key != "sasl.mechanisms" {
                beside.push(("sasl.mechanism", "PLAIN"));
            }
        }
        beside.retain(|(other, _)| *other != key);
        beside
    }

    /// The region is gone, and with it what told this key.
    #[test]
    fn whatever_of_a_section_can_not_be_had_is_told_and_no_problem_of_its_own() {
        for key in KEYS {
            for value in ["${GONE}", "x-${GONE}"] {
                let beside = beside(key);
                let lines = beside
                    .iter()
                    .map(|(key, value)| format!("    {key}: '{value}'\n"));
                let text = format!(
                    "clusters:\n  standby: {{ bootstrap.servers: 'h:2' }}\n  primary:\n    {key}: '{value}'\n{}",
                    lines.collect::<String>()
                );
                let environment = reader::Environment::new();
                let mut reader = Reader::new("t.yaml", &environment);
                let tree = tree::read(&text).unwrap_or_else(|_| panic!("{text}"));
                let config = resolve(&mut reader, &tree);
                assert!(reader.problems.is_empty(), "{key}: {:?}", reader.problems);
                let path = format!("clusters.primary.{key}");
                let told = &reader.missing_secrets;
                assert!(
                    told.iter()
                        .any(|it| it.path == path && it.message.contains("GONE")),
                    "{key}: {told:?}"
                );
                let lacks = config.clusters["primary"].lacks.as_deref();
                assert!(lacks.is_some_and(|it| it.contains(key)), "{key}: {lacks:?}");
                assert_eq!(config.clusters["standby"].lacks, None);
            }
        }
    }

    /// A mistake is one, whoever is gone.
    #[test]
    fn an_unknown_key_of_a_section_that_lacks_something_stays_a_problem() {
        let text = "clusters:\n  standby: { bootstrap.servers: 'h:2' }\n  \
                    primary: { bootstrap.servers: '${GONE}', client.idd: x }\n";
        let environment = reader::Environment::new();
        let mut reader = Reader::new("t.yaml", &environment);
        let tree = tree::read(text).unwrap_or_else(|_| panic!("{text}"));
        resolve(&mut reader, &tree);
        assert_eq!(reader.problems.len(), 1, "{:?}", reader.problems);
        assert!(reader.problems[0].path.ends_with("client.idd"));
    }
}
