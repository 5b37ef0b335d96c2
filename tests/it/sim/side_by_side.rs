//! Two processes of one flow: at any time one of them copies, whatever becomes of the other.

use fake_kafka::Options;
use fake_kafka::faults::{Action, Fault};
use fake_kafka::kafka_protocol::messages::ApiKey;
use fake_kafka::world::{self, Brokers, Phase, World};
use twinlog::flow::AllEnded;

use super::process;
use super::records::{make_topic, read, write};

fn clusters(world: &mut World) -> (Brokers, Brokers) {
    let source = world.cluster("source", Options::default());
    let target = world.cluster("target", Options::default());
    make_topic(&source, "orders", 2);
    (source, target)
}

fn start_writing(world: &mut World, source: &Brokers, count: i32) {
    let brokers = source.clone();
    world.process("writer", move |ctx| write(ctx, brokers.clone(), 2, count));
}

fn all_is_copied(world: &mut World, source: &Brokers, target: &Brokers, count: usize) {
    let (from, to) = (source.clone(), target.clone());
    world.must("all is copied", 120_000, move |_| {
        (0..2).all(|at| {
            let wanted = read(&from, "orders", at);
            wanted.len() == count && read(&to, "orders", at) == wanted
        })
    });
}

/// The first is frozen while a produce request of its own is being handled; the second takes over; the
/// first wakes up in the middle of the second's work.
fn freeze_and_thaw(world: &mut World) -> u64 {
    let (source, target) = clusters(world);
    let text = process::config(&source, &target, "");
    let first = process::run(world, "first", &text);
    start_writing(world, &source, 400);
    let victim = first.process.clone();
    let nth = 3 + world.random(20);
    let freeze = Action::HasTakenEffect(Box::new(move |_, _| victim.freeze()));
    let at_third = Fault::on_topic(ApiKey::Produce, "orders").nth(nth).times(1);
    target.cluster.fault(at_third, freeze);
    let frozen = first.process.clone();
    world.must("the first is frozen", 30_000, move |_| {
        frozen.phase() == Phase::Frozen
    });
    let second = process::run(world, "second", &text);
    world.run_for(2_000);
    first.process.thaw();
    let woken = first.clone();
    world.must("it has lost its claim", 30_000, move |world| {
        woken.waits(world)
    });
    all_is_copied(world, &source, &target, 400);
    for it in [first, second] {
        it.process.stop();
        assert_eq!(world.result(&it.process, 15_000), AllEnded::AsTold);
    }
    world.trace().hash()
}

#[test]
fn a_process_that_wakes_up_late_finds_another_owner() {
    for seed in 1..=5 {
        let hash = world::run(seed, freeze_and_thaw);
        assert_eq!(
            world::run(seed, freeze_and_thaw),
            hash,
            "seed {seed} is a run"
        );
    }
}

#[test]
fn a_killed_process_goes_on_where_it_was() {
    for seed in 1..=5 {
        world::run(seed, |world| {
            let (source, target) = clusters(world);
            let text = process::config(&source, &target, "");
            let twinlog = process::run(world, "twinlog", &text);
            start_writing(world, &source, 300);
            for _ in 0..3 {
                let ms = 200 + world.random(400);
                world.run_for(ms.cast_signed());
                twinlog.process.restart();
            }
            all_is_copied(world, &source, &target, 300);
            assert_eq!(twinlog.process.starts(), 4);
            world.run_for(5_000);
            let status = twinlog.status(world);
            assert_eq!(status.flows[0].state, "running", "{:?}", status.flows[0]);
        });
    }
}

#[test]
fn a_partition_of_the_network_is_waited_out() {
    world::run(3, |world| {
        let (source, target) = clusters(world);
        let text = process::config(&source, &target, "");
        let twinlog = process::run(world, "twinlog", &text);
        start_writing(world, &source, 300);
        world.run_for(500);
        world.partition(&twinlog.process, &target);
        world.run_for(60_000);
        assert!(read(&target, "orders", 0).len() < 300, "nothing arrived");
        world.heal(&twinlog.process, &target);
        all_is_copied(world, &source, &target, 300);
    });
}
