//! Writes checkpoints and heartbeats to the target.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::notes::{Encoded, Notes, in_batches};
use super::topics::{CompatTopics, partition};
use super::{Checkpoint, FormatError, Heartbeat};
use crate::batch;
use crate::telemetry::progress::now_ms;
use crate::wire::{self, Cluster, ResponseError, WireError};

/// How often heartbeats and checkpoints are written: MirrorMaker's
/// `emit.heartbeats.interval.seconds`. Its checkpoints come once a minute.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long what is noted may take to be written when the writer is told to end.
const LAST_FLUSH: Duration = Duration::from_secs(2);
/// Between attempts of the last flush.
const LAST_FLUSH_PAUSE: Duration = Duration::from_millis(100);
/// Keys and values in one batch: far below every sensible `max.message.bytes`.
const BATCH_BYTES: usize = 256 * 1024;

/// All in-sync replicas have it.
const ACKS_ALL: i16 = -1;
/// The leader has it. A lost heartbeat is followed by the next.
const ACKS_LEADER: i16 = 1;

/// Keeps the topics of [`CompatTopics`] up to date on one target, for one flow.
///
/// Memory: one key and value for each position that a group ever had in the life of this writer.
pub struct CompatWriter {
    target: Cluster,
    source_alias: String,
    target_alias: String,
    topics: CompatTopics,
    notes: Mutex<Notes>,
    /// Whether the topics are there. Heartbeats and checkpoints are written side by side, and one
    /// of them makes all topics: a second maker would take them for new ones.
    made: tokio::sync::Mutex<bool>,
}

impl CompatWriter {
    /// A writer for the flow between the clusters with these aliases. Nothing is sent before
    /// [`CompatWriter::run`].
    pub fn new(target: Cluster, source_alias: String, target_alias: String) -> Self {
        Self {
            topics: CompatTopics::new(&source_alias),
            target,
            source_alias,
            target_alias,
            notes: Mutex::default(),
            made: tokio::sync::Mutex::default(),
        }
    }

    /// Remembers a checkpoint, to be written within the next second. It replaces one of the same
    /// group and partition that isn't written yet. Never waits for the network.
    pub fn note(&self, checkpoint: Checkpoint) {
        self.notes().note(&checkpoint);
    }

    /// How many checkpoints the target doesn't surely have.
    pub fn unwritten(&self) -> usize {
        self.notes().unwritten().len()
    }

    /// Makes the topics and writes until it is cancelled; then what was noted before is written
    /// for 2 s at most. Failures are logged when they begin, change and end, and tried again a
    /// second later.
    pub async fn run(&self, cancel: CancellationToken) {
        let (ours, theirs) = match self.heartbeats() {
            Ok(heartbeats) => heartbeats,
            Err(error) => {
                tracing::error!(%error, "an alias can't be written; no checkpoints, no heartbeats");
                return;
            }
        };
        let deadline = async {
            cancel.cancelled().await;
            tokio::time::sleep(LAST_FLUSH).await;
        };
        let checkpoints = async {
            tokio::select! {
                () = self.write_checkpoints(&cancel) => {}
                () = deadline => {
                    let unwritten = self.unwritten();
                    tracing::warn!(unwritten, "ended before all checkpoints were written");
                }
            }
        };
        let heartbeats = cancel.run_until_cancelled(self.write_heartbeats(ours, theirs));
        tokio::join!(checkpoints, heartbeats);
    }

    /// What goes to `heartbeats` and to `<source>.heartbeats`.
    ///
    /// In MirrorMaker a flow writes its own heartbeats to the target. The source has those of the
    /// flow in the other direction, and they are what is mirrored: so that one names the target as
    /// its source (`MirrorMakerConfig.clusterPairs`, `MirrorHeartbeatTask`).
    fn heartbeats(&self) -> Result<(Heartbeat, Heartbeat), FormatError> {
        let (source, target) = (&self.source_alias, &self.target_alias);
        Ok((
            Heartbeat::new(source, target, 0)?,
            Heartbeat::new(target, source, 0)?,
        ))
    }

    async fn write_heartbeats(&self, ours: Heartbeat, theirs: Heartbeat) {
        let mut condition = Condition::new("heartbeats");
        let mut ticks = ticks();
        loop {
            ticks.tick().await;
            let outcome = async {
                self.make_topics().await?;
                tokio::try_join!(
                    self.beat(&self.topics.heartbeats, &ours),
                    self.beat(&self.topics.source_heartbeats, &theirs),
                )
            };
            let outcome = outcome.await.map(|_| ());
            condition.is_now(&outcome);
            self.look_whether_gone(&outcome).await;
        }
    }

    async fn beat(&self, topic: &str, heartbeat: &Heartbeat) -> Result<(), WireError> {
        let now_ms = now_ms();
        let record = (heartbeat.key(), heartbeat.clone().at(now_ms).value());
        self.produce(topic, &[record], ACKS_LEADER).await
    }

    /// Returns when it was cancelled and everything noted is written.
    async fn write_checkpoints(&self, cancel: &CancellationToken) {
        let mut condition = Condition::new("checkpoints");
        let mut ticks = ticks();
        loop {
            let last = cancel.run_until_cancelled(ticks.tick()).await.is_none();
            let outcome = self.flush().await;
            condition.is_now(&outcome);
            self.look_whether_gone(&outcome).await;
            if last && outcome.is_ok() {
                return;
            }
            if last {
                tokio::time::sleep(LAST_FLUSH_PAUSE).await;
            }
        }
    }

    async fn flush(&self) -> Result<(), WireError> {
        self.make_topics().await?;
        let records = self.notes().unwritten();
        let mut refused = Ok(());
        for batch in in_batches(&records, BATCH_BYTES) {
            let produced = self.produce(&self.topics.checkpoints, batch, ACKS_ALL);
            match produced.await {
                Ok(()) => self.notes().written(batch),
                Err(error) if error.is_retriable() => return Err(error),
                // Something about this batch, such as its size: the others may still pass.
                Err(error) => refused = Err(error),
            }
        }
        refused
    }

    async fn make_topics(&self) -> Result<(), WireError> {
        let mut made = self.made.lock().await;
        if !*made {
            let missing = self.topics.missing(&self.target).await?;
            // Before it is made: an answer that is lost on its way leaves a new topic too.
            if missing.contains(&self.topics.checkpoints) {
                self.notes().forget_written();
            }
            missing.create(&self.target).await?;
            *made = true;
        }
        Ok(())
    }

    /// What was deleted while we run is made again in the next round.
    async fn look_whether_gone(&self, outcome: &Result<(), WireError>) {
        let code = outcome.as_ref().err().and_then(WireError::server_code);
        if code == Some(ResponseError::UnknownTopicOrPartition) {
            *self.made.lock().await = false;
        }
    }

    async fn produce(&self, topic: &str, records: &[Encoded], acks: i16) -> Result<(), WireError> {
        let pairs: Vec<batch::KeyValue<'_>> = records
            .iter()
            .map(|(key, value)| (Some(key.as_slice()), Some(value.as_slice())))
            .collect();
        let batch = batch::encode_simple(&pairs, now_ms(), batch::Stamp::NONE);
        wire::produce_one(&self.target, &partition(topic), batch, acks).await?;
        Ok(())
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        // A note is replaced whole, so a panic elsewhere doesn't spoil it.
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ticks() -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Whether writing works, logged when that changes.
struct Condition {
    what: &'static str,
    /// What is wrong: the broker's code, `None` for any failure to reach one.
    failing: Option<Option<ResponseError>>,
}

/// What there is to say.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    Nothing,
    Fails,
    Works,
}

impl Condition {
    fn new(what: &'static str) -> Self {
        Self {
            what,
            failing: None,
        }
    }

    fn is_now(&mut self, outcome: &Result<(), WireError>) {
        let change = self.change(outcome.as_ref().err().map(WireError::server_code));
        match (change, outcome) {
            (Change::Fails, Err(error)) => {
                tracing::warn!(%error, "MirrorMaker {} can't be written; trying on", self.what);
            }
            (Change::Works, _) => tracing::info!("MirrorMaker {} are written again", self.what),
            _ => {}
        }
    }

    fn change(&mut self, now: Option<Option<ResponseError>>) -> Change {
        if std::mem::replace(&mut self.failing, now) == now {
            return Change::Nothing;
        }
        match now {
            Some(_) => Change::Fails,
            None => Change::Works,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_said_when_it_begins_changes_and_ends() {
        let mut condition = Condition::new("checkpoints");
        let refused = Some(Some(ResponseError::TopicAuthorizationFailed));
        let unreachable = Some(None);
        let seen = [None, unreachable, unreachable, refused, refused, None, None]
            .map(|now| condition.change(now));
        use Change::{Fails, Nothing, Works};
        let wanted = [Nothing, Fails, Nothing, Fails, Nothing, Works, Nothing];
        assert_eq!(seen, wanted);
    }
}
