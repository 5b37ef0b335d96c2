//! MirrorMaker 2's own Java client, through `tests/java/MirrorTools.java`.

use std::process::Command;

use super::java::{arguments, compiled};
use super::logins;
use super::version::KafkaVersion;

const SOURCE: &str = include_str!("../../java/MirrorTools.java");

/// What MirrorMaker's tools find on a cluster, a sorted line each (see the Java source).
/// `policy` is `default` or `identity`, `alias` that of the source cluster.
///
/// # Panics
/// When they fail; the message has their output.
pub fn mirror_tools(
    version: KafkaVersion,
    bootstrap: &str,
    policy: &str,
    alias: &str,
    groups: &[&str],
) -> Vec<String> {
    let classes = compiled(version, "MirrorTools", SOURCE);
    let output = Command::new("java")
        .args(arguments(version, &classes))
        .args(logins::java_argument(bootstrap))
        .arg("MirrorTools")
        .args([bootstrap, policy, alias])
        .args(groups)
        .output()
        .expect("java is installed");
    assert!(
        output.status.success(),
        "MirrorTools {policy} {alias} {groups:?} failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).expect("names are UTF-8");
    text.lines().map(str::to_owned).collect()
}
