//! What all commands have in common: exit codes, JSON, and a cluster that says nothing.

use std::time::Duration;

use crate::support::admin::topic_names;
use crate::support::failover::await_failed_over;
use crate::support::fake::{fake_authorized_pair, fake_fenceable_pair};
use crate::support::flow::{flow_config, is_caught_up};
use crate::support::groups::commit;
use crate::support::wait::Stopwatch;
use crate::support::{Load, Twinlog, create_topic, fake_pair};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(60);
/// A cluster is given 10 s; a debug build on a busy machine needs a little more.
const SECONDS: Duration = Duration::from_secs(22);

/// The exit code, and what is on stdout as JSON.
fn answer(twinlog: &Twinlog, command: &str, arguments: &[&str]) -> (i32, Value) {
    let output = twinlog.command(command, &[arguments, &["--json"]].concat());
    let code = output.status.code().expect("it ended by itself");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let value: Value = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{command} {arguments:?}: {error}: {text}\n{errors}"));
    assert!(
        value["version"].is_u64(),
        "{command} {arguments:?} has no version: {value:#}"
    );
    (code, value)
}

/// A command, the exit code, and a key of its answer.
type Row<'a> = (&'a str, &'a [&'a str], i32, &'a str);

fn assert_rows(twinlog: &Twinlog, rows: &[Row<'_>]) {
    let mut wrong = Vec::new();
    for (command, arguments, code, key) in rows {
        let (found, value) = answer(twinlog, command, arguments);
        if found != *code || value[*key].is_null() {
            wrong.push(format!("{command} {arguments:?}: {found}: {value:#}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_command_answers_json_with_a_version_and_exit_codes_mean_one_thing() {
    let (source, target) = fake_authorized_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, "c-topic", 1, &[]);
    Load::new("c-topic", 10).produce(&from);
    commit(&from, "c-group", &[("c-topic", 0, 5)]);
    let twinlog = Twinlog::start(&flow_config("dr", "c-.*", &from, &to, ""));
    twinlog.wait_until(DEADLINE, "it is copied", |status| {
        is_caught_up(status, "c-topic", 0)
    });
    twinlog.await_group("c-group", "followed", DEADLINE);
    let folder = tempfile::TempDir::new().expect("a folder");
    let folder = folder.path().to_str().expect("UTF-8");
    let at = |offset| ["--topic", "c-topic", "--partition", "0", "--offset", offset];
    let (there, not_there) = (at("3"), at("30"));
    assert_rows(
        &twinlog,
        &[
            ("check", &[], 0, "findings"),
            ("plan", &[], 0, "changes"),
            ("status", &[], 0, "flows"),
            ("groups", &[], 0, "flows"),
            ("groups", &["--explain", "c-group"], 0, "explained"),
            ("groups", &["--explain", "nobody"], 1, "errors"),
            ("groups", &["--remembered"], 0, "groups"),
            ("translate", &there, 0, "offset"),
            ("translate", &not_there, 1, "limit"),
            ("held", &[], 0, "held"),
            ("held", &["--release"], 0, "create"),
            ("held", &["--withdraw"], 0, "delete"),
            ("held", &["--yes"], 2, "errors"),
            ("verify", &[], 0, "verdict"),
            ("verify", &["--flow", "none"], 2, "errors"),
            // Nobody may change anything through it without a token.
            ("look", &[], 1, "errors"),
            ("look", &["--flow", "none"], 2, "errors"),
            ("failover", &[], 0, "checks"),
            ("failover", &["--fence", "manual"], 0, "steps"),
            ("failover", &["--nonsense"], 2, "errors"),
            // There is nothing to undo, to give up or to lift, and each says so.
            ("failover", &["--abort"], 1, "errors"),
            ("failback", &[], 1, "errors"),
            ("failback", &["--abort"], 1, "errors"),
            ("failback", &["--give-up"], 1, "errors"),
            ("failback", &["--lift-fence"], 0, "fence"),
            (
                "drill",
                &["--no-source", "--kind", "unplanned"],
                0,
                "checks",
            ),
            ("drill", &["--cleanup"], 0, "leftovers"),
            ("orphans", &["--export", folder, "--replay"], 2, "errors"),
        ],
    );
    // Nothing was carried out without --yes.
    let (_, plan) = answer(&twinlog, "plan", &[]);
    assert_eq!(plan["changes"], serde_json::json!([]), "{plan:#}");
    // Nor was anything made on the source by looking.
    let mut topics = topic_names(&from);
    topics.retain(|topic| topic != "__consumer_offsets");
    assert_eq!(topics, ["c-topic"]);
}

/// What a failover put in force on the standby is no difference, and nobody is told to take it back.
/// Two flows in one process, and the target of one of them is gone.
#[test]
fn a_flow_is_asked_for_by_itself_and_an_address_without_a_broker_has_its_cure() {
    let (source, target) = fake_fenceable_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, "good-topic", 1, &[]);
    Load::new("good-topic", 10).produce(&from);
    commit(&from, "good-group", &[("good-topic", 0, 5)]);
    let clusters = format!(
        "  a: {{ bootstrap.servers: \"{from}\" }}\n  b: {{ bootstrap.servers: \"{to}\" }}\n  \
         c: {{ bootstrap.servers: \"127.0.0.1:1\" }}"
    );
    let config = format!(
        "clusters:\n{clusters}\nflows:\n  good: {{ source: a, target: b, topics: {{ include: [\"good-.*\"] }} }}\n  \
         bad: {{ source: a, target: c, topics: {{ include: [\"bad-.*\"] }} }}\n"
    );
    let twinlog = Twinlog::start(&config);
    twinlog.wait_until(DEADLINE, "it is copied", |status| {
        let flows = status["flows"].as_array().into_iter().flatten();
        let mut good = flows.filter(|flow| flow["name"] == "good");
        good.any(|flow| flow["failover"]["can_fail_over"] == "yes")
    });
    twinlog.await_group("good-group", "followed", DEADLINE);
    for (command, arguments, code) in [
        ("status", &["--exit-code"][..], 1),
        ("status", &["--exit-code", "--flow", "good"], 0),
        ("status", &["--exit-code", "--flow", "bad"], 1),
        ("status", &["--flow", "god"], 2),
        ("groups", &["--flow", "good"], 0),
        ("groups", &["--flow", "god"], 2),
        ("groups", &["--remembered"], 1),
        ("groups", &["--remembered", "--flow", "good"], 0),
        ("plan", &[], 1),
        ("plan", &["--flow", "good"], 0),
    ] {
        let (found, value) = answer(&twinlog, command, arguments);
        assert_eq!(found, code, "{command} {arguments:?}: {value:#}");
    }
    let (_, status) = answer(&twinlog, "status", &["--flow", "good"]);
    assert_eq!(status["ready"], true, "{status:#}");
    assert_eq!(status["flows"].as_array().map(Vec::len), Some(1));
    let (_, groups) = answer(&twinlog, "groups", &["--flow", "bad"]);
    assert!(!groups.to_string().contains("good-group"), "{groups:#}");
    for (command, arguments) in [
        ("failover", &["--flow", "bad"][..]),
        ("failback", &["--flow", "bad"]),
        ("orphans", &["--flow", "bad"]),
        ("drill", &["--flow", "bad"]),
        ("held", &["--flow", "bad"]),
        ("verify", &["--flow", "bad"]),
        ("groups", &["--remembered", "--flow", "bad"]),
    ] {
        let output = twinlog.command(command, arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            said.contains("nothing listens on that port"),
            "{command}: {said}"
        );
        assert_eq!(output.status.code(), Some(1), "{command}: {said}");
    }
}

/// What `check` says of it, `plan` says too.
#[test]
fn a_flow_from_a_cluster_to_itself_is_no_plan() {
    let (source, _target) = fake_pair();
    let from = source.bootstrap();
    let twinlog = Twinlog::prepare(&flow_config("dr", ".*", &from, &from, ""));
    let output = twinlog.command("plan", &[]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("the same cluster"), "{said}");
    assert_eq!(output.status.code(), Some(1), "{said}");
}

#[test]
fn after_a_failover_nothing_is_to_be_made_like_the_old_primary() {
    let (source, target) = fake_fenceable_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(
        &from,
        "o-topic",
        1,
        &[("message.timestamp.type", "LogAppendTime")],
    );
    Load::new("o-topic", 10).produce(&from);
    let twinlog = Twinlog::start(&flow_config("dr", "o-.*", &from, &to, ""));
    twinlog.wait_until(DEADLINE, "it is copied", |status| {
        is_caught_up(status, "o-topic", 0)
            && status["flows"][0]["metadata"]["held"]
                .to_string()
                .contains("LogAppendTime")
    });
    let (code, report) = answer(&twinlog, "failover", &["--yes"]);
    assert_eq!(
        (code, &report["state"]),
        (0, &Value::from("done")),
        "{report:#}"
    );
    await_failed_over(&twinlog);

    let (code, plan) = answer(&twinlog, "plan", &["--exit-code"]);
    assert_eq!(code, 0, "{plan:#}");
    let actions: Vec<&str> = plan["changes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|change| change["action"].as_str())
        .collect();
    assert_eq!(actions, ["leave"], "{plan:#}");
    let (code, verified) = answer(&twinlog, "verify", &["--full"]);
    assert_eq!(code, 0, "{verified:#}");
    assert!(
        verified["configs"]["skipped"].is_string() && verified["held"]["skipped"].is_string(),
        "{verified:#}"
    );
    let status = twinlog.command("status", &[]);
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(
        !status.contains("in flight") && !status.contains("configs, ACLs"),
        "{status}"
    );

    // What would be undone is shown, and nothing is.
    let (code, shown) = answer(&twinlog, "failover", &["--abort"]);
    assert_eq!((code, &shown["undoes"]), (0, &report["plan"]), "{shown:#}");
    let steps = shown["steps"].as_array().map_or(0, Vec::len);
    assert_eq!((steps, &shown["steps"][0]), (8, &Value::from("promote")));
    let (code, again) = answer(&twinlog, "failover", &["--yes"]);
    assert_eq!(code, 1, "it is failed over still: {again:#}");
    let (code, undone) = answer(&twinlog, "failover", &["--abort", "--yes"]);
    assert_eq!(
        (code, &undone["state"]),
        (0, &Value::from("aborted")),
        "{undone:#}"
    );
}

#[test]
fn without_clusters_every_command_says_so_in_json() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    let config = flow_config("dr", ".*", &from, &to, "");
    let twinlog = Twinlog::prepare(&config);
    source.control(|state| state.stop_broker(1));
    target.control(|state| state.stop_broker(1));
    assert_rows(
        &twinlog,
        &[
            ("check", &[], 1, "findings"),
            ("plan", &[], 1, "changes"),
            ("status", &[], 1, "errors"),
            ("groups", &[], 1, "errors"),
            ("groups", &["--remembered"], 1, "errors"),
            ("held", &[], 1, "errors"),
            ("held", &["--release"], 1, "errors"),
            ("verify", &[], 1, "errors"),
            ("look", &[], 1, "errors"),
            ("failover", &[], 1, "errors"),
            ("failback", &[], 1, "errors"),
            ("orphans", &[], 1, "errors"),
            ("drill", &[], 1, "errors"),
        ],
    );
}

/// The primary's vault went down with it: an emergency doesn't need its password, nor does who asks the standby alone.
#[test]
fn a_secret_that_is_gone_with_its_cluster_stops_no_failover() {
    let (source, target) = fake_fenceable_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, "v-topic", 1, &[]);
    Load::new("v-topic", 10).produce(&from);
    let mut twinlog = Twinlog::start(&flow_config("dr", "v-.*", &from, &to, ""));
    twinlog.wait_until(DEADLINE, "it is copied", |status| {
        is_caught_up(status, "v-topic", 0)
    });
    assert!(twinlog.terminate().success());
    let login = "security.protocol: SASL_PLAINTEXT, sasl.mechanism: PLAIN, sasl.username: t, \
                 sasl.password: \"file:/gone/with/the/vault\"";
    let config = std::fs::read_to_string(twinlog.config_file()).expect("it is there");
    let without = |cluster: &str| {
        let text = config.replacen(
            &format!("\"{cluster}\""),
            &format!("\"{cluster}\", {login}"),
            1,
        );
        std::fs::write(twinlog.config_file(), text).expect("writes");
    };
    without(&to);
    let needed = twinlog.command("failover", &["--unplanned"]);
    assert_eq!(needed.status.code(), Some(2), "{needed:?}");
    without(&from);
    // It is there, so nobody says that it is gone.
    let lives = twinlog.command("failover", &["--unplanned", "--accept-loss", "any"]);
    let said = String::from_utf8_lossy(&lives.stdout).into_owned();
    assert!(said.contains("whether it is gone isn't known"), "{said}");
    source.control(|state| state.stop_broker(1));
    let gone = twinlog.command("failover", &["--unplanned", "--accept-loss", "any"]);
    let said = String::from_utf8_lossy(&gone.stdout).into_owned();
    assert!(said.contains("is gone, as said"), "{said}");
    let planned = twinlog.command("failover", &[]);
    assert_eq!(planned.status.code(), Some(2), "{planned:?}");
    for (command, arguments) in [
        ("held", &[][..]),
        ("groups", &["--remembered"]),
        (
            "translate",
            &["--topic", "v-topic", "--partition", "0", "--offset", "3"],
        ),
        (
            "failover",
            &["--unplanned", "--accept-loss", "any", "--yes"],
        ),
        ("failover", &["--report"]),
    ] {
        let done = twinlog.command(command, arguments);
        assert_eq!(done.status.code(), Some(0), "{command}: {done:?}");
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(said.contains("/gone/with/the/vault"), "{command}: {said}");
    }
}

/// Whatever proves who we are may be gone with the cluster, and what other flows need isn't needed for this one.
#[test]
fn nor_does_a_key_or_another_flow_s_secret() {
    let (source, target) = fake_fenceable_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, "w-topic", 1, &[]);
    Load::new("w-topic", 10).produce(&from);
    let mut twinlog = Twinlog::start(&flow_config("dr", "w-.*", &from, &to, ""));
    twinlog.wait_until(DEADLINE, "it is copied", |status| {
        is_caught_up(status, "w-topic", 0)
    });
    assert!(twinlog.terminate().success());
    source.control(|state| state.stop_broker(1));
    let config = std::fs::read_to_string(twinlog.config_file()).expect("it is there");
    let gone = "file:/gone/with/the/vault";
    let certificate = "ssl.certificate.location: /gone/certificate.pem";
    let login = "security.protocol: SASL_PLAINTEXT, sasl.mechanism: PLAIN";
    let logins = [
        format!(
            "security.protocol: SSL, {certificate}, ssl.key.location: /gone/key.pem, ssl.key.password: \"{gone}\""
        ),
        format!("security.protocol: SSL, {certificate}, ssl.key.pem: \"{gone}\""),
        format!("{login}, sasl.username: \"${{GONE_WITH_THE_VAULT}}\", sasl.password: \"{gone}\""),
    ];
    for login in &logins {
        let text = config.replacen(&format!("\"{from}\""), &format!("\"{from}\", {login}"), 1);
        std::fs::write(twinlog.config_file(), text).expect("writes");
        let shown = twinlog.command("failover", &["--unplanned", "--accept-loss", "any"]);
        let said = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(
            said.contains("is gone, as said"),
            "{login}: {said} {shown:?}"
        );
        let planned = twinlog.command("failover", &[]);
        assert_eq!(planned.status.code(), Some(2), "{login}: {planned:?}");
    }
    // A second flow to a cluster whose vault is gone, too.
    let login = format!("{login}, sasl.username: t, sasl.password: \"{gone}\"");
    let third = format!("  third: {{ bootstrap.servers: \"127.0.0.1:1\", {login} }}\nflows:\n");
    let text = config.replacen("flows:\n", &third, 1).replacen(
        "flows:\n",
        "flows:\n  other:\n    source: primary\n    target: third\n    topics: { include: [\"x-.*\"] }\n",
        1,
    );
    std::fs::write(twinlog.config_file(), text).expect("writes");
    let named = ["--flow", "dr", "--unplanned", "--accept-loss", "any"];
    let shown = twinlog.command("failover", &named);
    let said = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(said.contains("is gone, as said"), "{said} {shown:?}");
    let unnamed = twinlog.command("held", &[]);
    assert_eq!(unnamed.status.code(), Some(2), "{unnamed:?}");
}

/// Whether it is told that a cluster takes connections or questions and says nothing.
fn says_silence(text: &str, cluster: &str) -> bool {
    let silent = format!("cluster {cluster}, ");
    text.contains(&format!("{cluster} doesn't answer"))
        || (text.contains(&silent) && text.contains("accepted, but silent"))
}

#[test]
fn a_primary_that_hangs_costs_seconds_and_the_standby_is_shown() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    let append_time = [("message.timestamp.type", "LogAppendTime")];
    create_topic(&from, "z-topic", 1, &append_time);
    Load::new("z-topic", 10).produce(&from);
    let mut twinlog = Twinlog::start(&flow_config("dr", "z-.*", &from, &to, ""));
    twinlog.wait_until(DEADLINE, "it is copied", |status| {
        is_caught_up(status, "z-topic", 0)
            && status["flows"][0]["metadata"]["held"]
                .to_string()
                .contains("LogAppendTime")
    });
    assert!(twinlog.terminate().success());
    let verified = twinlog.command("verify", &["--full"]);
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");

    source.control(|state| state.freeze_broker(1));
    let timed = |command: &str, arguments: &[&str]| {
        let watch = Stopwatch::start();
        let output = twinlog.command(command, arguments);
        let took = watch.counted();
        assert!(took < SECONDS, "{command} took {took:?}");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{command}: {said}{errors}");
        assert!(says_silence(&errors, "primary"), "{command}: {errors}");
        assert!(!errors.contains("__twinlog_state"), "{command}: {errors}");
        said
    };
    let planned = timed("plan", &[]);
    assert!(says_silence(&planned, "primary"), "{planned}");
    assert!(
        planned.contains("held: message.timestamp.type = LogAppendTime"),
        "{planned}"
    );
    let verified = timed("verify", &[]);
    assert!(verified.contains("verified 100.0 %"), "{verified}");

    // The other way round nothing can be told, and that is told as soon.
    source.control(|state| state.thaw_broker(1));
    target.control(|state| state.freeze_broker(1));
    for command in ["plan", "verify"] {
        let watch = Stopwatch::start();
        let output = twinlog.command(command, &[]);
        assert!(watch.counted() < SECONDS, "{command}");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(says_silence(&errors, "standby"), "{errors}");
    }
}

/// What is known of the primary lay where the primary lay: not even its address is needed.
#[test]
fn variables_that_are_gone_with_their_cluster_stop_no_failover() {
    let (source, target) = fake_fenceable_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, "e-topic", 1, &[]);
    Load::new("e-topic", 10).produce(&from);
    let mut twinlog = Twinlog::start(&flow_config("dr", "e-.*", &from, &to, ""));
    twinlog.wait_until(DEADLINE, "it is copied", |status| {
        is_caught_up(status, "e-topic", 0)
    });
    assert!(twinlog.terminate().success());
    let config = std::fs::read_to_string(twinlog.config_file()).expect("it is there");
    let section = "\"${GONE_ADDRESS}\", client.id: \"${GONE_CLIENT}\", request.timeout.ms: \"${GONE_PATIENCE}\", \
                   security.protocol: SASL_PLAINTEXT, sasl.mechanism: PLAIN, sasl.username: \"${GONE_USER}\", \
                   sasl.password: \"${GONE_PASSWORD}\"";
    let text = config.replacen(&format!("\"{from}\""), section, 1);
    assert_ne!(text, config);
    std::fs::write(twinlog.config_file(), text).expect("writes");
    source.control(|state| state.stop_broker(1));
    for (command, arguments) in [
        ("held", &[][..]),
        (
            "translate",
            &["--topic", "e-topic", "--partition", "0", "--offset", "3"],
        ),
        ("failover", &["--unplanned", "--accept-loss", "any"]),
        (
            "failover",
            &["--unplanned", "--accept-loss", "any", "--yes"],
        ),
    ] {
        let done = twinlog.command(command, arguments);
        assert_eq!(done.status.code(), Some(0), "{command}: {done:?}");
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        for variable in [
            "GONE_ADDRESS",
            "GONE_CLIENT",
            "GONE_PATIENCE",
            "GONE_USER",
            "GONE_PASSWORD",
        ] {
            assert!(said.contains(variable), "{command}: {variable}: {said}");
        }
    }
    let planned = twinlog.command("failback", &[]);
    assert_eq!(planned.status.code(), Some(2), "{planned:?}");
}
