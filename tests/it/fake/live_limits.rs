//! Limits are changed while it runs: SIGHUP reads them again.

use std::time::Duration;

use super::limits::{await_bytes, produce_kibs};
use crate::support::flow::{flow_config, is_caught_up};
use crate::support::{Twinlog, await_same, create_topic, eventually, fake_pair};

const DEADLINE: Duration = Duration::from_secs(60);
const MIB: u64 = 1024 * 1024;

/// Writes another config into its file, with the address where it listens, and tells it.
fn reload(twinlog: &mut Twinlog, text: &str) {
    let file = twinlog.config_file().to_owned();
    let before = std::fs::read_to_string(&file).expect("it was written");
    let http = before.rfind("\nhttp:").map_or("", |at| &before[at..]);
    std::fs::write(&file, format!("{text}{http}")).expect("our folder is writable");
    twinlog.signal("HUP");
}

fn await_log(twinlog: &Twinlog, words: &str) {
    eventually(DEADLINE, words, || match twinlog.log() {
        log if log.contains(words) => Ok(()),
        log => Err(log),
    });
}

#[test]
fn a_hangup_changes_the_limits_and_nothing_else() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, "held", 1, &[]);
    produce_kibs(&from, "held", 0, 24 * 1024);
    // 48 s for all of it, so that a slow machine sees it on its way.
    let lines = "limits: { bytes_per_second: 512KiB }";
    let mut twinlog = Twinlog::start(&flow_config("held", "held", &from, &to, lines));
    await_bytes(&twinlog, MIB);
    twinlog.wait_until(DEADLINE, "it says how far it is", |status| {
        let flow = &status["flows"][0];
        let left = flow["first_copy"]["estimated_seconds"].as_f64();
        flow["limit_bytes_per_second"] == MIB / 2 && left > Some(5.0)
    });

    reload(&mut twinlog, "clusters: [");
    await_log(&twinlog, "the limits stay as they are");

    let lifted = flow_config("held", "held", &from, &to, "on_gap: record");
    reload(&mut twinlog, &lifted);
    await_log(&twinlog, "flows.held.on_gap");
    await_same(&from, &to, "held", Duration::from_secs(10));
    twinlog.wait_until(DEADLINE, "nothing limits it", |status| {
        status["flows"][0]["limit_bytes_per_second"].is_null()
    });

    // And back, while it is at rest.
    let halved = flow_config(
        "held",
        "held",
        &from,
        &to,
        "limits: { bytes_per_second: 256KiB, in_flight: 4MiB }",
    );
    reload(&mut twinlog, &halved);
    twinlog.wait_until(DEADLINE, "it is limited again", |status| {
        let flow = &status["flows"][0];
        flow["limit_bytes_per_second"] == MIB / 4 && flow["in_flight_limit_bytes"] == 4 * MIB
    });
    assert!(twinlog.ended().is_none());
    assert!(twinlog.terminate().success());
}

/// Behind an outage there is a backlog again, which isn't the first copy.
#[test]
fn what_is_left_of_a_backlog_is_told_with_the_time_that_it_takes() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, "behind", 1, &[]);
    produce_kibs(&from, "behind", 0, 100);
    let mut twinlog = Twinlog::start(&flow_config("behind", "behind", &from, &to, ""));
    await_same(&from, &to, "behind", DEADLINE);
    // The answer that tells Twinlog so is not to be lost with the broker: then it would still be the first copy.
    twinlog.wait_until(DEADLINE, "the first copy is over", |status| {
        status["flows"][0]["first_copy"].is_null() && is_caught_up(status, "behind", 0)
    });
    target.control(|state| state.stop_broker(1));
    produce_kibs(&from, "behind", 0, 24 * 1024);
    std::thread::sleep(Duration::from_secs(11));
    let slow = flow_config(
        "behind",
        "behind",
        &from,
        &to,
        "limits: { bytes_per_second: 512KiB }",
    );
    reload(&mut twinlog, &slow);
    await_log(&twinlog, "other limits from now on");
    target.control(|state| state.start_broker(1));
    let status = twinlog.wait_until(DEADLINE, "it catches up", |status| {
        let catch_up = &status["flows"][0]["catch_up"];
        catch_up["partitions"] == 1 && catch_up["estimated_seconds"].as_f64() > Some(3.0)
    });
    assert!(status["flows"][0]["first_copy"].is_null(), "{status:#}");
    let told = twinlog.command("status", &[]);
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("catching up: 1 partition"), "{told}");
    reload(
        &mut twinlog,
        &flow_config("behind", "behind", &from, &to, ""),
    );
    await_same(&from, &to, "behind", DEADLINE);
    twinlog.wait_until(DEADLINE, "nothing is left", |status| {
        status["flows"][0]["catch_up"].is_null()
    });
}
