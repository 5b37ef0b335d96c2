//! Twinlog with exactly the ACLs of docs/SECURITY.md, on secured clusters: that everything works
//! with them, and that without each optional one happens what the document and `check` say.

mod support;

use std::time::Duration;

use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::{CreateAclsRequest, DeleteAclsRequest};
use serde_json::Value;
use support::flow::{flow_config, is_caught_up, topic_status};
use support::operator::{call, text};
use support::{
    Cluster, ClusterOptions, KafkaVersion, Load, Security, Transactions, Twinlog, await_same,
    create_topic, eventually,
};
use twinlog::wire::{self, QuotaChange, QuotaEntity};

const DEADLINE: Duration = Duration::from_secs(60);

/// One `kafka-acls.sh` of the document, for one operation.
#[derive(Clone, Debug, PartialEq)]
struct Grant {
    on_source: bool,
    operation: String,
    /// `topic`, `group` or `cluster`.
    kind: String,
    name: String,
    prefixed: bool,
    /// What happens without it; `None` where it is required.
    without: Option<String>,
}

/// All of them, as they stand in the document.
fn documented() -> Vec<Grant> {
    let document = include_str!("../docs/SECURITY.md");
    let mut grants = Vec::new();
    let mut comment = "";
    for line in document.lines() {
        if let Some(found) = line.strip_prefix("# ") {
            comment = found;
        }
        let Some(options) = line.strip_prefix("kafka-acls.sh ") else {
            continue;
        };
        let words: Vec<&str> = options
            .split(' ')
            .map(|word| word.trim_matches('\''))
            .collect();
        let after = |option: &str| {
            let at = words.iter().position(|word| *word == option)?;
            words.get(at + 1).copied()
        };
        assert_eq!(after("--allow-principal"), Some("User:twinlog"), "{line}");
        let without = comment.strip_prefix("Optional. Without it: ");
        assert!(
            without.is_some() || comment.starts_with("Required"),
            "{comment}"
        );
        let (kind, name) = match (after("--topic"), after("--group")) {
            (Some(topic), None) => ("topic", topic),
            (None, Some(group)) => ("group", group),
            _ => {
                assert!(words.contains(&"--cluster"), "{line}");
                ("cluster", "kafka-cluster")
            }
        };
        for pair in words.windows(2).filter(|pair| pair[0] == "--operation") {
            grants.push(Grant {
                on_source: match after("--bootstrap-server") {
                    Some("$SOURCE") => true,
                    Some("$TARGET") => false,
                    other => panic!("{other:?}: {line}"),
                },
                operation: pair[1].to_owned(),
                kind: kind.to_owned(),
                name: name.to_owned(),
                prefixed: after("--resource-pattern-type") == Some("prefixed"),
                without: without.map(str::to_owned),
            });
        }
    }
    grants
}

impl Grant {
    fn numbers(&self) -> (i8, i8, i8) {
        let kind = match self.kind.as_str() {
            "topic" => 2,
            "group" => 3,
            _ => 4,
        };
        let pattern = if self.prefixed { 4 } else { 3 };
        let operation = match self.operation.as_str() {
            "Read" => 3,
            "Write" => 4,
            "Create" => 5,
            "Delete" => 6,
            "Alter" => 7,
            "Describe" => 8,
            "ClusterAction" => 9,
            "DescribeConfigs" => 10,
            "AlterConfigs" => 11,
            other => panic!("{other} is no operation"),
        };
        (kind, pattern, operation)
    }

    fn add(&self, bootstrap: &str) {
        let (kind, pattern, operation) = self.numbers();
        let acl = AclCreation::default()
            .with_resource_type(kind)
            .with_resource_name(text(&self.name))
            .with_resource_pattern_type(pattern)
            .with_principal(text("User:twinlog"))
            .with_host(text("*"))
            .with_operation(operation)
            .with_permission_type(3);
        let request = CreateAclsRequest::default().with_creations(vec![acl]);
        let results = call(bootstrap, request, 3).results;
        assert!(results.iter().all(|r| r.error_code == 0), "{results:?}");
    }

    fn remove(&self, bootstrap: &str) {
        let (kind, pattern, operation) = self.numbers();
        let filter = DeleteAclsFilter::default()
            .with_resource_type_filter(kind)
            .with_resource_name_filter(Some(text(&self.name)))
            .with_pattern_type_filter(pattern)
            .with_principal_filter(Some(text("User:twinlog")))
            .with_host_filter(Some(text("*")))
            .with_operation(operation)
            .with_permission_type(3);
        let request = DeleteAclsRequest::default().with_filters(vec![filter]);
        let results = call(bootstrap, request, 3).filter_results;
        assert_eq!(results[0].error_code, 0, "{results:?}");
        assert_eq!(results[0].matching_acls.len(), 1, "{self:?}: {results:?}");
    }
}

/// Two clusters where Twinlog may do what the document says, and nothing else.
struct Pair {
    _clusters: [Cluster; 2],
    source: String,
    target: String,
}

impl Pair {
    fn start() -> Self {
        let launch = |name| {
            let security = Security::default().with_bare_twinlog();
            Cluster::launch(KafkaVersion::V4_3, ClusterOptions::secured(name, security))
        };
        let mut clusters = [launch("least-source"), launch("least-target")];
        for cluster in &mut clusters {
            cluster.await_ready();
        }
        let pair = Self {
            source: clusters[0].bootstrap(),
            target: clusters[1].bootstrap(),
            _clusters: clusters,
        };
        for grant in documented() {
            grant.add(pair.side(&grant));
        }
        pair
    }

    fn side(&self, grant: &Grant) -> &str {
        if grant.on_source {
            &self.source
        } else {
            &self.target
        }
    }

    fn config(&self, flow: &str, topics: &str, lines: &str) -> String {
        let lines = format!("groups: {{ include: [\"shop[.].*\"] }}\n{lines}");
        flow_config(flow, topics, &self.source, &self.target, &lines)
    }
}

/// What `check` has to say about flows, without what is fine.
fn complaints(twinlog: &Twinlog) -> Vec<Value> {
    let output = twinlog.command("check", &["--json"]);
    let findings: Vec<Value> = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stdout)));
    assert!(findings.len() > 3, "{findings:#?}");
    findings
        .into_iter()
        .filter(|finding| finding["level"] != "ok")
        .filter(|finding| {
            finding["subject"]
                .as_str()
                .is_some_and(|s| s.starts_with("flow "))
        })
        .collect()
}

fn is_about(finding: &Value, grant: &Grant) -> bool {
    let hint = finding["hint"].as_str().unwrap_or_default();
    let kind = match grant.kind.as_str() {
        "cluster" => "--cluster".to_owned(),
        kind => format!("--{kind} "),
    };
    hint.contains(&format!("--operation {} ", grant.operation)) && hint.contains(&kind)
}

fn await_on_target(pair: &Pair, group: &str, topic: &str, wanted: i64) {
    eventually(
        DEADLINE,
        "the position is on the target",
        || match support::groups::committed(&pair.target, group, topic, 1)[0] {
            Some(found) if found == wanted => Ok(()),
            found => Err(found),
        },
    );
}

fn operator(bootstrap: &str) -> wire::Cluster {
    support::flow::wire_cluster(&support::logins::internal(bootstrap))
}

fn set_quota(bootstrap: &str, user: &str, value: f64) {
    let change = QuotaChange {
        entity: QuotaEntity::new([("user", Some(user))]),
        key: "producer_byte_rate".to_owned(),
        value: Some(value),
    };
    let cluster = operator(bootstrap);
    let outcomes = support::flow::block_on(wire::alter_client_quotas(&cluster, &[change]));
    assert!(outcomes.expect("an answer").iter().all(Result::is_ok));
}

fn quota(bootstrap: &str, user: &str) -> Option<f64> {
    let cluster = operator(bootstrap);
    let quotas = support::flow::block_on(wire::describe_client_quotas(&cluster));
    let entity = QuotaEntity::new([("user", Some(user))]);
    let quotas = quotas.expect("quotas");
    quotas.get(&entity)?.get("producer_byte_rate").copied()
}

fn await_quota(bootstrap: &str, user: &str, wanted: f64) {
    eventually(DEADLINE, "the quota follows", || {
        match quota(bootstrap, user) {
            Some(found) if found == wanted => Ok(()),
            found => Err(found),
        }
    });
}

/// Waits until the groups of both clusters are watched in this way.
fn await_ways(twinlog: &Twinlog, way: &str) {
    eventually(DEADLINE, &format!("groups are watched: {way}"), || {
        let groups = twinlog.groups();
        let found = ["source", "target"].map(|side| groups[side]["way"].clone());
        if found.iter().all(|found| found == way) {
            Ok(())
        } else {
            Err(found)
        }
    });
}

/// An obstacle of the first flow.
fn await_obstacle(twinlog: &Twinlog, kind: &str, cluster: &str, operation: &str) {
    let what = format!("{kind} on the {cluster} is named: {operation}");
    twinlog.wait_until(DEADLINE, &what, |status| {
        let found = status["flows"][0]["metadata"]["obstacles"].as_array();
        found.into_iter().flatten().any(|obstacle| {
            obstacle["kind"] == kind
                && obstacle["cluster"] == cluster
                && obstacle["reason"] == "not_authorized"
                && obstacle["hint"].to_string().contains(operation)
        })
    });
}

#[test]
fn the_documented_rights_are_enough_and_each_of_them_counts() {
    let pair = Pair::start();
    create_topic(
        &pair.source,
        "shop.orders",
        1,
        &[("retention.ms", "123456789")],
    );
    Transactions::new(Load::new("shop.orders", 10), 6).produce(&pair.source);
    support::groups::commit(&pair.source, "shop.billing", &[("shop.orders", 0, 7)]);
    set_quota(&pair.source, "alice", 1024.0);
    let config = pair.config("all", "shop[.]orders", "");
    let twinlog = Twinlog::start(&config);
    let status = twinlog.wait_until(DEADLINE, "the topic is copied", |status| {
        is_caught_up(status, "shop.orders", 0)
    });
    assert_eq!(topic_status(&status, "shop.orders")["offsets"], "identical");
    await_same(&pair.source, &pair.target, "shop.orders", DEADLINE);
    await_on_target(&pair, "shop.billing", "shop.orders", 7);
    await_ways(&twinlog, "tail");
    await_quota(&pair.target, "alice", 1024.0);
    let gap = |status: &Value| {
        let attention = status["flows"][0]["metadata"]["attention"]
            .as_array()
            .cloned();
        attention
            .unwrap_or_default()
            .iter()
            .any(|drift| drift["subject"] == "user alice")
    };
    support::users::create(&pair.source, "alice");
    twinlog.wait_until(DEADLINE, "the missing user is listed", gap);
    support::users::create(&pair.target, "alice");
    twinlog.wait_until(DEADLINE, "the gap is closed", |status| !gap(status));
    let problems = complaints(&twinlog);
    assert!(problems.is_empty(), "{problems:#?}");

    for grant in documented() {
        grant.remove(pair.side(&grant));
        eventually(DEADLINE, &format!("check notices: {grant:?}"), || {
            // Creating is asked for only where there is something to create.
            if grant.operation == "Create" {
                return Ok(());
            }
            let found = complaints(&twinlog);
            let of_side = if grant.on_source { "source" } else { "target" };
            let about = found.iter().find(|finding| {
                is_about(finding, &grant) && finding["message"].to_string().contains(of_side)
            });
            let Some(about) = about else {
                return Err(format!("{found:#?}"));
            };
            let level = if grant.without.is_some() {
                "warning"
            } else {
                "error"
            };
            let without = grant.without.as_deref().unwrap_or_default();
            let message = about["message"].as_str().unwrap_or_default();
            if about["level"] == level && message.contains(without) {
                Ok(())
            } else {
                Err(format!("{about:#?}"))
            }
        });
        grant.add(pair.side(&grant));
    }
    eventually(DEADLINE, "all rights are back", || {
        match complaints(&twinlog) {
            found if found.is_empty() => Ok(()),
            found => Err(found),
        }
    });
}

fn without(pair: &Pair, on_source: bool, operation: &str, kind: &str, name: &str) {
    let grants = documented();
    let grant = grants.iter().find(|grant| {
        grant.on_source == on_source
            && grant.operation == operation
            && grant.kind == kind
            && grant.name == name
            && grant.without.is_some()
    });
    let grant = grant.unwrap_or_else(|| panic!("{operation} on {kind} {name} isn't documented"));
    grant.remove(pair.side(grant));
}

#[test]
fn without_the_optional_rights_happens_what_is_said() {
    let pair = Pair::start();
    let (source, target) = (true, false);
    for side in [source, target] {
        without(&pair, side, "Read", "topic", "__consumer_offsets");
        without(&pair, side, "Describe", "cluster", "kafka-cluster");
        without(&pair, side, "DescribeConfigs", "cluster", "kafka-cluster");
    }
    without(&pair, source, "DescribeConfigs", "topic", "shop.");
    for operation in ["Delete", "Alter", "AlterConfigs"] {
        without(&pair, target, operation, "topic", "shop.");
    }
    for operation in ["ClusterAction", "Alter", "AlterConfigs"] {
        without(&pair, target, operation, "cluster", "kafka-cluster");
    }
    create_topic(
        &pair.source,
        "shop.orders",
        1,
        &[("retention.ms", "123456789")],
    );
    Transactions::new(Load::new("shop.orders", 10), 6).produce(&pair.source);
    support::groups::commit(&pair.source, "shop.billing", &[("shop.orders", 0, 3)]);
    set_quota(&pair.source, "alice", 1024.0);
    let config = pair.config("few", "shop[.]orders", "");
    let twinlog = Twinlog::start(&config);
    let status = twinlog.wait_until(DEADLINE, "the topic is copied", |status| {
        is_caught_up(status, "shop.orders", 0)
    });
    let topic = topic_status(&status, "shop.orders");
    assert_eq!(topic["offsets"], "mapped", "{topic:#}");
    assert!(
        topic["offsets_reason"]
            .to_string()
            .contains("CLUSTER_ACTION"),
        "{topic:#}"
    );
    // Polled on both sides, and applied nonetheless.
    await_ways(&twinlog, "poll");
    eventually(
        DEADLINE,
        "the position is on the target",
        || match support::groups::committed(&pair.target, "shop.billing", "shop.orders", 1)[0] {
            Some(_) => Ok(()),
            None => Err(()),
        },
    );
    for side in ["source", "target"] {
        await_obstacle(&twinlog, "quota", side, "DescribeConfigs");
        await_obstacle(&twinlog, "user", side, "Describe");
    }
    assert_eq!(quota(&pair.target, "alice"), None);

    // Rights that come are used without a restart.
    let grants = documented();
    for grant in grants.iter().filter(|grant| grant.kind == "cluster") {
        grant.add(pair.side(grant));
    }
    await_quota(&pair.target, "alice", 1024.0);
}
