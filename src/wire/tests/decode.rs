//! Bytes that promise more than they hold.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsResponse, DescribeAclsRequest, FetchResponse, MetadataRequest,
    MetadataResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::{Encodable, StrBytes};
use proptest::prelude::*;

use crate::fuzz::memory_of;
use crate::wire::codec::{decode_body, decode_plain_body};
use crate::wire::throttle::throttle_of;
use crate::wire::versions::VersionTable;

#[test]
fn a_huge_array_is_refused_before_memory_is_taken() {
    // Metadata v9: throttle time, then the number of brokers, 2^32 - 2 of them.
    let mut body = BytesMut::new();
    body.put_i32(0);
    body.put_slice(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
    assert!(decode_body::<MetadataResponse>(body.freeze(), 9).is_err());
}

#[test]
fn a_stranger_s_huge_array_is_refused_before_memory_is_taken() {
    // No error, then the number of elements, 2^31 - 1 of them: 64 GiB.
    let promise = Bytes::from_static(&[0, 0, 0x7f, 0xff, 0xff, 0xff]);
    assert!(decode_plain_body::<ApiVersionsResponse>(promise.clone(), 0).is_err());
    assert!(decode_plain_body::<SaslHandshakeResponse>(promise, 1).is_err());
    // What they are there for.
    let versions = Bytes::from_static(&[0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 3]);
    let versions: ApiVersionsResponse = decode_plain_body(versions, 0).expect("decodes");
    assert_eq!(versions.api_keys[0].max_version, 3);
    let mechanisms = Bytes::from_static(&[0, 33, 0, 0, 0, 1, 0, 5, b'P', b'L', b'A', b'I', b'N']);
    let answer: SaslHandshakeResponse = decode_plain_body(mechanisms, 1).expect("decodes");
    assert_eq!(answer.mechanisms.len(), 1);
}

/// A boolean is a byte as those of a length are: one that isn't 0 or 1 must not hide where the length begins.
#[test]
fn a_huge_array_behind_a_strange_boolean_is_refused_before_memory_is_taken() {
    // Metadata v9: no broker, no cluster id, a topic without a name that is internal (0x80), and 2^32 / 16 partitions.
    let mut body = BytesMut::new();
    body.put_i32(0);
    body.put_slice(&[1, 0]);
    body.put_i32(1);
    body.put_slice(&[2, 0, 0, 1, 0x80]);
    body.put_slice(&[0x80, 0x80, 0x80, 0x80, 0x0f]);
    assert!(decode_body::<MetadataResponse>(body.freeze(), 9).is_err());
}

/// The longest answer that is taken may be zeros: elements of no bytes but one each, of a hundred in memory.
#[test]
fn a_long_answer_s_word_is_no_reason_to_take_many_times_its_length() {
    const LENGTH: usize = 64 << 20;
    let mut body = BytesMut::zeroed(LENGTH);
    // No throttle time, and as many brokers as bytes are left (in five bytes).
    let promise = LENGTH - 9;
    for (at, byte) in body[4..9].iter_mut().enumerate() {
        *byte = (promise >> (7 * at)) as u8 & 0x7f | if at < 4 { 0x80 } else { 0 };
    }
    let body = body.freeze();
    let (refused, bytes) = memory_of(|| decode_body::<MetadataResponse>(body.clone(), 9).map(drop));
    assert!(refused.is_err());
    assert!(bytes < LENGTH, "{bytes} bytes");
    // Records are as long as they are.
    let records = Bytes::from(vec![7; LENGTH]);
    let response: FetchResponse = decode_body(fetched(&records), 12).expect("decodes");
    assert_eq!(
        response.responses[0].partitions[0]
            .records
            .as_ref()
            .map(Bytes::len),
        Some(LENGTH)
    );
}

#[test]
fn versions_whose_lengths_can_not_be_checked_are_not_spoken() {
    let speaks = |key: ApiKey, max: i16| {
        let api = ApiVersion::default()
            .with_api_key(key as i16)
            .with_max_version(max);
        VersionTable::new(&ApiVersionsResponse::default().with_api_keys(vec![api]))
    };
    let metadata = |max| speaks(ApiKey::Metadata, max).pick::<MetadataRequest>(13);
    assert_eq!((metadata(8), metadata(9)), (None, Some(9)));
    let acls = |max| speaks(ApiKey::DescribeAcls, max).pick::<DescribeAclsRequest>(3);
    assert_eq!((acls(1), acls(2)), (None, Some(2)));
    let hands = speaks(ApiKey::SaslHandshake, 1);
    assert_eq!(hands.pick::<SaslHandshakeRequest>(1), None);
    assert_eq!(hands.pick_plain::<SaslHandshakeRequest>(1), Some(1));
}

fn fetched(records: &Bytes) -> Bytes {
    let partition = PartitionData::default()
        .with_aborted_transactions(None)
        .with_records(Some(records.clone()));
    let topic = FetchableTopicResponse::default()
        .with_topic(StrBytes::from_static_str("t").into())
        .with_partitions(vec![partition]);
    let response = FetchResponse::default()
        .with_throttle_time_ms(9)
        .with_responses(vec![topic]);
    let mut body = BytesMut::new();
    response.encode(&mut body, 12).expect("encodes");
    body.freeze()
}

#[test]
fn fetched_records_are_not_copied() {
    let body = fetched(&Bytes::from(vec![7; 300_000]));
    let response: FetchResponse = decode_body(body.clone(), 12).expect("decodes");
    let records = response.responses[0].partitions[0]
        .records
        .clone()
        .expect("records");
    assert_eq!(records.len(), 300_000);
    assert!(
        body.as_ptr_range().contains(&records.as_ptr()),
        "a slice of the frame"
    );
}

#[test]
fn throttle_is_found_without_decoding() {
    let body = fetched(&Bytes::new());
    let fetch = ApiKey::Fetch as i16;
    assert_eq!(
        throttle_of(fetch, 12, &body).map(|t| t.as_millis()),
        Some(9)
    );
    assert_eq!(throttle_of(fetch, 12, &[]), None);
    let produce = ApiKey::Produce as i16;
    assert_eq!(
        throttle_of(produce, 9, &[1, 0, 0, 0, 5, 0]).map(|t| t.as_millis()),
        Some(5)
    );
    assert_eq!(
        throttle_of(produce, 8, &[0, 0, 0, 0, 0, 0, 0, 6]).map(|t| t.as_millis()),
        Some(6)
    );
    assert_eq!(throttle_of(produce, 9, &[0xff, 0xff, 0xff, 0xff, 0]), None);
}

proptest! {
    #[test]
    fn no_bytes_make_decoding_panic(body: Vec<u8>) {
        let body = Bytes::from(body);
        // Flexible versions, whose lengths can be checked.
        let _ = decode_body::<FetchResponse>(body.clone(), 12);
        let _ = decode_body::<MetadataResponse>(body, 9);
    }

    #[test]
    fn a_flipped_byte_makes_no_panic(at in 0usize..60, to: u8) {
        let mut body = BytesMut::from(&fetched(&Bytes::from_static(&[1; 40]))[..]);
        let at = at % body.len();
        body[at] = to;
        let _ = decode_body::<FetchResponse>(body.freeze(), 12);
    }
}
