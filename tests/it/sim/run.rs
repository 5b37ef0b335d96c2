//! Random runs: a seed gives a plan, the plan is carried out, everything heals, and the model judges.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::panic::catch_unwind;
use std::time::{Duration, Instant};

use fake_kafka::Options;
use fake_kafka::faults::{Action, Fault};
use fake_kafka::kafka_protocol::error::ResponseError;
use fake_kafka::kafka_protocol::messages::ApiKey;
use fake_kafka::state::Condition;
use fake_kafka::world::{self, Phase, Process, World};
use twinlog::state::CutoverKind;

use super::clients::{self, Job, Notes, lock};
use super::logs;
use super::model::{
    CutOver, Expected, Kind, Offsets, Place, Record, Says, Side, Violation, judge, judge_acks,
    judge_loss, judge_role,
};
use super::plan::{Asked, End, Event, Fate, Plan, Sort, What};
use super::process::{self, Running, failover_options};
use super::scene::{Scene, Write, partition_status, says};

/// Runs of `scripts/test`.
const RUNS: u64 = 100;
/// Which of them are run twice.
const TWICE_EVERY: u64 = 20;
/// Clients begin when Twinlog has had so long to start.
const START_MS: i64 = 2_000;
/// After it has healed everything has so long to be copied.
const CATCH_UP_MS: i64 = 180_000;
/// A failover is begun so often until it is through.
const COMMANDS: u64 = 6;
/// What must hold at any moment is looked at so often.
const LOOK_EVERY_MS: i64 = 250;
/// A target that is told to forgets producers whose newest record is older.
const FORGOTTEN_AFTER_MS: i64 = 2_000;
/// Positions of groups, maps and what is remembered have come to rest by then.
const REST_MS: i64 = 20_000;
/// Why a partition is stopped whose records aren't at the source's offsets.
const MISPLACED: &str = "misplaced";

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")),
    )
}

/// `TWINLOG_SIM_SEED` plays one seed; `TWINLOG_SIM_FROM` is the first of `TWINLOG_SIM_RUNS`, or of as
/// many as there are in `TWINLOG_SIM_SECONDS`.
#[test]
fn random_runs_hold() {
    if let Some(seed) = number("TWINLOG_SIM_SEED") {
        println!("{}", Plan::of(seed));
        play(seed);
        return;
    }
    let began = Instant::now();
    let first = number("TWINLOG_SIM_FROM").unwrap_or(1);
    let seconds = number("TWINLOG_SIM_SECONDS").map(Duration::from_secs);
    let runs =
        number("TWINLOG_SIM_RUNS").unwrap_or(if seconds.is_some() { u64::MAX } else { RUNS });
    let mut failed = Vec::new();
    let mut played = 0;
    while played < runs && seconds.is_none_or(|most| began.elapsed() < most) {
        let seed = first + played;
        played += 1;
        match catch_unwind(|| play(seed)) {
            Ok(hash) if seed.is_multiple_of(TWICE_EVERY) => {
                assert_eq!(play(seed), hash, "seed {seed} isn't the same run twice");
            }
            Ok(_) => {}
            Err(_) => failed.push(seed),
        }
    }
    println!("{played} runs in {:?}", began.elapsed());
    assert!(
        failed.is_empty(),
        "of {played} runs {} failed; seeds {failed:?}; one of them again: scripts/simulate --seed {}",
        failed.len(),
        failed[0]
    );
}

/// Plays a seed; gives the hash of all that happened.
fn play(seed: u64) -> u64 {
    world::run(seed, move |world| {
        let plan = Plan::of(seed);
        let mut run = Run::begin(world, &plan);
        let violations = run.play(world);
        let lines: Vec<String> = violations.iter().map(Violation::to_string).collect();
        assert!(
            violations.is_empty(),
            "{}\n{}{plan}again: scripts/simulate --seed {seed}",
            lines.join("\n"),
            run.told(world)
        );
        println!("seed {seed}: {}", run.summary(world));
        world.trace().hash()
    })
}

/// Something of an event: it begins, or it is over.
#[derive(Clone, Copy, Debug)]
enum Step {
    Begins(What),
    Ends(What),
}

struct Run {
    plan: Plan,
    scene: Scene,
    notes: Notes,
    /// The process that has the flow.
    current: Running,
    others: Vec<Running>,
}

impl Run {
    fn begin(world: &mut World, plan: &Plan) -> Self {
        let options = || Options {
            brokers: plan.brokers,
            ..Options::default()
        };
        let lines = match plan.offsets {
            Offsets::Identical => "offsets: identical",
            Offsets::Mapped => "offsets: mapped",
        };
        let mut scene = Scene::with(world, options(), options(), lines);
        // What was swallowed is given up before the run ends.
        for name in ["primary", "standby"] {
            let begin = format!("  {name}: {{ ");
            let patient = format!("{begin}request.timeout.ms: 5000, ");
            scene.text = scene.text.replace(&begin, &patient);
        }
        let replication = i16::try_from(plan.brokers).expect("three at most");
        for topic in &plan.topics {
            let configs: &[(&str, &str)] = match topic.sort {
                Sort::Compacted => &[("cleanup.policy", "compact")],
                Sort::LogAppendTime => &[("message.timestamp.type", "LogAppendTime")],
                _ => &[],
            };
            scene.topic(&topic.name, topic.partitions, replication, configs);
        }
        for brokers in [&scene.source, &scene.target] {
            brokers
                .cluster
                .control(|state| state.create_offsets_topic());
        }
        let current = scene.twinlog(world, "twinlog");
        if plan.distance_ms > 0 {
            world.paths(&scene.target, |path| {
                path.to_broker_us = plan.distance_ms * 1_000;
                path.to_client_us = plan.distance_ms * 1_000;
            });
        }
        Self {
            plan: plan.clone(),
            scene,
            notes: Notes::default(),
            current,
            others: Vec::new(),
        }
    }

    fn places(&self) -> Vec<Place> {
        let topics = self.plan.topics.iter();
        topics
            .flat_map(|it| (0..it.partitions).map(|at| Place::new(&it.name, at)))
            .collect()
    }

    fn play(&mut self, world: &mut World) -> Vec<Violation> {
        world.run_for(START_MS);
        self.start_clients(world);
        for (at_ms, step) in timeline(&self.plan.events) {
            if let Some(found) = self.watch(world, at_ms) {
                return found;
            }
            world.tell(format!("plan: {step:?}"));
            match step {
                Step::Begins(what) => self.begins(world, what),
                Step::Ends(what) => self.ends(world, what),
            }
        }
        if let Some(found) = self.watch(world, START_MS + self.plan.work_ms) {
            return found;
        }
        self.heal(world);
        match self.plan.end {
            End::Copied => self.copied(world),
            End::Planned => self.planned(world),
            End::Unplanned => self.unplanned(world),
        }
    }

    /// Lets time pass, and looks now and then at what must hold at any moment.
    fn watch(&self, world: &mut World, until_ms: i64) -> Option<Vec<Violation>> {
        while world.now_ms() < until_ms {
            let ms = (until_ms - world.now_ms()).min(LOOK_EVERY_MS);
            world.run_for(ms);
            let found = self
                .groups()
                .flat_map(|(group, at)| self.scene.judge_group_now(&group, &at));
            let found: Vec<Violation> = found.collect();
            if !found.is_empty() {
                return Some(found);
            }
        }
        None
    }

    /// Each group, and a partition that it reads.
    fn groups(&self) -> impl Iterator<Item = (String, Place)> {
        let topics = self.plan.topics.iter().enumerate();
        topics.flat_map(|(number, topic)| {
            let places = (0..topic.partitions).map(|at| Place::new(&topic.name, at));
            places.map(move |at| (format!("group-{number}"), at))
        })
    }

    fn start_clients(&self, world: &mut World) {
        for (number, topic) in (0..).zip(&self.plan.topics) {
            let work = Duration::from_millis(self.plan.work_ms.unsigned_abs());
            let job = Job {
                brokers: self.scene.source.clone(),
                side: Side::Primary,
                topic: topic.name.clone(),
                partitions: topic.partitions,
                sort: topic.sort,
                per_second: topic.per_second,
                records_per_batch: topic.records_per_batch,
                work,
                patience: work + Duration::from_secs(60),
                seed: self.plan.seed * 10 + number,
                notes: self.notes.clone(),
            };
            let writer = job.clone();
            world.process(&format!("writer-{number}"), move |ctx| {
                clients::produce(ctx, writer.clone())
            });
            let group = format!("group-{number}");
            world.process(&group.clone(), move |ctx| {
                clients::commit(ctx, job.clone(), group.clone())
            });
        }
    }

    fn begins(&mut self, world: &mut World, what: What) {
        match what {
            What::Requests {
                side,
                asked,
                fate,
                times,
            } => {
                let fault = Fault::on(key(asked)).times(times);
                self.scene.side(side).cluster.fault(fault, action(fate));
            }
            What::StopBroker { side, broker, .. } => {
                let cluster = &self.scene.side(side).cluster;
                cluster.control(|state| state.stop_broker(broker));
            }
            What::FreezeBroker { side, broker, .. } => {
                let cluster = &self.scene.side(side).cluster;
                cluster.control(|state| {
                    if state.condition(broker) == Condition::Up {
                        state.freeze_broker(broker);
                    }
                });
            }
            What::MoveLeaders { side } => self.move_leaders(side),
            What::FreezeTwinlog { .. } => self.current.process.freeze(),
            What::KillTwinlog { .. } => self.current.process.kill(),
            What::StopTwinlog { .. } => self.current.process.stop(),
            What::Partition { side, .. } => {
                world.partition(&self.current.process, self.scene.side(side));
            }
            What::Cut { side } => {
                world.cut(&self.current.process, self.scene.side(side), None);
            }
            What::ForgetProducers => self.forget_producers(),
            What::SecondTwinlog => {
                let name = format!("twinlog-{}", self.others.len() + 2);
                let next = self.scene.twinlog(world, &name);
                self.others.push(std::mem::replace(&mut self.current, next));
            }
            What::Retention => self.retain(),
            What::Clean => self.clean(),
            What::KillCommand => {}
        }
    }

    fn ends(&mut self, world: &mut World, what: What) {
        match what {
            What::StopBroker { side, broker, .. } | What::FreezeBroker { side, broker, .. } => {
                self.up_again(side, broker);
            }
            What::FreezeTwinlog { .. } => self.current.process.thaw(),
            // One that is still about to end is killed by then.
            What::KillTwinlog { .. } | What::StopTwinlog { .. } => self.current.process.restart(),
            What::Partition { side, .. } => {
                world.heal(&self.current.process, self.scene.side(side));
            }
            _ => {}
        }
    }

    fn up_again(&self, side: Side, broker: i32) {
        self.scene
            .side(side)
            .cluster
            .control(|state| match state.condition(broker) {
                Condition::Stopped => state.start_broker(broker),
                Condition::Frozen => state.thaw_broker(broker),
                Condition::Up => {}
            });
    }

    /// Everything that was planned to go wrong is over.
    fn heal(&mut self, world: &mut World) {
        for side in [Side::Primary, Side::Standby] {
            let brokers = self.scene.side(side);
            brokers.cluster.control(|state| state.faults.clear_all());
            for broker in 1..=self.plan.brokers {
                self.up_again(side, broker);
            }
            world.heal_all(brokers);
        }
        for running in self.others.iter().chain([&self.current]) {
            running.process.thaw();
        }
        // Whoever has lost the flow is started again by whatever looks after it.
        world.run_for(3_000);
        let all = self.others.iter().chain([&self.current]);
        if all
            .into_iter()
            .all(|it| it.process.phase() != Phase::Running)
        {
            self.current.process.restart();
        }
        let all: Vec<Running> = self.others.iter().chain([&self.current]).cloned().collect();
        world.must("one of them has the flow", 60_000, move |world| {
            all.iter().any(|it| it.has_the_flow(world))
        });
        world.tell("plan: all is healed".to_owned());
    }

    fn move_leaders(&self, side: Side) {
        self.scene.side(side).cluster.control(|state| {
            let mut moves = Vec::new();
            for (name, topic) in &state.topics {
                for (number, partition) in &topic.partitions {
                    let others = partition.in_sync.iter().copied();
                    let next = others
                        .filter(|id| Some(*id) != partition.leader)
                        .find(|id| state.condition(*id) == Condition::Up);
                    if let Some(next) = next
                        && partition.leader.is_some()
                    {
                        moves.push((name.clone(), *number, next));
                    }
                }
            }
            for (topic, partition, to) in moves {
                state.move_leader(&topic, partition, to);
            }
        });
    }

    /// As brokers do, which forget those whose newest record is old.
    fn forget_producers(&self) {
        self.scene.target.cluster.control(|state| {
            state.options.producer_expiration_ms = FORGOTTEN_AFTER_MS;
            state.expire_producers();
            state.options.producer_expiration_ms = Options::default().producer_expiration_ms;
        });
    }

    /// Half of what is copied goes from the source.
    fn retain(&mut self) {
        for place in self.places() {
            let source = logs::read(&self.scene.source, &place);
            let target = logs::read(&self.scene.target, &place).records;
            let there: BTreeSet<&str> = target.iter().map(|it| it.name.as_str()).collect();
            // The source may have lost some of them already, to the cleaner or to this.
            let is_copied = |it: &&Record| there.contains(it.name.as_str());
            let copied = source.records.iter().take_while(is_copied).count();
            if let Some(first) = source.records.get(copied / 2).filter(|_| copied > 1) {
                let below = first.offset;
                let gone = source.records.iter().filter(|it| it.offset < below);
                let gone: Vec<_> = gone.cloned().collect();
                self.scene
                    .gone
                    .entry(place.clone())
                    .or_default()
                    .extend(gone);
                self.scene.source.cluster.control(|state| {
                    state.raise_log_start(&place.topic, place.partition, below);
                });
            }
        }
    }

    /// The cleaner runs over what has been a while in compacted topics of the source.
    fn clean(&mut self) {
        let compacted = |topic: &str| {
            let mut topics = self.plan.topics.iter();
            topics.any(|it| it.name == topic && it.sort == Sort::Compacted)
        };
        let places = self.places().into_iter();
        let places: Vec<Place> = places.filter(|it| compacted(&it.topic)).collect();
        for place in places {
            let end = logs::read(&self.scene.source, &place).end;
            self.scene.compact(&place, end * 2 / 3);
        }
    }

    /// The process that copies, if one does.
    fn owner(&self, world: &World) -> &Running {
        let mut all = self.others.iter().chain([&self.current]);
        all.rfind(|it| it.has_the_flow(world))
            .unwrap_or(&self.current)
    }

    /// Clients have ended, and all is copied or says why not.
    fn wait_until_copied(&self, world: &mut World) {
        let owner = self.owner(world).clone();
        let places = self.places();
        let (source, target) = (self.scene.source.clone(), self.scene.target.clone());
        let gone: BTreeMap<Place, BTreeSet<String>> = self
            .scene
            .gone
            .iter()
            .map(|(at, gone)| (at.clone(), gone.iter().map(|it| it.name.clone()).collect()))
            .collect();
        let is_done = move |world: &World, at: &Place| {
            let nothing = BTreeSet::new();
            let gone = gone.get(at).unwrap_or(&nothing);
            let names = |log: super::model::Log| -> Vec<String> {
                let names = log.records.into_iter().map(|it| it.name);
                names.filter(|name| !gone.contains(name)).collect()
            };
            let (from, to) = (logs::read(&source, at), logs::read(&target, at));
            let state = partition_status(world, &owner, at).map(|it| it.state);
            match state.as_deref() {
                Some("copying") => names(from) == names(to),
                state => state == Some("stopped"),
            }
        };
        world.run_for(1_000);
        let (source, all) = (self.scene.source.clone(), places.clone());
        world.must("the clients' transactions have ended", 60_000, move |_| {
            all.iter().all(|at| logs::is_stable(&source, at))
        });
        for at in places {
            let is_done = is_done.clone();
            world.run_until(CATCH_UP_MS, move |world| is_done(world, &at));
        }
        world.run_for(REST_MS);
    }

    /// How much has happened.
    fn summary(&self, world: &World) -> String {
        let markers: usize = self
            .places()
            .iter()
            .map(|at| logs::markers(&self.scene.source, at))
            .sum();
        format!(
            "{} records, {markers} transactions' ends, {} event(s), {} starts, {:?}, {} s, {:?}",
            lock(&self.notes).len(),
            self.plan.events.len(),
            self.others.len() + 1,
            self.plan.end,
            world.now_ms() / 1_000,
            world.trace(),
        )
    }

    /// What Twinlog says at the end.
    fn told(&self, world: &World) -> String {
        let mut lines = String::new();
        let status = self.owner(world).status(world);
        for flow in &status.flows {
            let _ = writeln!(lines, "Twinlog says {} {:?}", flow.state, flow.reason);
            for topic in &flow.topics {
                for it in &topic.partitions {
                    let at = Place::new(&topic.name, it.partition);
                    let (state, detail) = (&it.state, &it.detail);
                    let _ = writeln!(lines, "  {at}: {state} {:?} {detail:?}", it.lag_records);
                }
            }
            if let Some(groups) = &flow.groups {
                let (source, target) = (&groups.source, &groups.target);
                let _ = writeln!(lines, "  groups: {:?} {:?}", groups.groups, groups.waiting);
                let _ = writeln!(lines, "  watched: {source:?} {target:?}");
            }
        }
        lines
    }

    fn copied(&mut self, world: &mut World) -> Vec<Violation> {
        self.wait_until_copied(world);
        let mut found = self.judge_source();
        for place in self.places() {
            found.extend(self.judge_copy(world, &place));
        }
        // Groups of what is stopped stay where it is.
        let groups = self
            .groups()
            .filter(|(_, at)| !self.is_misplaced(world, at));
        found.extend(groups.flat_map(|(group, at)| self.scene.judge_group(&group, &at)));
        found.extend(judge_role(&[], self.scene.role()));
        found
    }

    /// Markers that were refused among steps leave their offsets to what is behind them: that must be told.
    fn judge_copy(&self, world: &World, place: &Place) -> Vec<Violation> {
        let (offsets, excuses): (_, &[_]) = match self.is_misplaced(world, place) {
            true => (Offsets::Mapped, &[MISPLACED]),
            false => (self.plan.offsets, &[]),
        };
        let owner = self.owner(world);
        self.scene.judge_copy(world, owner, place, offsets, excuses)
    }

    fn may_be_misplaced(&self) -> bool {
        self.plan.events.iter().any(|event| {
            let refused = Asked::WriteTxnMarkers;
            matches!(event.what, What::Requests { asked, .. } if asked == refused)
        })
    }

    /// Whether it may be misplaced, and says so.
    fn is_misplaced(&self, world: &World, place: &Place) -> bool {
        let reason = MISPLACED.to_owned();
        self.may_be_misplaced() && says(world, self.owner(world), place) == Says::Stopped { reason }
    }

    /// The source has what it acknowledged: or the judge is no judge.
    fn judge_source(&self) -> Vec<Violation> {
        let notes = lock(&self.notes);
        let mut found = Vec::new();
        for place in self.places() {
            let of_it: Vec<_> = notes
                .iter()
                .filter(|it| it.place == place)
                .cloned()
                .collect();
            let gone = self.scene.gone.get(&place).map_or(&[][..], Vec::as_slice);
            let log = logs::read(&self.scene.source, &place);
            let judged = judge_acks(&of_it, &place, &log, gone).into_iter();
            found.extend(judged.map(|it| Violation {
                text: format!("on the source itself: {}", it.text),
                ..it
            }));
        }
        found
    }

    fn judge_groups(&self) -> Vec<Violation> {
        let groups = self.groups();
        groups
            .flat_map(|(group, at)| self.scene.judge_group(&group, &at))
            .collect()
    }

    fn planned(&mut self, world: &mut World) -> Vec<Violation> {
        match self.fail_over(world, CutoverKind::Planned) {
            Ok(done) => {
                let mut found = self.judge_groups();
                found.extend(self.judge_loss(done.lost.unwrap_or(0)));
                found.extend(self.judge_new_primary(world));
                found.extend(judge_role(&[done.cut_over], self.scene.role()));
                found
            }
            // Groups would go on at other records there.
            Err(why) if self.may_be_misplaced() && why.contains("(misplaced)") => Vec::new(),
            Err(why) => vec![not_through(&why)],
        }
    }

    fn unplanned(&mut self, world: &mut World) -> Vec<Violation> {
        self.scene.lose_source(world);
        match self.fail_over(world, CutoverKind::Unplanned) {
            Ok(done) => {
                // Clients of a run come and go within seconds: what may be lost is no promise then, as
                // long as it isn't called proven (GUARANTEES, "A bound for bursts").
                let mut found = self.judge_loss(done.lost.unwrap_or(u64::MAX));
                found.extend(self.judge_new_primary(world));
                found.extend(judge_role(&[done.cut_over], self.scene.role()));
                found
            }
            // Groups would go on at other records there.
            Err(why) if self.may_be_misplaced() && why.contains("(misplaced)") => Vec::new(),
            Err(why) => vec![not_through(&why)],
        }
    }

    /// Gives the command, again and again until it is through.
    fn fail_over(&mut self, world: &mut World, kind: CutoverKind) -> Result<FailedOver, String> {
        let mut why = String::new();
        for number in 0..COMMANDS {
            let name = format!("operator-{number}");
            let command = process::failover(world, &name, &self.scene.text, failover_options(kind));
            if number == 0 {
                self.disturb(world, &command);
            }
            let ended = command.clone();
            let is_over = world.run_until(300_000, move |_| ended.phase() != Phase::Running);
            let outcome = command.take_result();
            let lost = match outcome {
                _ if !is_over => return Err(format!("{name} doesn't end")),
                Some(Ok(Ok((report, None)))) => {
                    report.lost.is_proven.then_some(report.lost.records)
                }
                // It was through when it died, and is refused now.
                _ if self.scene.role() == Side::Standby && number > 0 => None,
                Some(Ok(Ok((_, Some(error))) | Err(error))) => {
                    why = error.to_string();
                    world.tell(format!("{name}: {why}"));
                    world.run_for(5_000);
                    continue;
                }
                Some(Err(panic)) => return Err(panic),
                None => continue,
            };
            let cut_over = CutOver {
                at_ms: world.now_ms(),
                primary: Side::Standby,
            };
            return Ok(FailedOver { cut_over, lost });
        }
        Err(why)
    }

    /// What is planned to happen while the first command works.
    fn disturb(&mut self, world: &mut World, command: &Process<process::CutOver>) {
        let began_ms = world.now_ms();
        for (at_ms, step) in timeline(&self.plan.late) {
            let now_ms = world.now_ms();
            world.run_for((began_ms + at_ms - now_ms).max(0));
            world.tell(format!("plan: {step:?}"));
            match step {
                Step::Begins(What::KillCommand) => command.kill(),
                Step::Begins(what) => self.begins(world, what),
                Step::Ends(what) => self.ends(world, what),
            }
        }
        let brokers = &self.scene.target;
        brokers.cluster.control(|state| state.faults.clear_all());
    }

    fn judge_loss(&self, reported: u64) -> Vec<Violation> {
        let places = self.places().into_iter();
        let there: BTreeSet<String> = places
            .flat_map(|at| logs::read(&self.scene.target, &at).records)
            .map(|it| it.name)
            .collect();
        let gone = self.scene.gone.values().flatten();
        let gone: BTreeSet<&str> = gone.map(|it| it.name.as_str()).collect();
        let notes = lock(&self.notes);
        let kept = notes.iter().filter(|it| !gone.contains(it.name.as_str()));
        let kept: Vec<_> = kept.cloned().collect();
        judge_loss(reported, &kept, &there)
    }

    /// Clients write to the new primary: behind what was copied, and nothing is copied any more.
    fn judge_new_primary(&mut self, world: &mut World) -> Vec<Violation> {
        let places = self.places();
        let mut before = BTreeMap::new();
        for place in &places {
            before.insert(place.clone(), logs::read(&self.scene.target, place));
            let own = Write {
                keys: 3,
                ..Write::default()
            };
            self.scene.write(world, Side::Standby, place, 5, own);
        }
        world.run_for(REST_MS);
        let mut found = Vec::new();
        for place in &places {
            // What was copied is a piece of the source, from its begin.
            let stopped = Says::Stopped {
                reason: "failed over".to_owned(),
            };
            let mut copied = self
                .scene
                .case(place, stopped, self.plan.offsets, &["failed over"]);
            copied.found = before[place].clone();
            found.extend(judge(&copied));
            let now = logs::read(&self.scene.target, place);
            let own = self.scene.acked.iter().filter(|it| it.place == *place);
            let own: BTreeSet<&str> = own.map(|it| it.name.as_str()).collect();
            let own = now
                .records
                .iter()
                .filter(|it| own.contains(it.name.as_str()));
            let expected: Vec<Expected> = before[place]
                .records
                .iter()
                .chain(own)
                .map(|record| Expected {
                    record: record.clone(),
                    may_lack: false,
                })
                .collect();
            let here: BTreeSet<&str> = expected.iter().map(|it| it.record.name.as_str()).collect();
            let late = copied.expected.iter().map(|it| it.record.name.clone());
            let mut case = self.scene.case(
                place,
                Says::Copying { lag: Some(0) },
                Offsets::Identical,
                &[],
            );
            case.barred = late.filter(|it| !here.contains(it.as_str())).collect();
            case.expected = expected;
            found.extend(judge(&case));
            let own: Vec<_> = self
                .scene
                .acked
                .iter()
                .filter(|it| it.place == *place)
                .cloned()
                .collect();
            found.extend(judge_acks(&own, place, &now, &[]));
        }
        found
    }
}

/// A failover that is through.
struct FailedOver {
    cut_over: CutOver,
    /// What it tells that may be lost. Nothing if that isn't proven, or the command died when it was through.
    lost: Option<u64>,
}

/// All that is planned, in order of time.
fn timeline(events: &[Event]) -> Vec<(i64, Step)> {
    let mut timeline = Vec::new();
    for event in events {
        timeline.push((event.at_ms, Step::Begins(event.what)));
        if let Some(ms) = event.what.lasts_ms() {
            timeline.push((event.at_ms + ms, Step::Ends(event.what)));
        }
    }
    timeline.sort_by_key(|(at_ms, _)| *at_ms);
    timeline
}

fn not_through(why: &str) -> Violation {
    Violation {
        kind: Kind::HealthyWhileStuck,
        text: format!("the failover isn't through: {why}"),
    }
}

impl What {
    /// How long it lasts, if it isn't over at once.
    fn lasts_ms(self) -> Option<i64> {
        match self {
            Self::StopBroker { ms, .. }
            | Self::FreezeBroker { ms, .. }
            | Self::FreezeTwinlog { ms }
            | Self::KillTwinlog { ms }
            | Self::StopTwinlog { ms }
            | Self::Partition { ms, .. } => Some(ms),
            _ => None,
        }
    }
}

fn key(asked: Asked) -> ApiKey {
    match asked {
        Asked::Produce => ApiKey::Produce,
        Asked::Fetch => ApiKey::Fetch,
        Asked::ListOffsets => ApiKey::ListOffsets,
        Asked::Metadata => ApiKey::Metadata,
        Asked::WriteTxnMarkers => ApiKey::WriteTxnMarkers,
    }
}

fn action(fate: Fate) -> Action {
    match fate {
        Fate::NotLeader => Action::Refuse(ResponseError::NotLeaderOrFollower),
        Fate::NotEnoughReplicas => Action::Refuse(ResponseError::NotEnoughReplicas),
        Fate::TimedOut => Action::Refuse(ResponseError::RequestTimedOut),
        Fate::StorageError => Action::Refuse(ResponseError::KafkaStorageError),
        Fate::DelayMs(ms) => Action::Delay(ms),
        Fate::LateMs(ms) => Action::AnswerLate(ms),
        Fate::Swallow => Action::Swallow,
        Fate::SwallowAfter => Action::SwallowAfter,
        Fate::CutBefore => Action::CutBefore,
        Fate::CutAfter => Action::CutAfter,
    }
}
