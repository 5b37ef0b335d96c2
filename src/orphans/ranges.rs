//! Offset ranges, and what is left of one. Pure.

use std::ops::Range;

/// What is left of `whole` without `taken`, in order.
pub(super) fn without(whole: Range<i64>, taken: &[Range<i64>]) -> Vec<Range<i64>> {
    let mut taken: Vec<&Range<i64>> = taken.iter().filter(|range| !range.is_empty()).collect();
    taken.sort_by_key(|range| range.start);
    let mut left = Vec::new();
    let mut from = whole.start;
    for range in taken {
        let to = range.start.min(whole.end);
        if from < to {
            left.push(from..to);
        }
        from = from.max(range.end);
    }
    if from < whole.end {
        left.push(from..whole.end);
    }
    left
}

/// The part of each range that lies within `bounds`.
pub(super) fn within(ranges: &[Range<i64>], bounds: &Range<i64>) -> Vec<Range<i64>> {
    ranges
        .iter()
        .map(|range| range.start.max(bounds.start)..range.end.min(bounds.end))
        .filter(|range| !range.is_empty())
        .collect()
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "one range is meant")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_left() {
        assert_eq!(without(5..10, &[]), [5..10]);
        assert_eq!(without(5..10, &[5..10]), []);
        assert_eq!(without(5..10, &[0..6, 8..9]), [6..8, 9..10]);
        assert_eq!(without(5..10, &[9..20, 7..7]), [5..9]);
        assert_eq!(without(5..5, &[]), []);
    }

    proptest! {
        #[test]
        fn an_offset_is_left_or_taken(
            from in 0..40_i64,
            length in 0..40_i64,
            taken in proptest::collection::vec((0..60_i64, 0..20_i64), 0..6),
        ) {
            let whole = from..from + length;
            let taken: Vec<_> = taken.iter().map(|(at, length)| *at..at + length).collect();
            let left = without(whole.clone(), &taken);
            for offset in 0..100 {
                let expected =
                    whole.contains(&offset) && !taken.iter().any(|range| range.contains(&offset));
                let found = left.iter().filter(|range| range.contains(&offset)).count();
                prop_assert_eq!(found, usize::from(expected));
            }
            prop_assert!(left.windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }
}
