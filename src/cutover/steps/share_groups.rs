//! The last barrier for share groups (KIP-932): their start offsets are set as following sets them.
//!
//! A group with members on the target refuses; a start offset there that isn't ours was set by
//! somebody, or moved by a consumer, and stays unless the config says otherwise.

use std::collections::{BTreeSet, HashMap};

use super::groups::{GroupsResult, Place, Placed};
use crate::config::OnDiverged;
use crate::cutover::context::Scene;
use crate::cutover::error::CutoverError;
use crate::cutover::pairs::Pair;
use crate::groups::is_from_before;
use crate::state::{ShareOffset, ShareOffsets, keys};
use crate::wire::{self, Cluster, ResponseError, StartOffsets, TopicPartition};

type ByGroup = HashMap<String, StartOffsets>;

/// Sets what differs on the target, of the groups that were `listed` just now and those that are known. What was found
/// goes to `result`.
pub(super) async fn bring(
    scene: &Scene,
    place: &Place,
    by_source: &HashMap<&TopicPartition, &Pair>,
    listed: BTreeSet<String>,
    result: &mut GroupsResult,
) -> Result<(), CutoverError> {
    if scene.flow.groups.include().is_empty() {
        return Ok(());
    }
    let mut names = listed;
    names.extend(remembered(scene));
    let names: Vec<String> = names.into_iter().collect();
    if names.is_empty() {
        return Ok(());
    }
    let Some(now) = start_offsets(&scene.source, &names, result).await else {
        return Ok(());
    };
    let Some(there) = start_offsets(&scene.target, &names, result).await else {
        let unsupported = "share groups aren't supported by the target: they begin anew there";
        result.failed.push(unsupported.to_owned());
        return Ok(());
    };
    let mut changes = ByGroup::new();
    let mut records = Vec::new();
    for (group, offsets) in now {
        // What it has there may be a client's.
        if result.is_unasked(&group) {
            continue;
        }
        let key = keys::share(&scene.flow.name, &group);
        let mut record: ShareOffsets = match scene.store.get(&key) {
            Ok(record) => record.unwrap_or_default(),
            Err(error) => {
                result.note_failed(format!("{group}: {error}"));
                continue;
            }
        };
        let wanted = wanted(
            scene,
            place,
            by_source,
            (&group, &offsets),
            there.get(&group),
            &mut record,
            result,
        );
        if !wanted.is_empty() {
            record.v = 1;
            records.push((key, record));
            changes.insert(group, wanted);
        }
    }
    // Before they are sent: else a restart would take them for somebody else's.
    scene.store.put_all(&records).await?;
    for (group, answers) in wire::alter_share_group_offsets(&scene.target, &changes).await {
        for (at, answer) in answers {
            match answer {
                Ok(()) => result.moved += 1,
                Err(error) if error.server_code() == Some(ResponseError::NonEmptyGroup) => {
                    result.active_on_target.insert(group.clone());
                }
                Err(error) => result.failed.push(format!("{group} {at}: {error}")),
            }
        }
    }
    Ok(())
}

/// The share groups that the flow has followed. One whose coordinator is away is in no list.
pub(in crate::cutover) fn remembered(scene: &Scene) -> impl Iterator<Item = String> {
    let prefix = keys::shares(&scene.flow.name);
    let keys = scene.store.keys(&prefix).into_iter();
    let names = keys.map(move |key| key[prefix.len()..].to_owned());
    names.filter(|name| scene.flow.groups.matches(name))
}

/// Start offsets by group; `None` where the cluster doesn't have such groups. One that can't be
/// read is left out, and named in `result`.
async fn start_offsets(
    cluster: &Cluster,
    groups: &[String],
    result: &mut GroupsResult,
) -> Option<ByGroup> {
    let mut all = ByGroup::new();
    for (group, offsets) in wire::describe_share_group_offsets(cluster, groups).await {
        match offsets {
            Ok(offsets) => {
                all.insert(group, offsets);
            }
            Err(error) if wire::is_unsupported(&error) => return None,
            Err(error) => result.note_unasked(group, &error),
        }
    }
    Some(all)
}

/// What is to be set for one group, noted in its record.
fn wanted(
    scene: &Scene,
    place: &Place,
    by_source: &HashMap<&TopicPartition, &Pair>,
    (group, offsets): (&str, &StartOffsets),
    there: Option<&StartOffsets>,
    record: &mut ShareOffsets,
    result: &mut GroupsResult,
) -> StartOffsets {
    let overwrites = scene.flow.group_rules.on_diverged == OnDiverged::Follow;
    let mut wanted = StartOffsets::new();
    let mut counted = BTreeSet::new();
    for (at, offset) in offsets {
        let Some(pair) = by_source.get(at) else {
            continue;
        };
        counted.insert(group);
        result.positions += 1;
        let target = match place.of(pair, *offset) {
            Placed::At(target) => target,
            Placed::Beyond => {
                result.beyond.insert(format!("{group} {at}"));
                continue;
            }
            Placed::Silent => continue,
        };
        let on_target = there.and_then(|there| there.get(&pair.target)).copied();
        if on_target == Some(target) {
            continue;
        }
        let of_topic = record.topics.entry(at.topic.clone()).or_default();
        let known = of_topic.iter().position(|it| it.partition == at.partition);
        let is_ours = |set: i64| {
            let known = known.map(|index| &of_topic[index]);
            known.is_some_and(|it| it.target == Some(set) || it.sending == Some(set))
                || is_from_before(pair.continued_at(), known.and_then(|it| it.target), set)
        };
        if on_target.is_some_and(|set| !is_ours(set)) && !overwrites {
            result.kept.insert(group.to_owned());
            continue;
        }
        let sending = ShareOffset {
            partition: at.partition,
            source: *offset,
            target: on_target,
            sending: Some(target),
        };
        match known {
            Some(index) => of_topic[index] = sending,
            None => of_topic.push(sending),
        }
        wanted.insert(pair.target.clone(), target);
    }
    result.groups += counted.len();
    wanted
}
