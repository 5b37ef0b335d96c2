//! How long a failover of 1,000 partitions and 100 groups takes. Run by hand, one after the other:
//! `cargo test --release --test it failover_scale -- --ignored --nocapture`.

use std::time::Duration;

use crate::support::failover::{answer, await_failed_over, failover, start_fenceable_pair};
use crate::support::groups::commit;
use crate::support::{KafkaVersion, Load, Twinlog, await_caught_up, create_topic};

const DEADLINE: Duration = Duration::from_secs(180);
const TOPICS: usize = 100;
const PARTITIONS: i32 = 10;
const GROUPS: usize = 100;

#[test]
#[ignore = "measures"]
fn a_thousand_partitions() {
    let (mut source, target) = start_fenceable_pair(KafkaVersion::V4_3);
    let (bootstrap, target) = (source.bootstrap(), target.bootstrap());
    let topics: Vec<String> = (0..TOPICS).map(|it| format!("topic-{it}")).collect();
    for topic in &topics {
        create_topic(&bootstrap, topic, PARTITIONS, &[]);
    }
    let twinlog = Twinlog::between(&bootstrap, &target);
    // Several appends to each log: its first index entry makes the broker map a file, which takes
    // longer than everything that is measured here.
    for _ in 0..3 {
        for topic in &topics {
            Load::new(topic, 100).value_bytes(1_000).produce(&bootstrap);
        }
        await_caught_up(&twinlog, DEADLINE);
    }
    for (group, topic) in (0..GROUPS).zip(topics.iter().cycle()) {
        let positions: Vec<(&str, i32, i64)> =
            (0..PARTITIONS).map(|it| (topic.as_str(), it, 3)).collect();
        commit(&bootstrap, &format!("group-{group}"), &positions);
    }
    let config = twinlog.config_file().to_owned();
    let began = std::time::Instant::now();
    let report = answer(&failover(&config, &["--yes", "--json"]), 0);
    let whole = began.elapsed();
    await_failed_over(&twinlog);
    println!(
        "planned: {} s, {whole:?} with the preflight",
        report["seconds"]
    );
    for step in report["steps"].as_array().expect("steps") {
        println!("  {} {} {}", step["step"], step["seconds"], step["result"]);
    }
    answer(&failover(&config, &["--abort", "--yes", "--json"]), 0);
    await_caught_up(&twinlog, DEADLINE);
    source.kill(1);
    let began = std::time::Instant::now();
    let arguments = ["--unplanned", "--yes", "--json", "--accept-loss", "any"];
    let output = failover(&config, &arguments);
    let report = answer(&output, 0);
    println!(
        "unplanned: {} s, {:?} with the preflight",
        report["seconds"],
        began.elapsed()
    );
    for step in report["steps"].as_array().expect("steps") {
        println!("  {} {} {}", step["step"], step["seconds"], step["result"]);
    }
}

/// Partitions to which nothing comes: what padding costs where nothing is missing.
#[test]
#[ignore = "measures"]
fn two_thousand_idle_partitions() {
    let (mut source, target) = start_fenceable_pair(KafkaVersion::V4_3);
    let (bootstrap, target) = (source.bootstrap(), target.bootstrap());
    let topics: Vec<String> = (0..20).map(|it| format!("idle-{it}")).collect();
    for topic in &topics {
        create_topic(&bootstrap, topic, 100, &[]);
        Load::new(topic, 100).produce(&bootstrap);
    }
    let twinlog = Twinlog::between(&bootstrap, &target);
    await_caught_up(&twinlog, DEADLINE);
    // It is certain that they are quiet when as much time has passed.
    std::thread::sleep(Duration::from_secs(15));
    source.kill(1);
    let config = twinlog.config_file().to_owned();
    let began = std::time::Instant::now();
    let arguments = ["--unplanned", "--yes", "--json", "--accept-loss", "any"];
    let report = answer(&failover(&config, &arguments), 0);
    println!(
        "unplanned: {} s, {:?} with the preflight; {}",
        report["seconds"],
        began.elapsed(),
        report["padding"]
    );
    for step in report["steps"].as_array().expect("steps") {
        println!("  {} {} {}", step["step"], step["seconds"], step["result"]);
    }
}
