//! `twinlog plan`: what differs on the standby and what `run` would do about it; nothing changed.

use std::fmt::Write as _;

use clap::Args;
use serde::Serialize;

use super::format::{clean, plural};
use super::{Exit, output};
use crate::config::Config;
use crate::flow;
use crate::telemetry::finding::PlannedChange;
use crate::telemetry::metadata::DriftKind;

/// No more of one kind and action than this are listed without `--all`.
const LISTED_MAX: usize = 50;

/// What is answered in JSON.
#[derive(Serialize)]
struct Answer<'a> {
    changes: &'a [PlannedChange],
}

/// The options of `plan`.
#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    /// Only this flow; else every one.
    #[arg(long, value_name = "NAME")]
    flow: Option<String>,
    /// Exit with 1 if something differs that run would change or an operator must; for cron. What is
    /// held for the failover or left alone by rule doesn't count.
    #[arg(long)]
    exit_code: bool,
    /// List everything, however long.
    #[arg(long)]
    all: bool,
}

/// Asks every flow what differs, and shows it.
pub(super) async fn run(config: &Config, args: &PlanArgs, json: bool) -> Exit {
    let mut config = config.clone();
    if let Some(name) = &args.flow {
        if let Err(problem) = config.flow(Some(name)) {
            return output::fail(Exit::Usage, &problem);
        }
        config.flows.retain(|flow, _| flow == name);
    }
    let changes = flow::plan(&config).await;
    let differs = args.exit_code && changes.iter().any(|change| change.counts);
    let written = if json {
        output::print_answer(Answer { changes: &changes })
    } else {
        let listed_max = if args.all { usize::MAX } else { LISTED_MAX };
        output::print(&render(&changes, listed_max))
    };
    if let Some(problem) = unanswered(&changes) {
        return output::fail(Exit::Failed, &problem);
    }
    if differs { Exit::Failed } else { written }
}

/// Which clusters didn't answer: then what is shown isn't all.
fn unanswered(changes: &[PlannedChange]) -> Option<String> {
    let silent = changes
        .iter()
        .filter(|change| change.is_obstacle() && change.kind == Some(DriftKind::Topic));
    let lines: Vec<String> = silent
        .map(|change| {
            let (flow, detail) = (clean(&change.flow), clean(&change.detail));
            format!("flow {flow}: {detail}")
        })
        .collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// The changes by flow and kind. `+` is made, `~` changed, `-` removed, `=` held for the failover,
/// `.` left alone, `!` an operator's to do, `?` not comparable.
fn render(changes: &[PlannedChange], listed_max: usize) -> String {
    let mut text = String::new();
    let mut flows: Vec<&str> = Vec::new();
    for change in changes {
        if !flows.contains(&change.flow.as_str()) {
            flows.push(&change.flow);
        }
    }
    for flow in flows {
        // Writing to a string can't fail.
        let _ = writeln!(text, "flow {}", clean(flow));
        for kind in DriftKind::ALL {
            let of_kind = |change: &&PlannedChange| {
                change.flow == flow && change.kind.unwrap_or(DriftKind::Topic) == kind
            };
            let of_kind: Vec<&PlannedChange> = changes.iter().filter(of_kind).collect();
            if !of_kind.is_empty() {
                let _ = writeln!(text, "  {}", kind.plural());
                render_kind(&mut text, &of_kind, listed_max);
            }
        }
    }
    text.push_str(&summary(changes));
    text
}

fn render_kind(text: &mut String, changes: &[&PlannedChange], listed_max: usize) {
    let mut actions: Vec<&str> = Vec::new();
    for change in changes {
        if !actions.contains(&change.action.as_str()) {
            actions.push(&change.action);
        }
    }
    for action in actions {
        let of_action = || changes.iter().filter(|change| change.action == action);
        for change in of_action().take(listed_max) {
            render_change(text, change);
        }
        let more = of_action().count().saturating_sub(listed_max);
        if more > 0 {
            let _ = writeln!(
                text,
                "    {} and {more} more; --all lists them",
                mark(action)
            );
        }
    }
}

fn render_change(text: &mut String, change: &PlannedChange) {
    let mark = mark(&change.action);
    let subject = clean(&change.subject);
    let detail = clean(&change.detail);
    let _ = match change.action.as_str() {
        "create" | "grow" | "adopt" | "refuse" => {
            writeln!(text, "    {mark} {subject}: {}: {detail}", change.action)
        }
        "hold" => writeln!(
            text,
            "    {mark} {subject}: held: {detail}{}",
            values(change)
        ),
        _ if detail.is_empty() => writeln!(text, "    {mark} {subject}{}", values(change)),
        _ => writeln!(text, "    {mark} {subject}: {detail}{}", values(change)),
    };
    if let Some(why) = &change.why {
        let _ = writeln!(text, "        {}", clean(why));
    }
}

fn values(change: &PlannedChange) -> String {
    match (&change.target, &change.source) {
        (None, None) => String::new(),
        (Some(target), None) => format!(" ({})", clean(target)),
        // An ACL that isn't renamed would be there twice.
        (None, Some(source)) if *source == format!("{} on {}", change.detail, change.subject) => {
            String::new()
        }
        (None, Some(source)) => format!(" = {}", clean(source)),
        (Some(target), Some(source)) => format!(": {} -> {}", clean(target), clean(source)),
    }
}

fn mark(action: &str) -> char {
    match action {
        "create" | "adopt" | "add" => '+',
        "grow" | "change" => '~',
        "remove" => '-',
        "hold" => '=',
        "leave" => '.',
        "refuse" | "operator" => '!',
        _ => '?',
    }
}

fn summary(changes: &[PlannedChange]) -> String {
    let count = |of: &dyn Fn(&PlannedChange) -> bool| {
        changes.iter().filter(|change| of(change)).count() as u64
    };
    let applied = ["create", "grow", "adopt", "add", "change", "remove"];
    let made = count(&|change| applied.contains(&change.action.as_str()));
    let operator = count(&|change| ["refuse", "operator"].contains(&change.action.as_str()));
    let held = count(&|change| change.action == "hold");
    let not_compared = count(&|change| change.action == "not_compared" && change.counts);
    let mut parts = Vec::new();
    if made > 0 {
        parts.push(format!(
            "{}; `twinlog run` makes them",
            plural(made, "change")
        ));
    }
    if operator > 0 {
        parts.push(format!("{operator} for an operator"));
    }
    if held > 0 {
        parts.push(format!("{held} held for the failover"));
    }
    if not_compared > 0 {
        parts.push(format!("{not_compared} not compared"));
    }
    // Of what wasn't compared nobody can say that.
    if made == 0 && not_compared == 0 {
        parts.insert(0, "nothing would be changed".to_owned());
    }
    format!("{}\n", parts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metadata::{Drift, DriftAction};

    fn drift(action: DriftAction, detail: &str) -> PlannedChange {
        let drift = Drift {
            kind: DriftKind::TopicConfig,
            action,
            subject: "topic orders".to_owned(),
            detail: detail.to_owned(),
            source: Some("2".to_owned()),
            target: (action != DriftAction::Add).then(|| "1".to_owned()),
            why: (action == DriftAction::Hold).then(|| "while it is a copy".to_owned()),
            failure: None,
        };
        PlannedChange::drift("dr", drift)
    }

    #[test]
    fn no_change_is_said_too() {
        assert_eq!(render(&[], 50), "nothing would be changed\n");
    }

    #[test]
    fn a_plan_reads_like_a_diff() {
        let changes = [
            PlannedChange::topic("dr", "create", "new", "2 partition(s)".to_owned()),
            drift(DriftAction::Change, "retention.ms"),
            drift(DriftAction::Add, "segment.ms"),
            drift(DriftAction::Hold, "message.timestamp.type"),
        ];
        assert_eq!(
            render(&changes, 50),
            "flow dr\n  topics\n    + topic new: create: 2 partition(s)\n  topic configs\n    \
             ~ topic orders: retention.ms: 1 -> 2\n    + topic orders: segment.ms = 2\n    \
             = topic orders: held: message.timestamp.type: 1 -> 2\n        while it is a copy\n\
             3 changes; `twinlog run` makes them; 1 held for the failover\n"
        );
        let shortened = render(&[changes[1].clone(), changes[1].clone()], 1);
        assert!(shortened.contains("~ and 1 more"), "{shortened}");
    }

    #[test]
    fn an_acl_that_is_not_renamed_is_there_once() {
        let acl = |source: &str| PlannedChange {
            subject: "topic a".to_owned(),
            source: Some(source.to_owned()),
            target: None,
            ..drift(DriftAction::Add, "ALLOW READ User:x from *")
        };
        let line = |source| {
            let text = render(&[acl(source)], 50);
            text.lines().nth(2).map(str::to_owned)
        };
        let same = line("ALLOW READ User:x from * on topic a");
        let same = same.as_deref();
        assert_eq!(same, Some("    + topic a: ALLOW READ User:x from *"));
        let renamed = line("ALLOW READ User:x from * on topic b").expect("a line");
        assert!(renamed.ends_with("= ALLOW READ User:x from * on topic b"));
    }

    #[test]
    fn what_is_held_or_left_alone_does_not_count() {
        let counts = |action| drift(action, "key").counts;
        assert!(counts(DriftAction::Change) && counts(DriftAction::Operator));
        assert!(!counts(DriftAction::Hold) && !counts(DriftAction::Leave));
    }
}
