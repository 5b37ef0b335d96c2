//! `twinlog orphans`: records that a failover left behind on the old primary, and what becomes of
//! them.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
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
/// More of one thing are counted, not named.
const NAMED_MAX: usize = 5;

/// The options of `orphans`.
#[derive(Debug, Args)]
#[command(
    after_help = "Without --export, --replay, --dismiss or --keep it lists them. A decision is made \
                  for what is there now: what comes later is undecided again. Keys that are shown \
                  are content of records.\n\nExit codes: 0 done, 1 failed (the old primary doesn't \
                  answer, or part of it couldn't be read), 2 usage or config."
)]
pub(super) struct OrphansArgs {
    /// The flow; needed only if the config has several.
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
    /// Record that they are not wanted.
    #[arg(long, group = "what")]
    dismiss: bool,
    /// Leave them in the old primary's log, at their own offsets.
    #[arg(long, group = "what")]
    keep: bool,
    /// Carry out --replay, --dismiss or --keep.
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
    /// Only show it: the default, except for --export, which changes no cluster and writes its files at
    /// once.
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
    let flow = config.flow(args.flow.as_deref())?;
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
    let left_out = left_out(&listing);
    if let Some(folder) = &args.export {
        if args.dry_run {
            let shown = show_export(folder, &listing, json);
            let not_compared = not_compared(&listing, false);
            return Ok(judged(shown, not_compared.or(left_out).as_deref()));
        }
        let options = ExportOptions {
            folder: folder.clone(),
            force: args.force,
        };
        let manifest = orphans::export(scene, &listing, &options, progress).await?;
        let shown = if json {
            output::print_answer(&manifest)
        } else {
            output::print(&format!(
                "{} of {} written to {}\n",
                plural(manifest.records, "record"),
                plural(manifest.partitions.len() as u64, "partition"),
                folder.display()
            ))
        };
        return Ok(judged(shown, left_out.as_deref()));
    }
    let not_compared = not_compared(&listing, args.yes);
    let Some(choice) = choice else {
        let shown = if json {
            output::print_answer(&listing)
        } else {
            output::print(&orphans_text::listing(&listing))
        };
        return Ok(judged(shown, not_compared.or(left_out).as_deref()));
    };
    if !json {
        output::print(&orphans_text::listing(&listing));
    }
    if !args.yes || not_compared.is_some() {
        let shown = if json {
            answer(choice, &listing, &[], None)
        } else if not_compared.is_some() {
            Exit::Done
        } else {
            output::print(&orphans_text::would(choice, &listing))
        };
        return Ok(judged(shown, not_compared.or(left_out).as_deref()));
    }
    if choice == OrphanChoice::Replay {
        let options = ReplayOptions {
            records_per_transaction: usize::try_from(args.batch).unwrap_or(usize::MAX),
        };
        let result = orphans::replay(scene, options, progress).await?;
        let shown = if json {
            answer(choice, &listing, &result.decided, Some(&result))
        } else {
            output::print(&orphans_text::decided(&result.decided))
        };
        return Ok(judged(shown, left_out.as_deref()));
    }
    let decided = orphans::decide(scene, &listing, choice).await?;
    let shown = if json {
        answer(choice, &listing, &decided, None)
    } else {
        output::print(&orphans_text::decided(&decided))
    };
    // A script that goes on to delete the old primary must hear that not all is decided.
    Ok(judged(shown, left_out.as_deref()))
}

/// Why `--conflicts` isn't answered, if it isn't: nothing is decided upon half an answer.
fn not_compared(listing: &Listing, is_to_be_done: bool) -> Option<String> {
    let count = listing.not_compared().count() as u64;
    let undone = match is_to_be_done {
        true => "; nothing is decided: try again, or without --conflicts",
        false => "",
    };
    (count > 0).then(|| {
        let partitions = plural(count, "partition");
        format!("{partitions} of the new primary could not be read to the end: there may be more conflicts{undone}")
    })
}

/// Why what was found isn't all there is, if so. Who decides about it decides about no more.
fn left_out(listing: &Listing) -> Option<String> {
    let all = &listing.left_out;
    let named = all.iter().take(NAMED_MAX);
    let mut named: Vec<String> = named
        .map(|it| format!("{}-{} ({})", it.topic, it.partition, it.reason))
        .collect();
    if all.len() > named.len() {
        named.push(format!("and {} more", all.len() - named.len()));
    }
    (!all.is_empty()).then(|| {
        format!(
            "{} of the old primary can't be looked at, and what they have is left out: {}",
            plural(all.len() as u64, "partition"),
            named.join(", ")
        )
    })
}

/// The exit code of what was shown.
fn judged(shown: Exit, not_compared: Option<&str>) -> Exit {
    match not_compared {
        Some(why) => output::fail(Exit::Failed, &why),
        None => shown,
    }
}

/// What an export would write, as JSON.
#[derive(Serialize)]
struct ExportShown<'a> {
    folder: String,
    applied: bool,
    /// What it is about.
    listing: &'a Listing,
}

fn show_export(folder: &Path, listing: &Listing, json: bool) -> Exit {
    if json {
        return output::print_answer(ExportShown {
            folder: folder.display().to_string(),
            applied: false,
            listing,
        });
    }
    output::print(&format!(
        "{}would be written to {}; without --dry-run they are\n",
        orphans_text::listing(listing),
        folder.display()
    ))
}

fn answer(
    choice: OrphanChoice,
    listing: &Listing,
    decided: &[Decided],
    replay: Option<&ReplayResult>,
) -> Exit {
    output::print_answer(Answer {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::orphans::{Conflicts, TopicListing};

    fn listing(not_compared: &[&str]) -> Listing {
        let conflicts = Conflicts {
            not_compared: not_compared.iter().map(|why| (*why).to_owned()).collect(),
            ..Conflicts::default()
        };
        Listing {
            topics: vec![TopicListing {
                conflicts: Some(conflicts),
                ..TopicListing::default()
            }],
            ..Listing::default()
        }
    }

    #[test]
    fn conflicts_that_could_not_be_looked_for_fail_and_decide_nothing() {
        let found = listing(&[]);
        let nothing = not_compared(&found, true);
        assert_eq!(judged(Exit::Done, nothing.as_deref()), Exit::Done);
        let half = not_compared(&listing(&["orders-0: no answer"]), true);
        let said = half.as_deref().unwrap_or_default();
        assert!(said.contains("1 partition ") && said.contains("nothing is decided"));
        assert_eq!(judged(Exit::Done, half.as_deref()), Exit::Failed);
        let json = serde_json::to_value(found).expect("it is plain");
        assert_eq!(
            json["topics"][0]["conflicts"]["not_compared"],
            serde_json::json!([])
        );
    }
}
