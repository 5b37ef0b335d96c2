//! `failback --give-up` as it is typed: what it needs of the old primary's ACLs, and how it ends.

use std::time::Duration;

use crate::support::failover::{answer, await_failed_over, failback, failover, words};
use crate::support::fake::{FakeCluster, fake_authorized_pair};
use crate::support::flow::{block_on, opened_state, wire_cluster};
use crate::support::{Load, Twinlog, acls, await_caught_up, create_topic, eventually};
use fake_kafka::acls::{Acl, Permission};
use fake_kafka::faults::{Action, Fault};
use fake_kafka::users::Login;

const DEADLINE: Duration = Duration::from_secs(60);
const DO_IT: [&str; 3] = ["--give-up", "--yes", "--json"];

fn denied(cluster: &FakeCluster) -> Vec<String> {
    let all = acls(&cluster.bootstrap()).into_iter();
    all.filter(|acl| acl.starts_with("DENY")).collect()
}

/// Topic `orders` was failed over, and its standby is gone.
fn failed_over() -> (Twinlog, FakeCluster, FakeCluster) {
    let (source, target) = fake_authorized_pair();
    create_topic(&source.bootstrap(), "orders", 1, &[]);
    Load::new("orders", 20).produce(&source.bootstrap());
    let config = Twinlog::config(&source.bootstrap(), &target.bootstrap(), "");
    let mut twinlog = Twinlog::start(&config);
    await_caught_up(&twinlog, DEADLINE);
    let config = twinlog.config_file().to_owned();
    answer(&failover(&config, &["--yes", "--json"]), 0);
    await_failed_over(&twinlog);
    twinlog.kill9();
    assert_eq!(denied(&source), ["DENY WRITE User:* * topic orders"]);
    target.control(|state| state.stop_broker(1));
    (twinlog, source, target)
}

/// Nobody has written down on the old primary what was made there: an older version did the failover.
#[test]
fn a_fence_that_nobody_wrote_down_is_told_by_its_shape() {
    let (twinlog, source, _target) = failed_over();
    block_on(async {
        let store = opened_state(&wire_cluster(&source.bootstrap()), "dr").await;
        assert!(store.bytes("fence/dr").is_some(), "it is written down now");
        store.remove("fence/dr").await.expect("it is forgotten");
    });
    let config = twinlog.config_file();
    let shown = failback(config, &["--give-up"]);
    assert_eq!(shown.status.code(), Some(0), "{}", words(&shown));
    assert!(
        words(&shown).contains("by their shape"),
        "{}",
        words(&shown)
    );
    assert_eq!(denied(&source).len(), 1, "nothing was changed");
    let report = answer(&failback(config, &DO_IT), 0);
    assert_eq!(report["state"], "done", "{report:#}");
    assert_eq!(denied(&source), [""; 0]);
}

/// Somebody else is denied as well what somebody is denied already.
fn deny_too(source: &FakeCluster, principal: &str) {
    source.control(|state| {
        let made = state
            .acls
            .all
            .iter()
            .find(|acl| acl.permission == Permission::Deny);
        let another = Acl {
            principal: principal.to_owned(),
            ..made.expect("a denial").clone()
        };
        state.acls.all.insert(another);
    });
}

/// Only what was made by the failover goes.
#[test]
fn who_was_denied_by_somebody_else_stays_denied() {
    let (twinlog, source, _target) = failed_over();
    deny_too(&source, "User:mallory");
    let config = twinlog.config_file();
    let shown = failback(config, &["--give-up"]);
    assert!(
        words(&shown).contains("warning  denied"),
        "{}",
        words(&shown)
    );
    answer(&failback(config, &DO_IT), 0);
    assert_eq!(denied(&source), ["DENY WRITE User:mallory * topic orders"]);
    // Where a broker of an older version fences it again, the same command lifts that.
    deny_too(&source, "User:*");
    let report = answer(&failback(config, &DO_IT), 0);
    assert_eq!(report["kind"], "give_up", "{report:#}");
    assert_eq!(denied(&source), ["DENY WRITE User:mallory * topic orders"]);
    // It may as well be one of a later failover, of which nothing was told here.
    let told = report["for_the_operator"].to_string();
    assert!(told.contains("was told of no failover"), "{report:#}");
    block_on(async {
        let store = opened_state(&wire_cluster(&source.bootstrap()), "dr").await;
        let record = store.bytes("given-up/dr").expect("it is noted");
        let record = String::from_utf8_lossy(&record).into_owned();
        assert!(record.contains("\"is_untold\":true"), "{record}");
    });
}

/// A standby that is back says that it is the primary; Twinlog knows better.
#[test]
fn a_standby_that_comes_back_is_told() {
    let (mut twinlog, source, target) = failed_over();
    let config = twinlog.config_file().to_owned();
    answer(&failback(&config, &DO_IT), 0);
    target.control(|state| state.start_broker(1));
    twinlog.launch();
    twinlog.wait_until(DEADLINE, "it knows that it was given up", |status| {
        status["flows"][0]["role"]["old_primary"] == "given_up"
    });
    assert_eq!(denied(&source), [""; 0]);
    let refused = failback(&config, &["--abort", "--yes"]);
    assert_eq!(refused.status.code(), Some(1), "{}", words(&refused));
    assert!(words(&refused).contains("given up"), "{}", words(&refused));
    // As it is here after a look of theirs.
    eventually(DEADLINE, "nobody is kept away", || match denied(&source) {
        none if none.is_empty() => Ok(()),
        some => Err(some),
    });
}

/// A standby that lives is no standby that is gone, whether or not it lets us in.
#[test]
fn a_standby_that_refuses_us_is_not_gone() {
    let (twinlog, source, target) = failed_over();
    target.control(|state| {
        state.start_broker(1);
        state.users.login = Login::Required;
        state.users.add("t", "right");
    });
    let config = twinlog.config_file();
    let written = std::fs::read_to_string(config).expect("it is there");
    let with = |password: &str| {
        let login = format!(
            "security.protocol: SASL_PLAINTEXT, sasl.mechanism: PLAIN, sasl.username: t, \
             sasl.password: \"{password}\""
        );
        let address = format!("\"{}\"", target.bootstrap());
        let text = written.replacen(&address, &format!("{address}, {login}"), 1);
        assert_ne!(text, written);
        std::fs::write(config, text).expect("writes");
    };
    for (password, is_known) in [("wrong", true), ("file:/gone/with/the/vault", false)] {
        with(password);
        let asked = target.fault(Fault::on_anything(), Action::Delay(0));
        let refused = failback(config, &["--give-up", "--yes"]);
        // An account that is tried without its password is locked.
        assert_eq!(target.fired(asked) > 0, is_known, "{password}");
        target.clear(asked);
        let said = words(&refused);
        assert_ne!(refused.status.code(), Some(0), "{password}: {said}");
        assert!(said.contains("something answers at"), "{password}: {said}");
        assert!(said.contains("isn't known"), "{password}: {said}");
        assert_eq!(denied(&source).len(), 1, "nothing was changed");
    }
    // Now it is gone, and what is missing isn't needed.
    target.control(|state| state.stop_broker(1));
    answer(&failback(config, &DO_IT), 0);
    assert_eq!(denied(&source), [""; 0]);
}

#[test]
fn it_goes_with_nothing_else() {
    let (twinlog, _source, _target) = failed_over();
    for other in ["--start", "--abort", "--lift-fence"] {
        let refused = failback(twinlog.config_file(), &["--give-up", other]);
        assert_eq!(refused.status.code(), Some(2), "{}", words(&refused));
    }
}
