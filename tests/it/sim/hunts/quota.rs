//! A quota of producers on the target, and transactions: their batches are sent with acks 0, so nothing tells how long the
//! broker mutes the connection. No connection is given up, nothing is sent twice, and nothing stops.

use std::collections::BTreeMap;

use fake_kafka::world::{self, Brokers, World};
use twinlog::state::CutoverKind;

use crate::sim::expected::holds;
use crate::sim::model::{Offsets, Place, Side};
use crate::sim::process::{self, failover_options};
use crate::sim::scene::{Scene, Write};

const PARTITIONS: i32 = 4;

fn limit(scene: &Scene, bytes_per_second: f64) {
    limit_at(&scene.target, bytes_per_second);
}

fn limit_at(brokers: &Brokers, bytes_per_second: f64) {
    brokers.cluster.control(|state| {
        let whom = BTreeMap::from([("client-id".to_owned(), Some("twinlog".to_owned()))]);
        let quota = BTreeMap::from([("producer_byte_rate".to_owned(), bytes_per_second)]);
        state.quotas.insert(whom, quota);
    });
}

/// A flow under way is held by a quota from one moment to the next, and then transactions of that size come.
fn held(seed: u64, bytes_per_second: f64, (transactions, bytes): (u64, usize)) {
    world::run(seed, move |world: &mut World| {
        let mut scene = Scene::new(world, 1, "offsets: identical");
        scene.topic("t", PARTITIONS, 1, &[]);
        let places: Vec<Place> = (0..PARTITIONS).map(|at| Place::new("t", at)).collect();
        let twinlog = scene.twinlog(world, "twinlog");
        for _ in 0..3 {
            for place in &places {
                scene.write(world, Side::Primary, place, 1, Write::COMMITTED);
            }
            scene.must_copy(world, &places, 30_000);
        }
        // The line is known to be fast.
        for _ in 0..20 {
            for place in &places {
                let large = Write {
                    bytes: 100_000,
                    ..Write::COMMITTED
                };
                scene.write(world, Side::Primary, place, 1, large);
            }
        }
        scene.must_copy(world, &places, 30_000);
        world.run_for(12_000);
        limit(&scene, bytes_per_second);
        let before = world.traffic(&scene.target);
        twinlog.process.freeze();
        world.run_for(10);
        for _ in 0..transactions {
            for place in &places {
                scene.write(
                    world,
                    Side::Primary,
                    place,
                    1,
                    Write {
                        bytes,
                        ..Write::COMMITTED
                    },
                );
            }
        }
        twinlog.process.thaw();
        let data = transactions * u64::try_from(PARTITIONS).expect("small") * bytes as u64;
        let least_ms = (data as f64 / bytes_per_second * 1_000.0) as i64;
        let began_ms = world.now_ms();
        scene.must_copy(world, &places, 2 * least_ms + 60_000);
        let took_ms = world.now_ms() - began_ms;
        let after = world.traffic(&scene.target);
        let line = after.to_brokers - before.to_brokers;
        println!(
            "{data} bytes took {took_ms} ms (least: {least_ms}) and {line} on the line; {before:?} to {after:?}"
        );
        // One that asks for the quota.
        assert!(
            after.connections <= before.connections + 1,
            "{before:?} to {after:?}"
        );
        assert!(
            took_ms <= least_ms * 5 / 4 + 15_000,
            "{took_ms} of {least_ms} ms"
        );
        // State, metadata and questions of some minutes are beside it.
        let beside = u64::try_from(took_ms).expect("not negative") * 3;
        assert!(
            line * 100 <= data * 104 + beside * 100,
            "{line} bytes for {data}"
        );
        for place in &places {
            let found = scene.judge_copy(world, &twinlog, place, Offsets::Identical, &[]);
            holds("under a quota", &found);
        }
    });
}

#[test]
fn large_transactions_wait_as_long_as_the_broker_mutes() {
    held(1, 20_000.0, (4, 250_000));
}

#[test]
fn small_transactions_shrink_to_what_the_quota_takes() {
    held(2, 20_000.0, (200, 2_000));
}

/// The rate in Kafka's own examples.
#[test]
fn a_quota_of_a_kilobyte_stops_nothing() {
    held(3, 1_024.0, (2, 50_000));
}

/// The old primary holds back what is written to it, signs of life too.
#[test]
fn who_copies_back_under_a_small_quota_is_not_silent() {
    world::run(4, |world| {
        let mut scene = Scene::new(world, 1, "");
        scene.topic("t", PARTITIONS, 1, &[]);
        let places: Vec<Place> = (0..PARTITIONS).map(|at| Place::new("t", at)).collect();
        let _twinlog = scene.twinlog(world, "twinlog");
        for place in &places {
            scene.write(world, Side::Primary, place, 20, Write::default());
        }
        scene.must_copy(world, &places, 30_000);
        world.run_for(12_000);
        let planned = failover_options(CutoverKind::Planned);
        let failover = process::failover(world, "operator", &scene.text, planned);
        let (report, error) = world.result(&failover, 120_000).expect("it may begin");
        assert!(error.is_none(), "{error:?} {report:?}");
        let begun = process::begin_back(world, "operator-begins", &scene.text);
        let (report, error) = world.result(&begun, 120_000).expect("it may begin");
        assert!(error.is_none(), "{error:?} {report:?}");
        world.run_for(20_000);
        limit_at(&scene.source, 400.0);
        let back = process::failback(world, "operator-back", &scene.text, true);
        let (report, error) = world.result(&back, 1_200_000).expect("it may begin");
        assert!(error.is_none(), "{error:?} {report:?}");
        let stop = report.steps.iter().find(|it| it.step == "stop_copying");
        let stop = stop.unwrap_or_else(|| panic!("{report:?}"));
        assert!(stop.result.contains("in order"), "{stop:?}");
    });
}
