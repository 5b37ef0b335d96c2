//! Which leader epoch of the source wrote what was fetched, as far as this process fetched it.
//!
//! A new leader always means another leader epoch, so it closes the partition: what has to be compared
//! with the new leader's log must outlive the open partition.

use std::sync::{Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

/// What lies between the copy's end and the newest fetch is a moment's work: more changes of the
/// epoch than this don't fit into it.
const SPANS_MAX: usize = 32;

/// Offsets `start..end` were written in this epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The source leader's epoch.
    pub epoch: i32,
    /// The first offset.
    pub start: i64,
    /// The offset behind the last one.
    pub end: i64,
}

/// Up to where the source's log is known, and the epoch that wrote what is right before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The source leader's epoch.
    pub epoch: i32,
    /// The first source offset behind what it is known of.
    pub position: i64,
    /// Fetched by this process. What a stored record tells may be weeks old, so that the source's
    /// cleaner may have removed all that an epoch wrote.
    pub is_fresh: bool,
}

/// A partition's epochs. Each opening has its own and begins with what the last one knew: what a
/// closed one still fetches changes nothing.
#[derive(Debug)]
pub struct SourceEpochs {
    source_topic_id: Uuid,
    target_topic_id: Uuid,
    /// The epoch of the leader that this opening fetches from, or from whose follower.
    leader_epoch: i32,
    spans: Mutex<Vec<Span>>,
}

impl SourceEpochs {
    /// Nothing is known.
    pub fn new(source_topic_id: Uuid, target_topic_id: Uuid) -> Self {
        Self {
            source_topic_id,
            target_topic_id,
            leader_epoch: -1,
            spans: Mutex::default(),
        }
    }

    /// The same, fetched from a leader of this epoch.
    pub fn led_in(self, leader_epoch: i32) -> Self {
        Self {
            leader_epoch,
            ..self
        }
    }

    /// Whether the partition has had a newer leader than the one that is fetched from.
    pub fn is_led_elsewhere(&self, newest_epoch: i32) -> bool {
        self.leader_epoch >= 0 && self.leader_epoch < newest_epoch
    }

    /// What is known of the offsets before `next`, for the next opening.
    pub fn carried(&self, next: i64) -> Self {
        let mut spans = self.spans().clone();
        spans.retain(|span| span.start < next);
        for span in &mut spans {
            span.end = span.end.min(next);
        }
        Self {
            source_topic_id: self.source_topic_id,
            target_topic_id: self.target_topic_id,
            leader_epoch: -1,
            spans: Mutex::new(spans),
        }
    }

    /// The copy's topic.
    pub fn target_topic_id(&self) -> Uuid {
        self.target_topic_id
    }

    /// Whether it tells of this copy of this topic.
    pub fn is_of(&self, source_topic_id: Uuid, target_topic_id: Uuid) -> bool {
        self.source_topic_id == source_topic_id && self.target_topic_id == target_topic_id
    }

    /// Notes batches that were fetched.
    pub fn note(&self, fetched: &[Span]) {
        let mut spans = self.spans();
        for span in fetched {
            join(&mut spans, *span);
        }
        let surplus = spans.len().saturating_sub(SPANS_MAX);
        spans.drain(..surplus);
    }

    /// What is known of the records before `position`.
    pub fn before(&self, position: i64) -> Option<Known> {
        let spans = self.spans();
        let span = spans.iter().rev().find(|span| span.start < position)?;
        Some(Known {
            epoch: span.epoch,
            position: span.end.min(position),
            is_fresh: true,
        })
    }

    fn spans(&self) -> MutexGuard<'_, Vec<Span>> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Appends a span, or makes the last one longer. Batches of the old formats have no epoch.
pub fn join(spans: &mut Vec<Span>, next: Span) {
    if next.epoch < 0 {
        return;
    }
    match spans.last_mut() {
        Some(last) if last.epoch == next.epoch => last.end = last.end.max(next.end),
        _ => spans.push(next),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(epoch: i32, start: i64, end: i64) -> Span {
        Span { epoch, start, end }
    }

    fn epochs(spans: &[Span]) -> SourceEpochs {
        let epochs = SourceEpochs::new(Uuid::nil(), Uuid::nil());
        epochs.note(spans);
        epochs
    }

    fn before(epochs: &SourceEpochs, position: i64) -> Option<(i32, i64)> {
        let known = epochs.before(position)?;
        Some((known.epoch, known.position))
    }

    #[test]
    fn the_epoch_of_what_was_copied_is_told_and_not_of_what_was_only_fetched() {
        let epochs = epochs(&[span(5, 0, 100), span(5, 100, 150), span(6, 150, 200)]);
        assert_eq!(before(&epochs, 120), Some((5, 120)));
        assert_eq!(before(&epochs, 150), Some((5, 150)));
        assert_eq!(before(&epochs, 151), Some((6, 151)));
        assert_eq!(before(&epochs, 900), Some((6, 200)));
        assert_eq!(before(&epochs, 0), None);
    }

    #[test]
    fn an_opening_begins_with_what_was_copied() {
        let old = epochs(&[span(5, 0, 150), span(6, 150, 200)]);
        let new = old.carried(120);
        // A closed partition's late answer.
        old.note(&[span(7, 200, 300)]);
        assert_eq!(before(&new, 120), Some((5, 120)));
        new.note(&[span(8, 120, 130)]);
        assert_eq!(before(&new, 130), Some((8, 130)));
    }

    #[test]
    fn old_batches_have_no_epoch_and_many_epochs_no_end() {
        let epochs = epochs(&[span(3, 0, 10), span(-1, 10, 20)]);
        assert_eq!(before(&epochs, 20), Some((3, 10)));
        let many: Vec<Span> = (0..100)
            .map(|n| span(n, n.into(), i64::from(n) + 1))
            .collect();
        epochs.note(&many);
        assert!(epochs.spans().len() <= SPANS_MAX);
        assert_eq!(before(&epochs, 100), Some((99, 100)));
    }
}
