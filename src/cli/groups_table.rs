//! Reports on consumer groups as text.

use std::fmt::Write as _;

use super::format::{clean, count, plural, seconds};
use super::status_table::{table, terminal_width};
use crate::groups::RememberedGroup;
use crate::telemetry::groups::{
    FlowGroups, GroupExplained, GroupKind, GroupStatus, GroupsReport, PositionExplained, Watching,
};

/// Nine columns don't fit 80 characters: on a narrow terminal lines are broken by it.
fn width() -> u16 {
    terminal_width().max(100)
}

/// All groups, a line each.
pub(super) fn list(report: &GroupsReport) -> String {
    let mut text = String::new();
    if report.flows.is_empty() {
        text.push_str(
            "no flow follows groups now (groups.include is empty, or the flow hasn't begun or was failed over: see `twinlog status`)\n",
        );
    }
    for flow in &report.flows {
        flow_list(&mut text, flow, report.now_ms);
    }
    text
}

fn flow_list(text: &mut String, flow: &FlowGroups, now_ms: i64) {
    // Writing to a string can't fail.
    let _ = writeln!(
        text,
        "flow {}: {}; source {}, target {}; {}",
        clean(&flow.flow),
        plural(flow.groups.len() as u64, "group"),
        watching(&flow.source),
        watching(&flow.target),
        match i64::try_from(flow.commits).unwrap_or(i64::MAX) {
            1 => "1 commit made".to_owned(),
            commits => format!("{} commits made", count(commits)),
        },
    );
    if flow.groups.is_empty() {
        return;
    }
    let head = [
        "group",
        "state",
        "parts",
        "source",
        "target",
        "behind",
        "re-read",
        "committed",
        "delay",
    ];
    let mut table = table(width(), &head, &[2, 3, 4, 5, 6, 7, 8]);
    for group in &flow.groups {
        table.add_row(row(group, now_ms));
    }
    let _ = writeln!(text, "{table}");
}

fn row(group: &GroupStatus, now_ms: i64) -> Vec<String> {
    let reread = match group.unplaced_partitions {
        0 => count(group.reread_records),
        n => format!("{} + {} unplaced", count(group.reread_records), n),
    };
    let ago = |at_ms: i64| seconds((now_ms - at_ms).max(0) as f64 / 1_000.0) + " ago";
    vec![
        named(&group.group, group.kind),
        group.state.clone(),
        group.partitions.to_string(),
        count(group.source_position),
        count(group.target_position),
        count(group.behind_records),
        reread,
        group.committed_at_ms.map_or_else(|| "-".to_owned(), ago),
        group
            .delay_ms
            .map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms")),
    ]
}

/// A group's name, with its kind where that isn't the usual one.
fn named(group: &str, kind: GroupKind) -> String {
    match kind {
        GroupKind::Consumer => clean(group),
        GroupKind::Share => format!("{} (share)", clean(group)),
    }
}

fn watching(watching: &Watching) -> String {
    match &watching.detail {
        Some(detail) => format!("{} ({})", watching.state, clean(detail)),
        None if watching.way == "poll" => format!("{} by polling", watching.state),
        None => watching.state.clone(),
    }
}

/// One group, position by position.
pub(super) fn explained(group: &GroupExplained) -> String {
    let status = &group.status;
    let mut text = format!(
        "group {} in flow {}: {}, {}, would read {} records again\n",
        named(&status.group, status.kind),
        clean(&group.flow),
        status.state,
        plural(status.partitions, "partition"),
        count(status.reread_records),
    );
    for position in &group.partitions {
        explain_position(&mut text, position);
    }
    text
}

fn explain_position(text: &mut String, position: &PositionExplained) {
    let name = format!("{}-{}", clean(&position.topic), position.partition);
    let _ = writeln!(text, "\n{name}: {}", position.state);
    for (number, step) in (1..).zip(&position.steps) {
        let _ = writeln!(text, "  {number}. {}", clean(step));
    }
    match position.reread_records {
        Some(0) => {}
        Some(records) => {
            let _ = writeln!(
                text,
                "  if the failover happened now, {} records would be read again at most",
                count(records)
            );
        }
        None if position.source_offset.is_some() => {
            let _ = writeln!(
                text,
                "  if the failover happened now, the group would have no position here"
            );
        }
        None => {}
    }
}

/// What the target remembers.
pub(super) fn remembered(groups: &[RememberedGroup]) -> String {
    if groups.is_empty() {
        return "the target remembers no group\n".to_owned();
    }
    let head = [
        "flow",
        "group",
        "partition",
        "source",
        "committed by us",
        "on target now",
    ];
    let mut table = table(width(), &head, &[3, 4, 5]);
    let mut unknown = String::new();
    for group in groups {
        // Who says nothing doesn't say that there is none.
        let none = if group.unknown.is_some() { "?" } else { "-" };
        if let Some(why) = &group.unknown {
            unknown.push_str(&format!("{}: {}\n", clean(&group.group), clean(why)));
        }
        for position in &group.positions {
            let now = position.on_target;
            table.add_row([
                clean(&group.flow),
                named(&group.group, group.kind),
                format!("{}-{}", clean(&position.topic), position.partition),
                count(position.source_offset),
                count(position.target_offset),
                now.map_or_else(|| none.to_owned(), count),
            ]);
        }
    }
    format!("{table}\n{unknown}")
}
