//! The standby dies for good while it is the primary and is copied back.

use std::time::Duration;

use crate::support::failover::{
    answer, assert_refused, await_failed_over, cutover_exiting_at, failback, failover,
    start_fenceable_both, try_write, words,
};
use crate::support::groups::{commit, committed};
use crate::support::{
    KafkaVersion, Load, Twinlog, acls, await_acls, await_caught_up, create_topic, end_offset,
    eventually,
};

const DEADLINE: Duration = Duration::from_secs(60);
const TOPIC: &str = "orders";
const GIVE_UP: [&str; 2] = ["--give-up", "--json"];
const DO_IT: [&str; 3] = ["--give-up", "--yes", "--json"];

/// With nothing but the old primary, and a command that dies at each of its steps: it takes writes again, at offsets
/// that the standby never gave out; groups go on; and a standby that comes back changes nothing.
#[test]
fn the_old_primary_is_the_primary_again_without_the_standby() {
    let (source, mut target) = start_fenceable_both(KafkaVersion::V4_3);
    let (old, new) = (source.bootstrap(), target.bootstrap());
    create_topic(&old, TOPIC, 1, &[]);
    Load::new(TOPIC, 100).produce(&old);
    let twinlog = Twinlog::start(&Twinlog::config(&old, &new, "failover: { padding: 100 }"));
    await_caught_up(&twinlog, DEADLINE);
    let config = twinlog.config_file().to_owned();
    answer(&failover(&config, &["--yes", "--json"]), 0);
    await_failed_over(&twinlog);
    assert_refused(&old, TOPIC);
    answer(&failback(&config, &["--start", "--yes", "--json"]), 0);
    Load::new(TOPIC, 40).first(1_000).produce(&new);
    let end = end_offset(&new, TOPIC, 0);
    commit(&new, "billing", &[(TOPIC, 0, end)]);
    eventually(DEADLINE, "all is copied back, and the group", || {
        let found = (
            end_offset(&old, TOPIC, 0),
            committed(&old, "billing", TOPIC, 1),
        );
        match found == (end, vec![Some(end)]) {
            true => Ok(()),
            false => Err(found),
        }
    });
    // Its clients have Twinlog's name here, which is let in from now on: ACLs tell who else is.
    let fence = acls(&old);
    assert!(!fence.is_empty());
    target.kill(1);

    let shown = answer(&failback(&config, &GIVE_UP), 0);
    assert_eq!(shown["kind"], "give_up", "{shown:#}");
    assert_eq!(shown["may_begin"], true, "{shown:#}");
    assert_eq!(
        shown["given_up"]["topics"][TOPIC][0]["copied"], 40,
        "{shown:#}"
    );
    assert_eq!(acls(&old), fence, "nothing was changed");
    for step in [
        "stop_copying",
        "bound_loss",
        "forks",
        "pad",
        "release",
        "hand_back",
        "lift_fence",
    ] {
        for moment in ["begun", "worked", "ended"] {
            let at = format!("{step}:{moment}");
            let crashed = cutover_exiting_at("failback", &config, &DO_IT, Some(&at));
            assert_eq!(
                crashed.status.code(),
                Some(137),
                "{at}: {}",
                words(&crashed)
            );
        }
    }
    let report = answer(&failback(&config, &DO_IT), 0);
    assert_eq!(report["state"], "done", "{report:#}");
    assert_eq!(report["primary"], "primary", "{report:#}");
    let of = &report["given_up"]["topics"][TOPIC][0];
    assert_eq!(of["copied"], 40, "{report:#}");
    // The broker hears a moment later that the fence is gone.
    await_acls::<&str>(&old, &[], DEADLINE);
    let padded = end_offset(&old, TOPIC, 0);
    eventually(DEADLINE, "it takes writes", || try_write(&old, TOPIC));
    assert!(end_offset(&old, TOPIC, 0) > padded, "at the log's end");
    assert!(padded > end, "{padded} isn't behind the padding");
    // It stood at the end of the copy: behind the padding is the same place.
    assert_eq!(committed(&old, "billing", TOPIC, 1), [Some(padded)]);

    // It comes back, and still says that it is the primary.
    target.restart(1);
    target.await_ready();
    twinlog.wait_until(DEADLINE, "it knows that it was given up", |status| {
        status["flows"][0]["role"]["old_primary"] == "given_up"
    });
    assert!(acls(&old).is_empty(), "{:?}", acls(&old));
    assert_eq!(try_write(&old, TOPIC), Ok(()));
    let late = failback(&config, &["--yes"]);
    assert_eq!(late.status.code(), Some(1), "{}", words(&late));
    assert!(words(&late).contains("given up"), "{}", words(&late));
    let again = answer(&failback(&config, &DO_IT), 0);
    assert_eq!(again["given_up"], report["given_up"], "{again:#}");
}
