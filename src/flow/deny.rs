//! The fence on a source: ACLs that deny everybody to write to the copied topics.
//!
//! Only what wasn't there before is made, is noted in the state topic before it is made, and is
//! removed exactly. Super users aren't bound by ACLs; log ends that go on moving show them.

use std::collections::HashSet;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::{CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest};
use kafka_protocol::protocol::StrBytes;

use crate::state::FenceAcl;
use crate::wire::{self, Cluster, ErrorContext, WireError};

/// Numbers of `org.apache.kafka.common.resource` and `.acl`.
const TOPIC: i8 = 2;
const ANY: i8 = 1;
const LITERAL: i8 = 3;
const PREFIXED: i8 = 4;
const DENY: i8 = 2;
const ALLOW: i8 = 3;
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
const EVERYBODY: &str = "User:*";
const ANY_HOST: &str = "*";
/// Version 1 brought prefixed patterns.
const VERSION_MAX: i16 = 3;
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

/// An ACL of a topic as a broker lists it.
struct Listed {
    pattern: i8,
    name: String,
    is_ours: Option<FenceAcl>,
}

/// The ACLs that a fence around `topics` lacks.
///
/// Where a topic without any ACL is open to everybody (`allow.everyone.if.no.acl.found`), its first
/// ACL would take all other rights away, also ours to read. There these are given back.
///
/// # Errors
/// When the source's ACLs can't be read.
pub async fn missing(source: &Cluster, topics: &[String]) -> Result<Vec<FenceAcl>, DenyError> {
    let listed = list(source).await?;
    let present: HashSet<&FenceAcl> = listed.iter().filter_map(|it| it.is_ours.as_ref()).collect();
    let is_open = is_open_by_default(source).await;
    let mut missing = Vec::new();
    for topic in topics {
        let deny = acl(topic, OP_WRITE, true);
        if !present.contains(&deny) {
            missing.push(deny);
        }
        let covered = listed.iter().any(|it| match it.pattern {
            LITERAL => it.name == "*" || it.name == *topic,
            PREFIXED => topic.starts_with(&it.name),
            _ => false,
        });
        if is_open && !covered {
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
        let creations = chunk.iter().map(|acl| {
            AclCreation::default()
                .with_resource_type(TOPIC)
                .with_resource_pattern_type(LITERAL)
                .with_resource_name(text(&acl.topic))
                .with_principal(text(EVERYBODY))
                .with_host(text(ANY_HOST))
                .with_operation(acl.operation)
                .with_permission_type(permission(acl))
        });
        let request = CreateAclsRequest::default().with_creations(creations.collect());
        let connection = source.controller().await?;
        let response = connection.call(request, VERSION_MAX).await?;
        for result in response.results {
            let message = result.error_message.map(|message| message.to_string());
            refused(source, "CreateAcls", result.error_code, message)?;
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
        let filters = chunk.iter().map(|acl| {
            DeleteAclsFilter::default()
                .with_resource_type_filter(TOPIC)
                .with_pattern_type_filter(LITERAL)
                .with_resource_name_filter(Some(text(&acl.topic)))
                .with_principal_filter(Some(text(EVERYBODY)))
                .with_host_filter(Some(text(ANY_HOST)))
                .with_operation(acl.operation)
                .with_permission_type(permission(acl))
        });
        let request = DeleteAclsRequest::default().with_filters(filters.collect());
        let connection = source.controller().await?;
        let response = connection.call(request, VERSION_MAX).await?;
        for result in response.filter_results {
            let message = result.error_message.map(|message| message.to_string());
            refused(source, "DeleteAcls", result.error_code, message)?;
        }
    }
    Ok(())
}

async fn list(source: &Cluster) -> Result<Vec<Listed>, DenyError> {
    let request = DescribeAclsRequest::default()
        .with_resource_type_filter(TOPIC)
        .with_resource_name_filter(None)
        .with_pattern_type_filter(ANY)
        .with_principal_filter(None)
        .with_host_filter(None)
        .with_operation(ANY)
        .with_permission_type(ANY);
    let connection = source.any_connection().await?;
    let response = connection.call(request, VERSION_MAX).await?;
    let message = response.error_message.map(|message| message.to_string());
    refused(source, "DescribeAcls", response.error_code, message)?;
    let mut listed = Vec::new();
    for resource in response.resources {
        for found in resource.acls {
            let is_everybody = &*found.principal == EVERYBODY && &*found.host == ANY_HOST;
            let is_literal = resource.pattern_type == LITERAL;
            let name = resource.resource_name.to_string();
            listed.push(Listed {
                pattern: resource.pattern_type,
                is_ours: (is_everybody && is_literal)
                    .then(|| acl(&name, found.operation, found.permission_type == DENY)),
                name,
            });
        }
    }
    Ok(listed)
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

fn permission(acl: &FenceAcl) -> i8 {
    if acl.deny { DENY } else { ALLOW }
}

fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

fn refused(
    source: &Cluster,
    api: &'static str,
    code: i16,
    message: Option<String>,
) -> Result<(), DenyError> {
    match ResponseError::try_from_code(code) {
        None => Ok(()),
        Some(code) => {
            let context = ErrorContext {
                api: Some(api),
                ..ErrorContext::cluster(source.name())
            };
            Err(WireError::server(context, code, message).into())
        }
    }
}
