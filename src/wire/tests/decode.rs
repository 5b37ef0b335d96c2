//! Bytes that promise more than they hold.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{ApiKey, FetchResponse, MetadataResponse};
use kafka_protocol::protocol::{Encodable, StrBytes};
use proptest::prelude::*;

use crate::wire::codec::decode_body;
use crate::wire::throttle::throttle_of;

#[test]
fn a_huge_array_is_refused_before_memory_is_taken() {
    // Metadata v9: throttle time, then the number of brokers, 2^32 - 2 of them.
    let mut body = BytesMut::new();
    body.put_i32(0);
    body.put_slice(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
    assert!(decode_body::<MetadataResponse>(body.freeze(), 9).is_err());
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
