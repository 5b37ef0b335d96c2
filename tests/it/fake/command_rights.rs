//! Failing over, going back and replaying with exactly the rights that docs/SECURITY.md names.
//!
//! Twinlog logs in and may do what the page says; whoever comes without a name, as the test's own clients do,
//! is a super user.

use std::time::Duration;

use fake_kafka::acls::{Acl, CLUSTER_NAME, Operation, ResourceType};
use fake_kafka::faults::{Action, Fault};
use fake_kafka::kafka_protocol::messages::ApiKey;
use fake_kafka::state::State;
use fake_kafka::users::Login;
use twinlog::flow::fenced;
use twinlog::state::{FenceAcl, keys};

use crate::support::failover::{answer, await_failed_over, failback, failover, words};
use crate::support::fake::{FakeCluster, fake_pair};
use crate::support::flow::{block_on, flow_config, opened_state, wire_cluster};
use crate::support::groups::{commit, committed, has_had_groups};
use crate::support::{Load, Twinlog, await_same, create_topic, end_offset, eventually};

const DEADLINE: Duration = Duration::from_secs(60);
const TOPIC: &str = "shop.orders";
const GROUP: &str = "shop.billing";
const WE: &str = "User:twinlog";
const PASSWORD: &str = "not-a-secret";

fn operation(name: &str) -> Operation {
    let all = (0..=i8::MAX).filter_map(Operation::from_number);
    let mut named = all.filter(|it| format!("{it:?}") == name);
    named.next().unwrap_or_else(|| panic!("{name}?"))
}

/// The ACLs of the document for a side, of what stands under comments that are taken.
fn documented(side: &str, is_taken: impl Fn(&str) -> bool) -> Vec<Acl> {
    let document = include_str!("../../../docs/SECURITY.md");
    let (mut found, mut comment) = (Vec::new(), "");
    for line in document.lines() {
        comment = line.strip_prefix("# ").unwrap_or(comment);
        let is_ours = line.starts_with("kafka-acls.sh ") && line.contains(side);
        if !is_ours || !is_taken(comment) {
            continue;
        }
        let words: Vec<&str> = line.split(' ').collect();
        let after = |option: &str| {
            let at = words.iter().position(|word| *word == option)?;
            words.get(at + 1).copied()
        };
        let kinds = [
            ("--topic", ResourceType::Topic),
            ("--group", ResourceType::Group),
            ("--transactional-id", ResourceType::TransactionalId),
        ];
        let named = kinds
            .into_iter()
            .find_map(|(option, kind)| Some((kind, after(option)?)));
        let (kind, name) = named.unwrap_or((ResourceType::Cluster, CLUSTER_NAME));
        for pair in words.windows(2).filter(|pair| pair[0] == "--operation") {
            let acl = Acl::allow(WE, operation(pair[1]), kind, name);
            found.push(match after("--resource-pattern-type") {
                Some("prefixed") => acl.prefixed(),
                _ => acl,
            });
        }
    }
    assert!(!found.is_empty(), "{side}");
    found
}

fn grant(cluster: &FakeCluster, acls: Vec<Acl>) {
    cluster.control(|state: &mut State| {
        state.acls.is_on = true;
        state.acls.super_users.insert("User:ANONYMOUS".to_owned());
        state.acls.all.extend(acls);
        state.users.login = Login::Optional;
        state.users.add("twinlog", PASSWORD);
    });
}

fn is_of_the_copy(comment: &str) -> bool {
    comment.starts_with("Required") || comment.starts_with("Optional")
}

/// Both sides with what a copy and these commands need, and a topic and a group on the source.
fn restricted(commands: &[&str]) -> (FakeCluster, FakeCluster) {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, TOPIC, 1, &[]);
    Load::new(TOPIC, 20).produce(&from);
    commit(&from, GROUP, &[(TOPIC, 0, 7)]);
    has_had_groups(&to);
    let is_taken = |comment: &str| {
        let is_command = |it: &&str| comment.starts_with(&format!("For {it}"));
        is_of_the_copy(comment) || commands.iter().any(is_command)
    };
    grant(&source, documented("$SOURCE", is_taken));
    grant(&target, documented("$TARGET", is_taken));
    (source, target)
}

/// An application that may write to the source's topic.
fn let_in_a_writer(source: &FakeCluster) {
    let client = Acl::allow("User:shop", Operation::Write, ResourceType::Topic, TOPIC);
    grant(source, vec![client]);
}

fn started(from: &str, to: &str) -> Twinlog {
    let lines = "groups: { include: [\"shop[.].*\"] }";
    let mut config = flow_config("dr", "shop[.].*", from, to, lines);
    for bootstrap in [from, to] {
        let address = format!("bootstrap.servers: \"{bootstrap}\"");
        let login = format!(
            "{address}, security.protocol: SASL_PLAINTEXT, sasl.mechanism: PLAIN, sasl.username: twinlog, \
             sasl.password: {PASSWORD}"
        );
        config = config.replace(&address, &login);
    }
    Twinlog::start(&config)
}

#[test]
fn a_failover_and_the_way_back_need_the_documented_rights_and_no_other() {
    let (source, target) = restricted(&["failover", "failback"]);
    let_in_a_writer(&source);
    there_and_back(&source, &target);
}

#[test]
fn there_and_back_where_no_acl_lets_anybody_but_twinlog_write() {
    let (source, target) = restricted(&["failover", "failback"]);
    there_and_back(&source, &target);
}

/// What is left of another fence, as of a topic that was deleted meanwhile, says nothing about these topics.
#[test]
fn there_and_back_beside_what_is_left_of_another_fence() {
    let (source, target) = restricted(&["failover", "failback"]);
    let of = |topic: &str, operation: Operation, deny: bool| FenceAcl {
        topic: topic.to_owned(),
        operation: operation as i8,
        deny,
        principal: None,
    };
    let left = vec![
        of("shop.deleted", Operation::Write, true),
        of(TOPIC, Operation::Describe, false),
    ];
    there_and_back_with(&source, &target, || {
        block_on(async {
            let cluster = wire_cluster(&target.bootstrap());
            let store = opened_state(&cluster, "dr").await;
            fenced::note(&store, &keys::fence("dr"), &left)
                .await
                .expect("it is noted");
        });
    });
}

/// A broker that shows for a while what the failback has removed.
#[test]
fn there_and_back_where_a_broker_hears_late_of_acls() {
    let (source, target) = restricted(&["failover", "failback"]);
    let_in_a_writer(&source);
    there_and_back_with(&source, &target, || {
        let late = source.clone();
        let stands_still = Action::Arrives(Box::new(move |state, seen| {
            state.acls.hold(seen.broker);
            let late = late.clone();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_secs(2));
                late.control(|state| state.acls.catch_up(1));
            });
        }));
        source.fault(Fault::on(ApiKey::DeleteAcls).times(1), stands_still);
    });
}

fn there_and_back(source: &FakeCluster, target: &FakeCluster) {
    there_and_back_with(source, target, || ());
}

/// `before_the_way_back` is called when the target is the primary.
fn there_and_back_with(
    source: &FakeCluster,
    target: &FakeCluster,
    before_the_way_back: impl FnOnce(),
) {
    let (from, to) = (source.bootstrap(), target.bootstrap());
    let twinlog = started(&from, &to);
    let config = twinlog.config_file().to_owned();
    await_same(&from, &to, TOPIC, DEADLINE);
    twinlog.await_group(GROUP, "followed", DEADLINE);

    let shown = failover(&config, &[]);
    assert_eq!(shown.status.code(), Some(0), "{}", words(&shown));
    let report = answer(&failover(&config, &["--yes", "--json"]), 0);
    assert_eq!(report["state"], "done", "{report:#}");
    assert_eq!(report["lost"]["records"], 0, "{report:#}");
    await_failed_over(&twinlog);
    Load::new(TOPIC, 10).first(20).produce(&to);
    commit(&to, GROUP, &[(TOPIC, 0, 25)]);
    before_the_way_back();

    let report = answer(&failback(&config, &["--yes", "--json"]), 0);
    assert_eq!(report["state"], "done", "{report:#}");
    await_same(&from, &to, TOPIC, DEADLINE);
    assert_eq!(committed(&from, GROUP, TOPIC, 1), [Some(25)]);
    twinlog.wait_until(DEADLINE, "it copies again", |status| {
        status["flows"][0]["state"] == "running"
    });
}

/// All of a drill, with what it makes on the source too.
#[test]
fn a_drill_needs_the_documented_rights_and_no_other() {
    let (source, target) = restricted(&["drill"]);
    let_in_a_writer(&source);
    let (from, to) = (source.bootstrap(), target.bootstrap());
    let twinlog = started(&from, &to);
    await_same(&from, &to, TOPIC, DEADLINE);
    twinlog.await_group(GROUP, "followed", DEADLINE);
    let shown = twinlog.command("drill", &["--json"]);
    assert_eq!(shown.status.code(), Some(0), "{}", words(&shown));

    let report = answer(&twinlog.command("drill", &["--yes", "--json"]), 0);
    assert_eq!(report["failures"], serde_json::json!([]), "{report:#}");
    assert_eq!(report["scope"]["topics_copied"], serde_json::json!([TOPIC]));
    let rehearsals = report["rehearsals"].as_array().expect("a list");
    let of = |kind: &str| rehearsals.iter().find(|it| it["kind"] == kind).expect(kind);
    assert_eq!(of("planned")["fence"], "acl", "{report:#}");
    assert_eq!(
        of("planned")["plan"]["lost"]["is_proven"],
        true,
        "{report:#}"
    );
    assert_eq!(of("unplanned")["groups"]["positions"], 1, "{report:#}");
    assert_eq!(of("unplanned")["verify"]["verdict"], "same", "{report:#}");
    assert_eq!(
        report["production"]["verify"]["verdict"], "same",
        "{report:#}"
    );
    assert_eq!(
        report["cleanup"]["left"],
        serde_json::json!([]),
        "{report:#}"
    );
    for cluster in [&source, &target] {
        let left = cluster.look(|state| {
            let names = state
                .topics
                .keys()
                .filter(|it| it.starts_with("__twinlog_drill."));
            names.cloned().collect::<Vec<_>>()
        });
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn orphans_are_replayed_with_the_documented_rights() {
    let (source, target) = restricted(&["failover", "failback", "orphans --replay"]);
    let_in_a_writer(&source);
    let (from, to) = (source.bootstrap(), target.bootstrap());
    let mut twinlog = started(&from, &to);
    let config = twinlog.config_file().to_owned();
    await_same(&from, &to, TOPIC, DEADLINE);
    twinlog.kill9();
    Load::new(TOPIC, 5).first(20).produce(&from);
    let given_up = failover(&config, &["--unplanned", "--yes", "--accept-loss", "any"]);
    assert_eq!(given_up.status.code(), Some(0), "{}", words(&given_up));
    // An export writes at once, unless it is only to be shown.
    let folder = tempfile::TempDir::new().expect("a folder");
    let to_folder = folder.path().to_str().expect("UTF-8");
    let export = |more: &[&str]| {
        let arguments = [&["--export", to_folder, "--json"], more].concat();
        let shown = answer(&twinlog.command("orphans", &arguments), 0);
        let files = std::fs::read_dir(to_folder).expect("a folder").count();
        (shown, files)
    };
    let (shown, files) = export(&["--dry-run"]);
    assert_eq!((&shown["applied"], files), (&false.into(), 0), "{shown:#}");
    let (written, files) = export(&[]);
    assert_eq!(written["records"], 5, "{written:#}");
    assert!(files > 0);

    let before = end_offset(&to, TOPIC, 0);
    let replayed = twinlog.command("orphans", &["--replay", "--yes", "--json"]);
    let replayed = answer(&replayed, 0);
    assert_eq!(replayed["applied"], true, "{replayed:#}");
    eventually(DEADLINE, "they are there", || {
        match end_offset(&to, TOPIC, 0) - before {
            more if more >= 5 => Ok(()),
            more => Err(more),
        }
    });
}
