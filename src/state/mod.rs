//! What Twinlog remembers, in one compacted topic on the target: `__twinlog_state`.
//!
//! Everything that is needed when the source is gone lies here: which topic is a copy of which,
//! the flow's producer ids, offset maps, gaps, and who is running the flow. Values are JSON with
//! a version (`v`, first), except an offset map's closed segments, which are bytes with a version; keys are
//! paths such as `topic/dr/orders`. The topic is read whole at start and kept in memory, without
//! other flows' segments; records of other processes are picked up by [`StateStore::refresh`].

mod cutover;
mod drill;
#[cfg(test)]
mod fuzz;
mod identity;
pub mod keys;
mod log;
pub mod maps;
mod missed;
mod orphans;
mod records;
mod replicas;
mod settings;
mod store;
mod version;
mod writer;

pub use cutover::{
    CutoverKind, CutoverRecord, CutoverState, EndsRecord, FenceAcl, FenceRecord, Fork, ForkRecord,
    GivenUpRecord, LeaseRecord, ObservedRecord, Operator, OrphansRecord, Primary, ReignQuotas,
    ReignRecord, RoleRecord, StepRecord, StepState, TopicSet,
};
pub use drill::{DrillRecord, OpenDrill};
pub use identity::{SourceIs, note_build, source_id};
pub use log::Loss;
pub use missed::{missed_by, missed_deletes};
pub use orphans::{OrphanChoice, OrphanDecision, OrphanDecisions, ReplayRecord};
pub use records::{
    AclRecord, AclState, Beat, BuildRecord, Claim, ContinuedLog, DamageRecord, FillerRecord,
    FlowRecord, GapRecord, GoneRecord, GroupPositions, HeldConfigs, MadeQuota, MapRecord, Memory,
    MissedDeletesRecord, QuotaRecord, Ranges, ReleaseRecord, SeenRecord, ShareOffset, ShareOffsets,
    TopicRecord, Turn, TurnedPartition, VerifyRecord,
};
pub use replicas::{MissingReplicas, missing_replicas};
pub use settings::{Misfit, look_at_settings, mend_settings};
pub use store::{
    LOST_HINT, NEWER_HINT, SETTINGS_HINT, STATE_TOPIC, StateError, StateRecord, StateStore, parse,
};
pub use version::VERSION;
