//! A handle on a running `twinlog run`.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::time::Duration;

use serde_json::Value;

use super::http;
use super::logins;
use super::ports::Port;
use super::process::Process;
use super::scratch;
use super::wait::{Stopwatch, eventually};

/// How long an orderly end may take.
const TERMINATE_DEADLINE: Duration = Duration::from_secs(30);

/// How long it may take to answer, from its start on.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// A broker that gets no processor for so long doesn't answer for as long, and that is said. On a machine as busy as that it
/// is no complaint.
const SILENT_AFTER: Duration = Duration::from_secs(3);
const SILENT: &str = "aren't read to their ends";

/// A `twinlog run -c FILE`. Killed on drop; its log is printed when the test has failed.
#[derive(Debug)]
pub struct Twinlog {
    folder: PathBuf,
    config: PathBuf,
    http: String,
    process: Option<Process>,
    _port: Option<Port>,
    watch: Stopwatch,
}

impl Twinlog {
    /// Writes the config to a file and runs the binary on it, without waiting for it.
    ///
    /// When the text has no `http:` section, one with a free port is added.
    pub fn start(config_text: &str) -> Self {
        let mut twinlog = Self::prepare(config_text);
        twinlog.launch();
        twinlog
    }

    /// Writes the config without running anything, for commands other than `run`.
    pub fn prepare(config_text: &str) -> Self {
        let folder = scratch::folder("twinlog");
        let config = folder.join("twinlog.yaml");
        let mut text = config_text.to_owned();
        let (http, port) = if let Some(address) = listen_address(config_text) {
            (address, None)
        } else {
            let port = Port::reserve();
            text.push_str(&format!("\nhttp: {{ listen: \"{}\" }}\n", port.address()));
            (port.address(), Some(port))
        };
        std::fs::write(&config, text).expect("our folder is writable");
        Self {
            folder,
            config,
            http,
            process: None,
            _port: port,
            watch: Stopwatch::start(),
        }
    }

    /// Runs between two clusters with the defaults of a hot standby.
    pub fn between(source_bootstrap: &str, target_bootstrap: &str) -> Self {
        Self::start(&Self::config(source_bootstrap, target_bootstrap, ""))
    }

    /// A config for one flow `dr` from `primary` to `standby`; `flow_lines` are more lines of
    /// the flow, without indentation.
    pub fn config(source_bootstrap: &str, target_bootstrap: &str, flow_lines: &str) -> String {
        // Nothing for plaintext clusters.
        let (source_login, target_login) = (
            logins::yaml(source_bootstrap),
            logins::yaml(target_bootstrap),
        );
        let mut text = format!(
            "clusters:
  primary: {{ bootstrap.servers: \"{source_bootstrap}\"{source_login} }}
  standby: {{ bootstrap.servers: \"{target_bootstrap}\"{target_login} }}
flows:
  dr:
    source: primary
    target: standby
"
        );
        for line in flow_lines.lines() {
            text.push_str(&format!("    {line}\n"));
        }
        text
    }

    /// Runs it again with the same config, after [`Self::kill9`] or [`Self::terminate`].
    pub fn launch(&mut self) {
        let arguments = ["run".as_ref(), "-c".as_ref(), self.config.as_os_str()];
        self.process = Some(Process::start(binary(), arguments, &self.log_file()));
    }

    /// Runs another command on the same config to its end: `twinlog COMMAND -c FILE ARGUMENTS`.
    pub fn command(&self, command: &str, arguments: &[&str]) -> Output {
        Command::new(binary())
            .arg(command)
            .arg("-c")
            .arg(&self.config)
            .args(arguments)
            .output()
            .expect("the built binary runs")
    }

    /// The process id.
    ///
    /// # Panics
    /// When it is not running.
    #[allow(dead_code, reason = "the benchmarks use it")]
    pub fn id(&self) -> u32 {
        self.process.as_ref().expect("twinlog is running").id()
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill9(&mut self) {
        self.process = None;
    }

    /// SIGTERM, and waits for the exit.
    ///
    /// # Panics
    /// When it does not end within 30 s.
    pub fn terminate(&mut self) -> ExitStatus {
        self.terminate_within(TERMINATE_DEADLINE)
    }

    /// The same, within another time.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn terminate_within(&mut self, deadline: Duration) -> ExitStatus {
        let mut process = self.process.take().expect("twinlog is running");
        process
            .terminate(deadline)
            .unwrap_or_else(|| panic!("twinlog did not end on SIGTERM:\n{}", process.log_tail()))
    }

    /// Sends a signal by name, such as `STOP` or `CONT`.
    pub fn signal(&mut self, name: &str) {
        if let Some(process) = &mut self.process {
            process.signal(name);
        }
    }

    /// The exit status when it has ended by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.as_mut().and_then(Process::ended)
    }

    /// GET of any path: status code and body.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn get(&self, path: &str) -> std::io::Result<(u16, String)> {
        http::get(&self.http, path)
    }

    /// `/api/v1/status`.
    ///
    /// # Panics
    /// When there is no answer within 30 s, or it is not JSON.
    pub fn status(&self) -> Value {
        eventually(ANSWER_DEADLINE, "twinlog answers", || self.try_status())
    }

    /// `/metrics`.
    ///
    /// # Panics
    /// When there is no answer within 30 s.
    pub fn metrics(&self) -> String {
        eventually(ANSWER_DEADLINE, "twinlog answers", || {
            self.get("/metrics").map(|(_, body)| body)
        })
    }

    /// Waits until `/api/v1/status` is as wanted; returns it.
    ///
    /// # Panics
    /// At the deadline, with the last status and the end of the log.
    pub fn wait_until(
        &self,
        deadline: Duration,
        what: &str,
        mut wanted: impl FnMut(&Value) -> bool,
    ) -> Value {
        eventually(deadline, what, || {
            let status = self.try_status()?;
            if wanted(&status) {
                Ok(status)
            } else {
                Err(format!("{status:#}"))
            }
        })
    }

    /// `/api/v1/groups`, of the first flow.
    ///
    /// # Panics
    /// When there is no answer within 30 s.
    pub fn groups(&self) -> Value {
        eventually(ANSWER_DEADLINE, "twinlog answers", || {
            let (_, body) = self.get("/api/v1/groups").map_err(|e| e.to_string())?;
            let report: Value = serde_json::from_str(&body).map_err(|e| e.to_string())?;
            Ok::<_, String>(report["flows"][0].clone())
        })
    }

    /// Waits until a group is in a state.
    ///
    /// # Panics
    /// At the deadline, with what was said of the group last.
    pub fn await_group(&self, group: &str, state: &str, deadline: Duration) -> Value {
        eventually(deadline, &format!("group {group} is {state}"), || {
            let report = self.groups();
            let found = report["groups"]
                .as_array()
                .and_then(|groups| groups.iter().find(|found| found["group"] == group));
            match found {
                Some(found) if found["state"] == state => Ok(found.clone()),
                found => Err(format!("{:#}", found.unwrap_or(&report))),
            }
        })
    }

    /// Waits until a group is followed and was moved to this position on the target, the sum of its partitions': the source's
    /// commit may be seen a moment before.
    ///
    /// # Panics
    /// At the deadline, with what was said of the group last.
    pub fn await_followed(&self, group: &str, position: i64, deadline: Duration) -> Value {
        eventually(deadline, &format!("group {group} is at {position}"), || {
            let found = self.await_group(group, "followed", deadline);
            match found["target_position"] == position {
                true => Ok(found),
                false => Err(format!("{found:#}")),
            }
        })
    }

    /// What it has logged so far, all runs.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Waits until its log is as wanted; returns it. A status may tell what the next line of the log says.
    ///
    /// # Panics
    /// When it isn't within 30 s.
    pub fn await_log(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        eventually(ANSWER_DEADLINE, what, || {
            let log = self.log();
            match wanted(&log) {
                true => Ok(log),
                false => Err(log),
            }
        })
    }

    /// Asserts that it has complained about nothing: no WARN, no ERROR, no panic in the log, except
    /// lines that hold one of the `allowed` phrases.
    ///
    /// # Panics
    /// With the lines that nobody expected.
    pub fn assert_quiet(&self, allowed: &[&str]) {
        let log = self.log();
        assert!(log.contains(" INFO "), "this is no log to judge:\n{log}");
        let slow = (self.watch.stood() >= SILENT_AFTER).then_some(SILENT);
        let complaints: Vec<&str> = log
            .lines()
            .filter(|line| {
                let level = line.split_whitespace().nth(1);
                matches!(level, Some("WARN" | "ERROR")) || line.contains("panicked at")
            })
            .filter(|line| {
                let mut allowed = allowed.iter().chain(&slow);
                !allowed.any(|phrase| line.contains(phrase))
            })
            .collect();
        assert!(
            complaints.is_empty(),
            "unexpected in the log:\n{}",
            complaints.join("\n")
        );
    }

    /// The config file.
    pub fn config_file(&self) -> &Path {
        &self.config
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("twinlog.log")
    }

    fn try_status(&self) -> Result<Value, String> {
        let (code, body) = self
            .get("/api/v1/status")
            .map_err(|error| error.to_string())?;
        if code != 200 {
            return Err(format!("HTTP {code}: {body}"));
        }
        serde_json::from_str(&body).map_err(|error| format!("{error} in {body}"))
    }
}

impl Drop for Twinlog {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let tail = super::process::tail(&self.log_file(), 6_000);
            eprintln!("--- end of twinlog's log\n{tail}");
        }
        self.process = None;
        scratch::remove(&self.folder);
    }
}

/// The binary that cargo built beside this test.
fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_twinlog"))
}

/// The address after `listen:`, if the text has an `http` section.
fn listen_address(config_text: &str) -> Option<String> {
    let pattern =
        regex::Regex::new(r#"(?m)^http:[^#]*?listen:\s*"?([0-9.:]+)"#).expect("a constant");
    let found = pattern.captures(config_text)?;
    Some(found[1].to_owned())
}
