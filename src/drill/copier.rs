//! The copying process of a rehearsal: a `twinlog` of its own, so that it can be ended as a crash
//! ends one, and so that what is measured is what runs in production.
//!
//! It is told what to copy in one line on its stdin, reads the same config file, and is gone when
//! that stdin ends: also when the command was killed.

use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::derive::{CopyOrder, private_flow};
use crate::config::Config;
use crate::flow;
use crate::telemetry::progress::FlowProgress;

/// The command line's word for it.
pub const COMMAND: &str = "drill-copy";

/// A running copying process; killed on drop.
#[derive(Debug)]
pub struct Copier {
    child: Child,
    /// Its end is the child's end.
    _stdin: ChildStdin,
}

impl Copier {
    /// Starts it.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(config_file: &Path, order: &CopyOrder) -> std::io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([COMMAND, "--log-level", "error", "-c"])
            .arg(config_file)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        let missing = || std::io::Error::other("the copying process has no stdin");
        let mut stdin = child.stdin.take().ok_or_else(missing)?;
        let line = serde_json::to_string(order).map_err(std::io::Error::other)?;
        writeln!(stdin, "{line}")?;
        stdin.flush()?;
        Ok(Self {
            child,
            _stdin: stdin,
        })
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills it (SIGKILL), and returns when it is gone.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // One that has ended already is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Copier {
    fn drop(&mut self) {
        self.end();
    }
}

/// The other side: copies until stdin ends.
///
/// # Errors
/// When the order can't be read, or copying ended by itself.
pub async fn copy(config: &Config) -> Result<(), String> {
    let line = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        let read = std::io::stdin().lock().read_line(&mut line);
        read.map(|_| line)
    });
    let line = line
        .await
        .map_err(|error| error.to_string())?
        .map_err(|error| format!("stdin can't be read: {error}"))?;
    let order: CopyOrder = serde_json::from_str(&line)
        .map_err(|error| format!("this command is started by `twinlog drill` alone: {error}"))?;
    let of = config
        .flows
        .get(&order.of)
        .ok_or_else(|| format!("there is no flow {}", order.of))?;
    let flow = private_flow(of, &order)?;
    let cluster = |name: &str| {
        let found = config.clusters.get(name).cloned();
        found.ok_or_else(|| format!("there is no cluster {name}"))
    };
    let (source, target) = (cluster(&flow.source)?, cluster(&flow.target)?);
    let progress = FlowProgress::new(&flow.name, &flow.source, &flow.target);
    let copying = flow::run_flow(
        flow,
        source,
        target,
        Arc::new(progress),
        CancellationToken::new(),
    );
    // Nothing is ended in order: whoever began this is gone, or wants it to end as a crash does.
    tokio::select! {
        ended = copying => ended.map_err(|error| error.to_string()),
        () = stdin_ends() => Ok(()),
    }
}

/// Returns when nobody can write to our stdin any more.
async fn stdin_ends() {
    let waiting = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        loop {
            line.clear();
            match std::io::stdin().lock().read_line(&mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    });
    // A thread that was lost is an end as well.
    let _ = waiting.await;
}
