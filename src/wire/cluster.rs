//! A cluster: its brokers, the connections to them, and what is known about its topics.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::backoff;
use super::config::ClusterConfig;
use super::connection::Connection;
use super::error::{ErrorContext, WireError};
use super::handshake::handshake;
use super::metadata::Metadata;
use super::refusals::Refusals;
use super::same_answer::{Fingerprint, LastAnswer};
use super::tls;
use super::transport::{self, ReadHalf, WriteHalf};
use crate::tasks::resume_panic;

/// What a connection is for. Requests on one connection wait for each other, so bulk traffic and
/// short questions use separate ones. The number is a lane: each lane is a connection of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// Short questions and changes.
    Admin,
    /// Our own state on the target, and whose turn it is: nothing else may hold that up.
    State,
    /// What is written to it: a record waits for all in-sync replicas, and whatever is asked on the same
    /// connection with it.
    StateWrites,
    /// Reads of logs while a partition is opened.
    Read,
    /// What a broker works on for long: burning a prefix, moving a log's start.
    Slow,
    /// Fetch requests that wait for data.
    Fetch(u16),
    /// Produce and marker requests.
    Produce(u16),
    /// Whether a quota holds back the answers to these: on their connection its answer would be held back, too.
    Quota,
    /// Questions to groups' coordinators, many at once.
    Coordinator,
    /// Fetches of the coordinators' log that wait for news.
    Tail,
}

/// A broker's answer about topics.
enum Described {
    /// It says what is known.
    AsBefore,
    /// It may say something new. With its fingerprint if it is about all topics.
    Anew(MetadataResponse, Option<Fingerprint>),
}

/// The last that we know. All that are spoken can ask without creating topics.
const METADATA_VERSION_MAX: i16 = 13;

/// How long the first broker may take at least for metadata before another one is asked beside it, and for how
/// long it is asked last then. A broker that hangs keeps its connections, and knows nothing of leaders
/// that moved away from it.
const ANOTHER_AFTER: Duration = Duration::from_secs(1);
/// See [`ANOTHER_AFTER`]: however long answers have taken.
const ANOTHER_AFTER_MOST: Duration = Duration::from_secs(8);
/// How long a bootstrap address is left in peace: it leads to a broker that is known by its id, mostly.
const BOOTSTRAP_AFTER: Duration = Duration::from_secs(5);
/// See [`ANOTHER_AFTER`].
const ASKED_LAST_FOR: Duration = Duration::from_secs(10);

/// A cluster. Cheap to clone; all clones share connections and knowledge.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
    /// The connections that short questions go over.
    questions: Role,
}

struct Inner {
    config: ClusterConfig,
    metadata: RwLock<Arc<Metadata>>,
    slots: Mutex<HashMap<(i32, Role), Slot>>,
    /// By broker, not by connection: one that refuses is left alone by all of them.
    backoff: Mutex<HashMap<i32, Refused>>,
    refusals: Refusals,
    /// The id that every broker of it must answer with, once it is known.
    id: Mutex<Option<String>>,
    /// The brokers at whose addresses another cluster answered last.
    misled: Mutex<HashMap<i32, WireError>>,
    /// Whose turn it is to be asked beside those that are asked anyway.
    turn: AtomicUsize,
    /// Who coordinates which group, as far as it was asked.
    coordinators: Mutex<HashMap<String, i32>>,
    /// Brokers that let a question for metadata wait, and until when they are asked last.
    slow: Mutex<HashMap<i32, Instant>>,
    /// How long the last answer about all topics took.
    metadata_took: Mutex<Duration>,
    last_answer: LastAnswer,
}

/// The place of one connection. Its lock is held while connecting, so that those who come
/// meanwhile share the outcome.
type Slot = Arc<tokio::sync::Mutex<Option<Connection>>>;

#[derive(Clone, Copy)]
struct Refused {
    failures: u32,
    not_before: Instant,
}

impl Cluster {
    /// A cluster that nobody has talked to yet.
    pub fn new(config: ClusterConfig) -> Self {
        Self {
            inner: Arc::new(Inner {
                config,
                metadata: RwLock::new(Arc::new(Metadata::empty())),
                slots: Mutex::default(),
                backoff: Mutex::default(),
                refusals: Refusals::default(),
                id: Mutex::default(),
                misled: Mutex::default(),
                turn: AtomicUsize::new(0),
                coordinators: Mutex::default(),
                slow: Mutex::default(),
                metadata_took: Mutex::default(),
                last_answer: LastAnswer::default(),
            }),
            questions: Role::Admin,
        }
    }

    /// The same cluster, whose short questions go over connections of their own: they wait for nobody
    /// else's, and hold up nobody else's.
    #[must_use]
    pub fn apart(&self, questions: Role) -> Self {
        Self {
            questions,
            ..self.clone()
        }
    }

    fn role(&self, role: Role) -> Role {
        match role {
            Role::Admin => self.questions,
            role => role,
        }
    }

    /// The user's name for it.
    pub fn name(&self) -> &str {
        &self.inner.config.name
    }

    /// How it is reached.
    pub fn config(&self) -> &ClusterConfig {
        &self.inner.config
    }

    /// Says which cluster this must be: what answers with another id isn't talked to any more. Without
    /// this the first answer decides.
    ///
    /// # Errors
    /// [`WireError::OtherCluster`] when another one has answered already.
    pub fn expect(&self, id: &str) -> Result<(), WireError> {
        let before = self.id().replace(id.to_owned());
        let Some(found) = before.filter(|before| before != id) else {
            return Ok(());
        };
        // Whatever was learnt is of the other one.
        *self.known() = Arc::new(Metadata::empty());
        let connections: Vec<Slot> = self.slots().drain().map(|(_, slot)| slot).collect();
        for slot in connections {
            if let Ok(mut slot) = slot.try_lock()
                && let Some(connection) = slot.take()
            {
                connection.close();
            }
        }
        self.coordinators().clear();
        Err(self.other_cluster(ErrorContext::cluster(self.name()), id, &found))
    }

    /// Compares the id in a broker's answer with the cluster's. Some services tell none.
    fn identify(&self, context: ErrorContext, answered: Option<&str>) -> Result<(), WireError> {
        let Some(found) = answered else {
            return Ok(());
        };
        let mut id = self.id();
        let expected = id.get_or_insert_with(|| found.to_owned());
        if expected == found {
            return Ok(());
        }
        Err(self.other_cluster(context, expected, found))
    }

    fn other_cluster(&self, context: ErrorContext, expected: &str, found: &str) -> WireError {
        WireError::OtherCluster {
            context: Arc::new(context),
            expected: expected.to_owned(),
            found: found.to_owned(),
        }
    }

    fn id(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.inner.id.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> std::sync::RwLockWriteGuard<'_, Arc<Metadata>> {
        self.inner
            .metadata
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known without asking.
    pub fn cached(&self) -> Arc<Metadata> {
        self.inner
            .metadata
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Asks a broker about `topics`, or about all with `None`, and returns everything that is known
    /// then. Topics are never created by asking. A topic that doesn't exist is in the answer with
    /// its error.
    ///
    /// # Errors
    /// [`WireError::Unreachable`] when no broker and no bootstrap address answers.
    pub async fn metadata(&self, topics: Option<&[String]>) -> Result<Arc<Metadata>, WireError> {
        let mut attempts = 0;
        let mut last = None;
        let mut candidates = self.candidates().into_iter().peekable();
        let mut asking = JoinSet::new();
        let mut asked = None;
        loop {
            if asked.is_none() {
                if let Some(broker) = candidates.next() {
                    attempts += 1;
                    asked = Some(broker);
                    let (cluster, topics) = (self.clone(), topics.map(<[String]>::to_vec));
                    asking.spawn(async move {
                        let began = Instant::now();
                        let answer = cluster.ask_metadata(broker, topics.as_deref()).await;
                        (broker, began.elapsed(), answer)
                    });
                } else if asking.is_empty() {
                    return Err(self.unreachable("Metadata", attempts, last));
                }
            }
            let answered = asking.join_next();
            let answered = match candidates.peek() {
                Some(next) => match tokio::time::timeout(self.patience(*next), answered).await {
                    Ok(answered) => answered,
                    Err(_) => {
                        self.note_slow(asked.take());
                        continue;
                    }
                },
                None => answered.await,
            };
            match answered {
                Some(Ok((broker, took, Ok(answer)))) => {
                    self.note_took(took, topics.is_none());
                    let merged = self.merge(answer, topics.is_none());
                    if broker < 0 {
                        // From here on the broker is known by its id.
                        self.drop_connection(broker, Role::Admin).await;
                    }
                    return Ok(merged);
                }
                Some(Ok((broker, _, Err(error)))) => {
                    tracing::debug!(%error, "metadata request failed");
                    last = worse(last, error);
                    asked = asked.filter(|newest| *newest != broker);
                }
                Some(Err(error)) => resume_panic(error),
                None => {}
            }
        }
    }

    /// How long those that were asked may take before `next` is. A large answer may need more over a long line,
    /// and any over one that is full: there a second question makes it worse.
    fn patience(&self, next: i32) -> Duration {
        let least = match next {
            bootstrap if bootstrap < 0 && !self.cached().brokers.is_empty() => BOOTSTRAP_AFTER,
            _ => ANOTHER_AFTER,
        };
        least.max(*self.took() * 3).min(ANOTHER_AFTER_MOST)
    }

    fn took(&self) -> std::sync::MutexGuard<'_, Duration> {
        self.inner
            .metadata_took
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A question about a few topics is another one: it only tells that the line is slow.
    fn note_took(&self, took: Duration, is_whole: bool) {
        let mut last = self.took();
        *last = match is_whole {
            true => took,
            false => took.max(*last),
        };
    }

    fn note_slow(&self, broker: Option<i32>) {
        if let Some(broker) = broker {
            self.slow().insert(broker, Instant::now() + ASKED_LAST_FOR);
        }
    }

    fn slow(&self) -> std::sync::MutexGuard<'_, HashMap<i32, Instant>> {
        self.inner
            .slow
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`Cluster::metadata`], of this broker only: nobody else is waited for.
    ///
    /// # Errors
    /// When that broker doesn't answer.
    pub async fn metadata_at(
        &self,
        broker: i32,
        topics: &[String],
    ) -> Result<Arc<Metadata>, WireError> {
        let answer = self.ask_metadata(broker, Some(topics)).await?;
        Ok(self.merge(answer, false))
    }

    /// Asks the next of the brokers that aren't asked anyway about all topics, and adds what it knows: who leads
    /// by the newest epoch stands. Nothing where there is no other.
    ///
    /// # Errors
    /// When that broker doesn't answer.
    pub async fn ask_another(&self) -> Result<(), WireError> {
        let others = self.others();
        let turn = self.inner.turn.fetch_add(1, Ordering::Relaxed);
        match turn.checked_rem(others.len()) {
            Some(at) => self.learn_from(others[at]).await,
            None => Ok(()),
        }
    }

    /// Asks all of them at once. Who doesn't answer within `patience` isn't waited for.
    pub async fn ask_others(&self, patience: Duration) {
        let mut tasks = JoinSet::new();
        for broker in self.others() {
            let cluster = self.clone();
            let asked = async move { cluster.learn_from(broker).await };
            tasks.spawn(tokio::time::timeout(patience, asked));
        }
        while let Some(done) = tasks.join_next().await {
            if let Ok(Ok(Err(error))) = done {
                tracing::debug!(%error, "a broker can't be asked who leads");
            }
        }
    }

    /// Those who aren't asked anyway.
    fn others(&self) -> Vec<i32> {
        let usual = self.candidates().first().copied();
        let mut others: Vec<i32> = self.cached().brokers.keys().copied().collect();
        others.retain(|broker| Some(*broker) != usual);
        others.sort_unstable();
        others
    }

    async fn learn_from(&self, broker: i32) -> Result<(), WireError> {
        let answer = self.ask_metadata(broker, None).await?;
        self.merge(answer, false);
        Ok(())
    }

    /// The connection to a broker for a purpose; opened when there is none or the old one failed.
    /// After a refused connection this waits a little first, then tries once. Where TLS or
    /// authentication failed a moment ago, that error comes at once and the broker isn't asked.
    ///
    /// # Errors
    /// [`WireError::NoBroker`] for an id that the cluster doesn't have, else why connecting failed.
    pub async fn connection(&self, broker: i32, role: Role) -> Result<Connection, WireError> {
        if broker >= 0 && !self.cached().brokers.contains_key(&broker) {
            // Topics don't matter here: asking for none is the smallest question.
            self.metadata(Some(&[])).await?;
        }
        self.connect_known(broker, role).await
    }

    /// A connection to any broker that can be reached.
    pub async fn any_connection(&self) -> Result<Connection, WireError> {
        let mut attempts = 0;
        let mut last = None;
        for broker in self.candidates() {
            attempts += 1;
            match self.connect_known(broker, Role::Admin).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = worse(last, error),
            }
        }
        Err(self.unreachable("connect", attempts, last))
    }

    /// A connection to the controller, or to the broker that stands in for it: with KRaft brokers
    /// name one of themselves and pass requests on.
    pub async fn controller(&self) -> Result<Connection, WireError> {
        let mut known = self.cached();
        if !known.brokers.contains_key(&known.controller_id) {
            known = self.metadata(Some(&[])).await?;
        }
        if known.brokers.contains_key(&known.controller_id) {
            self.connection(known.controller_id, Role::Admin).await
        } else {
            self.any_connection().await
        }
    }

    /// The broker that coordinates a group, as far as is known.
    pub(super) fn coordinator(&self, group: &str) -> Option<i32> {
        self.coordinators().get(group).copied()
    }

    /// Notes who coordinates a group.
    pub(super) fn set_coordinator(&self, group: &str, broker: i32) {
        self.coordinators().insert(group.to_owned(), broker);
    }

    /// Somebody else coordinates the group now.
    pub(super) fn forget_coordinator(&self, group: &str) {
        self.coordinators().remove(group);
    }

    fn coordinators(&self) -> std::sync::MutexGuard<'_, HashMap<String, i32>> {
        self.inner
            .coordinators
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes a connection for everyone who has it.
    pub async fn drop_connection(&self, broker: i32, role: Role) {
        let slot = self.slots().remove(&(broker, self.role(role)));
        if let Some(slot) = slot
            && let Some(connection) = slot.lock().await.take()
        {
            connection.close();
        }
    }

    /// Who may answer, best first: brokers with a live connection, other brokers, slow ones, then the
    /// bootstrap addresses, which have the negative ids -1, -2, ...
    fn candidates(&self) -> Vec<i32> {
        let mut known: Vec<i32> = self.cached().brokers.keys().copied().collect();
        known.sort_unstable();
        let live = |broker: &i32| {
            let slot = self.slots().get(&(*broker, self.questions)).cloned();
            slot.is_some_and(|slot| {
                slot.try_lock()
                    .is_ok_and(|c| c.as_ref().is_some_and(|c| !c.is_poisoned()))
            })
        };
        let (mut order, others): (Vec<i32>, Vec<i32>) = known.into_iter().partition(live);
        order.extend(others);
        let now = Instant::now();
        let mut slow = self.slow();
        slow.retain(|_, until| *until > now);
        order.sort_by_key(|broker| slow.contains_key(broker));
        order.extend(
            (1..)
                .take(self.inner.config.bootstrap.len())
                .map(|n: i32| -n),
        );
        order
    }

    fn address(&self, broker: i32) -> Option<String> {
        if broker >= 0 {
            return self.cached().brokers.get(&broker).map(|b| b.address());
        }
        let index = usize::try_from(-(i64::from(broker)) - 1).ok()?;
        self.inner.config.bootstrap.get(index).cloned()
    }

    async fn connect_known(&self, broker: i32, role: Role) -> Result<Connection, WireError> {
        let Some(address) = self.address(broker) else {
            return Err(WireError::NoBroker {
                context: Arc::new(self.context(broker, None)),
                detail: format!("broker {broker} isn't in the cluster's metadata"),
            });
        };
        let slot = (broker, self.role(role));
        let slot = self.slots().entry(slot).or_default().clone();
        let mut slot = slot.lock().await;
        if let Some(connection) = slot.as_ref()
            && !connection.is_poisoned()
            && connection.address() == address
        {
            return Ok(connection.clone());
        }
        *slot = None;
        if let Some(error) = self.inner.refusals.too_early(&address) {
            return Err(error);
        }
        self.wait_out(broker).await;
        match self.open(broker, &address).await {
            Ok(connection) => {
                self.backoffs().remove(&broker);
                *slot = Some(connection.clone());
                Ok(connection)
            }
            Err(error) => {
                if !error.is_refusal() {
                    self.refused(broker);
                }
                Err(error)
            }
        }
    }

    async fn open(&self, broker: i32, address: &str) -> Result<Connection, WireError> {
        let config = &self.inner.config;
        let context = self.context(broker, Some(address));
        let halves = transport::connect(config, address)
            .await
            .map_err(|error| WireError::Io {
                context: Arc::new(context.clone()),
                error: Arc::new(error),
            })?;
        let refusals = &self.inner.refusals;
        // Without security nobody is refused, and nobody needs to wait for another.
        let secured = config.security.tls.is_some() || config.security.sasl.is_some();
        let gate = (secured && !refusals.is_trusted(address)).then(|| refusals.gate(address));
        let scout = match &gate {
            // Who waited for one that was accepted goes its way.
            Some(gate) => Some(gate.lock().await).filter(|_| !refusals.is_trusted(address)),
            None => None,
        };
        if let Some(error) = refusals.too_early(address) {
            return Err(error);
        }
        let opened = self.introduce(halves, address, context).await;
        let opened = opened.map_err(|error| refusals.or_limit(address, error));
        match &opened {
            Ok(_) => refusals.accepted(address),
            Err(error) if error.is_refusal() => refusals.refused(address, error),
            Err(_) => {}
        }
        drop(scout);
        let connection = opened?;
        self.verify_identity(broker, &connection).await?;
        Ok(connection)
    }

    /// Asks a broker that the metadata named which cluster it belongs to, before anything else is asked.
    /// An advertised address may lead to another cluster (a forwarded port, a container's `localhost`,
    /// an address that was given away), and that one may have topics of the same names. A bootstrap
    /// address is only ever asked for metadata, whose answer says it.
    async fn verify_identity(&self, broker: i32, connection: &Connection) -> Result<(), WireError> {
        let is_known = self.id().is_some();
        if broker < 0 || !is_known {
            return Ok(());
        }
        // About no topic: the smallest question.
        let request = metadata_request(Some(&[]));
        let answer = connection.call(request, METADATA_VERSION_MAX).await?;
        let context = self.context(broker, Some(connection.address()));
        let is_ours = self.identify(context, answer.cluster_id.as_deref());
        let mut misled = self.misled();
        match &is_ours {
            Ok(()) => {
                misled.remove(&broker);
            }
            Err(error) => {
                connection.close();
                misled.insert(broker, error.clone());
            }
        }
        is_ours
    }

    /// Why nobody of the cluster can be talked to although it can be asked who belongs to it: each of its
    /// brokers sends us to another cluster. One alone stops only what it leads.
    pub fn all_misled(&self) -> Option<WireError> {
        let misled = self.misled();
        let known = self.cached();
        let is_all = known
            .brokers
            .keys()
            .all(|broker| misled.contains_key(broker));
        misled.values().next().filter(|_| is_all).cloned()
    }

    fn misled(&self) -> std::sync::MutexGuard<'_, HashMap<i32, WireError>> {
        self.inner
            .misled
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// TLS, versions and authentication, as far as the cluster wants them.
    async fn introduce(
        &self,
        halves: (ReadHalf, WriteHalf),
        address: &str,
        context: ErrorContext,
    ) -> Result<Connection, WireError> {
        let config = &self.inner.config;
        let security = &config.security;
        let (halves, facts) = match &security.tls {
            None => (halves, None),
            Some(settings) => {
                let timeout = config.connect_timeout;
                let securing = tls::secure(halves, settings.as_ref(), address, timeout, &context);
                let (halves, facts) = securing.await?;
                (halves, Some(facts))
            }
        };
        let mut opening =
            Connection::open(halves, context, &config.client_id, config.request_timeout);
        opening.set_tls(facts);
        handshake(opening, security).await
    }

    async fn wait_out(&self, broker: i32) {
        let not_before = self
            .backoffs()
            .get(&broker)
            .map(|refused| refused.not_before);
        if let Some(not_before) = not_before {
            tokio::time::sleep_until(not_before).await;
        }
    }

    fn refused(&self, broker: i32) {
        let config = &self.inner.config;
        let mut backoffs = self.backoffs();
        let failures = backoffs.get(&broker).map_or(0, |refused| refused.failures) + 1;
        let delay = backoff::delay(failures, config.backoff_min, config.backoff_max);
        backoffs.insert(
            broker,
            Refused {
                failures,
                not_before: Instant::now() + delay,
            },
        );
    }

    async fn ask_metadata(
        &self,
        broker: i32,
        topics: Option<&[String]>,
    ) -> Result<Described, WireError> {
        let connection = self.connect_known(broker, Role::Admin).await?;
        let request = metadata_request(topics);
        let answer = connection
            .start_undecoded(&request, METADATA_VERSION_MAX)?
            .await?;
        let fingerprint = topics
            .is_none()
            .then(|| Fingerprint::of(&answer.body, answer.version));
        if fingerprint.is_some_and(|it| self.inner.last_answer.is_in(it, &self.cached())) {
            return Ok(Described::AsBefore);
        }
        let response: MetadataResponse = connection.decode::<MetadataRequest>(answer)?;
        let context = self.context(broker, Some(connection.address()));
        if let Some(code) = ResponseError::try_from_code(response.error_code) {
            return Err(WireError::server(context, code, None).about("Metadata", None));
        }
        let is_ours = self.identify(context, response.cluster_id.as_deref());
        if is_ours.is_err() {
            self.drop_connection(broker, Role::Admin).await;
        }
        is_ours.map(|()| Described::Anew(response, fingerprint))
    }

    fn merge(&self, answer: Described, complete: bool) -> Arc<Metadata> {
        let Described::Anew(response, fingerprint) = answer else {
            return self.cached();
        };
        let mut metadata = self.known();
        if let Some(merged) = metadata.merged(response, complete) {
            *metadata = Arc::new(merged);
        }
        if let Some(fingerprint) = fingerprint.filter(|_| complete) {
            self.inner.last_answer.note(fingerprint, metadata.clone());
        }
        metadata.clone()
    }

    fn unreachable(
        &self,
        api: &'static str,
        attempts: usize,
        last: Option<WireError>,
    ) -> WireError {
        let context = Arc::new(ErrorContext::cluster(self.name()));
        match last {
            Some(last) => WireError::Unreachable {
                context,
                attempts,
                last: Box::new(last),
            }
            .about(api, None),
            None => WireError::NoBroker {
                context,
                detail: "there is no bootstrap address".to_owned(),
            },
        }
    }

    fn context(&self, broker: i32, address: Option<&str>) -> ErrorContext {
        ErrorContext {
            broker: Some(broker),
            address: address.map(str::to_owned),
            ..ErrorContext::cluster(self.name())
        }
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, HashMap<(i32, Role), Slot>> {
        self.inner
            .slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn backoffs(&self) -> std::sync::MutexGuard<'_, HashMap<i32, Refused>> {
        self.inner
            .backoff
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question about these topics, or about all with `None`.
fn metadata_request(topics: Option<&[String]>) -> MetadataRequest {
    let asked = |topic: &String| {
        let name = TopicName(StrBytes::from_string(topic.clone()));
        MetadataRequestTopic::default().with_name(Some(name))
    };
    MetadataRequest::default()
        .with_topics(topics.map(|topics| topics.iter().map(asked).collect()))
        .with_allow_auto_topic_creation(false)
}

/// The failure to tell of: that another cluster answers says more than that somebody doesn't.
fn worse(before: Option<WireError>, error: WireError) -> Option<WireError> {
    before.filter(WireError::is_other_cluster).or(Some(error))
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}
