//! How a map is written for serde: whole, or as a head that names its closed segments.

use std::ops::Range;
use std::sync::Arc;

use super::builder::Builder;
use super::map::DEFAULT_SEGMENT_RUNS;
use super::segment::Segment;
use super::{DecodeError, OffsetMap, Run, SourceOffset, TargetOffset};

const VERSION: u8 = 1;

/// The map as serde sees it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
// A version that doesn't know segments must refuse a head, not read it as a map with fewer runs.
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    version: u8,
    source_start: SourceOffset,
    target_start: TargetOffset,
    source_end: SourceOffset,
    target_end: TargetOffset,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    segments: Option<Named>,
    /// `[source_start, target_start, len]` each; those of the segments aren't among them.
    runs: Vec<(SourceOffset, TargetOffset, u64)>,
}

/// The closed segments that belong to a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    /// The first one's number.
    first: u64,
    count: u64,
    /// Where the last one ends.
    source_end: SourceOffset,
    /// Where the last one ends.
    target_end: TargetOffset,
}

/// The part of a map that changes: its ends, its open runs, and which closed segments belong to
/// it. A few KiB, however many holes there are. A map that never closed a segment is whole in it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct MapHead(Document);

impl MapHead {
    /// The numbers of the closed segments.
    pub fn segments(&self) -> Range<u64> {
        self.0.segments.map_or(0..0, |named| {
            named.first..named.first.saturating_add(named.count)
        })
    }

    /// The map's [`target_end`](OffsetMap::target_end).
    pub fn target_end(&self) -> TargetOffset {
        self.0.target_end
    }

    pub(super) fn of(map: &OffsetMap) -> Self {
        let numbers = map.segment_numbers();
        let (source_end, target_end) = map.closed_end();
        // A map that never had a segment is written as before there were any.
        let segments = (numbers.end > 0).then_some(Named {
            first: numbers.start,
            count: numbers.end - numbers.start,
            source_end,
            target_end,
        });
        Self(Document::new(
            map,
            segments,
            map.open_runs().iter().copied(),
        ))
    }

    /// The map of this head and its segments, in order.
    pub(super) fn assemble(self, segments: Vec<Arc<[u8]>>) -> Result<OffsetMap, DecodeError> {
        let Self(document) = self;
        document.check_version()?;
        let mut map = Builder::new(document.start(), DEFAULT_SEGMENT_RUNS);
        let expected = document.segments.map_or(0, |named| named.count);
        if segments.len() as u64 != expected {
            return Err(DecodeError::Invalid("a segment is missing"));
        }
        if let Some(named) = document.segments {
            let segments: Result<_, _> = segments.into_iter().map(Segment::decode).collect();
            map.close(named.first, segments?)
                .map_err(DecodeError::Invalid)?;
            if named.count > 0 && map.end() != (named.source_end, named.target_end) {
                return Err(DecodeError::Invalid("the last segment ends elsewhere"));
            }
            if named.count > 0 && document.runs.is_empty() {
                return Err(DecodeError::Invalid("there are segments and no open run"));
            }
        }
        document.push_into(map)
    }
}

impl Document {
    fn new(map: &OffsetMap, segments: Option<Named>, runs: impl Iterator<Item = Run>) -> Self {
        Self {
            version: VERSION,
            source_start: map.source_start(),
            target_start: map.target_start(),
            source_end: map.source_end(),
            target_end: map.target_end(),
            segments,
            runs: runs
                .map(|run| (run.source_start, run.target_start, run.len))
                .collect(),
        }
    }

    fn check_version(&self) -> Result<(), DecodeError> {
        if self.version != VERSION {
            return Err(DecodeError::Version(self.version));
        }
        Ok(())
    }

    fn start(&self) -> (SourceOffset, TargetOffset) {
        (self.source_start, self.target_start)
    }

    fn push_into(self, mut map: Builder) -> Result<OffsetMap, DecodeError> {
        for (source_start, target_start, len) in self.runs {
            let run = Run {
                source_start,
                target_start,
                len,
            };
            map.push(run).map_err(DecodeError::Invalid)?;
        }
        map.finish((self.source_end, self.target_end))
            .map_err(DecodeError::Invalid)
    }
}

impl From<OffsetMap> for Document {
    fn from(map: OffsetMap) -> Self {
        Self::new(&map, None, map.runs())
    }
}

impl TryFrom<Document> for OffsetMap {
    type Error = DecodeError;

    fn try_from(document: Document) -> Result<Self, DecodeError> {
        MapHead(document).assemble(Vec::new())
    }
}
