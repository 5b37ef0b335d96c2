//! ApiVersions (`ApiVersionManager`, KIP-35, KIP-511).

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse};

use super::{Asked, Body, Call, Reply, Served, VERSIONS};
use crate::state::State;

impl Served for ApiVersionsRequest {}

pub(crate) fn handle(_: &mut State, asked: &Asked<'_>, _: ApiVersionsRequest) -> Reply {
    asked.send(&versions())
}

fn versions() -> ApiVersionsResponse {
    let keys = VERSIONS.iter().map(|&(key, min, max)| {
        ApiVersion::default()
            .with_api_key(key)
            .with_min_version(advertised_min(key, min))
            .with_max_version(max)
    });
    ApiVersionsResponse::default()
        .with_api_keys(keys.collect())
        .with_finalized_features_epoch(1)
}

/// Brokers say that they take Produce from version 0 on, although they don't, since librdkafka compresses only then (KAFKA-18659).
fn advertised_min(key: i16, min: i16) -> i16 {
    if key == ApiKey::Produce as i16 {
        0
    } else {
        min
    }
}

/// The answer to a version that is too new: in version 0, with what there is.
pub(super) fn unsupported() -> Call {
    Call {
        about: Vec::new(),
        response_header_version: 0,
        run: Box::new(|_, _| {
            let answer = versions().with_error_code(ResponseError::UnsupportedVersion.code());
            Reply::Send(Body::of(&answer, 0))
        }),
        only_reads: true,
    }
}
