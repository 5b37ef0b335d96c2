//! One cluster section, and what its clients share.

use std::sync::Arc;

use super::librdkafka::{self, Context};
use super::oidc::Tokens;
use super::tls::TlsFiles;
use crate::config::{ClusterSection, PasswordMechanism, SaslSection};
use crate::wire::{Cluster, ClusterConfig, Sasl, ScramHash, Security};

/// The way into one cluster. Clients that are made of the same one share tokens, certificates and
/// TLS sessions. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Access {
    section: ClusterSection,
    tls: Option<Arc<TlsFiles>>,
    tokens: Option<Arc<Tokens>>,
}

impl Access {
    /// Reads no file and connects nothing yet.
    pub fn new(section: &ClusterSection) -> Self {
        let security = &section.security;
        let tls = security.tls.clone();
        let tokens = match &security.sasl {
            Some(SaslSection::Oidc(oidc)) => Some(Arc::new(Tokens::new(oidc.clone()))),
            _ => None,
        };
        Self {
            section: section.clone(),
            tls: tls.map(|tls| Arc::new(TlsFiles::new(tls))),
            tokens,
        }
    }

    /// The section.
    pub fn section(&self) -> &ClusterSection {
        &self.section
    }

    /// Our own client.
    pub fn cluster(&self) -> Cluster {
        let section = &self.section;
        let mut config = ClusterConfig::new(&section.name, section.bootstrap.clone());
        config.client_id.clone_from(&section.client_id);
        config.client_rack.clone_from(&section.client_rack);
        config.request_timeout = section.request_timeout;
        config.connect_timeout = section.connect_timeout;
        config.dial = section.environment.dial.clone();
        config.lacks.clone_from(&section.lacks);
        config.security = Security {
            tls: self.tls.clone().map(|tls| tls as _),
            sasl: self.sasl().map(Arc::new),
        };
        Cluster::new(config)
    }

    /// The configuration and the context of any rdkafka client.
    pub fn librdkafka(&self) -> (rdkafka::ClientConfig, Context) {
        librdkafka::client(&self.section, self.tokens.clone())
    }

    pub(super) fn tls(&self) -> Option<&TlsFiles> {
        self.tls.as_deref()
    }

    fn sasl(&self) -> Option<Sasl> {
        match self.section.security.sasl.as_ref()? {
            SaslSection::Password {
                mechanism,
                username,
                password,
            } => {
                let (username, password) = (username.clone(), password.to_secret_string());
                let scram = |hash, username, password| Sasl::Scram {
                    hash,
                    username,
                    password,
                };
                Some(match mechanism {
                    PasswordMechanism::Plain => Sasl::Plain { username, password },
                    PasswordMechanism::ScramSha256 => scram(ScramHash::Sha256, username, password),
                    PasswordMechanism::ScramSha512 => scram(ScramHash::Sha512, username, password),
                })
            }
            SaslSection::Oidc(_) => Some(Sasl::OauthBearer {
                tokens: self.tokens.clone()?,
            }),
        }
    }
}
