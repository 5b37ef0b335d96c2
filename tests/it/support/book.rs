//! What applications told of their records: sent, acknowledged, read, committed. [`super::laws`]
//! judges it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::failover::Place;

/// A topic and a partition of it.
pub type Partition = (String, i32);

/// Milliseconds since the epoch.
pub fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("a clock after 1970");
    i64::try_from(now.as_millis()).expect("a clock before the year 292,278,994")
}

/// A record that a group was shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// How often the group's consumer had been moved to another cluster before.
    pub era: usize,
    /// Where the record was.
    pub place: Place,
    /// `PRODUCER NUMBER`.
    pub value: String,
}

/// A position that a coordinator took from a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// How often the group's consumer had been moved to another cluster before.
    pub era: usize,
    /// The partition.
    pub partition: Partition,
    /// The position.
    pub offset: i64,
    /// When the coordinator had answered, milliseconds since the epoch.
    pub at_ms: i64,
}

/// All that was told.
#[derive(Clone, Debug, Default)]
pub struct Pages {
    /// Acknowledged records by their place.
    pub acknowledged: BTreeMap<Place, String>,
    /// Records, by partition and value, that may have been written without an answer. They were
    /// sent again, so they may be there twice.
    pub in_doubt: BTreeSet<(Partition, String)>,
    /// How often each producer was refused by ACLs.
    pub refused: BTreeMap<String, u64>,
    /// What each group read, in its order.
    pub reads: BTreeMap<String, Vec<Read>>,
    /// What each group committed, in its order.
    pub commits: BTreeMap<String, Vec<Committed>>,
    /// Two records that were acknowledged at one place: never.
    pub clashes: Vec<String>,
    /// How often each client has moved.
    pub switches: BTreeMap<String, usize>,
    /// Producers that write nothing new, and have an answer for all they wrote.
    pub quiet: BTreeSet<String>,
    /// Clients that have ended.
    pub stopped: BTreeSet<String>,
    /// Clients that have broken down, and why.
    pub failed: Vec<String>,
}

/// One thing that an application tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A record was acknowledged.
    Acknowledged {
        /// Where it is.
        place: Place,
        /// `PRODUCER NUMBER`.
        value: String,
    },
    /// ACLs keep this producer away.
    Refused(String),
    /// Maybe written, will be sent again.
    InDoubt(Partition, String),
    /// A group was shown a record.
    Read(String, Read),
    /// A group's position was taken.
    Committed(String, Committed),
    /// A client has moved.
    Switched(String),
    /// A producer is through.
    Quiet(String),
    /// A client has ended.
    Stopped(String),
    /// A client has broken down.
    Failed(String),
}

impl Told {
    /// From a line of `tests/java/Apps.java`, which explains them.
    pub fn parse(line: &str) -> Option<Self> {
        let (word, rest) = line.split_once(' ')?;
        let words: Vec<&str> = rest.split(' ').collect();
        let number = |at: usize| words.get(at)?.parse::<i64>().ok();
        let partition = |at: usize| {
            let topic = (*words.get(at)?).to_owned();
            Some((topic, i32::try_from(number(at + 1)?).ok()?))
        };
        let place = |at: usize| {
            let (topic, partition) = partition(at)?;
            Some((topic, partition, number(at + 2)?))
        };
        let era = || usize::try_from(number(1)?).ok();
        let name = words[0].to_owned();
        Some(match (word, words.len()) {
            ("ack", 5) => Self::Acknowledged {
                place: place(1)?,
                value: format!("{name} {}", number(4)?),
            },
            ("refused", 1) => Self::Refused(name),
            ("doubt", 4) => Self::InDoubt(partition(1)?, format!("{name} {}", number(3)?)),
            ("read", 7) => {
                let value = format!("{} {}", words[5], words[6]);
                let (era, place) = (era()?, place(2)?);
                Self::Read(name, Read { era, place, value })
            }
            ("committed", 6) => {
                let committed = Committed {
                    era: era()?,
                    partition: partition(2)?,
                    offset: number(4)?,
                    at_ms: number(5)?,
                };
                Self::Committed(name, committed)
            }
            ("switched", 1) => Self::Switched(name),
            ("quiet", 1) => Self::Quiet(name),
            ("stopped", 1) => Self::Stopped(name),
            ("failed", _) => Self::Failed(rest.to_owned()),
            _ => return None,
        })
    }
}

/// Where all applications of a test write. Bounded by them: each producer has a last record.
#[derive(Debug, Default)]
pub struct Book(Mutex<Pages>);

impl Book {
    /// Writes one thing down.
    pub fn note(&self, told: Told) {
        let mut pages = self.pages();
        match told {
            Told::Acknowledged { place, value } => {
                if let Some(before) = pages.acknowledged.insert(place.clone(), value.clone()) {
                    let clash = format!("{place:?} is {before} and {value}");
                    pages.clashes.push(clash);
                }
            }
            Told::Refused(producer) => *pages.refused.entry(producer).or_default() += 1,
            Told::InDoubt(partition, value) => {
                pages.in_doubt.insert((partition, value));
            }
            Told::Read(group, read) => pages.reads.entry(group).or_default().push(read),
            Told::Committed(group, committed) => {
                pages.commits.entry(group).or_default().push(committed);
            }
            Told::Switched(client) => *pages.switches.entry(client).or_default() += 1,
            Told::Quiet(producer) => {
                pages.quiet.insert(producer);
            }
            Told::Stopped(client) => {
                pages.stopped.insert(client);
            }
            Told::Failed(why) => pages.failed.push(why),
        }
    }

    /// Looks at what there is so far, without copying it. Clients wait meanwhile.
    pub fn look<T>(&self, look: impl FnOnce(&Pages) -> T) -> T {
        look(&self.pages())
    }

    /// A copy of all that was told so far.
    pub fn copy(&self) -> Pages {
        self.pages().clone()
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
