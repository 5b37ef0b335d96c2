//! Quota throttling (KIP-219): the broker answers at once, says for how long it will not read from
//! the connection, and expects the client to be quiet for that long.

use std::time::Duration;

use kafka_protocol::messages::ApiKey;

/// `throttle_time_ms` of an answer, without decoding it. In nearly every answer it is the first
/// field; Produce has it at the end. Answers where it is elsewhere are taken as not throttled.
pub(super) fn throttle_of(api_key: i16, version: i16, body: &[u8]) -> Option<Duration> {
    let ms = if api_key == ApiKey::Produce as i16 {
        let fields = if version >= 9 {
            // Flexible: an empty tag section ends the message. With tags (only beside leader
            // errors) finding the field needs a decode, which isn't worth it.
            body.strip_suffix(&[0])?
        } else {
            body
        };
        fields.last_chunk::<4>()?
    } else if throttle_first(api_key, version) {
        body.first_chunk::<4>()?
    } else {
        return None;
    };
    let ms = u64::try_from(i32::from_be_bytes(*ms)).ok()?;
    (ms > 0).then(|| Duration::from_millis(ms).min(LONGEST))
}

/// Bound for what a broker may ask for: quota windows are seconds, so anything longer is nonsense.
const LONGEST: Duration = Duration::from_secs(60);

/// Whether the answer opens with `throttle_time_ms` (from Kafka's message definitions).
fn throttle_first(api_key: i16, version: i16) -> bool {
    let Ok(api) = ApiKey::try_from(api_key) else {
        return false;
    };
    let since = match api {
        ApiKey::DeleteRecords
        | ApiKey::InitProducerId
        | ApiKey::DescribeAcls
        | ApiKey::CreateAcls
        | ApiKey::DeleteAcls
        | ApiKey::DescribeConfigs
        | ApiKey::CreatePartitions
        | ApiKey::DeleteGroups
        | ApiKey::IncrementalAlterConfigs
        | ApiKey::DescribeProducers => 0,
        ApiKey::Fetch
        | ApiKey::FindCoordinator
        | ApiKey::DescribeGroups
        | ApiKey::ListGroups
        | ApiKey::DeleteTopics => 1,
        ApiKey::ListOffsets | ApiKey::CreateTopics | ApiKey::OffsetForLeaderEpoch => 2,
        ApiKey::Metadata | ApiKey::OffsetCommit | ApiKey::OffsetFetch => 3,
        _ => return false,
    };
    version >= since
}
