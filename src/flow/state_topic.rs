//! What `check` says about the state topic. `run` sets what it can at every start.

use super::check::finding;
use crate::shell::Command;
use crate::state::{Misfit, STATE_TOPIC, look_at_settings, missing_replicas};
use crate::telemetry::finding::{Finding, Level};
use crate::wire::{Cluster, Metadata};

/// Looks at the state topic on a target; where there is none, `run` makes it.
pub(super) async fn check(cluster: &Cluster, metadata: &Metadata) -> Vec<Finding> {
    let Some(topic) = metadata.topics.get(STATE_TOPIC) else {
        return Vec::new();
    };
    let subject = format!("state topic {STATE_TOPIC} on {}", cluster.name());
    let servers = &cluster.config().bootstrap;
    let mut findings = Vec::new();
    if topic.partitions.len() > 1 {
        let message = format!(
            "it has {} partitions; only the first is used, which does no harm",
            topic.partitions.len()
        );
        findings.push(finding(Level::Warning, &subject, message, None));
    }
    if let Some(missing) = missing_replicas(metadata) {
        let hint = missing.command(servers);
        findings.push(finding(
            Level::Warning,
            &subject,
            missing.to_string(),
            Some(&hint),
        ));
    }
    match look_at_settings(cluster).await {
        Ok(misfits) => {
            findings.extend(
                misfits
                    .iter()
                    .map(|misfit| of_misfit(misfit, &subject, servers)),
            );
        }
        Err(error) => {
            let message = format!("its configs can't be looked at: {}", error.without_hint());
            findings.push(finding(Level::Warning, &subject, message, error.hint()));
        }
    }
    if findings.is_empty() {
        let message = "its configs and replicas are right".to_owned();
        findings.push(finding(Level::Ok, &subject, message, None));
    }
    findings
}

fn of_misfit(misfit: &Misfit, subject: &str, servers: &[String]) -> Finding {
    let level = match misfit.is_vital {
        true => Level::Error,
        false => Level::Warning,
    };
    let hint = format!(
        "the next start of `twinlog run` sets it, as does: {}",
        Command::kafka("kafka-configs.sh", servers)
            .flag("--alter")
            .option("--topic", STATE_TOPIC)
            .option("--add-config", &format!("{}={}", misfit.key, misfit.wanted))
    );
    finding(level, subject, misfit.to_string(), Some(&hint))
}
