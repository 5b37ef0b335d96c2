//! Whether a failover may begin: each thing that was looked at, judged. Pure.

use serde::{Deserialize, Serialize};

use super::loss::Loss;
use super::options::AcceptedLoss;
use super::padding::PaddingCost;
use crate::state::CutoverKind;

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    /// Looked at and fine.
    Ok,
    /// The operator should know.
    Warning,
    /// The plan doesn't begin.
    Blocker,
    /// The plan doesn't begin, because it would lose data.
    LosesData,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What: a short, stable word.
    pub subject: String,
    /// How much it weighs.
    pub weight: Weight,
    /// What was found.
    pub reason: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// What was found out before a plan.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Why the source can't be asked, if so.
    pub source_problem: Option<String>,
    /// Topics that are cut over.
    pub topics: usize,
    /// Their partitions.
    pub partitions: usize,
    /// Selected topics on the source without a copy, or with fewer partitions there.
    pub without_copy: Vec<String>,
    /// Partitions whose copy is stopped, with the reason.
    pub stopped: Vec<(String, String)>,
    /// Source offsets that aren't on the target.
    pub lag: Option<i64>,
    /// Whether a process seems to copy the flow.
    pub is_copied: bool,
    /// Partitions with an open transaction on the source.
    pub open_transactions: usize,
    /// Groups that the flow doesn't follow although they read its topics.
    pub unfollowed_groups: Vec<String>,
    /// Partitions on the target without a leader.
    pub leaderless: usize,
    /// Partitions on the target that would refuse acks=all: too few in-sync replicas.
    pub below_min_in_sync: usize,
    /// Partitions on the target with replicas out of sync.
    pub under_replicated: usize,
    /// What of the metadata differs and Twinlog can't mend, a line each.
    pub for_the_operator: Vec<String>,
    /// What of the metadata can't be compared, a line each.
    pub obstacles: Vec<String>,
    /// The bound of what is missing (unplanned).
    pub loss: Option<Loss>,
    /// What padding costs (unplanned).
    pub padding: Option<PaddingCost>,
    /// Whether padding is possible.
    pub may_pad: bool,
    /// Mapped partitions.
    pub mapped: usize,
}

/// More of one thing are counted, not named.
const NAMED_MAX: usize = 5;

/// Judges what was found.
pub fn judge(kind: CutoverKind, accepted: AcceptedLoss, facts: &Facts) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut add = |subject: &str, weight: Weight, reason: String, hint: Option<&str>| {
        checks.push(Check {
            subject: subject.to_owned(),
            weight,
            reason,
            hint: hint.map(str::to_owned),
        });
    };
    let is_planned = kind == CutoverKind::Planned;
    match (&facts.source_problem, is_planned) {
        (Some(problem), true) => add(
            "source",
            Weight::Blocker,
            format!("the source doesn't answer: {problem}"),
            Some("when it is gone for good: `twinlog failover --unplanned`"),
        ),
        (None, false) => add(
            "source",
            Weight::Warning,
            "the source answers: a planned failover would lose nothing".to_owned(),
            Some("leave `--unplanned` out"),
        ),
        (None, true) => add("source", Weight::Ok, "answers".to_owned(), None),
        (Some(_), false) => add("source", Weight::Ok, "is gone, as said".to_owned(), None),
    }
    if facts.partitions == 0 {
        add(
            "copy",
            Weight::LosesData,
            "nothing is copied yet: the standby has none of the topics".to_owned(),
            Some("let `twinlog run` copy first"),
        );
    } else {
        add(
            "copy",
            Weight::Ok,
            format!(
                "{} topic(s), {} partition(s)",
                facts.topics, facts.partitions
            ),
            None,
        );
    }
    if !facts.without_copy.is_empty() {
        add(
            "without_copy",
            Weight::LosesData,
            format!("not copied (yet): {}", named(&facts.without_copy)),
            Some("wait for `twinlog run`, exclude them in the config, or name topics with --topic"),
        );
    }
    if !facts.stopped.is_empty() {
        let stopped: Vec<String> = facts
            .stopped
            .iter()
            .map(|(at, reason)| format!("{at} ({reason})"))
            .collect();
        add(
            "stopped",
            Weight::LosesData,
            format!("partitions whose copy is stopped: {}", named(&stopped)),
            Some("mend them first (`twinlog status` says how), or leave their topics out"),
        );
    }
    if let Some(lag) = facts.lag {
        let (weight, text) = match (lag, facts.is_copied) {
            (0, _) => (Weight::Ok, "everything is copied".to_owned()),
            (lag, true) => (Weight::Ok, format!("{lag} offset(s) are left to copy")),
            (lag, false) => (
                Weight::Warning,
                format!("{lag} offset(s) are left to copy and nobody copies: this command will"),
            ),
        };
        add("lag", weight, text, None);
    }
    if facts.open_transactions > 0 {
        add(
            "transactions",
            Weight::Warning,
            format!(
                "{} partition(s) have an open transaction",
                facts.open_transactions
            ),
            Some("they are waited for; a hanging one has to be aborted"),
        );
    }
    if !facts.unfollowed_groups.is_empty() {
        add(
            "groups",
            Weight::Warning,
            format!(
                "not followed by the config: {}",
                named(&facts.unfollowed_groups)
            ),
            Some("their consumers begin by auto.offset.reset on the standby"),
        );
    }
    if facts.leaderless > 0 {
        add(
            "standby",
            Weight::Blocker,
            format!("{} partition(s) there have no leader", facts.leaderless),
            Some("bring its brokers up"),
        );
    }
    if facts.below_min_in_sync > 0 {
        add(
            "standby",
            Weight::Blocker,
            format!(
                "{} partition(s) there have fewer in-sync replicas than min.insync.replicas: \
                 producers with acks=all would be refused",
                facts.below_min_in_sync
            ),
            Some("bring its brokers up, or lower min.insync.replicas"),
        );
    }
    if facts.under_replicated > 0 {
        add(
            "standby",
            Weight::Warning,
            format!(
                "{} partition(s) there have replicas out of sync",
                facts.under_replicated
            ),
            None,
        );
    }
    if !facts.for_the_operator.is_empty() {
        add(
            "metadata",
            Weight::Warning,
            format!("only you can mend: {}", named(&facts.for_the_operator)),
            Some("`twinlog plan` lists it"),
        );
    }
    if !facts.obstacles.is_empty() {
        add(
            "metadata",
            Weight::Warning,
            format!("can't be compared: {}", named(&facts.obstacles)),
            None,
        );
    }
    if let Some(loss) = &facts.loss {
        let weight = match (loss.is_accepted(accepted), loss.records) {
            (false, _) => Weight::LosesData,
            (true, 0) if loss.unknown_partitions == 0 => Weight::Ok,
            (true, _) => Weight::Warning,
        };
        let hint = (weight == Weight::LosesData).then(|| loss.how_to_accept());
        add("loss", weight, loss.in_words(), hint.as_deref());
    }
    if let Some(cost) = facts.padding {
        if facts.may_pad {
            add(
                "padding",
                Weight::Ok,
                format!(
                    "{} offset(s) are passed, about {} s; after it the plan can't be aborted",
                    cost.markers, cost.seconds
                ),
                None,
            );
        } else {
            add(
                "padding",
                Weight::Warning,
                "offsets can't be padded: what is stranded on the old primary may have the same \
                 offsets as new records"
                    .to_owned(),
                Some("grant CLUSTER_ACTION on the standby's cluster to Twinlog"),
            );
        }
        if facts.mapped > 0 {
            add(
                "padding",
                Weight::Warning,
                format!("{} mapped partition(s) get none", facts.mapped),
                None,
            );
        }
    }
    checks
}

/// The heaviest weight.
pub fn worst(checks: &[Check]) -> Weight {
    checks
        .iter()
        .map(|check| check.weight)
        .max()
        .unwrap_or(Weight::Ok)
}

fn named(all: &[String]) -> String {
    let mut text = all
        .iter()
        .take(NAMED_MAX)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    if all.len() > NAMED_MAX {
        text.push_str(&format!(" and {} more", all.len() - NAMED_MAX));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        Facts {
            topics: 1,
            partitions: 3,
            lag: Some(0),
            is_copied: true,
            may_pad: true,
            ..Facts::default()
        }
    }

    fn weight(kind: CutoverKind, facts: &Facts) -> Weight {
        worst(&judge(kind, AcceptedLoss::Records(0), facts))
    }

    #[test]
    fn a_copy_that_is_there_may_be_failed_over() {
        assert_eq!(weight(CutoverKind::Planned, &good()), Weight::Ok);
    }

    #[test]
    fn what_would_lose_data_refuses() {
        let cases = [
            Facts {
                partitions: 0,
                ..good()
            },
            Facts {
                without_copy: vec!["orders".to_owned()],
                ..good()
            },
            Facts {
                stopped: vec![("orders-0".to_owned(), "gap".to_owned())],
                ..good()
            },
            Facts {
                loss: Some(Loss {
                    records: 1,
                    ..Loss::default()
                }),
                ..good()
            },
            Facts {
                loss: Some(Loss {
                    unknown_partitions: 1,
                    ..Loss::default()
                }),
                ..good()
            },
        ];
        for facts in cases {
            assert_eq!(
                weight(CutoverKind::Planned, &facts),
                Weight::LosesData,
                "{facts:?}"
            );
        }
    }

    #[test]
    fn what_can_not_work_blocks() {
        let gone = Facts {
            source_problem: Some("refused".to_owned()),
            ..good()
        };
        assert_eq!(weight(CutoverKind::Planned, &gone), Weight::Blocker);
        assert_eq!(weight(CutoverKind::Unplanned, &gone), Weight::Ok);
        for facts in [
            Facts {
                leaderless: 1,
                ..good()
            },
            Facts {
                below_min_in_sync: 1,
                ..good()
            },
        ] {
            assert_eq!(weight(CutoverKind::Planned, &facts), Weight::Blocker);
        }
    }

    #[test]
    fn what_the_operator_should_know_warns_with_what_to_do() {
        let facts = Facts {
            lag: Some(5),
            is_copied: false,
            open_transactions: 1,
            unfollowed_groups: (0..9).map(|n| format!("g{n}")).collect(),
            under_replicated: 1,
            for_the_operator: vec!["user alice".to_owned()],
            ..good()
        };
        let checks = judge(CutoverKind::Planned, AcceptedLoss::Records(0), &facts);
        assert_eq!(worst(&checks), Weight::Warning);
        let warnings = checks.iter().filter(|it| it.weight == Weight::Warning);
        assert_eq!(warnings.count(), 5, "{checks:#?}");
        let groups = checks.iter().find(|check| check.subject == "groups");
        assert!(groups.is_some_and(|it| it.reason.ends_with("and 4 more")));
    }

    #[test]
    fn an_accepted_loss_still_warns() {
        let facts = Facts {
            source_problem: Some("gone".to_owned()),
            loss: Some(Loss {
                records: 7,
                ..Loss::default()
            }),
            ..good()
        };
        let checks = judge(CutoverKind::Unplanned, AcceptedLoss::Records(7), &facts);
        assert_eq!(worst(&checks), Weight::Warning);
    }
}
