//! What can't be seen of an old primary is named: it isn't nothing.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use fake_kafka::acls::{Acl, Operation, ResourceType};
use fake_kafka::faults::{Action, Fault};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;

use crate::support::failover::{answer, failover, words};
use crate::support::{FakeCluster, Load, Twinlog, await_caught_up, create_topic, fake_pair};

const DEADLINE: Duration = Duration::from_secs(60);

fn orphans(config: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_twinlog"));
    command.args(["orphans", "-c"]).arg(config).args(arguments);
    command.output().expect("the built binary runs")
}

/// Two topics, of each of which the old primary has twelve records that were never copied.
fn stranded() -> (FakeCluster, Twinlog) {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    for topic in ["orders", "payments"] {
        create_topic(&from, topic, 1, &[]);
        Load::new(topic, 20).produce(&from);
    }
    let mut twinlog = Twinlog::between(&from, &to);
    await_caught_up(&twinlog, DEADLINE);
    twinlog.kill9();
    for topic in ["orders", "payments"] {
        Load::new(topic, 12).first(20).produce(&from);
    }
    let arguments = ["--unplanned", "--accept-loss", "any", "--yes", "--json"];
    answer(&failover(twinlog.config_file(), &arguments), 0);
    (source, twinlog)
}

#[test]
fn a_topic_that_is_hidden_is_not_gone() {
    let (source, twinlog) = stranded();
    source.control(|state| {
        state.acls.is_on = true;
        state.acls.allow_if_no_acl_found = true;
        let (who, what) = ("User:ANONYMOUS", ResourceType::Topic);
        let denied = Acl::allow(who, Operation::Describe, what, "orders").denied();
        state.acls.all.insert(denied);
    });
    let listed = orphans(twinlog.config_file(), &["--json"]);
    let said = words(&listed);
    let listed = answer(&listed, 1);
    assert!(!said.contains("no such topic"), "{said}");
    assert_eq!(listed["totals"]["records"], 12, "{listed:#}");
    assert_eq!(listed["left_out"][0]["topic"], "orders", "{listed:#}");
    assert!(said.contains("orders-0"), "{said}");
}

#[test]
fn an_export_without_a_partition_names_it_and_fails() {
    let (source, twinlog) = stranded();
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().join("orphans");
    let folder = folder.to_str().expect("UTF-8");
    source.fault(
        Fault::on(ApiKey::ListOffsets).partition("orders", 0),
        Action::Refuse(ResponseError::LeaderNotAvailable),
    );
    let exported = orphans(twinlog.config_file(), &["--export", folder, "--json"]);
    let said = words(&exported);
    let manifest = answer(&exported, 1);
    assert_eq!(manifest["records"], 12, "{manifest:#}");
    assert_eq!(manifest["left_out"][0]["topic"], "orders", "{manifest:#}");
    assert!(said.contains("orders-0"), "{said}");
}
