//! The TLS settings of a cluster, made of its PEM files, and made anew when these change.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::crypto::{CryptoProvider, ring};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;

use super::pem;
use super::verifiers::Weak;
use crate::config::{Pem, TlsCheck, TlsSection};
use crate::wire::{Lack, TlsSettings, VERSION_3_HINT, is_of_version_1};

/// The settings as they were made of the files.
#[derive(Debug)]
pub(super) struct TlsFiles {
    section: TlsSection,
    built: Mutex<Option<Built>>,
}

#[derive(Debug)]
struct Built {
    stamps: Vec<Stamp>,
    config: Arc<ClientConfig>,
}

/// When a file was changed and how long it is; `None` for one that isn't there.
type Stamp = Option<(SystemTime, u64)>;

impl TlsFiles {
    pub(super) fn new(section: TlsSection) -> Self {
        Self {
            section,
            built: Mutex::default(),
        }
    }

    /// Our certificates, ours first; none without one.
    pub(super) fn own_certificates(&self) -> Result<Vec<CertificateDer<'static>>, Lack> {
        match &self.section.identity {
            Some(identity) => pem::certificates(&identity.certificate, "ssl.certificate"),
            None => Ok(Vec::new()),
        }
    }

    fn stamps(&self) -> Vec<Stamp> {
        let identity = self.section.identity.as_ref();
        let ours = identity.map(|identity| [&identity.certificate, &identity.key]);
        let all = self.section.ca.iter().chain(ours.into_iter().flatten());
        all.filter_map(|pem| match pem {
            Pem::File(path) => Some(stamp(path)),
            Pem::Inline(_) => None,
        })
        .collect()
    }

    fn build(&self) -> Result<ClientConfig, Lack> {
        let provider = provider();
        let check = self.section.check;
        let roots = match check {
            TlsCheck::Nothing => RootCertStore::empty(),
            _ => roots(self.section.ca.as_ref(), "ssl.ca")?,
        };
        let builder = versions(&provider)?;
        let builder = match check {
            TlsCheck::ChainAndHost => builder.with_root_certificates(roots),
            TlsCheck::Chain | TlsCheck::Nothing => {
                let roots = (check == TlsCheck::Chain).then_some(roots);
                let verifier = Weak { roots, provider };
                builder
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(verifier))
            }
        };
        let Some(identity) = &self.section.identity else {
            return Ok(builder.with_no_client_auth());
        };
        let certificates = pem::certificates(&identity.certificate, "ssl.certificate")?;
        let key = pem::key(&identity.key, identity.key_password.as_ref())?;
        builder
            .with_client_auth_cert(certificates, key)
            .map_err(unusable)
    }
}

fn unusable(error: rustls::Error) -> Lack {
    match &error {
        rustls::Error::InvalidCertificate(why) if is_of_version_1(why) => Lack {
            message: "ssl.certificate is of X.509 version 1".to_owned(),
            hint: VERSION_3_HINT.to_owned(),
        },
        _ => Lack {
            message: format!("ssl.certificate and ssl.key can't be used: {error}"),
            hint: "the key must be the certificate's: RSA, ECDSA (P-256, P-384) or Ed25519"
                .to_owned(),
        },
    }
}

impl TlsSettings for TlsFiles {
    fn current(&self) -> Result<Arc<ClientConfig>, Lack> {
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = self.stamps();
        if let Some(built) = built.as_ref()
            && built.stamps == stamps
        {
            return Ok(built.config.clone());
        }
        match (self.build(), built.as_ref()) {
            (Ok(config), _) => {
                let config = Arc::new(config);
                *built = Some(Built {
                    stamps,
                    config: config.clone(),
                });
                Ok(config)
            }
            // Renewing takes a moment: a certificate may be there before its key.
            (Err(lack), Some(before)) => {
                tracing::warn!("{}; what was read before is used", lack.message);
                Ok(before.config.clone())
            }
            (Err(lack), None) => Err(lack),
        }
    }
}

/// TLS settings for an HTTPS server that is trusted by `ca`, or by the system.
pub(super) fn https(ca: Option<&Path>) -> Result<ClientConfig, Lack> {
    let ca = ca.map(|path| Pem::File(path.to_owned()));
    let roots = roots(ca.as_ref(), "https.ca")?;
    let builder = versions(&provider())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn versions(
    provider: &Arc<CryptoProvider>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, Lack> {
    ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| Lack {
            message: error.to_string(),
            hint: String::new(),
        })
}

fn roots(ca: Option<&Pem>, property: &str) -> Result<RootCertStore, Lack> {
    let mut roots = RootCertStore::empty();
    let Some(ca) = ca else {
        let found = rustls_native_certs::load_native_certs();
        // Systems have certificates that no client can use: that is no reason to stop.
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            return Err(Lack {
                message: "this system trusts no certificate authority".to_owned(),
                hint: format!("set {property}.location, or install the system's CA certificates"),
            });
        }
        return Ok(roots);
    };
    for certificate in pem::certificates(ca, property)? {
        roots.add(certificate).map_err(|error| Lack {
            message: format!("{property} has a certificate that can't be used: {error}"),
            hint: String::new(),
        })?;
    }
    Ok(roots)
}

fn stamp(path: &Path) -> Stamp {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// TLS settings that trust nobody, for a connector that is only used without TLS.
pub(super) fn https_unused() -> Result<ClientConfig, Lack> {
    let builder = versions(&provider())?;
    let roots = RootCertStore::empty();
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
