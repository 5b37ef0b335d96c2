//! Certificates of the test's own making.

use std::sync::Arc;

use pkcs8::der::pem::LineEnding;
use pkcs8::pkcs5::pbes2;
use pkcs8::{PrivateKeyInfoRef, SecretDocument};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio_rustls::TlsAcceptor;

/// Signs certificates.
pub(super) struct Authority {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key.
pub(super) struct Signed {
    pub(super) certificate: rcgen::Certificate,
    pub(super) key: KeyPair,
}

fn named(name: &str, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts).expect("good names");
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = named("the test's authority", &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("signs");
        let issuer = Issuer::new(params, key);
        Self {
            certificate,
            issuer,
        }
    }

    pub(super) fn pem(&self) -> String {
        self.certificate.pem()
    }

    pub(super) fn sign(&self, name: &str, hosts: &[&str]) -> Signed {
        self.sign_with(named(name, hosts))
    }

    /// One that was over long ago.
    pub(super) fn sign_expired(&self, hosts: &[&str]) -> Signed {
        let mut params = named("expired", hosts);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        self.sign_with(params)
    }

    /// One that begins in a far future.
    pub(super) fn sign_early(&self, hosts: &[&str]) -> Signed {
        let mut params = named("early", hosts);
        params.not_before = date_time_ymd(3000, 1, 1);
        self.sign_with(params)
    }

    fn sign_with(&self, params: CertificateParams) -> Signed {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signs");
        Signed { certificate, key }
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).expect("good");
        Arc::new(roots)
    }
}

impl Signed {
    /// The key, encrypted as `openssl pkcs8 -topk8` does it.
    pub(super) fn encrypted_key(&self, password: &str) -> String {
        let der = self.key.serialize_der();
        let info = PrivateKeyInfoRef::try_from(der.as_slice()).expect("PKCS#8");
        let (salt, iv) = (&[7; 16], [9; 16]);
        let params = pbes2::Parameters::generate_pbkdf2_sha256_aes256cbc(2048, salt, iv);
        let document: SecretDocument = info
            .encrypt_with_params(params.expect("good"), password)
            .expect("encrypts");
        let pem = document.to_pem("ENCRYPTED PRIVATE KEY", LineEnding::LF);
        pem.expect("encodes").to_string()
    }
}

/// The same certificate as if it were of X.509 version 1; its signature is looked at later than that.
pub(super) fn of_version_1(signed: &Signed) -> CertificateDer<'static> {
    // `version [0] EXPLICIT INTEGER`: v3 is 2, v1 is 0.
    const VERSION_3: [u8; 5] = [0xa0, 3, 2, 1, 2];
    let mut der = signed.certificate.der().to_vec();
    let at = der.windows(5).position(|it| it == VERSION_3);
    der[at.expect("a version") + 4] = 0;
    CertificateDer::from(der)
}

/// As a file has it.
pub(super) fn pem_of(certificate: &CertificateDer<'_>) -> String {
    let text = crate::connect::text::base64(certificate);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

/// A broker's side of TLS that shows a certificate of version 1, as Java's does.
pub(super) fn acceptor_of_version_1(signed: &Signed) -> TlsAcceptor {
    let provider = rustls::crypto::ring::default_provider();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signed.key.serialize_der()));
    let key = provider.key_provider.load_private_key(key);
    let certified = CertifiedKey::new(vec![of_version_1(signed)], key.expect("a good key"));
    let config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .expect("good versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    TlsAcceptor::from(Arc::new(config))
}

/// A broker's side of TLS; with `clients`, it wants a certificate that they signed.
pub(super) fn acceptor(
    signed: &Signed,
    clients: Option<&Authority>,
    versions: &[&'static SupportedProtocolVersion],
) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .expect("good versions");
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(clients.roots(), provider);
            builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
        }
    };
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signed.key.serialize_der()));
    let config = builder
        .with_single_cert(vec![signed.certificate.der().clone()], key)
        .expect("a good certificate");
    TlsAcceptor::from(Arc::new(config))
}
