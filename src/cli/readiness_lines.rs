//! What `status` says about a failover.

use super::format::{bytes, count, plural, seconds};
use crate::telemetry::failover::{Check, Loss, Readiness, Reread, Verdict, Weight};

/// More things that stand in the way are counted instead of listed.
const LISTED_MAX: usize = 8;
/// So many topics and groups, the worst ones, are named.
const NAMED_MAX: usize = 3;

/// The lines about a flow's readiness, indented under the flow; `target` is the standby's name.
pub(super) fn lines(readiness: &Readiness, target: &str) -> Vec<String> {
    let mut lines = Vec::new();
    match readiness.can_fail_over {
        Verdict::FailedOver => lines.push(format!("    failed over: {target} is the primary")),
        verdict => {
            let kind = match verdict {
                Verdict::No => String::new(),
                _ => format!(" ({})", readiness.kind),
            };
            let mark = if verdict == Verdict::Yes { ' ' } else { '!' };
            lines.push(format!(
                "  {mark} failover now: {}{kind}; {}",
                verdict.in_words(),
                numbers(readiness)
            ));
        }
    }
    checks(&mut lines, "", readiness.in_the_way().collect());
    if let Some(failback) = &readiness.failback {
        let waits_for = failback.waits_for.iter();
        let waits_for: Vec<&Check> = waits_for.filter(|it| it.weight > Weight::Ok).collect();
        if waits_for.is_empty() {
            lines.push("    failback: nothing stands in its way".to_owned());
        }
        checks(&mut lines, "failback waits for ", waits_for);
    }
    lines
}

fn numbers(readiness: &Readiness) -> String {
    if !readiness.knows_the_copy() {
        return "what would be lost isn't known".to_owned();
    }
    // A planned one loses nothing, whatever isn't copied yet.
    let who = match readiness.kind.as_str() {
        "unplanned" => "",
        _ => "an unplanned one ",
    };
    let (loss, reread) = (&readiness.loss, &readiness.reread);
    format!(
        "{who}would lose {}; groups would read again {}",
        lost(loss),
        again(reread)
    )
}

fn lost(loss: &Loss) -> String {
    let unknown = match loss.unknown_partitions {
        0 => String::new(),
        unknown => format!(" + unknown of {}", plural(unknown, "partition")),
    };
    if loss.records == 0 {
        return format!("0 records{unknown}");
    }
    let mut worst: Vec<(&String, u64)> = loss
        .topics
        .iter()
        .map(|(topic, loss)| (topic, loss.records))
        .collect();
    worst.sort_by_key(|(_, records)| std::cmp::Reverse(*records));
    let worst: Vec<String> = worst
        .iter()
        .take(NAMED_MAX)
        .map(|(topic, records)| format!("{topic} {}", of(*records)))
        .collect();
    let age = loss.oldest_seconds.unwrap_or(0) as f64;
    format!(
        "up to {} records, {}, of the last {} ({}){unknown}",
        of(loss.records),
        bytes(loss.bytes as f64),
        seconds(age),
        worst.join(", ")
    )
}

fn again(reread: &Reread) -> String {
    let unplaced = match reread.unplaced_positions {
        0 => String::new(),
        unplaced => format!(", and {} would be missing", plural(unplaced, "position")),
    };
    if reread.records == 0 {
        return format!("0 records{unplaced}");
    }
    let worst = reread.groups.iter().take(NAMED_MAX);
    let worst: Vec<String> = worst
        .map(|group| format!("{} {}", group.group, count(group.records)))
        .collect();
    let records = count(reread.records);
    format!("up to {records} records ({}){unplaced}", worst.join(", "))
}

fn of(records: u64) -> String {
    count(i64::try_from(records).unwrap_or(i64::MAX))
}

fn checks(lines: &mut Vec<String>, before: &str, checks: Vec<&Check>) {
    for check in checks.iter().take(LISTED_MAX) {
        let weight = match check.weight {
            Weight::LosesData => "LOSS",
            weight => weight.word(),
        };
        let hint = check.hint.as_ref();
        let hint = hint.map_or_else(String::new, |hint| format!(" -> {hint}"));
        let (subject, reason) = (&check.subject, &check.reason);
        lines.push(format!("  ! {before}{subject} ({weight}): {reason}{hint}"));
    }
    if checks.len() > LISTED_MAX {
        let more = checks.len() - LISTED_MAX;
        lines.push(format!("  ! and {more} more; `twinlog status --json`"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::failover::{Failback, GroupReread, TopicLoss};

    #[test]
    fn a_ready_flow_takes_one_line() {
        let ready = Readiness {
            can_fail_over: Verdict::Yes,
            kind: "planned".to_owned(),
            checks: vec![Check::new("source", Weight::Ok, "answers")],
            ..Readiness::default()
        };
        assert_eq!(
            lines(&ready, "standby"),
            [
                "    failover now: yes (planned); an unplanned one would lose 0 records; groups would read again 0 records"
            ]
        );
    }

    #[test]
    fn the_worst_come_first_with_what_to_do() {
        let topic = |records| TopicLoss {
            records,
            ..TopicLoss::default()
        };
        let mut readiness = Readiness {
            can_fail_over: Verdict::WithLoss,
            kind: "unplanned".to_owned(),
            checks: vec![Check::new("loss", Weight::LosesData, "up to 1,012").with_hint("accept")],
            ..Readiness::default()
        };
        readiness.loss = Loss {
            records: 1_012,
            bytes: 2_048,
            oldest_seconds: Some(7),
            topics: [("a".to_owned(), topic(12)), ("b".to_owned(), topic(1_000))].into(),
            ..Loss::default()
        };
        readiness.reread = Reread {
            records: 5,
            unplaced_positions: 1,
            groups: vec![GroupReread {
                group: "billing".to_owned(),
                records: 5,
                ..GroupReread::default()
            }],
            ..Reread::default()
        };
        assert_eq!(
            lines(&readiness, "standby"),
            [
                "  ! failover now: with loss (unplanned); would lose up to 1,012 records, 2.0 KiB, \
                 of the last 7.0 s (b 1,000, a 12); groups would read again up to 5 records (billing 5), and \
                 1 position would be missing",
                "  ! loss (LOSS): up to 1,012 -> accept"
            ]
        );
    }

    #[test]
    fn after_a_failover_it_says_what_the_way_back_waits_for() {
        let mut readiness = Readiness {
            can_fail_over: Verdict::FailedOver,
            checks: vec![Check::new("role", Weight::Ok, "the target")],
            failback: Some(Failback {
                waits_for: vec![
                    Check::new("old_primary", Weight::Ok, "answers"),
                    Check::new("orphans", Weight::Blocker, "7 offset(s)").with_hint("decide"),
                ],
                ..Failback::default()
            }),
            ..Readiness::default()
        };
        assert_eq!(
            lines(&readiness, "standby"),
            [
                "    failed over: standby is the primary",
                "  ! failback waits for orphans (blocker): 7 offset(s) -> decide"
            ]
        );
        readiness.failback = Some(Failback::default());
        assert_eq!(
            lines(&readiness, "standby")[1],
            "    failback: nothing stands in its way"
        );
    }
}
