//! The account of a cut-over: what was lost, how long it took, what is left to do.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::give_up::{self, GiveUpAccount};
use super::journal::fact;
use super::loss::Loss;
use super::padding::PaddingCost;
use super::reign::Carried;
use super::reread::RereadAccount;
use super::steps::promote::{LATE_UNSEEN, NOT_REMEMBERED, WRITTEN_BEHIND};
use super::steps::release::Released;
use super::steps::{GroupsResult, UNCOPIED, UNTOLD_TRANSACTIONS};
use crate::state::{CutoverKind, CutoverRecord, CutoverState, StepState};
use crate::telemetry::size::bytes;

/// The version of the report's shape.
pub const REPORT_VERSION: u32 = 1;

/// The kind of a plan that gives the standby up.
pub const GIVE_UP: &str = "give_up";

/// More of one thing are counted, not named.
const NAMED_MAX: usize = 5;

/// The account of one plan, as far as it got.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The version of this shape.
    pub version: u32,
    /// The flow.
    pub flow: String,
    /// The plan.
    pub plan: String,
    /// `planned`, `unplanned`, `failback` or `give_up`.
    pub kind: String,
    /// `open`, `done`, `aborting` or `aborted`.
    pub state: CutoverState,
    /// The new primary's name in the config.
    pub primary: String,
    /// What was lost.
    pub lost: Lost,
    /// From the first step to the end of the last one.
    pub seconds: f64,
    /// The steps.
    pub steps: Vec<StepReport>,
    /// The consumer groups; absent where they weren't moved by the plan.
    pub groups: Option<GroupsResult>,
    /// What groups read again; absent in a planned failover, where they read nothing again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reread: Option<RereadAccount>,
    /// Invisible offsets that were written past the fork; absent in a planned failover.
    pub padding: Option<PaddingCost>,
    /// What had reached the old primary when the standby was given up; absent in every other plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_up: Option<GiveUpAccount>,
    /// What an operator has to do or to know.
    pub for_the_operator: Vec<String>,
    /// What clients have to do.
    pub for_clients: Vec<String>,
}

/// In the record that a report is made of: brokers of the old primary that take records still, in words.
pub(super) const LATE_BROKERS: &str = "late_brokers";
/// In the journal's facts, for a report: those that didn't say it when they were asked again.
pub(super) const UNASKED_BROKERS: &str = "unasked_brokers";

/// Whether this was about beginning to copy back, and no more.
pub(super) fn is_only_begun(record: &CutoverRecord) -> bool {
    record.kind == CutoverKind::Failback && record.steps.len() == 1
}

/// What was lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Whether this was proven by comparing both clusters; else it is a bound.
    pub is_proven: bool,
    /// Records.
    pub records: u64,
    /// Bytes.
    pub bytes: u64,
    /// In words.
    pub text: String,
    /// By topic, where anything may be.
    pub topics: std::collections::BTreeMap<String, super::loss::TopicLoss>,
    /// Partitions of which too little is known to bound it: they aren't in the sums.
    #[serde(default)]
    pub unknown_partitions: u64,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// Its name.
    pub step: String,
    /// Where it stands.
    pub state: StepState,
    /// How long it took.
    pub seconds: f64,
    /// What came out.
    pub result: String,
}

impl Report {
    /// From the journal.
    pub fn new(flow: &str, target: &str, record: &CutoverRecord) -> Self {
        let end_ms = record
            .steps
            .iter()
            .map(|step| step.began_ms + i64::try_from(step.took_ms).unwrap_or(0))
            .max()
            .unwrap_or(record.began_ms);
        let groups: Option<GroupsResult> = fact(record, "groups");
        let reread: Option<RereadAccount> = fact(record, "reread");
        let groups_go_on = groups_go_on(record.kind, groups.as_ref(), reread.as_ref());
        Self {
            version: REPORT_VERSION,
            flow: flow.to_owned(),
            plan: record.plan.to_string(),
            kind: match give_up::about(record) {
                Some(_) => GIVE_UP.to_owned(),
                None => record.kind.word().to_owned(),
            },
            state: record.state,
            primary: target.to_owned(),
            lost: lost(record),
            seconds: (end_ms - record.began_ms).max(0) as f64 / 1_000.0,
            steps: record
                .steps
                .iter()
                .map(|step| StepReport {
                    step: step.step.clone(),
                    state: step.state,
                    seconds: step.took_ms as f64 / 1_000.0,
                    result: step.result.clone(),
                })
                .collect(),
            for_the_operator: for_the_operator(record, groups.as_ref()),
            groups,
            reread,
            padding: fact(record, "padding"),
            given_up: fact(record, give_up::ACCOUNT),
            for_clients: match is_only_begun(record) {
                true => Vec::new(),
                false => for_clients(target, groups_go_on),
            },
        }
    }

    /// For a person.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a string can't fail.
        let _ = writeln!(
            text,
            "{} of flow {}: {} (plan {})",
            match self.kind.as_str() {
                "failback" => "failback".to_owned(),
                GIVE_UP => "giving up the standby".to_owned(),
                kind => format!("{kind} failover"),
            },
            self.flow,
            match self.state {
                CutoverState::Done => "done",
                CutoverState::Open => "not finished",
                CutoverState::Aborting => "being undone",
                CutoverState::Aborted => "undone",
            },
            self.plan
        );
        for step in &self.steps {
            let state = match step.state {
                StepState::Pending => "-",
                StepState::Doing => "begun",
                StepState::Done => "done",
                StepState::Failed => "failed",
                StepState::Undoing => "undoing",
                StepState::Undone => "undone",
            };
            let line = format!(
                "  {state:<7} {:<13} {:>7.2} s  {}",
                step.step, step.seconds, step.result
            );
            let _ = writeln!(text, "{}", line.trim_end());
        }
        if matches!(self.state, CutoverState::Aborted | CutoverState::Aborting) {
            return text;
        }
        if self.state == CutoverState::Done {
            let _ = writeln!(text, "lost: {}", self.lost.text);
        }
        if let Some(account) = &self.given_up {
            let _ = writeln!(text, "copied back: {}", account.in_words());
            for line in account.topics_in_words() {
                let _ = writeln!(text, "  {line}");
            }
        }
        let topics = self.lost.topics.iter();
        for (topic, loss) in topics.filter(|_| self.given_up.is_none()) {
            let _ = writeln!(
                text,
                "  {topic}: up to {} record(s), {}; {} of them were seen on the source",
                loss.records,
                bytes(loss.bytes as f64),
                loss.seen_records
            );
        }
        if let Some(reread) = &self.reread {
            let mut lines = reread.in_words().into_iter();
            let _ = writeln!(text, "read again: {}", lines.next().unwrap_or_default());
            for line in lines {
                let _ = writeln!(text, "  {line}");
            }
        }
        let _ = writeln!(text, "took: {:.2} s", self.seconds);
        if self.state == CutoverState::Done {
            let _ = writeln!(text, "primary: {}", self.primary);
        }
        for (title, lines) in [
            ("for you:", &self.for_the_operator),
            ("for clients:", &self.for_clients),
        ] {
            if !lines.is_empty() && self.state == CutoverState::Done {
                let _ = writeln!(text, "{title}");
                for line in lines {
                    let _ = writeln!(text, "  - {line}");
                }
            }
        }
        text
    }
}

/// What is proven, and what that rests on where the old primary can't be asked any more.
fn proven(unasked: &[String]) -> String {
    let text = "0 records, proven: every log ends on both clusters at the same record";
    if unasked.is_empty() {
        return text.to_owned();
    }
    format!(
        "{text}. Whether the old primary refuses writers by now isn't known ({}): this rests on what its brokers said before \
         the promotion",
        unasked.join(", ")
    )
}

fn lost(record: &CutoverRecord) -> Lost {
    let is_proven = record.kind.loses_nothing()
        && record
            .steps
            .iter()
            .any(|step| step.step == "forks" && step.state == StepState::Done);
    let loss: Option<Loss> = fact(record, "loss");
    if let Some(account) = fact::<GiveUpAccount>(record, give_up::ACCOUNT) {
        let loss = loss.unwrap_or_default();
        return Lost {
            is_proven: account.is_proven,
            text: account.loss_in_words(&loss),
            ..of(loss)
        };
    }
    let behind: Vec<(String, i32, i64, i64)> = fact(record, WRITTEN_BEHIND).unwrap_or_default();
    let late: Vec<String> = fact(record, LATE_BROKERS).unwrap_or_default();
    let late = late.join(", ");
    if let Some((topic, partition, from, _)) = behind.first() {
        let offsets = behind
            .iter()
            .map(|(_, _, from, to)| to.abs_diff(*from))
            .sum();
        let text = format!(
            "{offsets} offset(s) at least: somebody wrote behind the proof to {} partition(s) of the old primary, such as \
             {topic}-{partition} from {from} on; `twinlog orphans` shows them{}{late}",
            behind.len(),
            if late.is_empty() { "" } else { "; there " }
        );
        return Lost {
            is_proven: false,
            records: offsets,
            text,
            ..Lost::default()
        };
    }
    let unseen: Option<String> = fact(record, LATE_UNSEEN).filter(|_| is_proven);
    let text = match (is_proven, &loss) {
        (true, _) if unseen.is_some() => format!(
            "0 records of the topics that are here; whether others were made on the old primary after it was proven isn't \
             known: {}",
            unseen.as_deref().unwrap_or_default()
        ),
        (true, _) if !late.is_empty() => format!(
            "0 records as far as the old primary's leaders know, but on the old primary {late}: no other cluster gets the records that it accepts; \
             stop it, or its producers"
        ),
        (true, _) => proven(&fact::<Vec<String>>(record, UNASKED_BROKERS).unwrap_or_default()),
        (false, Some(loss)) => loss.in_words(),
        (false, None) if is_only_begun(record) => "nothing: clients stay where they are".into(),
        (false, None) => "not known yet".into(),
    };
    Lost {
        is_proven: is_proven && late.is_empty() && unseen.is_none(),
        text,
        ..of(loss.unwrap_or_default())
    }
}

fn of(loss: Loss) -> Lost {
    Lost {
        is_proven: false,
        records: loss.records,
        bytes: loss.bytes,
        text: String::new(),
        topics: loss.topics,
        unknown_partitions: loss.unknown_partitions,
    }
}

fn for_the_operator(record: &CutoverRecord, groups: Option<&GroupsResult>) -> Vec<String> {
    let mut lines: Vec<String> = fact(record, "warnings").unwrap_or_default();
    if let Some(groups) = groups {
        let named = |names: &std::collections::BTreeSet<String>| {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            names.join(", ")
        };
        for (what, names) in [
            (
                "groups that were still moving on the source",
                &groups.moving,
            ),
            (
                "groups with a transaction whose positions didn't count yet (it is open, or its marker is on the way): see \
                 where they are on the old primary, they may read again what is done",
                &groups.pending,
            ),
            (
                "groups without a position, of which there was no time to ask whether a transaction has committed one",
                &groups.maybe_pending,
            ),
            (
                "groups with members on the source that had committed nothing, so auto.offset.reset decides on the standby",
                &groups.uncommitted,
            ),
            (
                "groups with members on the standby, not moved",
                &groups.active_on_target,
            ),
            (
                "groups with positions of their own on the standby, kept",
                &groups.kept,
            ),
            ("positions beyond the copy, not moved", &groups.beyond),
            (
                "groups that couldn't be asked for (their coordinator is away), left where they were seen last",
                &groups.unknown,
            ),
            (
                "groups that Twinlog may not describe (DESCRIBE), left where they were seen last",
                &groups.refused,
            ),
        ] {
            if !names.is_empty() {
                lines.push(format!("{what}: {}", named(names)));
            }
        }
        lines.extend(groups.failed.iter().cloned());
        if let Some(why) = &groups.unseen {
            lines.push(format!(
                "there may be more groups that nobody could name: {why}"
            ));
        }
    }
    if let Some(unseeded) = fact::<Vec<String>>(record, "unseeded") {
        let line = |why: &String| {
            format!(
                "groups of the old primary that couldn't be seen keep the positions there: {why}"
            )
        };
        lines.extend(unseeded.iter().map(line));
    }
    for aspect in ["configs", "quotas", "acls"] {
        let released: Option<Released> = fact(record, &format!("released_{aspect}"));
        lines.extend(released.into_iter().flat_map(|released| released.problems));
    }
    if let Some(carried) = fact::<Carried>(record, "carried") {
        for (what, all) in [
            ("topic config carried over", carried.configs),
            ("ACL carried over", carried.acls),
            ("ACL removed, as on the standby", carried.acls_removed),
            ("quota carried over", carried.quotas),
        ] {
            let lines_of = all.into_iter().map(|one| format!("{what}: {one}"));
            lines.extend(lines_of);
        }
        lines.extend(carried.problems);
    }
    lines.extend(fact::<Vec<String>>(record, NOT_REMEMBERED).unwrap_or_default());
    lines.extend(fact::<String>(record, "padding_problem"));
    lines.extend(fact::<String>(record, "behind_padding"));
    lines.extend(fact::<String>(record, "kept_fence"));
    if let Some(problem) = fact::<String>(record, "source_untold") {
        lines.push(format!(
            "the source doesn't know its role yet ({problem}); a running `twinlog run` tells it"
        ));
    }
    if let Some(why) = fact::<String>(record, UNTOLD_TRANSACTIONS) {
        lines.push(format!(
            "the old primary didn't tell all of its open transactions ({why}): their markers may come behind the proof"
        ));
    }
    if let Some(uncopied) = fact::<Vec<String>>(record, UNCOPIED).filter(|it| !it.is_empty()) {
        let named: Vec<&str> = uncopied
            .iter()
            .take(NAMED_MAX)
            .map(String::as_str)
            .collect();
        lines.push(format!(
            "{} topic(s) weren't copied, or not with all their partitions: what the source had in them isn't here ({})",
            uncopied.len(),
            named.join(", ")
        ));
    }
    if fact::<bool>(record, "owner_was_silent") == Some(true) {
        lines.push(
            "the process that copied gave no sign: make sure that it is gone before it wakes up"
                .to_owned(),
        );
    }
    if let Some(about) = give_up::about(record) {
        lines.extend(give_up::for_the_operator(&about));
        return lines;
    }
    match record.kind {
        CutoverKind::Planned if record.fence == "acl" => lines.push(
            "writers stay denied on the old primary until the failback (or `--abort`)".to_owned(),
        ),
        CutoverKind::Planned => {
            lines.push("keep the producers away from the old primary".to_owned());
        }
        CutoverKind::Failback if is_only_begun(record) => lines.push(
            "leave `twinlog run` running: it copies back what is new; `twinlog failback` does the \
             rest"
                .to_owned(),
        ),
        CutoverKind::Failback => lines.push(
            "move every client that still writes to the standby: where no ACL refuses it, its records are on no other \
             cluster and stop the copy of their partition"
                .to_owned(),
        ),
        CutoverKind::Unplanned => lines.push(
            "leave `twinlog run` running: when the old primary is back it denies writes there and \
             counts what was stranded"
                .to_owned(),
        ),
    }
    lines
}

/// Where consumers go on.
fn groups_go_on(
    kind: CutoverKind,
    groups: Option<&GroupsResult>,
    reread: Option<&RereadAccount>,
) -> &'static str {
    if kind == CutoverKind::Unplanned && reread.is_none() {
        return "where consumers go on isn't known: look at their groups' committed offsets before they start";
    }
    if groups.is_some_and(|groups| !groups.has_all_placed()) {
        return "consumers go on at their group's next record, but for the groups that are named above or couldn't be \
                seen: look at their positions before they start";
    }
    if reread.is_some_and(|reread| !reread.has_all_placed()) {
        return "consumers go on where their group was seen last, but for the groups that are named above: look at \
                their positions before they start";
    }
    match reread.is_some_and(|reread| reread.groups_total > 0) {
        true => "consumers go on where their group was seen last, and may read records again",
        false => "consumers go on at their group's next record; nothing has to be reset",
    }
}

fn for_clients(target: &str, groups_go_on: &str) -> Vec<String> {
    vec![
        format!("point bootstrap.servers at {target} and restart, or let them rebootstrap"),
        groups_go_on.to_owned(),
        "transactional producers begin anew (initTransactions): their old transactions are settled"
            .to_owned(),
        "Kafka Streams: wipe local state; it is restored from the changelogs".to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_proven_says_what_it_rests_on() {
        let told = proven(&[]);
        assert!(!told.contains("rests on"), "{told}");
        let unasked = proven(&["broker 2: no answer within 3 s".to_owned()]);
        assert!(unasked.starts_with(&told), "{unasked}");
        assert!(unasked.contains("broker 2: no answer"), "{unasked}");
        assert!(unasked.contains("before the promotion"), "{unasked}");
    }

    /// What can't be carried over is told while there is time to look after it.
    #[test]
    fn what_the_failback_cannot_carry_over_is_told_at_the_failover() {
        let why = "ACLs of standby can't be read".to_owned();
        let facts = [(NOT_REMEMBERED.to_owned(), serde_json::json!([why]))];
        let record = CutoverRecord {
            v: 1,
            plan: uuid::Uuid::nil(),
            kind: CutoverKind::Planned,
            state: CutoverState::Done,
            topics: crate::state::TopicSet::All,
            operator: crate::state::Operator {
                host: String::new(),
                pid: 1,
                user: String::new(),
                since_ms: 0,
            },
            began_ms: 0,
            role_before: None,
            fence: "acl".to_owned(),
            padding: 0,
            accept_loss: None,
            steps: Vec::new(),
            facts: facts.into(),
        };
        let report = Report::new("dr", "standby", &record);
        let told = &report.for_the_operator;
        assert!(told.contains(&why), "{told:?}");
    }
}
