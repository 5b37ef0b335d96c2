//! A running flow's readiness, from a registry to the words.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use proptest::prelude::*;

use super::*;
use crate::cutover::loss as of_records;
use crate::state::EndsRecord;
use crate::telemetry::groups::{
    DelayHistogram, FlowGroups, GroupExplained, GroupReporter, GroupStatus, Watching,
};
use crate::telemetry::progress::{
    FlowProgress, FlowState, PartitionProgress, PartitionState, Registry, Teller, TopicNote, now_ms,
};
use crate::telemetry::role::{Orphans, RoleStatus};
use crate::telemetry::status::StatusReport;

/// One partition as a test wants it.
#[derive(Clone, Copy, Debug)]
struct Log {
    copied: i64,
    end: i64,
    per_second: u64,
}

/// A flow that copies; the source was seen at `seen_ms`.
fn flow(registry: &Registry, logs: &[Log], seen_ms: i64) -> Arc<FlowProgress> {
    let flow = registry.flow("dr", "primary", "standby");
    flow.set_state(FlowState::Running);
    flow.discovered.store(true, Ordering::Relaxed);
    flow.note_source_seen(seen_ms);
    let teller = Arc::new(Teller::default());
    teller.answered(seen_ms);
    for (number, log) in (0..).zip(logs) {
        let partition = partition(&flow, "orders", number);
        partition.set_state(PartitionState::Copying);
        partition.listen(&teller);
        set(&partition, log);
    }
    flow
}

fn partition(flow: &FlowProgress, topic: &str, number: i32) -> Arc<PartitionProgress> {
    let name: Arc<str> = Arc::from(topic);
    let note = TopicNote {
        target_topic: topic.to_owned(),
        offsets: "identical",
        reason: String::new(),
    };
    flow.topics.insert(name.clone(), note);
    flow.partition(&name, number)
}

#[test]
fn a_topic_without_a_copy_stands_in_the_way_as_in_the_plan() {
    let registry = Registry::default();
    let flow = flow(&registry, &[QUIET], 1_000_000);
    assert_eq!(readiness(&registry, 1_000_500).can_fail_over, Verdict::Yes);
    flow.partition(&Arc::from("new"), 0);
    let now = readiness(&registry, 1_000_500);
    assert_eq!(now.can_fail_over, Verdict::No, "{now:?}");
    let why = check(&now, "without_copy").expect("it is named");
    assert_eq!(why.weight, Weight::LosesData);
    assert!(why.reason.contains("new"), "{why:?}");
    gone(&flow);
    assert!(check(&readiness(&registry, 1_000_500), "without_copy").is_none());
}

fn set(partition: &PartitionProgress, log: &Log) {
    let end = Ordering::Relaxed;
    partition.first_position.store(0, end);
    partition.source_position.store(log.copied, end);
    partition.source_high_watermark.store(log.end, end);
    partition.source_stable_end.store(log.end, end);
    let per_second = i64::try_from(log.per_second).expect("small");
    partition.source_per_second.store(per_second, end);
    partition.records.store(10, end);
    partition.bytes.store(1_000, end);
    if log.copied == log.end {
        partition.caught_up_at_ms.store(now_ms(), end);
    }
}

fn readiness(registry: &Registry, now_ms: i64) -> Readiness {
    let mut report = StatusReport::build(registry, now_ms);
    report.flows.remove(0).failover.expect("it is computed")
}

fn check<'a>(readiness: &'a Readiness, subject: &str) -> Option<&'a Check> {
    let checks = readiness.checks.iter();
    checks.into_iter().find(|check| check.subject == subject)
}

const QUIET: Log = Log {
    copied: 100,
    end: 100,
    per_second: 0,
};

fn gone(flow: &FlowProgress) {
    flow.set_state(FlowState::Waiting {
        reason: "source_unreachable",
        detail: "connection refused".to_owned(),
    });
}

#[test]
fn a_quiet_flow_is_ready_however_long_nothing_came() {
    let registry = Registry::default();
    let now = now_ms();
    let flow = flow(&registry, &[QUIET; 3], now - 3_600_000);
    // It is asked where its logs end, and says the same again.
    flow.note_source_seen(now);
    let ready = readiness(&registry, now);
    assert_eq!(ready.can_fail_over, Verdict::Yes, "{ready:#?}");
    assert_eq!(
        (ready.kind.as_str(), ready.primary.as_str()),
        ("planned", "source")
    );
    assert_eq!((ready.loss.records, ready.loss.oldest_seconds), (0, None));
    assert_eq!(ready.in_the_way().count(), 0);
}

#[test]
fn a_lag_is_what_would_be_lost_and_is_in_nobodys_way_while_the_source_answers() {
    let registry = Registry::default();
    let now = now_ms();
    let behind = Log { end: 140, ..QUIET };
    let flow = flow(&registry, &[QUIET, behind], now);
    partition(&flow, "orders", 1)
        .caught_up_at_ms
        .store(now - 7_000, Ordering::Relaxed);
    let ready = readiness(&registry, now);
    assert_eq!(ready.can_fail_over, Verdict::Yes, "{ready:#?}");
    assert_eq!((ready.loss.records, ready.loss.bytes), (40, 4_000));
    assert_eq!(ready.loss.oldest_seconds, Some(7));
    assert_eq!(ready.loss.topics["orders"].oldest_seconds, Some(7));

    gone(&flow);
    let without = readiness(&registry, now);
    assert_eq!(without.can_fail_over, Verdict::WithLoss, "{without:#?}");
    assert_eq!(without.kind, "unplanned");
    assert_eq!(
        without.checks[0].subject, "loss",
        "the heaviest comes first"
    );
    assert_eq!(
        check(&without, "source").map(|it| it.weight),
        Some(Weight::Warning)
    );
}

/// A host that is frozen refuses nobody, and no planned failover can be done.
#[test]
fn a_source_that_says_nothing_any_more_is_none_to_fail_over_from_in_order() {
    let registry = Registry::default();
    let now = now_ms();
    let _flow = flow(&registry, &[QUIET], now - 30_000);
    let ready = readiness(&registry, now);
    assert_eq!(ready.kind, "unplanned", "{ready:#?}");
    let source = check(&ready, "source").expect("it is looked at");
    assert!(source.reason.contains("no answer for 30 s"), "{source:?}");
}

/// A planned failover would keep writers away until the end of the first copy, unless that is near.
#[test]
fn during_a_first_copy_no_planned_failover_is_ready() {
    let registry = Registry::default();
    let now = now_ms();
    let logs = |end| Log {
        copied: 100,
        end,
        per_second: 0,
    };
    let far = flow(&registry, &[logs(1_000_000)], now);
    let ready = readiness(&registry, now);
    assert_eq!(ready.can_fail_over, Verdict::No, "{ready:#?}");
    let why = check(&ready, "first_copy").expect("it is named");
    assert_eq!(why.weight, Weight::Blocker);
    set(&partition(&far, "orders", 0), &logs(1_000));
    let near = readiness(&registry, now);
    assert_eq!(near.can_fail_over, Verdict::Yes, "{near:#?}");
}

#[test]
fn a_source_that_dies_while_all_is_copied_costs_nothing() {
    let registry = Registry::default();
    let now = now_ms();
    let flow = flow(&registry, &[QUIET], now - 60_000);
    gone(&flow);
    let ready = readiness(&registry, now);
    assert_eq!(
        (ready.can_fail_over, ready.kind.as_str()),
        (Verdict::Yes, "unplanned")
    );
}

/// Brings something in the way of a flow that was ready.
type Spoil<'a> = &'a dyn Fn(&FlowProgress);

#[test]
fn what_stands_in_the_way_says_no_with_its_reason() {
    let now = now_ms();
    let cases: [(&str, Spoil<'_>); 6] = [
        ("stopped", &|flow| {
            partition(flow, "orders", 0).set_state(PartitionState::Stopped {
                reason: "gap",
                detail: String::new(),
            });
        }),
        ("no_progress", &|flow| {
            let partition = partition(flow, "orders", 0);
            set(&partition, &Log { copied: 1, ..QUIET });
            let long_ago = now - 3_600_000;
            partition.caught_up_at_ms.store(long_ago, Ordering::Relaxed);
            partition
                .progressed_at_ms
                .store(long_ago, Ordering::Relaxed);
        }),
        ("standby", &|flow| {
            let mut health = StandbyHealth::default();
            health.add(-1, 1, 1, 1);
            flow.set_standby(health);
        }),
        ("standby", &|flow| {
            flow.set_state(FlowState::Waiting {
                reason: "target_unreachable",
                detail: "connection refused".to_owned(),
            });
        }),
        ("copy", &|flow| {
            flow.set_state(FlowState::Starting);
        }),
        ("copy", &|flow| {
            flow.discovered.store(false, Ordering::Relaxed)
        }),
    ];
    for (subject, spoil) in cases {
        let registry = Registry::default();
        let flow = flow(&registry, &[QUIET], now);
        assert_eq!(readiness(&registry, now).can_fail_over, Verdict::Yes);
        spoil(&flow);
        // A partition counts as stuck by its age, which is this test's.
        let late = now + 120_000;
        flow.note_source_seen(late);
        let spoiled = readiness(&registry, late);
        assert_eq!(
            spoiled.can_fail_over,
            Verdict::No,
            "{subject}: {spoiled:#?}"
        );
        let found = check(&spoiled, subject);
        assert!(
            found.is_some_and(|check| check.weight >= Weight::Blocker && check.hint.is_some()),
            "{subject}: {spoiled:#?}"
        );
    }
}

#[test]
fn a_process_that_began_without_the_source_claims_nothing() {
    let registry = Registry::default();
    let flow = registry.flow("dr", "primary", "standby");
    gone(&flow);
    let ready = readiness(&registry, now_ms());
    assert_eq!(ready.can_fail_over, Verdict::WithLoss);
    assert!(!ready.knows_the_copy());
}

#[test]
fn a_transaction_that_hangs_is_told() {
    let registry = Registry::default();
    let now = now_ms();
    let flow = flow(&registry, &[QUIET], now);
    let partition = partition(&flow, "orders", 0);
    partition
        .source_high_watermark
        .store(150, Ordering::Relaxed);
    registry.observe(now);
    assert!(check(&readiness(&registry, now + 59_000), "transactions").is_none());
    let hangs = readiness(&registry, now + 61_000);
    let found = check(&hangs, "transactions").expect("it is told");
    assert!(found.reason.contains("orders-0 (61 s)"), "{found:?}");
    // It is what would be lost, too: it may be committed.
    assert_eq!(hangs.loss.topics["orders"].seen_records, 50);

    // Another one is no old one.
    partition.source_stable_end.store(120, Ordering::Relaxed);
    registry.observe(now + 61_000);
    assert!(check(&readiness(&registry, now + 62_000), "transactions").is_none());
}

struct Groups(FlowGroups, DelayHistogram);

impl GroupReporter for Groups {
    fn report(&self) -> FlowGroups {
        self.0.clone()
    }
    fn explain(&self, _: &str) -> Option<GroupExplained> {
        None
    }
    fn delays(&self) -> &DelayHistogram {
        &self.1
    }
}

#[test]
fn groups_are_listed_by_what_they_would_read_again() {
    let registry = Registry::default();
    let now = now_ms();
    let flow = flow(&registry, &[QUIET], now);
    let group = |name: &str, state: &str, records, unplaced| GroupStatus {
        group: name.to_owned(),
        state: state.to_owned(),
        reread_records: records,
        unplaced_partitions: unplaced,
        ..GroupStatus::default()
    };
    let watching = Watching {
        state: "following".to_owned(),
        ..Watching::default()
    };
    let groups = FlowGroups {
        source: watching.clone(),
        target: watching,
        groups: vec![
            group("a", "followed", 0, 0),
            group("b", "diverged", 5, 0),
            group("c", "not_yet_copied", 9, 2),
        ],
        ..FlowGroups::default()
    };
    flow.set_groups(Some(Arc::new(Groups(groups, DelayHistogram::default()))));
    let mut ready = readiness(&registry, now);
    assert_eq!(ready.can_fail_over, Verdict::Yes);
    let names: Vec<&str> = ready
        .reread
        .groups
        .iter()
        .map(|it| it.group.as_str())
        .collect();
    assert_eq!(names, ["c", "b"]);
    assert_eq!((ready.reread.records, ready.reread.records_max), (14, 9));
    assert_eq!(
        (ready.reread.unplaced_positions, ready.reread.groups_total),
        (2, 3)
    );
    let warned = ready
        .in_the_way()
        .any(|check| check.reason.ends_with("keep them: b"));
    assert!(warned, "{ready:#?}");

    ready.reread.groups = vec![GroupReread::default(); 50];
    ready.keep_worst();
    assert_eq!(ready.reread.groups.len(), SHOWN_MAX);
    assert_eq!(ready.reread.groups_total, 3, "sums stay");
}

#[test]
fn after_a_failover_it_is_about_the_way_back() {
    let registry = Registry::default();
    let now = now_ms();
    let flow = flow(&registry, &[], now);
    let role = RoleStatus {
        primary: "target".to_owned(),
        old_primary: "away".to_owned(),
        ..RoleStatus::default()
    };
    let weights = |readiness: &Readiness| -> Vec<(String, Weight)> {
        let failback = readiness.failback.as_ref().expect("there was a failover");
        let checks = failback.waits_for.iter();
        checks.map(|it| (it.subject.clone(), it.weight)).collect()
    };
    let expected = |old, orphans| {
        vec![
            ("old_primary".to_owned(), old),
            ("orphans".to_owned(), orphans),
        ]
    };
    flow.set_role(Some(role.clone()));
    let over = readiness(&registry, now);
    assert_eq!(over.can_fail_over, Verdict::FailedOver);
    assert_eq!(over.primary, "target");
    assert_eq!(weights(&over), expected(Weight::Blocker, Weight::Blocker));

    let mut back = RoleStatus {
        old_primary: "fenced".to_owned(),
        orphan_offsets: Some(7),
        orphans: vec![Orphans {
            topic: "orders".to_owned(),
            partition: 0,
            from: 3,
            to: 10,
        }],
        ..role
    };
    flow.set_role(Some(back.clone()));
    let measured = readiness(&registry, now);
    assert_eq!(weights(&measured), expected(Weight::Ok, Weight::LosesData));
    back.orphan_offsets = Some(0);
    flow.set_role(Some(back.clone()));
    assert_eq!(
        weights(&readiness(&registry, now)),
        expected(Weight::Ok, Weight::Ok)
    );

    // Of some topics: the others are copied on.
    back.topics = Some(vec!["orders".to_owned()]);
    flow.set_role(Some(back));
    let mixed = readiness(&registry, now);
    assert_eq!(mixed.primary, "mixed");
    assert!(mixed.failback.is_some() && check(&mixed, "role").is_none());
}

fn any_log() -> impl Strategy<Value = Log> {
    (0..1_000_000_i64, 0..10_000_i64, 0..50_000_u64).prop_map(|(copied, ahead, per_second)| Log {
        copied,
        end: copied + ahead,
        per_second,
    })
}

proptest! {
    /// With producers that go no faster than they were seen to go, no more is missing than it says,
    /// by topic and in all.
    #[test]
    fn the_numbers_bound_what_is_missing(
        logs in prop::collection::vec(any_log(), 1..8),
        age_ms in 0..100_000_i64,
    ) {
        let registry = Registry::default();
        let now = now_ms();
        let flow = flow(&registry, &logs, now - age_ms);
        gone(&flow);
        let missing: u64 = logs
            .iter()
            .map(|log| {
                let seen = u64::try_from(log.end - log.copied).expect("positive");
                seen + log.per_second * age_ms.unsigned_abs() / 1_000
            })
            .sum();
        let found = readiness(&registry, now);
        prop_assert!(found.loss.records >= missing);
        prop_assert!(found.loss.records <= missing + logs.len() as u64);
        let by_topic: u64 = found.loss.topics.values().map(|topic| topic.records).sum();
        prop_assert_eq!(by_topic, found.loss.records);
        let expected = if missing == 0 { Verdict::Yes } else { Verdict::WithLoss };
        prop_assert_eq!(found.can_fail_over, expected);
        prop_assert_eq!(found.loss.oldest_seconds.is_some(), missing > 0);
    }

    /// A partition that nobody fetches any more has been seen when its end was asked for, not when
    /// the others were.
    #[test]
    fn a_stopped_partition_is_as_old_as_its_own_end(
        age_ms in 0..100_000_i64,
        per_second in 1..1_000_u64,
    ) {
        let registry = Registry::default();
        let now = now_ms();
        let log = Log { per_second, ..QUIET };
        let flow = flow(&registry, &[QUIET, log], now);
        let stopped = partition(&flow, "orders", 1);
        // The session that had it is gone.
        stopped.listen(&Arc::default());
        stopped.source_end_seen_ms.store(now - 200_000_000, Ordering::Relaxed);
        stopped.note_source_end(130, now - age_ms);
        let found = readiness(&registry, now);
        let unseen = (per_second * age_ms.unsigned_abs()).div_ceil(1_000);
        prop_assert_eq!(found.loss.records, 30 + unseen);
        prop_assert_eq!(found.loss.seen_records, 30);
    }
}

/// What is known of a partition when the source is lost, as a running flow and as the state topic have it.
fn history() -> impl Strategy<Value = (Log, (i64, i64), i64)> {
    let log =
        (0..1_000_i64, 0..1_000_i64, 0..1_000_u64).prop_map(|(copied, ahead, per_second)| Log {
            copied,
            end: copied + ahead,
            per_second,
        });
    (log, (0..1_000_i64, 0..1_000_i64), 0..600_000_i64)
}

proptest! {
    /// The running flow says no less than the plan that is made behind it.
    #[test]
    fn a_running_flow_bounds_a_loss_as_the_plan_does((log, habit, age_ms) in history()) {
        let registry = Registry::default();
        let now = now_ms();
        let flow = flow(&registry, &[log], now - age_ms);
        let partition = partition(&flow, "orders", 0);
        partition.source_habit.0.store(habit.0, Ordering::Relaxed);
        partition.source_habit.1.store(habit.1, Ordering::Relaxed);
        gone(&flow);
        let ready = readiness(&registry, now);
        let record = EndsRecord {
            ends: vec![log.end],
            per_second: vec![log.per_second],
            at_once: BTreeMap::from([(0, habit.0.unsigned_abs())]),
            per_hour: BTreeMap::from([(0, habit.1.unsigned_abs())]),
            ..EndsRecord::default()
        };
        let seen = Seen {
            copied: log.copied,
            observed: of_records::observed_end(Some(&record), 0),
            per_second: of_records::rate(Some(&record), 0),
            habit: of_records::habit(Some(&record), 0),
        };
        let planned = bound(seen, age_ms);
        prop_assert_eq!(ready.loss.records, planned.records());
    }

    /// Both judge by the same: whatever was found, what a plan refuses is what stands in the way.
    #[test]
    fn who_knows_refuses_what_a_plan_refuses(facts in any_facts()) {
        let refused = |intent| {
            let checks = judge(intent, &facts);
            let heavy = checks.into_iter().filter(|it| it.weight >= Weight::Blocker);
            let mut heavy: Vec<(String, String, bool)> = heavy
                .map(|it| (it.subject, it.reason, it.hint.is_some()))
                .collect();
            heavy.sort();
            heavy
        };
        let known = refused(Intent::Know);
        prop_assert!(known.iter().all(|(_, _, has_a_way_out)| *has_a_way_out), "{:?}", known);
        let planned = match facts.source_problem {
            None => refused(Intent::Planned),
            Some(_) => refused(Intent::Unplanned(AcceptedLoss::Records(0))),
        };
        prop_assert_eq!(known, planned);
    }
}

/// Facts of which any may be in the way.
fn any_facts() -> impl Strategy<Value = Facts> {
    let some = || proptest::option::of(Just("why".to_owned()));
    let names = || proptest::collection::vec(Just("orders".to_owned()), 0..2);
    let counts = || (0..2_usize, 0..2_usize, 0..2_usize);
    let of_copy = (
        0..2_usize,
        some(),
        some(),
        some(),
        names(),
        names(),
        names(),
        names(),
    );
    let loss = (0..2_u64, 0..2_u64);
    (of_copy, counts(), loss, some()).prop_map(|(of_copy, standby, loss, fence)| {
        let (partitions, source, standby_problem, copy, without, stopped, retrying, stands) =
            of_copy;
        let with_why = |names: Vec<String>| {
            let named = names.into_iter().map(|name| (name, "why".to_owned()));
            named.collect::<Vec<_>>()
        };
        // A plan asks the target itself, and doesn't ask the source that is gone: then nothing says what it lacks.
        let is_gone = source.is_some();
        Facts {
            partitions,
            topics: partitions,
            copy_problem: copy.filter(|_| is_gone),
            standby_problem,
            without_copy: without,
            stopped: with_why(stopped),
            retrying: with_why(retrying),
            no_progress: stands,
            standby: StandbyHealth {
                leaderless: standby.0,
                below_min_in_sync: standby.1,
                unsatisfiable: standby.2,
                ..StandbyHealth::default()
            },
            unfenceable: fence.map(|reason| Unfenceable {
                reason,
                hint: Some("stop them yourself".to_owned()),
            }),
            // A planned failover says nothing of what an unplanned one would lose.
            loss: is_gone.then(|| Loss {
                records: loss.0,
                unknown_partitions: loss.1,
                ..Loss::default()
            }),
            source_problem: source,
            ..Facts::default()
        }
    })
}
