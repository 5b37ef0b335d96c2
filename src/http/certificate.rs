//! The server's certificate and key, from PEM files.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustls::crypto::ring;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::config::HttpTls;
use crate::wire::{VERSION_3_HINT, is_of_version_1};

/// A chain of certificates and a key are far smaller.
const FILE_BYTES_MAX: u64 = 1 << 20;
const ENCRYPTED_LABEL: &str = "ENCRYPTED PRIVATE KEY";
/// How OpenSSL before 1.0 encrypted keys: within the unencrypted format.
const ENCRYPTED_OLD: &str = "Proc-Type: 4,ENCRYPTED";

/// Why the certificate can't be used, with what to do. Never has a part of a file in it.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file can't be read.
    #[error("{key}: cannot read {}: {source}", path.display())]
    Unreadable {
        /// The key of the config that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file isn't what its key asks for.
    #[error("{key}: {}: {problem}", path.display())]
    Unusable {
        /// The key of the config that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// Both are good, but not for each other.
    #[error(
        "http.tls: the key {} is not the one of the first certificate in {}: the server's own \
         certificate must come first, those of its authorities behind it", key.display(),
        certificate.display()
    )]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
}

/// What is in the two files.
#[derive(PartialEq, Eq)]
pub(super) struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// Reads both files, without judging them.
///
/// # Errors
/// When one can't be read.
pub(super) fn files(tls: &HttpTls) -> Result<Files, CertificateError> {
    let read = |key, path: &Path| {
        content(path).map_err(|source| CertificateError::Unreadable {
            key,
            path: path.to_owned(),
            source,
        })
    };
    Ok(Files {
        certificate: read("http.tls.certificate", &tls.certificate)?,
        key: read("http.tls.key", &tls.key)?,
    })
}

fn content(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut content)?;
    if content.len() as u64 > FILE_BYTES_MAX {
        let message = format!("it is larger than {FILE_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(content)
}

/// The certificates of a PEM text, in its order; at least one.
///
/// # Errors
/// What is wrong with the text.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("is not PEM: {error}"))?;
    if found.is_empty() {
        return Err(
            "has no certificate; it must have PEM, beginning with `-----BEGIN \
                    CERTIFICATE-----`"
                .to_owned(),
        );
    }
    Ok(found)
}

/// The certificate with its key, ready to sign with.
///
/// # Errors
/// When one of them can't be used, or they don't belong together.
pub(super) fn certified_key(
    tls: &HttpTls,
    files: &Files,
) -> Result<CertifiedKey, CertificateError> {
    let unusable = |key, path: &Path, problem| CertificateError::Unusable {
        key,
        path: path.to_owned(),
        problem,
    };
    let bad_certificate = |problem| unusable("http.tls.certificate", &tls.certificate, problem);
    let bad_key = |problem| unusable("http.tls.key", &tls.key, problem);

    let chain = certificates(&files.certificate).map_err(bad_certificate)?;
    let password = tls.key_password.as_ref().map(|password| password.expose());
    let key = private_key(&files.key, password).map_err(bad_key)?;
    let key = ring::sign::any_supported_type(&key)
        .map_err(|error| bad_key(format!("has a key that can't be used: {error}")))?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {
            Ok(certified)
        }
        Err(rustls::Error::InconsistentKeys(_)) => Err(CertificateError::Mismatch {
            certificate: tls.certificate.clone(),
            key: tls.key.clone(),
        }),
        Err(rustls::Error::InvalidCertificate(why)) if is_of_version_1(&why) => {
            let problem = format!("its first certificate is of X.509 version 1: {VERSION_3_HINT}");
            Err(bad_certificate(problem))
        }
        Err(error) => Err(bad_certificate(format!(
            "its first certificate can't be used: {error}"
        ))),
    }
}

fn private_key(pem: &[u8], password: Option<&str>) -> Result<PrivateKeyDer<'static>, String> {
    let text = String::from_utf8_lossy(pem);
    if text.contains(ENCRYPTED_OLD) {
        return Err(
            "its key is encrypted in an old format; write it anew with `openssl pkcs8 \
                    -topk8 -in KEY`, and set `key_password`"
                .to_owned(),
        );
    }
    if let Some(begin) = text.find(&format!("-----BEGIN {ENCRYPTED_LABEL}-----")) {
        let password = password
            .ok_or("its key is encrypted; set `key_password`, such as `file:PATH` or `${NAME}`")?;
        return decrypted(&text[begin..], password);
    }
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        rustls_pki_types::pem::Error::NoItemsFound => {
            "has no private key; it must have PEM, such as `-----BEGIN PRIVATE KEY-----`".to_owned()
        }
        error => format!("is not PEM: {error}"),
    })
}

fn decrypted(pem: &str, password: &str) -> Result<PrivateKeyDer<'static>, String> {
    let (_, document) =
        pkcs8::SecretDocument::from_pem(pem).map_err(|error| format!("is not PEM: {error}"))?;
    let encrypted = pkcs8::EncryptedPrivateKeyInfoRef::try_from(document.as_bytes())
        .map_err(|error| format!("its key is encrypted in an unknown way: {error}"))?;
    let key = encrypted
        .decrypt(password)
        .map_err(|error| format!("its key isn't opened by `key_password`: {error}"))?;
    Ok(PrivatePkcs8KeyDer::from(key.as_bytes().to_vec()).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    struct Pair {
        folder: tempfile::TempDir,
        tls: HttpTls,
    }

    impl Pair {
        fn write(&self, name: &str, text: impl AsRef<[u8]>) {
            std::fs::write(self.folder.path().join(name), text).expect("writes");
        }

        fn read(&self) -> Result<CertifiedKey, String> {
            files(&self.tls)
                .and_then(|files| certified_key(&self.tls, &files))
                .map_err(|error| error.to_string())
        }
    }

    fn issued() -> rcgen::CertifiedKey<rcgen::KeyPair> {
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate")
    }

    fn pair() -> Pair {
        let folder = tempfile::TempDir::new().expect("a folder");
        let tls = HttpTls {
            certificate: folder.path().join("crt"),
            key: folder.path().join("key"),
            key_password: None,
        };
        let pair = Pair { folder, tls };
        let made = issued();
        pair.write("crt", made.cert.pem());
        pair.write("key", made.signing_key.serialize_pem());
        pair
    }

    #[test]
    fn a_good_pair_is_taken_also_from_one_file() {
        let mut pair = pair();
        pair.read().expect("a pair");
        let both = [&pair.tls.key, &pair.tls.certificate]
            .map(|path| std::fs::read_to_string(path).expect("reads"))
            .concat();
        pair.write("both", both);
        pair.tls.certificate = pair.folder.path().join("both");
        pair.tls.key = pair.tls.certificate.clone();
        pair.read().expect("a pair");
    }

    #[test]
    fn what_is_wrong_is_said_and_what_to_do() {
        let other = issued();
        let other_key = other.signing_key.serialize_pem();
        let broken = "-----BEGIN CERTIFICATE-----\n%%%%\n-----END CERTIFICATE-----\n";
        let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n\
                   -----END RSA PRIVATE KEY-----\n";
        for (name, text, problem) in [
            ("crt", "", "has no certificate"),
            ("crt", &*other_key, "has no certificate"),
            ("crt", broken, "is not PEM"),
            ("crt", nonsense, "its first certificate can't be used"),
            ("key", "hello", "has no private key"),
            ("key", &*other.cert.pem(), "has no private key"),
            (
                "key",
                &*other_key,
                "is not the one of the first certificate",
            ),
            ("key", old, "openssl pkcs8 -topk8"),
        ] {
            let pair = pair();
            pair.write(name, text);
            let found = pair.read().expect_err(problem);
            assert!(found.contains(problem), "{problem}: {found}");
            let path = pair.folder.path().join(name).display().to_string();
            assert!(found.contains(&path), "no file is named: {found}");
        }
        let pair = pair();
        std::fs::remove_file(&pair.tls.key).expect("removes");
        let found = pair.read().expect_err("missing");
        assert!(found.contains("http.tls.key: cannot read"), "{found}");
    }

    #[test]
    fn an_encrypted_key_needs_its_password() {
        let mut pair = pair();
        let made = issued();
        let der = made.signing_key.serialize_der();
        let key = pkcs8::PrivateKeyInfoRef::try_from(&*der).expect("PKCS#8");
        let method = pkcs8::pkcs5::pbes2::Parameters::generate_pbkdf2_sha256_aes256cbc(
            1_000,
            b"some salt",
            [7; 16],
        );
        let encrypted = key
            .encrypt_with_params(method.expect("a method"), "right-password")
            .expect("encrypts");
        let pem = encrypted
            .to_pem(ENCRYPTED_LABEL, pkcs8::LineEnding::LF)
            .expect("PEM");
        pair.write("crt", made.cert.pem());
        pair.write("key", pem.as_bytes());
        let found = pair.read().expect_err("no password");
        assert!(found.contains("set `key_password`"), "{found}");
        pair.tls.key_password = Some(Secret::from("wrong-password".to_owned()));
        let found = pair.read().expect_err("a wrong one");
        assert!(found.contains("isn't opened by"), "{found}");
        assert!(!found.contains("wrong-password"), "{found}");
        pair.tls.key_password = Some(Secret::from("right-password".to_owned()));
        pair.read().expect("opened");
    }
}
