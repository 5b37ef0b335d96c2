//! Which ACLs the target should have for the source's, and which of them wait. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::binding::{pattern, resource};
use super::named::Named;
use super::{guard, held};
use crate::config::{Rename, Selector, is_internal_namespace, is_internal_topic, may_be_internal};
use crate::wire::AclBinding;

/// What a flow copies and what it is called on the target.
#[derive(Clone, Debug)]
pub(super) struct Scope<'a> {
    /// The flow's topics.
    pub selected: &'a Selector,
    /// The source cluster's name in the config.
    pub source_name: &'a str,
    /// What topics are called on the target.
    pub rename: &'a Rename,
    /// The source topics that are copied, or are about to be. Patterns are expanded over them where
    /// they can't stay patterns.
    pub topics: &'a BTreeSet<String>,
    /// The flow's groups.
    pub groups: &'a Selector,
    /// Those whose positions are kept on the target. Patterns are expanded over them, as over topics.
    pub followed: &'a BTreeSet<String>,
    /// Groups that have ACLs of ours.
    pub known: &'a BTreeSet<String>,
    /// Whom the target's own people let change Twinlog's topics there, and how: other Twinlogs.
    pub trusted: &'a BTreeSet<(String, i8)>,
    /// The target has topics that the flow leaves out: they are somebody else's, who has groups there.
    pub is_shared: bool,
    /// On the target everybody may do everything with what has no ACL.
    pub is_open: bool,
    /// Whom the target takes Twinlog for.
    pub own_principal: Option<&'a str>,
}

/// What becomes of an ACL that the target should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is applied.
    Apply,
    /// It waits for the failover.
    Hold(String),
}

/// An ACL that the target should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The source's ACL that it comes from; the first one, if several say the same.
    pub source: AclBinding,
    /// What becomes of it.
    pub fate: Fate,
}

/// The source's ACLs as the target should have them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Translated {
    /// By the ACL on the target.
    pub wanted: BTreeMap<AclBinding, Wanted>,
    /// What isn't copied although an operator might expect it, and why.
    pub left: BTreeMap<AclBinding, &'static str>,
    /// How many followed groups patterns aren't given for, because they are too many.
    pub groups_left: usize,
}

const EACH_HAS_ITS_OWN: &str = "about topics that each cluster has of its own: not copied";
const CLUSTERS_OWN: &str = "about the cluster itself: not copied";
const UNKNOWN: &str = "this Twinlog doesn't know what it means: not copied";
const NO_PATTERN: &str = "with this rename a pattern can't follow (something is behind `{topic}`, or what is before it \
     begins internal names too): it is applied to each copied topic";

/// Translates the source's ACLs.
pub(super) fn translate(source: &[AclBinding], scope: &Scope<'_>) -> Translated {
    let mut translated = Translated::default();
    let topics = Topics::new(source, scope);
    let groups = Named::groups(source, scope);
    let transactional_ids = Named::transactional_ids(source, scope);
    let mut is_narrowed = false;
    for acl in source {
        if !acl.is_known() {
            translated.left.insert(acl.clone(), UNKNOWN);
            continue;
        }
        if scope.is_own_grant(acl) {
            continue;
        }
        match acl.resource_type {
            resource::TOPIC => {
                let targets = topics.targets(acl);
                translated.take(targets, acl);
            }
            resource::GROUP => {
                is_narrowed |= groups.is_expanded(acl);
                translated.take(groups.targets(acl), acl);
            }
            resource::TRANSACTIONAL_ID => translated.take(transactional_ids.targets(acl), acl),
            _ => {
                translated.left.insert(acl.clone(), CLUSTERS_OWN);
            }
        }
    }
    if is_narrowed {
        translated.groups_left = groups.left;
    }
    held::decide(&mut translated.wanted, scope.own_principal);
    guard::state_topics(&mut translated, scope, &topics.target_names());
    guard::open_target(&mut translated, scope);
    translated
}

impl Scope<'_> {
    /// What Twinlog may do on the target is decided there.
    pub(super) fn is_own_grant(&self, acl: &AclBinding) -> bool {
        acl.is_allow() && Some(&*acl.principal) == self.own_principal
    }

    pub(super) fn is_twin(&self) -> bool {
        !self.is_shared && may_be_twin(self.selected, self.rename)
    }
}

/// Whether the standby may be the source's twin: then nothing there can be anybody else's, but for what is called as a topic
/// that the flow leaves out (see [`has_others`]). Else it is shared, with other flows or with people of its own.
pub(super) fn may_be_twin(selected: &Selector, rename: &Rename) -> bool {
    selected.include().iter().any(|it| it == ".*") && rename.is_identity()
}

/// Whether one of the target's topics is called as none that the flow copies: it is another flow's, or its own people's. What
/// the flow selects and hasn't made there says nothing.
pub(super) fn has_others<'t>(
    selected: &Selector,
    mut topics: impl Iterator<Item = &'t String>,
) -> bool {
    // MirrorMaker 2, and who writes for its tools, have one on each cluster.
    let is_probe = |topic: &str| topic == "heartbeats" || topic.ends_with(".heartbeats");
    topics.any(|topic| !is_internal_topic(topic) && !is_probe(topic) && !selected.matches(topic))
}

/// What becomes of one of the source's ACLs.
pub(super) struct Targets {
    pub acls: Vec<AclBinding>,
    /// What an operator should know of it.
    pub left: Option<&'static str>,
}

impl Targets {
    pub(super) fn exactly(acls: impl IntoIterator<Item = AclBinding>) -> Self {
        Self {
            acls: acls.into_iter().collect(),
            left: None,
        }
    }

    fn nothing(why: &'static str) -> Self {
        Self {
            acls: Vec::new(),
            left: Some(why),
        }
    }
}

impl Translated {
    fn take(&mut self, targets: Targets, source: &AclBinding) {
        if let Some(why) = targets.left {
            self.left.insert(source.clone(), why);
        }
        for target in targets.acls {
            self.want(target, source);
        }
    }

    fn want(&mut self, target: AclBinding, source: &AclBinding) {
        // What of it waits is decided when all are known.
        for part in held::harmless_parts(&target) {
            self.want_one(part, source);
        }
        self.want_one(target, source);
    }

    fn want_one(&mut self, target: AclBinding, source: &AclBinding) {
        self.wanted.entry(target).or_insert_with(|| Wanted {
            source: source.clone(),
            fate: Fate::Apply,
        });
    }
}

/// How topics' ACLs are translated.
struct Topics<'a> {
    scope: &'a Scope<'a>,
    /// What target names begin with, where that is all that the rename does.
    prefix: Option<String>,
    takes_all: bool,
    /// What patterns are expanded over: copied topics, and those that will be copied as soon as
    /// they exist and that somebody has rights to already.
    names: BTreeSet<&'a str>,
}

impl<'a> Topics<'a> {
    fn new(source: &'a [AclBinding], scope: &'a Scope<'a>) -> Self {
        let is_taken = |name: &&str| is_taken(scope, name);
        let literals = source
            .iter()
            .filter(|acl| acl.is_topic() && acl.is_literal())
            .map(|acl| &*acl.name)
            .filter(is_taken);
        let names = scope.topics.iter().map(String::as_str).chain(literals);
        Self {
            scope,
            // Where names begin as internal ones do, some patterns would reach those. All are expanded then: a
            // grant that stays a pattern is about topics to come, and a denial that doesn't isn't.
            prefix: scope
                .rename
                .as_prefix(scope.source_name)
                .filter(|prefix| prefix.is_empty() || !may_be_internal(prefix)),
            takes_all: scope.selected.takes_all(),
            names: names.collect(),
        }
    }

    fn targets(&self, acl: &AclBinding) -> Targets {
        let is_same = self.takes_all && self.scope.rename.is_identity();
        if acl.is_literal() {
            if is_taken(self.scope, &acl.name) {
                return Targets::exactly([self.one(acl, &acl.name)]);
            }
            return match is_internal_topic(&acl.name) {
                // A grant by a pattern is about the target's own topic of that name, too.
                true if acl.is_deny() && is_same => Targets::exactly([acl.clone()]),
                true if acl.is_allow() => Targets::nothing(EACH_HAS_ITS_OWN),
                _ => Targets::exactly([]),
            };
        }
        if acl.is_allow() && !acl.is_wildcard() && is_internal_namespace(&acl.name) {
            return Targets::nothing(EACH_HAS_ITS_OWN);
        }
        if let Some(patterns) = self.patterns(acl) {
            return Targets::exactly(patterns);
        }
        let covered = self.names.iter().filter(|name| acl.covers(name));
        Targets {
            acls: covered.map(|name| self.one(acl, name)).collect(),
            left: (acl.is_deny() && self.prefix.is_none()).then_some(NO_PATTERN),
        }
    }

    /// What says the same as a pattern, and is about nothing but the flow's topics, whatever topics
    /// come. `None` if nothing does: then it is expanded over the topics that there are.
    ///
    /// A pattern that reaches further is wrong either way: a grant would give more on the target
    /// than on the source, namely on the target's own topics, and a denial would take from the
    /// target's own people what the source has no say in.
    fn patterns(&self, acl: &AclBinding) -> Option<Vec<AclBinding>> {
        let prefix = self.prefix.as_ref()?;
        // What is called so on the target is the source's, whichever flow copies it.
        let is_named_after_it = acl.is_deny() && !prefix.is_empty();
        let patterns = if self.takes_all || is_named_after_it {
            vec![renamed_pattern(acl, prefix)]
        } else if acl.is_deny() {
            let namespaces = self.scope.selected.namespaces()?;
            namespaces.iter().filter_map(|it| acl.within(it)).collect()
        } else {
            return None;
        };
        let is_same = self.takes_all && prefix.is_empty();
        let reaches_others = |it: &AclBinding| may_be_internal(&it.name);
        (is_same || !patterns.iter().any(reaches_others)).then_some(patterns)
    }

    /// The copies' names on the target, also of topics that will be copied.
    fn target_names(&self) -> BTreeSet<String> {
        let apply = |name: &&str| self.scope.rename.apply(self.scope.source_name, name);
        self.names.iter().map(apply).collect()
    }

    fn one(&self, acl: &AclBinding, name: &str) -> AclBinding {
        acl.about(&self.scope.rename.apply(self.scope.source_name, name))
    }
}

fn is_taken(scope: &Scope<'_>, name: &str) -> bool {
    !is_internal_topic(name) && scope.selected.matches(name)
}

fn renamed_pattern(acl: &AclBinding, prefix: &str) -> AclBinding {
    if prefix.is_empty() {
        return acl.clone();
    }
    let name = if acl.is_wildcard() {
        prefix.to_owned()
    } else {
        format!("{prefix}{}", acl.name)
    };
    AclBinding {
        pattern_type: pattern::PREFIXED,
        name,
        ..acl.clone()
    }
}
