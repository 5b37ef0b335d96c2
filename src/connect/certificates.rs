//! What a certificate says about itself, for people.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_parser::prelude::{FromDer, X509Certificate};

/// A certificate that ends within this is worth a warning.
const SOON: Duration = Duration::from_secs(30 * 86_400);

/// Whom a certificate is for and when it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) subject: String,
    /// Days until it ends; negative when it is over.
    pub(super) days_left: i64,
}

impl Facts {
    pub(super) fn of(der: &[u8], now: SystemTime) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let left =
            certificate.validity().not_after.timestamp() - i64::try_from(now.as_secs()).ok()?;
        Some(Self {
            subject: certificate.subject().to_string(),
            days_left: left.div_euclid(86_400),
        })
    }

    pub(super) fn ends_soon(&self) -> bool {
        let soon = i64::try_from(SOON.as_secs() / 86_400).unwrap_or(i64::MAX);
        self.days_left < soon
    }

    pub(super) fn end(&self) -> String {
        match self.days_left {
            ..0 => "is over".to_owned(),
            days => format!("ends in {days} day(s)"),
        }
    }
}
