//! The way back where the old primary has more than the padding allowed for.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::failover::{
    answer, await_copying, failback, failover, start_fenceable_both, try_write, words,
};
use crate::support::groups::{commit, next_values};
use crate::support::mapped::translate;
use crate::support::verified::assert_verified;
use crate::support::{
    Isolation, KafkaVersion, Load, Seen, Twinlog, await_caught_up, create_topic, end_offset,
    eventually, read_all,
};

const DEADLINE: Duration = Duration::from_secs(60);
const TOPIC: &str = "orders";
const PARTITIONS: i32 = 2;

fn read(cluster: &str) -> Vec<Seen> {
    read_all(cluster, TOPIC, Isolation::ReadCommitted)
}

/// Everything but the offset.
fn contents(records: &[Seen]) -> Vec<Seen> {
    let without = |seen: &Seen| Seen {
        offset: 0,
        ..seen.clone()
    };
    records.iter().map(without).collect()
}

/// The old primary's log goes on far beyond what was padded: offsets can't stay the same. A map
/// tells, nothing is lost or doubled, and what is stranded stays where it is.
#[test]
fn more_is_stranded_than_was_padded() {
    let (mut source, target) = start_fenceable_both(KafkaVersion::V4_3);
    let (old, new) = (source.bootstrap(), target.bootstrap());
    create_topic(&old, TOPIC, PARTITIONS, &[]);
    Load::new(TOPIC, 100).produce(&old);
    let config = Twinlog::config(&old, &new, "failover: { padding: 0 }");
    let mut twinlog = Twinlog::start(&config);
    await_caught_up(&twinlog, DEADLINE);
    let config = twinlog.config_file().to_owned();
    // Nobody sees how far the source goes.
    twinlog.kill9();
    Load::new(TOPIC, 2_000).first(1_000).produce(&old);
    let stranded_to = end_offset(&old, TOPIC, 0);
    source.kill(1);
    let arguments = ["--unplanned", "--yes", "--json", "--accept-loss", "any"];
    answer(&failover(&config, &arguments), 0);
    twinlog.launch();
    Load::new(TOPIC, 200).first(10_000).produce(&new);
    assert!(end_offset(&new, TOPIC, 0) < stranded_to, "it was padded");
    let at = |number: i32| end_offset(&new, TOPIC, number) - 30;
    commit(&new, "moved-on", &[(TOPIC, 0, at(0)), (TOPIC, 1, at(1))]);
    commit(&new, "at-the-fork", &[(TOPIC, 0, 50), (TOPIC, 1, 50)]);
    commit(&new, "before-it", &[(TOPIC, 0, 20), (TOPIC, 1, 49)]);

    let away = failback(&config, &["--yes"]);
    assert_eq!(away.status.code(), Some(1), "{}", words(&away));
    assert!(words(&away).contains("has to be back"), "{}", words(&away));
    source.restart(1);
    twinlog.wait_until(DEADLINE, "the orphans are counted", |status| {
        status["flows"][0]["role"]["orphan_offsets"] == 2_000
    });
    // Nobody has decided about what is stranded.
    let undecided = failback(&config, &["--yes"]);
    assert_eq!(undecided.status.code(), Some(3), "{}", words(&undecided));
    assert!(
        words(&undecided).contains("--accept-orphans"),
        "{}",
        words(&undecided)
    );
    assert_eq!(try_write(&new, TOPIC), Ok(()), "nothing has begun");
    let report = answer(
        &failback(&config, &["--yes", "--json", "--accept-orphans"]),
        0,
    );
    assert_eq!(report["state"], "done", "{report:#}");
    await_copying(&twinlog);

    let (here, there) = (read(&old), read(&new));
    let copied = contents(&there);
    let left: Vec<Seen> = {
        // Without what is stranded the two are the same, in the same order.
        let is_stranded = |seen: &Seen| (50..stranded_to).contains(&seen.offset);
        let rest: Vec<Seen> = here.iter().filter(|it| !is_stranded(it)).cloned().collect();
        assert_eq!(here.len() - rest.len(), 2_000);
        rest
    };
    assert_eq!(contents(&left), copied, "lost, doubled or out of order");
    for (it, copy) in left.iter().zip(&there).step_by(23) {
        let answer = translate(&twinlog, TOPIC, it.partition, it.offset, &[]);
        assert_eq!(answer["offset"], copy.offset, "{answer:#}");
        let answer = translate(&twinlog, TOPIC, it.partition, copy.offset, &["--reverse"]);
        assert_eq!(answer["offset"], it.offset, "{answer:#}");
    }
    for group in ["moved-on", "at-the-fork", "before-it"] {
        assert_eq!(
            next_values(&old, group, TOPIC, PARTITIONS),
            next_values(&new, group, TOPIC, PARTITIONS),
            "{group}"
        );
    }

    // It follows again by the map, and can go there and back once more.
    Load::new(TOPIC, 100).first(20_000).produce(&old);
    follows(&old, &new, left.len() + 100);
    await_caught_up(&twinlog, DEADLINE);
    assert_verified(&twinlog, &["--full"]);
    answer(&failover(&config, &["--yes", "--json"]), 0);
    Load::new(TOPIC, 100).first(30_000).produce(&new);
    let report = answer(&failback(&config, &["--yes", "--json"]), 0);
    assert_eq!(report["lost"]["is_proven"], true, "{report:#}");
    await_copying(&twinlog);
    Load::new(TOPIC, 100).first(40_000).produce(&old);
    follows(&old, &new, left.len() + 300);
    let values: BTreeSet<_> = read(&new).into_iter().map(|it| it.value).collect();
    assert_eq!(values.len(), left.len() + 300, "doubled");
    await_caught_up(&twinlog, DEADLINE);
    assert_verified(&twinlog, &["--full"]);
}

fn follows(old: &str, new: &str, wanted: usize) {
    eventually(DEADLINE, "the standby has it all", || {
        match read(new).len() {
            found if found == wanted => Ok(()),
            found => Err((found, wanted)),
        }
    });
    let tail = |records: Vec<Seen>| -> BTreeSet<_> {
        let newest = records.into_iter().filter(|it| it.partition == 0);
        let newest: Vec<Seen> = newest.collect();
        newest
            .iter()
            .rev()
            .take(50)
            .map(|it| it.value.clone())
            .collect()
    };
    assert_eq!(tail(read(old)), tail(read(new)));
}
