//! Offset maps in the state topic: a small head that is written again and again, and segments
//! that are written once.
//!
//! Segments first, then the head that names them, then tombstones for those that it names no more.
//! A crash in between leaves the old head with all that it names. Segments behind it are
//! written again, those before it are removed with the next head.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::keys::MapKeys;
use super::store::{StateRecord, encode, parse};
use super::{MapRecord, StateError, StateStore};
use crate::offsets::OffsetMap;

/// What is known of the state topic.
pub trait Known {
    /// The newest value of a key.
    fn value(&self, key: &str) -> Option<Arc<[u8]>>;
    /// The keys in a range, in order.
    fn keys_in(&self, range: Range<String>) -> Vec<String>;
}

impl Known for StateStore {
    fn value(&self, key: &str) -> Option<Arc<[u8]>> {
        self.bytes(key)
    }

    fn keys_in(&self, range: Range<String>) -> Vec<String> {
        self.keys_in(range)
    }
}

impl Known for BTreeMap<String, Arc<[u8]>> {
    fn value(&self, key: &str) -> Option<Arc<[u8]>> {
        self.get(key).cloned()
    }

    fn keys_in(&self, range: Range<String>) -> Vec<String> {
        self.range(range).map(|(key, _)| key.clone()).collect()
    }
}

/// Reads a map as it was stored last.
///
/// # Errors
/// When what is stored isn't a map, or a segment is missing.
pub fn load(known: &impl Known, keys: &MapKeys) -> Result<Option<OffsetMap>, StateError> {
    loop {
        let stored = known.value(keys.head());
        let Some(record) = parse::<MapRecord>(keys.head(), stored.as_deref())? else {
            return Ok(None);
        };
        let segments = record.map.segments().map(|number| {
            let key = keys.segment(number);
            known.value(&key).ok_or(key)
        });
        let reason = match segments.collect::<Result<Vec<_>, _>>() {
            Ok(segments) => match OffsetMap::assemble(record.map, segments) {
                Ok(map) => return Ok(Some(map)),
                Err(error) => error.to_string(),
            },
            Err(key) => format!("{key} is missing"),
        };
        // A head that was replaced meanwhile may name what was removed behind it.
        if known.value(keys.head()) == stored {
            let key = keys.head().to_owned();
            return Err(StateError::Value { key, reason });
        }
    }
}

/// What the state topic lacks of a map, in the order in which it is to be written.
///
/// Quick: segments are shared, and looked for from the newest back to the first that is stored.
///
/// # Errors
/// When the head can't be encoded.
pub fn changes(
    known: &impl Known,
    keys: &MapKeys,
    map: &OffsetMap,
) -> Result<Vec<StateRecord>, StateError> {
    let mut changes: Vec<StateRecord> = map
        .segments_newest_first()
        .map(|(number, bytes)| (keys.segment(number), bytes))
        .take_while(|(key, bytes)| known.value(key).as_ref() != Some(*bytes))
        .map(|(key, bytes)| (key, Some(bytes.clone())))
        .collect();
    changes.reverse();
    let head = MapRecord {
        v: 1,
        map: map.head(),
    };
    changes.push((keys.head().to_owned(), Some(encode(keys.head(), &head)?)));
    let gone = keys.segment(0)..keys.segment(head.map.segments().start);
    changes.extend(known.keys_in(gone).into_iter().map(|key| (key, None)));
    Ok(changes)
}

/// Writes a map.
///
/// # Errors
/// When not all of it was written. Whatever was, a map can be loaded, and this can be repeated.
pub async fn save(store: &StateStore, keys: &MapKeys, map: &OffsetMap) -> Result<(), StateError> {
    store.write_all(changes(store, keys, map)?).await
}

/// What puts a map in the place of another one, of which nothing is kept, in the order in which it is to be written. The
/// old head goes first: it never names what isn't there.
///
/// # Errors
/// When the head can't be encoded.
pub fn replacing(
    store: &StateStore,
    keys: &MapKeys,
    map: &OffsetMap,
) -> Result<Vec<StateRecord>, StateError> {
    let mut records = all_of(store, keys);
    let nothing: BTreeMap<String, Arc<[u8]>> = BTreeMap::new();
    records.extend(changes(&nothing, keys, map)?);
    Ok(records)
}

/// Tombstones for all of a map, the head first.
fn all_of(store: &StateStore, keys: &MapKeys) -> Vec<StateRecord> {
    let head = keys.head().to_owned();
    let all = std::iter::once(head).chain(store.keys(keys.segments()));
    all.map(|key| (key, None)).collect()
}

/// Removes a map. The head goes first: it never names what isn't there.
///
/// # Errors
/// When not all of it was removed.
pub async fn remove(store: &StateStore, keys: &MapKeys) -> Result<(), StateError> {
    store.write_all(all_of(store, keys)).await
}
