//! What is seen from outside: progress, metrics, logs.
//!
//! The data path writes the [`progress::Registry`]; everything else here only reads it:
//! [`status`] turns it into the report that the API, the page and `twinlog status` show,
//! [`readiness`] judges that report, [`failover`] says what a failover would meet, [`metrics`] renders it for Prometheus. One report
//! feeds all of them, so they cannot disagree.

pub mod changes;
pub mod cut_over;
pub mod drill;
pub mod failover;
pub mod finding;
pub mod groups;
pub mod limits;
pub mod logging;
pub mod metadata;
pub mod metrics;
pub mod names;
pub mod process;
pub mod progress;
pub mod protect;
pub mod rates;
pub mod readiness;
pub mod role;
pub mod sampler;
pub mod size;
pub mod status;
pub mod traffic;
pub mod up_to_date;
pub mod utc;
pub mod verify;
