//! Consumer groups' positions on both sides, asked for as any client would.
//!
//! A group is asked through a consumer of its name that never joins it. Share groups have no
//! positions that such a client could ask for.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::VerifyError;
use super::client::{self, failed};
use super::report::{Difference, DifferenceKind, GroupsReport};
use super::scope::Place;
use crate::config::{ClusterSection, Selector};
use crate::state::GroupPositions;

/// What Twinlog last committed on the target for a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Followed {
    pub source: i64,
    pub target: i64,
}

/// One group's positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// The group.
    pub group: String,
    /// The topic by its name on the source.
    pub topic: String,
    pub partition: i32,
    pub source: Option<i64>,
    pub target: Option<i64>,
}

/// How a position compares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    Same,
    /// Behind, for this reason.
    Behind(&'static str),
    Wrong(String),
    /// The source has no position there. What the target has stays: its own readers' place, or one that
    /// was followed until the source's went.
    OnlyOnTarget,
    /// Nothing to compare.
    Nothing,
}

/// Where the copy stands: needed to say what a position must be.
pub(super) struct Copied<'a> {
    pub place: &'a Place,
    /// The first source offset that both logs have.
    pub from: i64,
    /// The first source offset that isn't on the target.
    pub to: i64,
}

/// Compares one position with what it must be.
pub(super) fn judge(
    position: &Position,
    copied: &Copied<'_>,
    followed: Option<Followed>,
) -> Judgement {
    let Some(source) = position.source else {
        return match position.target {
            Some(_) => Judgement::OnlyOnTarget,
            None => Judgement::Nothing,
        };
    };
    // Past the end of the copy the end is as far as it may be.
    let wanted_source = source.clamp(copied.from.min(copied.to), copied.to);
    let wanted = copied.place.link.target_of_next(wanted_source);
    let moved_on = followed.is_some_and(|followed| source > followed.source);
    let Some(target) = position.target else {
        return match followed {
            // Nothing was committed yet: a group that only just began, or waits for the copy.
            None if source > copied.to => Judgement::Behind("not_copied_yet"),
            None => Judgement::Wrong("it has no position on the target".to_owned()),
            Some(_) => Judgement::Wrong("its position on the target is gone".to_owned()),
        };
    };
    // Before what both logs still have, every position reads the same.
    let is_before = source <= copied.from && target < wanted;
    if target == wanted || is_before {
        return if source > copied.to {
            Judgement::Behind("not_copied_yet")
        } else {
            Judgement::Same
        };
    }
    if target > wanted {
        let records = target - wanted;
        return Judgement::Wrong(format!(
            "it is {records} offset(s) ahead of {wanted}, where it should be: they would be skipped"
        ));
    }
    if source > copied.to && followed.is_some_and(|followed| target >= followed.target) {
        return Judgement::Behind("not_copied_yet");
    }
    if moved_on && followed.is_some_and(|followed| target >= followed.target) {
        return Judgement::Behind("not_followed_yet");
    }
    let records = wanted - target;
    Judgement::Wrong(format!(
        "it is {records} offset(s) behind {wanted}, where it should be: they would be read again"
    ))
}

/// Positions by topic and partition.
type Committed = HashMap<(String, i32), i64>;

/// Groups that are asked about at the same time.
const ASKED_AT_ONCE: usize = 8;
/// Who has said nothing is given so long the next time, or more.
const PATIENCE_MIN: Duration = Duration::from_secs(3);

/// How long the next coordinator of a cluster is waited for: all groups of one that hangs are asked for one after
/// the other.
#[derive(Default)]
struct Patience {
    /// Those that said nothing, since the last one that answered.
    silent: u32,
}

impl Patience {
    fn within(&self, timeout: Duration) -> Duration {
        let shorter = timeout / (1 << self.silent.min(4));
        shorter.max(PATIENCE_MIN).min(timeout)
    }

    /// Takes in an answer. A refusal, which comes at once, says nothing of one that hangs.
    fn note<T>(&mut self, answer: &KafkaResult<T>) {
        self.silent = match answer {
            Ok(_) => 0,
            Err(error)
                if error.rdkafka_error_code() == Some(RDKafkaErrorCode::OperationTimedOut) =>
            {
                self.silent.saturating_add(1)
            }
            Err(_) => self.silent,
        };
    }
}

/// What asking for groups needs.
pub(super) struct Ask<'a> {
    pub sections: (&'a ClusterSection, &'a ClusterSection),
    pub selected: &'a Selector,
    /// Groups that Twinlog has followed.
    pub known: &'a BTreeMap<String, GroupPositions>,
    pub places: &'a [Arc<Place>],
    pub cancelled: &'a AtomicBool,
}

impl Ask<'_> {
    /// The selected groups: those that one of the clusters has and those that were followed; and why there may be
    /// more.
    pub(super) fn names(&self) -> (BTreeSet<String>, Vec<String>) {
        let (mut all, mut unlisted) = (Vec::new(), Vec::new());
        for (side, section) in [("source", self.sections.0), ("target", self.sections.1)] {
            match Self::listed(section) {
                Ok(listed) => all.extend(listed),
                Err(error) => unlisted.push(format!("on the {side} there may be others: {error}")),
            }
        }
        all.extend(self.known.keys().cloned());
        let selected = all.into_iter().filter(|group| self.selected.matches(group));
        (selected.collect(), unlisted)
    }

    fn listed(section: &ClusterSection) -> Result<Vec<String>, VerifyError> {
        let consumer = client::consumer(section, "twinlog-verify", &[])?;
        let listed = consumer
            .fetch_group_list(None, section.request_timeout)
            .map_err(|error| failed(section, "listing groups", &error))?;
        let found = listed.groups().iter();
        Ok(found.map(|group| group.name().to_owned()).collect())
    }

    /// The positions of these groups on the places. What can't be asked is a line of its own.
    pub(super) fn positions(
        &self,
        groups: &BTreeSet<String>,
    ) -> Result<(Vec<Position>, Vec<String>), VerifyError> {
        let groups: Vec<&String> = groups.iter().collect();
        // A client has to find its group's coordinator first, which takes a moment for each.
        let share = groups.len().div_ceil(ASKED_AT_ONCE).max(1);
        let answers = std::thread::scope(|scope| {
            let asking: Vec<_> = groups
                .chunks(share)
                .map(|some| scope.spawn(|| self.positions_of(some)))
                .collect();
            let answers = asking.into_iter().map(|one| {
                let crash = |_| Err(VerifyError::Bug("asking for groups has crashed".to_owned()));
                one.join().unwrap_or_else(crash)
            });
            answers.collect::<Result<Vec<_>, _>>()
        })?;
        let (mut positions, mut not_compared) = (Vec::new(), Vec::new());
        for (some, lines) in answers {
            positions.extend(some);
            not_compared.extend(lines);
        }
        Ok((positions, not_compared))
    }

    fn positions_of(
        &self,
        groups: &[&String],
    ) -> Result<(Vec<Position>, Vec<String>), VerifyError> {
        let (mut positions, mut not_compared) = (Vec::new(), Vec::new());
        let (mut of_source, mut of_target) = (Patience::default(), Patience::default());
        for group in groups {
            if self.cancelled.load(Ordering::Relaxed) {
                return Err(VerifyError::Cancelled);
            }
            // The target first: what is followed meanwhile is then never ahead of the source.
            let target = self.committed(self.sections.1, group, &mut of_target, |place| {
                &place.target_topic
            });
            let source =
                self.committed(self.sections.0, group, &mut of_source, |place| &place.topic);
            match (source, target) {
                (Ok(source), Ok(target)) => {
                    positions.extend(self.pair(group, &source, &target));
                }
                (Err(reason), _) => not_compared.push(format!("{group} on the source: {reason}")),
                (_, Err(reason)) => not_compared.push(format!("{group} on the target: {reason}")),
            }
        }
        Ok((positions, not_compared))
    }

    /// The positions that one of them has.
    fn pair(&self, group: &str, source: &Committed, target: &Committed) -> Vec<Position> {
        let at = |committed: &Committed, topic: &str, partition: i32| {
            committed.get(&(topic.to_owned(), partition)).copied()
        };
        let pairs = self.places.iter().map(|place| Position {
            group: group.to_owned(),
            topic: place.topic.clone(),
            partition: place.partition,
            source: at(source, &place.topic, place.partition),
            target: at(target, &place.target_topic, place.partition),
        });
        let is_one = |it: &Position| it.source.is_some() || it.target.is_some();
        pairs.filter(is_one).collect()
    }

    fn committed(
        &self,
        section: &ClusterSection,
        group: &str,
        patience: &mut Patience,
        name: impl Fn(&Place) -> &str,
    ) -> Result<Committed, String> {
        let mut asked = TopicPartitionList::with_capacity(self.places.len());
        for place in self.places {
            asked.add_partition(name(place), place.partition);
        }
        let consumer = client::consumer(section, group, &[]).map_err(|error| error.to_string())?;
        let answer = consumer.committed_offsets(asked, patience.within(section.request_timeout));
        patience.note(&answer);
        let answer = answer.map_err(|error| error.to_string())?;
        let mut committed = HashMap::new();
        for element in answer.elements() {
            element.error().map_err(|error| error.to_string())?;
            if let Offset::Offset(offset) = element.offset() {
                committed.insert((element.topic().to_owned(), element.partition()), offset);
            }
        }
        Ok(committed)
    }
}

/// What was last committed by Twinlog, by group, topic and partition.
pub(super) fn followed(
    known: &BTreeMap<String, GroupPositions>,
    position: &Position,
) -> Option<Followed> {
    let topics = &known.get(&position.group)?.topics;
    let positions = topics.get(&position.topic)?.iter();
    let mut found = positions.filter(|(partition, _, _)| *partition == position.partition);
    found.next().map(|(_, source, target)| Followed {
        source: *source,
        target: *target,
    })
}

/// The report, and what differs.
pub(super) fn report(
    positions: &[Position],
    judgements: &[Judgement],
    not_compared: Vec<String>,
) -> (GroupsReport, Vec<Difference>) {
    let on_source = positions.iter().filter(|one| one.source.is_some());
    let groups: BTreeSet<&str> = on_source.map(|one| one.group.as_str()).collect();
    let mut report = GroupsReport {
        groups: groups.len() as u64,
        not_compared,
        ..GroupsReport::default()
    };
    let mut found = Vec::new();
    for (position, judgement) in positions.iter().zip(judgements) {
        if !matches!(judgement, Judgement::Nothing | Judgement::OnlyOnTarget) {
            report.positions += 1;
        }
        match judgement {
            Judgement::Nothing => {}
            Judgement::OnlyOnTarget => {
                let count = report.only_on_target.entry(position.group.clone());
                *count.or_default() += 1;
            }
            Judgement::Same => report.same += 1,
            Judgement::Behind(reason) => {
                *report.behind.entry((*reason).to_owned()).or_default() += 1;
            }
            Judgement::Wrong(detail) => {
                let difference = Difference::new(DifferenceKind::Group, detail.clone())
                    .at(&position.topic, position.partition);
                found.push(Difference {
                    group: Some(position.group.clone()),
                    source_offset: position.source,
                    target_offset: position.target,
                    ..difference
                });
            }
        }
    }
    (report, found)
}

#[cfg(test)]
mod tests {
    use rdkafka::error::KafkaError;

    use super::*;
    use crate::offsets::{OffsetMap, SourceOffset, TargetOffset};
    use crate::verify::link::Link;

    fn position(source: i64, target: Option<i64>) -> Position {
        Position {
            group: "g".to_owned(),
            topic: "t".to_owned(),
            partition: 0,
            source: Some(source),
            target,
        }
    }

    fn place(link: Link) -> Place {
        Place {
            is_continued: false,
            missed_deletes: None,
            topic: "t".to_owned(),
            target_topic: "t".to_owned(),
            partition: 0,
            origin: 0,
            link,
            copied_to: None,
            strangers: Arc::default(),
        }
    }

    fn identical(source: i64, target: Option<i64>, followed: Option<(i64, i64)>) -> Judgement {
        let place = place(Link::Identical);
        let copied = Copied {
            place: &place,
            from: 10,
            to: 100,
        };
        let followed = followed.map(|(source, target)| Followed { source, target });
        judge(&position(source, target), &copied, followed)
    }

    #[test]
    fn patience_shrinks_by_silence_alone() {
        let timeout = Duration::from_secs(24);
        let failed = |code| Err::<(), _>(KafkaError::OffsetFetch(code));
        let mut patience = Patience::default();
        patience.note(&failed(RDKafkaErrorCode::GroupAuthorizationFailed));
        assert_eq!(patience.within(timeout), timeout);
        patience.note(&failed(RDKafkaErrorCode::OperationTimedOut));
        patience.note(&failed(RDKafkaErrorCode::GroupAuthorizationFailed));
        assert_eq!(patience.within(timeout), timeout / 2);
        for _ in 0..100 {
            patience.note(&failed(RDKafkaErrorCode::OperationTimedOut));
        }
        assert_eq!(patience.within(timeout), PATIENCE_MIN);
        patience.note(&Ok(()));
        assert_eq!(patience.within(timeout), timeout);
    }

    #[test]
    fn a_group_that_was_moved_is_found() {
        assert_eq!(identical(50, Some(50), Some((50, 50))), Judgement::Same);
        let is_wrong = |judgement| matches!(judgement, Judgement::Wrong(_));
        assert!(is_wrong(identical(50, Some(60), Some((50, 50)))));
        assert!(is_wrong(identical(50, Some(40), Some((50, 50)))));
        assert!(is_wrong(identical(50, None, Some((50, 50)))));
        assert!(is_wrong(identical(50, None, None)));
        // It went on on the source; back is wrong all the same.
        assert!(is_wrong(identical(55, Some(40), Some((50, 50)))));
        // The source was rewound and nobody followed: what is there now would be skipped.
        assert!(is_wrong(identical(30, Some(50), Some((50, 50)))));
    }

    #[test]
    fn what_only_the_target_has_is_named_and_no_difference() {
        let place = place(Link::Identical);
        let copied = Copied {
            place: &place,
            from: 0,
            to: 100,
        };
        let own = Position {
            source: None,
            ..position(0, Some(7))
        };
        let judged = judge(&own, &copied, None);
        assert_eq!(judged, Judgement::OnlyOnTarget);
        let (report, found) = report(&[own], &[judged], Vec::new());
        assert!(found.is_empty());
        assert_eq!((report.groups, report.positions), (0, 0));
        assert_eq!(report.only_on_target, [("g".to_owned(), 1)].into());
    }

    #[test]
    fn being_behind_has_its_reasons() {
        let behind = |judgement, reason| assert_eq!(judgement, Judgement::Behind(reason));
        behind(identical(55, Some(50), Some((50, 50))), "not_followed_yet");
        behind(
            identical(150, Some(100), Some((150, 100))),
            "not_copied_yet",
        );
        behind(identical(150, Some(90), Some((150, 90))), "not_copied_yet");
        behind(identical(150, None, None), "not_copied_yet");
        // At the copy's end, there is nothing that isn't copied.
        assert_eq!(identical(100, Some(100), None), Judgement::Same);
        let missing = identical(100, None, None);
        assert!(matches!(missing, Judgement::Wrong(_)), "{missing:?}");
        let behind_it = identical(100, Some(90), Some((100, 90)));
        assert!(matches!(behind_it, Judgement::Wrong(_)), "{behind_it:?}");
        // Before what both logs have, the first that they have is meant.
        assert_eq!(identical(3, Some(10), None), Judgement::Same);
        assert_eq!(identical(3, Some(3), None), Judgement::Same);
        assert_eq!(identical(3, Some(1), Some((3, 3))), Judgement::Same);
    }

    #[test]
    fn a_map_says_where_a_group_must_be() {
        let mut map = OffsetMap::starting_at(SourceOffset(0), TargetOffset(100));
        map.advance(10).unwrap();
        map.push_hole(SourceOffset(10), 2).unwrap();
        map.push_copied(SourceOffset(12), TargetOffset(110), 8)
            .unwrap();
        let place = place(Link::Mapped(Arc::new(map)));
        let copied = Copied {
            place: &place,
            from: 0,
            to: 20,
        };
        for (source, target) in [
            (0, 100),
            (9, 109),
            (10, 110),
            (11, 110),
            (12, 110),
            (20, 118),
        ] {
            let judged = judge(&position(source, Some(target)), &copied, None);
            assert_eq!(judged, Judgement::Same, "{source}");
        }
        let ahead = judge(&position(11, Some(111)), &copied, None);
        assert!(matches!(ahead, Judgement::Wrong(_)));
    }
}
