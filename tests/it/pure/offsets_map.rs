//! The laws of the offset map, on generated logs and beside a naive model.

use proptest::prelude::*;
use twinlog::offsets::{
    DecodeError, MapError, OffsetMap, SourceOffset as S, TargetOffset as T, Translation,
};

/// What happened to the logs, one step after the other.
#[derive(Clone, Debug)]
enum Step {
    /// `len` records (or fillers at the same shift), after `foreign` target offsets.
    Copied { foreign: u64, len: u64 },
    /// Source offsets without a place on the target, said so or just skipped.
    Hole { len: u64, said: bool },
}

/// The map, and the naive truth: every pair of offsets.
#[derive(Clone, Debug)]
struct Log {
    map: OffsetMap,
    start: (i64, i64),
    pairs: Vec<(i64, i64)>,
    source_end: i64,
    target_end: i64,
}

fn build(source: i64, target: i64, steps: &[Step], segment_runs: usize) -> Log {
    let mut log = Log {
        map: OffsetMap::starting_at(S(source), T(target)).with_segment_runs(segment_runs),
        start: (source, target),
        pairs: Vec::new(),
        source_end: source,
        target_end: target,
    };
    // Skipped, and not yet seen by the map.
    let mut source = source;
    for step in steps {
        match *step {
            Step::Copied { foreign, len } => {
                let target = log.target_end + foreign as i64;
                log.map.push_copied(S(source), T(target), len).unwrap();
                log.pairs
                    .extend((0..len as i64).map(|i| (source + i, target + i)));
                source += len as i64;
                log.source_end = source;
                log.target_end = target + len as i64;
            }
            Step::Hole { len, said } => {
                if said {
                    log.map.push_hole(S(source), len).unwrap();
                    log.source_end = source + len as i64;
                }
                source += len as i64;
            }
        }
    }
    log
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let copied = (prop_oneof![3 => Just(0u64), 1 => 1u64..5], 1u64..20)
        .prop_map(|(foreign, len)| Step::Copied { foreign, len });
    let hole = (1u64..8, any::<bool>()).prop_map(|(len, said)| Step::Hole { len, said });
    prop::collection::vec(prop_oneof![2 => copied, 1 => hole], 0..30)
}

fn logs() -> impl Strategy<Value = Log> {
    (0i64..50, 0i64..50, steps(), segment_runs())
        .prop_map(|(source, target, steps, runs)| build(source, target, &steps, runs))
}

/// So few that most logs have many segments, and so many that none has one.
fn segment_runs() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 1usize..5, 1 => Just(1_000)]
}

proptest! {
    /// Seen from the other side every pair is still a pair, and twice turned is the map itself.
    #[test]
    fn a_turned_map_answers_the_other_way(log in logs()) {
        let turned = log.map.turned();
        prop_assert_eq!(turned.turned(), log.map.clone());
        prop_assert_eq!(OffsetMap::decode(&turned.encode()), Ok(turned.clone()));
        for (source, target) in &log.pairs {
            prop_assert_eq!(turned.translate(S(*target)), Translation::Exact(T(*source)));
            prop_assert_eq!(turned.reverse(T(*source)), Translation::Exact(S(*target)));
        }
    }

    /// A log that is continued behind strangers' records: they have no counterpart.
    #[test]
    fn a_continued_map_knows_both_parts(log in logs(), ahead in 0i64..9, strangers in 0i64..9) {
        let mut map = log.map.clone();
        let (source, target) = (log.source_end + ahead, log.target_end + strangers);
        map.continue_at(S(source), T(target)).unwrap();
        for asked in log.source_end.max(log.start.0)..=source {
            prop_assert_eq!(map.translate(S(asked)), Translation::Exact(T(target)));
        }
        for (before, copy) in &log.pairs {
            prop_assert_eq!(map.translate(S(*before)), Translation::Exact(T(*copy)));
        }
        map.advance(5).unwrap();
        prop_assert_eq!(map.translate(S(source + 2)), Translation::Exact(T(target + 2)));
        prop_assert_eq!(OffsetMap::decode(&map.encode()), Ok(map.clone()));
        let back = map.continue_at(S(source), T(target));
        prop_assert!(back.is_err(), "{:?}", back);
    }

    /// The target lost the end of its log: what is left is mapped as before, and all else is copied again.
    #[test]
    fn a_map_that_is_cut_back_knows_what_is_left(log in logs(), at in 0i64..400) {
        let end = log.start.1 + at.min(log.target_end - log.start.1);
        let cut = log.map.cut_back(T(end)).unwrap();
        let left: Vec<_> = log.pairs.iter().filter(|(_, target)| *target < end).collect();
        for (source, target) in &left {
            prop_assert_eq!(cut.translate(S(*source)), Translation::Exact(T(*target)));
            prop_assert_eq!(cut.reverse(T(*target)), Translation::Exact(S(*source)));
        }
        let source_end = left.last().map_or(log.start.0, |(source, _)| source + 1);
        prop_assert_eq!((cut.source_end(), cut.target_end()), (S(source_end), T(end)));
        prop_assert_eq!(cut.runs().map(|run| run.len).sum::<u64>(), left.len() as u64);
        prop_assert_eq!(OffsetMap::decode(&cut.encode()), Ok(cut.clone()));
        prop_assert!(cut.segment_numbers().start >= log.map.segment_numbers().end);
        let mut again = cut.clone();
        again.advance(3).unwrap();
        prop_assert_eq!(again.translate(S(source_end + 2)), Translation::Exact(T(end + 2)));
        prop_assert!(log.map.cut_back(T(log.start.1 - 1)).is_none());
    }

    #[test]
    fn translate_is_the_first_record_not_before(log in logs()) {
        for asked in log.start.0..=log.source_end {
            let first = log.pairs.iter().find(|(source, _)| *source >= asked);
            let expected = first.map_or(log.target_end, |(_, target)| *target);
            prop_assert_eq!(log.map.translate(S(asked)), Translation::Exact(T(expected)));
        }
        let first = S(log.start.0);
        prop_assert_eq!(log.map.translate(S(first.0 - 1)), Translation::BeforeStart { first });
        let copied_end = S(log.source_end);
        let beyond = S(copied_end.0 + 1);
        prop_assert_eq!(log.map.translate(beyond), Translation::NotYetCopied { copied_end });
        prop_assert_eq!(log.map.source_end(), copied_end);
    }

    #[test]
    fn reverse_is_the_first_record_not_before(log in logs()) {
        for asked in log.start.1..=log.target_end {
            let first = log.pairs.iter().find(|(_, target)| *target >= asked);
            let expected = first.map_or(log.source_end, |(source, _)| *source);
            prop_assert_eq!(log.map.reverse(T(asked)), Translation::Exact(S(expected)));
        }
        let first = T(log.start.1);
        prop_assert_eq!(log.map.reverse(T(first.0 - 1)), Translation::BeforeStart { first });
        let copied_end = T(log.target_end);
        let beyond = T(copied_end.0 + 1);
        prop_assert_eq!(log.map.reverse(beyond), Translation::NotYetCopied { copied_end });
        prop_assert_eq!(log.map.target_end(), copied_end);
    }

    #[test]
    fn monotone_both_ways(log in logs()) {
        let mut last = T(log.start.1);
        for asked in log.start.0..=log.source_end {
            let Translation::Exact(here) = log.map.translate(S(asked)) else { panic!() };
            prop_assert!(last <= here && here <= log.map.target_end());
            last = here;
        }
        let mut last = S(log.start.0);
        for asked in log.start.1..=log.target_end {
            let Translation::Exact(here) = log.map.reverse(T(asked)) else { panic!() };
            prop_assert!(last <= here && here <= log.map.source_end());
            last = here;
        }
    }

    #[test]
    fn inverse_on_copied_offsets(log in logs()) {
        for (source, target) in &log.pairs {
            prop_assert_eq!(log.map.translate(S(*source)), Translation::Exact(T(*target)));
            prop_assert_eq!(log.map.reverse(T(*target)), Translation::Exact(S(*source)));
        }
    }

    /// A map that was trimmed knows exactly the pairs that both logs still have, answers for them
    /// as before, and never answers with an offset before either log's start.
    #[test]
    fn trim_keeps_what_both_logs_have(log in logs(), cut in (0i64..300, 0i64..300), again in (0i64..300, 0i64..300)) {
        let mut map = log.map.clone();
        map.trim(S(cut.0), T(cut.1));
        map.trim(S(again.0), T(again.1));
        let kept_from = (cut.0.max(again.0), cut.1.max(again.1));
        let kept: Vec<_> = log.pairs.iter()
            .filter(|(source, target)| *source >= kept_from.0 && *target >= kept_from.1)
            .collect();
        let runs: Vec<(i64, i64)> = map.runs()
            .flat_map(|run| (0..run.len as i64).map(move |i| (run.source_start.0 + i, run.target_start.0 + i)))
            .collect();
        prop_assert_eq!(runs.iter().collect::<Vec<_>>(), kept);
        prop_assert!(map.source_start().0 >= kept_from.0.min(log.source_end));
        prop_assert!(map.target_start().0 >= kept_from.1.min(log.target_end));
        prop_assert_eq!(map.source_end(), log.map.source_end());
        prop_assert_eq!(map.target_end(), log.map.target_end());
        for asked in 0..=log.source_end {
            match map.translate(S(asked)) {
                Translation::Exact(target) => {
                    prop_assert!(target >= map.target_start());
                    prop_assert_eq!(log.map.translate(S(asked)), Translation::Exact(target));
                }
                Translation::BeforeStart { first } => {
                    prop_assert!(S(asked) < first && first == map.source_start());
                    // Forgotten only if one of the logs has forgotten it.
                    let forgotten = match log.map.translate(S(asked)) {
                        Translation::Exact(target) => asked < kept_from.0 || target.0 < kept_from.1,
                        _ => true,
                    };
                    prop_assert!(forgotten);
                }
                Translation::NotYetCopied { .. } => panic!("it was copied"),
            }
        }
        for asked in 0..=log.target_end {
            match map.reverse(T(asked)) {
                Translation::Exact(source) => {
                    prop_assert!(source >= map.source_start());
                    prop_assert_eq!(log.map.reverse(T(asked)), Translation::Exact(source));
                }
                Translation::BeforeStart { first } => prop_assert!(T(asked) < first && first == map.target_start()),
                Translation::NotYetCopied { .. } => panic!("it was copied"),
            }
        }
        prop_assert_eq!(OffsetMap::decode(&map.encode()), Ok(map));
    }

    #[test]
    fn written_and_read_is_the_same(log in logs()) {
        prop_assert_eq!(OffsetMap::decode(&log.map.encode()), Ok(log.map.clone()));
        let json = serde_json::to_string(&log.map).unwrap();
        prop_assert_eq!(serde_json::from_str::<OffsetMap>(&json).unwrap(), log.map);
    }

    #[test]
    fn changed_bytes_are_rejected(log in logs(), at in any::<prop::sample::Index>(), flip in 1u8..) {
        let mut bytes = log.map.encode();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(OffsetMap::decode(&bytes).is_err());
        prop_assert!(OffsetMap::decode(&bytes[..at]).is_err());
    }

    /// With a right checksum the body is still not trusted: an error, or a map that keeps its laws.
    #[test]
    fn no_bytes_panic(body in prop::collection::vec(prop_oneof![0u8..4, any::<u8>()], 0..40)) {
        let mut bytes = vec![1];
        bytes.extend(body);
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend(checksum.to_be_bytes());
        if let Ok(map) = OffsetMap::decode(&bytes) {
            prop_assert_eq!(map.encode(), bytes);
            let _ = (map.translate(map.source_end()), map.reverse(map.target_end()));
        }
    }

    #[test]
    fn a_refused_push_changes_nothing(log in logs(), back in 1i64..10, len in 1u64..10) {
        let mut map = log.map.clone();
        let (source, target) = (map.source_end(), map.target_end());
        prop_assert!(map.push_copied(S(source.0 - back), target, len).is_err());
        prop_assert!(map.push_copied(source, T(target.0 - back), len).is_err());
        prop_assert!(map.push_hole(S(source.0 - back), len).is_err());
        prop_assert!(map.push_copied(S(i64::MAX), T(i64::MAX), len).is_err());
        prop_assert_eq!(map, log.map);
    }

    #[test]
    fn identity_is_one_run_for_ever(start in 0i64..1_000, lens in prop::collection::vec(1u64..1_000, 1..50)) {
        let mut map = OffsetMap::identity_from(S(start));
        for len in &lens {
            map.advance(*len).unwrap();
            prop_assert!(map.is_identity());
        }
        prop_assert_eq!(map.runs().count(), 1);
        prop_assert!(map.encode().len() < 40);
        let end = start + lens.iter().sum::<u64>() as i64;
        for asked in [start, (start + end) / 2, end] {
            prop_assert_eq!(map.translate(S(asked)), Translation::Exact(T(asked)));
            prop_assert_eq!(map.reverse(T(asked)), Translation::Exact(S(asked)));
        }
    }

    /// `is_identity` says that every answer is the question, and nothing else does.
    #[test]
    fn is_identity_means_it(source in 0i64..3, target in 0i64..3, steps in steps(), runs in segment_runs()) {
        let map = build(source, target, &steps, runs).map;
        let same = (map.source_start().0, map.source_end().0) == (map.target_start().0, map.target_end().0)
            && (map.source_start().0..=map.source_end().0).all(|offset| {
                map.translate(S(offset)) == Translation::Exact(T(offset))
                    && map.reverse(T(offset)) == Translation::Exact(S(offset))
            });
        prop_assert_eq!(map.is_identity(), same);
    }
}

#[test]
fn a_constant_shift_is_named() {
    let mut map = OffsetMap::starting_at(S(1_000), T(0));
    map.advance(10).unwrap();
    assert_eq!(map.constant_shift(), Some(-1_000));
    assert!(!map.is_identity());
    assert_eq!(map.translate(S(1_005)), Translation::Exact(T(5)));
    map.push_hole(S(1_010), 1).unwrap();
    assert_eq!(map.constant_shift(), None);
}

#[test]
fn an_empty_map_answers_at_its_start_only() {
    let map = OffsetMap::identity_from(S(7));
    assert_eq!(map.translate(S(7)), Translation::Exact(T(7)));
    assert_eq!(
        map.translate(S(6)),
        Translation::BeforeStart { first: S(7) }
    );
    assert_eq!(
        map.translate(S(8)),
        Translation::NotYetCopied { copied_end: S(7) }
    );
    assert!(map.is_identity());
}

#[test]
fn the_largest_offsets_do_not_overflow() {
    let mut map = OffsetMap::identity_from(S(i64::MAX - 1));
    assert!(matches!(map.advance(2), Err(MapError::TooLong { .. })));
    assert!(matches!(
        map.advance(u64::MAX),
        Err(MapError::TooLong { .. })
    ));
    map.advance(1).unwrap();
    assert_eq!(map.translate(S(i64::MAX)), Translation::Exact(T(i64::MAX)));
    assert_eq!(OffsetMap::decode(&map.encode()), Ok(map));
}

#[test]
fn a_later_version_is_refused_by_name() {
    let mut bytes = OffsetMap::identity_from(S(0)).encode();
    bytes[0] = 2;
    assert_eq!(OffsetMap::decode(&bytes), Err(DecodeError::Version(2)));
    assert_eq!(OffsetMap::decode(&[]), Err(DecodeError::Truncated));
}

/// The bytes are on disk in other people's clusters: a change of the format must show here.
#[test]
fn the_format_is_this() {
    let mut map = OffsetMap::starting_at(S(300), T(0));
    map.push_copied(S(300), T(0), 10).unwrap();
    map.push_copied(S(312), T(11), 1).unwrap();
    map.push_hole(S(313), 2).unwrap();
    let bytes = map.encode();
    let (body, _) = bytes.split_last_chunk::<4>().unwrap();
    assert_eq!(body, [1, 0xac, 0x02, 0, 2, 0, 0, 10, 2, 1, 1, 2, 0]);
    let json = serde_json::to_string(&map).unwrap();
    assert_eq!(
        json,
        r#"{"version":1,"source_start":300,"target_start":0,"source_end":315,"target_end":12,"runs":[[300,0,10],[312,11,1]]}"#
    );
    let wrong = json.replace("[312,11,1]", "[312,9,1]");
    assert!(serde_json::from_str::<OffsetMap>(&wrong).is_err());
}
