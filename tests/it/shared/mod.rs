//! Brokers that the tests share: a test owns names on them, and harms no other.

mod copy;
mod detect_gaps;
mod detect_rights;
mod drill;
mod failback_crashes;
mod failback_edges;
mod failover_planned;
mod failover_refusals;
mod groups_rules;
mod groups_share;
mod harness_smoke;
mod http_secrets;
mod limits;
mod metadata_configs;
mod metadata_deletion;
mod metadata_plan;
mod metadata_quotas;
mod state_maps;
mod stray_fillers;
mod verify;
mod verify_clusters;
mod verify_speed;
