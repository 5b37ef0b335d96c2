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
                    "{} of {count} partitions of {OFFSETS_TOPIC} aren't read to their ends ({}): their groups are unknown",
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

/// The groups whose partitions of `__consumer_offsets` weren't read to their ends since the reading began. What was told of
/// them so far may be long past; of others that can't be seen now it is the newest that is known.
#[derive(Debug, Default)]
pub struct Unread {
    /// How many partitions the log has.
    count: i32,
    /// `None` until something is said of them.
    partitions: Option<BTreeSet<i32>>,
}

impl Unread {
    /// The log is read from its beginning again.
    pub fn begin(&mut self) {
        *self = Self::default();
    }

    /// Takes what can't be seen now. True if other groups are among them than before.
    pub fn take(&mut self, unseen: &Unseen) -> bool {
        let mut now = match unseen {
            Unseen::Partitions { count, unread } => {
                self.count = *count;
                unread.clone()
            }
            _ => BTreeSet::new(),
        };
        if let Some(before) = &self.partitions {
            now.retain(|number| before.contains(number));
        }
        let is_news = self.partitions.as_ref() != Some(&now);
        self.partitions = Some(now);
        is_news
    }

    /// Whether a group is among them.
    pub fn covers(&self, group: &str) -> bool {
        let unread = self.partitions.as_ref().filter(|it| !it.is_empty());
        unread.is_some_and(|it| it.contains(&wire::coordinator_partition(group, self.count)))
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
    fn what_was_read_once_is_not_long_past_where_it_can_not_be_seen_again() {
        // "orders" is in 31.
        let unseen = |numbers: &[i32]| Unseen::partitions(50, numbers.iter().copied().collect());
        let mut unread = Unread::default();
        assert!(!unread.covers("orders"), "nothing is said yet");
        assert!(unread.take(&unseen(&[3, 31])));
        assert!(unread.covers("orders"));
        assert!(!unread.take(&unseen(&[3, 31])));
        assert!(unread.take(&unseen(&[3])));
        assert!(!unread.covers("orders"));
        assert!(!unread.take(&unseen(&[3, 31])), "its broker is away");
        assert!(!unread.covers("orders"));
        unread.begin();
        unread.take(&unseen(&[31]));
        assert!(unread.covers("orders"));
        unread.take(&Unseen::Nothing);
        assert!(!unread.covers("orders"));
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
