//! What the intake may be shown.

use super::*;
use crate::batch::{self, Stamp};
use crate::flow::partition::PartitionParts;

const KEY: (Uuid, i32) = (Uuid::nil(), 0);

fn partition(trouble: &crate::flow::partition::TroubleSender) -> Arc<Partition> {
    Arc::new(Partition::new(PartitionParts::for_tests(trouble.clone())))
}

fn slots_at(source: i64, partition: &Arc<Partition>) -> Slots {
    let opening = Opening {
        partition: partition.clone(),
        position: Position {
            source,
            target: source,
            ..Position::default()
        },
        leader_epoch: 0,
        last_epoch: -1,
        until: None,
    };
    let mut slots = Slots::new();
    add(&mut slots, &mut SessionState::default(), opening);
    slots
}

/// Five records from `base_offset` on.
fn fetched(partition: &Arc<Partition>, base_offset: i64) -> Fetched {
    let stamp = Stamp {
        producer_id: 9,
        producer_epoch: 0,
        base_sequence: 0,
    };
    let mut records = batch::empty_records_batch(batch::Codec::Zstd, 5, 0, stamp).to_vec();
    // The base offset is outside the CRC.
    records[..8].copy_from_slice(&base_offset.to_be_bytes());
    Fetched {
        key: KEY,
        partition: partition.clone(),
        from: base_offset,
        _hold: partition.meter.hold(records.len() as u64),
        records: records.into(),
        aborted: Vec::new(),
        high_watermark: i64::MAX,
    }
}

#[test]
fn what_was_fetched_for_a_closed_partition_is_dropped() {
    let (trouble, _troubles) = mpsc::unbounded_channel();
    let (old, new) = (partition(&trouble), partition(&trouble));
    old.close();
    let mut slots = slots_at(10, &new);
    take_in(&mut slots, vec![fetched(&old, 20)]);
    assert_eq!(slots[&KEY].position.source, 10);
    assert!(!new.has_work() && !new.is_closed());
    take_in(&mut slots, vec![fetched(&new, 10)]);
    assert_eq!(slots[&KEY].position.source, 15);
    assert!(new.has_work());
}

#[test]
fn records_that_begin_too_late_are_no_hole() {
    let (trouble, mut troubles) = mpsc::unbounded_channel();
    let partition = partition(&trouble);
    let mut slots = slots_at(10, &partition);
    take_in(&mut slots, vec![fetched(&partition, 20)]);
    assert!(partition.is_closed() && !partition.has_work());
    let (_, trouble) = troubles.try_recv().expect("it was reported");
    assert_eq!(trouble.reason(), "discontinuous");
}

#[test]
fn a_small_part_of_an_answer_that_will_wait_is_copied_out_of_it() {
    let answer = Bytes::from(vec![7; 1 << 20]);
    let part = answer.slice(100..1_000);
    let is_shared = |records: &Bytes| answer.as_ptr_range().contains(&records.as_ptr());
    assert!(is_shared(&out_of(answer.len(), part.clone(), false)));
    let copied = out_of(answer.len(), part.clone(), true);
    assert!(copied == part && !is_shared(&copied));
    // Most of an answer is as well kept whole.
    let most = answer.slice(..1 << 19);
    assert!(is_shared(&out_of(answer.len(), most, true)));
}

/// Full answers over a line that takes so many bytes a second, after so many.
fn pace_on(bytes_per_second: f64, answers: usize, mut pace: Pace) -> Pace {
    for _ in 0..answers {
        let took =
            Duration::from_millis(200).as_secs_f64() + pace.fetch_bytes as f64 / bytes_per_second;
        pace.note(pace.fetch_bytes, Duration::from_secs_f64(took), true);
    }
    pace
}

#[test]
fn an_answer_takes_seconds_at_most_on_a_thin_line() {
    let thin = pace_on(150e3, 5, Pace::first());
    assert!(
        (300_000..=600_000).contains(&thin.fetch_bytes),
        "{}",
        thin.fetch_bytes
    );
    // It is a thick one again.
    let thick = pace_on(1e9, 20, thin);
    assert_eq!(thick.fetch_bytes, FETCH_BYTES_MAX);
}

#[test]
fn a_small_answer_that_came_late_says_nothing_about_the_line() {
    let mut pace = Pace::first();
    pace.note(FETCH_BYTES_LEAST, Duration::from_secs(20), true);
    assert_eq!(pace.fetch_bytes, FETCH_BYTES_START);
}

#[test]
fn a_session_is_at_rest_until_anything_changes() {
    let (trouble, _troubles) = mpsc::unbounded_channel();
    let open = partition(&trouble);
    let budget = open.meter.budget().clone();
    let mut state = SessionState {
        asks_the_same: true,
        ..SessionState::default()
    };
    let until = Instant::now() + REST_MAX;
    let changes = budget.changes();
    assert!(!state.is_at_rest(changes), "nothing was answered yet");
    state.note_rest(changes, false, until);
    assert!(!state.is_at_rest(changes), "something came");
    state.forgotten.push((uuid::Uuid::nil(), 0));
    state.note_rest(changes, true, until);
    assert!(!state.is_at_rest(changes), "it has one to forget");
    state.forgotten.clear();
    state.note_rest(changes, true, until);
    assert!(state.is_at_rest(budget.changes()));
    let reasons: [&dyn Fn(); 5] = [
        &|| drop(open.meter.hold(5)),
        &|| open.meter.set_behind(true),
        &|| budget.set_limits(64 << 20, 16 << 20),
        &|| open.close(),
        &|| open.fail(Trouble::TakingOver),
    ];
    for (number, change) in reasons.iter().enumerate() {
        state.note_rest(budget.changes(), true, until);
        change();
        assert!(!state.is_at_rest(budget.changes()), "reason {number}");
    }
    state.note_rest(budget.changes(), true, until);
    let mut slots = Slots::new();
    assert!(state.is_at_rest(budget.changes()));
    let opening = slots_at(0, &partition(&trouble)).pop_first();
    let (_, slot) = opening.expect("it is open");
    let opening = Opening {
        partition: slot.partition,
        position: slot.position,
        leader_epoch: 0,
        last_epoch: -1,
        until: None,
    };
    add(&mut slots, &mut state, opening);
    assert!(!state.is_at_rest(budget.changes()), "there is one more");
}

#[test]
fn a_rest_ends_when_a_partition_goes_back_to_its_leader() {
    let (trouble, _troubles) = mpsc::unbounded_channel();
    let mut slots = slots_at(0, &partition(&trouble));
    assert!(rests_until(&slots) > Instant::now() + REST_MAX / 2);
    let soon = Instant::now() + Duration::from_secs(3);
    slots.values_mut().for_each(|slot| slot.until = Some(soon));
    assert_eq!(rests_until(&slots), soon);
}
