//! A consumer on the source commits and leaves in the moment in which the cut-over looks for the last time: it was seen
//! with a member before, and is waited for.

use std::sync::{Arc, OnceLock};

use fake_kafka::faults::{Action, Fault, FaultId};
use fake_kafka::kafka_protocol::messages::ApiKey;
use fake_kafka::world;
use twinlog::state::CutoverKind;

use crate::sim::clients;
use crate::sim::logs;
use crate::sim::model::{Place, Side};
use crate::sim::process::{self, failover_options};
use crate::sim::scene::{Scene, Write};

const RECORDS: u64 = 20;
const END: i64 = 20;

#[test]
fn who_leaves_with_a_last_commit_is_waited_for() {
    world::run(1, |world| {
        let mut scene = Scene::new(world, 1, "");
        scene.topic("t", 1, 1, &[]);
        for brokers in [&scene.source, &scene.target] {
            let cluster = &brokers.cluster;
            cluster.control(|state| state.create_offsets_topic());
        }
        let place = Place::new("t", 0);
        scene.twinlog(world, "twinlog");
        scene.write(world, Side::Primary, &place, RECORDS, Write::default());
        scene.must_copy(world, std::slice::from_ref(&place), 30_000);
        let (source, asked) = (scene.source.clone(), scene.source.cluster.clone());
        let noted: Arc<OnceLock<FaultId>> = Arc::default();
        let shown = noted.clone();
        let member = world.process("member", move |ctx| {
            let (asked, shown) = (asked.clone(), shown.clone());
            // The second list of the step is held back: where the group is has been answered.
            let leaves = move || shown.get().is_some_and(|late| asked.fired(*late) >= 2);
            clients::member(ctx, source.clone(), ("t", "group"), (END - 5, END), leaves)
        });
        world.run_for(5_000);
        let text = scene
            .text
            .replacen("primary: {", "primary: { client.id: operator,", 1);
        let options = failover_options(CutoverKind::Planned);
        let command = process::failover(world, "operator", &text, options);
        let target = scene.target.clone();
        world.must("groups are brought", 60_000, move |_| {
            logs::is_begun(&target, "cutover/dr", "groups")
        });
        let lists = Fault::on(ApiKey::ListGroups).client_id("operator");
        let late = scene.source.cluster.fault(lists, Action::Delay(400));
        noted.set(late).expect("once");
        let (report, error) = world.result(&command, 120_000).expect("it may begin");
        assert!(error.is_none(), "{error:?} {report:?}");
        world.result(&member, 10_000);
        let committed = |side: Side| {
            let cluster = &scene.side(side).cluster;
            cluster.control(|state| state.committed_offset("group", "t", 0).map(|it| it.offset))
        };
        assert_eq!(committed(Side::Primary), Some(END));
        assert_eq!(committed(Side::Standby), Some(END));
    });
}
