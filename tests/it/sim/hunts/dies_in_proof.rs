//! A broker dies while it is asked what lies behind the ends that stand still: who leads by then is asked, and the
//! failover goes on.

use fake_kafka::faults::{Action, Fault};
use fake_kafka::kafka_protocol::messages::ApiKey;
use fake_kafka::world;
use twinlog::state::CutoverKind;

use crate::sim::logs;
use crate::sim::model::{Place, Side};
use crate::sim::process::{self, failover_options};
use crate::sim::scene::{Scene, Write, names};

#[test]
fn a_leader_that_dies_while_it_is_asked_ends_no_proof() {
    world::run(1, |world| {
        let mut scene = Scene::new(world, 3, "");
        scene.topic("t", 1, 3, &[]);
        let place = Place::new("t", 0);
        scene.twinlog(world, "twinlog");
        scene.write(world, Side::Primary, &place, 20, Write::default());
        scene.must_copy(world, std::slice::from_ref(&place), 30_000);
        world.run_for(12_000);
        let text = scene
            .text
            .replacen("primary: {", "primary: { client.id: operator,", 1);
        let options = failover_options(CutoverKind::Planned);
        let command = process::failover(world, "operator", &text, options);
        let target = scene.target.clone();
        world.must("it proves", 60_000, move |_| {
            logs::is_begun(&target, "cutover/dr", "prove")
        });
        let source = scene.source.cluster.clone();
        let asked = Fault::on(ApiKey::Fetch).client_id("operator").times(1);
        let dies = Action::Arrives(Box::new(|state, seen| state.stop_broker(seen.broker)));
        let dies = source.fault(asked, dies);
        let (report, error) = world.result(&command, 120_000).expect("it may begin");
        assert_eq!(source.fired(dies), 1);
        assert!(error.is_none(), "{error:?} {report:?}");
        assert_eq!(scene.role(), Side::Standby);
        assert_eq!(names(&scene.target, &place).len(), 20);
    });
}
