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
pub(super) mod share_groups;
mod start;
mod stop;
mod unfence;

pub(super) use bound::{ASKED, Found, UNCOPIED, add_uncopied, gone, look as bound_now};
pub use groups::GroupsResult;
pub(super) use prove::UNTOLD_TRANSACTIONS;
pub(super) use stop::say_what_is_left;

use std::time::Duration;

use super::context::Cutover;
use super::error::CutoverError;
use crate::state::CutoverKind;

/// So long is waited for connections.
const CONNECTED_WITHIN: Duration = Duration::from_secs(5);

/// Asks once what the steps ask while writers are kept away: each connection to a broker that they need is open then,
/// and who coordinates a group is known. What doesn't answer in time is told by the step that needs it.
pub(super) async fn connect(it: &Cutover) {
    let asked = async {
        tokio::join!(
            prove::connect(it),
            forks::connect(it),
            groups::connect(&it.scene),
            release::connect(it),
        );
    };
    let _ = tokio::time::timeout(CONNECTED_WITHIN, asked).await;
}

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

    /// Whether the note that it is begun is written with the first thing that it changes, which is in the state topic
    /// as well.
    pub fn writes_its_begin(self) -> bool {
        matches!(self, Self::Stop | Self::Forks | Self::Promote)
    }

    /// Whether the note that it is begun is written with the last thing that the step before it writes: nothing comes
    /// between them, and whoever finds the note alone finds nothing to undo.
    pub fn is_begun_ahead(self) -> bool {
        matches!(self, Self::Release)
    }

    /// The step of that name.
    pub fn named(name: &str) -> Option<Self> {
        ALL.into_iter().find(|step| step.name() == name)
    }

    /// What it does, for the plan.
    pub fn in_words(self, from: &str, to: &str) -> String {
        let words = match self {
            Self::Fence => return format!("keep writers from {from}'s topics"),
            Self::Promote => return format!("make {to} the primary"),
            Self::Unfence => return format!("let writers in on {to}"),
            Self::Resume => return format!("let {from} follow again"),
            Self::Prove => "prove that nothing is written there any more",
            Self::Drain => "copy the rest",
            Self::Stop => "stop copying",
            Self::Groups => "bring every group to its next record",
            Self::Bound => "bound what is missing",
            Self::Forks => "record where the logs part",
            Self::Pad => "pass the offsets that the old primary may have",
            Self::Release => "apply what was held for this moment: ACLs, quotas, configs",
            Self::Start => "copy what is new back, behind the forks",
            Self::CatchUp => "wait until little is left",
            Self::HandBack => "make the old primary the primary again",
            Self::Lift => "let writers in there",
        };
        words.to_owned()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failback_names_the_clusters_the_other_way_round() {
        let words = |step: Step| step.in_words("standby", "primary");
        assert_eq!(words(Step::Fence), "keep writers from standby's topics");
        assert_eq!(words(Step::Promote), "make primary the primary");
        assert_eq!(words(Step::Resume), "let standby follow again");
    }
}
