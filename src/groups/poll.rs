//! Where `__consumer_offsets` may not be read: asks for all groups' offsets, many groups in one
//! request, more often while they move.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::sync::mpsc;

use super::record::{GroupRecord, StoredOffset};
use super::seen::{Seen, Way};
use super::unseen::Unseen;
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
    let mut told: Option<Unseen> = None;
    let mut pause = BUSY;
    loop {
        let (records, unseen) = match look(cluster, groups, &mut known).await {
            Ok(looked) => looked,
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
        if told.as_ref() != Some(&unseen) {
            told = Some(unseen.clone());
            found.send(Seen::CaughtUp(unseen)).await.ok()?;
        }
        tokio::time::sleep(pause).await;
    }
}

/// One look at everything: what changed since the last one, and what couldn't be looked at.
async fn look(
    cluster: &Cluster,
    groups: &Selector,
    known: &mut HashMap<String, Offsets>,
) -> Result<(Vec<GroupRecord>, Unseen), WireError> {
    let listed = wire::list_groups(cluster).await?;
    let why_incomplete = listed.why_incomplete();
    let listed: HashSet<String> = listed
        .groups
        .into_iter()
        .filter(|group| !matches!(&*group.group_type, "share" | "streams"))
        .map(|group| group.group_id)
        .filter(|group| groups.matches(group))
        .collect();
    // A group that no broker lists is gone only when its coordinator says so: the coordinator may be
    // away, and with it its list.
    let asked: HashSet<&String> = listed.iter().chain(known.keys()).collect();
    let asked: Vec<String> = asked.into_iter().cloned().collect();
    let mut records = Vec::new();
    let mut failed: Option<(HashSet<String>, String)> = None;
    for (group, offsets) in wire::fetch_group_offsets(cluster, &asked).await {
        let offsets = match offsets {
            Ok(offsets) => offsets,
            Err(error) => {
                // One group that can't be seen is no reason to leave the others.
                tracing::debug!(group, %error, "a group's offsets can't be read");
                if error.is_retriable() {
                    let failed = failed.get_or_insert_with(|| (HashSet::new(), error.to_string()));
                    failed.0.insert(group);
                }
                continue;
            }
        };
        let is_gone = offsets.is_empty() && !listed.contains(&group);
        let before = known.entry(group.clone()).or_default();
        records.extend(differences(&group, before, &offsets));
        *before = offsets;
        if is_gone {
            known.remove(&group);
            records.push(GroupRecord::Group {
                group,
                exists: false,
            });
        }
    }
    Ok((records, unseen(asked, failed, why_incomplete)))
}

fn unseen(
    asked: Vec<String>,
    failed: Option<(HashSet<String>, String)>,
    why_incomplete: Option<String>,
) -> Unseen {
    match (failed, why_incomplete) {
        (None, None) => Unseen::Nothing,
        (Some((names, why)), None) => Unseen::Groups { names, why },
        (failed, Some(why)) => {
            let failed = failed.map(|(names, _)| names).unwrap_or_default();
            let names = asked.into_iter().filter(|name| !failed.contains(name));
            Unseen::AllBut {
                names: names.collect(),
                why,
            }
        }
    }
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
