//! Which groups can't be seen now. They are neither gone nor new: nothing is known of them.

use std::collections::{BTreeSet, HashSet};

use crate::wire::{self, OFFSETS_TOPIC};

/// The groups of a cluster that can't be seen now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Unseen {
    /// All of them: nobody has looked yet.
    #[default]
    All,
    /// None of them: everything is known.
    Nothing,
    /// Those that these partitions of `__consumer_offsets` hold.
    Partitions {
        /// How many it has.
        count: i32,
        /// Which can't be read.
        unread: BTreeSet<i32>,
    },
    /// Those whose coordinator didn't answer.
    Groups {
        /// Their names.
        names: HashSet<String>,
        /// Why the first of them can't be seen.
        why: String,
    },
    /// All but these: not every broker told its groups.
    AllBut {
        /// Those that were told.
        names: HashSet<String>,
        /// Who didn't tell.
        why: String,
    },
}

impl Unseen {
    /// Those that these partitions hold.
    pub fn partitions(count: i32, unread: BTreeSet<i32>) -> Self {
        match unread.is_empty() {
            true => Self::Nothing,
            false => Self::Partitions { count, unread },
        }
    }

    /// Whether a group is among them.
    pub fn covers(&self, group: &str) -> bool {
        match self {
            Self::All => true,
            Self::Nothing => false,
            Self::Partitions { count, unread } => {
                unread.contains(&wire::coordinator_partition(group, *count))
            }
            Self::Groups { names, .. } => names.contains(group),
            Self::AllBut { names, .. } => !names.contains(group),
        }
    }

    /// What can't be seen and why, where only a part of the groups can be.
    pub fn in_words(&self) -> Option<String> {
        match self {
            Self::All | Self::Nothing => None,
            Self::Partitions { count, unread } => {
                let numbers: Vec<String> = unread.iter().map(i32::to_string).collect();
                Some(format!(
                    "{} of {count} partitions of {OFFSETS_TOPIC} can't be read ({}): their groups are unknown",
                    unread.len(),
                    numbers.join(", ")
                ))
            }
            Self::Groups { names, why } => Some(format!(
                "{} group(s) can't be asked for: {why}",
                names.len()
            )),
            Self::AllBut { why, .. } => Some(format!("not every group can be seen: {why}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_belongs_to_one_partition() {
        // `Math.abs("orders".hashCode()) % 50`.
        let unread = |numbers: &[i32]| Unseen::partitions(50, numbers.iter().copied().collect());
        assert!(unread(&[3, 31]).covers("orders"));
        assert!(!unread(&[3, 30]).covers("orders"));
        assert_eq!(unread(&[]), Unseen::Nothing);
        let words = unread(&[3, 31]).in_words().expect("something");
        assert!(words.contains("2 of 50 partitions of __consumer_offsets"));
    }

    #[test]
    fn what_was_not_told_is_not_known() {
        let names = HashSet::from(["told".to_owned()]);
        let why = "broker 2 is silent".to_owned();
        let unseen = Unseen::AllBut {
            names: names.clone(),
            why: why.clone(),
        };
        assert!(!unseen.covers("told") && unseen.covers("other"));
        let unseen = Unseen::Groups { names, why };
        assert!(unseen.covers("told") && !unseen.covers("other"));
    }
}
