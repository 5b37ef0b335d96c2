//! What is known to be broken. An entry goes when its fault is mended; the hunt for it then stays as a
//! test that holds.

use super::model::Kind;

/// A kind of trouble that a random run makes, or leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// The old primary comes back with less than it had.
    LostTail,
    /// A frozen command goes on behind the abort of its plan.
    FrozenCommand,
    /// Groups commit while a second process takes the flow over.
    GroupAtTakeover,
}

/// One entry.
#[derive(Debug, PartialEq, Eq)]
pub struct Known {
    /// What tests and documents call it.
    pub id: &'static str,
    /// What goes wrong, in a sentence.
    pub says: &'static str,
    /// What the model must find when it is hunted,
    pub shows: Kind,
    /// and what it may find besides, as a consequence.
    pub also: &'static [Kind],
    /// What random runs leave out as long as it is known.
    pub leaves_out: Trouble,
}

/// All of them.
pub const KNOWN: &[Known] = &[
    Known {
        id: "A2",
        says: "a failback trusts the length of the old primary's log, whatever it holds",
        shows: Kind::RecordMissing,
        also: &[Kind::GroupBeyond, Kind::GroupBack],
        leaves_out: Trouble::LostTail,
    },
    Known {
        id: "C1",
        says: "a command that was frozen before it promotes does so when it wakes up, although its plan was aborted",
        shows: Kind::RoleWrong,
        also: &[Kind::HealthyWhileStuck],
        leaves_out: Trouble::FrozenCommand,
    },
    Known {
        id: "S1",
        says: "what the old owner commits for a group while it is being superseded may count as a client's; then the group isn't followed any more",
        shows: Kind::GroupBack,
        also: &[],
        leaves_out: Trouble::GroupAtTakeover,
    },
];

/// An entry by its id.
///
/// # Panics
/// When there is none: its hunt must be turned into a test that holds.
pub fn known(id: &str) -> &'static Known {
    let entry = KNOWN.iter().find(|it| it.id == id);
    entry.unwrap_or_else(|| panic!("{id} isn't known any more: its hunt must hold now"))
}

/// Whether random runs leave it out.
pub fn is_left_out(trouble: Trouble) -> bool {
    KNOWN.iter().any(|it| it.leaves_out == trouble)
}

#[test]
fn ids_are_not_given_twice() {
    let mut ids: Vec<&str> = KNOWN.iter().map(|it| it.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), KNOWN.len());
    assert!(is_left_out(Trouble::LostTail));
}
