//! The real `twinlog` between two fake clusters: rules that need a broker's answers and no broker.
//!
//! Of each kind one scenario is run between real brokers too ([`crate::shared`]), which shows that the
//! fake tells the truth. Such a scenario is a function of two addresses.

pub(crate) mod append_time;
mod broken_tasks;
mod carried_back;
mod claim_unseen;
pub(crate) mod copy;
pub(crate) mod detect_gaps;
pub(crate) mod detect_rights;
mod eras;
pub(crate) mod failover_refusals;
mod give_up;
mod gone_mirrors;
pub(crate) mod groups_rules;
mod groups_unseen;
pub(crate) mod holes;
mod http_secrets;
mod identity;
mod kept_fence;
pub(crate) mod limits;
mod lost_answers;
pub(crate) mod metadata_acls;
pub(crate) mod metadata_configs;
pub(crate) mod metadata_deletion;
mod metadata_plan;
pub(crate) mod metadata_quotas;
pub(crate) mod missed_deletes;
mod offline;
mod openings;
pub(crate) mod prefix;
pub(crate) mod readiness;
pub(crate) mod settings;
mod slow_brokers;
mod state_lost;
mod state_maps;
pub(crate) mod state_settings;
mod state_versions;
mod state_writes;
pub(crate) mod strangers;
pub(crate) mod stray_fillers;
