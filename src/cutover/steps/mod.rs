//! The steps of a plan, one file each. Every one can be done twice, and undone.

mod bar;
mod behind;
mod bound;
mod catch_up;
mod drain;
mod everywhere;
mod fence;
mod forks;
mod groups;
mod hand_back;
mod lift;
mod markers;
mod pad;
pub mod promote;
mod prove;
pub mod release;
mod resume;
mod share_groups;
mod start;
mod stop;
mod unfence;

pub(super) use bound::{Found, look as bound_now};
pub use groups::GroupsResult;
pub(super) use stop::say_what_is_left;

use super::context::Cutover;
use super::error::CutoverError;
use crate::state::CutoverKind;

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// What is new on the source is copied back, behind the forks.
    Start,
    /// The copy back has nearly caught up.
    CatchUp,
    /// Writers are kept from the source.
    Fence,
    /// Nothing is written any more.
    Prove,
    /// The copy reaches the source's ends.
    Drain,
    /// Nobody copies any more.
    Stop,
    /// Groups are where they were.
    Groups,
    /// How much is missing is within what is accepted.
    Bound,
    /// Where the logs part is recorded.
    Forks,
    /// Offsets that the old primary may have are passed.
    Pad,
    /// What was held for this moment is applied.
    Release,
    /// Nobody is kept from the old primary any more.
    Unfence,
    /// The target is the primary.
    Promote,
    /// The flow that was failed over copies again.
    Resume,
    /// The old primary is the primary, whatever a dead standby said.
    HandBack,
    /// Nobody is kept from it any more.
    Lift,
}

/// All steps.
const ALL: [Step; 16] = [
    Step::Start,
    Step::CatchUp,
    Step::Fence,
    Step::Prove,
    Step::Drain,
    Step::Stop,
    Step::Groups,
    Step::Bound,
    Step::Forks,
    Step::Pad,
    Step::Release,
    Step::Unfence,
    Step::Promote,
    Step::Resume,
    Step::HandBack,
    Step::Lift,
];

impl Step {
    /// The steps of a kind of plan. Groups come after the stop: nobody else commits for them then,
    /// and maps are stored to their last offset.
    pub fn of(kind: CutoverKind) -> &'static [Self] {
        match kind {
            CutoverKind::Planned => &[
                Self::Fence,
                Self::Prove,
                Self::Drain,
                Self::Stop,
                Self::Groups,
                Self::Forks,
                Self::Release,
                Self::Promote,
            ],
            CutoverKind::Unplanned => &[
                Self::Stop,
                Self::Bound,
                Self::Forks,
                Self::Pad,
                Self::Release,
                Self::Promote,
            ],
            CutoverKind::Failback => &[
                Self::Start,
                Self::CatchUp,
                Self::Fence,
                Self::Prove,
                Self::Drain,
                Self::Stop,
                Self::Groups,
                Self::Forks,
                Self::Release,
                Self::Unfence,
                Self::Promote,
                Self::Resume,
            ],
        }
    }

    /// Its name in the journal.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fence => "fence",
            Self::Prove => "prove",
            Self::Drain => "drain",
            Self::Stop => "stop_copying",
            Self::Groups => "groups",
            Self::Bound => "bound_loss",
            Self::Forks => "forks",
            Self::Pad => "pad",
            Self::Release => "release",
            Self::Promote => "promote",
            Self::Start => "copy_back",
            Self::CatchUp => "catch_up",
            Self::Unfence => "unfence",
            Self::Resume => "resume",
            Self::HandBack => "hand_back",
            Self::Lift => "lift_fence",
        }
    }

    /// Whether it leaves something that an abort has to undo.
    pub fn changes_something(self) -> bool {
        !matches!(
            self,
            Self::CatchUp | Self::Prove | Self::Drain | Self::Groups | Self::Bound
        )
    }

    /// The step of that name.
    pub fn named(name: &str) -> Option<Self> {
        ALL.into_iter().find(|step| step.name() == name)
    }

    /// What it does, for the plan.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Fence => "keep writers from the source's topics",
            Self::Prove => "prove that nothing is written there any more",
            Self::Drain => "copy the rest",
            Self::Stop => "stop copying",
            Self::Groups => "bring every group to its next record",
            Self::Bound => "bound what is missing",
            Self::Forks => "record where the logs part",
            Self::Pad => "pass the offsets that the old primary may have",
            Self::Release => "apply what was held for this moment: ACLs, quotas, configs",
            Self::Promote => "make the target the primary",
            Self::Start => "copy what is new back, behind the forks",
            Self::CatchUp => "wait until little is left",
            Self::Unfence => "let writers in on the old primary",
            Self::Resume => "let the old standby follow again",
            Self::HandBack => "make the old primary the primary again",
            Self::Lift => "let writers in there",
        }
    }

    /// Does it; done twice it is done once. What came out, in a line.
    ///
    /// # Errors
    /// When it isn't done; it may be done in part.
    pub async fn apply(self, it: &mut Cutover) -> Result<String, CutoverError> {
        match self {
            Self::Fence => fence::apply(it).await,
            Self::Prove => prove::apply(it).await,
            Self::Drain => drain::apply(it).await,
            Self::Stop => stop::apply(it).await,
            Self::Groups => groups::apply(it).await,
            Self::Bound => bound::apply(it).await,
            Self::Forks => forks::apply(it).await,
            Self::Pad => pad::apply(it).await,
            Self::Release => release::apply(it).await,
            Self::Promote => promote::apply(it).await,
            Self::Start => start::apply(it).await,
            Self::CatchUp => catch_up::apply(it).await,
            Self::Unfence => unfence::apply(it).await,
            Self::Resume => resume::apply(it).await,
            Self::HandBack => hand_back::apply(it).await,
            Self::Lift => lift::apply(it).await,
        }
    }

    /// Undoes it, as far as it was done.
    ///
    /// # Errors
    /// When it isn't undone, or can't be.
    pub async fn undo(self, it: &mut Cutover) -> Result<String, CutoverError> {
        match self {
            Self::Fence => fence::undo(it).await,
            Self::Stop => stop::undo(it).await,
            Self::Forks => forks::undo(it).await,
            Self::Pad => pad::undo(it),
            Self::Release => release::undo(it).await,
            Self::Promote => promote::undo(it).await,
            Self::Start => start::undo(it).await,
            Self::Unfence => unfence::undo(it).await,
            Self::Resume => resume::undo(),
            Self::HandBack | Self::Lift => hand_back::undo(),
            // They change nothing, or nothing that copying on doesn't mend.
            Self::CatchUp | Self::Prove | Self::Drain | Self::Groups | Self::Bound => {
                Ok(String::new())
            }
        }
    }
}
