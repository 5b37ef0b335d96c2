//! The laws of `twinlog::batch`, on generated batches and on bytes that the Java client wrote.

mod aborted;
mod coalesce;
mod generate;
mod java;
mod legacy;
mod robustness;
mod round_trip;
mod traps;
