//! Watches all groups of one cluster: through the coordinators' log where that may be read, else by
//! asking again and again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::poll::{self, At, Known};
use super::seen::{Seen, Way};
use super::tail::{Tail, TailError};
use crate::config::Selector;
use crate::wire::{self, Cluster, OFFSETS_TOPIC, WireError};

/// How often it is looked whether the first group has committed. On the target our own first commit makes the log, and
/// what a client commits there before it is read isn't seen: so soon.
const NO_GROUPS_YET: Duration = Duration::from_millis(500);
/// So long a log that must be there may take until it shows. Behind that its groups are asked for.
const SHOWN_WITHIN: Duration = Duration::from_secs(10);
/// So long is waited for what a coordinator says meanwhile.
const ASKED_FOR: Duration = Duration::from_secs(3);
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

/// What is known of a cluster's groups before it is looked.
#[derive(Clone)]
pub struct Remembered {
    /// The positions that they had when they were seen last.
    pub positions: Arc<dyn Fn() -> Vec<At> + Send + Sync>,
    /// A group that has committed there: then the coordinators' log is there, whatever a broker says.
    pub committed: Arc<dyn Fn() -> Option<Arc<str>> + Send + Sync>,
}

/// Watches until cancelled or until nobody listens.
pub async fn observe(
    cluster: Cluster,
    groups: Selector,
    remembered: Remembered,
    found: mpsc::Sender<Seen>,
    cancel: CancellationToken,
) {
    let watching = watch(&cluster, &groups, &remembered, &found);
    let _ = cancel.run_until_cancelled(watching).await;
}

async fn watch(
    cluster: &Cluster,
    groups: &Selector,
    remembered: &Remembered,
    found: &mpsc::Sender<Seen>,
) {
    let mut pause = AGAIN_FIRST;
    let mut had_none = false;
    let mut unshown_since = None;
    let mut known = Known::default();
    loop {
        let error = match Tail::open(cluster, found).await {
            Ok(Some(tail)) => {
                if found.send(Seen::Begins(Way::Tail)).await.is_err() {
                    return;
                }
                pause = AGAIN_FIRST;
                known = Known::default();
                unshown_since = None;
                tail.run().await
            }
            Ok(None) => match (remembered.committed)() {
                None => {
                    if !std::mem::replace(&mut had_none, true) {
                        for seen in [Seen::Begins(Way::Tail), Seen::NoLog] {
                            if found.send(seen).await.is_err() {
                                return;
                            }
                        }
                    }
                    tokio::time::sleep(NO_GROUPS_YET).await;
                    continue;
                }
                Some(group) => {
                    let since = *unshown_since.get_or_insert_with(Instant::now);
                    match unshown(cluster, &group, since).await {
                        // A service that shows it to nobody. Its coordinators tell.
                        None => TailError::NotAllowed,
                        Some(why) => {
                            if found.send(Seen::Failing(why)).await.is_err() {
                                return;
                            }
                            tokio::time::sleep(NO_GROUPS_YET).await;
                            continue;
                        }
                    }
                }
            },
            Err(error) => error,
        };
        let error = match error {
            TailError::Closed => return,
            TailError::NotAllowed => {
                if known.is_empty() {
                    known.remember((remembered.positions)());
                }
                match poll::poll(cluster, groups, &mut known, found).await {
                    Some(error) => error,
                    None => return,
                }
            }
            TailError::Wire(error) => error,
        };
        if found.send(Seen::Failing(error.to_string())).await.is_err() {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(AGAIN_LAST);
    }
}

/// A log that must be there isn't shown: brokers that have just started may not know of it yet. A group that has committed is
/// asked for: its coordinator has read the log, and where it really is gone that makes a new one. `None` when that one
/// answers, be it with a refusal, and the log hasn't shown for long.
async fn unshown(cluster: &Cluster, group: &str, since: Instant) -> Option<String> {
    let names = [group.to_owned()];
    let asked = wire::fetch_group_offsets(cluster, &names);
    // Not for longer: the log may show meanwhile.
    let answers = tokio::time::timeout(ASKED_FOR, asked)
        .await
        .unwrap_or_default();
    match answers.into_values().next() {
        // Whoever may not ask for that group may ask for others.
        Some(_) if since.elapsed() >= SHOWN_WITHIN => None,
        Some(Err(error)) => Some(error.to_string()),
        _ => Some(format!(
            "{OFFSETS_TOPIC} isn't shown, and groups have committed there: it is looked for again"
        )),
    }
}
