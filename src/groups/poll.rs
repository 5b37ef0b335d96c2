//! Where `__consumer_offsets` may not be read: asks for all groups' offsets, many groups in one
//! request, more often while they move.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::mpsc;

use super::record::{GroupRecord, StoredOffset};
use super::seen::{Seen, Way};
use crate::config::Selector;
use crate::wire::{self, Cluster, GroupOffset, TopicPartition, WireError};

/// While groups commit.
const BUSY: Duration = Duration::from_millis(250);
/// While nothing moves.
const QUIET: Duration = Duration::from_secs(5);

type Offsets = HashMap<TopicPartition, GroupOffset>;

/// Asks until something fails: then why. `None` when nobody listens any more.
pub async fn poll(
    cluster: &Cluster,
    groups: &Selector,
    found: &mpsc::Sender<Seen>,
) -> Option<WireError> {
    found.send(Seen::Begins(Way::Poll)).await.ok()?;
    let mut known: HashMap<String, Offsets> = HashMap::new();
    let mut caught_up = false;
    let mut pause = BUSY;
    loop {
        let records = match look(cluster, groups, &mut known).await {
            Ok(records) => records,
            Err(error) => return Some(error),
        };
        pause = if records.is_empty() {
            pause.mul_f64(1.5).min(QUIET)
        } else {
            BUSY
        };
        if !records.is_empty() {
            found.send(Seen::Records(records)).await.ok()?;
        }
        if !caught_up {
            caught_up = true;
            found.send(Seen::CaughtUp).await.ok()?;
        }
        tokio::time::sleep(pause).await;
    }
}

/// One look at everything: what changed since the last one.
async fn look(
    cluster: &Cluster,
    groups: &Selector,
    known: &mut HashMap<String, Offsets>,
) -> Result<Vec<GroupRecord>, WireError> {
    let listed: Vec<String> = wire::list_groups(cluster)
        .await?
        .into_iter()
        .filter(|group| !matches!(&*group.group_type, "share" | "streams"))
        .map(|group| group.group_id)
        .filter(|group| groups.matches(group))
        .collect();
    let mut records = Vec::new();
    let gone: Vec<String> = known
        .keys()
        .filter(|group| !listed.contains(group))
        .cloned()
        .collect();
    for group in gone {
        let offsets = known.remove(&group).unwrap_or_default();
        records.extend(differences(&group, &offsets, &Offsets::new()));
        records.push(GroupRecord::Group {
            group,
            exists: false,
        });
    }
    for (group, offsets) in wire::fetch_group_offsets(cluster, &listed).await {
        let offsets = match offsets {
            Ok(offsets) => offsets,
            Err(error) if error.is_retriable() => return Err(error),
            // One group that may not be seen is no reason to leave the others.
            Err(error) => {
                tracing::debug!(group, %error, "a group's offsets can't be read");
                continue;
            }
        };
        let before = known.entry(group.clone()).or_default();
        records.extend(differences(&group, before, &offsets));
        *before = offsets;
    }
    Ok(records)
}

fn differences(group: &str, before: &Offsets, now: &Offsets) -> Vec<GroupRecord> {
    let record = |at: &TopicPartition, commit: Option<&GroupOffset>| GroupRecord::Offset {
        group: group.to_owned(),
        topic: at.topic.clone(),
        partition: at.partition,
        commit: commit.map(|commit| StoredOffset {
            offset: commit.offset,
            leader_epoch: commit.leader_epoch,
            metadata: commit.metadata.clone(),
            committed_at_ms: -1,
        }),
    };
    let changed = now
        .iter()
        .filter(|(at, commit)| before.get(at) != Some(commit))
        .map(|(at, commit)| record(at, Some(commit)));
    let gone = before
        .keys()
        .filter(|at| !now.contains_key(at))
        .map(|at| record(at, None));
    changed.chain(gone).collect()
}
