//! `twinlog drill`: rehearses a failover on copies and writes the report.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::cutover::check_line;
use super::format::{bytes, clean};
use super::shutdown::Signals;
use super::{Exit, output};
use crate::config::{ClusterSection, Config, FlowConfig, Selector, parse_size};
use crate::cutover::{Check, Tell};
use crate::drill::{
    self, DrillError, Kind, Limits, Prepared, Request, Scope, Sealed, Verdict, copier,
};

/// The options of `drill`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 passed (with or without remarks), 1 failed, 2 usage or config, \
                        3 refused: another drill or a failover is under way."
)]
pub(super) struct DrillArgs {
    /// The flow; needed only if the config has several.
    #[arg(long, value_name = "NAME")]
    flow: Option<String>,
    /// Only topics whose whole name on the source matches; can be repeated.
    #[arg(long, value_name = "REGEX")]
    topic: Vec<String>,
    /// Copy topics up to about this size in all, the smallest first.
    #[arg(long, value_name = "BYTES", value_parser = parse_size, default_value = "256MiB")]
    bytes: u64,
    /// Copy this many partitions at most.
    #[arg(long, value_name = "PARTITIONS", default_value = "200")]
    partitions: usize,
    /// Bytes to copy and to compare per second at most, each.
    #[arg(long, value_name = "BYTES_PER_SECOND", value_parser = rate, default_value = "32MiB")]
    rate: u64,
    /// What is rehearsed.
    #[arg(long, value_enum, value_name = "WHAT", default_value = "both")]
    kind: What,
    /// Make nothing on the source: no topic of the drill's own, so no planned failover.
    #[arg(long)]
    no_source: bool,
    /// Compare about this many percent of the standby's records, 0 for none; by default as many as
    /// --bytes allows.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    verify: Option<f64>,
    /// Fail if clients stand still for longer.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    rto: Option<f64>,
    /// Fail if records of more than the last so many seconds are lost.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    rpo: Option<f64>,
    /// How long to wait for the copy, and for clients, each.
    #[arg(long, value_name = "SECONDS", default_value = "120")]
    wait: u64,
    /// Write the report (JSON, Markdown, SHA-256) to this folder; or, by a file's name, to that JSON file and
    /// two others beside it.
    #[arg(long, value_name = "DIR|FILE")]
    report: Option<PathBuf>,
    /// Leave everything that was made, so that you can look at it; the next drill removes it.
    #[arg(long)]
    keep: bool,
    /// Only remove what killed or kept drills have left.
    #[arg(long, conflicts_with_all = ["keep", "report", "topic"])]
    cleanup: bool,
    /// Do it; without this it is only shown.
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
    /// Only show it (the default).
    #[arg(long)]
    dry_run: bool,
}

/// What is rehearsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// A planned and an unplanned failover.
    Both,
    /// A planned one, on a topic of the drill's own.
    Planned,
    /// An unplanned one, on copies of the flow's topics.
    Unplanned,
}

fn rate(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        0 => Err("0 would copy nothing".to_owned()),
        size => Ok(size),
    }
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim();
    match number.parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err("expected a percentage from 0 to 100, such as 5%".to_owned()),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('s').unwrap_or(text).trim();
    match number.parse::<f64>() {
        Ok(seconds) if seconds >= 0.0 && seconds.is_finite() => Ok(seconds),
        _ => Err("expected seconds, such as 30".to_owned()),
    }
}

/// What earlier rehearsals left, as their names' beginnings.
#[derive(Serialize)]
struct Leftovers {
    leftovers: Vec<String>,
}

/// What is shown without `--yes`.
#[derive(Serialize)]
struct Shown<'a> {
    flow: &'a str,
    kinds: Vec<&'static str>,
    names_begin_with: String,
    scope: Scope,
    checks: &'a [Check],
    removed_first: &'a [String],
}

/// Shows, or carries out, a rehearsal.
pub(super) async fn run(config: &Config, path: &Path, args: &DrillArgs, json: bool) -> Exit {
    let (flow, source, target) = match ends(config, args) {
        Ok(found) => found,
        Err(problem) => return output::fail(Exit::Usage, &problem),
    };
    if args.cleanup {
        return clean_up(flow, source, target, args, json).await;
    }
    let request = match request(path, args) {
        Ok(request) => request,
        Err(problem) => return output::fail(Exit::Usage, &problem),
    };
    let kinds: Vec<&'static str> = request.kinds.iter().map(|kind| kind.word()).collect();
    // How it goes is on stderr: the answer alone is on stdout.
    let tell: Tell = Arc::new(move |line: &str| eprintln!("{}", clean(line)));
    let prepared = match drill::look(flow, source, target, request, tell).await {
        Ok(prepared) => prepared,
        Err(error) => return refuse(&error),
    };
    if !args.yes {
        return show(flow, kinds, &prepared, json);
    }
    // Before anything is made: a report that can't be written is no evidence.
    let place = match args
        .report
        .as_deref()
        .map(|to| place(to, &flow.name, &prepared))
    {
        None => None,
        Some(Ok(place)) => Some(place),
        Some(Err(problem)) => return output::fail(Exit::Usage, &problem),
    };
    let cancel = CancellationToken::new();
    let signals = match Signals::install() {
        Ok(signals) => signals,
        Err(error) => return output::fail(Exit::Failed, &error),
    };
    let driving = signals.drive(cancel.clone());
    tokio::pin!(driving);
    let sealed = tokio::select! {
        sealed = drill::run(prepared, &cancel) => sealed,
        () = &mut driving => return Exit::Failed,
    };
    match sealed {
        Ok(sealed) => account(&sealed, place.as_deref(), json),
        Err(error) => {
            if let Some(file) = place {
                // It was only tried whether it can be written.
                let _ = std::fs::remove_file(file);
            }
            refuse(&error)
        }
    }
}

/// Copies for a rehearsal; started by `drill` alone.
pub(super) async fn copy(config: &Config) -> Exit {
    match copier::copy(config).await {
        Ok(()) => Exit::Done,
        Err(problem) => output::fail(Exit::Failed, &problem),
    }
}

type Ends<'c> = (&'c FlowConfig, &'c ClusterSection, &'c ClusterSection);

fn ends<'c>(config: &'c Config, args: &DrillArgs) -> Result<Ends<'c>, String> {
    let flow = match (&args.flow, config.flows.len()) {
        (Some(name), _) => config.flows.get(name),
        (None, 1) => config.flows.values().next(),
        (None, _) => return Err("name one of the flows with --flow".to_owned()),
    };
    let flow = flow.ok_or_else(|| {
        format!(
            "there is no flow {}",
            args.flow.as_deref().unwrap_or_default()
        )
    })?;
    let cluster = |name: &str| {
        let found = config.clusters.get(name);
        found.ok_or_else(|| format!("there is no cluster {name}"))
    };
    Ok((flow, cluster(&flow.source)?, cluster(&flow.target)?))
}

fn request(path: &Path, args: &DrillArgs) -> Result<Request, String> {
    if args.no_source && args.kind == What::Planned {
        return Err(
            "a planned failover is rehearsed on a topic of the drill's own on the source: leave \
             --no-source out"
                .to_owned(),
        );
    }
    Ok(Request {
        config_file: path.to_owned(),
        topics: match args.topic.as_slice() {
            [] => None,
            patterns => Some(Selector::new::<String>(patterns, &[])?),
        },
        limits: Limits {
            bytes_max: args.bytes,
            partitions_max: args.partitions,
        },
        bytes_per_second: Some(args.rate),
        kinds: match args.kind {
            What::Both => vec![Kind::Planned, Kind::Unplanned],
            What::Planned => vec![Kind::Planned],
            What::Unplanned => vec![Kind::Unplanned],
        },
        may_use_source: !args.no_source,
        verify_percent: args.verify,
        rto_seconds_max: args.rto,
        rpo_seconds_max: args.rpo,
        wait: Duration::from_secs(args.wait),
        keep: args.keep,
    })
}

async fn clean_up(
    flow: &FlowConfig,
    source: &ClusterSection,
    target: &ClusterSection,
    args: &DrillArgs,
    json: bool,
) -> Exit {
    if !args.yes {
        return match drill::leftovers(flow, target).await {
            Ok(left) if json => output::print_answer(Leftovers { leftovers: left }),
            Ok(left) if left.is_empty() => output::print("nothing is left to remove\n"),
            Ok(left) => {
                let lines: String = left.iter().map(|root| format!("  {root}.*\n")).collect();
                output::print(&format!(
                    "would remove topics, groups and state named\n{}add --yes to do it\n",
                    lines
                ))
            }
            Err(error) => refuse(&error),
        };
    }
    match drill::clean_up(flow, source, target).await {
        Ok(done) => {
            let printed = if json {
                output::print_answer(&done)
            } else {
                output::print(&format!(
                    "{} drill(s): {} topic(s), {} group(s), {} ACL(s) and {} record(s) of state \
                     removed\n",
                    done.drills.len(),
                    done.topics,
                    done.groups,
                    done.acls,
                    done.state
                ))
            };
            if done.left.is_empty() {
                printed
            } else {
                output::fail(Exit::Failed, &clean(&done.left.join("; ")))
            }
        }
        Err(error) => refuse(&error),
    }
}

/// The path of the JSON report; the folder is there, or made.
fn place(to: &Path, flow: &str, prepared: &Prepared) -> Result<PathBuf, String> {
    let is_file = to.extension().is_some_and(|it| it == "json") && !to.is_dir();
    let (folder, file) = if is_file {
        let folder = to.parent().unwrap_or(Path::new("")).to_owned();
        (folder, to.to_owned())
    } else {
        let flow: String = flow
            .chars()
            .map(|letter| {
                if letter.is_ascii_alphanumeric() || "-_".contains(letter) {
                    letter
                } else {
                    '_'
                }
            })
            .collect();
        let name = format!("twinlog-drill-{flow}-{}.json", prepared.id());
        (to.to_owned(), to.join(name))
    };
    let problem = |error: std::io::Error| format!("{}: {error}", file.display());
    if !folder.as_os_str().is_empty() {
        std::fs::create_dir_all(&folder).map_err(problem)?;
    }
    // Evidence isn't overwritten.
    std::fs::File::create_new(&file).map_err(problem)?;
    Ok(file)
}

fn file_report(sealed: &Sealed, file: &Path) -> std::io::Result<()> {
    std::fs::write(file, &sealed.json)?;
    std::fs::write(file.with_extension("md"), sealed.markdown())?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    // As `sha256sum -c` reads it.
    let digest = format!("{}  {name}\n", sealed.sha256);
    std::fs::write(file.with_extension("json.sha256"), digest)
}

fn account(sealed: &Sealed, place: Option<&Path>, json: bool) -> Exit {
    let printed = if json {
        output::print(&sealed.json)
    } else {
        output::print(&sealed.markdown())
    };
    if let Some(file) = place {
        if let Err(error) = file_report(sealed, file) {
            return output::fail(Exit::Failed, &format!("{}: {error}", file.display()));
        }
        eprintln!("report: {}", file.display());
    }
    match sealed.report.verdict {
        Verdict::Passed | Verdict::PassedWithRemarks => printed,
        Verdict::Failed => Exit::Failed,
    }
}

fn refuse(error: &DrillError) -> Exit {
    let exit = if error.is_refusal {
        Exit::Refused
    } else {
        Exit::Failed
    };
    output::fail(exit, error)
}

fn show(flow: &FlowConfig, kinds: Vec<&'static str>, prepared: &Prepared, json: bool) -> Exit {
    let scope = prepared.scope();
    if json {
        return output::print_answer(Shown {
            flow: &flow.name,
            kinds,
            names_begin_with: prepared.root(),
            scope,
            checks: &prepared.checks,
            removed_first: &prepared.leftovers,
        });
    }
    let mut text = String::new();
    // Writing to a string can't fail.
    let _ = writeln!(
        text,
        "drill of flow {}: {} -> {} ({})",
        flow.name,
        flow.source,
        flow.target,
        kinds.join(", ")
    );
    for check in &prepared.checks {
        let _ = writeln!(text, "{}", check_line(check));
    }
    for id in &prepared.leftovers {
        let _ = writeln!(text, "removes first what drill {} has left", clean(id));
    }
    let _ = writeln!(
        text,
        "copies {} of {} topic(s) from {} to {}: {} partition(s), {} record(s), about {}",
        scope.topics_copied.len(),
        scope.topics_selected,
        flow.source,
        flow.target,
        scope.partitions_copied,
        scope.records_copied,
        bytes(scope.bytes_copied as f64)
    );
    for left in &scope.topics_left_out {
        let _ = writeln!(text, "  not {}: {}", clean(&left.topic), clean(&left.why));
    }
    let _ = writeln!(
        text,
        "makes on {} topics and groups named {}.*, and removes them",
        if scope.used_source {
            format!("{} and {}", flow.source, flow.target)
        } else {
            flow.target.clone()
        },
        prepared.root()
    );
    let _ = writeln!(text, "nothing was changed; --yes carries it out");
    output::print(&text)
}
