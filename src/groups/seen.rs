//! What an observer tells.

use super::record::GroupRecord;
use super::unseen::Unseen;

/// How groups are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Every commit is read from `__consumer_offsets`.
    Tail,
    /// `__consumer_offsets` may not be read: the groups are asked for, at an interval.
    Poll,
}

/// What an observer sees.
#[derive(Debug)]
pub enum Seen {
    /// Begins from nothing: what isn't told again until [`Seen::CaughtUp`] is no longer there.
    Begins(Way),
    /// Commits and deletions, in order.
    Records(Vec<GroupRecord>),
    /// Deletions that nobody may have meant: most positions went missing at once, or while nobody looked. No group is
    /// deleted for them.
    Lost(Vec<GroupRecord>),
    /// All that was there at the beginning has been told, but for these groups. Told again whenever
    /// these are others: what is among them no longer has been told meanwhile.
    CaughtUp(Unseen),
    /// No group has ever committed there: the coordinators' log isn't there. Nothing is unseen.
    NoLog,
    /// The cluster can't be asked now; it is tried again.
    Failing(String),
}
