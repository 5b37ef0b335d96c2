//! What stays known of a partition whose target log has a record at a wrong offset.
//!
//! The producer states show it for as long as the broker keeps them, and no longer: behind a restart
//! that comes after `producer.id.expiration.ms` the log would look like any other. So it is written down
//! with the id of the target topic, and goes with that topic.

use super::error::Trouble;
use super::shared::Flow;
use super::topics::TopicContext;
use crate::state::{DamageRecord, keys};
use crate::telemetry::progress::now_ms;

/// Refuses to open a partition that was found damaged.
///
/// # Errors
/// [`Trouble::Overtaken`] with the offsets that were found then.
pub(super) fn check(flow: &Flow, topic: &TopicContext, partition: i32) -> Result<(), Trouble> {
    let record: Option<DamageRecord> = flow.store.get(&key(flow, topic, partition))?;
    match record.filter(|it| it.target_topic_id == topic.record.target_topic_id) {
        Some(DamageRecord {
            expected, found, ..
        }) => Err(Trouble::Overtaken { expected, found }),
        None => Ok(()),
    }
}

/// Writes it down, if it is damage that the logs don't show for ever.
pub(super) async fn note(flow: &Flow, topic: &TopicContext, partition: i32, trouble: &Trouble) {
    let &Trouble::Overtaken { expected, found } = trouble else {
        return;
    };
    if check(flow, topic, partition).is_err() {
        return;
    }
    let record = DamageRecord {
        v: 1,
        target_topic_id: topic.record.target_topic_id,
        expected,
        found,
        noticed_at_ms: now_ms(),
    };
    if let Err(error) = flow.store.put(&key(flow, topic, partition), &record).await {
        tracing::warn!(
            topic = &*topic.source_topic,
            partition,
            %error,
            "what was found can't be written down; while this process runs, the partition stays stopped"
        );
    }
}

fn key(flow: &Flow, topic: &TopicContext, partition: i32) -> String {
    keys::damage(&flow.config.name, &topic.source_topic, partition)
}
