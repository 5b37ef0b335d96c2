//! A cluster: its brokers, the connections to them, and what is known about its topics.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio::time::error::Elapsed;

use super::backoff;
use super::config::ClusterConfig;
use super::connection::{Connection, Pending, RawAnswer};
use super::error::{ErrorContext, HALF_ALIVE, WireError};
use super::handshake;
use super::metadata::Metadata;
use super::news::{Looked, News, Sign};
use super::refusals::Refusals;
use super::same_answer::{Fingerprint, LastAnswer};
use super::tls;
use super::traffic::Traffic;
use super::transport::{self, ReadHalf, WriteHalf};
use crate::shell;
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
    /// Whether a broker is still there that works on a large answer.
    Alive,
    /// Who belongs to the cluster, by each broker's word: small, often, and never behind a large answer.
    Members,
}

impl Role {
    /// Those that a flow has for each broker at most, beside the lanes. State and its writes go to one broker,
    /// which may be any.
    pub const ASKING: [Self; 10] = [
        Self::Admin,
        Self::State,
        Self::StateWrites,
        Self::Read,
        Self::Slow,
        Self::Quota,
        Self::Coordinator,
        Self::Tail,
        Self::Alive,
        Self::Members,
    ];

    /// How many of these it has for each broker of its target.
    pub fn asking_target() -> usize {
        let of_target = Self::ASKING.into_iter();
        of_target.filter(|it| *it != Self::Members).count()
    }

    /// How many of these it has for each broker of its source.
    pub fn asking_source() -> usize {
        let of_source = Self::ASKING.into_iter();
        of_source.filter(|it| it.is_of_source()).count()
    }

    /// Whether its requests are questions and changes that stand for themselves: none relies on one before it on the
    /// same connection.
    fn is_of_questions(self) -> bool {
        matches!(self, Self::Admin | Self::Members | Self::Alive)
    }

    /// Whether a flow asks its source so.
    fn is_of_source(self) -> bool {
        match self {
            Self::Admin
            | Self::Read
            | Self::Fetch(_)
            | Self::Coordinator
            | Self::Tail
            | Self::Alive
            | Self::Members => true,
            Self::State | Self::StateWrites | Self::Slow | Self::Quota | Self::Produce(_) => false,
        }
    }
}

/// A broker's answer about topics.
pub(super) enum Described {
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
/// Ways there and back of a connection with TLS and SASL, and of a question on it, and some more.
const ROUND_TRIPS: u32 = 15;
/// Brokers that are asked about topics that one of them doesn't know.
const OTHERS_ASKED: usize = 6;
/// How long a bootstrap address is left in peace: it leads to a broker that is known by its id, mostly.
const BOOTSTRAP_AFTER: Duration = Duration::from_secs(5);
/// How long one that isn't connected yet may take before another one is asked beside it: who is gone says
/// nothing, and whoever is asked more than once answers the same.
const CONNECTED_AFTER: Duration = Duration::from_millis(300);
/// So often a broker whose name has several addresses is tried again at once where the one before was silent.
const ADDRESSES_TRIED: usize = 3;
/// More of what calls itself a cluster's id isn't shown.
const ID_LETTERS_MAX: usize = 100;
/// How long a description of all topics may take: a service may need milliseconds for each, and a hundred thousand
/// partitions are some seconds of work for any broker.
const LARGE_ANSWER_WITHIN: Duration = Duration::from_secs(120);
/// So often a broker that works on one is asked whether it is there.
const ALIVE_EVERY: Duration = Duration::from_secs(5);
/// See [`ANOTHER_AFTER`].
const ASKED_LAST_FOR: Duration = Duration::from_secs(10);
/// How long a broker may take at least to say whether anything has changed.
const TELLS_WITHIN: Duration = Duration::from_secs(2);

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
    /// Tells of anything new in it.
    learnt: Notify,
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
    traffic: Arc<Traffic>,
    /// How large the last answer about all topics was.
    metadata_bytes: AtomicUsize,
    sign: Sign,
    /// How many producers a partition had at most, by its leader.
    producers_most: Mutex<HashMap<Option<i32>, usize>>,
    /// How many connections were taken at its addresses.
    taken: AtomicUsize,
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
                learnt: Notify::new(),
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
                traffic: Arc::default(),
                metadata_bytes: AtomicUsize::new(0),
                sign: Sign::default(),
                producers_most: Mutex::default(),
                taken: AtomicUsize::new(0),
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

    /// What its connections have carried.
    pub fn traffic(&self) -> &Traffic {
        &self.inner.traffic
    }

    /// How many producers a partition of this leader's had at most, as far as was asked; 0 where nothing is known.
    pub(super) fn producers_most(&self, leader: Option<i32>) -> usize {
        self.most_producers().get(&leader).copied().unwrap_or(0)
    }

    /// One of its partitions has so many.
    pub(super) fn note_producers(&self, leader: Option<i32>, count: usize) {
        let mut all = self.most_producers();
        let most = all.entry(leader).or_default();
        *most = (*most).max(count);
    }

    fn most_producers(&self) -> std::sync::MutexGuard<'_, HashMap<Option<i32>, usize>> {
        let most = self.inner.producers_most.lock();
        most.unwrap_or_else(PoisonError::into_inner)
    }

    /// How many bytes an answer about all topics has.
    pub fn metadata_bytes(&self) -> usize {
        self.inner.metadata_bytes.load(Ordering::Relaxed)
    }

    /// Whether anything about its topics, configs or rights has changed, as far as it told when it was
    /// [asked](Self::ask_news).
    pub fn news(&self) -> News {
        self.inner.sign.news()
    }

    /// Asks for that: some hundred bytes. How much a broker knows doesn't matter, but it has to be the same each time. Where
    /// nobody answers in time nothing is known for a while.
    pub async fn ask_news(&self) {
        let asking = async {
            let connection = self.any_connection().await?;
            let sent = Instant::now();
            let come_to = connection.metadata_come_to().await?;
            Ok::<_, WireError>((connection.broker(), sent, come_to))
        };
        let within = self.or_longer(TELLS_WITHIN);
        let why = match tokio::time::timeout(within, asking).await {
            Ok(Ok((broker, sent, number))) => return self.inner.sign.note(broker, sent, number),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {within:?}"),
        };
        tracing::debug!(
            cluster = self.name(),
            why,
            "nobody tells whether anything has changed"
        );
    }

    /// A look at it that begins now.
    pub fn look_begins(&self) -> Looked {
        Looked {
            at: Instant::now(),
            news: self.news(),
        }
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
        self.inner.learnt.notify_waiters();
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
        let Some(found) = answered.filter(|id| !id.is_empty()) else {
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
            found: shell::one_line(found, ID_LETTERS_MAX),
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

    /// Until something else is known than this.
    pub async fn learns(&self, before: &Arc<Metadata>) {
        loop {
            let learnt = self.inner.learnt.notified();
            tokio::pin!(learnt);
            learnt.as_mut().enable();
            if !Arc::ptr_eq(before, &self.cached()) {
                return;
            }
            learnt.await;
        }
    }

    /// Asks a broker about `topics`, or about all with `None`, and returns everything that is known
    /// then. Topics are never created by asking. A topic that doesn't exist is in the answer with
    /// its error.
    ///
    /// # Errors
    /// [`WireError::Unreachable`] when no broker and no bootstrap address answers.
    pub async fn metadata(&self, topics: Option<&[String]>) -> Result<Arc<Metadata>, WireError> {
        let topics = topics.map(<[String]>::to_vec);
        let is_whole = topics.is_none();
        let asked = self.first_of("Metadata", move |cluster, broker| {
            let topics = topics.clone();
            async move { cluster.ask_metadata(broker, topics.as_deref()).await }
        });
        let (broker, took, answer) = asked.await?;
        self.note_took(took, is_whole);
        let answer = self.with_unheard(broker, answer, is_whole).await;
        let merged = self.merge(answer, is_whole);
        if broker < 0 {
            // From here on the broker is known by its id.
            self.drop_connection(broker, Role::Admin).await;
        }
        Ok(merged)
    }

    /// What is known, with what became of these topics: those that the last list of all topics lacked, and that nobody has
    /// asked for so far, are asked for by their names. Mostly there is none.
    ///
    /// A list holds what we may describe, as far as the broker that was asked knows it. Asked for by its name, a topic that is
    /// hidden from us is TOPIC_AUTHORIZATION_FAILED (`KafkaApis.handleTopicMetadataRequest`), and other brokers are asked about
    /// one that a broker doesn't know.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn describe_unlisted(
        &self,
        topics: impl IntoIterator<Item = &String>,
    ) -> Result<Arc<Metadata>, WireError> {
        let known = self.cached();
        let topics = topics.into_iter();
        let unasked =
            topics.filter(|name| !known.has_topic(name) && known.error_of(name).is_none());
        let unasked: Vec<String> = unasked.cloned().collect();
        match unasked.is_empty() {
            true => Ok(known),
            false => self.metadata(Some(&unasked)).await,
        }
    }

    /// Whether anybody is there, of a cluster that is said to be gone: somebody has to take a connection within `taken_within`.
    /// Where one does, a long line and a login have `patience`. One that was taken before says nothing of now.
    ///
    /// # Errors
    /// The outer one when nobody says anything: how long they had.
    pub async fn is_there(
        &self,
        taken_within: Duration,
        patience: Duration,
    ) -> Result<Result<Arc<Metadata>, WireError>, Duration> {
        let taken = || self.inner.taken.load(Ordering::Relaxed);
        let before = taken();
        let mut asked = std::pin::pin!(self.metadata(Some(&[])));
        if let Ok(answered) = tokio::time::timeout(taken_within, &mut asked).await {
            return Ok(answered);
        }
        if taken() == before {
            return Err(taken_within);
        }
        let left = patience.saturating_sub(taken_within);
        let answered = tokio::time::timeout(left, asked).await;
        answered.map_err(|_| taken_within.max(patience))
    }

    /// As [`Cluster::metadata`] about all topics, of a cluster that may be away: it has to say something within
    /// `patience`. If it does, a description of thousands of topics may take longer.
    ///
    /// # Errors
    /// The outer one when it says nothing.
    pub async fn metadata_if_there(
        &self,
        patience: Duration,
    ) -> Result<Result<Arc<Metadata>, WireError>, Elapsed> {
        let there = tokio::time::timeout(patience, self.metadata(Some(&[]))).await?;
        match there {
            Ok(_) => Ok(self.metadata(None).await),
            Err(error) => Ok(Err(error)),
        }
    }

    /// The first answer that anybody gives, and how long that one took. They are asked one after the other, each as
    /// soon as those before have failed or had their time ([`patience`](Self::patience)).
    async fn first_of<T, F, Fut>(
        &self,
        api: &'static str,
        ask: F,
    ) -> Result<(i32, Duration, T), WireError>
    where
        T: Send + 'static,
        F: Fn(Self, i32) -> Fut,
        Fut: Future<Output = Result<T, WireError>> + Send + 'static,
    {
        let mut attempts = 0;
        let mut last = None;
        let mut candidates = self.candidates().into_iter().peekable();
        let mut asking = JoinSet::new();
        // The newest that was asked, and when.
        let mut newest: Option<(i32, Instant)> = None;
        loop {
            if newest.is_none() {
                if let Some(broker) = candidates.next() {
                    attempts += 1;
                    newest = Some((broker, Instant::now()));
                    let asked = ask(self.clone(), broker);
                    asking.spawn(async move {
                        let began = Instant::now();
                        let answer = asked.await;
                        (broker, began.elapsed(), answer)
                    });
                } else if asking.is_empty() {
                    return Err(self.unreachable(api, attempts, last));
                }
            }
            let answered = asking.join_next();
            let answered = match (candidates.peek(), newest) {
                (Some(next), Some((asked, since))) => {
                    let until = since + self.patience(asked, *next);
                    match tokio::time::timeout_at(until, answered).await {
                        Ok(answered) => answered,
                        Err(_) if self.has_time(asked, *next, since) => continue,
                        Err(_) => {
                            self.note_slow(asked, *next, since);
                            newest = None;
                            continue;
                        }
                    }
                }
                _ => answered.await,
            };
            match answered {
                Some(Ok((broker, took, Ok(answer)))) => return Ok((broker, took, answer)),
                Some(Ok((broker, _, Err(error)))) => {
                    tracing::debug!(%error, api, "nobody answers there");
                    last = worse(last, error);
                    newest = newest.filter(|(newest, _)| *newest != broker);
                }
                Some(Err(error)) => resume_panic(error),
                None => {}
            }
        }
    }

    /// A broker may hear of a new topic half a minute after the others, and is asked all the while: that it doesn't know
    /// one doesn't say that there is none. The others are asked about those; who knows them counts.
    async fn with_unheard(&self, broker: i32, answer: Described, is_whole: bool) -> Described {
        let Described::Anew(mut response, fingerprint) = answer else {
            return answer;
        };
        let unheard = self.cached().unheard_of(&response, is_whole);
        let mut others: Vec<i32> = self.cached().brokers.keys().copied().collect();
        others.retain(|other| *other != broker);
        if unheard.is_empty() || others.is_empty() {
            return Described::Anew(response, fingerprint);
        }
        others.sort_unstable();
        let within = self.answers_within();
        let mut asking = JoinSet::new();
        for other in others.into_iter().take(OTHERS_ASKED) {
            let (cluster, topics) = (self.clone(), unheard.clone());
            let asked = async move { cluster.ask_metadata(other, Some(topics.as_slice())).await };
            asking.spawn(tokio::time::timeout(within, asked));
        }
        let mut found = HashMap::new();
        while let Some(done) = asking.join_next().await {
            let Ok(Ok(Ok(Described::Anew(other, _)))) = done else {
                continue;
            };
            let known = other.topics.into_iter().filter(|it| it.error_code == 0);
            found.extend(known.filter_map(|topic| Some((topic.name.clone()?, topic))));
        }
        if found.is_empty() {
            return Described::Anew(response, fingerprint);
        }
        tracing::debug!(
            broker,
            topics = found.len(),
            "a broker doesn't know topics that others know"
        );
        // Where others can be asked, they are.
        self.ask_last(broker);
        let is_unknown =
            |name: &Option<TopicName>| name.as_ref().is_some_and(|name| found.contains_key(name));
        response.topics.retain(|topic| !is_unknown(&topic.name));
        response.topics.extend(found.into_values());
        // It isn't what that broker said.
        Described::Anew(response, None)
    }

    /// How long the one that was asked last may take before `next` is. One that isn't connected yet has less time than
    /// one that thinks about its answer.
    fn patience(&self, asked: i32, next: i32) -> Duration {
        match self.is_connected(asked) {
            true => self.time_to_answer(next),
            false => CONNECTED_AFTER,
        }
    }

    /// Whether the one that was asked has connected meanwhile, and may take longer.
    fn has_time(&self, asked: i32, next: i32, since: Instant) -> bool {
        since + self.patience(asked, next) > Instant::now()
    }

    /// A large answer may need more over a long line, and any over one that is full: there a second question makes it
    /// worse.
    fn time_to_answer(&self, next: i32) -> Duration {
        let least = match next {
            bootstrap if bootstrap < 0 && !self.cached().brokers.is_empty() => BOOTSTRAP_AFTER,
            _ => ANOTHER_AFTER,
        };
        least.max(*self.took() * 3).min(ANOTHER_AFTER_MOST)
    }

    /// How long a broker that isn't one of many may take for a short question, for which it may have to be connected to: by
    /// the way there and back, as far as that is known, and by what else is on the line.
    pub fn answers_within(&self) -> Duration {
        answers_within(self.round_trip(), *self.took())
    }

    /// So long, or longer where a short question needs that on this line ([`answers_within`](Self::answers_within)).
    pub fn or_longer(&self, least: Duration) -> Duration {
        least.max(self.answers_within())
    }

    /// So long, or longer where a description of all topics needed that the last time.
    pub fn describes_within(&self, least: Duration) -> Duration {
        let large = (*self.took() * 3).min(LARGE_ANSWER_WITHIN);
        self.or_longer(least).max(large)
    }

    /// Until when its brokers have told our connections that are up to be quiet, for a quota; the latest of these. What
    /// others send under the same quota is held back, too.
    pub fn muted_until(&self) -> Option<Instant> {
        let slots: Vec<Slot> = self.slots().values().cloned().collect();
        let up = slots
            .iter()
            .filter_map(|slot| slot.try_lock().ok()?.clone());
        up.filter_map(|connection| connection.quiet_until_last())
            .max()
    }

    /// The longest way there and back of the connections that are up.
    fn round_trip(&self) -> Duration {
        let slots: Vec<Slot> = self.slots().values().cloned().collect();
        let trips = slots.iter().filter_map(|slot| {
            let slot = slot.try_lock().ok()?;
            let connection = slot.as_ref().filter(|it| !it.is_poisoned())?;
            Some(connection.round_trip())
        });
        trips.max().unwrap_or_default()
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

    /// One that had its time to answer and didn't is asked last for a while. One that isn't connected may only be far.
    fn note_slow(&self, broker: i32, next: i32, since: Instant) {
        if since.elapsed() >= self.time_to_answer(next) {
            self.ask_last(broker);
        }
    }

    /// For a while others are asked before it.
    pub fn ask_last(&self, broker: i32) {
        self.slow().insert(broker, Instant::now() + ASKED_LAST_FOR);
    }

    fn slow(&self) -> std::sync::MutexGuard<'_, HashMap<i32, Instant>> {
        self.inner
            .slow
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The brokers that are known, those first that are likely to answer soon.
    pub fn best_first(&self) -> Vec<i32> {
        let mut best = self.candidates();
        best.retain(|broker| *broker >= 0);
        best
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
        let answer = self.with_unheard(broker, answer, false).await;
        Ok(self.merge(answer, false))
    }

    /// The brokers that live, by the word of this one. Changes nothing of what is known.
    ///
    /// # Errors
    /// When that broker doesn't answer.
    pub async fn alive_by(&self, broker: i32) -> Result<BTreeSet<i32>, WireError> {
        // Topics don't matter here: asking for none is the smallest question.
        match self.ask_metadata(broker, Some(&[])).await? {
            Described::Anew(response, _) => {
                Ok(response.brokers.iter().map(|it| it.node_id.0).collect())
            }
            Described::AsBefore => Ok(self.cached().brokers.keys().copied().collect()),
        }
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

    /// Asks this broker about all topics, and adds what it knows.
    ///
    /// # Errors
    /// When that broker doesn't answer.
    pub async fn learn_from(&self, broker: i32) -> Result<(), WireError> {
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
        let connecting = self.first_of("connect", |cluster, broker| async move {
            cluster.connect_known(broker, Role::Admin).await
        });
        let (_, _, connection) = connecting.await?;
        Ok(connection)
    }

    /// What is wrong with the bootstrap addresses at which nobody answers within `patience`. All are tried at once.
    pub async fn bootstrap_problems(&self, patience: Duration) -> Vec<WireError> {
        let mut tasks = JoinSet::new();
        for broker in (1..)
            .take(self.inner.config.bootstrap.len())
            .map(|n: i32| -n)
        {
            let cluster = self.clone();
            tasks.spawn(async move {
                let connecting = cluster.connect_known(broker, Role::Admin);
                let connected = tokio::time::timeout(patience, connecting).await;
                cluster.drop_connection(broker, Role::Admin).await;
                let error = connected.map(Result::err).unwrap_or_else(|_| {
                    let address = cluster.address(broker);
                    let context = cluster.context(broker, address.as_deref());
                    Some(WireError::Timeout {
                        context: Arc::new(context),
                        after: patience,
                    })
                });
                (broker, error)
            });
        }
        let mut outcomes = tasks.join_all().await;
        outcomes.sort_unstable_by_key(|(broker, _)| -broker);
        let problems = outcomes.into_iter().filter_map(|(_, error)| error);
        problems.collect()
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

    /// What only the controller does didn't succeed there: whoever is named next is asked. With ZooKeeper another one may
    /// be it; with KRaft any may stand in, and one that hangs needn't.
    pub(super) fn forget_controller(&self) {
        let mut metadata = self.known();
        if metadata.controller_id >= 0 {
            Arc::make_mut(&mut metadata).controller_id = -1;
            self.inner.learnt.notify_waiters();
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
        let live = known
            .into_iter()
            .partition(|broker| self.is_connected(*broker));
        let (mut order, others): (Vec<i32>, Vec<i32>) = live;
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

    /// Whether there is a connection for questions to it.
    fn is_connected(&self, broker: i32) -> bool {
        let slot = self.slots().get(&(broker, self.questions)).cloned();
        slot.is_some_and(|slot| {
            slot.try_lock()
                .is_ok_and(|c| c.as_ref().is_some_and(|c| !c.is_poisoned()))
        })
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
        let slot_role = self.role(role);
        let slot = (broker, slot_role);
        let slot = self.slots().entry(slot).or_default().clone();
        let mut slot = slot.lock().await;
        if let Some(connection) = slot.as_ref()
            && !connection.is_poisoned()
            && connection.address() == address
            && !(slot_role.is_of_questions() && connection.is_clogged())
        {
            return Ok(connection.clone());
        }
        // Who still waits on the old one keeps it.
        *slot = None;
        if let Some(error) = self.inner.refusals.too_early(&address) {
            return Err(error);
        }
        self.wait_out(broker).await;
        match self.open(broker, &address, slot_role).await {
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

    /// Opens a connection. Where an address of the name takes it and says nothing, the next one has its turn.
    async fn open(&self, broker: i32, address: &str, role: Role) -> Result<Connection, WireError> {
        let mut tried = 1;
        loop {
            let opened = self.open_once(broker, address, role).await;
            let is_silent = opened.as_ref().is_err_and(WireError::is_silent);
            let has_another = is_silent && self.inner.config.dial.was_silent(address);
            if !has_another || tried == ADDRESSES_TRIED {
                return opened;
            }
            tried += 1;
        }
    }

    async fn open_once(
        &self,
        broker: i32,
        address: &str,
        role: Role,
    ) -> Result<Connection, WireError> {
        let config = &self.inner.config;
        let context = self.context(broker, Some(address));
        let began = Instant::now();
        let halves = transport::connect(config, address, role)
            .await
            .map_err(|error| WireError::Io {
                context: Arc::new(context.clone()),
                error: Arc::new(error),
            })?;
        self.inner.taken.fetch_add(1, Ordering::Relaxed);
        if let Some(lacks) = &config.lacks {
            return Err(WireError::Authentication {
                context: Arc::new(context),
                mechanism: config.security.mechanism(),
                message: format!("somebody answers, and nothing was sent: {lacks}"),
                hint: String::new(),
            });
        }
        let patience = handshake::patience(began.elapsed(), config.connect_timeout);
        let halves = self.inner.traffic.counted(halves, role);
        let refusals = &self.inner.refusals;
        // Without security nobody is refused, and nobody needs to wait for another.
        let secured = config.security.tls.is_some() || config.security.sasl.is_some();
        let gate = (secured && !refusals.is_trusted(address)).then(|| refusals.gate(address));
        let waits_since = Instant::now();
        let scout = match &gate {
            // Who waited for one that was accepted goes its way.
            Some(gate) => Some(gate.lock().await).filter(|_| !refusals.is_trusted(address)),
            None => None,
        };
        if let Some(error) = refusals.too_early(address) {
            return Err(error);
        }
        // Who waited for one that nobody answered needn't hear the same silence.
        if let Some(error) = refusals.silence_since(address, waits_since) {
            return Err(error);
        }
        let opened = self.introduce(halves, address, context, patience).await;
        let opened = opened.map_err(|error| refusals.or_limit(address, error, self.is_in(address)));
        match &opened {
            Ok(_) => refusals.accepted(address),
            Err(error) if error.is_refusal() => refusals.refused(address, error),
            Err(error) if error.is_silent() => refusals.silent(address, error),
            Err(_) => {}
        }
        drop(scout);
        let connection = opened?;
        self.verify_identity(broker, &connection).await?;
        Ok(connection)
    }

    /// Whether a connection of ours to this address is up.
    fn is_in(&self, address: &str) -> bool {
        let slots: Vec<Slot> = self.slots().values().cloned().collect();
        slots.iter().any(|slot| {
            let Ok(slot) = slot.try_lock() else {
                return false;
            };
            let mut connection = slot.iter();
            connection.any(|it| !it.is_poisoned() && it.address() == address)
        })
    }

    /// Asks a broker which cluster it belongs to, before anything else is asked: the smallest question that isn't
    /// answered before it is known who we are, and so the first that shows whether anybody is behind the connection.
    ///
    /// An advertised address may lead to another cluster (a forwarded port, a container's `localhost`,
    /// an address that was given away), and that one may have topics of the same names.
    async fn verify_identity(&self, broker: i32, connection: &Connection) -> Result<(), WireError> {
        let speaks = connection.version::<MetadataRequest>(METADATA_VERSION_MAX);
        if speaks.is_err() {
            // Whoever asks for metadata hears that.
            return Ok(());
        }
        // About no topic.
        let request = metadata_request(Some(&[]));
        let connect_timeout = self.inner.config.connect_timeout;
        let patience = handshake::patience(connection.round_trip(), connect_timeout);
        let asked = connection.call_with_timeout(request, METADATA_VERSION_MAX, patience);
        let answer = asked.await.map_err(|error| error.or_silent(HALF_ALIVE))?;
        if broker < 0 {
            // What it is asked next says who it is as well.
            return Ok(());
        }
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
        patience: Duration,
    ) -> Result<Connection, WireError> {
        let config = &self.inner.config;
        let security = &config.security;
        let (halves, facts) = match &security.tls {
            None => (halves, None),
            Some(settings) => {
                let securing = tls::secure(halves, settings.as_ref(), address, patience, &context);
                let (halves, facts) = securing.await?;
                (halves, Some(facts))
            }
        };
        let mut opening =
            Connection::open(halves, context, &config.client_id, config.request_timeout);
        opening.set_tls(facts);
        handshake::handshake(opening, security, patience).await
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

    pub(super) async fn ask_metadata(
        &self,
        broker: i32,
        topics: Option<&[String]>,
    ) -> Result<Described, WireError> {
        let connection = self.connect_known(broker, Role::Admin).await?;
        let request = metadata_request(topics);
        let asked = connection.start_undecoded(&request, METADATA_VERSION_MAX)?;
        let answer = match topics {
            Some(_) => asked.await?,
            None => self.as_long_as_it_lives(&connection, asked).await?,
        };
        if topics.is_none() {
            let bytes = &self.inner.metadata_bytes;
            bytes.store(answer.body.len(), Ordering::Relaxed);
        }
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

    /// Waits for a large answer. What a broker works on for long isn't told by its connection, where nothing moves
    /// meanwhile; so after the usual time it is asked on another one whether it is there. One that is may take minutes.
    async fn as_long_as_it_lives(
        &self,
        connection: &Connection,
        asked: Pending<RawAnswer>,
    ) -> Result<RawAnswer, WireError> {
        let began = Instant::now();
        let patience = self.inner.config.request_timeout;
        let mut asked = std::pin::pin!(asked.with_timeout(patience.max(LARGE_ANSWER_WITHIN)));
        let mut look_at = began + patience;
        loop {
            tokio::select! {
                answer = &mut asked => return answer,
                () = tokio::time::sleep_until(look_at) => {}
            }
            // As long as it arrives, or the broker wants silence, nobody needs to be asked.
            let silent_since = connection.waits_since().unwrap_or(began);
            if silent_since + patience > Instant::now() {
                look_at = silent_since + patience;
                continue;
            }
            let lives = tokio::select! {
                answer = &mut asked => return answer,
                lives = self.lives(connection.broker()) => lives,
            };
            if !lives {
                connection.close();
                let context = self.context(connection.broker(), Some(connection.address()));
                let after = began.elapsed();
                let context = Arc::new(context);
                return Err(WireError::Timeout { context, after }.about("Metadata", None));
            }
            look_at = Instant::now() + ALIVE_EVERY;
        }
    }

    /// Whether a broker answers on a connection of its own: opening one asks it.
    async fn lives(&self, broker: i32) -> bool {
        let opened = self.connect_known(broker, Role::Alive).await;
        self.drop_connection(broker, Role::Alive).await;
        opened.is_ok()
    }

    pub(super) fn merge(&self, answer: Described, complete: bool) -> Arc<Metadata> {
        let Described::Anew(response, fingerprint) = answer else {
            return self.cached();
        };
        let mut metadata = self.known();
        if let Some(merged) = metadata.merged(response, complete) {
            *metadata = Arc::new(merged);
            self.inner.learnt.notify_waiters();
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
                detail: match &self.inner.config.lacks {
                    Some(lacks) => format!("its address isn't known: {lacks}"),
                    None => "there is no bootstrap address".to_owned(),
                },
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

/// See [`Cluster::answers_within`].
fn answers_within(round_trip: Duration, metadata_took: Duration) -> Duration {
    let with_connecting = ANOTHER_AFTER + ROUND_TRIPS * round_trip;
    let behind_others = metadata_took * 3;
    with_connecting.max(behind_others).min(ANOTHER_AFTER_MOST)
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

/// The failure to tell of: that another cluster answers says most, and that somebody refuses us more than that somebody
/// doesn't answer.
fn worse(before: Option<WireError>, error: WireError) -> Option<WireError> {
    let is_worse = |before: &WireError| {
        let is_of_more = before.refuses_us() && !error.refuses_us() && !error.is_other_cluster();
        before.is_other_cluster() || is_of_more
    };
    before.filter(is_worse).or(Some(error))
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever adds one counts it.
    #[test]
    fn all_that_ask_are_counted() {
        let is_lane = |role: Role| match role {
            Role::Fetch(_) | Role::Produce(_) => true,
            Role::Admin
            | Role::State
            | Role::StateWrites
            | Role::Read
            | Role::Slow
            | Role::Quota
            | Role::Coordinator
            | Role::Tail
            | Role::Alive
            | Role::Members => false,
        };
        assert!(!Role::ASKING.into_iter().any(is_lane));
        let different: std::collections::HashSet<Role> = Role::ASKING.into();
        assert_eq!(different.len(), Role::ASKING.len());
        assert_eq!((Role::asking_source(), Role::asking_target()), (6, 9));
    }

    #[test]
    fn a_far_broker_has_time_to_be_connected_to() {
        let ms = Duration::from_millis;
        assert_eq!(answers_within(Duration::ZERO, Duration::ZERO), ms(1_000));
        // TCP, TLS, versions, two of SASL, who it is, and the question.
        let ways = 9;
        for round_trip in [ms(200), ms(400)] {
            assert!(answers_within(round_trip, ms(0)) > round_trip * ways);
        }
        assert_eq!(answers_within(ms(10), ms(700)), ms(2_100), "a full line");
        assert_eq!(answers_within(ms(900), ms(9_000)), ANOTHER_AFTER_MOST);
    }
}
