//! Looks at the copy's groups while everything happens: none is ever beyond the end of the copy.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::ledger::Ledger;
use super::load::group_of;
use super::topics::{TOPICS, Topic};
use crate::support::groups::group_client;

/// Between two looks at all groups.
const PAUSE: Duration = Duration::from_secs(2);
/// Until the next look at one that seems to be beyond.
const AGAIN: Duration = Duration::from_millis(500);
/// Looks that have to agree: a position is asked for before an end, but of two brokers.
const LOOKS: usize = 4;
/// How long an answer may take; a broker that is away has nothing to tell.
const ANSWER: Duration = Duration::from_secs(3);

/// A thread that looks.
#[derive(Debug)]
pub struct Watch {
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Looks at all groups again and again; what is wrong is in the ledger.
    pub fn start(target: &str, ledger: &Arc<Ledger>) -> Self {
        let stopping = Arc::new(AtomicBool::new(false));
        let (stop, ledger, target) = (stopping.clone(), ledger.clone(), target.to_owned());
        let thread = std::thread::spawn(move || {
            let clients = TOPICS.map(|topic| group_client(&target, &group_of(topic.name)));
            while !stop.load(Ordering::Acquire) {
                for (topic, client) in TOPICS.iter().zip(&clients) {
                    look(client, topic, &ledger);
                }
                std::thread::sleep(PAUSE);
            }
        });
        Self {
            stopping,
            thread: Some(thread),
        }
    }

    /// Ends it.
    pub fn stop(mut self) {
        self.stopping.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
    }
}

fn look(client: &BaseConsumer, topic: &Topic, ledger: &Ledger) {
    for partition in 0..topic.partitions {
        let mut seen = None;
        for _ in 0..LOOKS {
            seen = beyond(client, topic.name, partition);
            if seen.is_none() {
                break;
            }
            std::thread::sleep(AGAIN);
        }
        if let Some((position, end)) = seen {
            let group = group_of(topic.name);
            let what = format!("{group} is at {position}, and the copy ends at {end}");
            ledger.fail(format!("{}-{partition}: {what}", topic.name));
        }
    }
}

/// A position beyond an end that was asked for afterwards: both.
fn beyond(client: &BaseConsumer, topic: &str, partition: i32) -> Option<(i64, i64)> {
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, partition);
    let found = client.committed_offsets(list, ANSWER).ok()?;
    let Offset::Offset(position) = found.find_partition(topic, partition)?.offset() else {
        return None;
    };
    let (_, end) = client.fetch_watermarks(topic, partition, ANSWER).ok()?;
    (position > end).then_some((position, end))
}
