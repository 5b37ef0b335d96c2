//! What we have given up waiting for, and a broker may still carry out.
//!
//! A broker that hung, or was slow for so long that a connection was left, still has what was sent on it, and works it off
//! when it wakes up, while the partition is opened again on another connection. Batches do no harm then: their
//! sequences are known. A marker has none. It would take an offset behind a position that was read a moment before, and the
//! next batch or filler would be one too high. So the opening waits until all of it is in the log, or nothing more
//! comes while the broker answers. (One that mutes the connection isn't left: `sink::quota`.)

use std::time::Duration;

use dashmap::DashMap;
use tokio::time::Instant;

use super::error::Trouble;
use crate::telemetry::progress::PartitionKey;

/// What hasn't moved for so long, while the broker answers, was lost with its connection.
const STANDS_FOR: Duration = Duration::from_secs(5);

/// By partition.
#[derive(Debug, Default)]
pub struct LeftBehind(DashMap<PartitionKey, Left>);

#[derive(Clone, Copy, Debug)]
struct Left {
    /// Where the log ends when all of it is there.
    end: i64,
    /// The log's end as it was seen last, and since when.
    seen: Option<(i64, Instant)>,
}

impl LeftBehind {
    /// Notes that fillers were on the way, up to this log end.
    pub fn note(&self, key: PartitionKey, end: i64) {
        self.0.insert(key, Left { end, seen: None });
    }

    /// Looks at a log that ends there.
    ///
    /// # Errors
    /// [`Trouble::TargetBehind`] as long as more may come.
    pub fn check(&self, key: &PartitionKey, now: i64) -> Result<(), Trouble> {
        let Some(mut left) = self.0.get_mut(key) else {
            return Ok(());
        };
        let since = match left.seen {
            Some((seen, since)) if seen == now => since,
            _ => Instant::now(),
        };
        left.seen = Some((now, since));
        let end = left.end;
        let is_over = now >= end || since.elapsed() >= STANDS_FOR;
        drop(left);
        if is_over {
            self.0.remove(key);
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
            assert!(left.check(&key, 5).is_ok(), "nothing was left");
            left.note(key.clone(), 10);
            for now in [5, 6, 8] {
                assert!(left.check(&key, now).is_err());
                tokio::time::sleep(Duration::from_secs(4)).await;
            }
            assert!(left.check(&key, 10).is_ok(), "all of it is there");
            left.note(key.clone(), 20);
            assert!(left.check(&key, 12).is_err());
            tokio::time::sleep(STANDS_FOR).await;
            assert!(left.check(&key, 12).is_ok(), "nothing comes any more");
            assert!(left.check(&key, 12).is_ok(), "and that is remembered");
        });
    }
}
