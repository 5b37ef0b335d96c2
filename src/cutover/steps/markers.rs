//! Markers on many partitions at once, each partition on one connection.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::cutover::error::CutoverError;
use crate::wire::{self, Cluster, Filler, Role, TopicPartition, WireError};

/// Markers in one request. It is for one topic: one for several may never be answered if one of them
/// isn't there any more (`KafkaApis.handleWriteTxnMarkersRequest`), and a topic goes as a whole.
const AT_ONCE: u32 = 2_000;
/// Markers on their way to one broker; it works on one request of a connection at a time.
const IN_FLIGHT: u64 = 8_000;
/// Requests on their way: those behind wait for the replicas of each before them.
const REQUESTS: usize = 500;
/// How long one answer is waited for, behind so many markers at most. A broker that hangs is left alone for this
/// round: who looks then sees what it lacks.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections to one broker, which works on one request of each at a time. Nothing else waits
/// behind markers there.
const LANES: u16 = 8;
/// The first of them.
const LANE_FIRST: u16 = 64;
/// A partition, its next marker, and how many it lacks.
pub(super) type Lacking = (TopicPartition, Filler, i64);

/// Writes what each leader's partitions lack. What was taken, and what is left, is seen by whoever asks where the logs
/// stand afterwards.
///
/// # Errors
/// A defect only: what a broker refuses is left.
pub(super) async fn write(
    target: &Cluster,
    by_leader: BTreeMap<i32, Vec<Lacking>>,
) -> Result<(), CutoverError> {
    let mut tasks = JoinSet::new();
    for (leader, work) in by_leader {
        // A partition has one lane: its markers keep their order.
        for (lane, work) in (LANE_FIRST..).zip(shares(work)) {
            let target = target.clone();
            tasks.spawn(async move { on_one_lane(&target, leader, lane, work).await });
        }
    }
    while let Some(done) = tasks.join_next().await {
        match done {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "markers"),
            Err(error) => return Err(CutoverError::failed(format!("a defect: {error}"))),
        }
    }
    Ok(())
}

fn shares(work: Vec<Lacking>) -> Vec<Vec<Lacking>> {
    let mut shares = vec![Vec::new(); usize::from(LANES)];
    for (index, lacking) in work.into_iter().enumerate() {
        shares[index % usize::from(LANES)].push(lacking);
    }
    shares.retain(|share| !share.is_empty());
    shares
}

/// The markers of one request: partitions of one topic, how many each gets.
type Request = Vec<(TopicPartition, Filler, u32)>;

/// As few requests as may be, in order.
fn requests(work: Vec<Lacking>) -> Vec<Request> {
    let mut requests: Vec<Request> = Vec::new();
    let mut room = 0;
    for (at, mut filler, count) in work {
        let mut left = u32::try_from(count).unwrap_or(u32::MAX);
        while left > 0 {
            let is_same = |request: &Request| request[0].0.topic == at.topic;
            if room == 0 || !requests.last().is_some_and(is_same) {
                requests.push(Vec::new());
                room = AT_ONCE;
            }
            let some = left.min(room);
            if let Some(request) = requests.last_mut() {
                request.push((at.clone(), filler, some));
            }
            let number = filler.coordinator_epoch_first;
            filler.coordinator_epoch_first = number.wrapping_add(some.cast_signed());
            left -= some;
            room -= some;
        }
    }
    requests
}

async fn on_one_lane(
    target: &Cluster,
    leader: i32,
    lane: u16,
    work: Vec<Lacking>,
) -> Result<(), WireError> {
    let connecting = target.connection(leader, Role::Produce(lane));
    let Ok(connection) = timeout(PATIENCE, connecting).await else {
        return Ok(());
    };
    let connection = connection?;
    let mut on_the_way = std::collections::VecDeque::new();
    let mut in_flight = 0;
    for parts in requests(work) {
        let count: u64 = parts.iter().map(|(_, _, count)| u64::from(*count)).sum();
        let request = wire::write_markers_request(&parts);
        on_the_way.push_back((count, connection.start(&request, 1)?));
        in_flight += count;
        while (in_flight > IN_FLIGHT || on_the_way.len() > REQUESTS)
            && let Some((count, pending)) = on_the_way.pop_front()
        {
            let Ok(answer) = timeout(PATIENCE, pending).await else {
                return Ok(());
            };
            answer?;
            in_flight -= count;
        }
    }
    for (_, pending) in on_the_way {
        let Ok(answer) = timeout(PATIENCE, pending).await else {
            return Ok(());
        };
        answer?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn filler(first: i32) -> Filler {
        Filler {
            producer_id: 1,
            producer_epoch: 0,
            coordinator_epoch_first: first,
        }
    }

    proptest! {
        /// Every partition gets what it lacks, its numbers in order, and a request is for one topic.
        #[test]
        fn each_request_is_for_one_topic_and_nothing_is_left(
            lacks in prop::collection::vec((0..3, 0..7_000_i64), 0..40),
        ) {
            let work: Vec<Lacking> = (0..)
                .zip(&lacks)
                .map(|(number, (topic, count))| {
                    let at = TopicPartition::new(format!("t{topic}"), number);
                    (at, filler(number * 10), *count)
                })
                .collect();
            let mut got: BTreeMap<TopicPartition, i64> = BTreeMap::new();
            for request in requests(work.clone()) {
                let total: u32 = request.iter().map(|(_, _, count)| count).sum();
                prop_assert!((1..=AT_ONCE).contains(&total));
                for (at, filler, count) in &request {
                    prop_assert_eq!(&at.topic, &request[0].0.topic);
                    let before = got.entry(at.clone()).or_default();
                    let first = i64::from(at.partition) * 10 + *before;
                    prop_assert_eq!(i64::from(filler.coordinator_epoch_first), first);
                    *before += i64::from(*count);
                }
            }
            for (at, _, count) in work {
                prop_assert_eq!(got.get(&at).copied().unwrap_or(0), count);
            }
        }
    }
}
