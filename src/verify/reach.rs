//! Whether both clusters answer at all: asked first, so that nobody waits for a primary that hangs.

use std::time::Duration;

use super::VerifyError;
use crate::config::ClusterSection;
use crate::connect;

/// How long a cluster may say nothing before it doesn't answer.
const SILENT: Duration = Duration::from_secs(10);

/// Asks both clusters who they are, at the same time.
///
/// # Errors
/// The target's silence before the source's: without it nothing is known at all.
pub async fn reach(source: &ClusterSection, target: &ClusterSection) -> Result<(), VerifyError> {
    let (source, target) = tokio::join!(ask("source", source), ask("target", target));
    target.and(source)
}

async fn ask(side: &'static str, section: &ClusterSection) -> Result<(), VerifyError> {
    let cluster = connect::cluster(section);
    let asking = cluster.metadata(Some(&[]));
    let reason = match tokio::time::timeout(SILENT, asking).await {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(error)) => {
            let error = error.of_one();
            match error.cure_if_not_reached() {
                Some(cure) => format!("{error}; {cure}"),
                None => error.to_string(),
            }
        }
        Err(_) => format!("nothing came within {} s", SILENT.as_secs()),
    };
    Err(VerifyError::Silent {
        side,
        cluster: section.name.clone(),
        reason,
    })
}
