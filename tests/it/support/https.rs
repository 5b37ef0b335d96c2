//! Certificates made for a test, and calls over TLS by a client that judges them as any does.

use std::io;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls::crypto::ring;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::ServerName;

use super::http::{self, Answer};

/// The name in every certificate made here.
const NAME: &str = "localhost";

/// Issues certificates, and is what a client trusts.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new([]).expect("no names to be wrong");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = CertifiedIssuer::self_signed(params, key());
        Self(issuer.expect("our own parameters"))
    }

    /// A certificate that is valid now.
    pub fn issue(&self) -> Pair {
        self.issue_until(2999)
    }

    /// One that no client should take any more.
    pub fn issue_expired(&self) -> Pair {
        self.issue_until(2001)
    }

    fn issue_until(&self, year: i32) -> Pair {
        let mut params = CertificateParams::new([NAME.to_owned()]).expect("a name");
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = key();
        let certificate = params.signed_by(&key, &self.0).expect("our own parameters");
        Pair {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    /// [`http::call`] over TLS, if the server's certificate is from this authority and valid.
    ///
    /// # Errors
    /// When it isn't (the text says why), or as [`http::call`].
    pub fn call(&self, address: &str, call: &str, headers: &[(&str, &str)]) -> io::Result<Answer> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("a certificate");
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring speaks TLS")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(NAME).expect("a name");
        let tls = ClientConnection::new(Arc::new(config), name).expect("a config");
        let mut stream = StreamOwned::new(tls, http::connect(address)?);
        http::exchange(&mut stream, call, headers)
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}
