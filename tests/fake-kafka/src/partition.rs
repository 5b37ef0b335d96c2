//! A partition: its copies, who leads them, and how they follow (`Partition`, `ReplicaFetcherThread`, `PartitionChangeBuilder`).

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::error::ResponseError;

use crate::log::{Log, Stored};

/// One partition, its copies and who leads them.
#[derive(Debug, Clone)]
pub struct Partition {
    /// Nobody while the partition is offline.
    pub leader: Option<i32>,
    /// Grows with every election.
    pub leader_epoch: i32,
    /// In order of preference.
    pub replicas: Vec<i32>,
    /// The in-sync ones. The last one stays in it when it goes.
    pub in_sync: BTreeSet<i32>,
    /// One log per replica.
    pub logs: BTreeMap<i32, Log>,
    /// Replicas that don't fetch for now.
    pub lagging: BTreeSet<i32>,
    /// What is in remote storage.
    pub remote: Option<Remote>,
}

/// Old records that a leader doesn't have itself (KIP-405).
#[derive(Debug, Clone, Copy)]
pub struct Remote {
    /// Those below this offset.
    pub below: i64,
    /// How long the storage takes.
    pub delay_ms: i64,
}

impl Partition {
    /// An empty one, led by the first of its replicas.
    pub fn new(replicas: Vec<i32>) -> Self {
        let mut partition = Self {
            leader: None,
            leader_epoch: -1,
            in_sync: replicas.iter().copied().collect(),
            logs: replicas.iter().map(|&id| (id, Log::default())).collect(),
            lagging: BTreeSet::new(),
            remote: None,
            replicas,
        };
        if let Some(&first) = partition.replicas.first() {
            partition.lead(first);
        }
        partition
    }

    /// The leader's log.
    pub fn leader_log(&self) -> Option<&Log> {
        self.logs.get(&self.leader?)
    }

    /// The leader's log.
    pub fn leader_log_mut(&mut self) -> Option<&mut Log> {
        self.logs.get_mut(&self.leader?)
    }

    /// `Partition.checkCurrentLeaderEpoch`.
    pub fn check_epoch(&self, epoch: i32) -> Result<(), ResponseError> {
        match epoch {
            -1 => Ok(()),
            old if old < self.leader_epoch => Err(ResponseError::FencedLeaderEpoch),
            new if new > self.leader_epoch => Err(ResponseError::UnknownLeaderEpoch),
            _ => Ok(()),
        }
    }

    /// Makes a replica the leader, in a new epoch; the others follow it from now on.
    pub fn lead(&mut self, leader: i32) {
        self.leader = Some(leader);
        self.leader_epoch += 1;
        let epoch = self.leader_epoch;
        if let Some(log) = self.logs.get_mut(&leader) {
            // `Partition.makeLeader`: the epoch begins where the log ends.
            let end = log.end_offset();
            log.assign_epoch(epoch, end);
        }
    }

    /// Nobody leads any longer.
    pub fn go_offline(&mut self) {
        if self.leader.take().is_some() {
            self.leader_epoch += 1;
        }
    }

    /// Those of `fetching` that don't lag copy what the leader has; then the high watermark moves.
    pub fn replicate(&mut self, fetching: &BTreeSet<i32>) {
        let Some(leader) = self.leader else {
            return;
        };
        let Some(leader_log) = self.logs.remove(&leader) else {
            return;
        };
        for (id, log) in &mut self.logs {
            if fetching.contains(id) && !self.lagging.contains(id) {
                follow(log, &leader_log);
                if log.end_offset() >= leader_log.high_watermark() {
                    // `Partition.maybeExpandIsr`.
                    self.in_sync.insert(*id);
                }
            }
        }
        self.logs.insert(leader, leader_log);
        self.raise_high_watermark(leader, fetching);
    }

    /// `Partition.maybeIncrementLeaderHW`: what all in-sync replicas have. Followers learn it with their next fetch.
    fn raise_high_watermark(&mut self, leader: i32, fetching: &BTreeSet<i32>) {
        let common = self
            .logs
            .iter()
            .filter(|(id, _)| **id == leader || self.in_sync.contains(id))
            .map(|(_, log)| log.end_offset())
            .min();
        let Some(common) = common else {
            return;
        };
        let Some(log) = self.logs.get_mut(&leader) else {
            return;
        };
        log.raise_high_watermark(common);
        let high_watermark = log.high_watermark();
        for (id, log) in &mut self.logs {
            if fetching.contains(id) && !self.lagging.contains(id) {
                log.raise_high_watermark(high_watermark);
            }
        }
    }
}

/// A follower takes back what the leader never had, then copies the rest.
fn follow(log: &mut Log, leader: &Log) {
    log.truncate(common_end(log, leader));
    if log.end_offset() < leader.start_offset() {
        // `ReplicaFetcherThread.truncateFullyAndStartAt`.
        *log = Log::default();
    }
    log.raise_start(leader.start_offset());
    let end_offset = log.end_offset();
    let missing: Vec<&Stored> = leader
        .batches()
        .rev()
        .take_while(|stored| stored.header.last_offset() >= end_offset)
        .collect();
    for stored in missing.into_iter().rev() {
        log.replicate(stored);
    }
    log.advance_end(leader.end_offset());
}

/// Where two logs part, by epochs (`AbstractFetcherThread.truncateOnFetchResponse`, KIP-595).
fn common_end(log: &Log, leader: &Log) -> i64 {
    let mut end = log.end_offset();
    while let Some(epoch) = log.epoch_before(end) {
        match leader.end_of_epoch(epoch) {
            Some((found, found_end)) if found == epoch => return end.min(found_end),
            Some((found, found_end)) => {
                let own_end = log.end_of_epoch(found).map_or(0, |(_, own_end)| own_end);
                end = end.min(found_end).min(own_end);
            }
            None => return end.min(leader.end_offset()),
        }
    }
    end.min(leader.end_offset())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Record, produced};
    use crate::log::Rules;

    fn append(partition: &mut Partition, value: &[u8]) -> i64 {
        let (header, records) = produced(&[Record::new(None, Some(value))], 0);
        let epoch = partition.leader_epoch;
        partition
            .leader_log_mut()
            .expect("a leader")
            .append(&header.seal(&records), &Rules::default(), epoch, 0, false)
            .expect("appended")
            .first_offset
    }

    fn ends(partition: &Partition) -> Vec<(i64, i64)> {
        partition
            .logs
            .values()
            .map(|log| (log.end_offset(), log.high_watermark()))
            .collect()
    }

    #[test]
    fn the_high_watermark_waits_for_all_in_sync_replicas() {
        let all = BTreeSet::from([1, 2]);
        let mut partition = Partition::new(vec![1, 2]);
        partition.lagging.insert(2);
        append(&mut partition, b"a");
        partition.replicate(&all);
        assert_eq!(ends(&partition), [(1, 0), (0, 0)]);
        partition.in_sync.remove(&2);
        partition.replicate(&all);
        assert_eq!(ends(&partition), [(1, 1), (0, 0)]);
        partition.lagging.clear();
        partition.replicate(&all);
        assert_eq!(ends(&partition), [(1, 1), (1, 1)]);
        assert!(partition.in_sync.contains(&2));
    }

    #[test]
    fn an_unclean_leader_takes_back_what_only_the_old_one_had() {
        let all = BTreeSet::from([1, 2]);
        let mut partition = Partition::new(vec![1, 2]);
        append(&mut partition, b"a");
        partition.replicate(&all);
        partition.lagging.insert(2);
        append(&mut partition, b"only on 1");
        append(&mut partition, b"only on 1");
        partition.lagging.clear();
        partition.lead(2);
        append(&mut partition, b"on 2");
        partition.replicate(&all);
        assert_eq!(ends(&partition), [(2, 2), (2, 2)]);
        let values: Vec<_> = partition.logs[&1]
            .batches()
            .map(|stored| stored.records().expect("records")[0].value.clone())
            .collect();
        assert_eq!(values[1].as_deref(), Some(&b"on 2"[..]));
        let log = &partition.logs[&2];
        assert_eq!(log.end_of_epoch(0), Some((0, 1)));
        assert_eq!(log.end_of_epoch(1), Some((1, 2)));
        assert_eq!(log.end_of_epoch(2), None);
    }
}
