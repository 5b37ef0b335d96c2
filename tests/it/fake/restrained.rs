//! Whoever looks after an old primary, beside a failback that hands it back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fake_kafka::acls::{Operation, Permission};
use fake_kafka::faults::{Action, Fault, FaultId};
use fake_kafka::kafka_protocol::messages::ApiKey;
use fake_kafka::state::Options;
use fake_kafka::users::Login;
use twinlog::flow::fenced;
use twinlog::flow::restrain::{Restrain, tell};
use twinlog::flow::shown::Shown;
use twinlog::state::{
    FenceRecord, Fork, ForkRecord, Primary, RoleRecord, StateStore, TopicSet, keys,
};
use twinlog::telemetry::role::RoleStatus;
use twinlog::wire;
use uuid::Uuid;

use crate::support::failover::{answer, await_failed_over, failover};
use crate::support::fake::{FakeCluster, fake_authorized_pair, options};
use crate::support::flow::{block_on, opened_state, wire_cluster};
use crate::support::{Load, Twinlog, await_caught_up, create_topic, eventually};

const TOPIC: &str = "orders";
const DEADLINE: Duration = Duration::from_secs(60);

/// The flow's target is the primary, and its topic has a fork.
async fn failed_over(target: &FakeCluster) -> (StateStore, RoleRecord) {
    let cluster = wire_cluster(&target.bootstrap());
    let store = opened_state(&cluster, "dr").await;
    let role = RoleRecord {
        v: 1,
        primary: Primary::Target,
        topics: TopicSet::All,
        epoch: 2,
        plan: Uuid::from_u128(7),
        since_ms: 0,
        source_cluster_id: None,
        target_cluster_id: None,
        is_copied_back: false,
        is_handed_back: false,
        is_kept_fenced: false,
    };
    store.put(&keys::role("dr"), &role).await.expect("written");
    let fork = Fork {
        source_end: 0,
        source_epoch: -1,
        source_epoch_to: -1,
        target_end: 0,
        padded_end: 0,
        observed_end: -1,
    };
    let fork = ForkRecord {
        v: 1,
        plan: role.plan,
        target_topic: TOPIC.to_owned(),
        mapped: false,
        partitions: vec![fork],
    };
    store
        .put(&keys::fork("dr", TOPIC), &fork)
        .await
        .expect("written");
    (store, role)
}

/// As `unfence` does it.
async fn hand_back(source: &wire::Cluster, target: &str, role: &RoleRecord) {
    let store = opened_state(&wire_cluster(target), "dr").await;
    let role = RoleRecord {
        is_handed_back: true,
        ..role.clone()
    };
    store.put(&keys::role("dr"), &role).await.expect("written");
    fenced::lift(source, &store, "dr", |_| true)
        .await
        .expect("the fence is lifted");
}

fn is_denied(source: &FakeCluster) -> bool {
    source.look(|state| {
        let mut all = state.acls.all.iter();
        all.any(|acl| acl.permission == Permission::Deny && acl.operation == Operation::Write)
    })
}

/// A pair whose source has the topic, and a client of the source.
fn old_primary() -> (FakeCluster, FakeCluster, wire::Cluster) {
    let (source, target) = fake_authorized_pair();
    create_topic(&source.bootstrap(), TOPIC, 1, &[]);
    let cluster = wire_cluster(&source.bootstrap());
    (source, target, cluster)
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(DEADLINE, waiting).await;
    assert!(waited.is_ok(), "not within {DEADLINE:?}: {what}");
}

/// A pass that is cut off when it has asked for what it makes: what happens to that.
async fn cut_off(
    restrain: &mut Restrain,
    (store, role): (&StateStore, &RoleRecord),
    source: &FakeCluster,
    action: Action,
) -> FaultId {
    let made = source.fault(Fault::on(ApiKey::CreateAcls).times(1), action);
    let is_cut_off = tokio::select! {
        _ = restrain.pass(store, role) => false,
        () = until("it is asked for", || source.fired(made) > 0) => true,
    };
    assert!(is_cut_off, "it is under way");
    made
}

#[test]
fn what_is_denied_while_the_fence_is_lifted_does_not_stay() {
    let (source, target, cluster) = old_primary();
    block_on(async {
        let (store, role) = failed_over(&target).await;
        let late = Fault::on(ApiKey::CreateAcls).times(1);
        let late = source.fault(late, Action::Hold);
        let mut restrain = Restrain::new("dr", &cluster, None);
        let handed_back = async {
            until("it is asked for", || source.fired(late) > 0).await;
            // Not behind what is late.
            let own = wire_cluster(&source.bootstrap());
            hand_back(&own, &target.bootstrap(), &role).await;
            source.clear(late);
        };
        tokio::join!(restrain.pass(&store, &role), handed_back);
        assert!(!is_denied(&source));
    });
}

/// A pass has an end, and so has a process.
#[test]
fn nor_what_a_pass_made_that_was_cut_off() {
    let (source, target, cluster) = old_primary();
    block_on(async {
        let (store, role) = failed_over(&target).await;
        let mut restrain = Restrain::new("dr", &cluster, None);
        let silent = Action::AnswerLate(1_500);
        cut_off(&mut restrain, (&store, &role), &source, silent).await;
        until("it is made", || is_denied(&source)).await;
        // Somebody else has forgotten it.
        store.remove(&keys::fence("dr")).await.expect("removed");
        let own = wire_cluster(&source.bootstrap());
        hand_back(&own, &target.bootstrap(), &role).await;
        restrain.end(&store).await;
        assert!(!is_denied(&source));
    });
}

/// The role that cuts a pass off is the one that forbids what it makes; and what nobody has answered may come behind all
/// that is looked at.
#[test]
fn nor_what_comes_behind_the_pass_that_takes_it_back() {
    let (source, target, cluster) = old_primary();
    block_on(async {
        let (store, role) = failed_over(&target).await;
        let mut restrain = Restrain::new("dr", &cluster, None);
        let late = cut_off(&mut restrain, (&store, &role), &source, Action::Hold).await;
        let own = wire_cluster(&source.bootstrap());
        hand_back(&own, &target.bootstrap(), &role).await;
        let handed_back = RoleRecord {
            is_handed_back: true,
            ..role
        };
        assert!(!is_denied(&source));
        source.clear(late);
        until("it comes late", || is_denied(&source)).await;
        restrain.pass(&store, &handed_back).await;
        assert!(!is_denied(&source));
    });
}

/// Where no cluster has an id, a standby that was built anew counts from the beginning, too.
#[test]
fn the_role_of_a_standby_that_was_built_anew_is_told() {
    let (_, target) = fake_authorized_pair();
    block_on(async {
        let (store, before) = failed_over(&target).await;
        let old = RoleRecord {
            epoch: 9,
            since_ms: 1_000,
            ..before.clone()
        };
        assert!(tell(&store, "dr", &old).await.expect("told"));
        let anew = RoleRecord {
            epoch: 1,
            since_ms: 2_000,
            plan: Uuid::from_u128(8),
            ..before.clone()
        };
        assert!(tell(&store, "dr", &anew).await.expect("told"));
        let told = || {
            store
                .get::<RoleRecord>(&keys::role("dr"))
                .expect("readable")
        };
        assert_eq!(told(), Some(anew.clone()));
        // And what comes late of an earlier one of the same isn't.
        let later = RoleRecord {
            epoch: 3,
            since_ms: 3_000,
            ..anew.clone()
        };
        tell(&store, "dr", &later).await.expect("told");
        tell(&store, "dr", &anew).await.expect("told");
        assert_eq!(told(), Some(later));
    });
}

/// Something at an address of the old primary's that refuses our login is tried more and more seldom: an account that is
/// tried every few seconds with a wrong password is locked.
#[test]
fn who_refuses_a_login_is_tried_more_and_more_seldom() {
    let (source, other) = fake_authorized_pair();
    create_topic(&source.bootstrap(), TOPIC, 1, &[]);
    source.control(|state| {
        state.users.login = Login::Optional;
        state.users.add("t", "right");
        state.acls.super_users.insert("User:t".to_owned());
    });
    other.control(|state| {
        state.users.login = Login::Required;
        state.users.add("t", "another");
    });
    let mut config = wire_cluster(&source.bootstrap()).config().clone();
    config.bootstrap.push(other.bootstrap());
    config.security.sasl = Some(Arc::new(wire::Sasl::Plain {
        username: "t".to_owned(),
        password: "right".to_owned().into(),
    }));
    let cluster = wire::Cluster::new(config);
    let tried = other.fault(Fault::on(ApiKey::SaslAuthenticate), Action::Delay(0));
    let began = Instant::now();
    block_on(async {
        cluster.metadata(None).await.expect("it answers");
        let topics = BTreeSet::from([TOPIC.to_owned()]);
        let mut shown = Shown::default();
        for _ in 0..20 {
            shown.look(&cluster, &topics, Duration::from_secs(1)).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // Each pause is twice as long as the one before.
        let most = 2 + (began.elapsed().as_secs() + 1).ilog2();
        let tried = other.fired(tried);
        assert!(
            (1..=u64::from(most)).contains(&tried),
            "tried {tried} times"
        );
    });
}

/// A failback that is undone meanwhile has forgotten it, and it stands.
#[test]
fn what_was_made_meanwhile_is_remembered_where_it_stays() {
    let (source, target, cluster) = old_primary();
    block_on(async {
        let (store, role) = failed_over(&target).await;
        let mut restrain = Restrain::new("dr", &cluster, None);
        let silent = Action::AnswerLate(3_500);
        cut_off(&mut restrain, (&store, &role), &source, silent).await;
        until("it is made", || is_denied(&source)).await;
        store.remove(&keys::fence("dr")).await.expect("removed");
        restrain.end(&store).await;
        assert!(is_denied(&source));
        let fence: Option<FenceRecord> = store.get(&keys::fence("dr")).expect("readable");
        assert_eq!(fence.unwrap_or_default().acls.len(), 1);
    });
}

/// Who has shown a fence that is gone hasn't shown the one that is made anew.
#[test]
fn who_showed_an_older_fence_is_asked_again() {
    let source = FakeCluster::start(Options {
        brokers: 2,
        ..options("two-brokers")
    });
    source.control(|state| {
        state.acls.is_on = true;
        state.acls.super_users.insert("User:ANONYMOUS".to_owned());
    });
    let (_, target) = fake_authorized_pair();
    create_topic(&source.bootstrap(), TOPIC, 1, &[]);
    let cluster = wire_cluster(&source.bootstrap());
    block_on(async {
        let (store, role) = failed_over(&target).await;
        let mut restrain = Restrain::new("dr", &cluster, None);
        // A broker that takes its time is asked again by the next pass.
        let began = Instant::now();
        loop {
            let fenced = restrain.pass(&store, &role).await;
            if fenced.old_primary == "fenced" {
                break;
            }
            assert!(began.elapsed() < DEADLINE, "{fenced:?}");
        }
        source.control(|state| {
            state.acls.all.clear();
            state.acls.hold(2);
        });
        let is_named = |it: &RoleStatus| {
            let problem = it.fence_problem.as_deref();
            problem.is_some_and(|it| it.contains("broker 2"))
        };
        let mut late = restrain.pass(&store, &role).await;
        // Again, where it takes its time; long before all are asked anew.
        for _ in 0..4 {
            if !is_named(&late) {
                late = restrain.pass(&store, &role).await;
            }
        }
        assert!(is_named(&late), "{late:?}");
        assert!(is_denied(&source));
    });
}

/// Who carries out a cut-over doesn't wait for what is asked of an old primary that hangs.
#[test]
fn an_old_primary_that_hangs_holds_no_role_up() {
    let (source, target) = fake_authorized_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, TOPIC, 1, &[]);
    Load::new(TOPIC, 20).produce(&from);
    let twinlog = Twinlog::start(&Twinlog::config(&from, &to, ""));
    await_caught_up(&twinlog, DEADLINE);
    let config = twinlog.config_file().to_owned();
    answer(&failover(&config, &["--yes", "--json"]), 0);
    await_failed_over(&twinlog);
    let asked = source.fault(Fault::on(ApiKey::Metadata), Action::Swallow);
    eventually(DEADLINE, "it is being asked", || {
        match source.fired(asked) {
            0 => Err("nobody asks"),
            _ => Ok(()),
        }
    });
    source.control(|state| state.freeze_broker(1));
    block_on(async {
        let store = opened_state(&wire_cluster(&to), "dr").await;
        let role: Option<RoleRecord> = store.get(&keys::role("dr")).expect("it is readable");
        let role = role.expect("it was failed over");
        let role = RoleRecord {
            plan: Uuid::from_u128(8),
            epoch: role.epoch + 1,
            ..role
        };
        store.put(&keys::role("dr"), &role).await.expect("written");
    });
    let plan = Uuid::from_u128(8).to_string();
    twinlog.wait_until(Duration::from_secs(5), "it knows the role", |status| {
        status["flows"][0]["role"]["plan"] == plan.as_str()
    });
}
