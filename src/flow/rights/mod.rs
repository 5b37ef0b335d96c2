//! Whether Twinlog may do what its flows need, and what happens where it may not.

mod table;

use std::collections::{BTreeSet, HashMap};

use self::table::{Need, On, RIGHTS, Right, Side};
use super::metadata::own_principal;
use super::topics;
use crate::config::{Config, FlowConfig, OffsetsMode};
use crate::groups::{self, Way};
use crate::shell::Command;
use crate::state::{STATE_TOPIC, StateError, StateStore, keys};
use crate::telemetry::finding::Finding;
use crate::wire::{self, Cluster, ListedGroups, Metadata, Operation, Rights, WireError};

/// Names that are listed one by one.
const LISTED_MAX: usize = 5;
/// Names in one command.
const PASTED_MAX: usize = 100;
/// Groups whose rights are asked for: each of them is a question to its coordinator.
const GROUPS_MAX: usize = 1_000;

/// Looks at all rights that a flow needs. Changes nothing.
pub(super) async fn check(
    config: &Config,
    flow: &FlowConfig,
    source: (&Cluster, &Metadata),
    target: (&Cluster, &Metadata),
) -> Vec<Finding> {
    let sections = [&flow.source, &flow.target].map(|name| config.clusters.get(name));
    let [Some(from), Some(to)] = sections else {
        return Vec::new();
    };
    if source.1.shared_with(target.1).is_some() {
        return Vec::new();
    }
    let selected = topics::selected(flow, source.1).into_iter();
    let mut names: BTreeSet<String> = selected.map(|(name, _)| name.clone()).collect();
    let (unseen, why_unknown) = unseen(flow, source.1, target.0).await;
    names.extend(unseen);
    let names = Vec::from_iter(names);
    let copies = names
        .iter()
        .map(|name| flow.rename.apply(&flow.source, name));
    let (groups, why_incomplete) = selected_groups(flow, source.0).await;
    let topic_namespaces = flow.topics.own_namespaces();
    let group_namespaces = flow.groups.own_namespaces();
    let renamed = flow.rename.as_prefix(&flow.source).map(|prefix| {
        let names = topic_namespaces.iter();
        names.map(|name| format!("{prefix}{name}")).collect()
    });
    let sides = [
        Looked {
            side: Side::Source,
            cluster: source.0,
            principal: from.principal(),
            topics: names.clone(),
            groups: groups.clone(),
            topic_namespaces: topic_namespaces.clone(),
            group_namespaces: group_namespaces.clone(),
            has_state: true,
            existing: source.1,
        },
        Looked {
            side: Side::Target,
            cluster: target.0,
            principal: own_principal(flow, to),
            topics: copies.collect(),
            groups,
            topic_namespaces: renamed.unwrap_or_default(),
            group_namespaces,
            has_state: target.1.has_topic(STATE_TOPIC),
            existing: target.1,
        },
    ];
    let mut findings = Vec::new();
    let subject = format!("flow {}", flow.name);
    if names.is_empty() {
        findings.push(no_topics(&subject, &sides[0]));
    }
    let unasked = why_unknown.into_iter().chain(why_incomplete);
    findings.extend(unasked.map(|why| Finding::warning(&subject, why)));
    findings.push(check_markers(flow, &subject, &sides[1]).await);
    if !flow.groups.include().is_empty() {
        findings.extend(check_hidden(flow, &subject, &sides[0]).await);
    }
    findings.extend(check_open(flow, &subject, &sides[1]).await);
    for side in &sides {
        if !flow.groups.include().is_empty() {
            findings.push(check_way(&subject, side).await);
        }
    }
    for side in &sides {
        match side.look(flow).await {
            Ok(missing) if missing.is_empty() => {
                let message = if side.topics.is_empty() {
                    format!("no right is missing on the {}, but for topics", side.name())
                } else {
                    format!("all rights are there on the {}", side.name())
                };
                findings.push(Finding::ok(&subject, message));
            }
            Ok(missing) => findings.extend(missing.iter().map(|m| m.finding(&subject, side))),
            Err(error) => {
                let message = format!("rights can't be asked for: {error}");
                findings.push(Finding::error(&subject, message));
            }
        }
    }
    findings
}

/// Brokers hide topics that may not be seen, so this may be all that a missing right shows.
fn no_topics(subject: &str, source: &Looked<'_>) -> Finding {
    let message = format!(
        "no topic is selected that may be seen on the {}: there is none, topics.include has none, \
         or READ on the topics is missing",
        source.name()
    );
    let resources = match &*source.topic_namespaces {
        [] => &Resources::Names("topic", &["<topic>".to_owned()]),
        namespaces => &Resources::Namespaces("topic", namespaces.iter().collect()),
    };
    Finding::warning(subject, message).with_hint(source.grant(Operation::Read, resources))
}

/// Topics that the flow must know of and the source doesn't show: those that were copied, and those
/// that `topics.include` has by their names. What isn't there at all isn't missed: its rights are. With why there may be
/// more.
async fn unseen(
    flow: &FlowConfig,
    source: &Metadata,
    target: &Cluster,
) -> (Vec<String>, Option<String>) {
    let (store, why_unknown) = match StateStore::open_existing(target).await {
        Ok(store) => (store, None),
        // Which right that is is asked for by itself.
        Err(StateError::Wire(error)) if is_unauthorized(&error) => (None, None),
        Err(error) => (None, Some(error)),
    };
    let why_unknown = why_unknown.map(|error| {
        format!(
            "{STATE_TOPIC} on the {} can't be read, so rights on topics that were copied and can't be seen any \
             more aren't asked for: {error}",
            target.name()
        )
    });
    let prefix = keys::topic(&flow.name, "");
    let copied = store.map(|store| store.keys(&prefix)).unwrap_or_default();
    let copied = copied.iter().map(|key| key[prefix.len()..].to_owned());
    let is_name = |text: &&String| {
        let letters = text.bytes();
        // A dot in a pattern is nearly always meant as one.
        letters
            .into_iter()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    let named = flow.topics.include().iter().filter(is_name).cloned();
    let is_unseen = |name: &String| flow.topics.matches(name) && !source.has_topic(name);
    let unseen = copied.chain(named).filter(is_unseen).collect();
    (unseen, why_unknown)
}

fn is_unauthorized(error: &WireError) -> bool {
    error.server_code() == Some(wire::ResponseError::TopicAuthorizationFailed)
}

/// The groups of the flow on the source, as far as they may be seen, and why there may be more.
async fn selected_groups(flow: &FlowConfig, source: &Cluster) -> (Vec<String>, Option<String>) {
    if flow.groups.include().is_empty() {
        return (Vec::new(), None);
    }
    let (listed, why) = match wire::list_groups(source).await {
        Ok(listed) => {
            let why = listed.why_unanswered();
            (listed, why)
        }
        Err(error) => (ListedGroups::default(), Some(error.to_string())),
    };
    let why = why.map(|why| {
        let name = source.name();
        format!("not all groups on the {name} can be listed, so not all rights on groups are asked for: {why}")
    });
    let names = listed.groups.into_iter().map(|group| group.group_id);
    let mut names: Vec<_> = names.filter(|name| flow.groups.matches(name)).collect();
    names.sort_unstable();
    names.truncate(GROUPS_MAX);
    (names, why)
}

/// One side of a flow.
struct Looked<'a> {
    side: Side,
    cluster: &'a Cluster,
    principal: Option<String>,
    topics: Vec<String>,
    groups: Vec<String>,
    /// What all its topics begin with, if the config says just that.
    topic_namespaces: Vec<String>,
    group_namespaces: Vec<String>,
    has_state: bool,
    existing: &'a Metadata,
}

/// A right that isn't there.
struct Missing {
    right: &'static Right,
    /// On what; empty for the cluster.
    names: Vec<String>,
    /// Of how many.
    of: usize,
    /// The broker doesn't tell whether it is there.
    is_unknown: bool,
}

impl Looked<'_> {
    fn name(&self) -> String {
        format!("{} ({})", self.side.word(), self.cluster.name())
    }

    async fn look(&self, flow: &FlowConfig) -> Result<Vec<Missing>, WireError> {
        let on_cluster = wire::cluster_rights(self.cluster).await?;
        let mut asked = self.topics.clone();
        if self.side == Side::Target {
            asked.push(STATE_TOPIC.to_owned());
        }
        let on_topics = wire::topic_rights(self.cluster, &asked).await?;
        let on_groups = wire::group_rights(self.cluster, &self.groups).await;
        let on_groups: HashMap<String, Rights> = on_groups
            .into_iter()
            // A coordinator that can't be asked now says nothing about rights.
            .filter_map(|(group, rights)| Some((group, rights.ok()?)))
            .collect();
        // Reading quotas can be tried where the broker doesn't tell.
        let reads_quotas = match on_cluster {
            Some(_) => None,
            None => match wire::describe_client_quotas(self.cluster).await {
                Ok(_) => Some(true),
                Err(error) => is_refused(&error).then_some(false),
            },
        };
        let may_create = on_cluster.map(|rights| rights.allow(Operation::Create));
        let mut missing = Vec::new();
        for right in RIGHTS {
            if right.side != self.side || !(right.used)(flow) {
                continue;
            }
            let found = match right.on {
                On::Cluster => {
                    let allowed = match (on_cluster, right.operation) {
                        (Some(rights), operation) => Some(rights.allow(operation)),
                        (None, Operation::Describe) => Some(false),
                        (None, Operation::DescribeConfigs) => reads_quotas,
                        (None, _) => None,
                    };
                    (allowed != Some(true)).then(|| Missing {
                        right,
                        names: Vec::new(),
                        of: 1,
                        is_unknown: allowed.is_none(),
                    })
                }
                On::NewTopics | On::NewState if may_create == Some(true) => None,
                On::NewState if self.has_state => None,
                On::State | On::NewState => lacking(right, &[STATE_TOPIC.to_owned()], &on_topics),
                On::NewTopics => {
                    let is_new = |topic: &&String| !self.existing.has_topic(topic);
                    let new: Vec<_> = self.topics.iter().filter(is_new).cloned().collect();
                    lacking(right, &new, &on_topics)
                }
                On::Topics => lacking(right, &self.topics, &on_topics),
                On::Groups => lacking(right, &self.groups, &on_groups),
            };
            missing.extend(found);
        }
        Ok(missing)
    }

    /// The command that grants it.
    fn grant(&self, operation: Operation, resources: &Resources<'_>) -> String {
        let principal = self.principal.as_deref();
        grant(self.cluster, principal, operation, resources)
    }
}

/// The command that grants a right.
fn grant(
    cluster: &Cluster,
    principal: Option<&str>,
    operation: Operation,
    resources: &Resources<'_>,
) -> String {
    let principal = principal.unwrap_or("User:<Twinlog's principal>");
    let command = Command::kafka("kafka-acls.sh", &cluster.config().bootstrap)
        .flag("--add")
        .option("--allow-principal", principal)
        .option("--operation", operation.option());
    resources.add_to(command).to_string()
}

/// What a right is on, as narrow as the need. Never `*`: that would be a right on everything there is.
enum Resources<'a> {
    Cluster,
    Names(&'static str, &'a [String]),
    /// Whatever begins so.
    Namespaces(&'static str, Vec<&'a String>),
}

impl<'a> Resources<'a> {
    /// On these; by their beginnings where there are many, and the config takes all that begin so.
    fn of(what: &'static str, names: &'a [String], namespaces: &'a [String]) -> Self {
        let begins = |name: &String, beginning: &String| name.starts_with(beginning.as_str());
        let is_needed = |beginning: &&String| names.iter().any(|name| begins(name, beginning));
        let needed: Vec<&String> = namespaces.iter().filter(is_needed).collect();
        let is_inside = |name: &String| needed.iter().any(|beginning| begins(name, beginning));
        if names.len() > LISTED_MAX && names.iter().all(is_inside) {
            return Self::Namespaces(what, needed);
        }
        Self::Names(what, names)
    }

    fn add_to(&self, command: Command) -> Command {
        let add = |command: Command, what: &str, names: &[&String]| {
            let option = format!("--{what}");
            let names = names.iter();
            names.fold(command, |command, name| command.option(&option, name))
        };
        match self {
            Self::Cluster => command.flag("--cluster"),
            Self::Names(what, names) => {
                let named = names.iter().filter(|name| *name != "*");
                let named: Vec<&String> = named.take(PASTED_MAX).collect();
                let left = names.len() - named.len();
                let command = add(command, what, &named);
                if left == 0 {
                    return command;
                }
                command.note(&format!("and {left} more {what}s"))
            }
            Self::Namespaces(what, namespaces) => {
                let command = add(command, what, namespaces);
                command.option("--resource-pattern-type", "prefixed")
            }
        }
    }
}

fn lacking(
    right: &'static Right,
    wanted: &[String],
    rights: &HashMap<String, Rights>,
) -> Option<Missing> {
    let is_missing = |name: &&String| {
        let found = rights.get(*name);
        found.is_some_and(|rights| !rights.allow(right.operation))
    };
    let names: Vec<_> = wanted.iter().filter(is_missing).cloned().collect();
    (!names.is_empty()).then_some(Missing {
        right,
        names,
        of: wanted.len(),
        is_unknown: false,
    })
}

impl Missing {
    fn finding(&self, subject: &str, side: &Looked<'_>) -> Finding {
        let operation = self.right.operation.word();
        let cluster = side.name();
        let without = self.right.without;
        if self.is_unknown {
            let message = format!(
                "whether {operation} on the {cluster} cluster is there can't be seen without \
                 DESCRIBE on it; without it {without}"
            );
            return Finding::warning(subject, message)
                .with_hint(side.grant(Operation::Describe, &Resources::Cluster));
        }
        let (on, resources) = match self.right.on {
            On::Cluster => ("the cluster".to_owned(), Resources::Cluster),
            On::Groups => {
                let resources = Resources::of("group", &self.names, &side.group_namespaces);
                (self.listed("group"), resources)
            }
            On::Topics | On::NewTopics | On::State | On::NewState => {
                let resources = Resources::of("topic", &self.names, &side.topic_namespaces);
                (self.listed("topic"), resources)
            }
        };
        let message = format!("no {operation} on {on} on the {cluster}: {without}");
        let finding = match self.right.need {
            Need::Required => Finding::error(subject, message),
            Need::Optional => Finding::warning(subject, message),
        };
        finding.with_hint(side.grant(self.right.operation, &resources))
    }

    fn listed(&self, what: &str) -> String {
        match &self.names[..] {
            [one] => format!("{what} {one}"),
            names if names.len() <= LISTED_MAX => format!("{what}s {}", names.join(", ")),
            names => format!(
                "{} of {} {what}s ({}, ...)",
                names.len(),
                self.of,
                names[..LISTED_MAX].join(", ")
            ),
        }
    }
}

fn is_refused(error: &WireError) -> bool {
    error.server_code() == Some(wire::ResponseError::ClusterAuthorizationFailed)
}

/// Whether holes can be filled. Tried, since brokers tell rights on the cluster only to whom may
/// describe it.
async fn check_markers(flow: &FlowConfig, subject: &str, target: &Looked<'_>) -> Finding {
    match wire::probe_marker_right(target.cluster).await {
        Ok(true) => Finding::ok(subject, "holes can be filled: offsets can be identical"),
        Ok(false) => {
            let message = "no CLUSTER_ACTION on the cluster on the target: holes can't be filled, \
                           so offsets will be mapped, not identical";
            let finding = if flow.offsets == OffsetsMode::Identical {
                Finding::error(subject, message)
            } else {
                Finding::warning(subject, message)
            };
            finding.with_hint(target.grant(Operation::ClusterAction, &Resources::Cluster))
        }
        Err(error) => Finding::error(subject, error.to_string()),
    }
}

/// Whether groups are left out of the source's lists, where a failover would look for them.
async fn check_hidden(flow: &FlowConfig, subject: &str, source: &Looked<'_>) -> Option<Finding> {
    let hidden = groups::hidden(source.cluster, &flow.groups).await;
    let why = hidden.unwrap_or_else(|error| Some(error.to_string()))?;
    let message = format!(
        "there may be groups on the {} that can't be seen: {why}; a planned failover can't ask for \
         their last commits",
        source.name()
    );
    let finding = Finding::warning(subject, message);
    Some(finding.with_hint(source.grant(Operation::Describe, &Resources::Cluster)))
}

/// What the first ACL does where what has no ACL is everybody's.
async fn check_open(flow: &FlowConfig, subject: &str, target: &Looked<'_>) -> Option<Finding> {
    if !flow.metadata.acls.enabled {
        return None;
    }
    match wire::is_open_by_default(target.cluster).await {
        Ok(true) => {}
        Ok(false) => return None,
        Err(error) => {
            let message = format!(
                "{} doesn't tell whether it sets allow.everyone.if.no.acl.found, and the first ACL that \
                 follows could shut Twinlog out there: {error}",
                target.name()
            );
            let finding = Finding::warning(subject, message);
            return Some(
                finding.with_hint(target.grant(Operation::DescribeConfigs, &Resources::Cluster)),
            );
        }
    }
    let message = format!(
        "{} sets allow.everyone.if.no.acl.found. If it is true, the first ACL of a topic or group that follows shuts out \
         everybody else from it, as on the source; Twinlog makes an ACL for itself first",
        target.name()
    );
    if target.principal.is_some() {
        return Some(Finding::ok(subject, message));
    }
    let hint =
        "say whom its brokers take Twinlog for, in acls.principal: until then no ACL follows there";
    Some(Finding::warning(subject, message).with_hint(hint.to_owned()))
}

/// How the groups of one side would be watched.
async fn check_way(subject: &str, side: &Looked<'_>) -> Finding {
    let name = side.side.word();
    match groups::way(side.cluster).await {
        Ok(Way::Tail) => Finding::ok(
            subject,
            format!("groups on the {name} are followed as they commit"),
        ),
        Ok(Way::Poll) => Finding::warning(
            subject,
            format!(
                "no READ and DESCRIBE on topic __consumer_offsets on the {}: groups are asked for \
                 every 0.25 to 5 s, and commits take longer to be seen",
                side.name()
            ),
        )
        .with_hint({
            let offsets = ["__consumer_offsets".to_owned()];
            side.grant(Operation::Read, &Resources::Names("topic", &offsets))
        }),
        Err(error) => Finding::error(subject, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(resources: &Resources<'_>) -> String {
        let command = Command::kafka("kafka-acls.sh", &["a:1".to_owned()]);
        resources.add_to(command).to_string()
    }

    fn names(count: usize, begin: &str) -> Vec<String> {
        (0..count)
            .map(|number| format!("{begin}{number}"))
            .collect()
    }

    #[test]
    fn a_right_is_asked_for_as_narrow_as_the_need() {
        let start = "kafka-acls.sh --bootstrap-server a:1";
        let few = names(2, "shop.");
        let shop = ["shop.".to_owned()];
        let resources = Resources::of("topic", &few, &shop);
        let expected = format!("{start} --topic shop.0 --topic shop.1");
        assert_eq!(printed(&resources), expected);
        // What the config takes by its beginning.
        let many = names(8, "shop.");
        let namespaces = ["shop.".to_owned(), "pay.".to_owned()];
        let resources = Resources::of("topic", &many, &namespaces);
        let expected = format!("{start} --topic shop. --resource-pattern-type prefixed");
        assert_eq!(printed(&resources), expected);
        // Else one by one, and never everything that there is.
        let resources = Resources::of("topic", &many, &[]);
        assert_eq!(printed(&resources).matches("--topic shop.").count(), 8);
        let more = names(PASTED_MAX + 20, "t");
        let resources = Resources::of("topic", &more, &[]);
        let text = printed(&resources);
        assert_eq!(text.matches("--topic ").count(), PASTED_MAX);
        assert!(text.ends_with(" # and 20 more topics"), "{text}");
        let wildcard = ["*".to_owned(), "x'; touch y".to_owned()];
        let resources = Resources::of("group", &wildcard, &[]);
        let expected = format!(r"{start} --group 'x'\''; touch y' # and 1 more groups");
        assert_eq!(printed(&resources), expected);
    }
}
