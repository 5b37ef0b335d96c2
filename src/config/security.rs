//! The part of a cluster section that says how connections are secured, resolved.

use std::path::PathBuf;

use super::secret::Secret;

/// How connections to a cluster are secured, in both clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecuritySection {
    /// TLS, with `SSL` and `SASL_SSL`.
    pub tls: Option<TlsSection>,
    /// Authentication, with `SASL_PLAINTEXT` and `SASL_SSL`.
    pub sasl: Option<SaslSection>,
}

impl SecuritySection {
    /// The value of `security.protocol`.
    pub fn protocol(&self) -> &'static str {
        match (&self.tls, &self.sasl) {
            (None, None) => "PLAINTEXT",
            (Some(_), None) => "SSL",
            (None, Some(_)) => "SASL_PLAINTEXT",
            (Some(_), Some(_)) => "SASL_SSL",
        }
    }
}

/// Something in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pem {
    /// In a file, which may change while we run.
    File(PathBuf),
    /// In the config.
    Inline(Secret),
}

/// TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSection {
    /// `ssl.ca.location` or `ssl.ca.pem`: whom to trust. `None`: whom the system trusts.
    pub ca: Option<Pem>,
    /// `ssl.certificate.*` and `ssl.key.*`: our certificate.
    pub identity: Option<IdentitySection>,
    /// What is checked of a broker.
    pub check: TlsCheck,
}

/// Our certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentitySection {
    /// `ssl.certificate.location` or `ssl.certificate.pem`: ours first, then those above it.
    pub certificate: Pem,
    /// `ssl.key.location` or `ssl.key.pem`.
    pub key: Pem,
    /// `ssl.key.password`.
    pub key_password: Option<Secret>,
}

/// What is checked of a broker's certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsCheck {
    /// Who signed it, and that it is for the host.
    #[default]
    ChainAndHost,
    /// Who signed it (`ssl.endpoint.identification.algorithm: none`).
    Chain,
    /// Nothing (`enable.ssl.certificate.verification: false`).
    Nothing,
}

/// Authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SaslSection {
    /// PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
    Password {
        /// `sasl.mechanism`.
        mechanism: PasswordMechanism,
        /// `sasl.username`.
        username: String,
        /// `sasl.password`.
        password: Secret,
    },
    /// OAUTHBEARER with tokens for client credentials.
    Oidc(OidcSection),
}

impl SaslSection {
    /// The value of `sasl.mechanism`.
    pub fn mechanism(&self) -> &'static str {
        match self {
            Self::Password { mechanism, .. } => match mechanism {
                PasswordMechanism::Plain => "PLAIN",
                PasswordMechanism::ScramSha256 => "SCRAM-SHA-256",
                PasswordMechanism::ScramSha512 => "SCRAM-SHA-512",
            },
            Self::Oidc(_) => "OAUTHBEARER",
        }
    }
}

/// A mechanism with user name and password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordMechanism {
    /// PLAIN.
    Plain,
    /// SCRAM-SHA-256.
    ScramSha256,
    /// SCRAM-SHA-512.
    ScramSha512,
}

/// `sasl.oauthbearer.*`: where tokens come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OidcSection {
    /// `sasl.oauthbearer.token.endpoint.url`: `https://` or `http://` each, asked in turn; at least one.
    pub token_urls: Vec<String>,
    /// `sasl.oauthbearer.client.id`.
    pub client_id: String,
    /// `sasl.oauthbearer.client.secret`.
    pub client_secret: Secret,
    /// `sasl.oauthbearer.scope`.
    pub scope: Option<String>,
    /// `https.ca.location`: whom to trust for the token's URL. `None`: whom the system trusts.
    pub ca: Option<PathBuf>,
}

/// Something in a section that works, but that somebody should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What it is.
    pub message: String,
    /// What would be better.
    pub hint: String,
}
