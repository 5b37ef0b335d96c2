//! What happens on a new connection before anyone may use it: the broker says which versions it
//! speaks, and who we are is proven, if the cluster wants it. In this order, as the Java client
//! does it: the versions of the authentication calls are then known too.

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;

use super::authenticate::{authenticate, prepare};
use super::codec;
use super::connection::{Connection, Opening, RawAnswer};
use super::error::WireError;
use super::reauthenticate::keep_authenticated;
use super::security::Security;
use super::tls;
use super::versions::VersionTable;

/// First version to ask with. Brokers answer a version that they don't know with
/// UNSUPPORTED_VERSION in the *version 0* format (`ApiVersionsRequest.getErrorResponse`), so v3 is
/// asked first and v0 after such an answer, as the Java client does. v4 only adds feature ranges.
const FIRST_VERSION: i16 = 3;

/// Asks for the broker's versions and makes the connection usable.
pub(super) async fn handshake(
    mut opening: Opening,
    security: &Security,
) -> Result<Connection, WireError> {
    let asked_at = Instant::now();
    let versions = ask_versions(&opening).await.map_err(|error| {
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
        let lifetime = authenticate(&shared, &versions, &sasl, exchange).await?;
        if let Some(lifetime) = lifetime {
            opening.spawn(keep_authenticated(shared, versions.clone(), sasl, lifetime));
        }
    }
    Ok(opening.with_versions(versions))
}

async fn ask_versions(opening: &Opening) -> Result<VersionTable, WireError> {
    let request = ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("twinlog"))
        .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
    let RawAnswer { body, .. } = opening.start(FIRST_VERSION, &request)?.await?;
    let response = if error_code(&body) == Some(ResponseError::UnsupportedVersion.code()) {
        let RawAnswer { body, .. } = opening.start(0, &ApiVersionsRequest::default())?.await?;
        // Its only 32-bit number is the length of its only array.
        decoded(opening, codec::decode_plain_body(body, 0))?
    } else {
        decoded(opening, codec::decode_body(body, FIRST_VERSION))?
    };
    if let Some(code) = ResponseError::try_from_code(response.error_code) {
        let context = opening.context::<ApiVersionsRequest>();
        return Err(WireError::Server {
            code,
            message: None,
            context,
        });
    }
    Ok(VersionTable::new(&response))
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
