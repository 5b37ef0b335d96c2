//! Expected failures: green only as long as what is known to be broken is, and in the way that is known.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::known::{Known, known};
use super::model::Violation;

/// So many seeds are tried until one shows it.
const SEEDS: u64 = 5;

/// How one run of a hunt ended.
type Outcome = Result<Vec<Violation>, String>;

/// Hunts for something that is known to be broken. `scenario` plays it with a seed and says what the
/// model found; it panics when it doesn't get to its point.
///
/// # Panics
/// When it isn't found any more, or something else is.
pub fn expected_failure(id: &str, scenario: impl Fn(u64) -> Vec<Violation>) {
    hunt(known(id), scenario);
}

fn hunt(known: &Known, scenario: impl Fn(u64) -> Vec<Violation>) {
    let id = known.id;
    let mut outcomes = Vec::new();
    for seed in 1..=SEEDS {
        let outcome = catch_unwind(AssertUnwindSafe(|| scenario(seed)));
        let outcome = outcome.map_err(|panic| text_of(panic.as_ref()));
        let is_enough = outcome.as_ref().map_or(true, |it| !it.is_empty());
        outcomes.push((seed, outcome));
        if is_enough {
            break;
        }
    }
    match verdict(known, &outcomes) {
        Ok(shown) => println!("{id} as known, {}: {shown}", known.says),
        Err(problem) => panic!("{problem}"),
    }
}

/// What a hunt's outcomes mean: what was shown, or why the test is red.
fn verdict(known: &Known, outcomes: &[(u64, Outcome)]) -> Result<String, String> {
    let id = known.id;
    for (seed, outcome) in outcomes {
        let violations = match outcome {
            Ok(violations) => violations,
            Err(panic) => return Err(format!("{id}, seed {seed}: not at its point: {panic}")),
        };
        let allowed: BTreeSet<_> = known.also.iter().chain([&known.shows]).collect();
        let other = violations.iter().find(|it| !allowed.contains(&it.kind));
        if let Some(other) = other {
            return Err(format!(
                "{id}, seed {seed}: {:?} was expected, but the model found {other}",
                known.shows
            ));
        }
        if let Some(shown) = violations.iter().find(|it| it.kind == known.shows) {
            return Ok(shown.to_string());
        }
        if let Some(other) = violations.first() {
            return Err(format!(
                "{id}, seed {seed}: {:?} was expected, but there is only {other}",
                known.shows
            ));
        }
    }
    Err(format!(
        "{id} no longer fails: remove it from known.rs, and let its hunt hold"
    ))
}

/// What a scenario without its fault must be.
///
/// # Panics
/// When the model finds anything.
pub fn holds(what: &str, violations: &[Violation]) {
    let lines: Vec<String> = violations.iter().map(Violation::to_string).collect();
    assert!(violations.is_empty(), "{what}:\n{}", lines.join("\n"));
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without words").to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::model::Kind;
    use super::*;

    const EXAMPLE: Known = Known {
        id: "X1",
        says: "what is only an example goes wrong",
        shows: Kind::RecordMissing,
        also: &[Kind::RecordDoubled],
    };

    fn one(kind: Kind) -> Outcome {
        let text = "t-0".to_owned();
        Ok(vec![Violation { kind, text }])
    }

    fn red(outcomes: &[(u64, Outcome)]) -> String {
        verdict(&EXAMPLE, outcomes).expect_err("red")
    }

    #[test]
    fn the_known_violation_is_green_also_with_a_later_seed() {
        let outcomes = [(1, Ok(Vec::new())), (2, one(Kind::RecordMissing))];
        assert_eq!(
            verdict(&EXAMPLE, &outcomes),
            Ok("RecordMissing: t-0".to_owned())
        );
    }

    #[test]
    fn a_pass_by_surprise_is_red() {
        let problem = red(&[(1, Ok(Vec::new())), (2, Ok(Vec::new()))]);
        assert!(problem.contains("X1 no longer fails"), "{problem}");
    }

    #[test]
    fn another_violation_is_red() {
        let problem = red(&[(1, one(Kind::GroupBeyond))]);
        assert!(problem.contains("GroupBeyond"), "{problem}");
        let both: Vec<Violation> = [Kind::RecordMissing, Kind::GroupBeyond]
            .into_iter()
            .flat_map(|kind| one(kind).expect("violations"))
            .collect();
        red(&[(1, Ok(both))]);
    }

    #[test]
    fn a_consequence_alone_is_red() {
        let problem = red(&[(1, one(Kind::RecordDoubled))]);
        assert!(problem.contains("there is only"), "{problem}");
    }

    #[test]
    fn a_panic_is_red() {
        let problem = red(&[(1, Err("no leader".to_owned()))]);
        assert!(problem.contains("not at its point: no leader"), "{problem}");
    }

    #[test]
    #[should_panic(expected = "not at its point: the broker never forgot")]
    fn a_panic_in_a_scenario_is_caught_and_told() {
        hunt(&EXAMPLE, |_| panic!("the broker never forgot"));
    }

    #[test]
    #[should_panic(expected = "Z9 isn't known any more")]
    fn a_hunt_without_an_entry_is_red() {
        expected_failure("Z9", |_| Vec::new());
    }
}
