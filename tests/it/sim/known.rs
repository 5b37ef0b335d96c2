//! What is known to be broken. An entry goes when its fault is mended; the hunt for it then stays as a
//! test that holds.

use super::model::Kind;

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
}

/// All of them.
pub const KNOWN: &[Known] = &[];

/// An entry by its id.
///
/// # Panics
/// When there is none: its hunt must be turned into a test that holds.
pub fn known(id: &str) -> &'static Known {
    let entry = KNOWN.iter().find(|it| it.id == id);
    entry.unwrap_or_else(|| panic!("{id} isn't known any more: its hunt must hold now"))
}

#[test]
fn ids_are_not_given_twice() {
    let mut ids: Vec<&str> = KNOWN.iter().map(|it| it.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), KNOWN.len());
}
