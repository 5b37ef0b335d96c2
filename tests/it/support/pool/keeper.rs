//! The keeper: a process that starts pairs, lends them, empties them, and ends with the run.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{FINE, Kind, Lent, Place, Wish, reset};
use crate::support::cluster::{Cluster, ClusterOptions};
use crate::support::logins;
use crate::support::scratch;
use crate::support::security::Security;
use crate::support::strict::strict;

/// The test that is the keeper.
pub(super) const TEST: &str = "support::pool::keeper::the_keeper";
/// Names the process with which the keeper ends; without it, it is no keeper.
pub(super) const OWNER: &str = "TWINLOG_TEST_POOL_OWNER";
/// Names the process that is the run, where a script runs every test as a process.
const RUN: &str = "TWINLOG_TEST_RUN";
pub(super) const SOCKET: &str = "socket";
pub(super) const LOG: &str = "keeper.log";

/// Pairs that run at the same time. The tests that run side by side want three, and each that waits takes a
/// twentieth of a core for its brokers' housekeeping.
const PAIRS_MAX: usize = 4;
/// How often the keeper looks whether the run goes on.
const OWNER_PAUSE: Duration = Duration::from_millis(200);

/// The process that a run is: its id, and when it started, since ids are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    process: u32,
    started: u64,
}

impl Owner {
    /// The script that says so, the test runner where it runs every test as a process, or this
    /// process.
    pub(super) fn of_this_run() -> Self {
        let told = std::env::var(RUN).ok();
        let process = match told.map(|id| id.parse().expect("the id of a process")) {
            Some(script) => script,
            None if std::env::var_os("NEXTEST").is_some() => std::os::unix::process::parent_id(),
            None => std::process::id(),
        };
        let started = started(process).expect("the run goes on");
        Self { process, started }
    }

    /// Where the run's keeper and its tests meet.
    pub(super) fn folder(self) -> PathBuf {
        std::env::temp_dir().join(format!("twinlog-pool-{self}"))
    }

    fn is_running(self) -> bool {
        started(self.process) == Some(self.started)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.process, self.started)
    }
}

impl FromStr for Owner {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('-').ok_or("no dash")?;
        let number = |error: std::num::ParseIntError| error.to_string();
        Ok(Self {
            process: parts.0.parse().map_err(number)?,
            started: parts.1.parse().map_err(number)?,
        })
    }
}

/// When a process was started, in ticks since the boot: field 22 of `/proc/PID/stat`, counted from
/// behind the name, which may hold anything. `None` when it is gone or a zombie.
fn started(process: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    if matches!(fields.first(), Some(&"Z" | &"X")) {
        return None;
    }
    fields.get(19)?.parse().ok()
}

#[test]
#[ignore = "it is the process that keeps the brokers of a run, and started by the first test"]
fn the_keeper() {
    let Ok(owner) = std::env::var(OWNER) else {
        return;
    };
    let owner: Owner = owner.parse().expect("we were started with the right words");
    let folder = owner.folder();
    let socket = folder.join(SOCKET);
    // Whoever starts a keeper has asked there in vain: that of a dead one is in the way only.
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).expect("our folder is writable");
    scratch::sweep_in_the_end(&folder);
    std::thread::spawn(move || {
        while owner.is_running() {
            std::thread::sleep(OWNER_PAUSE);
        }
        // The brokers die with us, and the folders are swept.
        std::process::exit(0);
    });
    let pool = Arc::new(Pool::default());
    for connection in listener.incoming().flatten() {
        let pool = pool.clone();
        std::thread::spawn(move || {
            if let Err(error) = pool.serve(&connection) {
                println!("a lease ended badly: {error}");
            }
        });
    }
}

/// A pair of clusters that runs.
#[derive(Debug)]
struct Pair {
    source: Cluster,
    target: Cluster,
}

impl Pair {
    fn start(kind: Kind) -> Self {
        let started = Instant::now();
        let (version, [source, target]) = match kind {
            Kind::Plain(version) => (version, ["source", "target"].map(ClusterOptions::named)),
            Kind::Authorized(version) => (version, ["source", "target"].map(authorized)),
            Kind::Fenceable(version) => {
                (version, [strict("source"), ClusterOptions::named("target")])
            }
            Kind::FenceableBoth(version) => (version, ["source", "target"].map(strict)),
            Kind::Secured(version) => (version, ["source", "target"].map(secured)),
        };
        let [source, target] = [source, target].map(lasting);
        // Both JVMs boot at the same time.
        let mut pair = Self {
            source: Cluster::launch(version, source),
            target: Cluster::launch(version, target),
        };
        pair.source.await_ready();
        pair.target.await_ready();
        println!("{kind:?}: started in {:?}", started.elapsed());
        pair
    }

    fn answers(&self) -> bool {
        reset::is_empty(&self.source.internal_bootstrap())
            && reset::is_empty(&self.target.internal_bootstrap())
    }

    /// # Panics
    /// When something stays, or a broker is gone.
    fn empty(&mut self) {
        for cluster in [&mut self.source, &mut self.target] {
            assert!(cluster.runs(), "a broker has ended");
        }
        std::thread::scope(|scope| {
            for cluster in [&self.source, &self.target] {
                scope.spawn(|| reset::empty(&cluster.internal_bootstrap()));
            }
        });
    }

    fn lent(&self) -> Lent {
        let place = |cluster: &Cluster| Place {
            bootstrap: cluster.bootstrap(),
            entry: logins::find(&cluster.bootstrap()),
            log: cluster.log(1),
        };
        Lent {
            source: place(&self.source),
            target: place(&self.target),
        }
    }
}

/// A broker that nobody restarts need not be missed soon: one that is, because the machine stood still for some seconds, leads
/// nothing for a moment, and coordinates no group.
fn lasting(options: ClusterOptions) -> ClusterOptions {
    options.with("broker.session.timeout.ms", 60_000)
}

fn authorized(name: &str) -> ClusterOptions {
    ClusterOptions {
        authorizer: true,
        ..ClusterOptions::named(name)
    }
}

fn secured(name: &str) -> ClusterOptions {
    ClusterOptions::secured(name, Security::of_a_pair(name))
}

/// The pairs of a run.
#[derive(Debug, Default)]
struct Pool {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Nobody's, the one that was given back first in front.
    free: Vec<(Kind, Pair)>,
    /// Soon free, by kind.
    being_emptied: BTreeMap<Kind, usize>,
    /// All that run, are starting or being emptied.
    pairs: usize,
}

impl Pool {
    /// One lease from its wish to its end.
    fn serve(&self, connection: &UnixStream) -> Result<(), String> {
        let mut wish = String::new();
        let mut reader = BufReader::new(connection);
        let read = reader.read_line(&mut wish);
        read.map_err(|error| error.to_string())?;
        let Wish(kind) = serde_json::from_str(&wish).map_err(|error| error.to_string())?;
        let pair = self.take(kind)?;
        let answer = serde_json::to_string(&pair.lent()).expect("it is JSON");
        let mut words = Vec::new();
        let end = writeln!(&*connection, "{answer}").and_then(|()| reader.read_to_end(&mut words));
        let fine = end.is_ok() && words == [FINE];
        self.give_back(kind, pair, fine);
        Ok(())
    }

    /// Waits for a pair of this kind that answers.
    fn take(&self, kind: Kind) -> Result<Pair, String> {
        while let Some(pair) = self.take_free(kind) {
            if pair.answers() {
                return Ok(pair);
            }
            println!("{kind:?}: a pair doesn't answer, or isn't empty; another is started");
            drop(pair);
            self.one_less();
        }
        catch_unwind(|| Pair::start(kind)).map_err(|_| {
            self.one_less();
            "a pair couldn't be started".to_owned()
        })
    }

    /// A free pair, or `None` as soon as there is room for another one.
    fn take_free(&self, kind: Kind) -> Option<Pair> {
        let mut state = self.state();
        loop {
            let newest = state.free.iter().rposition(|(free, _)| *free == kind);
            if let Some(at) = newest {
                return Some(state.free.remove(at).1);
            }
            // Emptying one takes a moment, starting one some seconds of both cores.
            if state.being_emptied.get(&kind).is_none_or(|many| *many == 0) {
                if state.pairs < PAIRS_MAX {
                    state.pairs += 1;
                    return None;
                }
                if !state.free.is_empty() {
                    // Who wasn't wanted for the longest time makes room.
                    drop(state.free.remove(0));
                    return None;
                }
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn give_back(&self, kind: Kind, mut pair: Pair, fine: bool) {
        let started = Instant::now();
        *self.state().being_emptied.entry(kind).or_default() += 1;
        let emptied = fine && catch_unwind(AssertUnwindSafe(|| pair.empty())).is_ok();
        let pair = if emptied {
            println!("{kind:?}: emptied in {:?}", started.elapsed());
            Some(pair)
        } else {
            println!("{kind:?}: a pair is ended (its test was fine: {fine})");
            drop(pair);
            None
        };
        let mut state = self.state();
        *state.being_emptied.entry(kind).or_default() -= 1;
        match pair {
            Some(pair) => state.free.push((kind, pair)),
            None => state.pairs -= 1,
        }
        drop(state);
        self.changed.notify_all();
    }

    fn one_less(&self) {
        self.state().pairs -= 1;
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
