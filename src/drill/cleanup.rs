//! Removes what a rehearsal made: what lies under a root that is noted in the state topic, and
//! nothing else. Works for one that was killed at any moment, too.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::error::DrillError;
use super::names::{Kind, is_under};
use super::report::Cleanup;
use crate::flow::deny;
use crate::state::{FenceRecord, OpenDrill, StateStore, keys};
use crate::wire::{self, Cluster, ResponseError};

/// How long members of a killed rehearsal's groups, and topics, may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(45);
const AGAIN: Duration = Duration::from_millis(250);
/// What a killed copier had sent is in the state topic within this.
const SETTLE: Duration = Duration::from_millis(300);

/// The open rehearsals of a flow.
///
/// # Errors
/// When the state can't be read.
pub fn open(store: &StateStore, flow: &str) -> Result<Vec<(String, OpenDrill)>, DrillError> {
    let prefix = keys::open_drills(flow);
    let mut found = Vec::new();
    for key in store.keys(&prefix) {
        if let Some(record) = store.get::<OpenDrill>(&key)? {
            found.push((key[prefix.len()..].to_owned(), record));
        }
    }
    Ok(found)
}

/// Removes everything of one rehearsal from both clusters, then its record. What can't be removed
/// is in the result, and the record stays.
///
/// # Errors
/// When the state can't be written.
pub async fn remove(
    (source, target): (&Cluster, &Cluster),
    store: &Arc<StateStore>,
    flow: &str,
    (id, record): (&str, &OpenDrill),
    done: &mut Cleanup,
) -> Result<(), DrillError> {
    let root = record.root.as_str();
    let mut left = Vec::new();
    store.refresh().await?;
    // First what could keep somebody from something, although nobody else uses these topics.
    for kind in [Kind::Planned, Kind::Unplanned] {
        let key = keys::fence(&format!("{root}.{}", kind.word()));
        let Some(fence) = store.get::<FenceRecord>(&key)? else {
            continue;
        };
        let ours: Vec<_> = fence
            .acls
            .into_iter()
            .filter(|acl| is_under(root, &acl.topic))
            .collect();
        match deny::delete(source, &ours).await {
            Ok(()) => done.acls += ours.len(),
            Err(error) => left.push(format!("ACLs on {}: {error}", source.name())),
        }
    }
    for cluster in [source, target] {
        match groups(cluster, root).await {
            Ok(count) => done.groups += count,
            Err(error) => left.push(format!("groups on {}: {error}", cluster.name())),
        }
        match topics(cluster, root).await {
            Ok(count) => done.topics += count,
            Err(error) => left.push(format!("topics on {}: {error}", cluster.name())),
        }
    }
    if left.is_empty() {
        done.state += state(target, root).await?;
        store.refresh().await?;
        store.remove(&keys::open_drill(flow, id)).await?;
        done.drills.push(id.to_owned());
    }
    done.left.extend(left);
    Ok(())
}

async fn groups(cluster: &Cluster, root: &str) -> Result<usize, DrillError> {
    let deadline = Instant::now() + GONE_WITHIN;
    let mut deleted = 0;
    loop {
        let listed = wire::list_groups(cluster).await?;
        // What a silent broker coordinates may be ours.
        let mut problem = listed.why_unanswered();
        let ours: Vec<String> = listed
            .groups
            .into_iter()
            .map(|group| group.group_id)
            .filter(|name| is_under(root, name))
            .collect();
        if ours.is_empty() && problem.is_none() {
            return Ok(deleted);
        }
        for (group, result) in wire::delete_groups(cluster, &ours).await {
            match result {
                Ok(()) => deleted += 1,
                Err(error) => problem = Some(format!("{group}: {error}")),
            }
        }
        // Members of a killed rehearsal leave when their session ends.
        if let Some(problem) = problem
            && Instant::now() >= deadline
        {
            return Err(DrillError::failed(problem));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn topics(cluster: &Cluster, root: &str) -> Result<usize, DrillError> {
    let deadline = Instant::now() + GONE_WITHIN;
    let mut deleted = 0;
    loop {
        let metadata = cluster.metadata(None).await?;
        let ours: Vec<&String> = metadata
            .topics
            .keys()
            .filter(|name| is_under(root, name))
            .collect();
        if ours.is_empty() {
            return Ok(deleted);
        }
        let mut problem = String::from("they are still there");
        for topic in ours {
            match wire::delete_topic(cluster, topic).await {
                Ok(()) => deleted += 1,
                Err(error)
                    if error.server_code() == Some(ResponseError::UnknownTopicOrPartition) => {}
                Err(error) => problem = format!("{topic}: {error}"),
            }
        }
        if Instant::now() >= deadline {
            return Err(DrillError::failed(problem));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Removes what the private flows kept. Their maps' segments are read with a store of their own.
async fn state(target: &Cluster, root: &str) -> Result<usize, DrillError> {
    let mut removed = 0;
    for kind in [Kind::Planned, Kind::Unplanned] {
        let flow = format!("{root}.{}", kind.word());
        let store = StateStore::open(target, &flow).await?;
        loop {
            let ours: Vec<String> = store
                .keys("")
                .into_iter()
                .filter(|key| key.split('/').nth(1) == Some(flow.as_str()))
                .collect();
            if ours.is_empty() {
                break;
            }
            removed += ours.len();
            let records = ours.into_iter().map(|key| (key, None)).collect();
            store.write_all(records).await?;
            tokio::time::sleep(SETTLE).await;
            store.refresh().await?;
        }
    }
    Ok(removed)
}
