//! Binding, serving, and ending without hanging on a slow reader.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::routes;
use crate::telemetry::progress::Registry;
use crate::telemetry::sampler;

/// After cancellation, answers under way get this long to be finished.
const FINISH_WITHIN: Duration = Duration::from_secs(1);

/// Binds the address.
///
/// # Errors
/// When it can't be bound; the error names the address and what to do.
pub async fn bind(listen: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(listen).await.map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "another process, perhaps another Twinlog, already listens there: stop it or \
                 set another http.listen"
            }
            io::ErrorKind::AddrNotAvailable => {
                "this machine doesn't have that address: set http.listen to one that it has, \
                 such as 127.0.0.1:8088"
            }
            io::ErrorKind::PermissionDenied => {
                "ports below 1024 need a privilege: set http.listen to a higher port"
            }
            _ => "set http.listen to an address that this machine can listen on",
        };
        io::Error::new(
            error.kind(),
            format!("can't listen on {listen} ({error}): {hint}"),
        )
    })
}

/// Binds `listen` and serves until cancelled.
///
/// # Errors
/// When the address can't be bound (the error says what to do) or accepting fails.
pub async fn serve(
    listen: SocketAddr,
    registry: Arc<Registry>,
    cancel: CancellationToken,
) -> io::Result<()> {
    let listener = bind(listen).await?;
    serve_on(listener, registry, cancel).await
}

/// Serves on a bound listener until cancelled. Samples the registry meanwhile, so rates
/// are there without anybody else doing so.
///
/// # Errors
/// When accepting connections fails for good.
pub async fn serve_on(
    listener: TcpListener,
    registry: Arc<Registry>,
    cancel: CancellationToken,
) -> io::Result<()> {
    let sampling = sampler::run(registry.clone(), cancel.child_token());
    let stop = cancel.clone();
    let serving = axum::serve(listener, routes::router(registry))
        .with_graceful_shutdown(async move { stop.cancelled().await });
    let overdue = async {
        cancel.cancelled().await;
        tokio::time::sleep(FINISH_WITHIN).await;
    };
    // The sampler ends on cancellation only, a little before the server; so it is joined
    // with the deadline and never ends the select by itself.
    tokio::select! {
        result = serving.into_future() => result,
        ((), ()) = async { tokio::join!(sampling, overdue) } => Ok(()),
    }
}
