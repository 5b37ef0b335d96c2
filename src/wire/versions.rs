//! Which version of each call the broker and we both speak.

use std::collections::{BTreeMap, HashMap};

use kafka_protocol::messages::ApiVersionsResponse;
use kafka_protocol::protocol::{HeaderVersion, Request};

/// What a broker said it speaks.
#[derive(Clone, Debug, Default)]
pub(super) struct VersionTable {
    /// Versions by API key.
    calls: HashMap<i16, (i16, i16)>,
    /// The cluster's finalized features.
    features: BTreeMap<String, i16>,
}

impl VersionTable {
    pub(super) fn new(response: &ApiVersionsResponse) -> Self {
        let features = response.finalized_features.iter();
        Self {
            calls: response
                .api_keys
                .iter()
                .map(|api| (api.api_key, (api.min_version, api.max_version)))
                .collect(),
            features: features
                .map(|feature| (feature.name.to_string(), feature.max_version_level))
                .collect(),
        }
    }

    /// The cluster's features that an operator has finalized, such as `metadata.version`, by level.
    pub(super) fn features(&self) -> &BTreeMap<String, i16> {
        &self.features
    }

    /// The broker's range for a call.
    pub(super) fn range(&self, api_key: i16) -> Option<(i16, i16)> {
        self.calls.get(&api_key).copied()
    }

    /// The highest version that we, the broker and the caller (`max`) allow. None of those whose lengths can't be
    /// checked while they are decoded, see [`is_bounded`].
    pub(super) fn pick<R: Request>(&self, max: i16) -> Option<i16> {
        self.pick_plain::<R>(max)
            .filter(|version| is_bounded::<R>(*version))
    }

    /// As [`pick`](Self::pick), for a call whose answer is decoded as [`plain`](super::codec::decode_plain_body).
    pub(super) fn pick_plain<R: Request>(&self, max: i16) -> Option<i16> {
        let (broker_min, broker_max) = self.range(R::KEY)?;
        let version = R::VERSIONS.max.min(broker_max).min(max);
        (version >= R::VERSIONS.min && version >= broker_min).then_some(version)
    }
}

/// Whether an answer of this version has compact lengths (KIP-482), which [`codec`](super::codec) compares with what
/// is left of the frame. In older versions a broker, or whoever sits on the line, may promise 2^31 elements in four
/// bytes. Every call that we make has compact versions since Kafka 2.8 at the latest.
pub(super) fn is_bounded<R: Request>(version: i16) -> bool {
    R::Response::header_version(version) > 0
}

/// The first version that [`is_bounded`]; one that nobody speaks where there is none.
pub(super) fn first_bounded<R: Request>() -> i16 {
    (R::VERSIONS.min..=R::VERSIONS.max)
        .find(|version| is_bounded::<R>(*version))
        .unwrap_or(i16::MAX)
}

/// The call's name as in Kafka's protocol guide, for example `ListOffsets`.
pub(super) fn api_name<R: Request>() -> &'static str {
    let path = std::any::type_name::<R>();
    let name = path.rsplit("::").next().unwrap_or(path);
    name.strip_suffix("Request").unwrap_or(name)
}
