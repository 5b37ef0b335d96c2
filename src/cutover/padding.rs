//! How far a padded log reaches. Pure.
//!
//! No offset may name an orphan on the old primary and a new record on the new one. So the new
//! primary's first record goes beyond everything that the old one can have: twice what the bound
//! allows for, and a margin.

use super::loss::Bound;

/// Invisible markers that a broker appends in a second, for the estimate: 82,000 were measured over
/// 1,000 partitions. A partition that has never had an index entry takes some milliseconds more.
pub const MARKERS_PER_SECOND: u64 = 80_000;

/// The part of the margin that a partition gets which nobody was seen to write to: most partitions
/// of a large cluster are quiet, and each offset costs the broker an append.
const QUIET_SHARE: u64 = 10;

/// The first target offset that a client may get, for a log that ends at `target_end`.
///
/// Where nothing was ever seen of the source the margin is all there is.
pub fn padded_end(target_end: i64, bound: Option<Bound>, margin: u64) -> i64 {
    let (reach, margin) = match bound {
        Some(bound) if bound.records() == 0 => (0, margin.div_ceil(QUIET_SHARE)),
        Some(bound) => (bound.records().saturating_mul(2), margin),
        None => (0, margin),
    };
    let offsets = i64::try_from(reach.saturating_add(margin)).unwrap_or(i64::MAX);
    target_end.saturating_add(offsets)
}

/// What padding costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PaddingCost {
    /// Invisible markers in all.
    pub markers: u64,
    /// How long that takes, about.
    pub seconds: u64,
}

/// The cost of so many markers.
pub fn cost(markers: u64) -> PaddingCost {
    PaddingCost {
        markers,
        seconds: markers.div_ceil(MARKERS_PER_SECOND),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_margin_stands_also_where_nothing_is_missing() {
        assert_eq!(padded_end(500, None, 1_000), 1_500);
        let quiet = Some(Bound { seen: 0, unseen: 0 });
        assert_eq!(padded_end(500, quiet, 1_001), 601);
        assert_eq!(padded_end(500, quiet, 0), 500);
        assert_eq!(padded_end(500, Some(Bound { seen: 3, unseen: 4 }), 10), 524);
        assert_eq!(cost(80_001).seconds, 2);
    }

    proptest! {
        /// Whatever the old primary can have by the bound lies below the first new record.
        #[test]
        fn no_orphan_shares_an_offset_with_a_new_record(
            end in 0..i64::MAX / 4,
            seen in 0..u64::MAX,
            unseen in 0..u64::MAX,
            margin in 0..u64::MAX,
        ) {
            let bound = Bound { seen, unseen };
            let padded = padded_end(end, Some(bound), margin);
            let reach = i64::try_from(bound.records()).unwrap_or(i64::MAX);
            prop_assert!(padded >= end.saturating_add(reach));
            prop_assert!(padded >= end);
        }
    }
}
