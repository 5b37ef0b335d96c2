//! Compares what was acknowledged with what librdkafka reads on both clusters. Pure.
//!
//! Every record carries its own id in a header, so that one that is lost, doubled, moved or swapped
//! is told by its name, and a tombstone too.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use crate::support::Seen;

/// The header with a record's id.
pub const ID_HEADER: &str = "id";

/// What must hold of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// Every record is at its source offset.
    pub has_same_offsets: bool,
    /// A record may be gone when a later one has its key.
    pub is_compacted: bool,
    /// A log may begin later.
    pub is_shortened: bool,
}

impl Promise {
    /// Every record at its offset, from the first on.
    pub const IDENTICAL: Self = Self {
        has_same_offsets: true,
        is_compacted: false,
        is_shortened: false,
    };
}

/// A record that must be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Its id.
    pub id: String,
    /// Its key.
    pub key: Option<Vec<u8>>,
}

/// One partition, as everybody saw it.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
    /// All committed records by their offset on the source.
    pub expected: &'a BTreeMap<i64, Expected>,
    /// Where the source's log starts.
    pub source_start: i64,
    /// What the source shows who reads committed, by offset.
    pub source: &'a [&'a Seen],
    /// Where the target's log starts.
    pub target_start: i64,
    /// What the target shows who reads everything, by offset.
    pub target: &'a [&'a Seen],
}

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An acknowledged record isn't on the source: not Twinlog's fault.
    LostBySource,
    /// A record isn't on the target.
    Lost,
    /// A record is on the target more often than on the source.
    Doubled,
    /// A record is at another offset than promised.
    Shifted,
    /// A record comes before one that it follows on the source.
    Disordered,
    /// Nobody committed this record.
    Unexpected,
    /// A record has another key, value, timestamp or other headers.
    Changed,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Where: topic, partition.
    pub place: (String, i32),
    /// The offset: on the target where the record is there, else on the source.
    pub offset: i64,
    /// What.
    pub kind: Kind,
    /// In words.
    pub text: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (topic, partition) = &self.place;
        let (offset, kind, text) = (self.offset, self.kind, &self.text);
        write!(f, "{kind:?}: {topic}-{partition}@{offset}: {text}")
    }
}

/// A record's id.
pub fn id_of(record: &Seen) -> String {
    let header = record.headers.iter().find(|(key, _)| key == ID_HEADER);
    let value = header.and_then(|(_, value)| value.as_deref());
    value.map_or("(no id)".into(), |value| {
        String::from_utf8_lossy(value).into()
    })
}

/// All that is wrong with a partition, the first offset first.
pub fn judge(view: &View<'_>, promise: Promise) -> Vec<Fault> {
    let mut faults = Vec::new();
    faults.extend(lost_by_source(view, promise));
    faults.extend(missing(view, promise));
    faults.extend(misplaced(view, promise));
    faults.extend(changed(view));
    faults.sort();
    faults
}

fn fault(view: &View<'_>, kind: Kind, offset: i64, text: String) -> Fault {
    Fault {
        place: (view.topic.to_owned(), view.partition),
        offset,
        kind,
        text,
    }
}

/// Offsets of records by their ids, ascending.
fn places<'a>(records: impl Iterator<Item = (i64, &'a str)>) -> HashMap<&'a str, Vec<i64>> {
    let mut places: HashMap<&str, Vec<i64>> = HashMap::new();
    for (offset, id) in records {
        places.entry(id).or_default().push(offset);
    }
    places
}

/// The source has what it acknowledged, as far as its log still begins before it.
fn lost_by_source(view: &View<'_>, promise: Promise) -> Vec<Fault> {
    let seen: BTreeMap<i64, String> = view
        .source
        .iter()
        .map(|record| (record.offset, id_of(record)))
        .collect();
    let lost = |(offset, record): (&i64, &Expected)| {
        let found = seen.get(offset);
        if found == Some(&record.id) || (found.is_none() && promise.is_compacted) {
            return None;
        }
        let text = format!("acknowledged as {}, shown as {found:?}", record.id);
        Some(fault(view, Kind::LostBySource, *offset, text))
    };
    let range = view.expected.range(view.source_start..);
    range.filter_map(lost).collect()
}

/// What isn't on the target as often as on the source, and should be.
fn missing(view: &View<'_>, promise: Promise) -> Vec<Fault> {
    let ids: Vec<(i64, String)> = view
        .target
        .iter()
        .map(|it| (it.offset, id_of(it)))
        .collect();
    let found = places(ids.iter().map(|(offset, id)| (*offset, id.as_str())));
    let mut last_of_key = HashMap::new();
    for (offset, record) in view.expected {
        last_of_key.insert(&record.key, *offset);
    }
    let may_be_gone = |offset: i64, record: &Expected| {
        (promise.is_shortened && offset < view.target_start)
            || (promise.is_compacted && last_of_key[&record.key] != offset)
    };
    let mut met: HashMap<&str, usize> = HashMap::new();
    let mut faults = Vec::new();
    for (offset, record) in view.expected {
        let nth = met.entry(record.id.as_str()).or_default();
        *nth += 1;
        let count = found.get(record.id.as_str()).map_or(0, Vec::len);
        if count < *nth && !may_be_gone(*offset, record) {
            let text = format!("{} isn't on the target", record.id);
            faults.push(fault(view, Kind::Lost, *offset, text));
        }
    }
    faults
}

/// What is on the target and shouldn't be, or not there.
fn misplaced(view: &View<'_>, promise: Promise) -> Vec<Fault> {
    let ids = view.expected.iter();
    let wanted = places(ids.map(|(offset, record)| (*offset, record.id.as_str())));
    let mut met: HashMap<String, usize> = HashMap::new();
    let mut furthest: Option<(i64, String)> = None;
    let mut faults = Vec::new();
    for record in view.target {
        let id = id_of(record);
        let nth = met.entry(id.clone()).or_default();
        *nth += 1;
        let Some(offsets) = wanted.get(id.as_str()) else {
            let text = format!("nobody committed {id}: {record:?}");
            faults.push(fault(view, Kind::Unexpected, record.offset, text));
            continue;
        };
        let Some(source_offset) = offsets.get(*nth - 1) else {
            let text = format!("{id} is there for the {nth}. time");
            faults.push(fault(view, Kind::Doubled, record.offset, text));
            continue;
        };
        if promise.has_same_offsets && !offsets.contains(&record.offset) {
            let text = format!("{id} belongs to {source_offset}");
            faults.push(fault(view, Kind::Shifted, record.offset, text));
        }
        match &furthest {
            Some((before, other)) if before >= source_offset => {
                let text = format!("{id} of {source_offset} comes behind {other} of {before}");
                faults.push(fault(view, Kind::Disordered, record.offset, text));
            }
            _ => furthest = Some((*source_offset, id)),
        }
    }
    faults
}

/// What has another content than on the source, as far as the source still shows it.
fn changed(view: &View<'_>) -> Vec<Fault> {
    let originals: HashMap<String, &Seen> = view.source.iter().map(|it| (id_of(it), *it)).collect();
    let content = |it: &Seen| Seen {
        offset: 0,
        log_append_time: false,
        ..it.clone()
    };
    let differs = |copy: &&&Seen| {
        let original = originals.get(&id_of(copy));
        original.is_some_and(|original| content(original) != content(copy))
    };
    let copies = view.target.iter().filter(differs);
    copies
        .map(|copy| {
            let text = format!("{:?} is {copy:?}", originals[&id_of(copy)]);
            fault(view, Kind::Changed, copy.offset, text)
        })
        .collect()
}

/// Whether a group goes on at the same record: positions on both clusters.
pub fn judge_group(
    view: &View<'_>,
    promise: Promise,
    source: i64,
    target: Option<i64>,
) -> Vec<Fault> {
    let next_id = view
        .expected
        .range(source..)
        .find(|(offset, _)| !promise.is_shortened || **offset >= view.target_start)
        .map(|(_, record)| record.id.clone());
    let next_copy = target.and_then(|position| {
        let next = view.target.iter().find(|copy| copy.offset >= position);
        next.map(|copy| id_of(copy))
    });
    let is_right = match target {
        None => false,
        Some(target) if promise.has_same_offsets => {
            target
                == source.max(if promise.is_shortened {
                    view.target_start
                } else {
                    0
                })
        }
        Some(_) => next_id == next_copy,
    };
    if is_right {
        return Vec::new();
    }
    let text = format!(
        "a group at {source} on the source, before {next_id:?}, is at {target:?} on the target, before {next_copy:?}"
    );
    vec![fault(view, Kind::Shifted, target.unwrap_or(-1), text)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record with an id at an offset.
    fn seen(offset: i64, id: &str) -> Seen {
        Seen {
            partition: 0,
            offset,
            key: Some(format!("key-{id}").into_bytes()),
            value: Some(id.into()),
            headers: vec![(ID_HEADER.into(), Some(id.into()))],
            timestamp_ms: Some(1_000),
            log_append_time: false,
        }
    }

    fn log(records: &[(i64, &str)]) -> Vec<Seen> {
        records.iter().map(|(at, id)| seen(*at, id)).collect()
    }

    fn expect(records: &[Seen]) -> BTreeMap<i64, Expected> {
        let record = |it: &Seen| {
            let (id, key) = (id_of(it), it.key.clone());
            (it.offset, Expected { id, key })
        };
        records.iter().map(record).collect()
    }

    const SOURCE: [(i64, &str); 5] = [(0, "a"), (1, "b"), (3, "c"), (4, "d"), (7, "e")];
    const MAPPED: Promise = Promise {
        has_same_offsets: false,
        ..Promise::IDENTICAL
    };
    const COMPACTED: Promise = Promise {
        is_compacted: true,
        ..Promise::IDENTICAL
    };
    const SHORTENED: Promise = Promise {
        is_shortened: true,
        ..Promise::IDENTICAL
    };

    /// What the judge says of a target's records, where the source has all of them.
    fn verdict(promise: Promise, target: &[Seen]) -> Vec<(Kind, i64)> {
        verdict_of(promise, &log(&SOURCE), &log(&SOURCE), (0, 0), target)
    }

    fn verdict_of(
        promise: Promise,
        expected: &[Seen],
        source: &[Seen],
        (source_start, target_start): (i64, i64),
        target: &[Seen],
    ) -> Vec<(Kind, i64)> {
        let (source, target): (Vec<&Seen>, Vec<&Seen>) =
            (source.iter().collect(), target.iter().collect());
        let view = View {
            topic: "t",
            partition: 0,
            expected: &expect(expected),
            source_start,
            source: &source,
            target_start,
            target: &target,
        };
        let faults = judge(&view, promise);
        faults.into_iter().map(|it| (it.kind, it.offset)).collect()
    }

    #[test]
    fn a_true_copy_has_no_faults() {
        assert_eq!(verdict(Promise::IDENTICAL, &log(&SOURCE)), []);
        let moved = log(&[(0, "a"), (1, "b"), (2, "c"), (3, "d"), (4, "e")]);
        assert_eq!(verdict(MAPPED, &moved), []);
    }

    #[test]
    fn a_lost_record_is_named() {
        let copy = log(&[(0, "a"), (1, "b"), (4, "d"), (7, "e")]);
        assert_eq!(verdict(Promise::IDENTICAL, &copy), [(Kind::Lost, 3)]);
        assert_eq!(verdict(MAPPED, &copy), [(Kind::Lost, 3)]);
        // The last one too.
        assert_eq!(
            verdict(Promise::IDENTICAL, &log(&SOURCE[..4])),
            [(Kind::Lost, 7)]
        );
    }

    #[test]
    fn a_doubled_record_is_named() {
        let copy = log(&[(0, "a"), (1, "b"), (3, "c"), (4, "d"), (6, "d"), (7, "e")]);
        assert_eq!(verdict(Promise::IDENTICAL, &copy), [(Kind::Doubled, 6)]);
        assert_eq!(verdict(MAPPED, &copy), [(Kind::Doubled, 6)]);
    }

    #[test]
    fn swapped_records_are_named() {
        let copy = log(&[(0, "a"), (1, "c"), (3, "b"), (4, "d"), (7, "e")]);
        assert_eq!(
            verdict(Promise::IDENTICAL, &copy),
            [
                (Kind::Shifted, 1),
                (Kind::Shifted, 3),
                (Kind::Disordered, 3)
            ]
        );
        assert_eq!(verdict(MAPPED, &copy), [(Kind::Disordered, 3)]);
    }

    #[test]
    fn a_shifted_record_is_named() {
        let copy = log(&[(0, "a"), (1, "b"), (3, "c"), (4, "d"), (8, "e")]);
        assert_eq!(verdict(Promise::IDENTICAL, &copy), [(Kind::Shifted, 8)]);
        assert_eq!(verdict(MAPPED, &copy), []);
    }

    #[test]
    fn a_record_that_nobody_committed_is_named() {
        let copy = log(&[(0, "a"), (1, "b"), (2, "x"), (3, "c"), (4, "d"), (7, "e")]);
        assert_eq!(verdict(Promise::IDENTICAL, &copy), [(Kind::Unexpected, 2)]);
    }

    #[test]
    fn a_changed_record_is_named() {
        let mut copy = log(&SOURCE);
        copy[2].timestamp_ms = Some(1_001);
        copy[3].headers.push(("more".into(), None));
        assert_eq!(
            verdict(Promise::IDENTICAL, &copy),
            [(Kind::Changed, 3), (Kind::Changed, 4)]
        );
    }

    #[test]
    fn compaction_may_take_what_a_later_record_replaces_and_nothing_else() {
        let mut source = log(&SOURCE);
        source[1].key = source[3].key.clone();
        let without = |gone: &[i64]| -> Vec<Seen> {
            let left = source.iter().filter(|it| !gone.contains(&it.offset));
            left.cloned().collect()
        };
        let verdict = |copy: &[Seen]| verdict_of(COMPACTED, &source, &source, (0, 0), copy);
        assert_eq!(verdict(&without(&[1])), []);
        assert_eq!(verdict(&without(&[1, 4])), [(Kind::Lost, 4)]);
        let all = |copy: &[Seen]| verdict_of(COMPACTED, &source, copy, (0, 0), &source);
        assert_eq!(all(&without(&[1])), []);
    }

    #[test]
    fn retention_may_take_the_beginning_and_nothing_else() {
        let (all, source) = (log(&SOURCE), log(&SOURCE[3..]));
        let verdict =
            |start: i64, copy: &[Seen]| verdict_of(SHORTENED, &all, &source, (4, start), copy);
        assert_eq!(verdict(0, &all), []);
        assert_eq!(verdict(3, &all[2..]), []);
        assert_eq!(verdict(3, &all[3..]), [(Kind::Lost, 3)]);
        let not_promised = verdict_of(Promise::IDENTICAL, &all, &all, (0, 3), &all[2..]);
        assert_eq!(not_promised, [(Kind::Lost, 0), (Kind::Lost, 1)]);
    }

    #[test]
    fn what_the_source_itself_lost_is_told_apart() {
        let all = log(&SOURCE);
        assert_eq!(
            verdict_of(Promise::IDENTICAL, &all, &all[..4], (0, 0), &all),
            [(Kind::LostBySource, 7)]
        );
    }

    #[test]
    fn a_group_goes_on_at_the_same_record_or_is_named() {
        let (source, target) = (log(&SOURCE), log(&[(0, "a"), (1, "b"), (2, "c"), (3, "d")]));
        let expected = expect(&source[..4]);
        let target: Vec<&Seen> = target.iter().collect();
        let view = View {
            topic: "t",
            partition: 0,
            expected: &expected,
            source_start: 0,
            source: &[],
            target_start: 0,
            target: &target,
        };
        let right =
            |promise, source, target| judge_group(&view, promise, source, target).is_empty();
        assert!(right(Promise::IDENTICAL, 3, Some(3)));
        assert!(!right(Promise::IDENTICAL, 3, Some(4)));
        assert!(!right(Promise::IDENTICAL, 3, None));
        assert!(
            right(MAPPED, 2, Some(2)) && right(MAPPED, 3, Some(2)) && right(MAPPED, 5, Some(4))
        );
        assert!(!right(MAPPED, 4, Some(2)) && !right(MAPPED, 3, Some(3)));
    }
}
