//! What the state topic has, as a scenario looks at it.

use std::collections::BTreeMap;

use serde_json::Value;
use twinlog::offsets::{OffsetMap, SourceOffset, TargetOffset, Translation};

use super::logs;
use super::model::Place;
use super::scene::Scene;

/// The newest value of a key.
///
/// # Panics
/// When there is none.
pub fn stored(scene: &Scene, key: &str) -> Value {
    let stored = logs::newest(&scene.target, "__twinlog_state", key).expect("it is stored");
    serde_json::from_str(&stored).expect("it is JSON")
}

/// The stored map must lead every record of the source to the same one on the target.
pub fn assert_map_is_exact(scene: &Scene, place: &Place) {
    let head = serde_json::from_value(stored(scene, "map/dr/t/0")["map"].clone());
    let map = OffsetMap::assemble(head.expect("a head"), Vec::new()).expect("a map of few runs");
    let target = logs::read(&scene.target, place);
    let places: BTreeMap<_, _> = target
        .records
        .iter()
        .map(|it| (&it.name, it.offset))
        .collect();
    for record in &logs::read(&scene.source, place).records {
        let exact = Translation::Exact(TargetOffset(places[&record.name]));
        assert_eq!(
            map.translate(SourceOffset(record.offset)),
            exact,
            "{record:?}"
        );
    }
}
