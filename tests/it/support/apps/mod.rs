//! Applications under load: producers and groups of librdkafka and of Java that run for a long
//! time and are moved between clusters as an operator moves them.

mod java;
mod librdkafka;

use std::sync::Arc;
use std::time::Duration;

use super::book::{Book, Pages};
use super::failover::Place;
use super::version::KafkaVersion;
use super::wait::eventually;
use java::JavaApps;
use librdkafka::{Group, Writer};

/// How long moving, or ending, may take.
const DEADLINE: Duration = Duration::from_secs(120);

/// A topic and how many partitions it has.
pub type Topic<'a> = (&'a str, i32);

/// Three producers and two groups:
///
/// - `rust-writer` (librdkafka) and `java-writer`, idempotent, to the plain topics;
/// - `java-cashier`, transactions, to the transactional topics;
/// - `rust-reader` and `java-reader`, groups of one that read all of them, read_committed.
#[derive(Debug)]
pub struct Apps {
    /// What they tell.
    pub book: Arc<Book>,
    writer: Writer,
    group: Group,
    java: JavaApps,
}

/// Producers, by name.
pub const PRODUCERS: [&str; 3] = ["rust-writer", "java-writer", "java-cashier"];
/// Groups, by name.
pub const GROUPS: [&str; 2] = ["rust-reader", "java-reader"];

impl Apps {
    /// Starts them on this cluster: `per_second` records of each producer.
    pub fn start(
        version: KafkaVersion,
        bootstrap: &str,
        plain: &[Topic<'_>],
        transactional: &[Topic<'_>],
        per_second: u32,
    ) -> Self {
        let book = Arc::new(Book::default());
        let list = |topics: &[Topic<'_>]| {
            let words = topics
                .iter()
                .map(|(topic, count)| format!("{topic}/{count}"));
            words.collect::<Vec<_>>().join(",")
        };
        let read: Vec<&str> = [plain, transactional]
            .concat()
            .iter()
            .map(|(topic, _)| *topic)
            .collect();
        let clients = [
            format!("plain=java-writer,{per_second},{}", list(plain)),
            format!(
                "transactional=java-cashier,{per_second},{}",
                list(transactional)
            ),
            format!("group=java-reader,{}", read.join(",")),
        ];
        Self {
            java: JavaApps::start(version, bootstrap, &clients, book.clone()),
            writer: Writer::start("rust-writer", bootstrap, plain, per_second, book.clone()),
            group: Group::start("rust-reader", bootstrap, &read, book.clone()),
            book,
        }
    }

    /// Waits until every producer has so many records acknowledged in all, and every group has
    /// read something since `before`.
    pub fn await_flowing(&self, records: usize) {
        let counts = |pages: &Pages| {
            let mut counts: Vec<usize> = PRODUCERS
                .iter()
                .map(|producer| {
                    let written = pages.acknowledged.values();
                    written
                        .filter(|value| value.split(' ').next() == Some(producer))
                        .count()
                })
                .collect();
            counts.extend(GROUPS.map(|group| pages.reads.get(group).map_or(0, Vec::len)));
            counts
        };
        let before = self.book.look(counts);
        eventually(DEADLINE, "every application gets on", || {
            self.assert_sound();
            let now = self.book.look(counts);
            let is_flowing = now
                .iter()
                .zip(&before)
                .all(|(now, before)| now - before >= records);
            if is_flowing {
                Ok(())
            } else {
                Err((before.clone(), now))
            }
        });
    }

    /// Moves all of them to another cluster, and waits until they are there.
    pub fn switch(&mut self, bootstrap: &str) {
        let wanted = self.writer.switches() + 1;
        self.java.command(&format!("switch {bootstrap}"));
        self.writer.switch(bootstrap);
        self.group.switch(bootstrap);
        eventually(DEADLINE, "every application has moved", || {
            self.assert_sound();
            self.book.look(|pages| {
                let is_there = |name: &&str| pages.switches.get(*name) == Some(&wanted);
                if PRODUCERS.iter().chain(&GROUPS).all(is_there) {
                    Ok(())
                } else {
                    Err(pages.switches.clone())
                }
            })
        });
    }

    /// Lets the producers end what they have begun: every record is acknowledged then.
    pub fn quiet(&mut self) {
        self.java.command("quiet");
        self.writer.quiet();
        eventually(DEADLINE, "every record is acknowledged", || {
            self.assert_sound();
            self.book.look(|pages| {
                if PRODUCERS.iter().all(|name| pages.quiet.contains(*name)) {
                    Ok(())
                } else {
                    Err(pages.quiet.clone())
                }
            })
        });
    }

    /// Waits until every group was shown every one of these records.
    pub fn await_read<'a>(&self, places: impl Iterator<Item = &'a Place> + Clone) {
        for group in GROUPS {
            eventually(DEADLINE, &format!("{group} reads all"), || {
                self.assert_sound();
                self.book.look(|pages| {
                    let reads = pages.reads.get(group).into_iter().flatten();
                    let seen: std::collections::BTreeSet<&Place> =
                        reads.map(|read| &read.place).collect();
                    let missing: Vec<&Place> = places
                        .clone()
                        .filter(|place| !seen.contains(*place))
                        .collect();
                    match missing.first() {
                        None => Ok(()),
                        Some(first) => Err(format!("{} missing, first {first:?}", missing.len())),
                    }
                })
            });
        }
    }

    /// Ends all of them in order; what they told.
    pub fn stop(mut self) -> Pages {
        self.java.command("stop");
        self.writer.stop();
        self.group.stop();
        eventually(DEADLINE, "every application has ended", || {
            self.book.look(|pages| match pages.stopped.len() {
                5 => Ok(()),
                _ => Err(pages.stopped.clone()),
            })
        });
        self.assert_sound();
        self.book.copy()
    }

    fn assert_sound(&self) {
        let failed = self.book.look(|pages| {
            let shown = pages.failed.iter().take(5);
            shown.cloned().collect::<Vec<_>>()
        });
        assert!(failed.is_empty(), "applications broke down: {failed:#?}");
    }
}
