//! ACLs of a cluster, written as people write them: `ALLOW READ User:alice * topic orders`.

use std::collections::BTreeSet;
use std::time::Duration;

use super::acls::{Acl, Kind, Operation, Pattern, Permission, Resource, add, list, remove_all};
use super::wait::eventually;

const PERMISSIONS: [(&str, Permission); 2] =
    [("DENY", Permission::Deny), ("ALLOW", Permission::Allow)];
const OPERATIONS: [(&str, Operation); 11] = [
    ("ALL", Operation::All),
    ("READ", Operation::Read),
    ("WRITE", Operation::Write),
    ("CREATE", Operation::Create),
    ("DELETE", Operation::Delete),
    ("ALTER", Operation::Alter),
    ("DESCRIBE", Operation::Describe),
    ("CLUSTER_ACTION", Operation::ClusterAction),
    ("DESCRIBE_CONFIGS", Operation::DescribeConfigs),
    ("ALTER_CONFIGS", Operation::AlterConfigs),
    ("IDEMPOTENT_WRITE", Operation::IdempotentWrite),
];
/// A resource type and, with `-prefix`, its prefixed patterns.
const RESOURCES: [(&str, (Kind, Pattern)); 7] = [
    ("topic", (Kind::Topic, Pattern::Literal)),
    ("topic-prefix", (Kind::Topic, Pattern::Prefixed)),
    ("group", (Kind::Group, Pattern::Literal)),
    ("group-prefix", (Kind::Group, Pattern::Prefixed)),
    ("cluster", (Kind::Cluster, Pattern::Literal)),
    (
        "transactional-id",
        (Kind::TransactionalId, Pattern::Literal),
    ),
    (
        "transactional-id-prefix",
        (Kind::TransactionalId, Pattern::Prefixed),
    ),
];

fn meaning<T: Copy>(words: &[(&str, T)], word: &str) -> T {
    let found = words.iter().find(|(known, _)| *known == word);
    found.unwrap_or_else(|| panic!("{word} is unknown")).1
}

fn word<'a, T: PartialEq>(words: &[(&'a str, T)], meaning: &T) -> &'a str {
    let found = words.iter().find(|(_, known)| known == meaning);
    found.map_or("?", |(word, _)| word)
}

fn parse(line: &str) -> Acl {
    let parts: Vec<&str> = line.split(' ').collect();
    let [permission, operation, principal, host, resource, name] = parts[..] else {
        panic!("`{line}` is not PERMISSION OPERATION PRINCIPAL HOST RESOURCE NAME");
    };
    let (kind, pattern) = meaning(&RESOURCES, resource);
    Acl {
        resource: Resource {
            kind,
            name: name.to_owned(),
            pattern,
        },
        principal: principal.to_owned(),
        host: host.to_owned(),
        operation: meaning(&OPERATIONS, operation),
        permission: meaning(&PERMISSIONS, permission),
    }
}

fn line(acl: &Acl) -> String {
    let resource = &acl.resource;
    format!(
        "{} {} {} {} {} {}",
        word(&PERMISSIONS, &acl.permission),
        word(&OPERATIONS, &acl.operation),
        acl.principal,
        acl.host,
        word(&RESOURCES, &(resource.kind, resource.pattern)),
        resource.name
    )
}

fn parsed<S: AsRef<str>>(lines: &[S]) -> Vec<Acl> {
    lines.iter().map(|line| parse(line.as_ref())).collect()
}

/// Creates ACLs.
///
/// # Panics
/// When the cluster refuses one.
pub fn add_acls<S: AsRef<str>>(bootstrap: &str, acls: &[S]) {
    for chunk in acls.chunks(500) {
        add(bootstrap, &parsed(chunk));
    }
}

/// Deletes ACLs.
///
/// # Panics
/// When one isn't there.
pub fn remove_acls<S: AsRef<str>>(bootstrap: &str, acls: &[S]) {
    remove_all(bootstrap, &parsed(acls));
}

/// All ACLs of a cluster.
///
/// # Panics
/// When the cluster refuses.
pub fn acls(bootstrap: &str) -> BTreeSet<String> {
    list(bootstrap).iter().map(line).collect()
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
