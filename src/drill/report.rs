//! The report: what auditors ask for. An interface for scripts; fields are only ever added.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::canary::Account;
use super::names::Kind;
use super::scope::LeftOut;
use crate::cutover::{self, Check, Weight};

/// The version of [`Report`]'s shape.
pub const REPORT_VERSION: u32 = 1;

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything was as it must be.
    Passed,
    /// A failover would work; somebody should know something.
    PassedWithRemarks,
    /// A failover would fail, lose something, or take longer than it may.
    Failed,
}

impl Verdict {
    /// The word for JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::PassedWithRemarks => "passed_with_remarks",
            Self::Failed => "failed",
        }
    }
}

/// A rehearsal, from its first to its last moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`REPORT_VERSION`].
    pub version: u32,
    /// The rehearsal's id.
    pub drill: String,
    /// When it began and ended, UTC.
    pub began: String,
    /// As above.
    pub ended: String,
    /// How long it took.
    pub seconds: f64,
    /// How it went.
    pub verdict: Verdict,
    /// Why it failed, if it did.
    pub failures: Vec<String>,
    /// What somebody should know.
    pub remarks: Vec<String>,
    /// The figures.
    pub figures: Figures,
    /// The version of Twinlog.
    pub twinlog: String,
    /// Who ran it: user, process and machine.
    pub operator: String,
    /// The flow.
    pub flow: String,
    /// The source.
    pub source: ClusterReport,
    /// The target.
    pub target: ClusterReport,
    /// What was rehearsed with.
    pub scope: Scope,
    /// The flow itself, only looked at.
    pub production: Production,
    /// The rehearsed cut-overs.
    pub rehearsals: Vec<Rehearsal>,
    /// What this says nothing about.
    pub not_rehearsed: Vec<String>,
    /// What was removed.
    pub cleanup: Cleanup,
}

/// The figures that auditors ask for, seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Recovery time of the planned cut-over: clients stood still for so long.
    pub rto_planned_seconds: Option<f64>,
    /// Recovery time of the unplanned one: from the loss of the source to the first write and the
    /// first read on the standby, with nobody hesitating.
    pub rto_unplanned_seconds: Option<f64>,
    /// Loss of the planned cut-over.
    pub rpo_planned_seconds: Option<f64>,
    /// Loss of the unplanned one.
    pub rpo_unplanned_seconds: Option<f64>,
    /// What the flow itself would lose now.
    pub rpo_now_seconds: Option<f64>,
    /// The objective for the recovery time, if one was given.
    pub rto_objective_seconds: Option<f64>,
    /// The objective for the loss, if one was given.
    pub rpo_objective_seconds: Option<f64>,
}

impl Figures {
    /// The longest recovery time.
    pub fn rto(&self) -> Option<f64> {
        longest([self.rto_planned_seconds, self.rto_unplanned_seconds])
    }

    /// The largest loss.
    pub fn rpo(&self) -> Option<f64> {
        longest([
            self.rpo_planned_seconds,
            self.rpo_unplanned_seconds,
            self.rpo_now_seconds,
        ])
    }
}

fn longest<const N: usize>(all: [Option<f64>; N]) -> Option<f64> {
    all.into_iter().flatten().reduce(f64::max)
}

/// A cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterReport {
    /// Its name in the config.
    pub name: String,
    /// Its id.
    pub cluster_id: Option<String>,
    /// Its brokers.
    pub brokers: usize,
}

/// What was rehearsed with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// Topics that the flow copies (and the command line selects).
    pub topics_selected: usize,
    /// Those that were copied for the rehearsal.
    pub topics_copied: Vec<String>,
    /// Their partitions.
    pub partitions_copied: usize,
    /// The records that their logs could have, and about how many bytes.
    pub records_copied: u64,
    /// As above.
    pub bytes_copied: u64,
    /// Those that weren't.
    pub topics_left_out: Vec<LeftOut>,
    /// Whether the rehearsal's own clients used a topic of its own on the source.
    pub used_source: bool,
}

/// The flow itself. Nothing of it was changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Production {
    /// What `twinlog failover` looks at before it begins.
    pub checks: Vec<Check>,
    /// What would be lost now.
    pub rpo: RpoNow,
    /// Where the groups are.
    pub groups: GroupsNow,
    /// Gaps that were recorded: source records that retention took before they were copied.
    pub gaps: u64,
    /// Grants that wait for the failover.
    pub held_grants: u64,
    /// Whether the standby has what the source has; absent when it wasn't compared.
    pub verify: Option<Compared>,
}

/// What would be lost if the source were gone now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RpoNow {
    /// How often it was looked at; the worst look counts.
    pub looks: u32,
    /// Partitions looked at.
    pub partitions: usize,
    /// Source offsets that weren't on the standby.
    pub records: u64,
    /// About how many bytes they are.
    pub bytes: u64,
    /// How old the oldest of them was.
    pub seconds: f64,
}

/// What groups would read again if they moved now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupsNow {
    /// Groups with a position in the flow's topics.
    pub groups: usize,
    /// Their positions.
    pub positions: usize,
    /// Positions that are where they must be.
    pub exact: usize,
    /// Records that would be read again, all groups.
    pub read_again: u64,
    /// The groups that would, those with the most first, 20 at most.
    pub worst: Vec<(String, u64)>,
    /// Positions that the standby doesn't have.
    pub missing: Vec<String>,
    /// Positions that lie further on the standby: records would be skipped.
    pub ahead: Vec<String>,
    /// Groups that couldn't be asked for, and why there may be others that nobody lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unseen: Vec<String>,
}

/// A comparison's result.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    /// `same`, `different` or `incomplete`.
    pub verdict: String,
    /// Records compared.
    pub records: u64,
    /// Of the offsets that both sides should have, 0 to 1.
    pub coverage: f64,
    /// What differs, or can't be compared: 20 lines at most.
    pub findings: Vec<String>,
}

/// One rehearsed cut-over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rehearsal {
    /// Planned or unplanned.
    pub kind: Kind,
    /// When the cut was, UTC; absent when it didn't come to that.
    pub cut: Option<String>,
    /// What was done, in order.
    pub phases: Vec<Phase>,
    /// The plan as `twinlog failover` reports it.
    pub plan: Option<cutover::Report>,
    /// How writers were kept from the source: `acl`, `manual`, or `gone`.
    pub fence: String,
    /// From the fence to the first refused write; absent where nobody was refused.
    pub fence_seconds: Option<f64>,
    /// How long clients stood still.
    pub rto: Option<Rto>,
    /// The rehearsal's own records.
    pub account: Option<Account>,
    /// Of the copied topics, what the source had and the copy hadn't when the source was gone.
    pub missing: Option<Missing>,
    /// The copied groups.
    pub groups: Option<GroupsRehearsed>,
    /// The copied topics, compared before the cut.
    pub verify: Option<Compared>,
    /// Why it didn't come to its end.
    pub failure: Option<String>,
}

/// Something that was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// What.
    pub phase: String,
    /// How long it took.
    pub seconds: f64,
    /// What came out.
    pub result: String,
}

/// How long clients stood still, seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rto {
    /// From the cut to the end of the plan.
    pub plan_seconds: f64,
    /// To the first acknowledged write on the standby.
    pub write_seconds: f64,
    /// To the first record that the group read there.
    pub read_seconds: f64,
}

impl Rto {
    /// Until both worked again.
    pub fn seconds(&self) -> f64 {
        self.write_seconds.max(self.read_seconds)
    }
}

/// What was missing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Missing {
    /// Source offsets.
    pub records: u64,
    /// How old the oldest of them was at the cut.
    pub seconds: f64,
    /// What the plan said could be missing at most.
    pub bound_records: u64,
}

/// The copied groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupsRehearsed {
    /// Groups.
    pub groups: usize,
    /// Their positions in the copied topics.
    pub positions: usize,
    /// Positions whose next record on the copy is the source's next record.
    pub exact: usize,
    /// Positions at the end, where there is no next record.
    pub at_end: usize,
    /// Positions whose next record was compacted or deleted, or that were too many to look at.
    pub not_checked: usize,
    /// Positions beyond the copy when they were moved: they would wait for it.
    pub beyond: usize,
    /// Positions with another next record.
    pub wrong: Vec<String>,
    /// Why there may be groups that nobody listed, which weren't rehearsed either.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unseen: Vec<String>,
    /// Groups that weren't rehearsed, or not to the end, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub not_rehearsed: BTreeMap<String, String>,
}

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cleanup {
    /// Rehearsals that were cleaned up: this one, and those that had been killed.
    pub drills: Vec<String>,
    /// Topics that were deleted, both clusters.
    pub topics: usize,
    /// Groups.
    pub groups: usize,
    /// ACLs of rehearsed fences.
    pub acls: usize,
    /// Records in the state topic.
    pub state: usize,
    /// Whether everything was left for a look.
    pub kept: bool,
    /// What could not be removed, a line each.
    pub left: Vec<String>,
}

impl Report {
    /// Judges: fills `verdict`, `failures`, `remarks` and `figures` from the rest.
    pub fn judge(&mut self, rto_max: Option<f64>, rpo_max: Option<f64>) {
        let (mut failures, mut remarks) = (Vec::new(), Vec::new());
        self.production.judge(&mut failures, &mut remarks);
        let mut figures = Figures {
            rpo_now_seconds: Some(self.production.rpo.seconds),
            rto_objective_seconds: rto_max,
            rpo_objective_seconds: rpo_max,
            ..Figures::default()
        };
        for rehearsal in &self.rehearsals {
            rehearsal.judge(&mut failures, &mut remarks);
            let (rto, rpo) = (rehearsal.rto.as_ref().map(Rto::seconds), rehearsal.rpo());
            match rehearsal.kind {
                Kind::Planned => {
                    figures.rto_planned_seconds = rto;
                    figures.rpo_planned_seconds = rpo;
                }
                Kind::Unplanned => {
                    figures.rto_unplanned_seconds = rto;
                    figures.rpo_unplanned_seconds = rpo;
                }
            }
        }
        for (what, measured, max) in [
            ("recovery time", figures.rto(), rto_max),
            ("loss", figures.rpo(), rpo_max),
        ] {
            match (measured, max) {
                (Some(measured), Some(max)) if measured > max => failures.push(format!(
                    "{what}: {measured:.2} s, more than the objective of {max} s"
                )),
                (None, Some(_)) => failures.push(format!("{what}: not measured")),
                _ => {}
            }
        }
        if !self.scope.topics_left_out.is_empty() {
            remarks.push(format!(
                "{} topic(s) of {} were not copied for the rehearsal",
                self.scope.topics_left_out.len(),
                self.scope.topics_selected
            ));
        }
        for left in &self.cleanup.left {
            failures.push(format!("not removed: {left}"));
        }
        self.verdict = match (failures.is_empty(), remarks.is_empty()) {
            (false, _) => Verdict::Failed,
            (true, false) => Verdict::PassedWithRemarks,
            (true, true) => Verdict::Passed,
        };
        (self.failures, self.remarks, self.figures) = (failures, remarks, figures);
    }
}

impl Production {
    fn judge(&self, failures: &mut Vec<String>, remarks: &mut Vec<String>) {
        for check in &self.checks {
            let text = format!("{}: {}", check.subject, check.reason);
            match check.weight {
                Weight::Ok => {}
                Weight::Warning => remarks.push(text),
                Weight::Blocker | Weight::LosesData => {
                    failures.push(format!("a failover would be refused now: {text}"));
                }
            }
        }
        if self.gaps > 0 {
            remarks.push(format!(
                "{} gap(s) are recorded: source records that were deleted before they were copied",
                self.gaps
            ));
        }
        let groups = &self.groups;
        if !groups.ahead.is_empty() {
            failures.push(format!(
                "groups that would skip records: {}",
                groups.ahead.join(", ")
            ));
        }
        if groups.read_again > 0 {
            remarks.push(format!(
                "groups would read {} record(s) again",
                groups.read_again
            ));
        }
        if !groups.missing.is_empty() {
            remarks.push(format!(
                "positions that the standby doesn't have: {}",
                groups.missing.join(", ")
            ));
        }
        if !groups.unseen.is_empty() {
            remarks.push(format!(
                "groups that can't be seen, so nothing is said of them: {}",
                groups.unseen.join(", ")
            ));
        }
        if let Some(compared) = &self.verify {
            compared.judge("the standby", failures, remarks);
        }
    }
}

impl Compared {
    fn judge(&self, what: &str, failures: &mut Vec<String>, remarks: &mut Vec<String>) {
        let found = self.findings.first().map_or("", String::as_str);
        match self.verdict.as_str() {
            "same" => {}
            "incomplete" => remarks.push(format!("{what}: not all could be compared: {found}")),
            _ => failures.push(format!("{what} differs from the source: {found}")),
        }
    }
}

impl Rehearsal {
    /// The loss that was measured, seconds.
    pub fn rpo(&self) -> Option<f64> {
        let of_records = self.account.as_ref().map(|account| account.lost_seconds);
        let of_topics = self.missing.as_ref().map(|missing| missing.seconds);
        longest([of_records, of_topics])
    }

    fn judge(&self, failures: &mut Vec<String>, remarks: &mut Vec<String>) {
        let kind = self.kind.word();
        if let Some(failure) = &self.failure {
            failures.push(format!("{kind}: {failure}"));
        }
        if let Some(account) = &self.account {
            let mut counts = vec![
                ("were doubled", account.doubled),
                ("were skipped by the group", account.skipped),
            ];
            if self.kind == Kind::Planned {
                counts.push(("were lost", account.lost));
                counts.push(("were read again", account.read_again));
            }
            for (what, count) in counts {
                if count > 0 {
                    failures.push(format!("{kind}: {count} record(s) {what}"));
                }
            }
        }
        if let Some(missing) = &self.missing
            && missing.records > missing.bound_records
        {
            remarks.push(format!(
                "{kind}: {} record(s) were missing, the plan had expected {} at most: the load \
                 comes in bursts",
                missing.records, missing.bound_records
            ));
        }
        if let Some(groups) = &self.groups
            && !groups.wrong.is_empty()
        {
            failures.push(format!(
                "{kind}: groups with another next record: {}",
                groups.wrong.join(", ")
            ));
        }
        for why in self.groups.iter().flat_map(|it| &it.unseen) {
            remarks.push(format!(
                "{kind}: there may be groups that weren't rehearsed: {why}"
            ));
        }
        for (group, why) in self.groups.iter().flat_map(|it| &it.not_rehearsed) {
            failures.push(format!("{kind}: group {group} was not rehearsed: {why}"));
        }
        if let Some(compared) = &self.verify {
            compared.judge(&format!("{kind}: the copy"), failures, remarks);
        }
        if self.kind == Kind::Planned && self.fence == "manual" {
            remarks.push(
                "planned: writers were stopped by the rehearsal itself: the fence by ACLs could \
                 not be rehearsed"
                    .to_owned(),
            );
        }
        if self.kind == Kind::Planned && self.fence == "acl" && self.fence_seconds.is_none() {
            remarks.push(
                "planned: the fence's ACLs kept no write away within 20 s: the rehearsal's writer is a \
                 super user, or the source's brokers take over changes very late"
                    .to_owned(),
            );
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Makes a good report a bad one.
    type Fault = fn(&mut Report);

    pub(in crate::drill) fn rehearsal(kind: Kind) -> Rehearsal {
        Rehearsal {
            kind,
            cut: None,
            phases: Vec::new(),
            plan: None,
            fence: "acl".to_owned(),
            fence_seconds: Some(0.1),
            rto: Some(Rto {
                plan_seconds: 1.0,
                write_seconds: 2.0,
                read_seconds: 3.0,
            }),
            account: Some(Account {
                acknowledged_before: 100,
                acknowledged_after: 10,
                ..Account::default()
            }),
            missing: None,
            groups: None,
            verify: None,
            failure: None,
        }
    }

    pub(in crate::drill) fn good() -> Report {
        let cluster = |name: &str| ClusterReport {
            name: name.to_owned(),
            cluster_id: Some(format!("id of {name}")),
            brokers: 3,
        };
        let unplanned = Rehearsal {
            fence: "gone".to_owned(),
            missing: Some(Missing {
                records: 2,
                seconds: 0.5,
                bound_records: 5,
            }),
            groups: Some(GroupsRehearsed::default()),
            ..rehearsal(Kind::Unplanned)
        };
        Report {
            version: REPORT_VERSION,
            drill: "20261125T031500Z-1a2b".to_owned(),
            began: "2026-11-25T03:15:00Z".to_owned(),
            ended: "2026-11-25T03:16:00Z".to_owned(),
            seconds: 60.0,
            verdict: Verdict::Failed,
            failures: Vec::new(),
            remarks: Vec::new(),
            figures: Figures::default(),
            twinlog: "0".to_owned(),
            operator: "alice".to_owned(),
            flow: "dr".to_owned(),
            source: cluster("primary"),
            target: cluster("standby"),
            scope: Scope::default(),
            production: Production {
                verify: Some(Compared {
                    verdict: "same".to_owned(),
                    ..Compared::default()
                }),
                ..Production::default()
            },
            rehearsals: vec![rehearsal(Kind::Planned), unplanned],
            not_rehearsed: vec!["your applications".to_owned()],
            cleanup: Cleanup::default(),
        }
    }

    fn judged(change: impl FnOnce(&mut Report)) -> Report {
        let mut report = good();
        change(&mut report);
        report.judge(None, None);
        report
    }

    #[test]
    fn what_is_as_it_must_be_passes_with_the_worst_figures() {
        let report = judged(|_| {});
        assert_eq!(report.verdict, Verdict::Passed, "{report:?}");
        let figures = &report.figures;
        assert_eq!(figures.rto(), Some(3.0));
        assert_eq!(figures.rpo(), Some(0.5));
        assert_eq!(figures.rpo_planned_seconds, Some(0.0));
        assert_eq!(figures.rpo_now_seconds, Some(0.0));
    }

    #[test]
    fn every_fault_fails() {
        let faults: [(&str, Fault); 13] = [
            ("would be refused now", |it| {
                it.production.checks.push(Check {
                    subject: "stopped".to_owned(),
                    weight: Weight::LosesData,
                    reason: "orders-0".to_owned(),
                    hint: None,
                });
            }),
            ("differs", |it| {
                if let Some(compared) = &mut it.production.verify {
                    compared.verdict = "different".to_owned();
                }
            }),
            ("skip records", |it| {
                it.production.groups.ahead.push("billing".to_owned());
            }),
            ("planned: 1 record(s) were lost", |it| {
                it.rehearsals[0].account = Some(Account {
                    lost: 1,
                    ..Account::default()
                });
            }),
            ("planned: 1 record(s) were read again", |it| {
                it.rehearsals[0].account = Some(Account {
                    read_again: 1,
                    ..Account::default()
                });
            }),
            ("unplanned: 1 record(s) were doubled", |it| {
                it.rehearsals[1].account = Some(Account {
                    doubled: 1,
                    ..Account::default()
                });
            }),
            ("unplanned: 1 record(s) were skipped", |it| {
                it.rehearsals[1].account = Some(Account {
                    skipped: 1,
                    ..Account::default()
                });
            }),
            ("another next record", |it| {
                it.rehearsals[1].groups = Some(GroupsRehearsed {
                    wrong: vec!["billing orders-0".to_owned()],
                    ..GroupsRehearsed::default()
                });
            }),
            ("group billing was not rehearsed: no right", |it| {
                it.rehearsals[1].groups = Some(GroupsRehearsed {
                    not_rehearsed: [("billing".to_owned(), "no right".to_owned())].into(),
                    ..GroupsRehearsed::default()
                });
            }),
            ("the copy differs", |it| {
                it.rehearsals[1].verify = Some(Compared {
                    verdict: "different".to_owned(),
                    ..Compared::default()
                });
            }),
            ("no leader", |it| {
                it.rehearsals[1].failure = Some("no leader".to_owned());
            }),
            ("not removed", |it| {
                it.cleanup.left.push("topics".to_owned());
            }),
            ("not compared at all", |it| {
                it.rehearsals[0].failure = Some("not compared at all".to_owned());
            }),
        ];
        for (words, fault) in faults {
            let report = judged(fault);
            assert_eq!(report.verdict, Verdict::Failed, "{words}");
            let found = report.failures.iter().any(|it| it.contains(words));
            assert!(found, "{words} in {:?}", report.failures);
        }
    }

    #[test]
    fn what_should_be_known_is_a_remark() {
        let cases: [(&str, Fault); 8] = [
            ("nothing is said of them: billing", |it| {
                it.production.groups.unseen.push("billing".to_owned());
            }),
            ("weren't rehearsed: no leader", |it| {
                it.rehearsals[1].groups = Some(GroupsRehearsed {
                    unseen: vec!["no leader".to_owned()],
                    ..GroupsRehearsed::default()
                });
            }),
            ("read 7 record(s) again", |it| {
                it.production.groups.read_again = 7;
            }),
            ("gap(s)", |it| it.production.gaps = 1),
            ("in bursts", |it| {
                it.rehearsals[1].missing = Some(Missing {
                    records: 9,
                    seconds: 0.0,
                    bound_records: 5,
                });
            }),
            ("stopped by the rehearsal itself", |it| {
                it.rehearsals[0].fence = "manual".to_owned();
            }),
            ("super user", |it| it.rehearsals[0].fence_seconds = None),
            ("were not copied", |it| {
                it.scope.topics_left_out.push(LeftOut {
                    topic: "huge".to_owned(),
                    why: "too large".to_owned(),
                });
            }),
        ];
        for (words, change) in cases {
            let report = judged(change);
            assert_eq!(report.verdict, Verdict::PassedWithRemarks, "{words}");
            let found = report.remarks.iter().any(|it| it.contains(words));
            assert!(found, "{words} in {:?}", report.remarks);
        }
    }

    #[test]
    fn an_unplanned_loss_and_what_is_read_again_after_a_crash_are_figures() {
        let report = judged(|it| {
            it.rehearsals[1].account = Some(Account {
                lost: 3,
                lost_seconds: 0.9,
                read_again: 20,
                ..Account::default()
            });
        });
        assert_eq!(report.verdict, Verdict::Passed, "{:?}", report.failures);
        assert_eq!(report.figures.rpo_unplanned_seconds, Some(0.9));
    }

    #[test]
    fn objectives_are_kept_or_it_fails() {
        let with = |rto, rpo| {
            let mut report = good();
            report.judge(rto, rpo);
            report
        };
        assert_eq!(with(Some(3.0), Some(0.5)).verdict, Verdict::Passed);
        let failed = with(Some(2.9), Some(0.4));
        assert_eq!(failed.verdict, Verdict::Failed);
        assert_eq!(failed.failures.len(), 2, "{:?}", failed.failures);
        // What wasn't measured keeps no objective.
        let mut report = good();
        report.rehearsals.clear();
        report.judge(Some(60.0), None);
        assert_eq!(report.verdict, Verdict::Failed);
        assert!(report.failures[0].contains("not measured"));
    }
}
