//! `twinlog run` and the commands that ask it, as two processes.

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::https::{Authority, Pair};
use crate::support::ports::Port;

const DEADLINE: Duration = Duration::from_secs(120);

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
    folder: tempfile::TempDir,
    path: String,
    listen: String,
    _ports: Vec<Port>,
}

fn setup() -> Setup {
    setup_with(|_| String::new())
}

/// `http` gives more keys of that section, for the folder that it is told.
fn setup_with(http: impl Fn(&Path) -> String) -> Setup {
    let folder = tempfile::TempDir::new().expect("a folder");
    let path = folder.path().join("twinlog.yaml");
    let ports = vec![Port::reserve(), Port::reserve()];
    let (nobody, listen) = (ports[0].address(), ports[1].address());
    let http = http(folder.path());
    std::fs::write(
        &path,
        format!(
            "clusters:\n  primary: {{ bootstrap.servers: \"{nobody}\" }}\n  standby: {{ \
             bootstrap.servers: \"{nobody}\" }}\nflows:\n  dr: {{ source: primary, target: \
             standby }}\nhttp: {{ listen: \"{listen}\" {http} }}\n"
        ),
    )
    .expect("writes");
    Setup {
        path: path.to_str().expect("UTF-8").to_owned(),
        folder,
        listen,
        _ports: ports,
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

const TOKEN: &str = "changing-0123456789";
const READ_TOKEN: &str = "reading-0123456789";

/// A config with TLS, its files in the folder.
fn tls_setup(pair: &Pair, more: &str) -> Setup {
    setup_with(|folder| {
        write(folder, pair);
        let file = |name| folder.join(name).display().to_string();
        format!(
            ", tls: {{ certificate: \"{}\", key: \"{}\" }} {more}",
            file("tls.crt"),
            file("tls.key")
        )
    })
}

fn write(folder: &Path, pair: &Pair) {
    std::fs::write(folder.join("tls.crt"), &pair.certificate).expect("writes");
    std::fs::write(folder.join("tls.key"), &pair.key).expect("writes");
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn commands_ask_over_tls_with_the_tokens_of_the_config() {
    let authority = Authority::new();
    let tokens = format!(", token: {TOKEN}, read_token: {READ_TOKEN}");
    let setup = tls_setup(&authority.issue(), &tokens);
    let mut running = start(&setup);
    let output = status(&setup, &["status", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["flows"][0]["name"], "dr");
    status(&setup, &["groups"]);
    let output = status(&setup, &["look"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text, "flow dr: looks now\n");
    let output = command(&setup, &["look", "--flow", "other"]).output();
    assert_eq!(output.expect("starts").status.code(), Some(2));

    // It is TLS, and not open to those without a token.
    let answer = authority.call(&setup.listen, "GET /api/v1/status", &[]);
    assert_eq!(answer.expect("a handshake").status, 401);

    // A command whose config has other tokens is refused, and told so.
    let text = std::fs::read_to_string(&setup.path).expect("reads");
    let other = text.replace("ing-0123", "ing-9999");
    std::fs::write(&setup.path, other).expect("writes");
    for (arguments, key) in [("status", "http.read_token"), ("look", "http.token")] {
        let output = command(&setup, &[arguments]).output().expect("starts");
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("401") && text.contains(key), "{text}");
        assert!(!text.contains("ing-9999"), "a token is shown: {text}");
    }
    running.signal("-TERM");
    assert_eq!(running.wait().code(), Some(0));
}

#[test]
fn a_command_trusts_the_configured_certificate_alone_even_expired() {
    let authority = Authority::new();
    let setup = tls_setup(&authority.issue_expired(), "");
    let _running = start(&setup);
    status(&setup, &["status"]);

    // Another certificate of the same authority, in the command's config only.
    let other = tempfile::TempDir::new().expect("a folder");
    write(other.path(), &authority.issue());
    let own = setup.folder.path().display().to_string();
    let text = std::fs::read_to_string(&setup.path).expect("reads");
    let text = text.replace(&own, &other.path().display().to_string());
    let path = other.path().join("twinlog.yaml");
    std::fs::write(&path, text).expect("writes");
    let other = Setup {
        folder: other,
        path: path.display().to_string(),
        listen: setup.listen.clone(),
        _ports: Vec::new(),
    };
    let output = command(&other, &["status"]).output().expect("starts");
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("has another certificate"), "{text}");
}

#[test]
fn a_command_says_when_only_one_side_speaks_tls() {
    let authority = Authority::new();
    let with = tls_setup(&authority.issue(), "");
    let _running = start(&with);
    status(&with, &["status"]);
    let text = std::fs::read_to_string(&with.path).expect("reads");
    let (before, _) = text.split_once(", tls:").expect("it has TLS");
    let without = format!("{before} }}\n");
    std::fs::write(&with.path, without).expect("writes");
    let output = command(&with, &["status"]).output().expect("starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("doesn't speak HTTP"),
        "{}",
        stderr(&output)
    );

    let plain = setup();
    let _running = start(&plain);
    status(&plain, &["status"]);
    let text = std::fs::read_to_string(&plain.path).expect("reads");
    let folder = plain.folder.path();
    write(folder, &authority.issue());
    let tls = format!(
        "tls: {{ certificate: \"{0}/tls.crt\", key: \"{0}/tls.key\" }}, listen:",
        folder.display()
    );
    std::fs::write(&plain.path, text.replace("listen:", &tls)).expect("writes");
    let output = command(&plain, &["status"]).output().expect("starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("no TLS with"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_certificate_that_cannot_be_used_ends_run_with_2_and_check_finds_it() {
    let authority = Authority::new();
    let setup = tls_setup(&authority.issue(), "");
    std::fs::write(setup.folder.path().join("tls.key"), "nothing").expect("writes");
    let output = command(&setup, &["check"]).output().expect("starts");
    let found = String::from_utf8_lossy(&output.stdout);
    assert!(found.contains("http: http.tls.key"), "{found}");
    let output = command(&setup, &["run"]).output().expect("starts");
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(
        text.contains("http.tls.key") && text.contains("has no private key"),
        "{text}"
    );
}

#[test]
fn a_call_that_changes_needs_a_configured_token() {
    let setup = setup();
    let _running = start(&setup);
    status(&setup, &["status"]);
    let output = command(&setup, &["look"]).output().expect("starts");
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("no http.token is set"), "{text}");
}
