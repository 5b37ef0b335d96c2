//! What a rehearsal is called, and everything that it makes.
//!
//! All names begin with `__twinlog_drill.<id>.`: internal names, so no flow of a config copies them
//! in either direction, and no selector that anybody has written takes them.

use crate::config::DRILL_PREFIX;
use crate::telemetry::utc::to_the_second as utc;

/// A topic's name has no more letters.
const NAME_LETTERS_MAX: usize = 249;

/// The two ways that are rehearsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The source is reachable: on a topic of the rehearsal's own.
    Planned,
    /// The source is gone: on copies of the flow's topics.
    Unplanned,
}

impl Kind {
    /// The word for names and people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Unplanned => "unplanned",
        }
    }
}

/// The names of one rehearsal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    id: String,
}

impl Names {
    /// A new rehearsal's: its id begins with its date, `20261125T031500Z-1a2b`.
    pub fn new(began_ms: i64) -> Self {
        let date = utc(began_ms).replace(['-', ':'], "");
        let chance: u16 = rand::random();
        Self {
            id: format!("{date}-{chance:04x}"),
        }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What everything begins with, followed by a dot.
    pub fn root(&self) -> String {
        format!("{DRILL_PREFIX}{}", self.id)
    }

    /// The private flow of a kind of cut-over.
    pub fn flow(&self, kind: Kind) -> String {
        format!("{}.{}", self.root(), kind.word())
    }

    /// The topic that the rehearsal's own clients use on the source.
    pub fn canary(&self, kind: Kind) -> String {
        format!("{}.canary", self.flow(kind))
    }

    /// The group that reads it.
    pub fn readers(&self, kind: Kind) -> String {
        format!("{}.readers", self.flow(kind))
    }

    /// What the private flow's topics are called on the target.
    pub fn rename(&self, kind: Kind) -> String {
        match kind {
            Kind::Planned => "{topic}".to_owned(),
            Kind::Unplanned => format!("{}.{{topic}}", self.root()),
        }
    }

    /// The copy of a topic or a group.
    pub fn copy_of(&self, name: &str) -> String {
        format!("{}.{name}", self.root())
    }

    /// Whether a topic's copy can have a name.
    pub fn can_name_copy_of(&self, topic: &str) -> bool {
        self.copy_of(topic).len() <= NAME_LETTERS_MAX
    }
}

/// Whether a name was given by the rehearsal with this root.
pub fn is_under(root: &str, name: &str) -> bool {
    root.len() > DRILL_PREFIX.len()
        && root.starts_with(DRILL_PREFIX)
        && name
            .strip_prefix(root)
            .is_some_and(|rest| rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::is_internal_topic;

    #[test]
    fn everything_lies_under_the_root_and_is_internal() {
        let names = Names::new(1_795_576_500_000);
        assert!(names.id().starts_with("20261125T031500Z-"), "{names:?}");
        let root = names.root();
        for kind in [Kind::Planned, Kind::Unplanned] {
            for name in [names.flow(kind), names.canary(kind), names.readers(kind)] {
                assert!(is_under(&root, &name), "{name}");
                assert!(is_internal_topic(&name), "{name}");
            }
        }
        assert!(is_under(&root, &names.copy_of("orders")));
    }

    #[test]
    fn only_what_lies_under_a_root_of_ours_is_ours() {
        let root = "__twinlog_drill.20261125T031500Z-1a2b";
        assert!(is_under(
            root,
            "__twinlog_drill.20261125T031500Z-1a2b.orders"
        ));
        for name in [
            "orders",
            "__twinlog_state",
            root,
            "__twinlog_drill.20261125T031500Z-1a2b0.orders",
            "__twinlog_drill.20261125T031500Z-1a2c.orders",
        ] {
            assert!(!is_under(root, name), "{name}");
        }
        // A record that was damaged must not make everything ours.
        for root in ["", "orders", "__twinlog_drill.", "__twinlog_drill"] {
            assert!(!is_under(root, "orders.x"), "{root}");
            assert!(!is_under(root, "__twinlog_drill..x"), "{root}");
            assert!(!is_under(root, ".x"), "{root}");
        }
    }

    #[test]
    fn a_long_name_can_not_be_copied() {
        let names = Names::new(0);
        assert!(names.can_name_copy_of("orders"));
        assert!(!names.can_name_copy_of(&"x".repeat(NAME_LETTERS_MAX)));
    }
}
