//! Keeping a connection alive on which nothing is said, and noticing that it isn't.
//!
//! A firewall, a NAT gateway or a load balancer forgets a connection that was idle for a while, mostly without a word
//! to either end: the next request waits for its whole time-out. What the system itself sends (`SO_KEEPALIVE`) is
//! answered by whatever stands in between. So an idle connection asks the broker for its versions now and then,
//! which needs no right; it isn't forgotten then, and one that was is given up before somebody needs it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::connection::Shared;
use super::handshake::versions_request;

/// After so much silence. Well below what firewalls are set to (a minute, mostly more).
const IDLE: Duration = Duration::from_secs(10);
/// How long the answer may take. A line that is full of other connections' data may need seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks whenever nothing was said for a while, until the connection is closed.
pub(super) async fn keep_alive(shared: Arc<Shared>, version: i16) {
    let closed = shared.closed.clone();
    let keeping = async {
        loop {
            let idle_since = shared.idle_since();
            let due = idle_since.unwrap_or_else(Instant::now) + IDLE;
            if due > Instant::now() {
                tokio::time::sleep_until(due).await;
                continue;
            }
            let Ok(asked) = shared.start_heartbeat(version, &versions_request()) else {
                return;
            };
            if let Err(error) = asked.with_timeout(PATIENCE).await {
                tracing::debug!(%error, "an idle connection is dead");
                return;
            }
        }
    };
    closed.run_until_cancelled(keeping).await;
}
