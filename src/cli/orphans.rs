//! `twinlog orphans`: records that a failover left behind on the old primary, and what becomes of
//! them.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::format::{clean, plural, seconds, short};
use super::{Exit, orphans_text, output};
use crate::config::{Config, FlowConfig};
use crate::orphans::{
    self, Decided, ExportOptions, Listing, OrphansError, Phase, Progress, ReplayOptions,
    ReplayResult, Scene,
};
use crate::state::OrphanChoice;

const LINE_EVERY_TERMINAL: Duration = Duration::from_secs(1);
const LINE_EVERY_LOG: Duration = Duration::from_secs(30);

/// The options of `orphans`.
#[derive(Debug, Args)]
#[command(
    after_help = "Without --export, --replay, --dismiss or --keep it lists them. A decision is made \
                  for what is there now: what comes later is undecided again. Keys that are shown \
                  are content of records.\n\nExit codes: 0 done, 1 failed (the old primary doesn't \
                  answer), 2 usage or config."
)]
pub(super) struct OrphansArgs {
    /// The flow; may be left out when the config has only one.
    #[arg(long, value_name = "NAME")]
    flow: Option<String>,
    /// Only this topic, by its name on the source; may be given several times.
    #[arg(long = "topic", value_name = "TOPIC")]
    topics: Vec<String>,
    /// Also read what was written on the new primary since the fork, for keys that both have.
    #[arg(long)]
    conflicts: bool,
    /// Write them to files in this folder: JSON lines, and raw batches.
    #[arg(long, value_name = "DIR", group = "what")]
    export: Option<PathBuf>,
    /// With --export: replace the files of an earlier export.
    #[arg(long, requires = "export")]
    force: bool,
    /// Append them to the new primary, each exactly once, with the header twinlog.orphan.
    #[arg(long, group = "what")]
    replay: bool,
    /// With --replay: records in one transaction at most.
    #[arg(
        long,
        value_name = "RECORDS",
        default_value = "5000",
        requires = "replay",
        value_parser = clap::value_parser!(u32).range(1..=50_000)
    )]
    batch: u32,
    /// They are not wanted.
    #[arg(long, group = "what")]
    dismiss: bool,
    /// Leave them in the old primary's log, at their own offsets.
    #[arg(long, group = "what")]
    keep: bool,
    /// Carry out --replay, --dismiss or --keep.
    #[arg(long, conflicts_with_all = ["dry_run", "export"])]
    yes: bool,
    /// Only show what --replay, --dismiss or --keep would do (the default).
    #[arg(long)]
    dry_run: bool,
}

/// What is answered in JSON where a decision was asked for.
#[derive(Serialize)]
struct Answer<'a> {
    decision: &'static str,
    applied: bool,
    /// What it is about.
    listing: &'a Listing,
    /// What was recorded; empty without `--yes`.
    decided: &'a [Decided],
    /// What `--replay` did.
    replay: Option<&'a ReplayResult>,
}

/// Lists, exports, or decides.
pub(super) async fn run(config: &Config, args: &OrphansArgs, json: bool) -> Exit {
    let (flow, source, target) = match parts(config, args) {
        Ok(parts) => parts,
        Err(problem) => return output::fail(Exit::Usage, &problem),
    };
    let progress = Arc::new(Progress::default());
    let work = async {
        let mut scene = Scene::open(flow, source, target, &args.topics).await?;
        act(&mut scene, args, &progress, json).await
    };
    let ended = tokio::select! {
        ended = work => ended,
        () = show(&progress) => return Exit::Failed,
    };
    ended.unwrap_or_else(|error: OrphansError| output::fail(Exit::Failed, &error))
}

type Parts<'a> = (
    &'a FlowConfig,
    &'a crate::config::ClusterSection,
    &'a crate::config::ClusterSection,
);

fn parts<'a>(config: &'a Config, args: &OrphansArgs) -> Result<Parts<'a>, String> {
    let flow = match (&args.flow, config.flows.len()) {
        (Some(name), _) => config
            .flows
            .get(name)
            .ok_or_else(|| format!("there is no flow {name}"))?,
        (None, 1) => config
            .flows
            .values()
            .next()
            .ok_or_else(|| "the config has no flow".to_owned())?,
        (None, _) => return Err("name one of the flows with --flow".to_owned()),
    };
    let cluster = |name: &str| {
        let found = config.clusters.get(name);
        found.ok_or_else(|| format!("there is no cluster {name}"))
    };
    Ok((flow, cluster(&flow.source)?, cluster(&flow.target)?))
}

async fn act(
    scene: &mut Scene,
    args: &OrphansArgs,
    progress: &Arc<Progress>,
    json: bool,
) -> Result<Exit, OrphansError> {
    let choice = match (args.replay, args.dismiss, args.keep) {
        (true, _, _) => Some(OrphanChoice::Replay),
        (_, true, _) => Some(OrphanChoice::Dismiss),
        (_, _, true) => Some(OrphanChoice::Keep),
        _ => None,
    };
    if choice.is_some() {
        scene.may_decide().await?;
    }
    let listing = orphans::list(scene, args.conflicts, progress).await?;
    if let Some(folder) = &args.export {
        let options = ExportOptions {
            folder: folder.clone(),
            force: args.force,
        };
        let manifest = orphans::export(scene, &listing, &options, progress).await?;
        return Ok(if json {
            output::print_json(&manifest)
        } else {
            output::print(&format!(
                "{} of {} written to {}\n",
                plural(manifest.records, "record"),
                plural(manifest.partitions.len() as u64, "partition"),
                folder.display()
            ))
        });
    }
    let Some(choice) = choice else {
        return Ok(if json {
            output::print_json(&listing)
        } else {
            output::print(&orphans_text::listing(&listing))
        });
    };
    if !json {
        output::print(&orphans_text::listing(&listing));
    }
    if !args.yes {
        return Ok(if json {
            answer(choice, &listing, &[], None)
        } else {
            output::print(&orphans_text::would(choice, &listing))
        });
    }
    if choice == OrphanChoice::Replay {
        let options = ReplayOptions {
            records_per_transaction: usize::try_from(args.batch).unwrap_or(usize::MAX),
        };
        let result = orphans::replay(scene, options, progress).await?;
        return Ok(if json {
            answer(choice, &listing, &result.decided, Some(&result))
        } else {
            output::print(&orphans_text::decided(&result.decided))
        });
    }
    let decided = orphans::decide(scene, &listing, choice).await?;
    Ok(if json {
        answer(choice, &listing, &decided, None)
    } else {
        output::print(&orphans_text::decided(&decided))
    })
}

fn answer(
    choice: OrphanChoice,
    listing: &Listing,
    decided: &[Decided],
    replay: Option<&ReplayResult>,
) -> Exit {
    output::print_json(&Answer {
        decision: choice.word(),
        applied: !decided.is_empty() || replay.is_some(),
        listing,
        decided,
        replay,
    })
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
        let _ = writeln!(std::io::stderr(), "{}", clean(&line));
    }
}

fn progress_line(progress: &Progress, elapsed: Duration) -> String {
    let what = match progress.phase() {
        Phase::Asking => return "asking both clusters".to_owned(),
        Phase::Reading => "reading the orphans",
        Phase::Comparing => "reading what the new primary got since the fork",
        Phase::Exporting => "writing files",
        Phase::Replaying => "appending to the new primary",
    };
    format!(
        "{what}: {:.1} %, {} records, {} so far",
        // Rounding up to 100 would say that it is done.
        (progress.ratio() * 100.0).min(99.9),
        short(progress.records() as f64),
        seconds(elapsed.as_secs_f64()),
    )
}
