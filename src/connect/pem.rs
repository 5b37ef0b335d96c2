//! Certificates and keys out of PEM, with errors that say what to do.

use pkcs8::{EncryptedPrivateKeyInfoRef, SecretDocument};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::config::{Pem, Secret};
use crate::wire::Lack;

const ENCRYPTED_BEGIN: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
const ENCRYPTED_END: &str = "-----END ENCRYPTED PRIVATE KEY-----";

fn lack(message: String, hint: impl Into<String>) -> Lack {
    Lack {
        message,
        hint: hint.into(),
    }
}

/// The text, with how to speak of it: the property and the file.
fn text(pem: &Pem, property: &str) -> Result<(Secret, String), Lack> {
    match pem {
        Pem::Inline(text) => Ok((text.clone(), format!("{property}.pem"))),
        Pem::File(path) => {
            let place = format!("{property}.location {}", path.display());
            let text = std::fs::read_to_string(path).map_err(|error| {
                let hint = "the process must be able to read it";
                lack(format!("{place} can't be read: {error}"), hint)
            })?;
            Ok((Secret::from(text), place))
        }
    }
}

/// All certificates, at least one. `property` is `ssl.ca`, for example.
pub(super) fn certificates(
    pem: &Pem,
    property: &str,
) -> Result<Vec<CertificateDer<'static>>, Lack> {
    let (text, place) = text(pem, property)?;
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(text.expose().as_bytes()).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(lack(
            format!("{place} has no certificate in it"),
            "it must be PEM: `-----BEGIN CERTIFICATE-----`",
        )),
        Err(error) => Err(lack(format!("{place} is broken PEM: {error}"), "")),
    }
}

/// The private key, decrypted if it must be.
pub(super) fn key(pem: &Pem, password: Option<&Secret>) -> Result<PrivateKeyDer<'static>, Lack> {
    let (text, place) = text(pem, "ssl.key")?;
    let text = text.expose();
    if let Some(encrypted) = encrypted_block(text) {
        return decrypt(encrypted, &place, password);
    }
    if text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(lack(
            format!("{place} is encrypted in OpenSSL's old way, which only librdkafka can read"),
            "convert it: openssl pkcs8 -topk8 -v2 aes-256-cbc -in OLD -out NEW",
        ));
    }
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| {
        let hint = "it must be PEM: `-----BEGIN PRIVATE KEY-----`";
        lack(format!("{place} has no usable key: {error}"), hint)
    })
}

fn encrypted_block(text: &str) -> Option<&str> {
    let start = text.find(ENCRYPTED_BEGIN)?;
    let length = text[start..].find(ENCRYPTED_END)? + ENCRYPTED_END.len();
    Some(&text[start..start + length])
}

fn decrypt(
    block: &str,
    place: &str,
    password: Option<&Secret>,
) -> Result<PrivateKeyDer<'static>, Lack> {
    let Some(password) = password else {
        let message = format!("{place} is encrypted, and there is no password for it");
        return Err(lack(message, "set ssl.key.password"));
    };
    let (_, document) = SecretDocument::from_pem(block)
        .map_err(|error| lack(format!("{place} is broken PEM: {error}"), ""))?;
    let info = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes()).map_err(|error| {
        lack(
            format!("{place} is encrypted in an unknown way: {error}"),
            CONVERT,
        )
    })?;
    let key = info.decrypt(password.expose()).map_err(|error| {
        lack(
            format!("{place} can't be decrypted: {error}"),
            format!("check ssl.key.password; if it is right, {CONVERT}"),
        )
    })?;
    let key = PrivatePkcs8KeyDer::from(key.as_bytes().to_vec());
    Ok(PrivateKeyDer::Pkcs8(key))
}

const CONVERT: &str = "convert the key: openssl pkcs8 -topk8 -v2 aes-256-cbc -in OLD -out NEW";
