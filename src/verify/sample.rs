//! Ranges drawn by chance, the same for the same seed.

use std::ops::Range;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// Offsets that are drawn together: large enough for a fetch to be worth it.
const BLOCK: i64 = 4_096;

/// How much is drawn, and how.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Of the offsets; more than 0, up to 100.
    pub percent: f64,
    /// Draws the same ranges again.
    pub seed: u64,
}

impl Sampling {
    /// About this percentage of a range, at least one block, in order, neighbours joined. `salt`
    /// tells partitions apart.
    pub(super) fn draw(self, range: Range<i64>, salt: u64) -> Vec<Range<i64>> {
        if range.is_empty() {
            return Vec::new();
        }
        let blocks = (range.end - range.start + BLOCK - 1) / BLOCK;
        let mut random = StdRng::seed_from_u64(self.seed ^ salt);
        let sure = random.random_range(0..blocks);
        let chance = (self.percent / 100.0).clamp(0.0, 1.0);
        let mut drawn: Vec<Range<i64>> = Vec::new();
        for block in 0..blocks {
            // Drawn for every block, so that one block's luck isn't another's.
            if !random.random_bool(chance) && block != sure {
                continue;
            }
            let from = range.start + block * BLOCK;
            let to = (from + BLOCK).min(range.end);
            match drawn.last_mut() {
                Some(last) if last.end == from => last.end = to,
                _ => drawn.push(from..to),
            }
        }
        drawn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampling(percent: f64, seed: u64) -> Sampling {
        Sampling { percent, seed }
    }

    #[test]
    fn the_share_is_about_what_was_asked_for() {
        let range = 1_000..1_000 + 1_000 * BLOCK;
        let drawn = sampling(10.0, 1).draw(range.clone(), 0);
        let share: i64 = drawn.iter().map(|range| range.end - range.start).sum();
        let share = share as f64 / (1_000 * BLOCK) as f64;
        assert!((0.06..0.14).contains(&share), "{share}");
        assert!(drawn.windows(2).all(|pair| pair[0].end < pair[1].start));
        assert_eq!(sampling(100.0, 1).draw(range.clone(), 0), [range]);
    }

    #[test]
    fn a_seed_draws_the_same_again_and_another_something_else() {
        let draw = |seed, salt| sampling(5.0, seed).draw(0..100 * BLOCK, salt);
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(3, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
    }

    #[test]
    fn something_is_drawn_of_every_partition() {
        let drawn = sampling(0.001, 9).draw(5..7, 0);
        assert_eq!((drawn.len(), &drawn[0]), (1, &(5..7)));
        assert_eq!(sampling(50.0, 9).draw(5..5, 0), []);
    }
}
