//! The fence on a source: ACLs that deny everybody to write to the copied topics.
//!
//! Only what wasn't there before is made, is noted in the state topic before it is made, and is
//! removed exactly. Super users aren't bound by ACLs; log ends that go on moving show them.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use kafka_protocol::ResponseError;

use crate::metadata::acls::SEEN_WITHIN;
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
    /// Everybody is denied to write, and nobody remembers that as ours. A broker that is late with its ACLs shows so
    /// what was removed a moment ago.
    #[error(
        "the fence would keep Twinlog itself from copying to {cluster}: somebody else denies everybody to write to {topic}"
    )]
    DeniedByAnother {
        /// The cluster.
        cluster: String,
        /// The topic.
        topic: String,
    },
    /// What keeps the others' rights was made, but isn't there.
    #[error("what keeps all other rights was made, but no broker shows it: {0}")]
    Unseen(String),
    /// A call failed.
    #[error(transparent)]
    Wire(WireError),
}

impl DenyError {
    /// Whether something was asked that may be carried out yet: nobody has answered.
    pub fn is_unanswered(&self) -> bool {
        match self {
            Self::Wire(error) => error.server_code().is_none(),
            Self::NotAllowed(_)
            | Self::NoAuthorizer
            | Self::OursToo { .. }
            | Self::DeniedByAnother { .. }
            | Self::Unseen(_) => false,
        }
    }

    /// What to do about it, where there is anything.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoAuthorizer | Self::NotAllowed(_) => Some(
                "use `--fence manual` and stop the producers yourself: the command waits until \
                 nothing is written any more",
            ),
            Self::OursToo { .. }
            | Self::DeniedByAnother { .. }
            | Self::Unseen(_)
            | Self::Wire(_) => None,
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
/// ACL would take all other rights away, also ours to read. There these are given back. `made` is the fence as it is
/// remembered: a topic that has nothing else is open without it, also where only a part of it was made.
///
/// # Errors
/// When the source's ACLs can't be read.
pub async fn missing(
    source: &Cluster,
    topics: &[String],
    made: &[FenceAcl],
) -> Result<Vec<FenceAcl>, DenyError> {
    lacks(source, topics, made, ask(source).await?).await
}

/// What a cluster's brokers say of its ACLs.
pub struct Asked {
    listed: Vec<AclBinding>,
    /// Whether what has none is everybody's.
    is_open: Result<bool, WireError>,
}

/// Asks a cluster for its ACLs, and whether what has none is everybody's.
///
/// # Errors
/// When its ACLs can't be read.
pub async fn ask(cluster: &Cluster) -> Result<Asked, DenyError> {
    let (listed, is_open) = tokio::join!(
        wire::describe_acls(cluster),
        wire::is_open_by_default(cluster)
    );
    let listed = listed?.acls(cluster)?;
    Ok(Asked { listed, is_open })
}

/// As [`missing`], by what was asked just now.
///
/// # Errors
/// When it isn't known whether what has no ACL is everybody's.
pub async fn lacks(
    source: &Cluster,
    topics: &[String],
    made: &[FenceAcl],
    asked: Asked,
) -> Result<Vec<FenceAcl>, DenyError> {
    let Asked { listed, is_open } = asked;
    let is_open = is_open_as_told(source, topics, (&listed, made), is_open).await?;
    Ok(lacking(&listed, topics, is_open, made))
}

/// The pure part of [`missing`].
fn lacking(
    listed: &[AclBinding],
    topics: &[String],
    is_open: bool,
    made: &[FenceAcl],
) -> Vec<FenceAcl> {
    let present: HashSet<&AclBinding> = listed.iter().collect();
    let ours: HashSet<AclBinding> = made.iter().map(FenceAcl::binding).collect();
    let others: Vec<&AclBinding> = listed.iter().filter(|it| !ours.contains(it)).collect();
    let is_ours_alone = |topic: &str| !others.iter().any(|it| covers(it, topic));
    let mut lacking = Vec::new();
    for topic in topics {
        lacking.push(acl(topic, OP_WRITE, true));
        if is_open && is_ours_alone(topic) {
            lacking.extend(OTHERS.map(|operation| acl(topic, operation, false)));
        }
    }
    lacking.retain(|acl| !present.contains(&acl.binding()));
    // What lets us go on reading comes first.
    lacking.sort_by_key(|acl| acl.deny);
    lacking
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
    let named: HashSet<&String> = topics.iter().collect();
    // What is left of other topics, such as deleted ones, says nothing about these.
    let about = || made.iter().filter(|acl| named.contains(&acl.topic));
    let is_one_by_one = about().any(|acl| acl.principal.is_some());
    if !is_one_by_one {
        let is_denied = about().any(|acl| acl.deny);
        if !is_denied && own_alone_may_write(cluster, topics, own).await? {
            return Ok(Change::default());
        }
        // Nobody gets in while it is changed.
        let make = missing(cluster, topics, made).await?;
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
    let own = own.ok_or_else(|| DenyError::OursToo {
        cluster: cluster.name().to_owned(),
        reason: "it isn't known whom its brokers take Twinlog for; make it a super user".to_owned(),
    })?;
    let listed = wire::describe_acls(cluster).await?.acls(cluster)?;
    one_by_one(&listed, topics, own, made).map_err(|why| why.at(cluster))
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
        is_open: is_open(target, topics, &listed, made).await?,
        may_write: may_write(target, topics).await?,
        own,
    };
    protection(&listed, topics, facts, made).map_err(|why| why.at(target))
}

/// Whether what has no ACL is everybody's. Who may not ask is no super user, so it has rights on a topic without any ACL
/// just where that is so. A broker that doesn't answer says nothing.
async fn is_open(
    cluster: &Cluster,
    topics: &[String],
    listed: &[AclBinding],
    made: &[FenceAcl],
) -> Result<bool, WireError> {
    let told = wire::is_open_by_default(cluster).await;
    is_open_as_told(cluster, topics, (listed, made), told).await
}

/// The same by what a broker has said of itself.
async fn is_open_as_told(
    cluster: &Cluster,
    topics: &[String],
    (listed, made): (&[AclBinding], &[FenceAcl]),
    told: Result<bool, WireError>,
) -> Result<bool, WireError> {
    match told {
        Err(error) if error.server_code() == Some(ResponseError::ClusterAuthorizationFailed) => {}
        told => return told,
    }
    let ours: HashSet<AclBinding> = made.iter().map(FenceAcl::binding).collect();
    let is_bare = |topic: &&String| {
        let mut others = listed.iter().filter(|it| !ours.contains(it));
        !others.any(|it| covers(it, topic))
    };
    let bare: Vec<String> = topics.iter().filter(is_bare).cloned().collect();
    if bare.is_empty() {
        return Ok(false);
    }
    let rights = wire::topic_rights(cluster, &bare).await?;
    Ok(rights
        .values()
        .any(|rights| rights.allow(wire::Operation::Read)))
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
) -> Result<Change, NotAlone> {
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
            let why =
                "it isn't known whom the target's brokers take Twinlog for; make it a super user";
            return Err(NotAlone::Stays(why.to_owned()));
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

/// Whether the ACLs as they are let Twinlog write and nobody else. Then nobody is denied one by one, and nothing is
/// remembered that would say so: what was made for everybody would be made again, and removed again, for ever.
async fn own_alone_may_write(
    cluster: &Cluster,
    topics: &[String],
    own: Option<&str>,
) -> Result<bool, WireError> {
    let Some(own) = own else { return Ok(false) };
    let listed = wire::describe_acls(cluster).await?.acls(cluster)?;
    let lacks_nothing = one_by_one(&listed, topics, own, &[]).is_ok_and(|lacks| lacks.is_empty());
    Ok(lacks_nothing && may_write(cluster, topics).await?)
}

/// Why nobody else can be kept away alone, as far as one broker's ACLs tell.
#[derive(Debug, PartialEq, Eq)]
enum NotAlone {
    /// It stays so until somebody changes something.
    Stays(String),
    /// Everybody is denied to write to this topic, by nobody whom we know: or that was ours, and who was asked hasn't
    /// heard that it is gone.
    Denied(String),
}

impl NotAlone {
    fn at(self, cluster: &Cluster) -> DenyError {
        let cluster = cluster.name().to_owned();
        match self {
            Self::Stays(reason) => DenyError::OursToo { cluster, reason },
            Self::Denied(topic) => DenyError::DeniedByAnother { cluster, topic },
        }
    }
}

/// The pure part of [`but_us`].
fn one_by_one(
    listed: &[AclBinding],
    topics: &[String],
    own: &str,
    made: &[FenceAcl],
) -> Result<Change, NotAlone> {
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
            return Err(NotAlone::Stays(format!(
                "an ACL lets everybody write to {topic}; make Twinlog's user a super user, or \
                 replace that ACL"
            )));
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
                return Err(NotAlone::Denied(topic.clone()));
            }
            change.remove.push(everybody);
        }
    }
    change.make.retain(|acl| !present.contains(&acl.binding()));
    Ok(change)
}

/// Makes these ACLs; those that are there already are fine.
///
/// What gives rights is made first, all of a topic at once: any part of it would be the topic's first ACL and take the rest
/// away. Nothing is denied before a broker shows it.
///
/// # Errors
/// When one of them wasn't made; others may have been.
pub async fn create(source: &Cluster, acls: &[FenceAcl]) -> Result<(), DenyError> {
    let (denying, giving): (Vec<FenceAcl>, Vec<FenceAcl>) =
        acls.iter().cloned().partition(|acl| acl.deny);
    let changed_whole = changed(source, Act::Make, whole_topics(&giving)).await;
    for (parts, _) in changed_whole.iter().filter(|it| !it.0.is_empty()) {
        put_back(source, wire::delete_acls(source, &bindings(parts)).await);
    }
    for (_, outcome) in changed_whole {
        outcome?;
    }
    let unseen = wire::unseen_acls(source, &bindings(&giving), SEEN_WITHIN).await?;
    if let Some(first) = unseen.first() {
        return Err(DenyError::Unseen(first.to_string()));
    }
    let pieces = denying.chunks(AT_ONCE).map(<[FenceAcl]>::to_vec);
    for (_, outcome) in changed(source, Act::Make, pieces.collect()).await {
        outcome?;
    }
    Ok(())
}

/// Removes exactly these ACLs; those that are gone already are fine.
///
/// What forbids goes first, then what keeps other rights, all of a topic at once: what is left of it would take the rest away.
///
/// # Errors
/// When one of them wasn't removed; others may have been.
pub async fn delete(source: &Cluster, acls: &[FenceAcl]) -> Result<(), DenyError> {
    let (denying, giving): (Vec<FenceAcl>, Vec<FenceAcl>) =
        acls.iter().cloned().partition(|acl| acl.deny);
    let pieces = denying.chunks(AT_ONCE).map(<[FenceAcl]>::to_vec);
    for (_, outcome) in changed(source, Act::Remove, pieces.collect()).await {
        outcome?;
    }
    let changed_whole = changed(source, Act::Remove, whole_topics(&giving)).await;
    for (parts, _) in changed_whole.iter().filter(|it| !it.0.is_empty()) {
        put_back(source, wire::create_acls(source, &bindings(parts)).await);
    }
    for (_, outcome) in changed_whole {
        outcome?;
    }
    Ok(())
}

/// What is done about ACLs.
#[derive(Clone, Copy)]
enum Act {
    Make,
    Remove,
}

/// Sends these requests, some at a time, and tells of each what was done about topics of which something was refused, and
/// what became of it as a whole. What must come before something else is a call of its own.
async fn changed(
    cluster: &Cluster,
    act: Act,
    requests: Vec<Vec<FenceAcl>>,
) -> Vec<(Vec<FenceAcl>, Result<(), WireError>)> {
    let sent = wire::in_pieces(requests, |request| {
        let cluster = cluster.clone();
        async move {
            let bindings = bindings(&request);
            let results = match act {
                Act::Make => wire::create_acls(&cluster, &bindings).await?,
                Act::Remove => wire::delete_acls(&cluster, &bindings).await?,
            };
            Ok((done_in_part(&request, &results), all_done(&results)))
        }
    });
    let sent = sent.await.into_iter();
    sent.map(|it| it.unwrap_or_else(|error| (Vec::new(), Err(error))))
        .collect()
}

/// In requests that have all of a topic, or nothing.
fn whole_topics(acls: &[FenceAcl]) -> Vec<Vec<FenceAcl>> {
    let mut topics: BTreeMap<&str, Vec<FenceAcl>> = BTreeMap::new();
    for acl in acls {
        topics.entry(&acl.topic).or_default().push(acl.clone());
    }
    let mut requests: Vec<Vec<FenceAcl>> = Vec::new();
    for of_topic in topics.into_values() {
        match requests.last_mut() {
            Some(last) if last.len() + of_topic.len() <= AT_ONCE => last.extend(of_topic),
            _ => requests.push(of_topic),
        }
    }
    requests
}

/// What was done about topics of which something was refused.
fn done_in_part(chunk: &[FenceAcl], results: &[Result<(), WireError>]) -> Vec<FenceAcl> {
    let each = || chunk.iter().zip(results);
    let refused = each().filter(|(_, result)| result.is_err());
    let refused: HashSet<&str> = refused.map(|(acl, _)| acl.topic.as_str()).collect();
    let done = each().filter(|(acl, result)| result.is_ok() && refused.contains(&*acl.topic));
    done.map(|(acl, _)| acl.clone()).collect()
}

/// Whatever becomes of it, the error that made it necessary is told.
fn put_back(cluster: &Cluster, outcome: Result<Vec<Result<(), WireError>>, WireError>) {
    if let Err(error) = outcome.and_then(|results| all_done(&results)) {
        tracing::warn!(cluster = cluster.name(), %error, "a fence that was refused in part couldn't be taken back");
    }
}

fn all_done(results: &[Result<(), WireError>]) -> Result<(), WireError> {
    let refused = results.iter().find_map(|result| result.as_ref().err());
    refused.map_or(Ok(()), |error| Err(error.clone()))
}

fn bindings(acls: &[FenceAcl]) -> Vec<AclBinding> {
    acls.iter().map(FenceAcl::binding).collect()
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
    fn a_fence_that_was_begun_is_finished_and_gives_all_rights_back() {
        let topics = ["t".to_owned()];
        let whole = lacking(&[], &topics, true, &[]);
        assert_eq!(whole.len(), OTHERS.len() + 1);
        assert!(whole.last().is_some_and(|last| last.deny));
        // Dead behind the first of them: that one alone takes all other rights away.
        let listed = [whole[0].binding()];
        assert_eq!(lacking(&listed, &topics, true, &whole), whole[1..]);
        // Somebody else's ACL says what is allowed there.
        let listed = [binding("t", "User:x", OP_READ, true)];
        let deny = acl("t", OP_WRITE, true);
        assert_eq!(
            lacking(&listed, &topics, true, &whole),
            std::slice::from_ref(&deny)
        );
        assert_eq!(lacking(&[], &topics, false, &[]), [deny]);
    }

    #[test]
    fn a_request_never_has_a_part_of_a_topic() {
        let topics: Vec<String> = (0..100).map(|n| format!("t{n}")).collect();
        let giving: Vec<FenceAcl> = OTHERS
            .iter()
            .flat_map(|operation| topics.iter().map(|topic| acl(topic, *operation, false)))
            .collect();
        let requests = whole_topics(&giving);
        assert_eq!(requests.iter().map(Vec::len).sum::<usize>(), giving.len());
        for request in requests {
            assert!(request.len() <= AT_ONCE);
            let topics: HashSet<&str> = request.iter().map(|acl| acl.topic.as_str()).collect();
            assert_eq!(request.len(), topics.len() * OTHERS.len());
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
        let denied = one_by_one(&foreign, &topics, "User:twinlog", &[]);
        assert_eq!(denied, Err(NotAlone::Denied("t".to_owned())));
    }
}
