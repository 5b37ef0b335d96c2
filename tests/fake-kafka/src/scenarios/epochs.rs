//! Leader epochs (`Partition.checkCurrentLeaderEpoch`, `LeaderEpochFileCache`, KIP-320, KIP-595).

use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::{BrokerId, OffsetForLeaderEpochRequest, TopicName};

use super::{Batch, Stage, Want, list, text};

const OUT_OF_RANGE: i16 = 1;
const NEWER_EPOCH: i16 = 75;

pub(super) fn known_and_unknown(stage: &mut Stage) {
    let topic = stage.topic("a", 1, &[]);
    stage.write(&topic, Batch::of(3).bytes());
    assert_eq!(stage.end_of(&topic, 0, -1), (0, 0, 3));
    assert_eq!(stage.end_of(&topic, 0, 0), (0, 0, 3));
    assert_eq!(stage.end_of(&topic, 5, 0), (0, -1, -1), "not there yet");
    assert_eq!(stage.end_of(&topic, 0, 1), (NEWER_EPOCH, -1, -1));
    let mut answer = stage.call(&list(&topic, 0, -1, 1, 0), 7);
    assert_eq!(
        answer.topics[0].partitions.remove(0).error_code,
        NEWER_EPOCH
    );
    let newer = Want {
        leader_epoch: 1,
        ..Want::from(0)
    };
    assert_eq!(stage.fetch(&topic, newer).error_code, NEWER_EPOCH);
    let (header, _) = stage.read(&topic, 0)[0];
    assert_eq!(header.leader_epoch, 0, "stamped by the leader");
    // A reader that is further than the log learns where the two part.
    let ahead = Want {
        last_fetched_epoch: 0,
        ..Want::from(9)
    };
    let answer = stage.fetch(&topic, ahead);
    assert_eq!(answer.error_code, 0);
    let diverging = answer.diverging_epoch;
    assert_eq!((diverging.epoch, diverging.end_offset), (0, 3));
    let unheard_of = Want {
        last_fetched_epoch: 4,
        ..Want::from(3)
    };
    assert_eq!(stage.fetch(&topic, unheard_of).error_code, OUT_OF_RANGE);
}

impl Stage {
    fn end_of(&mut self, topic: &str, epoch: i32, current: i32) -> (i16, i32, i64) {
        let partition = OffsetForLeaderPartition::default()
            .with_partition(0)
            .with_leader_epoch(epoch)
            .with_current_leader_epoch(current);
        let topic = OffsetForLeaderTopic::default()
            .with_topic(TopicName(text(topic)))
            .with_partitions(vec![partition]);
        let request = OffsetForLeaderEpochRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_topics(vec![topic]);
        let answer = self.call(&request, 4);
        let found = &answer.topics[0].partitions[0];
        (found.error_code, found.leader_epoch, found.end_offset)
    }
}
