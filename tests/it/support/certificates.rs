//! Certificates for the clusters of a test, made when it runs: an authority of each cluster's own,
//! and what it signs.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};

/// What a broker shows to its clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerCertificate {
    /// One that clients can trust.
    #[default]
    Valid,
    /// It ended years ago.
    Expired,
    /// For another host than the one that clients connect to.
    WrongName,
    /// By an authority that clients were told nothing of.
    ForeignAuthority,
}

/// A certificate authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key (PKCS#8), as PEM.
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

/// Where a client's certificate is.
#[derive(Clone, Debug)]
pub struct ClientFiles {
    /// The certificate.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
    /// Both in one file, as Java's clients want it.
    pub both: PathBuf,
}

impl Authority {
    /// A new one, with a key of its own.
    pub fn new(name: &str) -> Self {
        let mut params = params(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, key()).expect("the parameters are complete"))
    }

    /// Its own certificate: what a client has to trust.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// What a broker on 127.0.0.1 shows. [`ServerCertificate::ForeignAuthority`] is not ours to
    /// give: another [`Authority`] signs that.
    pub fn server(&self, kind: ServerCertificate) -> Issued {
        let mut params = match kind {
            ServerCertificate::WrongName => params("elsewhere", &["elsewhere.invalid"]),
            _ => params("broker", &["127.0.0.1", "::1", "localhost"]),
        };
        if kind == ServerCertificate::Expired {
            params.not_after = date_time_ymd(2020, 1, 1);
        }
        self.sign(params, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client's certificate. Its brokers take the common name for the principal's.
    pub fn client(&self, common_name: &str) -> Issued {
        self.sign(
            params(common_name, &[]),
            ExtendedKeyUsagePurpose::ClientAuth,
        )
    }

    fn sign(&self, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Issued {
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let key = key();
        let certificate = params
            .signed_by(&key, &self.0)
            .expect("the parameters are complete");
        Issued {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

impl Issued {
    /// Key, certificate and authority in one text: a PEM key store of Kafka's.
    pub fn key_store(&self, authority: &Authority) -> String {
        format!("{}{}{}", self.key, self.certificate, authority.pem())
    }

    /// Writes a client's files to a folder.
    pub fn write(&self, folder: &Path, name: &str) -> ClientFiles {
        let files = ClientFiles {
            certificate: folder.join(format!("{name}.crt")),
            key: folder.join(format!("{name}.key")),
            both: folder.join(format!("{name}.pem")),
        };
        let both = format!("{}{}", self.key, self.certificate);
        let texts = [
            (&files.certificate, &self.certificate),
            (&files.key, &self.key),
            (&files.both, &both),
        ];
        for (path, text) in texts {
            std::fs::write(path, text).expect("our folder is writable");
        }
        files
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("the system has random numbers")
}

fn params(common_name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names that are ASCII");
    // Not rcgen's own dates, which end in 4096: some TLS libraries can't tell years that far.
    params.not_before = date_time_ymd(2019, 1, 1);
    params.not_after = date_time_ymd(2049, 1, 1);
    let subject = &mut params.distinguished_name;
    subject.push(DnType::CommonName, common_name);
    params
}
