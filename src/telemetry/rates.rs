//! Counters since the start, and rates smoothed over the last seconds.

use serde::{Deserialize, Serialize};

/// What has been counted since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Records acknowledged by the target.
    pub records: u64,
    /// Bytes, as on the wire, acknowledged by the target.
    pub bytes: u64,
    /// Batches passed unopened.
    pub batches_passed: u64,
    /// Source batches merged into larger ones.
    pub batches_coalesced: u64,
    /// Batches opened for another reason than coalescing.
    pub batches_opened: u64,
    /// Offsets filled with an invisible marker.
    pub holes_filled: u64,
    /// Source offsets that retention took before they were copied.
    pub gap_offsets: u64,
}

impl Counters {
    /// Adds another partition's or flow's counts.
    pub fn add(&mut self, other: &Self) {
        self.records += other.records;
        self.bytes += other.bytes;
        self.batches_passed += other.batches_passed;
        self.batches_coalesced += other.batches_coalesced;
        self.batches_opened += other.batches_opened;
        self.holes_filled += other.holes_filled;
        self.gap_offsets += other.gap_offsets;
    }
}

/// Rates per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Records acknowledged by the target.
    pub records_per_second: f64,
    /// Bytes acknowledged by the target.
    pub bytes_per_second: f64,
    /// Source offsets that the position moved on.
    pub offsets_per_second: f64,
    /// Source offsets that the source's stable end grew by.
    pub growth_per_second: f64,
}

/// Rates follow a change to two thirds within this time: calm enough to read, quick
/// enough to see a stall.
const SMOOTHING_MS: f64 = 5_000.0;
/// Samples closer together than this are ignored, so several samplers do no harm.
const SAMPLE_DISTANCE_MS_MIN: i64 = 500;
/// What is left of a smoothed rate below this is shown as nothing.
const RATE_MIN: f64 = 0.05;

/// Turns samples of one partition's counters into [`Rates`].
#[derive(Debug, Default)]
pub struct RateMeter {
    last: Option<Sample>,
    rates: Rates,
    /// Whether `rates` holds a first measurement, which isn't smoothed with zero.
    measured: bool,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at_ms: i64,
    records: u64,
    bytes: u64,
    position: i64,
    stable_end: i64,
}

impl Sample {
    fn is_same_but_for_time(&self, other: &Self) -> bool {
        let counted = |it: &Self| (it.records, it.bytes, it.position, it.stable_end);
        counted(self) == counted(other)
    }
}

impl RateMeter {
    /// Takes one sample. Offsets are -1 while unknown and then don't count.
    pub fn sample(&mut self, at_ms: i64, records: u64, bytes: u64, position: i64, stable_end: i64) {
        let sample = Sample {
            at_ms,
            records,
            bytes,
            position,
            stable_end,
        };
        let Some(last) = self.last else {
            self.last = Some(sample);
            return;
        };
        let distance_ms = at_ms - last.at_ms;
        if distance_ms < 0 {
            // The clock was set back: begin again from here.
            self.last = Some(sample);
            return;
        }
        if distance_ms < SAMPLE_DISTANCE_MS_MIN {
            return;
        }
        if self.is_at_rest() && last.is_same_but_for_time(&sample) {
            // At rest, as thousands of partitions are: nothing to smooth.
            self.last = Some(sample);
            return;
        }
        let millis = distance_ms as f64;
        let weight = if self.measured {
            1.0 - (-millis / SMOOTHING_MS).exp()
        } else {
            1.0
        };
        let follow = |old: f64, delta: f64| {
            let rate = old + weight * (delta * 1_000.0 / millis - old);
            if rate < RATE_MIN { 0.0 } else { rate }
        };
        let moved = |before: i64, after: i64| {
            if before < 0 {
                0.0
            } else {
                (after - before).max(0) as f64
            }
        };
        self.rates = Rates {
            records_per_second: follow(
                self.rates.records_per_second,
                records.saturating_sub(last.records) as f64,
            ),
            bytes_per_second: follow(
                self.rates.bytes_per_second,
                bytes.saturating_sub(last.bytes) as f64,
            ),
            offsets_per_second: follow(
                self.rates.offsets_per_second,
                moved(last.position, position),
            ),
            growth_per_second: follow(
                self.rates.growth_per_second,
                moved(last.stable_end, stable_end),
            ),
        };
        self.measured = true;
        self.last = Some(sample);
    }

    /// Whether the next sample tells the same if nothing comes.
    pub fn is_at_rest(&self) -> bool {
        self.measured && self.rates == Rates::default()
    }

    /// Nothing came until then: it wasn't sampled for that.
    pub fn rest_until(&mut self, at_ms: i64) {
        let is_at_rest = self.is_at_rest();
        if let Some(last) = self.last.as_mut().filter(|_| is_at_rest) {
            last.at_ms = last.at_ms.max(at_ms);
        }
    }

    /// The rates after the last sample.
    pub fn rates(&self) -> Rates {
        self.rates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_load_is_measured_from_the_second_sample_on() {
        let mut meter = RateMeter::default();
        for second in 0..5_i64 {
            let records = second.unsigned_abs() * 100;
            meter.sample(second * 1_000, records, records * 10, second * 100, 1_000);
            if second > 0 {
                let rates = meter.rates();
                assert!((rates.records_per_second - 100.0).abs() < 1e-6, "{rates:?}");
                assert!((rates.bytes_per_second - 1_000.0).abs() < 1e-6, "{rates:?}");
                assert!((rates.offsets_per_second - 100.0).abs() < 1e-6, "{rates:?}");
                assert_eq!(rates.growth_per_second, 0.0);
            }
        }
    }

    #[test]
    fn samples_too_close_together_are_ignored() {
        let mut meter = RateMeter::default();
        meter.sample(0, 0, 0, 0, 0);
        meter.sample(1_000, 100, 0, 0, 0);
        meter.sample(1_001, 200, 0, 0, 0);
        assert!((meter.rates().records_per_second - 100.0).abs() < 1e-6);
        meter.sample(2_000, 200, 0, 0, 0);
        assert!((meter.rates().records_per_second - 100.0).abs() < 1e-6);
    }

    #[test]
    fn a_stall_ends_at_zero_and_a_clock_set_back_does_no_harm() {
        let mut meter = RateMeter::default();
        meter.sample(0, 0, 0, -1, -1);
        meter.sample(1_000, 1_000_000, 0, 500, 500);
        assert_eq!(meter.rates().offsets_per_second, 0.0, "unknown before");
        meter.sample(-5_000, 1_000_000, 0, 500, 500);
        for second in 0..120 {
            meter.sample(second * 1_000, 1_000_000, 0, 500, 500);
        }
        assert_eq!(meter.rates().records_per_second, 0.0);
        // And the next record counts for the second in which it came.
        meter.sample(120_000, 1_000_100, 0, 600, 600);
        let shown = meter.rates().records_per_second;
        let smoothed = 100.0 * (1.0 - (-1_000.0 / SMOOTHING_MS).exp());
        assert!((shown - smoothed).abs() < 1e-6, "{shown}");
    }
}
