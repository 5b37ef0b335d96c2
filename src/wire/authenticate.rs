//! Proving who we are on a connection: `SaslHandshake`, then as many `SaslAuthenticate` as the
//! mechanism needs (KIP-43, KIP-152).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{SaslAuthenticateRequest, SaslHandshakeRequest};
use kafka_protocol::protocol::{Request, StrBytes};

use super::connection::Shared;
use super::error::WireError;
use super::sasl::{Exchange, Step};
use super::security::{Lack, Sasl};
use super::versions::{VersionTable, first_bounded};
use crate::shell;

/// Version 0 is followed by bare tokens instead of `SaslAuthenticate`; brokers before 1.0 only.
const HANDSHAKE_VERSION: i16 = 1;
/// Version 1 brought the session's lifetime, version 2 is flexible.
const AUTHENTICATE_VERSION_MAX: i16 = 2;
/// More messages than any mechanism has: a broker can't keep us talking for ever.
const MESSAGES_MAX: usize = 6;
/// So many letters of a broker's reason are repeated.
const WORDS_MAX: usize = 300;

/// Gets what it takes, before the broker is spoken to: a token may take a while.
pub(super) async fn prepare(shared: &Shared, sasl: &Sasl) -> Result<Exchange, WireError> {
    let exchange = Exchange::begin(sasl).await;
    exchange.map_err(|lack| refused::<SaslAuthenticateRequest>(shared, sasl, lack))
}

/// Authenticates, and returns how long it holds; `None` is as long as the connection. What takes no looking up may take
/// as long as `patience`.
pub(super) async fn authenticate(
    shared: &Arc<Shared>,
    versions: &VersionTable,
    sasl: &Sasl,
    mut exchange: Exchange,
    patience: Duration,
) -> Result<Option<Duration>, WireError> {
    let refused = |lack: Lack| refused::<SaslAuthenticateRequest>(shared, sasl, lack);
    let nothing_to_do = |message: String| {
        let hint = String::new();
        refused(Lack { message, hint })
    };
    shake_hands(shared, versions, sasl, patience).await?;
    let version = pick::<SaslAuthenticateRequest>(shared, versions, AUTHENTICATE_VERSION_MAX)?;
    let mut step = exchange.step(None).map_err(nothing_to_do)?;
    let mut lifetime = None;
    for _ in 0..MESSAGES_MAX {
        let message = match step {
            Step::Send(message) => message,
            Step::Done => return Ok(lifetime),
        };
        let request = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from(message));
        let answer = shared.start_authentication(version, &request)?.await?;
        if let Some(code) = ResponseError::try_from_code(answer.error_code) {
            let said = answer.error_message.as_ref().map(|said| said.to_string());
            return Err(refused(not_taken(code, said, sasl)));
        }
        let ms = u64::try_from(answer.session_lifetime_ms).unwrap_or_default();
        lifetime = (ms > 0).then(|| Duration::from_millis(ms));
        step = exchange
            .step(Some(&answer.auth_bytes))
            .map_err(nothing_to_do)?;
    }
    Err(nothing_to_do(
        "the broker doesn't come to an end".to_owned(),
    ))
}

async fn shake_hands(
    shared: &Arc<Shared>,
    versions: &VersionTable,
    sasl: &Sasl,
    patience: Duration,
) -> Result<(), WireError> {
    // It has no compact version. Its only 32-bit number is the length of its only array.
    let version = versions
        .pick_plain::<SaslHandshakeRequest>(HANDSHAKE_VERSION)
        .filter(|version| *version == HANDSHAKE_VERSION)
        .ok_or_else(|| too_old::<SaslHandshakeRequest>(shared, versions, HANDSHAKE_VERSION))?;
    let mechanism = StrBytes::from_static_str(sasl.mechanism());
    let request = SaslHandshakeRequest::default().with_mechanism(mechanism);
    let asked = shared.start_authentication(version, &request)?;
    let answer = asked.with_timeout(patience).await?;
    let Some(code) = ResponseError::try_from_code(answer.error_code) else {
        return Ok(());
    };
    let lack = match code {
        ResponseError::UnsupportedSaslMechanism => {
            let offered: Vec<&str> = answer.mechanisms.iter().map(|name| name.as_str()).collect();
            let offered = one_line(&offered.join(", "));
            Lack {
                message: format!("the broker doesn't offer it, but {offered}"),
                hint: "set sasl.mechanism to one of those".to_owned(),
            }
        }
        _ => not_taken(code, None, sasl),
    };
    Err(refused::<SaslHandshakeRequest>(shared, sasl, lack))
}

/// What an error code means here.
fn not_taken(code: ResponseError, said: Option<String>, sasl: &Sasl) -> Lack {
    let said = said.map(|said| one_line(&said));
    let said = said.filter(|said| !said.is_empty());
    let (message, hint) = match code {
        ResponseError::IllegalSaslState => (
            "the broker asks for no authentication on this port".to_owned(),
            "set security.protocol to PLAINTEXT or SSL, or use the port of a SASL listener",
        ),
        ResponseError::SaslAuthenticationFailed => (
            said.unwrap_or_else(|| "the broker doesn't say why".to_owned()),
            match sasl {
                Sasl::OauthBearer { .. } => {
                    "check what the broker expects of a token: issuer, audience, scope, lifetime"
                }
                _ => "check sasl.username and sasl.password",
            },
        ),
        _ => (
            said.map_or_else(|| code.to_string(), |said| format!("{code}: {said}")),
            "",
        ),
    };
    Lack {
        message,
        hint: hint.to_owned(),
    }
}

/// What a broker says is shown on terminals and in logs: not more of it than a line, and nothing
/// that they would obey. It isn't known yet who it is.
fn one_line(said: &str) -> String {
    shell::one_line(said, WORDS_MAX)
}

fn refused<R: Request>(shared: &Shared, sasl: &Sasl, lack: Lack) -> WireError {
    WireError::Authentication {
        context: shared.context_of::<R>(),
        mechanism: sasl.mechanism(),
        message: lack.message,
        hint: lack.hint,
    }
}

fn pick<R: Request>(shared: &Shared, versions: &VersionTable, max: i16) -> Result<i16, WireError> {
    versions
        .pick::<R>(max)
        .ok_or_else(|| too_old::<R>(shared, versions, max))
}

fn too_old<R: Request>(shared: &Shared, versions: &VersionTable, max: i16) -> WireError {
    WireError::UnsupportedVersion {
        context: shared.context_of::<R>(),
        ours: (first_bounded::<R>().min(max), max),
        broker: versions.range(R::KEY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_s_words_are_one_short_line() {
        assert_eq!(one_line(" no\x1b[2J\nway\u{202e}x "), "no [2J way x");
        assert_eq!(one_line(&"x".repeat(1_000)).len(), WORDS_MAX);
    }
}
