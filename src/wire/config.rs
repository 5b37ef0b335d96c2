//! What a connection to one cluster needs to know.

use std::sync::Arc;
use std::time::Duration;

use super::security::Security;
use super::transport::{Dial, Tcp};

/// How to reach a cluster and how patient to be with it.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// The user's name for the cluster, used in errors.
    pub name: String,
    /// First addresses to ask, `host:port`.
    pub bootstrap: Vec<String>,
    /// Sent with every request; shows up in the broker's request log and quotas.
    pub client_id: String,
    /// Our rack, for fetching from the nearest replica.
    pub client_rack: Option<String>,
    /// How long a request may take. After it the connection is closed.
    pub request_timeout: Duration,
    /// How long resolving and connecting may take together.
    pub connect_timeout: Duration,
    /// Shortest wait after a failed connect.
    pub backoff_min: Duration,
    /// Longest wait after failed connects.
    pub backoff_max: Duration,
    /// How connections are made.
    pub dial: Arc<dyn Dial>,
    /// TLS and authentication.
    pub security: Security,
    /// Why nothing can be asked there: a secret is missing. Nothing is sent, and a connection that is taken is a refusal.
    pub lacks: Option<String>,
}

impl ClusterConfig {
    /// Defaults: 30 s per request, 5 s to connect, reconnects after 50 ms to 1 s.
    pub fn new(name: impl Into<String>, bootstrap: Vec<String>) -> Self {
        Self {
            name: name.into(),
            bootstrap,
            client_id: "twinlog".to_owned(),
            client_rack: None,
            request_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(1),
            dial: Arc::new(Tcp::default()),
            security: Security::default(),
            lacks: None,
        }
    }
}
