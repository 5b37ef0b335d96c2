//! Records of the state topic that somebody else wrote, or that were damaged.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::*;
use crate::fuzz::{Dice, Input, Target};
use crate::offsets::{OffsetMap, SourceOffset};

const RECORDS: Target = Target {
    name: "state-records",
    rounds: 4_000,
    bytes_base: 1 << 20,
    bytes_per_byte: 512,
};

const TOPIC: &str = r#"{"v":1,"source_topic_id":"00000000-0000-0000-0000-000000000001","target_topic":"t",
    "target_topic_id":"00000000-0000-0000-0000-000000000002","created":true,"mapped":false,"reason":"",
    "origins":[0,-1,7],"turned":{"1":{"from":3,"fillers":2,"reason":"r","foreign":[[4,9]]}},"begun_at_ms":5}"#;
const ROLE: &str = r#"{"v":1,"primary":"target","topics":"all","epoch":3,
    "plan":"00000000-0000-0000-0000-000000000003","since_ms":5,"source_cluster_id":"a",
    "target_cluster_id":null,"is_copied_back":true}"#;
const GROUP: &str = r#"{"v":1,"seen_until_ms":9,"topics":{"t":[[0,5,6],[1,7,8]]},"ahead":{"t":[[0,9]]},
    "foreign":{"t":[[1,3]]}}"#;
const SEEN: &str = r#"{"v":1,"epochs":[1,2],"positions":[5,6]}"#;

#[test]
fn fuzz_state_records() {
    assert!(read::<TopicRecord>(TOPIC.as_bytes()).is_some());
    assert!(read::<GroupPositions>(GROUP.as_bytes()).is_some());
    let map = OffsetMap::identity_from(SourceOffset(3)).head();
    let map = serde_json::to_string(&MapRecord { v: 1, map }).expect("JSON");
    let make = |dice: &mut Dice| {
        let good = *dice.one(&[TOPIC, ROLE, GROUP, SEEN, map.as_str()]);
        Input::new("", dice.damage(good.as_bytes()))
    };
    RECORDS.hunt(make, |input| examine(&input.bytes));
}

/// As each record, and what is asked of the larger ones.
fn examine(bytes: &[u8]) {
    if let Some(topic) = read::<TopicRecord>(bytes) {
        let _ = (
            topic.has_maps(),
            topic.why_mapped(),
            topic.unknown_origins(),
        );
        for partition in [i32::MIN, -1, 0, 1, i32::MAX] {
            let _ = (
                topic.origin(partition),
                topic.foreign(partition),
                topic.is_mapped(partition),
            );
            let continued = topic.continued.as_ref();
            let _ = continued.map(|log| log.past_strangers(partition, 5));
        }
    }
    if let Some(mut group) = read::<GroupPositions>(bytes) {
        let _ = group.known_on_source();
        let _ = group.strangers("t", 1);
        group.give_back(("t", 0));
        group.note_also(("t", 1), i64::MAX);
        let _ = group.is_ours(("t", 1), 3);
        group.note(("t", 1), i64::MAX, i64::MIN);
    }
    if let Some(role) = read::<RoleRecord>(bytes) {
        let _ = (
            role.copied_back(),
            role.not_copied(),
            role.keeps_others_out(),
        );
    }
    let _ = read::<MapRecord>(bytes);
    let _ = read::<SeenRecord>(bytes);
    let _ = read::<FlowRecord>(bytes);
    let _ = read::<ForkRecord>(bytes);
    let _ = read::<CutoverRecord>(bytes);
    let _ = read::<LeaseRecord>(bytes);
    let _ = read::<Claim>(bytes);
    let _ = read::<AclRecord>(bytes);
    let _ = read::<ReignRecord>(bytes);
    let _ = parse::<VerifyRecord>("key", Some(bytes));
}

/// What is read is written as something that is read the same.
fn read<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Option<T> {
    let record = parse::<T>("key", Some(bytes)).ok().flatten()?;
    let again = serde_json::to_vec(&record).expect("it was read from JSON");
    assert_eq!(
        parse::<T>("key", Some(&again)).ok().flatten().as_ref(),
        Some(&record)
    );
    Some(record)
}
