//! Changing the target, in an order that never lets anybody do more than before and after, and that
//! a crash at any point leaves in a state from which the next look goes on.
//!
//! 0. What keeps Twinlog in, where the first ACL of a resource shuts out whoever it isn't for: before it stands and a
//!    broker shows it nothing else about that resource is made, nor noted as held, for what is held is released one day.
//! 1. New denials.
//! 2. Grants that go.
//! 3. New grants, except those that a denial that couldn't be made would have limited.
//! 4. Denials that go: only when all of 1 and 2 was done. (A grant that isn't there lets nobody do
//!    anything.)
//! 5. What kept Twinlog in: only when nothing is left that it was needed for.
//!
//! An ACL's record is stored before the ACL is created and removed after it is deleted, so whatever
//! we made is known as ours.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;

use super::binding::operation;
use super::diff::{Changes, Note};
use super::held::{self, overrides};
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

    /// Those of these ACLs that no broker shows, after some patience.
    fn unseen(
        &self,
        acls: &[AclBinding],
    ) -> impl Future<Output = Result<BTreeSet<AclBinding>, WireError>> + Send;
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
    /// It was made, but isn't seen.
    Unseen(String),
}

impl Failure {
    /// One line.
    pub(super) fn message(&self) -> String {
        match self {
            Self::Wire(error) => error.to_string(),
            Self::State(message) | Self::Waits(message) | Self::Unseen(message) => message.clone(),
            Self::Rests => "refused a moment ago".to_owned(),
        }
    }

    /// Whether the change may have been made nevertheless.
    pub(super) fn is_unanswered(&self) -> bool {
        match self {
            Self::Wire(error) => error.server_code().is_none(),
            Self::Unseen(_) => true,
            Self::State(_) | Self::Waits(_) | Self::Rests => false,
        }
    }

    /// A short, stable word.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Wire(error) => super::super::pass::reason_of(error),
            Self::State(_) => "state",
            Self::Waits(_) | Self::Unseen(_) => "waits",
            Self::Rests => "rests",
        }
    }
}

/// Makes the changes, but for those that `rest`.
pub(super) async fn apply(
    standby: &impl Standby,
    changes: &Changes,
    rest: &BTreeSet<AclBinding>,
) -> Outcome {
    let mut outcome = Outcome::default();
    let resting = rest.iter().map(|acl| (acl.clone(), Failure::Rests));
    outcome.failed.extend(resting);
    let (new, old) = (changes.create.iter(), changes.delete.iter());
    let (new_keeping, new): (Vec<_>, Vec<_>) = new
        .filter(|(acl, _)| !rest.contains(acl))
        .partition(|(acl, _)| changes.keeps_us_in(acl));
    let (old_keeping, old): (Vec<_>, Vec<_>) = old
        .filter(|(acl, _)| !rest.contains(acl))
        .partition(|(acl, _)| changes.keeps_us_in(acl));
    keep_in(standby, &new_keeping, &mut outcome).await;
    if let Err(error) = standby.remember(&to_note(changes, &outcome)).await {
        // Nothing is lost: it is noted in the next pass. But then nothing else can be stored.
        let failure = Failure::State(error.to_string());
        let left = changes.acls().filter(|acl| !changes.keeps_us_in(acl));
        fail(left, &failure, &mut outcome);
        let kept = old_keeping.iter().map(|(acl, _)| acl);
        fail(kept, &failure, &mut outcome);
        outcome.not_noted = Some(error.to_string());
        return outcome;
    }
    let new = without_shutting_out(changes, new, &mut outcome);
    let (new_denials, new_grants): (Vec<_>, Vec<_>) =
        new.into_iter().partition(|(acl, _)| acl.is_deny());
    let (old_denials, old_grants): (Vec<_>, Vec<_>) =
        old.into_iter().partition(|(acl, _)| acl.is_deny());
    create(standby, &new_denials, &mut outcome).await;
    delete(standby, &old_grants, &mut outcome).await;
    let are_grants_gone = changes
        .delete
        .iter()
        .all(|(acl, _)| acl.is_deny() || !outcome.failed.contains_key(acl));
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
    create(standby, &allowed, &mut outcome).await;
    if are_grants_gone && missing.is_empty() {
        delete(standby, &old_denials, &mut outcome).await;
    } else {
        for (denial, _) in old_denials {
            let message =
                "a denial goes last: not before all new denials are there and all old grants gone"
                    .to_owned();
            outcome
                .failed
                .insert(denial.clone(), Failure::Waits(message));
        }
    }
    let stuck: Vec<&AclBinding> = changes
        .delete
        .iter()
        .map(|(acl, _)| acl)
        .filter(|acl| outcome.failed.contains_key(acl))
        .collect();
    let (free, needed): (Vec<_>, Vec<_>) = old_keeping
        .into_iter()
        .partition(|(acl, _)| !stuck.iter().any(|it| held::meet(it, acl)));
    delete(standby, &free, &mut outcome).await;
    for (keeping, _) in needed {
        let message = "it keeps Twinlog in while others have ACLs there".to_owned();
        outcome
            .failed
            .insert(keeping.clone(), Failure::Waits(message));
    }
    outcome
}

/// Makes what keeps Twinlog in, and looks whether it is there: an answer alone keeps nobody in.
async fn keep_in(
    standby: &impl Standby,
    keeping: &[&(AclBinding, AclRecord)],
    outcome: &mut Outcome,
) {
    create(standby, keeping, outcome).await;
    let made = keeping.iter().map(|(acl, _)| acl.clone());
    let made: Vec<AclBinding> = made
        .filter(|acl| !outcome.failed.contains_key(acl))
        .collect();
    if made.is_empty() {
        return;
    }
    let (unseen, why) = match standby.unseen(&made).await {
        Ok(unseen) => (unseen, "no broker shows it yet".to_owned()),
        Err(error) => (made.into_iter().collect(), error.to_string()),
    };
    let failure = Failure::Unseen(format!("it was made, but isn't seen: {why}"));
    fail(unseen.iter(), &failure, outcome);
}

/// What keeps Twinlog in and was to be made, and isn't there.
fn missing_keepers<'a>(changes: &'a Changes, outcome: &Outcome) -> Vec<&'a AclBinding> {
    let created = changes.create.iter().map(|(acl, _)| acl);
    created
        .filter(|acl| changes.keeps_us_in(acl) && outcome.failed.contains_key(acl))
        .collect()
}

/// What is stored now. What is held waits for what keeps Twinlog in: whoever releases it may not be able to make that.
fn to_note(changes: &Changes, outcome: &Outcome) -> Vec<Note> {
    let missing = missing_keepers(changes, outcome);
    let waits = |(acl, record): &&Note| {
        let is_held = record
            .as_ref()
            .is_some_and(|it| it.state != AclState::Applied);
        is_held && missing.iter().any(|keeping| held::meet(keeping, acl))
    };
    let notes = changes.note.iter().filter(|note| !waits(note));
    notes.cloned().collect()
}

/// Leaves out, as failed, what would shut Twinlog out because the ACL that keeps it in isn't there.
fn without_shutting_out<'a>(
    changes: &Changes,
    new: Vec<&'a (AclBinding, AclRecord)>,
    outcome: &mut Outcome,
) -> Vec<&'a (AclBinding, AclRecord)> {
    let missing = missing_keepers(changes, outcome);
    let (waiting, new): (Vec<_>, Vec<_>) = new
        .into_iter()
        .partition(|(acl, _)| missing.iter().any(|keeping| held::meet(keeping, acl)));
    for (acl, _) in waiting {
        let message =
            "what keeps Twinlog in isn't there yet, and this would shut it out".to_owned();
        outcome.failed.insert(acl.clone(), Failure::Waits(message));
    }
    new
}

async fn create(
    standby: &impl Standby,
    wanted: &[&(AclBinding, AclRecord)],
    outcome: &mut Outcome,
) {
    // The ones that an old broker may not be able to read come last, each alone.
    let (mut left, new): (Vec<_>, Vec<_>) = wanted
        .iter()
        .copied()
        .partition(|(acl, _)| !is_new_operation(acl));
    left.extend(new);
    let mut left = &left[..];
    while let Some((first, _)) = left.first() {
        let size = if is_new_operation(first) { 1 } else { CHUNK };
        let are_old = left.iter().take_while(|(acl, _)| !is_new_operation(acl));
        let (chunk, rest) = left.split_at(are_old.count().clamp(1, size));
        if let Err(failure) = create_chunk(standby, chunk, outcome).await {
            fail(left.iter().map(|(acl, _)| acl), &failure, outcome);
            return;
        }
        left = rest;
    }
}

/// Creates what fits into one request. An error is one of all that follows too.
async fn create_chunk(
    standby: &impl Standby,
    chunk: &[&(AclBinding, AclRecord)],
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    // Also where we know it so: another process may have noted otherwise since.
    let notes: Vec<Note> = chunk
        .iter()
        .map(|(acl, record)| (acl.clone(), Some(record.clone())))
        .collect();
    let stored = standby.remember(&notes).await;
    stored.map_err(|error| Failure::State(error.to_string()))?;
    let acls: Vec<AclBinding> = chunk.iter().map(|(acl, _)| acl.clone()).collect();
    let answers = standby.create(&acls).await.map_err(Failure::Wire)?;
    let mut refused = Vec::new();
    let mut for_all = None;
    for ((acl, record), answer) in chunk.iter().zip(answers) {
        let Err(error) = answer else {
            outcome.done += 1;
            continue;
        };
        if is_surely_not_made(&error) {
            refused.push((acl.clone(), without_claim(record)));
        }
        let failure = Failure::Wire(error);
        if failure.reason() == "not_authorized" {
            // It is a right to all ACLs or none.
            for_all = Some(failure.clone());
        }
        outcome.failed.insert(acl.clone(), failure);
    }
    // An operator may make by hand what we may not make: that is never to be ours. If this can't be
    // stored, the next refusal does it.
    let _ = standby.remember(&refused).await;
    for_all.map_or(Ok(()), Err)
}

async fn delete(standby: &impl Standby, wanted: &[&Note], outcome: &mut Outcome) {
    let mut left = wanted;
    while !left.is_empty() {
        let (chunk, rest) = left.split_at(left.len().min(CHUNK));
        if let Err(failure) = delete_chunk(standby, chunk, outcome).await {
            fail(left.iter().map(|(acl, _)| acl), &failure, outcome);
            return;
        }
        left = rest;
    }
}

/// Deletes what fits into one request. An error is one of all that follows too.
async fn delete_chunk(
    standby: &impl Standby,
    chunk: &[&Note],
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let acls: Vec<AclBinding> = chunk.iter().map(|(acl, _)| acl.clone()).collect();
    let answers = standby.delete(&acls).await.map_err(Failure::Wire)?;
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
    // If this fails they are gone nevertheless; the next look notes it.
    let stored = standby.remember(&gone).await;
    stored.map_err(|error| Failure::State(error.to_string()))
}

fn fail<'a>(acls: impl Iterator<Item = &'a AclBinding>, failure: &Failure, outcome: &mut Outcome) {
    for acl in acls {
        let failed = outcome.failed.entry(acl.clone());
        failed.or_insert_with(|| failure.clone());
    }
}

/// Whether a supported broker may not know the operation: it then hangs up without an answer.
fn is_new_operation(acl: &AclBinding) -> bool {
    acl.operation > operation::DESCRIBE_TOKENS
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
