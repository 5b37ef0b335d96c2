//! What is held, and releasing it: with the target alone, whatever has become of the source.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::apply::{self, Outcome};
use super::diff::{Changes, Due, Sharing, diff};
use super::guard::{COMES_WITH_GRANTS, WHO_ARE_WE};
use super::keep_in::{self, keeper};
use super::ours;
use super::standby::Target;
use super::translate::{Fate, Wanted};
use crate::state::{AclRecord, AclState, ReleaseRecord, StateError, StateStore, TopicRecord, keys};
use crate::telemetry::progress::now_ms;
use crate::wire::{self, AclBinding, Cluster, WireError};

/// Which held ACLs are to be on the target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Release {
    /// None.
    #[default]
    Nothing,
    /// What is about these topics, by their names on the target.
    Topics(BTreeSet<String>),
    /// All.
    Everything,
}

impl From<Option<ReleaseRecord>> for Release {
    fn from(record: Option<ReleaseRecord>) -> Self {
        match record.map(|record| record.topics) {
            None => Self::Nothing,
            Some(None) => Self::Everything,
            Some(Some(topics)) if topics.is_empty() => Self::Nothing,
            Some(Some(topics)) => Self::Topics(topics),
        }
    }
}

impl Release {
    fn record(&self) -> Option<ReleaseRecord> {
        let topics = match self {
            Self::Nothing => return None,
            Self::Topics(topics) => Some(topics.clone()),
            Self::Everything => None,
        };
        Some(ReleaseRecord {
            v: 1,
            topics,
            released_at_ms: now_ms(),
        })
    }

    /// Whether a held ACL is to be there as it is.
    fn takes(&self, acl: &AclBinding) -> bool {
        match self {
            Self::Nothing => false,
            Self::Topics(topics) => {
                acl.is_topic() && acl.is_literal() && topics.contains(&acl.name)
            }
            Self::Everything => true,
        }
    }

    /// What a held pattern is for single topics.
    fn parts(&self, acl: &AclBinding) -> Vec<AclBinding> {
        match self {
            Self::Topics(topics) if acl.is_topic() && !acl.is_literal() => {
                let covered = topics.iter().filter(|topic| acl.covers(topic));
                covered.map(|topic| acl.about(topic)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// With more, or less.
    fn changed(&self, change: Change, which: &Which) -> Result<Self, ReleaseError> {
        let topics = match (self, which) {
            (_, Which::Everything) => {
                return Ok(match change {
                    Change::Release => Self::Everything,
                    Change::Withdraw => Self::Nothing,
                });
            }
            (Self::Everything, Which::Topics(_)) => {
                return match change {
                    Change::Release => Ok(Self::Everything),
                    Change::Withdraw => Err(ReleaseError::EverythingIsReleased),
                };
            }
            (Self::Nothing, Which::Topics(_)) => BTreeSet::new(),
            (Self::Topics(topics), Which::Topics(_)) => topics.clone(),
        };
        let Which::Topics(asked) = which else {
            return Ok(self.clone());
        };
        let topics: BTreeSet<String> = match change {
            Change::Release => topics.union(asked).cloned().collect(),
            Change::Withdraw => topics.difference(asked).cloned().collect(),
        };
        Ok(if topics.is_empty() {
            Self::Nothing
        } else {
            Self::Topics(topics)
        })
    }
}

/// What becomes of the wanted ACLs now.
pub(super) fn due(
    wanted: &BTreeMap<AclBinding, Wanted>,
    release: &Release,
) -> BTreeMap<AclBinding, Due> {
    let all = wanted.iter().map(|(acl, wanted)| {
        let why = match &wanted.fate {
            Fate::Apply => None,
            Fate::Hold(why) => Some(why.clone()),
        };
        (acl.clone(), wanted.source.to_string(), why)
    });
    released(all, release)
}

/// `acls` are all that are wanted: the ACL, the source's in words, and why it is held if it is.
fn released(
    acls: impl Iterator<Item = (AclBinding, String, Option<String>)>,
    release: &Release,
) -> BTreeMap<AclBinding, Due> {
    let mut due = BTreeMap::new();
    let mut parts = Vec::new();
    for (acl, source, why) in acls {
        let state = match &why {
            None => AclState::Applied,
            // It could take its topic from Twinlog, in the middle of a failover.
            Some(why) if why == WHO_ARE_WE => AclState::Held,
            Some(_) if release.takes(&acl) => AclState::Released,
            Some(why) => {
                let found = release.parts(&acl).into_iter();
                parts.extend(found.map(|part| (part, source.clone(), why.clone())));
                AclState::Held
            }
        };
        let is_part = false;
        let one = Due {
            state,
            source,
            why,
            is_part,
        };
        due.insert(acl, one);
    }
    for (part, source, why) in parts {
        due.entry(part).or_insert(Due {
            state: AclState::Released,
            source,
            why: Some(why),
            is_part: true,
        });
    }
    due
}

/// The copies by their names on the target.
fn copies(store: &StateStore, flow: &str) -> Result<Vec<String>, StateError> {
    let mut copies = Vec::new();
    for key in store.keys(&keys::topic(flow, "")) {
        copies.extend(
            store
                .get::<TopicRecord>(&key)?
                .map(|record| record.target_topic),
        );
    }
    Ok(copies)
}

/// Adds what has to be made first, so that nothing shuts Twinlog out; where its name isn't known, leaves out what
/// could, and returns it in words.
fn kept_in(changes: &mut Changes, target: &BTreeSet<AclBinding>, own: Option<&str>) -> Vec<String> {
    let Some(own) = own else {
        let create = std::mem::take(&mut changes.create);
        let (waiting, create) = create
            .into_iter()
            .partition(|(acl, _)| keep_in::is_used(acl));
        changes.create = create;
        let waiting: Vec<(AclBinding, AclRecord)> = waiting;
        return waiting.iter().map(|(acl, _)| acl.to_string()).collect();
    };
    let first: BTreeMap<AclBinding, AclRecord> = changes
        .create
        .iter()
        .filter_map(|(acl, of)| Some((keeper(acl, own)?, of)))
        .filter(|(keeping, _)| !target.contains(keeping))
        .map(|(keeping, of)| {
            let record = ours::record(&keeping, of.source.clone(), AclState::Applied);
            (keeping, record)
        })
        .collect();
    changes.create.extend(first);
    changes.own_principal = Some(own.to_owned());
    Vec::new()
}

/// An ACL that waits for the failover.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HeldAcl {
    /// The flow.
    pub flow: String,
    /// What it is about, by its name on the target: `topic orders`.
    pub subject: String,
    /// What it says: `ALLOW WRITE User:bob from *`.
    pub acl: String,
    /// The source's ACL that it comes from.
    pub source: String,
    /// Why it is held.
    pub why: String,
    /// Whether it was released, so that the target has it.
    pub released: bool,
    /// Which topics it is about.
    #[serde(skip)]
    pub(crate) about_topics: Option<AclBinding>,
}

impl HeldAcl {
    /// Whether it isn't released either, until it is said whom the target takes Twinlog for.
    pub fn waits_for_our_name(&self) -> bool {
        self.why == WHO_ARE_WE
    }

    /// Whether it is about one of these topics, by their names on the target.
    pub fn topic_is_one_of(&self, topics: &[String]) -> bool {
        let is_covered = |acl: &AclBinding| topics.iter().any(|topic| acl.covers(topic));
        self.about_topics.as_ref().is_some_and(is_covered)
    }
}

/// What a flow holds, from what the target remembers.
///
/// # Errors
/// When the state can't be read.
pub fn held(store: &StateStore, flow: &str) -> Result<Vec<HeldAcl>, StateError> {
    let ours = ours::load(store, flow)?;
    let held = ours
        .into_iter()
        .filter(|(_, record)| record.state != AclState::Applied);
    Ok(held
        .map(|(acl, record)| HeldAcl {
            flow: flow.to_owned(),
            subject: acl.subject(),
            acl: acl.statement(),
            source: record.source,
            why: record.why.unwrap_or_default(),
            released: record.state == AclState::Released,
            about_topics: acl.is_topic().then_some(acl),
        })
        .collect())
}

/// Which of the held ACLs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// All of the flow.
    Everything,
    /// Those about these topics, by their names on the target. Of a pattern, what it is for them.
    Topics(BTreeSet<String>),
}

/// Putting them on the target, or taking them away again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// They are created.
    Release,
    /// What was created for a release is deleted and held again.
    Withdraw,
}

/// Why a release can't be changed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReleaseError {
    /// The state can't be read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// The target didn't answer, or refuses.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// One topic out of everything can't be taken back.
    #[error(
        "everything is released: withdraw everything, then release the topics that shall stay so"
    )]
    EverythingIsReleased,
    /// Nothing that is held is about it.
    #[error("nothing is held for topic {0} (use its name on the target)")]
    NothingHeld(String),
}

impl ReleaseError {
    /// See [`WireError::cure_if_not_reached`].
    pub fn cure_if_not_reached(&self) -> Option<&str> {
        match self {
            Self::State(error) => error.cure_if_not_reached(),
            Self::Wire(error) => error.cure_if_not_reached(),
            _ => None,
        }
    }
}

/// A change of what is released, ready to be made.
#[derive(Debug)]
pub struct ReleasePlan {
    flow: String,
    release: Release,
    changes: Changes,
    /// What waits for something else.
    waiting: Vec<String>,
}

/// An ACL that couldn't be changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReleaseFailure {
    /// The ACL in words.
    pub acl: String,
    /// Why not.
    pub message: String,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReleaseDone {
    /// How many ACLs were created or deleted.
    pub done: u64,
    /// What couldn't be.
    pub failed: Vec<ReleaseFailure>,
}

impl ReleasePlan {
    /// Looks at the target and says what would have to be done. Changes nothing. `own` is whom the target takes
    /// Twinlog for: on an open target what keeps it in comes before anything else, also where it was to be made
    /// when this was held, for that may have failed or been taken away since.
    ///
    /// # Errors
    /// When the target can't be read, or what is asked for can't be had.
    pub async fn new(
        target: &Cluster,
        store: &StateStore,
        (flow, own): (&str, Option<&str>),
        change: Change,
        which: &Which,
    ) -> Result<Self, ReleaseError> {
        let (read, acls) = tokio::join!(store.refresh(), wire::describe_acls(target));
        read?;
        let before = ours::load_release(store, flow)?;
        let release = before.changed(change, which)?;
        let all_ours = ours::load(store, flow)?;
        let mut ours = all_ours.clone();
        // What is simply applied is none of a release's business.
        ours.retain(|_, record| record.state != AclState::Applied);
        if let Which::Topics(topics) = which {
            let is_held = |topic: &&String| ours.keys().any(|a| a.is_topic() && a.covers(topic));
            if let Some(topic) = topics.iter().find(|topic| !is_held(topic)) {
                return Err(ReleaseError::NothingHeld(topic.clone()));
            }
        }
        let mut waiting: Vec<String> = ours
            .iter()
            .filter(|(acl, record)| {
                let is_asked = release.takes(acl) || !release.parts(acl).is_empty();
                change == Change::Release && is_asked && record.why.as_deref() == Some(WHO_ARE_WE)
            })
            .map(|(acl, _)| acl.to_string())
            .collect();
        let held = ours.iter().filter(|(_, record)| !record.is_part);
        let held = held.map(|(acl, record)| {
            let why = record.why.clone().unwrap_or_default();
            (acl.clone(), record.source.clone(), Some(why))
        });
        let due = released(held, &release);
        let acls: BTreeSet<AclBinding> = acls?.acls(target)?.into_iter().collect();
        let others = ours::load_others(store, flow)?;
        let sharing = Sharing {
            flow,
            others: &others,
        };
        let mut changes = diff(&due, &acls, &ours, sharing);
        let may_shut_out = !changes.create.is_empty()
            && !keep_in::holds_rights(&acls, &all_ours, own, &copies(store, flow)?)
            && keep_in::may_be_open(target).await;
        if may_shut_out {
            waiting.extend(kept_in(&mut changes, &acls, own));
        }
        Ok(Self {
            flow: flow.to_owned(),
            release,
            changes,
            waiting,
        })
    }

    /// The ACLs that are created on the target, in words.
    pub fn created(&self) -> Vec<String> {
        let created = self.changes.create.iter();
        created.map(|(acl, _)| acl.to_string()).collect()
    }

    /// The ACLs that are deleted on the target, in words.
    pub fn deleted(&self) -> Vec<String> {
        let deleted = self.changes.delete.iter();
        deleted.map(|(acl, _)| acl.to_string()).collect()
    }

    /// The ACLs that are asked for and aren't made, each with why.
    pub fn waiting(&self) -> Vec<ReleaseFailure> {
        let waiting = self.waiting.iter().map(|acl| ReleaseFailure {
            acl: acl.clone(),
            message: WHO_ARE_WE.to_owned(),
        });
        waiting.collect()
    }

    /// Whether it denies something to everybody, and so to Twinlog unless it is a super user.
    pub fn may_shut_us_out(&self) -> bool {
        let is_for_us_too = |record: &AclRecord| record.why.as_deref() != Some(COMES_WITH_GRANTS);
        let mut created = self.changes.create.iter();
        created.any(|(acl, record)| acl.is_deny() && is_for_us_too(record))
    }

    /// Makes the change. What is released is remembered first, so that a `twinlog run` beside this
    /// does the same and not the opposite.
    ///
    /// # Errors
    /// When that couldn't be remembered. What was released may shut Twinlog itself out of its state:
    /// a withdrawal goes on without, and tries to remember again at the end.
    pub async fn apply(
        &self,
        target: &Cluster,
        store: &StateStore,
    ) -> Result<ReleaseDone, ReleaseError> {
        let remembered = self.remember(store).await;
        if !self.changes.create.is_empty() {
            remembered.clone()?;
        }
        let standby = Target {
            cluster: target,
            store,
            flow: &self.flow,
        };
        let none = BTreeSet::new();
        let outcome = apply::apply(&standby, &self.changes, &none).await;
        let Outcome { done, failed, .. } = outcome;
        if remembered.is_err() {
            self.remember(store).await?;
        }
        let failed = failed.iter().map(|(acl, failure)| ReleaseFailure {
            acl: acl.to_string(),
            message: failure.message(),
        });
        Ok(ReleaseDone {
            done,
            failed: failed.chain(self.waiting()).collect(),
        })
    }

    async fn remember(&self, store: &StateStore) -> Result<(), StateError> {
        let key = keys::release(&self.flow);
        match self.release.record() {
            Some(record) => store.put(&key, &record).await,
            None => store.remove(&key).await,
        }
    }
}
