//! Whether a failover may begin. Pure. What a running flow says of its readiness is judged by the
//! same code ([`crate::telemetry::failover`]); here is what only a plan has.

pub use crate::telemetry::failover::{Check, Weight, worst};

use super::options::AcceptedLoss;
use super::padding::PaddingCost;
use crate::state::CutoverKind;
use crate::telemetry::failover::{self, Intent};

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
}

/// Judges what was found.
pub fn judge(kind: CutoverKind, accepted: AcceptedLoss, facts: &Facts) -> Vec<Check> {
    let intent = if kind == CutoverKind::Unplanned {
        Intent::Unplanned(accepted)
    } else {
        Intent::Planned
    };
    let mut checks = failover::judge(intent, &facts.common);
    if let Some(cost) = facts.padding {
        checks.push(padding(cost, facts.may_pad));
        if facts.mapped > 0 {
            let reason = format!("{} mapped partition(s) get none", facts.mapped);
            checks.push(Check::new("padding", Weight::Warning, reason));
        }
    }
    checks
}

fn padding(cost: PaddingCost, may_pad: bool) -> Check {
    if may_pad {
        let reason = format!(
            "{} offset(s) are passed, about {} s; after it the plan can't be aborted",
            cost.markers, cost.seconds
        );
        return Check::new("padding", Weight::Ok, reason);
    }
    let reason = "offsets can't be padded: what is stranded on the old primary may have the same \
                  offsets as new records";
    Check::new("padding", Weight::Warning, reason)
        .with_hint("grant CLUSTER_ACTION on the standby's cluster to Twinlog")
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
}
