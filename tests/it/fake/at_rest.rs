//! What a process does while nothing happens.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::support::{Twinlog, create_topic, fake_pair};

const DEADLINE: Duration = Duration::from_secs(60);
const TOPICS: usize = 20;
const PARTITIONS: i32 = 4;
/// So often a second it may be woken. Some ten questions and their answers are left.
const WOKEN_PER_SECOND: f64 = 36.0;
const MEASURED_FOR: Duration = Duration::from_secs(6);

/// How often the process was woken so far.
fn woken(process: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("it runs");
    let paths: Vec<PathBuf> = tasks
        .map(|task| task.expect("readable").path().join("status"))
        .collect();
    let of = |path: &PathBuf| {
        let status = fs::read_to_string(path).unwrap_or_default();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.and_then(|count| count.trim().parse::<u64>().ok())
            .unwrap_or(0)
    };
    paths.iter().map(of).sum()
}

#[test]
fn a_flow_at_rest_sleeps() {
    let (source, target) = fake_pair();
    let from = source.bootstrap();
    for topic in 0..TOPICS {
        create_topic(&from, &format!("t{topic:02}"), PARTITIONS, &[]);
    }
    let twinlog = Twinlog::between(&from, &target.bootstrap());
    let all = TOPICS as u64 * u64::from(PARTITIONS.unsigned_abs());
    twinlog.wait_until(DEADLINE, "all is copied", |status| {
        status["flows"][0]["totals"]["copying"] == all
    });
    // What belongs to the start is over, and a second one doesn't look worse than the best.
    let per_second = (0..3)
        .map(|_| {
            // On a busy machine a sleep takes longer.
            let (began, before) = (Instant::now(), woken(twinlog.id()));
            std::thread::sleep(MEASURED_FOR);
            let times = woken(twinlog.id()) - before;
            times as f64 / began.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min);
    println!("woken {per_second:.1} times a second");
    assert!(
        per_second <= WOKEN_PER_SECOND,
        "{per_second:.1} times a second"
    );
}
