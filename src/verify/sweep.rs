//! Two readers, one a side, over the same ranges.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rdkafka::consumer::Consumer as _;

use super::VerifyError;
use super::board::{Board, Compare, Side, Unit};
use super::client::{self, Consumer};
use super::digest::Hasher;
use super::headers;
use super::limiter::Limiter;
use super::progress::Progress;
use super::reader::{FETCH, Reader, STALL_ANSWERS};
use super::records::Content;
use crate::config::ClusterSection;

/// A consumer for each side, and what all readings of a run share.
pub(super) struct Readers<'a> {
    source: Consumer,
    target: Consumer,
    pub hasher: Hasher,
    /// After how long a partition that gives nothing is given up, on each side.
    stalls: (Duration, Duration),
    limiter: Limiter,
    progress: &'a Progress,
    cancelled: &'a AtomicBool,
}

/// How a reading is done.
#[derive(Clone, Copy)]
pub(super) struct Manner {
    /// Partitions read at the same time.
    pub open_max: usize,
    /// Whether it counts in the progress.
    pub counts: bool,
}

/// A unit that could not be read, and why.
pub(super) type Failure = (usize, String);

impl<'a> Readers<'a> {
    pub(super) fn new(
        sections: (&ClusterSection, &ClusterSection),
        bytes_per_second: Option<u64>,
        hasher: Hasher,
        progress: &'a Progress,
        cancelled: &'a AtomicBool,
    ) -> Result<Self, VerifyError> {
        headers::keep_quiet();
        let create = |section: &ClusterSection| {
            let consumer = client::consumer(section, "twinlog-verify", &FETCH)?;
            // Who leads what, of all topics at once. For each that it doesn't know when it begins with it librdkafka waits a
            // tenth of a second before it asks. Who doesn't answer now is asked again then.
            let _ = consumer.fetch_metadata(None, section.request_timeout);
            Ok::<_, VerifyError>(consumer)
        };
        Ok(Self {
            source: create(sections.0)?,
            target: create(sections.1)?,
            hasher,
            stalls: (
                sections.0.request_timeout * STALL_ANSWERS,
                sections.1.request_timeout * STALL_ANSWERS,
            ),
            limiter: Limiter::new(bytes_per_second),
            progress,
            cancelled,
        })
    }

    /// Reads the units on both sides, and hands every chunk to `compare`.
    pub(super) fn read<'c, C: Content>(
        &self,
        units: &'c [Unit],
        manner: Manner,
        make: &(dyn Fn(usize) -> C + Sync),
        compare: Compare<'c, C>,
    ) -> Result<Vec<Failure>, VerifyError>
    where
        'a: 'c,
    {
        let board = Board::new(units, manner.open_max, self.cancelled, compare);
        let reader = |side, consumer: &Consumer, stall| Reader {
            side,
            consumer: consumer.clone(),
            stall,
            hasher: self.hasher,
            limiter: &self.limiter,
            progress: self.progress,
            counts: manner.counts,
        };
        let source = reader(Side::Source, &self.source, self.stalls.0);
        let target = reader(Side::Target, &self.target, self.stalls.1);
        let ended = std::thread::scope(|scope| {
            let source = scope.spawn(|| source.run(&board, make));
            let target = scope.spawn(|| target.run(&board, make));
            // One that is gone would let the other wait for ever.
            let ended = [source.join(), target.join()];
            ended.into_iter().collect::<Result<Vec<()>, _>>()
        });
        if ended.is_err() {
            return Err(VerifyError::Bug("a reader has crashed".to_owned()));
        }
        if board.is_cancelled() {
            return Err(VerifyError::Cancelled);
        }
        Ok(board.into_failed())
    }
}
