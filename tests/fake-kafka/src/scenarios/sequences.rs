//! Sequences of idempotent producers (`ProducerAppendInfo.checkSequence`, `ProducerStateEntry`).

use super::{Batch, Stage};

const OUT_OF_ORDER: i16 = 45;
const OLD_EPOCH: i16 = 47;

pub(super) fn follow(stage: &mut Stage) {
    let topic = stage.topic("a", 1, &[]);
    let id = stage.producer();
    // Nobody knows this producer yet: it may begin anywhere.
    assert_eq!(stage.write(&topic, Batch::of(3).by(id, 0, 5).bytes()), 0);
    for wrong in [0, 7, 9] {
        let answer = stage.produce(&topic, Batch::of(1).by(id, 0, wrong).bytes());
        assert_eq!(answer.error_code, OUT_OF_ORDER, "sequence {wrong}");
        assert_eq!(answer.base_offset, -1);
    }
    assert_eq!(stage.write(&topic, Batch::of(2).by(id, 0, 8).bytes()), 3);
    let other = stage.producer();
    let last = i32::MAX - 1;
    assert_eq!(
        stage.write(&topic, Batch::of(2).by(other, 0, last).bytes()),
        5
    );
    assert_eq!(stage.write(&topic, Batch::of(1).by(other, 0, 0).bytes()), 7);
    // Who has no id may write anything.
    assert_eq!(stage.write(&topic, Batch::of(1).bytes()), 8);
}

pub(super) fn duplicates(stage: &mut Stage) {
    let topic = stage.topic("a", 1, &[]);
    let id = stage.producer();
    let batches: Vec<_> = (0..6).map(|n| Batch::of(2).by(id, 0, n * 2)).collect();
    for (batch, offset) in batches.iter().zip((0..).step_by(2)) {
        assert_eq!(stage.write(&topic, batch.bytes()), offset);
    }
    // The last five are remembered.
    for (batch, offset) in batches.iter().zip((0..).step_by(2)).skip(1) {
        let answer = stage.produce(&topic, batch.bytes());
        assert_eq!((answer.error_code, answer.base_offset), (0, offset));
        assert_eq!(
            answer.log_append_time_ms, batch.header.max_timestamp,
            "the batch's time is taken for the time of its append"
        );
    }
    let answer = stage.produce(&topic, batches[0].bytes());
    assert_eq!(answer.error_code, OUT_OF_ORDER, "the sixth is not");
    let other_borders = Batch::of(4).by(id, 0, 8).bytes();
    assert_eq!(
        stage.produce(&topic, other_borders).error_code,
        OUT_OF_ORDER
    );
    assert_eq!(stage.list(&topic, 0, -1).offset, 12);
}

pub(super) fn epochs(stage: &mut Stage) {
    let topic = stage.topic("a", 1, &[]);
    let id = stage.producer();
    stage.write(&topic, Batch::of(1).by(id, 3, 7).bytes());
    let answer = stage.produce(&topic, Batch::of(1).by(id, 4, 8).bytes());
    assert_eq!(answer.error_code, OUT_OF_ORDER);
    let answer = stage.produce(&topic, Batch::of(1).by(id, 2, 8).bytes());
    assert_eq!(answer.error_code, OLD_EPOCH);
    assert_eq!(stage.write(&topic, Batch::of(1).by(id, 4, 0).bytes()), 1);
    // What the old epoch wrote is no duplicate any longer.
    let answer = stage.produce(&topic, Batch::of(1).by(id, 3, 7).bytes());
    assert_eq!(answer.error_code, OLD_EPOCH);
}
