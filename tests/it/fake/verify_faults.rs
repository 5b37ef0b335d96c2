//! What is wrong with a copy, planted on purpose: `verify` finds each of it, or says that it didn't look.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::acls::{self, Acl, Operation, Resource};
use crate::support::failover::words;
use crate::support::fake::{FakeCluster, fake_authorized_pair, options};
use crate::support::flow::{
    await_position, block_on, flow_config, is_caught_up, opened_state, wire_cluster,
};
use crate::support::groups::commit;
use crate::support::planted::{Piece, await_end, pieces, rebuild, records};
use crate::support::verified::{assert_verified, verify};
use crate::support::{
    HeaderStyle, Load, Seen, Transactions, Twinlog, add_partitions, await_same, create_topic,
    delete_records, delete_topic, fake_pair, quotas, topic_configs,
};
use fake_kafka::cleaner::Cleaning;
use fake_kafka::faults::{Action, Fault};
use fake_kafka::state::Options;
use fake_kafka::topics::NewTopic;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::ApiKey;
use serde_json::Value;
use twinlog::state::keys::MapKeys;

const DEADLINE: Duration = Duration::from_secs(60);
const COMPACTED: (&str, &str) = ("cleanup.policy", "compact");

/// One topic of the table: what is done to the pieces of its copy, and the kinds of what must be found.
struct Planted {
    topic: &'static str,
    plant: fn(&mut Vec<Piece>),
    found: &'static [&'static str],
}

fn record(piece: &mut Piece) -> &mut Seen {
    match piece {
        Piece::Record(record) => record,
        Piece::TwoHoles => panic!("there is no record"),
    }
}

fn with_header(made: &mut [Piece]) -> &mut Seen {
    let has_some = |it: &&mut Piece| matches!(it, Piece::Record(it) if !it.headers.is_empty());
    record(made.iter_mut().find(has_some).expect("one with headers"))
}

/// The copies are of 60 records, an aborted transaction (two offsets), and 60 records.
const RECORDS: &[Planted] = &[
    Planted {
        topic: "r-good",
        plant: |_| {},
        found: &[],
    },
    Planted {
        topic: "r-missing-middle",
        plant: |made| drop(made.splice(20..22, [Piece::TwoHoles])),
        found: &["missing"],
    },
    Planted {
        topic: "r-missing-head",
        plant: |made| drop(made.splice(0..2, [Piece::TwoHoles])),
        found: &["missing"],
    },
    Planted {
        topic: "r-missing-end",
        plant: |made| made.truncate(100),
        found: &["missing"],
    },
    Planted {
        topic: "r-value",
        plant: |made| record(&mut made[30]).value = Some(b"another".to_vec()),
        found: &["changed"],
    },
    Planted {
        topic: "r-null-value",
        plant: |made| record(&mut made[30]).value = None,
        found: &["changed"],
    },
    Planted {
        topic: "r-key",
        plant: |made| record(&mut made[31]).key = Some(b"another".to_vec()),
        found: &["changed"],
    },
    Planted {
        topic: "r-header",
        plant: |made| drop(with_header(made).headers.pop()),
        found: &["changed"],
    },
    Planted {
        topic: "r-header-value",
        plant: |made| with_header(made).headers[0].1 = Some(b"another".to_vec()),
        found: &["changed"],
    },
    Planted {
        topic: "r-header-order",
        plant: |made| {
            let record = with_header(made);
            record.headers.push(("last".to_owned(), None));
            record.headers.rotate_right(1);
        },
        found: &["changed"],
    },
    Planted {
        topic: "r-key-null",
        plant: |made| record(&mut made[31]).key = None,
        found: &["changed"],
    },
    Planted {
        topic: "r-key-empty",
        plant: |made| record(&mut made[31]).key = Some(Vec::new()),
        found: &["changed"],
    },
    Planted {
        topic: "r-timestamp",
        plant: |made| *record(&mut made[33]).timestamp_ms.as_mut().expect("one") -= 1,
        found: &["changed"],
    },
    Planted {
        topic: "r-doubled",
        plant: |made| made.insert(40, made[40].clone()),
        // What is behind it stands one further: over the hole, and behind the end.
        found: &["added", "added_at_end", "changed", "missing"],
    },
    Planted {
        topic: "r-swapped",
        plant: |made| made.swap(50, 100),
        found: &["swapped"],
    },
    Planted {
        topic: "r-longer",
        plant: |made| made.push(made[3].clone()),
        found: &["added_at_end"],
    },
    Planted {
        topic: "r-aborted-is-seen",
        plant: |made| {
            let (one, other) = (made[7].clone(), made[9].clone());
            made.splice(60..61, [one, other]);
        },
        found: &["added"],
    },
];

fn write_source(source: &str, topic: &str) {
    create_topic(source, topic, 1, &[]);
    let load = Load::new(topic, 60)
        .headers(HeaderStyle::Every)
        .timestamps_from(1_700_000_000_000);
    load.produce(source);
    let mut aborted = Transactions::new(Load::new(topic, 1), 1);
    aborted.abort_percent = 100;
    aborted.produce(source);
    await_end(source, topic, 62);
    load.first(60).produce(source);
}

/// The kinds of all that was found of a topic.
fn kinds<'r>(report: &'r Value, topic: &str) -> BTreeSet<&'r str> {
    let found = report["differences"].as_array().expect("a list").iter();
    found
        .filter(|it| it["topic"] == topic)
        .filter_map(|it| it["kind"].as_str())
        .collect()
}

fn assert_verdict(report: &(i32, Value), verdict: &str) {
    let code = i32::from(verdict != "same");
    assert_eq!(
        (report.0, &report.1["verdict"]),
        (code, &verdict.into()),
        "{:#}",
        report.1
    );
}

#[test]
fn every_fault_of_a_record_is_found() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    for planted in RECORDS {
        write_source(&from, planted.topic);
    }
    // Keys that are written again, and two that are deleted at last.
    for topic in ["r-cleaned", "r-tombstone", "r-tombstone-cleaned"] {
        create_topic(&from, topic, 1, &[COMPACTED]);
        Load::new(topic, 10).produce(&from);
        Load::new(topic, 6).produce(&from);
        Load::new(topic, 2)
            .first(8)
            .tombstone_every(1)
            .produce(&from);
        Load::new(topic, 2).first(50).produce(&from);
    }
    create_topic(&from, "r-null", 1, &[]);
    Load::new("r-null", 10).tombstone_every(1).produce(&from);
    let config = flow_config("faults", "r-.*", &from, &to, "");
    let mut twinlog = Twinlog::start(&config);
    let cleaned = ["r-cleaned", "r-tombstone", "r-tombstone-cleaned", "r-null"];
    let all = RECORDS.iter().map(|it| it.topic).chain(cleaned);
    for topic in all {
        await_same(&from, &to, topic, DEADLINE);
    }
    assert!(twinlog.terminate().success());
    assert_verified(&twinlog, &["--full"]);

    for planted in RECORDS.iter().filter(|it| !it.found.is_empty()) {
        let mut made = pieces(&records(&from, planted.topic));
        (planted.plant)(&mut made);
        rebuild(&to, planted.topic, &made, &[]);
    }
    let mut made = pieces(&records(&from, "r-tombstone"));
    made.splice(16..18, [Piece::TwoHoles]);
    rebuild(&to, "r-tombstone", &made, &[COMPACTED]);
    // No value isn't an empty one, nor is no key.
    let mut made = pieces(&records(&from, "r-null"));
    record(&mut made[3]).value = Some(Vec::new());
    rebuild(&to, "r-null", &made, &[]);
    // What a cleaner may do on one side alone.
    for (topic, drops_tombstones) in [("r-cleaned", false), ("r-tombstone-cleaned", true)] {
        let cleaning = Cleaning {
            drops_tombstones,
            below: i64::MAX,
        };
        target.control(|state| state.compact(topic, 0, cleaning));
    }

    let report = verify(&twinlog, &["--full"]);
    assert_verdict(&report, "different");
    let report = report.1;
    for planted in RECORDS {
        let expected: BTreeSet<&str> = planted.found.iter().copied().collect();
        let found = kinds(&report, planted.topic);
        assert_eq!(found, expected, "{}: {report:#}", planted.topic);
    }
    // A delete that hasn't come: the keys live on in the copy.
    let expected: BTreeSet<&str> = ["missing"].into();
    assert_eq!(kinds(&report, "r-tombstone"), expected, "{report:#}");
    let expected: BTreeSet<&str> = ["changed"].into();
    assert_eq!(kinds(&report, "r-null"), expected, "{report:#}");
    for topic in ["r-cleaned", "r-tombstone-cleaned"] {
        assert!(kinds(&report, topic).is_empty(), "{topic}: {report:#}");
    }
    assert!(report["totals"]["compacted"].as_u64() > Some(0));
}

#[test]
fn what_is_lacking_too_much_or_set_otherwise_is_found_or_named() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    let one = [
        "l-good",
        "l-gone",
        "l-wide",
        "l-wide-here",
        "l-short",
        "l-head",
        "l-cut",
        "l-groups",
        "l-open",
    ];
    for topic in one {
        create_topic(&from, topic, 1, &[]);
        Load::new(topic, 100).produce(&from);
    }
    create_topic(&from, "l-set", 1, &[("retention.ms", "86400000")]);
    create_topic(&from, "l-two", 2, &[]);
    for partition in 0..2 {
        Load::new("l-two", 20).partition(partition).produce(&from);
    }
    for (group, offset) in [
        ("missing", 0),
        ("behind", 50),
        ("beyond", 50),
        ("past-the-end", 50),
        ("right", 50),
    ] {
        if offset > 0 {
            commit(&from, group, &[("l-groups", 0, offset)]);
        }
    }
    let config = flow_config("lacking", "l-.*", &from, &to, "");
    let mut twinlog = Twinlog::start(&config);
    for topic in one.into_iter().chain(["l-set", "l-two"]) {
        await_same(&from, &to, topic, DEADLINE);
    }
    for group in ["behind", "beyond", "past-the-end", "right"] {
        twinlog.await_followed(group, 50, DEADLINE);
    }
    assert!(twinlog.terminate().success());
    assert_verified(&twinlog, &["--full"]);

    delete_topic(&to, "l-gone");
    add_partitions(&from, "l-wide", 2);
    add_partitions(&to, "l-wide-here", 3);
    delete_topic(&to, "l-two");
    create_topic(&to, "l-two", 1, &[]);
    create_topic(&from, "l-new", 1, &[]);
    create_topic(&to, "l-own", 1, &[]);
    topic_configs::set(&to, "l-set", "retention.ms", "1000000");
    topic_configs::set(&to, "l-short", "retention.ms", "1000");
    delete_records(&to, "l-head", 0, 90);
    let _open = crate::fake::failover_refusals::open_transaction(&from, "l-open");
    commit(&from, "missing", &[("l-groups", 0, 5)]);
    commit(&to, "behind", &[("l-groups", 0, 40)]);
    commit(&to, "beyond", &[("l-groups", 0, 60)]);
    commit(&to, "past-the-end", &[("l-groups", 0, 5_000)]);
    commit(&to, "own", &[("l-groups", 0, 7)]);

    let report = verify(&twinlog, &["--full"]);
    assert_verdict(&report, "different");
    let report = report.1;
    for (topic, kind) in [
        ("l-gone", "partitions"),
        ("l-wide", "partitions"),
        ("l-wide-here", "partitions"),
        ("l-two", "partitions"),
        ("l-set", "config"),
        ("l-short", "config"),
        ("l-groups", "group"),
    ] {
        let found = kinds(&report, topic);
        assert!(found.contains(kind), "{topic}: {report:#}");
    }
    assert!(kinds(&report, "l-good").is_empty() && kinds(&report, "l-open").is_empty());
    let groups: BTreeSet<&str> = report["differences"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|it| it["group"].as_str())
        .collect();
    assert_eq!(
        groups,
        ["behind", "beyond", "missing", "past-the-end"].into()
    );
    assert_eq!(report["topics_not_copied"], serde_json::json!(["l-new"]));
    // What only the target has stays, and is named.
    let own = &report["topics_only_on_target"];
    assert_eq!(*own, serde_json::json!(["l-own"]));
    let own = &report["groups"]["only_on_target"];
    assert_eq!(*own, serde_json::json!({ "own": 1 }));
    assert_eq!(report["totals"]["lost_offsets"], 90, "{report:#}");
    let unseen = report["not_looked_at"].to_string();
    for what in ["transactions that were open", "passwords", "share groups"] {
        assert!(unseen.contains(what), "{unseen}");
    }

    // A source that lost its end.
    source.control(|state| state.truncate("l-cut", 0, 80));
    let report = verify(&twinlog, &["--topic", "l-cut"]);
    assert_verdict(&report, "different");
    let expected: BTreeSet<&str> = ["added_at_end"].into();
    assert_eq!(kinds(&report.1, "l-cut"), expected, "{:#}", report.1);
}

#[test]
fn where_a_copy_begins_and_a_map_that_is_lost_are_named() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    for (flow, topic, lines) in [
        ("late", "b-late", "start: latest"),
        ("mapped", "b-mapped", "offsets: mapped"),
    ] {
        create_topic(&from, topic, 1, &[]);
        Load::new(topic, 50).produce(&from);
        let mut twinlog = Twinlog::start(&flow_config(flow, topic, &from, &to, lines));
        await_position(&twinlog, topic, 0, 50);
        Load::new(topic, 30).first(50).produce(&from);
        await_position(&twinlog, topic, 0, 80);
        assert!(twinlog.terminate().success());
        let report = assert_verified(&twinlog, &["--full"]);
        if flow == "late" {
            assert_eq!(report["totals"]["before_copy_offsets"], 50, "{report:#}");
            continue;
        }
        let keys = MapKeys::new(flow, topic, 0);
        block_on(async {
            let cluster = wire_cluster(&to);
            let store = opened_state(&cluster, flow).await;
            store.remove(keys.head()).await.expect("removed");
        });
        let (_, report) = verify(&twinlog, &["--full"]);
        assert_eq!(report["totals"]["lag_offsets"], 80, "{report:#}");
        assert_eq!(report["totals"]["records"], 0, "{report:#}");
    }
}

/// What a record is held against is where the map puts it, also where a cleaner has been at work.
#[test]
fn faults_of_mapped_partitions_are_found_and_cleaners_are_not_blamed() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    let compacted = ["m-cleaned", "m-cleaned-there", "m-lost", "m-stale"];
    let plain = ["m-good", "m-doubled", "m-changed"];
    for topic in compacted.into_iter().chain(plain) {
        let configs: &[_] = if compacted.contains(&topic) {
            &[COMPACTED]
        } else {
            &[]
        };
        create_topic(&from, topic, 1, configs);
        // Behind a hole, so that no offset is the source's.
        let mut aborted = Transactions::new(Load::new(topic, 1), 1);
        aborted.abort_percent = 100;
        aborted.produce(&from);
        await_end(&from, topic, 2);
        Load::new(topic, 10).produce(&from);
        if compacted.contains(&topic) {
            Load::new(topic, 6).produce(&from);
        }
        Load::new(topic, 2).first(50).produce(&from);
    }
    let config = flow_config("mapped", "m-.*", &from, &to, "offsets: mapped");
    let mut twinlog = Twinlog::start(&config);
    for topic in compacted.into_iter().chain(plain) {
        twinlog.wait_until(DEADLINE, "it is copied", |status| {
            is_caught_up(status, topic, 0)
        });
    }
    assert!(twinlog.terminate().success());
    let report = assert_verified(&twinlog, &["--full"]);
    assert!(
        report.to_string().contains("the offset maps of 7"),
        "{report:#}"
    );

    let cleaning = || Cleaning {
        drops_tombstones: false,
        below: i64::MAX,
    };
    source.control(|state| state.compact("m-cleaned-there", 0, cleaning()));
    target.control(|state| state.compact("m-cleaned", 0, cleaning()));
    let plant = |topic: &str, plant: fn(&mut Vec<Piece>), configs: &[(&str, &str)]| {
        let mut made = pieces(&records(&to, topic));
        plant(&mut made);
        rebuild(&to, topic, &made, configs);
    };
    // The last ones of two keys.
    let lost = |made: &mut Vec<Piece>| drop(made.splice(14..16, [Piece::TwoHoles]));
    plant("m-lost", lost, &[COMPACTED]);
    let stale = |made: &mut Vec<Piece>| record(&mut made[15]).value = Some(b"stale".to_vec());
    plant("m-stale", stale, &[COMPACTED]);
    plant("m-doubled", |made| made.insert(4, made[4].clone()), &[]);
    let changed = |made: &mut Vec<Piece>| record(&mut made[4]).key = None;
    plant("m-changed", changed, &[]);

    let report = verify(&twinlog, &["--full"]);
    assert_verdict(&report, "different");
    let report = report.1;
    for (topic, found) in [
        ("m-good", &[][..]),
        ("m-cleaned", &[][..]),
        ("m-cleaned-there", &[][..]),
        ("m-lost", &["missing"][..]),
        ("m-stale", &["changed"][..]),
        ("m-doubled", &["added_at_end", "changed"][..]),
        ("m-changed", &["changed"][..]),
    ] {
        let expected: BTreeSet<&str> = found.iter().copied().collect();
        assert_eq!(kinds(&report, topic), expected, "{topic}: {report:#}");
    }
    assert!(
        report["totals"]["compacted"].as_u64() > Some(0),
        "{report:#}"
    );
}

/// What doesn't follow isn't compared, and the report says so.
#[test]
fn what_is_followed_off_is_not_compared_and_said() {
    let (source, target) = fake_authorized_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, "o-topic", 1, &[]);
    Load::new("o-topic", 10).produce(&from);
    let lines = "configs: { enabled: false }\nacls: { enabled: false }\nquotas: { enabled: false }";
    let mut twinlog = Twinlog::start(&flow_config("off", "o-.*", &from, &to, lines));
    await_same(&from, &to, "o-topic", DEADLINE);
    assert!(twinlog.terminate().success());
    topic_configs::set(&to, "o-topic", "retention.ms", "1000000");
    acls::allow(
        &from,
        "User:late",
        Operation::Read,
        Resource::topic("o-topic"),
    );
    let report = assert_verified(&twinlog, &["--full"]);
    let shown = words(&twinlog.command("verify", &["--quick"]));
    assert!(shown.contains("quotas weren't compared"), "{shown}");
    for what in ["configs", "acls", "quotas"] {
        let skipped = report[what]["skipped"].as_str().unwrap_or_default();
        assert!(skipped.contains("don't follow"), "{what}: {report:#}");
    }
}

#[test]
fn acls_quotas_users_and_what_is_held_are_compared() {
    let (source, target) = fake_authorized_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, "s-topic", 1, &[]);
    Load::new("s-topic", 10).produce(&from);
    let topic = || Resource::topic("s-topic");
    acls::allow(&from, "User:reader", Operation::Read, topic());
    acls::allow(&from, "User:writer", Operation::Write, topic());
    let alice = quotas::entity(&[("user", Some("alice"))]);
    quotas::set(&from, &alice, &[("producer_byte_rate", Some(5e6))]);
    let config = flow_config("secured", "s-.*", &from, &to, "");
    let mut twinlog = Twinlog::start(&config);
    await_same(&from, &to, "s-topic", DEADLINE);
    twinlog.wait_until(DEADLINE, "grants and quotas follow", |status| {
        let metadata = &status["flows"][0]["metadata"];
        metadata["held"].as_array().is_some_and(|it| it.len() == 1)
            && metadata["applied"]["acl"].as_u64() >= Some(1)
            && metadata["applied"]["quota"].as_u64() >= Some(1)
    });
    assert!(twinlog.terminate().success());
    let report = assert_verified(&twinlog, &[]);
    assert_eq!(report["held"]["count"], 1, "{report:#}");

    acls::remove(&to, &Acl::allow("User:reader", Operation::Read, topic()));
    acls::allow(&from, "User:late", Operation::Read, topic());
    acls::allow(&from, "User:late", Operation::Write, topic());
    // Nobody gave it on the source, and it opens the copy.
    acls::allow(&to, "User:mallory", Operation::Write, topic());
    // Nobody gave it on the source either, and it opens nothing.
    acls::allow(&to, "User:auditor", Operation::Describe, topic());
    acls::remove(&from, &Acl::allow("User:writer", Operation::Write, topic()));
    quotas::set(&to, &alice, &[("producer_byte_rate", Some(6e6))]);
    let bob = quotas::entity(&[("user", Some("bob"))]);
    quotas::set(&from, &bob, &[("consumer_byte_rate", Some(5e6))]);
    let create_erin = |cluster: &FakeCluster| {
        cluster.control(|state| state.users.add("erin", "not-a-secret"));
    };
    create_erin(&source);
    let report = verify(&twinlog, &[]);
    assert_verdict(&report, "different");
    let report = report.1;
    let counts = serde_json::json!({ "acl": 2, "held": 2, "quota": 2, "user": 2 });
    assert_eq!(report["totals"]["differences"], counts, "{report:#}");
    let said = report["differences"].to_string();
    for words in [
        "User:reader",
        "User:late",
        "isn't held: a failover wouldn't bring it",
        "is held, and the source doesn't have it",
        "6000000 here, 5000000 on the source",
        "user erin: SCRAM-SHA-512",
    ] {
        assert!(said.contains(words), "{words}: {report:#}");
    }

    let own = report["acls"]["only_on_target"].to_string();
    assert!(own.contains("User:mallory"), "{report:#}");
    assert!(!report.to_string().contains("User:auditor"), "{report:#}");
    let unseen = report["not_looked_at"].to_string();
    assert!(unseen.contains("that only the target has"), "{unseen}");
    acls::remove(&to, &Acl::allow("User:mallory", Operation::Write, topic()));

    // What `run` mends is the same again; a user is somebody's to make.
    twinlog.launch();
    create_erin(&target);
    twinlog.wait_until(DEADLINE, "nothing differs", |status| {
        let metadata = &status["flows"][0]["metadata"];
        let held = metadata["held"].to_string();
        held.contains("User:late") && !held.contains("User:writer")
    });
    let report = verify(&twinlog, &[]);
    assert_verdict(&report, "same");

    // What can't be read is named with the right.
    let refuse = || Action::Refuse(ResponseError::ClusterAuthorizationFailed);
    for key in [
        ApiKey::DescribeClientQuotas,
        ApiKey::DescribeUserScramCredentials,
        ApiKey::DescribeAcls,
    ] {
        source.fault(Fault::on(key), refuse());
    }
    let report = verify(&twinlog, &[]);
    assert_verdict(&report, "incomplete");
    let report = report.1;
    for (what, right) in [
        ("quotas", "DESCRIBE_CONFIGS"),
        ("users", "DESCRIBE"),
        ("acls", "DESCRIBE"),
    ] {
        let said = report[what]["not_compared"].to_string();
        assert!(said.contains(right), "{what}: {report:#}");
    }
    let held = report["held"]["not_compared"].to_string();
    assert!(held.contains("1 ACLs wait"), "{report:#}");
}

#[test]
fn a_copy_with_too_few_replicas_is_found() {
    let of_three = |name: &str| {
        FakeCluster::start(Options {
            brokers: 3,
            ..options(name)
        })
    };
    let (source, target) = (of_three("replicas-source"), of_three("replicas-target"));
    let (from, to) = (source.bootstrap(), target.bootstrap());
    let new = NewTopic {
        assignments: [(0, vec![1, 2, 3])].into(),
        ..NewTopic::default()
    };
    source
        .control(|state| state.create_topic("p-three", &new))
        .expect("made");
    Load::new("p-three", 10).produce(&from);
    let config = |lines: &str| flow_config("replicas", "p-.*", &from, &to, lines);
    let mut twinlog = Twinlog::start(&config("replication_factor: 1"));
    await_same(&from, &to, "p-three", DEADLINE);
    assert!(twinlog.terminate().success());
    assert_verified(&twinlog, &[]);
    let wanting_more = Twinlog::prepare(&config(""));
    let report = verify(&wanting_more, &[]);
    assert_verdict(&report, "different");
    let found = &report.1["differences"][0];
    assert_eq!(found["kind"], "replicas", "{found:#}");
    let detail = "p-three has 1 replica(s), it should have 3";
    assert_eq!(found["detail"], detail);
}

/// Its log may be as long as the old one's: only its id tells.
#[test]
fn a_topic_that_was_made_anew_is_found_without_reading_it() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    let topics = ["n-good", "n-source", "n-target"];
    for topic in topics {
        create_topic(&from, topic, 1, &[]);
        Load::new(topic, 20).produce(&from);
    }
    let mut twinlog = Twinlog::start(&flow_config("anew", "n-.*", &from, &to, ""));
    for topic in topics {
        await_same(&from, &to, topic, DEADLINE);
    }
    assert!(twinlog.terminate().success());
    assert_verified(&twinlog, &["--quick"]);
    for (cluster, topic) in [(&from, "n-source"), (&to, "n-target")] {
        delete_topic(cluster, topic);
        create_topic(cluster, topic, 1, &[]);
        Load::new(topic, 20).first(500).produce(cluster);
    }
    let report = verify(&twinlog, &["--quick"]);
    assert_verdict(&report, "different");
    let report = report.1;
    for topic in ["n-source", "n-target"] {
        let expected: BTreeSet<&str> = ["made_anew"].into();
        assert_eq!(kinds(&report, topic), expected, "{topic}: {report:#}");
    }
    assert!(kinds(&report, "n-good").is_empty(), "{report:#}");
    // Where records are compared, they tell.
    let report = verify(&twinlog, &["--full"]);
    let expected: BTreeSet<&str> = ["changed", "made_anew"].into();
    assert_eq!(kinds(&report.1, "n-source"), expected, "{:#}", report.1);
    let expected: BTreeSet<&str> = ["changed"].into();
    assert_eq!(kinds(&report.1, "n-target"), expected, "{:#}", report.1);
}

/// The map puts each record one further than it is.
#[test]
fn a_map_with_an_error_of_one_is_found() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, "e-mapped", 1, &[]);
    Load::new("e-mapped", 50).produce(&from);
    let lines = "offsets: mapped";
    let mut twinlog = Twinlog::start(&flow_config("error", "e-mapped", &from, &to, lines));
    twinlog.wait_until(DEADLINE, "it is copied", |status| {
        is_caught_up(status, "e-mapped", 0)
    });
    assert!(twinlog.terminate().success());
    assert_verified(&twinlog, &["--full"]);
    // One record at its head is there twice.
    let mut made = pieces(&records(&to, "e-mapped"));
    made.insert(0, made[0].clone());
    rebuild(&to, "e-mapped", &made, &[]);
    let report = verify(&twinlog, &["--full"]);
    assert_verdict(&report, "different");
    let found = kinds(&report.1, "e-mapped");
    assert!(found.contains("changed"), "{:#}", report.1);
    let report = verify(&twinlog, &["--quick"]);
    assert_verdict(&report, "different");
    assert!(kinds(&report.1, "e-mapped").contains("added_at_end"));
}

#[test]
fn a_copy_that_notes_its_own_times_is_found() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, "t-times", 1, &[]);
    Load::new("t-times", 10).produce(&from);
    let mut twinlog = Twinlog::start(&flow_config("times", "t-times", &from, &to, ""));
    await_same(&from, &to, "t-times", DEADLINE);
    assert!(twinlog.terminate().success());
    assert_verified(&twinlog, &[]);
    topic_configs::set(&to, "t-times", "message.timestamp.type", "LogAppendTime");
    let report = verify(&twinlog, &[]);
    assert_verdict(&report, "different");
    let expected: BTreeSet<&str> = ["config"].into();
    assert_eq!(kinds(&report.1, "t-times"), expected, "{:#}", report.1);
}

/// Where the source's log is far from what the copy may keep, size has taken nothing: somebody else did.
#[test]
fn a_head_that_somebody_deleted_is_not_laid_to_the_retention_by_size() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    let (far, near) = ("1000000000", "2000");
    for (topic, bytes) in [("s-far", far), ("s-near", near), ("s-whole", far)] {
        create_topic(&from, topic, 1, &[("retention.bytes", bytes)]);
        Load::new(topic, 100).produce(&from);
    }
    let mut twinlog = Twinlog::start(&flow_config("sized", "s-.*", &from, &to, ""));
    for topic in ["s-far", "s-near", "s-whole"] {
        await_same(&from, &to, topic, DEADLINE);
    }
    assert!(twinlog.terminate().success());
    assert_verified(&twinlog, &["--full"]);
    delete_records(&to, "s-near", 0, 90);
    // By size it may have been.
    assert_verified(&twinlog, &["--full"]);
    delete_records(&to, "s-far", 0, 90);
    let (code, report) = verify(&twinlog, &["--full"]);
    assert_eq!(
        (code, &report["verdict"]),
        (1, &"incomplete".into()),
        "{report:#}"
    );
    let of_far = |report: &Value| {
        let partitions = report["partitions"].as_array().expect("a list").iter();
        let mut of_far = partitions.filter(|it| it["topic"] == "s-far");
        of_far.next().expect("it is there").clone()
    };
    assert_eq!(of_far(&report)["lost_offsets"], 90, "{report:#}");
    assert_eq!(report["totals"]["lost_offsets"], 90, "{report:#}");

    // Who may not ask for sizes knows nothing of it.
    let refused = ResponseError::ClusterAuthorizationFailed;
    source.fault(Fault::on(ApiKey::DescribeLogDirs), Action::Refuse(refused));
    let (code, report) = verify(&twinlog, &["--full"]);
    assert_eq!(
        (code, &report["verdict"]),
        (1, &"incomplete".into()),
        "{report:#}"
    );
    let failure = of_far(&report)["failure"].to_string();
    assert!(failure.contains("retention.bytes"), "{report:#}");
}
