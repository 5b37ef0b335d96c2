//! From a seed to what a random run does: plain data, which a failure prints.

use std::fmt;

use super::model::{Offsets, Side};

/// Random numbers of a seed (splitmix64). Not the world's: what is planned must not depend on what happens.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed ^ 0x2545_f491_4f6c_dd1d)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `least` to `most`.
    pub fn between(&mut self, least: i64, most: i64) -> i64 {
        let span = u64::try_from(most - least + 1).expect("least is at most most");
        least + i64::try_from(self.next() % span).expect("a small number")
    }

    /// Whether something of this chance happens.
    pub fn percent(&mut self, chance: i64) -> bool {
        self.between(1, 100) <= chance
    }

    pub fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        let last = i64::try_from(of.len()).expect("a short list") - 1;
        of[usize::try_from(self.between(0, last)).expect("not negative")]
    }
}

/// What kind of records a topic has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    Plain,
    /// Some in transactions, of which some are aborted.
    Transactional,
    /// `cleanup.policy=compact`; the cleaner runs when an event says so.
    Compacted,
    /// The source's brokers set the times.
    LogAppendTime,
    /// Times of a week ago.
    Old,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPlan {
    pub name: String,
    pub partitions: i32,
    pub sort: Sort,
    /// One producer's requests.
    pub per_second: i64,
    pub records_per_batch: i64,
}

/// Which request something happens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Produce,
    Fetch,
    ListOffsets,
    Metadata,
    WriteTxnMarkers,
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    NotLeader,
    NotEnoughReplicas,
    TimedOut,
    StorageError,
    DelayMs(i64),
    LateMs(i64),
    Swallow,
    SwallowAfter,
    CutBefore,
    CutAfter,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// To the next so many of these requests.
    Requests {
        side: Side,
        asked: Asked,
        fate: Fate,
        times: u64,
    },
    /// A broker is gone for so long.
    StopBroker { side: Side, broker: i32, ms: i64 },
    /// A broker answers nothing for so long.
    FreezeBroker { side: Side, broker: i32, ms: i64 },
    /// Every partition that can is led by another broker.
    MoveLeaders { side: Side },
    /// Twinlog doesn't run for so long.
    FreezeTwinlog { ms: i64 },
    /// Twinlog is killed and starts again after so long.
    KillTwinlog { ms: i64 },
    /// Twinlog is told to end in order, and starts again after so long.
    StopTwinlog { ms: i64 },
    /// Twinlog and a cluster don't reach each other for so long.
    Partition { side: Side, ms: i64 },
    /// Twinlog's connections to a cluster are cut.
    Cut { side: Side },
    /// The target's brokers forget Twinlog's producers.
    ForgetProducers,
    /// A second process starts for the same flow, and has it from then on.
    SecondTwinlog,
    /// Retention: half of what is there goes, of what was copied.
    Retention,
    /// The cleaner runs on compacted topics of the source.
    Clean,
    /// The command that fails over is killed; it is given again.
    KillCommand,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    pub at_ms: i64,
    pub what: What,
}

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With the copy.
    Copied,
    /// With a planned failover, then clients on the new primary.
    Planned,
    /// With an unplanned one; the source is gone.
    Unplanned,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub seed: u64,
    pub brokers: i32,
    pub topics: Vec<TopicPlan>,
    pub offsets: Offsets,
    /// One way to the target.
    pub distance_ms: i64,
    /// Clients write for so long.
    pub work_ms: i64,
    pub events: Vec<Event>,
    pub end: End,
    /// What happens while it is failed over, from then on.
    pub late: Vec<Event>,
}

impl Plan {
    /// The plan of a seed. What is known to be broken isn't in any of them.
    pub fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let brokers = i32::try_from(dice.between(1, 3)).expect("three at most");
        let topics = (0..dice.between(1, 3))
            .map(|number| topic(&mut dice, number))
            .collect();
        let offsets = match dice.percent(20) {
            true => Offsets::Mapped,
            false => Offsets::Identical,
        };
        let work_ms = dice.between(3_000, 8_000);
        let events = (0..dice.between(1, 5))
            .map(|_| Event {
                at_ms: dice.between(2_000, 2_000 + work_ms),
                what: what(&mut dice, brokers),
            })
            .collect();
        let end = match dice.between(1, 10) {
            1..=6 => End::Copied,
            7..=8 => End::Planned,
            _ => End::Unplanned,
        };
        let late = match end {
            End::Copied => 0,
            End::Planned | End::Unplanned => dice.between(0, 3),
        };
        let late = (0..late)
            .map(|_| Event {
                at_ms: dice.between(0, 6_000),
                what: late_what(&mut dice, brokers),
            })
            .collect();
        let mut plan = Self {
            seed,
            brokers,
            topics,
            offsets,
            distance_ms: 0,
            work_ms,
            events,
            end,
            late,
        };
        if dice.percent(40) {
            plan.distance_ms = dice.between(2, 20);
        }
        plan.events.sort_by_key(|it| it.at_ms);
        plan.late.sort_by_key(|it| it.at_ms);
        plan
    }
}

fn topic(dice: &mut Dice, number: i64) -> TopicPlan {
    let sort = dice.one_of(&[
        Sort::Plain,
        Sort::Plain,
        Sort::Transactional,
        Sort::Compacted,
        Sort::LogAppendTime,
        Sort::Old,
    ]);
    TopicPlan {
        name: format!("t{number}"),
        partitions: i32::try_from(dice.between(1, 3)).expect("three at most"),
        sort,
        per_second: dice.between(2, 20),
        records_per_batch: dice.between(1, 4),
    }
}

fn what(dice: &mut Dice, brokers: i32) -> What {
    let side = dice.one_of(&[Side::Primary, Side::Standby]);
    let broker = i32::try_from(dice.between(1, i64::from(brokers))).expect("a small number");
    let ms = dice.between(100, 4_000);
    match dice.between(1, 16) {
        1..=5 => {
            let asked = dice.one_of(&[
                Asked::Produce,
                Asked::Produce,
                Asked::Fetch,
                Asked::ListOffsets,
                Asked::Metadata,
                Asked::WriteTxnMarkers,
            ]);
            What::Requests {
                side,
                asked,
                fate: fate(dice, asked),
                times: u64::try_from(dice.between(1, 3)).expect("a small number"),
            }
        }
        6 => What::StopBroker { side, broker, ms },
        7 => What::FreezeBroker { side, broker, ms },
        8 => What::MoveLeaders { side },
        9 => What::FreezeTwinlog { ms },
        10 => What::KillTwinlog { ms },
        11 => What::StopTwinlog { ms },
        12 => What::Partition { side, ms },
        13 => What::Cut { side },
        14 => dice.one_of(&[What::ForgetProducers, What::SecondTwinlog]),
        15 => What::Retention,
        _ => What::Clean,
    }
}

/// What may happen during a failover that the source may be lost for.
fn late_what(dice: &mut Dice, brokers: i32) -> What {
    let side = Side::Standby;
    let broker = i32::try_from(dice.between(1, i64::from(brokers))).expect("a small number");
    let ms = dice.between(100, 4_000);
    match dice.between(1, 9) {
        1..=3 => What::KillCommand,
        4 => What::KillTwinlog { ms },
        5 => What::MoveLeaders { side },
        6 => What::StopBroker { side, broker, ms },
        7 => What::Cut { side },
        _ => {
            let asked = dice.one_of(&[
                Asked::Produce,
                Asked::Fetch,
                Asked::ListOffsets,
                Asked::WriteTxnMarkers,
            ]);
            What::Requests {
                side,
                asked,
                fate: fate(dice, asked),
                times: u64::try_from(dice.between(1, 3)).expect("a small number"),
            }
        }
    }
}

fn fate(dice: &mut Dice, asked: Asked) -> Fate {
    let ms = dice.between(50, 3_000);
    // What brokers say to such a request, if it isn't done.
    let refusals: &[Fate] = match asked {
        Asked::Produce | Asked::WriteTxnMarkers => {
            &[Fate::NotLeader, Fate::NotEnoughReplicas, Fate::TimedOut]
        }
        Asked::Fetch | Asked::ListOffsets => &[Fate::NotLeader, Fate::StorageError],
        Asked::Metadata => &[],
    };
    if !refusals.is_empty() && dice.percent(50) {
        return dice.one_of(refusals);
    }
    dice.one_of(&[
        Fate::DelayMs(ms),
        Fate::LateMs(ms),
        Fate::Swallow,
        Fate::SwallowAfter,
        Fate::CutBefore,
        Fate::CutAfter,
    ])
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "plan of seed {}: {} broker(s) a cluster, the target {} ms away, offsets {:?}, clients write for {} ms, it ends {:?}",
            self.seed, self.brokers, self.distance_ms, self.offsets, self.work_ms, self.end
        )?;
        for it in &self.topics {
            writeln!(
                f,
                "  topic {}: {} partition(s), {:?}, {} batches of {} a second",
                it.name, it.partitions, it.sort, it.per_second, it.records_per_batch
            )?;
        }
        for event in &self.events {
            writeln!(f, "  at {} ms: {:?}", event.at_ms, event.what)?;
        }
        for event in &self.late {
            writeln!(
                f,
                "  {} ms into the failover: {:?}",
                event.at_ms, event.what
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_is_a_plan() {
        assert_eq!(Plan::of(5), Plan::of(5));
        assert_ne!(
            Plan::of(5),
            Plan {
                seed: 5,
                ..Plan::of(6)
            }
        );
    }

    #[test]
    fn every_kind_of_event_is_planned_and_shown() {
        let word = |what: &What| {
            let text = format!("{what:?}");
            text.split([' ', '{']).next().expect("a word").to_owned()
        };
        let mut seen = BTreeSet::new();
        for seed in 0..300 {
            let plan = Plan::of(seed);
            let text = plan.to_string();
            for event in plan.events.iter().chain(&plan.late) {
                assert!(text.contains(&format!("{} ms", event.at_ms)), "{text}");
                seen.insert(word(&event.what));
            }
        }
        let expected = [
            "Clean",
            "Cut",
            "ForgetProducers",
            "FreezeBroker",
            "FreezeTwinlog",
            "KillCommand",
            "KillTwinlog",
            "MoveLeaders",
            "Partition",
            "Requests",
            "Retention",
            "SecondTwinlog",
            "StopBroker",
            "StopTwinlog",
        ];
        assert_eq!(seen, expected.map(str::to_owned).into());
    }

    #[test]
    fn events_come_in_order_while_clients_write() {
        for seed in 0..300 {
            let plan = Plan::of(seed);
            let times: Vec<i64> = plan.events.iter().map(|it| it.at_ms).collect();
            assert!(times.is_sorted(), "{plan}");
            assert!(times.iter().all(|at| *at <= plan.work_ms + 2_000), "{plan}");
        }
    }
}
