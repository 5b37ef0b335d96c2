//! ApiVersions (`ApiVersionManager`, KIP-35, KIP-511).

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::api_versions_response::{ApiVersion, FinalizedFeatureKey};
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse};

use super::{Asked, Body, Call, Reply, Served, VERSIONS, text};
use crate::state::State;

impl Served for ApiVersionsRequest {}

/// The first version that tells features (KIP-584).
const FEATURES_FROM: i16 = 3;

/// See [`Options::before_3_7`](crate::state::Options::before_3_7).
const FETCH_BEFORE_3_7: i16 = 15;

pub(crate) fn handle(state: &mut State, asked: &Asked<'_>, _: ApiVersionsRequest) -> Reply {
    let mut answer = versions();
    if state.options.before_3_7 {
        let fetch = answer.api_keys.iter_mut();
        fetch
            .filter(|it| it.api_key == ApiKey::Fetch as i16)
            .for_each(|it| it.max_version = FETCH_BEFORE_3_7);
    }
    if asked.api_version >= FEATURES_FROM {
        let features = state.options.features.iter();
        let features = features.map(|(name, level)| {
            FinalizedFeatureKey::default()
                .with_name(text(name))
                .with_max_version_level(*level)
                .with_min_version_level(*level)
        });
        answer.finalized_features = features.collect();
        answer.finalized_features_epoch = state.metadata_offset();
    }
    asked.send(&answer)
}

fn versions() -> ApiVersionsResponse {
    let keys = VERSIONS.iter().map(|&(key, min, max)| {
        ApiVersion::default()
            .with_api_key(key)
            .with_min_version(advertised_min(key, min))
            .with_max_version(max)
    });
    ApiVersionsResponse::default().with_api_keys(keys.collect())
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
