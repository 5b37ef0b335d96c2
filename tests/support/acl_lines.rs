//! ACLs of a cluster, written as people write them: `ALLOW READ User:alice * topic orders`.

use std::collections::BTreeSet;
use std::time::Duration;

use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::{CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest};

use super::operator::{call, text};
use super::wait::eventually;

const PERMISSIONS: [(&str, i8); 2] = [("DENY", 2), ("ALLOW", 3)];
const OPERATIONS: [(&str, i8); 11] = [
    ("ALL", 2),
    ("READ", 3),
    ("WRITE", 4),
    ("CREATE", 5),
    ("DELETE", 6),
    ("ALTER", 7),
    ("DESCRIBE", 8),
    ("CLUSTER_ACTION", 9),
    ("DESCRIBE_CONFIGS", 10),
    ("ALTER_CONFIGS", 11),
    ("IDEMPOTENT_WRITE", 12),
];
/// A resource type and, with `-prefix`, its prefixed patterns.
const RESOURCES: [(&str, i8, i8); 7] = [
    ("topic", 2, 3),
    ("topic-prefix", 2, 4),
    ("group", 3, 3),
    ("group-prefix", 3, 4),
    ("cluster", 4, 3),
    ("transactional-id", 5, 3),
    ("transactional-id-prefix", 5, 4),
];

fn code(words: &[(&str, i8)], word: &str) -> i8 {
    let found = words.iter().find(|(known, _)| *known == word);
    found.unwrap_or_else(|| panic!("{word} is unknown")).1
}

fn word<'a>(words: &[(&'a str, i8)], code: i8) -> &'a str {
    let found = words.iter().find(|(_, known)| *known == code);
    found.map_or("?", |(word, _)| word)
}

fn creation(acl: &str) -> AclCreation {
    let parts: Vec<&str> = acl.split(' ').collect();
    let [permission, operation, principal, host, resource, name] = parts[..] else {
        panic!("`{acl}` is not PERMISSION OPERATION PRINCIPAL HOST RESOURCE NAME");
    };
    let found = RESOURCES.iter().find(|(known, _, _)| *known == resource);
    let (_, resource_type, pattern_type) = found.expect("a known resource");
    AclCreation::default()
        .with_permission_type(code(&PERMISSIONS, permission))
        .with_operation(code(&OPERATIONS, operation))
        .with_principal(text(principal))
        .with_host(text(host))
        .with_resource_type(*resource_type)
        .with_resource_pattern_type(*pattern_type)
        .with_resource_name(text(name))
}

/// Creates ACLs.
///
/// # Panics
/// When the cluster refuses one.
pub fn add_acls<S: AsRef<str>>(bootstrap: &str, acls: &[S]) {
    for chunk in acls.chunks(500) {
        let creations = chunk.iter().map(|acl| creation(acl.as_ref())).collect();
        let request = CreateAclsRequest::default().with_creations(creations);
        for result in call(bootstrap, request, 3).results {
            assert_eq!(result.error_code, 0, "{result:?}");
        }
    }
}

/// Deletes ACLs.
///
/// # Panics
/// When one isn't there.
pub fn remove_acls<S: AsRef<str>>(bootstrap: &str, acls: &[S]) {
    let filters = acls.iter().map(|acl| {
        let acl = creation(acl.as_ref());
        DeleteAclsFilter::default()
            .with_permission_type(acl.permission_type)
            .with_operation(acl.operation)
            .with_principal_filter(Some(acl.principal))
            .with_host_filter(Some(acl.host))
            .with_resource_type_filter(acl.resource_type)
            .with_pattern_type_filter(acl.resource_pattern_type)
            .with_resource_name_filter(Some(acl.resource_name))
    });
    let request = DeleteAclsRequest::default().with_filters(filters.collect());
    for result in call(bootstrap, request, 3).filter_results {
        assert_eq!(result.error_code, 0, "{result:?}");
        assert_eq!(result.matching_acls.len(), 1, "{result:?}");
    }
}

/// All ACLs of a cluster.
///
/// # Panics
/// When the cluster refuses.
pub fn acls(bootstrap: &str) -> BTreeSet<String> {
    const ANY: i8 = 1;
    let request = DescribeAclsRequest::default()
        .with_resource_type_filter(ANY)
        .with_resource_name_filter(None)
        .with_pattern_type_filter(ANY)
        .with_principal_filter(None)
        .with_host_filter(None)
        .with_operation(ANY)
        .with_permission_type(ANY);
    let response = call(bootstrap, request, 3);
    assert_eq!(response.error_code, 0, "{response:?}");
    let mut acls = BTreeSet::new();
    for resource in response.resources {
        let (kind, pattern) = (resource.resource_type, resource.pattern_type);
        let found = RESOURCES.iter().find(|r| (r.1, r.2) == (kind, pattern));
        let kind = found.map_or("?", |(word, _, _)| word);
        for acl in resource.acls {
            acls.insert(format!(
                "{} {} {} {} {kind} {}",
                word(&PERMISSIONS, acl.permission_type),
                word(&OPERATIONS, acl.operation),
                acl.principal.as_str(),
                acl.host.as_str(),
                resource.resource_name.as_str()
            ));
        }
    }
    acls
}

/// Waits until a cluster has exactly these ACLs.
///
/// # Panics
/// At the deadline, with what is missing and what is too much.
pub fn await_acls<S: AsRef<str>>(bootstrap: &str, wanted: &[S], deadline: Duration) {
    let wanted: BTreeSet<String> = wanted.iter().map(|acl| acl.as_ref().to_owned()).collect();
    eventually(deadline, "the ACLs are as wanted", || {
        let found = acls(bootstrap);
        if found == wanted {
            return Ok(());
        }
        let missing: Vec<_> = wanted.difference(&found).take(5).collect();
        let extra: Vec<_> = found.difference(&wanted).take(5).collect();
        Err(format!("missing {missing:?}, too much {extra:?}"))
    });
}
