//! Commands as processes of their own beside a running copy.

use fake_kafka::Options;
use fake_kafka::world;
use twinlog::state::CutoverKind;

use super::process::{self, failover_options};
use super::records::{make_topic, read, write};

#[test]
fn a_planned_failover_takes_over_a_copy_that_another_process_makes() {
    world::run(1, |world| {
        let source = world.cluster("source", Options::default());
        let target = world.cluster("target", Options::default());
        make_topic(&source, "orders", 2);
        let text = process::config(&source, &target, "");
        process::run(world, "twinlog", &text);
        let brokers = source.clone();
        let writer = world.process("writer", move |ctx| write(ctx, brokers.clone(), 2, 100));
        world.result(&writer, 60_000);
        world.run_for(10_000);
        let options = failover_options(CutoverKind::Planned);
        let cut = process::failover(world, "operator", &text, options);
        let (report, error) = world.result(&cut, 120_000).expect("it may begin");
        assert!(error.is_none(), "{error:?}");
        assert_eq!(report.lost.records, 0, "{report:?}");
        for at in 0..2 {
            assert_eq!(read(&target, "orders", at), read(&source, "orders", at));
        }
    });
}
