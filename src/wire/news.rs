//! Whether anything about a cluster's topics, configs or rights may have changed, for some hundred bytes a look.
//!
//! A broker tells everybody, with the versions that it speaks, how far its image of the cluster has come
//! (`finalized_features_epoch`; with KRaft that is the last record of the metadata log). Each change is a record there, of
//! a topic, a config, an ACL, a leader. At rest the controller writes one that says nothing, twice a second
//! (`metadata.max.idle.interval.ms`): so what comes beyond that is news. It is a sign, no more: who looks without one
//! looks seldom, and still looks. Brokers with ZooKeeper, and services that aren't Kafka, tell nothing of the kind.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long is measured what comes at rest.
const SPAN: Duration = Duration::from_secs(30);
/// The slowest of so many are rest.
const SPANS_KEPT: usize = 10;
/// Two are rest if they differ by no more records per second.
const ALIKE: f64 = 0.15;
/// Less than this isn't told at all: it may be the number of something else.
const LEAST_PER_SECOND: f64 = 0.1;
/// What comes per second at rest by default (`metadata.max.idle.interval.ms`). Where that is seen for a few seconds it is
/// believed before it was measured for long: until then descriptions are asked for in haste.
const BY_DEFAULT: f64 = 2.0;
/// See [`BY_DEFAULT`].
const SEEN_FOR: Duration = Duration::from_secs(6);
/// How far apart looks are that are kept for it.
const SEEN_EVERY: Duration = Duration::from_millis(500);
/// So many records more or less may be how the looks fell.
const SEEN_WITHIN: f64 = 1.5;
/// So many looks are compared with each other, and none that is older: what comes at rest isn't known so well that it could be
/// told from a record over minutes.
const LOOKS_KEPT: usize = 20;
const COMPARED: Duration = Duration::from_secs(40);
/// A sign is good for so long. Who couldn't ask for it knows nothing, and neither what came meanwhile.
const GOOD_FOR: Duration = Duration::from_secs(10);
/// A broker's number comes before what it stands for: first the number, then topics, configs, and rights last; and other brokers
/// hear of it later. So each sign is one again after a while.
const ECHOES: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(10)];
/// Records beyond what comes at rest that are news. Looks fall anywhere between two of those that say nothing, so one
/// more may only be that.
const NEWS: f64 = 1.3;

/// What is known of a cluster's changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Not yet whether it tells.
    Learning,
    /// It tells nothing.
    Untold,
    /// It tells, and so often there was reason to look.
    Told(u64),
}

/// What somebody asks for again and again, as an answer's size says how often.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Where there are news, or it isn't known whether.
    pub hasty: Rate,
    /// Where the cluster tells, and told nothing new.
    pub told: Rate,
    /// Where it tells nothing.
    pub untold: Rate,
}

/// So many bytes a second, and how long it takes at most whatever the size.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Bytes per second.
    pub bytes_per_second: usize,
    /// The longest pause.
    pub most: Duration,
}

impl Rate {
    /// How often so many bytes may be asked for.
    pub fn every(self, bytes: usize) -> Duration {
        Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64).min(self.most)
    }
}

/// When something was asked for, and what was known of changes then.
#[derive(Clone, Copy, Debug)]
pub struct Looked {
    /// When.
    pub at: Instant,
    /// Before it was asked for.
    pub news: News,
}

impl Pace {
    /// How long a look lasts that brought so many bytes.
    pub fn every(&self, looked: News, now: News, bytes: usize) -> Duration {
        let rate = match now {
            News::Told(_) if looked == now => self.told,
            News::Untold => self.untold,
            News::Told(_) | News::Learning => self.hasty,
        };
        rate.every(bytes)
    }

    /// Whether it is time to ask again.
    pub fn is_due(&self, looked: Option<Looked>, now: News, bytes: usize) -> bool {
        looked.is_none_or(|it| it.at.elapsed() >= self.every(it.news, now, bytes))
    }
}

/// How long until the next of those looks that only ask whether there are news: not always the same, so that they fall anywhere
/// between two records that say nothing.
pub fn uneven(interval: Duration, turn: u32) -> Duration {
    const STEPS: u32 = 8;
    let step = turn.wrapping_mul(3) % STEPS;
    interval + interval.min(Duration::from_secs(1)) * step / (STEPS * 3)
}

/// The sign of one cluster.
#[derive(Debug, Default)]
pub(super) struct Sign(Mutex<Counted>);

impl Sign {
    /// What is known.
    pub(super) fn news(&self) -> News {
        self.lock().news(Instant::now())
    }

    /// A broker's number, asked for at `sent`; -1 where it tells none.
    pub(super) fn note(&self, broker: i32, sent: Instant, number: i64) {
        self.lock().note(broker, sent, Instant::now(), number);
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Debug, Default)]
struct Counted {
    /// The last look: whom, when, the number.
    last: Option<(i32, Instant, i64)>,
    /// When the span that is measured began, and with which number.
    span: Option<(Instant, i64)>,
    /// Records per second of the last spans, at most.
    spans: VecDeque<f64>,
    /// What comes was seen to be what comes by default.
    is_by_default: bool,
    /// Looks of the last seconds, while that isn't known.
    recent: VecDeque<(Instant, i64)>,
    /// Records beyond what comes at rest since the last news, and at the last looks.
    beyond: f64,
    looks: VecDeque<(Instant, f64)>,
    /// News, and when the last of them came.
    count: u64,
    news_at: Option<Instant>,
    tells_nothing: bool,
}

impl Counted {
    fn news(&self, now: Instant) -> News {
        let is_old = |at: Instant| now.saturating_duration_since(at) > GOOD_FOR;
        match self.at_rest() {
            _ if self.tells_nothing => News::Untold,
            Some(rest) if rest < LEAST_PER_SECOND => News::Untold,
            Some(_) if self.last.is_some_and(|(_, at, _)| !is_old(at)) => {
                News::Told(self.count_at(now))
            }
            Some(_) | None => News::Learning,
        }
    }

    /// News, and their echoes until then.
    fn count_at(&self, now: Instant) -> u64 {
        const EACH: u64 = ECHOES.len() as u64 + 1;
        let since = |at: Instant| now.saturating_duration_since(at);
        let heard = |at| ECHOES.iter().filter(|after| since(at) >= **after).count();
        self.count * EACH + self.news_at.map_or(0, |at| heard(at) as u64)
    }

    /// What comes per second at rest; `None` until that is known.
    fn at_rest(&self) -> Option<f64> {
        let by_default = self.is_by_default.then_some(BY_DEFAULT);
        self.measured().or(by_default)
    }

    /// The same, once it was at rest for two spans.
    fn measured(&self) -> Option<f64> {
        let mut spans: Vec<f64> = self.spans.iter().copied().collect();
        spans.sort_by(f64::total_cmp);
        let (least, next) = (spans.first()?, spans.get(1)?);
        if next - least > ALIKE {
            return None;
        }
        // Each may be half a record wrong, those that follow each other aren't.
        let alike = spans.iter().take_while(|it| *it - least <= ALIKE);
        let count = alike.clone().count();
        Some(alike.sum::<f64>() / count as f64)
    }

    fn note(&mut self, broker: i32, sent: Instant, at: Instant, number: i64) {
        let before = self.last.filter(|(who, ..)| *who == broker);
        let Some((_, before_at, before)) = before else {
            // Another one may know more, or less.
            self.begin(broker, at, number);
            return;
        };
        if number < before {
            if sent > before_at {
                // Not the answers to two who asked at once: it counts anew, and what it counted before says nothing.
                self.spans.clear();
                self.is_by_default = false;
                self.begin(broker, at, number);
            }
            return;
        }
        let lasted = at.duration_since(before_at);
        if lasted > GOOD_FOR {
            self.begin(broker, at, number);
            return;
        }
        self.tells_nothing = number < 0;
        self.last = Some((broker, at, number));
        self.measure(at, number);
        self.compare_with_default(at, number);
        let Some(rest) = self.at_rest() else {
            return;
        };
        if self.looks.is_empty() {
            self.looks.push_back((before_at, self.beyond));
        }
        self.beyond += (number - before) as f64 - rest * lasted.as_secs_f64();
        self.looks
            .retain(|(looked, _)| at.duration_since(*looked) <= COMPARED);
        let looks = self.looks.iter().map(|(_, beyond)| *beyond);
        let least = looks.fold(self.beyond, f64::min);
        if self.beyond - least > NEWS {
            self.is_news(at);
            return;
        }
        self.looks.push_back((at, self.beyond));
        if self.looks.len() > LOOKS_KEPT {
            self.looks.pop_front();
        }
    }

    /// What came before can't be compared with what comes from here.
    fn begin(&mut self, broker: i32, at: Instant, number: i64) {
        self.tells_nothing = number < 0;
        self.last = Some((broker, at, number));
        self.span = Some((at, number));
        self.recent = VecDeque::from([(at, number)]);
        self.is_news(at);
    }

    fn is_news(&mut self, at: Instant) {
        self.count += 1;
        self.news_at = Some(at);
        self.beyond = 0.0;
        self.looks.clear();
    }

    /// By the last seconds: what came before, as of a first copy, says nothing.
    fn compare_with_default(&mut self, at: Instant, number: i64) {
        if self.is_by_default {
            return;
        }
        let age = |since: Instant| at.duration_since(since);
        while self.recent.get(1).is_some_and(|it| age(it.0) >= SEEN_FOR) {
            self.recent.pop_front();
        }
        if let Some((since, first)) = self.recent.front().copied()
            && age(since) >= SEEN_FOR
        {
            let expected = BY_DEFAULT * age(since).as_secs_f64();
            self.is_by_default |= ((number - first) as f64 - expected).abs() <= SEEN_WITHIN;
        }
        // Of many who ask at once one is enough.
        if self.recent.back().is_none_or(|it| age(it.0) >= SEEN_EVERY) {
            self.recent.push_back((at, number));
        }
    }

    fn measure(&mut self, at: Instant, number: i64) {
        let (since, first) = *self.span.get_or_insert((at, number));
        let lasted = at.duration_since(since);
        if lasted < SPAN {
            return;
        }
        let per_second = (number - first) as f64 / lasted.as_secs_f64();
        self.spans.push_back(per_second);
        if self.spans.len() > SPANS_KEPT {
            self.spans.pop_front();
        }
        self.span = Some((at, number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks every 0.8 to 1.2 s for so long at what `number` says of a time in milliseconds; how many were news.
    fn looked(
        counted: &mut Counted,
        (from_s, to_s): (u64, u64),
        number: impl Fn(u64) -> i64,
    ) -> u64 {
        let (start, before) = (START.with(|it| *it), counted.count);
        let (mut at_ms, mut turn) = (from_s * 1_000, 0);
        while at_ms < to_s * 1_000 {
            let at = start + Duration::from_millis(at_ms);
            counted.note(1, at, at, number(at_ms));
            turn += 1;
            at_ms += 800 + (turn * 247) % 400;
        }
        counted.count - before
    }

    thread_local! {
        static START: Instant = Instant::now();
    }

    fn at(seconds: u64) -> Instant {
        START.with(|it| *it) + Duration::from_secs(seconds)
    }

    fn rest(at_ms: u64) -> i64 {
        i64::try_from(at_ms / 500).expect("small")
    }

    #[test]
    fn what_comes_at_rest_is_no_news_and_one_record_more_is() {
        let mut counted = Counted::default();
        looked(&mut counted, (0, 65), rest);
        assert!(matches!(counted.news(at(65)), News::Told(_)), "{counted:?}");
        assert_eq!(looked(&mut counted, (65, 1_200), rest), 0);
        let found = looked(&mut counted, (1_200, 1_210), |at| rest(at) + 1);
        assert_eq!(found, 1, "within ten seconds");
        assert_eq!(looked(&mut counted, (1_210, 2_000), |at| rest(at) + 1), 0);
        let topic = |at| rest(at) + if at >= 2_001_000 { 6 } else { 1 };
        assert_eq!(looked(&mut counted, (2_000, 2_003), topic), 1, "at once");
    }

    #[test]
    fn what_comes_by_default_is_known_within_seconds() {
        let mut counted = Counted::default();
        looked(&mut counted, (0, 8), rest);
        assert!(matches!(counted.news(at(8)), News::Told(_)), "{counted:?}");
        let one = |at: u64| rest(at) + i64::from(at >= 20_000);
        assert_eq!(looked(&mut counted, (8, 20), one), 0);
        assert_eq!(looked(&mut counted, (20, 30), one), 1, "a single record");
        assert_eq!(looked(&mut counted, (30, 200), one), 0);
        // Another pace isn't taken for it, nor what always says the same.
        let others: [fn(u64) -> i64; 3] = [|at| rest(at) * 3 / 4, |at| rest(at) * 4 / 3, |_| 1];
        for other in others {
            let mut counted = Counted::default();
            looked(&mut counted, (0, 28), other);
            assert_eq!(counted.news(at(28)), News::Learning);
        }
        // What becomes busier behind it is news, again and again.
        let mut counted = Counted::default();
        looked(&mut counted, (0, 8), rest);
        assert!(looked(&mut counted, (8, 30), |at| rest(at) * 2 - 16) > 3);
    }

    #[test]
    fn a_controller_that_stumbles_and_one_that_is_slower_make_none() {
        let mut counted = Counted::default();
        // Half a millisecond late each time, and once by 200 ms.
        let late = |at: u64| rest(at * 1_000 / 1_001 - if at > 600_000 { 200 } else { 0 });
        looked(&mut counted, (0, 65), late);
        assert_eq!(looked(&mut counted, (65, 1_200), late), 0);
    }

    #[test]
    fn what_happens_all_the_time_is_news_until_it_is_over() {
        let mut counted = Counted::default();
        let busy = |at: u64| {
            rest(at) + i64::try_from((at / 7_000) * (at / 13_000) % 5 + at / 300).expect("small")
        };
        looked(&mut counted, (0, 60), busy);
        let quiet = move |at: u64| rest(at) + busy(60_000);
        looked(&mut counted, (60, 130), quiet);
        assert!(matches!(counted.news(at(130)), News::Told(_)));
        assert_eq!(looked(&mut counted, (130, 400), quiet), 0);
        assert!(
            looked(&mut counted, (400, 420), |at| quiet(at)
                + i64::try_from((at - 400_000) / 900).expect("small"))
                > 3
        );
    }

    #[test]
    fn who_could_not_ask_knows_nothing() {
        let mut counted = Counted::default();
        looked(&mut counted, (0, 100), rest);
        assert!(matches!(counted.news(at(105)), News::Told(_)));
        assert_eq!(counted.news(at(115)), News::Learning);
        // Nor what came meanwhile.
        assert_eq!(looked(&mut counted, (130, 140), rest), 1);
        assert!(matches!(counted.news(at(140)), News::Told(_)));
    }

    #[test]
    fn a_sign_is_one_again_when_what_it_stands_for_is_there() {
        let mut counted = Counted::default();
        looked(&mut counted, (0, 100), rest);
        counted.is_news(at(100));
        let next = |seconds: u64| {
            let mut counted = counted.clone();
            counted.last = Some((1, at(seconds), 0));
            counted.news(at(seconds))
        };
        let once = next(100);
        assert_eq!(next(101), once);
        assert_ne!(next(102), once);
        assert_eq!(next(109), next(102));
        assert_ne!(next(110), next(109), "ten seconds later, once more");
        assert_eq!(next(10_000), next(110));
    }

    #[test]
    fn a_number_that_went_back_is_news_and_an_answer_that_comes_late_is_none() {
        let mut counted = Counted::default();
        looked(&mut counted, (0, 100), |at| rest(at) + 1_000);
        let before = counted.count;
        counted.note(1, at(98), at(100), 1_190);
        assert_eq!(counted.count, before, "asked before the last answer");
        assert_eq!(looked(&mut counted, (101, 103), rest), 1);
        assert_eq!(counted.news(at(103)), News::Learning);
        looked(&mut counted, (103, 170), rest);
        assert!(matches!(counted.news(at(170)), News::Told(_)));
    }

    #[test]
    fn what_comes_between_a_sign_and_the_next_look_is_one() {
        let mut counted = Counted::default();
        looked(&mut counted, (0, 100), rest);
        let at = at(100);
        counted.note(2, at, at, 200);
        let (before, at) = (counted.count, at + Duration::from_secs(1));
        counted.note(2, at, at, 210);
        assert_eq!(counted.count, before + 1);
    }

    #[test]
    fn who_looks_every_three_seconds_sees_one_record() {
        let every = Duration::from_secs(3);
        for first_ms in (0..4_000).step_by(37) {
            let (mut counted, start) = (Counted::default(), at(0));
            let (mut at_ms, mut count) = (first_ms, 0);
            for turn in 0..200 {
                let more = i64::from(at_ms >= 300_000);
                let at = start + Duration::from_millis(at_ms);
                counted.note(1, at, at, rest(at_ms) + more);
                if at_ms < 300_000 {
                    count = counted.count;
                }
                let pause = uneven(every, turn);
                at_ms += u64::try_from(pause.as_millis()).expect("short");
            }
            assert_eq!(count, 1, "{first_ms}: none at rest");
            assert_eq!(counted.count, 2, "{first_ms}: one for the record");
        }
    }

    #[test]
    fn looks_fall_anywhere_between_two_records() {
        let second = Duration::from_secs(1);
        let pauses: Vec<Duration> = (0..8).map(|turn| uneven(second, turn)).collect();
        assert!(
            pauses
                .iter()
                .all(|it| (second..second * 4 / 3).contains(it))
        );
        let mut phases: Vec<u128> = Vec::new();
        let mut at = Duration::ZERO;
        for turn in 0..24 {
            at += uneven(second, turn);
            phases.push(at.as_millis() % 500 / 125);
        }
        phases.sort_unstable();
        phases.dedup();
        assert_eq!(phases, [0, 1, 2, 3]);
    }

    #[test]
    fn who_tells_nothing_or_always_the_same_is_not_trusted() {
        let mut counted = Counted::default();
        looked(&mut counted, (0, 100), |_| -1);
        assert_eq!(counted.news(at(100)), News::Untold);
        let mut counted = Counted::default();
        looked(&mut counted, (0, 100), |_| 1);
        assert_eq!(counted.news(at(100)), News::Untold);
        let mut counted = Counted::default();
        looked(&mut counted, (0, 50), |at| rest(at) / 2);
        assert_eq!(counted.news(at(50)), News::Learning);
    }

    #[test]
    fn without_news_it_is_asked_seldom_and_with_them_soon() {
        let rate = |bytes_per_second, seconds| Rate {
            bytes_per_second,
            most: Duration::from_secs(seconds),
        };
        let pace = Pace {
            hasty: rate(100_000, 10),
            told: rate(5_000, 300),
            untold: rate(10_000, 90),
        };
        let every = |before, now| pace.every(before, now, 800_000).as_secs();
        assert_eq!(every(News::Told(3), News::Told(3)), 160);
        assert_eq!(every(News::Told(3), News::Told(4)), 8);
        assert_eq!(every(News::Learning, News::Learning), 8);
        assert_eq!(
            every(News::Learning, News::Told(4)),
            8,
            "it was looked at before"
        );
        assert_eq!(every(News::Untold, News::Untold), 80);
        let now = Looked {
            at: Instant::now(),
            news: News::Told(1),
        };
        assert!(pace.is_due(None, News::Told(1), 800_000));
        assert!(!pace.is_due(Some(now), News::Told(2), 800_000));
        assert!(pace.is_due(Some(now), News::Told(2), 0));
    }
}
