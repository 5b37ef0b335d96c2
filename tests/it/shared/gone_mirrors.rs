//! Mirrors are deleted on the target while transactions run into them: their neighbours don't notice.

use std::time::{Duration, Instant};

use kafka_protocol::ResponseError;
use twinlog::wire;

use crate::support::flow::{block_on, flow_config, partition_status, wire_cluster};
use crate::support::{Background, KafkaVersion, Twinlog, await_all_same, create_topic, pair};

const DEADLINE: Duration = Duration::from_secs(150);
/// Well below the time after which a request is given up (30 s).
const SOON: Duration = Duration::from_secs(12);
/// Partitions of both are on each lane.
const STAYS: &str = "gone-a";
const GOES: &str = "gone-c";
const PARTITIONS: i32 = 2;

#[test]
fn a_mirror_that_is_deleted_while_its_holes_are_filled_stops_no_other() {
    let (source, target) = pair(KafkaVersion::V4_3);
    let (from, to) = (source.bootstrap(), target.bootstrap());
    for topic in [STAYS, GOES] {
        create_topic(&from, topic, PARTITIONS, &[]);
    }
    let twinlog = Twinlog::start(&flow_config("gone", "gone-.", &from, &to, ""));
    let mut load = Background::new();
    load.transactions(&from, STAYS);
    load.transactions(&from, GOES);
    for _ in 0..6 {
        let status = twinlog.wait_until(DEADLINE, "the mirror grows", |status| {
            (0..PARTITIONS).all(|partition| {
                let found = partition_status(status, GOES, partition);
                found["state"] == "copying" && found["target_position"].as_i64() > Some(100)
            })
        });
        // The status may be that of the mirror before, and the next one not made yet.
        if let Err(error) = block_on(wire::delete_topic(&wire_cluster(&to), GOES)) {
            let code = error.server_code();
            assert_eq!(
                code,
                Some(ResponseError::UnknownTopicOrPartition),
                "{error}"
            );
        }
        let before =
            |partition| partition_status(&status, STAYS, partition)["source_position"].as_i64();
        let since = Instant::now();
        twinlog.wait_until(SOON, "the neighbour goes on", |status| {
            since.elapsed() > Duration::from_secs(1)
                && (0..PARTITIONS).all(|partition| {
                    partition_status(status, STAYS, partition)["source_position"].as_i64()
                        > before(partition)
                })
        });
    }
    load.stop();
    await_all_same(&from, &to, &[STAYS, GOES], DEADLINE);
}
