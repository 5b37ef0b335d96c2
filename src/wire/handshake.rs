//! What happens on a new connection before anyone may use it: the broker says which versions it
//! speaks. (SASL will follow here.)

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use kafka_protocol::protocol::StrBytes;

use super::codec;
use super::connection::{Connection, Opening, RawAnswer};
use super::error::WireError;
use super::versions::VersionTable;

/// First version to ask with. Brokers answer a version that they don't know with
/// UNSUPPORTED_VERSION in the *version 0* format (`ApiVersionsRequest.getErrorResponse`), so v3 is
/// asked first and v0 after such an answer, as the Java client does. v4 only adds feature ranges.
const FIRST_VERSION: i16 = 3;

/// Asks for the broker's versions and makes the connection usable.
pub(super) async fn handshake(opening: Opening) -> Result<Connection, WireError> {
    let request = ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("twinlog"))
        .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
    let RawAnswer { body, .. } = opening.start(FIRST_VERSION, &request)?.await?;
    let response = if error_code(&body) == Some(ResponseError::UnsupportedVersion.code()) {
        let RawAnswer { body, .. } = opening.start(0, &ApiVersionsRequest::default())?.await?;
        decode(&opening, body, 0)?
    } else {
        decode(&opening, body, FIRST_VERSION)?
    };
    if let Some(code) = ResponseError::try_from_code(response.error_code) {
        let context = opening.context::<ApiVersionsRequest>();
        return Err(WireError::Server {
            code,
            message: None,
            context,
        });
    }
    Ok(opening.with_versions(VersionTable::new(&response)))
}

/// The error code is the first field in every version.
fn error_code(body: &Bytes) -> Option<i16> {
    body.first_chunk::<2>()
        .map(|code| i16::from_be_bytes(*code))
}

fn decode(opening: &Opening, body: Bytes, version: i16) -> Result<ApiVersionsResponse, WireError> {
    codec::decode_body(body, version).map_err(|detail| WireError::Decode {
        context: opening.context::<ApiVersionsRequest>(),
        detail,
    })
}
