//! ACLs follow: what harms no copy at once, what could waits for the failover.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::fake::{fake_authorized_pair, fake_fenceable_pair, fake_open_pair};
use crate::support::logins;
use crate::support::{
    Load, Twinlog, acls, add_acls, await_acls, await_same, create_topic, eventually, fake_pair,
    remove_acls,
};
use serde_json::Value;

/// How soon a change is on the standby.
pub(crate) const SOON: Duration = Duration::from_secs(5);
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A flow between clusters with an authorizer; Twinlog is a super user of both.
pub(crate) fn start(source: &str, target: &str, flow_lines: &str) -> Twinlog {
    let (source, target) = (logins::internal(source), logins::internal(target));
    Twinlog::start(&Twinlog::config(&source, &target, flow_lines))
}

/// What the report says is held for the failover, one line each: `topic a: ALLOW ...`.
fn held(status: &Value) -> BTreeSet<String> {
    let held = status["flows"][0]["metadata"]["held"].as_array();
    let acls = held.into_iter().flatten().filter(|d| d["kind"] == "acl");
    acls.map(|d| {
        let text = |key: &str| d[key].as_str().unwrap_or_default();
        format!("{}: {}", text("subject"), text("detail"))
    })
    .collect()
}

pub(crate) fn await_held(twinlog: &Twinlog, wanted: &[&str]) {
    let wanted: BTreeSet<String> = wanted.iter().map(|&line| line.to_owned()).collect();
    eventually(DEADLINE, "the status lists what is held", || {
        let found = held(&twinlog.status());
        if found == wanted { Ok(()) } else { Err(found) }
    });
}

/// What `plan` says of ACLs, one line each: `add topic a: ALLOW ...`.
fn planned(twinlog: &Twinlog) -> BTreeSet<String> {
    let output = twinlog.command("plan", &["--json"]);
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let changes = answer["changes"].as_array().expect("a list").iter();
    let acls = changes.filter(|change| change["kind"] == "acl");
    acls.map(|change| {
        let text = |key: &str| change[key].as_str().unwrap_or_default();
        format!("{} {}: {}", text("action"), text("subject"), text("detail"))
    })
    .collect()
}

fn lines(lines: &[&str]) -> BTreeSet<String> {
    lines.iter().map(|&line| line.to_owned()).collect()
}

pub(crate) fn applied(status: &Value) -> u64 {
    let applied = &status["flows"][0]["metadata"]["applied"]["acl"];
    applied.as_u64().unwrap_or_default()
}

pub(crate) fn compared_at(status: &Value) -> i64 {
    let compared = &status["flows"][0]["metadata"]["compared_at_ms"];
    compared.as_i64().unwrap_or_default()
}

/// Waits until the clusters were compared `times` more; returns the last status.
pub(crate) fn await_looks(twinlog: &Twinlog, times: usize) -> Value {
    let mut status = twinlog.status();
    for _ in 0..times {
        let last = compared_at(&status);
        status = twinlog.wait_until(DEADLINE, "another look", |now| compared_at(now) > last);
    }
    status
}

#[test]
fn the_first_acl_of_an_open_target_does_not_shut_twinlog_out() {
    let (source, target) = fake_open_pair();
    the_first_acl(&source.bootstrap(), &target.bootstrap());
}

/// Both clusters let everybody do everything with what has no ACL, and Twinlog is nobody special.
pub(crate) fn the_first_acl(source: &str, target: &str) {
    create_topic(source, "orders", 1, &[]);
    Load::new("orders", 20).produce(source);
    let twinlog = start(source, target, OFTEN);
    await_same(source, target, "orders", DEADLINE);
    // Without the first one nobody but alice could do anything on the source.
    let everybodys = "ALLOW ALL User:ANONYMOUS * topic orders";
    let alices = [
        "ALLOW READ User:alice * topic orders",
        "ALLOW READ User:alice * group readers",
    ];
    add_acls(source, &[everybodys]);
    add_acls(source, &alices);
    let kept_in = [everybodys, "ALLOW ALL User:ANONYMOUS * group readers"];
    let both: Vec<&str> = alices.iter().chain(&kept_in).copied().collect();
    await_acls(target, &both, DEADLINE);
    // The copy goes on.
    Load::new("orders", 20).first(20).produce(source);
    await_same(source, target, "orders", DEADLINE);
    remove_acls(source, &alices);
    await_acls::<&str>(target, &[], DEADLINE);
    Load::new("orders", 20).first(40).produce(source);
    await_same(source, target, "orders", DEADLINE);
    drop(twinlog);
}

/// Brokers that don't tell whether what has no ACL is everybody's are asked again, and nothing is changed
/// meanwhile: what keeps Twinlog in least of all.
#[test]
fn while_it_is_not_known_whether_a_target_is_open_twinlog_is_kept_in() {
    let (source, target) = fake_open_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "orders", 1, &[]);
    Load::new("orders", 20).produce(&source);
    let twinlog = start(&source, &target, OFTEN);
    await_same(&source, &target, "orders", DEADLINE);
    let everybodys = "ALLOW ALL User:ANONYMOUS * topic orders";
    let alices = "ALLOW READ User:alice * topic orders";
    add_acls(&source, &[everybodys]);
    add_acls(&source, &[alices]);
    await_acls(&target, &[everybodys, alices], DEADLINE);
    // With these the cluster's other rights are gone, also the one to see the property.
    let clusters: Vec<String> = ["ALTER", "DESCRIBE", "CREATE", "CLUSTER_ACTION"]
        .iter()
        .map(|operation| format!("ALLOW {operation} User:ANONYMOUS * cluster kafka-cluster"))
        .collect();
    add_acls(&target, &clusters);
    let bobs = "ALLOW READ User:bob * topic orders";
    add_acls(&source, &[bobs]);
    let status = twinlog.wait_until(DEADLINE, "the obstacle is named", |status| {
        let obstacles = status["flows"][0]["metadata"]["obstacles"].as_array();
        let mut obstacles = obstacles.into_iter().flatten();
        obstacles.any(|it| it["kind"] == "acl" && it["reason"] == "not_authorized")
    });
    assert!(
        status
            .to_string()
            .contains("allow.everyone.if.no.acl.found"),
        "{status:#}"
    );
    await_looks(&twinlog, 3);
    let mut wanted: Vec<&str> = clusters.iter().map(String::as_str).collect();
    wanted.extend([everybodys, alices]);
    assert_eq!(acls(&target), lines(&wanted));
    Load::new("orders", 20).first(20).produce(&source);
    await_same(&source, &target, "orders", DEADLINE);
    remove_acls(&target, &clusters);
    await_acls(&target, &[everybodys, alices, bobs], DEADLINE);
    drop(twinlog);
}

/// Looks often, so that a test needn't wait.
pub(crate) const OFTEN: &str = "metadata_interval: 200ms";

#[test]
fn acls_follow_and_what_could_change_a_copy_is_held() {
    let (source, target) = fake_authorized_pair();
    acls_follow(&source.bootstrap(), &target.bootstrap());
}

pub(crate) fn acls_follow(source: &str, target: &str) {
    create_topic(source, "orders", 1, &[]);
    // Made by the standby's own people: one that the source has as well, one that it hasn't, and
    // one that lets somebody write to a copy.
    let own = [
        "ALLOW READ User:carol * topic orders",
        "ALLOW READ User:dave * topic local",
        "ALLOW WRITE User:eve * topic-prefix ord",
    ];
    add_acls(target, &own);
    // The default interval: this is how soon changes follow.
    let twinlog = start(source, target, "");
    await_same(source, target, "orders", DEADLINE);

    let following = [
        "ALLOW READ User:alice * topic orders",
        "DENY READ User:alice 10.0.0.1 topic orders",
        "ALLOW DESCRIBE User:alice * topic-prefix ord",
        "ALLOW READ User:frank * topic *",
        "DENY WRITE User:mallory * topic *",
        "ALLOW READ User:alice * group readers",
        "ALLOW DELETE User:alice * group-prefix read",
        "ALLOW READ User:early * topic not-yet-there",
        "ALLOW WRITE User:bob * transactional-id payments",
        "ALLOW DESCRIBE User:bob * transactional-id-prefix pay",
    ];
    let waiting = [
        "ALLOW WRITE User:bob * topic orders",
        "ALLOW CREATE User:bob * topic-prefix ord",
        "DENY DELETE User:* * topic orders",
    ];
    let kept = [
        "ALLOW READ User:carol * topic orders",
        "ALLOW ALTER User:alice * cluster kafka-cluster",
    ];
    add_acls(source, &following);
    add_acls(source, &waiting);
    add_acls(source, &kept);
    let both: Vec<&str> = own.iter().chain(&following).copied().collect();
    await_acls(target, &both, SOON);
    let held = [
        "topic orders: ALLOW WRITE User:bob from *",
        "topic prefix ord: ALLOW CREATE User:bob from *",
        "topic orders: DENY DELETE User:* from *",
    ];
    await_held(&twinlog, &held);
    let mut expected = lines(&[
        "leave cluster kafka-cluster: ALLOW ALTER User:alice from *",
        "leave topic prefix ord: ALLOW WRITE User:eve from *",
    ]);
    expected.extend(held.iter().map(|line| format!("hold {line}")));
    assert_eq!(planned(&twinlog), expected);

    // Nothing is done twice.
    let before = applied(&twinlog.status());
    assert_eq!(before, following.len() as u64);
    assert_eq!(applied(&await_looks(&twinlog, 2)), before);

    // What somebody took away on the standby comes back.
    remove_acls(target, &following[..2]);
    await_acls(target, &both, SOON);

    // What the source takes back goes, and only that.
    remove_acls(source, &following[..6]);
    remove_acls(source, &waiting[..1]);
    remove_acls(source, &kept[..1]);
    let rest: Vec<&str> = own.iter().chain(&following[6..]).copied().collect();
    await_acls(target, &rest, SOON);
    await_held(&twinlog, &held[1..]);
    twinlog.assert_quiet(&[]);
}

#[test]
fn acls_are_renamed_with_their_topics() {
    let (source, target) = fake_authorized_pair();
    renamed_acls(&source.bootstrap(), &target.bootstrap());
}

pub(crate) fn renamed_acls(source: &str, target: &str) {
    create_topic(source, "orders", 1, &[]);
    create_topic(source, "other", 1, &[]);
    add_acls(
        source,
        &[
            "ALLOW READ User:alice * topic orders",
            "ALLOW READ User:alice * topic-prefix ord",
            "ALLOW READ User:alice * topic *",
            "ALLOW READ User:alice * topic other",
            "DENY READ User:mallory * topic *",
            "ALLOW READ User:alice * group orders",
            "ALLOW WRITE User:bob * topic-prefix ord",
        ],
    );
    let flow =
        format!("rename: \"{{source}}.{{topic}}\"\ntopics: {{ include: [\"orders.*\"] }}\n{OFTEN}");
    let twinlog = start(source, target, &flow);
    let first = [
        "ALLOW READ User:alice * topic primary.orders",
        "DENY READ User:mallory * topic-prefix primary.",
        "ALLOW READ User:alice * group orders",
    ];
    await_acls(target, &first, DEADLINE);
    await_held(
        &twinlog,
        &["topic primary.orders: ALLOW WRITE User:bob from *"],
    );
    // A topic that comes later gets what the patterns give it.
    create_topic(source, "orders.new", 1, &[]);
    let later = ["ALLOW READ User:alice * topic primary.orders.new"];
    let all: Vec<&str> = first.iter().chain(&later).copied().collect();
    await_acls(target, &all, DEADLINE);
    let held = [
        "topic primary.orders: ALLOW WRITE User:bob from *",
        "topic primary.orders.new: ALLOW WRITE User:bob from *",
    ];
    await_held(&twinlog, &held);
}

/// `MirrorSourceConnectorTest` of MirrorMaker 2: `testAclFiltering`, `testAclTransformation`.
/// There a WRITE grant is dropped; here it is held. There nothing is ever removed.
#[test]
fn as_mirror_maker_copies_acls() {
    let (source, target) = fake_authorized_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "test_topic", 1, &[]);
    add_acls(
        &source,
        &[
            "ALLOW WRITE User:kafka * topic test_topic",
            "ALLOW ALL User:kafka * topic test_topic",
            "DENY ALL User:mallory * topic test_topic",
        ],
    );
    let twinlog = start(
        &source,
        &target,
        &format!("rename: \"{{source}}.{{topic}}\"\n{OFTEN}"),
    );
    let wanted = [
        "ALLOW READ User:kafka * topic primary.test_topic",
        "ALLOW DESCRIBE_CONFIGS User:kafka * topic primary.test_topic",
        "DENY ALL User:mallory * topic primary.test_topic",
    ];
    await_acls(&target, &wanted, DEADLINE);
    let held = [
        "topic primary.test_topic: ALLOW WRITE User:kafka from *",
        "topic primary.test_topic: ALLOW ALL User:kafka from *",
    ];
    await_held(&twinlog, &held);
}

/// `testNoBrokerAclAuthorizer` of MirrorMaker 2: said once, and the target stays as it is.
#[test]
fn without_an_authorizer_there_is_nothing_to_follow() {
    let (source, _) = fake_pair();
    let (_, target) = fake_authorized_pair();
    let own = ["ALLOW READ User:dave * topic local"];
    add_acls(&target.bootstrap(), &own);
    create_topic(&source.bootstrap(), "orders", 1, &[]);
    let config = Twinlog::config(&source.bootstrap(), &target.bootstrap(), OFTEN);
    let twinlog = Twinlog::start(&config);
    await_looks(&twinlog, 3);
    let said = twinlog
        .log()
        .matches("the source has no authorizer")
        .count();
    assert_eq!(said, 1, "{}", twinlog.log());
    let status = twinlog.status();
    let obstacle = &status["flows"][0]["metadata"]["obstacles"][0];
    assert_eq!(obstacle["reason"], "no_authorizer", "{status:#}");
    assert_eq!(obstacle["is_problem"], false);
    assert_eq!(acls(&target.bootstrap()), lines(&own));
    twinlog.assert_quiet(&[]);
}

#[test]
fn a_missing_right_is_named() {
    let (source, _) = fake_authorized_pair();
    // The strict one is the target here.
    let (target, _) = fake_fenceable_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "orders", 1, &[]);
    // From here on Twinlog may look at the target's ACLs and copy, but not change ACLs.
    add_acls(
        &target,
        &[
            "ALLOW DESCRIBE User:ANONYMOUS * cluster kafka-cluster",
            "ALLOW DESCRIBE_CONFIGS User:ANONYMOUS * cluster kafka-cluster",
            "ALLOW CLUSTER_ACTION User:ANONYMOUS * cluster kafka-cluster",
            "ALLOW CREATE User:ANONYMOUS * cluster kafka-cluster",
            "ALLOW IDEMPOTENT_WRITE User:ANONYMOUS * cluster kafka-cluster",
        ],
    );
    let twinlog = Twinlog::start(&Twinlog::config(&source, &target, OFTEN));
    await_same(&source, &target, "orders", DEADLINE);
    add_acls(&source, &["ALLOW READ User:alice * topic other"]);
    let status = twinlog.wait_until(DEADLINE, "the missing right is named", |status| {
        let attention = &status["flows"][0]["metadata"]["attention"];
        attention.to_string().contains("grant ALTER on the cluster")
    });
    let attention = &status["flows"][0]["metadata"]["attention"][0];
    assert_eq!(
        attention["failure"]["reason"], "not_authorized",
        "{status:#}"
    );
}

/// A source that was replaced, or a wrong address, says nothing about what the standby needs.
#[test]
fn another_source_cluster_takes_nothing_away() {
    let (source, target) = fake_authorized_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "orders", 1, &[]);
    let granted = ["ALLOW READ User:alice * topic orders"];
    add_acls(&source, &granted);
    let mut twinlog = start(&source, &target, OFTEN);
    await_acls(&target, &granted, DEADLINE);
    twinlog.terminate();

    let (another, _) = fake_fenceable_pair();
    let twinlog = Twinlog::start(&Twinlog::config(&another.bootstrap(), &target, OFTEN));
    twinlog.wait_until(DEADLINE, "the source isn't believed", |status| {
        status["flows"][0]["reason"] == "source_replaced"
    });
    assert_eq!(acls(&target), lines(&granted));
}

/// Who may change any topic changes Twinlog's own, if nothing is done: the state topic says which ACLs Twinlog
/// made, and so which it may remove.
#[test]
fn a_released_grant_on_all_topics_comes_with_a_denial_on_twinlogs_own() {
    let (source, target) = fake_authorized_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "orders", 1, &[]);
    let twinlog = start(&source, &target, OFTEN);
    await_same(&source, &target, "orders", DEADLINE);
    add_acls(&source, &["ALLOW WRITE User:app * topic *"]);
    let held = [
        "topic *: ALLOW WRITE User:app from *",
        "topic prefix __twinlog: DENY WRITE User:app from *",
    ];
    await_held(&twinlog, &held);
    let released = twinlog.command("held", &["--release", "--yes"]);
    assert!(released.status.success(), "{released:?}");
    let both = [
        "ALLOW WRITE User:app * topic *",
        "DENY WRITE User:app * topic-prefix __twinlog",
    ];
    await_acls(&target, &both, DEADLINE);
    let withdrawn = twinlog.command("held", &["--withdraw", "--yes"]);
    assert!(withdrawn.status.success(), "{withdrawn:?}");
    await_acls::<&str>(&target, &[], DEADLINE);
}

/// A flow of some topics to a standby that has topics and groups of its own.
#[test]
fn a_narrow_flow_takes_nothing_from_the_standbys_own_and_gives_nothing_of_it() {
    let (source, target) = fake_authorized_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "shop.orders", 1, &[]);
    let own = [
        "ALLOW WRITE User:etl * topic local",
        "ALLOW READ User:y * group own",
    ];
    add_acls(&target, &own);
    let flow = format!("topics: {{ include: ['shop\\..*'] }}\n{OFTEN}");
    let _twinlog = start(&source, &target, &flow);
    await_same(&source, &target, "shop.orders", DEADLINE);
    add_acls(
        &source,
        &[
            "DENY WRITE User:etl * topic *",
            "ALLOW ALL User:x * group *",
            "ALLOW WRITE User:x * transactional-id *",
            "ALLOW READ User:x * group shop-readers",
        ],
    );
    let expected = [
        own[0],
        own[1],
        "DENY WRITE User:etl * topic-prefix shop.",
        "ALLOW ALL User:x * group shop-readers",
        "ALLOW READ User:x * group shop-readers",
    ];
    await_acls(&target, &expected, DEADLINE);
}
