//! What is copied, and what is promised of it.

use super::judge::Promise;

/// The segments of the topics that are cleaned and shortened: closed soon, so that there is work.
const SHORT_SEGMENTS: (&str, &str) = ("segment.ms", "3000");

/// Who writes to a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writers {
    /// An idempotent producer.
    Plain,
    /// The same with a few keys over and over, and tombstones.
    FewKeys,
    /// A producer of transactions, short and long, some of them aborted.
    Transactional,
    /// [`Self::Plain`] and [`Self::Transactional`].
    Both,
    /// An idempotent producer that rests for longer than a broker remembers producers.
    Seldom,
}

/// A topic of the run.
#[derive(Clone, Copy, Debug)]
pub struct Topic {
    /// Its name.
    pub name: &'static str,
    /// How many partitions it has.
    pub partitions: i32,
    /// Its configs on the source.
    pub configs: &'static [(&'static str, &'static str)],
    /// Who writes to it.
    pub writers: Writers,
    /// What must hold of its copy.
    pub promise: Promise,
}

/// The topic that is copied at other offsets, by a flow of its own.
pub const MAPPED: &str = "mapped";

/// The topic whose beginning is deleted now and then.
pub const SHORTENED: &str = "shortened";

/// All of them.
pub const TOPICS: [Topic; 6] = [
    Topic {
        name: "plain",
        partitions: 3,
        configs: &[],
        writers: Writers::Plain,
        promise: Promise::IDENTICAL,
    },
    Topic {
        name: "transactions",
        partitions: 3,
        configs: &[],
        writers: Writers::Transactional,
        promise: Promise::IDENTICAL,
    },
    Topic {
        name: "compacted",
        partitions: 2,
        configs: &[
            ("cleanup.policy", "compact"),
            ("min.cleanable.dirty.ratio", "0.01"),
            SHORT_SEGMENTS,
        ],
        writers: Writers::FewKeys,
        promise: Promise {
            is_compacted: true,
            ..Promise::IDENTICAL
        },
    },
    Topic {
        name: SHORTENED,
        partitions: 2,
        configs: &[SHORT_SEGMENTS],
        writers: Writers::Plain,
        promise: Promise {
            is_shortened: true,
            ..Promise::IDENTICAL
        },
    },
    Topic {
        name: "seldom",
        partitions: 1,
        configs: &[],
        writers: Writers::Seldom,
        promise: Promise::IDENTICAL,
    },
    Topic {
        name: MAPPED,
        partitions: 2,
        configs: &[],
        writers: Writers::Both,
        promise: Promise {
            has_same_offsets: false,
            ..Promise::IDENTICAL
        },
    },
];
