//! Whole Twinlog processes on fake clusters, in simulated time.

mod copy;
mod process;
