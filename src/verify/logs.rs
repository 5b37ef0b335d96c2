//! What there is on a side: partitions, and where their logs begin and end.

use std::collections::HashMap;

use rdkafka::consumer::Consumer as _;
use rdkafka::{Offset, TopicPartitionList};

use super::VerifyError;
use super::client::{ANSWER_WITHIN, Consumer, failed};
use crate::config::ClusterSection;

/// Partitions asked about at once.
const AT_ONCE: usize = 2_000;

/// Where a log begins and ends, or why that isn't known. The end is the last stable offset.
pub(super) type Ends = Result<(i64, i64), String>;

/// Partitions by topic.
pub(super) fn partition_counts(
    section: &ClusterSection,
    consumer: &Consumer,
) -> Result<HashMap<String, usize>, VerifyError> {
    let metadata = consumer
        .fetch_metadata(None, ANSWER_WITHIN)
        .map_err(|error| failed(section, "listing topics", &error))?;
    let topics = metadata.topics().iter();
    Ok(topics
        .map(|topic| (topic.name().to_owned(), topic.partitions().len()))
        .collect())
}

/// Log starts and ends, in the order asked for.
pub(super) fn ends(
    section: &ClusterSection,
    consumer: &Consumer,
    partitions: &[(&str, i32)],
) -> Result<Vec<Ends>, VerifyError> {
    let mut found = Vec::with_capacity(partitions.len());
    for some in partitions.chunks(AT_ONCE) {
        let starts = ask(section, consumer, some, Offset::Beginning)?;
        let ends = ask(section, consumer, some, Offset::End)?;
        for place in some {
            let answer = |answers: &Answers| {
                let key = (place.0.to_owned(), place.1);
                let answer = answers.get(&key).cloned();
                answer.unwrap_or_else(|| Err("it was not answered".to_owned()))
            };
            found.push(answer(&starts).and_then(|start| Ok((start, answer(&ends)?))));
        }
    }
    Ok(found)
}

/// The first offset that is no older than a time, of each; the log's end where all are older.
pub(super) fn at_times(
    section: &ClusterSection,
    consumer: &Consumer,
    places: &[((&str, i32), i64)],
) -> Result<Vec<Result<i64, String>>, VerifyError> {
    let mut found = Vec::with_capacity(places.len());
    for ((topic, partition), at_ms) in places {
        let asked = [(*topic, *partition)];
        let key = ((*topic).to_owned(), *partition);
        let mut answers = ask(section, consumer, &asked, Offset::Offset((*at_ms).max(0)))?;
        let answer = answers.remove(&key);
        found.push(answer.unwrap_or_else(|| Err("it was not answered".to_owned())));
    }
    Ok(found)
}

type Answers = HashMap<(String, i32), Result<i64, String>>;

fn ask(
    section: &ClusterSection,
    consumer: &Consumer,
    partitions: &[(&str, i32)],
    which: Offset,
) -> Result<Answers, VerifyError> {
    let doing = "asking for log starts and ends";
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for (topic, partition) in partitions {
        // Where a time is meant, Kafka takes -1 and -2 for the end and the start of the log.
        list.add_partition_offset(topic, *partition, which)
            .map_err(|error| failed(section, doing, &error))?;
    }
    let answered = consumer
        .offsets_for_times(list, ANSWER_WITHIN)
        .map_err(|error| failed(section, doing, &error))?;
    let elements = answered.elements();
    Ok(elements
        .iter()
        .map(|element| {
            let offset = match (element.error(), element.offset()) {
                (Err(error), _) => Err(error.to_string()),
                (Ok(()), Offset::Offset(offset)) => Ok(offset),
                // No record is so young.
                (Ok(()), Offset::End) => Ok(i64::MAX),
                (Ok(()), other) => Err(format!("unexpected answer {other:?}")),
            };
            ((element.topic().to_owned(), element.partition()), offset)
        })
        .collect())
}
