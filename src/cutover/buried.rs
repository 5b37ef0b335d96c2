//! Records that clients wrote to a new primary while its logs were still being padded.
//!
//! They lie among the padding, where the old primary may have records of its own: a copy that goes
//! on behind those would pass them over. So the padding counts only up to the first of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::error::CutoverError;
use super::pairs::ends;
use crate::batch;
use crate::state::ForkRecord;
use crate::tasks::brought;
use crate::wire::{self, Cluster, OffsetSpec, ResponseError, TopicPartition, WireError};

const FETCH_BYTES: i32 = 4 * 1024 * 1024;
/// Partitions that are read together.
const AT_ONCE: usize = 32;

/// Of a partition, why its log can't be read.
pub type Unread = (i32, CutoverError);

/// Forks, by topic, with their padding cut off before the first record in it; a topic of which a partition of
/// the new primary can't be read has the reason. With each fork come the old primary's ends: what its log doesn't
/// reach is copied in any case. All partitions are read side by side.
pub async fn clear(
    primary: &Cluster,
    forks: Vec<(String, ForkRecord, Vec<i64>)>,
) -> BTreeMap<String, Result<ForkRecord, Unread>> {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut looks = JoinSet::new();
    for (topic, fork, ends) in &forks {
        for (number, (of_partition, end)) in (0..).zip(fork.partitions.iter().zip(ends)) {
            let (from, until) = (of_partition.target_end, of_partition.padded_end.min(*end));
            if from >= until {
                continue;
            }
            let at = TopicPartition::new(&*fork.target_topic, number);
            let (primary, room, topic) = (primary.clone(), room.clone(), topic.clone());
            looks.spawn(async move {
                let _permit = room.acquire().await;
                let first = first_record(&primary, &at, from, until).await;
                (topic, number, first)
            });
        }
    }
    let forks = forks.into_iter();
    let mut clear: BTreeMap<_, _> = forks.map(|(topic, fork, _)| (topic, Ok(fork))).collect();
    while let Some(looked) = looks.join_next().await {
        let (topic, number, first) = brought(looked);
        let Some(Ok(fork)) = clear.get_mut(&topic) else {
            continue;
        };
        match first {
            Ok(None) => {}
            Ok(Some(first)) => {
                let index = usize::try_from(number).unwrap_or(usize::MAX);
                if let Some(fork) = fork.partitions.get_mut(index) {
                    fork.padded_end = first;
                }
            }
            Err(error) => {
                clear.insert(topic, Err((number, error)));
            }
        }
    }
    clear
}

/// The first offset in a range that is no marker.
///
/// # Errors
/// When the log can't be read.
pub async fn first_record(
    cluster: &Cluster,
    at: &TopicPartition,
    from: i64,
    until: i64,
) -> Result<Option<i64>, CutoverError> {
    let mut next = from;
    while next < until {
        let fetched = match wire::fetch_one(cluster, at, next, FETCH_BYTES).await {
            // What retention has taken is gone, whatever it was; what lies behind that isn't.
            Err(WireError::Server {
                code: ResponseError::OffsetOutOfRange,
                ..
            }) => match start(cluster, at).await? {
                start if start > next => {
                    next = start;
                    continue;
                }
                _ => return Err(ends_before(at, next)),
            },
            other => other?,
        };
        let before = next;
        for batch in batch::split(fetched.records) {
            let header = batch
                .map_err(|error| CutoverError::failed(format!("{at}: {error}")))?
                .header;
            if header.base_offset >= until {
                return Ok(None);
            }
            if header.base_offset >= from && !header.is_control() {
                return Ok(Some(header.base_offset));
            }
            next = next.max(header.next_offset());
        }
        if next == before {
            return Err(ends_before(at, next));
        }
    }
    Ok(None)
}

/// Where a log begins.
async fn start(cluster: &Cluster, at: &TopicPartition) -> Result<i64, CutoverError> {
    let asked = [at.clone()];
    let starts = ends(cluster, &asked, OffsetSpec::Earliest).await?;
    Ok(starts.get(at).copied().unwrap_or(0))
}

/// What can't be read isn't nothing.
fn ends_before(at: &TopicPartition, offset: i64) -> CutoverError {
    CutoverError::failed(format!(
        "{at}: nothing can be read from offset {offset} on, and its log should go on there"
    ))
}

#[cfg(test)]
mod tests {
    use fake_kafka::batch::{Record, produced};
    use fake_kafka::tcp::Server;
    use fake_kafka::topics::NewTopic;

    use super::*;
    use crate::wire::ClusterConfig;

    /// A log of records from 0 to 80 that begins at 51.
    fn begins_later() -> fake_kafka::Cluster {
        let fake = fake_kafka::Cluster::new(fake_kafka::Options::default());
        fake.control(|state| {
            let new = NewTopic {
                partitions: 1,
                replication: 1,
                ..NewTopic::default()
            };
            let made = state.create_topic("t", &new);
            made.expect("it can be made");
            let rules = state.append_rules("t", 1);
            let log = state.partition_mut("t", 0).expect("it is there");
            let log = log.leader_log_mut().expect("it is led");
            for _ in 0..80 {
                let (header, encoded) = produced(&[Record::new(None, Some(b"v"))], 1_000);
                let batch = header.seal(&encoded);
                log.append(&batch, &rules, 0, 1_000, false)
                    .expect("it is appended");
            }
            state.replicate("t", 0);
            state.raise_log_start("t", 0, 51);
        });
        fake
    }

    #[tokio::test]
    async fn what_lies_behind_a_log_s_start_is_looked_at() {
        let fake = begins_later();
        let server = Server::start(&fake);
        let bootstrap = server.bootstrap().split(',').map(str::to_owned).collect();
        let cluster = Cluster::new(ClusterConfig::new("standby", bootstrap));
        cluster.metadata(None).await.expect("an answer");
        let at = TopicPartition::new("t", 0);
        let first = |from, until| first_record(&cluster, &at, from, until);
        assert_eq!(first(0, 80).await.expect("it is read"), Some(51));
        assert_eq!(first(0, 51).await.expect("it is read"), None, "it is gone");
        assert_eq!(first(60, 80).await.expect("it is read"), Some(60));
        // Readers don't see it yet.
        first(80, 90).await.expect_err("nothing is known of that");
    }
}
