//! A seed makes a sequence of actions. Pure: what happens never depends on what happened.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::actions::{Action, WEIGHTS};

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// How long after the step before.
    pub pause_ms: u64,
    /// What.
    pub action: Action,
}

/// An endless sequence of steps.
#[derive(Debug)]
pub struct Schedule {
    dice: StdRng,
    /// The kinds that are taken; the others are left out. Empty: all.
    only: Vec<String>,
}

impl Schedule {
    /// That of this seed. With `only`, the same without the other kinds.
    ///
    /// # Panics
    /// When one of `only` is no kind of action.
    pub fn new(seed: u64, only: Vec<String>) -> Self {
        for kind in &only {
            let known = WEIGHTS.map(|(kind, _)| kind);
            assert!(
                known.contains(&kind.as_str()),
                "{kind} is none of {known:?}"
            );
        }
        Self {
            dice: StdRng::seed_from_u64(seed),
            only,
        }
    }
}

impl Iterator for Schedule {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        loop {
            // Often close together, so that one thing happens in the middle of another.
            let pause_ms = match self.dice.random_bool(0.4) {
                true => self.dice.random_range(50..1_000),
                false => self.dice.random_range(1_000..7_000),
            };
            let action = Action::random(&mut self.dice);
            let taken = self.only.iter().any(|kind| kind == action.kind());
            if self.only.is_empty() || taken {
                return Some(Step { pause_ms, action });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::chaos::actions::NODES;

    fn steps(seed: u64, count: usize) -> Vec<Step> {
        Schedule::new(seed, Vec::new()).take(count).collect()
    }

    #[test]
    fn a_seed_is_a_sequence_of_actions() {
        assert_eq!(steps(7, 500), steps(7, 500));
        assert_ne!(steps(7, 500), steps(8, 500));
        // A longer run begins like a shorter one.
        assert_eq!(steps(7, 500)[..100], steps(7, 100));
    }

    #[test]
    fn every_kind_happens_about_as_often_as_its_weight_says() {
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        for step in steps(1, 20_000) {
            *counts.entry(step.action.kind()).or_default() += 1;
        }
        let sum: u32 = WEIGHTS.iter().map(|(_, weight)| weight).sum();
        for (kind, weight) in WEIGHTS {
            let expected = 20_000 * weight / sum;
            let count = counts[kind];
            assert!(
                (expected * 3 / 4..expected * 5 / 4).contains(&count),
                "{kind}: {count}, not {expected}"
            );
        }
    }

    #[test]
    fn what_lasts_ends_soon_and_what_is_hurt_exists() {
        for step in steps(3, 20_000) {
            assert!(step.action.lasts_ms() < 45_000, "{step:?}");
            assert!((50..7_000).contains(&step.pause_ms));
            if let Action::KillBroker { node, .. }
            | Action::StopBroker { node, .. }
            | Action::FreezeBroker { node, .. }
            | Action::StallLine { node, .. } = step.action
            {
                assert!((1..=NODES).contains(&node));
            }
        }
    }

    /// A failure is reduced by leaving kinds out: the others stay as they were.
    #[test]
    fn kinds_can_be_left_out() {
        let only = ["kill-twinlog".to_owned(), "cut-line".to_owned()];
        let left: Vec<Action> = Schedule::new(9, only.to_vec())
            .map(|step| step.action)
            .take(50)
            .collect();
        let all = steps(9, 10_000);
        let filtered = all.iter().map(|step| step.action);
        let filtered = filtered.filter(|action| only.iter().any(|kind| kind == action.kind()));
        assert_eq!(left, filtered.take(50).collect::<Vec<_>>());
    }
}
