//! How a plan goes through its steps, forward and back. Pure.
//!
//! A step is idempotent: done twice it is done once. So a crash at any moment, also between doing
//! something and writing it down, is mended by doing the same step again.

use crate::state::{StepRecord, StepState};

/// A plan's steps, none of them begun.
pub fn steps(names: &[&str]) -> Vec<StepRecord> {
    names
        .iter()
        .map(|name| StepRecord {
            step: (*name).to_owned(),
            state: StepState::Pending,
            began_ms: 0,
            took_ms: 0,
            result: String::new(),
        })
        .collect()
}

/// The next step to do: the first that isn't done.
pub fn next(steps: &[StepRecord]) -> Option<usize> {
    steps.iter().position(|step| step.state != StepState::Done)
}

/// Whether there may be something of a step to undo.
pub fn may_have_done(step: &StepRecord) -> bool {
    !matches!(step.state, StepState::Pending | StepState::Undone)
}

/// The next step to undo: the last that may have done anything.
pub fn next_undo(steps: &[StepRecord]) -> Option<usize> {
    steps.iter().rposition(may_have_done)
}

/// Has these done again although they are done. There may be something of them to undo all the same.
pub fn again(steps: &mut [StepRecord], names: &[&str]) {
    for step in steps {
        if step.state == StepState::Done && names.contains(&&*step.step) {
            step.state = StepState::Doing;
        }
    }
}

/// Notes that a step is begun.
pub fn begin(step: &mut StepRecord, state: StepState, now_ms: i64) {
    step.state = state;
    step.began_ms = now_ms;
    step.took_ms = 0;
    step.result.clear();
}

/// Notes what became of it.
pub fn end(step: &mut StepRecord, state: StepState, now_ms: i64, result: String) {
    step.state = state;
    step.took_ms = u64::try_from(now_ms - step.began_ms).unwrap_or(0);
    step.result = result;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const NAMES: [&str; 6] = ["fence", "prove", "drain", "stop", "forks", "promote"];

    /// Where a process dies within a step.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Crash {
        /// Before the journal says that the step is begun.
        BeforeJournal,
        /// The journal says so; nothing was done.
        BeforeWork,
        /// It was done; the journal doesn't say so yet.
        AfterWork,
        /// Written down.
        AfterJournal,
    }

    const CRASHES: [Crash; 4] = [
        Crash::BeforeJournal,
        Crash::BeforeWork,
        Crash::AfterWork,
        Crash::AfterJournal,
    ];

    /// The journal, and what the steps have done to the clusters.
    #[derive(Clone, Debug, PartialEq, Eq)]
    struct World {
        steps: Vec<StepRecord>,
        effects: BTreeSet<String>,
    }

    impl World {
        fn new() -> Self {
            Self {
                steps: steps(&NAMES),
                effects: BTreeSet::new(),
            }
        }

        /// Goes on until the end or a crash; what was done so far stays.
        fn forward(&mut self, mut crash: impl FnMut(usize, Crash) -> bool) {
            while let Some(index) = next(&self.steps) {
                if crash(index, Crash::BeforeJournal) {
                    return;
                }
                begin(&mut self.steps[index], StepState::Doing, 0);
                if crash(index, Crash::BeforeWork) {
                    return;
                }
                // Every step relies on all before it.
                for name in &NAMES[..index] {
                    assert!(self.effects.contains(*name), "{name} was skipped");
                }
                self.effects.insert(NAMES[index].to_owned());
                if crash(index, Crash::AfterWork) {
                    return;
                }
                end(&mut self.steps[index], StepState::Done, 0, String::new());
                if crash(index, Crash::AfterJournal) {
                    return;
                }
            }
        }

        fn back(&mut self, mut crash: impl FnMut(usize, Crash) -> bool) {
            while let Some(index) = next_undo(&self.steps) {
                if crash(index, Crash::BeforeJournal) {
                    return;
                }
                begin(&mut self.steps[index], StepState::Undoing, 0);
                if crash(index, Crash::BeforeWork) {
                    return;
                }
                for name in &NAMES[index + 1..] {
                    assert!(!self.effects.contains(*name), "{name} is still done");
                }
                self.effects.remove(NAMES[index]);
                if crash(index, Crash::AfterWork) {
                    return;
                }
                end(&mut self.steps[index], StepState::Undone, 0, String::new());
                if crash(index, Crash::AfterJournal) {
                    return;
                }
            }
        }
    }

    fn at(step: usize, crash: Crash) -> impl Fn(usize, Crash) -> bool {
        move |index, moment| index == step && moment == crash
    }

    #[test]
    fn a_crash_at_any_moment_ends_as_if_there_was_none() {
        let mut whole = World::new();
        whole.forward(|_, _| false);
        assert_eq!(whole.effects.len(), NAMES.len());
        for (step, name) in NAMES.iter().enumerate() {
            for crash in CRASHES {
                let mut world = World::new();
                world.forward(at(step, crash));
                world.forward(|_, _| false);
                assert_eq!(world, whole, "crashed at {name} {crash:?}");
            }
        }
    }

    #[test]
    fn an_abort_undoes_every_prefix_whatever_crashes() {
        for step in 0..NAMES.len() {
            for crash in CRASHES {
                for undo_step in 0..NAMES.len() {
                    for undo_crash in CRASHES {
                        let mut world = World::new();
                        world.forward(at(step, crash));
                        world.back(at(undo_step, undo_crash));
                        world.back(|_, _| false);
                        assert!(world.effects.is_empty(), "{world:?}");
                        assert_eq!(next_undo(&world.steps), None);
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_done_again_is_undone_all_the_same() {
        let mut world = World::new();
        world.forward(at(4, Crash::BeforeJournal));
        again(&mut world.steps, &["fence", "drain", "promote"]);
        assert_eq!(next(&world.steps), Some(0));
        assert_eq!(world.steps[5].state, StepState::Pending, "never begun");
        world.back(|_, _| false);
        assert!(world.effects.is_empty(), "{world:?}");
    }

    proptest! {
        #[test]
        fn many_crashes_end_like_none(crashes in prop::collection::vec((0..6usize, 0..4usize), 0..12)) {
            let mut whole = World::new();
            whole.forward(|_, _| false);
            let mut world = World::new();
            for (step, crash) in crashes {
                world.forward(at(step, CRASHES[crash]));
            }
            world.forward(|_, _| false);
            prop_assert_eq!(world, whole);
        }
    }
}
