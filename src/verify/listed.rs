//! The differences of a partition's records: all counted, some listed.

use std::collections::BTreeMap;

use super::digest::RecordDigest;
use super::judge::{Finding, Part, parts, swaps};
use super::report::{Difference, DifferenceKind, RecordShape};
use super::scope::Place;

/// No more of a partition are listed.
const LISTED_MAX: usize = 100;

/// Records that changed places are looked for among the first so many.
const PENDING_MAX: usize = 10_000;

/// What was found in one partition.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub counts: BTreeMap<DifferenceKind, u64>,
    pub list: Vec<Difference>,
    pending: Vec<Finding>,
}

impl Listed {
    /// Adds findings about records, in order.
    pub(super) fn add(&mut self, findings: Vec<Finding>) {
        let room = PENDING_MAX.saturating_sub(self.pending.len());
        let mut findings = findings.into_iter();
        self.pending.extend(findings.by_ref().take(room));
        for finding in findings {
            let kind = match finding {
                Finding::Changed { .. } => DifferenceKind::Changed,
                Finding::Missing(_) => DifferenceKind::Missing,
                Finding::Added(_) => DifferenceKind::Added,
            };
            *self.counts.entry(kind).or_default() += 1;
        }
    }

    /// Puts what was added into words, once all of it is here.
    pub(super) fn settle(&mut self, place: &Place) {
        let mut findings = std::mem::take(&mut self.pending);
        findings.sort_by_key(Finding::source_offset);
        for (finding, partner) in findings.iter().zip(swaps(&findings)) {
            let partner = partner.map(|index| findings[index].source_offset());
            self.push(difference(place, finding, partner));
        }
    }

    pub(super) fn push(&mut self, difference: Difference) {
        *self.counts.entry(difference.kind).or_default() += 1;
        if self.list.len() < LISTED_MAX {
            self.list.push(difference);
        }
    }

    pub(super) fn merge(&mut self, other: Self) {
        for (kind, count) in other.counts {
            *self.counts.entry(kind).or_default() += count;
        }
        let room = LISTED_MAX.saturating_sub(self.list.len());
        self.list.extend(other.list.into_iter().take(room));
    }

    pub(super) fn total(&self) -> u64 {
        self.counts.values().sum()
    }
}

fn difference(place: &Place, finding: &Finding, partner: Option<i64>) -> Difference {
    let named = |kind, detail| Difference::new(kind, detail).at(&place.topic, place.partition);
    match finding {
        Finding::Changed { source, target } => {
            let parts: Vec<&str> = parts(&source.digest, &target.digest)
                .into_iter()
                .map(Part::word)
                .collect();
            let (kind, detail) = match partner {
                Some(partner) => (
                    DifferenceKind::Swapped,
                    format!("the record changed places with the one at source offset {partner}"),
                ),
                None => (
                    DifferenceKind::Changed,
                    format!("{} differ", parts.join(", ")),
                ),
            };
            Difference {
                source_offset: Some(source.source_offset),
                target_offset: target.target_offset,
                parts: parts.into_iter().map(str::to_owned).collect(),
                source: Some(shape(&source.digest)),
                target: Some(shape(&target.digest)),
                ..named(kind, detail)
            }
        }
        Finding::Missing(entry) => {
            let detail = match entry.target_offset {
                Some(_) => "the target has no record there",
                None => "the offset map has no place for the record",
            };
            Difference {
                source_offset: Some(entry.source_offset),
                target_offset: entry.target_offset,
                source: Some(shape(&entry.digest)),
                ..named(DifferenceKind::Missing, detail.to_owned())
            }
        }
        Finding::Added(entry) => {
            let is_place = entry
                .target_offset
                .is_some_and(|target| place.link.is_place(target));
            Difference {
                source_offset: is_place.then_some(entry.source_offset),
                target_offset: entry.target_offset,
                target: Some(shape(&entry.digest)),
                ..named(
                    DifferenceKind::Added,
                    "the source has no such record".to_owned(),
                )
            }
        }
    }
}

fn shape(digest: &RecordDigest) -> RecordShape {
    let length = |bytes: i64| (bytes >= 0).then_some(bytes);
    RecordShape {
        key_bytes: length(digest.key_bytes),
        value_bytes: length(digest.value_bytes),
        headers: digest.header_count,
        timestamp_ms: digest.timestamp_ms,
        key_digest: format!("{:016x}", digest.key),
        value_digest: format!("{:016x}", digest.value),
        headers_digest: format!("{:016x}", digest.headers),
    }
}
