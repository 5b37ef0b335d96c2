//! Whether the standby's disks have room for what comes after a failover.

use std::time::Duration;

use super::pairs::{Pair, on_target};
use crate::telemetry::failover::Room;
use crate::wire::{self, Cluster, LogDir, ResponseError, WireError};

/// This is for information: nobody waits for it longer.
const ANSWER: Duration = Duration::from_secs(3);

/// Asks every broker of the standby.
pub(super) async fn look(target: &Cluster, pairs: &[Pair]) -> Room {
    let partitions = on_target(pairs);
    let asked = wire::describe_log_dirs(target, &partitions);
    match tokio::time::timeout(ANSWER, asked).await {
        Ok(brokers) => room(brokers),
        Err(_) => Room {
            problem: Some(format!("no answer within {} s", ANSWER.as_secs())),
            ..Room::default()
        },
    }
}

fn room(brokers: impl IntoIterator<Item = (i32, Result<Vec<LogDir>, WireError>)>) -> Room {
    let mut room = Room::default();
    for (broker, dirs) in brokers {
        let dirs = match dirs {
            Ok(dirs) => dirs,
            Err(error) => {
                room.problem = Some(match error.server_code() {
                    Some(ResponseError::ClusterAuthorizationFailed) => "not allowed".to_owned(),
                    _ => error.to_string(),
                });
                continue;
            }
        };
        for dir in dirs {
            let place = format!("{} of broker {broker}", dir.path);
            if dir.error.is_some() {
                room.offline.push(place);
                continue;
            }
            room.log_bytes = room.log_bytes.saturating_add(dir.log_bytes);
            let (Some(free), Some(size)) = (dir.usable_bytes, dir.total_bytes) else {
                continue;
            };
            // Compared as fractions, without dividing.
            let is_fuller = room.fullest.as_ref().is_none_or(|(_, least, of)| {
                u128::from(free) * u128::from(*of) < u128::from(*least) * u128::from(size)
            });
            if is_fuller {
                room.fullest = Some((place, free, size));
            }
        }
    }
    room
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(path: &str, free: u64, size: u64) -> LogDir {
        LogDir {
            path: path.to_owned(),
            error: None,
            log_bytes: 5,
            total_bytes: Some(size),
            usable_bytes: Some(free),
        }
    }

    #[test]
    fn the_fullest_volume_is_the_one_with_the_smallest_free_part() {
        let lost = LogDir {
            error: Some(ResponseError::KafkaStorageError),
            ..dir("/c", 0, 100)
        };
        let found = room([
            (1, Ok(vec![dir("/a", 50, 100), dir("/b", 400, 1_000)])),
            (2, Ok(vec![lost, dir("/d", 70, 100)])),
        ]);
        assert_eq!(
            found.fullest,
            Some(("/b of broker 1".to_owned(), 400, 1_000))
        );
        assert_eq!(found.offline, ["/c of broker 2"]);
        assert_eq!((found.log_bytes, found.problem), (15, None));
    }

    #[test]
    fn brokers_that_do_not_tell_leave_it_open() {
        let old = LogDir {
            total_bytes: None,
            usable_bytes: None,
            ..dir("/a", 0, 0)
        };
        assert_eq!(room([(1, Ok(vec![old]))]).fullest, None);
    }
}
