//! A network in memory between simulated processes and fake brokers: bytes arrive in order, after a
//! delay, or while a path is cut off not at all. All of it happens in the order of simulated time.

mod path;
mod stream;
mod trace;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use bytes::Bytes;

use crate::cluster::Cluster;
use crate::connection::Connection;
use crate::state::Condition;
use crate::world::clock;

pub use path::{Connects, Path};
pub use stream::{Reader, Stream, Writer};
pub use trace::Trace;

/// Bytes that may be on their way to a broker before writing waits, as in a socket's buffers.
const ON_THE_WAY_MAX: usize = 4 * 1024 * 1024;
/// What goes over a line of some rate, or of little in flight, goes in pieces of this size.
const PIECE_BYTES: usize = 4 * 1024;
/// What a client that has gone left at a broker is worked on for so long at most.
const LEFT_BEHIND_US: i64 = 120_000_000;

/// Names a simulated process on the network; it keeps its number when it is started again.
pub type HostId = u32;
type LinkId = u64;

/// The network. Clones are the same one.
#[derive(Clone)]
pub struct Network {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    hosts: Vec<Host>,
    clusters: Vec<Member>,
    /// `host:port` to the cluster's number and the broker.
    addresses: BTreeMap<String, (usize, i32)>,
    links: BTreeMap<LinkId, Link>,
    links_made: LinkId,
    events: BTreeMap<(i64, u64), Event>,
    events_made: u64,
    paths: BTreeMap<(HostId, usize), Path>,
    /// Until when the lines between processes and clusters are busy: to the brokers, and back.
    busy_until_us: BTreeMap<(HostId, usize), [i64; 2]>,
    woken: BTreeSet<HostId>,
    chance: u64,
    trace: Trace,
}

struct Host {
    name: String,
    /// It dies when it has written so often more.
    writes_left: Option<u64>,
    has_died: bool,
}

struct Member {
    name: String,
    cluster: Cluster,
    seen: Seen,
    path: Path,
    traffic: Traffic,
    by_api: BTreeMap<i16, Spent>,
}

/// What has gone to a cluster so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Connections that were made.
    pub connections: u64,
    /// Bytes that arrived at its brokers.
    pub to_brokers: u64,
    /// Bytes that its brokers sent.
    pub to_clients: u64,
}

/// What questions of one kind have cost, with what frames them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// So often it was asked.
    pub requests: u64,
    /// Bytes of the questions.
    pub to_brokers: u64,
    /// Bytes of the answers.
    pub to_clients: u64,
}

/// What a cluster was like when its connections were looked at last.
#[derive(Default, PartialEq, Eq)]
struct Seen {
    changes: u64,
    /// Which brokers can be talked to, and as which cluster: every connection depends on it.
    brokers: (u64, Vec<Condition>),
}

impl Seen {
    fn of(cluster: &Cluster) -> Self {
        Self {
            changes: cluster.changes(),
            brokers: cluster.look(|state| {
                let conditions = state.brokers.values().map(|broker| broker.condition);
                (state.generation, conditions.collect())
            }),
        }
    }
}

/// One connection, both of its ends.
struct Link {
    host: HostId,
    cluster: usize,
    broker: i32,
    /// The broker's end.
    far: Option<Connection>,
    /// When that wants to be looked at, in the brokers' milliseconds.
    wake_at_ms: Option<i64>,
    phase: Phase,
    /// What the client hasn't read yet.
    inbox: VecDeque<Bytes>,
    reader: Option<Waker>,
    writer: Option<Waker>,
    on_the_way: usize,
    last_to_broker_us: i64,
    last_to_client_us: i64,
    /// What the broker may not send yet, and what it has sent and doesn't know to have arrived.
    outbox: VecDeque<Bytes>,
    way_back: usize,
    /// It closes the connection behind that.
    closes: bool,
    /// What arrived at a path that was cut off, in order.
    held_to_broker: Vec<Event>,
    held_to_client: Vec<Event>,
    requests: trace::Frames,
    answers: trace::Frames,
    /// What was asked and isn't answered yet, by the request's number.
    asked: BTreeMap<i32, i16>,
}

/// The client's end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Open,
    Refused,
    /// The broker has closed it.
    Ended,
    /// Cut: both ends see it.
    Reset,
    /// The client has gone, at this time.
    Gone(i64),
}

/// What arrives somewhere.
enum Event {
    Connect(LinkId),
    ToBroker(LinkId, Bytes),
    ClientClosed(LinkId),
    Connected(LinkId, bool),
    ToClient(LinkId, Bytes),
    /// So many bytes have arrived at the broker.
    Taken(LinkId, usize),
    /// So many bytes have arrived at the client.
    Given(LinkId, usize),
    BrokerClosed(LinkId),
}

impl Event {
    fn link(&self) -> LinkId {
        match self {
            Self::Connect(id)
            | Self::ToBroker(id, _)
            | Self::ClientClosed(id)
            | Self::Connected(id, _)
            | Self::ToClient(id, _)
            | Self::Taken(id, _)
            | Self::Given(id, _)
            | Self::BrokerClosed(id) => *id,
        }
    }

    fn is_to_broker(&self) -> bool {
        matches!(
            self,
            Self::Connect(_) | Self::ToBroker(..) | Self::Given(..) | Self::ClientClosed(_)
        )
    }
}

impl Network {
    pub(crate) fn new(seed: u64) -> Self {
        let inner = Inner {
            chance: seed ^ 0x6a09_e667_f3bc_c909,
            ..Inner::default()
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // What failed is told by who failed, not by everybody after him.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add_host(&self, name: &str) -> HostId {
        let mut inner = self.lock();
        inner.hosts.push(Host {
            name: name.to_owned(),
            writes_left: None,
            has_died: false,
        });
        HostId::try_from(inner.hosts.len() - 1).expect("few processes")
    }

    /// Gives the brokers names of their own and listens there. Returns the cluster's number.
    pub(crate) fn add_cluster(&self, name: &str, cluster: &Cluster) -> usize {
        let names = cluster.control(|state| {
            let mut names = Vec::new();
            for (id, broker) in &mut state.brokers {
                broker.host = format!("{name}-{id}.kafka");
                names.push((format!("{}:{}", broker.host, broker.port), *id));
            }
            // Nothing has happened since 1970.
            state.now_ms = clock::broker_ms(clock::now_us());
            names
        });
        let mut inner = self.lock();
        let number = inner.clusters.len();
        inner.clusters.push(Member {
            name: name.to_owned(),
            cluster: cluster.clone(),
            seen: Seen::default(),
            path: Path::default(),
            traffic: Traffic::default(),
            by_api: BTreeMap::new(),
        });
        for (address, broker) in names {
            inner.addresses.insert(address, (number, broker));
        }
        number
    }

    /// A broker is told to clients under another name from now on, and is reached under the old one as well.
    pub(crate) fn rename(&self, cluster: usize, broker: i32, host: &str) {
        let known = self.lock().clusters[cluster].cluster.clone();
        let address = known.control(|state| {
            let found = state.brokers.get_mut(&broker).expect("it is there");
            found.host = host.to_owned();
            format!("{host}:{}", found.port)
        });
        self.lock().addresses.insert(address, (cluster, broker));
    }

    pub(crate) fn traffic(&self, cluster: usize) -> Traffic {
        self.lock().clusters[cluster].traffic
    }

    pub(crate) fn spent(&self, cluster: usize) -> BTreeMap<String, Spent> {
        let inner = self.lock();
        let by_api = inner.clusters[cluster].by_api.iter();
        by_api
            .map(|(key, spent)| (trace::api(*key), *spent))
            .collect()
    }

    /// Changes how a process reaches a cluster; what waited goes on when the way is free again.
    pub(crate) fn change_path(&self, host: HostId, cluster: usize, change: impl FnOnce(&mut Path)) {
        let mut inner = self.lock();
        let common = inner.clusters[cluster].path.clone();
        change(inner.paths.entry((host, cluster)).or_insert(common));
        inner.release_held();
    }

    /// Changes how all processes reach a cluster, those too that have a path of their own.
    pub(crate) fn change_paths(&self, cluster: usize, change: impl Fn(&mut Path)) {
        let mut inner = self.lock();
        change(&mut inner.clusters[cluster].path);
        for ((_, to), path) in &mut inner.paths {
            if *to == cluster {
                change(path);
            }
        }
        inner.release_held();
    }

    /// Cuts the connections of a process to a broker, or to all of the cluster: both ends see it, and
    /// what was on its way is lost.
    pub(crate) fn cut(&self, host: HostId, cluster: usize, broker: Option<i32>) {
        let mut inner = self.lock();
        let is_meant = |link: &Link| {
            (link.host, link.cluster) == (host, cluster)
                && broker.is_none_or(|broker| broker == link.broker)
                && !matches!(link.phase, Phase::Gone(_))
        };
        let cut: BTreeSet<LinkId> = inner
            .links
            .iter()
            .filter(|(_, link)| is_meant(link))
            .map(|(id, _)| *id)
            .collect();
        inner.events.retain(|_, event| !cut.contains(&event.link()));
        for id in cut {
            if let Some(link) = inner.links.get_mut(&id) {
                link.far = None;
                link.phase = Phase::Reset;
                link.held_to_broker.clear();
                link.held_to_client.clear();
                link.wake_client();
            }
            inner.woken.insert(host);
        }
    }

    /// A process sees its connections to a cluster end, and the brokers don't: they work off what they have.
    pub(crate) fn end_for_client(&self, host: HostId, cluster: usize) {
        let mut inner = self.lock();
        let is_meant =
            |link: &Link| (link.host, link.cluster, link.phase) == (host, cluster, Phase::Open);
        let links = inner.links.iter().filter(|(_, link)| is_meant(link));
        let ended: Vec<LinkId> = links.map(|(id, _)| *id).collect();
        for id in ended {
            inner.arrives_at_client(id, |link| link.phase = Phase::Ended);
        }
    }

    /// A process dies in the middle of what it does: when it has written `writes` times more, its next
    /// write doesn't happen.
    pub(crate) fn die_after(&self, host: HostId, writes: u64) {
        let host = &mut self.lock().hosts[host as usize];
        host.writes_left = Some(writes);
    }

    /// Whether a process has died at a write since this was asked last.
    pub(crate) fn take_death(&self, host: HostId) -> bool {
        let host = &mut self.lock().hosts[host as usize];
        std::mem::take(&mut host.has_died)
    }

    /// The machine of a process has lost power: its ends of the connections are gone, without a word to
    /// the brokers.
    pub(crate) fn lose_power(&self, host: HostId) {
        let mut inner = self.lock();
        let now_us = clock::now_us();
        for link in inner.links.values_mut() {
            if link.host == host && !matches!(link.phase, Phase::Gone(_)) {
                link.phase = Phase::Gone(now_us);
            }
        }
    }

    /// Processes that have got something since this was asked last, in order.
    pub(crate) fn take_woken(&self) -> BTreeSet<HostId> {
        std::mem::take(&mut self.lock().woken)
    }

    /// When something happens next: something arrives, or a broker's timer is due.
    pub(crate) fn next_us(&self) -> Option<i64> {
        let inner = self.lock();
        let event = inner.events.keys().next().map(|(at_us, _)| *at_us);
        let links = inner.links.values().filter_map(|link| link.wake_at_ms);
        let timers = inner
            .clusters
            .iter()
            .filter_map(|member| member.cluster.look(crate::state::State::next_timer_ms));
        let wake = links.chain(timers).min();
        let wake_us = wake.map(|at_ms| at_ms * 1_000 - clock::EPOCH_US);
        event.into_iter().chain(wake_us).min()
    }

    /// Lets everything happen that is due now.
    pub(crate) fn run_due(&self) {
        let now_us = clock::now_us();
        self.fire_timers(now_us);
        self.settle();
        loop {
            let event = self.lock().pop_due(now_us);
            let Some(event) = event else { break };
            self.take(event);
            self.settle();
        }
    }

    pub(crate) fn trace<T>(&self, see: impl FnOnce(&mut Trace) -> T) -> T {
        see(&mut self.lock().trace)
    }

    fn fire_timers(&self, now_us: i64) {
        let now_ms = clock::broker_ms(now_us);
        let clusters: Vec<Cluster> = self
            .lock()
            .clusters
            .iter()
            .map(|member| member.cluster.clone())
            .collect();
        for cluster in clusters {
            if cluster
                .look(crate::state::State::next_timer_ms)
                .is_some_and(|at_ms| at_ms <= now_ms)
            {
                cluster.control(|state| state.advance_to(now_ms));
            }
        }
        let due: Vec<LinkId> = self
            .lock()
            .links
            .iter()
            .filter(|(_, link)| link.wake_at_ms.is_some_and(|at_ms| at_ms <= now_ms))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            self.advance(id);
        }
    }

    fn take(&self, event: Event) {
        match event {
            Event::Connect(id) => self.accept(id),
            Event::ToBroker(id, bytes) => {
                if self.lock().arrived_at_broker(id, &bytes) {
                    self.advance(id);
                }
            }
            Event::ClientClosed(id) => {
                self.advance(id);
                self.bury(id);
            }
            Event::Connected(id, accepted) => {
                let phase = if accepted {
                    Phase::Open
                } else {
                    Phase::Refused
                };
                self.lock().arrives_at_client(id, |link| link.phase = phase);
            }
            Event::ToClient(id, bytes) => {
                let mut inner = self.lock();
                inner.given(id, bytes.len());
                inner.arrives_at_client(id, |link| link.inbox.push_back(bytes));
            }
            Event::Given(id, bytes) => self.lock().has_room_back(id, bytes),
            Event::Taken(id, bytes) => {
                self.lock().arrives_at_client(id, |link| {
                    link.on_the_way = link.on_the_way.saturating_sub(bytes)
                });
            }
            Event::BrokerClosed(id) => {
                self.lock()
                    .arrives_at_client(id, |link| link.phase = Phase::Ended);
            }
        }
    }

    /// The kernel accepts, also for a broker that is frozen; where none listens it refuses.
    fn accept(&self, id: LinkId) {
        let Some((cluster, broker)) = self.lock().end_of(id) else {
            return;
        };
        let condition = cluster.look(|state| state.condition(broker));
        let accepted = condition != Condition::Stopped;
        let far = accepted.then(|| Connection::new(&cluster, broker));
        let mut inner = self.lock();
        if let Some(link) = inner.links.get_mut(&id) {
            link.far = far;
        }
        inner.send_to_client(id, Event::Connected(id, accepted));
    }

    /// Lets the broker's end work. Nothing of the network is locked meanwhile: a fault may tell the test,
    /// which may change the network.
    fn advance(&self, id: LinkId) {
        let mut far = {
            let mut inner = self.lock();
            let Some(link) = inner.links.get_mut(&id) else {
                return;
            };
            // It says anew when it wants to be looked at; one that has ended never does, and time would
            // stand still at what it had wanted.
            link.wake_at_ms = None;
            match link.far.take() {
                Some(far) => far,
                None => return,
            }
        };
        let now_ms = clock::broker_ms(clock::now_us());
        let output = far.advance(now_ms);
        let mut inner = self.lock();
        let Some(link) = inner.links.get_mut(&id) else {
            return;
        };
        if link.phase == Phase::Reset {
            return;
        }
        // What is due and still waits does so for a change: for its broker to be thawed.
        let wake_at_ms = output.wake_at_ms.filter(|at_ms| *at_ms > now_ms);
        link.wake_at_ms = wake_at_ms.filter(|_| far.has_work());
        if !output.close {
            link.far = Some(far);
        }
        if !output.bytes.is_empty() {
            inner.answered(id, &output.bytes);
            inner.send_to_client(id, Event::ToClient(id, output.bytes));
        }
        if output.close {
            inner.send_to_client(id, Event::BrokerClosed(id));
        }
    }

    /// Where a cluster has changed everybody who waits there looks again.
    fn settle(&self) {
        loop {
            let (has_changed, links) = self.lock().concerned();
            if !has_changed {
                return;
            }
            for id in links {
                self.advance(id);
                self.bury(id);
            }
        }
    }

    /// A broker works on what a client sent before it went; then the connection is no more.
    fn bury(&self, id: LinkId) {
        let mut inner = self.lock();
        let now_us = clock::now_us();
        let Some(link) = inner.links.get(&id) else {
            return;
        };
        let Phase::Gone(since_us) = link.phase else {
            return;
        };
        let frozen = inner.clusters[link.cluster]
            .cluster
            .look(|state| state.condition(link.broker) == Condition::Frozen);
        let works = link.far.as_ref().is_some_and(Connection::has_work)
            && (link.wake_at_ms.is_some() || frozen);
        let arrives = |event: &Event| event.link() == id && event.is_to_broker();
        let expects = !link.held_to_broker.is_empty() || inner.events.values().any(arrives);
        if (!works || now_us - since_us > LEFT_BEHIND_US) && !expects {
            inner.links.remove(&id);
        }
    }
}

impl Inner {
    fn path(&self, link: &Link) -> &Path {
        self.paths
            .get(&(link.host, link.cluster))
            .unwrap_or(&self.clusters[link.cluster].path)
    }

    fn end_of(&self, id: LinkId) -> Option<(Cluster, i32)> {
        let link = self.links.get(&id)?;
        Some((self.clusters[link.cluster].cluster.clone(), link.broker))
    }

    /// Whether a cluster has changed since it was looked at, and the connections to which that may matter.
    fn concerned(&mut self) -> (bool, Vec<LinkId>) {
        let mut changed = vec![None; self.clusters.len()];
        for (at, member) in self.clusters.iter_mut().enumerate() {
            let before = std::mem::replace(&mut member.seen, Seen::of(&member.cluster));
            let concerns_all = member.seen.brokers != before.brokers;
            changed[at] = (member.seen != before).then_some(concerns_all);
        }
        let is_concerned = |link: &Link| match (changed[link.cluster], &link.far) {
            (Some(concerns_all), Some(far)) => concerns_all || far.has_work(),
            _ => false,
        };
        let links = self.links.iter().filter(|(_, link)| is_concerned(link));
        let links = links.map(|(id, _)| *id).collect();
        (changed.iter().any(Option::is_some), links)
    }

    /// A new connection sets out.
    fn connect(&mut self, host: HostId, address: &str) -> io::Result<LinkId> {
        let Some(&(cluster, broker)) = self.addresses.get(address) else {
            let message = format!("there is no {address} in this world");
            return Err(io::Error::new(io::ErrorKind::NotFound, message));
        };
        let id = self.links_made;
        self.links_made += 1;
        self.clusters[cluster].traffic.connections += 1;
        self.links
            .insert(id, Link::new(host, cluster, broker, clock::now_us()));
        match self.path(&self.links[&id]).connects {
            Connects::Work => self.send_to_broker(id, Event::Connect(id)),
            Connects::Hang => {}
            Connects::Refused => self.send_to_client(id, Event::Connected(id, false)),
        }
        Ok(id)
    }

    /// Whether a process that writes lives on to do it.
    fn lives_to_write(&mut self, host: HostId) -> bool {
        let host = &mut self.hosts[host as usize];
        match &mut host.writes_left {
            None => !host.has_died,
            Some(0) => {
                host.writes_left = None;
                host.has_died = true;
                false
            }
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }

    fn send_to_broker(&mut self, id: LinkId, event: Event) {
        match event {
            Event::ToBroker(id, bytes) => self.pieces(id, bytes, Event::ToBroker),
            event => self.send(id, event),
        }
    }

    fn send_to_client(&mut self, id: LinkId, event: Event) {
        match event {
            Event::ToClient(id, bytes) if self.is_bounded(id) => {
                if let Some(link) = self.links.get_mut(&id) {
                    link.outbox.push_back(bytes);
                }
                self.pump(id);
            }
            Event::ToClient(id, bytes) => self.pieces(id, bytes, Event::ToClient),
            Event::BrokerClosed(id)
                if self.links.get(&id).is_some_and(|it| !it.outbox.is_empty()) =>
            {
                if let Some(link) = self.links.get_mut(&id) {
                    link.closes = true;
                }
            }
            event => self.send(id, event),
        }
    }

    fn is_bounded(&self, id: LinkId) -> bool {
        let link = self.links.get(&id);
        link.is_some_and(|link| self.path(link).in_flight_bytes < ON_THE_WAY_MAX)
    }

    /// Sends of an answer what may be on the way.
    fn pump(&mut self, id: LinkId) {
        let Some(link) = self.links.get(&id) else {
            return;
        };
        let most = self.path(link).in_flight_bytes;
        loop {
            let Some(link) = self.links.get_mut(&id) else {
                return;
            };
            if link.way_back >= most {
                return;
            }
            let Some(first) = link.outbox.front_mut() else {
                break;
            };
            let piece = first.split_to(first.len().min(PIECE_BYTES));
            if first.is_empty() {
                link.outbox.pop_front();
            }
            link.way_back += piece.len();
            self.send(id, Event::ToClient(id, piece));
        }
        if self.links.get(&id).is_some_and(|link| link.closes) {
            self.send(id, Event::BrokerClosed(id));
        }
    }

    /// The client has got so much, which its broker hears of.
    fn given(&mut self, id: LinkId, bytes: usize) {
        if self.is_bounded(id) {
            self.send(id, Event::Given(id, bytes));
        } else if let Some(link) = self.links.get_mut(&id) {
            link.way_back = link.way_back.saturating_sub(bytes);
        }
    }

    fn has_room_back(&mut self, id: LinkId, bytes: usize) {
        if let Some(link) = self.links.get_mut(&id) {
            link.way_back = link.way_back.saturating_sub(bytes);
        }
        self.pump(id);
    }

    /// Sends bytes, in pieces where the way takes only so many at once.
    fn pieces(&mut self, id: LinkId, mut bytes: Bytes, event: fn(LinkId, Bytes) -> Event) {
        let Some(link) = self.links.get(&id) else {
            return;
        };
        let path = self.path(link);
        let is_whole = path.bytes_per_second.is_none() && path.in_flight_bytes >= ON_THE_WAY_MAX;
        while !is_whole && bytes.len() > PIECE_BYTES {
            let piece = bytes.split_to(PIECE_BYTES);
            self.send(id, event(id, piece));
        }
        self.send(id, event(id, bytes));
    }

    fn send(&mut self, id: LinkId, event: Event) {
        let Some(link) = self.links.get(&id) else {
            return;
        };
        let (host, cluster) = (link.host, link.cluster);
        let path = self.path(link).clone();
        let (now_us, mut chance) = (clock::now_us(), self.chance);
        let (bytes, way) = match &event {
            Event::ToBroker(_, bytes) => (bytes.len(), 0),
            Event::ToClient(_, bytes) => (bytes.len(), 1),
            event => (0, usize::from(!event.is_to_broker())),
        };
        let delay_us = match way {
            0 => path.to_broker_us(&mut chance),
            _ => path.to_client_us(&mut chance),
        };
        self.chance = chance;
        let mut leaves_us = now_us;
        if bytes > 0 && path.bytes_per_second.is_some() {
            let busy = self.busy_until_us.entry((host, cluster)).or_default();
            busy[way] = busy[way].max(leaves_us) + path.busy_us(bytes);
            leaves_us = busy[way];
        }
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        let last_us = match way {
            0 => &mut link.last_to_broker_us,
            _ => &mut link.last_to_client_us,
        };
        *last_us = (*last_us).max(leaves_us + delay_us);
        let at_us = *last_us;
        self.schedule(at_us, event);
    }

    fn schedule(&mut self, at_us: i64, event: Event) {
        self.events_made += 1;
        self.events.insert((at_us, self.events_made), event);
    }

    /// The next event that is due and gets through.
    fn pop_due(&mut self, now_us: i64) -> Option<Event> {
        loop {
            let entry = self.events.first_entry()?;
            if entry.key().0 > now_us {
                return None;
            }
            let event = entry.remove();
            let Some(link) = self.links.get(&event.link()) else {
                continue;
            };
            let path = self.path(link);
            let (blocked, is_to_broker) = (path.blocked, event.is_to_broker());
            let Some(link) = self.links.get_mut(&event.link()) else {
                continue;
            };
            let (held, is_blocked) = if is_to_broker {
                (&mut link.held_to_broker, blocked.to_broker)
            } else {
                (&mut link.held_to_client, blocked.to_client)
            };
            if is_blocked || !held.is_empty() {
                held.push(event);
                continue;
            }
            return Some(event);
        }
    }

    /// Sends on what paths that are free again held back.
    fn release_held(&mut self) {
        let ids: Vec<LinkId> = self.links.keys().copied().collect();
        for id in ids {
            let blocked = self.path(&self.links[&id]).blocked;
            let Some(link) = self.links.get_mut(&id) else {
                continue;
            };
            let mut free = Vec::new();
            if !blocked.to_broker {
                free.append(&mut link.held_to_broker);
            }
            if !blocked.to_client {
                free.append(&mut link.held_to_client);
            }
            for event in free {
                if event.is_to_broker() {
                    self.send_to_broker(id, event);
                } else {
                    self.send_to_client(id, event);
                }
            }
        }
    }

    /// Whether the broker has something to look at.
    fn arrived_at_broker(&mut self, id: LinkId, bytes: &Bytes) -> bool {
        let Some(link) = self.links.get(&id) else {
            return false;
        };
        let is_bounded = self.path(link).in_flight_bytes < ON_THE_WAY_MAX;
        self.clusters[link.cluster].traffic.to_brokers += bytes.len() as u64;
        if is_bounded {
            // What was sent counts until the sender knows that it has arrived.
            self.send_to_client(id, Event::Taken(id, bytes.len()));
        }
        let Some(link) = self.links.get_mut(&id) else {
            return false;
        };
        if !is_bounded {
            link.on_the_way = link.on_the_way.saturating_sub(bytes.len());
            if let Some(waker) = link.writer.take() {
                self.woken.insert(link.host);
                waker.wake();
            }
        }
        let Some(far) = &mut link.far else {
            return false;
        };
        far.receive(bytes);
        let frames = link.requests.take(bytes);
        let (host, cluster, broker) = (link.host, link.cluster, link.broker);
        self.trace.note(clock::now_us(), id, bytes);
        for frame in &frames {
            link.asked.insert(frame.request_number(), frame.api());
            let spent = self.clusters[cluster].by_api.entry(frame.api());
            let spent = spent.or_default();
            spent.requests += 1;
            spent.to_brokers += frame.bytes();
        }
        for frame in frames {
            let (host, cluster) = (
                &self.hosts[host as usize].name,
                &self.clusters[cluster].name,
            );
            self.trace.tell(clock::now_us(), || {
                format!("{host} -> {cluster}-{broker}: {}", frame.as_request())
            });
        }
        true
    }

    fn answered(&mut self, id: LinkId, bytes: &Bytes) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        self.clusters[link.cluster].traffic.to_clients += bytes.len() as u64;
        let frames = link.answers.take(bytes);
        let (host, cluster, broker) = (link.host, link.cluster, link.broker);
        self.trace.note(clock::now_us(), !id, bytes);
        for frame in &frames {
            // In their order; some questions have no answer.
            let later = link.asked.split_off(&(frame.answer_number() + 1));
            let answered = std::mem::replace(&mut link.asked, later).pop_last();
            if let Some((_, api)) = answered {
                let spent = self.clusters[cluster].by_api.entry(api).or_default();
                spent.to_clients += frame.bytes();
            }
        }
        for frame in frames {
            let (host, cluster) = (
                &self.hosts[host as usize].name,
                &self.clusters[cluster].name,
            );
            self.trace.tell(clock::now_us(), || {
                format!("{host} <- {cluster}-{broker}: {}", frame.as_answer())
            });
        }
    }

    fn arrives_at_client(&mut self, id: LinkId, change: impl FnOnce(&mut Link)) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        if matches!(link.phase, Phase::Gone(_) | Phase::Reset) {
            return;
        }
        change(link);
        link.wake_client();
        self.woken.insert(link.host);
    }
}

impl Link {
    fn new(host: HostId, cluster: usize, broker: i32, now_us: i64) -> Self {
        Self {
            host,
            cluster,
            broker,
            far: None,
            wake_at_ms: None,
            phase: Phase::Connecting,
            inbox: VecDeque::new(),
            reader: None,
            writer: None,
            on_the_way: 0,
            last_to_broker_us: now_us,
            last_to_client_us: now_us,
            outbox: VecDeque::new(),
            way_back: 0,
            closes: false,
            held_to_broker: Vec::new(),
            held_to_client: Vec::new(),
            requests: trace::Frames::default(),
            answers: trace::Frames::default(),
            asked: BTreeMap::new(),
        }
    }

    fn wake_client(&mut self) {
        for waker in [self.reader.take(), self.writer.take()]
            .into_iter()
            .flatten()
        {
            waker.wake();
        }
    }
}
