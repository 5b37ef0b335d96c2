//! Whole Twinlog processes on fake clusters, in simulated time.

mod copy;
mod cut_over;
mod process;
mod records;
mod side_by_side;
