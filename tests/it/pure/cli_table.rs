//! `twinlog status` fits the terminal and says what is wrong.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use twinlog::cli::{TableOptions, render_status_table};
use twinlog::telemetry::progress::{FlowState, PartitionState, Registry, TopicNote, now_ms};
use twinlog::telemetry::status::StatusReport;

fn troubled_cluster() -> Registry {
    let registry = Registry::default();
    let flow = registry.flow("dr", "primary", "standby");
    flow.set_state(FlowState::Running);
    flow.discovered.store(true, Relaxed);
    flow.in_flight_limit_bytes.store(64 << 20, Relaxed);
    let long = "a.very.long.topic.name.".repeat(10);
    for (topic, end) in [
        ("orders", 1_000_000_000_000),
        (long.as_str(), 5),
        ("kurz_\u{fc}", 7),
    ] {
        let topic: Arc<str> = Arc::from(topic);
        flow.topics.insert(
            topic.clone(),
            TopicNote {
                target_topic: topic.to_string(),
                offsets: "mapped",
                reason: "the standby's user has no right to write markers ".repeat(4),
            },
        );
        for number in 0..3 {
            let partition = flow.partition(&topic, number);
            partition.source_position.store(0, Relaxed);
            partition.first_position.store(0, Relaxed);
            partition.source_stable_end.store(end, Relaxed);
            partition.set_state(PartitionState::Copying);
        }
    }
    flow.partition(&Arc::from("orders"), 1)
        .set_state(PartitionState::Stopped {
            reason: "foreign_write",
            detail: format!(
                "another producer writes to the mirror \u{1b}[31m{}",
                "x".repeat(200)
            ),
        });
    registry
}

fn render(every_partition: bool, width: u16) -> String {
    let report = StatusReport::build(&troubled_cluster(), now_ms() + 5_000);
    let options = TableOptions {
        width,
        every_partition,
        topics_max: None,
    };
    render_status_table(&report, &options)
}

fn assert_fits(text: &str, width: usize) {
    for line in text.lines() {
        let columns = line.chars().count();
        assert!(columns <= width, "{columns} columns in {line:?}\n{text}");
    }
}

#[test]
fn every_line_fits_80_columns() {
    assert_fits(&render(false, 80), 80);
    assert_fits(&render(true, 80), 80);
    assert_fits(&render(false, 120), 120);
}

#[test]
fn troubled_partitions_are_named_with_their_reason() {
    let text = render(false, 80);
    assert!(
        text.starts_with("NOT READY: flow dr, orders-1 is stopped"),
        "{text}"
    );
    assert!(
        text.contains("! orders-1 stopped (foreign_write): another producer"),
        "{text}"
    );
    assert!(text.contains("1 stopped, 8 copying"), "{text}");
    assert!(text.contains("first copy 0.0 %"), "{text}");
    assert!(
        !text.contains('\u{1b}'),
        "a detail reached the terminal uncleaned"
    );
}

#[test]
fn numbers_are_never_broken() {
    for every_partition in [false, true] {
        let text = render(every_partition, 80);
        let number = if every_partition {
            "1,000,000,000,000"
        } else {
            "3,000,000,000,000"
        };
        let table = text
            .lines()
            .filter(|line| line.starts_with(' ') && !line.starts_with("  "));
        assert!(
            table.into_iter().any(|line| line.contains(number)),
            "{text}"
        );
    }
}

#[test]
fn every_partition_can_be_listed() {
    let text = render(true, 100);
    for name in ["orders-0", "orders-1", "orders-2", "kurz_\u{fc}-2"] {
        assert!(text.contains(name), "{name} is not in\n{text}");
    }
}

#[test]
fn only_so_many_topics_are_listed_troubled_ones_first() {
    let report = StatusReport::build(&troubled_cluster(), now_ms());
    let options = TableOptions {
        width: 80,
        every_partition: false,
        topics_max: Some(1),
    };
    let text = render_status_table(&report, &options);
    assert!(
        text.lines()
            .any(|line| line.trim_start().starts_with("orders ")),
        "{text}"
    );
    assert!(text.contains("and 2 more topics"), "{text}");
}
