//! Groups of both kinds in one report.

use std::sync::Arc;

use super::report::View;
use crate::telemetry::groups::{
    DelayHistogram, FlowGroups, GroupExplained, GroupReporter, Watching,
};

/// What the followers of a flow know.
pub struct Views {
    consumers: Arc<View>,
    shares: Arc<View>,
}

impl Views {
    /// Puts the two together.
    pub fn new(consumers: Arc<View>, shares: Arc<View>) -> Self {
        Self { consumers, shares }
    }
}

impl GroupReporter for Views {
    fn report(&self) -> FlowGroups {
        let (mut report, shares) = (self.consumers.report(), self.shares.report());
        report.commits = report.commits.saturating_add(shares.commits);
        report.groups.extend(shares.groups);
        report
            .groups
            .sort_by(|left, right| left.group.cmp(&right.group));
        report.source = of_both(report.source, shares.source);
        report.target = of_both(report.target, shares.target);
        report.sight.refused.extend(shares.sight.refused);
        report
    }

    fn explain(&self, group: &str) -> Option<GroupExplained> {
        let consumers = self.consumers.explain(group);
        consumers.or_else(|| self.shares.explain(group))
    }

    fn delays(&self) -> &DelayHistogram {
        &self.consumers.delays
    }
}

/// How consumer groups are watched, unless only share groups are in trouble. Some of either kind may not be seen.
fn of_both(consumers: Watching, shares: Watching) -> Watching {
    if shares.state == "failing" && consumers.state != "failing" {
        shares
    } else {
        Watching {
            detail: consumers.detail.or(shares.detail),
            ..consumers
        }
    }
}
