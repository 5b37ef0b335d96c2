//! A group of one that reads the canary's records and commits as applications do.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::KafkaError;

use super::number;
use crate::config::ClusterSection;
use crate::connect::{self, Context};
use crate::telemetry::progress::now_ms;

const POLL: Duration = Duration::from_millis(50);
/// How often it commits.
const COMMIT_EVERY: Duration = Duration::from_millis(200);

/// One record that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// Its number.
    pub number: u64,
    /// Milliseconds since the epoch.
    pub at_ms: i64,
}

/// How a reader ends.
const RUNNING: usize = 0;
const IN_ORDER: usize = 1;
const CRASHED: usize = 2;

/// A consumer in a group, until it is stopped.
pub struct Reader {
    read: Arc<Mutex<Vec<Read>>>,
    ending: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    /// Joins the group and reads from where it is, from the beginning where it is nowhere.
    ///
    /// # Errors
    /// When librdkafka refuses its settings.
    pub fn start(section: &ClusterSection, topic: &str, group: &str) -> Result<Self, KafkaError> {
        let (mut config, context) = connect::librdkafka(section);
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_committed")
            .set("allow.auto.create.topics", "false")
            // Who is killed has left soon, so that the next rehearsal can clean up.
            .set("session.timeout.ms", "6000")
            .set("heartbeat.interval.ms", "1000")
            .set("fetch.wait.max.ms", "50");
        let consumer: BaseConsumer<Context> = config.create_with_context(context)?;
        consumer.subscribe(&[topic])?;
        let read: Arc<Mutex<Vec<Read>>> = Arc::default();
        let ending = Arc::new(AtomicUsize::new(RUNNING));
        let (shared, end) = (read.clone(), ending.clone());
        let thread = std::thread::spawn(move || follow(&consumer, &shared, &end));
        Ok(Self {
            read,
            ending,
            thread: Some(thread),
        })
    }

    /// What was read so far.
    pub fn so_far(&self) -> Vec<Read> {
        let read = self.read.lock();
        read.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many records were read.
    pub fn count(&self) -> usize {
        let read = self.read.lock();
        read.unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Asks it to commit what it has read and to leave the group; doesn't wait.
    pub fn leave(&self) {
        let _ =
            self.ending
                .compare_exchange(RUNNING, IN_ORDER, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Lets it commit and leave. Blocks.
    pub fn stop(mut self) -> Vec<Read> {
        self.leave();
        self.join();
        self.so_far()
    }

    /// Ends it without a last commit, as a crash does: what it read since its last one is read
    /// again. Blocks.
    pub fn crash(mut self) -> Vec<Read> {
        self.ending.store(CRASHED, Ordering::Relaxed);
        self.join();
        self.so_far()
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.ending.store(CRASHED, Ordering::Relaxed);
        self.join();
    }
}

fn follow(consumer: &BaseConsumer<Context>, read: &Mutex<Vec<Read>>, ending: &AtomicUsize) {
    let mut committed_at = Instant::now();
    let mut is_dirty = false;
    while ending.load(Ordering::Relaxed) == RUNNING {
        if let Some(Ok(message)) = consumer.poll(POLL) {
            // Taken first, stored for the commit afterwards: never the other way round.
            if let Some(number) = message.payload().and_then(number) {
                let mut read = read.lock().unwrap_or_else(PoisonError::into_inner);
                read.push(Read {
                    number,
                    at_ms: now_ms(),
                });
            }
            is_dirty |= consumer.store_offset_from_message(&message).is_ok();
        }
        if is_dirty && committed_at.elapsed() >= COMMIT_EVERY {
            is_dirty = consumer.commit_consumer_state(CommitMode::Async).is_err();
            committed_at = Instant::now();
        }
    }
    if ending.load(Ordering::Relaxed) == IN_ORDER {
        // Nothing read is no failure; a commit that fails is read again, and the account says so.
        let _ = consumer.commit_consumer_state(CommitMode::Sync);
    }
}
