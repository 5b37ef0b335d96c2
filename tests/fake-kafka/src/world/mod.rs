//! Whole processes, brokers and the network between them in one thread and in simulated time.
//!
//! [`run`] gives a scenario a [`World`]. In it are clusters of this crate and processes, each with a
//! runtime of its own. Nothing waits for real time: the world goes from one moment to the next at which
//! something is due. Everything that is random comes from the seed, so a seed is a run.

mod client;
pub mod clock;
mod panics;
mod process;
mod tokio_seed;

use std::any::Any;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use crate::cluster::Cluster;
use crate::memory::{Connects, Network, Path, Spent, Trace, Traffic};
use crate::state::Options;

pub use client::{Client, Failure};
pub use process::{Ctx, MachineView, Phase, Process};

use process::{Ground, Machines, Slot};

/// Timers of processes are looked at so often while something goes on,
const TICK_US: i64 = 1_000;
/// and so often when nothing did for a while.
const QUIET_TICK_US: i64 = 5_000;
const QUIET_AFTER_US: i64 = 20_000;
/// Looking whether something is so may cost more than what happens meanwhile.
const LOOK_EVERY_US: i64 = 10_000;
/// A moment that takes longer than this in real time never ends.
const STUCK_AFTER: Duration = Duration::from_secs(60);
/// Lines of the trace that a failure shows.
const LINES_SHOWN: usize = 60;

/// A world in which a scenario plays.
pub struct World {
    seed: u64,
    chance: u64,
    now_us: i64,
    next_tick_us: i64,
    active_us: i64,
    network: Network,
    ground: Ground,
    slots: Vec<Slot>,
    clusters: Vec<Cluster>,
    panics: Vec<String>,
    panics_allowed: bool,
    moments: Arc<AtomicU64>,
}

/// Plays a scenario in a world of its own; the seed decides everything that is left to chance.
///
/// # Panics
/// When the scenario does, or a process does and the scenario doesn't allow it; the seed and the last
/// events are printed.
pub fn run<T: Send + 'static>(
    seed: u64,
    scenario: impl FnOnce(&mut World) -> T + Send + 'static,
) -> T {
    panics::watch();
    let network = Network::new(seed);
    let moments = Arc::new(AtomicU64::new(0));
    let (done, outcome) = mpsc::channel();
    let playing = {
        let (network, moments) = (network.clone(), moments.clone());
        // A thread keeps randomness for itself, such as the keys of its hash maps: each run needs its own.
        std::thread::Builder::new()
            .name(format!("world-{seed}"))
            .spawn(move || {
                clock::simulate(seed);
                let mut world = World::new(seed, network, moments);
                let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    let played = scenario(&mut world);
                    world.refuse_panics();
                    played
                }));
                world.end();
                let _ = done.send(played);
            })
            .expect("a thread starts")
    };
    let played = await_outcome(&outcome, &moments).unwrap_or_else(|stuck| {
        tell(seed, &network);
        panic!("seed {seed}: {stuck}");
    });
    // It has sent its outcome as its last act.
    let _ = playing.join();
    played.unwrap_or_else(|panic| {
        tell(seed, &network);
        std::panic::resume_unwind(panic)
    })
}

type Outcome<T> = Result<T, Box<dyn Any + Send>>;

/// Waits for a scenario, as long as its world goes from moment to moment.
fn await_outcome<T>(
    outcome: &mpsc::Receiver<Outcome<T>>,
    moments: &AtomicU64,
) -> Result<Outcome<T>, &'static str> {
    let mut seen = 0;
    loop {
        match outcome.recv_timeout(STUCK_AFTER) {
            Ok(outcome) => return Ok(outcome),
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err("the world's thread is gone"),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let now = moments.load(Ordering::Relaxed);
                if now == seen {
                    return Err("a process never comes to rest: it waits for nothing");
                }
                seen = now;
            }
        }
    }
}

fn tell(seed: u64, network: &Network) {
    let (lines, trace) = network.trace(|trace| (trace.last(LINES_SHOWN), format!("{trace:?}")));
    eprintln!("the last events of seed {seed} ({trace}):");
    for line in lines {
        eprintln!("  {line}");
    }
}

/// A cluster in a world.
#[derive(Clone)]
pub struct Brokers {
    /// What the cluster is, and what a test may do to it.
    pub cluster: Cluster,
    name: String,
    number: usize,
}

impl Brokers {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `bootstrap.servers`.
    pub fn bootstrap(&self) -> String {
        let addresses = self.cluster.look(|state| {
            let all = state.brokers.values();
            all.map(|broker| format!("{}:{}", broker.host, broker.port))
                .collect::<Vec<_>>()
        });
        addresses.join(",")
    }
}

impl World {
    fn new(seed: u64, network: Network, moments: Arc<AtomicU64>) -> Self {
        Self {
            seed,
            chance: seed ^ 0x3c6e_f372_fe94_f82b,
            now_us: 0,
            next_tick_us: 0,
            active_us: 0,
            ground: Ground {
                network: network.clone(),
                machines: Machines::default(),
                started: 0,
            },
            network,
            slots: Vec::new(),
            clusters: Vec::new(),
            panics: Vec::new(),
            panics_allowed: false,
            moments,
        }
    }

    /// What this run was started with.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Milliseconds since the world began.
    pub fn now_ms(&self) -> i64 {
        self.now_us / 1_000
    }

    /// A random number below `bound`, for the scenario's own choices.
    pub fn random(&mut self, bound: u64) -> u64 {
        clock::next_random(&mut self.chance) % bound.max(1)
    }

    /// A new cluster. Its brokers are called `<name>-<id>.kafka:9092`.
    pub fn cluster(&mut self, name: &str, mut options: Options) -> Brokers {
        if options.cluster_id == Options::default().cluster_id {
            // Two clusters with one id are one cluster to whoever copies.
            options.cluster_id = format!("{name}-cluster-id");
        }
        let cluster = Cluster::new(options);
        let number = self.network.add_cluster(name, &cluster);
        self.clusters.push(cluster.clone());
        Brokers {
            cluster,
            name: name.to_owned(),
            number,
        }
    }

    /// Starts a process on a machine of its own. `main` is called again when it is restarted.
    pub fn process<T, F, Fut>(&mut self, name: &str, main: F) -> Process<T>
    where
        T: Send + 'static,
        F: Fn(Ctx) -> Fut + 'static,
        Fut: Future<Output = T> + Send + 'static,
    {
        self.process_on(&format!("machine-of-{name}"), name, main)
    }

    /// Starts a process on a machine that others may share.
    pub fn process_on<T, F, Fut>(&mut self, machine: &str, name: &str, main: F) -> Process<T>
    where
        T: Send + 'static,
        F: Fn(Ctx) -> Fut + 'static,
        Fut: Future<Output = T> + Send + 'static,
    {
        let host = self.network.add_host(name);
        let (mut slot, process) = Slot::new(name, machine, host, main);
        slot.start(&mut self.ground);
        self.tell(format!("{name}: starts"));
        self.slots.push(slot);
        process
    }

    /// Changes how a process reaches a cluster.
    pub fn path<T: Send + 'static>(
        &self,
        process: &Process<T>,
        brokers: &Brokers,
        change: impl FnOnce(&mut Path),
    ) {
        self.network
            .change_path(process.host(), brokers.number, change);
    }

    /// A broker is told to clients under another name from now on, and is reached under the old one as well.
    pub fn rename(&self, brokers: &Brokers, broker: i32, host: &str) {
        self.network.rename(brokers.number, broker, host);
    }

    /// What has gone to a cluster so far.
    pub fn traffic(&self, brokers: &Brokers) -> Traffic {
        self.network.traffic(brokers.number)
    }

    /// The same by what was asked, without what broke off.
    pub fn spent(&self, brokers: &Brokers) -> BTreeMap<String, Spent> {
        self.network.spent(brokers.number)
    }

    /// Changes how every process reaches a cluster.
    pub fn paths(&self, brokers: &Brokers, change: impl Fn(&mut Path)) {
        self.network.change_paths(brokers.number, change);
    }

    /// Nothing passes between a process and a cluster any more, and nobody is told.
    pub fn partition<T: Send + 'static>(&self, process: &Process<T>, brokers: &Brokers) {
        self.path(process, brokers, |path| {
            path.blocked.to_broker = true;
            path.blocked.to_client = true;
        });
    }

    /// The way between a process and a cluster is free again; what was sent meanwhile arrives.
    pub fn heal<T: Send + 'static>(&self, process: &Process<T>, brokers: &Brokers) {
        self.path(process, brokers, |path| {
            path.blocked.to_broker = false;
            path.blocked.to_client = false;
            path.connects = Connects::Work;
        });
    }

    /// Every way to a cluster is free again.
    pub fn heal_all(&self, brokers: &Brokers) {
        self.paths(brokers, |path| {
            path.blocked.to_broker = false;
            path.blocked.to_client = false;
            path.connects = Connects::Work;
        });
    }

    /// Cuts a process's connections to a broker, or to all of the cluster's: both sides see it.
    pub fn cut<T: Send + 'static>(
        &self,
        process: &Process<T>,
        brokers: &Brokers,
        broker: Option<i32>,
    ) {
        self.network.cut(process.host(), brokers.number, broker);
    }

    /// As a load balancer does it: a process sees its connections to a cluster end, and the brokers work off what they
    /// have of them.
    pub fn end_for_client<T: Send + 'static>(&self, process: &Process<T>, brokers: &Brokers) {
        self.network.end_for_client(process.host(), brokers.number);
    }

    /// A panic of a process is no failure of the scenario from here on.
    pub fn allow_panics(&mut self) {
        self.panics_allowed = true;
    }

    /// How processes have panicked.
    pub fn panics(&self) -> &[String] {
        &self.panics
    }

    /// Puts a line into the trace.
    pub fn tell(&self, text: String) {
        self.network
            .trace(|trace| trace.happened(self.now_us, text));
    }

    /// What has happened so far.
    pub fn trace(&self) -> Trace {
        self.network.trace(|trace| trace.clone())
    }

    /// Lets so much time pass.
    ///
    /// # Panics
    /// When a process panics.
    pub fn run_for(&mut self, ms: i64) {
        let end_us = self.now_us + ms * 1_000;
        while self.now_us < end_us {
            self.next_moment(end_us);
        }
    }

    /// Lets time pass until something is so, `limit_ms` at most. Whether it is. It is looked at every 10 ms.
    ///
    /// # Panics
    /// When a process panics.
    pub fn run_until(&mut self, limit_ms: i64, is_so: impl Fn(&Self) -> bool) -> bool {
        let end_us = self.now_us + limit_ms * 1_000;
        self.obey();
        let mut looked_us = self.now_us;
        loop {
            if is_so(self) {
                return true;
            }
            let next_us = end_us.min(looked_us + LOOK_EVERY_US);
            while self.now_us < next_us {
                self.next_moment(next_us);
            }
            looked_us = self.now_us;
            if self.now_us >= end_us {
                return is_so(self);
            }
        }
    }

    /// [`run_until`](Self::run_until), and a failure if it doesn't come.
    ///
    /// # Panics
    /// When it doesn't become so in time, or a process panics.
    pub fn must(&mut self, what: &str, limit_ms: i64, is_so: impl Fn(&Self) -> bool) {
        assert!(
            self.run_until(limit_ms, is_so),
            "seed {}: within {limit_ms} ms it didn't happen: {what}",
            self.seed
        );
    }

    /// Waits for a process's end, `limit_ms` at most.
    ///
    /// # Panics
    /// When it doesn't end, was killed, or panicked.
    pub fn result<T: Send + 'static>(&mut self, process: &Process<T>, limit_ms: i64) -> T {
        let ended = process.clone();
        self.must("a process ends", limit_ms, move |_| {
            ended.phase() == Phase::Ended
        });
        process
            .take_result()
            .expect("nobody has taken it")
            .unwrap_or_else(|panic| panic!("seed {}: it has panicked: {panic}", self.seed))
    }

    /// Everything that happens at this moment; then the time of the next one, `end_us` at the latest.
    fn next_moment(&mut self, end_us: i64) {
        self.moments.fetch_add(1, Ordering::Relaxed);
        self.set_clocks();
        self.obey();
        loop {
            self.network.run_due();
            self.obey();
            let woken = self.network.take_woken();
            let is_tick = self.now_us >= self.next_tick_us;
            if is_tick {
                let quiet = self.now_us - self.active_us > QUIET_AFTER_US;
                self.next_tick_us = self.now_us + if quiet { QUIET_TICK_US } else { TICK_US };
            }
            if woken.is_empty() && !is_tick {
                break;
            }
            if !woken.is_empty() {
                self.active_us = self.now_us;
            }
            self.step(|slot| is_tick || woken.contains(&slot.host()));
        }
        let next_us = self.network.next_us().unwrap_or(i64::MAX);
        let next_us = next_us.min(self.next_tick_us).min(end_us);
        self.now_us = self.now_us.max(next_us);
        self.set_clocks();
    }

    fn set_clocks(&self) {
        clock::set(self.now_us, 0, 0);
    }

    fn obey(&mut self) {
        for slot in &mut self.slots {
            for done in slot.obey(&mut self.ground) {
                self.network
                    .trace(|trace| trace.happened(self.now_us, done));
                // It may have much to do: it was frozen, or it is new.
                self.next_tick_us = self.now_us;
            }
        }
        self.set_clocks();
    }

    fn step(&mut self, is_meant: impl Fn(&Slot) -> bool) {
        for slot in &mut self.slots {
            if !slot.runs() || !is_meant(slot) {
                continue;
            }
            let name = slot.name().to_owned();
            let ended = panics::of_process(&name, || slot.step(&self.ground));
            if ended {
                let text = format!("{name}: {:?}", slot.phase());
                self.network
                    .trace(|trace| trace.happened(self.now_us, text));
            }
        }
        self.set_clocks();
        self.panics.extend(panics::take());
        self.refuse_panics();
    }

    fn refuse_panics(&self) {
        assert!(
            self.panics_allowed || self.panics.is_empty(),
            "seed {}: {}",
            self.seed,
            self.panics.join("\n")
        );
    }

    /// Lets go of all processes.
    fn end(&mut self) {
        self.slots.clear();
        panics::take();
    }
}

#[cfg(test)]
mod tests;
