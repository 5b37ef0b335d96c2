//! Exit codes and messages of the command.

use crate::support::Twinlog;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;

fn twinlog(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_twinlog"))
        .args(arguments)
        .env_remove("TWINLOG_CONFIG")
        .env_remove("RUST_LOG")
        .output()
        .expect("the command starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn assert_exit(output: &Output, code: i32) {
    let (out, err) = (stdout(output), stderr(output));
    assert_eq!(
        output.status.code(),
        Some(code),
        "stdout: {out}\nstderr: {err}"
    );
}

/// An address where nobody listens: it was free a moment ago.
fn unused_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").to_string()
}

fn config(folder: &TempDir, listen: &str) -> PathBuf {
    let nobody = unused_address();
    let path = folder.path().join("twinlog.yaml");
    let text = format!(
        "clusters:\n  primary: {{ bootstrap.servers: \"{nobody}\" }}\n  standby: {{ \
         bootstrap.servers: \"{nobody}\" }}\nflows:\n  dr: {{ source: primary, target: standby \
         }}\nhttp: {{ listen: \"{listen}\" }}\n"
    );
    std::fs::write(&path, text).expect("writes");
    path
}

#[test]
fn help_and_version_are_no_failure() {
    for arguments in [["--help"], ["--version"]] {
        assert_exit(&twinlog(&arguments), 0);
    }
}

#[test]
fn only_commands_that_work_are_offered() {
    let help = stdout(&twinlog(&["--help"]));
    for command in ["run", "check", "plan", "status"] {
        assert!(help.contains(&format!("\n  {command} ")), "{help}");
    }
    for missing in ["failover", "failback", "orphans", "verify"] {
        assert_exit(&twinlog(&[missing]), 2);
    }
}

#[test]
fn a_wrong_command_line_is_2() {
    for arguments in [&[][..], &["nonsense"], &["status", "--nonsense"]] {
        assert_exit(&twinlog(arguments), 2);
    }
    let output = twinlog(&["check"]);
    assert_exit(&output, 2);
    assert!(
        stderr(&output).contains("TWINLOG_CONFIG"),
        "{}",
        stderr(&output)
    );
    let output = twinlog(&["check", "--log-level", "a=b=c"]);
    assert_exit(&output, 2);
    assert!(
        stderr(&output).contains("--log-level"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn an_unusable_config_is_2_for_every_command() {
    let folder = TempDir::new().expect("a folder");
    let broken = folder.path().join("broken.yaml");
    let mut file = std::fs::File::create(&broken).expect("creates");
    file.write_all(b"clusters: [").expect("writes");
    let missing = folder.path().join("missing.yaml");
    for path in [broken, missing] {
        let path = path.to_str().expect("UTF-8");
        for command in ["run", "check", "plan", "status"] {
            let output = twinlog(&[command, "-c", path]);
            assert_exit(&output, 2);
            assert!(!output.stderr.is_empty(), "{command} says nothing");
        }
        let output = twinlog(&["check", "-c", path, "--json"]);
        assert_exit(&output, 2);
        let findings: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(findings[0]["level"], "error");
    }
}

#[test]
fn status_without_a_running_process_is_1_and_says_so() {
    let folder = TempDir::new().expect("a folder");
    let listen = unused_address();
    let path = config(&folder, &listen);
    let output = twinlog(&["status", "-c", path.to_str().expect("UTF-8")]);
    assert_exit(&output, 1);
    let text = stderr(&output);
    assert!(
        text.contains(&listen) && text.contains("twinlog run"),
        "{text}"
    );
}

#[test]
fn check_with_an_unreachable_cluster_is_1() {
    let folder = TempDir::new().expect("a folder");
    let path = config(&folder, &unused_address());
    let output = twinlog(&["check", "-c", path.to_str().expect("UTF-8"), "--json"]);
    assert_exit(&output, 1);
    let findings: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let errors = findings
        .as_array()
        .expect("a list")
        .iter()
        .filter(|f| f["level"] == "error");
    assert!(errors.count() >= 1, "{findings}");
}

#[test]
fn run_on_a_taken_http_address_is_1_and_names_it() {
    let folder = TempDir::new().expect("a folder");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let path = config(&folder, &address);
    let output = twinlog(&["run", "-c", path.to_str().expect("UTF-8")]);
    assert_exit(&output, 1);
    assert!(stderr(&output).contains(&address), "{}", stderr(&output));
}

#[test]
fn every_problem_of_a_config_is_named_at_once() {
    let twinlog = Twinlog::prepare(
        "clusters:
  primary: { bootstrap.servers: \"127.0.0.1:1\", sasl.mechanism: PLAIN }
  standby: { bootstrap.servers: \"nowhere\" }
flows:
  dr:
    source: primary
    target: third
    on_gap: perhaps
    limits: { in_flight: 1KiB }
http: { listen: \"127.0.0.1:0\" }
",
    );
    let output = twinlog.command("run", &[]);
    assert_eq!(output.status.code(), Some(2));
    let problems = String::from_utf8_lossy(&output.stderr);
    for word in ["sasl.mechanism", "nowhere", "third", "on_gap", "in_flight"] {
        assert!(problems.contains(word), "{word} isn't named:\n{problems}");
    }
}

#[test]
fn quiet_for_is_about_a_fence_of_the_operators_own_and_has_a_range() {
    let folder = TempDir::new().expect("a folder");
    let config = config(&folder, "off");
    let config = config.to_str().expect("UTF-8");
    for command in ["failover", "failback"] {
        let with = |more: &[&str]| {
            let mut arguments = vec![command, "-c", config];
            arguments.extend(more);
            twinlog(&arguments)
        };
        let alone = with(&["--quiet-for", "1"]);
        assert_exit(&alone, 2);
        assert!(stderr(&alone).contains("--fence manual"), "{alone:?}");
        assert_exit(&with(&["--fence", "manual", "--quiet-for", "601"]), 2);
        assert_exit(&with(&["--fence", "manual", "--quiet-for", "-1"]), 2);
    }
}

#[test]
fn a_script_gets_json_also_when_there_is_no_answer() {
    let folder = TempDir::new().expect("a folder");
    let missing = folder.path().join("missing.yaml");
    let missing = missing.to_str().expect("text");
    for arguments in [
        ["status", "-c", missing, "--json"],
        ["held", "-c", missing, "--json"],
    ] {
        let output = twinlog(&arguments);
        assert_exit(&output, 2);
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(
            (&answer["version"], &answer["exit"]),
            (&1.into(), &2.into())
        );
        assert!(
            answer["errors"][0]
                .as_str()
                .is_some_and(|it| it.contains("missing.yaml"))
        );
    }
    // Without --json stdout has answers only.
    let output = twinlog(&["status", "-c", missing]);
    assert!(output.stdout.is_empty());
    // Nothing listens there.
    let config = config(&folder, &unused_address());
    let config = config.to_str().expect("text");
    let output = twinlog(&["status", "-c", config, "--json"]);
    assert_exit(&output, 1);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(answer["exit"], 1);
}
