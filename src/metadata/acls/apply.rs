//! Changing the target, in an order that never lets anybody do more than before and after, and that
//! a crash at any point leaves in a state from which the next look goes on.
//!
//! 1. New denials.
//! 2. Grants that go.
//! 3. New grants, except those that a denial that couldn't be made would have limited.
//! 4. Denials that go: only when everything before was done.
//!
//! An ACL's record is stored before the ACL is created and removed after it is deleted, so whatever
//! we made is known as ours.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;

use super::diff::{Changes, Note};
use super::held::overrides;
use super::ours::Ours;
use crate::state::{AclRecord, AclState, StateError};
use crate::wire::{AclBinding, ResponseError, WireError};

/// How many ACLs one request creates or deletes. A controller does an operation in one piece of at
/// most 10,000 records.
const CHUNK: usize = if cfg!(test) { 3 } else { 200 };

/// Where ACLs are made and remembered.
pub(super) trait Standby: Sync {
    /// Stores records, durably, in this order.
    fn remember(&self, notes: &[Note]) -> impl Future<Output = Result<(), StateError>> + Send;

    /// Creates ACLs: one answer each.
    fn create(&self, acls: &[AclBinding]) -> impl Future<Output = Answers> + Send;

    /// Deletes exactly these ACLs: one answer each.
    fn delete(&self, acls: &[AclBinding]) -> impl Future<Output = Answers> + Send;
}

/// An answer for each ACL, or why there is none.
pub(super) type Answers = Result<Vec<Result<(), WireError>>, WireError>;

/// What couldn't be done, and why.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// How many ACLs were created or deleted.
    pub done: u64,
    /// By ACL.
    pub failed: BTreeMap<AclBinding, Failure>,
    /// Why what was only to be stored wasn't, if so.
    pub not_noted: Option<String>,
}

/// Why a change wasn't made.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// The call failed.
    Wire(WireError),
    /// It couldn't be remembered, so it wasn't tried.
    State(String),
    /// It waits for another one.
    Waits(String),
    /// It was refused a moment ago, so it wasn't tried.
    Rests,
}

impl Failure {
    /// One line.
    pub(super) fn message(&self) -> String {
        match self {
            Self::Wire(error) => error.to_string(),
            Self::State(message) | Self::Waits(message) => message.clone(),
            Self::Rests => "refused a moment ago".to_owned(),
        }
    }

    /// A short, stable word.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Wire(error) => super::super::pass::reason_of(error),
            Self::State(_) => "state",
            Self::Waits(_) => "waits",
            Self::Rests => "rests",
        }
    }
}

/// Makes the changes, but for those that `rest`. `ours` is what was remembered before.
pub(super) async fn apply(
    standby: &impl Standby,
    changes: &Changes,
    ours: &Ours,
    rest: &BTreeSet<AclBinding>,
) -> Outcome {
    let mut outcome = Outcome::default();
    let resting = rest.iter().map(|acl| (acl.clone(), Failure::Rests));
    outcome.failed.extend(resting);
    if let Err(error) = standby.remember(&changes.note).await {
        // Nothing is lost: it is noted in the next pass. But then nothing else can be stored.
        for acl in changes.acls().filter(|acl| !rest.contains(acl)) {
            let failure = Failure::State(error.to_string());
            outcome.failed.insert(acl.clone(), failure);
        }
        outcome.not_noted = Some(error.to_string());
        return outcome;
    }
    let (new, old) = (changes.create.iter(), changes.delete.iter());
    let (new_denials, new_grants): (Vec<_>, Vec<_>) = new
        .filter(|(acl, _)| !rest.contains(acl))
        .partition(|(acl, _)| acl.is_deny());
    let (old_denials, old_grants): (Vec<_>, Vec<_>) = old
        .filter(|(acl, _)| !rest.contains(acl))
        .partition(|(acl, _)| acl.is_deny());
    create(standby, &new_denials, ours, &mut outcome).await;
    delete(standby, &old_grants, &mut outcome).await;
    let missing: Vec<AclBinding> = changes
        .create
        .iter()
        .filter(|(acl, _)| acl.is_deny() && outcome.failed.contains_key(acl))
        .map(|(acl, _)| acl.clone())
        .collect();
    let mut allowed = Vec::new();
    for grant in new_grants {
        match missing.iter().find(|denial| overrides(denial, &grant.0)) {
            Some(denial) => {
                let message = format!("{denial} isn't there yet, and this must not be without it");
                outcome
                    .failed
                    .insert(grant.0.clone(), Failure::Waits(message));
            }
            None => allowed.push(grant),
        }
    }
    create(standby, &allowed, ours, &mut outcome).await;
    if outcome.failed.is_empty() {
        delete(standby, &old_denials, &mut outcome).await;
    } else {
        for (denial, _) in old_denials {
            let message = "a denial goes last, when every grant is as it shall be".to_owned();
            outcome
                .failed
                .insert(denial.clone(), Failure::Waits(message));
        }
    }
    outcome
}

async fn create(
    standby: &impl Standby,
    wanted: &[&(AclBinding, AclRecord)],
    ours: &Ours,
    outcome: &mut Outcome,
) {
    for (number, chunk) in wanted.chunks(CHUNK).enumerate() {
        let notes: Vec<Note> = chunk
            .iter()
            .filter(|(acl, record)| ours.get(acl) != Some(record))
            .map(|(acl, record)| (acl.clone(), Some(record.clone())))
            .collect();
        let acls: Vec<AclBinding> = chunk.iter().map(|(acl, _)| acl.clone()).collect();
        if let Err(error) = standby.remember(&notes).await {
            let failure = Failure::State(error.to_string());
            fail_from(number, wanted.iter().map(|(acl, _)| acl), &failure, outcome);
            return;
        }
        match standby.create(&acls).await {
            Ok(answers) => {
                let mut refused = Vec::new();
                for ((acl, record), answer) in chunk.iter().zip(answers) {
                    let acl = acl.clone();
                    match answer {
                        Ok(()) => outcome.done += 1,
                        Err(error) => {
                            if is_surely_not_made(&error) {
                                refused.push((acl.clone(), without_claim(record)));
                            }
                            outcome.failed.insert(acl, Failure::Wire(error));
                        }
                    }
                }
                // An operator may make by hand what we may not make: that is never to be ours.
                // If this can't be stored, the next refusal does it.
                let _ = standby.remember(&refused).await;
            }
            Err(error) => {
                let failure = Failure::Wire(error);
                fail_from(number, wanted.iter().map(|(acl, _)| acl), &failure, outcome);
                return;
            }
        }
        // It is a right to all ACLs or none.
        let mut failed = outcome.failed.values();
        let not_authorized = failed.find(|failure| failure.reason() == "not_authorized");
        if let Some(failure) = not_authorized.cloned() {
            let rest = wanted.iter().map(|(acl, _)| acl);
            fail_from(number + 1, rest, &failure, outcome);
            return;
        }
    }
}

async fn delete(standby: &impl Standby, wanted: &[&Note], outcome: &mut Outcome) {
    for (number, chunk) in wanted.chunks(CHUNK).enumerate() {
        let acls: Vec<AclBinding> = chunk.iter().map(|(acl, _)| acl.clone()).collect();
        let answers = match standby.delete(&acls).await {
            Ok(answers) => answers,
            Err(error) => {
                let failure = Failure::Wire(error);
                fail_from(number, wanted.iter().map(|(acl, _)| acl), &failure, outcome);
                return;
            }
        };
        let mut gone = Vec::new();
        for (note, answer) in chunk.iter().zip(answers) {
            match answer {
                Ok(()) => {
                    outcome.done += 1;
                    gone.push((*note).clone());
                }
                Err(error) => {
                    outcome.failed.insert(note.0.clone(), Failure::Wire(error));
                }
            }
        }
        if let Err(error) = standby.remember(&gone).await {
            // They are gone; the next look notes it.
            let failure = Failure::State(error.to_string());
            fail_from(
                number + 1,
                wanted.iter().map(|(acl, _)| acl),
                &failure,
                outcome,
            );
            return;
        }
    }
}

/// The chunks from this one on fail for one reason.
fn fail_from<'a>(
    chunk: usize,
    acls: impl Iterator<Item = &'a AclBinding>,
    failure: &Failure,
    outcome: &mut Outcome,
) {
    for acl in acls.skip(chunk * CHUNK) {
        outcome.failed.insert(acl.clone(), failure.clone());
    }
}

/// What a record says after a refusal: what is held is listed, nothing else is known.
fn without_claim(record: &AclRecord) -> Option<AclRecord> {
    let is_held = record.state == AclState::Released && !record.is_part;
    is_held.then(|| AclRecord {
        state: AclState::Held,
        ..record.clone()
    })
}

/// Whether the broker has decided against it. In any other case it may have been made.
fn is_surely_not_made(error: &WireError) -> bool {
    matches!(
        error.server_code(),
        Some(
            ResponseError::ClusterAuthorizationFailed
                | ResponseError::SecurityDisabled
                | ResponseError::InvalidRequest
                | ResponseError::PolicyViolation
                | ResponseError::UnsupportedVersion
        )
    )
}
