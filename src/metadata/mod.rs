//! What the standby needs besides records and groups: topic configs, ACLs, quotas; and which users
//! are missing there.
//!
//! ```text
//!  source ── observe ──┐
//!                      ├──> decide (pure) ──> drift ──> apply ──> target
//!  target ── observe ──┘                        │
//!                                               └──> report: plan, status, metrics
//! ```
//!
//! Each *aspect* (`configs`, `acls`, `quotas`, `users`) does that on its own: one that may
//! not be read, or one bad topic, stops nothing else. Nothing is remembered of a pass but what must
//! be: what we made (so that only that is ever removed) and what is held for the failover, both in
//! the state topic. A pass that finds both clusters as the last one left them changes nothing.

pub mod acls;
mod configs;
mod context;
mod follow;
mod held;
mod opposite;
mod pass;
pub mod quotas;
mod users;

pub use configs::fingerprint_of_rules;
pub use configs::is_enforced as is_enforced_config;
pub use configs::is_resolved as is_resolved_config;
pub use configs::{CLEANUP, Needs, WHY_UNTIERED, is_untiered, may_be_widened};
pub use configs::{
    Expected, binding_min_in_sync, configs_at_creation, configs_without_compaction,
    expected as expected_config,
};
pub use context::{Context, MirroredTopic, Topics};
pub use follow::{follow, look_once};
pub use held::{Held, held};
