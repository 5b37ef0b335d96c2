//! A simulated process: a runtime of its own, stepped by the world, which can be frozen or dropped.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{clock, tokio_seed};
use crate::memory::{HostId, Network, Stream};

/// What a process is given when it starts.
#[derive(Clone)]
pub struct Ctx {
    /// Its name.
    pub name: String,
    machine: MachineView,
    network: Network,
    host: HostId,
    stop: watch::Receiver<bool>,
}

impl Ctx {
    /// Connects to `host:port`.
    ///
    /// # Errors
    /// As the network says.
    pub async fn connect(&self, address: &str) -> io::Result<Stream> {
        self.network.connect(self.host, address).await
    }

    /// The machine on which it runs.
    pub fn machine(&self) -> &MachineView {
        &self.machine
    }

    /// Resolves when it is told to end in order.
    pub async fn told_to_stop(&self) {
        let mut stop = self.stop.clone();
        // The world ends before it can be told: so it never is.
        if stop.wait_for(|stop| *stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// A machine as one of its processes sees it.
#[derive(Clone, Debug)]
pub struct MachineView {
    name: String,
    pid: u32,
    machines: Machines,
}

impl MachineView {
    /// Tells it apart from other machines.
    pub fn host(&self) -> String {
        format!("{}/boot-1/pid:[1]", self.name)
    }

    /// The number of the process that looks.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether a process with this number runs there.
    pub fn runs(&self, pid: u32) -> bool {
        let machines = self.machines.lock();
        machines
            .get(&self.name)
            .is_some_and(|pids| pids.contains(&pid))
    }
}

/// Which processes live on which machine.
#[derive(Clone, Debug, Default)]
pub(super) struct Machines(Arc<Mutex<BTreeMap<String, BTreeSet<u32>>>>);

impl Machines {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, BTreeSet<u32>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It runs.
    Running,
    /// It is there and does nothing.
    Frozen,
    /// Its main function has returned.
    Ended,
    /// It was ended from outside.
    Killed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Freeze,
    Pause,
    Thaw,
    Kill,
    KillAfterWrites(u64),
    PowerOff,
    Restart,
    Stop,
    SkewWallMs(i64),
}

pub(super) struct Shared {
    orders: VecDeque<Order>,
    phase: Phase,
    starts: u32,
    outcome: Option<Result<Box<dyn Any + Send>, String>>,
}

/// A process as a scenario holds it. Orders are carried out before any process runs again, so a fault
/// that tells of a request can freeze or kill at that very moment.
pub struct Process<T> {
    host: HostId,
    shared: Arc<Mutex<Shared>>,
    outcome: PhantomData<fn() -> T>,
}

impl<T> Clone for Process<T> {
    fn clone(&self) -> Self {
        Self {
            host: self.host,
            shared: self.shared.clone(),
            outcome: PhantomData,
        }
    }
}

impl<T: Send + 'static> Process<T> {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn order(&self, order: Order) {
        self.lock().orders.push_back(order);
    }

    /// SIGSTOP: it doesn't run any more, while its clock does.
    pub fn freeze(&self) {
        self.order(Order::Freeze);
    }

    /// Its virtual machine is paused: afterwards its monotonic clock knows nothing of it.
    pub fn pause(&self) {
        self.order(Order::Pause);
    }

    /// It goes on after [`freeze`](Self::freeze) or [`pause`](Self::pause).
    pub fn thaw(&self) {
        self.order(Order::Thaw);
    }

    /// `kill -9`: it is gone, and the kernel closes its connections.
    pub fn kill(&self) {
        self.order(Order::Kill);
    }

    /// `kill -9` in the middle of what it does: it still writes to its connections `writes` times, and its
    /// next write doesn't happen.
    pub fn kill_after_writes(&self, writes: u64) {
        self.order(Order::KillAfterWrites(writes));
    }

    /// Its machine loses power: it is gone, and nobody tells the brokers.
    pub fn power_off(&self) {
        self.order(Order::PowerOff);
    }

    /// Starts it anew, as another process of the machine; if it still runs it is killed first.
    pub fn restart(&self) {
        self.order(Order::Restart);
    }

    /// SIGTERM: it is told to end in order.
    pub fn stop(&self) {
        self.order(Order::Stop);
    }

    /// Sets its wall clock so much ahead of the world's.
    pub fn skew_wall_ms(&self, ms: i64) {
        self.order(Order::SkewWallMs(ms));
    }

    /// What it is doing; orders count once they are carried out.
    pub fn phase(&self) -> Phase {
        self.lock().phase
    }

    /// How often it was started.
    pub fn starts(&self) -> u32 {
        self.lock().starts
    }

    /// What its main function returned, or how it panicked; once.
    pub fn take_result(&self) -> Option<Result<T, String>> {
        let outcome = self.lock().outcome.take()?;
        Some(outcome.map(|outcome| *outcome.downcast::<T>().expect("its own type")))
    }

    pub(super) fn host(&self) -> HostId {
        self.host
    }
}

type Main = Pin<Box<dyn Future<Output = Box<dyn Any + Send>> + Send>>;
type Start = Box<dyn Fn(Ctx) -> Main>;

/// A process as the world has it.
pub(super) struct Slot {
    name: String,
    machine: String,
    host: HostId,
    start: Start,
    shared: Arc<Mutex<Shared>>,
    alive: Option<Alive>,
    wall_skew_us: i64,
}

struct Alive {
    runtime: Runtime,
    main: JoinHandle<Box<dyn Any + Send>>,
    stop: watch::Sender<bool>,
    pid: u32,
    /// How far its monotonic clock is behind.
    lag_us: i64,
    frozen: Option<Frozen>,
}

#[derive(Clone, Copy)]
struct Frozen {
    since_us: i64,
    clock_runs: bool,
}

/// What starting a process needs from the world.
pub(super) struct Ground {
    pub(super) network: Network,
    pub(super) machines: Machines,
    pub(super) started: u32,
}

impl Slot {
    pub(super) fn new<T, F, Fut>(
        name: &str,
        machine: &str,
        host: HostId,
        start: F,
    ) -> (Self, Process<T>)
    where
        T: Send + 'static,
        F: Fn(Ctx) -> Fut + 'static,
        Fut: Future<Output = T> + Send + 'static,
    {
        let shared = Arc::new(Mutex::new(Shared {
            orders: VecDeque::new(),
            phase: Phase::Killed,
            starts: 0,
            outcome: None,
        }));
        let start: Start = Box::new(move |ctx| {
            let main = start(ctx);
            Box::pin(async move { Box::new(main.await) as Box<dyn Any + Send> })
        });
        let process = Process {
            host,
            shared: shared.clone(),
            outcome: PhantomData,
        };
        let slot = Self {
            name: name.to_owned(),
            machine: machine.to_owned(),
            host,
            start,
            shared,
            alive: None,
            wall_skew_us: 0,
        };
        (slot, process)
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn host(&self) -> HostId {
        self.host
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn phase(&self) -> Phase {
        self.shared().phase
    }

    pub(super) fn runs(&self) -> bool {
        self.alive
            .as_ref()
            .is_some_and(|alive| alive.frozen.is_none())
    }

    /// Carries out what was ordered; tells what it did.
    pub(super) fn obey(&mut self, ground: &mut Ground) -> Vec<String> {
        let mut done = Vec::new();
        loop {
            let order = self.shared().orders.pop_front();
            let Some(order) = order else { return done };
            done.push(format!("{}: {order:?}", self.name));
            match order {
                Order::Freeze => self.freeze(true),
                Order::Pause => self.freeze(false),
                Order::Thaw => self.thaw(),
                Order::Kill => self.kill(ground, Phase::Killed),
                Order::KillAfterWrites(writes) => ground.network.die_after(self.host, writes),
                Order::PowerOff => {
                    ground.network.lose_power(self.host);
                    self.kill(ground, Phase::Killed);
                }
                Order::Restart => {
                    self.kill(ground, Phase::Killed);
                    self.start(ground);
                }
                Order::Stop => {
                    if let Some(alive) = &self.alive {
                        let _ = alive.stop.send(true);
                    }
                }
                Order::SkewWallMs(ms) => self.wall_skew_us = ms * 1_000,
            }
        }
    }

    pub(super) fn start(&mut self, ground: &mut Ground) {
        ground.started += 1;
        let pid = 100 + ground.started;
        let (stop, told) = watch::channel(false);
        ground
            .machines
            .lock()
            .entry(self.machine.clone())
            .or_default()
            .insert(pid);
        let ctx = Ctx {
            name: self.name.clone(),
            machine: MachineView {
                name: self.machine.clone(),
                pid,
                machines: ground.machines.clone(),
            },
            network: ground.network.clone(),
            host: self.host,
            stop: told,
        };
        self.set_clocks(0);
        tokio_seed::set(ground.started);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .on_thread_park(note_idle)
            .build()
            .expect("a runtime needs nothing but memory");
        let entered = runtime.enter();
        let main = runtime.spawn((self.start)(ctx));
        drop(entered);
        self.alive = Some(Alive {
            runtime,
            main,
            stop,
            pid,
            lag_us: 0,
            frozen: None,
        });
        let mut shared = self.shared();
        shared.phase = Phase::Running;
        shared.starts += 1;
        shared.outcome = None;
    }

    fn freeze(&mut self, clock_runs: bool) {
        if let Some(alive) = &mut self.alive
            && alive.frozen.is_none()
        {
            alive.frozen = Some(Frozen {
                since_us: clock::now_us(),
                clock_runs,
            });
            self.shared().phase = Phase::Frozen;
        }
    }

    fn thaw(&mut self) {
        if let Some(alive) = &mut self.alive
            && let Some(frozen) = alive.frozen.take()
        {
            if !frozen.clock_runs {
                alive.lag_us += clock::now_us() - frozen.since_us;
            }
            self.shared().phase = Phase::Running;
        }
    }

    fn kill(&mut self, ground: &Ground, phase: Phase) {
        let Some(alive) = self.alive.take() else {
            return;
        };
        if let Some(pids) = ground.machines.lock().get_mut(&self.machine) {
            pids.remove(&alive.pid);
        }
        self.set_clocks(alive.lag_us);
        alive.runtime.shutdown_background();
        self.shared().phase = phase;
    }

    /// Lets it run until it has nothing more to do at this moment. `true` if it has ended.
    pub(super) fn step(&mut self, ground: &Ground) -> bool {
        let Some(alive) = self.alive.as_ref().filter(|alive| alive.frozen.is_none()) else {
            return false;
        };
        self.set_clocks(alive.lag_us);
        IDLE.set(0);
        alive.runtime.block_on(UntilIdle);
        if ground.network.take_death(self.host) {
            self.kill(ground, Phase::Killed);
            return true;
        }
        let Some(alive) = &self.alive else {
            return false;
        };
        if !alive.main.is_finished() {
            return false;
        }
        if let Some(mut alive) = self.alive.take() {
            let outcome = alive.runtime.block_on(&mut alive.main);
            let outcome = outcome.map_err(|error| error.to_string());
            self.alive = Some(alive);
            self.kill(ground, Phase::Ended);
            self.shared().outcome = Some(outcome);
        }
        true
    }

    fn set_clocks(&self, lag_us: i64) {
        clock::set(clock::now_us(), lag_us, self.wall_skew_us);
    }
}

thread_local! {
    static IDLE: Cell<u32> = const { Cell::new(0) };
    static ROOT: RefCell<Option<Waker>> = const { RefCell::new(None) };
}

/// So often a runtime must have found nothing to do: each time it looks at its timers, and whom one
/// wakes runs before the next.
const IDLE_ENOUGH: u32 = 3;

/// A runtime has nothing to do and would sleep: it must not, the world's clock stands.
fn note_idle() {
    IDLE.set(IDLE.get() + 1);
    ROOT.with_borrow(|root| {
        if let Some(root) = root {
            root.wake_by_ref();
        }
    });
}

struct UntilIdle;

impl Future for UntilIdle {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if IDLE.get() >= IDLE_ENOUGH {
            return Poll::Ready(());
        }
        ROOT.set(Some(context.waker().clone()));
        Poll::Pending
    }
}
