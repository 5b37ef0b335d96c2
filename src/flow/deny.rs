//! The fence on a source: ACLs that deny everybody to write to the copied topics.
//!
//! Only what wasn't there before is made, is noted in the state topic before it is made, and is
//! removed exactly. Super users aren't bound by ACLs; log ends that go on moving show them.

use std::collections::{BTreeSet, HashSet};

use kafka_protocol::ResponseError;

use crate::state::FenceAcl;
use crate::wire::{self, AclBinding, Cluster, WireError};

/// Numbers of `org.apache.kafka.common.resource` and `.acl`.
const TOPIC: i8 = 2;
const LITERAL: i8 = 3;
const PREFIXED: i8 = 4;
const ALLOW: i8 = 3;
const EVERYBODY: &str = "User:*";
const OP_ALL: i8 = 2;
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
    /// What keeps everybody away keeps us away as well.
    #[error("the fence would keep Twinlog itself from copying to {cluster}: {reason}")]
    OursToo {
        /// The cluster.
        cluster: String,
        /// Why nobody else can be kept away alone.
        reason: String,
    },
    /// A call failed.
    #[error(transparent)]
    Wire(WireError),
}

impl DenyError {
    /// What to do about it, where there is anything.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoAuthorizer | Self::NotAllowed(_) => Some(
                "use `--fence manual` and stop the producers yourself: the command waits until \
                 nothing is written any more",
            ),
            Self::OursToo { .. } | Self::Wire(_) => None,
        }
    }
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
    let (listed, is_open) = tokio::join!(wire::describe_acls(source), is_open_by_default(source));
    let (listed, is_open) = (listed?.acls(source)?, is_open?);
    let present: HashSet<&AclBinding> = listed.iter().collect();
    let mut missing = Vec::new();
    for topic in topics {
        let deny = acl(topic, OP_WRITE, true);
        if !present.contains(&deny.binding()) {
            missing.push(deny);
        }
        if is_open && !listed.iter().any(|it| covers(it, topic)) {
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
        principal: None,
    }
}

/// The fences around topics that `is_ours` names, by their shape: nobody remembers what was made.
pub fn by_shape(listed: &[AclBinding], is_ours: impl Fn(&str) -> bool) -> Vec<FenceAcl> {
    let present: HashSet<&AclBinding> = listed.iter().collect();
    let topics = listed.iter().filter(|it| it.resource_type == TOPIC);
    let topics: BTreeSet<&str> = topics
        .filter(|it| it.pattern_type == LITERAL && is_ours(&it.name))
        .map(|it| it.name.as_str())
        .collect();
    let mut found = Vec::new();
    for topic in topics {
        let deny = acl(topic, OP_WRITE, true);
        let given = OTHERS.map(|operation| acl(topic, operation, false));
        found.extend(present.contains(&deny.binding()).then_some(deny));
        // All other rights for everybody, and not that one: nobody else has that.
        if given.iter().all(|it| present.contains(&it.binding())) {
            found.extend(given);
        }
    }
    found
}

/// What keeps somebody from writing to a topic that `is_ours` names, and isn't `lifted`.
pub fn left(
    listed: &[AclBinding],
    lifted: &[FenceAcl],
    is_ours: impl Fn(&str) -> bool,
) -> Vec<AclBinding> {
    let lifted: HashSet<AclBinding> = lifted.iter().map(FenceAcl::binding).collect();
    let denies = listed.iter().filter(|it| {
        it.resource_type == TOPIC
            && it.permission != ALLOW
            && matches!(it.operation, OP_ALL | OP_WRITE)
            && it.pattern_type == LITERAL
            && is_ours(&it.name)
    });
    denies.filter(|it| !lifted.contains(it)).cloned().collect()
}

/// Whether an ACL is about a topic.
fn covers(acl: &AclBinding, topic: &str) -> bool {
    acl.resource_type == TOPIC
        && match acl.pattern_type {
            LITERAL => acl.name == "*" || acl.name == topic,
            PREFIXED => topic.starts_with(&acl.name),
            _ => false,
        }
}

/// What a fence lacks that keeps everybody away but Twinlog, and what of it is too much.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// To be made, first.
    pub make: Vec<FenceAcl>,
    /// To be removed, then.
    pub remove: Vec<FenceAcl>,
}

impl Change {
    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.make.is_empty() && self.remove.is_empty()
    }
}

/// How the fence around `topics` becomes one through which Twinlog, as `own`, can write. `made` is
/// the fence as it is remembered.
///
/// A DENY for everybody overrides every ALLOW (`StandardAuthorizer`), so where Twinlog is no super
/// user the writers are denied one by one instead: those whom an ACL lets write.
///
/// # Errors
/// When the ACLs can't be read, or an ACL lets everybody write: then nobody can be kept away alone.
pub async fn but_us(
    cluster: &Cluster,
    topics: &[String],
    own: Option<&str>,
    made: &[FenceAcl],
) -> Result<Change, DenyError> {
    let is_one_by_one = made.iter().any(|acl| acl.principal.is_some());
    if !is_one_by_one {
        // Nobody gets in while it is changed.
        let make = missing(cluster, topics).await?;
        if !make.is_empty() {
            return Ok(Change {
                make,
                remove: Vec::new(),
            });
        }
        if may_write(cluster, topics).await? {
            return Ok(Change::default());
        }
    }
    let ours_too = |reason: String| DenyError::OursToo {
        cluster: cluster.name().to_owned(),
        reason,
    };
    let own = own.ok_or_else(|| {
        ours_too(
            "it isn't known whom its brokers take Twinlog for; make it a super user".to_owned(),
        )
    })?;
    let listed = wire::describe_acls(cluster).await?.acls(cluster)?;
    one_by_one(&listed, topics, own, made).map_err(ours_too)
}

/// How the copies on a target become ones that nobody but Twinlog, as `own`, writes to. `made` is what was made
/// for that so far; what of it is about other topics is too much. Twinlog is never kept out, not even for a moment.
///
/// # Errors
/// As [`but_us`].
pub async fn protect(
    target: &Cluster,
    topics: &[String],
    own: Option<&str>,
    made: &[FenceAcl],
) -> Result<Change, DenyError> {
    if topics.is_empty() {
        return Ok(Change {
            make: Vec::new(),
            remove: made.to_vec(),
        });
    }
    let listed = wire::describe_acls(target).await?.acls(target)?;
    let facts = Facts {
        is_open: is_open_by_default(target).await?,
        may_write: may_write(target, topics).await?,
        own,
    };
    protection(&listed, topics, facts, made).map_err(|reason| DenyError::OursToo {
        cluster: target.name().to_owned(),
        reason,
    })
}

/// Where Twinlog may not ask, most likely ACLs decide. A broker that doesn't answer says nothing.
async fn is_open_by_default(cluster: &Cluster) -> Result<bool, WireError> {
    match wire::is_open_by_default(cluster).await {
        Err(error) if error.server_code() == Some(ResponseError::ClusterAuthorizationFailed) => {
            Ok(false)
        }
        told => told,
    }
}

/// What a target's brokers say of Twinlog.
#[derive(Clone, Copy)]
struct Facts<'a> {
    /// A topic without any ACL is open to everybody.
    is_open: bool,
    /// Twinlog may write now.
    may_write: bool,
    own: Option<&'a str>,
}

/// The pure part of [`protect`].
fn protection(
    listed: &[AclBinding],
    topics: &[String],
    facts: Facts<'_>,
    made: &[FenceAcl],
) -> Result<Change, String> {
    let present: HashSet<&AclBinding> = listed.iter().collect();
    let ours: HashSet<AclBinding> = made.iter().map(FenceAcl::binding).collect();
    let others: Vec<AclBinding> = listed
        .iter()
        .filter(|it| !ours.contains(it))
        .cloned()
        .collect();
    let is_super = topics.iter().all(|topic| {
        let denied = present.contains(&acl(topic, OP_WRITE, true).binding());
        facts.may_write && (denied || !(facts.is_open || lets_write(&others, topic, facts.own)))
    });
    let mut change = match (is_super, facts.own) {
        (true, _) => Change {
            make: topics.iter().map(|it| acl(it, OP_WRITE, true)).collect(),
            remove: Vec::new(),
        },
        (false, Some(own)) => one_by_one(listed, topics, own, made)?,
        (false, None) => {
            return Err(
                "it isn't known whom the target's brokers take Twinlog for; make it a super user"
                    .to_owned(),
            );
        }
    };
    let is_ours_alone = |topic: &&String| !others.iter().any(|it| covers(it, topic));
    if facts.is_open {
        // The first ACL of a topic would take all other rights away.
        let alone = topics.iter().filter(is_ours_alone);
        let given = alone.flat_map(|topic| OTHERS.map(|operation| acl(topic, operation, false)));
        change.make.extend(given);
    }
    change.make.retain(|acl| !present.contains(&acl.binding()));
    // What lets somebody do something comes first.
    change.make.sort_by_key(|acl| acl.deny);
    let followed: HashSet<&String> = topics.iter().collect();
    let left = made.iter().filter(|acl| !followed.contains(&acl.topic));
    change.remove.extend(left.cloned());
    Ok(change)
}

/// Whether an ACL lets this principal write, or of nobody in particular: somebody.
fn lets_write(listed: &[AclBinding], topic: &str, principal: Option<&str>) -> bool {
    listed.iter().any(|it| {
        let is_about = principal.is_none_or(|own| it.principal == own || it.principal == EVERYBODY);
        let lets = it.permission == ALLOW && matches!(it.operation, OP_ALL | OP_WRITE);
        is_about && lets && covers(it, topic)
    })
}

/// Whether Twinlog may write to all of these topics.
///
/// # Errors
/// When no broker answers.
pub async fn may_write(cluster: &Cluster, topics: &[String]) -> Result<bool, WireError> {
    let rights = wire::topic_rights(cluster, topics).await?;
    Ok(topics.iter().all(|topic| {
        let rights = rights.get(topic);
        rights.is_some_and(|rights| rights.allow(wire::Operation::Write))
    }))
}

/// The pure part of [`but_us`].
fn one_by_one(
    listed: &[AclBinding],
    topics: &[String],
    own: &str,
    made: &[FenceAcl],
) -> Result<Change, String> {
    let present: HashSet<&AclBinding> = listed.iter().collect();
    let ours: HashSet<AclBinding> = made.iter().map(FenceAcl::binding).collect();
    let mut change = Change::default();
    for topic in topics {
        let of = |principal: &str, deny: bool| FenceAcl {
            principal: Some(principal.to_owned()),
            ..acl(topic, OP_WRITE, deny)
        };
        let mut writers = BTreeSet::new();
        for it in listed.iter().filter(|it| covers(it, topic)) {
            let lets_write = it.permission == ALLOW && matches!(it.operation, OP_ALL | OP_WRITE);
            if lets_write && !ours.contains(it) {
                writers.insert(it.principal.as_str());
            }
        }
        if writers.contains(EVERYBODY) {
            return Err(format!(
                "an ACL lets everybody write to {topic}; make Twinlog's user a super user, or \
                 replace that ACL"
            ));
        }
        if !writers.remove(own) {
            change.make.push(of(own, false));
        }
        change
            .make
            .extend(writers.into_iter().map(|writer| of(writer, true)));
        let everybody = acl(topic, OP_WRITE, true);
        if present.contains(&everybody.binding()) {
            if !made.contains(&everybody) {
                return Err(format!(
                    "somebody else denies everybody to write to {topic}"
                ));
            }
            change.remove.push(everybody);
        }
    }
    change.make.retain(|acl| !present.contains(&acl.binding()));
    Ok(change)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(topic: &str, principal: &str, operation: i8, allow: bool) -> AclBinding {
        AclBinding {
            resource_type: TOPIC,
            pattern_type: LITERAL,
            name: topic.to_owned(),
            principal: principal.to_owned(),
            host: "*".to_owned(),
            operation,
            permission: if allow { ALLOW } else { 2 },
        }
    }

    fn named(topic: &str, principal: &str, deny: bool) -> FenceAcl {
        FenceAcl {
            principal: Some(principal.to_owned()),
            ..acl(topic, OP_WRITE, deny)
        }
    }

    #[test]
    fn writers_are_denied_one_by_one_and_we_are_let_in() {
        let fence = acl("t", OP_WRITE, true);
        let listed = [
            fence.binding(),
            binding("t", "User:writer", OP_WRITE, true),
            binding("*", "User:boss", OP_ALL, true),
            binding("t", "User:reader", OP_READ, true),
            binding("other", "User:nobody", OP_WRITE, true),
        ];
        let topics = ["t".to_owned()];
        let made = [fence.clone()];
        let change = one_by_one(&listed, &topics, "User:twinlog", &made).unwrap();
        let make = [
            named("t", "User:twinlog", false),
            named("t", "User:boss", true),
            named("t", "User:writer", true),
        ];
        assert_eq!(change.make, make);
        assert_eq!(change.remove, [fence]);
        // Once it is so, nothing is left to do, whatever else was allowed meanwhile.
        let mut after: Vec<AclBinding> = make.iter().map(FenceAcl::binding).collect();
        after.extend_from_slice(&listed[1..]);
        let again = one_by_one(&after, &topics, "User:twinlog", &make).unwrap();
        assert!(again.is_empty(), "{again:?}");
        after.push(binding("t", "User:new", OP_WRITE, true));
        let again = one_by_one(&after, &topics, "User:twinlog", &make).unwrap();
        assert_eq!(again.make, [named("t", "User:new", true)]);
    }

    #[test]
    fn a_copy_is_protected_as_its_cluster_allows() {
        let topics = ["t".to_owned()];
        let facts = |is_open, own| Facts {
            is_open,
            may_write: true,
            own,
        };
        let own = Some("User:twinlog");
        let bob = binding("t", "User:bob", OP_WRITE, true);
        let us = binding("*", "User:twinlog", OP_ALL, true);
        // A super user: nothing lets it write, and still it may.
        let everybody = [acl("t", OP_WRITE, true)];
        for own in [own, None] {
            let listed = match own {
                Some(_) => vec![bob.clone()],
                None => Vec::new(),
            };
            let change = protection(&listed, &topics, facts(false, own), &[]).unwrap();
            assert_eq!(change.make, everybody);
            let after = [listed, vec![everybody[0].binding()]].concat();
            let again = protection(&after, &topics, facts(false, own), &everybody).unwrap();
            assert!(again.is_empty(), "{again:?}");
        }
        // Nobody special: the others one by one.
        let listed = [bob.clone(), us.clone()];
        let change = protection(&listed, &topics, facts(false, own), &[]).unwrap();
        assert_eq!(change.make, [named("t", "User:bob", true)]);
        // A cluster that is open by default: we are let in, and the others keep all but writing.
        let change = protection(&[], &topics, facts(true, own), &[]).unwrap();
        assert_eq!(change.make.len(), 1 + OTHERS.len());
        assert!(change.make.contains(&named("t", "User:twinlog", false)));
        assert!(change.make.iter().all(|acl| !acl.deny));
        // What somebody removed is made again, what is too much goes.
        let mut left: Vec<AclBinding> = change.make.iter().map(FenceAcl::binding).collect();
        let removed = left.pop();
        let again = protection(&left, &topics, facts(true, own), &change.make).unwrap();
        let made_again: Vec<AclBinding> = again.make.iter().map(FenceAcl::binding).collect();
        assert_eq!(made_again, Vec::from_iter(removed));
        let other = ["u".to_owned()];
        let moved = protection(&listed, &other, facts(false, own), &everybody).unwrap();
        assert_eq!(moved.remove, everybody);
    }

    #[test]
    fn nobody_is_kept_away_alone_where_everybody_may_write() {
        let topics = ["t".to_owned()];
        let listed = [binding("t", EVERYBODY, OP_ALL, true)];
        assert!(one_by_one(&listed, &topics, "User:twinlog", &[]).is_err());
        let foreign = [acl("t", OP_WRITE, true).binding()];
        assert!(one_by_one(&foreign, &topics, "User:twinlog", &[]).is_err());
    }
}
