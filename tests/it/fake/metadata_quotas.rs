//! Quotas follow, and users that can't are named.

use std::time::Duration;

use crate::support::flow::{block_on, flow_config, opened_state, wire_cluster};
use crate::support::{Twinlog, eventually, fake_pair};
use kafka_protocol::messages::AlterUserScramCredentialsRequest;
use kafka_protocol::messages::alter_user_scram_credentials_request::{
    ScramCredentialDeletion, ScramCredentialUpsertion,
};
use kafka_protocol::protocol::StrBytes;
use serde_json::Value;
use twinlog::metadata::quotas;
use twinlog::wire::{self, ClientQuotas, QuotaChange, QuotaEntity};

const DEADLINE: Duration = Duration::from_secs(30);
/// How long a change may take to follow: two looks of 3 s at most.
const FOLLOWED: Duration = Duration::from_secs(5);

/// `None` in an entity is the default.
type Entity<'a> = &'a [(&'a str, Option<&'a str>)];

fn entity(components: Entity<'_>) -> QuotaEntity {
    QuotaEntity::new(components.iter().copied())
}

/// Sets or removes one quota, as an operator does.
fn set(bootstrap: &str, components: Entity<'_>, key: &str, value: Option<f64>) {
    let change = QuotaChange {
        entity: entity(components),
        key: key.to_owned(),
        value,
    };
    let cluster = wire_cluster(bootstrap);
    let outcomes = block_on(wire::alter_client_quotas(&cluster, &[change]));
    for outcome in outcomes.expect("an answer") {
        outcome.unwrap_or_else(|error| panic!("{components:?} {key}: {error}"));
    }
}

fn quotas_of(bootstrap: &str) -> ClientQuotas {
    block_on(wire::describe_client_quotas(&wire_cluster(bootstrap))).expect("quotas")
}

fn quota(bootstrap: &str, components: Entity<'_>, key: &str) -> Option<f64> {
    quotas_of(bootstrap)
        .get(&entity(components))?
        .get(key)
        .copied()
}

fn await_quota(bootstrap: &str, components: Entity<'_>, key: &str, wanted: Option<f64>) {
    let what = format!("{components:?} has {key} {wanted:?}");
    eventually(FOLLOWED, &what, || {
        match quota(bootstrap, components, key) {
            found if found == wanted => Ok(()),
            found => Err(found),
        }
    });
}

/// What a running Twinlog says about metadata; `None` before it has looked.
fn drift(twinlog: &Twinlog) -> Option<Vec<Value>> {
    let (code, body) = twinlog.get("/api/v1/metadata").ok()?;
    assert_eq!(code, 200, "{body}");
    let report: Value = serde_json::from_str(&body).expect("JSON");
    let found = &report["flows"].as_array()?.first()?["drift"];
    Some(found.as_array().expect("a list").clone())
}

fn find(twinlog: &Twinlog, kind: &str, subject: &str, detail: &str) -> Option<Value> {
    drift(twinlog)?.into_iter().find(|found| {
        found["kind"] == kind && found["subject"] == subject && found["detail"] == detail
    })
}

fn await_drift(
    twinlog: &Twinlog,
    (kind, subject, detail): (&str, &str, &str),
    action: &str,
) -> Value {
    let mut seen = Value::Null;
    eventually(DEADLINE, &format!("{subject} {detail}: {action}"), || {
        seen = find(twinlog, kind, subject, detail).unwrap_or_default();
        match seen["action"] == *action {
            true => Ok(()),
            false => Err(drift(twinlog)),
        }
    });
    seen
}

const USER: Entity<'_> = &[("user", Some("alice"))];
const CLIENT: Entity<'_> = &[("client-id", Some("app"))];
const BOTH: Entity<'_> = &[("user", Some("alice")), ("client-id", Some("app"))];
const BOTH_DEFAULT: Entity<'_> = &[("user", Some("alice")), ("client-id", None)];
const DEFAULT_USER: Entity<'_> = &[("user", None)];
const DEFAULT_CLIENT: Entity<'_> = &[("client-id", None)];
const IP: Entity<'_> = &[("ip", Some("10.0.0.1"))];

#[test]
fn quotas_of_every_kind_follow_and_what_would_throttle_twinlog_is_held() {
    let (source, target) = fake_pair();
    quotas_of_every_kind(&source.bootstrap(), &target.bootstrap());
}

pub(crate) fn quotas_of_every_kind(source: &str, target: &str) {
    // A large number of entities is one look's work, and odd names are kept.
    for (components, key, value) in [
        (USER, "producer_byte_rate", 1_048_576.0),
        (USER, "consumer_byte_rate", 9_007_199_254_740_991.0),
        (CLIENT, "request_percentage", 12.345_678_901_234_567),
        (BOTH, "controller_mutation_rate", 0.1),
        (BOTH_DEFAULT, "consumer_byte_rate", 2048.0),
        (&[("user", Some("CN=ä, O=x/y"))], "producer_byte_rate", 5.0),
        (&[("user", Some("<default>"))], "producer_byte_rate", 6.0),
        (DEFAULT_USER, "producer_byte_rate", 7.0),
        (DEFAULT_CLIENT, "consumer_byte_rate", 8.0),
        (
            &[("user", None), ("client-id", None)],
            "request_percentage",
            9.0,
        ),
        (IP, "connection_creation_rate", 10.0),
    ] {
        set(source, components, key, Some(value));
    }
    // The standby's own: one that the source doesn't have, one that is the same.
    let own: Entity<'_> = &[("user", Some("standby-only"))];
    set(target, own, "producer_byte_rate", Some(77.0));
    set(target, CLIENT, "producer_byte_rate", Some(78.0));
    set(
        source,
        &[("user", Some("both"))],
        "producer_byte_rate",
        Some(79.0),
    );
    set(
        target,
        &[("user", Some("both"))],
        "producer_byte_rate",
        Some(79.0),
    );

    let config = flow_config("quotas", "quotas", source, target, "");
    let mut twinlog = Twinlog::start(&config);
    let is_held = |components: Entity<'_>| {
        let components: std::collections::BTreeMap<_, _> = components.iter().copied().collect();
        let name = |kind| components.get(kind);
        name("user").is_none_or(Option::is_none)
            && name("client-id").is_none_or(Option::is_none)
            && name("ip").is_none()
    };
    eventually(DEADLINE, "the target has the source's quotas", || {
        let (wanted, found) = (quotas_of(source), quotas_of(target));
        for (entity, wanted) in &wanted {
            if entity.components.contains_key("ip")
                || entity.components.values().all(Option::is_none)
            {
                assert_eq!(found.get(entity), None);
                continue;
            }
            for (key, value) in wanted {
                if found.get(entity).and_then(|found| found.get(key)) != Some(value) {
                    return Err(format!("{entity} {key}"));
                }
            }
        }
        Ok(())
    });
    assert!(is_held(DEFAULT_USER) && is_held(DEFAULT_CLIENT) && !is_held(USER));

    for subject in [
        ("quota", "user <default>", "producer_byte_rate"),
        ("quota", "client-id <default>", "consumer_byte_rate"),
        (
            "quota",
            "user <default>, client-id <default>",
            "request_percentage",
        ),
    ] {
        let held = await_drift(&twinlog, subject, "hold");
        assert!(held["why"].to_string().contains("failover"), "{held}");
    }
    let left = await_drift(
        &twinlog,
        ("quota", "ip 10.0.0.1", "connection_creation_rate"),
        "leave",
    );
    assert!(left["why"].to_string().contains("addresses"), "{left}");
    await_drift(
        &twinlog,
        ("quota", "user standby-only", "producer_byte_rate"),
        "leave",
    );

    // Changes and removals, also over a value that somebody else set meanwhile.
    set(source, USER, "producer_byte_rate", Some(2_097_152.0));
    await_quota(target, USER, "producer_byte_rate", Some(2_097_152.0));
    set(target, USER, "producer_byte_rate", Some(1.0));
    await_quota(target, USER, "producer_byte_rate", Some(2_097_152.0));
    set(source, BOTH, "producer_byte_rate", Some(3.0));
    await_quota(target, BOTH, "producer_byte_rate", Some(3.0));
    set(source, BOTH, "producer_byte_rate", None);
    await_quota(target, BOTH, "producer_byte_rate", None);
    assert_eq!(quota(target, BOTH, "controller_mutation_rate"), Some(0.1));

    // What is ours is known after a restart, and what isn't stays.
    assert!(twinlog.terminate().success());
    set(source, USER, "consumer_byte_rate", None);
    set(
        source,
        &[("user", Some("both"))],
        "producer_byte_rate",
        None,
    );
    set(source, DEFAULT_USER, "producer_byte_rate", None);
    twinlog.launch();
    await_quota_for(DEADLINE, target, USER, "consumer_byte_rate", None);
    await_drift(
        &twinlog,
        ("quota", "user both", "producer_byte_rate"),
        "leave",
    );
    assert_eq!(quota(target, own, "producer_byte_rate"), Some(77.0));
    assert_eq!(quota(target, CLIENT, "producer_byte_rate"), Some(78.0));
    assert_eq!(
        quota(target, &[("user", Some("both"))], "producer_byte_rate"),
        Some(79.0)
    );
    assert_eq!(quota(target, DEFAULT_CLIENT, "consumer_byte_rate"), None);
    eventually(
        DEADLINE,
        "the default user's quota isn't held",
        || match find(&twinlog, "quota", "user <default>", "producer_byte_rate") {
            None => Ok(()),
            found => Err(found),
        },
    );
}

const SHA_256: i8 = 1;
const SHA_512: i8 = 2;

/// Creates a user or changes its iterations. Nobody logs in: any bytes do for a password.
fn set_user(bootstrap: &str, name: &str, mechanism: i8, iterations: Option<i32>) {
    let name = StrBytes::from_string(name.to_owned());
    let request = match iterations {
        Some(iterations) => {
            let made = ScramCredentialUpsertion::default()
                .with_name(name)
                .with_mechanism(mechanism)
                .with_iterations(iterations)
                .with_salt(vec![1; 16].into())
                .with_salted_password(vec![2; 64].into());
            AlterUserScramCredentialsRequest::default().with_upsertions(vec![made])
        }
        None => {
            let gone = ScramCredentialDeletion::default()
                .with_name(name)
                .with_mechanism(mechanism);
            AlterUserScramCredentialsRequest::default().with_deletions(vec![gone])
        }
    };
    let cluster = wire_cluster(bootstrap);
    let response = block_on(async {
        cluster.metadata(None).await.expect("the cluster answers");
        let connection = cluster.controller().await.expect("a broker answers");
        connection.call(request, 0).await
    });
    let results = response.expect("an answer").results;
    assert_eq!(results.len(), 1);
    assert_eq!(results[0].error_code, 0, "{results:?}");
}

#[test]
fn a_user_that_the_standby_lacks_is_listed_until_it_is_made() {
    let (source, target) = fake_pair();
    missing_users_are_listed(&source.bootstrap(), &target.bootstrap());
}

pub(crate) fn missing_users_are_listed(source: &str, target: &str) {
    set_user(source, "carol", SHA_512, Some(8192));
    set_user(source, "carol", SHA_256, Some(4096));
    set_user(target, "carol", SHA_256, Some(4096));
    set_user(target, "dave", SHA_256, Some(4096));
    let config = flow_config(
        "users",
        "users",
        source,
        target,
        "quotas: { enabled: false }",
    );
    let twinlog = Twinlog::start(&config);
    let gap = ("user", "user carol", "SCRAM-SHA-512");
    let listed = await_drift(&twinlog, gap, "operator");
    let why = listed["why"].to_string();
    assert!(
        why.contains("kafka-configs.sh") && why.contains("standby"),
        "{why}"
    );
    assert_eq!(find(&twinlog, "user", "user carol", "SCRAM-SHA-256"), None);
    assert_eq!(find(&twinlog, "user", "user dave", "SCRAM-SHA-256"), None);

    set_user(target, "carol", SHA_512, Some(4096));
    await_drift(&twinlog, gap, "leave");
    set_user(target, "carol", SHA_512, Some(8192));
    eventually(FOLLOWED, "the gap is closed", || {
        match find(&twinlog, gap.0, gap.1, gap.2) {
            None => Ok(()),
            found => Err(found),
        }
    });
    set_user(target, "carol", SHA_512, None);
    await_drift(&twinlog, gap, "operator");
}

fn await_quota_for(
    deadline: Duration,
    bootstrap: &str,
    components: Entity<'_>,
    key: &str,
    wanted: Option<f64>,
) {
    let what = format!("{components:?} {key} is {wanted:?}");
    eventually(deadline, &what, || {
        match quota(bootstrap, components, key) {
            found if found == wanted => Ok(()),
            found => Err(found),
        }
    });
}

/// With the source gone, or not: it isn't asked.
#[test]
fn what_is_held_is_set_by_the_failover_and_can_be_taken_back() {
    let (from, to) = fake_pair();
    let (source, target) = (from.bootstrap(), to.bootstrap());
    // So high that nobody waits: the one on the target counts for Twinlog too.
    set(&source, DEFAULT_USER, "producer_byte_rate", Some(7e9));
    set(&source, DEFAULT_CLIENT, "consumer_byte_rate", Some(8e9));
    set(&target, DEFAULT_CLIENT, "consumer_byte_rate", Some(80e9));
    let mut twinlog = Twinlog::start(&flow_config("held", "held", &source, &target, ""));
    let (user, client) = (
        ("quota", "user <default>", "producer_byte_rate"),
        ("quota", "client-id <default>", "consumer_byte_rate"),
    );
    await_drift(&twinlog, user, "hold");
    await_drift(&twinlog, client, "hold");
    assert!(twinlog.terminate().success());
    from.control(|state| state.stop_broker(1));
    // What waits is listed from the target alone.
    let listed = twinlog.command("held", &[]);
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    for line in [
        "held user <default>: producer_byte_rate=7000000000 (",
        "held client-id <default>: consumer_byte_rate=8000000000 (",
    ] {
        assert!(listed.contains(line), "{listed}");
    }

    let both = || {
        (
            quota(&target, DEFAULT_USER, "producer_byte_rate"),
            quota(&target, DEFAULT_CLIENT, "consumer_byte_rate"),
        )
    };
    block_on(async {
        let cluster = wire_cluster(&target);
        let store = opened_state(&cluster, "held").await;
        let held = quotas::held(&store, "held").expect("readable");
        let values: Vec<f64> = held.iter().map(|held| held.value).collect();
        assert_eq!(values, [8e9, 7e9], "{held:?}");
        let done = quotas::release(&cluster, &store, "held")
            .await
            .expect("done");
        assert_eq!(done.len(), 2);
        assert!(done.iter().all(|(_, outcome)| outcome.is_ok()), "{done:?}");
    });
    eventually(FOLLOWED, "both are set", || match both() {
        (Some(7e9), Some(8e9)) => Ok(()),
        found => Err(found),
    });
    // Another process goes on where the first one ended.
    block_on(async {
        let cluster = wire_cluster(&target);
        let store = opened_state(&cluster, "held").await;
        assert_eq!(quotas::held(&store, "held").expect("readable"), []);
        let again = quotas::release(&cluster, &store, "held")
            .await
            .expect("done");
        assert!(again.is_empty(), "{again:?}");
        let back = quotas::withdraw(&cluster, &store, "held")
            .await
            .expect("done");
        assert_eq!(back.len(), 2);
        assert!(back.iter().all(|(_, outcome)| outcome.is_ok()), "{back:?}");
        assert_eq!(quotas::held(&store, "held").expect("readable").len(), 2);
    });
    eventually(FOLLOWED, "what was there before is there", || {
        match both() {
            (None, Some(80e9)) => Ok(()),
            found => Err(found),
        }
    });
}

/// Nothing to change isn't a controller that has moved.
#[test]
fn a_request_for_no_change_is_done() {
    let (source, _target) = fake_pair();
    let cluster = wire_cluster(&source.bootstrap());
    let outcomes = block_on(wire::alter_client_quotas(&cluster, &[]));
    assert_eq!(outcomes.expect("an answer").len(), 0);
}
