//! `twinlog run` and `twinlog status` as two processes.

use std::net::TcpListener;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(30);

/// Ends the process if the test fails before it does.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        let status = Command::new("kill")
            .args([name, &pid])
            .status()
            .expect("kill runs");
        assert!(status.success());
    }

    fn wait(&mut self) -> ExitStatus {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.0.try_wait().expect("can be waited for") {
                return status;
            }
            assert!(Instant::now() < end, "did not end in time");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

struct Setup {
    _folder: tempfile::TempDir,
    path: String,
}

fn setup() -> Setup {
    let free = || {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.local_addr().expect("bound")
    };
    let folder = tempfile::TempDir::new().expect("a folder");
    let path = folder.path().join("twinlog.yaml");
    let (nobody, listen) = (free(), free());
    std::fs::write(
        &path,
        format!(
            "clusters:\n  primary: {{ bootstrap.servers: \"{nobody}\" }}\n  standby: {{ \
             bootstrap.servers: \"{nobody}\" }}\nflows:\n  dr: {{ source: primary, target: \
             standby }}\nhttp: {{ listen: \"{listen}\" }}\n"
        ),
    )
    .expect("writes");
    Setup {
        path: path.to_str().expect("UTF-8").to_owned(),
        _folder: folder,
    }
}

fn command(setup: &Setup, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_twinlog"));
    command
        .args(arguments)
        .args(["-c", &setup.path])
        .env_remove("RUST_LOG");
    command
}

fn start(setup: &Setup) -> Running {
    let mut command = command(setup, &["run"]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    Running(child.expect("starts"))
}

/// Asks until the running process answers.
fn status(setup: &Setup, arguments: &[&str]) -> Output {
    let end = Instant::now() + DEADLINE;
    loop {
        let output = command(setup, arguments).output().expect("starts");
        if output.status.success() {
            return output;
        }
        assert!(
            Instant::now() < end,
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn unreachable_clusters_are_shown_and_not_fatal_and_sigterm_ends_it() {
    let setup = setup();
    let mut running = start(&setup);
    let output = status(&setup, &["status", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["flows"][0]["name"], "dr");
    let output = status(&setup, &["status"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("flow dr: primary -> standby"), "{text}");
    running.signal("-TERM");
    assert_eq!(running.wait().code(), Some(0));
}

#[test]
fn sigint_ends_it_too() {
    let setup = setup();
    let mut running = start(&setup);
    status(&setup, &["status"]);
    running.signal("-INT");
    assert_eq!(running.wait().code(), Some(0));
}
