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
mod reload;
mod run;
mod running;
mod shutdown;
mod status;
mod status_table;
mod translate;
mod verify;
mod verify_line;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::builder::TypedValueParser as _;
use clap::{Args, Parser, Subcommand};

use crate::config::{self, Config, NeededOf, Needs};
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

/// The section of the help in which they stand.
const GLOBAL: &str = "Options of every command";

/// Options that every command takes.
#[derive(Debug, Args)]
struct Global {
    /// The config file.
    #[arg(
        short,
        long,
        global = true,
        env = "TWINLOG_CONFIG",
        value_name = "FILE",
        // One that is set and empty is as good as not set: that is said with its name.
        value_parser = clap::builder::OsStringValueParser::new().map(PathBuf::from),
        help_heading = GLOBAL
    )]
    config: Option<PathBuf>,
    /// Answer in JSON; for `run`, log in JSON.
    #[arg(long, global = true, help_heading = GLOBAL)]
    json: bool,
    /// How log lines look.
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        help_heading = GLOBAL
    )]
    log_format: Option<LogFormat>,
    /// What is logged, such as info or info,twinlog::wire=debug; wins over RUST_LOG.
    #[arg(long, global = true, value_name = "LEVEL", help_heading = GLOBAL)]
    log_level: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Copy until SIGINT (Ctrl-C) or SIGTERM. SIGHUP reads the flows' limits again.
    Run,
    /// Look for problems: config, reachability, versions, rights. Changes nothing.
    Check,
    /// Show what differs on the target, and what `run` would do about it. Changes nothing.
    Plan(plan::PlanArgs),
    /// Show what the running process is doing, and whether a failover could be done now.
    Status(status::StatusArgs),
    /// Show every consumer group: where it is on both clusters, and what it would read again.
    Groups(groups::GroupsArgs),
    /// Have the running process compare configs, ACLs, quotas and users now, not at the next interval.
    Look(look::LookArgs),
    /// Say where an offset is on the other cluster; the source isn't needed. Changes nothing.
    Translate(translate::TranslateArgs),
    /// Make the standby the primary. Shows the plan; does it with --yes.
    Failover(failover::FailoverArgs),
    /// Go back after a failover. Shows the plan; does it with --yes.
    Failback(failback::FailbackArgs),
    /// Show the records that only the old primary has; export, replay, dismiss or keep them.
    Orphans(orphans::OrphansArgs),
    /// Rehearse a failover on copies and write a report. Shows the plan; does it with --yes.
    Drill(drill::DrillArgs),
    /// Copy for a rehearsal; started by `drill`.
    #[command(hide = true)]
    DrillCopy,
    /// Show what waits on the target for the failover (grants, quotas, configs); release it, or take it back.
    Held(held::HeldArgs),
    /// Compare the target with the source by a reader that shares no code with the copy. Changes no records.
    Verify(verify::VerifyArgs),
}

impl Command {
    /// Whose secrets it can't do without.
    fn needs(&self) -> Needs<'_> {
        let (of, flow) = match self {
            Self::Failover(args) if args.needs_the_target_alone() => {
                (NeededOf::Targets, args.flow())
            }
            Self::Failover(args) => (NeededOf::Everything, args.flow()),
            Self::Failback(args) if args.gives_up() => (NeededOf::Sources, args.flow()),
            Self::Failback(args) => (NeededOf::Everything, args.flow()),
            Self::Held(args) => (NeededOf::Targets, args.flow()),
            Self::Translate(args) => (NeededOf::Targets, args.flow()),
            Self::Groups(args) if args.asks_the_target() => (NeededOf::Targets, None),
            Self::Status(_) | Self::Groups(_) | Self::Look(_) => (NeededOf::NoCluster, None),
            _ => (NeededOf::Everything, None),
        };
        Needs { of, flow }
    }
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
            if !is_error {
                return Exit::Done;
            }
            // Nobody has read the command line, but what it asks for is plain.
            if std::env::args_os().any(|argument| argument == "--json") {
                output::note(&error);
                output::answer_failure(Exit::Usage);
            }
            return Exit::Usage;
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
    let path = cli.global.config.as_deref();
    let Some(path) = path.filter(|path| !path.as_os_str().is_empty()) else {
        return output::fail(
            Exit::Usage,
            &"no config file: name one with `-c FILE`, or in the environment variable TWINLOG_CONFIG",
        );
    };
    let config = match config::load_for(path, cli.command.needs()) {
        Ok((config, missing)) => {
            for problem in missing {
                // Nothing is left to do if even this can't be written.
                let _ = writeln!(
                    std::io::stderr(),
                    "warning: {problem}; it isn't needed for this"
                );
            }
            config
        }
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
        Command::Run => run::run(config, path).await,
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

    /// The pages that show commands: all of them, the alerts and the reference, with their names.
    fn pages() -> Vec<(String, String)> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut found = Vec::new();
        let mut folders = vec![root.join("docs"), root.join("configs")];
        let mut files = vec![root.join("README.md"), root.join("CONTRIBUTING.md")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("our own folder") {
                let path = entry.expect("an entry").path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => files.push(path),
                }
            }
        }
        for file in files {
            let text = std::fs::read_to_string(&file).expect("a page is text");
            found.push((file.display().to_string(), text));
        }
        found
    }

    /// What is shown as a command is one: whoever types an example that is a version behind loses trust in all others.
    #[test]
    fn the_pages_show_commands_and_options_that_there_are() {
        // In code: `twinlog COMMAND ...`, or a line that begins with it. What follows a # is a comment.
        let shown = regex::Regex::new(r"(?m)(?:`|^\$ |^)twinlog +([a-z][a-z-]*)([^`\n#|]*)")
            .expect("a pattern");
        let option = regex::Regex::new(r"--([a-z][a-z-]*)").expect("a pattern");
        let cli = Cli::command();
        let mut seen = 0;
        for (page, text) in pages() {
            for found in shown.captures_iter(&text) {
                let (name, rest) = (&found[1], &found[2]);
                let command = cli
                    .find_subcommand(name)
                    .unwrap_or_else(|| panic!("{page}: twinlog {name}?"));
                let known: Vec<&str> = command
                    .get_arguments()
                    .chain(cli.get_arguments())
                    .filter_map(clap::Arg::get_long)
                    .collect();
                for option in option.captures_iter(rest) {
                    assert!(
                        known.contains(&&option[1]),
                        "{page}: twinlog {name} --{}?",
                        &option[1]
                    );
                    seen += 1;
                }
            }
        }
        assert!(seen > 40, "only {seen} options were found");
        let commands = include_str!("../../docs/COMMANDS.md");
        for command in cli.get_subcommands().filter(|it| !it.is_hide_set()) {
            let name = command.get_name();
            assert!(commands.contains(&format!("`{name}`")), "COMMANDS: {name}");
        }
    }
}
