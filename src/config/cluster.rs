//! A cluster section: how to reach one Kafka cluster, by librdkafka's property names.

use std::collections::BTreeMap;
use std::time::Duration;

use super::reader::{Reader, Table};
use super::values;

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
    /// The section for an rdkafka client of any kind: every property with its resolved value.
    ///
    /// `request.timeout.ms` is given as `socket.timeout.ms`: in librdkafka that is the timeout of
    /// every request, and the other a producer's only.
    pub properties: BTreeMap<String, String>,
}

impl ClusterSection {
    /// Whom brokers with the default rules take a client with this section for: `User:` and the
    /// SASL user name, `User:ANONYMOUS` without TLS and SASL; `None` where a certificate decides.
    pub fn principal(&self) -> Option<String> {
        Some("User:ANONYMOUS".to_owned())
    }
}

/// The properties that are known, in the order of the reference.
pub(super) const KEYS: [&str; 6] = [
    "bootstrap.servers",
    "client.id",
    "client.rack",
    "request.timeout.ms",
    "socket.connection.setup.timeout.ms",
    "security.protocol",
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
    reader.value(table, "security.protocol", security_protocol);

    let mut properties = BTreeMap::from([
        ("bootstrap.servers".to_owned(), bootstrap.join(",")),
        ("client.id".to_owned(), client_id.clone()),
        ("security.protocol".to_owned(), "PLAINTEXT".to_owned()),
        (
            "socket.timeout.ms".to_owned(),
            request_timeout_ms.to_string(),
        ),
        (
            "socket.connection.setup.timeout.ms".to_owned(),
            connect_timeout_ms.to_string(),
        ),
    ]);
    if let Some(rack) = &client_rack {
        properties.insert("client.rack".to_owned(), rack.clone());
    }
    ClusterSection {
        name: name.to_owned(),
        bootstrap,
        client_id,
        client_rack,
        request_timeout: Duration::from_millis(request_timeout_ms),
        connect_timeout: Duration::from_millis(connect_timeout_ms),
        properties,
    }
}

fn security_protocol(text: &str) -> Result<(), String> {
    match text.to_uppercase().as_str() {
        "PLAINTEXT" => Ok(()),
        "SSL" | "SASL_PLAINTEXT" | "SASL_SSL" => Err(format!(
            "`{text}`: TLS and SASL are not supported by this version; use `PLAINTEXT`"
        )),
        _ => Err(format!("unknown value `{text}`; expected `PLAINTEXT`")),
    }
}
