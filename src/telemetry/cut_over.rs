//! A cut-over that isn't finished: writers may be kept away while nobody goes on.

use serde::{Deserialize, Serialize};

use super::failover::{Check, Weight};
use super::utc;

/// The plan that is open, as the state topic knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenCutOver {
    /// Its id.
    pub plan: String,
    /// `planned`, `unplanned`, `failback` or `give_up`.
    pub kind: String,
    /// Since when, milliseconds since the epoch.
    pub began_ms: i64,
    /// The step at which it stands.
    pub step: String,
    /// Whether it is being undone.
    pub is_aborting: bool,
    /// Whether a command carries it out at this moment.
    pub is_carried_out: bool,
    /// The flow of the config that a command is to be told.
    pub flow: String,
}

impl OpenCutOver {
    /// What it is, in one line.
    pub fn in_words(&self) -> String {
        let what = match self.kind.as_str() {
            "failback" => "failback",
            "give_up" => "giving up of the standby",
            "unplanned" => "unplanned failover",
            _ => "failover",
        };
        let since = utc::to_the_second(self.began_ms);
        let state = match (self.is_aborting, self.is_carried_out) {
            (false, true) => "is under way",
            (true, true) => "is being undone",
            (false, false) => "isn't finished, and nobody goes on with it",
            (true, false) => "is half undone, and nobody goes on with that",
        };
        format!(
            "the {what} of {since} (plan {}) {state}; it stands at {}",
            self.plan, self.step
        )
    }

    /// The commands that bring it to an end.
    pub fn hint(&self) -> String {
        let flow = &self.flow;
        let command = match self.kind.as_str() {
            "failback" => format!("twinlog failback --flow {flow}"),
            "give_up" => format!("twinlog failback --flow {flow} --give-up"),
            _ => format!("twinlog failover --flow {flow}"),
        };
        if self.kind == "give_up" {
            return format!("`{command} --yes` goes on with it");
        }
        if self.is_aborting {
            return format!("`{command} --yes --abort` goes on with that");
        }
        let unplanned = match self.kind.as_str() {
            "unplanned" => " --unplanned",
            _ => "",
        };
        format!("`{command}{unplanned} --yes` goes on with it, `{command} --yes --abort` undoes it")
    }

    /// What it means for the next failover.
    pub fn check(&self) -> Check {
        let check = Check::new("cut_over", Weight::Warning, self.in_words());
        match self.is_carried_out {
            true => check,
            false => check.with_hint(self.hint()),
        }
    }

    /// Why the flow isn't ready, where nobody goes on with it.
    pub fn problem(&self) -> Option<String> {
        let text = || format!("{}: {}", self.in_words(), self.hint());
        (!self.is_carried_out).then(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_with_the_commands_that_end_it() {
        let open = OpenCutOver {
            plan: "p".to_owned(),
            kind: "unplanned".to_owned(),
            began_ms: 0,
            step: "bound_loss".to_owned(),
            flow: "dr".to_owned(),
            ..OpenCutOver::default()
        };
        assert_eq!(
            open.problem().unwrap_or_default(),
            "the unplanned failover of 1970-01-01T00:00:00Z (plan p) isn't finished, and nobody goes on with it; it \
             stands at bound_loss: `twinlog failover --flow dr --unplanned --yes` goes on with it, `twinlog failover \
             --flow dr --yes --abort` undoes it"
        );
        let carried_out = OpenCutOver {
            is_carried_out: true,
            ..open
        };
        assert_eq!(carried_out.problem(), None);
    }
}
