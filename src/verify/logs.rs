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

/// A request that fails is asked again in halves, so that one bad partition spoils only itself; after so
/// many, the others aren't asked any more.
const FAILED_MAX: usize = 20;
/// Partitions whose times are asked for at once: so few that one bad one is found by a few halves.
const TIMES_AT_ONCE: usize = 128;

/// The first offset that is no older than a time, of each; the log's end where all are older.
pub(super) fn at_times(
    section: &ClusterSection,
    consumer: &Consumer,
    places: &[((&str, i32), i64)],
) -> Vec<Result<i64, String>> {
    in_parts(places, &mut |some| {
        let asked: Vec<_> = some
            .iter()
            .map(|(place, at_ms)| (*place, Offset::Offset((*at_ms).max(0))))
            .collect();
        let mut answers = ask_each(section, consumer, &asked).map_err(|error| error.to_string())?;
        let answers = some.iter().map(|((topic, partition), _)| {
            let answer = answers.remove(&((*topic).to_owned(), *partition));
            answer.unwrap_or_else(|| Err("it was not answered".to_owned()))
        });
        Ok(answers.collect())
    })
}

/// One answer for each place that was asked about, in their order.
type InOrder<A> = Vec<Result<A, String>>;
/// One request about some places, whose answers are in their order.
type Ask<'a, T, A> = dyn FnMut(&[T]) -> Result<InOrder<A>, String> + 'a;

/// Asks about all, in their order. An error of a request is one of each of its places.
fn in_parts<T, A: Clone>(places: &[T], ask: &mut Ask<'_, T, A>) -> InOrder<A> {
    let mut found = Vec::with_capacity(places.len());
    // The next one to ask is the last.
    let mut left: Vec<&[T]> = places.chunks(TIMES_AT_ONCE).rev().collect();
    let mut failed = 0;
    let mut last = String::new();
    while let Some(some) = left.pop() {
        let answers = if failed < FAILED_MAX {
            ask(some)
        } else {
            Err(last.clone())
        };
        match answers {
            Ok(answers) => found.extend(answers),
            Err(error) => {
                failed += 1;
                last.clone_from(&error);
                if some.len() > 1 && failed < FAILED_MAX {
                    let (first, second) = some.split_at(some.len() / 2);
                    left.extend([second, first]);
                } else {
                    found.extend(some.iter().map(|_| Err(error.clone())));
                }
            }
        }
    }
    found
}

type Answers = HashMap<(String, i32), Result<i64, String>>;

fn ask(
    section: &ClusterSection,
    consumer: &Consumer,
    partitions: &[(&str, i32)],
    which: Offset,
) -> Result<Answers, VerifyError> {
    let partitions: Vec<_> = partitions.iter().map(|place| (*place, which)).collect();
    ask_each(section, consumer, &partitions)
}

fn ask_each(
    section: &ClusterSection,
    consumer: &Consumer,
    partitions: &[((&str, i32), Offset)],
) -> Result<Answers, VerifyError> {
    let doing = "asking for log starts and ends";
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for ((topic, partition), which) in partitions {
        // Where a time is meant, Kafka takes -1 and -2 for the end and the start of the log.
        list.add_partition_offset(topic, *partition, *which)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_place_that_can_not_be_asked_spoils_only_itself() {
        let places: Vec<i32> = (0..300).collect();
        let mut calls = 0;
        let found = in_parts(&places, &mut |some: &[i32]| {
            calls += 1;
            if some.contains(&7) {
                return Err("no leader".to_owned());
            }
            Ok(some.iter().map(|place| Ok(place * 2)).collect())
        });
        for (place, found) in found.iter().enumerate() {
            let expected = match place {
                7 => Err("no leader".to_owned()),
                _ => Ok(i32::try_from(place).expect("small") * 2),
            };
            assert_eq!(*found, expected, "{place}");
        }
        assert!(calls < 20, "{calls}");
    }

    #[test]
    fn where_nobody_answers_each_says_so_and_few_are_asked() {
        let places: Vec<i32> = (0..5_000).collect();
        let mut calls = 0;
        let found: Vec<Result<i32, String>> = in_parts(&places, &mut |_: &[i32]| {
            calls += 1;
            Err("down".to_owned())
        });
        assert_eq!(found, vec![Err("down".to_owned()); places.len()]);
        assert_eq!(calls, FAILED_MAX);
    }
}
