//! What must hold, as pure code: logs and notes in, violations out.
//!
//! Nothing here is read through Twinlog. The logs are those of the fake brokers, the notes those of
//! simulated clients.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// One of the two clusters, named by what it is at the begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The source of the flow.
    Primary,
    /// Its target.
    Standby,
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub topic: String,
    pub partition: i32,
}

impl Place {
    pub fn new(topic: &str, partition: i32) -> Self {
        Self {
            topic: topic.to_owned(),
            partition,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// A record that is in a log. Every record of a run has a name of its own, which is in its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub offset: i64,
    pub name: String,
    pub key: Option<String>,
    pub timestamp_ms: i64,
    pub value_bytes: usize,
}

/// What a reader of committed records finds in a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    pub start: i64,
    pub end: i64,
    pub records: Vec<Record>,
}

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub kind: Kind,
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.text)
    }
}

/// What kind of thing it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It was acknowledged, and a copy that calls itself whole doesn't have it.
    RecordMissing,
    /// It is there twice.
    RecordDoubled,
    /// Another key, time or value.
    RecordAltered,
    /// It is there, at another offset than it must.
    WrongOffset,
    /// It is behind one that was written after it.
    OutOfOrder,
    /// Nobody wrote it there.
    ForeignRecord,
    /// A copy was written behind a cut-over.
    WroteAfterFence,
    /// A group would skip records.
    GroupBeyond,
    /// A group would read again what it had done with.
    GroupBack,
    /// A partition says that all is well and doesn't move.
    HealthyWhileStuck,
    /// A partition is stopped for a reason that nothing in the run explains.
    StoppedForNothing,
    /// More was lost than the account says.
    ReportedLossWrong,
    /// A cluster has another role than the last cut-over that was through gave it.
    RoleWrong,
}

/// What Twinlog says of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Says {
    /// All is well, so many records are still to come, if it knows.
    Copying { lag: Option<i64> },
    /// Stopped, and why.
    Stopped { reason: String },
}

/// How offsets on the two sides belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offsets {
    /// They are the same.
    Identical,
    /// Only the order is.
    Mapped,
}

/// A record that a log must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// It, with the offset that it has where offsets are identical.
    pub record: Record,
    /// The source had it and has it no longer, in order: by retention or compaction.
    pub may_lack: bool,
}

/// A log to be judged.
#[derive(Clone, Debug)]
pub struct Case {
    pub place: Place,
    pub offsets: Offsets,
    pub says: Says,
    /// Reasons to stop that the run has given.
    pub excuses: BTreeSet<&'static str>,
    /// In order.
    pub expected: Vec<Expected>,
    /// What may be there besides, anywhere: records of the old primary that never were copied.
    pub strangers: BTreeSet<String>,
    /// What must not come there any more.
    pub barred: BTreeSet<String>,
    /// What is there.
    pub found: Log,
}

/// So many of one kind are shown of one partition.
const SHOWN: usize = 4;

/// Judges one log against what it must hold.
pub fn judge(case: &Case) -> Vec<Violation> {
    let mut found = Findings::new(&case.place);
    let places: BTreeMap<&str, usize> = case
        .expected
        .iter()
        .enumerate()
        .map(|(at, it)| (it.record.name.as_str(), at))
        .collect();
    let twice = twice(&case.expected);
    let mut seen = BTreeSet::new();
    let mut next = 0;
    for record in &case.found.records {
        let name = record.name.as_str();
        let is_new = seen.insert(name);
        if twice.contains(name) {
            continue;
        }
        if !is_new {
            found.add(
                Kind::RecordDoubled,
                format!("{name} again at {}", record.offset),
            );
            continue;
        }
        if case.barred.contains(name) {
            found.add(
                Kind::WroteAfterFence,
                format!("{name} at {} came behind the cut-over", record.offset),
            );
            continue;
        }
        let Some(&at) = places.get(name) else {
            if !case.strangers.contains(name) {
                found.add(Kind::ForeignRecord, format!("{name} at {}", record.offset));
            }
            continue;
        };
        if at < next {
            found.add(
                Kind::OutOfOrder,
                format!("{name} at {} is behind a later one", record.offset),
            );
        }
        compare(case, &case.expected[at].record, record, &mut found);
        next = next.max(at + 1);
    }
    // Up to the last one that is there nothing may lack, whatever the partition says of itself.
    for (at, expected) in case.expected.iter().enumerate() {
        let name = &expected.record.name;
        if expected.may_lack || seen.contains(name.as_str()) {
            continue;
        }
        let text = format!("{name}, written at {}", expected.record.offset);
        match &case.says {
            _ if at < next => found.add(Kind::RecordMissing, text),
            Says::Stopped { .. } => {}
            Says::Copying { lag: Some(0) } => found.add(Kind::RecordMissing, text),
            Says::Copying { .. } => found.add(Kind::HealthyWhileStuck, text),
        }
    }
    if let Says::Stopped { reason } = &case.says
        && !case.excuses.contains(reason.as_str())
    {
        found.add(Kind::StoppedForNothing, reason.clone());
    }
    found.told()
}

/// What its client wrote twice: it had no answer, and the broker had forgotten its producer, as that of old records.
fn twice(expected: &[Expected]) -> BTreeSet<&str> {
    let mut places = BTreeMap::new();
    let mut twice = BTreeSet::new();
    for it in expected {
        let (name, offset) = (it.record.name.as_str(), it.record.offset);
        if places.insert(name, offset).is_some_and(|at| at != offset) {
            twice.insert(name);
        }
    }
    twice
}

fn compare(case: &Case, expected: &Record, record: &Record, found: &mut Findings) {
    let name = &record.name;
    if case.offsets == Offsets::Identical && expected.offset != record.offset {
        found.add(
            Kind::WrongOffset,
            format!("{name} at {}, not {}", record.offset, expected.offset),
        );
    }
    let same = |it: &Record| (it.key.clone(), it.timestamp_ms, it.value_bytes);
    if same(expected) != same(record) {
        found.add(
            Kind::RecordAltered,
            format!("{name}: {:?}, not {:?}", same(record), same(expected)),
        );
    }
}

/// Violations of one partition, with a bound on how many are told.
struct Findings {
    place: String,
    counts: BTreeMap<Kind, usize>,
    told: Vec<Violation>,
}

impl Findings {
    fn new(place: &Place) -> Self {
        Self {
            place: place.to_string(),
            counts: BTreeMap::new(),
            told: Vec::new(),
        }
    }

    fn add(&mut self, kind: Kind, text: String) {
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        if *count <= SHOWN {
            let text = format!("{}: {text}", self.place);
            self.told.push(Violation { kind, text });
        }
    }

    fn told(mut self) -> Vec<Violation> {
        for (kind, count) in self.counts {
            if count > SHOWN {
                let text = format!("{}: {count} in all", self.place);
                self.told.push(Violation { kind, text });
            }
        }
        self.told
    }
}

/// What a log must have that is a copy of another: what is there, and what was there and went in order.
pub fn copy_of(source: &Log, gone: &[Record]) -> Vec<Expected> {
    let there = source.records.iter().map(|record| Expected {
        record: record.clone(),
        may_lack: false,
    });
    let gone = gone.iter().map(|record| Expected {
        record: record.clone(),
        may_lack: true,
    });
    let mut all: Vec<Expected> = there.chain(gone).collect();
    // One that is still there counts as there.
    all.sort_by_key(|it| (it.record.offset, it.may_lack));
    all.dedup_by(|b, a| a.record.offset == b.record.offset && a.record.name == b.record.name);
    all
}

/// A position of a group on both sides, once nobody commits any more.
#[derive(Clone, Debug)]
pub struct GroupCase {
    pub group: String,
    pub place: Place,
    /// Committed where the group works.
    pub committed: i64,
    /// What the other side has; none is a group that begins anew.
    pub copied: Option<i64>,
    /// The log where the group works.
    pub source: Log,
    /// Its copy.
    pub target: Log,
}

/// Judges where a group would go on. Offsets aren't compared, but the record that is read next: so the
/// judgement needs no map.
pub fn judge_group(case: &GroupCase) -> Vec<Violation> {
    let Some(copied) = case.copied else {
        return vec![case.violation(Kind::GroupBack, "it has no position".to_owned())];
    };
    let order: BTreeMap<&str, usize> = case
        .source
        .records
        .iter()
        .enumerate()
        .map(|(at, record)| (record.name.as_str(), at))
        .collect();
    let end = case.source.records.len();
    let next_source = next(&case.source, case.committed)
        .and_then(|name| order.get(name))
        .copied()
        .unwrap_or(end);
    let next_target = next(&case.target, copied)
        .and_then(|name| order.get(name))
        .copied()
        .unwrap_or(end);
    let text = format!(
        "committed {}, copied as {copied}: {} record(s)",
        case.committed,
        next_source.abs_diff(next_target)
    );
    match next_target.cmp(&next_source) {
        std::cmp::Ordering::Equal => Vec::new(),
        std::cmp::Ordering::Greater => vec![case.violation(Kind::GroupBeyond, text)],
        std::cmp::Ordering::Less => vec![case.violation(Kind::GroupBack, text)],
    }
}

/// Judges a group at any moment, while commits are on their way and the copy may be behind: what it is
/// said to have read on the target it has read.
pub fn judge_group_now(case: &GroupCase) -> Vec<Violation> {
    let Some(copied) = case.copied else {
        return Vec::new();
    };
    if copied > case.target.end {
        let text = format!(
            "copied as {copied}, and the log ends at {}",
            case.target.end
        );
        return vec![case.violation(Kind::GroupBeyond, text)];
    }
    let read = case.target.records.iter().rev();
    let mut read = read.skip_while(|it| it.offset >= copied);
    let Some(last) = read.next() else {
        return Vec::new();
    };
    let source = case.source.records.iter();
    let at = source.clone().find(|it| it.name == last.name);
    if at.is_none_or(|it| it.offset < case.committed) {
        return Vec::new();
    }
    let text = format!(
        "committed {}, already copied as {copied}, behind {}",
        case.committed, last.name
    );
    vec![case.violation(Kind::GroupBeyond, text)]
}

fn next(log: &Log, position: i64) -> Option<&str> {
    let record = log.records.iter().find(|it| it.offset >= position)?;
    Some(&record.name)
}

impl GroupCase {
    fn violation(&self, kind: Kind, text: String) -> Violation {
        Violation {
            kind,
            text: format!("{} in {}: {text}", self.group, self.place),
        }
    }
}

/// What a client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acked {
    pub side: Side,
    pub place: Place,
    /// Not told where a repeated request was answered as a duplicate.
    pub offset: Option<i64>,
    pub name: String,
    pub at_ms: i64,
}

/// A log that a client writes to itself has what it was told to have, where it was told.
pub fn judge_acks(acked: &[Acked], place: &Place, log: &Log, gone: &[Record]) -> Vec<Violation> {
    let mut found = Findings::new(place);
    let there: BTreeMap<&str, i64> = log
        .records
        .iter()
        .map(|record| (record.name.as_str(), record.offset))
        .collect();
    let gone: BTreeSet<&str> = gone.iter().map(|it| it.name.as_str()).collect();
    for ack in acked {
        match (there.get(ack.name.as_str()), ack.offset) {
            (None, _) if !gone.contains(ack.name.as_str()) => {
                found.add(
                    Kind::RecordMissing,
                    format!("{} was acknowledged", ack.name),
                );
            }
            (Some(at), Some(told)) if *at != told => found.add(
                Kind::WrongOffset,
                format!("{} at {at}, acknowledged at {told}", ack.name),
            ),
            _ => {}
        }
    }
    found.told()
}

/// What a failover's account says against what is missing on the new primary.
pub fn judge_loss(
    reported: u64,
    acked: &[Acked],
    new_primary: &BTreeSet<String>,
) -> Vec<Violation> {
    let lost = acked.iter().filter(|it| !new_primary.contains(&it.name));
    let lost: Vec<&str> = lost.map(|it| it.name.as_str()).collect();
    if u64::try_from(lost.len()).is_ok_and(|count| count <= reported) {
        return Vec::new();
    }
    let first: Vec<&str> = lost.iter().take(SHOWN).copied().collect();
    vec![Violation {
        kind: Kind::ReportedLossWrong,
        text: format!(
            "{} acknowledged record(s) are lost, {reported} were reported; such as {}",
            lost.len(),
            first.join(", ")
        ),
    }]
}

/// A cut-over command that said that it was through, one way or the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutOver {
    /// When it said so.
    pub at_ms: i64,
    /// Whom its account makes the primary.
    pub primary: Side,
}

/// The primary is whom the last cut-over made it. None was done: it is the source.
pub fn judge_role(done: &[CutOver], primary: Side) -> Vec<Violation> {
    let last = done.iter().max_by_key(|it| it.at_ms);
    let expected = last.map_or(Side::Primary, |it| it.primary);
    if primary == expected {
        return Vec::new();
    }
    vec![Violation {
        kind: Kind::RoleWrong,
        text: match last {
            None => format!("{primary:?} is the primary, and nobody made it so"),
            Some(last) => format!(
                "{primary:?} is the primary, but what was through at {} ms made {:?} it",
                last.at_ms, last.primary
            ),
        },
    }]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: i64, name: &str) -> Record {
        Record {
            offset,
            name: name.to_owned(),
            key: Some("k".to_owned()),
            timestamp_ms: 1_000 + offset,
            value_bytes: 9,
        }
    }

    fn log(records: &[(i64, &str)]) -> Log {
        Log {
            start: 0,
            end: records.last().map_or(0, |it| it.0 + 1),
            records: records
                .iter()
                .map(|(offset, name)| Record {
                    timestamp_ms: 7,
                    ..record(*offset, name)
                })
                .collect(),
        }
    }

    const WHOLE: [(i64, &str); 4] = [(0, "a"), (1, "b"), (3, "c"), (4, "d")];

    fn case(found: &[(i64, &str)]) -> Case {
        Case {
            place: Place::new("t", 0),
            offsets: Offsets::Identical,
            says: Says::Copying { lag: Some(0) },
            excuses: BTreeSet::from(["source_truncated"]),
            expected: copy_of(&log(&WHOLE), &[]),
            strangers: BTreeSet::new(),
            barred: BTreeSet::new(),
            found: log(found),
        }
    }

    fn kinds(violations: &[Violation]) -> Vec<Kind> {
        violations.iter().map(|it| it.kind).collect()
    }

    #[test]
    fn a_whole_copy_is_clean() {
        assert_eq!(judge(&case(&WHOLE)), []);
    }

    #[test]
    fn a_hole_is_seen_in_whatever_state() {
        let mut it = case(&[(0, "a"), (3, "c"), (4, "d")]);
        assert_eq!(kinds(&judge(&it)), [Kind::RecordMissing]);
        it.says = Says::Stopped {
            reason: "source_truncated".to_owned(),
        };
        assert_eq!(kinds(&judge(&it)), [Kind::RecordMissing]);
    }

    #[test]
    fn an_end_that_lacks_is_judged_by_what_is_said() {
        let mut it = case(&[(0, "a"), (1, "b")]);
        assert_eq!(
            kinds(&judge(&it)),
            [Kind::RecordMissing; 2],
            "lag 0 is a lie"
        );
        it.says = Says::Copying { lag: Some(2) };
        assert_eq!(kinds(&judge(&it)), [Kind::HealthyWhileStuck; 2]);
        it.says = Says::Stopped {
            reason: "source_truncated".to_owned(),
        };
        assert_eq!(judge(&it), [], "stopped with a reason, a prefix is right");
    }

    #[test]
    fn a_stop_needs_a_reason_that_the_run_gave() {
        let mut it = case(&WHOLE);
        it.says = Says::Stopped {
            reason: "foreign_write".to_owned(),
        };
        assert_eq!(kinds(&judge(&it)), [Kind::StoppedForNothing]);
    }

    #[test]
    fn a_record_in_anothers_place_is_seen() {
        // A batch that overtook a refused one, and its tail once more behind it.
        let it = case(&[(0, "a"), (1, "c"), (3, "d"), (4, "d")]);
        assert_eq!(
            kinds(&judge(&it)),
            [
                Kind::WrongOffset,
                Kind::WrongOffset,
                Kind::RecordDoubled,
                Kind::RecordMissing
            ]
        );
    }

    #[test]
    fn where_offsets_are_mapped_the_order_counts() {
        let mut it = case(&[(10, "a"), (12, "b"), (13, "c"), (20, "d")]);
        it.offsets = Offsets::Mapped;
        assert_eq!(judge(&it), []);
        it.found = log(&[(10, "a"), (12, "c"), (13, "b"), (20, "d")]);
        assert_eq!(kinds(&judge(&it)), [Kind::OutOfOrder]);
        it.found = log(&[(10, "a"), (12, "c"), (20, "d")]);
        assert_eq!(kinds(&judge(&it)), [Kind::RecordMissing]);
    }

    #[test]
    fn what_nobody_wrote_is_foreign_unless_it_may_be_there() {
        let mut it = case(&[(0, "a"), (1, "b"), (2, "x"), (3, "c"), (4, "d")]);
        assert_eq!(kinds(&judge(&it)), [Kind::ForeignRecord]);
        it.strangers.insert("x".to_owned());
        assert_eq!(judge(&it), []);
    }

    #[test]
    fn what_is_barred_came_too_late() {
        let mut it = case(&[(0, "a"), (1, "b"), (3, "c"), (4, "d"), (5, "late")]);
        it.barred.insert("late".to_owned());
        assert_eq!(kinds(&judge(&it)), [Kind::WroteAfterFence]);
    }

    #[test]
    fn another_time_or_key_or_value_is_an_altered_record() {
        let changes: [fn(&mut Record); 3] = [
            |it| it.timestamp_ms += 1,
            |it| it.key = None,
            |it| it.value_bytes += 1,
        ];
        for change in changes {
            let mut it = case(&WHOLE);
            change(&mut it.found.records[2]);
            assert_eq!(kinds(&judge(&it)), [Kind::RecordAltered]);
        }
    }

    #[test]
    fn what_went_in_order_may_lack_or_be_there() {
        let source = log(&[(3, "c"), (4, "d")]);
        let gone = log(&WHOLE).records;
        let mut it = case(&[(3, "c"), (4, "d")]);
        it.expected = copy_of(&source, &gone);
        assert_eq!(judge(&it), []);
        it.found = log(&[(1, "b"), (3, "c"), (4, "d")]);
        assert_eq!(judge(&it), []);
        it.found = log(&[(1, "b"), (4, "d")]);
        assert_eq!(
            kinds(&judge(&it)),
            [Kind::RecordMissing],
            "this one is there"
        );
    }

    #[test]
    fn many_of_one_kind_are_counted() {
        let names: Vec<String> = (0..50).map(|n| format!("r{n}")).collect();
        let all: Vec<(i64, &str)> = (0..).zip(names.iter().map(String::as_str)).collect();
        let mut it = case(&all[49..]);
        it.expected = copy_of(&log(&all), &[]);
        let violations = judge(&it);
        assert_eq!(kinds(&violations), [Kind::RecordMissing; SHOWN + 1]);
        assert!(
            violations[SHOWN].text.contains("49 in all"),
            "{violations:?}"
        );
    }

    #[test]
    fn what_the_source_has_twice_its_copy_has_twice() {
        let mut it = case(&[(0, "a"), (1, "a"), (2, "b")]);
        it.expected = copy_of(&log(&[(0, "a"), (1, "a"), (2, "b")]), &[]);
        assert_eq!(judge(&it), []);
        it.expected = copy_of(&log(&[(0, "a"), (2, "b")]), &[]);
        assert_eq!(kinds(&judge(&it)), [Kind::RecordDoubled]);
    }

    fn group(committed: i64, copied: Option<i64>) -> Vec<Kind> {
        let target = log(&[(10, "a"), (12, "b"), (13, "c"), (20, "d")]);
        kinds(&judge_group(&GroupCase {
            group: "g".to_owned(),
            place: Place::new("t", 0),
            committed,
            copied,
            source: log(&WHOLE),
            target,
        }))
    }

    #[test]
    fn a_group_goes_on_at_the_same_record() {
        assert_eq!(group(3, Some(13)), []);
        assert_eq!(group(2, Some(13)), [], "2 holds no record: 3 is next");
        assert_eq!(group(5, Some(21)), [], "both at the end");
    }

    #[test]
    fn a_group_that_skips_or_repeats_is_seen() {
        assert_eq!(group(1, Some(13)), [Kind::GroupBeyond]);
        assert_eq!(group(4, Some(21)), [Kind::GroupBeyond]);
        assert_eq!(group(4, Some(13)), [Kind::GroupBack]);
        assert_eq!(group(1, None), [Kind::GroupBack]);
    }

    #[test]
    fn a_group_is_never_beyond_what_it_has_read() {
        let now = |committed, copied, target: &[(i64, &str)]| {
            kinds(&judge_group_now(&GroupCase {
                group: "g".to_owned(),
                place: Place::new("t", 0),
                committed,
                copied,
                source: log(&WHOLE),
                target: log(target),
            }))
        };
        let behind = [(10, "a"), (12, "b")];
        assert_eq!(now(3, Some(13), &behind), []);
        assert_eq!(now(3, Some(11), &behind), [], "it may be behind");
        assert_eq!(now(3, None, &behind), []);
        assert_eq!(now(1, Some(13), &behind), [Kind::GroupBeyond]);
        let out_of_range = now(9, Some(14), &behind);
        assert_eq!(out_of_range, [Kind::GroupBeyond], "the log ends at 13");
    }

    fn acked(name: &str, offset: i64) -> Acked {
        Acked {
            side: Side::Standby,
            place: Place::new("t", 0),
            offset: Some(offset),
            name: name.to_owned(),
            at_ms: 5,
        }
    }

    #[test]
    fn what_was_acknowledged_is_where_it_was_said() {
        let judged = |name, offset, gone: &[Record]| {
            kinds(&judge_acks(
                &[acked(name, offset)],
                &Place::new("t", 0),
                &log(&WHOLE),
                gone,
            ))
        };
        assert_eq!(judged("c", 3, &[]), []);
        assert_eq!(judged("c", 2, &[]), [Kind::WrongOffset]);
        assert_eq!(judged("x", 5, &[]), [Kind::RecordMissing]);
        assert_eq!(judged("x", 5, &[record(5, "x")]), []);
    }

    #[test]
    fn more_may_not_be_lost_than_was_reported() {
        let all = [acked("a", 0), acked("x", 1), acked("y", 2)];
        let there = BTreeSet::from(["a".to_owned()]);
        assert_eq!(judge_loss(2, &all, &there), []);
        assert_eq!(
            kinds(&judge_loss(1, &all, &there)),
            [Kind::ReportedLossWrong]
        );
    }

    #[test]
    fn the_last_cut_over_decides_who_is_the_primary() {
        let done = |at_ms, primary| CutOver { at_ms, primary };
        assert_eq!(judge_role(&[], Side::Primary), []);
        assert_eq!(kinds(&judge_role(&[], Side::Standby)), [Kind::RoleWrong]);
        let undone = [done(9, Side::Primary), done(5, Side::Standby)];
        assert_eq!(judge_role(&undone, Side::Primary), []);
        assert_eq!(
            kinds(&judge_role(&undone, Side::Standby)),
            [Kind::RoleWrong]
        );
    }
}
