//! The command line: one file per command.
//!
//! Answers go to stdout, everything else (logs, problems) to stderr. The exit codes in
//! [`Exit`] are an interface for scripts.

mod check;
mod cutover;
mod drill;
mod exit;
mod failback;
mod failover;
mod first_copy;
mod format;
mod groups;
mod groups_table;
mod held;
mod http_get;
mod look;
mod metadata_lines;
mod orphans;
mod orphans_text;
mod output;
mod pinned;
mod plan;
mod readiness_lines;
mod run;
mod running;
mod shutdown;
mod status;
mod status_table;
mod translate;
mod verify;
mod verify_line;

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::config::{self, Config};
use crate::telemetry::logging::{self, LogFormat};

pub use exit::Exit;
pub use status_table::{TableOptions, render as render_status_table};

/// An offset-identical hot standby for Apache Kafka.
#[derive(Debug, Parser)]
#[command(
    name = "twinlog",
    version,
    about,
    after_help = "Exit codes: 0 done, 1 failed, 2 usage or config, 3 refused because it would \
                  lose data."
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options that every command takes.
#[derive(Debug, Args)]
struct Global {
    /// The config file.
    #[arg(
        short,
        long,
        global = true,
        env = "TWINLOG_CONFIG",
        value_name = "FILE"
    )]
    config: Option<PathBuf>,
    /// Answer in JSON; for `run`, log in JSON.
    #[arg(long, global = true)]
    json: bool,
    /// How log lines look.
    #[arg(long, global = true, value_enum, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// What is logged, such as info or info,twinlog::wire=debug; wins over RUST_LOG.
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Copy, until told to stop by SIGINT or SIGTERM.
    Run,
    /// Look for problems: config, reachability, versions, rights. Changes nothing.
    Check,
    /// Show what differs on the target, and what run would do about it. Changes nothing.
    Plan(plan::PlanArgs),
    /// Show what the running process is doing.
    Status(status::StatusArgs),
    /// Show every consumer group: where it is on both clusters, and what it would read again.
    Groups(groups::GroupsArgs),
    /// Have the running process compare the clusters' metadata now, not at the next interval.
    Look(look::LookArgs),
    /// Say where an offset is on the other cluster; the source isn't needed. Changes nothing.
    Translate(translate::TranslateArgs),
    /// Make the standby the primary: shows the plan; --yes carries it out.
    Failover(failover::FailoverArgs),
    /// Go back after a failover: shows the plan; --yes carries it out.
    Failback(failback::FailbackArgs),
    /// Show what an old primary has that was never copied; export, replay, dismiss or keep it.
    Orphans(orphans::OrphansArgs),
    /// Rehearse a failover on copies and write the report: shows the plan; --yes carries it out.
    Drill(drill::DrillArgs),
    /// Copy for a rehearsal; started by `drill`.
    #[command(hide = true)]
    DrillCopy,
    /// Show which grants wait on the target for the failover; release them, or take them back.
    Held(held::HeldArgs),
    /// Compare the target with the source, independently of what copied it. Changes nothing.
    Verify(verify::VerifyArgs),
}

/// Parses the command line, does what it says and returns the exit code.
pub fn main() -> Exit {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too; clap knows which stream they belong to.
            let is_error = error.use_stderr();
            // Nothing is left to do if even this can't be written.
            let _ = error.print();
            return if is_error { Exit::Usage } else { Exit::Done };
        }
    };
    let exit = execute(&cli);
    // `run` has no answer: what it has to say is its log.
    if cli.global.json && !matches!(cli.command, Command::Run) {
        output::answer_failure(exit);
    }
    exit
}

fn execute(cli: &Cli) -> Exit {
    let (default_level, default_format) = match cli.command {
        Command::Run if cli.global.json => ("info", LogFormat::Json),
        Command::Run => ("info", LogFormat::Human),
        // The answer is on stdout; only what needs attention is logged beside it.
        _ => ("warn", LogFormat::Human),
    };
    let format = cli.global.log_format.unwrap_or(default_format);
    let level = cli.global.log_level.as_deref();
    if let Err(error) = logging::init(format, level, default_level) {
        return output::fail(Exit::Usage, &error);
    }
    let Some(path) = cli.global.config.as_deref() else {
        return output::fail(
            Exit::Usage,
            &"no config file: name one with -c FILE or in TWINLOG_CONFIG",
        );
    };
    let config = match config::load(path) {
        Ok(config) => config,
        Err(problems) if matches!(cli.command, Command::Check) => {
            return check::unusable_config(&problems, cli.global.json);
        }
        Err(problems) => return output::fail(Exit::Usage, &problems),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            return output::fail(Exit::Failed, &format!("can't start the runtime: {error}"));
        }
    };
    let exit = runtime.block_on(dispatch(cli, path, config));
    // Whatever is still blocking in a thread of the pool doesn't hold up the exit.
    runtime.shutdown_background();
    exit
}

async fn dispatch(cli: &Cli, path: &Path, config: Config) -> Exit {
    let json = cli.global.json;
    match &cli.command {
        Command::Run => run::run(config).await,
        Command::Check => check::run(&config, json).await,
        Command::Plan(args) => plan::run(&config, args, json).await,
        Command::Status(args) => status::run(&config, path, args, json).await,
        Command::Groups(args) => groups::run(&config, path, args, json).await,
        Command::Look(args) => look::run(&config, path, args, json).await,
        Command::Translate(args) => translate::run(&config, args, json).await,
        Command::Failover(args) => failover::run(&config, args, json).await,
        Command::Failback(args) => failback::run(&config, args, json).await,
        Command::Orphans(args) => orphans::run(&config, args, json).await,
        Command::Drill(args) => drill::run(&config, path, args, json).await,
        Command::DrillCopy => drill::copy(&config).await,
        Command::Held(args) => held::run(&config, args, json).await,
        Command::Verify(args) => verify::run(&config, args, json).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
