//! Brokers of its own for each test: they are killed, frozen or set up otherwise.

mod closest;
mod crash_broker;
mod crash_leader;
mod crash_twinlog;
mod crash_twins;
mod failback;
mod failback_secured;
mod failback_stranded;
mod failover_held;
mod failover_scale;
mod failover_unplanned;
mod groups;
mod harness_secured;
mod least_privilege;
mod load_planned;
mod load_unplanned;
mod mapped;
mod mapped_segments;
mod metadata_acls;
mod mirrormaker_compat;
mod orphans;
mod readiness;
mod runbooks;
