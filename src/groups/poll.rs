//! Where `__consumer_offsets` may not be read: asks for all groups' offsets, many groups in one
//! request, more often while they move.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

use super::record::{GroupRecord, StoredOffset};
use super::seen::{Seen, Way};
use super::sight;
use super::unseen::Unseen;
use crate::config::Selector;
use crate::wire::{
    self, Cluster, GroupOffset, Metadata, OFFSETS_TOPIC, Operation, TopicPartition, WireError,
};

/// While groups commit.
const BUSY: Duration = Duration::from_millis(250);
/// While nothing moves.
const QUIET: Duration = Duration::from_secs(5);

/// So long a position that was there must be missing before it counts as given up.
const SETTLED: Duration = Duration::from_secs(10);
/// How often it is looked whether groups are hidden, while none is missed.
const SIGHT_EVERY: Duration = Duration::from_secs(60);

/// Why nothing is said of a group whose remembered positions don't show.
const ONLY_REMEMBERED: &str =
    "positions that it had before don't show, and it isn't sure yet that they are gone";
/// No offset that anybody commits: the position was there when it was seen last, and hasn't been seen by this process.
const NOT_SEEN: i64 = i64::MIN;

type Offsets = HashMap<TopicPartition, GroupOffset>;
/// One position of one group.
pub type At = (String, TopicPartition);

/// Asks until something fails: then why. `None` when nobody listens any more. What is `known` is told again at the
/// beginning: what is only hidden now isn't gone because nobody could ask meanwhile.
pub async fn poll(
    cluster: &Cluster,
    groups: &Selector,
    known: &mut Known,
    found: &mpsc::Sender<Seen>,
) -> Option<WireError> {
    found.send(Seen::Begins(Way::Poll)).await.ok()?;
    let told_before = known.begin();
    if !told_before.is_empty() {
        found.send(Seen::Records(told_before)).await.ok()?;
    }
    let mut poll = Poll {
        cluster,
        groups,
        known,
        hidden: None,
        hidden_at: None,
    };
    let mut told: Option<Unseen> = None;
    let mut pause = BUSY;
    loop {
        let Looked {
            records,
            lost,
            unseen,
        } = match poll.look().await {
            Ok(looked) => looked,
            Err(error) => return Some(error),
        };
        pause = if records.is_empty() && lost.is_empty() {
            pause.mul_f64(1.5).min(QUIET)
        } else {
            BUSY
        };
        if !records.is_empty() {
            found.send(Seen::Records(records)).await.ok()?;
        }
        if !lost.is_empty() {
            found.send(Seen::Lost(lost)).await.ok()?;
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
    known: &'a mut Known,
    /// Why groups may be left out of the list.
    hidden: Option<String>,
    hidden_at: Option<Instant>,
}

/// What one look found.
struct Looked {
    /// What changed since the last one.
    records: Vec<GroupRecord>,
    /// See [`Seen::Lost`].
    lost: Vec<GroupRecord>,
    unseen: Unseen,
}

/// Who couldn't be asked, and why the first of them.
type Failed = Option<(HashSet<String>, String)>;

fn note_failed(failed: &mut Failed, group: String, why: impl FnOnce() -> String) {
    let failed = failed.get_or_insert_with(|| (HashSet::new(), why()));
    failed.0.insert(group);
}

impl Poll<'_> {
    /// One look at everything: what changed since the last one, and what couldn't be looked at.
    async fn look(&mut self) -> Result<Looked, WireError> {
        let listed = wire::list_groups(self.cluster).await?;
        // From before anything is asked: who coordinates by then what was seen is known behind the next answer.
        let eras = Eras::of(&self.cluster.cached());
        // Every group that was ever known is asked for itself, so that its own coordinator answers for it: whether there is one
        // for groups that nobody knows matters to nobody here.
        let mut why_incomplete = listed.why_unanswered();
        let selected = listed
            .groups
            .into_iter()
            .filter(|group| group.is_of_consumers() && self.groups.matches(&group.group_id));
        let listed: HashSet<String> = selected.map(|group| group.group_id).collect();
        // A group that no broker lists is gone only when its coordinator says so: the coordinator may be
        // away, and with it its list.
        let known = self.known.groups.keys();
        let asked: HashSet<String> = listed.iter().chain(known).cloned().collect();
        let is_one_missed = listed.len() < asked.len();
        let asked: Vec<String> = asked.into_iter().collect();
        let now = Instant::now();
        // No position waits for the answer about rights.
        let cluster = self.cluster;
        let (is_told, fetched) = tokio::join!(
            self.look_what_is_hidden(is_one_missed),
            wire::fetch_group_offsets(cluster, &asked),
        );
        why_incomplete = why_incomplete.or_else(|| self.hidden.clone());
        let (mut records, mut lost) = (Vec::new(), Vec::new());
        let (mut failed, mut answered) = (None, HashSet::new());
        let mut changed = HashSet::new();
        for (group, offsets) in fetched {
            match offsets {
                Ok(offsets) => {
                    let news = self.known.take(&group, offsets, now);
                    changed.extend(news.iter().filter_map(at_of));
                    records.extend(news);
                    answered.insert(group);
                }
                // One group that can't be seen is no reason to leave the others.
                Err(error) => note_failed(&mut failed, group, || error.to_string()),
            }
        }
        self.known.judge(now, &answered, &changed);
        if is_told && why_incomplete.is_none() {
            let due = self.known.due(now, &answered);
            let (given_up, hidden) = self.told_apart(due).await;
            for (group, why) in hidden {
                note_failed(&mut failed, group, || why);
            }
            let now = match given_up.is_empty() {
                true => Eras::default(),
                false => self.eras_by_now().await,
            };
            let (meant, not_meant) = self.known.by_word(given_up, &now);
            records.extend(self.known.give_up(meant));
            lost.extend(self.known.give_up(not_meant));
            records.extend(
                self.known
                    .forget_gone(|group| !listed.contains(group) && answered.contains(group)),
            );
        }
        self.known.eras = eras;
        for group in self.known.unsure() {
            note_failed(&mut failed, group, || ONLY_REMEMBERED.to_owned());
        }
        Ok(Looked {
            records,
            lost,
            unseen: unseen(asked, failed, why_incomplete),
        })
    }

    /// Who coordinates now, as another broker says it, too: one that is cut off from the others names its old leaders for ever.
    async fn eras_by_now(&self) -> Eras {
        let topic = [OFFSETS_TOPIC.to_owned()];
        let asked = async {
            self.cluster.ask_another().await?;
            self.cluster.metadata(Some(&topic)).await
        };
        match asked.await {
            Ok(metadata) => Eras::of(&metadata),
            Err(error) => {
                tracing::debug!(cluster = self.cluster.name(), %error, "it can't be told whether coordinators have changed");
                Eras::default()
            }
        }
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
    /// the topics that may not be described, without a word (`KafkaApis.fetchAllOffsetsForGroup`). Where that can't be
    /// told now it is asked in the next look.
    async fn told_apart(&self, due: Vec<At>) -> (Vec<At>, Vec<(String, String)>) {
        if due.is_empty() {
            return (Vec::new(), Vec::new());
        }
        let names: BTreeSet<String> = due.iter().map(|(_, at)| at.topic.clone()).collect();
        let names: Vec<String> = names.into_iter().collect();
        let rights = match wire::topic_rights(self.cluster, &names).await {
            Ok(rights) => rights,
            Err(error) => {
                let why = |at: &TopicPartition| {
                    format!(
                        "whether topic {} is hidden can't be told: {error}",
                        at.topic
                    )
                };
                let unclear = due.into_iter().map(|(group, at)| (group, why(&at)));
                return (Vec::new(), unclear.collect());
            }
        };
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
        (given_up, hidden.collect())
    }
}

/// What is known of the groups. Who asks isn't told that something was deleted: it is missing in an answer, as what
/// can't be seen. So it counts when it has been missing for a while, in each answer.
///
/// A source that loses its groups' log answers in the same way, and its live consumers commit again within seconds. But
/// its coordinators answer out of their memory, which they read from that log when they became the leaders of its partitions. So
/// what goes missing while one coordinator goes on in the same epoch was removed, or has expired: that is the source's
/// word, as its tombstones are. Where that isn't known (the log's topic is hidden, or a coordinator has changed) it is
/// judged as things go missing, by those that stay: where more go than stay, nobody has meant it.
#[derive(Default)]
pub struct Known {
    groups: HashMap<String, Offsets>,
    missing: HashMap<At, Missing>,
    /// When positions went missing, for [`SETTLED`]; also of those that have come back.
    went: HashMap<At, Instant>,
    /// Groups that weren't looked at since it was begun anew.
    unlooked: HashSet<String>,
    /// Who coordinated when the last look began.
    eras: Eras,
}

/// Of which topic a partition is, and its leader's epoch.
type Era = (Uuid, i32);

/// The coordinators of all groups, as far as they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Eras {
    partitions: HashMap<i32, Era>,
    count: i32,
}

impl Eras {
    fn of(metadata: &Metadata) -> Self {
        let Ok(Some(topic)) = metadata.described(OFFSETS_TOPIC) else {
            return Self::default();
        };
        let led = topic.partitions.iter();
        let led = led.filter(|it| it.leader >= 0 && it.leader_epoch >= 0);
        Self {
            partitions: led
                .map(|it| (it.index, (topic.topic_id, it.leader_epoch)))
                .collect(),
            count: i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX),
        }
    }

    fn of_group(&self, group: &str) -> Option<Era> {
        let partition = wire::coordinator_partition(group, self.count);
        self.partitions.get(&partition).copied()
    }
}

/// A position that isn't there now.
struct Missing {
    since: Instant,
    /// It went with most others, or while nobody looked.
    is_lost: bool,
    /// Its coordinator when it was seen last.
    era: Option<Era>,
}

impl Known {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// These positions were there when somebody saw them last: before this process, or in the coordinators' log while
    /// that could be read. What doesn't show now may only be hidden.
    pub fn remember(&mut self, positions: impl IntoIterator<Item = At>) {
        for (group, at) in positions {
            let commit = GroupOffset {
                offset: NOT_SEEN,
                leader_epoch: -1,
                metadata: String::new(),
            };
            self.groups.entry(group).or_default().insert(at, commit);
        }
    }

    /// Groups with a position that was never seen by this process and doesn't show. Nothing is known of them before that is
    /// given up.
    fn unsure(&self) -> BTreeSet<String> {
        let is_only_remembered = |(group, at): &&At| {
            let commit = self.groups.get(group).and_then(|offsets| offsets.get(at));
            commit.is_some_and(|commit| commit.offset == NOT_SEEN)
        };
        let unsure = self.missing.keys().filter(is_only_remembered);
        unsure.map(|(group, _)| group.clone()).collect()
    }

    /// Nobody looked for a while. Returns all that was known before.
    fn begin(&mut self) -> Vec<GroupRecord> {
        self.unlooked = self.groups.keys().cloned().collect();
        self.eras = Eras::default();
        let groups = self.groups.iter();
        let all = groups.flat_map(|(group, offsets)| offsets.iter().map(move |it| (group, it)));
        let seen = all.filter(|(_, (_, commit))| commit.offset != NOT_SEEN);
        seen.map(|(group, (at, commit))| record(group, at, Some(commit)))
            .collect()
    }

    /// Takes a group's positions as they are now. Returns what is new; what is missing stays for the moment.
    fn take(&mut self, group: &str, offsets: Offsets, now: Instant) -> Vec<GroupRecord> {
        let before = self.groups.entry(group.to_owned()).or_default();
        let era = self.eras.of_group(group);
        let is_lost = self.unlooked.remove(group);
        for at in before.keys() {
            let is_there = offsets.contains_key(at);
            if is_there && self.missing.is_empty() {
                continue;
            }
            let name = (group.to_owned(), at.clone());
            if is_there {
                self.missing.remove(&name);
            } else {
                self.missing.entry(name.clone()).or_insert_with(|| {
                    self.went.insert(name, now);
                    Missing {
                        since: now,
                        is_lost,
                        era,
                    }
                });
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

    /// Whether what went missing lately went at once. One that was just committed anew doesn't tell that its log is
    /// still there.
    fn judge(&mut self, now: Instant, answered: &HashSet<String>, changed: &HashSet<At>) {
        let is_late = |at: Instant| now.duration_since(at) < SETTLED;
        self.went.retain(|_, at| is_late(*at));
        if self.went.is_empty() {
            return;
        }
        let no_witnesses = self.went.keys().chain(self.missing.keys()).chain(changed);
        let no_witnesses: HashSet<_> = no_witnesses.map(|(group, at)| (group, at)).collect();
        let groups = self.groups.iter().filter(|it| answered.contains(it.0));
        let all = groups.flat_map(|(group, offsets)| offsets.keys().map(move |at| (group, at)));
        let stayed = all.filter(|it| !no_witnesses.contains(it)).count();
        if self.went.len() <= stayed {
            return;
        }
        for missing in self.missing.values_mut() {
            missing.is_lost |= is_late(missing.since);
        }
    }

    /// Those that the source gave up, and those that were lost: no group is deleted for any of its positions then.
    fn by_word(&self, due: Vec<At>, now: &Eras) -> (Vec<At>, Vec<At>) {
        let lost = self.missing.iter().filter(|((group, _), missing)| {
            let is_word = missing.era.is_some() && missing.era == now.of_group(group);
            missing.is_lost && !is_word
        });
        let lost: HashSet<&String> = lost.map(|((group, _), _)| group).collect();
        due.into_iter()
            .partition(|(group, _)| !lost.contains(group))
    }

    /// What has been missing for long enough, of groups that have answered just now.
    fn due(&self, now: Instant, answered: &HashSet<String>) -> Vec<At> {
        let missing = self.missing.iter();
        let due = missing.filter(|((group, _), missing)| {
            answered.contains(group) && now.duration_since(missing.since) >= SETTLED
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

fn at_of(record: &GroupRecord) -> Option<At> {
    match record {
        GroupRecord::Offset {
            group,
            topic,
            partition,
            ..
        } => Some((
            group.clone(),
            TopicPartition::new(topic.as_str(), *partition),
        )),
        _ => None,
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

    /// One look of all groups: what went missing so far, and whether it was lost.
    fn look(
        known: &mut Known,
        now: Instant,
        groups: &[(&str, &[(i32, i64)])],
    ) -> Vec<(String, bool)> {
        let (mut answered, mut changed) = (HashSet::new(), HashSet::new());
        for (group, positions) in groups {
            let news = known.take(group, offsets(positions), now);
            changed.extend(news.iter().filter_map(at_of));
            answered.insert((*group).to_owned());
        }
        known.judge(now, &answered, &changed);
        let missing = known.missing.iter();
        let mut missing: Vec<_> = missing
            .map(|((group, _), missing)| (group.clone(), missing.is_lost))
            .collect();
        missing.sort_unstable();
        missing
    }

    /// The live one commits again at once, in the same look or before the others are due.
    #[test]
    fn what_goes_at_once_was_lost_whoever_commits_again() {
        for live_offset in [None, Some(6), Some(5)] {
            let (mut known, began) = (Known::default(), Instant::now());
            let all: [(&str, &[(i32, i64)]); 3] = [
                ("idle", &[(0, 5)]),
                ("slow", &[(0, 5)]),
                ("live", &[(0, 5)]),
            ];
            assert!(look(&mut known, began, &all).is_empty());
            let live: Vec<_> = live_offset.map(|offset| (0, offset)).into_iter().collect();
            let none: [(&str, &[(i32, i64)]); 3] =
                [("idle", &[]), ("slow", &[]), ("live", live.as_slice())];
            let later = began + Duration::from_secs(1);
            look(&mut known, later, &none);
            let back: [(&str, &[(i32, i64)]); 3] =
                [("idle", &[]), ("slow", &[]), ("live", &[(0, 7)])];
            let due = later + SETTLED;
            let missing = look(&mut known, due, &back);
            assert_eq!(
                missing,
                [("idle".to_owned(), true), ("slow".to_owned(), true)]
            );
            let answered = HashSet::from(["idle".to_owned()]);
            let (meant, lost) = known.by_word(known.due(due, &answered), &Eras::default());
            assert_eq!((meant.len(), lost.len()), (0, 1));
            known.take("idle", offsets(&[(0, 5)]), due);
            let one: [(&str, &[(i32, i64)]); 3] =
                [("idle", &[]), ("slow", &[(0, 5)]), ("live", &[(0, 7)])];
            let gone = due + SETTLED;
            assert_eq!(
                look(&mut known, gone, &one),
                [("idle".to_owned(), false)],
                "one by one"
            );
        }
    }

    #[test]
    fn what_went_while_nobody_looked_is_told_again_and_was_lost() {
        let (mut known, began) = (Known::default(), Instant::now());
        let all: [(&str, &[(i32, i64)]); 3] =
            [("a", &[(0, 5)]), ("b", &[(0, 5), (1, 6)]), ("c", &[(0, 5)])];
        look(&mut known, began, &all);
        assert_eq!(known.begin().len(), 4);
        let one: [(&str, &[(i32, i64)]); 3] =
            [("a", &[]), ("b", &[(0, 5), (1, 6)]), ("c", &[(0, 5)])];
        assert_eq!(look(&mut known, began, &one), [("a".to_owned(), true)]);
        let two: [(&str, &[(i32, i64)]); 3] = [("a", &[]), ("b", &[(0, 5), (1, 6)]), ("c", &[])];
        let later = began + SETTLED;
        let missing = look(&mut known, later, &two);
        assert_eq!(missing, [("a".to_owned(), true), ("c".to_owned(), false)]);
    }

    fn eras(epoch: i32) -> Eras {
        Eras {
            partitions: HashMap::from([(0, (Uuid::nil(), epoch))]),
            count: 1,
        }
    }

    /// Most groups are deleted at once: one coordinator has seen that, or it is unknown.
    #[test]
    fn what_one_coordinator_has_removed_was_meant_however_much_it_is() {
        let all: [(&str, &[(i32, i64)]); 3] =
            [("a", &[(0, 5)]), ("b", &[(0, 5)]), ("c", &[(0, 5)])];
        let none: [(&str, &[(i32, i64)]); 3] = [("a", &[]), ("b", &[]), ("c", &[])];
        let meant = |seen: Eras, now: &Eras, is_unlooked: bool| {
            let (mut known, began) = (Known::default(), Instant::now());
            look(&mut known, began, &all);
            known.eras = seen;
            if is_unlooked {
                known.begin();
            }
            look(&mut known, began, &none);
            let answered = HashSet::from(["a", "b", "c"].map(str::to_owned));
            let due = known.due(began + SETTLED, &answered);
            known.by_word(due, now).0.len()
        };
        assert_eq!(meant(eras(7), &eras(7), false), 3);
        assert_eq!(meant(eras(7), &eras(8), false), 0, "it read its log anew");
        assert_eq!(meant(Eras::default(), &Eras::default(), false), 0);
        assert_eq!(meant(eras(7), &eras(7), true), 0, "nobody looked meanwhile");
    }

    /// Hidden when the process starts, it isn't gone: not before its coordinator has said so for long enough.
    #[test]
    fn what_is_only_remembered_is_unknown_until_it_shows_or_is_given_up() {
        let (mut known, began) = (Known::default(), Instant::now());
        let at = |partition| ("g".to_owned(), TopicPartition::new("t", partition));
        known.remember([at(0), at(1)]);
        assert!(known.begin().is_empty(), "where it was isn't where it is");
        assert_eq!(
            look(&mut known, began, &[("g", &[(0, 5)])]),
            [("g".to_owned(), true)]
        );
        assert_eq!(known.unsure(), BTreeSet::from(["g".to_owned()]));
        let answered = HashSet::from(["g".to_owned()]);
        assert!(known.due(began, &answered).is_empty());
        let due = known.due(began + SETTLED, &answered);
        let (meant, lost) = known.by_word(due, &Eras::default());
        assert_eq!((meant.len(), lost.len()), (0, 1), "nobody saw it go");
        assert_eq!(told(&known.give_up(lost)), [(1, None)]);
        assert!(known.unsure().is_empty());

        let mut known = Known::default();
        known.remember([at(0)]);
        known.begin();
        assert_eq!(
            told(&known.take("g", offsets(&[(0, 5)]), began)),
            [(0, Some(5))]
        );
        assert!(known.unsure().is_empty());
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
