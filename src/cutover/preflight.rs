//! Whether a failover may begin. Pure. What a running flow says of its readiness is judged by the
//! same code ([`crate::telemetry::failover`]); here is what only a plan has.

pub use crate::telemetry::failover::{Check, Weight, worst};

use super::options::AcceptedLoss;
use super::padding::{OFFSETS_MAX, PaddingCost};
use crate::state::{CutoverKind, TopicRecord};
use crate::telemetry::failover::{self, Intent};

/// More of one thing are counted, not named.
const NAMED_MAX: usize = 5;

/// What was found out before a plan.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// What is looked at all the time while a flow runs, too.
    pub common: failover::Facts,
    /// What padding costs (unplanned).
    pub padding: Option<PaddingCost>,
    /// Whether padding is possible.
    pub may_pad: bool,
    /// Mapped partitions.
    pub mapped: usize,
    /// What somebody else wrote to the copy.
    pub strangers: Option<Check>,
    /// Held ACLs that wouldn't be released, by their words.
    pub unreleased: Vec<String>,
    /// Topics of the source that aren't copied, or not with all their partitions, as far as was seen (unplanned).
    pub uncopied: Vec<String>,
}

/// What somebody else wrote to copies and is kept there, by target topic: it is in no other cluster.
pub fn strangers<'a>(records: impl Iterator<Item = &'a TopicRecord>) -> Option<Check> {
    let mut offsets = 0;
    let mut partitions = Vec::new();
    for record in records {
        for (number, turned) in &record.turned {
            let of_it = turned.strangers();
            offsets += of_it;
            if of_it > 0 {
                partitions.push(format!("{}-{number}: {of_it}", record.target_topic));
            }
        }
    }
    let reason = format!(
        "copies have {offsets} offset(s) that somebody else wrote; they are on the standby alone and stay \
         there, and its readers meet them ({})",
        named(partitions.into_iter())
    );
    let check = Check::new("strangers", Weight::Warning, reason)
        .with_hint("`protect: true` keeps others from writing to copies");
    (offsets > 0).then_some(check)
}

/// Judges what was found.
pub fn judge(kind: CutoverKind, accepted: AcceptedLoss, facts: &Facts) -> Vec<Check> {
    let intent = if kind == CutoverKind::Unplanned {
        Intent::Unplanned(accepted)
    } else {
        Intent::Planned
    };
    let mut checks = failover::judge(intent, &facts.common);
    checks.extend(facts.strangers.clone());
    checks.extend(unreleased(&facts.unreleased));
    checks.extend(uncopied(&facts.uncopied));
    if let Some(cost) = facts.padding {
        let stranded = Stranded::OnOldPrimary;
        checks.extend(padding_checks(cost, facts.may_pad, facts.mapped, stranded));
    }
    checks
}

/// Where the records are whose offsets no new record may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stranded {
    /// A failover: a failback can tell them apart.
    OnOldPrimary,
    /// On a standby that is given up.
    OnStandby,
}

impl Stranded {
    fn in_words(self) -> &'static str {
        match self {
            Self::OnOldPrimary => "on the old primary",
            Self::OnStandby => "on the standby",
        }
    }
}

/// What padding costs, and where there is none or less than may be needed.
pub fn padding_checks(
    cost: PaddingCost,
    may_pad: bool,
    mapped: usize,
    stranded: Stranded,
) -> Vec<Check> {
    let mut checks = vec![padding(cost, may_pad, stranded)];
    checks.extend(ceiling(cost, stranded).filter(|_| may_pad));
    if mapped > 0 {
        let reason = format!("{mapped} mapped partition(s) get none");
        checks.push(Check::new("padding", Weight::Warning, reason));
    }
    checks
}

/// The first of these, and how many more there are.
pub fn named(all: impl ExactSizeIterator<Item = String>) -> String {
    let more = all.len().saturating_sub(NAMED_MAX);
    let mut named: Vec<String> = all.take(NAMED_MAX).collect();
    if more > 0 {
        named.push(format!("and {more} more"));
    }
    named.join(", ")
}

/// What the standby doesn't have at all. How much that is is part of the loss.
fn uncopied(topics: &[String]) -> Option<Check> {
    let reason = format!(
        "{} topic(s) aren't copied, or not with all their partitions: {}",
        topics.len(),
        named(topics.iter().cloned())
    );
    let check = Check::new("without_copy", Weight::Warning, reason).with_hint(
        "what the source had in them is lost; name the others with --topic to leave these to it",
    );
    (!topics.is_empty()).then_some(check)
}

/// Clients that need them are refused on the standby, or nobody is.
fn unreleased(acls: &[String]) -> Option<Check> {
    let reason = format!(
        "{} held ACL(s) aren't released, as the standby's first ACLs could shut Twinlog out: {}",
        acls.len(),
        named(acls.iter().cloned())
    );
    let check = Check::new("acls", Weight::Warning, reason).with_hint(
        "say whom the standby's brokers take Twinlog for, in acls.principal, and let it run",
    );
    (!acls.is_empty()).then_some(check)
}

/// What isn't passed.
fn ceiling(cost: PaddingCost, stranded: Stranded) -> Option<Check> {
    let reason = format!(
        "{} partition(s) get less than they may need, as no more than {OFFSETS_MAX} offsets are passed: what is stranded of \
         them {} may have the same offsets as new records",
        cost.short_partitions,
        stranded.in_words()
    );
    let check = Check::new("padding", Weight::Warning, reason);
    let check = match stranded {
        Stranded::OnOldPrimary => check.with_hint(
            "a failback keeps a map for these; who keeps offsets elsewhere asks `twinlog translate`",
        ),
        Stranded::OnStandby => check.with_hint(
            "who keeps offsets elsewhere takes none of theirs for a new record's",
        ),
    };
    (cost.short_partitions > 0).then_some(check)
}

fn padding(cost: PaddingCost, may_pad: bool, stranded: Stranded) -> Check {
    if may_pad {
        let reason = format!(
            "{} offset(s) are passed, at most about {} s and {} MB in each replica's logs; after it the plan can't be aborted",
            cost.markers,
            cost.seconds,
            cost.bytes.div_ceil(1_000_000)
        );
        return Check::new("padding", Weight::Ok, reason);
    }
    let reason = format!(
        "offsets can't be padded: what is stranded {} may have the same offsets as new records",
        stranded.in_words()
    );
    let hint = match stranded {
        Stranded::OnOldPrimary => "grant CLUSTER_ACTION on the standby's cluster to Twinlog",
        Stranded::OnStandby => "grant CLUSTER_ACTION on the old primary to Twinlog",
    };
    Check::new("padding", Weight::Warning, reason).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(facts: &Facts) -> Vec<Weight> {
        let checks = judge(CutoverKind::Unplanned, AcceptedLoss::Any, facts);
        let padding = checks.iter().filter(|check| check.subject == "padding");
        padding.map(|check| check.weight).collect()
    }

    #[test]
    fn acls_that_are_not_released_are_named() {
        let facts = Facts {
            unreleased: (0..7).map(|n| format!("topic t{n}: ALLOW")).collect(),
            ..Facts::default()
        };
        let checks = judge(CutoverKind::Planned, AcceptedLoss::Any, &facts);
        let check = checks.iter().find(|check| check.subject == "acls");
        let check = check.expect("it is told");
        assert_eq!(check.weight, Weight::Warning);
        assert!(check.reason.contains("7 held"), "{}", check.reason);
        assert!(check.reason.contains("topic t0: ALLOW"), "{}", check.reason);
        assert!(check.reason.contains("and 2 more"), "{}", check.reason);
    }

    #[test]
    fn padding_is_priced_and_its_lack_is_told() {
        let mut facts = Facts::default();
        assert_eq!(weights(&facts), [], "a planned failover pads nothing");
        facts.padding = Some(PaddingCost::default());
        assert_eq!(weights(&facts), [Weight::Warning]);
        facts.may_pad = true;
        assert_eq!(weights(&facts), [Weight::Ok]);
        facts.mapped = 1;
        assert_eq!(weights(&facts), [Weight::Ok, Weight::Warning]);
    }

    #[test]
    fn who_gives_up_is_told_what_padding_lacks() {
        let short = PaddingCost {
            short_partitions: 3,
            ..PaddingCost::default()
        };
        let told = |cost, may_pad, mapped| {
            let checks = padding_checks(cost, may_pad, mapped, Stranded::OnStandby);
            let warnings = checks.iter().filter(|it| it.weight == Weight::Warning);
            warnings.count()
        };
        assert_eq!(told(PaddingCost::default(), true, 0), 0);
        assert_eq!(told(short, true, 2), 2);
        assert_eq!(told(short, false, 0), 1);
    }
}
