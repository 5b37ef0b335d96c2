//! Who is fetched first where some partitions are far behind and others aren't.
//!
//! After a night's outage a few partitions have gigabytes to catch up with, and the others a record now and then. On
//! a line that everybody shares those records must not wait behind the gigabytes. So a partition is *behind* or
//! *current*. While there are both, one fetch asks only so many of those behind for only so much that the rest of
//! its answer is left to the current ones, whatever order the broker goes by; they come in by turns, each for the
//! same. And an answer is no larger than what is there within half a second, since nothing else comes before it.
//! The lanes to the target do the same with what was fetched (`sink::waiting`).

use std::time::Duration;

/// A partition with more than that to come, behind an answer, is behind: several answers of a thin line.
const BEHIND_BYTES: u64 = 2 * 1024 * 1024;
/// With less than that to come it is current again.
const CURRENT_BYTES: u64 = 256 * 1024;
/// For less a partition that is behind isn't asked: brokers read files, and batches are as large as this.
const TURN_BYTES_LEAST: u64 = 256 * 1024;
/// How long an answer may take, or three ways there and back: less would leave a long line idle.
const WITHIN: Duration = Duration::from_millis(400);
const WITHIN_ROUND_TRIPS: u32 = 3;

/// What an answer says of how far a partition is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// Bytes of records in it.
    pub(super) bytes: u64,
    /// Offsets that these take.
    pub(super) offsets: i64,
    /// Offsets that are still to come.
    pub(super) left: i64,
}

/// Whether the partition is behind from now on.
pub(super) fn is_behind(was_behind: bool, seen: Seen) -> bool {
    if seen.left <= 0 {
        return false;
    }
    if seen.bytes == 0 || seen.offsets <= 0 {
        return was_behind;
    }
    let left_bytes = seen.left as f64 * seen.bytes as f64 / seen.offsets as f64;
    let limit = match was_behind {
        true => CURRENT_BYTES,
        false => BEHIND_BYTES,
    };
    left_bytes > limit as f64
}

/// How many of the partitions that are behind have their turn, and for how many bytes each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turns {
    pub(super) partitions: usize,
    pub(super) bytes: u64,
}

/// For a fetch that may bring so many bytes.
pub(super) fn turns(fetch_bytes: u64, behind: usize, current: usize) -> Turns {
    if behind == 0 || current == 0 {
        return Turns {
            partitions: behind,
            bytes: u64::MAX,
        };
    }
    let theirs = (fetch_bytes / 4 * 3).max(1);
    let each = (theirs / behind as u64).max(TURN_BYTES_LEAST).min(theirs);
    let partitions = usize::try_from(theirs / each).unwrap_or(usize::MAX);
    Turns {
        partitions: partitions.clamp(1, behind),
        bytes: each,
    }
}

/// How much an answer may bring while there are both, at the rate at which the last one came.
pub(super) fn answer_bytes(bytes_per_second: f64, round_trip: Duration) -> u64 {
    let within = WITHIN.max(WITHIN_ROUND_TRIPS * round_trip);
    (bytes_per_second * within.as_secs_f64()) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn seen(bytes: u64, offsets: i64, left: i64) -> Seen {
        Seen {
            bytes,
            offsets,
            left,
        }
    }

    #[test]
    fn a_partition_is_behind_by_bytes_and_not_for_a_burst() {
        assert!(!is_behind(false, seen(MIB, 1_000, 0)));
        assert!(!is_behind(false, seen(MIB, 1_000, 1_500)), "a burst");
        assert!(is_behind(false, seen(MIB, 1_000, 50_000)));
        assert!(is_behind(true, seen(MIB, 1_000, 1_500)), "nearly there");
        assert!(!is_behind(true, seen(MIB, 1_000, 200)));
        assert!(is_behind(true, seen(0, 0, 10)), "nothing is known of it");
        assert!(!is_behind(true, seen(0, 0, 0)));
    }

    #[test]
    fn where_all_are_behind_or_none_is_nothing_is_shared_out() {
        for (behind, current) in [(0, 5), (7, 0)] {
            let turns = turns(4 * MIB, behind, current);
            assert_eq!((turns.partitions, turns.bytes), (behind, u64::MAX));
        }
    }

    #[test]
    fn a_long_line_is_given_more_time_than_a_short_one() {
        let near = answer_bytes(20e6, Duration::from_millis(1));
        assert_eq!(near, 8_000_000);
        assert!(answer_bytes(20e6, Duration::from_millis(200)) > near);
    }

    proptest! {
        /// Something of each answer is left to the current ones, and each that is behind has its turn.
        #[test]
        fn current_partitions_find_room_in_every_answer(
            fetch_bytes in 1_024_u64..(64 << 20),
            behind in 1_usize..5_000,
            current in 1_usize..5_000,
        ) {
            let turns = turns(fetch_bytes, behind, current);
            prop_assert!(turns.partitions >= 1 && turns.partitions <= behind);
            prop_assert!(turns.bytes >= 1);
            let theirs = turns.partitions as u64 * turns.bytes;
            prop_assert!(theirs <= fetch_bytes.div_ceil(4) * 3, "{theirs} of {fetch_bytes}");
        }
    }
}
