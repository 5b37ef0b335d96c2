//! The fence on a source: ACLs that deny everybody to write to the copied topics.
//!
//! Only what wasn't there before is made, is noted in the state topic before it is made, and is
//! removed exactly. Super users aren't bound by ACLs; log ends that go on moving show them.

use std::collections::HashSet;

use kafka_protocol::ResponseError;

use crate::state::FenceAcl;
use crate::wire::{self, AclBinding, Cluster, WireError};

/// Numbers of `org.apache.kafka.common.resource` and `.acl`.
const TOPIC: i8 = 2;
const LITERAL: i8 = 3;
const PREFIXED: i8 = 4;
const OP_READ: i8 = 3;
const OP_WRITE: i8 = 4;
const OP_CREATE: i8 = 5;
const OP_DELETE: i8 = 6;
const OP_ALTER: i8 = 7;
const OP_DESCRIBE: i8 = 8;
const OP_DESCRIBE_CONFIGS: i8 = 10;
const OP_ALTER_CONFIGS: i8 = 11;
/// Everything that can be done to a topic but writing.
const OTHERS: [i8; 7] = [
    OP_READ,
    OP_CREATE,
    OP_DELETE,
    OP_ALTER,
    OP_DESCRIBE,
    OP_DESCRIBE_CONFIGS,
    OP_ALTER_CONFIGS,
];
/// ACLs in one request; a controller refuses very large ones.
const AT_ONCE: usize = 200;
/// The broker property that gives everybody all rights to what has no ACL.
const OPEN_BY_DEFAULT: &str = "allow.everyone.if.no.acl.found";

/// Why writers can't be kept away by ACLs.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DenyError {
    /// The cluster has no authorizer.
    #[error("the source has no authorizer, so no ACL can keep writers away")]
    NoAuthorizer,
    /// We may not change ACLs.
    #[error(
        "Twinlog may not change ACLs on the source (grant ALTER and DESCRIBE on the cluster): {0}"
    )]
    NotAllowed(WireError),
    /// A call failed.
    #[error(transparent)]
    Wire(WireError),
}

impl From<WireError> for DenyError {
    fn from(error: WireError) -> Self {
        match error.server_code() {
            Some(ResponseError::SecurityDisabled) => Self::NoAuthorizer,
            Some(ResponseError::ClusterAuthorizationFailed) => Self::NotAllowed(error),
            _ => Self::Wire(error),
        }
    }
}

/// The ACLs that a fence around `topics` lacks.
///
/// Where a topic without any ACL is open to everybody (`allow.everyone.if.no.acl.found`), its first
/// ACL would take all other rights away, also ours to read. There these are given back.
///
/// # Errors
/// When the source's ACLs can't be read.
pub async fn missing(source: &Cluster, topics: &[String]) -> Result<Vec<FenceAcl>, DenyError> {
    let listed = wire::describe_acls(source).await?.acls(source)?;
    let present: HashSet<&AclBinding> = listed.iter().collect();
    let is_open = is_open_by_default(source).await;
    let mut missing = Vec::new();
    for topic in topics {
        let deny = acl(topic, OP_WRITE, true);
        if !present.contains(&deny.binding()) {
            missing.push(deny);
        }
        let covers = |it: &AclBinding| match it.pattern_type {
            LITERAL => it.name == "*" || it.name == *topic,
            PREFIXED => topic.starts_with(&it.name),
            _ => false,
        };
        let mut of_topics = listed.iter().filter(|it| it.resource_type == TOPIC);
        if is_open && !of_topics.any(covers) {
            missing.extend(OTHERS.map(|operation| acl(topic, operation, false)));
        }
    }
    // What lets us go on reading comes first.
    missing.sort_by_key(|acl| acl.deny);
    Ok(missing)
}

fn acl(topic: &str, operation: i8, deny: bool) -> FenceAcl {
    FenceAcl {
        topic: topic.to_owned(),
        operation,
        deny,
    }
}

/// Makes these ACLs; those that are there already are fine.
///
/// # Errors
/// When one of them wasn't made; others may have been.
pub async fn create(source: &Cluster, acls: &[FenceAcl]) -> Result<(), DenyError> {
    for chunk in acls.chunks(AT_ONCE) {
        let bindings: Vec<AclBinding> = chunk.iter().map(FenceAcl::binding).collect();
        for result in wire::create_acls(source, &bindings).await? {
            result?;
        }
    }
    Ok(())
}

/// Removes exactly these ACLs; those that are gone already are fine.
///
/// # Errors
/// When one of them wasn't removed; others may have been.
pub async fn delete(source: &Cluster, acls: &[FenceAcl]) -> Result<(), DenyError> {
    // The one that forbids goes first, those that keep other rights last.
    let mut acls = acls.to_vec();
    acls.sort_by_key(|acl| !acl.deny);
    for chunk in acls.chunks(AT_ONCE) {
        let bindings: Vec<AclBinding> = chunk.iter().map(FenceAcl::binding).collect();
        for result in wire::delete_acls(source, &bindings).await? {
            result?;
        }
    }
    Ok(())
}

/// As far as a broker tells. Brokers hide the value of properties that aren't their own, as this
/// one is, but show that it is set; who sets it sets it to true, since false is the default.
async fn is_open_by_default(source: &Cluster) -> bool {
    let Some(broker) = source.cached().brokers.keys().min().copied() else {
        return false;
    };
    let configs = wire::describe_broker_config(source, broker).await;
    let value = configs.ok().and_then(|mut it| it.remove(OPEN_BY_DEFAULT));
    value.is_some_and(|value| value.value.as_deref() == Some("true") || value.sensitive)
}
