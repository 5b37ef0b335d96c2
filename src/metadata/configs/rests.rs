//! What a copy's rules are made from. They are made when a topic is opened, and stay while it is: whoever changes one of
//! these settings on either side, also a broker's default of it, changes the rules.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use crate::wire::ConfigValues;

/// Settings of the copy.
const OF_TARGET: [&str; 7] = [
    "max.message.bytes",
    "segment.bytes",
    "cleanup.policy",
    "compression.type",
    // Below it nothing is appended, and what follows in a pipeline would get its offsets.
    "min.insync.replicas",
    "message.timestamp.type",
    "delete.retention.ms",
];
/// Settings of the source's topic.
const OF_SOURCE: [&str; 3] = [
    "cleanup.policy",
    // How long a tombstone is there to be copied.
    "delete.retention.ms",
    "remote.storage.enable",
];

/// Whether the copy's rules are made from this setting of the target topic.
pub(super) fn is_of_rules(key: &str) -> bool {
    OF_TARGET.contains(&key)
}

/// The values of all these settings, to be recognized again: another number, other rules.
pub fn fingerprint(source: &ConfigValues, target: &ConfigValues) -> u64 {
    let mut hasher = DefaultHasher::new();
    let sides = [(source, &OF_SOURCE[..]), (target, &OF_TARGET[..])];
    for (configs, keys) in sides {
        for key in keys {
            let value = configs.get(*key).and_then(|it| it.value.as_deref());
            value.hash(&mut hasher);
        }
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{ConfigSource, ConfigValue};

    fn values(of: &[(&str, &str)]) -> ConfigValues {
        let value = |value: &str| ConfigValue {
            value: Some(value.to_owned()),
            source: ConfigSource::Topic,
            sensitive: false,
            default: None,
        };
        let all = of.iter();
        all.map(|(key, it)| ((*key).to_owned(), value(it)))
            .collect()
    }

    #[test]
    fn the_settings_of_rules_are_recognized_on_the_side_that_they_are_of() {
        let of = |source: &[(&str, &str)], target: &[(&str, &str)]| {
            fingerprint(&values(source), &values(target))
        };
        let plain = of(&[], &[]);
        for key in OF_SOURCE {
            assert_ne!(of(&[(key, "1")], &[]), plain, "{key} of the source");
            assert_ne!(of(&[(key, "1")], &[]), of(&[(key, "2")], &[]), "{key}");
        }
        for key in OF_TARGET {
            assert_ne!(of(&[], &[(key, "1")]), plain, "{key} of the target");
        }
        assert_eq!(
            of(&[("retention.ms", "1")], &[("retention.ms", "2")]),
            plain
        );
        assert_ne!(
            of(&[("delete.retention.ms", "1")], &[]),
            of(&[], &[("delete.retention.ms", "1")])
        );
    }
}
