//! Who is compared, and how each is started.

use std::path::Path;

use crate::brokers;
use crate::copy_loop;
use crate::support::process::Process;
use crate::support::{Twinlog, scratch};

/// A replicator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contestant {
    /// MirrorMaker 2, dedicated mode, tuned.
    MirrorMaker2,
    /// A consume-produce loop on librdkafka, tuned likewise.
    Librdkafka,
    /// Twinlog with its defaults.
    Twinlog,
}

impl Contestant {
    /// In the order in which they run.
    pub const ALL: [Self; 3] = [Self::MirrorMaker2, Self::Librdkafka, Self::Twinlog];

    /// As on the command line and in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::MirrorMaker2 => "mirrormaker2",
            Self::Librdkafka => "librdkafka",
            Self::Twinlog => "twinlog",
        }
    }

    /// As in the tables.
    pub fn title(self) -> &'static str {
        match self {
            Self::MirrorMaker2 => "MirrorMaker 2",
            Self::Librdkafka => "librdkafka loop",
            Self::Twinlog => "Twinlog",
        }
    }

    /// The reverse of [`Self::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|found| found.name() == name)
    }

    /// Starts it on the topics whose names begin with `prefix`.
    pub fn start(self, source: &str, target: &str, prefix: &str) -> Running {
        self.start_as(source, target, prefix, "")
    }

    /// The same with consumer groups followed. MirrorMaker 2 doesn't by default; it is told to, and
    /// to look every 5 s instead of every 60 (positions) and 600 (groups).
    pub fn start_with_groups(self, source: &str, target: &str, prefix: &str) -> Running {
        let lines = "sync.group.offsets.enabled=true
sync.group.offsets.interval.seconds=5
emit.checkpoints.interval.seconds=5
refresh.groups.interval.seconds=5
";
        self.start_as(source, target, prefix, lines)
    }

    /// The same with aborted records left out, as librdkafka and Twinlog do anyway.
    pub fn start_reading_committed(self, source: &str, target: &str, prefix: &str) -> Running {
        let lines = "source.consumer.isolation.level=read_committed\n";
        self.start_as(source, target, prefix, lines)
    }

    fn start_as(self, source: &str, target: &str, prefix: &str, lines: &str) -> Running {
        match self {
            Self::MirrorMaker2 => Running::Process(mirror_maker(source, target, prefix, lines)),
            Self::Librdkafka => Running::Process(librdkafka_loop(source, target, prefix)),
            Self::Twinlog => {
                let lines = format!("topics: {{ include: [\"{prefix}.*\"] }}");
                Running::Twinlog(Twinlog::start(&Twinlog::config(source, target, &lines)))
            }
        }
    }
}

/// A started replicator. Killed on drop.
pub enum Running {
    /// A program of its own.
    Process(Restartable),
    /// Ours.
    Twinlog(Twinlog),
}

impl Running {
    /// Its process id.
    pub fn id(&self) -> u32 {
        match self {
            Self::Process(process) => process.running.as_ref().expect("it is running").id(),
            Self::Twinlog(twinlog) => twinlog.id(),
        }
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill9(&mut self) {
        match self {
            Self::Process(process) => process.running = None,
            Self::Twinlog(twinlog) => twinlog.kill9(),
        }
    }

    /// Starts it again as it was.
    pub fn restart(&mut self) {
        match self {
            Self::Process(process) => process.launch(),
            Self::Twinlog(twinlog) => twinlog.launch(),
        }
    }

    /// The end of its log, for messages.
    pub fn log_tail(&self) -> String {
        match self {
            Self::Process(process) => {
                crate::support::process::tail(&process.folder.join("log"), 3_000)
            }
            Self::Twinlog(twinlog) => {
                let log = twinlog.log();
                let from = log.len().saturating_sub(3_000);
                log.get(from..).unwrap_or_default().to_owned()
            }
        }
    }
}

/// A program and how to start it again.
pub struct Restartable {
    program: String,
    arguments: Vec<String>,
    folder: std::path::PathBuf,
    running: Option<Process>,
}

impl Restartable {
    fn start(program: String, arguments: Vec<String>, folder: std::path::PathBuf) -> Self {
        let mut process = Self {
            program,
            arguments,
            folder,
            running: None,
        };
        process.launch();
        process
    }

    fn launch(&mut self) {
        self.running = Some(Process::start(
            Path::new(&self.program),
            &self.arguments,
            &self.folder.join("log"),
        ));
    }
}

impl Drop for Restartable {
    fn drop(&mut self) {
        self.running = None;
        scratch::remove(&self.folder);
    }
}

fn librdkafka_loop(source: &str, target: &str, prefix: &str) -> Restartable {
    let program = std::env::current_exe().expect("this executable has a path");
    let arguments = [copy_loop::COMMAND, source, target, prefix];
    Restartable::start(
        program.display().to_string(),
        arguments.map(str::to_owned).to_vec(),
        scratch::folder("librdkafka-loop"),
    )
}

/// MirrorMaker 2 with the settings that its users arrive at; everything else is its default.
///
/// Heartbeats of the reverse direction are off: they would cost a second Connect worker.
fn mirror_maker(source: &str, target: &str, prefix: &str, lines: &str) -> Restartable {
    let folder = scratch::folder("mirrormaker2");
    let properties = format!(
        "clusters=source,target
source.bootstrap.servers={source}
target.bootstrap.servers={target}
source->target.enabled=true
source->target.topics={prefix}.*
target->source.enabled=false
target->source.emit.heartbeats.enabled=false
replication.policy.class=org.apache.kafka.connect.mirror.IdentityReplicationPolicy
replication.factor=1
checkpoints.topic.replication.factor=1
heartbeats.topic.replication.factor=1
offset-syncs.topic.replication.factor=1
offset.storage.replication.factor=1
status.storage.replication.factor=1
config.storage.replication.factor=1
tasks.max=4
refresh.topics.interval.seconds=5
target.producer.compression.type=lz4
target.producer.batch.size=131072
target.producer.linger.ms=20
source.consumer.auto.offset.reset=earliest
{lines}"
    );
    let file = folder.join("mm2.properties");
    std::fs::write(&file, properties).expect("our folder is writable");
    // The JVM settings of Kafka's own connect-mirror-maker.sh.
    let logging = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/lib/log4j2.properties");
    let arguments = vec![
        "-Xms256m".into(),
        "-Xmx2g".into(),
        "-server".into(),
        "-XX:+UseG1GC".into(),
        "-XX:MaxGCPauseMillis=20".into(),
        "-XX:InitiatingHeapOccupancyPercent=35".into(),
        "-XX:+ExplicitGCInvokesConcurrent".into(),
        "-XX:-UsePerfData".into(),
        format!("-Djava.io.tmpdir={}", folder.display()),
        format!("-Dlog4j2.configurationFile={logging}"),
        "-cp".into(),
        format!("{}/*", brokers::VERSION.libs().display()),
        "org.apache.kafka.connect.mirror.MirrorMaker".into(),
        file.display().to_string(),
    ];
    Restartable::start("java".into(), arguments, folder)
}
