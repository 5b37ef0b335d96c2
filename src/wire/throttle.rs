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

/// Bound for what a broker may ask for. The times of produce and fetch quotas have none
/// (`ClientQuotaManager.throttleTime`): a request of 1 MB under a quota of 1 kB/s mutes the connection for a
/// quarter of an hour, and who leaves it and sends the same again is throttled for that, too.
const LONGEST: Duration = Duration::from_secs(3_600);

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
        | ApiKey::DescribeLogDirs
        | ApiKey::DescribeClientQuotas
        | ApiKey::AlterClientQuotas
        | ApiKey::DescribeUserScramCredentials
        | ApiKey::DescribeCluster
        | ApiKey::DescribeShareGroupOffsets
        | ApiKey::AlterShareGroupOffsets
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

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use kafka_protocol::messages::*;
    use kafka_protocol::protocol::{Encodable, HeaderVersion, Request};

    use super::*;

    /// Each version of an answer that is throttled for two minutes.
    fn check<R: Request>(answer: impl Fn() -> R::Response, since: i16)
    where
        R::Response: Encodable + HeaderVersion,
    {
        let newest = R::VERSIONS.max;
        for version in since.max(R::VERSIONS.min)..=newest {
            let mut body = BytesMut::new();
            answer().encode(&mut body, version).expect("encodes");
            let body: Bytes = body.freeze();
            assert_eq!(
                throttle_of(R::KEY, version, &body),
                Some(Duration::from_secs(120)),
                "API {} v{version}",
                R::KEY
            );
        }
    }

    macro_rules! throttled {
        ($($request:ty => $response:ty, $since:literal;)*) => {
            $(check::<$request>(|| <$response>::default().with_throttle_time_ms(120_000), $since);)*
        };
    }

    /// Whatever is asked of a broker may be throttled by `request_percentage`.
    #[test]
    fn the_silence_that_a_broker_asks_for_is_found_in_whatever_it_answers() {
        throttled! {
            ProduceRequest => ProduceResponse, 3;
            FetchRequest => FetchResponse, 4;
            ListOffsetsRequest => ListOffsetsResponse, 2;
            MetadataRequest => MetadataResponse, 3;
            OffsetCommitRequest => OffsetCommitResponse, 3;
            OffsetFetchRequest => OffsetFetchResponse, 3;
            FindCoordinatorRequest => FindCoordinatorResponse, 1;
            DescribeGroupsRequest => DescribeGroupsResponse, 1;
            ListGroupsRequest => ListGroupsResponse, 1;
            CreateTopicsRequest => CreateTopicsResponse, 2;
            DeleteTopicsRequest => DeleteTopicsResponse, 1;
            DeleteRecordsRequest => DeleteRecordsResponse, 0;
            InitProducerIdRequest => InitProducerIdResponse, 0;
            OffsetForLeaderEpochRequest => OffsetForLeaderEpochResponse, 2;
            DescribeAclsRequest => DescribeAclsResponse, 1;
            CreateAclsRequest => CreateAclsResponse, 1;
            DeleteAclsRequest => DeleteAclsResponse, 1;
            DescribeConfigsRequest => DescribeConfigsResponse, 1;
            IncrementalAlterConfigsRequest => IncrementalAlterConfigsResponse, 0;
            DescribeLogDirsRequest => DescribeLogDirsResponse, 1;
            CreatePartitionsRequest => CreatePartitionsResponse, 0;
            DeleteGroupsRequest => DeleteGroupsResponse, 0;
            DescribeClientQuotasRequest => DescribeClientQuotasResponse, 0;
            AlterClientQuotasRequest => AlterClientQuotasResponse, 0;
            DescribeUserScramCredentialsRequest => DescribeUserScramCredentialsResponse, 0;
            DescribeClusterRequest => DescribeClusterResponse, 0;
            DescribeProducersRequest => DescribeProducersResponse, 0;
            DescribeShareGroupOffsetsRequest => DescribeShareGroupOffsetsResponse, 0;
            AlterShareGroupOffsetsRequest => AlterShareGroupOffsetsResponse, 0;
        }
    }
}
