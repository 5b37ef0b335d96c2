//! Who may do what: `StandardAuthorizer` (`StandardAuthorizerData`), and the ACLs that it goes by.

mod filter;

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::ResponseError;

use crate::api::Asked;
use crate::state::State;

pub use filter::Filter;

/// Matches every name, host or user.
const WILDCARD: &str = "*";
/// The principal of an ACL that is for everybody.
const EVERYBODY: &str = "User:*";
/// Where every client of the fake connects from.
pub const CLIENT_HOST: &str = "127.0.0.1";
/// The name of the one resource of type CLUSTER.
pub const CLUSTER_NAME: &str = "kafka-cluster";

/// `org.apache.kafka.common.acl.AclOperation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i8)]
pub enum Operation {
    /// ALL.
    All = 2,
    /// READ.
    Read = 3,
    /// WRITE.
    Write = 4,
    /// CREATE.
    Create = 5,
    /// DELETE.
    Delete = 6,
    /// ALTER.
    Alter = 7,
    /// DESCRIBE.
    Describe = 8,
    /// CLUSTER_ACTION.
    ClusterAction = 9,
    /// DESCRIBE_CONFIGS.
    DescribeConfigs = 10,
    /// ALTER_CONFIGS.
    AlterConfigs = 11,
    /// IDEMPOTENT_WRITE.
    IdempotentWrite = 12,
    /// CREATE_TOKENS.
    CreateTokens = 13,
    /// DESCRIBE_TOKENS.
    DescribeTokens = 14,
    /// TWO_PHASE_COMMIT.
    TwoPhaseCommit = 15,
}

impl Operation {
    const ALL: [Self; 14] = [
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

    /// By Kafka's number; `None` for UNKNOWN, ANY and what doesn't exist.
    pub fn from_number(number: i8) -> Option<Self> {
        Self::ALL.into_iter().find(|it| *it as i8 == number)
    }
}

/// `org.apache.kafka.common.resource.ResourceType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i8)]
pub enum ResourceType {
    /// TOPIC.
    Topic = 2,
    /// GROUP.
    Group = 3,
    /// CLUSTER.
    Cluster = 4,
    /// TRANSACTIONAL_ID.
    TransactionalId = 5,
    /// DELEGATION_TOKEN.
    DelegationToken = 6,
    /// USER.
    User = 7,
}

impl ResourceType {
    const ALL: [Self; 6] = [
        Self::Topic,
        Self::Group,
        Self::Cluster,
        Self::TransactionalId,
        Self::DelegationToken,
        Self::User,
    ];

    /// By Kafka's number; `None` for UNKNOWN, ANY and what doesn't exist.
    pub fn from_number(number: i8) -> Option<Self> {
        Self::ALL.into_iter().find(|it| *it as i8 == number)
    }

    /// What can be allowed on such a resource (`AclEntry.supportedOperations`).
    pub fn operations(self) -> &'static [Operation] {
        use Operation::*;
        match self {
            Self::Topic => &[
                Read,
                Write,
                Create,
                Describe,
                Delete,
                Alter,
                DescribeConfigs,
                AlterConfigs,
            ],
            Self::Group => &[Read, Describe, Delete, DescribeConfigs, AlterConfigs],
            Self::Cluster => &[
                Create,
                ClusterAction,
                DescribeConfigs,
                AlterConfigs,
                IdempotentWrite,
                Alter,
                Describe,
            ],
            Self::TransactionalId => &[Describe, Write, TwoPhaseCommit],
            Self::DelegationToken => &[Describe],
            Self::User => &[CreateTokens, DescribeTokens],
        }
    }
}

/// Whether an ACL's name is the whole name or its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i8)]
pub enum PatternType {
    /// LITERAL; `*` is every name.
    Literal = 3,
    /// PREFIXED.
    Prefixed = 4,
}

impl PatternType {
    /// By Kafka's number; `None` for what only filters have.
    pub fn from_number(number: i8) -> Option<Self> {
        [Self::Literal, Self::Prefixed]
            .into_iter()
            .find(|it| *it as i8 == number)
    }
}

/// Whether an ACL allows or denies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i8)]
pub enum Permission {
    /// DENY.
    Deny = 2,
    /// ALLOW.
    Allow = 3,
}

impl Permission {
    /// By Kafka's number; `None` for UNKNOWN, ANY and what doesn't exist.
    pub fn from_number(number: i8) -> Option<Self> {
        [Self::Deny, Self::Allow]
            .into_iter()
            .find(|it| *it as i8 == number)
    }
}

/// One ACL.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Acl {
    /// On what.
    pub resource_type: ResourceType,
    /// How its name is meant.
    pub pattern_type: PatternType,
    /// Its name.
    pub name: String,
    /// Whose, such as `User:alice`.
    pub principal: String,
    /// From where.
    pub host: String,
    /// To do what.
    pub operation: Operation,
    /// Allowed or denied.
    pub permission: Permission,
}

impl Acl {
    /// An ACL that allows something on a literal name from everywhere.
    pub fn allow(
        principal: &str,
        operation: Operation,
        resource_type: ResourceType,
        name: &str,
    ) -> Self {
        Self {
            resource_type,
            pattern_type: PatternType::Literal,
            name: name.to_owned(),
            principal: principal.to_owned(),
            host: WILDCARD.to_owned(),
            operation,
            permission: Permission::Allow,
        }
    }

    /// The same, but denied.
    #[must_use]
    pub fn denied(mut self) -> Self {
        self.permission = Permission::Deny;
        self
    }

    /// The same, on every name that begins like this.
    #[must_use]
    pub fn prefixed(mut self) -> Self {
        self.pattern_type = PatternType::Prefixed;
        self
    }

    fn is_about(&self, resource_type: ResourceType, name: &str) -> bool {
        self.resource_type == resource_type
            && match self.pattern_type {
                PatternType::Literal => self.name == name || self.name == WILDCARD,
                PatternType::Prefixed => name.starts_with(&self.name),
            }
    }

    fn is_for(&self, principal: &str) -> bool {
        (self.principal == principal || self.principal == EVERYBODY)
            && (self.host == WILDCARD || self.host == CLIENT_HOST)
    }

    /// `StandardAuthorizerData.findResult`: what allows a change allows to look, but what denies it
    /// doesn't deny that.
    fn covers(&self, operation: Operation) -> bool {
        use Operation::*;
        if self.operation == All || self.operation == operation {
            return true;
        }
        self.permission == Permission::Allow
            && match operation {
                Describe => matches!(self.operation, Read | Write | Delete | Alter),
                DescribeConfigs => self.operation == AlterConfigs,
                _ => false,
            }
    }
}

/// The authorizer's configuration and all ACLs.
#[derive(Debug, Default)]
pub struct Acls {
    /// Whether there is an authorizer at all. Without one everything is allowed, and ACLs can be
    /// neither asked for nor changed.
    pub is_on: bool,
    /// `super.users`.
    pub super_users: BTreeSet<String>,
    /// `allow.everyone.if.no.acl.found`.
    pub allow_if_no_acl_found: bool,
    /// The ACLs.
    pub all: BTreeSet<Acl>,
    /// ACLs that CreateAcls refuses one by one, as a rule of the cluster's owner does.
    pub refused: BTreeSet<Acl>,
    /// What brokers know whose metadata image stands still (KAFKA-14535, KAFKA-19586).
    late: BTreeMap<i32, BTreeSet<Acl>>,
}

impl Acls {
    /// From now on a broker hears of no change.
    pub fn hold(&mut self, broker: i32) {
        self.late.insert(broker, self.all.clone());
    }

    /// A broker goes on with an image of before there were any, and hears of no change.
    pub fn forget(&mut self, broker: i32) {
        self.late.insert(broker, BTreeSet::new());
    }

    /// A broker that was held catches up.
    pub fn catch_up(&mut self, broker: i32) {
        self.late.remove(&broker);
    }

    /// The ACLs as a broker knows them.
    pub fn known_to(&self, broker: i32) -> &BTreeSet<Acl> {
        self.late.get(&broker).unwrap_or(&self.all)
    }

    /// [`Acls::allow`] by a broker's own image.
    pub fn allow_at(
        &self,
        broker: i32,
        principal: &str,
        operation: Operation,
        resource_type: ResourceType,
        name: &str,
    ) -> bool {
        let Some(known) = self.late.get(&broker) else {
            return self.allow(principal, operation, resource_type, name);
        };
        let image = Self {
            is_on: self.is_on,
            super_users: self.super_users.clone(),
            allow_if_no_acl_found: self.allow_if_no_acl_found,
            all: known.clone(),
            refused: BTreeSet::new(),
            late: BTreeMap::new(),
        };
        image.allow(principal, operation, resource_type, name)
    }

    /// `StandardAuthorizerData.authorize`.
    pub fn allow(
        &self,
        principal: &str,
        operation: Operation,
        resource_type: ResourceType,
        name: &str,
    ) -> bool {
        if !self.is_on || self.super_users.contains(principal) {
            return true;
        }
        let mut found = false;
        let mut allowed = false;
        for acl in self
            .all
            .iter()
            .filter(|it| it.is_about(resource_type, name))
        {
            found = true;
            if acl.is_for(principal) && acl.covers(operation) {
                match acl.permission {
                    Permission::Deny => return false,
                    Permission::Allow => allowed = true,
                }
            }
        }
        allowed || (!found && self.allow_if_no_acl_found)
    }

    /// Whether the operation is allowed on any resource of the type
    /// (`Authorizer.authorizeByResourceType`).
    pub fn allow_on_any(
        &self,
        principal: &str,
        operation: Operation,
        resource_type: ResourceType,
    ) -> bool {
        // As there: some name that nobody has an ACL for.
        if self.allow(principal, operation, resource_type, "hardcode") {
            return true;
        }
        let ours = |acl: &&Acl| {
            acl.resource_type == resource_type
                && acl.is_for(principal)
                && (acl.operation == Operation::All || acl.operation == operation)
        };
        let denied = |allowed: &Acl| {
            let all = self.all.iter().filter(ours);
            let mut denials = all.filter(|acl| acl.permission == Permission::Deny);
            denials.any(|deny| match deny.pattern_type {
                PatternType::Prefixed => allowed.name.starts_with(&deny.name),
                PatternType::Literal => {
                    deny.name == WILDCARD
                        || deny.name == allowed.name && allowed.pattern_type == PatternType::Literal
                }
            })
        };
        let all = self.all.iter().filter(ours);
        let mut allowed = all.filter(|acl| acl.permission == Permission::Allow);
        allowed.any(|acl| !denied(acl))
    }

    /// A bit for each operation that is allowed (`AuthHelper.authorizedOperations`).
    pub fn operations(&self, principal: &str, resource_type: ResourceType, name: &str) -> i32 {
        let operations = resource_type.operations().iter();
        operations
            .filter(|operation| self.allow(principal, **operation, resource_type, name))
            .map(|operation| 1 << *operation as i32)
            .sum()
    }
}

impl State {
    /// Whether whoever asks may do this with the topic.
    ///
    /// # Errors
    /// TOPIC_AUTHORIZATION_FAILED.
    pub fn check_topic(
        &self,
        asked: &Asked<'_>,
        operation: Operation,
        topic: &str,
    ) -> Result<(), ResponseError> {
        match self.allows(asked, operation, ResourceType::Topic, topic) {
            true => Ok(()),
            false => Err(ResponseError::TopicAuthorizationFailed),
        }
    }

    /// Whether whoever asks may do this to the cluster.
    ///
    /// # Errors
    /// CLUSTER_AUTHORIZATION_FAILED.
    pub fn check_cluster(
        &self,
        asked: &Asked<'_>,
        operation: Operation,
    ) -> Result<(), ResponseError> {
        match self.allows_on_cluster(asked, operation) {
            true => Ok(()),
            false => Err(ResponseError::ClusterAuthorizationFailed),
        }
    }

    /// Whether whoever asks may do this.
    pub fn allows(
        &self,
        asked: &Asked<'_>,
        operation: Operation,
        resource_type: ResourceType,
        name: &str,
    ) -> bool {
        let (broker, principal) = (asked.broker, asked.principal);
        self.acls
            .allow_at(broker, principal, operation, resource_type, name)
    }

    /// Whether whoever asks may do this to the cluster.
    pub fn allows_on_cluster(&self, asked: &Asked<'_>, operation: Operation) -> bool {
        self.allows(asked, operation, ResourceType::Cluster, CLUSTER_NAME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: &str = "User:alice";

    fn acls(all: impl IntoIterator<Item = Acl>) -> Acls {
        Acls {
            is_on: true,
            all: all.into_iter().collect(),
            ..Acls::default()
        }
    }

    fn on_topic(operation: Operation, name: &str) -> Acl {
        Acl::allow(ALICE, operation, ResourceType::Topic, name)
    }

    fn may(acls: &Acls, operation: Operation, name: &str) -> bool {
        acls.allow(ALICE, operation, ResourceType::Topic, name)
    }

    #[test]
    fn without_an_authorizer_everything_is_allowed() {
        let mut acls = acls([on_topic(Operation::Read, "t").denied()]);
        assert!(!may(&acls, Operation::Read, "t"));
        acls.is_on = false;
        assert!(may(&acls, Operation::Read, "t"));
    }

    #[test]
    fn names_match_whole_by_prefix_or_as_any() {
        let acls = acls([
            on_topic(Operation::Read, "whole"),
            on_topic(Operation::Write, "pre").prefixed(),
            on_topic(Operation::Delete, "*"),
        ]);
        assert!(may(&acls, Operation::Read, "whole"));
        assert!(!may(&acls, Operation::Read, "whole.not"));
        assert!(may(&acls, Operation::Write, "prefix"));
        assert!(!may(&acls, Operation::Write, "other"));
        assert!(may(&acls, Operation::Delete, "other"));
        assert!(!acls.allow(ALICE, Operation::Delete, ResourceType::Group, "other"));
        assert!(!acls.allow("User:bob", Operation::Delete, ResourceType::Topic, "other"));
    }

    #[test]
    fn a_denial_wins_but_does_not_deny_what_the_operation_implies() {
        let acls = acls([
            on_topic(Operation::All, "t"),
            on_topic(Operation::Write, "t").denied(),
        ]);
        assert!(!may(&acls, Operation::Write, "t"));
        assert!(may(&acls, Operation::Describe, "t"));
        assert!(may(&acls, Operation::Read, "t"));
    }

    #[test]
    fn what_allows_a_change_allows_to_look() {
        for operation in [
            Operation::Read,
            Operation::Write,
            Operation::Delete,
            Operation::Alter,
        ] {
            let acls = acls([on_topic(operation, "t")]);
            assert!(may(&acls, Operation::Describe, "t"), "{operation:?}");
            assert!(!may(&acls, Operation::DescribeConfigs, "t"));
        }
        let create = acls([on_topic(Operation::Create, "t")]);
        assert!(!may(&create, Operation::Describe, "t"));
        let configs = acls([on_topic(Operation::AlterConfigs, "t")]);
        assert!(may(&configs, Operation::DescribeConfigs, "t"));
        assert!(!may(&configs, Operation::Describe, "t"));
    }

    #[test]
    fn everybody_may_while_nobody_has_an_acl_if_so_configured() {
        let mut acls = acls([Acl::allow(
            "User:bob",
            Operation::Read,
            ResourceType::Topic,
            "t",
        )]);
        assert!(!may(&acls, Operation::Read, "free"));
        acls.allow_if_no_acl_found = true;
        assert!(may(&acls, Operation::Read, "free"));
        assert!(!may(&acls, Operation::Read, "t"), "somebody has one on it");
    }

    #[test]
    fn super_users_may_everything_and_hosts_count() {
        let mut other_host = on_topic(Operation::Read, "t");
        other_host.host = "10.0.0.1".to_owned();
        let mut acls = acls([other_host, on_topic(Operation::Write, "t").denied()]);
        assert!(!may(&acls, Operation::Read, "t"));
        acls.super_users.insert(ALICE.to_owned());
        assert!(may(&acls, Operation::Read, "t") && may(&acls, Operation::Write, "t"));
    }

    #[test]
    fn a_right_on_any_topic_is_one_that_no_denial_takes_back() {
        let any = |acls: &Acls| acls.allow_on_any(ALICE, Operation::Write, ResourceType::Topic);
        assert!(any(&acls([on_topic(Operation::Write, "t")])));
        assert!(!any(&acls([on_topic(Operation::Read, "t")])));
        let denied = on_topic(Operation::Write, "t").denied();
        assert!(!any(&acls([on_topic(Operation::Write, "t"), denied])));
        let prefix = on_topic(Operation::Write, "t").prefixed().denied();
        assert!(!any(&acls([
            on_topic(Operation::All, "tt"),
            prefix.clone()
        ])));
        assert!(any(&acls([on_topic(Operation::All, "x"), prefix])));
    }

    #[test]
    fn operations_are_bits() {
        let acls = acls([on_topic(Operation::Read, "t")]);
        let bits = acls.operations(ALICE, ResourceType::Topic, "t");
        assert_eq!(bits, 1 << 3 | 1 << 8);
        let everything = Acls::default().operations(ALICE, ResourceType::Group, "g");
        assert_eq!(everything, 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11);
    }
}
