//! `twinlog plan`: what differs on the standby, for people, for programs and for cron.

use std::time::Duration;

use crate::support::flow::{flow_config, is_caught_up};
use crate::support::{Load, Twinlog, create_topic, eventually, fake_pair, topic_configs};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(60);

/// The answer to `plan` with these arguments, and its exit code.
fn plan(twinlog: &Twinlog, arguments: &[&str]) -> (String, Option<i32>) {
    let output = twinlog.command("plan", arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (text, output.status.code())
}

/// The changes that run would make, or somebody must.
fn changes(twinlog: &Twinlog) -> Vec<Value> {
    let (text, _) = plan(twinlog, &["--json"]);
    let answer: Value = serde_json::from_str(&text).expect("JSON");
    let changes = answer["changes"].as_array().expect("a list").iter();
    let counted = changes.filter(|change| change["counts"] == true);
    counted.cloned().collect()
}

#[test]
fn a_plan_says_what_differs_and_an_exit_code_tells_cron() {
    let (source, target) = fake_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "planned", 2, &[("segment.ms", "1000000")]);
    Load::new("planned", 10).produce(&source);
    let config = flow_config("planned", "planned.*", &source, &target, "");
    let mut twinlog = Twinlog::prepare(&config);

    let (text, exit) = plan(&twinlog, &["--exit-code"]);
    assert_eq!(exit, Some(1), "{text}");
    assert!(
        text.contains("+ topic planned: create: 2 partitions"),
        "{text}"
    );
    assert_eq!(plan(&twinlog, &[]).1, Some(0), "only cron asks for a code");

    twinlog.launch();
    twinlog.wait_until(DEADLINE, "the topic is copied", |status| {
        is_caught_up(status, "planned", 0) && is_caught_up(status, "planned", 1)
    });
    eventually(DEADLINE, "nothing is left to do", || {
        match changes(&twinlog) {
            left if left.is_empty() => Ok(()),
            left => Err(left),
        }
    });
    assert!(twinlog.terminate().success());

    // While nobody follows: one on either side.
    topic_configs::set(&source, "planned", "retention.ms", "86400000");
    topic_configs::set(&target, "planned", "segment.ms", "5000000");
    let found = eventually(DEADLINE, "both are seen", || match changes(&twinlog) {
        found if found.len() == 2 => Ok(found),
        found => Err(found),
    });
    let change = |key: &str| {
        let is_it = |change: &&Value| change["detail"] == key;
        let change = found.iter().find(is_it).unwrap_or(&Value::Null);
        let text = |field: &str| change[field].as_str().unwrap_or("-").to_owned();
        ["kind", "subject", "source"].map(text)
    };
    let of = |value: &str| ["topic_config", "topic planned", value].map(str::to_owned);
    assert_eq!(change("retention.ms"), of("86400000"), "{found:#?}");
    assert_eq!(change("segment.ms"), of("1000000"), "{found:#?}");
    let (text, exit) = plan(&twinlog, &["--exit-code"]);
    assert_eq!(exit, Some(1), "{text}");
    assert!(
        text.contains("~ topic planned: segment.ms: 5000000 -> 1000000"),
        "{text}"
    );
}
