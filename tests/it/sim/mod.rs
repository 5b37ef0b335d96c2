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
