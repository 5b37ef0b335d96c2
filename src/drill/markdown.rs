//! The report for people: Markdown that prints well.

use std::fmt::Write as _;

use super::names::Kind;
use super::report::{Compared, Figures, Rehearsal, Report, Verdict};
use crate::cutover::Weight;
use crate::shell::is_unseen;
use crate::telemetry::size;

/// Renders it. `sha256` is the digest of the JSON that was filed with it.
pub fn render(report: &Report, sha256: &str) -> String {
    let mut text = String::new();
    head(&mut text, report);
    figures(&mut text, &report.figures);
    list(&mut text, "Failures", &report.failures);
    list(&mut text, "Remarks", &report.remarks);
    production(&mut text, report);
    for rehearsal in &report.rehearsals {
        rehearsed(&mut text, rehearsal);
    }
    scope(&mut text, report);
    list(
        &mut text,
        "What this says nothing about",
        &report.not_rehearsed,
    );
    cleanup(&mut text, report);
    line(&mut text, "");
    line(
        &mut text,
        &format!("SHA-256 of the JSON report: `{sha256}`"),
    );
    text
}

/// Writing to a string can't fail.
fn line(text: &mut String, line: &str) {
    let _ = writeln!(text, "{line}");
}

/// What comes from clusters must not become markup, nor reach a terminal as commands.
fn plain(words: &str) -> String {
    words
        .chars()
        .map(|letter| if is_unseen(letter) { ' ' } else { letter })
        .flat_map(|letter| {
            let escape = matches!(letter, '|' | '`' | '<' | '*' | '[').then_some('\\');
            escape.into_iter().chain([letter])
        })
        .collect()
}

fn head(text: &mut String, report: &Report) {
    let verdict = match report.verdict {
        Verdict::Passed => "PASSED",
        Verdict::PassedWithRemarks => "PASSED WITH REMARKS",
        Verdict::Failed => "FAILED",
    };
    line(
        text,
        &format!(
            "# Failover drill of flow {}: {verdict}",
            plain(&report.flow)
        ),
    );
    line(text, "");
    line(text, "| | |");
    line(text, "|---|---|");
    let cluster = |cluster: &super::report::ClusterReport| {
        format!(
            "{}, cluster {}, {} broker(s)",
            plain(&cluster.name),
            cluster
                .cluster_id
                .as_deref()
                .map_or_else(|| "unknown".to_owned(), plain),
            cluster.brokers
        )
    };
    for (key, value) in [
        ("drill", report.drill.clone()),
        ("began", report.began.clone()),
        (
            "ended",
            format!("{} ({:.1} s)", report.ended, report.seconds),
        ),
        ("source", cluster(&report.source)),
        ("standby", cluster(&report.target)),
        ("run by", plain(&report.operator)),
        ("Twinlog", report.twinlog.clone()),
    ] {
        line(text, &format!("| {key} | {value} |"));
    }
}

fn figures(text: &mut String, figures: &Figures) {
    line(text, "");
    line(text, "| | measured | objective |");
    line(text, "|---|---|---|");
    let seconds =
        |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |it| format!("{it:.2} s"));
    for (what, measured, objective) in [
        (
            "RTO, planned",
            figures.rto_planned_seconds,
            figures.rto_objective_seconds,
        ),
        (
            "RTO, unplanned",
            figures.rto_unplanned_seconds,
            figures.rto_objective_seconds,
        ),
        (
            "RPO, planned",
            figures.rpo_planned_seconds,
            figures.rpo_objective_seconds,
        ),
        (
            "RPO, unplanned",
            figures.rpo_unplanned_seconds,
            figures.rpo_objective_seconds,
        ),
        (
            "RPO, the flow now",
            figures.rpo_now_seconds,
            figures.rpo_objective_seconds,
        ),
    ] {
        line(
            text,
            &format!(
                "| {what} | {} | {} |",
                seconds(measured),
                seconds(objective)
            ),
        );
    }
}

fn list(text: &mut String, title: &str, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    line(text, "");
    line(text, &format!("## {title}"));
    line(text, "");
    for it in lines {
        line(text, &format!("- {}", plain(it)));
    }
}

fn compared(compared: &Compared) -> String {
    format!(
        "{}: {} record(s), {:.1} % of the offsets",
        compared.verdict,
        compared.records,
        compared.coverage * 100.0
    )
}

fn production(text: &mut String, report: &Report) {
    let production = &report.production;
    line(text, "");
    line(text, "## The flow itself (only looked at)");
    line(text, "");
    let rpo = &production.rpo;
    line(
        text,
        &format!(
            "- not on the standby: {} record(s), {}, the oldest {:.2} s old (the worst of {} \
             looks at {} partition(s))",
            rpo.records,
            size::bytes(rpo.bytes as f64),
            rpo.seconds,
            rpo.looks,
            rpo.partitions
        ),
    );
    let groups = &production.groups;
    line(
        text,
        &format!(
            "- groups: {} with {} position(s), {} exact, {} missing; {} record(s) would be read \
             again",
            groups.groups,
            groups.positions,
            groups.exact,
            groups.missing.len(),
            groups.read_again
        ),
    );
    for (group, records) in &groups.worst {
        line(text, &format!("  - {}: {records}", plain(group)));
    }
    for why in &groups.unseen {
        line(text, &format!("  - can't be seen: {}", plain(why)));
    }
    match &production.verify {
        Some(result) => line(
            text,
            &format!("- compared with the source: {}", compared(result)),
        ),
        None => line(text, "- not compared with the source"),
    }
    line(
        text,
        &format!(
            "- {} gap(s) recorded, {} grant(s) held for the failover",
            production.gaps, production.held_grants
        ),
    );
    line(text, "");
    line(text, "| check | | |");
    line(text, "|---|---|---|");
    for check in &production.checks {
        let weight = match check.weight {
            Weight::Ok => "ok",
            Weight::Warning => "warning",
            Weight::Blocker => "blocker",
            Weight::LosesData => "LOSS",
        };
        let reason = match &check.hint {
            Some(hint) => format!("{} -> {}", check.reason, hint),
            None => check.reason.clone(),
        };
        line(
            text,
            &format!(
                "| {} | {weight} | {} |",
                plain(&check.subject),
                plain(&reason)
            ),
        );
    }
}

fn rehearsed(text: &mut String, it: &Rehearsal) {
    line(text, "");
    match it.kind {
        Kind::Planned => line(
            text,
            "## Planned failover, on a topic of the rehearsal's own",
        ),
        Kind::Unplanned => line(
            text,
            "## Unplanned failover, on copies of the flow's topics",
        ),
    }
    line(text, "");
    if let Some(failure) = &it.failure {
        line(
            text,
            &format!("- **it did not come to its end**: {}", plain(failure)),
        );
    }
    if let Some(cut) = &it.cut {
        line(text, &format!("- the cut: {cut}"));
    }
    if let Some(rto) = &it.rto {
        line(
            text,
            &format!(
                "- clients stood still for {:.2} s: plan done after {:.2} s, first write on the \
                 standby after {:.2} s, first read after {:.2} s",
                rto.seconds(),
                rto.plan_seconds,
                rto.write_seconds,
                rto.read_seconds
            ),
        );
    }
    if let Some(seconds) = it.fence_seconds {
        line(
            text,
            &format!("- writers were refused {seconds:.2} s after the fence began"),
        );
    }
    if let Some(account) = &it.account {
        line(
            text,
            &format!(
                "- of {} acknowledged record(s) {} lost ({:.3} s), {} doubled; the group read {} \
                 before and {} after: {} skipped, {} read again",
                account.acknowledged_before,
                account.lost,
                account.lost_seconds,
                account.doubled,
                account.read.0,
                account.read.1,
                account.skipped,
                account.read_again
            ),
        );
    }
    if let Some(missing) = &it.missing {
        line(
            text,
            &format!(
                "- at the cut {} record(s) were not on the standby, the oldest {:.3} s old; the \
                 plan said {} at most",
                missing.records, missing.seconds, missing.bound_records
            ),
        );
    }
    if let Some(groups) = &it.groups {
        line(
            text,
            &format!(
                "- copies of {} group(s) with {} position(s): the next record is the right one in \
                 {}, {} at the end, {} not checked, {} wrong",
                groups.groups,
                groups.positions,
                groups.exact,
                groups.at_end,
                groups.not_checked,
                groups.wrong.len()
            ),
        );
        for why in &groups.unseen {
            line(text, &format!("  - there may be others: {}", plain(why)));
        }
        for (group, why) in &groups.not_rehearsed {
            line(
                text,
                &format!("  - {} was not rehearsed: {}", plain(group), plain(why)),
            );
        }
    }
    if let Some(result) = &it.verify {
        line(
            text,
            &format!(
                "- the copies compared with the source: {}",
                compared(result)
            ),
        );
    }
    line(text, "");
    line(text, "| phase | seconds | |");
    line(text, "|---|---:|---|");
    for phase in &it.phases {
        line(
            text,
            &format!(
                "| {} | {:.2} | {} |",
                phase.phase,
                phase.seconds,
                plain(&phase.result)
            ),
        );
        if phase.phase == "failover"
            && let Some(plan) = &it.plan
        {
            for step in &plan.steps {
                line(
                    text,
                    &format!(
                        "| – {} | {:.2} | {} |",
                        step.step,
                        step.seconds,
                        plain(&step.result)
                    ),
                );
            }
        }
    }
}

fn scope(text: &mut String, report: &Report) {
    let scope = &report.scope;
    line(text, "");
    line(text, "## Scope");
    line(text, "");
    line(
        text,
        &format!(
            "- {} of {} topic(s) were copied: {} partition(s), {} record(s), about {}",
            scope.topics_copied.len(),
            scope.topics_selected,
            scope.partitions_copied,
            scope.records_copied,
            size::bytes(scope.bytes_copied as f64)
        ),
    );
    line(
        text,
        if scope.used_source {
            "- the rehearsal's own clients used topics of its own on the source"
        } else {
            "- nothing was made on the source"
        },
    );
    for topic in &scope.topics_copied {
        line(text, &format!("- copied: {}", plain(topic)));
    }
    for left in &scope.topics_left_out {
        line(
            text,
            &format!("- not copied: {}: {}", plain(&left.topic), plain(&left.why)),
        );
    }
}

fn cleanup(text: &mut String, report: &Report) {
    let done = &report.cleanup;
    line(text, "");
    line(text, "## Afterwards");
    line(text, "");
    if done.kept {
        line(
            text,
            "- everything was kept; `twinlog drill --cleanup` removes it",
        );
    } else {
        line(
            text,
            &format!(
                "- removed: {} topic(s), {} group(s), {} ACL(s), {} record(s) of state; {} left",
                done.topics,
                done.groups,
                done.acls,
                done.state,
                done.left.len()
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::report::tests::good;

    #[test]
    fn the_verdict_the_figures_and_the_digest_are_there() {
        let mut report = good();
        report.judge(Some(60.0), None);
        let text = render(&report, "abc123");
        for part in [
            "# Failover drill of flow dr: PASSED\n",
            "| RTO, planned | 3.00 s | 60.00 s |",
            "| RPO, unplanned | 0.50 s | - |",
            "| began | 2026-11-25T03:15:00Z |",
            "cluster id of primary, 3 broker(s)",
            "- your applications",
            "`abc123`",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn names_are_no_markup_and_no_commands() {
        assert_eq!(plain("a|b`c\u{1b}[2Jd\n# e"), "a\\|b\\`c \\[2Jd # e");
    }
}
