//! What has to happen for the target to have what is wanted, and nothing that it must not. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::held;
use super::ours::{Ours, record};
use crate::state::{AclRecord, AclState};
use crate::wire::AclBinding;

/// What becomes of an ACL now, releases taken into account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// What its record says when it is so.
    pub state: AclState,
    /// The source's ACL, in words.
    pub source: String,
    /// Why it is or was held.
    pub why: Option<String>,
    /// See [`AclRecord::is_part`].
    pub is_part: bool,
}

impl Due {
    /// Whether the target shall have it.
    fn is_present(&self) -> bool {
        self.state != AclState::Held
    }

    fn record(&self, acl: &AclBinding) -> AclRecord {
        AclRecord {
            why: self.why.clone(),
            is_part: self.is_part,
            ..record(acl, self.source.clone(), self.state)
        }
    }
}

/// An ACL and its record; `None` to forget it.
pub(super) type Note = (AclBinding, Option<AclRecord>);

/// What has to happen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Made on the target, after the record is stored.
    pub create: Vec<(AclBinding, AclRecord)>,
    /// Removed on the target; the record is stored afterwards.
    pub delete: Vec<Note>,
    /// Only stored.
    pub note: Vec<Note>,
    /// Whom the target takes Twinlog for: what is granted to it keeps it in where the others' first ACL
    /// would shut it out.
    pub own_principal: Option<String>,
    /// Whether something of ours stays until another flow doesn't want it any more.
    pub waits: bool,
}

/// What stays although the source doesn't have it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// The target has it.
    OnTarget,
    /// It waits for the failover.
    Held,
}

/// The other flows that made an ACL on the same target, or would have. It goes when the last of
/// them lets go: those whose names come first hand it over, so two that let go at once neither
/// leave it nor take it from a third.
pub(super) type Others = BTreeMap<AclBinding, BTreeSet<String>>;

/// The others, and our own name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sharing<'a> {
    pub flow: &'a str,
    pub others: &'a Others,
}

/// What becomes of an ACL of ours that is to go.
enum Leaving {
    Delete,
    /// Another flow keeps it, and deletes it some day.
    HandOver,
    /// Another flow wants it, and leaves deleting it to us.
    Wait,
}

impl Sharing<'_> {
    fn has(&self, acl: &AclBinding) -> bool {
        self.others.contains_key(acl)
    }

    fn leaving(&self, acl: &AclBinding) -> Leaving {
        match self.others.get(acl).and_then(BTreeSet::last) {
            None => Leaving::Delete,
            Some(last) if &**last > self.flow => Leaving::HandOver,
            Some(_) => Leaving::Wait,
        }
    }
}

/// Compares.
pub(super) fn diff(
    due: &BTreeMap<AclBinding, Due>,
    target: &BTreeSet<AclBinding>,
    ours: &Ours,
    sharing: Sharing<'_>,
) -> Changes {
    let mut changes = Changes::default();
    for (acl, due) in due {
        let (on_target, known) = (target.contains(acl), ours.get(acl));
        let made_by_us = known.is_some_and(|known| known.state != AclState::Held);
        let record = due.record(acl);
        match (due.is_present(), on_target) {
            (true, false) => changes.create.push((acl.clone(), record)),
            // Ours already, perhaps for another reason.
            (true, true) if made_by_us => changes.note(acl, known, Some(record)),
            // Another flow's: it is ours too, so that it stays when that one lets it go.
            (true, true) if sharing.has(acl) => changes.note(acl, known, Some(record)),
            // Somebody else's: it stays theirs. What is held is listed all the same.
            (true, true) => {
                let is_held = due.state == AclState::Released && !due.is_part;
                let listed = AclRecord {
                    state: AclState::Held,
                    ..record
                };
                changes.note(acl, known, is_held.then_some(listed));
            }
            // Also where the target doesn't show it: a broker that lags behind doesn't yet.
            (false, _) if made_by_us => changes.leave(acl, Some(record), sharing),
            (false, _) => changes.note(acl, known, Some(record)),
        }
    }
    for (acl, known) in ours {
        if due.contains_key(acl) {
            continue;
        }
        if known.state == AclState::Held {
            changes.note.push((acl.clone(), None));
        } else {
            changes.leave(acl, None, sharing);
        }
    }
    changes
}

impl Changes {
    /// Stores a record if it says something new.
    fn note(&mut self, acl: &AclBinding, known: Option<&AclRecord>, record: Option<AclRecord>) {
        if known != record.as_ref() {
            self.note.push((acl.clone(), record));
        }
    }

    /// Takes one of ours away; `record` is what is known of it then.
    fn leave(&mut self, acl: &AclBinding, record: Option<AclRecord>, sharing: Sharing<'_>) {
        let note = (acl.clone(), record);
        match sharing.leaving(acl) {
            Leaving::Delete => self.delete.push(note),
            Leaving::HandOver => self.note.push(note),
            Leaving::Wait => self.waits = true,
        }
    }

    /// The ACLs that are made or removed on the target.
    pub(super) fn acls(&self) -> impl Iterator<Item = &AclBinding> {
        let created = self.create.iter().map(|(acl, _)| acl);
        created.chain(self.delete.iter().map(|(acl, _)| acl))
    }

    /// Whether anything of ours goes, or is forgotten, because the source doesn't have it any more.
    pub(super) fn takes_away(&self, due: &BTreeMap<AclBinding, Due>) -> bool {
        let notes = self.delete.iter().chain(&self.note);
        let mut going = notes.map(|(acl, _)| acl);
        going.any(|acl| !due.contains_key(acl))
    }

    /// Leaves as it is what the source doesn't have any more: what is on the target, and what is held for the failover.
    /// Returns each that stays.
    pub(super) fn keep_what_is_missing(
        &mut self,
        due: &BTreeMap<AclBinding, Due>,
        target: &BTreeSet<AclBinding>,
        ours: &Ours,
    ) -> Vec<(AclBinding, Kept)> {
        let mut kept = Vec::new();
        self.delete.retain(|(acl, _)| {
            let stays = !due.contains_key(acl);
            let is_seen = stays && target.contains(acl);
            kept.extend(is_seen.then(|| (acl.clone(), Kept::OnTarget)));
            !stays
        });
        self.note.retain(|(acl, _)| {
            let stays = !due.contains_key(acl);
            let held = ours.get(acl).filter(|it| it.state == AclState::Held);
            kept.extend(held.filter(|_| stays).map(|_| (acl.clone(), Kept::Held)));
            !stays
        });
        kept
    }

    /// What keeps Twinlog in stays while anything that has an ACL on the target is met by it, whosever
    /// that is: without it Twinlog would be shut out there, and couldn't put it back.
    pub(super) fn keep_in(&mut self, own: Option<&str>, target: &BTreeSet<AclBinding>) {
        self.own_principal = own.map(str::to_owned);
        let going: BTreeSet<&AclBinding> = self.delete.iter().map(|(acl, _)| acl).collect();
        let created = self.create.iter().map(|(acl, _)| acl);
        let staying = target.iter().filter(|acl| !going.contains(acl));
        let staying: Vec<&AclBinding> = staying.chain(created).collect();
        let needed: BTreeSet<AclBinding> = self
            .delete
            .iter()
            .map(|(acl, _)| acl)
            .filter(|acl| self.keeps_us_in(acl))
            .filter(|keeping| staying.iter().any(|acl| held::meet(acl, keeping)))
            .cloned()
            .collect();
        self.delete.retain(|(acl, _)| !needed.contains(acl));
    }

    /// Whether an ACL keeps Twinlog in.
    pub(super) fn keeps_us_in(&self, acl: &AclBinding) -> bool {
        acl.is_allow() && self.own_principal.as_ref() == Some(&acl.principal)
    }

    /// Whether nothing has to happen.
    pub(super) fn is_empty(&self) -> bool {
        self.create.is_empty() && self.delete.is_empty() && self.note.is_empty()
    }
}
