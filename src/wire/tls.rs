//! TLS on a new connection, and what its errors mean.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::{AlertDescription, CertificateError, ProtocolVersion};
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::error::{ACCEPTED, ErrorContext, TlsProblem, WireError};
use super::security::TlsSettings;
use super::transport::{ReadHalf, WriteHalf};

const PLAINTEXT_HINT: &str =
    "if this is a plaintext port, set security.protocol to PLAINTEXT or SASL_PLAINTEXT";
const CERTIFICATE_HINT: &str =
    "the broker may want a certificate: check ssl.certificate.location and ssl.key.location";

/// What a TLS connection turned out to be.
#[derive(Clone, Debug)]
pub struct TlsFacts {
    /// For example `TLS 1.3`.
    pub version: &'static str,
    /// The broker's own certificate, in DER.
    pub certificate: Option<Vec<u8>>,
}

/// Makes a TLS connection of a connection to `address` (`host:port`) within `timeout`.
pub(super) async fn secure(
    (reader, writer): (ReadHalf, WriteHalf),
    settings: &dyn TlsSettings,
    address: &str,
    timeout: Duration,
    context: &ErrorContext,
) -> Result<((ReadHalf, WriteHalf), TlsFacts), WireError> {
    let config = settings.current().map_err(|lack| WireError::Tls {
        context: Arc::new(context.clone()),
        problem: TlsProblem::Local,
        message: lack.message,
        hint: lack.hint,
    })?;
    let host = host_of(address);
    let name = ServerName::try_from(host.to_owned()).map_err(|_| WireError::Tls {
        context: Arc::new(context.clone()),
        problem: TlsProblem::Local,
        message: format!("`{host}` can't be the name in a certificate"),
        hint: "check the broker's advertised.listeners".to_owned(),
    })?;
    let stream = tokio::io::join(reader, writer);
    let connecting = TlsConnector::from(config).connect(name, stream);
    match tokio::time::timeout(timeout, connecting).await {
        Ok(Ok(stream)) => {
            let facts = facts(stream.get_ref().1);
            let (reader, writer) = tokio::io::split(stream);
            Ok(((Box::new(reader), Box::new(writer)), facts))
        }
        Ok(Err(error)) => Err(of_handshake(&error, context)),
        Err(_) => Err(WireError::Silent {
            context: Arc::new(context.clone()),
            what: ACCEPTED,
            after: timeout,
        }),
    }
}

fn facts(session: &rustls::ClientConnection) -> TlsFacts {
    let certificates = session.peer_certificates().unwrap_or_default();
    TlsFacts {
        version: match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
            Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
            _ => "TLS",
        },
        certificate: certificates.first().map(|certificate| certificate.to_vec()),
    }
}

/// The host in `host:port`, without the brackets of an IPv6 address.
fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

fn of_handshake(error: &io::Error, context: &ErrorContext) -> WireError {
    if let Some(error) = of_io(error, context) {
        return error;
    }
    WireError::Tls {
        context: Arc::new(context.clone()),
        problem: TlsProblem::BrokerSpeaksPlaintext,
        message: format!("the broker closed the connection in the handshake ({error})"),
        hint: PLAINTEXT_HINT.to_owned(),
    }
}

/// The error of TLS in an error of reading or writing, if it is one. Also after the handshake: in
/// TLS 1.3 the broker judges our certificate when we are through.
pub(super) fn of_io(error: &io::Error, context: &ErrorContext) -> Option<WireError> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let (problem, message, hint) = explain(error);
    Some(WireError::Tls {
        context: Arc::new(context.clone()),
        problem,
        message,
        hint,
    })
}

/// What is said of a broker that wants another certificate, or no more connections.
pub(super) const CLOSED: &str = "the broker closed the connection after the handshake";

/// The broker hung up right after the handshake, before it answered anything.
pub(super) fn closed_after_handshake(error: &WireError) -> Option<WireError> {
    let context = match error {
        WireError::Disconnected { context } | WireError::Io { context, .. } => context.clone(),
        _ => return None,
    };
    Some(WireError::Tls {
        context,
        problem: TlsProblem::Refused,
        message: format!("{CLOSED} ({})", error.kind()),
        hint: CERTIFICATE_HINT.to_owned(),
    })
}

/// Bytes of TLS where the length of an answer should be: an alert (0x15), version 3.1 to 3.4.
pub(super) fn is_tls_alert(length: [u8; 4]) -> bool {
    matches!(length, [0x15, 0x03, 0x00..=0x04, 0x00])
}

/// The broker answered plaintext with TLS.
pub(super) fn broker_wants_tls(context: &ErrorContext) -> WireError {
    WireError::Tls {
        context: Arc::new(context.clone()),
        problem: TlsProblem::BrokerWantsTls,
        message: "the broker speaks TLS on this port, and this client doesn't".to_owned(),
        hint: "set security.protocol to SSL or SASL_SSL".to_owned(),
    }
}

fn explain(error: &rustls::Error) -> (TlsProblem, String, String) {
    let (problem, message, hint) = match error {
        rustls::Error::InvalidCertificate(error) => return explain_certificate(error),
        rustls::Error::InvalidMessage(_) => (
            TlsProblem::BrokerSpeaksPlaintext,
            "what the broker answers isn't TLS".to_owned(),
            PLAINTEXT_HINT,
        ),
        rustls::Error::AlertReceived(alert) => {
            let hint = match alert {
                AlertDescription::CertificateRequired
                | AlertDescription::BadCertificate
                | AlertDescription::HandshakeFailure
                | AlertDescription::AccessDenied => CERTIFICATE_HINT,
                AlertDescription::CertificateExpired => {
                    "our certificate is over: renew the one in ssl.certificate.location"
                }
                AlertDescription::UnknownCA | AlertDescription::CertificateUnknown => {
                    "the broker doesn't trust who signed our certificate: check \
                     ssl.certificate.location and the broker's truststore"
                }
                AlertDescription::ProtocolVersion => "the broker must speak TLS 1.2 or 1.3",
                _ => "",
            };
            let message = format!("the broker refused the connection: {alert:?}");
            (TlsProblem::Refused, message, hint)
        }
        rustls::Error::PeerIncompatible(reason) => (
            TlsProblem::Refused,
            format!("the broker and we have no TLS in common: {reason:?}"),
            "the broker must speak TLS 1.2 or 1.3",
        ),
        other => (TlsProblem::Other, other.to_string(), ""),
    };
    (problem, message, hint.to_owned())
}

/// What makes a certificate one that rustls takes.
pub const VERSION_3_HINT: &str = "have it made anew with a subjectAltName, for which X.509 version 3 is needed: `openssl x509 -req` leaves \
     that out without -extfile or -copy_extensions";

/// Whether a certificate is older than X.509 version 3, which Java and OpenSSL take and rustls doesn't: it only has
/// that error's name.
pub fn is_of_version_1(error: &CertificateError) -> bool {
    let is_other = matches!(error, CertificateError::Other(_));
    is_other && error.to_string().contains("UnsupportedCertVersion")
}

fn explain_certificate(error: &CertificateError) -> (TlsProblem, String, String) {
    let days = |seconds: u64| seconds / 86_400;
    let (problem, message, hint) = match error {
        CertificateError::Expired => (
            TlsProblem::Expired,
            "the broker's certificate is expired".to_owned(),
            "renew the broker's certificate".to_owned(),
        ),
        CertificateError::ExpiredContext { time, not_after } => (
            TlsProblem::Expired,
            format!(
                "the broker's certificate expired {} ago",
                match days(time.as_secs().saturating_sub(not_after.as_secs())) {
                    0 => "less than a day".to_owned(),
                    1 => "1 day".to_owned(),
                    days => format!("{days} days"),
                }
            ),
            "renew the broker's certificate".to_owned(),
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
            TlsProblem::NotYetValid,
            "the broker's certificate isn't valid yet".to_owned(),
            "check the clocks here and where it was made".to_owned(),
        ),
        CertificateError::UnknownIssuer | CertificateError::BadSignature => (
            TlsProblem::UnknownIssuer,
            "the broker's certificate is signed by nobody whom we trust".to_owned(),
            "set ssl.ca.location to the CA of the broker's certificate".to_owned(),
        ),
        CertificateError::NotValidForName => (
            TlsProblem::WrongName,
            "the broker's certificate is for another host".to_owned(),
            "use a name that is in it, or set ssl.endpoint.identification.algorithm to none"
                .to_owned(),
        ),
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => (
            TlsProblem::WrongName,
            format!(
                "the broker's certificate isn't for {}, but for {}",
                expected.to_str(),
                presented
                    .iter()
                    .map(|it| plain(it))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
            "use a name that is in it, or set ssl.endpoint.identification.algorithm to none"
                .to_owned(),
        ),
        other if is_of_version_1(other) => (
            TlsProblem::Other,
            "the broker's certificate, or one that it is signed by, is of X.509 version 1"
                .to_owned(),
            VERSION_3_HINT.to_owned(),
        ),
        other => (
            TlsProblem::Other,
            format!("the broker's certificate can't be used: {other}"),
            String::new(),
        ),
    };
    (problem, message, hint)
}
/// A name of a certificate without rustls' own words around it: `DnsName("kafka.example.com")`.
fn plain(name: &str) -> &str {
    let quoted = name
        .split_once('(')
        .and_then(|(_, rest)| rest.strip_suffix(')'));
    quoted.map_or(name, |inner| inner.trim_matches('"'))
}
