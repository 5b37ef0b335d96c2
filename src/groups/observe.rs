//! Watches all groups of one cluster: through the coordinators' log where that may be read, else by
//! asking again and again.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::poll::{self, Known};
use super::seen::{Seen, Way};
use super::tail::{Tail, TailError};
use super::unseen::Unseen;
use crate::config::Selector;
use crate::wire::{Cluster, WireError};

/// How often it is looked whether the first group has committed. On the target our own first commit makes the log, and
/// what a client commits there before it is read isn't seen: so soon.
const NO_GROUPS_YET: Duration = Duration::from_millis(500);
/// The pauses between tries after a failure.
const AGAIN_FIRST: Duration = Duration::from_millis(200);
/// See [`AGAIN_FIRST`].
const AGAIN_LAST: Duration = Duration::from_secs(5);

/// How a cluster's groups can be watched with our rights. Where no group has ever committed,
/// `__consumer_offsets` isn't there to be tried: then a tail is expected.
///
/// # Errors
/// When the cluster can't be asked.
pub async fn way(cluster: &Cluster) -> Result<Way, WireError> {
    let (found, _listening) = mpsc::channel(1);
    match Tail::open(cluster, &found).await {
        Ok(Some(tail)) => match tail.try_read().await {
            Err(TailError::NotAllowed) => Ok(Way::Poll),
            Err(TailError::Wire(error)) => Err(error),
            Ok(()) | Err(TailError::Closed) => Ok(Way::Tail),
        },
        Ok(None) | Err(TailError::Closed) => Ok(Way::Tail),
        Err(TailError::NotAllowed) => Ok(Way::Poll),
        Err(TailError::Wire(error)) => Err(error),
    }
}

/// Watches until cancelled or until nobody listens.
pub async fn observe(
    cluster: Cluster,
    groups: Selector,
    found: mpsc::Sender<Seen>,
    cancel: CancellationToken,
) {
    let watching = watch(&cluster, &groups, &found);
    let _ = cancel.run_until_cancelled(watching).await;
}

async fn watch(cluster: &Cluster, groups: &Selector, found: &mpsc::Sender<Seen>) {
    let mut pause = AGAIN_FIRST;
    let mut had_none = false;
    let mut known = Known::default();
    loop {
        let error = match Tail::open(cluster, found).await {
            Ok(Some(tail)) => {
                if found.send(Seen::Begins(Way::Tail)).await.is_err() {
                    return;
                }
                pause = AGAIN_FIRST;
                known = Known::default();
                tail.run().await
            }
            Ok(None) => {
                if !had_none {
                    had_none = true;
                    for seen in [Seen::Begins(Way::Tail), Seen::CaughtUp(Unseen::Nothing)] {
                        if found.send(seen).await.is_err() {
                            return;
                        }
                    }
                }
                tokio::time::sleep(NO_GROUPS_YET).await;
                continue;
            }
            Err(error) => error,
        };
        let error = match error {
            TailError::Closed => return,
            TailError::NotAllowed => match poll::poll(cluster, groups, &mut known, found).await {
                Some(error) => error,
                None => return,
            },
            TailError::Wire(error) => error,
        };
        if found.send(Seen::Failing(error.to_string())).await.is_err() {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(AGAIN_LAST);
    }
}
