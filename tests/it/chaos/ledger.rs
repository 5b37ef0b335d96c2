//! What producers were told: which record is where on the source.

use std::collections::BTreeMap;
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
    failures: Vec<String>,
}

impl Ledger {
    /// A record was acknowledged, and its transaction committed if it has one.
    pub fn acknowledge(&self, topic: &str, partition: i32, offset: i64, record: Expected) {
        let mut pages = self.pages();
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

    /// Adds what the source shows and no producer got an answer for, such as a commit in doubt.
    pub fn learn(&self, topic: &str, records: &[Seen]) {
        let mut pages = self.pages();
        for record in records {
            let of_partition = pages
                .expected
                .entry((topic.to_owned(), record.partition))
                .or_default();
            of_partition
                .entry(record.offset)
                .or_insert_with(|| Expected {
                    id: id_of(record),
                    key: record.key.clone(),
                });
        }
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
