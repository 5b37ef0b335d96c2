//! `twinlog verify`: whether the target has what the source has.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::format::{bytes, clean, count, plural, seconds, short};
use super::{Exit, output, verify_line};
use crate::config::{Config, Selector, parse_size};
use crate::connect;
use crate::flow;
use crate::metadata;
use crate::state::{StateError, StateStore};
use crate::telemetry::progress::now_ms;
use crate::telemetry::up_to_date::in_words;
use crate::telemetry::verify::VerifySummary;
use crate::verify::{
    self, Difference, MetadataFound, Mode, Phase, Progress, Report, Request, Sampling, Verdict,
    VerifyError,
};

/// How often progress is shown on a terminal, and in a log.
const LINE_EVERY_TERMINAL: Duration = Duration::from_secs(1);
const LINE_EVERY_LOG: Duration = Duration::from_secs(30);
/// No more differences are shown to a person; `--json` has those that the report lists.
const SHOWN_MAX: usize = 50;
/// No more names of what only the target has are shown.
const NAMES_SHOWN: usize = 10;

/// The options of `verify`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 the same, 1 something differs or could not be compared (the \
                        report says which), 2 usage or config."
)]
pub(super) struct VerifyArgs {
    /// The flow; needed only if the config has several.
    #[arg(long, value_name = "NAME")]
    flow: Option<String>,
    /// Only topics whose whole name on the source matches; can be repeated.
    #[arg(long, value_name = "REGEX")]
    topic: Vec<String>,
    /// Compare partitions, log starts and ends, configs, ACLs, quotas, users and groups, no records: the
    /// default.
    #[arg(long, conflicts_with_all = ["sample", "full"])]
    quick: bool,
    /// Compare about this many percent of the records too, drawn by chance.
    #[arg(long, value_name = "PERCENT", value_parser = percent, conflicts_with = "full")]
    sample: Option<f64>,
    /// Compare every record too.
    #[arg(long)]
    full: bool,
    /// With --sample: draw the ranges of an earlier run again.
    #[arg(long, value_name = "NUMBER", requires = "sample")]
    seed: Option<u64>,
    /// Bytes to read per second at most, both sides together, such as 50MiB.
    #[arg(long, value_name = "BYTES_PER_SECOND", value_parser = rate)]
    rate: Option<u64>,
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim();
    match number.parse::<f64>() {
        Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent),
        _ => Err("expected a percentage above 0 and up to 100, such as 5%".to_owned()),
    }
}

fn rate(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        0 => Err("0 would read nothing".to_owned()),
        size => Ok(size),
    }
}

/// Compares, prints the report and stores its sums on the target.
pub(super) async fn run(config: &Config, args: &VerifyArgs, json: bool) -> Exit {
    let request = match request(config, args) {
        Ok(request) => request,
        Err(problem) => return output::fail(Exit::Usage, &problem),
    };
    let report = match compare(config, &request).await {
        Ok(report) => report,
        Err(error) => {
            let exit = output::fail(Exit::Failed, &output::chain(&error));
            let is_source = matches!(error, VerifyError::Silent { side: "source", .. });
            if is_source && !json {
                tell_last(&request).await;
            }
            return exit;
        }
    };
    let printed = if json {
        output::print_json(&report)
    } else {
        output::print(&render(&report))
    };
    match report.verdict {
        Verdict::Same => printed,
        Verdict::Different | Verdict::Incomplete => Exit::Failed,
    }
}

fn request(config: &Config, args: &VerifyArgs) -> Result<Request, String> {
    let flow = config.flow(args.flow.as_deref())?;
    let cluster = |name: &str| {
        let found = config.clusters.get(name).cloned();
        found.ok_or_else(|| format!("there is no cluster {name}"))
    };
    let topics = match args.topic.as_slice() {
        [] => None,
        patterns => Some(Selector::new::<String>(patterns, &[])?),
    };
    let mode = match (args.full, args.sample) {
        (true, _) => Mode::Full,
        (false, Some(_)) => Mode::Sample,
        (false, None) => Mode::Quick,
    };
    Ok(Request {
        source: cluster(&flow.source)?,
        target: cluster(&flow.target)?,
        flow: flow.clone(),
        topics,
        mode,
        sampling: Sampling {
            percent: args.sample.unwrap_or(100.0),
            seed: args.seed.unwrap_or_else(rand::random),
        },
        bytes_per_second: args.rate,
        partitions_at_once: verify::PARTITIONS_AT_ONCE,
        again_within: Some(verify::AGAIN_WITHIN),
    })
}

/// What the target remembers of the last comparisons: all that can be said without the source.
async fn tell_last(request: &Request) {
    let target = connect::cluster(&request.target);
    let Ok(Some(store)) = StateStore::open_existing(&target).await else {
        return;
    };
    let Ok(record) = verify::last(&store, &request.flow.name) else {
        return;
    };
    let summary = VerifySummary {
        last: record.last,
        background: None,
    };
    let lines = verify_line::lines(&summary, now_ms());
    if !lines.is_empty() {
        let flow = clean(&request.flow.name);
        output::print(&format!(
            "flow {flow}, by the target\n{}\n",
            lines.join("\n")
        ));
    }
}

async fn compare(config: &Config, request: &Request) -> Result<Report, VerifyError> {
    verify::reach(&request.source, &request.target).await?;
    let target = connect::cluster(&request.target);
    // Not made by looking.
    if StateStore::open_existing(&target).await?.is_none() {
        return Err(VerifyError::NoState);
    }
    let store = StateStore::open(&target, &request.flow.name).await?;
    let progress = Arc::new(Progress::default());
    let cancel = CancellationToken::new();
    let comparing = verify::verify(request, &store, progress.clone(), &cancel);
    let mut report = tokio::select! {
        report = comparing => report?,
        () = show(&progress) => return Err(VerifyError::Cancelled),
    };
    report.set_metadata(metadata(config, request, &store).await);
    if request.topics.is_none() {
        // The report counts, whether it can be remembered or not.
        if let Err(error) = verify::remember(&store, &report).await {
            tracing::warn!("the result could not be stored on the target: {error}");
        }
    }
    Ok(report)
}

/// ACLs, quotas, users and what is held: librdkafka's Rust API has none of them, so they are compared as
/// `plan` does. What differs is looked at again, since `run` may be about to change it.
async fn metadata(config: &Config, request: &Request, store: &StateStore) -> MetadataFound {
    let mut only = config.clone();
    only.flows.retain(|name, _| *name == request.flow.name);
    let found = look_at_metadata(&only, request, store).await;
    if !found.differs() {
        return found;
    }
    let pause = verify::again_after(request.flow.metadata.interval, request.again_within);
    let line = format!(
        "ACLs, quotas, users or what is held differ: looking again in {}, since `run` may be about to mend them",
        seconds(pause.as_secs_f64().ceil())
    );
    // Nobody may be reading.
    let _ = writeln!(std::io::stderr(), "{line}");
    tokio::time::sleep(pause).await;
    let again = look_at_metadata(&only, request, store).await;
    again.lasting(&found)
}

async fn look_at_metadata(config: &Config, request: &Request, store: &StateStore) -> MetadataFound {
    let looked = async {
        if let Some(why) = verify::why_no_standby(store, &request.flow)? {
            return Ok(MetadataFound::skipped(&why));
        }
        let changes = flow::plan(config).await;
        store.refresh().await?;
        let held = metadata::held(store, &request.flow.name)?;
        let rules = &request.flow.metadata;
        Ok::<_, StateError>(MetadataFound::new(rules, &changes, &held))
    };
    let failed = |error| MetadataFound::failed(&output::chain(&error));
    looked.await.unwrap_or_else(failed)
}

/// Shows progress; never ends.
async fn show(progress: &Progress) {
    let every = if std::io::stderr().is_terminal() {
        LINE_EVERY_TERMINAL
    } else {
        LINE_EVERY_LOG
    };
    let started = Instant::now();
    loop {
        tokio::time::sleep(every).await;
        let line = progress_line(progress, started.elapsed());
        // Nobody may be reading.
        let _ = writeln!(std::io::stderr(), "{line}");
    }
}

fn progress_line(progress: &Progress, elapsed: Duration) -> String {
    let (ratio, elapsed) = (progress.ratio(), elapsed.as_secs_f64());
    match progress.phase() {
        Phase::Preparing => "asking both clusters what there is".to_owned(),
        Phase::SecondLook => "looking at differences again".to_owned(),
        Phase::Groups => "comparing groups".to_owned(),
        Phase::Records => {
            let mut line = format!(
                "{:.1} %, {} records/s, {}/s",
                // Rounding up to 100 would say that it is done.
                (ratio * 100.0).min(99.9),
                short(progress.records() as f64 / elapsed),
                bytes(progress.bytes() as f64 / elapsed),
            );
            if ratio > 0.0 {
                let left = elapsed / ratio - elapsed;
                line.push_str(&format!(", about {} left", seconds(left.ceil())));
            }
            line
        }
    }
}

fn render(report: &Report) -> String {
    let mut text = String::new();
    let totals = &report.totals;
    let mode = match (report.mode, &report.sample) {
        (Mode::Quick, _) => "quick: no records were compared".to_owned(),
        (Mode::Full, _) => "full".to_owned(),
        (Mode::Sample, sample) => {
            let (percent, seed) = sample.as_ref().map_or((0.0, 0), |s| (s.percent, s.seed));
            format!("sample of {percent} %, --seed {seed}")
        }
    };
    // Writing to a string can't fail.
    let _ = writeln!(text, "flow {} ({mode})", clean(&report.flow));
    let _ = writeln!(
        text,
        "  {}, {} of {} offsets compared ({:.1} %), {} records, {}",
        plural(totals.partitions, "partition"),
        count(report.coverage.compared_offsets),
        count(report.coverage.comparable_offsets),
        report.coverage.ratio * 100.0,
        count(i64::try_from(totals.records).unwrap_or(i64::MAX)),
        bytes(totals.bytes as f64),
    );
    let groups = &report.groups;
    let _ = writeln!(
        text,
        "  {}, {} of {} where they should be",
        plural(groups.groups, "group"),
        groups.same,
        plural(groups.positions, "position"),
    );
    for (reason, behind) in &groups.behind {
        let _ = writeln!(
            text,
            "    {} behind: {}",
            count(*behind as i64),
            clean(reason)
        );
    }
    notes(&mut text, report);
    for difference in report.differences.iter().take(SHOWN_MAX) {
        let _ = writeln!(text, "  ! {}", difference_line(difference));
    }
    for (what, list) in [
        ("believed from the copier", &report.believed),
        ("not looked at", &report.not_looked_at),
    ] {
        if !list.is_empty() {
            let _ = writeln!(text, "  {what}: {}", clean(&list.join("; ")));
        }
    }
    let all: u64 = totals.differences.values().sum();
    let more = all.saturating_sub(report.differences.len().min(SHOWN_MAX) as u64);
    if more > 0 {
        let _ = writeln!(
            text,
            "  ! and {more} more; --json lists up to 100 a partition"
        );
    }
    let _ = writeln!(text, "{}", verdict(report, all));
    text
}

/// What isn't wrong, but should be known; what couldn't be compared.
fn notes(text: &mut String, report: &Report) {
    let totals = &report.totals;
    let mut note = |is_there: bool, line: String| {
        if is_there {
            let _ = writeln!(text, "  {line}");
        }
    };
    note(
        totals.lag_offsets > 0,
        format!("{} offsets not copied yet", count(totals.lag_offsets)),
    );
    note(
        totals.not_comparable_offsets > 0,
        format!(
            "{} offsets that only one side still has",
            count(totals.not_comparable_offsets)
        ),
    );
    note(
        totals.lost_offsets > 0,
        format!(
            "? {} of these the target has lost, and its retention didn't take them",
            count(totals.lost_offsets)
        ),
    );
    note(
        totals.before_copy_offsets > 0,
        format!(
            "{} offsets of the source are before the copies' beginnings: not compared",
            count(totals.before_copy_offsets)
        ),
    );
    note(
        totals.compacted > 0,
        format!(
            "{} records that a cleaner took on one side so far",
            count(totals.compacted as i64)
        ),
    );
    note(
        totals.unreadable_headers > 0,
        format!(
            "{} headers whose keys aren't UTF-8 were only counted",
            count(totals.unreadable_headers as i64)
        ),
    );
    let own = report.groups.only_on_target.keys();
    note(
        own.len() > 0,
        format!(
            "groups with positions that only the target has, which stay: {}",
            some(own)
        ),
    );
    let own = report.topics_only_on_target.iter();
    note(
        own.len() > 0,
        format!("topics that only the target has, which stay: {}", some(own)),
    );
    for topic in &report.topics_not_copied {
        note(true, format!("? {}: not copied at all yet", clean(topic)));
    }
    for partition in &report.partitions {
        let place = format!("{}-{}", clean(&partition.topic), partition.partition);
        if let Some(failure) = &partition.failure {
            note(true, format!("? {place}: {}", clean(failure)));
        }
        if let Some(late) = &partition.late {
            note(
                true,
                format!("? {place}: {} ({})", late, count(partition.begins_at)),
            );
        }
        if let Some(missed) = &partition.missed_deletes {
            let what = "may have missed deletes; --full lists what it has more than the source";
            note(true, format!("? {place} {what}: {}", in_words(missed)));
        }
    }
    for line in &report.not_compared {
        note(true, format!("? {}", clean(line)));
    }
    for line in &report.groups.not_compared {
        note(true, format!("? groups: {}", clean(line)));
    }
    for (what, compared) in [
        ("configs", &report.configs),
        ("ACLs", &report.acls),
        ("quotas", &report.quotas),
        ("users", &report.users),
        ("held", &report.held),
        ("replicas", &report.replicas),
    ] {
        for line in &compared.not_compared {
            note(true, format!("? {what}: {}", clean(line)));
        }
        for line in compared.only_on_target.iter().take(NAMES_SHOWN) {
            note(
                true,
                format!("{what} that only the target has: {}", clean(line)),
            );
        }
        if let Some(why) = &compared.skipped {
            note(true, format!("{what} weren't compared: {}", clean(why)));
        }
    }
}

/// A few names and how many there are.
fn some<'n>(names: impl ExactSizeIterator<Item = &'n String>) -> String {
    let more = names.len().saturating_sub(NAMES_SHOWN);
    let mut shown: Vec<String> = names.take(NAMES_SHOWN).map(|it| clean(it)).collect();
    if more > 0 {
        shown.push(format!("{more} more"));
    }
    shown.join(", ")
}

fn difference_line(difference: &Difference) -> String {
    let mut line = String::new();
    if let Some(topic) = &difference.topic {
        line.push_str(&clean(topic));
        if let Some(partition) = difference.partition {
            let _ = write!(line, "-{partition}");
        }
        line.push(' ');
    }
    if let Some(group) = &difference.group {
        let _ = write!(line, "group {} ", clean(group));
    }
    match (difference.source_offset, difference.target_offset) {
        (Some(source), Some(target)) if source == target => {
            let _ = write!(line, "at {source} ");
        }
        (source, target) => {
            if let Some(source) = source {
                let _ = write!(line, "source offset {source} ");
            }
            if let Some(target) = target {
                let _ = write!(line, "target offset {target} ");
            }
        }
    }
    let kind = difference.kind.word();
    let _ = write!(line, "{kind}: {}", clean(&difference.detail));
    line
}

fn verdict(report: &Report, differences: u64) -> String {
    let took = seconds((report.ended_ms - report.started_ms).max(0) as f64 / 1_000.0);
    match report.verdict {
        Verdict::Same => format!("the same (took {took})"),
        Verdict::Different => {
            format!(
                "different: {} (took {took})",
                plural(differences, "difference")
            )
        }
        Verdict::Incomplete => {
            format!(
                "incomplete: nothing differs, but not everything could be compared (took {took})"
            )
        }
    }
}
