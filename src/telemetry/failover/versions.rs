//! What the brokers of both clusters can do, and what that means for a failover. Pure.

use std::collections::BTreeMap;

use super::check::{Check, Weight};
use super::facts::GroupFacts;

/// What a cluster can do, as one of its brokers tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// Calls that are needed and missing or too old, such as `Fetch 13 (Kafka 3.1)`.
    pub missing: Vec<String>,
    /// Finalized features by name, such as `metadata.version`.
    pub features: BTreeMap<String, i16>,
}

impl Abilities {
    fn level(&self, feature: &str) -> i16 {
        self.features.get(feature).copied().unwrap_or(0)
    }
}

/// The features whose level clients may notice, and what is missing without them.
const NOTICED: [(&str, &str); 2] = [
    (
        "metadata.version",
        "the standby runs an older metadata.version",
    ),
    (
        "transaction.version",
        "the standby has an older transaction protocol; clients agree on it by themselves",
    ),
];

/// Judges what both clusters can do. `groups` are the source's.
pub fn ability_checks(
    source: Option<&Abilities>,
    standby: Option<&Abilities>,
    groups: Option<&GroupFacts>,
) -> Vec<Check> {
    let mut checks = Vec::new();
    let named = [("the source", source), ("the standby", standby)];
    for (who, abilities) in named {
        let missing = abilities.map_or(&[][..], |abilities| &abilities.missing);
        if !missing.is_empty() {
            let reason = format!("{who} doesn't speak {}", missing.join(", "));
            let hint = "upgrade its brokers";
            checks.push(Check::new("versions", Weight::Blocker, reason).with_hint(hint));
        }
    }
    let Some(standby) = standby else {
        return checks;
    };
    let groups = groups.cloned().unwrap_or_default();
    // A feature that nobody uses stands in nobody's way.
    for (feature, count, what, hint) in [
        (
            "group.version",
            groups.new_protocol,
            "group(s) use the consumer protocol (KIP-848), which the standby doesn't have",
            "set `group.protocol=classic` for their consumers there, or upgrade group.version",
        ),
        (
            "share.version",
            groups.share,
            "share group(s) have nobody to coordinate them on the standby",
            "upgrade share.version there",
        ),
    ] {
        if count > 0 && standby.level(feature) == 0 {
            let reason = format!("{count} {what}");
            checks.push(Check::new("versions", Weight::Warning, reason).with_hint(hint));
        }
    }
    let Some(source) = source else {
        return checks;
    };
    for (feature, what) in NOTICED {
        let (from, to) = (source.level(feature), standby.level(feature));
        // Without a level nothing is known: such brokers don't tell.
        if from > 0 && to > 0 && to < from {
            let reason = format!("{what} ({feature} {to}, the source {from})");
            let hint = "keep clients to what both clusters have";
            checks.push(Check::new("versions", Weight::Warning, reason).with_hint(hint));
        }
    }
    if checks.is_empty() {
        let reason = "both clusters have what it takes";
        checks.push(Check::new("versions", Weight::Ok, reason));
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(features: &[(&str, i16)]) -> Abilities {
        let features = features.iter();
        Abilities {
            missing: Vec::new(),
            features: features
                .map(|(name, level)| ((*name).to_owned(), *level))
                .collect(),
        }
    }

    fn weights(source: &Abilities, standby: &Abilities, groups: &GroupFacts) -> Vec<Weight> {
        let checks = ability_checks(Some(source), Some(standby), Some(groups));
        checks.iter().map(|check| check.weight).collect()
    }

    #[test]
    fn what_cannot_copy_blocks_and_names_the_call() {
        let old = Abilities {
            missing: vec!["Fetch 13 (Kafka 3.1)".to_owned()],
            ..Abilities::default()
        };
        let checks = ability_checks(Some(&old), Some(&Abilities::default()), None);
        assert_eq!(checks[0].weight, Weight::Blocker);
        assert!(
            checks[0]
                .reason
                .contains("the source doesn't speak Fetch 13")
        );
    }

    #[test]
    fn a_feature_counts_only_where_somebody_uses_it() {
        let new = cluster(&[
            ("metadata.version", 25),
            ("group.version", 1),
            ("share.version", 1),
        ]);
        let old = cluster(&[("metadata.version", 25)]);
        let nobody = GroupFacts::default();
        let users = GroupFacts {
            new_protocol: 2,
            share: 1,
            ..GroupFacts::default()
        };
        assert_eq!(weights(&new, &old, &nobody), [Weight::Ok]);
        assert_eq!(weights(&new, &old, &users), [Weight::Warning; 2]);
        assert_eq!(weights(&old, &new, &users), [Weight::Ok]);
    }

    #[test]
    fn an_older_standby_warns_and_a_silent_one_does_not() {
        let nobody = GroupFacts::default();
        let level = |level| cluster(&[("metadata.version", level)]);
        assert_eq!(weights(&level(25), &level(20), &nobody), [Weight::Warning]);
        assert_eq!(weights(&level(20), &level(25), &nobody), [Weight::Ok]);
        assert_eq!(weights(&level(25), &cluster(&[]), &nobody), [Weight::Ok]);
    }
}
