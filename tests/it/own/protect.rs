//! Copies that only Twinlog may write to, from the first day, on clusters where it is no super user.

use std::time::Duration;

use crate::support::acls::{self, Acl, Operation, Resource};
use crate::support::as_user::{is_denied, try_produce_as};
use crate::support::failover::{
    answer, await_copying, await_failed_over, failback, failover, words,
};
use crate::support::{
    Cluster, ClusterOptions, KafkaVersion, Load, Security, Twinlog, await_caught_up, create_topic,
    end_offset, eventually, users,
};

const DEADLINE: Duration = Duration::from_secs(60);
const TOPIC: &str = "orders";

fn bob_may_write() -> Acl {
    Acl::allow("User:bob", Operation::Write, Resource::topic(TOPIC))
}

fn bob_is_denied() -> Acl {
    Acl::deny("User:bob", Operation::Write, Resource::topic(TOPIC))
}

fn await_bob(bootstrap: &str, is_let_in: bool) {
    let what = format!("bob writes: {is_let_in}");
    eventually(DEADLINE, &what, || {
        match try_produce_as(bootstrap, "bob", TOPIC) {
            Ok(()) if is_let_in => Ok(()),
            Err(error) if !is_let_in && is_denied(&error) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

/// Before that his record would be a stranger's.
fn await_denied(target: &str) {
    eventually(DEADLINE, "bob is denied", || {
        match acls::list(target).contains(&bob_is_denied()) {
            true => Ok(()),
            false => Err(acls_of_bob(target)),
        }
    });
}

fn await_same_end(source: &str, target: &str) {
    eventually(DEADLINE, "the copy goes on", || {
        let ends = (end_offset(source, TOPIC, 0), end_offset(target, TOPIC, 0));
        match ends.0 == ends.1 {
            true => Ok(()),
            false => Err(ends),
        }
    });
}

fn acls_of_bob(bootstrap: &str) -> Vec<String> {
    let all = acls::list(bootstrap).into_iter();
    let all = all.map(|acl| format!("{acl:?}"));
    all.filter(|acl| acl.contains("User:bob")).collect()
}

/// A broker hears of a change of ACLs a moment after it was made.
fn await_acls_of_bob(bootstrap: &str, wanted: &[String]) {
    eventually(DEADLINE, "bob has no other ACLs", || {
        match acls_of_bob(bootstrap) {
            now if now == wanted => Ok(()),
            now => Err(now),
        }
    });
}

/// How often ACLs were made or removed to protect the copies.
fn times_made(log: &str) -> usize {
    log.matches("who may write to the copies was put right")
        .count()
}

/// Two secured clusters, with a topic on the source.
fn where_bob_may_write() -> (Cluster, Cluster) {
    let secured = |name| ClusterOptions::secured(name, Security::default().with_bare_twinlog());
    let mut source = Cluster::launch(KafkaVersion::V4_3, secured("source"));
    let mut target = Cluster::launch(KafkaVersion::V4_3, secured("target"));
    for cluster in [&mut source, &mut target] {
        cluster.await_ready();
        let bootstrap = cluster.bootstrap();
        acls::add(&bootstrap, &acls::all_but_super());
        users::create(&bootstrap, "bob");
        acls::add(&bootstrap, &[bob_may_write()]);
    }
    create_topic(&source.bootstrap(), TOPIC, 1, &[]);
    Load::new(TOPIC, 100).produce(&source.bootstrap());
    (source, target)
}

#[test]
fn nobody_but_twinlog_writes_to_a_copy_until_a_failover() {
    let clusters = where_bob_may_write();
    let (source, target) = (clusters.0.bootstrap(), clusters.1.bootstrap());
    let before = acls_of_bob(&target);
    let lines = "metadata_interval: 200ms\nprotect: true";
    let text = Twinlog::config(&source, &target, lines);
    let mut twinlog = Twinlog::start(&text);
    await_caught_up(&twinlog, DEADLINE);
    twinlog.wait_until(DEADLINE, "status shows it", |status| {
        let protect = &status["flows"][0]["protect"];
        protect["topics"] == 1 && protect["problem"].is_null()
    });
    await_denied(&target);
    await_bob(&target, false);
    Load::new(TOPIC, 50).first(1_000).produce(&source);
    await_same_end(&source, &target);
    // What somebody removes is made again.
    let made = times_made(&twinlog.log());
    acls::take_away(&target, &bob_is_denied());
    twinlog.await_log("it is made again", |log| times_made(log) > made);
    await_denied(&target);
    await_bob(&target, false);
    await_same_end(&source, &target);
    let config = twinlog.config_file().to_owned();
    let checked = twinlog.command("check", &[]);
    assert!(checked.status.success(), "{checked:?}");

    // A failover lifts it before it says that it is done.
    answer(&failover(&config, &["--yes", "--json"]), 0);
    await_failed_over(&twinlog);
    await_acls_of_bob(&target, &before);
    await_bob(&target, true);
    answer(&failback(&config, &["--yes", "--json"]), 0);
    await_copying(&twinlog);
    await_bob(&source, true);
    await_denied(&target);
    await_bob(&target, false);
    await_same_end(&source, &target);

    // Without the option, and when what the failback left is lifted, nothing is left of it.
    answer_words(&failback(&config, &["--lift-fence", "--yes"]));
    await_denied(&target);
    twinlog.terminate();
    let plain = Twinlog::config(&source, &target, "metadata_interval: 200ms");
    let _plain = Twinlog::start(&plain);
    await_acls_of_bob(&target, &before);
}

fn answer_words(output: &std::process::Output) {
    assert!(output.status.success(), "{}", words(output));
}

/// Whoever was left behind on the standby would be acknowledged there, and stop the copy. So the fence around it
/// stays, without any option, until somebody lifts it or the standby is the primary again.
#[test]
fn a_client_that_nobody_moved_stays_outside_after_a_failback() {
    let clusters = where_bob_may_write();
    let (source, target) = (clusters.0.bootstrap(), clusters.1.bootstrap());
    let before = acls_of_bob(&target);
    let text = Twinlog::config(&source, &target, "metadata_interval: 200ms");
    let mut twinlog = Twinlog::start(&text);
    await_caught_up(&twinlog, DEADLINE);
    let config = twinlog.config_file().to_owned();
    for round in 0..2 {
        answer(&failover(&config, &["--yes", "--json"]), 0);
        await_failed_over(&twinlog);
        await_acls_of_bob(&target, &before);
        await_bob(&target, true);
        let report = answer(&failback(&config, &["--yes", "--json"]), 0);
        let told = report["for_the_operator"].to_string();
        assert!(told.contains("--lift-fence"), "{report:#}");
        let denied = acls::list(&target).contains(&bob_is_denied());
        assert!(denied, "{round}: {report:#}");
        await_copying(&twinlog);
        await_bob(&source, true);
        await_bob(&target, false);
        await_same_end(&source, &target);
    }
    // Also when Twinlog begins again.
    twinlog.kill9();
    twinlog.launch();
    await_copying(&twinlog);
    twinlog.wait_until(DEADLINE, "status shows it", |status| {
        let protect = &status["flows"][0]["protect"];
        protect["topics"] == 1 && protect["problem"].is_null()
    });
    await_bob(&target, false);
    answer_words(&failback(&config, &["--lift-fence", "--yes"]));
    await_acls_of_bob(&target, &before);
    // Nobody puts it up again.
    twinlog.wait_until(DEADLINE, "it is seen", |status| {
        status["flows"][0]["protect"].is_null()
    });
    assert_eq!(acls_of_bob(&target), before);
}
