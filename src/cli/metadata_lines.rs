//! What `status` says about configs, ACLs, quotas and users.

use super::format::plural;
use crate::telemetry::metadata::{Drift, DriftAction, DriftKind, MetadataSummary};

/// No more of what needs attention, or of what is held, is listed.
const LISTED_MAX: usize = 10;

/// The lines about a flow's metadata, indented under the flow.
pub(super) fn lines(summary: &MetadataSummary) -> Vec<String> {
    let mut lines = vec![format!("  configs, ACLs, quotas, users: {}", sums(summary))];
    for obstacle in &summary.obstacles {
        let mark = if obstacle.is_problem { '!' } else { '.' };
        let kind = obstacle.kind.plural();
        let hint = obstacle.hint.as_deref();
        let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
        lines.push(format!(
            "  {mark} {kind} of the {} aren't compared ({}): {}{hint}",
            obstacle.cluster, obstacle.reason, obstacle.message
        ));
    }
    let attention = summary.attention.iter().map(|drift| {
        let why = match &drift.failure {
            Some(failure) => Some(failure.in_words()),
            None => drift.why.clone(),
        };
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        format!("  ! {}{why}", name(drift))
    });
    let needing = summary.count(DriftAction::Operator)
        + summary
            .failing
            .values()
            .flat_map(|by| by.values())
            .sum::<u64>();
    listed(&mut lines, attention, needing, "twinlog plan");
    let held = summary
        .held
        .iter()
        .map(|drift| format!("  = held: {}", name(drift)));
    listed(
        &mut lines,
        held,
        summary.count(DriftAction::Hold),
        "twinlog plan",
    );
    lines
}

fn listed(
    lines: &mut Vec<String>,
    entries: impl Iterator<Item = String>,
    total: u64,
    command: &str,
) {
    let before = lines.len();
    lines.extend(entries.take(LISTED_MAX));
    let shown = (lines.len() - before) as u64;
    if total > shown {
        lines.push(format!(
            "    and {} more; `{command}` lists them",
            total - shown
        ));
    }
}

fn name(drift: &Drift) -> String {
    if drift.detail.is_empty() {
        drift.subject.clone()
    } else {
        format!("{}: {}", drift.subject, drift.detail)
    }
}

/// Such as `as on the source; 3 ACLs held for the failover`.
fn sums(summary: &MetadataSummary) -> String {
    let mut parts = Vec::new();
    let mut add = |is_counted: &dyn Fn(DriftAction) -> bool, what: &str| {
        for kind in DriftKind::ALL {
            let by_action = summary.drift.get(&kind).into_iter().flatten();
            let number: u64 = by_action
                .filter(|(action, _)| is_counted(**action))
                .map(|(_, number)| number)
                .sum();
            if number > 0 {
                parts.push(format!("{} {what}", plural(number, kind.singular())));
            }
        }
    };
    add(&DriftAction::is_applied, "to follow");
    add(&|action| action == DriftAction::Operator, "for an operator");
    add(
        &|action| action == DriftAction::Hold,
        "held for the failover",
    );
    if summary.count_to_follow() == 0 {
        let compared = if summary.obstacles.iter().any(|o| o.is_problem) {
            "what could be compared is as on the source"
        } else {
            "as on the source"
        };
        parts.insert(0, compared.to_owned());
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metadata::MetadataReport;

    fn drift(action: DriftAction, number: usize) -> Drift {
        Drift {
            kind: DriftKind::Acl,
            action,
            subject: "topic orders".to_owned(),
            detail: format!("ALLOW WRITE User:bob-{number}"),
            source: None,
            target: None,
            why: None,
            failure: None,
        }
    }

    #[test]
    fn a_standby_that_is_like_the_source_is_one_line() {
        let summary = MetadataSummary::new(&MetadataReport::default());
        assert_eq!(
            lines(&summary),
            ["  configs, ACLs, quotas, users: as on the source"]
        );
    }

    #[test]
    fn grants_that_are_held_come_before_a_thousand_configs() {
        let config = Drift {
            kind: DriftKind::TopicConfig,
            ..drift(DriftAction::Hold, 0)
        };
        let mut drift: Vec<_> = std::iter::repeat_n(config, 1_000).collect();
        drift.push(self::drift(DriftAction::Hold, 7));
        let report = MetadataReport {
            drift,
            ..MetadataReport::default()
        };
        let lines = lines(&MetadataSummary::new(&report));
        assert_eq!(lines[1], "  = held: topic orders: ALLOW WRITE User:bob-7");
        let last = lines.last().map(String::as_str);
        assert_eq!(last, Some("    and 991 more; `twinlog plan` lists them"));
    }

    #[test]
    fn what_is_held_is_listed_and_counted() {
        let report = MetadataReport {
            drift: (0..12)
                .map(|number| drift(DriftAction::Hold, number))
                .collect(),
            ..MetadataReport::default()
        };
        let lines = lines(&MetadataSummary::new(&report));
        assert!(
            lines[0].contains("12 ACLs held for the failover"),
            "{lines:?}"
        );
        assert_eq!(lines[1], "  = held: topic orders: ALLOW WRITE User:bob-0");
        assert_eq!(lines[11], "    and 2 more; `twinlog plan` lists them");
    }
}
