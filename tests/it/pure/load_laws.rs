//! The laws by which the tests under load judge: each says nothing of a sound account, and finds
//! what was planted in an unsound one.

use std::collections::BTreeMap;

use crate::support::book::{Book, Committed, Pages, Read, Told};
use crate::support::failover::Place;
use crate::support::laws::{
    Again, Log, OrphanRanges, each_acknowledged_once_or_orphaned, each_group_read_all,
    nothing_is_read_again, order_is_kept, orphans_are_what_is_missing, positions_are_fresh,
    same_offsets,
};

fn place(offset: i64) -> Place {
    ("orders".to_owned(), 0, offset)
}

fn partition() -> (String, i32) {
    ("orders".to_owned(), 0)
}

fn read(era: usize, offset: i64) -> Read {
    Read {
        era,
        place: place(offset),
        value: format!("p {offset}"),
    }
}

/// Records 0 to 9 were acknowledged; 6 and 7 weren't copied, after padding 8 and 9 are at 100.
struct Story {
    pages: Pages,
    old: Log,
    copied: Log,
    primary: Log,
    orphans: OrphanRanges,
}

fn story() -> Story {
    let log = |offsets: std::ops::Range<i64>| -> Log {
        offsets.map(|it| (place(it), format!("p {it}"))).collect()
    };
    let (old, copied) = (log(0..8), log(0..6));
    let mut primary = copied.clone();
    primary.extend((8..10).map(|it| (place(92 + it), format!("p {it}"))));
    let mut pages = Pages::default();
    pages.acknowledged.extend(old.clone());
    pages.acknowledged.extend(primary.clone());
    let mut reads: Vec<Read> = (0..7).map(|it| read(0, it)).collect();
    // It had committed 4.
    reads.extend((4..6).map(|it| read(1, it)));
    reads.extend((8..10).map(|it| Read {
        era: 1,
        place: place(92 + it),
        value: format!("p {it}"),
    }));
    pages.reads.insert("g".to_owned(), reads);
    Story {
        pages,
        old,
        copied,
        primary,
        orphans: [(partition(), vec![(6, 8)])].into(),
    }
}

impl Story {
    fn once(&self) -> Vec<String> {
        each_acknowledged_once_or_orphaned(&self.pages, &self.primary, &self.orphans)
    }

    fn missing(&self) -> Vec<String> {
        orphans_are_what_is_missing(&self.pages, &self.old, &self.copied, &self.orphans)
    }

    fn order(&self) -> Vec<String> {
        order_is_kept(&self.pages, &self.primary, &self.orphans)
    }

    fn again(&self, from: i64) -> Vec<String> {
        let from = Again::From([(partition(), from)].into());
        nothing_is_read_again(&self.pages, "g", &[from])
    }

    fn read_all(&self) -> Vec<String> {
        each_group_read_all(&self.pages, &self.primary, &["g"])
    }
}

const NOTHING: [&str; 0] = [];

#[test]
fn a_sound_account_breaks_no_law() {
    let story = story();
    assert_eq!(story.once(), NOTHING);
    assert_eq!(story.missing(), NOTHING);
    assert_eq!(story.order(), NOTHING);
    assert_eq!(story.again(4), NOTHING);
    assert_eq!(story.read_all(), NOTHING);
    assert_eq!(
        same_offsets(&story.old, &story.primary, &story.orphans),
        NOTHING
    );
}

#[test]
fn a_lost_record_is_found() {
    let mut it = story();
    it.primary.remove(&place(3));
    assert_eq!(it.once().len(), 1, "{:?}", it.once());
    assert_eq!(it.order().len(), 1);
    assert_eq!(same_offsets(&it.old, &it.primary, &it.orphans).len(), 1);
}

#[test]
fn a_changed_record_is_found() {
    let mut it = story();
    it.primary.insert(place(3), "p 33".to_owned());
    // Not what was acknowledged, and nobody's.
    assert_eq!(it.once().len(), 2, "{:?}", it.once());
    assert_eq!(it.read_all().len(), 1);
    assert_eq!(same_offsets(&it.old, &it.primary, &it.orphans).len(), 1);
}

#[test]
fn an_orphan_that_was_mixed_in_is_found() {
    let mut it = story();
    it.primary.insert(place(6), "p 6".to_owned());
    assert_eq!(it.once().len(), 1, "{:?}", it.once());
    it.copied.insert(place(6), "p 6".to_owned());
    assert_eq!(it.missing().len(), 1);
}

#[test]
fn an_offset_that_means_two_records_is_found() {
    let mut it = story();
    // Without padding the next record lands where an orphan is.
    it.primary.insert(place(6), "p 8".to_owned());
    assert!(!it.once().is_empty());
    let book = Book::default();
    for value in ["p 6", "p 8"] {
        book.note(Told::Acknowledged {
            place: place(6),
            value: value.to_owned(),
        });
    }
    assert_eq!(book.look(|pages| pages.clashes.len()), 1);
}

#[test]
fn orphans_that_nobody_counts_are_found_and_too_many_too() {
    let mut it = story();
    it.orphans.insert(partition(), vec![(6, 7)]);
    assert_eq!(it.missing().len(), 1);
    assert_eq!(it.once().len(), 1);
    assert_eq!(it.order().len(), 1);
    it.orphans.insert(partition(), vec![(5, 6), (6, 8)]);
    assert_eq!(it.missing().len(), 1);
    assert_eq!(it.once().len(), 1);
}

#[test]
fn a_record_that_is_there_twice_is_found_unless_it_was_in_doubt() {
    let mut it = story();
    it.primary.insert(place(102), "p 9".to_owned());
    assert_eq!(it.once().len(), 2, "{:?}", it.once());
    it.pages.in_doubt.insert((partition(), "p 9".to_owned()));
    assert_eq!(it.once(), NOTHING);
}

#[test]
fn records_out_of_order_are_found() {
    let mut it = story();
    for (offset, value) in [(2, "p 3"), (3, "p 2")] {
        it.primary.insert(place(offset), value.to_owned());
        it.pages
            .acknowledged
            .insert(place(offset), value.to_owned());
    }
    assert_eq!(it.order().len(), 1);
}

#[test]
fn a_number_that_is_nowhere_is_found() {
    let mut it = story();
    it.primary.remove(&place(3));
    it.pages.acknowledged.remove(&place(3));
    assert_eq!(it.once(), NOTHING);
    assert_eq!(it.order().len(), 1);
}

#[test]
fn a_skipped_record_is_found() {
    let mut it = story();
    let reads = it.pages.reads.get_mut("g").expect("it reads");
    reads.retain(|read| read.place != place(100));
    assert_eq!(it.read_all().len(), 1);
}

#[test]
fn what_is_read_again_is_found() {
    let mut it = story();
    assert_eq!(it.again(5).len(), 1);
    assert_eq!(
        nothing_is_read_again(&it.pages, "g", &[Again::Nothing]).len(),
        2
    );
    // Within one era never.
    let reads = it.pages.reads.get_mut("g").expect("it reads");
    reads.push(read(1, 5));
    assert_eq!(it.again(4).len(), 1);
}

#[test]
fn a_position_that_was_left_behind_is_found() {
    let mut pages = Pages::default();
    for (offset, at_ms) in [(3, 1_000), (5, 2_000), (6, 2_900)] {
        let committed = Committed {
            era: 0,
            partition: partition(),
            offset,
            at_ms,
        };
        pages
            .commits
            .entry("g".to_owned())
            .or_default()
            .push(committed);
    }
    let judge = |copied: Option<i64>, end: i64| {
        let copied: BTreeMap<_, _> = copied.map(|it| (partition(), it)).into_iter().collect();
        let ends = [(partition(), end)].into();
        positions_are_fresh(&pages, "g", 0, &copied, &ends, 2_500)
    };
    assert_eq!(judge(Some(5), 9), NOTHING);
    assert_eq!(judge(Some(6), 9), NOTHING);
    assert_eq!(judge(Some(4), 9).len(), 1);
    assert_eq!(judge(None, 9).len(), 1);
    // The records behind 5 weren't copied.
    assert_eq!(judge(Some(3), 4), NOTHING);
}

#[test]
fn lines_of_applications_are_understood() {
    let told = |line: &str| Told::parse(line);
    assert_eq!(
        told("ack p orders 0 7 3"),
        Some(Told::Acknowledged {
            place: place(7),
            value: "p 3".to_owned()
        })
    );
    assert_eq!(
        told("doubt p orders 0 3"),
        Some(Told::InDoubt(partition(), "p 3".to_owned()))
    );
    assert_eq!(
        told("read g 1 orders 0 5 p 5"),
        Some(Told::Read("g".to_owned(), read(1, 5)))
    );
    assert_eq!(
        told("committed g 0 orders 0 3 1000"),
        Some(Told::Committed(
            "g".to_owned(),
            Committed {
                era: 0,
                partition: partition(),
                offset: 3,
                at_ms: 1_000
            }
        ))
    );
    assert_eq!(
        told("failed p it broke"),
        Some(Told::Failed("p it broke".to_owned()))
    );
    for line in [
        "",
        "ack",
        "ack p orders x 7 3",
        "read g 1 orders 0 5",
        "what p",
    ] {
        assert_eq!(told(line), None, "{line}");
    }
}
