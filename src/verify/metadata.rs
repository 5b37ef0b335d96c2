//! ACLs, quotas, users, and what waits for the failover. librdkafka's Rust API has none of them, so what
//! `plan` found is taken over; what waits is held against what the target remembers of it.

use std::collections::BTreeMap;

use super::report::{Compared, Difference, DifferenceKind, lasting};
use crate::config::MetadataRules;
use crate::metadata::Held;
use crate::telemetry::finding::PlannedChange;
use crate::telemetry::metadata::{DriftAction, DriftKind};

/// What was found of one kind of thing, and what differs.
pub type Found = (Compared, Vec<Difference>);

/// What was found of all that `plan` compares besides topics and their configs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetadataFound {
    /// The ACLs.
    pub acls: Found,
    /// The quotas.
    pub quotas: Found,
    /// The users that can log in (SCRAM): names and mechanisms.
    pub users: Found,
    /// What waits for the failover: ACLs, quotas, configs.
    pub held: Found,
}

impl MetadataFound {
    /// From what `plan` found of one flow, and what the target remembers to be held for it.
    pub fn new(rules: &MetadataRules, changes: &[PlannedChange], remembered: &[Held]) -> Self {
        let mut obstacles = changes.iter().filter(|change| change.is_obstacle());
        // A cluster that doesn't answer is told of with its topics.
        if let Some(silent) = obstacles.find(|it| it.kind == Some(DriftKind::Topic)) {
            return Self::failed(&silent.detail);
        }
        let of = |kind, difference, is_followed: bool| match is_followed {
            true => compare(changes, kind, difference),
            false => skipped(kind),
        };
        Self {
            acls: of(DriftKind::Acl, DifferenceKind::Acl, rules.acls.enabled),
            quotas: of(DriftKind::Quota, DifferenceKind::Quota, rules.quotas),
            users: of(DriftKind::User, DifferenceKind::User, true),
            held: held(rules, changes, remembered),
        }
    }

    /// None of it could be compared.
    pub fn failed(why: &str) -> Self {
        let one = || {
            let compared = Compared {
                not_compared: vec![why.to_owned()],
                ..Compared::default()
            };
            (compared, Vec::new())
        };
        Self {
            acls: one(),
            quotas: one(),
            users: one(),
            held: one(),
        }
    }

    /// None of it was to be compared.
    pub fn skipped(why: &str) -> Self {
        let one = || (Compared::skipped(why), Vec::new());
        Self {
            acls: one(),
            quotas: one(),
            users: one(),
            held: one(),
        }
    }

    /// Whether anything differs.
    pub fn differs(&self) -> bool {
        self.all().iter().any(|(_, found)| !found.is_empty())
    }

    /// Of the differences, only those that an earlier look found too: what `run` was about to change
    /// isn't one.
    #[must_use]
    pub fn lasting(self, earlier: &Self) -> Self {
        Self {
            acls: lasting(&earlier.acls, self.acls),
            quotas: lasting(&earlier.quotas, self.quotas),
            users: lasting(&earlier.users, self.users),
            held: lasting(&earlier.held, self.held),
        }
    }

    fn all(&self) -> [&Found; 4] {
        [&self.acls, &self.quotas, &self.users, &self.held]
    }
}

fn skipped(kind: DriftKind) -> Found {
    let why = format!("{} don't follow in this flow", kind.plural());
    (Compared::skipped(&why), Vec::new())
}

/// One kind among what `plan` found: what it counts differs, what is held for the failover or left alone
/// by rule doesn't.
fn compare(changes: &[PlannedChange], kind: DriftKind, difference: DifferenceKind) -> Found {
    let (mut compared, mut found) = (Compared::default(), Vec::new());
    for change in changes.iter().filter(|change| change.kind == Some(kind)) {
        if change.is_obstacle() {
            not_compared(&mut compared, change);
            continue;
        }
        compared.count += 1;
        if change.counts {
            found.push(Difference::new(difference, in_words(change)));
        } else if kind == DriftKind::Acl && change.source.is_none() && change.target.is_some() {
            let why = change.why.as_deref().unwrap_or("it stays");
            let line = format!("{}: {} ({why})", change.subject, change.detail);
            compared.only_on_target.push(line);
        }
    }
    (compared, found)
}

/// Where nothing can be compared since there is nothing, that is in order; else the right is named.
fn not_compared(compared: &mut Compared, change: &PlannedChange) {
    let mut line = format!("{}: {}", change.subject, change.detail);
    if !change.counts {
        compared.skipped = Some(line);
        return;
    }
    if let Some(hint) = &change.why {
        line.push_str(&format!("; {hint}"));
    }
    compared.not_compared.push(line);
}

fn in_words(change: &PlannedChange) -> String {
    let values = match (&change.target, &change.source) {
        (Some(target), Some(source)) => format!(": {target} here, {source} on the source"),
        (None, Some(source)) if change.kind != Some(DriftKind::Acl) => {
            format!(": {source} on the source, nothing here")
        }
        _ => String::new(),
    };
    format!(
        "{} {}: {}{values}",
        change.action, change.subject, change.detail
    )
}

/// What a failover shall bring, by kind, subject and property; with its value where it has one.
type Waiting = BTreeMap<(DriftKind, String, String), Option<String>>;

/// What waits for the failover: what `plan` says should, against what is remembered to be.
fn held(rules: &MetadataRules, changes: &[PlannedChange], remembered: &[Held]) -> Found {
    let is_followed = |kind| match kind {
        DriftKind::Acl => rules.acls.enabled,
        DriftKind::Quota => rules.quotas,
        DriftKind::TopicConfig => rules.configs.enabled,
        DriftKind::Topic | DriftKind::User => false,
    };
    let is_readable = |kind| {
        let mut obstacles = changes.iter().filter(|change| change.is_obstacle());
        !obstacles.any(|change| change.kind == Some(kind))
    };
    let mut compared = Compared::default();
    let kinds = [DriftKind::Acl, DriftKind::Quota, DriftKind::TopicConfig];
    let (readable, unreadable): (Vec<_>, Vec<_>) = kinds
        .into_iter()
        .filter(|kind| is_followed(*kind))
        .partition(|kind| is_readable(*kind));
    for kind in unreadable {
        let there = remembered.iter().filter(|it| kind_of(it) == kind).count();
        if there > 0 {
            let line = format!("{there} {} wait, and can't be compared", kind.plural());
            compared.not_compared.push(line);
        }
    }
    let wanted = wanted(changes, &readable);
    let there = there(remembered, &readable);
    compared.count = wanted.len() as u64;
    let mut found = Vec::new();
    for (what, value) in &wanted {
        match there.get(what) {
            Some(there) if there == value => {}
            Some(there) => {
                let (there, value) = (shown(there), shown(value));
                let detail = format!("is held as {there}, the source has {value}");
                found.push(difference(what, &detail));
            }
            None => found.push(difference(what, "isn't held: a failover wouldn't bring it")),
        }
    }
    let more = there.keys().filter(|what| !wanted.contains_key(*what));
    found.extend(more.map(|what| difference(what, "is held, and the source doesn't have it")));
    (compared, found)
}

fn wanted(changes: &[PlannedChange], kinds: &[DriftKind]) -> Waiting {
    let hold = DriftAction::Hold.word();
    let held = changes.iter().filter(|change| change.action == hold);
    let held = held.filter_map(|change| {
        let kind = change.kind.filter(|kind| kinds.contains(kind))?;
        let what = (kind, change.subject.clone(), change.detail.clone());
        let value = change.source.clone().filter(|_| kind != DriftKind::Acl);
        Some((what, value))
    });
    held.collect()
}

fn there(remembered: &[Held], kinds: &[DriftKind]) -> Waiting {
    let all = remembered.iter().filter_map(|held| {
        let (subject, detail, value) = match held {
            // It is on the target already, and compared with its ACLs.
            Held::Acl(acl) if acl.released => return None,
            Held::Acl(acl) => (&acl.subject, &acl.acl, None),
            Held::Quota {
                subject,
                key,
                value,
                ..
            } => (subject, key, Some(value.to_string())),
            Held::TopicConfig {
                subject,
                key,
                value,
                ..
            } => (subject, key, Some(value.clone())),
        };
        let what = (kind_of(held), subject.clone(), detail.clone());
        Some((what, value))
    });
    all.filter(|((kind, ..), _)| kinds.contains(kind)).collect()
}

fn kind_of(held: &Held) -> DriftKind {
    match held {
        Held::Acl(_) => DriftKind::Acl,
        Held::Quota { .. } => DriftKind::Quota,
        Held::TopicConfig { .. } => DriftKind::TopicConfig,
    }
}

fn shown(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or("nothing")
}

fn difference((kind, subject, detail): &(DriftKind, String, String), what: &str) -> Difference {
    let kind = kind.singular();
    let detail = format!("{kind} {detail} of {subject} {what}");
    Difference::new(DifferenceKind::Held, detail)
}
