//! A Twinlog that lost its claim waits for its turn: it takes the flow over again when whoever has it
//! gives it back, is gone, or gives no sign of life.
//!
//! Nobody writes signs of life while nobody wants them. Who waits asks for one, in the state topic, and the
//! owner answers there at his next look at the claim. An answer that doesn't come may be under way: only
//! several questions that all stay open, each of which the state topic has taken, tell that the owner is
//! silent. Taking over from one who only seemed so does no harm: he is superseded as by any newer claim,
//! and waits for his turn in the same way.

use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::claim::{self, may_run, new_owner};
use super::error::FlowError;
use crate::environment::Machine;
use crate::state::{Beat, Claim, StateError, StateStore, Turn, keys};
use crate::wire::Cluster;

/// How often the claim is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(700);
/// How often the owner is asked for a sign of life; his answer has the same time.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// So many questions in a row without an answer, and the owner is silent.
const UNANSWERED_MAX: u32 = 3;
/// A claim that is given back may be taken again at once: by an owner who begins anew.
const GIVEN_BACK_LOOKS: u32 = 2;

/// Why it is our turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The owner gave the claim back.
    GivenBack,
    /// The owner ran on this machine, and its process is gone.
    Gone,
    /// The owner gives no sign of life.
    Silent,
}

impl Why {
    /// For the log.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::GivenBack => "it was given back",
            Self::Gone => "the process that had it is gone",
            Self::Silent => "the process that had it gives no sign of life",
        }
    }
}

/// What the state topic shows at one look.
#[derive(Clone, Copy, Debug)]
struct Shown<'a> {
    claim: Option<&'a Claim>,
    may_run: bool,
    beat: Option<&'a Beat>,
}

/// What the looks have shown so far.
#[derive(Debug, Default)]
struct Watch {
    owner: Option<Uuid>,
    beat: Option<u64>,
    given_back: u32,
    /// The last question has its answer, or was asked of another owner.
    is_answered: bool,
    unanswered: u32,
}

impl Watch {
    /// A question was asked.
    fn note_asked(&mut self) {
        self.is_answered = false;
    }

    /// Judges a look. `is_over` says that the last question has had its time for an answer.
    fn look(&mut self, shown: Shown<'_>, is_over: bool) -> Option<Why> {
        let Some(claim) = shown.claim else {
            return Some(Why::GivenBack);
        };
        let beat = shown.beat.filter(|beat| beat.owner == claim.owner);
        let beat = beat.map(|beat| beat.number);
        if self.owner != Some(claim.owner) || self.beat != beat {
            self.unanswered = 0;
            self.is_answered = true;
        } else if is_over && !self.is_answered {
            self.unanswered += 1;
        }
        (self.owner, self.beat) = (Some(claim.owner), beat);
        if claim.released {
            self.given_back += 1;
            return (self.given_back >= GIVEN_BACK_LOOKS).then_some(Why::GivenBack);
        }
        self.given_back = 0;
        if !shown.may_run {
            return Some(Why::Gone);
        }
        (self.unanswered >= UNANSWERED_MAX).then_some(Why::Silent)
    }
}

/// Waits until it is this process's turn. Nothing is done but to look, and to ask.
///
/// # Errors
/// When the state topic is lost, or a newer Twinlog has the flow.
pub async fn await_turn(
    flow: &str,
    target: &Cluster,
    machine: &dyn Machine,
) -> Result<Why, FlowError> {
    let mut store = None;
    let mut watch = Watch::default();
    let mut turn = Turn {
        v: 1,
        asker: new_owner(),
        number: 0,
    };
    let mut asked_at: Option<Instant> = None;
    loop {
        match look(&mut store, target, flow).await {
            Err(StateError::Lost(loss)) => return Err(FlowError::StateLost(loss.to_string())),
            // Whose turn it is can't be known any more.
            Err(error @ StateError::Newer { .. }) => {
                return Err(FlowError::StateNewer(error.to_string()));
            }
            // What can't be looked at says nothing: neither is a question open that nobody could read.
            Err(error) => {
                tracing::debug!(flow, %error, "the claim could not be looked at");
                asked_at = None;
            }
            Ok(None) => {}
            Ok(Some((claim, beat))) => {
                let is_over = asked_at.is_some_and(|at| at.elapsed() >= ASK_EVERY);
                let shown = Shown {
                    may_run: claim.as_ref().is_some_and(|claim| may_run(claim, machine)),
                    claim: claim.as_ref(),
                    beat: beat.as_ref(),
                };
                if let Some(why) = watch.look(shown, is_over) {
                    return Ok(why);
                }
                if asked_at.is_none() || is_over {
                    turn.number += 1;
                    watch.note_asked();
                    asked_at = ask(store.as_ref(), flow, &turn).await;
                }
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

type Seen = (Option<Claim>, Option<Beat>);

/// `None` while nobody has a state.
async fn look(
    store: &mut Option<StateStore>,
    target: &Cluster,
    flow: &str,
) -> Result<Option<Seen>, StateError> {
    match &store {
        Some(store) => store.refresh().await?,
        None => *store = StateStore::open_existing(target).await?,
    }
    let Some(store) = store else {
        return Ok(None);
    };
    let claim = claim::current(store, flow)?;
    Ok(Some((claim, store.get(&keys::beat(flow))?)))
}

/// When the question was asked, if it was.
async fn ask(store: Option<&StateStore>, flow: &str, turn: &Turn) -> Option<Instant> {
    let asked = store?.put(&keys::turn(flow), turn).await;
    asked.ok().map(|()| Instant::now())
}

/// What the owner has answered.
#[derive(Debug, Default)]
pub struct Answers {
    answered: Option<Turn>,
    number: u64,
}

impl Answers {
    /// The answer to the newest question, if that has none yet. One question is answered for all that ask
    /// at the same time.
    pub fn to(&self, asked: &Turn, owner: Uuid) -> Option<Beat> {
        (self.answered.as_ref() != Some(asked)).then_some(Beat {
            v: 1,
            owner,
            number: self.number + 1,
        })
    }

    /// The answer was given.
    pub fn note(&mut self, asked: Turn) {
        self.answered = Some(asked);
        self.number += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(owner: u128, released: bool) -> Claim {
        Claim {
            v: 1,
            owner: Uuid::from_u128(owner),
            host: "b/2".to_owned(),
            pid: 9,
            claimed_at_ms: 0,
            released,
            remembers_groups: false,
            left_open: false,
            role_plan: None,
            generation: 1,
            pace_ms: 0,
        }
    }

    fn beat(owner: u128, number: u64) -> Beat {
        Beat {
            v: 1,
            owner: Uuid::from_u128(owner),
            number,
        }
    }

    fn shown<'a>(claim: &'a Claim, beat: Option<&'a Beat>) -> Shown<'a> {
        Shown {
            claim: Some(claim),
            may_run: true,
            beat,
        }
    }

    #[test]
    fn only_an_owner_who_answers_none_of_several_questions_is_silent() {
        let (claim, mut watch) = (claim(1, false), Watch::default());
        let beats: Vec<Beat> = (1..4).map(|number| beat(1, number)).collect();
        assert_eq!(watch.look(shown(&claim, None), true), None, "first seen");
        let mut last = None;
        for beat in &beats {
            for _ in 1..UNANSWERED_MAX {
                watch.note_asked();
                assert_eq!(watch.look(shown(&claim, last), false), None, "has its time");
                assert_eq!(watch.look(shown(&claim, last), true), None);
            }
            watch.note_asked();
            last = Some(beat);
            assert_eq!(watch.look(shown(&claim, last), false), None, "answered");
            assert_eq!(watch.look(shown(&claim, last), true), None);
        }
        for _ in 1..UNANSWERED_MAX {
            watch.note_asked();
            assert_eq!(watch.look(shown(&claim, last), true), None);
        }
        watch.note_asked();
        assert_eq!(watch.look(shown(&claim, last), true), Some(Why::Silent));
    }

    #[test]
    fn an_answer_of_another_owner_is_none_and_a_new_owner_has_his_own_time() {
        let (old, new, mut watch) = (claim(1, false), claim(2, false), Watch::default());
        let of_old = [1, 2, 3, 4, 5].map(|number| beat(1, number));
        let mut look = |claim: &Claim, number: usize| {
            watch.note_asked();
            watch.look(shown(claim, Some(&of_old[number])), true)
        };
        assert_eq!(look(&old, 0), None);
        assert_eq!(look(&old, 0), None);
        assert_eq!(look(&new, 1), None);
        assert_eq!(look(&new, 2), None);
        assert_eq!(look(&new, 3), None);
        assert_eq!(look(&new, 4), Some(Why::Silent));
    }

    #[test]
    fn a_claim_that_is_given_back_has_a_moment_to_be_taken_again() {
        let (back, mut watch) = (claim(1, true), Watch::default());
        assert_eq!(watch.look(shown(&back, None), false), None);
        assert_eq!(watch.look(shown(&claim(1, false), None), false), None);
        assert_eq!(watch.look(shown(&back, None), false), None);
        assert_eq!(watch.look(shown(&back, None), false), Some(Why::GivenBack));
    }

    #[test]
    fn an_owner_of_this_machine_whose_process_is_gone_is_not_asked() {
        let (claim, mut watch) = (claim(1, false), Watch::default());
        let gone = Shown {
            may_run: false,
            ..shown(&claim, None)
        };
        assert_eq!(watch.look(gone, false), Some(Why::Gone));
    }

    #[test]
    fn each_question_is_answered_once() {
        let turn = |number| Turn {
            v: 1,
            asker: Uuid::from_u128(7),
            number,
        };
        let (mut answers, owner) = (Answers::default(), Uuid::from_u128(1));
        assert_eq!(answers.to(&turn(1), owner), Some(beat(1, 1)));
        assert_eq!(answers.to(&turn(1), owner), Some(beat(1, 1)), "not given");
        answers.note(turn(1));
        assert_eq!(answers.to(&turn(1), owner), None);
        assert_eq!(answers.to(&turn(2), owner), Some(beat(1, 2)));
    }
}
