//! Brokers of its own for each test: they are killed, frozen or set up otherwise.

mod closest;
mod crash_broker;
mod crash_leader;
mod detect_gaps;
pub(crate) mod failback;
mod failback_secured;
mod failback_stranded;
mod failover_held;
mod failover_scale;
mod failover_unplanned;
mod groups;
mod harness_secured;
mod harness_smoke;
mod least_privilege;
mod limits;
mod load_planned;
mod load_unplanned;
mod mapped;
mod mapped_segments;
mod metadata_acls;
pub(crate) mod mirrormaker_compat;
pub(crate) mod orphans;
mod protect;
mod runbooks;
mod settings;
mod slow_brokers;
mod truth;
