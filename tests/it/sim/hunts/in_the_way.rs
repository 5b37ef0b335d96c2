//! What the running flow noted of a partition that doesn't move stands in the way of a planned failover while somebody
//! notes it, and no longer.

use fake_kafka::world::{self, World};
use twinlog::connect::cluster;
use twinlog::cutover::CutoverError;
use twinlog::state::{CutoverKind, EndsRecord, StateStore, keys};
use twinlog::telemetry::progress::now_ms;

use crate::sim::model::{Place, Side};
use crate::sim::process::{self, failover_options};
use crate::sim::scene::{Scene, Write};

/// How a planned failover ends that begins so long after the last note of a process that is gone.
fn failed_over(world: &mut World, noted_ago_ms: i64) -> Result<Side, CutoverError> {
    let mut scene = Scene::new(world, 1, "");
    scene.topic("t", 1, 1, &[]);
    let place = Place::new("t", 0);
    let twinlog = scene.twinlog(world, "twinlog");
    scene.write(world, Side::Primary, &place, 20, Write::default());
    scene.must_copy(world, std::slice::from_ref(&place), 30_000);
    world.run_for(12_000);
    twinlog.process.power_off();
    let text = scene.text.clone();
    let noted = world.process("noted", move |ctx| {
        let config = process::read(&ctx, &text);
        async move {
            let target = cluster(&config.clusters["standby"]);
            target.metadata(None).await.expect("it answers");
            let store = StateStore::open(&target, "dr").await.expect("it is there");
            let key = keys::ends("dr", "t");
            let known: Option<EndsRecord> = store.get(&key).expect("it is readable");
            let mut record = known.expect("it is written");
            record.at_ms = now_ms();
            record.no_progress.insert(0);
            store.put(&key, &record).await.expect("it is written");
        }
    });
    world.result(&noted, 30_000);
    world.run_for(noted_ago_ms);
    let options = failover_options(CutoverKind::Planned);
    let command = process::failover(world, "operator", &scene.text, options);
    let (report, error) = world.result(&command, 120_000)?;
    assert!(error.is_none(), "{error:?} {report:?}");
    Ok(scene.role())
}

#[test]
fn what_is_noted_now_ends_it_before_it_begins() {
    let error = world::run(1, |world| failed_over(world, 1_000)).expect_err("nothing is begun");
    assert!(error.message.contains("t-0"), "{error:?}");
}

#[test]
fn what_nobody_notes_any_more_stands_in_no_way() {
    let side = world::run(1, |world| failed_over(world, 31_000)).expect("it is through");
    assert_eq!(side, Side::Standby);
}
