//! Copying: one flow takes topics from a source cluster to a target cluster.
//!
//! ```text
//! supervisor ── opens ──> partition <── pushes ── source session (one per source broker, more over a distance)
//!     ^                      |  queue of work            intake: pass, merge, open, fill
//!     |                      v
//!     └──── trouble ──── sink lane (two per target broker, more over a distance): produce, write markers
//! ```
//!
//! A partition is never repaired in place. Whatever goes wrong, it is closed and opened again
//! from what the target's log says (`resume`); a crash of the process is the same case.

mod abilities;
mod all;
mod append_time;
mod awake;
mod budget;
mod check;
pub mod claim;
mod confirmed;
mod copy_back;
mod creation;
mod cut_back;
mod damage;
mod deleted;
pub mod deny;
mod discovery;
mod epochs;
mod error;
mod fenceable;
pub mod fenced;
mod fill;
pub mod fillers;
mod followers;
mod foreign;
mod guard;
mod habit;
mod haste;
mod identity;
mod in_turn;
mod intake;
mod leaders;
mod left_behind;
mod limits;
mod line;
mod log_reader;
mod lost;
mod metadata;
mod missed;
mod needs;
mod never_copied;
mod observed;
mod open_plan;
mod origins;
mod partition;
mod plan;
pub mod position;
mod positions;
mod prefix;
pub mod protect;
mod relearn;
mod remote;
mod replication;
pub mod restrain;
mod resume;
mod rights;
mod role;
mod run;
mod shared;
pub mod shown;
mod sink;
mod slower;
mod source;
mod sparse;
mod spread;
mod stale_keys;
mod stamped;
mod standby;
mod state_topic;
mod succession;
mod supervisor;
mod tail;
mod throttle;
mod tombstones;
mod topic_config;
mod topics;
mod traffic;
mod translate;
mod turn;
mod turns;
mod work;

pub use abilities::{source_abilities, standby_abilities};
pub use all::{AllEnded, run_flows};
pub use check::check;
pub use deleted::gone_topics;
pub use error::{FlowError, Policy, Trouble};
pub use fenceable::unfenceable;
pub use identity::expect_source;
pub use metadata::own_principal;
pub use never_copied::{filled, never_copied};
pub use plan::{metadata_report, plan};
pub use run::run_flow;
pub use standby::min_in_sync;
pub use topics::selected_topics;
pub use translate::{PositionMap, TranslateError, Translated, position_map};
