//! An offset map in segments: the same answers as a plain one, stored and read at any moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::Index;
use twinlog::offsets::{DecodeError, MapHead, OffsetMap, SourceOffset as S, TargetOffset as T};
use twinlog::state::keys::MapKeys;
use twinlog::state::{StateRecord, maps};

/// What a map goes through.
#[derive(Clone, Debug)]
enum Step {
    /// `len` records behind a hole on the source and a gap on the target.
    Copied { hole: u64, gap: u64, len: u64 },
    /// Source offsets without a place.
    Hole { len: u64 },
    /// Both logs forget some of what the map has, in percent of it.
    Trim { source: i64, target: i64 },
    /// It is stored; a crash lets only so many of the writes through, then it is read again.
    Save { crash_after: Option<usize> },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let copied = (
        0u64..3,
        prop_oneof![3 => Just(0u64), 1 => 1u64..200],
        1u64..300,
    )
        .prop_map(|(hole, gap, len)| Step::Copied { hole, gap, len });
    let hole = (1u64..300).prop_map(|len| Step::Hole { len });
    let trim = (0i64..60, 0i64..60).prop_map(|(source, target)| Step::Trim { source, target });
    let save = prop::option::of(0usize..6).prop_map(|crash_after| Step::Save { crash_after });
    prop::collection::vec(
        prop_oneof![8 => copied, 2 => hole, 1 => trim, 2 => save],
        0..80,
    )
}

/// The state topic, as far as maps are concerned.
type Target = BTreeMap<String, Arc<[u8]>>;

type Segments = Vec<Arc<[u8]>>;

fn write(target: &mut Target, changes: impl IntoIterator<Item = StateRecord>) {
    for (key, value) in changes {
        match value {
            Some(value) => target.insert(key, value),
            None => target.remove(&key),
        };
    }
}

/// Everything that was pushed, to be pushed again after a crash as a restarted copy does.
#[derive(Default)]
struct Pushed(Vec<(i64, Option<i64>, u64)>);

impl Pushed {
    fn push(&mut self, map: &mut OffsetMap, one: (i64, Option<i64>, u64)) {
        self.0.push(one);
        Self::apply(map, one);
    }

    fn apply(map: &mut OffsetMap, (source, target, len): (i64, Option<i64>, u64)) {
        match target {
            Some(target) => map.push_copied(S(source), T(target), len).unwrap(),
            None => map.push_hole(S(source), len).unwrap(),
        }
    }

    fn repeat(&self, map: &mut OffsetMap) {
        let end = map.source_end().0;
        for one in self.0.iter().filter(|(source, ..)| *source >= end) {
            Self::apply(map, *one);
        }
    }
}

fn keys() -> MapKeys {
    MapKeys::new("dr", "orders", 3)
}

fn load(target: &Target, runs: usize) -> OffsetMap {
    let map = maps::load(target, &keys()).unwrap().unwrap();
    map.with_segment_runs(runs)
}

proptest! {
    /// The segmented map and the plain one go through the same, crashes included, and stay equal.
    #[test]
    fn segments_and_crashes_change_nothing(
        steps in steps(), runs in 1usize..6, start in (0i64..9, 0i64..9)
    ) {
        let new = || OffsetMap::starting_at(S(start.0), T(start.1));
        let mut plain = new().with_segment_runs(usize::MAX);
        let mut map = new().with_segment_runs(runs);
        let (mut target, mut pushed) = (Target::new(), Pushed::default());
        write(&mut target, maps::changes(&Target::new(), &keys(), &map).unwrap());
        // What the logs have forgotten, which a restarted copy learns again.
        let mut forgotten = (S(0), T(0));
        for step in steps {
            let (source, on_target) = (plain.source_end().0, plain.target_end().0);
            match step {
                Step::Copied { hole, gap, len } => {
                    let one = (source + hole as i64, Some(on_target + gap as i64), len);
                    pushed.push(&mut map, one);
                    Pushed::apply(&mut plain, one);
                }
                Step::Hole { len } => {
                    pushed.push(&mut map, (source, None, len));
                    Pushed::apply(&mut plain, (source, None, len));
                }
                Step::Trim { source: s, target: t } => {
                    let part = |from: i64, to: i64, percent: i64| {
                        from + (to - from) * percent / 100
                    };
                    forgotten = (
                        S(part(plain.source_start().0, source, s)),
                        T(part(plain.target_start().0, on_target, t)),
                    );
                    map.trim(forgotten.0, forgotten.1);
                    plain.trim(forgotten.0, forgotten.1);
                }
                Step::Save { crash_after } => {
                    let changes = maps::changes(&target, &keys(), &map).unwrap();
                    let written = crash_after.unwrap_or(usize::MAX);
                    write(&mut target, changes.into_iter().take(written));
                    let stored = load(&target, runs);
                    if crash_after.is_none() {
                        prop_assert_eq!(&stored, &map);
                        let again = maps::changes(&target, &keys(), &map).unwrap();
                        prop_assert_eq!(again.len(), 1, "only the head again");
                    }
                    map = stored;
                    pushed.repeat(&mut map);
                    map.trim(forgotten.0, forgotten.1);
                }
            }
            prop_assert_eq!(&map, &plain);
            prop_assert_eq!(map.is_identity(), plain.is_identity());
        }
        for asked in plain.source_start().0 - 1..=plain.source_end().0 + 1 {
            prop_assert_eq!(map.translate(S(asked)), plain.translate(S(asked)));
        }
        for asked in plain.target_start().0 - 1..=plain.target_end().0 + 1 {
            prop_assert_eq!(map.reverse(T(asked)), plain.reverse(T(asked)));
        }
        let changes = maps::changes(&target, &keys(), &map).unwrap();
        write(&mut target, changes);
        let named = map.segment_numbers().count();
        prop_assert_eq!(target.len(), 1 + named, "something was left behind");
    }

    /// Changed segments, and bytes that are none, are refused; none panics.
    #[test]
    fn damaged_segments_are_refused(
        at in any::<Index>(), which in any::<Index>(), flip in 1u8.., cut in any::<bool>()
    ) {
        let (head, mut segments) = parts(&sample(20, 3));
        let damaged = &mut segments[which.index(6)];
        let mut bytes = damaged.to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        if cut {
            bytes.truncate(at);
        }
        *damaged = bytes.into();
        prop_assert!(OffsetMap::assemble(head, segments).is_err());
    }

    /// With a right checksum the body is still not trusted.
    #[test]
    fn no_segment_bytes_panic(
        body in prop::collection::vec(prop_oneof![8 => 0u8..4, 1 => any::<u8>()], 0..12)
    ) {
        let head: MapHead = serde_json::from_str(
            r#"{"version":1,"source_start":0,"target_start":0,"source_end":9223372036854775807,
                "target_end":9223372036854775807,"segments":{"first":0,"count":1,"source_end":3,
                "target_end":3},"runs":[[9223372036854775800,9223372036854775800,1]]}"#,
        ).unwrap();
        let mut bytes = vec![1];
        bytes.extend(body);
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend(checksum.to_be_bytes());
        if let Ok(map) = OffsetMap::assemble(head, vec![bytes.clone().into()]) {
            let (_, segments) = parts(&map);
            prop_assert_eq!(&*segments[0], bytes.as_slice());
            prop_assert_eq!(OffsetMap::decode(&map.encode()), Ok(map));
        }
    }
}

/// `runs` runs of 2 offsets with a hole of 1 between them, in segments.
fn sample(runs: i64, segment_runs: usize) -> OffsetMap {
    let mut map = OffsetMap::starting_at(S(10), T(0)).with_segment_runs(segment_runs);
    for run in 0..runs {
        map.push_copied(S(10 + run * 3), T(run * 2), 2).unwrap();
    }
    map
}

fn parts(map: &OffsetMap) -> (MapHead, Segments) {
    let mut segments: Segments = map
        .segments_newest_first()
        .map(|(_, bytes)| bytes.clone())
        .collect();
    segments.reverse();
    (map.head(), segments)
}

/// A segment that is missing, doubled, or from elsewhere never passes for another.
#[test]
fn segments_that_do_not_join_are_refused() {
    let map = sample(20, 3);
    let (head, segments) = parts(&map);
    assert_eq!(segments.len(), 6);
    assert_eq!(OffsetMap::assemble(head.clone(), segments.clone()), Ok(map));
    let refused = |change: &dyn Fn(&mut Segments)| {
        let mut segments = segments.clone();
        change(&mut segments);
        OffsetMap::assemble(head.clone(), segments).unwrap_err()
    };
    assert_eq!(
        refused(&|segments| drop(segments.pop())),
        DecodeError::Invalid("a segment is missing")
    );
    assert_eq!(
        refused(&|segments| segments.swap(2, 3)),
        DecodeError::Invalid("two segments don't join")
    );
    assert_eq!(
        refused(&|segments| segments[4] = segments[3].clone()),
        DecodeError::Invalid("two segments don't join")
    );
    let (_, others) = parts(&sample(20, 4));
    assert_eq!(
        refused(&|segments| segments[5] = others[3].clone()),
        DecodeError::Invalid("two segments don't join")
    );
    assert_eq!(
        refused(&|segments| *segments = vec![segments[0].clone(); 6]),
        DecodeError::Invalid("two segments don't join")
    );
    let (head, mut segments) = parts(&sample(2, 1));
    segments[0] = parts(&sample(5, 3)).1.remove(0);
    assert_eq!(
        OffsetMap::assemble(head, segments),
        Err(DecodeError::Invalid("the last segment ends elsewhere"))
    );
}

/// The bytes are on disk in other people's clusters: a change of the format must show here.
#[test]
fn the_formats_are_these() {
    let mut map = OffsetMap::starting_at(S(300), T(0)).with_segment_runs(2);
    map.push_copied(S(300), T(0), 10).unwrap();
    map.push_copied(S(312), T(11), 1).unwrap();
    map.push_copied(S(314), T(12), 5).unwrap();
    let (head, segments) = parts(&map);
    let (body, _) = segments[0].split_last_chunk::<4>().unwrap();
    assert_eq!(body, [1, 0xac, 0x02, 0, 0, 10, 2 * 2 + 1, 1, 1]);
    assert_eq!(
        serde_json::to_string(&head).unwrap(),
        concat!(
            r#"{"version":1,"source_start":300,"target_start":0,"source_end":319,"target_end":17,"#,
            r#""segments":{"first":0,"count":1,"source_end":313,"target_end":12},"#,
            r#""runs":[[314,12,5]]}"#
        )
    );
    assert!(
        serde_json::from_value::<OffsetMap>(serde_json::to_value(&head).unwrap()).is_err(),
        "a head isn't a whole map"
    );
}

/// What was stored before there were segments: one record with all runs, however many.
#[test]
fn a_whole_map_in_one_record_is_still_read() {
    let whole = sample(5_000, usize::MAX);
    let record = format!(
        r#"{{"v":1,"map":{}}}"#,
        serde_json::to_string(&whole).unwrap()
    );
    let mut target = Target::from([(keys().head().to_owned(), record.into_bytes().into())]);
    let map = maps::load(&target, &keys()).unwrap().unwrap();
    assert_eq!(map, whole);
    let changes = maps::changes(&target, &keys(), &map).unwrap();
    assert_eq!(changes.len(), 5, "four segments and the head");
    write(&mut target, changes);
    assert_eq!(maps::load(&target, &keys()).unwrap(), Some(whole));
}

#[test]
fn a_missing_segment_is_named() {
    let map = sample(20, 3);
    let mut target = Target::new();
    let changes = maps::changes(&target, &keys(), &map).unwrap();
    write(&mut target, changes);
    target.remove(&keys().segment(4));
    let error = maps::load(&target, &keys()).unwrap_err().to_string();
    assert!(
        error.contains("segment/dr/orders/3/00000000000000000004 is missing"),
        "{error}"
    );
}
