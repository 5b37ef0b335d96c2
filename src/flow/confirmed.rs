//! Which brokers of the source are part of it, by the word of others.
//!
//! A leader that is cut off from its cluster goes on answering: its log stands still, and looks seen. Meanwhile others
//! have elected another one, which takes records. A broker that the controller misses vanishes from the list that each
//! other broker has of those that live, at the moment when it leads no more: so what a broker says of its logs is as
//! new as the last time when others had it in their lists.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use crate::tasks::brought;
use crate::telemetry::progress::now_ms;
use crate::wire::{Cluster, Role};

/// So many are asked each time at least, or half of them: whoever has been silent for longest in our eyes.
const ASKED_LEAST: usize = 3;
/// No more than these: each answer is a list of all brokers, and at rest little may be asked for.
const ASKED_MOST: usize = 6;
/// How long a look at the ends waits for those that were asked just then. What comes later is the next look's.
const WAITED_FOR: Duration = Duration::from_millis(500);

/// What a broker said when it was asked last, and when that was, milliseconds since the epoch.
#[derive(Clone, Debug)]
struct Said {
    asked_ms: i64,
    /// Who lives; `None` where it didn't answer.
    list: Option<BTreeSet<i32>>,
}

/// What is known of each broker.
#[derive(Debug, Default)]
pub(super) struct Confirmed {
    /// When others were asked that had it in their lists, milliseconds since the epoch.
    at_ms: BTreeMap<i32, i64>,
    /// Who has answered us, or a process before, ever.
    heard: BTreeSet<i32>,
    /// What each said at its last turn. Silence counts until it answers again: with many brokers a part that is cut off
    /// would confirm itself in every round that asks nobody else.
    said: BTreeMap<i32, Said>,
}

/// Asks the brokers, each on its own: one that says nothing holds up nobody else's word.
#[derive(Debug, Default)]
pub(super) struct Asking {
    confirmed: Confirmed,
    answers: JoinSet<(i32, Said)>,
    under_way: BTreeSet<i32>,
}

impl Asking {
    /// Behind a process that has heard these. One that begins in a part that is cut off would else take the others for
    /// brokers that nobody can reach.
    pub fn behind(heard: BTreeSet<i32>) -> Self {
        Self {
            confirmed: Confirmed {
                heard,
                ..Confirmed::default()
            },
            ..Self::default()
        }
    }

    /// What has been said so far.
    pub fn confirmed(&self) -> &Confirmed {
        &self.confirmed
    }

    /// Asks the next few, and takes what has come.
    pub async fn ask(&mut self, source: &Cluster) {
        // Not behind descriptions of all topics.
        let source = source.apart(Role::Members);
        let known = source.cached().brokers.keys().copied().collect();
        let known = self.confirmed.known(known);
        let next = self.confirmed.next(&known, &self.under_way);
        for broker in &next {
            self.under_way.insert(*broker);
            self.answers.spawn(said(source.clone(), *broker));
        }
        let mut came = Vec::new();
        let until = Instant::now() + WAITED_FOR;
        while next.iter().any(|it| self.under_way.contains(it)) {
            let Ok(Some(answered)) = timeout_at(until, self.answers.join_next()).await else {
                break;
            };
            came.push(self.came(brought(answered)));
        }
        while let Some(answered) = self.answers.try_join_next() {
            came.push(self.came(brought(answered)));
        }
        self.confirmed.take(&known, came);
    }

    fn came(&mut self, said: (i32, Said)) -> (i32, Said) {
        self.under_way.remove(&said.0);
        said
    }
}

impl Confirmed {
    /// When a broker was part of its cluster for the last time, as far as that is known.
    pub fn at_ms(&self, broker: i32) -> Option<i64> {
        self.at_ms.get(&broker).copied()
    }

    /// Who has answered, ever, and is still in somebody's list.
    pub fn heard(&self) -> &BTreeSet<i32> {
        &self.heard
    }

    /// Who may be a broker of it: by what is known of the cluster, because it was one, or by another one's word.
    fn known(&self, mut cached: BTreeSet<i32>) -> BTreeSet<i32> {
        cached.extend(&self.heard);
        cached.extend(listed(&self.said));
        cached
    }

    /// Those whose last turn is longest ago. First a few that are silent now, and were heard: nobody is confirmed as long
    /// as they are missed, and one answer that came late would else count for all turns of the others.
    fn next(&self, known: &BTreeSet<i32>, under_way: &BTreeSet<i32>) -> Vec<i32> {
        let count = known.len().div_ceil(2).clamp(ASKED_LEAST, ASKED_MOST);
        let listed = listed(&self.said);
        let is_missed = |broker: &i32| {
            let said = self.said.get(broker);
            let is_silent = said.is_some_and(|said| said.list.is_none());
            is_silent && listed.contains(broker) && self.heard.contains(broker)
        };
        let mut all: Vec<i32> = known.difference(under_way).copied().collect();
        all.sort_by_key(|broker| self.said.get(broker).map(|said| said.asked_ms));
        let (mut missed, others): (Vec<i32>, Vec<i32>) = all.into_iter().partition(is_missed);
        // Where many are, the others have their turns all the same.
        missed.truncate(count.div_ceil(2));
        missed.extend(others);
        missed.truncate(count);
        missed
    }

    fn take(&mut self, known: &BTreeSet<i32>, came: Vec<(i32, Said)>) {
        let answered = came.iter().filter(|(_, said)| said.list.is_some());
        self.heard.extend(answered.map(|(broker, _)| *broker));
        self.said.extend(came);
        self.said.retain(|broker, _| known.contains(broker));
        let Some(at_ms) = oldest_ms(&self.said) else {
            return;
        };
        for broker in confirmed(&self.said, &self.heard) {
            self.at_ms.insert(broker, at_ms);
        }
        // Who is in nobody's list is no broker any more: a cluster shrinks.
        let listed = listed(&self.said);
        self.heard.retain(|broker| listed.contains(broker));
    }
}

/// When the oldest of the lists was asked for: what they say together is no newer.
fn oldest_ms(said: &BTreeMap<i32, Said>) -> Option<i64> {
    let told = said.values().filter(|it| it.list.is_some());
    told.map(|it| it.asked_ms).min()
}

/// Who is in anybody's list.
fn listed(said: &BTreeMap<i32, Said>) -> BTreeSet<i32> {
    let lists = said.values().filter_map(|it| it.list.as_ref());
    lists.flatten().copied().collect()
}

/// Who is part of the cluster by the word of all others at their last turns. Where one of those that the others count as
/// living was silent then, although it could be reached once, the others may be the ones that are cut off: then nobody
/// is; nor is anybody as long as one of them was never asked. A broker beside which nobody could ever be reached
/// confirms itself.
fn confirmed(said: &BTreeMap<i32, Said>, heard: &BTreeSet<i32>) -> BTreeSet<i32> {
    let told: BTreeMap<i32, &BTreeSet<i32>> = said
        .iter()
        .filter_map(|(broker, said)| Some((*broker, said.list.as_ref()?)))
        .collect();
    let all = listed(said);
    let is_open = |broker: &i32| match said.get(broker) {
        None => true,
        Some(said) => said.list.is_none() && heard.contains(broker),
    };
    if all.iter().any(is_open) {
        return BTreeSet::new();
    }
    let is_named = |broker: &i32| {
        let mut others = told.iter().filter(|(who, _)| *who != broker).peekable();
        match others.peek() {
            Some(_) => others.all(|(_, list)| list.contains(broker)),
            None => all.iter().all(|it| it == broker || !heard.contains(it)),
        }
    };
    all.iter().copied().filter(is_named).collect()
}

/// What a broker says. Who takes longer confirms nobody this time.
async fn said(source: Cluster, broker: i32) -> (i32, Said) {
    let asked_ms = now_ms();
    let list = timeout(source.answers_within(), source.alive_by(broker)).await;
    let list = list.ok().and_then(Result::ok);
    (broker, Said { asked_ms, list })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who lives, by the word of each broker that was asked; `None` for one that doesn't answer.
    type Lists = BTreeMap<i32, Option<BTreeSet<i32>>>;

    fn lists(of: &[(i32, Option<&[i32]>)]) -> Lists {
        let of = of.iter();
        of.map(|(broker, list)| (*broker, list.map(|list| list.iter().copied().collect())))
            .collect()
    }

    fn said_at(lists: Lists, asked_ms: i64) -> Vec<(i32, Said)> {
        let said = lists.into_iter();
        said.map(|(broker, list)| (broker, Said { asked_ms, list }))
            .collect()
    }

    fn take(known: &mut Confirmed, of: &BTreeSet<i32>, lists: Lists, asked_ms: i64) {
        known.take(of, said_at(lists, asked_ms));
    }

    fn confirmed_by(of: &[(i32, Option<&[i32]>)], heard: &[i32]) -> Vec<i32> {
        let heard = heard.iter().copied().collect();
        confirmed(&said_at(lists(of), 0).into_iter().collect(), &heard)
            .into_iter()
            .collect()
    }

    /// All of them were heard.
    fn found(of: &[(i32, Option<&[i32]>)]) -> Vec<i32> {
        let heard: Vec<i32> = of.iter().map(|(broker, _)| *broker).collect();
        confirmed_by(of, &heard)
    }

    #[test]
    fn who_is_cut_off_is_in_nobody_elses_list() {
        let all: Option<&[i32]> = Some(&[1, 2, 3]);
        let others: Option<&[i32]> = Some(&[2, 3]);
        assert_eq!(found(&[(1, all), (2, all), (3, all)]), [1, 2, 3]);
        assert_eq!(found(&[(1, all), (2, others), (3, others)]), [2, 3]);
    }

    #[test]
    fn who_is_left_with_a_silent_rest_may_be_the_one_that_is_cut_off() {
        let all: Option<&[i32]> = Some(&[1, 2, 3]);
        assert_eq!(found(&[(1, all), (2, None), (3, None)]), [0; 0]);
        assert_eq!(found(&[(1, all), (2, all), (3, None)]), [0; 0]);
        assert_eq!(found(&[(1, None), (2, None)]), [0; 0]);
        // The controller has missed the third one, too.
        let rest: Option<&[i32]> = Some(&[1, 2]);
        assert_eq!(found(&[(1, rest), (2, rest), (3, None)]), [1, 2]);
    }

    #[test]
    fn who_could_never_be_reached_says_nothing_of_the_others() {
        let all: Option<&[i32]> = Some(&[1, 2, 3]);
        let of = [(1, all), (2, all), (3, None)];
        assert_eq!(confirmed_by(&of, &[1, 2]), [1, 2, 3]);
    }

    #[test]
    fn one_broker_is_a_cluster() {
        let alone: Option<&[i32]> = Some(&[1]);
        assert_eq!(found(&[(1, alone)]), [1]);
        let both: Option<&[i32]> = Some(&[1, 2]);
        let of = [(1, both), (2, None)];
        assert_eq!(confirmed_by(&of, &[1]), [1, 2]);
        assert_eq!(confirmed_by(&of, &[1, 2]), [0; 0]);
    }

    #[test]
    fn what_is_confirmed_is_as_old_as_the_question() {
        let both: BTreeSet<i32> = [1, 2].into();
        let all: Option<&[i32]> = Some(&[1, 2]);
        let mut known = Confirmed::default();
        take(&mut known, &both, lists(&[(1, all), (2, all)]), 1_000);
        take(&mut known, &both, lists(&[(1, all), (2, None)]), 3_000);
        assert_eq!((known.at_ms(1), known.at_ms(2)), (Some(1_000), Some(1_000)));
        let alone: Option<&[i32]> = Some(&[1]);
        take(&mut known, &both, lists(&[(1, alone), (2, None)]), 9_000);
        assert_eq!((known.at_ms(1), known.at_ms(2)), (Some(9_000), Some(1_000)));
        assert_eq!(known.heard, [1].into());
        assert_eq!(known.at_ms(7), None);
    }

    /// Rounds of a cluster of so many brokers, each of which says what `list` tells of it.
    fn rounds<'a>(
        known: &mut Confirmed,
        (first_ms, count): (i64, i64),
        brokers: i32,
        list: impl Fn(i32) -> Option<&'a [i32]>,
    ) {
        for round in 0..count {
            let all = known.known((1..=brokers).collect());
            let next = known.next(&all, &BTreeSet::new()).into_iter();
            let answers: Vec<(i32, Option<&[i32]>)> = next.map(|it| (it, list(it))).collect();
            take(known, &all, lists(&answers), first_ms + round * 2_000);
        }
    }

    const SIX: &[i32] = &[1, 2, 3, 4, 5, 6];

    #[test]
    fn a_part_that_is_cut_off_never_confirms_itself() {
        let mut known = Confirmed::default();
        rounds(&mut known, (0, 1), 6, |_| Some(SIX));
        assert_eq!(known.at_ms(1), None, "half of them weren't asked yet");
        rounds(&mut known, (2_000, 5), 6, |_| Some(SIX));
        let before = known.at_ms(1).expect("all have answered");
        assert_eq!(before, 8_000, "as old as the older half of the lists");
        // 1, 2 and 3 are cut off from the others, and we with them.
        rounds(&mut known, (12_000, 30), 6, |it| (it <= 3).then_some(SIX));
        for broker in 1..=6 {
            let at_ms = known.at_ms(broker).expect("it was confirmed");
            assert!(at_ms <= 12_000, "{broker}: {at_ms}");
        }
        // They are back.
        rounds(&mut known, (90_000, 3), 6, |_| Some(SIX));
        assert!(known.at_ms(1) >= Some(90_000));
    }

    #[test]
    fn a_part_that_is_cut_off_and_still_answers_us_is_in_nobody_elses_list() {
        let mut known = Confirmed::default();
        rounds(&mut known, (0, 4), 6, |_| Some(SIX));
        let rest: &[i32] = &[4, 5, 6];
        rounds(&mut known, (10_000, 8), 6, |it| {
            Some(if it <= 3 { SIX } else { rest })
        });
        assert!(known.at_ms(1) < Some(10_000), "{known:?}");
        assert!(known.at_ms(4) >= Some(10_000), "{known:?}");
    }

    #[test]
    fn who_has_left_the_cluster_is_waited_for_by_nobody() {
        let mut known = Confirmed::default();
        rounds(&mut known, (0, 4), 6, |_| Some(SIX));
        let rest: &[i32] = &[1, 2, 3, 4, 5];
        rounds(&mut known, (10_000, 6), 5, |it| (it <= 5).then_some(rest));
        assert!(known.at_ms(1) >= Some(10_000), "{known:?}");
        assert!(!known.heard.contains(&6) && !known.said.contains_key(&6));
    }

    #[test]
    fn who_begins_behind_a_cut_has_heard_of_the_others() {
        let mut known = Asking::behind((1..=6).collect()).confirmed;
        rounds(&mut known, (0, 30), 6, |it| (it <= 3).then_some(SIX));
        assert_eq!((1..=6).find_map(|it| known.at_ms(it)), None);
        assert_eq!(known.heard, (1..=6).collect());
        // They are back.
        rounds(&mut known, (90_000, 3), 6, |_| Some(SIX));
        assert!(known.at_ms(1) >= Some(90_000));
    }

    #[test]
    fn one_answer_that_comes_late_counts_until_the_next_round() {
        let all: Vec<i32> = (1..=30).collect();
        let list = |it: &i32| (*it != 7).then_some(all.as_slice());
        let mut known = Confirmed::default();
        rounds(&mut known, (0, 10), 30, |_| Some(&all));
        rounds(&mut known, (20_000, 2), 30, |it| list(&it));
        assert!(known.said[&7].list.is_none(), "it was too late");
        rounds(&mut known, (24_000, 1), 30, |_| Some(&all));
        assert!(known.said[&7].list.is_some(), "it was asked at once");
        assert_eq!(known.at_ms(1), known.at_ms(7));
    }

    #[test]
    fn many_that_are_silent_leave_the_others_their_turns() {
        let all: Vec<i32> = (1..=12).collect();
        let mut known = Confirmed::default();
        rounds(&mut known, (0, 4), 12, |_| Some(&all));
        rounds(&mut known, (8_000, 8), 12, |it| {
            (it <= 4).then_some(&all[..])
        });
        let late = (1..=4).filter(|it| known.said[it].asked_ms < 14_000);
        assert_eq!(late.count(), 0, "{known:?}");
    }

    #[test]
    fn who_is_asked_already_is_not_asked_again() {
        let mut known = Confirmed::default();
        let five: BTreeSet<i32> = (1..=5).collect();
        assert_eq!(known.next(&five, &[1, 2].into()), [3, 4, 5]);
        let all: Option<&[i32]> = Some(&[1, 2, 3, 4, 5]);
        take(&mut known, &five, lists(&[(1, all), (2, None)]), 0);
        assert_eq!(
            known.next(&five, &[4].into()),
            [3, 5, 1],
            "2 was never heard"
        );
        assert!(known.next(&five, &five).is_empty());
    }

    #[test]
    fn each_broker_has_its_turn() {
        let mut known = Confirmed::default();
        let five: BTreeSet<i32> = (1..=5).collect();
        assert_eq!(known.next(&five, &BTreeSet::new()), [1, 2, 3]);
        let all: Option<&[i32]> = Some(&[1, 2, 3, 4, 5]);
        take(
            &mut known,
            &five,
            lists(&[(1, all), (2, None), (3, all)]),
            0,
        );
        assert_eq!(known.next(&five, &BTreeSet::new()), [4, 5, 1]);
        assert_eq!(known.next(&[7].into(), &BTreeSet::new()), [7]);
        assert_eq!(known.next(&BTreeSet::new(), &BTreeSet::new()), [0; 0]);
        let many: BTreeSet<i32> = (1..=40).collect();
        assert_eq!(known.next(&many, &BTreeSet::new()).len(), ASKED_MOST);
    }
}
