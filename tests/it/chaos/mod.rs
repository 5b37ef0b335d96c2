//! Chaos: real clusters of three nodes and a real Twinlog, to which everything happens at once for
//! minutes or hours, and a judge that counts.
//!
//! - [`actions`]: what may happen.
//! - [`schedule`]: a seed makes a sequence of actions of it. Pure.
//! - [`stage`]: the clusters, the lines between, Twinlog, and how an action is done and undone.
//! - [`topics`]: what is copied, and what is promised of it.
//! - [`load`]: who writes and commits meanwhile.
//! - [`ledger`]: what was acknowledged to them.
//! - [`judge`]: compares it with both clusters. Pure.
//! - [`watch`]: looks at the copy's groups while all this happens.
//! - [`journal`]: what was done when, and what is left of it after a failure.
//! - [`run`]: round after round: load and actions, all healed, the copy caught up, the judge.
//!
//! `scripts/chaos` runs it.

mod actions;
mod journal;
mod judge;
mod ledger;
mod load;
mod run;
mod schedule;
mod stage;
mod topics;
mod watch;
