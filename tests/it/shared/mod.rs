//! Brokers of the pool: one test has a pair after the other, and leaves it running.

mod copy;
mod crash_twinlog;
mod crash_twins;
mod detect_gaps;
mod detect_rights;
mod drill;
mod failback;
mod failback_crashes;
mod failback_edges;
mod failover_planned;
mod failover_refusals;
mod groups_rules;
mod groups_share;
mod harness_smoke;
mod limits;
mod metadata_acls;
mod metadata_configs;
mod metadata_deletion;
mod metadata_quotas;
mod mirrormaker_compat;
mod orphans;
mod readiness;
mod stray_fillers;
mod verify;
mod verify_clusters;
mod verify_speed;
