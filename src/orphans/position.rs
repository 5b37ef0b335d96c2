//! How far replays got, as `read_committed` readers see it.
//!
//! The position is in the same transaction as the records, so it is never ahead of them nor behind.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use super::OrphansError;
use super::client;
use super::scene::Scene;
use crate::config::ClusterSection;
use crate::state::{ReplayRecord, STATE_TOPIC, keys, parse};

const STALL: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// By topic and partition.
pub(super) type Positions = BTreeMap<(String, i32), ReplayRecord>;

/// The positions of a flow's replays.
pub(super) async fn read(scene: &Scene) -> Result<Positions, OrphansError> {
    let prefix = keys::orphans_replays(&scene.flow.name);
    // The store sees what isn't committed too: what it lacks isn't there at all.
    scene.store.refresh().await?;
    if scene.store.keys(&prefix).is_empty() {
        return Ok(Positions::new());
    }
    let section = scene.target_section.clone();
    let reading = tokio::task::spawn_blocking(move || read_state(&section, &prefix));
    reading
        .await
        .unwrap_or_else(|error| Err(OrphansError::doing("reading the state", error)))
}

fn read_state(section: &ClusterSection, prefix: &str) -> Result<Positions, OrphansError> {
    let failed = |error: &dyn std::fmt::Display| {
        OrphansError::doing(format!("reading {STATE_TOPIC} on {}", section.name), error)
    };
    let consumer = client::consumer(section)?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(STATE_TOPIC, 0, Offset::Beginning)
        .and_then(|()| consumer.assign(&list))
        .map_err(|error| failed(&error))?;
    let mut positions = Positions::new();
    let mut moved_at = Instant::now();
    let mut last_error = None;
    loop {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                moved_at = Instant::now();
                let key = message.key().and_then(|key| std::str::from_utf8(key).ok());
                let key = key.unwrap_or_default();
                let Some(place) = key
                    .strip_prefix(prefix)
                    .and_then(|rest| rest.rsplit_once('/'))
                    .and_then(|(topic, number)| Some((topic.to_owned(), number.parse().ok()?)))
                else {
                    continue;
                };
                match parse(key, message.payload()).map_err(|e| failed(&e))? {
                    None => {
                        positions.remove(&place);
                    }
                    Some(record) => {
                        positions.insert(place, record);
                    }
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(positions),
            Some(Err(error)) => last_error = Some(error.to_string()),
            None => {}
        }
        if moved_at.elapsed() > STALL {
            let why = last_error.or_else(|| consumer.context().last_error());
            return Err(failed(&why.unwrap_or_else(|| "no answer".to_owned())));
        }
    }
}
