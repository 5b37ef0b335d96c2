//! A planned failover whose operator is far away: there is time between the journal's word and the deed.

use fake_kafka::world::{Process, World};
use twinlog::state::CutoverKind;

use crate::sim::logs;
use crate::sim::model::{Place, Side};
use crate::sim::process::{self, CutOver, failover_options};
use crate::sim::scene::{Scene, Write};

/// The command has begun `step`. One partition is copied.
pub(super) fn begun(world: &mut World, step: &'static str) -> (Scene, Place, Process<CutOver>) {
    let mut scene = Scene::new(world, 1, "");
    scene.topic("t", 1, 1, &[]);
    let place = Place::new("t", 0);
    scene.twinlog(world, "twinlog");
    scene.write(world, Side::Primary, &place, 50, Write::default());
    scene.must_copy(world, std::slice::from_ref(&place), 30_000);
    let options = failover_options(CutoverKind::Planned);
    let command = process::failover(world, "operator", &scene.text, options);
    world.path(&command, &scene.target, |path| {
        path.to_broker_us = 15_000;
        path.to_client_us = 15_000;
    });
    let target = scene.target.clone();
    world.must("it has begun the step", 120_000, move |_| {
        let journal = logs::newest(&target, "__twinlog_state", "cutover/dr");
        journal.is_some_and(|it| is_doing(&it, step))
    });
    (scene, place, command)
}

fn is_doing(journal: &str, step: &str) -> bool {
    let journal: serde_json::Value = serde_json::from_str(journal).expect("a journal is JSON");
    let steps = journal["steps"].as_array().expect("it has steps");
    steps
        .iter()
        .any(|it| it["step"] == step && it["state"] == "doing")
}
