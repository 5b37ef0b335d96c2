//! Both ends of secured connections in one process: a cluster section on one side, a broker with
//! certificates and passwords of the test on the other.

mod authentication;
mod broker;
mod certificates;
mod tls;
mod tokens;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use crate::config::{self, ClusterSection};

/// Nothing here may hang.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), what)
        .await
        .expect("in time")
}

/// The section with these lines of YAML.
fn section(address: &str, lines: &[&str]) -> ClusterSection {
    let lines: String = lines.iter().map(|line| format!("    {line}\n")).collect();
    let text = format!(
        "clusters:\n  primary:\n    bootstrap.servers: '{address}'\n{lines}  standby: {{ bootstrap.servers: 'h:2' }}\n"
    );
    let config = config::parse_with_environment(&text, "t.yaml", &BTreeMap::new());
    let mut config = config.unwrap_or_else(|problems| panic!("{problems}"));
    config.clusters.remove("primary").expect("it was read")
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("our folder is writable");
    path.display().to_string()
}
