//! Real Kafka clusters (KRaft, combined broker and controller) on 127.0.0.1.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::class_archive;
use super::listeners::{self, Line};
use super::logins;
use super::ports::Port;
use super::process::{Process, tail};
use super::scratch;
use super::security::{Secured, Security};
use super::users;
use super::version::KafkaVersion;
use super::wait::eventually;

/// How long a cluster may take to answer; two cores may be busy with a build.
const START_DEADLINE: Duration = Duration::from_secs(240);

/// How a cluster is set up. `..Default::default()` is one plain node.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Nodes, each a broker and a controller: 1 or 3.
    pub nodes: usize,
    /// Broker properties that are added to ours or replace them.
    pub extra_properties: Vec<(String, String)>,
    /// Shown in folders and messages.
    pub name: String,
    /// Turns the standard authorizer on. Anonymous clients stay super users, because the
    /// brokers themselves are anonymous on a plaintext listener.
    pub authorizer: bool,
    /// Adds a listener to node 1 that is advertised as this address, where a proxy listens that
    /// forwards to [`Cluster::behind_proxy`].
    pub proxy: Option<String>,
    /// Adds such a listener to every node, advertised as the addresses of [`Cluster::lines`].
    pub proxied: bool,
    /// JVM arguments after ours; the last one counts.
    pub jvm_arguments: Vec<String>,
    /// More plaintext listeners of a one-node cluster.
    pub listeners: Vec<Listener>,
    /// TLS, SASL and the authorizer; [`Cluster::bootstrap`] is then the secured listener. `None`
    /// for what `TWINLOG_TEST_SECURITY` says, which counts where nothing here is about listeners
    /// or super users.
    pub security: Option<Security>,
}

/// One more listener, for clients that shall come by another way, such as through a proxy.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Its name: capital letters.
    pub name: String,
    /// Where the broker listens.
    pub address: String,
    /// What it tells clients to connect to.
    pub advertised: String,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            nodes: 1,
            extra_properties: Vec::new(),
            name: "kafka".into(),
            authorizer: false,
            proxy: None,
            proxied: false,
            jvm_arguments: Vec::new(),
            listeners: Vec::new(),
            security: None,
        }
    }
}

impl ClusterOptions {
    /// One plain node of this name.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }

    /// Adds a broker property.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.extra_properties.push((key.into(), value.to_string()));
        self
    }

    /// One secured node of this name.
    pub fn secured(name: &str, security: Security) -> Self {
        Self {
            security: Some(security),
            ..Self::named(name)
        }
    }

    /// How the cluster is secured, by these options or by the environment.
    fn security(&self) -> Option<Security> {
        let own_access = self.proxy.is_some()
            || self.proxied
            || !self.listeners.is_empty()
            || self
                .extra_properties
                .iter()
                .any(|(key, _)| key.starts_with("listener") || key == "super.users");
        match &self.security {
            None if !own_access => Security::from_environment(&self.name),
            given => given.clone(),
        }
    }
}

/// A running cluster. Dropping it kills its nodes and removes its folder.
#[derive(Debug)]
pub struct Cluster {
    version: KafkaVersion,
    name: String,
    folder: PathBuf,
    jvm_arguments: Vec<String>,
    nodes: Vec<Node>,
    secured: Option<Secured>,
}

/// One node: its ports and folder outlive its process, so that it can be restarted.
#[derive(Debug)]
struct Node {
    broker: Port,
    controller: Port,
    behind_proxy: Port,
    /// Where the node's own proxy listens.
    proxy: Port,
    /// Of a secured cluster: the brokers' own listener.
    internal: Port,
    /// Of a secured cluster: for clients with certificates.
    certificates: Port,
    folder: PathBuf,
    process: Option<Process>,
}

impl Cluster {
    /// Starts a cluster and waits until every node answers.
    ///
    /// # Panics
    /// When it does not answer in time; the message ends with the broker's log.
    pub fn start(version: KafkaVersion, options: ClusterOptions) -> Self {
        let mut cluster = Self::launch(version, options);
        cluster.await_ready();
        cluster
    }

    /// Starts the processes without waiting for them.
    pub fn launch(version: KafkaVersion, options: ClusterOptions) -> Self {
        let folder = scratch::folder(&options.name);
        let nodes: Vec<Node> = (1..=options.nodes)
            .map(|id| Node {
                broker: Port::reserve(),
                controller: Port::reserve(),
                behind_proxy: Port::reserve(),
                proxy: Port::reserve(),
                internal: Port::reserve(),
                certificates: Port::reserve(),
                folder: folder.join(format!("node-{id}")),
                process: None,
            })
            .collect();
        let cluster_id = random_id();
        let security = options.security();
        let secured = security.map(|security| Secured::prepare(security, &folder));
        for (index, node) in nodes.iter().enumerate() {
            let properties = properties(&options, secured.as_ref(), &nodes, index);
            std::fs::create_dir_all(&node.folder).expect("our folder is writable");
            std::fs::write(node.folder.join("server.properties"), properties)
                .expect("our folder is writable");
            format_storage(version, node, index + 1, &cluster_id);
        }
        let mut cluster = Self {
            version,
            name: options.name,
            folder,
            jvm_arguments: options.jvm_arguments,
            nodes,
            secured,
        };
        cluster.register_logins();
        for id in 1..=cluster.nodes.len() {
            cluster.launch_node(id);
        }
        cluster
    }

    /// Addresses of all nodes, for `bootstrap.servers`. Of a secured cluster: of its SASL listener.
    pub fn bootstrap(&self) -> String {
        self.addresses(|node| &node.broker)
    }

    /// Where anybody is a super user without TLS and SASL: the brokers' own listener of a secured
    /// cluster, [`Self::bootstrap`] of any other.
    pub fn internal_bootstrap(&self) -> String {
        match self.secured {
            Some(_) => self.addresses(|node| &node.internal),
            None => self.bootstrap(),
        }
    }

    /// The listener for clients with certificates, see [`Security::client_certificates`].
    ///
    /// # Panics
    /// When the cluster has none.
    pub fn certificate_bootstrap(&self) -> String {
        let secured = self.secured.as_ref();
        assert!(
            secured.is_some_and(Secured::takes_certificates),
            "{} takes no certificates",
            self.name
        );
        self.addresses(|node| &node.certificates)
    }

    /// The certificate of a secured cluster's authority.
    ///
    /// # Panics
    /// When the cluster isn't secured.
    pub fn ca(&self) -> &Path {
        self.secured.as_ref().expect("a secured cluster").ca()
    }

    fn addresses(&self, port: impl Fn(&Node) -> &Port) -> String {
        let addresses: Vec<String> = self.nodes.iter().map(|node| port(node).address()).collect();
        addresses.join(",")
    }

    /// Lets clients find how to get in by any of our addresses.
    fn register_logins(&self) {
        let Some(secured) = &self.secured else { return };
        let internal = self.internal_bootstrap();
        let (entry, certificate_entry) = (
            secured.entry(internal.clone()),
            secured.certificate_entry(internal),
        );
        for node in &self.nodes {
            logins::register(&node.broker.address(), entry.clone());
            logins::register(&node.certificates.address(), certificate_entry.clone());
        }
    }

    /// The address of node `id` (from 1).
    pub fn node_address(&self, id: usize) -> String {
        self.nodes[id - 1].broker.address()
    }

    /// Where node 1 listens for what comes through the proxy of [`ClusterOptions::proxy`].
    pub fn behind_proxy(&self) -> String {
        self.nodes[0].behind_proxy.address()
    }

    /// Of each node of a cluster with [`ClusterOptions::proxied`]: where its proxy must listen, and
    /// where it must forward to.
    pub fn lines(&self) -> Vec<(String, String)> {
        let line = |node: &Node| (node.proxy.address(), node.behind_proxy.address());
        self.nodes.iter().map(line).collect()
    }

    /// Addresses of all nodes' proxies, for `bootstrap.servers`.
    pub fn proxied_bootstrap(&self) -> String {
        self.addresses(|node| &node.proxy)
    }

    /// The process id of node `id` (from 1).
    ///
    /// # Panics
    /// When it does not run.
    #[allow(dead_code, reason = "the benchmarks use it")]
    pub fn process_id(&self, id: usize) -> u32 {
        let process = self.nodes[id - 1].process.as_ref();
        process.expect("the node is running").id()
    }

    /// The data folder of node `id` (from 1), to damage it in tests.
    pub fn data_folder(&self, id: usize) -> PathBuf {
        self.nodes[id - 1].folder.join("data")
    }

    /// The log of node `id` (from 1).
    pub fn log(&self, id: usize) -> PathBuf {
        self.nodes[id - 1].folder.join("broker.log")
    }

    /// Whether no node has ended by itself.
    pub fn runs(&mut self) -> bool {
        let mut processes = self
            .nodes
            .iter_mut()
            .filter_map(|node| node.process.as_mut());
        processes.all(|process| process.ended().is_none())
    }

    /// Stops node `id` (from 1) in an orderly way: SIGTERM.
    pub fn stop(&mut self, id: usize) {
        if let Some(mut process) = self.nodes[id - 1].process.take() {
            // A lone controller cannot hand over and may hang; the kill at the deadline is fine.
            let _ = process.terminate(Duration::from_secs(30));
        }
    }

    /// Kills node `id` (from 1): SIGKILL.
    pub fn kill(&mut self, id: usize) {
        self.nodes[id - 1].process = None;
    }

    /// Sends node `id` (from 1) a signal by name: `STOP` freezes it, `CONT` thaws it.
    pub fn signal(&mut self, id: usize, name: &str) {
        if let Some(process) = &mut self.nodes[id - 1].process {
            process.signal(name);
        }
    }

    /// Starts node `id` (from 1) on the same ports and data, and waits until it answers.
    pub fn restart(&mut self, id: usize) {
        self.relaunch(id);
        self.await_ready();
    }

    /// The same without waiting for it.
    pub fn relaunch(&mut self, id: usize) {
        self.kill(id);
        self.launch_node(id);
    }

    /// Waits until every node that runs answers and knows the others.
    pub fn await_ready(&mut self) {
        let deadline = Instant::now() + START_DEADLINE;
        let running = self
            .nodes
            .iter()
            .filter(|node| node.process.is_some())
            .count();
        for index in 0..self.nodes.len() {
            if self.nodes[index].process.is_some() {
                self.await_node(index, running, deadline);
            }
        }
        let internal = self.internal_bootstrap();
        let Some(secured) = &mut self.secured else {
            return;
        };
        secured.make_users(&internal);
        for node in &self.nodes {
            if node.process.is_some() && secured.is_trusted() {
                let address = node.broker.address();
                let entry = logins::find(&address).expect("it was registered at the launch");
                users::await_login(&address, &entry.clients);
                users::await_login(&address, &entry.twinlog);
            }
        }
    }

    fn await_node(&mut self, index: usize, running: usize, deadline: Instant) {
        let node = &mut self.nodes[index];
        let port = match self.secured {
            Some(_) => &node.internal,
            None => &node.broker,
        };
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", port.address())
            .set("reconnect.backoff.ms", "20")
            .set("reconnect.backoff.max.ms", "100")
            .create()
            .expect("the settings are valid");
        loop {
            let answer = consumer.fetch_metadata(None, Duration::from_millis(500));
            let seen = match answer {
                Ok(metadata) if metadata.brokers().len() >= running => return,
                Ok(metadata) => format!("{} brokers known", metadata.brokers().len()),
                Err(error) => error.to_string(),
            };
            let process = node.process.as_mut().expect("the caller checked");
            let ended = process.ended();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "{} node {} did not come up ({seen}, exit {ended:?}):\n{}",
                self.name,
                index + 1,
                process.log_tail()
            );
        }
    }

    fn launch_node(&mut self, id: usize) {
        let node = &mut self.nodes[id - 1];
        // The port's last user may take a moment to let go of it after a SIGKILL.
        eventually(Duration::from_secs(20), "the broker's port is free", || {
            std::net::TcpListener::bind(node.broker.address())?;
            std::net::TcpListener::bind(node.internal.address()).map(drop)
        });
        let arguments = java_arguments(self.version, &node.folder)
            .into_iter()
            .chain(class_archive::arguments(self.version, &self.jvm_arguments))
            .chain(self.jvm_arguments.iter().cloned())
            .chain(["kafka.Kafka".into()])
            .chain([node.folder.join("server.properties").display().to_string()]);
        let log = node.folder.join("broker.log");
        node.process = Some(Process::start(Path::new("java"), arguments, &log));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in &self.nodes {
                eprintln!(
                    "--- {} {}: end of the broker's log\n{}",
                    self.name,
                    node.broker.address(),
                    tail(&node.folder.join("broker.log"), 1_500)
                );
            }
        }
        for node in &mut self.nodes {
            node.process = None;
            logins::forget(&node.broker.address());
            logins::forget(&node.certificates.address());
        }
        scratch::remove(&self.folder);
    }
}

/// JVM arguments up to the class: small heap, quick start, warnings logged.
///
/// Compression libraries unpack themselves into `scratch`, where a killed broker may leave them.
fn java_arguments(version: KafkaVersion, scratch: &Path) -> Vec<String> {
    let scripts = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/lib");
    vec![
        "-Xmx256m".into(),
        "-XX:+UseSerialGC".into(),
        "-XX:TieredStopAtLevel=1".into(),
        "-XX:-UsePerfData".into(),
        format!("-Djava.io.tmpdir={}", scratch.display()),
        format!("-Dlog4j2.configurationFile={scripts}/log4j2.properties"),
        format!("-Dlog4j.configuration=file:{scripts}/log4j.properties"),
        "-cp".into(),
        format!("{}/*", version.libs().display()),
    ]
}

/// 16 random bytes as Kafka writes ids: URL-safe base64 without padding, 22 characters.
fn random_id() -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    // Kafka's own tool avoids ids that begin with '-'. The last character carries only 2 bits.
    let first = char::from(ALPHABET[rand::random_range(0..62)]);
    let middle = (0..20).map(|_| char::from(ALPHABET[rand::random_range(0..64)]));
    let last = char::from(ALPHABET[rand::random_range(0..4) * 16]);
    std::iter::once(first).chain(middle).chain([last]).collect()
}

/// Formats a node's data folder: which cluster and node it is, and the feature levels to begin
/// with. Kafka's own tool needs a JVM for that, a second of two cores for every node; so it runs
/// once per version, and what does not depend on the cluster is kept.
fn format_storage(version: KafkaVersion, node: &Node, id: usize, cluster_id: &str) {
    let data = node.folder.join("data");
    std::fs::create_dir_all(&data).expect("our folder is writable");
    let features = version.cache().join("bootstrap.checkpoint");
    if !features.exists() {
        format_with_tool(version, node, cluster_id);
        // Renamed, so that another process never sees half of it.
        let fresh = version
            .cache()
            .join(format!("bootstrap.{}", std::process::id()));
        std::fs::copy(data.join("bootstrap.checkpoint"), &fresh).expect("the cache is writable");
        std::fs::rename(&fresh, &features).expect("the cache is writable");
        return;
    }
    std::fs::copy(&features, data.join("bootstrap.checkpoint")).expect("our folder is writable");
    let directory_id = random_id();
    let properties =
        format!("version=1\nnode.id={id}\ncluster.id={cluster_id}\ndirectory.id={directory_id}\n");
    std::fs::write(data.join("meta.properties"), properties).expect("our folder is writable");
}

/// Formats with `kafka.tools.StorageTool`.
fn format_with_tool(version: KafkaVersion, node: &Node, cluster_id: &str) {
    let output = Command::new("java")
        .args(java_arguments(version, &node.folder))
        .args(["kafka.tools.StorageTool", "format", "-t", cluster_id, "-c"])
        .arg(node.folder.join("server.properties"))
        .output()
        .expect("java is installed");
    assert!(
        output.status.success(),
        "formatting failed:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The broker's properties, ours first and the test's after them (the last one counts).
///
/// Nothing expires unless a topic says so, because tests write timestamps of their own choice;
/// what a topic does say about retention, deletion and compaction happens within a second.
fn properties(
    options: &ClusterOptions,
    secured: Option<&Secured>,
    nodes: &[Node],
    index: usize,
) -> String {
    let node = &nodes[index];
    let id = index + 1;
    let voters: Vec<String> = (1..)
        .zip(nodes)
        .map(|(id, node)| format!("{id}@{}", node.controller.address()))
        .collect();
    let replicas = nodes.len();
    let in_sync_min = if replicas > 1 { 2 } else { 1 };
    let mut text = format!(
        "process.roles=broker,controller
node.id={id}
broker.rack=rack-{id}
controller.listener.names=CONTROLLER
controller.quorum.voters={voters}
log.dirs={data}
num.partitions=1
default.replication.factor={replicas}
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions=4
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={in_sync_min}
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr={in_sync_min}
share.coordinator.state.topic.num.partitions=2
group.initial.rebalance.delay.ms=0
log.cleaner.backoff.ms=200
log.cleaner.dedupe.buffer.size=8388608
log.retention.ms=-1
log.retention.check.interval.ms=500
log.initial.task.delay.ms=500
file.delete.delay.ms=1000
broker.session.timeout.ms=5000
broker.heartbeat.interval.ms=500
controlled.shutdown.max.retries=1
",
        voters = voters.join(","),
        data = node.folder.join("data").display(),
    );
    if options.authorizer {
        text.push_str(
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
",
        );
    }
    if let Some(secured) = secured {
        text.push_str(&secured.properties());
    }
    text.push_str(&listener_properties(options, secured, node, index));
    for (key, value) in &options.extra_properties {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{key}={value}");
    }
    text
}

/// The listeners: for clients first, then what else there is.
fn listener_properties(
    options: &ClusterOptions,
    secured: Option<&Secured>,
    node: &Node,
    index: usize,
) -> String {
    let broker = node.broker.address();
    let (mut lines, inter_broker) = match secured {
        None => (
            vec![Line::direct("PLAINTEXT", broker, "PLAINTEXT")],
            "PLAINTEXT",
        ),
        Some(_) => {
            let clients = Line::direct("CLIENT", broker, "SASL_SSL");
            let internal = Line::direct("INTERNAL", node.internal.address(), "PLAINTEXT");
            (vec![clients, internal], "INTERNAL")
        }
    };
    if secured.is_some_and(Secured::takes_certificates) {
        let address = node.certificates.address();
        lines.push(Line::direct("CERTIFICATE", address, "SSL"));
    }
    lines.push(Line {
        name: "CONTROLLER",
        address: node.controller.address(),
        advertised: None,
        protocol: "PLAINTEXT",
    });
    if let (Some(proxy), 0) = (&options.proxy, index) {
        lines.push(Line {
            name: "PROXY",
            address: node.behind_proxy.address(),
            advertised: Some(proxy.clone()),
            protocol: "PLAINTEXT",
        });
    }
    if options.proxied {
        lines.push(Line {
            name: "PROXIED",
            address: node.behind_proxy.address(),
            advertised: Some(node.proxy.address()),
            protocol: "PLAINTEXT",
        });
    }
    for listener in &options.listeners {
        lines.push(Line {
            name: &listener.name,
            address: listener.address.clone(),
            advertised: Some(listener.advertised.clone()),
            protocol: "PLAINTEXT",
        });
    }
    listeners::properties(&lines, inter_broker)
}
