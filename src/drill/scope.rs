//! Which of the flow's topics are copied for a rehearsal. Pure.

use serde::{Deserialize, Serialize};

use crate::telemetry::size::bytes as bytes_in_words;

/// A topic that could be copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its name on the source.
    pub name: String,
    /// Its partitions.
    pub partitions: usize,
    /// The records that its log may have now.
    pub records: u64,
    /// About how many bytes they are.
    pub bytes: u64,
    /// Whether its copy can be named.
    pub can_be_named: bool,
    /// Why its records may not be under another name, if so.
    pub shown_to: Option<String>,
}

/// How much is copied at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes, as far as they are known.
    pub bytes_max: u64,
    /// Partitions.
    pub partitions_max: usize,
}

/// A topic that isn't copied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Its name on the source.
    pub topic: String,
    /// Why.
    pub why: String,
}

/// What is copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// These.
    pub taken: Vec<Candidate>,
    /// Not these.
    pub left_out: Vec<LeftOut>,
}

/// Takes the smallest topics first, so that as many as possible are rehearsed; by name where they
/// are alike, so that two rehearsals take the same.
pub fn choose(mut candidates: Vec<Candidate>, limits: Limits) -> Choice {
    candidates.sort_by(|a, b| (a.bytes, &a.name).cmp(&(b.bytes, &b.name)));
    let mut choice = Choice::default();
    let (mut bytes, mut partitions) = (0_u64, 0_usize);
    for candidate in candidates {
        let bytes_then = bytes.saturating_add(candidate.bytes);
        let partitions_then = partitions + candidate.partitions;
        let why = if !candidate.can_be_named {
            Some("its name is too long for a copy's".to_owned())
        } else if let Some(why) = candidate.shown_to.clone() {
            Some(why)
        } else if bytes_then > limits.bytes_max {
            Some(format!(
                "about {}, beyond what is copied (--bytes)",
                bytes_in_words(candidate.bytes as f64)
            ))
        } else if partitions_then > limits.partitions_max {
            Some(format!(
                "{} partition(s), beyond what is copied (--partitions)",
                candidate.partitions
            ))
        } else {
            None
        };
        match why {
            Some(why) => choice.left_out.push(LeftOut {
                topic: candidate.name,
                why,
            }),
            None => {
                (bytes, partitions) = (bytes_then, partitions_then);
                choice.taken.push(candidate);
            }
        }
    }
    choice.taken.sort_by(|a, b| a.name.cmp(&b.name));
    choice.left_out.sort_by(|a, b| a.topic.cmp(&b.topic));
    choice
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: &str, bytes: u64, partitions: usize) -> Candidate {
        Candidate {
            name: name.to_owned(),
            partitions,
            records: bytes / 10,
            bytes,
            can_be_named: true,
            shown_to: None,
        }
    }

    fn names(choice: &Choice) -> (Vec<&str>, Vec<&str>) {
        (
            choice.taken.iter().map(|it| it.name.as_str()).collect(),
            choice.left_out.iter().map(|it| it.topic.as_str()).collect(),
        )
    }

    const LIMITS: Limits = Limits {
        bytes_max: 100,
        partitions_max: 10,
    };

    #[test]
    fn the_smallest_are_taken_as_far_as_they_fit() {
        let all = vec![
            candidate("huge", 1_000, 1),
            candidate("b", 50, 1),
            candidate("a", 50, 1),
            candidate("c", 1, 1),
            candidate("empty", 0, 1),
        ];
        let choice = choose(all, LIMITS);
        assert_eq!(names(&choice), (vec!["a", "c", "empty"], vec!["b", "huge"]));
        let why = &choice.left_out[0].why;
        assert!(why.contains("50 B") && why.contains("--bytes"), "{why}");
    }

    #[test]
    fn partitions_are_limited_too_and_a_large_topic_stops_no_small_one() {
        let all = vec![candidate("wide", 1, 11), candidate("narrow", 2, 10)];
        let choice = choose(all, LIMITS);
        assert_eq!(names(&choice), (vec!["narrow"], vec!["wide"]));
        assert!(choice.left_out[0].why.contains("--partitions"));
    }

    #[test]
    fn what_can_not_be_named_is_left_out() {
        let long = Candidate {
            can_be_named: false,
            ..candidate("long", 1, 1)
        };
        assert_eq!(names(&choose(vec![long], LIMITS)).1, ["long"]);
    }

    #[test]
    fn what_a_copy_would_show_to_somebody_is_left_out() {
        let secret = Candidate {
            shown_to: Some("why".to_owned()),
            ..candidate("secret", 1, 1)
        };
        let choice = choose(vec![secret, candidate("open", 2, 1)], LIMITS);
        assert_eq!(names(&choice), (vec!["open"], vec!["secret"]));
        assert_eq!(choice.left_out[0].why, "why");
    }
}
