//! What we have given up waiting for, and a broker may still carry out.
//!
//! A broker that hung, or was slow for so long that a connection was left, still has what was sent on it, and works it off
//! when it wakes up, while the partition is opened again on another connection. Batches do no harm then: their
//! sequences are known. A marker has none. It would take an offset behind a position that was read a moment before, and the
//! next batch or filler would be one too high. So the opening waits until all of it is in the log, or nothing more
//! comes while the broker answers. (One that mutes the connection isn't left: `sink::quota`.)
//!
//! It doesn't matter why the connection ended: a request that is in a broker's queue is executed whatever has become of
//! it (`KafkaRequestHandler`). Where another broker leads by now nothing is waited for: the old one refuses markers
//! (`ReplicaManager.getPartitionOrException`), and what it takes before it knows it cuts off again (KIP-101). But it may lead
//! again before it has worked on all that it has, so for some minutes that isn't forgotten.

use std::time::Duration;

use dashmap::DashMap;
use tokio::time::Instant;

use super::error::Trouble;
use crate::telemetry::progress::PartitionKey;

/// What hasn't moved for so long, while the broker answers, was lost with its connection: at least, and at most. In between it
/// is twice as long as the broker had been silent. One that answered a moment before does all that it has one after the other;
/// one that closes the connection itself, because it refuses a batch of another partition, does nothing more.
const STANDS_FOR_LEAST: Duration = Duration::from_secs(1);
const STANDS_FOR: Duration = Duration::from_secs(5);

/// After so long nothing is left of it anywhere: connections end before, and what lay in a broker that froze is done when it
/// wakes up.
const KEPT_FOR: Duration = Duration::from_secs(300);

/// By partition.
#[derive(Debug, Default)]
pub struct LeftBehind(DashMap<PartitionKey, Left>);

#[derive(Clone, Copy, Debug)]
struct Left {
    /// The broker that may still do it.
    broker: i32,
    noted_at: Instant,
    /// Where the log ends when all of it is there.
    end: i64,
    /// How long it must stand still before nothing is expected any more.
    stands_for: Duration,
    /// The log's end as it was seen last, and since when.
    seen: Option<(i64, Instant)>,
}

impl LeftBehind {
    /// Notes that fillers were on the way to this broker, up to this log end, and that it was silent before.
    pub fn note(&self, key: PartitionKey, broker: i32, end: i64, silent: Duration) {
        let stands_for = (2 * silent.min(STANDS_FOR)).clamp(STANDS_FOR_LEAST, STANDS_FOR);
        // Of several requests on the way the oldest tells most.
        let before = self.0.get(&key).map_or(stands_for, |left| left.stands_for);
        let left = Left {
            broker,
            noted_at: Instant::now(),
            end,
            stands_for: stands_for.max(before),
            seen: None,
        };
        self.0.insert(key, left);
    }

    /// Looks at a log that ends there, at this leader's.
    ///
    /// # Errors
    /// [`Trouble::TargetBehind`] as long as more may come.
    pub fn check(&self, key: &PartitionKey, leader: Option<i32>, now: i64) -> Result<(), Trouble> {
        let Some(mut left) = self.0.get_mut(key) else {
            return Ok(());
        };
        let since = match left.seen {
            Some((seen, since)) if seen == now => since,
            _ => Instant::now(),
        };
        left.seen = Some((now, since));
        let end = left.end;
        let stands = since.elapsed() >= left.stands_for;
        let is_led_elsewhere = leader.is_some_and(|leader| leader != left.broker);
        let is_old = left.noted_at.elapsed() >= KEPT_FOR;
        if is_led_elsewhere {
            left.seen = None;
        }
        drop(left);
        if now >= end || is_old || (stands && !is_led_elsewhere) {
            self.0.remove(key);
            return Ok(());
        }
        if is_led_elsewhere {
            return Ok(());
        }
        Err(Trouble::TargetBehind {
            high_watermark: now,
            written: end,
        })
    }

    /// Forgets a topic.
    pub fn forget(&self, topic: &str) {
        self.0.retain(|(of, _), _| &**of != topic);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::simulated::simulated;

    #[test]
    fn it_is_waited_for_until_it_is_there_or_nothing_comes() {
        simulated(|| async {
            let left = LeftBehind::default();
            let key: PartitionKey = (Arc::from("t"), 0);
            let check = |now| left.check(&key, Some(1), now);
            assert!(check(5).is_ok(), "nothing was left");
            left.note(key.clone(), 1, 10, STANDS_FOR);
            for now in [5, 6, 8] {
                assert!(check(now).is_err());
                tokio::time::sleep(Duration::from_secs(4)).await;
            }
            assert!(check(10).is_ok(), "all of it is there");
            left.note(key.clone(), 1, 20, STANDS_FOR);
            left.note(key.clone(), 1, 20, Duration::ZERO);
            assert!(check(12).is_err());
            tokio::time::sleep(STANDS_FOR_LEAST).await;
            assert!(check(12).is_err(), "it was silent for long");
            tokio::time::sleep(STANDS_FOR).await;
            assert!(check(12).is_ok(), "nothing comes any more");
            assert!(check(12).is_ok(), "and that is remembered");
            left.note(key.clone(), 1, 20, Duration::from_millis(30));
            assert!(check(12).is_err());
            tokio::time::sleep(STANDS_FOR_LEAST).await;
            assert!(check(12).is_ok(), "it wasn't silent");
        });
    }

    #[test]
    fn a_broker_that_leads_no_more_is_not_waited_for() {
        simulated(|| async {
            let left = LeftBehind::default();
            let key: PartitionKey = (Arc::from("t"), 0);
            left.note(key.clone(), 1, 10, STANDS_FOR);
            assert!(left.check(&key, Some(1), 5).is_err());
            assert!(left.check(&key, None, 5).is_err(), "nobody knows");
            assert!(left.check(&key, Some(2), 5).is_ok());
            tokio::time::sleep(STANDS_FOR).await;
            assert!(left.check(&key, Some(1), 5).is_err(), "it leads again");
            assert!(left.check(&key, Some(2), 10).is_ok(), "all of it is there");
            assert!(left.check(&key, Some(1), 10).is_ok());
            left.note(key.clone(), 1, 20, STANDS_FOR);
            assert!(left.check(&key, Some(2), 12).is_ok());
            tokio::time::sleep(KEPT_FOR).await;
            assert!(left.check(&key, Some(1), 12).is_ok(), "it is forgotten");
        });
    }
}
