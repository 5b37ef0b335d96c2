//! Binding, serving, and ending without hanging on a slow reader.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::access::Access;
use super::certificate::CertificateError;
use super::tls::Tls;
use super::{connections, routes};
use crate::config::HttpConfig;
use crate::telemetry::progress::Registry;
use crate::telemetry::sampler;

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

/// Who is let in, and how: TLS, or not, and tokens.
#[derive(Default)]
pub struct Door {
    tls: Option<Tls>,
    access: Access,
}

impl Door {
    /// The door that the config describes. Reads the certificate.
    ///
    /// # Errors
    /// When the certificate can't be used; the error says what to do.
    pub fn open(config: &HttpConfig) -> Result<Self, CertificateError> {
        Ok(Self {
            tls: config.tls.as_ref().map(Tls::open).transpose()?,
            access: Access::of(config),
        })
    }

    /// `https`, or `http` without TLS.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}

/// Binds `listen` and serves until cancelled.
///
/// # Errors
/// When the address can't be bound; the error says what to do.
pub async fn serve(
    listen: SocketAddr,
    door: Door,
    registry: Arc<Registry>,
    cancel: CancellationToken,
) -> io::Result<()> {
    let listener = bind(listen).await?;
    serve_on(listener, door, registry, cancel).await;
    Ok(())
}

/// Serves on a bound listener until cancelled. Samples the registry meanwhile, so rates
/// are there without anybody else doing so.
pub async fn serve_on(
    listener: TcpListener,
    door: Door,
    registry: Arc<Registry>,
    cancel: CancellationToken,
) {
    let acceptor = door.tls.as_ref().map(|tls| tls.acceptor.clone());
    let following = async {
        if let Some(tls) = door.tls {
            tls.follow_files(cancel.clone()).await;
        }
    };
    let router = routes::router(registry.clone(), door.access);
    // All three end on cancellation, and only then.
    tokio::join!(
        sampler::run(registry, cancel.clone()),
        following,
        connections::serve(listener, acceptor, router, cancel.clone()),
    );
}
