//! What `failover` and `failback` have in common: which flow, what is shown, how it ends.

use std::fmt::Write as _;
use std::sync::Arc;

use serde::Serialize;

use super::format::clean;
use super::shutdown::Signals;
use super::{Exit, output};
use crate::config::{ClusterSection, Config, FlowConfig};
use crate::cutover::{
    self, Check, CutoverError, FenceMode, GiveUpAccount, Plan, Report, Tell, Undoing, Weight,
};
use crate::state::CutoverKind;
use crate::telemetry::utc::to_the_second;

/// What is said of a command that was ended.
const INTERRUPTED: &str = "interrupted: the finished steps stay in force, and producers may be refused\n\
     type the same command again to go on, or add `--abort` to undo it";

/// A flow with its source and target.
pub(super) struct Chosen<'a> {
    /// The flow.
    pub flow: &'a FlowConfig,
    /// Its source, as the config has it.
    pub source: &'a ClusterSection,
    /// Its target.
    pub target: &'a ClusterSection,
}

/// The flow that was named, or the only one.
///
/// # Errors
/// The exit code, after the problem was printed.
pub(super) fn choose<'a>(config: &'a Config, name: Option<&str>) -> Result<Chosen<'a>, Exit> {
    let usage = |problem: &str| output::fail(Exit::Usage, &problem);
    let flow = config.flow(name).map_err(|problem| usage(&problem))?;
    let cluster = |name: &str| {
        let found = config.clusters.get(name);
        found.ok_or_else(|| usage(&format!("there is no cluster {name}")))
    };
    Ok(Chosen {
        flow,
        source: cluster(&flow.source)?,
        target: cluster(&flow.target)?,
    })
}

/// How it goes is on stderr: the answer alone is on stdout.
pub(super) fn tell() -> Tell {
    Arc::new(move |line: &str| eprintln!("{}", clean(line)))
}

/// What is shown without `--yes`.
#[derive(Serialize)]
struct Shown<'a> {
    flow: &'a str,
    kind: &'static str,
    continues: Option<String>,
    steps: Vec<&'static str>,
    checks: &'a [Check],
    may_begin: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    given_up: Option<&'a GiveUpAccount>,
}

/// Shows the plan, and carries it out if told to.
pub(super) async fn carry_out(
    flow: &FlowConfig,
    kind: CutoverKind,
    plan: Plan,
    yes: bool,
    json: bool,
) -> Exit {
    let worst = cutover::worst(&plan.checks);
    if !yes {
        let written = show(flow, kind, &plan, json);
        return match worst {
            Weight::LosesData => Exit::Refused,
            Weight::Blocker => Exit::Failed,
            Weight::Ok | Weight::Warning => written,
        };
    }
    if worst >= Weight::Blocker {
        show(flow, kind, &plan, json);
    }
    carried_out(cutover::apply(plan, tell()), json).await
}

/// How a cut-over ended, or its undoing.
type Ended = Result<(Report, Option<CutoverError>), CutoverError>;

/// Waits for a cut-over, or its undoing, and prints the account. Ctrl-C ends it as any crash would: whoever typed it is
/// told that it isn't undone by that.
pub(super) async fn carried_out(ending: impl Future<Output = Ended>, json: bool) -> Exit {
    let signals = match Signals::install() {
        Ok(signals) => signals,
        Err(error) => {
            return output::fail(Exit::Failed, &format!("can't handle signals: {error}"));
        }
    };
    tokio::select! {
        ended = ending => match ended {
            Ok(ended) => account(ended, json),
            Err(error) => refuse(&error),
        },
        () = signals.first() => output::fail(Exit::Failed, &INTERRUPTED),
    }
}

/// Prints the account, and what stopped it.
pub(super) fn account((report, error): (Report, Option<CutoverError>), json: bool) -> Exit {
    let written = if json {
        output::print_json(&report)
    } else {
        output::print(&clean_lines(&report.render()))
    };
    match error {
        Some(error) => refuse(&error),
        None => written,
    }
}

/// What `--abort` shows without `--yes`.
#[derive(Serialize)]
struct ShownUndoing<'a> {
    flow: &'a str,
    kind: &'static str,
    undoes: String,
    steps: Vec<&'a str>,
}

/// Shows what would be undone.
pub(super) fn show_undoing(flow: &FlowConfig, undoing: &Undoing, json: bool) -> Exit {
    let (plan, steps) = (undoing.plan(), undoing.steps());
    if json {
        return output::print_answer(ShownUndoing {
            flow: &flow.name,
            kind: plan.kind.word(),
            undoes: plan.plan.to_string(),
            steps,
        });
    }
    let what = match plan.kind {
        CutoverKind::Failback => "the failback".to_owned(),
        kind => format!("the {} failover", kind.word()),
    };
    let mut text = format!(
        "undoes {what} of flow {}: plan {} of {}\nsteps, backwards:\n",
        flow.name,
        plan.plan,
        to_the_second(plan.began_ms)
    );
    for step in steps {
        // Writing to a string can't fail.
        let _ = writeln!(text, "  {}", clean(step));
    }
    text.push_str("nothing was changed; --yes carries it out\n");
    output::print(&text)
}

/// Prints what doesn't work.
pub(super) fn refuse(error: &CutoverError) -> Exit {
    let exit = if error.loses_data {
        Exit::Refused
    } else {
        Exit::Failed
    };
    output::fail(exit, error)
}

/// `--quiet-for` is about a fence that nobody but the operator keeps.
///
/// # Errors
/// How the command ends, where it is asked for with another one.
pub(super) fn quiet_for_fits(fence: FenceMode, quiet_for: Option<u64>) -> Result<(), Exit> {
    match (fence, quiet_for) {
        (FenceMode::Acl, Some(_)) => Err(output::fail(
            Exit::Usage,
            &"--quiet-for needs --fence manual: where ACLs keep writers away it is a second",
        )),
        _ => Ok(()),
    }
}

/// What was found, in a line, without what to do about it.
pub(super) fn check_line(check: &Check) -> String {
    let mark = match check.weight {
        Weight::Ok => "ok     ",
        Weight::Warning => "warning",
        Weight::Blocker => "blocker",
        Weight::LosesData => "LOSS   ",
    };
    format!("{mark}  {}: {}", check.subject, clean(&check.reason))
}

fn show(flow: &FlowConfig, kind: CutoverKind, plan: &Plan, json: bool) -> Exit {
    let may_begin = cutover::worst(&plan.checks) < Weight::Blocker;
    if json {
        return output::print_answer(Shown {
            flow: &flow.name,
            kind: match plan.gives_up() {
                true => cutover::GIVE_UP,
                false => kind.word(),
            },
            continues: plan.continues.as_ref().map(|open| open.plan.to_string()),
            steps: plan.steps.iter().map(|step| step.name()).collect(),
            checks: &plan.checks,
            may_begin,
            given_up: plan.account.as_ref(),
        });
    }
    let mut text = String::new();
    let (what, from, to) = match kind {
        _ if plan.gives_up() => (
            "giving up the standby".to_owned(),
            &flow.target,
            &flow.source,
        ),
        CutoverKind::Failback => ("failback".to_owned(), &flow.target, &flow.source),
        kind => (
            format!("{} failover", kind.word()),
            &flow.source,
            &flow.target,
        ),
    };
    // Writing to a string can't fail.
    let _ = writeln!(text, "{what} of flow {}: {from} -> {to}", flow.name);
    if let Some(open) = &plan.continues {
        let _ = writeln!(
            text,
            "continues plan {} of {}",
            open.plan,
            to_the_second(open.began_ms)
        );
    }
    for check in &plan.checks {
        let _ = writeln!(text, "{}", check_line(check));
        if let Some(hint) = &check.hint {
            let _ = writeln!(text, "         -> {}", clean(hint));
        }
    }
    for line in plan.account.iter().flat_map(GiveUpAccount::topics_in_words) {
        let _ = writeln!(text, "  {}", clean(&line));
    }
    let _ = writeln!(text, "steps:");
    for step in &plan.steps {
        let _ = writeln!(text, "  {:<13} {}", step.name(), step.in_words(from, to));
    }
    let _ = writeln!(
        text,
        "{}",
        if may_begin {
            "nothing was changed; --yes carries it out"
        } else {
            "it can't begin like this"
        }
    );
    output::print(&text)
}

fn clean_lines(text: &str) -> String {
    text.lines().map(|line| clean(line) + "\n").collect()
}
