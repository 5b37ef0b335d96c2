//! Twinlog with exactly the ACLs of docs/SECURITY.md, on secured clusters: that everything works
//! with them, and that without each optional one happens what the document and `check` say.

use std::time::Duration;

use crate::support::acls::{self, Acl, Kind, Operation, Resource};
use crate::support::flow::{flow_config, is_caught_up, topic_status};
use crate::support::{
    Cluster, ClusterOptions, KafkaVersion, Load, Security, Transactions, Twinlog, await_same,
    create_topic, eventually, quotas, topic_configs,
};
use serde_json::Value;

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
    let document = include_str!("../../../docs/SECURITY.md");
    let mut grants = Vec::new();
    let mut comment = "";
    for line in document.lines() {
        if let Some(found) = line.strip_prefix("# ") {
            comment = found;
        }
        let Some(options) = line.strip_prefix("kafka-acls.sh ") else {
            continue;
        };
        // What single commands need is `fake::command_rights`' subject.
        if comment.starts_with("For ") {
            continue;
        }
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
    fn acl(&self) -> Acl {
        use Operation::*;
        let known = [
            Read,
            Write,
            Create,
            Delete,
            Alter,
            Describe,
            ClusterAction,
            DescribeConfigs,
            AlterConfigs,
        ];
        let mut known = known.into_iter();
        let operation = known.find(|known| format!("{known:?}") == self.operation);
        let operation = operation.unwrap_or_else(|| panic!("{self:?}"));
        let resource = match (self.kind.as_str(), self.prefixed) {
            ("cluster", _) => Resource::cluster(),
            ("topic", false) => Resource::topic(&self.name),
            ("topic", true) => Resource::prefixed(Kind::Topic, &self.name),
            ("group", true) => Resource::prefixed(Kind::Group, &self.name),
            _ => panic!("{self:?}"),
        };
        Acl::allow("User:twinlog", operation, resource)
    }

    /// The other rights on the same that bring this one with them.
    fn brought_by(&self) -> Vec<Self> {
        let bring: &[&str] = match self.operation.as_str() {
            "Describe" => &["Read", "Write", "Delete", "Alter"],
            "DescribeConfigs" => &["AlterConfigs"],
            // Not by the authorizer, but the brokers take either for markers.
            "ClusterAction" => &["Alter"],
            _ => &[],
        };
        let is_one = |other: &Self| {
            other.on_source == self.on_source
                && (&other.kind, &other.name) == (&self.kind, &self.name)
                && bring.contains(&other.operation.as_str())
        };
        documented().into_iter().filter(is_one).collect()
    }

    fn remove(&self, bootstrap: &str) {
        acls::remove(bootstrap, &self.acl());
    }

    fn add(&self, bootstrap: &str) {
        acls::add(bootstrap, &[self.acl()]);
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
    let answer: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stdout)));
    let findings = answer["findings"].as_array().expect("a list");
    assert!(findings.len() > 3, "{findings:#?}");
    findings
        .iter()
        .filter(|finding| finding["level"] != "ok")
        .filter(|finding| {
            finding["subject"]
                .as_str()
                .is_some_and(|s| s.starts_with("flow "))
        })
        .cloned()
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
        || match crate::support::groups::committed(&pair.target, group, topic, 1)[0] {
            Some(found) if found == wanted => Ok(()),
            found => Err(found),
        },
    );
}

fn user(name: &str) -> quotas::Entity {
    quotas::entity(&[("user", Some(name))])
}

fn set_quota(bootstrap: &str, name: &str, value: f64) {
    quotas::set(
        bootstrap,
        &user(name),
        &[("producer_byte_rate", Some(value))],
    );
}

fn quota(bootstrap: &str, name: &str) -> Option<f64> {
    let all = quotas::list(bootstrap);
    all.get(&user(name))?.get("producer_byte_rate").copied()
}

fn await_retention(bootstrap: &str, topic: &str, wanted: &str) {
    eventually(
        DEADLINE,
        "the topic's retention follows",
        || match topic_configs::own(bootstrap, topic).remove("retention.ms") {
            Some(found) if found == wanted => Ok(()),
            found => Err(found),
        },
    );
}

/// What reads and doesn't write follows at once.
fn alice_reads() -> Acl {
    Acl::allow(
        "User:alice",
        Operation::Read,
        Resource::topic("shop.orders"),
    )
}

fn await_acl(bootstrap: &str) {
    eventually(DEADLINE, "the ACL follows", || {
        let found = acls::list(bootstrap);
        if found.contains(&alice_reads()) {
            Ok(())
        } else {
            Err(found)
        }
    });
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
    crate::support::groups::commit(&pair.source, "shop.billing", &[("shop.orders", 0, 7)]);
    set_quota(&pair.source, "alice", 1024.0);
    acls::add(&pair.source, &[alice_reads()]);
    let config = pair.config("all", "shop[.]orders", "");
    let mut twinlog = Twinlog::start(&config);
    let status = twinlog.wait_until(DEADLINE, "the topic is copied", |status| {
        is_caught_up(status, "shop.orders", 0)
    });
    assert_eq!(topic_status(&status, "shop.orders")["offsets"], "identical");
    await_same(&pair.source, &pair.target, "shop.orders", DEADLINE);
    await_on_target(&pair, "shop.billing", "shop.orders", 7);
    await_ways(&twinlog, "tail");
    await_quota(&pair.target, "alice", 1024.0);
    await_acl(&pair.target);
    await_retention(&pair.target, "shop.orders", "123456789");
    topic_configs::set(&pair.source, "shop.orders", "retention.ms", "987654321");
    await_retention(&pair.target, "shop.orders", "987654321");
    let gap = |status: &Value| {
        let attention = status["flows"][0]["metadata"]["attention"]
            .as_array()
            .cloned();
        attention
            .unwrap_or_default()
            .iter()
            .any(|drift| drift["subject"] == "user alice")
    };
    crate::support::users::create(&pair.source, "alice");
    twinlog.wait_until(DEADLINE, "the missing user is listed", gap);
    crate::support::users::create(&pair.target, "alice");
    twinlog.wait_until(DEADLINE, "the gap is closed", |status| !gap(status));
    // What it brings of the source's ACLs, its own among them, isn't to be waited for below.
    assert!(twinlog.terminate().success());
    let problems = complaints(&twinlog);
    assert!(problems.is_empty(), "{problems:#?}");

    for grant in documented() {
        grant.remove(pair.side(&grant));
        let bringing = grant.brought_by();
        for other in &bringing {
            other.remove(pair.side(other));
        }
        eventually(DEADLINE, &format!("check notices: {grant:?}"), || {
            // Creating is asked for only where there is something to create.
            if grant.operation == "Create" {
                return Ok(());
            }
            let found = complaints(&twinlog);
            let of_side = if grant.on_source { "source" } else { "target" };
            let without = grant.without.as_deref().unwrap_or_default();
            // A right may be needed for something else besides, which is told by itself.
            let about = found.iter().find(|finding| {
                let message = finding["message"].as_str().unwrap_or_default();
                is_about(finding, &grant) && message.contains(of_side) && message.contains(without)
            });
            let Some(about) = about else {
                return Err(format!("{found:#?}"));
            };
            let level = if grant.without.is_some() {
                "warning"
            } else {
                "error"
            };
            if about["level"] == level {
                Ok(())
            } else {
                Err(format!("{about:#?}"))
            }
        });
        grant.add(pair.side(&grant));
        for other in &bringing {
            other.add(pair.side(other));
        }
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
    crate::support::groups::commit(&pair.source, "shop.billing", &[("shop.orders", 0, 3)]);
    set_quota(&pair.source, "alice", 1024.0);
    acls::add(&pair.source, &[alice_reads()]);
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
        || match crate::support::groups::committed(&pair.target, "shop.billing", "shop.orders", 1)
            [0]
        {
            Some(_) => Ok(()),
            None => Err(()),
        },
    );
    for side in ["source", "target"] {
        await_obstacle(&twinlog, "quota", side, "DescribeConfigs");
        await_obstacle(&twinlog, "user", side, "Describe");
    }
    await_obstacle(&twinlog, "acl", "source", "DESCRIBE");
    assert_eq!(quota(&pair.target, "alice"), None);
    assert!(!acls::list(&pair.target).contains(&alice_reads()));
    assert_eq!(
        topic_configs::own(&pair.target, "shop.orders").get("retention.ms"),
        None
    );

    // Rights that come are used without a restart.
    let grants = documented();
    for grant in grants.iter().filter(|grant| grant.kind == "cluster") {
        grant.add(pair.side(grant));
    }
    await_quota(&pair.target, "alice", 1024.0);
    await_acl(&pair.target);
}
