//! What a flow costs while nothing happens: the line to a far side is paid for by the byte.

use std::collections::BTreeMap;

use fake_kafka::faults::{Action, Fault};
use fake_kafka::kafka_protocol::messages::ApiKey;
use fake_kafka::memory::Spent;
use fake_kafka::world::{self, World};
use twinlog::state::CutoverKind;

use crate::sim::model::{Place, Side};
use crate::sim::process::{self, Running};
use crate::sim::scene::{Scene, Write};

const PARTITIONS: i32 = 4;
/// So long until everything that belongs to a start is over, and it is known what comes at rest.
const SETTLES_MS: i64 = 100_000;
const RESTS_MS: i64 = 120_000;
/// Of either side, both ways.
const BYTES_PER_SECOND: f64 = 20_000.0;
const SIDES: [Side; 2] = [Side::Primary, Side::Standby];

/// A flow of so many topics, all of which are copied.
fn copied(world: &mut World, topics: usize) -> (Scene, Running) {
    let scene = Scene::new(world, 3, "");
    for topic in 0..topics {
        scene.topic(&format!("orders.of-a-shop.{topic:05}"), PARTITIONS, 1, &[]);
    }
    for side in SIDES {
        let brokers = scene.side(side);
        brokers
            .cluster
            .control(|state| state.create_offsets_topic());
    }
    let twinlog = scene.twinlog(world, "twinlog");
    let (shown, all) = (
        twinlog.clone(),
        topics as u64 * PARTITIONS.unsigned_abs() as u64,
    );
    world.must("all is copied", 600_000, move |world| {
        let status = shown.status(world);
        let mut flows = status.flows.iter();
        flows.any(|flow| (flow.totals.copying, flow.totals.lag_records) == (all, 0))
    });
    (scene, twinlog)
}

/// Questions, bytes sent and received per second, by side and question.
type Costs = BTreeMap<(Side, String), [f64; 3]>;

fn costs(world: &mut World, scene: &Scene) -> Costs {
    let before = SIDES.map(|side| world.spent(scene.side(side)));
    world.run_for(RESTS_MS);
    let after = SIDES.map(|side| world.spent(scene.side(side)));
    let per_second = |of: u64, then: u64| (of - then) as f64 * 1_000.0 / RESTS_MS as f64;
    let mut costs = Costs::new();
    for (side, (before, after)) in SIDES.into_iter().zip(before.into_iter().zip(after)) {
        for (api, now) in after {
            let then: Spent = before.get(&api).copied().unwrap_or_default();
            let cost = [
                per_second(now.requests, then.requests),
                per_second(now.to_brokers, then.to_brokers),
                per_second(now.to_clients, then.to_clients),
            ];
            costs.insert((side, api), cost);
        }
    }
    costs
}

fn told(costs: &Costs) -> String {
    let lines = costs.iter().filter(|(_, cost)| cost[0] > 0.0);
    let lines = lines.map(|((side, api), [asked, sent, received])| {
        format!("{side:?} {api:30} {asked:8.2}/s {sent:10.0} {received:10.0}\n")
    });
    lines.collect()
}

#[test]
fn a_rest_costs_little_and_news_are_found_all_the_same() {
    let topics = 200;
    world::run(1, move |world| {
        let (mut scene, _twinlog) = copied(world, topics);
        world.run_for(SETTLES_MS);
        let costs = costs(world, &scene);
        println!("{}", told(&costs));
        for side in SIDES {
            let of_side = costs.iter().filter(|((of, _), _)| *of == side);
            let sum: f64 = of_side.map(|(_, cost)| cost[1] + cost[2]).sum();
            assert!(
                sum <= BYTES_PER_SECOND,
                "{side:?}: {sum:.0} bytes a second\n{}",
                told(&costs)
            );
        }
        // It was at rest for minutes.
        scene.topic("new", 1, 1, &[]);
        let place = Place::new("new", 0);
        scene.write(world, Side::Primary, &place, 1, Write::default());
        scene.must_copy(world, &[place], 10_000);
        change(world, &scene, "orders.of-a-shop.00121", 15_000);
        // A look that nobody answered is none, neither is the one behind it.
        let fault = Fault::on(ApiKey::DescribeConfigs).times(2);
        scene.source.cluster.fault(fault, Action::Swallow);
        change(world, &scene, "orders.of-a-shop.00023", 120_000);
    });
}

/// Changes a topic's config on the source, and sees it follow within so many milliseconds.
fn change(world: &mut World, scene: &Scene, topic: &'static str, within_ms: i64) {
    let (key, value) = ("retention.ms".to_owned(), "77".to_owned());
    scene.source.cluster.control(|state| {
        let topic = state.topics.get_mut(topic).expect("it is there");
        topic.configs.insert(key, value);
    });
    let target = scene.target.clone();
    world.must("the config follows", within_ms, move |_| {
        target.cluster.look(|state| {
            let copy = state.topics.get(topic);
            copy.is_some_and(|it| it.configs.get("retention.ms").is_some_and(|it| it == "77"))
        })
    });
}

/// Behind a failover nobody copies any more: what the old primary has is asked for when it may have changed.
#[test]
fn an_old_primary_is_not_described_again_and_again() {
    let costs = world::run(1, |world| {
        let (scene, _twinlog) = copied(world, 200);
        let options = process::failover_options(CutoverKind::Planned);
        let command = process::failover(world, "operator", &scene.text, options);
        let (report, error) = world.result(&command, 300_000).expect("it may begin");
        assert!(error.is_none(), "{error:?} {report:?}");
        world.run_for(SETTLES_MS);
        costs(world, &scene)
    });
    println!("{}", told(&costs));
    let [_, _, described] = costs[&(Side::Primary, "Metadata".to_owned())];
    assert!(
        described < 8_000.0,
        "{described:.0} bytes/s: {}",
        told(&costs)
    );
}
