//! One temporary folder per test process, removed when the process is gone.
//!
//! A `Drop` does not run for statics, nor when the process is killed. So a small shell waits on
//! a pipe whose other end only we hold: when this process ends, however it ends, the pipe closes
//! and the shell removes the folder. `TWINLOG_TEST_KEEP=1` leaves the folder where it is.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The folder and the shell that will remove it (its stdin is the pipe).
struct Scratch {
    folder: PathBuf,
    _sweeper: Option<Child>,
}

/// Brokers get their SIGKILL at the same moment as the pipe closes, so the last of them may
/// still write a file while `rm` runs: a few tries. It ignores what a terminal sends to a group.
const SWEEP: &str = r#"trap '' INT TERM HUP
cat >/dev/null
for try in 1 2 3 4 5; do rm -rf "$1" 2>/dev/null && [ ! -e "$1" ] && exit 0; sleep 0.3; done"#;

/// A new, empty folder of this process, named after `name`.
pub fn folder(name: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = root().join(format!("{number}-{name}"));
    std::fs::create_dir_all(&folder)
        .unwrap_or_else(|error| panic!("cannot create {}: {error}", folder.display()));
    folder
}

/// The folder of this process called `name`, made on first use and never removed before its end.
pub fn shared(name: &str) -> PathBuf {
    let folder = root().join(name);
    std::fs::create_dir_all(&folder)
        .unwrap_or_else(|error| panic!("cannot create {}: {error}", folder.display()));
    folder
}

/// Removes a folder that [`folder`] made, unless folders are kept.
pub fn remove(folder: &Path) {
    if !kept() {
        // What is left over goes with the whole folder at the end of the process.
        let _ = std::fs::remove_dir_all(folder);
    }
}

/// Removes a folder that others know the name of when this process is gone, however it ended.
pub fn sweep_in_the_end(folder: &Path) {
    if !kept() {
        // The pipe must stay open as long as we live.
        std::mem::forget(sweeper(folder));
    }
}

fn kept() -> bool {
    std::env::var_os("TWINLOG_TEST_KEEP").is_some_and(|value| value == "1")
}

fn root() -> &'static Path {
    static SCRATCH: OnceLock<Scratch> = OnceLock::new();
    &SCRATCH.get_or_init(Scratch::new).folder
}

impl Scratch {
    fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("twinlog-test-")
            .tempdir()
            .expect("the temporary folder is writable")
            .keep();
        if kept() {
            eprintln!("keeping {}", folder.display());
            return Self {
                folder,
                _sweeper: None,
            };
        }
        let sweeper = sweeper(&folder);
        Self {
            folder,
            _sweeper: Some(sweeper),
        }
    }
}

/// Starts the shell that removes a folder when the pipe to it closes.
fn sweeper(folder: &Path) -> Child {
    Command::new("sh")
        .args(["-c", SWEEP, "sweeper"])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("sh starts")
}
