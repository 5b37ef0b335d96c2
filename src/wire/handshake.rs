//! What happens on a new connection before anyone may use it: the broker says which versions it
//! speaks, and who we are is proven, if the cluster wants it. In this order, as the Java client
//! does it: the versions of the authentication calls are then known too.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;

use super::authenticate::{authenticate, prepare};
use super::codec;
use super::connection::{Connection, Opening, RawAnswer};
use super::error::{ACCEPTED, HALF_ALIVE, WireError};
use super::heartbeat::keep_alive;
use super::reauthenticate::keep_authenticated;
use super::security::Security;
use super::tls;
use super::versions::VersionTable;

/// First version to ask with. Brokers answer a version that they don't know with
/// UNSUPPORTED_VERSION in the *version 0* format (`ApiVersionsRequest.getErrorResponse`), so v3 is
/// asked first and v0 after such an answer, as the Java client does. v4 only adds feature ranges.
pub(super) const FIRST_VERSION: i16 = 3;

/// How long a broker may say nothing to a stranger, whose connection took no time. Versions and the names of mechanisms
/// are told without looking anything up. A few times the time of a long line, with other data on it, come to that.
const SILENT_AFTER: Duration = Duration::from_secs(4);
/// See [`SILENT_AFTER`].
const ROUND_TRIPS: u32 = 10;

/// How long a broker may say nothing, where connecting (or another way there and back) took so long.
pub(super) fn patience(round_trip: Duration, connect_timeout: Duration) -> Duration {
    (SILENT_AFTER + ROUND_TRIPS * round_trip).min(connect_timeout)
}

/// Asks for the broker's versions and makes the connection usable. Silence ends it after `patience`.
pub(super) async fn handshake(
    mut opening: Opening,
    security: &Security,
    patience: Duration,
) -> Result<Connection, WireError> {
    let asked_at = Instant::now();
    let (version, versions) = ask_versions(&opening, patience).await.map_err(|error| {
        let error = error.or_silent(ACCEPTED);
        let closed = security
            .tls
            .is_some()
            .then(|| tls::closed_after_handshake(&error));
        closed.flatten().unwrap_or(error)
    })?;
    opening.set_round_trip(asked_at.elapsed());
    if let Some(sasl) = security.sasl.clone() {
        let shared = opening.shared().clone();
        let exchange = prepare(&shared, &sasl).await?;
        let proven = authenticate(&shared, &versions, &sasl, exchange, patience).await;
        let lifetime = proven.map_err(|error| error.or_silent(HALF_ALIVE))?;
        if let Some(lifetime) = lifetime {
            opening.spawn(keep_authenticated(shared, versions.clone(), sasl, lifetime));
        }
    }
    let shared = opening.shared().clone();
    opening.spawn(keep_alive(shared, version));
    Ok(opening.with_versions(versions))
}

/// What the broker speaks, and the version in which it was asked for that.
async fn ask_versions(
    opening: &Opening,
    patience: Duration,
) -> Result<(i16, VersionTable), WireError> {
    let asked = opening.start(FIRST_VERSION, &versions_request())?;
    let RawAnswer { body, .. } = asked.with_timeout(patience).await?;
    let (version, response) = if error_code(&body) == Some(ResponseError::UnsupportedVersion.code())
    {
        let asked = opening.start(0, &ApiVersionsRequest::default())?;
        let RawAnswer { body, .. } = asked.with_timeout(patience).await?;
        // Its only 32-bit number is the length of its only array.
        (0, decoded(opening, codec::decode_plain_body(body, 0))?)
    } else {
        let response = decoded(opening, codec::decode_body(body, FIRST_VERSION))?;
        (FIRST_VERSION, response)
    };
    if let Some(code) = ResponseError::try_from_code(response.error_code) {
        let context = opening.context::<ApiVersionsRequest>();
        return Err(WireError::Server {
            code,
            message: None,
            context,
        });
    }
    Ok((version, VersionTable::new(&response)))
}

/// A question that every broker answers everybody, of any version.
pub(super) fn versions_request() -> ApiVersionsRequest {
    ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("twinlog"))
        .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")))
}

/// The error code is the first field in every version.
fn error_code(body: &Bytes) -> Option<i16> {
    body.first_chunk::<2>()
        .map(|code| i16::from_be_bytes(*code))
}

fn decoded(
    opening: &Opening,
    answer: Result<ApiVersionsResponse, String>,
) -> Result<ApiVersionsResponse, WireError> {
    answer.map_err(|detail| WireError::Decode {
        context: opening.context::<ApiVersionsRequest>(),
        detail,
    })
}
