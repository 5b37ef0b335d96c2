//! Whether the standby's disks have room for what comes after a failover.

use std::collections::BTreeMap;
use std::time::Duration;

use super::pairs::{Pair, on_target};
use crate::state::CutoverKind;
use crate::telemetry::failover::Room;
use crate::wire::{self, Cluster, LogDir, ResponseError, WireError};

/// This is for information: nobody waits for a broker longer than so long and a little for each partition, since it
/// adds up the sizes of all its logs.
const ANSWER: Duration = Duration::from_secs(3);
const PER_PARTITION: Duration = Duration::from_millis(5);
/// With a source that is gone everybody waits.
const AT_MOST_UNPLANNED: Duration = Duration::from_secs(5);
const AT_MOST_PLANNED: Duration = Duration::from_secs(30);

fn patience(kind: CutoverKind, partitions: usize) -> Duration {
    let count = u32::try_from(partitions).unwrap_or(u32::MAX);
    let at_most = match kind {
        CutoverKind::Unplanned => AT_MOST_UNPLANNED,
        _ => AT_MOST_PLANNED,
    };
    let needed = ANSWER.saturating_add(PER_PARTITION.saturating_mul(count));
    needed.min(at_most)
}

/// Asks every broker of the standby. One that doesn't answer hides only its own disks.
pub(super) async fn look(target: &Cluster, pairs: &[Pair], kind: CutoverKind) -> Room {
    let partitions = on_target(pairs);
    let patience = patience(kind, partitions.len());
    room(wire::describe_log_dirs(target, &partitions, patience).await)
}

fn room(brokers: impl IntoIterator<Item = (i32, Result<Vec<LogDir>, WireError>)>) -> Room {
    let mut room = Room::default();
    // By the reason: the brokers.
    let mut silent: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut untold = Vec::new();
    for (broker, dirs) in brokers {
        let dirs = match dirs {
            Ok(dirs) => dirs,
            Err(error) => {
                let why = match error.server_code() {
                    Some(ResponseError::ClusterAuthorizationFailed) => "not allowed".to_owned(),
                    _ => error.of_one().to_string(),
                };
                silent.entry(why).or_default().push(broker.to_string());
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
                untold.push(place);
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
    let problems = silent.iter();
    let problems = problems.map(|(why, brokers)| format!("broker {}: {why}", brokers.join(", ")));
    let mut problems: Vec<String> = problems.collect();
    // Where none tells it, that is said otherwise.
    if room.fullest.is_some() && !untold.is_empty() {
        problems.push(format!(
            "how much is free isn't told: {}",
            untold.join(", ")
        ));
    }
    room.problem = (!problems.is_empty()).then(|| problems.join("; "));
    room
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::wire::ErrorContext;

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
        let found = room([(1, Ok(vec![old.clone()]))]);
        assert_eq!((found.fullest, found.problem), (None, None));
        // What some tell says nothing of the others.
        let found = room([(1, Ok(vec![old])), (2, Ok(vec![dir("/b", 50, 100)]))]);
        let problem = found.problem.unwrap_or_default();
        assert!(problem.contains("/a of broker 1"), "{problem}");
    }

    #[test]
    fn each_broker_that_says_nothing_is_named() {
        let silent = |broker| {
            let context = ErrorContext {
                broker: Some(broker),
                ..ErrorContext::cluster("standby")
            };
            Err(WireError::Timeout {
                context: Arc::new(context),
                after: ANSWER,
            })
        };
        let answers = [
            (1, silent(1)),
            (2, Ok(vec![dir("/a", 50, 100)])),
            (3, silent(3)),
        ];
        let found = room(answers);
        let problem = found.problem.unwrap_or_default();
        assert!(problem.contains("broker 1"), "{problem}");
        assert!(problem.contains("broker 3"), "{problem}");
        assert!(found.fullest.is_some());
    }

    #[test]
    fn nobody_waits_for_disks_when_the_source_is_gone() {
        let many = 20_000;
        assert_eq!(patience(CutoverKind::Unplanned, many), AT_MOST_UNPLANNED);
        assert_eq!(patience(CutoverKind::Planned, many), AT_MOST_PLANNED);
        let few = patience(CutoverKind::Unplanned, 100);
        assert_eq!(few, ANSWER + PER_PARTITION * 100);
    }
}
