//! The last look before an opening's first filler: has a marker of a dead connection landed since
//! the position was read?
//!
//! Such a marker may carry the very number that comes next, and a broker refuses only lower ones
//! (`ProducerAppendInfo.checkCoordinatorEpoch`): both would be appended, one offset too many. Between
//! the reading and the first filler may lie hours. The leader is asked for the newest number: what it tells is its
//! log's true end, not the high watermark. A log that many clients write to has millions of producers, so the answer is
//! waited for beside the lane, whose connection goes on with what others have to write.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::Item;
use super::outcome::missing_answer;
use crate::flow::error::Trouble;
use crate::flow::partition::Partition;
use crate::flow::position::Producers;
use crate::flow::work::Work;
use crate::wire::{self, Cluster, ProducerState, TopicPartition};

/// So often it is looked whether anybody still needs the answer.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Items of partitions that are looked at. Whatever becomes of the look, nobody waits for it when it is over.
pub(super) struct Looked(Vec<Item>);

impl Looked {
    /// Takes them until they are looked at.
    pub(super) fn new(items: Vec<Item>) -> Self {
        Self(items)
    }

    /// Asks for the newest filler of each item's partition, and puts the fillers back to the front, to be sent now; or
    /// closes a partition whose log has moved. `is_late` is called whenever so much time has passed.
    pub(super) async fn run(mut self, target: Cluster, late_after: Duration, is_late: impl Fn()) {
        let ours: HashMap<TopicPartition, Producers> = self
            .0
            .iter()
            .map(|item| {
                let partition = &item.partition;
                (partition.target.clone(), partition.rules.producers)
            })
            .collect();
        let names: Vec<TopicPartition> = ours.keys().cloned().collect();
        let is_filler = move |at: &TopicPartition, it: &ProducerState| {
            ours.get(at)
                .is_some_and(|ours| ours.is_filler(it.producer_id))
        };
        let asking = wire::describe_producers(&target, &names, is_filler);
        let nobody_waits = async {
            while self.0.iter().any(|item| !item.partition.is_closed()) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let told_late = async {
            loop {
                tokio::time::sleep(late_after).await;
                is_late();
            }
        };
        let mut told = tokio::select! {
            told = asking => told,
            () = nobody_waits => return,
            () = told_late => return,
        };
        let cluster = format!("target ({})", target.name());
        for item in std::mem::take(&mut self.0) {
            let newest = match told.remove(&item.partition.target) {
                Some(Ok(known)) => Ok(newest(&known, item.partition.rules.producers)),
                Some(Err(error)) => Err(Trouble::from(error)),
                None => Err(missing_answer(&cluster)),
            };
            match newest.and_then(|newest| check(&item.partition, &item.work, newest)) {
                Ok(()) => {
                    item.partition.note_rechecked();
                    item.partition.push_front(item.work);
                }
                Err(trouble) => item.partition.fail(trouble),
            }
            item.partition.answered();
            item.partition.schedule();
        }
    }
}

impl Drop for Looked {
    fn drop(&mut self) {
        for item in std::mem::take(&mut self.0) {
            item.partition.push_front(item.work);
            item.partition.answered();
            item.partition.schedule();
        }
    }
}

/// The running number of the newest filler that the leader knows.
fn newest(known: &[ProducerState], ours: Producers) -> Option<i32> {
    let found = |id: i64| known.iter().find(|it| it.producer_id == id);
    let newest = ours.filler_ids().find_map(found);
    newest.map(|producer| producer.coordinator_epoch)
}

/// A number that has expired meanwhile (`producer.id.expiration.ms`) was not raised by anybody.
fn check(partition: &Arc<Partition>, work: &Work, newest: Option<i32>) -> Result<(), Trouble> {
    let (Some(newest), Work::Fill(fill)) = (newest, work) else {
        return Ok(());
    };
    let before = partition.newest_filler.unwrap_or(0);
    if newest == before {
        return Ok(());
    }
    Err(Trouble::LogEndDiffers {
        expected: fill.target_base,
        found: fill.target_base + i64::from(newest) - i64::from(before),
    })
}
