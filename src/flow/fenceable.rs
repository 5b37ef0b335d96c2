//! Whether writers could be kept from the source by ACLs: a failover begins with that.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::deny::{self, DenyError};
use super::shared::Flow;
use crate::telemetry::failover::Unfenceable;

/// How often it is looked at while nothing is in the way.
const LOOK_EVERY: Duration = Duration::from_secs(300);
/// While something is, or nothing is known: whoever mends it waits for the word.
const LOOK_AGAIN_EVERY: Duration = Duration::from_secs(15);

/// In words for who asks for a failover.
pub fn unfenceable(error: &DenyError) -> Unfenceable {
    Unfenceable {
        reason: error.to_string(),
        hint: error.hint().map(str::to_owned),
    }
}

/// Looks at it now and then, as the command does, until cancelled.
pub(super) async fn keep(flow: Arc<Flow>, cancel: CancellationToken) {
    loop {
        let looked = cancel.run_until_cancelled(deny::missing(&flow.source, &[], &[]));
        let pause = match looked.await {
            None => return,
            Some(Ok(_)) => {
                flow.progress.set_unfenceable(None);
                LOOK_EVERY
            }
            // That it doesn't answer is told elsewhere, and says nothing of its ACLs.
            Some(Err(DenyError::Wire(_))) => LOOK_AGAIN_EVERY,
            Some(Err(error)) => {
                flow.progress.set_unfenceable(Some(unfenceable(&error)));
                LOOK_AGAIN_EVERY
            }
        };
        let pause = cancel.run_until_cancelled(tokio::time::sleep(pause));
        if pause.await.is_none() {
            return;
        }
    }
}
