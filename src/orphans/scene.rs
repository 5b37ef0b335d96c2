//! A flow that was failed over: both clusters, its state, what is stranded.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::OrphansError;
use super::ranges::{within, without};
use super::survey::{self, Survey};
use crate::config::{ClusterSection, FlowConfig, is_internal_topic};
use crate::connect::cluster;
use crate::state::{
    CutoverRecord, CutoverState, OrphanChoice, OrphanDecision, OrphanDecisions, Primary,
    RoleRecord, StateStore, TopicSet, keys,
};
use crate::wire::Cluster;

/// Offsets of one partition of the old primary that were never copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranded {
    /// The topic's name on the source.
    pub topic: String,
    /// Its name on the target.
    pub target_topic: String,
    /// The partition.
    pub partition: i32,
    /// The plan that made the fork.
    pub plan: Uuid,
    /// The first source offset beyond the fork that is still there.
    pub from: i64,
    /// The log's end.
    pub to: i64,
    /// Where an open transaction begins; `to` when there is none.
    pub readable_to: i64,
    /// Offsets beyond the fork that the old primary has deleted already.
    pub expired: i64,
    /// The first target offset that a client could write after the failover.
    pub padded_end: i64,
    /// What was decided, in the order of offsets.
    pub decided: Vec<(Range<i64>, OrphanChoice)>,
    /// What wasn't.
    pub undecided: Vec<Range<i64>>,
    /// What can be read of that.
    pub can_decide: Vec<Range<i64>>,
}

impl Stranded {
    /// Takes note of a decision about its topic.
    pub(super) fn take(&mut self, decision: &OrphanDecision) {
        let of_this = decision
            .ranges
            .iter()
            .filter(|(of, _, _)| *of == self.partition);
        let taken: Vec<Range<i64>> = of_this.map(|(_, from, to)| *from..*to).collect();
        for whole in std::mem::take(&mut self.undecided) {
            let left = without(whole.clone(), &taken);
            let new = within(&without(whole, &left), &(self.from..self.to));
            self.decided
                .extend(new.into_iter().map(|it| (it, decision.decision)));
            self.undecided.extend(left);
        }
        self.decided.sort_by_key(|(range, _)| range.start);
        self.can_decide = within(&self.undecided, &(self.from..self.readable_to));
    }
}

/// A partition of the old primary that can't be looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// The topic's name on the source.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// Why.
    pub reason: String,
}

/// What the commands work with.
pub struct Scene {
    /// The flow.
    pub flow: FlowConfig,
    /// How the old primary is reached.
    pub source_section: ClusterSection,
    /// How the new primary is reached.
    pub target_section: ClusterSection,
    /// The old primary.
    pub source: Cluster,
    /// The new primary.
    pub target: Cluster,
    /// The state on the new primary.
    pub store: StateStore,
    /// The role, when the flow was failed over.
    pub role: Option<RoleRecord>,
    /// What is stranded.
    pub stranded: Vec<Stranded>,
    /// What was decided, by topic.
    pub decisions: BTreeMap<String, OrphanDecisions>,
    /// What should be known besides.
    pub notes: Vec<String>,
    /// Partitions that can't be looked at now, and why: what they have isn't among this.
    pub left_out: Vec<LeftOut>,
}

impl Scene {
    /// Looks at both clusters. `topics` are names on the source; empty for all. Changes nothing.
    ///
    /// # Errors
    /// When one of the clusters can't be asked, or a topic has no fork.
    pub async fn open(
        flow: &FlowConfig,
        source_section: &ClusterSection,
        target_section: &ClusterSection,
        topics: &[String],
    ) -> Result<Self, OrphansError> {
        let (source, target) = (cluster(source_section), cluster(target_section));
        let store = StateStore::open_existing(&target).await?.ok_or_else(|| {
            OrphansError::new("nothing was ever copied: there is no state on the target")
        })?;
        let role: Option<RoleRecord> = store.get(&keys::role(&flow.name))?;
        let mut scene = Self {
            flow: flow.clone(),
            source_section: source_section.clone(),
            target_section: target_section.clone(),
            source,
            target,
            store,
            role: role.filter(|role| role.not_copied().is_some()),
            stranded: Vec::new(),
            decisions: BTreeMap::new(),
            notes: Vec::new(),
            left_out: Vec::new(),
        };
        scene.look(topics).await?;
        Ok(scene)
    }

    async fn look(&mut self, asked: &[String]) -> Result<(), OrphansError> {
        let Some(failed_over) = self.role.as_ref().and_then(RoleRecord::not_copied) else {
            let name = &self.flow.name;
            self.notes.push(format!(
                "flow {name} wasn't failed over: the source is the primary, so it has no orphans"
            ));
            return Ok(());
        };
        let topics = match asked {
            [] => failed_over.clone(),
            _ => {
                if let Some(other) = asked.iter().find(|topic| !failed_over.contains(topic)) {
                    return Err(OrphansError::new(format!("{other} wasn't failed over"))
                        .with_hint("name topics as on the source"));
                }
                TopicSet::List(asked.iter().cloned().collect())
            }
        };
        let Survey {
            stranded,
            decisions,
            notes,
            without_fork,
            unseen,
        } = survey::survey(&self.store, &self.source, &self.flow.name, &topics).await?;
        let seen: BTreeSet<&String> = decisions.keys().collect();
        if let Some(unknown) = asked.iter().find(|topic| {
            !seen.contains(topic)
                && !notes
                    .iter()
                    .any(|note| note.starts_with(&format!("{topic}: ")))
        }) {
            return Err(OrphansError::new(format!(
                "{unknown} has no fork: flow {} didn't copy it when it was failed over",
                self.flow.name
            ))
            .with_hint("name topics as on the source"));
        }
        self.notes = notes;
        let uncopied: Vec<&str> = without_fork
            .iter()
            .map(String::as_str)
            .filter(|topic| self.flow.topics.matches(topic) && !is_internal_topic(topic))
            .collect();
        if let Some(first) = uncopied.first() {
            self.notes.push(format!(
                "{} topic(s) of the old primary were never copied, such as {first}: all that is \
                 in them is only there",
                uncopied.len()
            ));
        }
        let left_out = unseen.into_iter();
        self.left_out = left_out
            .map(|(at, reason)| LeftOut {
                topic: at.topic,
                partition: at.partition,
                reason,
            })
            .collect();
        self.stranded = stranded;
        self.decisions = decisions;
        Ok(())
    }

    /// Whether a decision may be made now.
    ///
    /// # Errors
    /// While a cut-over is open, or the target isn't the primary.
    pub async fn may_decide(&self) -> Result<(), OrphansError> {
        // Listing takes its time; a failback may have been begun meanwhile.
        self.store.refresh().await?;
        let open: Option<CutoverRecord> = self.store.get(&keys::cutover(&self.flow.name))?;
        if let Some(open) = open
            && matches!(open.state, CutoverState::Open | CutoverState::Aborting)
        {
            return Err(OrphansError::new(format!(
                "plan {} of flow {} isn't at its end",
                open.plan, self.flow.name
            ))
            .with_hint("finish or abort it first"));
        }
        let role: Option<RoleRecord> = self.store.get(&keys::role(&self.flow.name))?;
        match role {
            Some(role) if role.primary == Primary::Target => Ok(()),
            _ => Err(OrphansError::new(format!(
                "flow {} wasn't failed over: there is nothing to decide",
                self.flow.name
            ))),
        }
    }

    /// The decisions about a topic's orphans.
    pub(super) fn decisions_of(&self, topic: &str) -> OrphanDecisions {
        self.decisions.get(topic).cloned().unwrap_or_default()
    }
}
