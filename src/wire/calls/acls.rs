//! ACLs: reading all of them, creating and deleting some.

use std::collections::BTreeSet;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::{
    CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest, DescribeAclsResponse,
};

use super::partition::text;
use super::retry::{BUDGET, ask_anyone, repeat_at_controller, retry};
use super::topics::outcome;
use crate::wire::by_most::{Told, told_by_each};
use crate::wire::{Cluster, Connection, ErrorContext, RawAnswer, Role, WireError};

const VERSION_MAX: i16 = 3;
/// Matches every resource type, pattern type, operation and permission in a filter.
const ANY: i8 = 1;
/// Numbers of `org.apache.kafka.common.resource` and `.acl`.
const TOPIC: i8 = 2;
const LITERAL: i8 = 3;
const WRITE: i8 = 4;
const DENY: i8 = 2;

/// One ACL, with the protocol's numbers: a newer broker's number that we don't know stays what it
/// is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AclBinding {
    /// `org.apache.kafka.common.resource.ResourceType`.
    pub resource_type: i8,
    /// `org.apache.kafka.common.resource.PatternType`.
    pub pattern_type: i8,
    /// The resource's name; `*` with a literal pattern is every resource of the type.
    pub name: String,
    /// Such as `User:alice`.
    pub principal: String,
    /// An address, or `*`.
    pub host: String,
    /// `org.apache.kafka.common.acl.AclOperation`.
    pub operation: i8,
    /// `org.apache.kafka.common.acl.AclPermissionType`.
    pub permission: i8,
}

/// All ACLs of a cluster as a broker sent them: not decoded before somebody wants to know.
#[derive(Debug)]
pub struct AclAnswer {
    connection: Connection,
    answer: RawAnswer,
}

impl AclAnswer {
    /// The bytes, without what says nothing about ACLs. The same broker gives the same bytes for
    /// the same ACLs.
    pub fn fingerprint(&self) -> &[u8] {
        // The throttle time comes first, in all versions.
        self.answer.body.get(4..).unwrap_or_default()
    }

    /// The ACLs.
    ///
    /// # Errors
    /// The broker's refusal: SECURITY_DISABLED without an authorizer, CLUSTER_AUTHORIZATION_FAILED
    /// without DESCRIBE on the cluster. An answer that can't be decoded.
    pub fn acls(self, cluster: &Cluster) -> Result<Vec<AclBinding>, WireError> {
        let Self { connection, answer } = self;
        let response = connection.decode::<DescribeAclsRequest>(answer)?;
        if let Some(code) = ResponseError::try_from_code(response.error_code) {
            let context = ErrorContext {
                broker: Some(connection.broker()),
                address: Some(connection.address().to_owned()),
                api: Some("DescribeAcls"),
                ..ErrorContext::cluster(cluster.name())
            };
            let message = response.error_message.filter(|message| !message.is_empty());
            let message = message.map(|message| message.to_string());
            return Err(WireError::server(context, code, message));
        }
        Ok(bindings(response))
    }
}

fn bindings(response: DescribeAclsResponse) -> Vec<AclBinding> {
    let mut bindings = Vec::new();
    for resource in response.resources {
        for acl in resource.acls {
            bindings.push(AclBinding {
                resource_type: resource.resource_type,
                pattern_type: resource.pattern_type,
                name: resource.resource_name.to_string(),
                principal: acl.principal.to_string(),
                host: acl.host.to_string(),
                operation: acl.operation,
                permission: acl.permission_type,
            });
        }
    }
    bindings
}

fn every_acl() -> DescribeAclsRequest {
    DescribeAclsRequest::default()
        .with_resource_type_filter(ANY)
        .with_resource_name_filter(None)
        .with_pattern_type_filter(ANY)
        .with_principal_filter(None)
        .with_host_filter(None)
        .with_operation(ANY)
        .with_permission_type(ANY)
}

/// Asks any broker for all ACLs.
///
/// # Errors
/// When nobody answers. What the broker refuses is told by [`AclAnswer::acls`].
pub async fn describe_acls(cluster: &Cluster) -> Result<AclAnswer, WireError> {
    ask_anyone(cluster, BUDGET, |connection| async move {
        let answer = connection
            .start_undecoded(&every_acl(), VERSION_MAX)?
            .await?;
        Ok(AclAnswer { connection, answer })
    })
    .await
}

/// The ACLs of a cluster but those that more than half of its brokers lack, each by its own image; `None` where too few
/// answer to tell. Who is cut off from its controllers answers as ever, with those of before.
pub async fn acls_not_gone(cluster: &Cluster) -> Option<BTreeSet<AclBinding>> {
    described_by_each(cluster).await.not_gone()
}

/// The topics whose writers a broker refuses one and all, by its own image: a denial for everybody on that
/// very topic.
///
/// # Errors
/// When this broker can't be asked.
pub async fn denied_topics_at(
    cluster: &Cluster,
    broker: i32,
) -> Result<BTreeSet<String>, WireError> {
    let connection = cluster.connection(broker, Role::Admin).await?;
    let request = DescribeAclsRequest::default()
        .with_resource_type_filter(TOPIC)
        .with_resource_name_filter(None)
        .with_pattern_type_filter(LITERAL)
        .with_principal_filter(Some(text("User:*")))
        .with_host_filter(None)
        .with_operation(WRITE)
        .with_permission_type(DENY);
    let answer = connection.start_undecoded(&request, VERSION_MAX)?.await?;
    let acls = AclAnswer { connection, answer }.acls(cluster)?;
    let for_all = acls.into_iter().filter(|acl| acl.host == "*");
    Ok(for_all.map(|acl| acl.name).collect())
}

/// Those of these ACLs that no broker has shown within `patience`. A broker hears of what the controller did a
/// moment later, and in its order: who sees one sees all that were made before it.
///
/// # Errors
/// When nobody answers, or ACLs can't be read.
pub async fn unseen_acls(
    cluster: &Cluster,
    acls: &[AclBinding],
    patience: Duration,
) -> Result<BTreeSet<AclBinding>, WireError> {
    let mut unseen: BTreeSet<AclBinding> = acls.iter().cloned().collect();
    let mut look = retry(patience);
    while !unseen.is_empty() {
        let there = describe_acls(cluster).await?.acls(cluster)?;
        unseen.retain(|acl| !there.contains(acl));
        // Who was asked may hear of nothing for a while; one of the others does.
        if !unseen.is_empty() {
            let told = described_by_each(cluster).await;
            unseen.retain(|acl| !told.answers.iter().any(|there| there.contains(acl)));
        }
        if !unseen.is_empty() && !look.pause().await {
            break;
        }
    }
    Ok(unseen)
}

/// All ACLs as each broker knows them.
async fn described_by_each(cluster: &Cluster) -> Told<BTreeSet<AclBinding>> {
    let asked = cluster.clone();
    let question = move |connection| {
        let cluster = asked.clone();
        async move {
            let acls = described_by(connection, &cluster).await?;
            Ok(acls.into_iter().collect())
        }
    };
    told_by_each(cluster, question).await
}

async fn described_by(
    connection: Connection,
    cluster: &Cluster,
) -> Result<Vec<AclBinding>, WireError> {
    let answer = connection
        .start_undecoded(&every_acl(), VERSION_MAX)?
        .await?;
    AclAnswer { connection, answer }.acls(cluster)
}

/// Creates ACLs; one that exists already is no error. The answers are in the order of `acls`.
///
/// # Errors
/// When the request wasn't answered: some may have been created.
pub async fn create_acls(
    cluster: &Cluster,
    acls: &[AclBinding],
) -> Result<Vec<Result<(), WireError>>, WireError> {
    repeat_at_controller(cluster, |connection| {
        let creations = acls.iter().map(creation).collect();
        let request = CreateAclsRequest::default().with_creations(creations);
        async move {
            let response = connection.call(request, VERSION_MAX).await?;
            let mut results = response.results.into_iter();
            let outcomes = acls.iter().map(|acl| {
                let result = results.next();
                let result = result.map(|r| (r.error_code, r.error_message, ()));
                outcome(cluster, &connection, "CreateAcls", &acl.name, result)
            });
            Ok(outcomes.collect())
        }
    })
    .await
}

/// Deletes exactly these ACLs; one that doesn't exist is no error. The answers are in the order of
/// `acls`.
///
/// # Errors
/// When the request wasn't answered: some may have been deleted.
pub async fn delete_acls(
    cluster: &Cluster,
    acls: &[AclBinding],
) -> Result<Vec<Result<(), WireError>>, WireError> {
    repeat_at_controller(cluster, |connection| {
        let filters = acls.iter().map(exact_filter).collect();
        let request = DeleteAclsRequest::default().with_filters(filters);
        async move {
            let response = connection.call(request, VERSION_MAX).await?;
            let mut results = response.filter_results.into_iter();
            let outcomes = acls.iter().map(|acl| {
                let result = results.next().map(|result| {
                    // The filter is exact, so there is one match at most.
                    let refused = result.matching_acls.into_iter().find(|m| m.error_code != 0);
                    match refused {
                        Some(refused) => (refused.error_code, refused.error_message, ()),
                        None => (result.error_code, result.error_message, ()),
                    }
                });
                outcome(cluster, &connection, "DeleteAcls", &acl.name, result)
            });
            Ok(outcomes.collect())
        }
    })
    .await
}

fn creation(acl: &AclBinding) -> AclCreation {
    AclCreation::default()
        .with_resource_type(acl.resource_type)
        .with_resource_pattern_type(acl.pattern_type)
        .with_resource_name(text(&acl.name))
        .with_principal(text(&acl.principal))
        .with_host(text(&acl.host))
        .with_operation(acl.operation)
        .with_permission_type(acl.permission)
}

fn exact_filter(acl: &AclBinding) -> DeleteAclsFilter {
    DeleteAclsFilter::default()
        .with_resource_type_filter(acl.resource_type)
        .with_pattern_type_filter(acl.pattern_type)
        .with_resource_name_filter(Some(text(&acl.name)))
        .with_principal_filter(Some(text(&acl.principal)))
        .with_host_filter(Some(text(&acl.host)))
        .with_operation(acl.operation)
        .with_permission_type(acl.permission)
}
