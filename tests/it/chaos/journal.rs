//! What was done when, and what is left of it after a failure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// How many of the last lines a failure shows.
const LAST_LINES: usize = 25;

/// The run so far. When the run fails, the logs of everybody are copied to where they stay.
#[derive(Debug)]
pub struct Journal {
    seed: u64,
    started: Instant,
    lines: Vec<String>,
    logs: Vec<(String, PathBuf)>,
    counts: BTreeMap<&'static str, u32>,
}

impl Journal {
    /// An empty one.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            started: Instant::now(),
            lines: Vec::new(),
            logs: Vec::new(),
            counts: BTreeMap::new(),
        }
    }

    /// Writes a line, and prints it.
    pub fn say(&mut self, text: &str) {
        let line = format!("[{:7.1} s] {text}", self.started.elapsed().as_secs_f64());
        println!("{line}");
        self.lines.push(line);
    }

    /// Counts an action.
    pub fn count(&mut self, kind: &'static str) {
        *self.counts.entry(kind).or_default() += 1;
    }

    /// How often each kind of action was done.
    pub fn counts(&self) -> String {
        let counts = self.counts.iter();
        let counts: Vec<String> = counts
            .map(|(kind, count)| format!("{kind} {count}"))
            .collect();
        counts.join(", ")
    }

    /// How many actions were done.
    pub fn actions(&self) -> u32 {
        self.counts.values().sum()
    }

    /// Knows a log that is to be kept after a failure.
    pub fn knows_log(&mut self, name: &str, path: &Path) {
        self.logs.push((name.to_owned(), path.to_owned()));
    }

    /// Copies all logs, and this one, to a folder that stays.
    fn keep(&self) -> std::io::Result<PathBuf> {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("chaos-{}", self.seed));
        std::fs::create_dir_all(&folder)?;
        for (name, path) in &self.logs {
            // A broker that never came up has none.
            let _ = std::fs::copy(path, folder.join(name));
        }
        std::fs::write(folder.join("journal"), self.lines.join("\n"))?;
        Ok(folder)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let skipped = self.lines.len().saturating_sub(LAST_LINES);
        eprintln!("--- the last of {} lines", self.lines.len());
        for line in &self.lines[skipped..] {
            eprintln!("{line}");
        }
        match self.keep() {
            Ok(folder) => eprintln!("--- all logs are in {}", folder.display()),
            Err(error) => eprintln!("--- the logs can't be kept: {error}"),
        }
        eprintln!("--- the same again: scripts/chaos --seed {}", self.seed);
    }
}
