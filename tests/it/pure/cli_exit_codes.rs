//! Exit codes and messages of the command.

use crate::support::Twinlog;
use crate::support::ports::Port;
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

/// An address where nobody listens, and nobody will as long as this process runs.
fn unused_address() -> String {
    Box::leak(Box::new(Port::reserve())).address()
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
fn what_every_command_takes_stands_apart() {
    for command in ["run", "status", "verify", "failover"] {
        let help = stdout(&twinlog(&[command, "--help"]));
        let (own, global) = help
            .split_once("Options of every command:")
            .unwrap_or_else(|| panic!("{command}: {help}"));
        for option in ["--config", "--json", "--log-level", "--log-format"] {
            assert!(!own.contains(option), "{command}: {help}");
            assert!(global.contains(option), "{command}: {help}");
        }
    }
}

/// Answers one call with this, and gives what it was asked.
fn stranger(answer: &'static str) -> (String, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let asked = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("somebody calls");
        let mut head = Vec::new();
        let mut buffer = [0; 1_024];
        while !head.ends_with(b"\r\n\r\n") {
            match std::io::Read::read(&mut stream, &mut buffer) {
                Ok(read) if read > 0 => head.extend_from_slice(&buffer[..read]),
                _ => break,
            }
        }
        stream.write_all(answer.as_bytes()).expect("writes");
        String::from_utf8_lossy(&head).into_owned()
    });
    (address, asked)
}

#[test]
fn a_token_goes_to_nobody_who_does_not_need_it() {
    const CHANGING: &str = "changing-0123456789";
    const READING: &str = "reading-0123456789";
    let folder = TempDir::new().expect("a folder");
    let asked = |more: &str, answer: &'static str| {
        let (address, asked) = stranger(answer);
        let path = config(&folder, &address);
        let text = std::fs::read_to_string(&path).expect("reads");
        let listen = format!("listen: \"{address}\"");
        let text = text.replace(&listen, &format!("{listen}{more}"));
        std::fs::write(&path, text).expect("writes");
        let output = twinlog(&["status", "-c", path.to_str().expect("UTF-8")]);
        assert_exit(&output, 1);
        assert!(!stderr(&output).contains("0123456789"), "{output:?}");
        asked.join().expect("asked")
    };
    // Reading needs no token here: the one that changes things isn't shown.
    let own = format!(", token: {CHANGING}");
    let head = asked(&own, "HTTP/1.0 404 Not Found\r\n\r\n");
    assert!(!head.contains("Authorization"), "{head}");
    let both = format!(", token: {CHANGING}, read_token: {READING}");
    let head = asked(&both, "HTTP/1.0 404 Not Found\r\n\r\n");
    assert!(head.contains(READING) && !head.contains(CHANGING), "{head}");
    // Who sends it elsewhere isn't followed.
    let (elsewhere, followed) = stranger("HTTP/1.0 200 OK\r\n\r\n{}");
    let moved = format!("HTTP/1.0 302 Found\r\nLocation: http://{elsewhere}/\r\n\r\n");
    asked(&both, Box::leak(moved.into_boxed_str()));
    assert!(!followed.is_finished(), "the redirect was followed");
}

#[test]
fn a_wrong_command_line_is_2() {
    for arguments in [&[][..], &["nonsense"], &["status", "--nonsense"]] {
        assert_exit(&twinlog(arguments), 2);
    }
    // No config at all, and two that are set and empty, as an unset variable in a script makes them.
    for (arguments, variable) in [
        (&["check"][..], None),
        (&["check"], Some("")),
        (&["check", "-c", ""], None),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_twinlog"));
        command.args(arguments).env_remove("TWINLOG_CONFIG");
        command.envs(variable.map(|value| ("TWINLOG_CONFIG", value)));
        let output = command.output().expect("it runs");
        assert_exit(&output, 2);
        assert!(
            stderr(&output).contains("TWINLOG_CONFIG"),
            "{arguments:?}: {}",
            stderr(&output)
        );
    }
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
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(answer["findings"][0]["level"], "error");
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
    let errors = findings["findings"]
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
    // Nor does it matter what is wrong with the command line.
    let output = twinlog(&["status", "--json", "--nonsense"]);
    assert_exit(&output, 2);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (&answer["version"], &answer["exit"]),
        (&1.into(), &2.into())
    );
    assert!(answer["errors"].to_string().contains("--nonsense"));
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

/// A wrong name, a dead broker and a wrong port have other cures, and `check` is what a newcomer types first.
#[test]
fn who_is_not_reached_is_told_with_the_cure_that_fits() {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("t.yaml");
    // A web server that doesn't wait for the end of what it doesn't understand.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let web = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.and_then(|mut it| it.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
        }
    });
    for (address, words, cure) in [
        (
            "no-such-host.invalid:9092".to_owned(),
            "the name no-such-host.invalid can't be resolved",
            "look for a typo in the name",
        ),
        (
            unused_address(),
            "Connection refused",
            "see whether the broker runs",
        ),
        (
            web.to_string(),
            "an HTTP server answers there",
            "look at the port in bootstrap.servers",
        ),
    ] {
        let text = format!(
            "clusters:\n  primary: {{ bootstrap.servers: '{address}' }}\n  standby: {{ bootstrap.servers: '{}' }}\n",
            unused_address()
        );
        std::fs::write(&file, text).expect("writes");
        let output = twinlog(&["check", "-c", file.to_str().expect("UTF-8")]);
        assert_exit(&output, 1);
        let said = stdout(&output);
        let mut lines = said.lines().skip_while(|line| !line.contains(&address));
        let (message, hint) = (lines.next().unwrap_or(""), lines.next().unwrap_or(""));
        assert!(message.contains(words), "{said}");
        assert!(hint.contains(cure), "{said}");
    }
}
