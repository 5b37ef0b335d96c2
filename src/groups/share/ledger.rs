//! What we set for each share group, remembered in the state topic.
//!
//! Start offsets move every few seconds at most, so each is stored before it is sent: unlike with
//! commits, nothing has to be guessed after a crash.

use std::collections::BTreeMap;

use crate::groups::table::{Group, Table};
use crate::state::{ShareOffset, ShareOffsets, StateError, StateStore, keys};

/// Reads what is remembered of all share groups of a flow.
///
/// # Errors
/// When a record can't be read.
pub fn read(store: &StateStore, flow: &str) -> Result<Vec<(String, ShareOffsets)>, StateError> {
    let prefix = keys::shares(flow);
    let mut all = Vec::new();
    for key in store.keys(&prefix) {
        if let Some(offsets) = store.get::<ShareOffsets>(&key)? {
            all.push((key[prefix.len()..].to_owned(), offsets));
        }
    }
    Ok(all)
}

/// Puts what was remembered into the table.
pub(super) fn recall(remembered: Vec<(String, ShareOffsets)>, table: &mut Table) {
    for (name, offsets) in remembered {
        let name = table.name(&name);
        for (topic, partitions) in offsets.topics {
            let topic = table.name(&topic);
            let group = table.groups.entry(name.clone()).or_default();
            for offset in partitions {
                let key = (topic.clone(), offset.partition);
                let row = group.rows.entry(key).or_default();
                row.applied = offset.target;
                row.applied_source = offset.source;
                row.unconfirmed = offset.sending.into_iter().collect();
            }
        }
    }
}

/// A group's record as it is now.
pub(super) fn record(group: &Group) -> ShareOffsets {
    let mut topics: BTreeMap<String, Vec<ShareOffset>> = BTreeMap::new();
    for ((topic, partition), row) in &group.rows {
        let sending = row.unconfirmed.back().copied();
        let is_set = row.applied.is_some() || sending.is_some();
        // Of one that was never set it is remembered where it begins on the source.
        let source = match (is_set, &row.source) {
            (true, _) => row.applied_source,
            (false, Some(source)) => source.offset,
            (false, None) => continue,
        };
        topics
            .entry(topic.to_string())
            .or_default()
            .push(ShareOffset {
                partition: *partition,
                source,
                target: row.applied,
                sending,
            });
    }
    ShareOffsets { v: 1, topics }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_is_recalled() {
        let offset = |partition, target, sending| ShareOffset {
            partition,
            source: 7,
            target,
            sending,
        };
        let partitions = vec![
            offset(0, Some(8), None),
            offset(1, Some(8), Some(9)),
            offset(2, None, Some(9)),
        ];
        let offsets = ShareOffsets {
            v: 1,
            topics: BTreeMap::from([("orders".to_owned(), partitions)]),
        };
        let mut table = Table::default();
        recall(vec![("g".to_owned(), offsets.clone())], &mut table);
        assert_eq!(record(&table.groups["g"]), offsets);
    }
}
