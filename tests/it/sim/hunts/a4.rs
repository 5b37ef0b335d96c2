//! A replica that lacks records is elected on the source, while Twinlog runs.

use fake_kafka::Options;
use fake_kafka::faults::{Action, Fault};
use fake_kafka::kafka_protocol::error::ResponseError;
use fake_kafka::kafka_protocol::messages::ApiKey;
use fake_kafka::world::{self, World};

use crate::sim::expected::holds;
use crate::sim::model::{Offsets, Place, Side, Violation, judge};
use crate::sim::scene::{Scene, Write, says};

/// A follower misses 100 records that are copied; then it leads, and the log grows beyond what was
/// copied before Twinlog looks again. `unclean`: it leads without them. `refused`: Twinlog was killed meanwhile, and its first
/// question about epochs fails.
fn play(world: &mut World, unclean: bool, refused: Option<ResponseError>) -> Vec<Violation> {
    let options = |brokers| Options {
        brokers,
        ..Options::default()
    };
    let mut scene = Scene::with(world, options(2), options(1), "");
    scene.topic("t", 1, 2, &[]);
    let place = Place::new("t", 0);
    let twinlog = scene.twinlog(world, "twinlog");
    scene.write_batch(world, Side::Primary, &place, 100, Write::default());
    scene.must_copy(world, std::slice::from_ref(&place), 30_000);
    // What was seen of the source is stored every 30 s.
    world.run_for(40_000);
    let (leader, follower) = scene.source.cluster.look(|state| {
        let found = state.partition("t", 0).expect("it is there");
        let leader = found.leader.expect("it is led");
        (leader, 3 - leader)
    });
    if unclean {
        scene.source.cluster.control(|state| {
            state.lag("t", 0, follower);
            state.shrink_in_sync("t", 0);
        });
    }
    scene.write_batch(world, Side::Primary, &place, 100, Write::default());
    scene.must_copy(world, std::slice::from_ref(&place), 10_000);
    match refused {
        Some(code) => {
            // Its epochs are stored by then.
            world.run_for(40_000);
            twinlog.process.kill();
            let asked = Fault::on(ApiKey::OffsetForLeaderEpoch).topic("t").times(1);
            scene.source.cluster.fault(asked, Action::Refuse(code));
        }
        None => twinlog.process.freeze(),
    }
    world.run_for(10);
    scene.source.cluster.control(|state| {
        state.stop_broker(leader);
        if unclean {
            state.elect_unclean("t", 0, follower);
        }
    });
    scene.write_batch(world, Side::Primary, &place, 300, Write::default());
    world.run_for(100);
    match refused {
        Some(_) => twinlog.process.restart(),
        None => twinlog.process.thaw(),
    }
    // It is looked at again meanwhile.
    world.run_for(100_000);
    let says = says(world, &twinlog, &place);
    if unclean {
        let told = format!("{says:?}");
        assert!(told.contains("source_truncated"), "{told}");
    }
    let mut case = scene.case(&place, says, Offsets::Identical, &["source_truncated"]);
    if unclean {
        // What the source lost stays on the target.
        case.strangers = (101..=200).map(|n| format!("Primary-{n}")).collect();
    }
    judge(&case)
}

#[test]
fn an_unclean_election_is_found_by_a_running_twinlog() {
    for seed in crate::sim::seeds(5) {
        holds(
            "an unclean election",
            &world::run(seed, |world| play(world, true, None)),
        );
    }
}

#[test]
fn a_clean_election_is_followed() {
    for seed in crate::sim::seeds(3) {
        holds(
            "a clean election",
            &world::run(seed, |world| play(world, false, None)),
        );
    }
}

#[test]
fn an_unclean_election_is_found_where_the_question_about_epochs_fails_once() {
    let refused = Some(ResponseError::UnknownServerError);
    for seed in 1..=3 {
        holds(
            "an unclean election, and no answer",
            &world::run(seed, move |world| play(world, true, refused)),
        );
    }
}
