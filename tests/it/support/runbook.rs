//! The pages of `docs/runbooks`, as something that can be carried out.
//!
//! A page's `console` blocks hold commands (`$ COMMAND`) and what is seen: line by line, `…` for what
//! differs from case to case, a line of `…` alone for any number of lines, `[exit N]` where the exit code
//! isn't 0. Runs of blanks count as one. What has to happen in the world between two commands is a
//! comment that no reader sees: `<!-- stage: WHAT -->`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::java;
use super::version::KafkaVersion;
use super::wait::Patience;

/// How long a command that only looks is repeated until it shows what the page shows.
const SHOWS_WITHIN: Duration = Duration::from_secs(60);

/// The shell tools of Kafka that pages may use, and their classes.
const TOOLS: [(&str, &str); 6] = [
    ("kafka-acls.sh", "org.apache.kafka.tools.AclCommand"),
    (
        "kafka-consumer-groups.sh",
        "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
    ),
    (
        "kafka-console-producer.sh",
        "org.apache.kafka.tools.ConsoleProducer",
    ),
    (
        "kafka-console-consumer.sh",
        "org.apache.kafka.tools.consumer.ConsoleConsumer",
    ),
    (
        "kafka-get-offsets.sh",
        "org.apache.kafka.tools.GetOffsetShell",
    ),
    (
        "kafka-transactions.sh",
        "org.apache.kafka.tools.TransactionsCommand",
    ),
];

/// Something on a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// What happens in the world.
    Stage(String),
    /// What somebody types.
    Typed(Typed),
}

/// A command, and what the page says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Typed {
    /// As it is typed.
    pub command: String,
    /// What is seen.
    pub seen: Vec<String>,
    /// The exit code.
    pub exit: i32,
    /// Its line on the page, from 1.
    pub line: usize,
}

/// Everything on a page, in its order.
///
/// # Panics
/// When a block has output before the first command, or the page has other blocks with a prompt.
pub fn parse(page: &str) -> Vec<Item> {
    let mut items = Vec::new();
    let mut block: Option<&str> = None;
    for (number, line) in (1..).zip(page.lines()) {
        if let Some(kind) = line.trim_start().strip_prefix("```") {
            block = if block.is_some() { None } else { Some(kind) };
            continue;
        }
        match block {
            None => {
                let stage = line
                    .strip_prefix("<!-- stage: ")
                    .and_then(|rest| rest.strip_suffix(" -->"));
                items.extend(stage.map(|stage| Item::Stage(stage.to_owned())));
            }
            Some("console") => {
                if let Some(command) = line.trim_start().strip_prefix("$ ") {
                    items.push(Item::Typed(Typed {
                        command: command.to_owned(),
                        line: number,
                        ..Typed::default()
                    }));
                    continue;
                }
                let Some(Item::Typed(typed)) = items.last_mut() else {
                    panic!("line {number}: output of no command: {line}");
                };
                let exit = line.trim().strip_prefix("[exit ");
                match exit.and_then(|rest| rest.strip_suffix(']')) {
                    Some(code) => typed.exit = code.parse().expect("an exit code is a number"),
                    None => typed.seen.push(line.to_owned()),
                }
            }
            Some(kind) => assert!(
                !line.trim_start().starts_with("$ "),
                "line {number}: a command in a block of {kind:?}, which nobody runs"
            ),
        }
    }
    items
}

/// Whether an output is what the page shows; where they part, if not.
///
/// # Errors
/// The first line that the output doesn't have, or the first that it has too many.
pub fn compare(shown: &[String], output: &str) -> Result<(), String> {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown: Vec<String> = shown.iter().map(|line| words(line)).collect();
    let output: Vec<String> = output
        .lines()
        .map(words)
        .filter(|line| !line.is_empty())
        .collect();
    let mut at = 0;
    let mut may_skip = false;
    for line in shown.iter().filter(|line| !line.is_empty()) {
        if line == "…" {
            may_skip = true;
            continue;
        }
        let rest = &output[at..];
        let found = if may_skip {
            rest.iter().position(|it| is_like(line, it))
        } else {
            rest.first().filter(|it| is_like(line, it)).map(|_| 0)
        };
        let Some(found) = found else {
            let instead = rest.first().map_or("nothing more", String::as_str);
            return Err(format!("the page shows `{line}`, there is `{instead}`"));
        };
        at += found + 1;
        may_skip = false;
    }
    match output.get(at) {
        Some(more) if !may_skip => Err(format!("the page doesn't show `{more}`")),
        _ => Ok(()),
    }
}

/// Whether a line is what a line with `…` in it says.
fn is_like(pattern: &str, line: &str) -> bool {
    let mut parts = pattern.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else {
        return false;
    };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

/// A shell in which a page's commands run: the config is in its folder, `twinlog` and Kafka's tools
/// are on its path.
pub struct Shell {
    folder: PathBuf,
    path: String,
    variables: Vec<(String, String)>,
}

impl Shell {
    /// In this folder, with these variables.
    pub fn new(version: KafkaVersion, folder: &Path, variables: &[(&str, &str)]) -> Self {
        let tools = folder.join("bin");
        std::fs::create_dir_all(&tools).expect("our folder is writable");
        for (tool, class) in TOOLS {
            write_tool(version, &tools.join(tool), class);
        }
        let twinlog = Path::new(env!("CARGO_BIN_EXE_twinlog"));
        let twinlog = twinlog.parent().expect("the binary is in a folder");
        let path = std::env::var("PATH").unwrap_or_default();
        Self {
            folder: folder.to_owned(),
            path: format!("{}:{}:{path}", twinlog.display(), tools.display()),
            variables: variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        }
    }

    /// Types a command and compares what is seen with the page. What only looks is repeated until the
    /// page's picture is there.
    ///
    /// # Panics
    /// When another thing is seen, with both.
    pub fn type_in(&self, page: &str, typed: &Typed) {
        let mut patience = Patience::new(SHOWS_WITHIN);
        loop {
            let (exit, output) = self.run(&typed.command);
            let judged = match exit == typed.exit {
                true => compare(&typed.seen, &output),
                false => Err(format!("exit code {exit} instead of {}", typed.exit)),
            };
            let Err(difference) = judged else {
                println!("$ {}\n{output}", typed.command);
                return;
            };
            assert!(
                only_looks(&typed.command) && !patience.is_over(),
                "{page}:{}: {difference}\n$ {}\n{output}",
                typed.line,
                typed.command
            );
            patience.pause();
        }
    }

    fn run(&self, command: &str) -> (i32, String) {
        let output = Command::new("bash")
            .args(["-c", &format!("{{ {command}\n}} 2>&1")])
            .current_dir(&self.folder)
            .env("PATH", &self.path)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .output()
            .expect("bash runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code().unwrap_or(-1), text)
    }
}

/// Whether a command may be typed again and again.
fn only_looks(command: &str) -> bool {
    let does = ["--yes", "--export", "kafka-console-producer"];
    !does.iter().any(|word| command.contains(word))
}

/// Kafka's own script does the same with the jars of its own folder.
fn write_tool(version: KafkaVersion, file: &Path, class: &str) {
    use std::os::unix::fs::PermissionsExt;
    let java = java::arguments(version, version.libs());
    let java: Vec<String> = java.iter().map(|it| format!("'{it}'")).collect();
    let text = format!("#!/bin/sh\nexec java {} {class} \"$@\"\n", java.join(" "));
    std::fs::write(file, text).expect("our folder is writable");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(file, mode).expect("our own file");
}
