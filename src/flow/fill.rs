//! What a hole is worth. Pure.
//!
//! Offsets without a record are filled one by one, so that the target's offsets are the source's. A
//! compacted log of years can have a thousand holes for each record, and a log that nobody copied for
//! long one that is larger than all that is left: filling them would take hours and more disk than the
//! records. Beyond a limit a partition goes on mapped instead, or stops (`offsets: identical`).

use std::fmt;

/// Fillers that a record is worth: a transaction of one record has one marker, and an aborted one
/// beside it two offsets more.
const PER_RECORD: i64 = 4;

/// How much is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FillRule {
    /// `offsets.fill_limit`.
    pub limit: i64,
    /// Whether the partition may go on mapped instead.
    pub may_map: bool,
}

/// A hole that isn't filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DearHole {
    /// Its first source offset.
    pub from: i64,
    /// Its offsets.
    pub count: i64,
    /// What was filled before it beyond what the records were worth.
    pub debt: i64,
    /// The limit that this would pass.
    pub limit: i64,
}

impl fmt::Display for DearHole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            from,
            count,
            debt,
            limit,
        } = self;
        let beyond = format!("more than offsets.fill_limit {limit}");
        match count > limit {
            true => write!(
                f,
                "{count} source offsets from {from} on have no record, {beyond}"
            ),
            false => write!(
                f,
                "up to source offset {} there are {} offsets without a record beyond {PER_RECORD} for each record, \
                 {beyond}",
                from + count,
                debt + count
            ),
        }
    }
}

impl FillRule {
    /// Whether `count` offsets from `from` on are too many. `left` source offsets are still to come,
    /// the hole's among them: where the whole rest costs less than the limit it is filled.
    pub fn judge(&self, from: i64, count: i64, debt: i64, left: i64) -> Option<DearHole> {
        let limit = self.limit;
        let is_dear = count > limit || (debt.saturating_add(count) > limit && left > limit);
        is_dear.then_some(DearHole {
            from,
            count,
            debt,
            limit,
        })
    }
}

/// What was filled beyond what the records were worth, after `count` more fillers.
pub fn after_fill(debt: i64, count: i64) -> i64 {
    debt.saturating_add(count)
}

/// The same after `count` records.
pub fn after_records(debt: i64, count: i64) -> i64 {
    debt.saturating_sub(count.saturating_mul(PER_RECORD)).max(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: FillRule = FillRule {
        limit: 100,
        may_map: true,
    };

    #[test]
    fn one_hole_beyond_the_limit_is_too_dear_wherever_it_is() {
        assert_eq!(RULE.judge(7, 100, 0, 1_000), None);
        let hole = RULE.judge(7, 101, 0, 101).expect("too dear");
        assert_eq!(
            hole.to_string(),
            "101 source offsets from 7 on have no record, more than offsets.fill_limit 100"
        );
    }

    #[test]
    fn many_small_holes_are_too_dear_while_much_is_left() {
        let mut debt = 0;
        for _ in 0..10 {
            // Ten holes for each record.
            assert_eq!(RULE.judge(0, 10, debt, 1_000), None, "{debt}");
            debt = after_records(after_fill(debt, 10), 1);
        }
        debt = after_fill(debt, 35);
        assert!(RULE.judge(0, 10, debt, 1_000).is_some());
        assert_eq!(RULE.judge(0, 10, debt, 100), None, "the rest is cheap");
    }

    #[test]
    fn markers_of_short_transactions_are_never_too_dear() {
        let mut debt = 0;
        for _ in 0..10_000 {
            assert_eq!(RULE.judge(0, 3, debt, i64::MAX), None);
            debt = after_records(after_fill(debt, 3), 1);
        }
        assert_eq!(debt, 0);
    }
}
