//! Proving again who we are before the broker's patience ends (KIP-368,
//! `connections.max.reauth.ms`, or the life of a token).

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;

use super::authenticate::{authenticate, prepare};
use super::connection::Shared;
use super::security::Sasl;
use super::versions::VersionTable;

/// Re-authenticates whenever most of `lifetime` is over, until the connection is closed.
///
/// The broker then takes nothing but the messages of the authentication, so everything else is
/// held back meanwhile and goes out behind it in its order. What is on its way when it begins is
/// answered before (brokers answer a connection in order). If it fails, so does the connection.
pub(super) async fn keep_authenticated(
    shared: Arc<Shared>,
    versions: VersionTable,
    sasl: Arc<Sasl>,
    mut lifetime: Duration,
) {
    let closed = shared.closed.clone();
    let keeping = async {
        loop {
            tokio::time::sleep(when(lifetime)).await;
            // Requests go on meanwhile.
            let prepared = prepare(&shared, &sasl).await;
            shared.hold_back();
            let proven = match prepared {
                Ok(exchange) => {
                    let patience = shared.request_timeout();
                    authenticate(&shared, &versions, &sasl, exchange, patience).await
                }
                Err(error) => Err(error),
            };
            match proven {
                Ok(Some(next)) => lifetime = next,
                Ok(None) => {
                    shared.let_go();
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, "the broker doesn't take our authentication any more");
                    shared.poison(error);
                    return;
                }
            }
            tracing::debug!(cluster = %shared.context.cluster, ?lifetime, "authenticated again");
            shared.let_go();
        }
    };
    closed.run_until_cancelled(keeping).await;
}

/// Anywhere between 85 and 95 % of the life, so that connections that began together don't all
/// come back together (the Java client does the same).
fn when(lifetime: Duration) -> Duration {
    lifetime.mul_f64(rand::rng().random_range(0.85..0.95))
}
