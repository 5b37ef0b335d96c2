//! Two commands begin at the same moment, each nearer to another cluster: one goes through, the other is told whose plan
//! is running.
//!
//! A failback holds two leases, one on each cluster. Each of two commands may be the first at the one that is near to it;
//! both were sent away then, and the other one's plan named to each of them. And where there was no lease before, the far
//! one's record came when the near one had looked for it already: both held the same lease.

use fake_kafka::world::{self, Brokers, Process, World};
use twinlog::cutover::CutoverError;
use twinlog::state::CutoverKind;

use crate::sim::model::{Place, Side};
use crate::sim::process::{self, CutOver, failover_options};
use crate::sim::scene::{Scene, Write};

const ONE_WAY_US: i64 = 40_000;

fn far(world: &World, command: &Process<CutOver>, brokers: &Brokers) {
    world.path(command, brokers, |path| {
        (path.to_broker_us, path.to_client_us) = (ONE_WAY_US, ONE_WAY_US);
    });
}

fn failed_over(world: &mut World) -> (Scene, Place) {
    let mut scene = Scene::new(world, 1, "");
    scene.topic("t", 1, 1, &[]);
    let place = Place::new("t", 0);
    scene.twinlog(world, "twinlog");
    scene.write(world, Side::Primary, &place, 20, Write::default());
    scene.must_copy(world, std::slice::from_ref(&place), 30_000);
    let options = failover_options(CutoverKind::Planned);
    let failover = process::failover(world, "operator", &scene.text, options);
    let (_, error) = world.result(&failover, 120_000).expect("it may begin");
    assert!(error.is_none(), "{error:?}");
    scene.write(world, Side::Standby, &place, 20, Write::default());
    (scene, place)
}

fn refusal(ended: CutOver) -> Option<CutoverError> {
    match ended {
        Ok((_, error)) => error,
        Err(error) => Some(error),
    }
}

/// The second one comes so much later.
fn one_goes_back(world: &mut World, later_ms: i64) {
    let (scene, _) = failed_over(world);
    let one = process::failback(world, "one", &scene.text, true);
    far(world, &one, &scene.source);
    world.run_for(later_ms);
    let other = process::failback(world, "other", &scene.text, true);
    far(world, &other, &scene.target);
    let ended = [&one, &other].map(|it| refusal(world.result(it, 120_000)));
    let told: Vec<&CutoverError> = ended.iter().flatten().collect();
    let [told] = told[..] else {
        panic!("{later_ms} ms later: {ended:?}");
    };
    let words = ["is being carried out by", "has gone on with a cut-over"];
    assert!(
        words.iter().any(|it| told.message.contains(it)),
        "{later_ms} ms later: {ended:?}"
    );
    assert_eq!(scene.role(), Side::Primary);
}

#[test]
fn of_two_failbacks_that_begin_at_once_one_goes_through() {
    for later_ms in [0, 10, 20, 40, 80, 160, 320] {
        world::run(1, move |world| one_goes_back(world, later_ms));
    }
}
