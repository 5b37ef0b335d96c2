//! ACLs: made, removed and listed as a cluster's operator, with requests by Kafka's own names.

use std::collections::BTreeSet;

use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::{CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest};

use super::operator::{DEADLINE, call, text};
use super::wait::eventually;

/// The first version with patterns is 1; 3 knows users as resources.
const VERSION_MAX: i16 = 3;
/// Matches everything in filters, for types, patterns, operations and permissions.
const ANY: i8 = 1;
const CLUSTER_AUTHORIZATION_FAILED: i16 = 31;

/// What a right is about, by Kafka's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i8)]
#[allow(missing_docs)]
pub enum Kind {
    Topic = 2,
    Group = 3,
    Cluster = 4,
    TransactionalId = 5,
    DelegationToken = 6,
    User = 7,
}

/// What may be done, by Kafka's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i8)]
#[allow(missing_docs)]
pub enum Operation {
    All = 2,
    Read = 3,
    Write = 4,
    Create = 5,
    Delete = 6,
    Alter = 7,
    Describe = 8,
    ClusterAction = 9,
    DescribeConfigs = 10,
    AlterConfigs = 11,
    IdempotentWrite = 12,
    CreateTokens = 13,
    DescribeTokens = 14,
    TwoPhaseCommit = 15,
}

/// How a resource's name is meant, by Kafka's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i8)]
#[allow(missing_docs)]
pub enum Pattern {
    Literal = 3,
    Prefixed = 4,
}

/// Whether it is given or taken, by Kafka's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i8)]
#[allow(missing_docs)]
pub enum Permission {
    Deny = 2,
    Allow = 3,
}

impl Kind {
    const EVERY: [Self; 6] = [
        Self::Topic,
        Self::Group,
        Self::Cluster,
        Self::TransactionalId,
        Self::DelegationToken,
        Self::User,
    ];
}

impl Operation {
    const EVERY: [Self; 14] = [
        Self::All,
        Self::Read,
        Self::Write,
        Self::Create,
        Self::Delete,
        Self::Alter,
        Self::Describe,
        Self::ClusterAction,
        Self::DescribeConfigs,
        Self::AlterConfigs,
        Self::IdempotentWrite,
        Self::CreateTokens,
        Self::DescribeTokens,
        Self::TwoPhaseCommit,
    ];
}

/// A resource: what its rights are about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource {
    /// Its kind.
    pub kind: Kind,
    /// Its name; `*` is any.
    pub name: String,
    /// How the name is meant.
    pub pattern: Pattern,
}

impl Resource {
    /// One of this name exactly.
    pub fn literal(kind: Kind, name: &str) -> Self {
        let (name, pattern) = (name.to_owned(), Pattern::Literal);
        Self {
            kind,
            name,
            pattern,
        }
    }

    /// All whose name begins so.
    pub fn prefixed(kind: Kind, name: &str) -> Self {
        let (name, pattern) = (name.to_owned(), Pattern::Prefixed);
        Self {
            kind,
            name,
            pattern,
        }
    }

    /// One topic.
    pub fn topic(name: &str) -> Self {
        Self::literal(Kind::Topic, name)
    }

    /// One group.
    pub fn group(name: &str) -> Self {
        Self::literal(Kind::Group, name)
    }

    /// The cluster itself.
    pub fn cluster() -> Self {
        Self::literal(Kind::Cluster, "kafka-cluster")
    }
}

/// One ACL.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Acl {
    /// What it is about.
    pub resource: Resource,
    /// Whom it is about, such as `User:alice`.
    pub principal: String,
    /// Where they come from; `*` is anywhere.
    pub host: String,
    /// What it gives or takes.
    pub operation: Operation,
    /// Which of both.
    pub permission: Permission,
}

impl Acl {
    /// Allows it from anywhere.
    pub fn allow(principal: &str, operation: Operation, resource: Resource) -> Self {
        Self {
            resource,
            principal: principal.to_owned(),
            host: "*".to_owned(),
            operation,
            permission: Permission::Allow,
        }
    }

    /// Denies it from anywhere.
    pub fn deny(principal: &str, operation: Operation, resource: Resource) -> Self {
        Self {
            permission: Permission::Deny,
            ..Self::allow(principal, operation, resource)
        }
    }
}

/// What a Twinlog may be allowed that is no super user: enough for everything.
pub fn all_but_super() -> Vec<Acl> {
    let of = |resource: Resource| Acl::allow("User:twinlog", Operation::All, resource);
    vec![
        of(Resource::topic("*")),
        of(Resource::group("*")),
        of(Resource::cluster()),
        of(Resource::literal(Kind::TransactionalId, "*")),
    ]
}

/// Allows a principal (`User:alice`) something.
pub fn allow(bootstrap: &str, principal: &str, operation: Operation, resource: Resource) {
    add(bootstrap, &[Acl::allow(principal, operation, resource)]);
}

/// Denies a principal (`User:alice`) something.
pub fn deny(bootstrap: &str, principal: &str, operation: Operation, resource: Resource) {
    add(bootstrap, &[Acl::deny(principal, operation, resource)]);
}

/// Makes ACLs and waits until a broker has them.
///
/// # Panics
/// When one is refused.
pub fn add(bootstrap: &str, acls: &[Acl]) {
    let creation = |acl: &Acl| {
        AclCreation::default()
            .with_resource_type(acl.resource.kind as i8)
            .with_resource_name(text(&acl.resource.name))
            .with_resource_pattern_type(acl.resource.pattern as i8)
            .with_principal(text(&acl.principal))
            .with_host(text(&acl.host))
            .with_operation(acl.operation as i8)
            .with_permission_type(acl.permission as i8)
    };
    let creations: Vec<AclCreation> = acls.iter().map(creation).collect();
    let request = CreateAclsRequest::default().with_creations(creations);
    let results = call(bootstrap, request, VERSION_MAX).results;
    assert_eq!(results.len(), acls.len());
    assert!(
        results.iter().all(|result| result.error_code == 0),
        "{results:?}"
    );
    await_known(bootstrap, acls, true);
}

/// Removes one ACL and waits until a broker knows.
///
/// # Panics
/// When there is no such ACL.
pub fn remove(bootstrap: &str, acl: &Acl) {
    remove_all(bootstrap, std::slice::from_ref(acl));
}

/// Removes ACLs and waits until a broker knows.
///
/// # Panics
/// When one isn't there.
pub fn remove_all(bootstrap: &str, acls: &[Acl]) {
    delete(bootstrap, acls);
    await_known(bootstrap, acls, false);
}

/// Removes an ACL that somebody else may make again at once: nobody may get to see that it is gone.
///
/// # Panics
/// When there is no such ACL.
pub fn take_away(bootstrap: &str, acl: &Acl) {
    delete(bootstrap, std::slice::from_ref(acl));
}

fn delete(bootstrap: &str, acls: &[Acl]) {
    let filters = acls.iter().map(|acl| {
        DeleteAclsFilter::default()
            .with_resource_type_filter(acl.resource.kind as i8)
            .with_resource_name_filter(Some(text(&acl.resource.name)))
            .with_pattern_type_filter(acl.resource.pattern as i8)
            .with_principal_filter(Some(text(&acl.principal)))
            .with_host_filter(Some(text(&acl.host)))
            .with_operation(acl.operation as i8)
            .with_permission_type(acl.permission as i8)
    });
    let request = DeleteAclsRequest::default().with_filters(filters.collect());
    let results = call(bootstrap, request, VERSION_MAX).filter_results;
    assert_eq!(results.len(), acls.len());
    for result in results {
        assert_eq!(result.error_code, 0, "{result:?}");
        assert_eq!(result.matching_acls.len(), 1, "{result:?}");
    }
}

/// Waits until a broker knows all of them, or none.
fn await_known(bootstrap: &str, acls: &[Acl], wanted: bool) {
    eventually(DEADLINE, "the brokers know the ACLs that there are", || {
        let found = match try_list(bootstrap) {
            Ok(found) => found,
            // An ACL on the cluster may take the right to list them from whoever made it.
            Err(CLUSTER_AUTHORIZATION_FAILED) => return Ok(()),
            Err(error) => return Err(format!("error {error}")),
        };
        let mut acls = acls.iter();
        // It is sorted.
        match acls.find(|acl| found.binary_search(acl).is_ok() != wanted) {
            None => Ok(()),
            Some(wrong) => Err(format!("{wrong:?} in {found:?}")),
        }
    });
}

/// All ACLs that a broker knows, sorted.
///
/// # Panics
/// When they can't be listed: a cluster without an authorizer has none.
pub fn list(bootstrap: &str) -> Vec<Acl> {
    try_list(bootstrap).unwrap_or_else(|error| panic!("listing ACLs: Kafka's error {error}"))
}

fn try_list(bootstrap: &str) -> Result<Vec<Acl>, i16> {
    let request = DescribeAclsRequest::default()
        .with_resource_type_filter(ANY)
        .with_resource_name_filter(None)
        .with_pattern_type_filter(ANY)
        .with_principal_filter(None)
        .with_host_filter(None)
        .with_operation(ANY)
        .with_permission_type(ANY);
    let response = call(bootstrap, request, VERSION_MAX);
    if response.error_code != 0 {
        return Err(response.error_code);
    }
    let mut found = Vec::new();
    for resource in response.resources {
        let kind = Kind::EVERY.into_iter();
        let about = Resource {
            kind: known(kind.map(|kind| (kind as i8, kind)), resource.resource_type),
            name: resource.resource_name.to_string(),
            pattern: known(
                [Pattern::Literal, Pattern::Prefixed].map(|pattern| (pattern as i8, pattern)),
                resource.pattern_type,
            ),
        };
        for acl in resource.acls {
            let operations = Operation::EVERY.into_iter();
            found.push(Acl {
                resource: about.clone(),
                principal: acl.principal.to_string(),
                host: acl.host.to_string(),
                operation: known(operations.map(|one| (one as i8, one)), acl.operation),
                permission: known(
                    [Permission::Deny, Permission::Allow].map(|one| (one as i8, one)),
                    acl.permission_type,
                ),
            });
        }
    }
    found.sort();
    Ok(found)
}

/// The value with this number.
fn known<T>(values: impl IntoIterator<Item = (i8, T)>, number: i8) -> T {
    let mut values = values.into_iter();
    let found = values.find(|(code, _)| *code == number);
    found
        .unwrap_or_else(|| panic!("a number that Kafka has no meaning for: {number}"))
        .1
}

/// Its ACLs in words, so that they can be compared.
pub fn listed(bootstrap: &str) -> BTreeSet<String> {
    let all = list(bootstrap).into_iter();
    all.map(|acl| format!("{acl:?}")).collect()
}

/// Waits until these are its ACLs: brokers hear of a change a moment after it was made.
///
/// # Panics
/// When they aren't in time.
pub fn await_listed(bootstrap: &str, wanted: &BTreeSet<String>) {
    eventually(2 * DEADLINE, "the ACLs are as wanted", || {
        let found = listed(bootstrap);
        match found == *wanted {
            true => Ok(()),
            false => Err(found),
        }
    });
}
