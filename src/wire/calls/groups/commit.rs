//! Committing positions for groups that have no members.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::{GroupId, OffsetCommitRequest, OffsetCommitResponse};
use tokio::time::Instant;

use super::GroupOffset;
use super::coordinator::{Answers, Question, is_about_coordinator, server};
use crate::wire::calls::partition::{TopicPartition, by_topic, text};
use crate::wire::{Cluster, WireError};

/// The newest version that names topics.
const VERSION_MAX: i16 = 9;

/// Positions that weigh less together aren't divided any more: that they are too many isn't what they are refused for.
const DIVIDED_FROM_BYTES: usize = 8_192;
/// What is written beside a position isn't what an error without a reason is about, if it is no more than this.
const SMALL_METADATA_BYTES: usize = 1_024;
/// What a position weighs beside its names and what is written beside it.
const POSITION_BYTES: usize = 64;

/// The pauses of who is asked for patience.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
/// See [`PAUSE_FIRST`].
const PAUSE_LAST: Duration = Duration::from_secs(2);

/// How a position was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// As it is.
    Whole,
    /// Without what the group wrote beside it, which is too large for this cluster (`offset.metadata.max.bytes`).
    WithoutMetadata,
}

/// What became of each position.
pub type Committed<T> = HashMap<TopicPartition, Result<T, WireError>>;

type Positions = BTreeMap<TopicPartition, GroupOffset>;

/// Commits positions as a client without membership does: generation -1 and no member id.
///
/// The coordinator takes that for a group without members only, whatever its kind, and answers
/// UNKNOWN_MEMBER_ID (or ILLEGAL_GENERATION) otherwise: `ClassicGroup.validateOffsetCommit`,
/// `ConsumerGroup.validateOffsetCommit`. So a group that is active is never moved, without a race.
///
/// A commit is one batch in the coordinator's log. Positions that are too many for one are committed in several, and
/// one whose metadata is too large for the cluster without it: the position counts more.
///
/// The result has an entry for each group and position. After a transport error the commit may or
/// may not have been made; it isn't sent again.
pub async fn commit_group_offsets(
    cluster: &Cluster,
    commits: &HashMap<String, BTreeMap<TopicPartition, GroupOffset>>,
) -> HashMap<String, Committed<Taken>> {
    let mut all: HashMap<String, Group> = commits
        .iter()
        .map(|(name, positions)| (name.clone(), Group::new(positions.clone())))
        .collect();
    loop {
        let next = all.iter_mut();
        let asked: HashMap<String, Positions> = next
            .filter_map(|(name, group)| Some((name.clone(), group.waiting.pop_front()?)))
            .collect();
        if asked.is_empty() {
            let done = all.into_iter().map(|(name, group)| (name, group.done));
            return done.collect();
        }
        let mut answers = ask(cluster, &asked).await;
        for (name, positions) in asked {
            let answers = answers.remove(&name).unwrap_or_default();
            if let Some(group) = all.get_mut(&name) {
                group.take(&name, positions, answers);
            }
        }
    }
}

/// As [`commit_group_offsets`]; what a coordinator asks patience for is committed again, with growing pauses, for so long.
pub async fn commit_group_offsets_within(
    cluster: &Cluster,
    commits: &HashMap<String, BTreeMap<TopicPartition, GroupOffset>>,
    patience: Duration,
) -> HashMap<String, Committed<Taken>> {
    let until = Instant::now() + patience;
    let mut pause = PAUSE_FIRST;
    let mut done = commit_group_offsets(cluster, commits).await;
    loop {
        let refused = refused_for_now(commits, &done);
        let wakes = Instant::now() + pause;
        if refused.is_empty() || wakes > until {
            return done;
        }
        tokio::time::sleep_until(wakes).await;
        pause = (pause * 2).min(PAUSE_LAST);
        for (group, answers) in commit_group_offsets(cluster, &refused).await {
            done.entry(group).or_default().extend(answers);
        }
    }
}

/// What would be taken a little later.
fn refused_for_now(
    commits: &HashMap<String, Positions>,
    done: &HashMap<String, Committed<Taken>>,
) -> HashMap<String, Positions> {
    let mut refused = HashMap::new();
    for (group, positions) in commits {
        let asks = |at: &TopicPartition| {
            let answer = done.get(group).and_then(|answers| answers.get(at));
            matches!(answer, Some(Err(error)) if asks_for_patience(error))
        };
        let again = positions.iter().filter(|(at, _)| asks(at));
        let again: Positions = again.map(|(at, it)| (at.clone(), it.clone())).collect();
        if !again.is_empty() {
            refused.insert(group.clone(), again);
        }
    }
    refused
}

/// Whether a coordinator has no quota for a commit at the moment: it did nothing, and takes the same a little later. Some
/// services say it as a violated policy; no broker of Apache's has one for commits.
pub fn asks_for_patience(error: &WireError) -> bool {
    matches!(
        error.server_code(),
        Some(ResponseError::ThrottlingQuotaExceeded | ResponseError::PolicyViolation)
    )
}

/// One group's positions while they are committed.
struct Group {
    waiting: VecDeque<Positions>,
    without_metadata: BTreeSet<TopicPartition>,
    done: Committed<Taken>,
}

impl Group {
    fn new(positions: Positions) -> Self {
        Self {
            waiting: VecDeque::from([positions]),
            without_metadata: BTreeSet::new(),
            done: HashMap::new(),
        }
    }

    /// Takes the answers to these, and puts back what may be taken in another way.
    fn take(&mut self, name: &str, positions: Positions, mut answers: Answered) {
        let (mut without_metadata, mut too_large) = (Positions::new(), Positions::new());
        let mut refused = HashMap::new();
        for (at, position) in positions {
            let error = match answers.remove(&at) {
                Some(Err(error)) => error,
                Some(Ok(())) => {
                    let taken = match self.without_metadata.contains(&at) {
                        true => Taken::WithoutMetadata,
                        false => Taken::Whole,
                    };
                    self.done.insert(at, Ok(taken));
                    continue;
                }
                None => continue,
            };
            let has_metadata = !position.metadata.is_empty();
            match error.server_code() {
                Some(ResponseError::OffsetMetadataTooLarge) if has_metadata => {
                    without_metadata.insert(at, position);
                }
                Some(code) if may_be_about_size(code) => {
                    refused.insert(at.clone(), error);
                    too_large.insert(at, position);
                }
                _ => {
                    self.done.insert(at, Err(error));
                }
            }
        }
        // A log may take less than that (`message.max.bytes`), and says so.
        let mut codes = refused.values().map(WireError::server_code);
        let is_surely_size = codes.all(|code| code != Some(ResponseError::UnknownServerError));
        let may_be_size = is_surely_size || size_bytes(name, &too_large) > DIVIDED_FROM_BYTES;
        if too_large.len() > 1 && may_be_size {
            let second = too_large.len() / 2;
            let at = too_large.keys().nth(second).cloned();
            let rest = at.map(|at| too_large.split_off(&at)).unwrap_or_default();
            self.waiting.extend([too_large, rest]);
        } else {
            for (at, position) in too_large {
                let Some(error) = refused.remove(&at) else {
                    continue;
                };
                let is_about_size = error.server_code() != Some(ResponseError::UnknownServerError)
                    || position.metadata.len() > SMALL_METADATA_BYTES;
                match is_about_size && !position.metadata.is_empty() {
                    true => {
                        without_metadata.insert(at, position);
                    }
                    false => {
                        self.done.insert(at, Err(error));
                    }
                }
            }
        }
        for (at, position) in &mut without_metadata {
            position.metadata.clear();
            self.without_metadata.insert(at.clone());
        }
        if !without_metadata.is_empty() {
            self.waiting.push_back(without_metadata);
        }
    }
}

/// Whether a coordinator may answer so to a batch that its log refuses for its size. From Kafka 4.0 on that is the same
/// as for anything that it can't explain (`CoordinatorOperationExceptionHelper`).
fn may_be_about_size(code: ResponseError) -> bool {
    use ResponseError as E;
    matches!(
        code,
        E::InvalidCommitOffsetSize
            | E::MessageTooLarge
            | E::RecordListTooLarge
            | E::UnknownServerError
    )
}

fn size_bytes(group: &str, positions: &Positions) -> usize {
    let of_each = |(at, position): (&TopicPartition, &GroupOffset)| {
        group.len() + at.topic.len() + position.metadata.len() + POSITION_BYTES
    };
    positions.iter().map(of_each).sum()
}

type Answered = Committed<()>;

/// One commit of each group.
async fn ask(cluster: &Cluster, commits: &HashMap<String, Positions>) -> HashMap<String, Answered> {
    let question = Question {
        cluster,
        groups: commits.keys().cloned().collect(),
        at_once: 1,
        version_max: VERSION_MAX,
        request: &|asked: &[String]| {
            let group = asked.first().map(String::as_str).unwrap_or_default();
            request(group, commits.get(group))
        },
        // An answer doesn't name its group: that is why each is asked for alone.
        answers: &|asked, response| -> Answers<HashMap<TopicPartition, i16>> {
            asked
                .iter()
                .map(|group| (group.clone(), read(&response)))
                .collect()
        },
        may_repeat: false,
    };
    let answers = question.ask().await;
    answers
        .into_iter()
        .map(|(group, answer)| {
            let committed = commits
                .get(&group)
                .into_iter()
                .flat_map(BTreeMap::keys)
                .map(|at| {
                    let result = match &answer {
                        Err(error) => Err(error.clone()),
                        Ok(codes) => match codes.get(at) {
                            Some(0) => Ok(()),
                            Some(code) => {
                                Err(server::<OffsetCommitRequest>(cluster, &group, *code))
                            }
                            None => Err(server::<OffsetCommitRequest>(cluster, &group, -1)),
                        },
                    };
                    (at.clone(), result)
                })
                .collect();
            (group, committed)
        })
        .collect()
}

fn request(
    group: &str,
    offsets: Option<&BTreeMap<TopicPartition, GroupOffset>>,
) -> OffsetCommitRequest {
    let topics = by_topic(
        offsets.into_iter().flatten().collect::<Vec<_>>().iter(),
        |(at, _)| at,
        |(at, offset)| {
            OffsetCommitRequestPartition::default()
                .with_partition_index(at.partition)
                .with_committed_offset(offset.offset)
                .with_committed_leader_epoch(offset.leader_epoch)
                .with_committed_metadata(Some(text(&offset.metadata)))
        },
    );
    let topics = topics.into_iter().map(|(name, partitions)| {
        OffsetCommitRequestTopic::default()
            .with_name(name)
            .with_partitions(partitions)
    });
    OffsetCommitRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(topics.collect())
}

/// Each position's code; the group's own error where another coordinator has to be asked.
fn read(response: &OffsetCommitResponse) -> Result<HashMap<TopicPartition, i16>, i16> {
    let mut codes = HashMap::new();
    for topic in &response.topics {
        for partition in &topic.partitions {
            let code = partition.error_code;
            if ResponseError::try_from_code(code).is_some_and(is_about_coordinator) {
                return Err(code);
            }
            let at = TopicPartition::new(topic.name.to_string(), partition.partition_index);
            codes.insert(at, code);
        }
    }
    Ok(codes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::wire::ErrorContext;

    fn at(partition: i32) -> TopicPartition {
        TopicPartition::new("t", partition)
    }

    fn positions(count: i32, metadata: &str) -> Positions {
        let position = |partition| GroupOffset {
            offset: i64::from(partition),
            leader_epoch: -1,
            metadata: metadata.to_owned(),
        };
        (0..count).map(|it| (at(it), position(it))).collect()
    }

    /// A coordinator with these limits, and how often it is asked.
    fn commit(
        positions: Positions,
        metadata_max: usize,
        batch_max: usize,
        code: ResponseError,
    ) -> (Committed<Taken>, usize) {
        let error = |code| {
            let context = Arc::new(ErrorContext::cluster("c"));
            Err(WireError::Server {
                code,
                message: None,
                context,
            })
        };
        let mut group = Group::new(positions);
        let mut requests = 0;
        while let Some(part) = group.waiting.pop_front() {
            requests += 1;
            let (large, fit): (Positions, Positions) = part
                .clone()
                .into_iter()
                .partition(|(_, position)| position.metadata.len() > metadata_max);
            let is_refused = size_bytes("g", &fit) > batch_max;
            let of_large = large
                .into_keys()
                .map(|at| (at, error(ResponseError::OffsetMetadataTooLarge)));
            let of_fit = fit
                .into_keys()
                .map(|at| (at, if is_refused { error(code) } else { Ok(()) }));
            let answers = of_large.chain(of_fit).collect();
            group.take("g", part, answers);
        }
        (group.done, requests)
    }

    #[test]
    fn too_many_for_one_batch_are_committed_in_several() {
        for code in [
            ResponseError::InvalidCommitOffsetSize,
            ResponseError::UnknownServerError,
        ] {
            let (done, requests) = commit(positions(500, ""), 4_096, 10_000, code);
            assert_eq!(done.len(), 500);
            let is_whole = |it: &Result<Taken, WireError>| matches!(it, Ok(Taken::Whole));
            assert!(done.values().all(is_whole));
            assert!(requests < 16, "{requests}");
        }
    }

    #[test]
    fn a_log_that_takes_little_gets_little_at_a_time() {
        let code = ResponseError::MessageTooLarge;
        let (done, _) = commit(positions(100, ""), 4_096, 1_500, code);
        assert_eq!(done.len(), 100);
        assert!(done.values().all(|it| matches!(it, Ok(Taken::Whole))));
    }

    #[test]
    fn the_position_counts_more_than_what_is_written_beside_it() {
        let mut some = positions(3, "short");
        some.extend(positions(1, &"x".repeat(8_000)));
        let (done, _) = commit(
            some.clone(),
            4_096,
            1 << 20,
            ResponseError::UnknownServerError,
        );
        assert!(matches!(done[&at(0)], Ok(Taken::WithoutMetadata)));
        assert!(matches!(done[&at(1)], Ok(Taken::Whole)));
        // One that is too large for any batch.
        let (done, _) = commit(some, 1 << 20, 4_000, ResponseError::InvalidCommitOffsetSize);
        assert!(matches!(done[&at(0)], Ok(Taken::WithoutMetadata)));
        assert!(matches!(done[&at(2)], Ok(Taken::Whole)));
    }

    #[test]
    fn a_coordinator_that_refuses_everything_is_not_asked_for_ever() {
        let some = positions(500, "short");
        let (done, requests) = commit(some, 4_096, 0, ResponseError::UnknownServerError);
        assert!(done.values().all(Result::is_err) && done.len() == 500);
        assert!(requests < 200, "{requests}");
    }
}
