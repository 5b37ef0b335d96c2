//! The way back where something is out of the ordinary: other offsets, other names, some topics
//! only, topics that changed on the standby, two operators, and what is refused.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::admin::{partition_count, topic_names, watermarks};
use crate::support::failover::{
    answer, assert_refused, await_copying, await_failed_over, failback, failover,
    failover_exiting_at, try_write, words,
};
use crate::support::flow::flow_config;
use crate::support::groups::{commit, committed, next_values};
use crate::support::mapped::{assert_same_sequence, translate};
use crate::support::pool::fenceable_both;
use crate::support::topic_configs;
use crate::support::verified::{assert_verified, verify};
use crate::support::version::KafkaVersion;
use crate::support::{
    Isolation, Load, Seen, Transactions, Twinlog, add_partitions, await_caught_up, create_topic,
    delete_records, delete_topic, end_offset, eventually, read_all,
};

const DEADLINE: Duration = Duration::from_secs(60);

/// A flow of the shared pair that copies the topics of this expression.
struct Case {
    source: String,
    target: String,
    twinlog: Twinlog,
}

impl Case {
    /// `prepare` makes the topics on the source.
    fn start(name: &str, topics: &str, lines: &str, prepare: impl FnOnce(&str)) -> Self {
        let (source, target) = fenceable_both(KafkaVersion::V4_3);
        let (source, target) = (source.bootstrap(), target.bootstrap());
        prepare(&source);
        let twinlog = Twinlog::start(&flow_config(name, topics, &source, &target, lines));
        await_caught_up(&twinlog, DEADLINE);
        Self {
            source,
            target,
            twinlog,
        }
    }

    fn there(&self) {
        let report = answer(
            &failover(self.twinlog.config_file(), &["--yes", "--json"]),
            0,
        );
        assert_eq!(report["lost"]["is_proven"], true, "{report:#}");
        await_failed_over(&self.twinlog);
    }

    fn back(&self) -> serde_json::Value {
        let output = failback(self.twinlog.config_file(), &["--yes", "--json"]);
        let report = answer(&output, 0);
        assert_eq!(report["state"], "done", "{report:#}");
        assert_eq!(report["lost"]["is_proven"], true, "{report:#}");
        await_copying(&self.twinlog);
        report
    }

    /// What clients read on either side, once both have the same number of it.
    fn committed_records(&self, here: &str, there: &str) -> (Vec<Seen>, Vec<Seen>) {
        eventually(DEADLINE, &format!("{here} is copied to {there}"), || {
            let read = |cluster: &str, topic| read_all(cluster, topic, Isolation::ReadCommitted);
            let both = (read(&self.source, here), read(&self.target, there));
            match both.0.len() == both.1.len() {
                true => Ok(both),
                false => Err((both.0.len(), both.1.len())),
            }
        })
    }
}

/// Other offsets on both sides, transactions that are aborted, more than once there and back.
#[test]
fn mapped_topics_go_there_and_back_by_exact_maps() {
    const TOPIC: &str = "mapped";
    let mut case = Case::start("mapped", TOPIC, "offsets: mapped", |source| {
        create_topic(source, TOPIC, 2, &[]);
        Transactions::new(Load::new(TOPIC, 5), 20).produce(source);
    });
    let mut first = 1_000;
    for round in 0..2 {
        Transactions::new(Load::new(TOPIC, 5).first(first), 10).produce(&case.source);
        let at = |cluster: &str, behind: i64| -> Vec<(&str, i32, i64)> {
            let end = |partition| end_offset(cluster, TOPIC, partition) - behind;
            (0..2).map(|it| (TOPIC, it, end(it))).collect()
        };
        await_caught_up(&case.twinlog, DEADLINE);
        commit(&case.source, "early", &at(&case.source, 20));
        case.there();
        Transactions::new(Load::new(TOPIC, 5).first(first + 100), 10).produce(&case.target);
        Load::new(TOPIC, 20)
            .first(first + 200)
            .produce(&case.target);
        commit(&case.target, "late", &at(&case.target, 7));
        case.back();
        let (here, there) = case.committed_records(TOPIC, TOPIC);
        assert_same_sequence(&here, &there);
        for group in ["early", "late"] {
            assert_eq!(
                next_values(&case.source, group, TOPIC, 2),
                next_values(&case.target, group, TOPIC, 2),
                "{round}: {group}"
            );
        }
        Load::new(TOPIC, 20)
            .first(first + 300)
            .produce(&case.source);
        let (here, there) = case.committed_records(TOPIC, TOPIC);
        assert_same_sequence(&here, &there);
        assert!(
            here.iter()
                .zip(&there)
                .any(|(it, copy)| it.offset != copy.offset),
            "the offsets are the same: nothing was tested"
        );
        // The map is stored to its end by an orderly one.
        assert!(case.twinlog.terminate().success());
        let every = (here.len() / 12).max(1);
        let last = here.len() - 1;
        let samples = here.iter().zip(&there).enumerate();
        for (_, (it, copy)) in samples.filter(|(at, _)| at % every == 0 || *at == last) {
            let answer = translate(&case.twinlog, TOPIC, it.partition, it.offset, &[]);
            assert_eq!(answer["offset"], copy.offset, "{round}: {answer:#}");
            let reverse = ["--reverse"];
            let answer = translate(&case.twinlog, TOPIC, it.partition, copy.offset, &reverse);
            assert_eq!(answer["offset"], it.offset, "{round}: {answer:#}");
        }
        case.twinlog.launch();
        first += 1_000;
    }
    await_caught_up(&case.twinlog, DEADLINE);
    assert_verified(&case.twinlog, &["--full"]);
}

/// The names differ on both sides, and so do transactional producers go on on both.
#[test]
fn renamed_topics_and_transactions_go_there_and_back() {
    const HERE: &str = "named";
    const THERE: &str = "primary.named";
    let case = Case::start("named", HERE, "rename: \"{source}.{topic}\"", |source| {
        create_topic(source, HERE, 2, &[]);
        Transactions::new(Load::new(HERE, 5), 20).produce(source);
    });
    for round in 0..2 {
        let first = 1_000 * (round + 1);
        Transactions::new(Load::new(HERE, 5).first(first), 10).produce(&case.source);
        case.there();
        let there = Load::new(THERE, 5).first(first + 500);
        Transactions::new(there, 10).produce(&case.target);
        let positions: Vec<(&str, i32, i64)> = (0..2)
            .map(|it| (THERE, it, end_offset(&case.target, THERE, it) - 4))
            .collect();
        commit(&case.target, "renamed", &positions);
        case.back();
        let (here, there) = case.committed_records(HERE, THERE);
        // At the same offsets: holes are holes, aborted records too.
        assert_eq!(here, there, "{round}");
        assert_eq!(
            committed(&case.source, "renamed", HERE, 2),
            committed(&case.target, "renamed", THERE, 2),
            "{round}"
        );
        Transactions::new(Load::new(HERE, 5).first(first + 800), 10).produce(&case.source);
        let (here, there) = case.committed_records(HERE, THERE);
        assert_eq!(here, there, "{round}");
    }
    for (cluster, foreign) in [(&case.source, THERE), (&case.target, HERE)] {
        let names = topic_names(cluster);
        assert!(!names.iter().any(|name| name == foreign), "{names:?}");
    }
    await_caught_up(&case.twinlog, DEADLINE);
    assert_verified(&case.twinlog, &["--full"]);
}

/// What moved alone goes back alone; the other topic is copied all the time.
#[test]
fn one_topic_goes_back_alone() {
    let case = Case::start("part", "part-.*", "", |source| {
        for topic in ["part-moves", "part-stays"] {
            create_topic(source, topic, 2, &[]);
            Load::new(topic, 100).produce(source);
        }
    });
    let config = case.twinlog.config_file();
    for round in 0..2 {
        let first = 1_000 * (round + 1);
        let arguments = ["--topic", "part-moves", "--yes", "--json"];
        answer(&failover(config, &arguments), 0);
        assert_refused(&case.source, "part-moves");
        Load::new("part-moves", 50)
            .first(first)
            .produce(&case.target);
        Load::new("part-stays", 50)
            .first(first)
            .produce(&case.source);
        let stays = case.committed_records("part-stays", "part-stays");
        assert_eq!(stays.0, stays.1, "{round}");
        case.back();
        Load::new("part-moves", 50)
            .first(first + 500)
            .produce(&case.source);
        Load::new("part-stays", 50)
            .first(first + 500)
            .produce(&case.source);
        for topic in ["part-moves", "part-stays"] {
            let (here, there) = case.committed_records(topic, topic);
            assert_eq!(here, there, "{round}: {topic}");
            assert_eq!(here.len() as u64, 100 + 100 * (round + 1), "{topic}");
        }
    }
}

/// Topics are made, grown and configured on the standby, and lost on the old primary: all of it is
/// on both sides afterwards, and followed again.
#[test]
fn what_was_changed_on_the_standby_comes_back() {
    let case = Case::start("changed", "changed-.*", "", |source| {
        for topic in [
            "changed-grows",
            "changed-configs",
            "changed-lost",
            "changed-again",
        ] {
            create_topic(source, topic, 2, &[("retention.ms", "900000000")]);
            Load::new(topic, 40).produce(source);
        }
    });
    case.there();
    add_partitions(&case.target, "changed-grows", 4);
    create_topic(
        &case.target,
        "changed-new",
        3,
        &[("retention.ms", "800000000")],
    );
    topic_configs::set(&case.target, "changed-configs", "retention.ms", "700000000");
    delete_topic(&case.source, "changed-lost");
    delete_topic(&case.source, "changed-again");
    create_topic(&case.source, "changed-again", 2, &[]);
    let all = [
        "changed-grows",
        "changed-new",
        "changed-configs",
        "changed-lost",
        "changed-again",
    ];
    for topic in all {
        Load::new(topic, 40).first(100).produce(&case.target);
    }
    case.back();
    for topic in all {
        let (here, there) = case.committed_records(topic, topic);
        assert_eq!(here, there, "{topic}");
        assert!(here.len() >= 40, "{topic}");
    }
    assert_eq!(partition_count(&case.source, "changed-grows"), 4);
    assert_eq!(partition_count(&case.source, "changed-new"), 3);
    let retention = |cluster: &str, topic: &str| {
        let own = topic_configs::own(cluster, topic);
        own.get("retention.ms").cloned().unwrap_or_default()
    };
    assert_eq!(retention(&case.source, "changed-new"), "800000000");
    assert_eq!(retention(&case.source, "changed-configs"), "700000000");
    // All of them are the old primary's again.
    for topic in all {
        Load::new(topic, 40).first(200).produce(&case.source);
        let (here, there) = case.committed_records(topic, topic);
        assert_eq!(here, there, "{topic}");
    }
    topic_configs::set(&case.source, "changed-configs", "retention.ms", "600000000");
    eventually(DEADLINE, "configs are followed again", || {
        match retention(&case.target, "changed-configs") {
            found if found == "600000000" => Ok(()),
            found => Err(found),
        }
    });
    // And once more, with what is new.
    case.there();
    Load::new("changed-new", 40)
        .first(300)
        .produce(&case.target);
    case.back();
    let (here, there) = case.committed_records("changed-new", "changed-new");
    assert_eq!(here, there);
    await_caught_up(&case.twinlog, DEADLINE);
    assert_verified(&case.twinlog, &["--full"]);
}

/// A topic that is gone from the standby is nothing that can be copied back: it is said so, until
/// somebody decides.
#[test]
fn topics_that_are_gone_from_the_standby_are_refused_until_they_are_gone_from_both() {
    let case = Case::start("gone", "gone-.*", "", |source| {
        for topic in ["gone-stays", "gone-deleted", "gone-remade"] {
            create_topic(source, topic, 1, &[]);
            Load::new(topic, 40).produce(source);
        }
    });
    case.there();
    delete_topic(&case.target, "gone-deleted");
    delete_topic(&case.target, "gone-remade");
    create_topic(&case.target, "gone-remade", 1, &[]);
    for topic in ["gone-stays", "gone-remade"] {
        Load::new(topic, 20).first(100).produce(&case.target);
    }
    let refused = failback(case.twinlog.config_file(), &["--yes"]);
    assert_eq!(refused.status.code(), Some(1), "{}", words(&refused));
    for topic in ["gone-deleted", "gone-remade"] {
        assert!(words(&refused).contains(topic), "{}", words(&refused));
    }
    // Nothing has begun: the standby takes writes.
    assert_eq!(try_write(&case.target, "gone-stays"), Ok(()));
    // As it was told.
    delete_topic(&case.source, "gone-deleted");
    delete_topic(&case.source, "gone-remade");
    case.back();
    assert_eq!(partition_count(&case.source, "gone-deleted"), 0);
    assert_eq!(partition_count(&case.target, "gone-deleted"), 0);
    for topic in ["gone-stays", "gone-remade"] {
        Load::new(topic, 20).first(200).produce(&case.source);
        let (here, there) = case.committed_records(topic, topic);
        assert_eq!(here, there, "{topic}");
    }
}

/// Retention on the standby took records that the old primary never had, and the last that both
/// had.
#[test]
fn what_retention_took_on_the_standby_is_no_hindrance() {
    const TOPIC: &str = "trimmed";
    let case = Case::start("trimmed", TOPIC, "", |source| {
        create_topic(source, TOPIC, 2, &[]);
        Load::new(TOPIC, 80).produce(source);
    });
    case.there();
    Load::new(TOPIC, 80).first(100).produce(&case.target);
    // Of one beyond the fork, of the other before it.
    delete_records(&case.target, TOPIC, 0, 60);
    delete_records(&case.target, TOPIC, 1, 20);
    commit(&case.target, "trimmed", &[(TOPIC, 0, 65), (TOPIC, 1, 50)]);
    let config = case.twinlog.config_file();
    let report = answer(&failback(config, &["--yes", "--json"]), 0);
    assert_eq!(report["state"], "done", "{report:#}");
    let start = |cluster: &str, partition| watermarks(cluster, TOPIC, partition).0;
    assert_eq!(start(&case.target, 0), 60);
    let after = |cluster: &str| -> Vec<Seen> {
        let mut all = read_all(cluster, TOPIC, Isolation::ReadCommitted);
        all.retain(|it| it.offset >= [60, 20][it.partition as usize]);
        all
    };
    assert_eq!(after(&case.source), after(&case.target));
    assert_eq!(
        committed(&case.source, "trimmed", TOPIC, 2),
        [Some(65), Some(50)]
    );
    await_copying(&case.twinlog);
    Load::new(TOPIC, 20).first(300).produce(&case.source);
    eventually(DEADLINE, "it follows again", || {
        match (after(&case.source), after(&case.target)) {
            (here, there) if here == there => Ok(()),
            (here, there) => Err((here.len(), there.len())),
        }
    });
}

/// Two begin at the same moment: one goes through, the other is told whose plan is running.
#[test]
fn of_two_operators_one_wins() {
    const TOPIC: &str = "raced";
    let case = Case::start("raced", TOPIC, "", |source| {
        create_topic(source, TOPIC, 2, &[]);
        Load::new(TOPIC, 40).produce(source);
    });
    case.there();
    Load::new(TOPIC, 40).first(100).produce(&case.target);
    let begin = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_twinlog"));
        command
            .arg("failback")
            .arg("-c")
            .arg(case.twinlog.config_file());
        command.args(["--yes", "--json"]);
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the built binary runs")
    };
    let both = [begin(), begin()];
    let both = both.map(|child| child.wait_with_output().expect("it ends"));
    let codes = both.each_ref().map(|output| output.status.code());
    let told = both.each_ref().map(words).join("\n");
    assert!(
        codes.contains(&Some(0)) && codes.contains(&Some(1)),
        "{told}"
    );
    let is_named = ["is being carried out by", "has gone on with a cut-over"]
        .iter()
        .any(|it| told.contains(it));
    assert!(is_named, "{told}");
    await_copying(&case.twinlog);
    Load::new(TOPIC, 40).first(200).produce(&case.source);
    let (here, there) = case.committed_records(TOPIC, TOPIC);
    assert_eq!(here, there);
    assert_eq!(here.len(), 120);
}

/// What can't go back isn't touched.
#[test]
fn a_failback_without_a_finished_failover_is_refused() {
    const TOPIC: &str = "refused";
    let case = Case::start("refused", TOPIC, "", |source| {
        create_topic(source, TOPIC, 1, &[]);
        Load::new(TOPIC, 10).produce(source);
    });
    let config = case.twinlog.config_file();
    let refused = |what: &str, arguments: &[&str]| {
        let output = failback(config, arguments);
        assert_eq!(output.status.code(), Some(1), "{}", words(&output));
        assert!(words(&output).contains(what), "{}", words(&output));
    };
    refused("nothing to go back from", &["--yes"]);
    refused("no failback to undo", &["--abort", "--yes"]);
    for at in ["fence:worked", "stop_copying:worked", "promote:worked"] {
        let crashed = failover_exiting_at(config, &["--yes"], Some(at));
        assert_eq!(crashed.status.code(), Some(137), "{}", words(&crashed));
        refused("isn't finished", &["--yes"]);
        refused("isn't finished", &["--start", "--yes"]);
    }
    case.there();
    case.back();
    refused("nothing to go back from", &["--yes"]);
}

/// `--start` alone lets the copy back be kept up; the rest is done later, or not at all.
#[test]
fn the_copy_back_may_begin_long_before() {
    const TOPIC: &str = "early";
    let case = Case::start("early", TOPIC, "", |source| {
        create_topic(source, TOPIC, 2, &[]);
        Load::new(TOPIC, 40).produce(source);
    });
    case.there();
    let config = case.twinlog.config_file();
    for round in 0..2 {
        Load::new(TOPIC, 40)
            .first(100 + 100 * round)
            .produce(&case.target);
        let report = answer(&failback(config, &["--start", "--yes", "--json"]), 0);
        assert_eq!(report["state"], "done", "{report:#}");
        // Copied at once, and kept up.
        for first in [140, 150] {
            Load::new(TOPIC, 10)
                .first(first + 100 * round)
                .produce(&case.target);
            let (here, there) = case.committed_records(TOPIC, TOPIC);
            assert_eq!(here, there);
        }
        if round == 0 {
            let report = answer(&failback(config, &["--abort", "--yes", "--json"]), 0);
            assert_eq!(report["state"], "aborted", "{report:#}");
            let before = end_offset(&case.source, TOPIC, 0);
            Load::new(TOPIC, 10).first(190).produce(&case.target);
            assert_eq!(end_offset(&case.source, TOPIC, 0), before, "still copied");
        }
    }
    case.back();
    Load::new(TOPIC, 40).first(400).produce(&case.source);
    let (here, there) = case.committed_records(TOPIC, TOPIC);
    assert_eq!(here, there);
    assert_eq!(here.len(), 40 + 2 * 60 + 10 + 40);
}

/// One of two partitions turned mapped at a hole; it alone goes there and back by a map, twice.
#[test]
fn a_partition_that_turned_goes_there_and_back_beside_identical_ones() {
    const TOPIC: &str = "turned";
    let lines = "offsets: { mode: auto, fill_limit: 1000 }";
    let case = Case::start("turned", TOPIC, lines, |source| {
        create_topic(source, TOPIC, 2, &[]);
        Load::new(TOPIC, 40).produce(source);
        let aborted = Load::new(TOPIC, 2_000).first(50_000).partition(0);
        let mut aborted = Transactions::new(aborted, 1);
        aborted.abort_percent = 100;
        aborted.produce(source);
        Load::new(TOPIC, 40).first(100).produce(source);
    });
    let mut first = 1_000;
    for round in 0..2 {
        let at = |cluster: &str, behind: i64| -> Vec<(&str, i32, i64)> {
            let end = |partition| end_offset(cluster, TOPIC, partition) - behind;
            (0..2).map(|it| (TOPIC, it, end(it))).collect()
        };
        commit(&case.source, "early", &at(&case.source, 5));
        await_caught_up(&case.twinlog, DEADLINE);
        case.there();
        Load::new(TOPIC, 30).first(first).produce(&case.target);
        commit(&case.target, "late", &at(&case.target, 7));
        let report = case.back();
        assert!(report.to_string().contains("by a map"), "{report:#}");
        let (here, there) = case.committed_records(TOPIC, TOPIC);
        assert_same_sequence(&here, &there);
        for group in ["early", "late"] {
            assert_eq!(
                next_values(&case.source, group, TOPIC, 2),
                next_values(&case.target, group, TOPIC, 2),
                "{round}: {group}"
            );
        }
        Load::new(TOPIC, 20)
            .first(first + 300)
            .produce(&case.source);
        let (here, there) = case.committed_records(TOPIC, TOPIC);
        assert_same_sequence(&here, &there);
        for (it, copy) in here.iter().zip(&there) {
            let is_behind = it.partition == 0 && it.offset > 2_000;
            assert_eq!(
                it.offset != copy.offset,
                is_behind,
                "{round}: {it:?} {copy:?}"
            );
        }
        first += 1_000;
    }
    await_caught_up(&case.twinlog, DEADLINE);
    assert_verified(&case.twinlog, &["--full"]);
}

/// The way back begins so late that the new primary's retention has taken what the old one lacks: what
/// isn't worth to be filled there is passed by a map, in one of two partitions, and the plan says so.
#[test]
fn a_late_failback_passes_what_retention_took_by_a_map() {
    const TOPIC: &str = "late";
    let lines = "offsets: { mode: auto, burn_limit: 100, fill_limit: 1000 }";
    let case = Case::start("late", TOPIC, lines, |source| {
        create_topic(source, TOPIC, 2, &[]);
        Load::new(TOPIC, 100).produce(source);
    });
    case.there();
    Load::new(TOPIC, 3_000)
        .first(1_000)
        .partition(0)
        .produce(&case.target);
    Load::new(TOPIC, 50)
        .first(5_000)
        .partition(1)
        .produce(&case.target);
    delete_records(&case.target, TOPIC, 0, 2_500);
    let planned = words(&failback(case.twinlog.config_file(), &["--dry-run"]));
    assert!(planned.contains("offsets.fill_limit 1000"), "{planned}");
    let report = case.back();
    assert!(report.to_string().contains("by a map"), "{report:#}");
    Load::new(TOPIC, 20).first(9_000).produce(&case.source);
    let of = |cluster: &str, partition: i32| {
        let mut records = read_all(cluster, TOPIC, Isolation::ReadCommitted);
        records.retain(|record| record.partition == partition);
        records
    };
    // The status may be that of before they came.
    eventually(DEADLINE, "the last records are copied", || {
        let last =
            |cluster: &str| [0, 1].map(|it| of(cluster, it).last().map(|it| it.value.clone()));
        match (last(&case.source), last(&case.target)) {
            (here, there) if here == there => Ok(()),
            different => Err(different),
        }
    });
    let (here, there) = (of(&case.source, 1), of(&case.target, 1));
    assert!(
        here.iter()
            .zip(&there)
            .all(|(it, copy)| it.offset == copy.offset)
    );
    assert_same_sequence(&here, &there);
    // Of the other one the old primary has besides what went before.
    let (mut here, there) = (of(&case.source, 0), of(&case.target, 0));
    let here = here.split_off(here.len() - there.len());
    assert_same_sequence(&here, &there);
    // What was deleted on the standby alone is told, and nothing else is wrong.
    let (code, report) = verify(&case.twinlog, &["--full"]);
    assert_eq!(
        (code, &report["verdict"], &report["differences"]),
        (1, &"incomplete".into(), &serde_json::json!([])),
        "{report:#}"
    );
    let lost = |at: usize| report["partitions"][at]["lost_offsets"].as_i64();
    assert_eq!((lost(0), lost(1)), (Some(50), Some(0)), "{report:#}");
}
