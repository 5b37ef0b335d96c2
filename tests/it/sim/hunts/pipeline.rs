//! Batches and the markers behind them on one connection, many at a time: whatever of it is refused or lost, every
//! record is on the target once and in order, at its offset or where it is told to be.

use fake_kafka::faults::{Action, Fault};
use fake_kafka::kafka_protocol::error::ResponseError;
use fake_kafka::kafka_protocol::messages::ApiKey;
use fake_kafka::world::{self, World};

use crate::sim::expected::holds;
use crate::sim::logs;
use crate::sim::model::{Offsets, Place, Says, Side};
use crate::sim::process::Running;
use crate::sim::scene::{Scene, Write, says};
use crate::sim::stored::{assert_map_is_exact, stored};

/// One way to the target.
const FAR_US: i64 = 20_000;
/// That come at once.
const TRANSACTIONS: u64 = 60;

/// A far target has some transactions; Twinlog is frozen while many more are written.
fn begin(world: &mut World, offsets: &str) -> (Scene, Place, Running) {
    begin_with(world, offsets, &[])
}

/// The same in a topic with these settings.
fn begin_with(
    world: &mut World,
    offsets: &str,
    configs: &[(&str, &str)],
) -> (Scene, Place, Running) {
    let mut scene = Scene::new(world, 1, offsets);
    scene.topic("t", 1, 1, configs);
    let place = Place::new("t", 0);
    let twinlog = scene.twinlog(world, "twinlog");
    for _ in 0..3 {
        scene.write(world, Side::Primary, &place, 1, Write::COMMITTED);
        scene.must_copy(world, std::slice::from_ref(&place), 30_000);
    }
    world.paths(&scene.target, |path| {
        path.to_broker_us = FAR_US;
        path.to_client_us = FAR_US;
    });
    world.run_for(1_000);
    twinlog.process.freeze();
    world.run_for(10);
    for _ in 0..TRANSACTIONS {
        scene.write(world, Side::Primary, &place, 1, Write::COMMITTED);
    }
    (scene, place, twinlog)
}

/// Whether the partition is told to be mapped; then its map must be right.
fn is_turned(scene: &Scene, place: &Place) -> bool {
    let turned = !stored(scene, "topic/dr/t")["turned"]["0"].is_null();
    if turned {
        assert_map_is_exact(scene, place);
    }
    turned
}

/// Everything goes on, and what is on the target is right. Whether the partition has turned.
fn ends_well(world: &mut World, scene: &mut Scene, place: &Place, twinlog: &Running) -> bool {
    scene.must_copy(world, std::slice::from_ref(place), 60_000);
    // The next process reads it from the log alone.
    twinlog.process.kill();
    world.run_for(100);
    twinlog.process.restart();
    for _ in 0..5 {
        scene.write(world, Side::Primary, place, 1, Write::COMMITTED);
    }
    scene.must_copy(world, std::slice::from_ref(place), 60_000);
    world.run_for(12_000);
    let turned = is_turned(scene, place);
    let offsets = match turned {
        true => Offsets::Mapped,
        false => Offsets::Identical,
    };
    holds(
        "in the end",
        &scene.judge_copy(world, twinlog, place, offsets, &[]),
    );
    turned
}

#[test]
fn many_transactions_take_a_few_round_trips() {
    world::run(1, |world| {
        let (mut scene, place, twinlog) = begin(world, "offsets: identical");
        let began_ms = world.now_ms();
        twinlog.process.thaw();
        scene.must_copy(world, std::slice::from_ref(&place), 60_000);
        let took_ms = world.now_ms() - began_ms;
        // One after the other takes two for each: 60 * 80 ms.
        assert!(took_ms < 1_000, "{took_ms} ms");
        assert!(!ends_well(world, &mut scene, &place, &twinlog));
    });
}

/// Plain batches are among them, none of which is merged with its neighbour.
#[test]
fn plain_batches_among_transactions_take_no_round_trips() {
    world::run(1, |world| {
        let (mut scene, place, twinlog) = begin(world, "offsets: identical");
        let large = |transaction| Write {
            transaction,
            bytes: 16_384,
            ..Write::default()
        };
        for _ in 0..TRANSACTIONS {
            scene.write(world, Side::Primary, &place, 2, large(None));
            scene.write(world, Side::Primary, &place, 1, large(Some(true)));
        }
        let began_ms = world.now_ms();
        twinlog.process.thaw();
        scene.must_copy(world, std::slice::from_ref(&place), 60_000);
        let took_ms = world.now_ms() - began_ms;
        // Two for each were 60 * 80 ms.
        assert!(took_ms < 1_500, "{took_ms} ms");
        assert!(!ends_well(world, &mut scene, &place, &twinlog));
    });
}

/// A cleaner took every second record of large batches.
#[test]
fn a_compacted_partition_full_of_holes_takes_a_few_round_trips() {
    world::run(1, |world| {
        let configs = [("cleanup.policy", "compact")];
        let (mut scene, place, twinlog) = begin_with(world, "offsets: identical", &configs);
        let first = logs::read(&scene.source, &place).end;
        for _ in 0..5 {
            scene.write_batch(world, Side::Primary, &place, 200, Write::default());
        }
        scene.clean(&place, |offset| offset < first || offset % 2 == 0);
        let began_ms = world.now_ms();
        twinlog.process.thaw();
        scene.must_copy(world, std::slice::from_ref(&place), 60_000);
        let took_ms = world.now_ms() - began_ms;
        // Two for each were 500 * 80 ms.
        assert!(took_ms < 2_000, "{took_ms} ms");
        assert!(!ends_well(world, &mut scene, &place, &twinlog));
    });
}

/// One of the batches of a step is refused: nothing behind it has its place.
#[test]
fn a_refused_batch_in_the_middle_of_a_step_costs_no_offset() {
    for nth in 1..=12 {
        let turned = world::run(nth, move |world| {
            let (mut scene, place, twinlog) = begin(world, "offsets: auto");
            let large = |transaction| Write {
                transaction,
                bytes: 16_384,
                ..Write::default()
            };
            for _ in 0..10 {
                scene.write(world, Side::Primary, &place, 2, large(None));
                scene.write(world, Side::Primary, &place, 1, large(Some(true)));
            }
            let cluster = scene.target.cluster.clone();
            let fault = Fault::on_topic(ApiKey::Produce, "t")
                .nth(TRANSACTIONS + nth)
                .times(1);
            let refused = Action::Refuse(ResponseError::NotEnoughReplicas);
            let fault = cluster.fault(fault, refused);
            twinlog.process.thaw();
            world.must("it is refused", 60_000, move |_| cluster.fired(fault) > 0);
            ends_well(world, &mut scene, &place, &twinlog)
        });
        assert!(!turned, "Produce {nth}");
    }
}

/// The nth request of a kind is refused in the middle of the others. Whether the partition has turned.
fn refused(seed: u64, key: ApiKey, nth: u64, error: ResponseError) -> bool {
    world::run(seed, move |world| {
        let (mut scene, place, twinlog) = begin(world, "offsets: auto");
        let fault = Fault::on_topic(key, "t").nth(nth).times(1);
        let cluster = scene.target.cluster.clone();
        let fault = cluster.fault(fault, Action::Refuse(error));
        twinlog.process.thaw();
        world.must("it is refused", 60_000, move |_| cluster.fired(fault) > 0);
        ends_well(world, &mut scene, &place, &twinlog)
    })
}

#[test]
fn markers_that_are_refused_in_the_middle_are_told() {
    let mut turned = 0;
    for nth in [1, 2, 3, 5, 20, 50] {
        for error in [
            ResponseError::NotEnoughReplicas,
            ResponseError::ClusterAuthorizationFailed,
            ResponseError::NotLeaderOrFollower,
        ] {
            turned += usize::from(refused(nth, ApiKey::WriteTxnMarkers, nth, error));
        }
    }
    assert!(turned > 5, "{turned} partitions have turned");
}

/// Twinlog dies at any moment behind it, and the next process has nothing but the log.
#[test]
fn a_crash_behind_refused_markers_hides_nothing() {
    let mut turned = 0;
    for after_ms in [0, 1, 5, 20, 41, 60, 100] {
        for policy in ["delete", "compact"] {
            turned += usize::from(world::run(7, move |world| {
                let configs = [("cleanup.policy", policy)];
                let (mut scene, place, twinlog) = begin_with(world, "offsets: auto", &configs);
                let fault = Fault::on_topic(ApiKey::WriteTxnMarkers, "t")
                    .nth(20)
                    .times(2);
                let cluster = scene.target.cluster.clone();
                let refused = Action::Refuse(ResponseError::NotEnoughReplicas);
                let fault = cluster.fault(fault, refused);
                twinlog.process.thaw();
                world.must("it is refused", 60_000, move |_| cluster.fired(fault) > 0);
                world.run_for(after_ms);
                twinlog.process.kill();
                world.run_for(100);
                twinlog.process.restart();
                ends_well(world, &mut scene, &place, &twinlog)
            }));
        }
    }
    assert!(turned > 4, "{turned} partitions have turned");
}

/// A cleaner worked on the last records of one log, and then the topic's policy was changed.
#[test]
fn what_a_cleaner_took_before_the_policy_changed_is_no_shift() {
    for every in [2, 3, 5] {
        world::run(1, move |world| {
            let configs = [("cleanup.policy", "compact")];
            let (mut scene, place, twinlog) = begin_with(world, "offsets: identical", &configs);
            twinlog.process.thaw();
            scene.must_copy(world, std::slice::from_ref(&place), 60_000);
            twinlog.process.kill();
            world.run_for(100);
            let end = logs::read(&scene.source, &place).end;
            scene.clean(&place, |offset| offset + 20 < end || offset % every != 0);
            for brokers in [&scene.source, &scene.target] {
                brokers.cluster.control(|state| {
                    let topic = state.topics.get_mut("t").expect("it is there");
                    topic
                        .configs
                        .insert("cleanup.policy".to_owned(), "delete".to_owned());
                });
            }
            twinlog.process.restart();
            world.run_for(10_000);
            for _ in 0..5 {
                scene.write(world, Side::Primary, &place, 1, Write::COMMITTED);
            }
            world.run_for(10_000);
            let offsets = Offsets::Identical;
            let found = scene.judge_copy(world, &twinlog, &place, offsets, &[]);
            holds("in the end", &found);
            let end_of = |brokers| logs::read(brokers, &place).end;
            assert_eq!(end_of(&scene.target), end_of(&scene.source));
        });
    }
}

/// Markers are refused, and the connection is lost right behind a later batch: the log doesn't end with the newest
/// filler, only the gap in the running numbers tells.
#[test]
fn a_log_that_ends_with_a_batch_behind_refused_markers_is_told() {
    for (refused, cut) in [(5, 9), (10, 12), (20, 30)] {
        let turned = world::run(refused, move |world| {
            let (mut scene, place, twinlog) = begin(world, "offsets: auto");
            let cluster = scene.target.cluster.clone();
            let fault = Fault::on_topic(ApiKey::WriteTxnMarkers, "t")
                .nth(refused)
                .times(1);
            let refusal = Action::Refuse(ResponseError::NotEnoughReplicas);
            let refusal = cluster.fault(fault, refusal);
            let fault = Fault::on_topic(ApiKey::Produce, "t").nth(cut).times(1);
            let cut = cluster.fault(fault, Action::CutAfter);
            twinlog.process.thaw();
            world.must("both happen", 60_000, move |_| {
                cluster.fired(refusal) > 0 && cluster.fired(cut) > 0
            });
            ends_well(world, &mut scene, &place, &twinlog)
        });
        assert!(turned, "markers {refused}, cut behind batch {cut}");
    }
}

#[test]
fn batches_that_are_refused_in_the_middle_cost_no_offset() {
    for nth in [1, 2, 3, 5, 20, 50] {
        for error in [
            ResponseError::NotEnoughReplicas,
            ResponseError::InvalidTimestamp,
            ResponseError::TopicAuthorizationFailed,
            ResponseError::KafkaStorageError,
        ] {
            let turned = refused(nth, ApiKey::Produce, nth, error);
            assert!(!turned, "Produce {nth}, {error:?}");
        }
    }
}

#[test]
fn identical_offsets_stop_where_markers_were_refused() {
    let stopped = world::run(1, |world| {
        let (scene, place, twinlog) = begin(world, "offsets: identical");
        let fault = Fault::on_topic(ApiKey::WriteTxnMarkers, "t")
            .nth(20)
            .times(1);
        let refused = Action::Refuse(ResponseError::NotEnoughReplicas);
        scene.target.cluster.fault(fault, refused);
        twinlog.process.thaw();
        world.run_for(10_000);
        let first = says(world, &twinlog, &place);
        // And the next process finds it by the log alone.
        twinlog.process.kill();
        world.run_for(100);
        twinlog.process.restart();
        world.run_for(10_000);
        assert_eq!(says(world, &twinlog, &place), first);
        first
    });
    let reason = "misplaced".to_owned();
    assert_eq!(stopped, Says::Stopped { reason });
}

#[test]
fn no_crash_among_many_steps_costs_an_offset() {
    for writes in (1..60).step_by(4) {
        let turned = world::run(writes, move |world| {
            let (mut scene, place, twinlog) = begin(world, "offsets: identical");
            twinlog.process.kill_after_writes(writes);
            twinlog.process.thaw();
            // Long enough for all of these writes: what is left of them would kill the next process.
            world.run_for(10_000);
            twinlog.process.restart();
            ends_well(world, &mut scene, &place, &twinlog)
        });
        assert!(!turned, "killed after {writes} writes");
    }
}

#[test]
fn no_lost_connection_among_many_steps_costs_an_offset() {
    for nth in [1, 2, 3, 10, 30, 60] {
        for key in [ApiKey::Produce, ApiKey::WriteTxnMarkers] {
            for after in [false, true] {
                let turned = world::run(nth, move |world| {
                    let (mut scene, place, twinlog) = begin(world, "offsets: identical");
                    let fault = Fault::on_topic(key, "t").nth(nth).times(1);
                    let cut = match after {
                        true => Action::CutAfter,
                        false => Action::CutBefore,
                    };
                    scene.target.cluster.fault(fault, cut);
                    twinlog.process.thaw();
                    ends_well(world, &mut scene, &place, &twinlog)
                });
                assert!(!turned, "{key:?} {nth}, after {after}");
            }
        }
    }
}

/// One partition's batch closes the connection of all of the broker's; the others go on at once.
#[test]
fn what_a_refused_batch_closes_is_open_again_at_once() {
    world::run(1, |world| {
        let mut scene = Scene::new(world, 1, "offsets: identical");
        scene.topic("t", 4, 1, &[]);
        let places: Vec<Place> = (0..4).map(|at| Place::new("t", at)).collect();
        let twinlog = scene.twinlog(world, "twinlog");
        for _ in 0..3 {
            for place in &places {
                scene.write(world, Side::Primary, place, 1, Write::COMMITTED);
            }
            scene.must_copy(world, &places, 30_000);
        }
        twinlog.process.freeze();
        world.run_for(10);
        for _ in 0..30 {
            for place in &places {
                scene.write(world, Side::Primary, place, 1, Write::COMMITTED);
            }
        }
        let fault = Fault::on(ApiKey::Produce).partition("t", 2).nth(5);
        let refused = Action::Refuse(ResponseError::InvalidTimestamp);
        let fault = scene.target.cluster.fault(fault, refused);
        twinlog.process.thaw();
        let innocent = [places[0].clone(), places[1].clone(), places[3].clone()];
        scene.must_copy(world, &innocent, 3_000);
        let asked = scene.target.cluster.fired(fault);
        assert!(asked < 10, "{asked} times");
        scene.target.cluster.clear(fault);
        scene.must_copy(world, &places, 20_000);
        for place in &places {
            let found = scene.judge_copy(world, &twinlog, place, Offsets::Identical, &[]);
            holds("four partitions", &found);
            assert_eq!(logs::markers(&scene.target, place), 33);
        }
    });
}

/// The broker gets another address while steps are on the way to the old one, which is slow: what is sent on the new
/// connection would overtake them, and a filler among it take a record's place.
#[test]
fn nothing_overtakes_steps_on_a_connection_that_is_left_for_another_address() {
    for seed in crate::sim::seeds(3) {
        let turned = world::run(seed, move |world| {
            let (mut scene, place, twinlog) = begin(world, "offsets: auto");
            // Few wait behind it, so that there is room for more.
            let slow = Fault::on_topic(ApiKey::WriteTxnMarkers, "t")
                .nth(TRANSACTIONS - 2)
                .times(1);
            let cluster = scene.target.cluster.clone();
            let slow = cluster.fault(slow, Action::Delay(20_000));
            twinlog.process.thaw();
            world.must("they wait", 60_000, move |_| cluster.fired(slow) > 0);
            world.rename(&scene.target, 1, "moved.kafka");
            // It is heard of within seconds.
            for at in 0..50 {
                world.run_for(300);
                let how = Write {
                    transaction: Some(at % 3 == 0),
                    ..Write::default()
                };
                scene.write(world, Side::Primary, &place, 1, how);
            }
            ends_well(world, &mut scene, &place, &twinlog)
        });
        assert!(!turned, "{seed}");
    }
}

/// A broker hangs for longer than an answer is waited for, and then works off what the connection that was left had on
/// the way, slowly: the partition is opened again beside it.
#[test]
fn what_a_broker_that_hung_still_carries_out_is_waited_for() {
    for seed in crate::sim::seeds(3) {
        let turned = world::run(seed, move |world| {
            let (mut scene, place, twinlog) = begin(world, "offsets: auto");
            let slow = Fault::on_topic(ApiKey::WriteTxnMarkers, "t").nth(2);
            let cluster = scene.target.cluster.clone();
            let slow = cluster.fault(slow, Action::Delay(300));
            twinlog.process.thaw();
            world.run_for(1_000);
            cluster.control(|state| state.freeze_broker(1));
            world.run_for(40_000);
            cluster.control(|state| state.thaw_broker(1));
            for _ in 0..100 {
                world.run_for(100);
                scene.write(world, Side::Primary, &place, 1, Write::default());
            }
            cluster.clear(slow);
            ends_well(world, &mut scene, &place, &twinlog)
        });
        assert!(!turned, "{seed}");
    }
}

/// Two partitions have steps on the way to a broker that hangs for so long, and works them off slowly behind it. Their
/// connections end meanwhile for us alone, if so.
fn hung(seed: u64, frozen_ms: i64, are_cut: bool) {
    world::run(seed, move |world| {
        let mut scene = Scene::new(world, 1, "offsets: auto");
        scene.topic("t", 2, 1, &[]);
        let places = [Place::new("t", 0), Place::new("t", 1)];
        let twinlog = scene.twinlog(world, "twinlog");
        for _ in 0..3 {
            for place in &places {
                scene.write(world, Side::Primary, place, 1, Write::COMMITTED);
            }
            scene.must_copy(world, &places, 30_000);
        }
        world.paths(&scene.target, |path| {
            path.to_broker_us = FAR_US;
            path.to_client_us = FAR_US;
        });
        world.run_for(1_000);
        twinlog.process.freeze();
        world.run_for(10);
        for _ in 0..TRANSACTIONS {
            for place in &places {
                scene.write(world, Side::Primary, place, 1, Write::COMMITTED);
            }
        }
        let slow = Fault::on_topic(ApiKey::WriteTxnMarkers, "t").nth(3);
        let cluster = scene.target.cluster.clone();
        let slow = cluster.fault(slow, Action::Delay(300));
        twinlog.process.thaw();
        world.run_for(1_500);
        cluster.control(|state| state.freeze_broker(1));
        if are_cut {
            world.end_for_client(&twinlog.process, &scene.target);
        }
        world.run_for(frozen_ms);
        cluster.control(|state| state.thaw_broker(1));
        for _ in 0..60 {
            world.run_for(150);
            for place in &places {
                scene.write(world, Side::Primary, place, 1, Write::default());
            }
        }
        cluster.clear(slow);
        for place in &places {
            let turned = ends_well(world, &mut scene, place, &twinlog);
            assert!(!turned, "{seed}, {frozen_ms} ms");
        }
    });
}

/// A request in a broker's queue is executed whatever has become of its connection.
#[test]
fn what_a_connection_that_was_cut_left_in_a_broker_is_waited_for() {
    for seed in crate::sim::seeds(3) {
        hung(seed, 500, true);
    }
}

/// The partition whose request timed out isn't the only one with steps on that connection.
#[test]
fn what_other_partitions_left_on_a_connection_that_timed_out_is_waited_for() {
    for (seed, frozen_ms) in [(1, 29_500), (2, 30_500), (3, 40_000)] {
        hung(seed, frozen_ms, false);
    }
}

/// More fillers are refused at once than one request of them has.
#[test]
fn thousands_of_fillers_that_are_refused_are_told_for_what_they_are() {
    let turned = world::run(1, |world| {
        let (mut scene, place, twinlog) = begin(world, "offsets: auto");
        for _ in 0..30 {
            for _ in 0..75 {
                let aborted = Write {
                    transaction: Some(false),
                    ..Write::default()
                };
                scene.write(world, Side::Primary, &place, 1, aborted);
            }
            scene.write(world, Side::Primary, &place, 1, Write::COMMITTED);
        }
        let fault = Fault::on_topic(ApiKey::WriteTxnMarkers, "t")
            .nth(TRANSACTIONS + 3)
            .times(25);
        let cluster = scene.target.cluster.clone();
        let refused = Action::Refuse(ResponseError::NotEnoughReplicas);
        let fault = cluster.fault(fault, refused);
        twinlog.process.thaw();
        world.must("many are refused", 60_000, move |_| {
            cluster.fired(fault) > 20
        });
        ends_well(world, &mut scene, &place, &twinlog)
    });
    assert!(turned, "what is behind them stands too low");
}
