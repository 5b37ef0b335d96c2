//! Limits that are given to a flow while it runs.

/// What replaces the limits with which a flow was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveLimits {
    /// Bytes that are copied per second at most; `None`: as many as can be.
    pub bytes_per_second: Option<u64>,
    /// Bytes fetched and not yet acknowledged by the target, in the whole flow.
    pub in_flight_bytes: u64,
    /// The same for one partition.
    pub partition_in_flight_bytes: u64,
}
