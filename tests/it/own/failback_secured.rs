//! There and back between secured clusters on which Twinlog is no super user: its own fences bind it
//! as everybody else, and still it copies back.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::acls::{self, Acl, Operation, Resource, await_listed, listed};
use crate::support::as_user::{is_denied, try_produce_as};
use crate::support::failover::{
    answer, await_copying, await_failed_over, failback, failover, records, words,
};
use crate::support::topic_configs::{self, Change, Source};
use crate::support::{
    Cluster, ClusterOptions, KafkaVersion, Load, Security, Twinlog, await_caught_up, create_topic,
    eventually, users,
};

const DEADLINE: Duration = Duration::from_secs(60);

/// The topic's own value, and not the broker's default, by the word of the broker, which hears of a change later.
fn await_own(bootstrap: &str, key: &str, wanted: Option<&str>) {
    eventually(DEADLINE, &format!("{key} is {wanted:?}"), || {
        let configs = topic_configs::list(bootstrap, "orders");
        let config = configs.get(key).filter(|it| it.source == Source::Topic);
        match config.and_then(|config| config.value.as_deref()) {
            found if found == wanted => Ok(()),
            found => Err(found.map(str::to_owned)),
        }
    });
}

fn secured(name: &str) -> ClusterOptions {
    let security = Security {
        mechanism: if name == "source" {
            "SCRAM-SHA-256"
        } else {
            "SCRAM-SHA-512"
        },
        ..Security::default()
    };
    ClusterOptions::secured(name, security.with_bare_twinlog())
}

fn await_refused(bootstrap: &str, user: &str) {
    eventually(
        DEADLINE,
        &format!("{user} is refused"),
        || match try_produce_as(bootstrap, user, "orders") {
            Err(error) if is_denied(&error) => Ok(()),
            other => Err(format!("{other:?}")),
        },
    );
}

fn await_allowed(bootstrap: &str, user: &str) {
    eventually(DEADLINE, &format!("{user} may write"), || {
        try_produce_as(bootstrap, user, "orders")
    });
}

#[test]
fn there_and_back_without_being_a_super_user() {
    let mut source = Cluster::launch(KafkaVersion::V4_3, secured("source"));
    let mut target = Cluster::launch(KafkaVersion::V4_3, secured("target"));
    source.await_ready();
    target.await_ready();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    for bootstrap in [&source, &target] {
        acls::add(bootstrap, &acls::all_but_super());
        for user in ["bob", "carol"] {
            users::create(bootstrap, user);
        }
    }
    let bob = Acl::allow("User:bob", Operation::Write, Resource::topic("orders"));
    acls::add(&source, std::slice::from_ref(&bob));
    create_topic(&source, "orders", 2, &[]);
    Load::new("orders", 100).produce(&source);
    // The standby's own people have a reader of their own, and flush more often.
    let eve = Acl::allow("User:eve", Operation::Read, Resource::topic("orders"));
    acls::add(&target, std::slice::from_ref(&eve));
    let before = (listed(&source), listed(&target));
    let lines = "metadata_interval: 200ms\nconfigs: { fixed: { flush.ms: 77777 } }";
    let twinlog = Twinlog::start(&Twinlog::config(&source, &target, lines));
    await_caught_up(&twinlog, DEADLINE);
    let config = twinlog.config_file().to_owned();
    await_allowed(&source, "bob");
    await_refused(&target, "bob");

    for round in 0..2 {
        let report = answer(&failover(&config, &["--yes", "--json"]), 0);
        assert_eq!(report["lost"]["is_proven"], true, "{round}: {report:#}");
        await_failed_over(&twinlog);
        await_refused(&source, "bob");
        await_allowed(&target, "bob");

        // While it is copied back, nobody but Twinlog writes to the old primary.
        let report = answer(&failback(&config, &["--start", "--yes", "--json"]), 0);
        assert_eq!(report["state"], "done", "{round}: {report:#}");
        for _ in 0..3 {
            await_allowed(&target, "bob");
        }
        eventually(DEADLINE, "what is new is on the old primary", || {
            let (here, there) = (records(&source, &["orders"]), records(&target, &["orders"]));
            match here == there {
                true => Ok(()),
                false => Err((here.len(), there.len(), twinlog.status())),
            }
        });
        await_refused(&source, "bob");
        twinlog.wait_until(DEADLINE, "status says so", |status| {
            status["flows"][0]["role"]["is_copied_back"] == true
        });
        if round == 0 {
            // An ACL of the time when the standby was the primary.
            let carol = Acl::allow("User:carol", Operation::Write, Resource::topic("orders"));
            acls::add(&target, std::slice::from_ref(&carol));
            await_allowed(&target, "carol");
        }
        if round == 0 {
            let longer = Change::Set("604800001");
            topic_configs::alter(&target, "orders", &[("retention.ms", longer)]);
            await_own(&target, "retention.ms", Some("604800001"));
        }
        let report = answer(&failback(&config, &["--yes", "--json"]), 0);
        assert_eq!(report["state"], "done", "{round}: {report:#}");
        assert_eq!(report["lost"]["is_proven"], true, "{round}: {report:#}");
        await_copying(&twinlog);
        await_allowed(&source, "bob");
        await_refused(&target, "bob");
        eventually(DEADLINE, "it follows again", || {
            let (here, there) = (records(&source, &["orders"]), records(&target, &["orders"]));
            match here == there {
                true => Ok(()),
                false => Err((here.len(), there.len(), twinlog.status())),
            }
        });
    }
    // Only what the last failback left is still there: it keeps carol from the standby.
    let lifted = failback(&config, &["--lift-fence", "--yes"]);
    assert!(lifted.status.success(), "{}", words(&lifted));
    // What was changed on the standby while it was the primary went over, and nothing that it had
    // before.
    await_own(&source, "retention.ms", Some("604800001"));
    await_own(&target, "retention.ms", Some("604800001"));
    await_own(&target, "flush.ms", Some("77777"));
    await_own(&source, "flush.ms", None);
    // Carol's grant went over with the way back; nothing of the fences is left.
    let carol = format!(
        "{:?}",
        Acl::allow("User:carol", Operation::Write, Resource::topic("orders"))
    );
    let with = |acls: &BTreeSet<String>| {
        let mut acls = acls.clone();
        acls.insert(carol.clone());
        acls
    };
    await_listed(&source, &with(&before.0));
    await_listed(&target, &with(&before.1));
}
