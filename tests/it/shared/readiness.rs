//! Whether the standby could take over now, while both clusters run: the fake tells the truth, and a
//! standby that is older is told.

use crate::fake::readiness::{DEADLINE, checks, ready_until_something_stands_in_the_way, says};
use crate::support::failover::{answer, failover};
use crate::support::pool::authorized_pair;
use crate::support::{KafkaVersion, Load, Twinlog, await_caught_up, create_topic, pair};

#[test]
fn it_is_ready_until_something_stands_in_the_way() {
    let (source, target) = authorized_pair(KafkaVersion::V4_3);
    ready_until_something_stands_in_the_way(&source.bootstrap(), &target.bootstrap());
}

#[test]
fn a_standby_that_is_older_is_told_before_a_failover() {
    let (source, _) = pair(KafkaVersion::V4_3);
    let (_, target) = pair(KafkaVersion::V3_9);
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "orders", 1, &[]);
    Load::new("orders", 20).produce(&source);
    let twinlog = Twinlog::between(&source, &target);
    await_caught_up(&twinlog, DEADLINE);
    let shown = answer(
        &failover(twinlog.config_file(), &["--json", "--fence", "manual"]),
        0,
    );
    let found = &shown["checks"];
    assert_eq!(shown["may_begin"], true, "{shown:#}");
    assert!(
        says(found, "versions", "warning", "metadata.version"),
        "{found:#}"
    );
    assert!(!checks(found, "capacity").is_empty(), "{found:#}");
}
