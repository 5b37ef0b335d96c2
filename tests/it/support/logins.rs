//! How clients get into secured clusters, found by the address that they connect to.
//!
//! A test names a cluster by its bootstrap address and nothing else. Whoever makes a client for
//! that address looks here what else it needs; for a plaintext cluster that is nothing. So the
//! same test runs on both.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::ClientConfig;
use serde::{Deserialize, Serialize};

/// How one principal gets into a cluster: properties by librdkafka's names.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login(BTreeMap<Cow<'static, str>, String>);

/// Values are secrets, some of them.
impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Login").field(&self.0.keys()).finish()
    }
}

impl Login {
    /// A user with a password, over TLS. `mechanism` is `PLAIN` or one of SCRAM.
    pub fn password(mechanism: &str, user: &str, password: &str, ca: &Path) -> Self {
        Self::default()
            .with("security.protocol", "SASL_SSL")
            .with("sasl.mechanism", mechanism)
            .with("sasl.username", user)
            .with("sasl.password", password)
            .with("ssl.ca.location", ca.display())
    }

    /// A client's certificate, over TLS without SASL.
    pub fn certificate(certificate: &Path, key: &Path, ca: &Path) -> Self {
        Self::default()
            .with("security.protocol", "SSL")
            .with("ssl.certificate.location", certificate.display())
            .with("ssl.key.location", key.display())
            .with("ssl.ca.location", ca.display())
    }

    /// The same with one property set or replaced.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl ToString) -> Self {
        self.0.insert(key.into(), value.to_string());
        self
    }

    /// The same without one property.
    #[must_use]
    pub fn without(mut self, key: &str) -> Self {
        self.0.remove(key);
        self
    }

    /// One property.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Sets the properties of an rdkafka client.
    pub fn apply(&self, config: &mut ClientConfig) {
        for (key, value) in &self.0 {
            config.set(key.as_ref(), value);
        }
    }

    /// More keys of a cluster section in Twinlog's config, in the flow style: `, key: "value"` each.
    pub fn yaml(&self) -> String {
        let pairs = self.0.iter();
        // A JSON string is a YAML string in double quotes.
        pairs
            .map(|(key, value)| format!(", {key}: {}", serde_json::json!(value)))
            .collect()
    }

    /// Properties of Java's clients, for a properties file.
    pub fn java(&self) -> String {
        let get = |key| self.get(key).unwrap_or_default();
        let mut lines = vec![format!("security.protocol={}", get("security.protocol"))];
        if let Some(ca) = self.get("ssl.ca.location") {
            lines.push("ssl.truststore.type=PEM".into());
            lines.push(format!("ssl.truststore.location={ca}"));
        }
        if let Some(key) = self.get("ssl.key.location") {
            lines.push("ssl.keystore.type=PEM".into());
            // What `certificates` writes beside the key: both in one file.
            let both = Path::new(key).with_extension("pem");
            lines.push(format!("ssl.keystore.location={}", both.display()));
        }
        if let Some(mechanism) = self.get("sasl.mechanism") {
            let module = match mechanism {
                "PLAIN" => "plain.PlainLoginModule",
                _ => "scram.ScramLoginModule",
            };
            let (user, password) = (get("sasl.username"), get("sasl.password"));
            lines.push(format!("sasl.mechanism={mechanism}"));
            lines.push(format!(
                "sasl.jaas.config=org.apache.kafka.common.security.{module} required \
                 username=\"{user}\" password=\"{password}\";"
            ));
        }
        lines.join("\n") + "\n"
    }
}

/// What is known of one address of a secured cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Where the same cluster takes anybody for a super user: its brokers' own listener.
    pub internal: String,
    /// For the clients of tests.
    pub clients: Login,
    /// For Twinlog.
    pub twinlog: Login,
    /// [`Entry::clients`] in a file for Java's clients.
    pub java: PathBuf,
    /// For whoever has been made a user besides.
    pub users: BTreeMap<String, Login>,
}

/// By address, one `host:port` each.
static KNOWN: Mutex<BTreeMap<String, Entry>> = Mutex::new(BTreeMap::new());

fn known() -> MutexGuard<'static, BTreeMap<String, Entry>> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes how to get in by an address.
pub fn register(address: &str, entry: Entry) {
    known().insert(address.to_owned(), entry);
}

/// The cluster is gone; the next one on that port may be another.
pub fn forget(address: &str) {
    known().remove(address);
}

/// Notes another user of the cluster.
pub fn add_user(bootstrap: &str, user: &str, login: &Login) {
    for address in bootstrap.split(',') {
        if let Some(entry) = known().get_mut(address) {
            entry.users.insert(user.to_owned(), login.clone());
        }
    }
}

/// What is known of a bootstrap list; `None` for a plaintext cluster.
pub fn find(bootstrap: &str) -> Option<Entry> {
    let first = bootstrap.split(',').next()?;
    known().get(first).cloned()
}

/// Where a cluster answers anybody in plaintext, for what a test does to it as its operator.
pub fn internal(bootstrap: &str) -> String {
    find(bootstrap).map_or_else(|| bootstrap.to_owned(), |entry| entry.internal)
}

/// How a named user gets in.
///
/// # Panics
/// When the cluster isn't a secured one or has no such user.
pub fn user(bootstrap: &str, user: &str) -> Login {
    let entry = find(bootstrap).unwrap_or_else(|| panic!("{bootstrap} is not secured"));
    let login = entry.users.get(user);
    login
        .unwrap_or_else(|| panic!("{user} was not made a user of {bootstrap}"))
        .clone()
}

/// More keys of the cluster's section in Twinlog's config; nothing for a plaintext cluster.
pub fn yaml(bootstrap: &str) -> String {
    find(bootstrap).map_or_else(String::new, |entry| entry.twinlog.yaml())
}

/// The argument for `java` that tells the programs in `tests/java` how to get in.
pub fn java_argument(bootstrap: &str) -> Option<String> {
    find(bootstrap).map(|entry| format!("-Dclient.properties={}", entry.java.display()))
}
