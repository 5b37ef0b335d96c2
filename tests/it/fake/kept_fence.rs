//! The fence that a failback leaves around the standby: who takes it down, and when.

use std::time::Duration;

use crate::support::failover::{
    answer, await_copying, await_failed_over, cutover_exiting_at, failback, failover, words,
};
use crate::support::fake::fake_authorized_pair;
use crate::support::flow::{block_on, is_stopped, opened_state, wire_cluster};
use crate::support::{
    Load, Twinlog, acls, await_all_same, await_caught_up, create_topic, delete_topic, eventually,
};
use twinlog::flow::protect;
use twinlog::state::{FenceRecord, RoleRecord, keys};
use twinlog::telemetry::progress::now_ms;

const DEADLINE: Duration = Duration::from_secs(60);

fn is_denied(bootstrap: &str, topic: &str) -> bool {
    acls(bootstrap).contains(&format!("DENY WRITE User:* * topic {topic}"))
}

fn await_denied(bootstrap: &str, topic: &str) {
    eventually(DEADLINE, "others are denied", || {
        is_denied(bootstrap, topic)
            .then_some(())
            .ok_or_else(|| acls(bootstrap))
    });
}

/// A flow that copies these topics.
fn copying(topics: &[&str], lines: &str) -> (Twinlog, String, String) {
    let (source, target) = fake_authorized_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    for topic in topics {
        create_topic(&source, topic, 1, &[]);
        Load::new(topic, 20).produce(&source);
    }
    let twinlog = Twinlog::start(&Twinlog::config(&source, &target, lines));
    await_caught_up(&twinlog, DEADLINE);
    (twinlog, source, target)
}

/// What `resume` has done when it dies before it says that the flow copies again.
async fn hand_the_fence_over(source: &str, target: &str) {
    let (source, target) = (wire_cluster(source), wire_cluster(target));
    let (back, store) = (
        opened_state(&source, "dr").await,
        opened_state(&target, "dr").await,
    );
    let key = keys::role("dr");
    let role: Option<RoleRecord> = store.get(&key).expect("it is readable");
    let role = RoleRecord {
        is_kept_fenced: true,
        ..role.expect("it was failed over")
    };
    assert!(role.is_handed_back, "{role:?}");
    store.put(&key, &role).await.expect("it is written");
    // A process that runs may keep one of its own around the old primary beside it.
    let fence = keys::fence("dr~back");
    let made: Option<FenceRecord> = back.get(&fence).expect("it is readable");
    let made = made.expect("it is there").acls;
    protect::take_over(&target, &store, "dr", None, &made)
        .await
        .expect("it is handed over");
    back.remove(&fence).await.expect("it is removed");
}

/// Between the hand-over and the role that says so the running Twinlog sees an old primary that is handed back.
#[test]
fn what_a_failback_hands_over_stays_when_it_dies_there() {
    let (mut twinlog, source, target) = copying(&["orders"], "");
    let config = twinlog.config_file().to_owned();
    answer(&failover(&config, &["--yes", "--json"]), 0);
    await_failed_over(&twinlog);
    let crashed = cutover_exiting_at("failback", &config, &["--yes"], Some("resume:begun"));
    assert_eq!(crashed.status.code(), Some(137), "{}", words(&crashed));
    twinlog.kill9();
    block_on(hand_the_fence_over(&source, &target));
    assert!(is_denied(&target, "orders"));

    let logged = twinlog.log().len();
    twinlog.launch();
    await_failed_over(&twinlog);
    // Its log says so when it has looked after both sides.
    twinlog.await_log("it has looked after both", |log| {
        log[logged..].contains("the target is the primary of this flow")
    });
    assert!(is_denied(&target, "orders"), "{:?}", acls(&target));
    // Nor does an operator lift what is about to be his to lift.
    let refused = failback(&config, &["--lift-fence", "--yes"]);
    assert_eq!(refused.status.code(), Some(1), "{}", words(&refused));
    assert!(
        words(&refused).contains("isn't through"),
        "{}",
        words(&refused)
    );
    let report = answer(&failback(&config, &["--yes", "--json"]), 0);
    let told = report["for_the_operator"].to_string();
    assert!(told.contains("--lift-fence"), "{report:#}");
    await_copying(&twinlog);
    await_all_same(&source, &target, &["orders"], DEADLINE);
    assert!(is_denied(&target, "orders"), "{:?}", acls(&target));

    // Whoever has the option is told that it holds.
    let protected = Twinlog::prepare(&Twinlog::config(&source, &target, "protect: true"));
    let arguments = ["--lift-fence", "--yes"];
    let lifted = failback(protected.config_file(), &arguments);
    assert_eq!(lifted.status.code(), Some(0), "{}", words(&lifted));
    assert!(
        words(&lifted).contains("`protect: true`"),
        "{}",
        words(&lifted)
    );
    // The flow that runs hasn't; what is left of it is lifted here or there.
    let lifted = failback(&config, &arguments);
    assert_eq!(lifted.status.code(), Some(0), "{}", words(&lifted));
    assert!(!is_denied(&target, "orders"), "{:?}", acls(&target));
}

/// The others are kept fenced by the failback before, and nobody has lifted that.
#[test]
fn a_failback_of_some_topics_by_hand_leaves_the_others_fenced() {
    let (twinlog, _, target) = copying(&["moved", "stays"], "");
    let config = twinlog.config_file().to_owned();
    answer(&failover(&config, &["--yes", "--json"]), 0);
    await_failed_over(&twinlog);
    answer(&failback(&config, &["--yes", "--json"]), 0);
    await_copying(&twinlog);
    assert!(is_denied(&target, "stays"));

    let some = ["--topic", "moved", "--yes", "--json"];
    answer(&failover(&config, &some), 0);
    assert!(!is_denied(&target, "moved"), "it is the primary");
    assert!(is_denied(&target, "stays"));
    let by_hand = ["--fence", "manual", "--quiet-for", "0", "--yes", "--json"];
    let report = answer(&failback(&config, &by_hand), 0);
    let told = report["for_the_operator"].to_string();
    assert!(told.contains("--lift-fence"), "{report:#}");
    assert!(is_denied(&target, "stays"), "{report:#}");
    // They were before, too.
    let by_now_ms = now_ms();
    twinlog.wait_until(DEADLINE, "all copies are protected", |status| {
        let protect = &status["flows"][0]["protect"];
        protect["topics"] == 2 && protect["looked_at_ms"].as_i64() > Some(by_now_ms)
    });
    assert!(is_denied(&target, "stays"), "{:?}", acls(&target));
}

/// A topic in trouble is still a copy, and its next records come some day.
#[test]
fn a_copy_that_is_not_prepared_stays_protected() {
    let (mut twinlog, source, target) = copying(&["fine", "troubled"], "protect: true");
    await_denied(&target, "fine");
    await_denied(&target, "troubled");
    assert!(twinlog.terminate().success());
    delete_topic(&source, "troubled");
    create_topic(&source, "troubled", 1, &[]);
    twinlog.launch();
    twinlog.wait_until(DEADLINE, "one is in trouble", |status| {
        is_stopped(status, "troubled", 0, "source_recreated")
    });
    twinlog.wait_until(DEADLINE, "both are protected", |status| {
        status["flows"][0]["protect"]["topics"] == 2
    });
    assert!(is_denied(&target, "fine"), "{:?}", acls(&target));
    assert!(is_denied(&target, "troubled"), "{:?}", acls(&target));
}
