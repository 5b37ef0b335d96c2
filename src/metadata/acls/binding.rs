//! What an ACL says, in words and as a key.

use std::fmt;

use crate::wire::AclBinding;

/// `org.apache.kafka.common.resource.ResourceType`.
pub(super) mod resource {
    pub const TOPIC: i8 = 2;
    pub const GROUP: i8 = 3;
    pub const CLUSTER: i8 = 4;
    pub const TRANSACTIONAL_ID: i8 = 5;
    pub const DELEGATION_TOKEN: i8 = 6;
    pub const USER: i8 = 7;
}

/// `org.apache.kafka.common.resource.PatternType`, of those that an ACL can have.
pub(super) mod pattern {
    pub const LITERAL: i8 = 3;
    pub const PREFIXED: i8 = 4;
}

/// `org.apache.kafka.common.acl.AclOperation`.
pub(super) mod operation {
    pub const ALL: i8 = 2;
    pub const READ: i8 = 3;
    pub const WRITE: i8 = 4;
    pub const CREATE: i8 = 5;
    pub const DELETE: i8 = 6;
    pub const ALTER: i8 = 7;
    pub const DESCRIBE: i8 = 8;
    pub const DESCRIBE_CONFIGS: i8 = 10;
    pub const ALTER_CONFIGS: i8 = 11;
    pub const DESCRIBE_TOKENS: i8 = 14;
    /// The last one that we know the meaning of.
    pub const LAST: i8 = 15;
}

/// `org.apache.kafka.common.acl.AclPermissionType`.
pub(super) mod permission {
    pub const DENY: i8 = 2;
    pub const ALLOW: i8 = 3;
}

/// The name of every resource of a type, with a literal pattern.
pub(super) const WILDCARD: &str = "*";
/// Every host.
pub(super) const ANY_HOST: &str = "*";

impl AclBinding {
    /// Whether it permits something.
    pub(super) fn is_allow(&self) -> bool {
        self.permission == permission::ALLOW
    }

    /// Whether it forbids something.
    pub(super) fn is_deny(&self) -> bool {
        self.permission == permission::DENY
    }

    /// Whether it is about topics.
    pub(super) fn is_topic(&self) -> bool {
        self.resource_type == resource::TOPIC
    }

    /// Whether it is about every resource of its type.
    pub(super) fn is_wildcard(&self) -> bool {
        self.pattern_type == pattern::LITERAL && self.name == WILDCARD
    }

    /// Whether it is about one resource.
    pub(super) fn is_literal(&self) -> bool {
        self.pattern_type == pattern::LITERAL && self.name != WILDCARD
    }

    /// Whether all its numbers have a meaning that we know.
    pub(super) fn is_known(&self) -> bool {
        (resource::TOPIC..=resource::USER).contains(&self.resource_type)
            && [pattern::LITERAL, pattern::PREFIXED].contains(&self.pattern_type)
            && (operation::ALL..=operation::LAST).contains(&self.operation)
            && (self.is_allow() || self.is_deny())
    }

    /// Whether it is about this resource of its type.
    pub(super) fn covers(&self, name: &str) -> bool {
        match self.pattern_type {
            pattern::PREFIXED => name.starts_with(&self.name),
            _ => self.name == WILDCARD || self.name == name,
        }
    }

    /// The same as a pattern about what begins like this, and nothing else.
    pub(super) fn within(&self, namespace: &str) -> Option<Self> {
        let name = if self.is_wildcard() || namespace.starts_with(&self.name) {
            namespace
        } else if self.name.starts_with(namespace) {
            &self.name
        } else {
            return None;
        };
        Some(Self {
            pattern_type: pattern::PREFIXED,
            name: name.to_owned(),
            ..self.clone()
        })
    }

    /// The same about one resource.
    pub(super) fn about(&self, name: &str) -> Self {
        Self {
            pattern_type: pattern::LITERAL,
            name: name.to_owned(),
            ..self.clone()
        }
    }

    /// What it is about: `topic orders`, `topic prefix ord`, `topic *`.
    pub(super) fn subject(&self) -> String {
        let kind = match self.resource_type {
            resource::TOPIC => "topic",
            resource::GROUP => "group",
            resource::CLUSTER => "cluster",
            resource::TRANSACTIONAL_ID => "transactional id",
            resource::DELEGATION_TOKEN => "delegation token",
            resource::USER => "user",
            other => return format!("resource type {other} {}", self.name),
        };
        match self.pattern_type {
            pattern::LITERAL => format!("{kind} {}", self.name),
            pattern::PREFIXED => format!("{kind} prefix {}", self.name),
            other => format!("{kind} {} (pattern type {other})", self.name),
        }
    }

    /// What it says: `ALLOW WRITE User:bob from *`.
    pub(super) fn statement(&self) -> String {
        let permission = match self.permission {
            permission::DENY => "DENY",
            permission::ALLOW => "ALLOW",
            other => &format!("permission {other}"),
        };
        format!(
            "{permission} {} {} from {}",
            operation_word(self.operation),
            self.principal,
            self.host
        )
    }

    /// The end of its key in the state topic: unambiguous, since only the last part may have a `/`.
    pub(super) fn key(&self) -> String {
        let escaped = |text: &str| text.replace('%', "%25").replace('/', "%2F");
        format!(
            "{}/{}/{}/{}/{}/{}/{}",
            self.resource_type,
            self.pattern_type,
            self.permission,
            self.operation,
            escaped(&self.host),
            escaped(&self.principal),
            self.name
        )
    }
}

/// The whole ACL in one line: `ALLOW WRITE User:bob from * on topic orders`.
impl fmt::Display for AclBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.statement(), self.subject())
    }
}

fn operation_word(code: i8) -> String {
    let word = match code {
        2 => "ALL",
        3 => "READ",
        4 => "WRITE",
        5 => "CREATE",
        6 => "DELETE",
        7 => "ALTER",
        8 => "DESCRIBE",
        9 => "CLUSTER_ACTION",
        10 => "DESCRIBE_CONFIGS",
        11 => "ALTER_CONFIGS",
        12 => "IDEMPOTENT_WRITE",
        13 => "CREATE_TOKENS",
        14 => "DESCRIBE_TOKENS",
        15 => "TWO_PHASE_COMMIT",
        other => return format!("operation {other}"),
    };
    word.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(principal: &str, host: &str, name: &str) -> AclBinding {
        AclBinding {
            resource_type: resource::TOPIC,
            pattern_type: pattern::LITERAL,
            name: name.to_owned(),
            principal: principal.to_owned(),
            host: host.to_owned(),
            operation: operation::WRITE,
            permission: permission::ALLOW,
        }
    }

    #[test]
    fn an_acl_in_words() {
        let mut write = acl("User:bob", "*", "orders");
        let text = "ALLOW WRITE User:bob from * on topic orders";
        assert_eq!(write.to_string(), text);
        write.pattern_type = pattern::PREFIXED;
        write.permission = permission::DENY;
        write.operation = 99;
        let text = "DENY operation 99 User:bob from * on topic prefix orders";
        assert_eq!(write.to_string(), text);
        assert!(!write.is_known());
    }

    #[test]
    fn two_acls_never_share_a_key() {
        let one = acl("User:a/b", "h", "c");
        let other = acl("User:a", "h", "b/c");
        assert_ne!(one.key(), other.key());
        let one = acl("User:a%2Fb", "h", "c");
        assert_ne!(one.key(), acl("User:a/b", "h", "c").key());
    }
}
