//! What producers were told: which record is where on the source.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::judge::{Expected, id_of};
use crate::support::Seen;

/// A topic and a partition of it.
type Partition = (String, i32);

/// Where all producers of a run write.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Pages>);

/// What is in it.
#[derive(Debug, Default)]
struct Pages {
    expected: BTreeMap<Partition, BTreeMap<i64, Expected>>,
    /// Acknowledged, nobody was told where.
    unplaced: BTreeMap<Partition, Vec<Expected>>,
    failures: Vec<String>,
}

impl Ledger {
    /// A record was acknowledged, and its transaction committed if it has one. Its offset is negative where the
    /// first answer was lost and the broker knew the record when it came again (`DUPLICATE_SEQUENCE_NUMBER`): librdkafka
    /// takes that for success and doesn't know where.
    pub fn acknowledge(&self, topic: &str, partition: i32, offset: i64, record: Expected) {
        let mut pages = self.pages();
        if offset < 0 {
            let place = (topic.to_owned(), partition);
            pages.unplaced.entry(place).or_default().push(record);
            return;
        }
        let of_partition = pages
            .expected
            .entry((topic.to_owned(), partition))
            .or_default();
        let before = of_partition.insert(offset, record.clone());
        if let Some(before) = before.filter(|before| *before != record) {
            let (before, now) = (before.id, record.id);
            let failure = format!("{topic}-{partition}@{offset} is {before} and {now}");
            pages.failures.push(failure);
        }
    }

    /// A producer has broken down.
    pub fn fail(&self, failure: String) {
        self.pages().failures.push(failure);
    }

    /// Adds what the source shows and no producer got an answer for, such as a commit in doubt. Gives the ids of
    /// records that were acknowledged without an offset and that the source doesn't show.
    pub fn learn(&self, topic: &str, records: &[Seen]) -> Vec<String> {
        let mut pages = self.pages();
        let mut shown: BTreeSet<(i32, String)> = BTreeSet::new();
        for record in records {
            let of_partition = pages
                .expected
                .entry((topic.to_owned(), record.partition))
                .or_default();
            shown.insert((record.partition, id_of(record)));
            of_partition
                .entry(record.offset)
                .or_insert_with(|| Expected {
                    id: id_of(record),
                    key: record.key.clone(),
                });
        }
        let all = std::mem::take(&mut pages.unplaced).into_iter();
        let (of_topic, others): (BTreeMap<_, _>, _) = all.partition(|((of, _), _)| of == topic);
        pages.unplaced = others;
        let unplaced = of_topic.into_iter().flat_map(|((_, partition), records)| {
            records
                .into_iter()
                .map(move |record| (partition, record.id))
        });
        unplaced
            .filter(|record| !shown.contains(record))
            .map(|(_, id)| id)
            .collect()
    }

    /// All records of a partition, by their offset on the source.
    pub fn partition(&self, topic: &str, partition: i32) -> BTreeMap<i64, Expected> {
        let pages = self.pages();
        let found = pages.expected.get(&(topic.to_owned(), partition));
        found.cloned().unwrap_or_default()
    }

    /// Behind the last record of a partition, 0 where there is none.
    pub fn end(&self, topic: &str, partition: i32) -> i64 {
        let pages = self.pages();
        let found = pages.expected.get(&(topic.to_owned(), partition));
        let last = found.and_then(|records| records.last_key_value());
        last.map_or(0, |(offset, _)| offset + 1)
    }

    /// How many records there are.
    pub fn records(&self) -> usize {
        self.pages().expected.values().map(BTreeMap::len).sum()
    }

    /// What went wrong with producers.
    pub fn failures(&self) -> Vec<String> {
        self.pages().failures.clone()
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::judge::ID_HEADER;

    fn expected(id: &str) -> Expected {
        Expected {
            id: id.to_owned(),
            key: None,
        }
    }

    fn seen(offset: i64, id: &str) -> Seen {
        Seen {
            partition: 0,
            offset,
            timestamp_ms: Some(1),
            key: None,
            value: None,
            headers: vec![(ID_HEADER.to_owned(), Some(id.as_bytes().to_vec()))],
            log_append_time: false,
        }
    }

    #[test]
    fn records_without_an_offset_are_where_the_source_shows_them() {
        let ledger = Ledger::default();
        for id in ["b", "c", "d"] {
            ledger.acknowledge("t", 0, -1_001, expected(id));
        }
        ledger.acknowledge("t", 0, 7, expected("a"));
        let unseen = ledger.learn("t", &[seen(7, "a"), seen(8, "b"), seen(9, "c")]);
        assert_eq!(unseen, ["d"]);
        let places: Vec<i64> = ledger.partition("t", 0).into_keys().collect();
        assert_eq!((places, ledger.failures()), (vec![7, 8, 9], Vec::new()));
        assert!(ledger.learn("t", &[]).is_empty(), "told once");
    }
}
