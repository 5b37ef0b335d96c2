//! How connections to a cluster are secured. Where certificates, passwords and tokens come from is
//! for others to know.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use secrecy::SecretString;

/// TLS and authentication of a cluster; neither, by default.
#[derive(Clone, Debug, Default)]
pub struct Security {
    /// TLS, if connections use it.
    pub tls: Option<Arc<dyn TlsSettings>>,
    /// Who we are, if brokers ask.
    pub sasl: Option<Arc<Sasl>>,
}

impl Security {
    /// How we prove who we are, in a word.
    pub(super) fn mechanism(&self) -> &'static str {
        match &self.sasl {
            Some(sasl) => sasl.mechanism(),
            None => "a certificate",
        }
    }
}

/// Why something that a connection needs can't be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// What is missing or wrong.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

/// Gives the TLS settings for a new connection.
pub trait TlsSettings: fmt::Debug + Send + Sync {
    /// The same settings as before, unless a certificate was renewed: sessions are resumed through
    /// them.
    ///
    /// # Errors
    /// When a file can't be read or used.
    fn current(&self) -> Result<Arc<rustls::ClientConfig>, Lack>;
}

/// Who we are and how we prove it.
#[derive(Clone, Debug)]
pub enum Sasl {
    /// PLAIN: the password itself.
    Plain {
        /// User name.
        username: String,
        /// Password.
        password: SecretString,
    },
    /// SCRAM: a proof that we know the password, and one of the broker that it knows it too.
    Scram {
        /// Which hash.
        hash: ScramHash,
        /// User name.
        username: String,
        /// Password.
        password: SecretString,
    },
    /// OAUTHBEARER: a token.
    OauthBearer {
        /// Where tokens come from.
        tokens: Arc<dyn TokenSource>,
    },
}

/// The hash of SCRAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScramHash {
    /// SCRAM-SHA-256.
    Sha256,
    /// SCRAM-SHA-512.
    Sha512,
}

impl Sasl {
    /// The name of the mechanism in the protocol.
    pub fn mechanism(&self) -> &'static str {
        match self {
            Self::Plain { .. } => "PLAIN",
            Self::Scram { hash, .. } => match hash {
                ScramHash::Sha256 => "SCRAM-SHA-256",
                ScramHash::Sha512 => "SCRAM-SHA-512",
            },
            Self::OauthBearer { .. } => "OAUTHBEARER",
        }
    }
}

/// Gives tokens for OAUTHBEARER.
pub trait TokenSource: fmt::Debug + Send + Sync {
    /// A token that is valid now, within bounded time.
    fn token(&self) -> TokenFuture<'_>;
}

/// A token that is on its way.
pub type TokenFuture<'a> = Pin<Box<dyn Future<Output = Result<Token, Lack>> + Send + 'a>>;

/// A bearer token.
#[derive(Clone, Debug)]
pub struct Token {
    /// The token itself.
    pub value: SecretString,
    /// Whom it stands for, as far as can be told.
    pub principal: String,
    /// When it ends.
    pub expires: SystemTime,
}
