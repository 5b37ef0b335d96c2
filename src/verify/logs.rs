//! What there is on a side: partitions, and where their logs begin and end.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::VerifyError;
use super::client::{Consumer, metadata};
use crate::config::ClusterSection;

/// Partitions of one leader that are asked about at once: so few that one bad one is found by a few halves.
const AT_ONCE: usize = 128;

/// Where a log begins and ends, or why that isn't known. The end is the last stable offset.
pub(super) type Ends = Result<(i64, i64), String>;

/// How many partitions each topic has, or why that isn't known.
pub(super) type Counts = HashMap<String, Result<usize, String>>;

/// Partitions by topic. A topic that isn't among them may only be hidden: see [`add_unlisted`].
pub(super) fn partition_counts(
    section: &ClusterSection,
    consumer: &Consumer,
) -> Result<Counts, VerifyError> {
    let metadata = metadata(section, consumer, "listing topics")?;
    let topics = metadata.topics().iter().map(|topic| {
        let count = match (topic.partitions().len(), topic.error()) {
            (0, Some(error)) => Err(RDKafkaErrorCode::from(error).to_string()),
            (count, _) => Ok(count),
        };
        (topic.name().to_owned(), count)
    });
    Ok(topics.collect())
}

/// Topics that are asked for by their names at the same time.
const BY_NAME_AT_ONCE: usize = 8;
/// After so many of them that nobody answered, the others aren't asked any more.
const SILENCES_MAX: usize = 8;

/// How many partitions topics have that aren't listed: none where one isn't there. Brokers leave out of a list what may
/// not be described, so these are asked for by their names.
pub(super) fn add_unlisted<'t>(
    section: &ClusterSection,
    consumer: &Consumer,
    counts: &mut Counts,
    topics: impl Iterator<Item = &'t str>,
    cancelled: &AtomicBool,
) {
    let unlisted: BTreeSet<&str> = topics
        .filter(|topic| !counts.contains_key(*topic))
        .collect();
    let unlisted: Vec<&str> = unlisted.into_iter().collect();
    let found = counts_by_name(section, consumer, &unlisted, cancelled);
    let names = unlisted.into_iter().map(str::to_owned);
    counts.extend(names.zip(found));
}

/// The same, asked for now, in the order of the names.
pub(super) fn counts_by_name(
    section: &ClusterSection,
    consumer: &Consumer,
    topics: &[&str],
    cancelled: &AtomicBool,
) -> Vec<Result<usize, String>> {
    side_by_side(topics, cancelled, &|topic| {
        count_by_name(section, consumer, topic)
    })
}

fn count_by_name(
    section: &ClusterSection,
    consumer: &Consumer,
    topic: &str,
) -> Result<usize, NoAnswer> {
    let answer = consumer.fetch_metadata(Some(topic), section.request_timeout);
    let answer = answer.map_err(|error| NoAnswer::of(&error))?;
    let of_it = answer.topics().iter().find(|it| it.name() == topic);
    let Some(of_it) = of_it else {
        return Ok(0);
    };
    match of_it.error().map(RDKafkaErrorCode::from) {
        None => Ok(of_it.partitions().len()),
        Some(
            RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition,
        ) => Ok(0),
        Some(error) => Err(NoAnswer {
            reason: error.to_string(),
            is_silence: false,
        }),
    }
}

/// Asks about each by itself, some at the same time. Who isn't asked any more, since nobody answers or the run has
/// ended, is told why.
fn side_by_side<A: Send>(
    topics: &[&str],
    cancelled: &AtomicBool,
    ask: &(dyn Fn(&str) -> Result<A, NoAnswer> + Sync),
) -> Vec<Result<A, String>> {
    let (next, silences) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let one = |topic: &str| {
        if cancelled.load(Ordering::Relaxed) {
            return Err("the comparison was stopped".to_owned());
        }
        if silences.load(Ordering::Relaxed) >= SILENCES_MAX {
            return Err("nobody answered for others before it".to_owned());
        }
        ask(topic).map_err(|error| {
            silences.fetch_add(usize::from(error.is_silence), Ordering::Relaxed);
            error.reason
        })
    };
    let work = || {
        let mut answers = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(topic) = topics.get(index) else {
                break answers;
            };
            answers.push((index, one(topic)));
        }
    };
    let crashed = || Err("asking for it has crashed".to_owned());
    let mut found: Vec<_> = topics.iter().map(|_| crashed()).collect();
    std::thread::scope(|scope| {
        let threads = topics.len().min(BY_NAME_AT_ONCE);
        let working: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for answers in working {
            for (index, answer) in answers.join().unwrap_or_default() {
                found[index] = answer;
            }
        }
    });
    found
}

/// Log starts and ends, in the order asked for. Each leader is asked for its own at the same time, so that one
/// that hangs spoils only those.
pub(super) fn ends(
    section: &ClusterSection,
    consumer: &Consumer,
    partitions: &[(&str, i32)],
) -> Vec<Ends> {
    let leaders = leaders(section, consumer, partitions, |place| *place);
    at_leaders(&leaders, partitions, AT_ONCE, &|some| {
        let starts = ask(section, consumer, some, Offset::Beginning)?;
        let ends = ask(section, consumer, some, Offset::End)?;
        let found = some.iter().map(|place| {
            let answer = |answers: &Answers| {
                let key = (place.0.to_owned(), place.1);
                let answer = answers.get(&key).cloned();
                answer.unwrap_or_else(|| Err("it was not answered".to_owned()))
            };
            answer(&starts).and_then(|start| Ok((start, answer(&ends)?)))
        });
        Ok(found.collect())
    })
}

/// A request that fails is asked again in halves, so that one bad partition spoils only itself; after so
/// many bad ones, the others aren't asked any more.
const FAILED_MAX: usize = 20;
/// Partitions whose times are asked for at once: so few that one bad one is found by a few halves.
const TIMES_AT_ONCE: usize = 128;

/// The first offset that is no older than a time, of each; the log's end where all are older.
pub(super) fn at_times(
    section: &ClusterSection,
    consumer: &Consumer,
    places: &[((&str, i32), i64)],
) -> Vec<Result<i64, String>> {
    if places.is_empty() {
        return Vec::new();
    }
    let leaders = leaders(section, consumer, places, |(place, _)| *place);
    at_leaders(&leaders, places, TIMES_AT_ONCE, &|some| {
        let asked: Vec<_> = some
            .iter()
            .map(|(place, at_ms)| (*place, Offset::Offset((*at_ms).max(0))))
            .collect();
        let mut answers = ask_each(section, consumer, &asked)?;
        let answers = some.iter().map(|((topic, partition), _)| {
            let answer = answers.remove(&((*topic).to_owned(), *partition));
            answer.unwrap_or_else(|| Err("it was not answered".to_owned()))
        });
        Ok(answers.collect())
    })
}

/// An election takes less than this, mostly; a partition that has no leader then has none.
const ELECTION: Duration = Duration::from_secs(1);
/// Why a partition without a leader isn't asked about: its log can't be.
const NO_LEADER: &str = "no broker leads it";

/// Whom to ask about places, by their indexes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Leaders {
    /// What each broker leads. Where nobody tells who leads, all are one broker's.
    led: Vec<Vec<usize>>,
    /// What no broker leads, as the brokers say.
    leaderless: Vec<usize>,
}

/// Which broker leads each place. Those without a leader are looked at once more: there may be an election.
fn leaders<T>(
    section: &ClusterSection,
    consumer: &Consumer,
    places: &[T],
    name: impl for<'p> Fn(&'p T) -> (&'p str, i32),
) -> Leaders {
    let look = || {
        let metadata = metadata(section, consumer, "asking for leaders").ok();
        let mut led: HashMap<(String, i32), i32> = HashMap::new();
        for topic in metadata.iter().flat_map(|it| it.topics()) {
            let partitions = topic.partitions().iter();
            led.extend(partitions.map(|it| ((topic.name().to_owned(), it.id()), it.leader())));
        }
        by_leader(places.iter().map(|place| {
            let (topic, partition) = name(place);
            led.get(&(topic.to_owned(), partition)).copied()
        }))
    };
    let first = look();
    if first.leaderless.is_empty() {
        return first;
    }
    std::thread::sleep(ELECTION);
    look()
}

fn by_leader(leaders: impl Iterator<Item = Option<i32>>) -> Leaders {
    let mut by_leader: BTreeMap<Option<i32>, Vec<usize>> = BTreeMap::new();
    for (index, leader) in leaders.enumerate() {
        by_leader.entry(leader).or_default().push(index);
    }
    let nobody = by_leader
        .keys()
        .copied()
        .filter(|it| it.is_some_and(|id| id < 0));
    let nobody: Vec<_> = nobody.collect();
    let leaderless = nobody.iter().filter_map(|it| by_leader.remove(it));
    let leaderless = leaderless.flatten().collect();
    Leaders {
        led: by_leader.into_values().collect(),
        leaderless,
    }
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct NoAnswer {
    reason: String,
    /// Nothing came at all: the same would become of the next one.
    is_silence: bool,
}

impl NoAnswer {
    fn of(error: &KafkaError) -> Self {
        let silent = [
            RDKafkaErrorCode::OperationTimedOut,
            RDKafkaErrorCode::RequestTimedOut,
            RDKafkaErrorCode::TimedOutQueue,
        ];
        Self {
            reason: error.to_string(),
            is_silence: error
                .rdkafka_error_code()
                .is_some_and(|code| silent.contains(&code)),
        }
    }
}

/// One answer for each place that was asked about, in their order.
type InOrder<A> = Vec<Result<A, String>>;
/// One request about some places, whose answers are in their order.
type Ask<'a, T, A> = dyn Fn(&[T]) -> Result<InOrder<A>, NoAnswer> + Sync + 'a;

/// Asks all leaders at the same time, so many places of one at once.
fn at_leaders<T, A>(
    leaders: &Leaders,
    places: &[T],
    at_once: usize,
    ask: &Ask<'_, T, A>,
) -> InOrder<A>
where
    T: Copy + Send + Sync,
    A: Clone + Send,
{
    let answers = std::thread::scope(|scope| {
        let asking: Vec<_> = leaders
            .led
            .iter()
            .map(|indexes| {
                let some: Vec<T> = indexes.iter().map(|index| places[*index]).collect();
                scope.spawn(move || in_parts(&some, at_once, ask))
            })
            .collect();
        let answers = asking.into_iter().map(std::thread::ScopedJoinHandle::join);
        answers.collect::<Vec<_>>()
    });
    let mut found = vec![Err("asking for it has crashed".to_owned()); places.len()];
    for (indexes, answers) in leaders.led.iter().zip(answers) {
        for (index, answer) in indexes.iter().zip(answers.unwrap_or_default()) {
            found[*index] = answer;
        }
    }
    for index in &leaders.leaderless {
        found[*index] = Err(NO_LEADER.to_owned());
    }
    found
}

/// Asks about all, in their order. An error of a request is one of each of its places.
fn in_parts<T, A: Clone>(places: &[T], at_once: usize, ask: &Ask<'_, T, A>) -> InOrder<A> {
    let mut found = Vec::with_capacity(places.len());
    // The next one to ask is the last.
    let mut left: Vec<&[T]> = places.chunks(at_once).rev().collect();
    let mut failed = 0;
    let mut last = String::new();
    while let Some(some) = left.pop() {
        let answers = if failed < FAILED_MAX {
            ask(some)
        } else {
            Err(NoAnswer {
                reason: last.clone(),
                is_silence: true,
            })
        };
        match answers {
            Ok(answers) => found.extend(answers),
            Err(NoAnswer {
                reason: error,
                is_silence,
            }) => {
                // How often a request is halved says nothing of how many places are bad.
                failed = match (is_silence, some.len()) {
                    (true, _) => FAILED_MAX,
                    (false, 1) => failed + 1,
                    (false, _) => failed,
                };
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
) -> Result<Answers, NoAnswer> {
    let partitions: Vec<_> = partitions.iter().map(|place| (*place, which)).collect();
    ask_each(section, consumer, &partitions)
}

fn ask_each(
    section: &ClusterSection,
    consumer: &Consumer,
    partitions: &[((&str, i32), Offset)],
) -> Result<Answers, NoAnswer> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for ((topic, partition), which) in partitions {
        // Where a time is meant, Kafka takes -1 and -2 for the end and the start of the log.
        list.add_partition_offset(topic, *partition, *which)
            .map_err(|error| NoAnswer::of(&error))?;
    }
    let answered = consumer
        .offsets_for_times(list, section.request_timeout)
        .map_err(|error| NoAnswer::of(&error))?;
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
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn error(reason: &str, is_silence: bool) -> NoAnswer {
        NoAnswer {
            reason: reason.to_owned(),
            is_silence,
        }
    }

    #[test]
    fn one_place_that_can_not_be_asked_spoils_only_itself() {
        let places: Vec<i32> = (0..300).collect();
        let calls = AtomicUsize::new(0);
        let found = in_parts(&places, TIMES_AT_ONCE, &|some: &[i32]| {
            calls.fetch_add(1, Ordering::Relaxed);
            if some.contains(&7) {
                return Err(error("no leader", false));
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
        let calls = calls.into_inner();
        assert!(calls < 20, "{calls}");
    }

    #[test]
    fn where_nobody_answers_each_says_so_and_few_are_asked() {
        let places: Vec<i32> = (0..5_000).collect();
        for (is_silence, asked) in [(false, 3 * FAILED_MAX), (true, 1)] {
            let calls = AtomicUsize::new(0);
            let found: InOrder<i32> = in_parts(&places, TIMES_AT_ONCE, &|_: &[i32]| {
                calls.fetch_add(1, Ordering::Relaxed);
                Err(error("down", is_silence))
            });
            assert_eq!(found, vec![Err("down".to_owned()); places.len()]);
            let calls = calls.into_inner();
            assert!(calls <= asked, "{calls}");
        }
    }

    #[test]
    fn a_few_places_that_can_not_be_asked_spoil_no_others() {
        let places: Vec<i32> = (0..2_000).collect();
        let bad = [7, 450, 1_100, 1_999];
        let found = in_parts(&places, AT_ONCE, &|some: &[i32]| {
            if some.iter().any(|place| bad.contains(place)) {
                return Err(error("no leader", false));
            }
            Ok(some.iter().map(|place| Ok(*place)).collect())
        });
        let failed = found.iter().filter(|it| it.is_err()).count();
        assert_eq!(failed, bad.len());
    }

    #[test]
    fn a_leader_that_is_silent_spoils_what_it_leads() {
        let places: Vec<i32> = (0..6).collect();
        let leaders = Leaders {
            led: vec![vec![0, 3], vec![1, 4], vec![2, 5]],
            leaderless: Vec::new(),
        };
        let found = at_leaders(&leaders, &places, 1, &|some: &[i32]| {
            if some.iter().any(|place| place % 3 == 1) {
                return Err(error("silent", true));
            }
            Ok(some.iter().map(|place| Ok(place * 2)).collect())
        });
        let silent = || Err("silent".to_owned());
        let expected = [Ok(0), silent(), Ok(4), Ok(6), silent(), Ok(10)];
        assert_eq!(found, expected);
    }

    #[test]
    fn what_nobody_leads_is_named_and_not_asked() {
        let leaders = by_leader([Some(1), Some(-1), None, Some(1)].into_iter());
        let found = at_leaders(&leaders, &[0, 1, 2, 3], AT_ONCE, &|some: &[i32]| {
            assert!(!some.contains(&1));
            Ok(some.iter().map(|place| Ok(*place)).collect())
        });
        assert_eq!(found, [Ok(0), Err(NO_LEADER.to_owned()), Ok(2), Ok(3)]);
    }

    #[test]
    fn topics_are_asked_for_side_by_side_and_not_for_ever() {
        let names: Vec<String> = (0..100).map(|number| format!("t{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let open = AtomicBool::new(false);
        let found = side_by_side(&names, &open, &|topic| {
            let others = now.fetch_add(1, Ordering::SeqCst);
            most.fetch_max(others + 1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(5));
            now.fetch_sub(1, Ordering::SeqCst);
            Ok(topic[1..].parse::<usize>().expect("a number"))
        });
        let expected: Vec<Result<usize, String>> = (0..100).map(Ok).collect();
        assert_eq!(found, expected);
        let most = most.into_inner();
        assert!((2..=BY_NAME_AT_ONCE).contains(&most), "{most}");

        for (is_silence, is_cancelled, most) in [
            (true, false, SILENCES_MAX + BY_NAME_AT_ONCE),
            (false, false, 100),
            (true, true, 0),
        ] {
            let (asked, cancelled) = (AtomicUsize::new(0), AtomicBool::new(is_cancelled));
            let found: InOrder<usize> = side_by_side(&names, &cancelled, &|_| {
                asked.fetch_add(1, Ordering::Relaxed);
                Err(error("not now", is_silence))
            });
            assert!(found.iter().all(Result::is_err) && found.len() == 100);
            let asked = asked.into_inner();
            assert!(asked <= most, "{asked}");
        }
    }
}
