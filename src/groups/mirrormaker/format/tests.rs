//! Kafka's own bytes, and that everything comes back.

use proptest::prelude::*;

use super::*;

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn checkpoint(downstream: i64, metadata: &str) -> Result<Checkpoint, FormatError> {
    Checkpoint::new("group-1", "topic-2", 3, 4, downstream, metadata)
}

/// The bytes that Kafka's `Checkpoint` makes of its own test's values (`CheckpointTest`).
#[test]
fn a_checkpoint_has_kafkas_bytes() {
    let checkpoint = checkpoint(5, "metadata-6").unwrap();
    let key = hex("000767726f75702d310007746f7069632d3200000003");
    let value = hex("000000000000000000040000000000000005000a6d657461646174612d36");
    assert_eq!(checkpoint.key(), key);
    assert_eq!(checkpoint.value(), value);
    assert_eq!(Checkpoint::decode(&key, &value), Ok(checkpoint));
}

/// The same for `HeartbeatTest`.
#[test]
fn a_heartbeat_has_kafkas_bytes() {
    let heartbeat = Heartbeat::new("source-1", "target-2", 0).unwrap();
    let heartbeat = heartbeat.at(1_234_567_890);
    let key = hex("0008736f757263652d3100087461726765742d32");
    let value = hex("000000000000499602d2");
    assert_eq!(heartbeat.key(), key);
    assert_eq!(heartbeat.value(), value);
    assert_eq!(Heartbeat::decode(&key, &value), Ok(heartbeat));
}

#[test]
fn bytes_behind_the_last_field_are_ignored() {
    let wanted = checkpoint(5, "m").unwrap();
    let value = [wanted.value(), b"more".to_vec()].concat();
    assert_eq!(Checkpoint::decode(&wanted.key(), &value), Ok(wanted));
}

#[test]
fn a_string_is_never_cut() {
    let longest = "é".repeat(16_383) + "x";
    assert!(checkpoint(0, &longest).is_ok());
    let too_long = longest + "x";
    let refused = |field| FormatError::TooLong {
        field,
        length_bytes: 32_768,
    };
    assert_eq!(checkpoint(0, &too_long), Err(refused("metadata")));
    let long = too_long.as_str();
    let made = Checkpoint::new(long, "t", 0, 0, 0, "");
    assert_eq!(made, Err(refused("group")));
    let made = Checkpoint::new("g", long, 0, 0, 0, "");
    assert_eq!(made, Err(refused("topic")));
    assert_eq!(Heartbeat::new(long, "t", 0), Err(refused("source alias")));
    assert_eq!(Heartbeat::new("s", long, 0), Err(refused("target alias")));
}

#[test]
fn a_negative_place_is_refused_when_made_and_when_read() {
    let negative = |field| FormatError::Negative { field, value: -1 };
    assert_eq!(checkpoint(-1, ""), Err(negative("downstream offset")));
    let made = Checkpoint::new("g", "t", -1, 0, 0, "");
    assert_eq!(made, Err(negative("partition")));
    let good = checkpoint(5, "").unwrap();
    let mut value = good.value();
    value[10..18].fill(0xff);
    let read = Checkpoint::decode(&good.key(), &value);
    assert_eq!(read, Err(negative("downstream offset")));
}

#[test]
fn what_is_broken_is_named() {
    let good = checkpoint(5, "m").unwrap();
    let (key, mut value) = (good.key(), good.value());
    let read = Checkpoint::decode(&key[..key.len() - 1], &value);
    assert_eq!(read, Err(FormatError::CutOff { field: "partition" }));
    let read = Checkpoint::decode(&key, &value[..value.len() - 1]);
    assert_eq!(read, Err(FormatError::CutOff { field: "metadata" }));
    *value.last_mut().unwrap() = 0xff;
    let read = Checkpoint::decode(&key, &value);
    assert_eq!(read, Err(FormatError::NotUtf8 { field: "metadata" }));
    value[1] = 1;
    assert_eq!(
        Checkpoint::decode(&key, &value),
        Err(FormatError::Version(1))
    );
    let field = "source alias";
    let read = Heartbeat::decode(&[0xff, 0xff], &[]);
    assert_eq!(read, Err(FormatError::Negative { field, value: -1 }));
}

proptest! {
    #[test]
    fn checkpoints_come_back(
        group in ".*", topic in ".*", metadata in ".*",
        partition in 0i32.., upstream in any::<i64>(), downstream in 0i64..,
    ) {
        let wanted =
            Checkpoint::new(group, topic, partition, upstream, downstream, metadata).unwrap();
        prop_assert_eq!(Checkpoint::decode(&wanted.key(), &wanted.value()), Ok(wanted));
    }

    #[test]
    fn heartbeats_come_back(source in ".*", target in ".*", timestamp_ms in any::<i64>()) {
        let wanted = Heartbeat::new(source, target, timestamp_ms).unwrap();
        prop_assert_eq!(Heartbeat::decode(&wanted.key(), &wanted.value()), Ok(wanted));
    }

    /// Whatever is read, nothing panics; and what is taken for a checkpoint is one.
    #[test]
    fn any_bytes_can_be_read(key: Vec<u8>, value: Vec<u8>) {
        let _ = Heartbeat::decode(&key, &value);
        if let Ok(read) = Checkpoint::decode(&key, &value) {
            prop_assert!(key.starts_with(&read.key()) && value.starts_with(&read.value()));
        }
    }
}
