//! TLS for the server, with a certificate that can be replaced while it runs.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::certificate::{self, CertificateError, Files};
use crate::config::HttpTls;

/// How often the files are looked at. What is new must be the same twice: the two files of a
/// pair are rarely replaced at the same moment.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The server's side of TLS.
pub(super) struct Tls {
    paths: HttpTls,
    current: Arc<Current>,
    /// What `current` was made of.
    read: Files,
    /// Takes connections.
    pub acceptor: TlsAcceptor,
}

/// The certificate that new connections get.
struct Current(RwLock<Arc<CertifiedKey>>);

impl Current {
    /// A poisoned lock only means that somebody panicked; the value is still whole.
    fn get(&self) -> Arc<CertifiedKey> {
        let current = self.0.read().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }

    fn set(&self, new: CertifiedKey) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Current")
    }
}

impl ResolvesServerCert for Current {
    /// One certificate for every name: this server has no others.
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.get())
    }
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// When they can't be used.
    pub(super) fn open(paths: &HttpTls) -> Result<Self, CertificateError> {
        let read = certificate::files(paths)?;
        let certified = certificate::certified_key(paths, &read)?;
        let current = Arc::new(Current(RwLock::new(Arc::new(certified))));
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            // The provider is ours, and has suites for both versions.
            .expect("ring speaks TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(current.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            paths: paths.clone(),
            current,
            read,
            acceptor: TlsAcceptor::from(Arc::new(config)),
        })
    }

    /// Takes new files into use until cancelled. Files that can't be used change nothing, and
    /// are complained about once.
    pub(super) async fn follow_files(mut self, cancel: CancellationToken) {
        let mut before: Option<Seen> = None;
        let mut complaint: Option<String> = None;
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            // Opening an encrypted key takes a while by design.
            let paths = self.paths.clone();
            let Ok(seen) = tokio::task::spawn_blocking(move || Seen::now(&paths)).await else {
                continue;
            };
            let is_steady = before.as_ref() == Some(&seen);
            before = Some(seen);
            if !is_steady {
                continue;
            }
            match before.take() {
                Some(Seen::Files(files)) if files == self.read => complaint = None,
                Some(Seen::Files(files)) => {
                    let paths = self.paths.clone();
                    let judging = tokio::task::spawn_blocking(move || {
                        (certificate::certified_key(&paths, &files), files)
                    });
                    match judging.await {
                        Ok((Ok(certified), files)) => {
                            self.current.set(certified);
                            self.read = files;
                            complaint = None;
                            info!(
                                "the HTTP server has a new certificate, from {}",
                                self.paths.certificate.display()
                            );
                        }
                        Ok((Err(error), _)) => complain(&mut complaint, error.to_string()),
                        Err(crash) => complain(&mut complaint, crash.to_string()),
                    }
                }
                Some(Seen::Nothing(problem)) => complain(&mut complaint, problem),
                None => {}
            }
        }
    }
}

/// What was found at the paths.
#[derive(PartialEq, Eq)]
enum Seen {
    Files(Files),
    Nothing(String),
}

impl Seen {
    fn now(paths: &HttpTls) -> Self {
        match certificate::files(paths) {
            Ok(files) => Self::Files(files),
            Err(error) => Self::Nothing(error.to_string()),
        }
    }
}

fn complain(last: &mut Option<String>, problem: String) {
    if last.as_ref() != Some(&problem) {
        warn!("the HTTP server keeps its certificate; the new one can't be used: {problem}");
        *last = Some(problem);
    }
}
