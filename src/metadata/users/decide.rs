//! Which users can log in on the source and not on the target. Pure.

use crate::wire::{ScramMechanism, ScramUsers};

/// A way in that the target lacks, or a weaker one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub user: String,
    pub mechanism: ScramMechanism,
    /// Iterations on the source.
    pub source: i32,
    /// Iterations on the target, where the user can log in there in this way.
    pub target: Option<i32>,
}

/// What the target lacks, without Twinlog's own user. Users that only the target has are its own
/// business.
pub(super) fn gaps(source: &ScramUsers, target: &ScramUsers, own: Option<&str>) -> Vec<Gap> {
    let mut gaps = Vec::new();
    for (user, mechanisms) in source {
        if own == Some(user.as_str()) {
            continue;
        }
        for (mechanism, iterations) in mechanisms {
            let found = target.get(user).and_then(|user| user.get(mechanism));
            if found.is_none_or(|found| found < iterations) {
                gaps.push(Gap {
                    user: user.clone(),
                    mechanism: *mechanism,
                    source: *iterations,
                    target: found.copied(),
                });
            }
        }
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;
    use ScramMechanism::{Sha256, Sha512};

    fn users(list: &[(&str, ScramMechanism, i32)]) -> ScramUsers {
        let mut users = ScramUsers::new();
        for (user, mechanism, iterations) in list {
            let user = users.entry((*user).to_owned()).or_default();
            user.insert(*mechanism, *iterations);
        }
        users
    }

    #[test]
    fn a_user_a_mechanism_or_iterations_may_be_missing() {
        let source = users(&[
            ("alice", Sha256, 4096),
            ("bob", Sha256, 4096),
            ("bob", Sha512, 4096),
            ("carol", Sha512, 8192),
            ("dave", Sha512, 4096),
            ("twinlog", Sha512, 4096),
        ]);
        let target = users(&[
            ("bob", Sha256, 4096),
            ("carol", Sha512, 4096),
            ("dave", Sha512, 8192),
            ("erin", Sha512, 8192),
        ]);
        let found = gaps(&source, &target, Some("twinlog"));
        let gap = |user: &str, mechanism, source, target| Gap {
            user: user.to_owned(),
            mechanism,
            source,
            target,
        };
        assert_eq!(
            found,
            [
                gap("alice", Sha256, 4096, None),
                gap("bob", Sha512, 4096, None),
                gap("carol", Sha512, 8192, Some(4096)),
            ]
        );
        assert_eq!(gaps(&source, &target, None).len(), 4);
        assert!(gaps(&source, &source, None).is_empty());
    }
}
