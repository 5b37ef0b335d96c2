//! What is copied lands at the same offsets, and a seed is a run.

use fake_kafka::Options;
use fake_kafka::world::{self, World};

use super::process;
use super::records::{Read, make_topic, read, write};

fn copy(world: &mut World) -> (Vec<Vec<Read>>, u64, u64) {
    let source = world.cluster("source", Options::default());
    let target = world.cluster("target", Options::default());
    make_topic(&source, "orders", 2);
    let text = process::config(&source, &target, "");
    process::run(world, "twinlog", &text);
    let brokers = source.clone();
    let writer = world.process("writer", move |ctx| write(ctx, brokers.clone(), 2, 200));
    world.result(&writer, 60_000);
    let whole: Vec<_> = (0..2).map(|at| read(&source, "orders", at)).collect();
    let wanted = whole.clone();
    world.must("all is copied", 60_000, move |_| {
        (0..2).all(|at| read(&target, "orders", at) == wanted[at as usize])
    });
    world.run_for(10_000);
    (whole, world.trace().hash(), world.trace().events())
}

#[test]
fn records_land_at_their_offsets_and_a_seed_is_a_run() {
    let (whole, hash, events) = world::run(1, copy);
    assert!(whole.iter().all(|of| of.len() == 200), "200 in each");
    assert!(events > 1_000, "{events} events");
    assert_eq!(
        world::run(1, copy),
        (whole.clone(), hash, events),
        "the same seed"
    );
    assert_ne!(world::run(2, copy).1, hash, "another seed");
}
