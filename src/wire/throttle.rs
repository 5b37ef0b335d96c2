//! Quota throttling (KIP-219): the broker answers at once, says for how long it will not read from
//! the connection, and expects the client to be quiet for that long.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::{ApiKey, ProduceResponse};

use super::codec;

/// `throttle_time_ms` of an answer, without decoding it. In nearly every answer it is the first
/// field; Produce has it at the end. Answers where it is elsewhere are taken as not throttled.
pub(super) fn throttle_of(api_key: i16, version: i16, body: &[u8]) -> Option<Duration> {
    let ms = if api_key == ApiKey::Produce as i16 {
        in_produce(version, body)?
    } else if throttle_first(api_key, version) {
        i32::from_be_bytes(*body.first_chunk::<4>()?)
    } else {
        return None;
    };
    let ms = u64::try_from(ms).ok()?;
    (ms > 0).then(|| Duration::from_millis(ms).min(LONGEST))
}

/// At the end of a Produce answer, before the tags. Nearly always there are none, and nobody is throttled. Beside
/// an error of a leader there are addresses in them (KIP-951), which end in zeros just as well: then it takes
/// a decode, or such an address would be a silence of days.
fn in_produce(version: i16, body: &[u8]) -> Option<i32> {
    let fields = match version >= 9 {
        true => body.strip_suffix(&[0]),
        false => Some(body),
    };
    match fields.and_then(|fields| fields.last_chunk::<4>()) {
        Some([0, 0, 0, 0]) => None,
        Some(ms) if version < 10 => Some(i32::from_be_bytes(*ms)),
        _ => {
            let body = Bytes::copy_from_slice(body);
            let answer = codec::decode_body::<ProduceResponse>(body, version).ok()?;
            Some(answer.throttle_time_ms)
        }
    }
}

/// Bound for what a broker may ask for. The times of produce and fetch quotas have none
/// (`ClientQuotaManager.throttleTime`): a request of 1 MB under a quota of 1 kB/s mutes the connection for a
/// quarter of an hour, and who leaves it and sends the same again is throttled for that, too.
pub(super) const LONGEST: Duration = Duration::from_secs(3_600);

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
    use bytes::BytesMut;
    use kafka_protocol::messages::produce_response::NodeEndpoint;
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

    #[test]
    fn an_address_beside_an_error_is_no_silence() {
        for (host, port, throttle_ms) in
            [("broker-2.kafka", 9092, 0), ("b", 65_536, 0), ("b", 1, 700)]
        {
            let endpoint = NodeEndpoint::default()
                .with_node_id(BrokerId(2))
                .with_host(kafka_protocol::protocol::StrBytes::from_static_str(host))
                .with_port(port);
            let answer = ProduceResponse::default()
                .with_node_endpoints(vec![endpoint])
                .with_throttle_time_ms(throttle_ms);
            let mut body = BytesMut::new();
            answer.encode(&mut body, 10).expect("encodes");
            let found = throttle_of(ProduceRequest::KEY, 10, &body);
            let expected = u64::try_from(throttle_ms).ok().filter(|ms| *ms > 0);
            assert_eq!(found, expected.map(Duration::from_millis), "{host}:{port}");
        }
    }
}
