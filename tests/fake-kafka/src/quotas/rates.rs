//! What producers wrote in the last seconds, and for how long a quota mutes them for it (`ClientQuotaManager`, `Rate`).

use std::collections::{BTreeMap, VecDeque};

use super::{CLIENT_ID, Quotas};

/// `quota.window.size.seconds` and `quota.window.num`.
const WINDOW_MS: i64 = 1_000;
const WINDOWS: i64 = 11;
const KEY: &str = "producer_byte_rate";

/// Bytes by broker and client id, each window with its beginning.
#[derive(Debug, Default)]
pub struct Rates(BTreeMap<(i32, String), VecDeque<(i64, f64)>>);

/// The quota of a client id. Those of users aren't enforced here.
fn quota_of(quotas: &Quotas, client_id: &str) -> Option<f64> {
    let named = |name: Option<&str>| {
        let entity = BTreeMap::from([(CLIENT_ID.to_owned(), name.map(str::to_owned))]);
        quotas.get(&entity)?.get(KEY).copied()
    };
    named(Some(client_id)).or_else(|| named(None))
}

impl Rates {
    /// Records a request; for how long its connection is muted (`QuotaUtils.throttleTime`).
    pub(crate) fn record(
        &mut self,
        quotas: &Quotas,
        (broker, client_id): (i32, &str),
        bytes: usize,
        now_ms: i64,
    ) -> i64 {
        let Some(quota) = quota_of(quotas, client_id) else {
            return 0;
        };
        let windows = self.0.entry((broker, client_id.to_owned())).or_default();
        // `SampledStat.purgeObsoleteSamples`.
        while windows
            .front()
            .is_some_and(|(since_ms, _)| now_ms - since_ms >= WINDOWS * WINDOW_MS)
        {
            windows.pop_front();
        }
        match windows.back_mut() {
            Some((since_ms, seen)) if now_ms - *since_ms < WINDOW_MS => *seen += bytes as f64,
            _ => windows.push_back((now_ms, bytes as f64)),
        }
        // `Rate.windowSize`.
        let elapsed_ms = windows.front().map_or(0, |(since_ms, _)| now_ms - since_ms);
        let missing = (WINDOWS - 1 - elapsed_ms / WINDOW_MS).max(0);
        let seconds = (elapsed_ms + missing * WINDOW_MS) as f64 / 1_000.0;
        let rate = windows.iter().map(|(_, bytes)| bytes).sum::<f64>() / seconds;
        ((rate - quota).max(0.0) / quota * seconds * 1_000.0) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_beyond_ten_seconds_of_the_quota_mutes_for_what_is_too_much() {
        let entity = BTreeMap::from([(CLIENT_ID.to_owned(), Some("app".to_owned()))]);
        let quota = BTreeMap::from([(KEY.to_owned(), 20_000.0)]);
        let quotas = Quotas::from([(entity, quota)]);
        let mut rates = Rates::default();
        assert_eq!(rates.record(&quotas, (1, "other"), 9_000_000, 5), 0);
        assert_eq!(rates.record(&quotas, (1, "app"), 200_000, 5), 0);
        assert_eq!(rates.record(&quotas, (1, "app"), 20_000, 5), 1_000);
        assert_eq!(rates.record(&quotas, (2, "app"), 20_000, 5), 0);
        // As long as the burst counts, whoever asks is told of it.
        assert_eq!(rates.record(&quotas, (1, "app"), 0, 2_005), 1_000);
        assert_eq!(rates.record(&quotas, (1, "app"), 0, 12_005), 0);
    }
}
