//! The name of one partition.

use std::collections::BTreeMap;
use std::fmt;

use kafka_protocol::messages::TopicName;
use kafka_protocol::protocol::StrBytes;

/// A topic and a partition of it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TopicPartition {
    /// Name of the topic.
    pub topic: String,
    /// Index of the partition.
    pub partition: i32,
}

impl TopicPartition {
    /// Puts the two together.
    pub fn new(topic: impl Into<String>, partition: i32) -> Self {
        Self {
            topic: topic.into(),
            partition,
        }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// A string of ours as the protocol wants it.
pub(super) fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

/// A topic's name as the protocol wants it.
pub(super) fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

/// Partitions grouped by topic, with `make` of each: the shape of nearly every request.
pub(super) fn by_topic<'a, T, P>(
    items: impl IntoIterator<Item = &'a T>,
    key: impl Fn(&T) -> &TopicPartition,
    make: impl Fn(&T) -> P,
) -> Vec<(TopicName, Vec<P>)>
where
    T: 'a,
{
    let mut topics: BTreeMap<String, Vec<P>> = BTreeMap::new();
    for item in items {
        topics
            .entry(key(item).topic.clone())
            .or_default()
            .push(make(item));
    }
    topics
        .into_iter()
        .map(|(topic, partitions)| (topic_name(&topic), partitions))
        .collect()
}
