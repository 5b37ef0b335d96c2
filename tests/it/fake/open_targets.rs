//! Where what has no ACL is everybody's (`allow.everyone.if.no.acl.found`), nobody is shut out by what Twinlog makes:
//! not while what keeps it in can't be made, not by a release, a fence or a failback.

use std::collections::BTreeSet;
use std::time::Duration;

use fake_kafka::acls::{Acl, Operation, ResourceType};
use fake_kafka::faults::{Action, Fault};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;

use super::metadata_acls::{OFTEN, await_held, await_looks, start};
use crate::support::failover::{answer, await_copying, await_failed_over, failback, failover};
use crate::support::fake::{FakeCluster, fake_authorized_pair, fake_open_pair};
use crate::support::{
    Load, Twinlog, acls, add_acls, await_acls, await_caught_up, await_same, create_topic,
    remove_acls,
};

const DEADLINE: Duration = Duration::from_secs(60);
const OURS: &str = "ALLOW ALL User:ANONYMOUS * topic orders";
const READS: &str = "ALLOW READ User:alice * topic orders";
const WRITES: &str = "ALLOW WRITE User:alice * topic orders";
const HELD: &str = "topic orders: ALLOW WRITE User:alice from *";

/// A copy of `orders` between open clusters, on which Twinlog is nobody special.
fn copying() -> (FakeCluster, FakeCluster, Twinlog) {
    let (source, target) = fake_open_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, "orders", 1, &[]);
    Load::new("orders", 20).produce(&from);
    let twinlog = start(&from, &to, OFTEN);
    await_same(&from, &to, "orders", DEADLINE);
    (source, target, twinlog)
}

/// Alice gets rights on the source, and nobody loses his own.
fn grant_alice(source: &FakeCluster) {
    add_acls(&source.bootstrap(), &[OURS]);
    add_acls(&source.bootstrap(), &[READS, WRITES]);
}

/// Twinlog is gone, a grant is held, and what keeps Twinlog in was taken away with the only grant that needed it.
fn killed_with_something_held() -> (FakeCluster, FakeCluster, Twinlog) {
    let (source, target, mut twinlog) = copying();
    let to = target.bootstrap();
    grant_alice(&source);
    await_acls(&to, &[OURS, READS], DEADLINE);
    await_held(&twinlog, &[HELD]);
    twinlog.kill9();
    remove_acls(&to, &[OURS, READS]);
    (source, target, twinlog)
}

fn kept() -> Acl {
    Acl::allow(
        "User:ANONYMOUS",
        Operation::All,
        ResourceType::Topic,
        "orders",
    )
}

fn set(lines: &[&str]) -> BTreeSet<String> {
    lines.iter().map(|&line| line.to_owned()).collect()
}

#[test]
fn what_cant_be_kept_open_for_twinlog_is_neither_held_nor_released() {
    let (source, target, mut twinlog) = copying();
    let to = target.bootstrap();
    target.control(|state| state.acls.refused.insert(kept()));
    grant_alice(&source);
    await_looks(&twinlog, 3);
    assert_eq!(acls(&to), set(&[]));
    // The source is gone, and somebody releases whatever there is.
    twinlog.kill9();
    target.control(|state| state.acls.refused.clear());
    twinlog.command("held", &["--release", "--yes"]);
    let found = acls(&to);
    assert!(found.is_empty() || found.contains(OURS), "{found:?}");
    twinlog.launch();
    Load::new("orders", 20)
        .first(20)
        .produce(&source.bootstrap());
    await_same(&source.bootstrap(), &to, "orders", DEADLINE);
}

#[test]
fn a_release_makes_first_what_keeps_twinlog_in() {
    let (_source, target, twinlog) = killed_with_something_held();
    let to = target.bootstrap();
    let release = |code: i32| {
        let released = twinlog.command("held", &["--release", "--yes"]);
        assert_eq!(released.status.code(), Some(code), "{released:?}");
    };
    target.control(|state| state.acls.refused.insert(kept()));
    release(1);
    assert_eq!(acls(&to), set(&[]));
    target.control(|state| state.acls.refused.clear());
    let once = Fault::on(ApiKey::CreateAcls).times(1);
    target.fault(once, Action::Refuse(ResponseError::UnknownServerError));
    release(1);
    let found = acls(&to);
    assert!(found.is_empty() || found.contains(OURS), "{found:?}");
    // Its answer is lost.
    target.fault(Fault::on(ApiKey::CreateAcls).times(1), Action::CutAfter);
    release(0);
    assert_eq!(acls(&to), set(&[OURS, WRITES]));
}

#[test]
fn a_failovers_release_makes_first_what_keeps_twinlog_in() {
    let (source, target, twinlog) = killed_with_something_held();
    let to = target.bootstrap();
    source.control(|state| state.stop_broker(1));
    target.control(|state| state.acls.refused.insert(kept()));
    let config = twinlog.config_file().to_owned();
    let arguments = ["--unplanned", "--accept-loss", "any", "--yes", "--json"];
    let report = answer(&failover(&config, &arguments), 0);
    assert_eq!(acls(&to), set(&[]), "{report:#}");
    let told = report["for_the_operator"].to_string();
    assert!(
        told.contains(WRITES.split(" * ").next().expect("a part")),
        "{report:#}"
    );
}

/// Of the seven rights that a fence gives back one is refused: the six others alone would be a topic that nobody
/// may read.
#[test]
fn a_fence_that_is_refused_in_part_narrows_nothing() {
    let (source, _target, twinlog) = copying();
    let from = source.bootstrap();
    let reads = Acl::allow("User:*", Operation::Read, ResourceType::Topic, "orders");
    source.control(|state| state.acls.refused.insert(reads));
    let config = twinlog.config_file().to_owned();
    let failed = failover(&config, &["--yes"]);
    assert_ne!(failed.status.code(), Some(0), "{failed:?}");
    assert_eq!(acls(&from), set(&[]));
    Load::new("orders", 20).first(20).produce(&from);
    source.control(|state| state.acls.refused.clear());
    let through = failover(&config, &["--yes"]);
    assert_eq!(through.status.code(), Some(0), "{through:?}");
    let found = acls(&from);
    assert_eq!(found.len(), 8, "{found:?}");
    drop(twinlog);
}

#[test]
fn what_goes_back_to_an_open_source_keeps_twinlog_in() {
    let (source, target, twinlog) = copying();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    let config = twinlog.config_file().to_owned();
    answer(&failover(&config, &["--yes", "--json"]), 0);
    await_failed_over(&twinlog);
    let carols = [
        "ALLOW READ User:carol * topic orders",
        "ALLOW READ User:carol * group readers",
    ];
    add_acls(&to, &[OURS]);
    add_acls(&to, &carols);
    answer(&failback(&config, &["--yes", "--json"]), 0);
    await_copying(&twinlog);
    let found = acls(&from);
    let wanted = [
        OURS,
        "ALLOW ALL User:ANONYMOUS * group readers",
        carols[0],
        carols[1],
    ];
    assert!(wanted.iter().all(|acl| found.contains(*acl)), "{found:?}");
}

/// What the standby's own people made there about groups and transactional ids that aren't the flow's is none of the old
/// primary's business, and what they took away isn't either.
#[test]
fn only_what_is_the_flows_goes_back() {
    let (source, target) = fake_authorized_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, "orders", 1, &[]);
    Load::new("orders", 20).produce(&from);
    let on_both = "ALLOW READ User:dave * group local-g";
    add_acls(&from, &[on_both]);
    add_acls(&to, &[on_both]);
    let lines = "topics: { include: [\"orders\"] }\ngroups: { include: [\"shop-.*\"] }";
    let twinlog = Twinlog::start(&Twinlog::config(&from, &to, lines));
    await_caught_up(&twinlog, DEADLINE);
    let config = twinlog.config_file().to_owned();
    answer(&failover(&config, &["--yes", "--json"]), 0);
    await_failed_over(&twinlog);
    remove_acls(&to, &[on_both]);
    let made = [
        "ALLOW READ User:carol * group shop-a",
        "ALLOW READ User:carol * group local-h",
        "ALLOW READ User:erin * group *",
        "ALLOW WRITE User:carol * transactional-id shop-tx",
        "ALLOW WRITE User:carol * transactional-id local-tx",
    ];
    add_acls(&to, &made);
    answer(&failback(&config, &["--yes", "--json"]), 0);
    await_copying(&twinlog);
    let wanted = [
        on_both,
        made[0],
        "ALLOW READ User:erin * group-prefix shop-",
        made[3],
    ];
    assert_eq!(acls(&from), set(&wanted));
}
