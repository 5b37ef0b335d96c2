//! MirrorMaker 2's own Java client, through `tests/java/MirrorTools.java`.

use std::path::Path;
use std::process::Command;

use super::java::logging;
use super::logins;
use super::version::KafkaVersion;

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
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/java/MirrorTools.java");
    let output = Command::new("java")
        .args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
        .args(logging())
        .args(logins::java_argument(bootstrap))
        .arg("-cp")
        .arg(format!("{}/*", version.libs().display()))
        // Compiled in memory: it runs a few times only.
        .arg(source)
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
