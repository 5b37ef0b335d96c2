//! Whole Twinlog processes, brokers and clients in simulated time, judged by a model.

mod clients;
mod copy;
mod cut_over;
mod expected;
mod hunts;
mod known;
mod logs;
mod model;
mod plan;
mod process;
mod records;
mod run;
mod scene;
mod side_by_side;
mod stored;

/// Set where a hunt plays all of its seeds: at night, and where tests are asked for by name.
const ALL_SEEDS: &str = "TWINLOG_ALL_SEEDS";
/// A fourth of them otherwise, and so many at least.
const SEEDS_MIN: u64 = 2;

/// The seeds of a hunt that has so many.
fn seeds(all: u64) -> std::ops::RangeInclusive<u64> {
    match std::env::var_os(ALL_SEEDS) {
        Some(_) => 1..=all,
        None => 1..=(all / 4).max(SEEDS_MIN).min(all),
    }
}
