//! Offset maps in a state topic: each segment in memory once, written once, removed once.

use std::sync::Arc;

use crate::support::flow::{block_on, opened_state, wire_cluster};
use crate::support::{Isolation, fake_pair, read_all};
use twinlog::offsets::{OffsetMap, SourceOffset, TargetOffset};
use twinlog::state::keys::MapKeys;
use twinlog::state::{STATE_TOPIC, StateStore, maps};

const RUNS: i64 = 200_000;

#[test]
fn segments_are_held_written_and_removed_once() {
    let (_, target) = fake_pair();
    let bootstrap = target.bootstrap();
    let keys = MapKeys::new("dr", "orders", 0);
    let mut map = OffsetMap::identity_from(SourceOffset(0));
    extend(&mut map, RUNS);

    block_on(async {
        let cluster = wire_cluster(&bootstrap);
        let store = opened_state(&cluster, "dr").await;
        maps::save(&store, &keys, &map).await.expect("it is saved");
        // What was just written is read back: it must not take the place of what the map shares.
        store.refresh().await.expect("the topic can be read");
        assert_shared(&store, &keys, &map);
        extend(&mut map, 1_500);
        maps::save(&store, &keys, &map).await.expect("it is saved");
        assert_shared(&store, &keys, &map);

        let again = opened_state(&cluster, "dr").await;
        let loaded = maps::load(&again, &keys).expect("a map").expect("a map");
        assert_eq!(loaded, map);
        assert_shared(&again, &keys, &loaded);
        for other in [
            opened_state(&cluster, "d").await,
            StateStore::open_existing(&cluster)
                .await
                .expect("a store")
                .expect("a store"),
        ] {
            assert_eq!(other.keys("segment/"), [""; 0], "another flow's segments");
            assert_eq!(other.keys("map/").len(), 1);
        }
    });
    let records = read_all(&bootstrap, STATE_TOPIC, Isolation::ReadUncommitted);
    let segments = map.segment_numbers().count();
    assert_eq!(
        records.len(),
        segments + 2,
        "each segment once, and two heads"
    );

    block_on(async {
        let cluster = wire_cluster(&bootstrap);
        let store = opened_state(&cluster, "dr").await;
        let half = map.source_end().0 / 2;
        map.trim(SourceOffset(half), TargetOffset(0));
        maps::save(&store, &keys, &map).await.expect("it is saved");
        let again = opened_state(&cluster, "dr").await;
        assert_eq!(maps::load(&again, &keys).expect("a map"), Some(map.clone()));
        for store in [&store, &again] {
            let left = store.keys(keys.segments()).len();
            assert_eq!(left, map.segment_numbers().count());
        }
        assert!(map.segment_numbers().start > 90 && !map.segment_numbers().is_empty());

        maps::remove(&again, &keys).await.expect("it is removed");
        store.refresh().await.expect("the topic can be read");
        for store in [&store, &again] {
            assert_eq!(store.keys(keys.segments()), [""; 0]);
            assert!(maps::load(store, &keys).expect("no map").is_none());
        }
    });
}

/// `runs` more runs with a hole of one offset behind each.
fn extend(map: &mut OffsetMap, runs: i64) {
    for run in 0..runs {
        let (source, target) = (map.source_end(), map.target_end());
        map.push_copied(source, target, 1 + run as u64 % 50)
            .expect("in order");
        map.push_hole(map.source_end(), 1).expect("in order");
    }
}

fn assert_shared(store: &StateStore, keys: &MapKeys, map: &OffsetMap) {
    let mut segments = 0;
    for (number, bytes) in map.segments_newest_first() {
        let stored = store.bytes(&keys.segment(number)).expect("it is stored");
        assert!(
            Arc::ptr_eq(&stored, bytes),
            "segment {number} is there twice"
        );
        segments += 1;
    }
    assert!(segments > 190, "{segments} segments");
}
