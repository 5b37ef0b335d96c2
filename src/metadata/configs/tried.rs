//! What was tried a moment ago, and isn't tried again yet.

use std::collections::{HashMap, HashSet};

use tokio::time::{Duration, Instant};

use super::decide::Change;
use crate::metadata::context::MirroredTopic;
use crate::metadata::pass::Refused;
use crate::wire::ConfigValues;

/// How long a change that was accepted may take until the brokers show it: much less than what is
/// promised for a change, since it may have been undone meanwhile.
const SETTLE_MIN: Duration = Duration::from_secs(2);
/// How much longer for each key that was changed in the same pass.
const SETTLE_PER_KEY: Duration = Duration::from_millis(2);
const SETTLE_MAX: Duration = Duration::from_secs(30);

/// What a change may not be tried for.
#[derive(Debug, Default)]
pub(super) struct Tried {
    /// It was refused a moment ago.
    pub(super) refused: Refused,
    /// It was accepted a moment ago: the controller has it, and the brokers take it in one after
    /// the other. With thousands of changes that takes seconds; asking for all of them again
    /// would only make it longer.
    accepted: HashMap<String, Accepted>,
}

#[derive(Debug)]
struct Accepted {
    until: Instant,
    /// What the target had before: its value, and whether that was an override. Whoever shows
    /// anything else has taken the change in, and somebody has changed it since.
    before: (Option<String>, bool),
}

impl Tried {
    /// Forgets all changes but those that are still wanted.
    pub(super) fn keep(&mut self, wanted: &HashSet<String>) {
        self.refused.keep(|change| wanted.contains(change));
        self.accepted.retain(|change, _| wanted.contains(change));
    }

    /// A change was accepted, in a pass with this many keys to change.
    pub(super) fn accept(&mut self, topic: &MirroredTopic, change: &Change, keys: usize) {
        self.accept_at(topic, change, keys, Instant::now());
    }

    fn accept_at(&mut self, topic: &MirroredTopic, change: &Change, keys: usize, now: Instant) {
        let keys = u32::try_from(keys).unwrap_or(u32::MAX);
        let settle = SETTLE_MIN.saturating_add(SETTLE_PER_KEY.saturating_mul(keys));
        let accepted = Accepted {
            until: now + settle.min(SETTLE_MAX),
            before: shown(change),
        };
        self.accepted.insert(name_of(topic, change), accepted);
    }

    /// Whether the change was accepted and the target may just not show it yet.
    pub(super) fn settles(&self, topic: &MirroredTopic, change: &Change) -> bool {
        self.settles_at(topic, change, Instant::now())
    }

    fn settles_at(&self, topic: &MirroredTopic, change: &Change, now: Instant) -> bool {
        let accepted = self.accepted.get(&name_of(topic, change));
        accepted.is_some_and(|accepted| now < accepted.until && accepted.before == shown(change))
    }
}

impl Tried {
    /// Whether the target refused a topic's value of a key as the source has it.
    pub(super) fn is_refused(
        &self,
        topic: &MirroredTopic,
        key: &str,
        source: &ConfigValues,
    ) -> bool {
        let value = source.get(key).and_then(|it| it.value.as_deref());
        value.is_some_and(|value| self.refused.is_known(&name(topic, key, Some(value))))
    }
}

fn shown(change: &Change) -> (Option<String>, bool) {
    (change.target.clone(), change.replaces)
}

/// The text by which a change that was tried is known.
pub(super) fn name_of(topic: &MirroredTopic, change: &Change) -> String {
    name(topic, &change.key, change.value.as_deref())
}

fn name(topic: &MirroredTopic, key: &str, value: Option<&str>) -> String {
    let topic = &topic.target_topic;
    match value {
        Some(value) => format!("{topic} {key}={value}"),
        None => format!("{topic} -{key}"),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::super::needs::Needs;
    use super::*;

    fn topic() -> MirroredTopic {
        MirroredTopic {
            source_topic: "orders".to_owned(),
            source_id: Uuid::nil(),
            target_topic: "orders".to_owned(),
            target_id: Uuid::nil(),
            target_replicas: Some(1),
            was_there: false,
            needs: Needs::default(),
        }
    }

    /// To 2000, where the target shows this.
    fn change(shown: &str, is_override: bool) -> Change {
        Change {
            key: "segment.ms".to_owned(),
            value: Some("2000".to_owned()),
            source: Some("2000".to_owned()),
            target: Some(shown.to_owned()),
            replaces: is_override,
            why: None,
        }
    }

    #[test]
    fn what_was_accepted_waits_for_the_brokers_and_not_for_ever() {
        let (mut tried, now) = (Tried::default(), Instant::now());
        let after = |ms: u64| now + Duration::from_millis(ms);
        assert!(!tried.settles_at(&topic(), &change("1000", true), now));
        tried.accept_at(&topic(), &change("1000", true), 1, now);
        assert!(tried.settles_at(&topic(), &change("1000", true), after(2_001)));
        assert!(!tried.settles_at(&topic(), &change("1000", true), after(2_002)));
        // Thousands take longer, and not for ever either.
        tried.accept_at(&topic(), &change("1000", true), 5_000, now);
        assert!(tried.settles_at(&topic(), &change("1000", true), after(11_999)));
        assert!(!tried.settles_at(&topic(), &change("1000", true), after(12_000)));
        tried.accept_at(&topic(), &change("1000", true), usize::MAX, now);
        assert!(tried.settles_at(&topic(), &change("1000", true), after(29_999)));
        assert!(!tried.settles_at(&topic(), &change("1000", true), after(30_000)));
    }

    #[test]
    fn what_somebody_changed_right_behind_is_changed_back_at_once() {
        let (mut tried, now) = (Tried::default(), Instant::now());
        tried.accept_at(&topic(), &change("1000", true), 1, now);
        assert!(!tried.settles_at(&topic(), &change("5", true), now));
        assert!(!tried.settles_at(&topic(), &change("1000", false), now));
    }

    #[test]
    fn what_nobody_wants_any_more_is_forgotten() {
        let (mut tried, now) = (Tried::default(), Instant::now());
        let change = change("1000", true);
        tried.accept_at(&topic(), &change, 1, now);
        tried.keep(&HashSet::from([name_of(&topic(), &change)]));
        assert!(tried.settles_at(&topic(), &change, now));
        tried.keep(&HashSet::new());
        assert!(!tried.settles_at(&topic(), &change, now));
    }
}
