//! SaslHandshake and SaslAuthenticate (`SaslServerAuthenticator`). Version 0 of the handshake,
//! after which bare messages follow, isn't there.

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};

use super::{Asked, Reply, text};
use crate::api::Served;
use crate::state::State;
use crate::users::{Login, MECHANISMS};

impl Served for SaslHandshakeRequest {
    fn refuse(&self, error: ResponseError) -> Option<SaslHandshakeResponse> {
        Some(SaslHandshakeResponse::default().with_error_code(error.code()))
    }
}

impl Served for SaslAuthenticateRequest {
    fn refuse(&self, error: ResponseError) -> Option<SaslAuthenticateResponse> {
        Some(failed(error, "Refused."))
    }
}

pub(in crate::api) fn handle_handshake(
    state: &mut State,
    asked: &Asked<'_>,
    request: SaslHandshakeRequest,
) -> Reply {
    let answer = SaslHandshakeResponse::default();
    // `KafkaApis.handleSaslHandshakeRequest`.
    if state.users.login == Login::Never {
        let error = ResponseError::IllegalSaslState;
        return asked.send(&answer.with_error_code(error.code()));
    }
    let answer = answer.with_mechanisms(MECHANISMS.map(text).to_vec());
    match state
        .users
        .shake_hands(asked.connection, &request.mechanism)
    {
        true => asked.send(&answer),
        false => {
            let error = ResponseError::UnsupportedSaslMechanism;
            asked.send(&answer.with_error_code(error.code()))
        }
    }
}

pub(in crate::api) fn handle(
    state: &mut State,
    asked: &Asked<'_>,
    request: SaslAuthenticateRequest,
) -> Reply {
    if state.users.login == Login::Never {
        let message = "SaslAuthenticate request received after successful authentication";
        return asked.send(&failed(ResponseError::IllegalSaslState, message));
    }
    let nonce = state.next_uuid().simple().to_string();
    let answer = match state
        .users
        .step(asked.connection, &request.auth_bytes, &nonce)
    {
        Ok(answer) => SaslAuthenticateResponse::default()
            .with_error_message(None)
            .with_auth_bytes(Bytes::from(answer)),
        Err(message) => failed(ResponseError::SaslAuthenticationFailed, &message),
    };
    asked.send(&answer)
}

fn failed(error: ResponseError, message: &str) -> SaslAuthenticateResponse {
    SaslAuthenticateResponse::default()
        .with_error_code(error.code())
        .with_error_message(Some(text(message)))
}
