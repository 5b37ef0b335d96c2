//! A small model of Kafka's authorizer (`StandardAuthorizer`), and ACLs and requests to try on it.

use proptest::prelude::*;

use super::binding::{ANY_HOST, WILDCARD, operation, pattern, permission, resource};
use crate::wire::AclBinding;

/// What a client asks for.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub principal: &'static str,
    pub host: &'static str,
    pub operation: i8,
    pub resource_type: i8,
    pub name: String,
}

/// Whether the ACLs let the client do it. A denial wins; what nothing permits is denied.
pub(super) fn authorize<'a>(
    acls: impl IntoIterator<Item = &'a AclBinding>,
    request: &Request,
) -> bool {
    let mut is_allowed = false;
    for acl in acls {
        let is_meant = acl.resource_type == request.resource_type
            && acl.covers(&request.name)
            && (acl.principal == "User:*" || acl.principal == request.principal)
            && (acl.host == ANY_HOST || acl.host == request.host);
        if !is_meant {
            continue;
        }
        let is_all = acl.operation == operation::ALL;
        if acl.is_deny() && (is_all || acl.operation == request.operation) {
            return false;
        }
        if acl.is_allow() && (is_all || is_implied(acl.operation, request.operation)) {
            is_allowed = true;
        }
    }
    is_allowed
}

/// Whether a grant of one operation is one of the other (`StandardAuthorizerData`).
fn is_implied(granted: i8, asked: i8) -> bool {
    use operation::{ALTER, ALTER_CONFIGS, DELETE, DESCRIBE, DESCRIBE_CONFIGS, READ, WRITE};
    match asked {
        DESCRIBE => [DESCRIBE, READ, WRITE, DELETE, ALTER].contains(&granted),
        DESCRIBE_CONFIGS => [DESCRIBE_CONFIGS, ALTER_CONFIGS].contains(&granted),
        _ => asked == granted,
    }
}

/// The operations that brokers ask about.
pub(super) const OPERATIONS: [i8; 8] = [
    operation::READ,
    operation::WRITE,
    operation::CREATE,
    operation::DELETE,
    operation::ALTER,
    operation::DESCRIBE,
    operation::DESCRIBE_CONFIGS,
    operation::ALTER_CONFIGS,
];

pub(super) const NAMES: [&str; 5] = ["a", "ab", "abc", "b", "c"];
/// Topics that each cluster has of its own; the last two are Twinlog's.
pub(super) const INTERNAL: [&str; 4] = [
    "__consumer_offsets",
    "__transaction_state",
    "__twinlog_state",
    "__twinlog_drill.1.a",
];
pub(super) const OWN: &str = "User:twinlog";

/// Every request that can tell one set of [`acls`] from another, for a resource.
pub(super) fn requests(resource_type: i8, name: &str) -> Vec<Request> {
    let both = ["User:x", "User:y"].into_iter();
    both.flat_map(|principal| requests_of(principal, resource_type, name))
        .collect()
}

/// The same of one client.
pub(super) fn requests_of(principal: &'static str, resource_type: i8, name: &str) -> Vec<Request> {
    let mut requests = Vec::new();
    {
        for host in ["h1", "h2"] {
            for operation in OPERATIONS {
                requests.push(Request {
                    principal,
                    host,
                    operation,
                    resource_type,
                    name: name.to_owned(),
                });
            }
        }
    }
    requests
}

/// Some ACLs.
pub(super) fn acls() -> impl Strategy<Value = Vec<AclBinding>> {
    proptest::collection::vec(acl(), 0..10)
}

fn acl() -> impl Strategy<Value = AclBinding> {
    let types = [
        resource::TOPIC,
        resource::TOPIC,
        resource::TOPIC,
        resource::GROUP,
        resource::TRANSACTIONAL_ID,
    ];
    let names = prop_oneof![
        6 => prop::sample::select(&NAMES[..]).prop_map(|name| (pattern::LITERAL, name)),
        1 => prop::sample::select(&INTERNAL[..]).prop_map(|name| (pattern::LITERAL, name)),
        3 => Just((pattern::LITERAL, WILDCARD)),
        4 => prop::sample::select(&["a", "ab", "b"][..]).prop_map(|name| (pattern::PREFIXED, name)),
        1 => prop::sample::select(&["_", "__c", "__twin", "__twinlog", "__twinlog_drill."][..])
            .prop_map(|name| (pattern::PREFIXED, name)),
    ];
    let mut operations = OPERATIONS.to_vec();
    operations.extend([operation::ALL; 3]);
    operations.extend([operation::READ; 3]);
    (
        prop::sample::select(types.to_vec()),
        names,
        prop::sample::select(vec!["User:x", "User:y", "User:*", OWN]),
        prop::sample::select(vec![ANY_HOST, ANY_HOST, "h1"]),
        prop::sample::select(operations),
        prop_oneof![3 => Just(permission::ALLOW), 1 => Just(permission::DENY)],
    )
        .prop_map(
            |(resource_type, name, principal, host, operation, permission)| AclBinding {
                resource_type,
                pattern_type: name.0,
                name: name.1.to_owned(),
                principal: principal.to_owned(),
                host: host.to_owned(),
                operation,
                permission,
            },
        )
}
