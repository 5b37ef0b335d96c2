//! Answers of a hostile broker, of every call in every version that can be agreed on.

use std::path::Path;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, Request, StrBytes};
use regex::Regex;

use crate::fuzz::{Dice, Input, Target};
use crate::wire::codec::{decode_body, decode_plain_body};
use crate::wire::throttle::throttle_of;
use crate::wire::versions::{api_name, is_bounded};

/// An element of an array takes some hundred bytes and is promised by one, and a byte by four lengths.
const ANSWERS: Target = Target {
    name: "answers",
    rounds: 6_000,
    bytes_base: 2 << 20,
    bytes_per_byte: 4 * 400,
};

/// A call, as far as its answers matter.
struct Call {
    name: &'static str,
    key: i16,
    versions: Vec<i16>,
    decode: fn(Bytes, i16) -> Result<(), String>,
    /// How many bytes of these are an answer, if they begin with one.
    answer_bytes: fn(&Bytes, i16) -> Option<usize>,
}

fn call<R: Request>() -> Call {
    // Strangers are told versions behind a plain header (KIP-511), whatever comes then.
    let is_told_plainly = R::KEY == ApiKey::ApiVersions as i16;
    let is_compact = |version: &i16| match is_told_plainly {
        true => *version >= 3,
        false => is_bounded::<R>(*version),
    };
    let all = R::VERSIONS.min..=R::VERSIONS.max;
    Call {
        name: api_name::<R>(),
        key: R::KEY,
        versions: all.filter(is_compact).collect(),
        decode: |body, version| decode_body::<R::Response>(body, version).map(drop),
        answer_bytes: |bytes, version| {
            let mut rest = bytes.clone();
            R::Response::decode(&mut rest, version).ok()?;
            Some(bytes.len() - rest.len())
        },
    }
}

/// Those that are made, but for the two whose answers are plain.
fn calls() -> Vec<Call> {
    vec![
        call::<AlterClientQuotasRequest>(),
        call::<AlterShareGroupOffsetsRequest>(),
        call::<ApiVersionsRequest>(),
        call::<CreateAclsRequest>(),
        call::<CreatePartitionsRequest>(),
        call::<CreateTopicsRequest>(),
        call::<DeleteAclsRequest>(),
        call::<DeleteGroupsRequest>(),
        call::<DeleteRecordsRequest>(),
        call::<DeleteTopicsRequest>(),
        call::<DescribeAclsRequest>(),
        call::<DescribeClientQuotasRequest>(),
        call::<DescribeClusterRequest>(),
        call::<DescribeConfigsRequest>(),
        call::<DescribeGroupsRequest>(),
        call::<DescribeLogDirsRequest>(),
        call::<DescribeProducersRequest>(),
        call::<DescribeShareGroupOffsetsRequest>(),
        call::<DescribeTransactionsRequest>(),
        call::<DescribeUserScramCredentialsRequest>(),
        call::<FetchRequest>(),
        call::<FindCoordinatorRequest>(),
        call::<IncrementalAlterConfigsRequest>(),
        call::<InitProducerIdRequest>(),
        call::<ListGroupsRequest>(),
        call::<ListOffsetsRequest>(),
        call::<ListTransactionsRequest>(),
        call::<MetadataRequest>(),
        call::<OffsetCommitRequest>(),
        call::<OffsetFetchRequest>(),
        call::<OffsetForLeaderEpochRequest>(),
        call::<ProduceRequest>(),
        call::<SaslAuthenticateRequest>(),
        call::<WriteTxnMarkersRequest>(),
    ]
}

/// An answer to nobody's question, but a good one.
fn answer(dice: &mut Dice, call: &Call, version: i16) -> Bytes {
    for _ in 0..1_000 {
        let bytes = Bytes::from(dice.small_bytes(800));
        if let Some(length) = (call.answer_bytes)(&bytes, version) {
            return bytes.slice(..length);
        }
    }
    panic!("no bytes are an answer to {} v{version}", call.name);
}

fn label(call: &Call, version: i16) -> String {
    format!("{}-{version}", call.name)
}

/// What an input is an answer to.
fn meant<'a>(calls: &'a [Call], input: &Input) -> (&'a Call, i16) {
    let (name, version) = input.of.split_once('-').expect("a call and a version");
    let call = calls.iter().find(|call| call.name == name);
    (
        call.expect("a call that is made"),
        version.parse().expect("a version"),
    )
}

#[test]
fn fuzz_answers() {
    let calls = calls();
    let make = |dice: &mut Dice| {
        let call = dice.one(&calls);
        let version = *dice.one(&call.versions);
        let good = answer(dice, call, version);
        Input::new(label(call, version), dice.damage(&good))
    };
    ANSWERS.hunt(make, |input| {
        let (call, version) = meant(&calls, input);
        let _ = throttle_of(call.key, version, &input.bytes);
        let _ = (call.decode)(input.bytes.clone(), version);
    });
}

/// What is checked of lengths refuses nobody's honest answer.
#[test]
fn fuzz_good_answers_are_decoded() {
    let mut dice = Dice::new(1);
    for call in calls() {
        assert!(!call.versions.is_empty(), "{}", call.name);
        for version in call.versions.iter().copied() {
            for _ in 0..5 {
                let good = answer(&mut dice, &call, version);
                let decoded = (call.decode)(good, version);
                assert!(decoded.is_ok(), "{}: {decoded:?}", label(&call, version));
            }
        }
    }
}

#[test]
fn fuzz_plain_answers() {
    let target = Target {
        name: "plain-answers",
        ..ANSWERS
    };
    let make = |dice: &mut Dice| {
        let count = dice.below(70);
        let (of, good) = match dice.below(2) {
            0 => ("ApiVersions-0", plain_versions(count)),
            _ => ("SaslHandshake-1", plain_mechanisms(count)),
        };
        Input::new(of, dice.damage(&good))
    };
    target.hunt(make, |input| {
        let body = input.bytes.clone();
        let _ = match input.of.as_str() {
            "ApiVersions-0" => decode_plain_body::<ApiVersionsResponse>(body, 0).map(drop),
            _ => decode_plain_body::<SaslHandshakeResponse>(body, 1).map(drop),
        };
    });
}

fn plain_versions(count: usize) -> Vec<u8> {
    let version = |key| ApiVersion::default().with_api_key(key).with_max_version(9);
    let count = i16::try_from(count).expect("few");
    let answer = ApiVersionsResponse::default().with_api_keys((0..count).map(version).collect());
    encoded(&answer, 0)
}

fn plain_mechanisms(count: usize) -> Vec<u8> {
    let mechanisms = vec![StrBytes::from_static_str("SCRAM-SHA-512"); count];
    encoded(
        &SaslHandshakeResponse::default().with_mechanisms(mechanisms),
        1,
    )
}

fn encoded(answer: &impl Encodable, version: i16) -> Vec<u8> {
    let mut body = BytesMut::new();
    answer.encode(&mut body, version).expect("encodes");
    body.to_vec()
}

/// A call that is added to the client is added here.
#[test]
fn fuzz_leaves_no_call_out() {
    let named = Regex::new(r"\b([A-Z][A-Za-z]+)Request::default\(\)").expect("a pattern");
    let listed: Vec<&str> = calls().iter().map(|call| call.name).collect();
    let mut missing = Vec::new();
    for file in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let text = std::fs::read_to_string(&file).expect("a source file");
        let made = named.captures_iter(&text).filter_map(|found| found.get(1));
        // Parts of requests have names that end like one.
        let made =
            made.filter(|name| !matches!(name.as_str(), "SaslHandshake" | "Topic" | "Group"));
        let unknown = made.filter(|name| !listed.iter().any(|listed| name.as_str() == *listed));
        missing.extend(unknown.map(|name| format!("{} in {}", name.as_str(), file.display())));
    }
    assert!(missing.is_empty(), "{missing:?}");
}

fn sources(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").flatten();
    let found = entries.flat_map(|entry| match entry.path() {
        path if path.is_dir() => sources(&path),
        path => vec![path],
    });
    found
        .filter(|path| path.extension().is_some_and(|it| it == "rs"))
        .collect()
}
