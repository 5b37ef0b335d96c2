//! The laws of the intake, on generated source logs: nothing lost, nothing doubled, no offset
//! without its work, and every sequence where the broker expects it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::super::budget::{Budget, Meter};
use super::super::fill::FillRule;
use super::super::position::{Position, Producers};
use super::super::tombstones::Tombstones;
use super::super::work::Work;
use super::{Answer, IntakeRules, take};
use crate::batch::{self, Codec, Record, Stamp};
use crate::offsets::{OffsetMap, SourceOffset, TargetOffset, Translation};
use crate::telemetry::progress::FlowProgress;

const ABORTED_PRODUCER: i64 = 900;
const COMMITTED_PRODUCER: i64 = 901;

/// A piece of a source log.
#[derive(Clone, Debug)]
enum Piece {
    /// Records of a committed (or no) transaction, of so many bytes each.
    Data {
        records: usize,
        value_bytes: usize,
        codec: Codec,
    },
    /// Records of an aborted transaction.
    Aborted { records: usize },
    /// A commit marker.
    Marker,
    /// Offsets that the cleaner removed with their batches.
    Removed { offsets: i64 },
}

fn any_piece() -> impl Strategy<Value = Piece> {
    let codec = prop::sample::select(vec![Codec::None, Codec::Lz4, Codec::Zstd]);
    prop_oneof![
        6 => (1_usize..20, 0_usize..200, codec)
            .prop_map(|(records, value_bytes, codec)| Piece::Data { records, value_bytes, codec }),
        1 => (1_usize..20).prop_map(|records| Piece::Aborted { records }),
        2 => Just(Piece::Marker),
        1 => (1_i64..50).prop_map(|offsets| Piece::Removed { offsets }),
    ]
}

/// A source log and what of it must arrive.
#[derive(Clone, Debug)]
struct Log {
    batches: Vec<Bytes>,
    visible: Vec<(i64, Bytes)>,
    aborted: Vec<(i64, i64)>,
    next: i64,
}

impl Log {
    fn of(start: i64, pieces: &[Piece]) -> Self {
        let mut log = Self {
            batches: Vec::new(),
            visible: Vec::new(),
            aborted: Vec::new(),
            next: start,
        };
        for piece in pieces {
            match piece {
                Piece::Data {
                    records,
                    value_bytes,
                    codec,
                } => {
                    let records = records_at(log.next, *records, *value_bytes);
                    log.visible.extend(
                        records
                            .iter()
                            .map(|one| (one.offset, one.value.clone().unwrap_or_default())),
                    );
                    log.append(&records, *codec, 0, COMMITTED_PRODUCER);
                }
                Piece::Aborted { records } => {
                    log.aborted.push((ABORTED_PRODUCER, log.next));
                    let records = records_at(log.next, *records, 10);
                    log.append(&records, Codec::None, 0x10, ABORTED_PRODUCER);
                    log.marker(ABORTED_PRODUCER, 0);
                }
                Piece::Marker => log.marker(COMMITTED_PRODUCER, 1),
                Piece::Removed { offsets } => log.next += offsets,
            }
        }
        log
    }

    fn append(&mut self, records: &[Record], codec: Codec, attributes: u8, producer_id: i64) {
        let stamp = Stamp {
            producer_id,
            producer_epoch: 0,
            base_sequence: 0,
        };
        let batch = batch::encode(records, codec, stamp).expect("the records are consecutive");
        self.batches.push(placed(&batch, self.next, attributes));
        self.next += i64::try_from(records.len()).expect("a short list");
    }

    /// An end marker: one control record whose key says commit (1) or abort (0).
    fn marker(&mut self, producer_id: i64, kind: u8) {
        let mut record = records_at(self.next, 1, 6);
        record[0].key = Some(Bytes::copy_from_slice(&[0, 0, 0, kind]));
        self.append(&record, Codec::None, 0x30, producer_id);
    }

    fn answer<'a>(&'a self, records: &'a Bytes) -> Answer<'a> {
        Answer {
            records,
            aborted: &self.aborted,
            high_watermark: self.next,
        }
    }

    fn bytes(&self) -> Bytes {
        self.batches.concat().into()
    }
}

fn records_at(first: i64, count: usize, value_bytes: usize) -> Vec<Record> {
    (first..)
        .take(count)
        .map(|offset| Record {
            offset,
            timestamp: 1_700_000_000_000 + offset,
            key: Some(Bytes::from_static(b"k")),
            value: Some(Bytes::from(format!("{offset:0value_bytes$}"))),
            header_count: 0,
            headers: Bytes::new(),
        })
        .collect()
}

/// Gives a batch its offset and attribute bits, and the CRC that goes with them.
fn placed(batch: &Bytes, base_offset: i64, attributes: u8) -> Bytes {
    let mut bytes = BytesMut::from(&batch[..]);
    bytes[..8].copy_from_slice(&base_offset.to_be_bytes());
    bytes[22] |= attributes;
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.freeze()
}

fn rules(coalesce_below_bytes: usize, max_batch_bytes: usize) -> IntakeRules {
    IntakeRules {
        delete_retention_ms: 86_400_000,
        producers: Producers::first(7, 8),
        max_batch_bytes,
        min_in_sync: Some(1),
        target_compacted: false,
        source_compacted: false,
        coalesce_below_bytes,
        coalesce_to_bytes: 4 * coalesce_below_bytes,
        max_merged_bytes: 1 << 20,
        max_decompressed_bytes: 1 << 24,
        fill: FillRule {
            limit: 1 << 40,
            may_map: true,
        },
        keeps_foreign: false,
    }
}

fn meter() -> Arc<Meter> {
    let progress = Arc::new(FlowProgress::new("flow", "source", "target"));
    let budget = Arc::new(Budget::new(1 << 30, 1 << 30, progress));
    let share = budget.share(1, 0);
    Arc::new(Meter::new(budget, share))
}

/// What a target that follows the broker's rules ends up with, offset by offset.
fn apply(work: Vec<Work>, target: &mut i64, fillers: &mut i64, seen: &mut Vec<(i64, Bytes)>) {
    for one in work {
        match one {
            Work::Batch(one) => {
                assert_eq!(one.target_base, *target, "every offset has its work");
                let bytes: Bytes = [one.head, one.body].concat().into();
                let batch = batch::split(bytes).next().expect("a batch").expect("whole");
                batch::verify_crc(&batch).expect("the CRC is right");
                assert_eq!(batch.header.base_offset, 0);
                assert_eq!(
                    batch.header.attributes & !0x7,
                    0,
                    "no bit of the source's passes"
                );
                assert_eq!(i64::from(batch.header.base_sequence), *target - *fillers);
                assert_eq!(i64::from(batch.header.count), one.count);
                for record in batch::open(&batch, 1 << 24).expect("readable") {
                    seen.push((*target + record.offset, record.value.unwrap_or_default()));
                }
                *target += one.count;
            }
            Work::Fill(one) => {
                assert_eq!((one.target_base, one.fillers_before), (*target, *fillers));
                *target += one.count;
                *fillers += one.count;
            }
            Work::Step(..) => panic!("nothing is paired yet"),
            Work::Skip { .. } => panic!("nothing is skipped where offsets are identical"),
            Work::Dear(hole) => panic!("the limit is far away: {hole}"),
        }
    }
}

/// What a target and a map end up with where holes are skipped.
fn apply_mapped(work: Vec<Work>, map: &mut OffsetMap, seen: &mut Vec<(i64, Bytes)>) {
    for one in work {
        let one = match one {
            Work::Batch(one) => one,
            // What follows says the same.
            Work::Skip { .. } => continue,
            Work::Fill(_) | Work::Step(..) => panic!("nothing is filled"),
            Work::Dear(hole) => panic!("a map skips any hole: {hole}"),
        };
        assert_eq!(one.target_base, map.target_end().0);
        let bytes: Bytes = [&one.head[..], &one.body[..]].concat().into();
        let batch = batch::split(bytes).next().expect("a batch").expect("whole");
        batch::verify_crc(&batch).expect("the CRC is right");
        assert_eq!(i64::from(batch.header.base_sequence), one.target_base);
        for record in batch::open(&batch, 1 << 24).expect("readable") {
            seen.push((
                one.target_base + record.offset,
                record.value.unwrap_or_default(),
            ));
        }
        for run in one.runs() {
            map.push_copied(run.source_start, run.target_start, run.len)
                .expect("in order");
        }
        assert_eq!(map.target_end().0, one.target_base + one.count);
        assert_eq!(map.source_end().0, one.source_next);
    }
}

proptest! {
    #[test]
    fn every_visible_record_arrives_once_at_its_offset(
        pieces in prop::collection::vec(any_piece(), 1..40),
        start in 0_i64..1000,
        coalesce_below_bytes in prop::sample::select(vec![0_usize, 200, 2_000, 100_000]),
        cut in 0_usize..40,
    ) {
        let log = Log::of(start, &pieces);
        let (rules, meter) = (rules(coalesce_below_bytes, 1_000_000), meter());
        let mut position = Position { source: start, target: start, ..Position::default() };
        let (mut target, mut fillers, mut seen) = (start, 0, Vec::new());
        // Two answers: the second one begins at a batch that the first one ended with, as it does
        // when an answer was cut off in the middle of a batch.
        let cut = cut.min(log.batches.len());
        for part in [&log.batches[..cut], &log.batches[cut.saturating_sub(1)..]] {
            let (work, result) = take(&rules, &meter, &mut position, &mut Tombstones::default(), log.answer(&part.concat().into()));
            result.expect("the log is sound");
            apply(work, &mut target, &mut fillers, &mut seen);
        }
        prop_assert_eq!(seen, log.visible);
        let removed_at_end = pieces.iter().rev().map_while(|piece| match piece {
            Piece::Removed { offsets } => Some(*offsets),
            _ => None,
        }).sum::<i64>();
        prop_assert_eq!(position.source, log.next - removed_at_end);
        prop_assert_eq!(target, position.target);
        prop_assert_eq!(position.source, position.target);
    }

    #[test]
    fn a_map_skips_what_identity_fills(
        pieces in prop::collection::vec(any_piece(), 1..40),
        coalesce_below_bytes in prop::sample::select(vec![0_usize, 200, 2_000, 100_000]),
        max_batch_bytes in prop::sample::select(vec![600_usize, 1_000_000]),
        cut in 0_usize..40,
    ) {
        let log = Log::of(0, &pieces);
        let (rules, meter) = (rules(coalesce_below_bytes, max_batch_bytes), meter());
        let mut position = Position { mapped: true, ..Position::default() };
        let (mut seen, mut map) = (Vec::new(), OffsetMap::identity_from(SourceOffset(0)));
        let cut = cut.min(log.batches.len());
        for part in [&log.batches[..cut], &log.batches[cut.saturating_sub(1)..]] {
            let (work, result) = take(&rules, &meter, &mut position, &mut Tombstones::default(), log.answer(&part.concat().into()));
            result.expect("the log is sound");
            let from = map.target_end().0;
            apply_mapped(work, &mut map, &mut seen);
            prop_assert!(map.target_end().0 >= from && position.target == map.target_end().0);
        }
        prop_assert_eq!(seen.len(), log.visible.len());
        for ((source, value), (target, copied)) in log.visible.iter().zip(&seen) {
            prop_assert_eq!(value, copied);
            prop_assert_eq!(map.translate(SourceOffset(*source)), Translation::Exact(TargetOffset(*target)));
            prop_assert_eq!(map.reverse(TargetOffset(*target)), Translation::Exact(SourceOffset(*source)));
        }
    }

    /// Whatever the limit is: what comes before the hole is identical, and a map that begins there has
    /// the rest, each record once.
    #[test]
    fn a_hole_that_is_too_dear_halts_and_a_map_goes_on_from_there(
        pieces in prop::collection::vec(any_piece(), 1..40),
        limit in 0_i64..60,
        cut in 0_usize..40,
    ) {
        let log = Log::of(0, &pieces);
        let mut rules = rules(2_000, 1_000_000);
        rules.fill.limit = limit;
        let (mut position, mut target, mut fillers, mut seen) = (Position::default(), 0, 0, Vec::new());
        let mut halted_at = None;
        let cut = cut.min(log.batches.len());
        for part in [&log.batches[..cut], &log.batches[..]] {
            let (mut work, result) = take(&rules, &meter(), &mut position, &mut Tombstones::default(), log.answer(&part.concat().into()));
            result.expect("the log is sound");
            if let Some(Work::Dear(hole)) = work.pop_if(|last| matches!(last, Work::Dear(_))) {
                prop_assert_eq!((hole.from, hole.limit), (position.source, limit));
                halted_at = Some(hole.from);
            }
            apply(work, &mut target, &mut fillers, &mut seen);
            prop_assert_eq!((position.halted, position.source), (halted_at.is_some(), target));
        }
        let Some(from) = halted_at else {
            prop_assert_eq!(seen, log.visible);
            return Ok(());
        };
        let mut position = Position { source: from, target, fillers, mapped: true, ..Position::default() };
        let (work, result) = take(&rules, &meter(), &mut position, &mut Tombstones::default(), log.answer(&log.bytes()));
        result.expect("the log is sound");
        let mut map = OffsetMap::identity_from(SourceOffset(0));
        map.advance(u64::try_from(from).expect("positive")).expect("a run");
        for one in work {
            let Work::Batch(one) = one else { continue };
            // The sequence is counted without the fillers before the turn.
            let bytes: Bytes = [&one.head[..], &one.body[..]].concat().into();
            let batch = batch::split(bytes).next().expect("a batch").expect("whole");
            prop_assert_eq!(i64::from(batch.header.base_sequence), one.target_base - fillers);
            for record in batch::open(&batch, 1 << 24).expect("readable") {
                seen.push((one.target_base + record.offset, record.value.unwrap_or_default()));
            }
            for run in one.runs() {
                map.push_copied(run.source_start, run.target_start, run.len).expect("in order");
            }
        }
        prop_assert_eq!(seen.len(), log.visible.len());
        for ((source, value), (target, copied)) in log.visible.iter().zip(&seen) {
            prop_assert_eq!(value, copied);
            prop_assert_eq!(map.translate(SourceOffset(*source)), Translation::Exact(TargetOffset(*target)));
            prop_assert!(*source >= from || source == target);
        }
    }

    #[test]
    fn damage_never_panics_and_never_moves_past_itself(
        pieces in prop::collection::vec(any_piece(), 1..10),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let log = Log::of(0, &pieces);
        let mut bytes = BytesMut::from(&log.bytes()[..]);
        prop_assume!(!bytes.is_empty());
        for (index, value) in flips {
            let index = index.index(bytes.len());
            bytes[index] = value;
        }
        let mut position = Position::default();
        let (work, _) = take(&rules(2_000, 1_000_000), &meter(), &mut position, &mut Tombstones::default(), log.answer(&bytes.freeze()));
        let settled: i64 = work.iter().map(|one| match one {
            Work::Batch(one) => one.count,
            Work::Fill(one) => one.count,
            Work::Step(..) | Work::Skip { .. } | Work::Dear(_) => 0,
        }).sum();
        prop_assert_eq!(settled, position.target);
        prop_assert!(position.source <= log.next, "nothing is settled beyond the source's end");
    }
}

#[test]
fn a_batch_that_is_too_large_for_the_target_is_split() {
    let log = Log::of(
        0,
        &[Piece::Data {
            records: 50,
            value_bytes: 1_000,
            codec: Codec::None,
        }],
    );
    let mut position = Position {
        source: 0,
        target: 0,
        ..Position::default()
    };
    let (work, result) = take(
        &rules(0, 10_000),
        &meter(),
        &mut position,
        &mut Tombstones::default(),
        log.answer(&log.bytes()),
    );
    result.expect("the log is sound");
    assert!(work.len() > 4, "{} pieces", work.len());
    for one in &work {
        let Work::Batch(one) = one else {
            panic!("only batches")
        };
        assert!(one.size_bytes() <= 10_000, "{} bytes", one.size_bytes());
    }
    let (mut target, mut fillers, mut seen) = (0, 0, Vec::new());
    apply(work, &mut target, &mut fillers, &mut seen);
    assert_eq!(seen, log.visible);
}

#[test]
fn a_batch_that_begins_before_the_position_loses_its_head() {
    let log = Log::of(
        0,
        &[Piece::Data {
            records: 10,
            value_bytes: 20,
            codec: Codec::Lz4,
        }],
    );
    let mut position = Position {
        source: 4,
        target: 4,
        ..Position::default()
    };
    let (work, result) = take(
        &rules(0, 10_000),
        &meter(),
        &mut position,
        &mut Tombstones::default(),
        log.answer(&log.bytes()),
    );
    result.expect("the log is sound");
    let (mut target, mut fillers, mut seen) = (4, 0, Vec::new());
    apply(work, &mut target, &mut fillers, &mut seen);
    assert_eq!(seen, log.visible[4..]);
}

/// Short transactions and what a cleaner left of a batch make one batch each time where offsets are mapped
/// anyhow.
#[test]
fn holes_keep_nothing_apart_where_they_are_skipped() {
    let transaction = [
        Piece::Data {
            records: 5,
            value_bytes: 10,
            codec: Codec::None,
        },
        Piece::Marker,
        Piece::Aborted { records: 2 },
        Piece::Removed { offsets: 3 },
    ];
    let log = Log::of(0, &vec![transaction; 20].concat());
    let mut cleaned = Log::of(100, &[]);
    let left: Vec<Record> = (100..150)
        .step_by(2)
        .flat_map(|offset| records_at(offset, 1, 10))
        .collect();
    cleaned.batches.push(with_gaps(&left));
    cleaned.visible = left
        .iter()
        .map(|it| (it.offset, it.value.clone().unwrap_or_default()))
        .collect();
    cleaned.next = 149;
    for log in [log, cleaned] {
        let start = log.visible[0].0;
        let mut position = Position {
            source: start,
            mapped: true,
            ..Position::default()
        };
        let (work, result) = take(
            &rules(100_000, 1_000_000),
            &meter(),
            &mut position,
            &mut Tombstones::default(),
            log.answer(&log.bytes()),
        );
        result.expect("the log is sound");
        assert!(
            matches!(
                work.as_slice(),
                [Work::Batch(_)] | [Work::Batch(_), Work::Skip { .. }]
            ),
            "{} pieces",
            work.len()
        );
        let mut map = OffsetMap::starting_at(SourceOffset(start), TargetOffset(0));
        let mut seen = Vec::new();
        apply_mapped(work, &mut map, &mut seen);
        let expected: Vec<(i64, Bytes)> = (0..)
            .zip(log.visible.iter().map(|it| it.1.clone()))
            .collect();
        assert_eq!(seen, expected);
        for (target, (source, _)) in (0..).zip(&log.visible) {
            let exact = Translation::Exact(TargetOffset(target));
            assert_eq!(map.translate(SourceOffset(*source)), exact);
        }
    }
}

/// A batch as a cleaner leaves it: its records keep their offsets.
fn with_gaps(records: &[Record]) -> Bytes {
    let (first, last) = (records[0].offset, records[records.len() - 1].offset);
    let mut body = BytesMut::new();
    for record in records {
        let value = record.value.clone().unwrap_or_default();
        let mut rest = vec![0, zigzag(record.timestamp - records[0].timestamp)];
        rest.extend([zigzag(record.offset - first), zigzag(-1)]);
        rest.push(zigzag(i64::try_from(value.len()).expect("short")));
        rest.extend(&value[..]);
        rest.push(0);
        body.extend([zigzag(i64::try_from(rest.len()).expect("short"))]);
        body.extend(rest);
    }
    let count = i64::try_from(records.len()).expect("a short list");
    let whole = batch::encode(
        &records_at(first, records.len(), 0),
        Codec::None,
        Stamp::NONE,
    );
    let mut bytes = BytesMut::from(&whole.expect("consecutive")[..batch::HEADER_BYTES]);
    bytes.extend(body);
    let length = i32::try_from(bytes.len() - 12).expect("short");
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    let delta = i32::try_from(last - first).expect("short");
    bytes[23..27].copy_from_slice(&delta.to_be_bytes());
    assert_eq!(
        count,
        i64::from(i32::from_be_bytes([
            bytes[57], bytes[58], bytes[59], bytes[60]
        ]))
    );
    placed(&bytes.freeze(), first, 0)
}

/// A varint of one byte.
fn zigzag(value: i64) -> u8 {
    u8::try_from((value << 1) ^ (value >> 63)).expect("small")
}

/// A broker reads its high watermark before the log: what is appended in between is in the answer.
#[test]
fn what_joins_on_beyond_the_high_watermark_is_taken_and_a_jump_is_not() {
    let data = Piece::Data {
        records: 3,
        value_bytes: 10,
        codec: Codec::None,
    };
    let log = Log::of(0, &[data.clone(), data]);
    let taken = |bytes: Bytes, high_watermark| {
        let mut position = Position {
            source: 0,
            target: 0,
            ..Position::default()
        };
        let answer = Answer {
            high_watermark,
            ..log.answer(&bytes)
        };
        let (_, result) = take(
            &rules(0, 1_000_000),
            &meter(),
            &mut position,
            &mut Tombstones::default(),
            answer,
        );
        (position.source, result.is_ok())
    };
    for high_watermark in [0, 2, 3] {
        assert_eq!(taken(log.bytes(), high_watermark), (6, true));
    }
    // A base offset is covered by no checksum.
    let mut damaged = BytesMut::from(&log.bytes()[..]);
    let second = log.batches[0].len();
    damaged[second..second + 8].copy_from_slice(&1_000_000_i64.to_be_bytes());
    assert_eq!(taken(damaged.freeze(), 6), (3, false));
}

/// Keys that the source has no more take the first offsets of a hole, as records: both counts go on as ever.
#[test]
fn tombstones_take_the_place_of_fillers() {
    let data = |records| Piece::Data {
        records,
        value_bytes: 10,
        codec: Codec::None,
    };
    let log = Log::of(0, &[data(3), data(4), data(2)]);
    // The cleaner took the second batch.
    let cleaned = [log.batches[0].clone(), log.batches[2].clone()].concat();
    for mapped in [false, true] {
        let mut position = Position {
            mapped,
            ..Position::default()
        };
        let keys = vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")];
        let mut tombstones = Tombstones::new(keys, 9, 7);
        let (work, result) = take(
            &rules(0, 1_000_000),
            &meter(),
            &mut position,
            &mut tombstones,
            log.answer(&Bytes::from(cleaned.clone())),
        );
        assert!(result.is_ok());
        let places = work.iter().map(|work| match work {
            Work::Batch(batch) => (batch.target_base, batch.count, batch.source_next),
            Work::Fill(fill) => (fill.target_base, -fill.count, fill.source_next),
            Work::Skip { source_next } => (-1, 0, *source_next),
            other => panic!("{other:?}"),
        });
        let places: Vec<_> = places.collect();
        let fillers = match mapped {
            false => vec![(0, 3, 3), (3, 2, 5), (5, -2, 7), (7, 2, 9)],
            true => vec![(0, 3, 3), (3, 2, 5), (-1, 0, 7), (5, 2, 9)],
        };
        assert_eq!(places, fillers);
        assert_eq!(position.sequence(), 7, "every record counts");
        assert_eq!(position.fillers, if mapped { 0 } else { 2 });
    }
}
