//! Which ACLs are meant, when they are asked for or deleted (`AclBindingFilter`).

use super::{Acl, PatternType, WILDCARD};

/// UNKNOWN in the protocol.
const UNKNOWN: i8 = 0;
/// ANY in the protocol.
const ANY: i8 = 1;
/// MATCH: patterns of either kind that are about the name.
const MATCH: i8 = 2;

/// As the protocol has it, by Kafka's numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The resource's type, or 1 for any.
    pub resource_type: i8,
    /// The pattern's type, 1 for any, 2 for those that match the name.
    pub pattern_type: i8,
    /// The name, or any.
    pub name: Option<String>,
    /// The principal, or any.
    pub principal: Option<String>,
    /// The host, or any.
    pub host: Option<String>,
    /// The operation, or 1 for any.
    pub operation: i8,
    /// The permission, or 1 for any.
    pub permission: i8,
}

impl Filter {
    /// Whether a broker can't know what is meant (`AclBindingFilter.isUnknown`).
    pub fn is_unknown(&self) -> bool {
        [
            self.resource_type,
            self.pattern_type,
            self.operation,
            self.permission,
        ]
        .contains(&UNKNOWN)
    }

    /// Whether the ACL is one of those.
    pub fn matches(&self, acl: &Acl) -> bool {
        let number = |wanted: i8, have: i8| wanted == ANY || wanted == have;
        let text = |wanted: &Option<String>, have: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == have)
        };
        number(self.resource_type, acl.resource_type as i8)
            && self.matches_name(acl)
            && text(&self.principal, &acl.principal)
            && text(&self.host, &acl.host)
            && number(self.operation, acl.operation as i8)
            && number(self.permission, acl.permission as i8)
    }

    /// `ResourcePatternFilter.matches`.
    fn matches_name(&self, acl: &Acl) -> bool {
        let same_type = self.pattern_type == acl.pattern_type as i8;
        if ![ANY, MATCH].contains(&self.pattern_type) && !same_type {
            return false;
        }
        let Some(name) = &self.name else {
            return true;
        };
        if self.pattern_type == ANY || same_type {
            return *name == acl.name;
        }
        match acl.pattern_type {
            PatternType::Literal => *name == acl.name || acl.name == WILDCARD,
            PatternType::Prefixed => name.starts_with(&acl.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acls::{Operation, ResourceType};

    fn any() -> Filter {
        Filter {
            resource_type: ANY,
            pattern_type: ANY,
            operation: ANY,
            permission: ANY,
            ..Filter::default()
        }
    }

    fn acl(name: &str) -> Acl {
        Acl::allow("User:a", Operation::Read, ResourceType::Topic, name)
    }

    #[test]
    fn each_part_can_be_any_or_one() {
        assert!(any().matches(&acl("t")));
        let differing = [
            Filter {
                resource_type: 3,
                ..any()
            },
            Filter {
                pattern_type: 4,
                ..any()
            },
            Filter {
                name: Some("u".to_owned()),
                ..any()
            },
            Filter {
                principal: Some("User:b".to_owned()),
                ..any()
            },
            Filter {
                host: Some("h".to_owned()),
                ..any()
            },
            Filter {
                operation: 4,
                ..any()
            },
            Filter {
                permission: 2,
                ..any()
            },
        ];
        for filter in differing {
            assert!(!filter.matches(&acl("t")), "{filter:?}");
        }
        assert!(Filter::default().is_unknown() && !any().is_unknown());
    }

    #[test]
    fn match_means_every_pattern_that_is_about_the_name() {
        let about = |pattern_type: i8| Filter {
            pattern_type,
            name: Some("topic".to_owned()),
            ..any()
        };
        for (acl, by_match, by_any) in [
            (acl("topic"), true, true),
            (acl("*"), true, false),
            (acl("top").prefixed(), true, false),
            (acl("top"), false, false),
            (acl("other").prefixed(), false, false),
        ] {
            assert_eq!(about(MATCH).matches(&acl), by_match, "{acl:?}");
            assert_eq!(about(ANY).matches(&acl), by_any, "{acl:?}");
        }
    }
}
