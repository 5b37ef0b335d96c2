//! Kafka's own Java clients, through `tests/java/Judge.java`.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

use super::class_archive;
use super::cluster::ClusterOptions;
use super::logins;
use super::read::{Isolation, Seen};
use super::scratch;
use super::version::KafkaVersion;

const SOURCE: &str = include_str!("../../java/Judge.java");

/// Reads a topic with the Java consumer to the end that it has now, sorted by partition and
/// offset. Header keys that are not UTF-8 come with replacement characters.
///
/// # Panics
/// When the reader fails; the message has its output.
pub fn java_read(
    version: KafkaVersion,
    bootstrap: &str,
    topic: &str,
    isolation: Isolation,
) -> Vec<Seen> {
    let output = judge(
        version,
        bootstrap,
        &["read", bootstrap, topic, isolation.name()],
    );
    let text = String::from_utf8(output.stdout).expect("the judge prints ASCII");
    text.lines()
        .map(|line| parse(line).unwrap_or_else(|| panic!("unreadable line from the judge: {line}")))
        .collect()
}

/// Writes with the Java producer: `arguments` are those of the judge's `produce` mode after the
/// topic, `key=value` pairs (see `tests/java/Judge.java`).
///
/// # Panics
/// When it fails; the message has its output.
pub fn java_produce(version: KafkaVersion, bootstrap: &str, topic: &str, arguments: &[&str]) {
    let mut all = vec!["produce", bootstrap, topic];
    all.extend(arguments);
    judge(version, bootstrap, &all);
}

fn judge(version: KafkaVersion, bootstrap: &str, arguments: &[&str]) -> Output {
    let classes = compiled(version, "Judge", SOURCE);
    let output = Command::new("java")
        .args(self::arguments(version, &classes))
        .args(logins::java_argument(bootstrap))
        // Compression libraries unpack themselves there.
        .arg(format!(
            "-Djava.io.tmpdir={}",
            scratch::shared("judge").display()
        ))
        .arg("Judge")
        .args(arguments)
        .output()
        .expect("java is installed");
    assert!(
        output.status.success(),
        "Judge {arguments:?} failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Gives a cluster the creation policy of `tests/java/CreationPolicy.java`.
pub fn with_creation_policy(version: KafkaVersion, mut options: ClusterOptions) -> ClusterOptions {
    const SOURCE: &str = include_str!("../../java/CreationPolicy.java");
    let classes = compiled(version, "CreationPolicy", SOURCE);
    let (libs, classes) = (version.libs().display(), classes.display());
    let path = ["-cp".to_owned(), format!("{libs}/*:{classes}")];
    options.jvm_arguments.extend(path);
    options.with("create.topic.policy.class.name", "CreationPolicy")
}

/// JVM arguments up to the class, for one of these classes or of Kafka's: a small heap and a quick start, and what
/// scripts and tests log: warnings, to standard error.
///
/// The brokers' archive has most of what clients load as well: theirs come up with half of the processor time. It
/// counts for class paths that begin with the brokers'.
pub(super) fn arguments(version: KafkaVersion, classes: &Path) -> Vec<String> {
    let scripts = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/lib");
    let mut arguments = class_archive::arguments(version, &[]);
    arguments.extend([
        "-Xmx256m".to_owned(),
        "-XX:+UseSerialGC".to_owned(),
        "-XX:TieredStopAtLevel=1".to_owned(),
        format!("-Dlog4j2.configurationFile={scripts}/log4j2.properties"),
        format!("-Dlog4j.configuration=file:{scripts}/log4j.properties"),
        "-cp".to_owned(),
        format!("{}/*:{}", version.libs().display(), classes.display()),
    ]);
    arguments
}

/// The folder with the compiled `tests/java/CLASS.java`, kept in the cache under the hash of its
/// source.
pub(super) fn compiled(version: KafkaVersion, class: &str, text: &str) -> PathBuf {
    static COMPILING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = COMPILING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let name = class.to_lowercase();
    let folder = version
        .cache()
        .join(format!("{name}-{:016x}", hasher.finish()));
    if folder.exists() {
        return folder;
    }
    let fresh = version
        .cache()
        .join(format!("{name}-new-{}", std::process::id()));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/java/{class}.java"));
    let output = Command::new("javac")
        .args(["-proc:none", "-d"])
        .arg(&fresh)
        .arg("-cp")
        .arg(format!("{}/*", version.libs().display()))
        .arg(&source)
        .output()
        .expect("javac is installed");
    assert!(
        output.status.success(),
        "compiling {class} failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // Another test process may have been first: then its folder is as good.
    if std::fs::rename(&fresh, &folder).is_err() {
        let _ = std::fs::remove_dir_all(&fresh);
    }
    folder
}

/// One line: partition offset timestamp type key value headers, blanks between them.
///
/// Bytes are in hexadecimal, `-` is null, `=` is empty; headers are `key:value` with commas
/// between them.
fn parse(line: &str) -> Option<Seen> {
    let mut fields = line.split(' ');
    let partition = fields.next()?.parse().ok()?;
    let offset = fields.next()?.parse().ok()?;
    let timestamp: i64 = fields.next()?.parse().ok()?;
    let kind = fields.next()?;
    let key = bytes(fields.next()?)?;
    let value = bytes(fields.next()?)?;
    let headers = match fields.next()? {
        "-" => Vec::new(),
        list => list
            .split(',')
            .map(|header| {
                let (key, value) = header.split_once(':')?;
                Some((String::from_utf8(bytes(key)??).ok()?, bytes(value)?))
            })
            .collect::<Option<_>>()?,
    };
    Some(Seen {
        partition,
        offset,
        key,
        value,
        headers,
        timestamp_ms: (kind != "NO_TIMESTAMP_TYPE").then_some(timestamp),
        log_append_time: kind == "LOG_APPEND_TIME",
    })
}

/// The outer `None` is an unreadable field, the inner one a null.
#[allow(clippy::option_option)]
fn bytes(field: &str) -> Option<Option<Vec<u8>>> {
    match field {
        "-" => Some(None),
        "=" => Some(Some(Vec::new())),
        digits => (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok())
            .collect::<Option<Vec<u8>>>()
            .map(Some),
    }
}
