//! A broker that is cut off from the others goes on calling itself the leader, and its metadata names it. Who only
//! ever asks that one never learns of another: so the others are asked now and then.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::error::Trouble;
use super::partition::Partition;
use super::shared::Flow;
use crate::wire::Cluster;

/// How often another broker is asked.
const EVERY: Duration = Duration::from_secs(10);
/// How long it may take to answer: the next one is asked then.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks until cancelled, and opens what a newer leader has anew.
pub(super) async fn watch(flow: Arc<Flow>, cancel: CancellationToken) {
    let all = async {
        tokio::join!(
            flow.source.ask_others(PATIENCE),
            flow.target.ask_others(PATIENCE)
        )
    };
    if cancel.run_until_cancelled(all).await.is_none() {
        return;
    }
    leave_old_leaders(&flow);
    while cancel
        .run_until_cancelled(tokio::time::sleep(EVERY))
        .await
        .is_some()
    {
        let asked = async { tokio::join!(ask(&flow.source), ask(&flow.target)) };
        if cancel.run_until_cancelled(asked).await.is_none() {
            return;
        }
        leave_old_leaders(&flow);
    }
}

async fn ask(cluster: &Cluster) {
    match tokio::time::timeout(PATIENCE, cluster.ask_another()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "another broker can't be asked who leads"),
        Err(_) => tracing::debug!(
            cluster = cluster.name(),
            "another broker doesn't say who leads"
        ),
    }
}

/// A session's broker that isn't cut off says itself that it leads no longer.
fn leave_old_leaders(flow: &Flow) {
    let known = flow.source.cached();
    let is_old = |partition: &Partition| {
        let source = &partition.source;
        let newest = known.leader(&source.topic, source.partition);
        newest.is_some_and(|(_, epoch)| partition.epochs.is_led_elsewhere(epoch))
    };
    let open: Vec<Arc<Partition>> = flow.open.iter().map(|it| it.value().clone()).collect();
    for partition in open.into_iter().filter(|it| is_old(it)) {
        let cluster = format!("source ({})", flow.source.name());
        partition.fail(Trouble::LeaderMoved { cluster });
    }
}
