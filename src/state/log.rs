//! What a look at the state topic's log says: it goes on, or it isn't the log that was read.

use uuid::Uuid;

use crate::wire::is_other_topic;

/// How the state topic's log lost what was read from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// There is no such topic any more.
    Deleted,
    /// The topic is another one under the same name.
    Replaced,
    /// The log ends before what was read, begins behind it, or forked below it: an unclean leader
    /// election or a restored disk took acknowledged records away.
    Shrunk,
}

impl std::fmt::Display for Loss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Deleted => "it was deleted",
            Self::Replaced => "it was deleted and created again",
            Self::Shrunk => "its log lost records that were acknowledged",
        })
    }
}

/// How far a log was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reached {
    /// Nil until the topic was seen.
    pub topic_id: Uuid,
    /// The next offset to read.
    pub next_offset: i64,
    /// Leader epoch of the last batch that was read, -1 without one.
    pub epoch: i32,
}

impl Default for Reached {
    fn default() -> Self {
        Self {
            topic_id: Uuid::nil(),
            next_offset: 0,
            epoch: -1,
        }
    }
}

/// What the brokers say about the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Nil when the broker doesn't say.
    pub topic_id: Uuid,
    /// Where readers end.
    pub end: i64,
    /// Where the epoch of the last batch that was read ended, when the leader's epoch is another.
    pub epoch_end: Option<i64>,
}

/// Whether the log that was read is still there, as far as it was read.
pub(super) fn loss(reached: &Reached, seen: &Seen) -> Option<Loss> {
    if is_other_topic(reached.topic_id, seen.topic_id) {
        return Some(Loss::Replaced);
    }
    let forked = seen.epoch_end.is_some_and(|end| end < reached.next_offset);
    (seen.end < reached.next_offset || forked).then_some(Loss::Shrunk)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Uuid = Uuid::from_u128(1);
    const OTHER: Uuid = Uuid::from_u128(2);

    fn told(topic_id: Uuid, end: i64, epoch_end: Option<i64>) -> Option<Loss> {
        let reached = Reached {
            topic_id: OURS,
            next_offset: 10,
            epoch: 3,
        };
        let seen = Seen {
            topic_id,
            end,
            epoch_end,
        };
        loss(&reached, &seen)
    }

    #[test]
    fn a_log_that_is_longer_or_as_long_is_the_same() {
        assert_eq!(told(OURS, 10, None), None);
        assert_eq!(told(OURS, 11, Some(10)), None);
        assert_eq!(told(Uuid::nil(), 11, None), None, "an id that isn't told");
    }

    #[test]
    fn a_shorter_log_a_fork_and_another_topic_are_told() {
        assert_eq!(told(OURS, 9, None), Some(Loss::Shrunk));
        assert_eq!(told(OURS, 20, Some(9)), Some(Loss::Shrunk), "grown past it");
        assert_eq!(told(OTHER, 20, None), Some(Loss::Replaced));
    }

    #[test]
    fn of_a_log_that_was_not_read_nothing_is_lost() {
        let seen = Seen {
            topic_id: OURS,
            end: 0,
            epoch_end: None,
        };
        assert_eq!(loss(&Reached::default(), &seen), None);
    }
}
