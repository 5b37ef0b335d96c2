//! What differs between the clusters besides records and groups: configs, ACLs, quotas, users.
//!
//! One shape for everything, so that `plan`, `status`, the API and the metrics tell the same story.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The version of [`MetadataReport`]'s shape.
pub const METADATA_VERSION: u32 = 1;

/// What kind of thing differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriftKind {
    /// A topic is missing, has too few partitions, or is gone on the source.
    Topic,
    /// A topic's config.
    TopicConfig,
    /// An ACL.
    Acl,
    /// A quota of a user or a client id.
    Quota,
    /// A user that can log in (SCRAM).
    User,
}

impl DriftKind {
    /// All kinds, in the order in which they are shown.
    pub const ALL: [Self; 5] = [
        Self::Topic,
        Self::TopicConfig,
        Self::Acl,
        Self::Quota,
        Self::User,
    ];

    /// The word for labels and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::TopicConfig => "topic_config",
            Self::Acl => "acl",
            Self::Quota => "quota",
            Self::User => "user",
        }
    }

    /// What a person calls one of them.
    pub fn singular(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::TopicConfig => "topic config",
            Self::Acl => "ACL",
            Self::Quota => "quota",
            Self::User => "user",
        }
    }

    /// What a person calls several of them.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Topic => "topics",
            Self::TopicConfig => "topic configs",
            Self::Acl => "ACLs",
            Self::Quota => "quotas",
            Self::User => "users",
        }
    }
}

/// What is done about a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriftAction {
    /// Made on the target.
    Add,
    /// Set to another value on the target.
    Change,
    /// Removed on the target.
    Remove,
    /// Kept ready on the target and applied by the failover.
    Hold,
    /// Nothing, by rule; an operator should know.
    Leave,
    /// Twinlog can't: an operator must.
    Operator,
}

impl DriftAction {
    /// Whether Twinlog does it by itself.
    pub fn is_applied(self) -> bool {
        matches!(self, Self::Add | Self::Change | Self::Remove)
    }

    /// The word for labels and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Change => "change",
            Self::Remove => "remove",
            Self::Hold => "hold",
            Self::Leave => "leave",
            Self::Operator => "operator",
        }
    }
}

/// One thing on the target that isn't as the source has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// What kind of thing.
    pub kind: DriftKind,
    /// What is done about it.
    pub action: DriftAction,
    /// What it is a property of, by its name on the target: `topic orders`, `group billing`,
    /// `user alice`.
    pub subject: String,
    /// Which property, in one line: a config key, an ACL (`ALLOW WRITE User:bob from *`), a quota
    /// key; empty when the subject itself is meant.
    pub detail: String,
    /// What the source has, if it has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// What the target has, if it has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Why the action is what it is, in one line, where that isn't obvious; for `operator`, what
    /// to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Why applying it failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<DriftFailure>,
}

impl Drift {
    /// Whether somebody should act, or Twinlog would: what is only held or left alone isn't.
    pub fn needs_attention(&self) -> bool {
        self.action.is_applied() || self.action == DriftAction::Operator || self.failure.is_some()
    }

    /// In a few words, where only an operator can mend it.
    pub fn for_the_operator(&self) -> Option<String> {
        (self.action == DriftAction::Operator).then(|| self.what())
    }

    /// In a few words, where `run` should have changed it on the target and hasn't.
    pub fn not_followed(&self) -> Option<String> {
        let is_late = match self.kind {
            DriftKind::TopicConfig | DriftKind::Acl | DriftKind::Quota => self.action.is_applied(),
            // A topic without a copy is told otherwise, and what is gone waits for its time.
            DriftKind::Topic | DriftKind::User => false,
        };
        let why = match &self.failure {
            _ if self.action == DriftAction::Operator => return None,
            Some(failure) => format!("the target refuses it: {}", failure.reason),
            None if is_late => "`run` hasn't changed it".to_owned(),
            None => return None,
        };
        let means = match self.kind {
            DriftKind::TopicConfig => {
                format!(", so {}", consequence(&self.detail, self.source.as_deref()))
            }
            DriftKind::Topic | DriftKind::Acl | DriftKind::Quota | DriftKind::User => String::new(),
        };
        Some(format!("{} ({why}{means})", self.what()))
    }

    fn what(&self) -> String {
        match self.detail.as_str() {
            "" => self.subject.clone(),
            detail => format!("{}: {detail}", self.subject),
        }
    }
}

/// What it means that a copy doesn't get the value of this key that it shall have.
pub fn consequence(key: &str, wanted: Option<&str>) -> &'static str {
    match key {
        "cleanup.policy" if wanted.is_some_and(|it| it.trim() == "compact") => {
            "the copy isn't compacted: it keeps every record (retention.ms and retention.bytes are -1 there), and grows"
        }
        "cleanup.policy"
        | "delete.retention.ms"
        | "min.compaction.lag.ms"
        | "max.compaction.lag.ms" => {
            "the target cleans the copy's log by its own rule: it may lose or keep other records than the source"
        }
        "retention.ms" | "retention.bytes" => {
            "the target keeps the copy's records for another time than the source"
        }
        "max.message.bytes" => {
            "batches that are larger than the target takes wait, and with them their partitions"
        }
        "min.insync.replicas" => {
            "behind a failover writes are acknowledged by another number of replicas than on the source"
        }
        _ => "the copy stays as it is there",
    }
}

/// Why a change couldn't be applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriftFailure {
    /// A short, stable word for metrics, such as `not_authorized` or `invalid_config`.
    pub reason: String,
    /// The broker's words.
    pub message: String,
    /// What to do about it; for a missing right, the ACL to add.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Since when, milliseconds since the epoch.
    pub since_ms: i64,
}

impl DriftFailure {
    /// In one line, with what to do.
    pub fn in_words(&self) -> String {
        let hint = self.hint.as_deref();
        let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
        format!("failed ({}): {}{hint}", self.reason, self.message)
    }
}

/// Something that keeps a whole kind of thing from being compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Obstacle {
    /// What can't be compared.
    pub kind: DriftKind,
    /// `source` or `target`.
    pub cluster: String,
    /// A short, stable word for metrics.
    pub reason: String,
    /// One line for a person.
    pub message: String,
    /// What to do about it; for a missing right, the ACL to add.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Whether the flow counts as impaired by it. `false` where there is nothing to follow, such as
    /// a cluster without an authorizer.
    pub is_problem: bool,
    /// Since when something of the kind has been a problem on this cluster, milliseconds since the epoch; 0 where it
    /// isn't one, or nobody looked before.
    #[serde(default)]
    pub since_ms: i64,
}

/// What a comparison of one flow's clusters found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataReport {
    /// The flow.
    pub flow: String,
    /// When it was made, milliseconds since the epoch.
    pub compared_at_ms: i64,
    /// How long comparing and applying took, milliseconds.
    pub took_ms: u64,
    /// Everything that differs now, after what could be applied was.
    pub drift: Vec<Drift>,
    /// What couldn't be compared.
    pub obstacles: Vec<Obstacle>,
    /// Changes applied since the process started, by kind.
    pub applied: BTreeMap<DriftKind, u64>,
    /// Failed applications since the process started, by kind and reason.
    pub failed: BTreeMap<DriftKind, BTreeMap<String, u64>>,
}

/// How many entries of a list are in a summary.
const LISTED_MAX: usize = 100;

/// A flow's [`MetadataReport`] in sum.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MetadataSummary {
    /// When the clusters were compared last, milliseconds since the epoch.
    pub compared_at_ms: i64,
    /// How long comparing and applying took, milliseconds.
    pub took_ms: u64,
    /// How many things differ, by kind and what is done about them.
    pub drift: BTreeMap<DriftKind, BTreeMap<DriftAction, u64>>,
    /// How many changes can't be applied, by kind and reason.
    pub failing: BTreeMap<DriftKind, BTreeMap<String, u64>>,
    /// What somebody should look at: failures and what only an operator can do, the first 100.
    pub attention: Vec<Drift>,
    /// What is kept ready for the failover, the first 100, ACLs before others.
    pub held: Vec<Drift>,
    /// What couldn't be compared.
    pub obstacles: Vec<Obstacle>,
    /// Changes applied since the process started, by kind.
    pub applied: BTreeMap<DriftKind, u64>,
    /// Failed applications since the process started, by kind and reason.
    pub failed: BTreeMap<DriftKind, BTreeMap<String, u64>>,
}

impl MetadataSummary {
    /// The sums of a report.
    pub fn new(report: &MetadataReport) -> Self {
        let mut summary = Self {
            compared_at_ms: report.compared_at_ms,
            took_ms: report.took_ms,
            obstacles: report.obstacles.clone(),
            applied: report.applied.clone(),
            failed: report.failed.clone(),
            ..Self::default()
        };
        for drift in &report.drift {
            let by_action = summary.drift.entry(drift.kind).or_default();
            *by_action.entry(drift.action).or_default() += 1;
            if let Some(failure) = &drift.failure {
                let by_reason = summary.failing.entry(drift.kind).or_default();
                *by_reason.entry(failure.reason.clone()).or_default() += 1;
            }
            let needs_operator = drift.action == DriftAction::Operator || drift.failure.is_some();
            if needs_operator && summary.attention.len() < LISTED_MAX {
                summary.attention.push(drift.clone());
            }
        }
        // Every topic may have a config that is held; grants are what is looked for.
        let held = report.drift.iter();
        let held = held.filter(|drift| drift.action == DriftAction::Hold);
        let (grants, others): (Vec<_>, Vec<_>) =
            held.partition(|drift| drift.kind == DriftKind::Acl);
        let first = grants.into_iter().chain(others).take(LISTED_MAX);
        summary.held = first.cloned().collect();
        summary
    }

    /// How many things differ that Twinlog changes by itself.
    pub fn count_to_follow(&self) -> u64 {
        let actions = [DriftAction::Add, DriftAction::Change, DriftAction::Remove];
        actions.iter().map(|action| self.count(*action)).sum()
    }

    /// How many things have this action, over all kinds.
    pub fn count(&self, action: DriftAction) -> u64 {
        let by_action = self.drift.values();
        by_action
            .filter_map(|by_action| by_action.get(&action))
            .sum()
    }
}
