//! The status report as tables that fit a terminal.

use std::cmp::Reverse;
use std::fmt::Write as _;

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, presets};

use super::first_copy;
use super::format::{bytes, clean, count, plural, seconds, short};
use super::metadata_lines;
use super::readiness_lines;
use super::verify_line;
use crate::telemetry::readiness;
use crate::telemetry::status::{
    CatchUp, FlowStatus, PartitionStatus, StatusReport, TopicStatus, Totals,
};
use crate::telemetry::up_to_date::in_words;

/// The width when there is no terminal to ask.
const WIDTH_DEFAULT: u16 = 80;
/// Narrower than this, the columns can't be read; lines are broken by the terminal then.
const WIDTH_MIN: u16 = 60;
/// More troubled partitions than this are counted instead of listed.
const TROUBLED_MAX: usize = 40;

/// The reason of a flow whose target is the primary.
const FAILED_OVER: &str = "failed_over";

/// What is shown, and how wide.
#[derive(Clone, Copy, Debug)]
pub struct TableOptions {
    /// Columns of the terminal.
    pub width: u16,
    /// List every partition instead of the troubled ones.
    pub every_partition: bool,
    /// List only so many topics: troubled ones and the furthest behind first.
    pub topics_max: Option<usize>,
}

/// The terminal's width, or `COLUMNS`, or 80.
pub(super) fn terminal_width() -> u16 {
    Table::new()
        .width()
        .or_else(|| std::env::var("COLUMNS").ok()?.parse().ok())
        .unwrap_or(WIDTH_DEFAULT)
}

/// The report as text, a line feed at its end.
pub fn render(report: &StatusReport, options: &TableOptions) -> String {
    let options = TableOptions {
        width: options.width.max(WIDTH_MIN),
        ..*options
    };
    let mut text = String::new();
    line(&mut text, &options, &readiness_line(report));
    for flow in &report.flows {
        text.push('\n');
        render_flow(&mut text, flow, report.now_ms, &options);
    }
    text
}

fn readiness_line(report: &StatusReport) -> String {
    match report.not_ready.as_slice() {
        [] => "READY".to_owned(),
        [only] => format!("NOT READY: {only}"),
        [first, rest @ ..] => format!("NOT READY: {first} (and {} more)", rest.len()),
    }
}

fn render_flow(text: &mut String, flow: &FlowStatus, now_ms: i64, options: &TableOptions) {
    let totals = &flow.totals;
    let head = format!(
        "flow {}: {} -> {}, {}{}",
        flow.name,
        flow.source,
        flow.target,
        flow.state,
        flow.reason
            .as_ref()
            .map_or_else(String::new, |reason| format!(" ({reason})"))
    );
    line(text, options, &head);
    if let Some(detail) = &flow.detail {
        line(text, options, &format!("  {detail}"));
    }
    // Of the whole flow its detail says it.
    if let Some(role) = flow.role.as_ref().filter(|role| role.topics.is_some()) {
        line(text, options, &format!("  {}", role.in_words()));
    }
    // Nothing is copied then: its sums are none, and what was seen last of the rest is out of date.
    let is_over = flow.reason.as_deref() == Some(FAILED_OVER);
    if let Some(protect) = flow.protect.as_ref().filter(|_| !is_over) {
        line(text, options, &format!("  {}", protect.in_words()));
    }
    let sums = format!(
        "  {} in {}: {}; lag {}, {}; {} records/s, {}/s; in flight {} of {}",
        plural(totals.partitions, "partition"),
        plural(flow.topics.len() as u64, "topic"),
        states(totals),
        match flow.discovered {
            true => format!(
                "{} records, {}",
                lag_records(totals),
                bytes(totals.lag_bytes as f64)
            ),
            false => "unknown".to_owned(),
        },
        seconds(totals.lag_seconds),
        short(totals.records_per_second),
        bytes(totals.bytes_per_second),
        bytes(flow.in_flight_bytes as f64),
        bytes(flow.in_flight_limit_bytes as f64),
    );
    if !is_over {
        line(text, options, &sums);
    }
    if flow.topics_to_prepare > 0 {
        let left = plural(flow.topics_to_prepare, "topic");
        line(text, options, &format!("  {left} still to be prepared"));
    }
    if let Some(rate) = flow.limit_bytes_per_second {
        let limit = format!("  limited to {}/s", bytes(rate as f64));
        line(text, options, &limit);
    }
    if flow.first_copy.is_some() {
        line(text, options, &format!("  {}", first_copy::line(flow)));
    } else if let Some(catch_up) = &flow.catch_up {
        line(text, options, &format!("  {}", catch_up_line(catch_up)));
    }
    if let Some(readiness) = &flow.failover {
        for content in readiness_lines::lines(readiness, &flow.target) {
            line(text, options, &content);
        }
    }
    if let Some(verify) = &flow.verify {
        for content in verify_line::lines(verify, now_ms) {
            line(text, options, &content);
        }
    }
    if let Some(metadata) = flow.metadata.as_ref().filter(|_| !is_over) {
        for content in metadata_lines::lines(metadata) {
            line(text, options, &content);
        }
    }
    if !flow.topics.is_empty() {
        render_topics(text, flow, options);
    }
    if options.every_partition {
        render_partitions(text, flow, options);
    } else {
        render_troubled(text, flow, options);
    }
}

fn catch_up_line(catch_up: &CatchUp) -> String {
    let left = match catch_up.estimated_seconds {
        Some(left) => format!("about {} left", seconds(left.ceil())),
        None => "nothing is gained on the source".to_owned(),
    };
    let remote = match catch_up.remote_records {
        0 => String::new(),
        records => format!(" ({} in remote storage)", count(records)),
    };
    format!(
        "catching up: {}, {} records{remote}, {}: {left}",
        plural(catch_up.partitions, "partition"),
        count(catch_up.lag_records),
        bytes(catch_up.lag_bytes as f64),
    )
}

fn render_topics(text: &mut String, flow: &FlowStatus, options: &TableOptions) {
    let mut topics: Vec<&TopicStatus> = flow.topics.iter().collect();
    let limit = options.topics_max.unwrap_or(usize::MAX);
    if topics.len() > limit {
        topics.sort_by_key(|topic| {
            let totals = &topic.totals;
            (
                Reverse(totals.stopped),
                Reverse(totals.retrying),
                Reverse(totals.lag_records),
                topic.name.as_str(),
            )
        });
    }
    let mut table = table(
        options.width,
        &[
            "TOPIC", "PARTS", "STATE", "OFFSETS", "LAG", "BEHIND", "RATE/S",
        ],
        &[1, 4, 5, 6],
    );
    for topic in topics.iter().take(limit) {
        let totals = &topic.totals;
        table.add_row([
            clean(&topic.name),
            totals.partitions.to_string(),
            states(totals),
            topic.offsets.clone().unwrap_or_else(|| "?".to_owned()),
            lag_records(totals),
            seconds(totals.lag_seconds),
            short(totals.records_per_second),
        ]);
    }
    push_table(text, &table);
    if topics.len() > limit {
        let more = topics.len() - limit;
        line(text, options, &format!("  and {more} more topics"));
    }
    for topic in topics.iter().take(limit) {
        if let Some(reason) = &topic.offsets_reason {
            let name = &topic.name;
            line(
                text,
                options,
                &format!("  {name}: offsets are mapped: {reason}"),
            );
        }
    }
}

fn render_partitions(text: &mut String, flow: &FlowStatus, options: &TableOptions) {
    let offset = |value: Option<i64>| value.map_or_else(|| "?".to_owned(), count);
    let mut table = table(
        options.width,
        &[
            "PARTITION",
            "STATE",
            "POSITION",
            "ON TARGET",
            "END",
            "LAG",
            "BEHIND",
        ],
        &[2, 3, 4, 5, 6],
    );
    for (topic, partition) in partitions(flow) {
        let state = match &partition.reason {
            Some(reason) => format!("{}: {}", partition.state, clean(reason)),
            None => partition.state.clone(),
        };
        table.add_row([
            format!("{}-{}", clean(&topic.name), partition.partition),
            state,
            offset(partition.source_position),
            if partition.target_position == partition.source_position {
                "same".to_owned()
            } else {
                offset(partition.target_position)
            },
            offset(partition.source_stable_end),
            offset(partition.lag_records),
            seconds(partition.lag_seconds),
        ]);
    }
    push_table(text, &table);
}

fn render_troubled(text: &mut String, flow: &FlowStatus, options: &TableOptions) {
    let mut troubled: Vec<_> = partitions(flow)
        .filter(|(_, partition)| {
            readiness::is_stuck(partition)
                || partition.missed_deletes.is_some()
                || (partition.is_troubled() && partition.state != "opening")
        })
        .collect();
    troubled.sort_by_key(|(_, partition)| partition.state != "stopped");
    for (topic, partition) in troubled.iter().take(TROUBLED_MAX) {
        let name = format!("{}-{}", topic.name, partition.partition);
        let what = match (&partition.reason, &partition.detail) {
            (Some(reason), Some(detail)) => format!("{} ({reason}): {detail}", partition.state),
            (Some(reason), None) => format!("{} ({reason})", partition.state),
            _ if let Some(restless) = &partition.restless => format!(
                "opened again and again for {} ({}): {}",
                seconds(restless.seconds),
                restless.reason,
                restless.detail
            ),
            _ if readiness::is_stuck(partition) => {
                format!("no progress for {}", seconds(partition.no_progress_seconds))
            }
            _ => match &partition.missed_deletes {
                Some(missed) => format!("missed deletes: {}", in_words(missed)),
                None => partition.state.clone(),
            },
        };
        line(text, options, &format!("  ! {name} {what}"));
    }
    if troubled.len() > TROUBLED_MAX {
        let more = (troubled.len() - TROUBLED_MAX) as u64;
        let more = plural(more, "troubled partition");
        line(text, options, &format!("  ! and {more} more"));
    }
}

fn partitions(flow: &FlowStatus) -> impl Iterator<Item = (&TopicStatus, &PartitionStatus)> {
    flow.topics
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(move |p| (topic, p)))
}

/// The states that occur, such as `copying` or `6 copying, 1 stopped`.
fn states(totals: &Totals) -> String {
    let states: Vec<(u64, &str)> = [
        (totals.stopped, "stopped"),
        (totals.retrying, "retrying"),
        (totals.opening, "opening"),
        (totals.copying, "copying"),
    ]
    .into_iter()
    .filter(|(partitions, _)| *partitions > 0)
    .collect();
    match states.as_slice() {
        [] => "none".to_owned(),
        [(_, state)] => (*state).to_owned(),
        several => several
            .iter()
            .map(|(partitions, state)| format!("{partitions} {state}"))
            .collect::<Vec<_>>()
            .join(", "),
    }
}

fn lag_records(totals: &Totals) -> String {
    if totals.partitions > 0 && totals.lag_unknown_partitions == totals.partitions {
        return "?".to_owned();
    }
    let more = if totals.lag_unknown_partitions > 0 {
        "+?"
    } else {
        ""
    };
    format!("{}{more}", count(totals.lag_records))
}

/// An empty table; the columns in `numbers` hold numbers.
pub(super) fn table(width: u16, head: &[&str], numbers: &[usize]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width)
        .set_header(head.iter().copied());
    for index in numbers {
        if let Some(column) = table.column_mut(*index) {
            // A number broken over two lines reads as another number.
            column.set_cell_alignment(CellAlignment::Right);
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    table
}

fn push_table(text: &mut String, table: &Table) {
    for line in table.to_string().lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

/// Writes a line, broken between words so that it fits; its beginning's indent is kept
/// and deepened.
fn line(text: &mut String, options: &TableOptions, content: &str) {
    let width = usize::from(options.width);
    let content = clean(content);
    let indent = content.len() - content.trim_start().len();
    let mut column = indent;
    let mut at_start = true;
    text.push_str(&" ".repeat(indent));
    for word in content.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        if !at_start && column + 1 + word.len() > width {
            text.push('\n');
            text.push_str(&" ".repeat(indent + 2));
            column = indent + 2;
        } else if !at_start {
            text.push(' ');
            column += 1;
        }
        at_start = false;
        // A word longer than the line, such as a long topic name, is cut.
        while column + word.len() > width {
            let rest = word.split_off(width - column);
            text.extend(word);
            text.push('\n');
            text.push_str(&" ".repeat(indent + 2));
            column = indent + 2;
            word = rest;
        }
        column += word.len();
        text.extend(word);
    }
    // Writing to a string can't fail.
    let _ = writeln!(text);
}
