//! A cluster section: how to reach one Kafka cluster, by librdkafka's property names.

use std::time::Duration;

use super::reader::{Reader, Table};
use super::secret::Properties;
use super::security::{Note, SaslSection, SecuritySection};
use super::tree::{Node, Place};
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

pub(super) fn read(reader: &mut Reader, name: &str, table: &Table) -> ClusterSection {
    let bootstrap = reader
        .required(
            table,
            "bootstrap.servers",
            "\"127.0.0.1:9092\"",
            values::bootstrap,
        )
        .unwrap_or_default();
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
        notes: secure.notes,
        properties,
        environment: Environment::default(),
    }
}
