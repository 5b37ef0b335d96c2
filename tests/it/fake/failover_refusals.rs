//! What a failover refuses, and how the command ends then; two operators; offsets that are mapped.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::failover::{
    answer, assert_refused, await_failed_over, failback, failover, failover_exiting_at, records,
    try_write, words,
};
use crate::support::fake::fake_fenceable_pair;
use crate::support::flow::{block_on, flow_config, opened_state, wire_cluster};
use crate::support::groups::{commit, committed, next_values};
use crate::support::{
    Load, Transactions, Twinlog, add_partitions, await_all_same, await_caught_up, create_topic,
    end_offset, eventually, fake_pair,
};
use fake_kafka::faults::{Action, Fault};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use twinlog::environment::{Machine, ThisMachine};
use twinlog::state::{LeaseRecord, Operator, keys};
use uuid::Uuid;

const DEADLINE: Duration = Duration::from_secs(60);

/// Nothing copied; a topic without a copy; a partition that is stopped: each would lose data.
#[test]
fn what_would_lose_data_is_refused_and_changes_nothing() {
    let (source, target) = fake_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "copied", 1, &[]);
    create_topic(&source, "strange", 1, &[]);
    Load::new("copied", 50).produce(&source);
    Load::new("strange", 50).produce(&source);
    let mut twinlog = Twinlog::prepare(&Twinlog::config(&source, &target, ""));
    let config = twinlog.config_file().to_owned();

    for arguments in [
        &["--yes"][..],
        &["--unplanned", "--yes", "--accept-loss", "any"],
    ] {
        let nothing = failover(&config, arguments);
        assert_eq!(nothing.status.code(), Some(3), "{}", words(&nothing));
        assert!(
            words(&nothing).contains("nothing is copied"),
            "{}",
            words(&nothing)
        );
    }

    twinlog.launch();
    await_caught_up(&twinlog, DEADLINE);
    // Somebody writes to the copy: the partition stops.
    Load::new("strange", 5).produce(&target);
    twinlog.wait_until(DEADLINE, "the partition is stopped", |status| {
        crate::support::flow::is_stopped(status, "strange", 0, "foreign_write")
    });
    let stopped = eventually(DEADLINE, "the standby knows it too", || {
        let shown = failover(&config, &[]);
        match words(&shown) {
            text if text.contains("strange-0 (foreign_write)") => Ok(shown),
            text => Err(text),
        }
    });
    assert_eq!(stopped.status.code(), Some(3), "{}", words(&stopped));

    twinlog.kill9();
    create_topic(&source, "new", 1, &[]);
    let without = failover(&config, &["--yes"]);
    assert_eq!(without.status.code(), Some(3), "{}", words(&without));
    assert!(
        words(&without).contains("not copied (yet): new"),
        "{}",
        words(&without)
    );
    // Nothing was changed by all this: no plan is there to be undone.
    let abort = failover(&config, &["--abort", "--yes"]);
    assert_eq!(abort.status.code(), Some(1), "{}", words(&abort));
    assert!(words(&abort).contains("no plan"), "{}", words(&abort));
}

/// A transaction that never ends is named, and the command gives up in time.
#[test]
fn a_hanging_transaction_is_named() {
    let (source, target) = fake_fenceable_pair();
    hanging_transaction(&source.bootstrap(), &target.bootstrap());
}

pub(crate) fn open_transaction(source: &str, topic: &str) -> BaseProducer {
    let producer: BaseProducer = crate::support::admin::client(source)
        .set("transactional.id", "hanging")
        .set("transaction.timeout.ms", "120000")
        .create()
        .expect("valid settings");
    crate::support::produce::begin(&producer).expect("a coordinator");
    producer.begin_transaction().expect("a transaction");
    let record: BaseRecord<'_, str, str> = BaseRecord::to(topic).payload("open").key("k");
    producer.send(record).expect("room for one record");
    producer.flush(DEADLINE).expect("it is written");
    producer
}

/// Who presses Ctrl-C is told that the plan stays, and how it goes on.
#[test]
fn an_interrupted_failover_says_that_it_stays_open() {
    let (source, target) = fake_fenceable_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "orders", 1, &[]);
    Load::new("orders", 10).produce(&source);
    let twinlog = Twinlog::between(&source, &target);
    await_caught_up(&twinlog, DEADLINE);
    let config = twinlog.config_file().to_owned();
    // It is waited for.
    let _open = open_transaction(&source, "orders");
    let mut command = Command::new(env!("CARGO_BIN_EXE_twinlog"))
        .args(["failover", "--yes", "-c"])
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the built binary runs");
    let said = command.stderr.take().expect("it is piped");
    let mut lines = BufReader::new(said).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.starts_with("prove:")));
    let killed = Command::new("kill")
        .args(["-INT", &command.id().to_string()])
        .status();
    assert!(killed.expect("kill runs").success());
    let rest: Vec<String> = lines.collect();
    let ended = command.wait().expect("it ends");
    assert_eq!(ended.code(), Some(1), "{rest:?}");
    assert!(
        rest.iter().any(|line| line.contains("interrupted")),
        "{rest:?}"
    );
    assert_refused(&source, "orders");
    answer(&failover(&config, &["--abort", "--yes", "--json"]), 0);
    try_write(&source, "orders").expect("the fence is lifted");
}

/// Without an authorizer nobody can be kept away: the dry run says so, and how to go on.
#[test]
fn a_fence_that_can_not_be_made_is_a_blocker() {
    let (source, target) = fake_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "orders", 1, &[]);
    Load::new("orders", 10).produce(&source);
    let twinlog = Twinlog::between(&source, &target);
    await_caught_up(&twinlog, DEADLINE);
    let config = twinlog.config_file().to_owned();
    for arguments in [&[][..], &["--yes"]] {
        let refused = failover(&config, arguments);
        assert_eq!(refused.status.code(), Some(1), "{}", words(&refused));
        let text = words(&refused);
        assert!(text.contains("--fence manual"), "{text}");
    }
    let abort = failover(&config, &["--abort", "--yes"]);
    assert!(
        words(&abort).contains("no plan to undo"),
        "{}",
        words(&abort)
    );
    let arguments = ["--yes", "--json", "--fence", "manual"];
    let report = answer(&failover(&config, &arguments), 0);
    assert_eq!(report["lost"]["is_proven"], true, "{report:#}");
    // The way back has the same fence.
    let refused = failback(&config, &["--yes"]);
    assert_eq!(refused.status.code(), Some(1), "{}", words(&refused));
    assert!(
        words(&refused).contains("--fence manual"),
        "{}",
        words(&refused)
    );
    let report = answer(&failback(&config, &arguments), 0);
    assert_eq!(report["state"], "done", "{report:#}");
}

/// A topic is made, and one grows, while a failover waits for a transaction's end.
#[test]
fn topics_that_come_while_it_runs_are_failed_over_too() {
    let (source, target) = fake_fenceable_pair();
    // A partition that was just made is unknown to its leader for a moment, longer than one call asks again.
    let unknown = target.fault(
        Fault::on(ApiKey::ListOffsets)
            .partition("grows", 1)
            .times(16),
        Action::Refuse(ResponseError::UnknownTopicOrPartition),
    );
    late_topics(&source.bootstrap(), &target.bootstrap());
    assert!(target.fired(unknown) > 0);
}

/// A flow whose failover has waited in vain for the end of a transaction in topic `held`, and what it said.
fn held_up(source: &str, target: &str) -> (Twinlog, BaseProducer, Output) {
    create_topic(source, "held", 1, &[]);
    Load::new("held", 10).produce(source);
    let twinlog = Twinlog::between(source, target);
    await_caught_up(&twinlog, DEADLINE);
    let producer = open_transaction(source, "held");
    let waited = failover(twinlog.config_file(), &["--yes", "--wait", "3"]);
    assert_eq!(waited.status.code(), Some(1), "{}", words(&waited));
    (twinlog, producer, waited)
}

pub(crate) fn late_topics(source: &str, target: &str) {
    create_topic(source, "grows", 1, &[]);
    let (twinlog, producer, _) = held_up(source, target);
    let config = twinlog.config_file().to_owned();
    create_topic(source, "late", 2, &[]);
    Load::new("late", 1_000).produce(source);
    add_partitions(source, "grows", 2);
    producer.abort_transaction(DEADLINE).expect("it is aborted");
    let report = answer(&failover(&config, &["--yes", "--json"]), 0);
    assert_eq!(report["lost"]["is_proven"], true, "{report:#}");
    for topic in ["late", "grows"] {
        assert_refused(source, topic);
        assert_eq!(records(source, &[topic]), records(target, &[topic]));
    }
}

pub(crate) fn hanging_transaction(source: &str, target: &str) {
    let (twinlog, producer, waited) = held_up(source, target);
    let config = twinlog.config_file().to_owned();
    let text = words(&waited);
    assert!(text.contains("held-0: producer"), "{text}");
    assert!(text.contains("since offset 10"), "{text}");
    assert!(text.contains("--abort"), "{text}");
    // It ends after all (that needs no right to write), and the same plan goes on.
    producer.abort_transaction(DEADLINE).expect("it is aborted");
    let report = answer(&failover(&config, &["--yes", "--json"]), 0);
    assert_eq!(report["lost"]["is_proven"], true, "{report:#}");
}

/// Two commands at once, and one that comes while a plan is under way.
#[test]
fn one_of_two_operators_wins() {
    let (source, target) = fake_fenceable_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "orders", 2, &[]);
    create_topic(&source, "held", 1, &[]);
    Load::new("orders", 100).produce(&source);
    let twinlog = Twinlog::between(&source, &target);
    await_caught_up(&twinlog, DEADLINE);
    let start = || {
        Command::new(env!("CARGO_BIN_EXE_twinlog"))
            .args(["failover", "--yes", "--json", "-c"])
            .arg(twinlog.config_file())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the built binary runs")
    };
    // Whoever wins is held up until the other one has ended.
    let open = open_transaction(&source, "held");
    let mut both = [start(), start()];
    eventually(DEADLINE, "one of them ends", || {
        let mut both = both.iter_mut();
        let has_ended = both.any(|child| child.try_wait().expect("our own child").is_some());
        has_ended.then_some(()).ok_or("both run")
    });
    open.abort_transaction(DEADLINE).expect("it is aborted");
    let ended = both.map(|child| child.wait_with_output().expect("it ends"));
    let (won, lost): (Vec<_>, Vec<_>) = ended.iter().partition(|it| it.status.success());
    assert_eq!(won.len(), 1, "{}\n{}", words(&ended[0]), words(&ended[1]));
    let report = answer(won[0], 0);
    assert_eq!(report["state"], "done", "{report:#}");
    let text = words(lost[0]);
    assert_eq!(lost[0].status.code(), Some(1), "{text}");
    assert!(
        text.contains("being carried out by") || text.contains("somebody else"),
        "{text}"
    );
    assert_eq!(records(&source, &["orders"]), records(&target, &["orders"]));
}

/// A flow that keeps a map: the fork and the groups go by it.
#[test]
fn mapped_offsets_are_failed_over_by_the_map() {
    let (source, target) = fake_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "mapped", 2, &[]);
    Transactions::new(Load::new("mapped", 7), 30).produce(&source);
    let text = flow_config("mapped", "mapped", &source, &target, "offsets: mapped");
    let twinlog = Twinlog::start(&text);
    await_caught_up(&twinlog, DEADLINE);
    let config = twinlog.config_file().to_owned();
    commit(&source, "by-map", &[("mapped", 0, 40), ("mapped", 1, 55)]);
    let arguments = ["--yes", "--json", "--fence", "manual"];
    let report = answer(&failover(&config, &arguments), 0);
    assert_eq!(report["lost"]["is_proven"], true, "{report:#}");
    assert_ne!(
        end_offset(&source, "mapped", 0),
        end_offset(&target, "mapped", 0),
        "the offsets differ"
    );
    assert_ne!(
        committed(&source, "by-map", "mapped", 2),
        committed(&target, "by-map", "mapped", 2)
    );
    assert_eq!(
        next_values(&source, "by-map", "mapped", 2),
        next_values(&target, "by-map", "mapped", 2)
    );
    await_failed_over(&twinlog);
}

/// The process that copies is frozen: nobody waits for it, and when it wakes up it stops.
#[test]
fn a_frozen_copy_is_taken_over() {
    let (source, target) = fake_fenceable_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "orders", 1, &[]);
    Load::new("orders", 100).produce(&source);
    let mut twinlog = Twinlog::between(&source, &target);
    await_caught_up(&twinlog, DEADLINE);
    let config = twinlog.config_file().to_owned();
    twinlog.signal("STOP");
    Load::new("orders", 50).first(100).produce(&source);
    let report = answer(&failover(&config, &["--yes", "--json"]), 0);
    assert_eq!(report["lost"]["is_proven"], true, "{report:#}");
    Load::new("orders", 20).first(500).produce(&target);
    let after = records(&target, &["orders"]);
    assert_eq!(after.len(), 170);
    twinlog.signal("CONT");
    twinlog.wait_until(DEADLINE, "it stops copying", |status| {
        status["flows"][0]["state"] == "stopped"
    });
    assert_eq!(records(&target, &["orders"]), after);
}

/// An abort that dies is an abort still.
#[test]
fn an_abort_that_dies_is_finished_by_the_next() {
    let (source, target) = fake_fenceable_pair();
    abort_that_dies(&source.bootstrap(), &target.bootstrap());
}

pub(crate) fn abort_that_dies(source: &str, target: &str) {
    create_topic(source, "orders", 1, &[]);
    Load::new("orders", 100).produce(source);
    let twinlog = Twinlog::between(source, target);
    await_caught_up(&twinlog, DEADLINE);
    let config = twinlog.config_file().to_owned();
    answer(&failover(&config, &["--yes", "--json"]), 0);
    for at in ["promote:worked", "stop_copying:begun", "fence:worked"] {
        let crashed = failover_exiting_at(&config, &["--abort", "--yes"], Some(at));
        assert_eq!(
            crashed.status.code(),
            Some(137),
            "{at}: {}",
            words(&crashed)
        );
        let forward = failover(&config, &["--yes"]);
        assert_eq!(forward.status.code(), Some(1), "{at}: {}", words(&forward));
        assert!(
            words(&forward).contains("being undone"),
            "{}",
            words(&forward)
        );
    }
    let report = answer(&failover(&config, &["--abort", "--yes", "--json"]), 0);
    assert_eq!(report["state"], "aborted", "{report:#}");
    eventually(DEADLINE, "the source takes writes", || {
        try_write(source, "orders")
    });
    await_caught_up(&twinlog, DEADLINE);
    // It may be caught up with all but what was written just now.
    await_all_same(source, target, &["orders"], DEADLINE);
}

/// Of a process that ended, whose number this very one has now; it beats until it is told to end.
async fn hold_the_lease(target: &str, has_ended: &AtomicBool) {
    let cluster = wire_cluster(target);
    let store = opened_state(&cluster, "dr").await;
    for beat in 0.. {
        let record = LeaseRecord {
            v: 1,
            owner: Uuid::from_u128(7),
            plan: Uuid::from_u128(8),
            operator: Operator {
                host: ThisMachine.host(),
                pid: ThisMachine.pid(),
                user: "somebody".to_owned(),
                since_ms: 1,
            },
            beat,
            released: false,
            producer_id: -1,
            producer_epoch: 0,
        };
        let key = keys::cutover_lease("dr");
        store.put(&key, &record).await.expect("it is written");
        if has_ended.load(Ordering::Relaxed) {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[test]
fn a_plan_is_carried_out_by_who_beats_not_by_who_has_a_number() {
    let (source, target) = fake_fenceable_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "leased", 1, &[]);
    Load::new("leased", 50).produce(&source);
    let twinlog = Twinlog::start(&Twinlog::config(&source, &target, ""));
    await_caught_up(&twinlog, DEADLINE);
    let config = twinlog.config_file().to_owned();

    block_on(hold_the_lease(&target, &AtomicBool::new(true)));
    let has_ended = Arc::new(AtomicBool::new(false));
    let beating = std::thread::spawn({
        let (target, has_ended) = (target.clone(), has_ended.clone());
        move || block_on(hold_the_lease(&target, &has_ended))
    });
    let refused = failover(&config, &["--yes"]);
    assert_eq!(refused.status.code(), Some(1), "{}", words(&refused));
    assert!(
        words(&refused).contains("is being carried out by"),
        "{}",
        words(&refused)
    );
    has_ended.store(true, Ordering::Relaxed);
    beating.join().expect("it ends");

    let done = failover(&config, &["--yes"]);
    assert_eq!(done.status.code(), Some(0), "{}", words(&done));
}

/// A plan that something has come behind isn't there any more: nobody is told that somebody wrote to the copy, which is
/// what goes on copying there.
#[test]
fn nothing_is_undone_behind_the_failback() {
    let (source, target) = fake_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "orders", 1, &[]);
    Load::new("orders", 50).produce(&source);
    let twinlog = Twinlog::between(&source, &target);
    await_caught_up(&twinlog, DEADLINE);
    let config = twinlog.config_file().to_owned();
    let manual = ["--yes", "--fence", "manual", "--quiet-for", "1"];
    let refused = |output: &Output, code: i32, text: &str| {
        assert_eq!(output.status.code(), Some(code), "{}", words(output));
        assert!(words(output).contains(text), "{}", words(output));
    };
    let over = failover(&config, &manual);
    assert_eq!(over.status.code(), Some(0), "{}", words(&over));
    let nothing = failback(&config, &["--abort", "--yes"]);
    refused(&nothing, 1, "has no failback to undo");
    Load::new("orders", 5).produce(&target);
    // That is about a failover whose target is the primary, and it needs no other end.
    let written = failover(&config, &["--abort", "--yes"]);
    refused(&written, 3, "somebody wrote there");
    refused(&written, 3, "the failover is through");
    await_failed_over(&twinlog);
    let back = failback(&config, &manual);
    assert_eq!(back.status.code(), Some(0), "{}", words(&back));
    Load::new("orders", 5).produce(&source);
    eventually(DEADLINE, "it is copied", || {
        let end = end_offset(&target, "orders", 0);
        (end == 60).then_some(()).ok_or(end)
    });
    let nothing = failover(&config, &["--abort", "--yes"]);
    refused(&nothing, 1, "has no plan to undo");
}

/// Why there is no lease is told as it is, and not that somebody else has it.
#[test]
fn a_drill_that_may_not_write_says_so() {
    let (source, target) = fake_pair();
    create_topic(&source.bootstrap(), "orders", 1, &[]);
    Load::new("orders", 20).produce(&source.bootstrap());
    let twinlog = Twinlog::between(&source.bootstrap(), &target.bootstrap());
    await_caught_up(&twinlog, DEADLINE);
    let refuse = Action::Refuse(ResponseError::ClusterAuthorizationFailed);
    target.fault(Fault::on(ApiKey::InitProducerId), refuse);
    let cleanup = twinlog.command("drill", &["--cleanup", "--yes"]);
    assert_eq!(cleanup.status.code(), Some(1), "{}", words(&cleanup));
    assert!(
        words(&cleanup).contains("InitProducerId"),
        "{}",
        words(&cleanup)
    );
    assert!(
        !words(&cleanup).contains("another rehearsal"),
        "{}",
        words(&cleanup)
    );
}

/// The state may be far away: what is written for each partition is written together.
#[test]
fn the_maps_of_many_partitions_are_continued_in_a_few_writes() {
    const PARTITIONS: i32 = 80;
    let (source, target) = fake_pair();
    create_topic(&source.bootstrap(), "orders", PARTITIONS, &[]);
    Load::new("orders", 400).produce(&source.bootstrap());
    let config = Twinlog::config(&source.bootstrap(), &target.bootstrap(), "offsets: mapped");
    let twinlog = Twinlog::start(&config);
    await_caught_up(&twinlog, DEADLINE);
    let config = twinlog.config_file().to_owned();
    let manual = ["--yes", "--fence", "manual", "--quiet-for", "1"];
    let over = failover(&config, &manual);
    assert_eq!(over.status.code(), Some(0), "{}", words(&over));
    await_failed_over(&twinlog);
    let of_state = Fault::on(ApiKey::Produce).topic("__twinlog_state");
    let writes = source.fault(of_state, Action::Delay(0));
    let began = Instant::now();
    let begun = failback(&config, &["--start", "--yes"]);
    assert_eq!(begun.status.code(), Some(0), "{}", words(&begun));
    let writes = source.fired(writes);
    // Besides, who carries it out shows every second that he lives.
    let most = u64::from(PARTITIONS.unsigned_abs()) + began.elapsed().as_secs();
    assert!(writes < most, "{writes} writes");
}
