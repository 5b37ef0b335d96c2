//! Share groups with Kafka's own share consumer, through `tests/java/ShareGroups.java`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use super::java::{compiled, logging};
use super::logins;
use super::version::KafkaVersion;

const SOURCE: &str = include_str!("../../java/ShareGroups.java");

/// Lets a group that is new to a partition begin at its first record.
pub fn begin_at_earliest(bootstrap: &str, group: &str) {
    run(&["earliest", bootstrap, group]);
}

/// A consumer of the group joins, accepts this many records and leaves. Returns their offsets and
/// the first word of their values: what [`Load`](super::Load) numbers them by.
///
/// The broker stores a start offset with a later acknowledgement than the one that moved it: what
/// is described afterwards may not show this one yet.
pub fn read_as_share(
    bootstrap: &str,
    group: &str,
    topic: &str,
    count: usize,
) -> Vec<(i64, String)> {
    run(&["read", bootstrap, group, topic, &count.to_string()])
        .lines()
        .map(|line| {
            let mut fields = line.split(' ').skip(1);
            let offset = fields.next().and_then(|offset| offset.parse().ok());
            let offset = offset.unwrap_or_else(|| panic!("not a record: {line}"));
            (offset, fields.next().unwrap_or_default().to_owned())
        })
        .collect()
}

/// A group's start offsets by topic and partition, as the broker describes them.
pub fn start_offsets(bootstrap: &str, group: &str) -> BTreeMap<(String, i32), i64> {
    run(&["offsets", bootstrap, group])
        .lines()
        .map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            let [topic, partition, offset] = fields[..] else {
                panic!("not a start offset: {line}");
            };
            let partition = partition.parse().expect("a partition");
            let offset = offset.parse().expect("an offset");
            ((topic.to_owned(), partition), offset)
        })
        .collect()
}

/// Sets a start offset as an operator does.
pub fn set_start_offset(bootstrap: &str, group: &str, topic: &str, partition: i32, offset: i64) {
    let (partition, offset) = (partition.to_string(), offset.to_string());
    run(&["alter", bootstrap, group, topic, &partition, &offset]);
}

/// A member of a share group that takes no records. It leaves by [`Self::leave`], and ends by
/// itself after a minute.
pub struct ShareMember(Child);

impl ShareMember {
    /// Joins; `topic` is to be empty.
    ///
    /// # Panics
    /// When it doesn't get in.
    pub fn join(bootstrap: &str, group: &str, topic: &str) -> Self {
        let mut command = java(&["hold", bootstrap, group, topic]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("java is installed");
        let output = child.stdout.take().expect("its output is piped");
        let member = Self(child);
        let mut line = String::new();
        let read = BufReader::new(output).read_line(&mut line);
        assert!(read.is_ok() && line == "joined\n", "not a member: {line}");
        member
    }

    /// Leaves in order.
    ///
    /// # Panics
    /// When it failed.
    pub fn leave(mut self) {
        let mut input = self.0.stdin.take().expect("its input is piped");
        input.write_all(b"leave\n").expect("it listens");
        assert!(self.0.wait().expect("our child").success());
    }
}

impl Drop for ShareMember {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Only 4.3's clients know share groups in all that is asked here.
fn java(arguments: &[&str]) -> Command {
    let version = KafkaVersion::V4_3;
    let classes = compiled(version, "ShareGroups", SOURCE);
    let (classes, libs) = (classes.display(), version.libs().display());
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--", "java"])
        .args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
        .args(logging())
        // Every mode has the address in the second place.
        .args(logins::java_argument(arguments[1]))
        .arg("-cp")
        .arg(format!("{classes}:{libs}/*"))
        .arg("ShareGroups")
        .args(arguments);
    command
}

fn run(arguments: &[&str]) -> String {
    let output = java(arguments).output().expect("java is installed");
    assert!(
        output.status.success(),
        "ShareGroups {arguments:?} failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("names and values are UTF-8")
}
