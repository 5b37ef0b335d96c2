//! Where `__consumer_offsets` may not be read: asks for all groups' offsets, many groups in one
//! request, more often while they move.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::record::{GroupRecord, StoredOffset};
use super::seen::{Seen, Way};
use super::sight;
use super::unseen::Unseen;
use crate::config::Selector;
use crate::wire::{self, Cluster, GroupOffset, Operation, TopicPartition, WireError};

/// While groups commit.
const BUSY: Duration = Duration::from_millis(250);
/// While nothing moves.
const QUIET: Duration = Duration::from_secs(5);

/// So long a position that was there must be missing before it counts as given up.
const SETTLED: Duration = Duration::from_secs(10);
/// How often it is looked whether groups are hidden, while none is missed.
const SIGHT_EVERY: Duration = Duration::from_secs(60);

type Offsets = HashMap<TopicPartition, GroupOffset>;
/// One position of one group.
type At = (String, TopicPartition);

/// Asks until something fails: then why. `None` when nobody listens any more.
pub async fn poll(
    cluster: &Cluster,
    groups: &Selector,
    found: &mpsc::Sender<Seen>,
) -> Option<WireError> {
    found.send(Seen::Begins(Way::Poll)).await.ok()?;
    let mut poll = Poll {
        cluster,
        groups,
        known: Known::default(),
        hidden: None,
        hidden_at: None,
    };
    let mut told: Option<Unseen> = None;
    let mut pause = BUSY;
    loop {
        let (records, unseen) = match poll.look().await {
            Ok(looked) => looked,
            Err(error) => return Some(error),
        };
        pause = if records.is_empty() {
            pause.mul_f64(1.5).min(QUIET)
        } else {
            BUSY
        };
        if !records.is_empty() {
            found.send(Seen::Records(records)).await.ok()?;
        }
        if told.as_ref() != Some(&unseen) {
            told = Some(unseen.clone());
            found.send(Seen::CaughtUp(unseen)).await.ok()?;
        }
        tokio::time::sleep(pause).await;
    }
}

struct Poll<'a> {
    cluster: &'a Cluster,
    groups: &'a Selector,
    known: Known,
    /// Why groups may be left out of the list.
    hidden: Option<String>,
    hidden_at: Option<Instant>,
}

/// Who couldn't be asked, and why the first of them.
type Failed = Option<(HashSet<String>, String)>;

fn note_failed(failed: &mut Failed, group: String, why: impl FnOnce() -> String) {
    let failed = failed.get_or_insert_with(|| (HashSet::new(), why()));
    failed.0.insert(group);
}

impl Poll<'_> {
    /// One look at everything: what changed since the last one, and what couldn't be looked at.
    async fn look(&mut self) -> Result<(Vec<GroupRecord>, Unseen), WireError> {
        let listed = wire::list_groups(self.cluster).await?;
        let mut why_incomplete = listed.why_incomplete();
        let selected = listed
            .groups
            .into_iter()
            .filter(|group| group.is_of_consumers() && self.groups.matches(&group.group_id));
        let listed: HashSet<String> = selected.map(|group| group.group_id).collect();
        // A group that no broker lists is gone only when its coordinator says so: the coordinator may be
        // away, and with it its list.
        let known = self.known.groups.keys();
        let asked: HashSet<String> = listed.iter().chain(known).cloned().collect();
        let is_told = self.look_what_is_hidden(listed.len() < asked.len()).await;
        why_incomplete = why_incomplete.or_else(|| self.hidden.clone());
        let asked: Vec<String> = asked.into_iter().collect();
        let now = Instant::now();
        let mut records = Vec::new();
        let (mut failed, mut answered) = (None, HashSet::new());
        for (group, offsets) in wire::fetch_group_offsets(self.cluster, &asked).await {
            match offsets {
                Ok(offsets) => {
                    records.extend(self.known.take(&group, offsets, now));
                    answered.insert(group);
                }
                // One group that can't be seen is no reason to leave the others.
                Err(error) => note_failed(&mut failed, group, || error.to_string()),
            }
        }
        if is_told && why_incomplete.is_none() {
            let due = self.known.due(now, &answered);
            let (given_up, hidden) = self.told_apart(due).await?;
            for (group, why) in hidden {
                note_failed(&mut failed, group, || why);
            }
            records.extend(self.known.give_up(given_up));
            records.extend(
                self.known
                    .forget_gone(|group| !listed.contains(group) && answered.contains(group)),
            );
        }
        Ok((records, unseen(asked, failed, why_incomplete)))
    }

    /// Whether it is told what is hidden. Groups that are seen are followed meanwhile.
    async fn look_what_is_hidden(&mut self, is_one_missed: bool) -> bool {
        let is_new = self.hidden_at.is_some_and(|at| at.elapsed() < SIGHT_EVERY);
        if is_new && !is_one_missed {
            return true;
        }
        match sight::hidden(self.cluster, self.groups).await {
            Ok(hidden) => {
                self.hidden = hidden;
                self.hidden_at = Some(Instant::now());
                true
            }
            Err(error) => {
                tracing::debug!(cluster = self.cluster.name(), %error, "it can't be told whether groups are hidden");
                self.hidden_at = None;
                false
            }
        }
    }

    /// Positions that are surely given up, and those that may only be hidden, with the reason. A coordinator leaves out
    /// the topics that may not be described, without a word (`KafkaApis.fetchAllOffsetsForGroup`).
    async fn told_apart(
        &self,
        due: Vec<At>,
    ) -> Result<(Vec<At>, Vec<(String, String)>), WireError> {
        if due.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let names: BTreeSet<String> = due.iter().map(|(_, at)| at.topic.clone()).collect();
        let names: Vec<String> = names.into_iter().collect();
        let rights = wire::topic_rights(self.cluster, &names).await?;
        let may_be_seen = |(_, at): &At| {
            let rights = rights.get(&at.topic);
            rights.is_some_and(|rights| rights.allow(Operation::Describe))
        };
        let (given_up, hidden): (Vec<At>, Vec<At>) = due.into_iter().partition(may_be_seen);
        let hidden = hidden.into_iter().map(|(group, at)| {
            let why = format!(
                "no DESCRIBE on topic {}: its positions can't be seen",
                at.topic
            );
            (group, why)
        });
        Ok((given_up, hidden.collect()))
    }
}

/// What is known of the groups. Who asks isn't told that something was deleted: it is missing in an answer, as what
/// can't be seen. So it counts when it has been missing for a while, in each answer.
#[derive(Default)]
struct Known {
    groups: HashMap<String, Offsets>,
    missing: HashMap<At, Instant>,
}

impl Known {
    /// Takes a group's positions as they are now. Returns what is new; what is missing stays for the moment.
    fn take(&mut self, group: &str, offsets: Offsets, now: Instant) -> Vec<GroupRecord> {
        let before = self.groups.entry(group.to_owned()).or_default();
        for at in before.keys() {
            let name = (group.to_owned(), at.clone());
            if offsets.contains_key(at) {
                self.missing.remove(&name);
            } else {
                self.missing.entry(name).or_insert(now);
            }
        }
        let mut records = Vec::new();
        for (at, commit) in offsets {
            if before.get(&at) != Some(&commit) {
                records.push(record(group, &at, Some(&commit)));
                before.insert(at, commit);
            }
        }
        records
    }

    /// What has been missing for long enough, of groups that have answered just now.
    fn due(&self, now: Instant, answered: &HashSet<String>) -> Vec<At> {
        let missing = self.missing.iter();
        let due = missing.filter(|((group, _), since)| {
            answered.contains(group) && now.duration_since(**since) >= SETTLED
        });
        due.map(|(at, _)| at.clone()).collect()
    }

    fn give_up(&mut self, positions: Vec<At>) -> Vec<GroupRecord> {
        let mut records = Vec::new();
        for name in positions {
            self.missing.remove(&name);
            let (group, at) = name;
            if let Some(offsets) = self.groups.get_mut(&group) {
                offsets.remove(&at);
            }
            records.push(record(&group, &at, None));
        }
        records
    }

    /// Groups without positions that aren't there any more either.
    fn forget_gone(&mut self, is_gone: impl Fn(&String) -> bool) -> Vec<GroupRecord> {
        let mut records = Vec::new();
        self.groups.retain(|group, offsets| {
            let is_gone = offsets.is_empty() && is_gone(group);
            if is_gone {
                records.push(GroupRecord::Group {
                    group: group.clone(),
                    exists: false,
                });
            }
            !is_gone
        });
        records
    }
}

fn record(group: &str, at: &TopicPartition, commit: Option<&GroupOffset>) -> GroupRecord {
    GroupRecord::Offset {
        group: group.to_owned(),
        topic: at.topic.clone(),
        partition: at.partition,
        commit: commit.map(|commit| StoredOffset {
            offset: commit.offset,
            leader_epoch: commit.leader_epoch,
            metadata: commit.metadata.clone(),
            committed_at_ms: -1,
            topic_id: uuid::Uuid::nil(),
        }),
    }
}

fn unseen(
    asked: Vec<String>,
    failed: Option<(HashSet<String>, String)>,
    why_incomplete: Option<String>,
) -> Unseen {
    match (failed, why_incomplete) {
        (None, None) => Unseen::Nothing,
        (Some((names, why)), None) => Unseen::Groups { names, why },
        (failed, Some(why)) => {
            let failed = failed.map(|(names, _)| names).unwrap_or_default();
            let names = asked.into_iter().filter(|name| !failed.contains(name));
            Unseen::AllBut {
                names: names.collect(),
                why,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(positions: &[(i32, i64)]) -> Offsets {
        let positions = positions.iter().map(|(partition, offset)| {
            let commit = GroupOffset {
                offset: *offset,
                leader_epoch: -1,
                metadata: String::new(),
            };
            (TopicPartition::new("t", *partition), commit)
        });
        positions.collect()
    }

    fn told(records: &[GroupRecord]) -> Vec<(i32, Option<i64>)> {
        let told = records.iter().map(|record| match record {
            GroupRecord::Offset {
                partition, commit, ..
            } => (*partition, commit.as_ref().map(|commit| commit.offset)),
            other => panic!("{other:?}"),
        });
        let mut told: Vec<_> = told.collect();
        told.sort_unstable();
        told
    }

    #[test]
    fn what_is_missing_in_an_answer_is_given_up_only_when_it_stays_so() {
        let (mut known, began) = (Known::default(), Instant::now());
        let answered = HashSet::from(["g".to_owned()]);
        assert_eq!(
            told(&known.take("g", offsets(&[(0, 5), (1, 7)]), began)),
            [(0, Some(5)), (1, Some(7))]
        );
        assert_eq!(
            told(&known.take("g", offsets(&[(0, 6)]), began)),
            [(0, Some(6))]
        );
        assert!(known.due(began, &answered).is_empty());
        let later = began + SETTLED;
        // It was only hidden.
        assert!(
            known
                .take("g", offsets(&[(0, 6), (1, 7)]), later)
                .is_empty()
        );
        assert!(known.due(later, &answered).is_empty());
        known.take("g", offsets(&[(0, 6)]), later);
        assert!(
            known.due(later, &answered).is_empty(),
            "since a moment only"
        );
        let settled = later + SETTLED;
        known.take("g", offsets(&[(0, 6)]), settled);
        assert!(known.due(settled, &HashSet::new()).is_empty(), "not asked");
        let due = known.due(settled, &answered);
        assert_eq!(told(&known.give_up(due)), [(1, None)]);
        assert!(known.due(settled, &answered).is_empty());
    }

    #[test]
    fn a_group_is_gone_without_positions_only() {
        let (mut known, now) = (Known::default(), Instant::now());
        known.take("g", offsets(&[(0, 5)]), now);
        known.take("g", offsets(&[]), now);
        assert!(known.forget_gone(|_| true).is_empty());
        known.give_up(vec![("g".to_owned(), TopicPartition::new("t", 0))]);
        assert!(known.forget_gone(|_| false).is_empty());
        assert_eq!(known.forget_gone(|_| true).len(), 1);
    }
}
