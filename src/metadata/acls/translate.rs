//! Which ACLs the target should have for the source's, and which of them wait. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::binding::{pattern, resource};
use super::held;
use crate::config::{Rename, Selector, is_internal_topic};
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
}

const CLUSTERS_OWN: &str = "about the cluster itself: not copied";
const UNKNOWN: &str = "this Twinlog doesn't know what it means: not copied";
const NO_PATTERN: &str = "the rename has something behind `{topic}`, so a pattern can't follow: \
                          it is applied to each copied topic";

/// Translates the source's ACLs.
pub(super) fn translate(source: &[AclBinding], scope: &Scope<'_>) -> Translated {
    let mut translated = Translated::default();
    let topics = Topics::new(source, scope);
    for acl in source {
        if !acl.is_known() {
            translated.left.insert(acl.clone(), UNKNOWN);
            continue;
        }
        // What Twinlog may do on the target is decided there.
        let is_own_grant = acl.is_allow() && Some(&*acl.principal) == scope.own_principal;
        if is_own_grant {
            continue;
        }
        match acl.resource_type {
            resource::TOPIC => {
                let targets = topics.targets(acl);
                if targets.is_said_otherwise {
                    translated.left.insert(acl.clone(), NO_PATTERN);
                }
                for target in targets.acls {
                    translated.want(target, acl);
                }
            }
            resource::GROUP | resource::TRANSACTIONAL_ID => translated.want(acl.clone(), acl),
            _ => {
                translated.left.insert(acl.clone(), CLUSTERS_OWN);
            }
        }
    }
    held::decide(&mut translated.wanted, scope.own_principal);
    translated
}

impl Translated {
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

struct Targets {
    acls: Vec<AclBinding>,
    /// Not quite what the source says.
    is_said_otherwise: bool,
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
            prefix: scope.rename.as_prefix(scope.source_name),
            takes_all: scope.selected.takes_all(),
            names: names.collect(),
        }
    }

    fn targets(&self, acl: &AclBinding) -> Targets {
        let exactly = |acls| Targets {
            acls,
            is_said_otherwise: false,
        };
        if acl.is_literal() {
            let is_taken = is_taken(self.scope, &acl.name);
            return exactly(
                is_taken
                    .then(|| self.one(acl, &acl.name))
                    .into_iter()
                    .collect(),
            );
        }
        match &self.prefix {
            // In a narrower flow a pattern would grant more on the target than on the source,
            // namely on the target's own topics. A pattern that denies can't.
            Some(prefix) if self.takes_all || acl.is_deny() => {
                exactly(vec![renamed_pattern(acl, prefix)])
            }
            _ => {
                let covered = self.names.iter().filter(|name| acl.covers(name));
                Targets {
                    acls: covered.map(|name| self.one(acl, name)).collect(),
                    is_said_otherwise: acl.is_deny(),
                }
            }
        }
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
