//! Every metric's name, kind and meaning. The names are an interface: dashboards and
//! alerts hang on them. `docs/METRICS.md` lists the same, and a test compares them.

/// What a metric does over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, from 0 at the process' start.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name, with the unit last (before `_total`).
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Its labels, in order.
    pub labels: &'static [&'static str],
    /// Its meaning, in one line.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($constant:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: Metric = Metric {
                name: $name,
                kind: Kind::$kind,
                labels: &[$($label),*],
                help: $help,
            };
        )*
        /// Every metric.
        pub const ALL: &[Metric] = &[$($constant),*];
    };
}

metrics! {
    BUILD_INFO = Gauge "twinlog_build_info" ["version"]
        "Always 1; the label names the version.";
    READY = Gauge "twinlog_ready" []
        "1 when /readyz answers 200, otherwise 0.";
    PROCESS_RESIDENT_MEMORY = Gauge "twinlog_process_resident_memory_bytes" []
        "Memory of the process that is in RAM.";
    PROCESS_CPU = Counter "twinlog_process_cpu_milliseconds_total" []
        "User and system CPU time of the process.";
    PARTITION_SERIES_OMITTED = Gauge "twinlog_partition_series_omitted" []
        "Partitions beyond the cap of 10,000 that have no series of their own; the sums contain them.";

    FLOW_STATE = Gauge "twinlog_flow_state" ["flow", "state", "reason"]
        "1 for the flow's present state (starting, running, waiting, stopped) and reason.";
    FLOW_DISCOVERED = Gauge "twinlog_flow_discovered" ["flow"]
        "1 once topic discovery has succeeded.";
    PARTITIONS = Gauge "twinlog_partitions" ["flow", "state", "reason"]
        "Partitions by state (opening, copying, retrying, stopped) and reason.";
    FLOW_STUCK_PARTITIONS = Gauge "twinlog_flow_stuck_partitions" ["flow"]
        "Partitions that are behind and have not moved for more than 60 s.";
    FLOW_LAG_RECORDS = Gauge "twinlog_flow_lag_records" ["flow"]
        "Source offsets not yet on the target, summed over the partitions where it is known; absent until the topics are discovered.";
    FLOW_LAG_BYTES = Gauge "twinlog_flow_lag_bytes" ["flow"]
        "The same in bytes, estimated from the mean record size.";
    FLOW_LAG_SECONDS = Gauge "twinlog_flow_lag_seconds" ["flow"]
        "The largest lag in seconds of any partition; without partitions and while the flow does not run, the time since its start.";
    FLOW_LAG_UNKNOWN = Gauge "twinlog_flow_lag_unknown_partitions" ["flow"]
        "Partitions whose lag is not known and so is not in the sum.";
    FLOW_RECORDS = Counter "twinlog_flow_records_total" ["flow"]
        "Records acknowledged by the target.";
    FLOW_BYTES = Counter "twinlog_flow_bytes_total" ["flow"]
        "Bytes, as on the wire, acknowledged by the target.";
    FLOW_BATCHES = Counter "twinlog_flow_batches_total" ["flow", "kind"]
        "Source batches by what was done with them: passed (unopened), coalesced, opened.";
    FLOW_HOLES_FILLED = Counter "twinlog_flow_holes_filled_total" ["flow"]
        "Offsets filled with an invisible marker.";
    FLOW_GAP_OFFSETS = Counter "twinlog_flow_gap_offsets_total" ["flow"]
        "Source offsets that retention took before they were copied.";
    FLOW_MISSED_DELETES = Gauge "twinlog_flow_missed_deletes_partitions" ["flow"]
        "Partitions whose copy may have missed deletes of the source: keys may live on there that the source has no more.";
    FLOW_ERRORS = Counter "twinlog_flow_errors_total" ["flow", "kind"]
        "Errors by kind, retried ones included.";
    FLOW_CLUSTER_BYTES = Counter "twinlog_flow_cluster_bytes_total" ["flow", "cluster", "direction", "purpose"]
        "Bytes on the flow's own connections to a cluster (sent, received), by what they are for (fetch, produce, groups, state, other).";
    FLOW_IN_FLIGHT_BYTES = Gauge "twinlog_flow_in_flight_bytes" ["flow"]
        "Bytes fetched and not yet acknowledged by the target.";
    FLOW_IN_FLIGHT_LIMIT_BYTES = Gauge "twinlog_flow_in_flight_limit_bytes" ["flow"]
        "The configured bound of the bytes in flight.";
    FLOW_FIRST_COPY_RATIO = Gauge "twinlog_flow_first_copy_ratio" ["flow"]
        "How much of the first copy is done, 0 to 1; 1 once every partition has been caught up.";

    GROUPS = Gauge "twinlog_groups" ["flow", "state"]
        "Consumer and share groups by state (followed, gone_on_source, unknown, or the reason of the position that needs most attention).";
    GROUP_POSITIONS_WAITING = Gauge "twinlog_group_positions_waiting" ["flow", "reason"]
        "Positions of groups that are not on the target yet, by reason.";
    GROUP_REREAD_RECORDS = Gauge "twinlog_group_reread_records" ["flow"]
        "Records that groups would read again if the failover happened now, at most.";
    GROUPS_WATCHED = Gauge "twinlog_groups_watched" ["flow", "cluster", "way", "state"]
        "1 for the way in which the groups of the source and the target are watched (tail, poll) and its state (reading, following, failing).";
    GROUP_COMMITS = Counter "twinlog_group_commits_total" ["flow"]
        "Positions committed on the target.";
    GROUP_DELAY_BUCKET = Counter "twinlog_group_commit_delay_milliseconds_bucket" ["flow", "le"]
        "Positions by the time from the commit on the source to the one on the target, as the buckets of a histogram.";
    GROUP_DELAY_SUM = Counter "twinlog_group_commit_delay_milliseconds_sum" ["flow"]
        "The sum of these times.";
    GROUP_DELAY_COUNT = Counter "twinlog_group_commit_delay_milliseconds_count" ["flow"]
        "How many times were taken.";

    DRIFT = Gauge "twinlog_drift" ["flow", "kind", "action"]
        "Things on the target that differ from the source, by kind (topic, topic_config, acl, quota, user) and what is done about them (add, change, remove, hold, leave, operator).";
    DRIFT_FAILING = Gauge "twinlog_drift_failing" ["flow", "kind", "reason"]
        "Differences that Twinlog would remove and can't, by kind and reason.";
    METADATA_OBSTACLES = Gauge "twinlog_metadata_obstacles" ["flow", "kind", "cluster", "reason"]
        "1 for each kind of thing that can't be compared, with the cluster (source, target) and the reason.";
    METADATA_APPLIED = Counter "twinlog_metadata_applied_total" ["flow", "kind"]
        "Changes applied to the target, by kind.";
    METADATA_FAILED = Counter "twinlog_metadata_failed_total" ["flow", "kind", "reason"]
        "Changes that the target refused, by kind and reason, tries included.";
    METADATA_AGE = Gauge "twinlog_metadata_age_seconds" ["flow"]
        "Time since configs, ACLs, quotas and users of both clusters were last compared.";
    METADATA_COMPARE = Gauge "twinlog_metadata_compare_seconds" ["flow"]
        "How long the last comparison took, applying included.";

    VERIFY_COVERAGE = Gauge "twinlog_verify_coverage_ratio" ["flow"]
        "How much of the records the last comparison with the source covered, 0 to 1; during the first one in the background, how far it is.";
    VERIFY_AGE = Gauge "twinlog_verify_age_seconds" ["flow"]
        "Time since the last comparison of records began; absent before the first one has ended.";
    VERIFY_DIFFERENCES = Gauge "twinlog_verify_differences" ["flow", "kind"]
        "What the last comparison of records found, by kind (changed, swapped, missing, added, added_at_end, partitions, group, config, acl, quota, user, held, replicas, made_anew).";
    VERIFY_BYTES = Counter "twinlog_verify_bytes_total" ["flow"]
        "Bytes of keys, values and headers read to compare in the background, both sides together.";

    DRILL_AGE = Gauge "twinlog_drill_age_seconds" ["flow"]
        "Time since the last rehearsal of a failover (twinlog drill) ended; absent before the first one.";
    DRILL_PASSED = Gauge "twinlog_drill_passed" ["flow"]
        "1 when the last rehearsal passed, with or without remarks, 0 when it failed.";
    DRILL_RTO = Gauge "twinlog_drill_rto_seconds" ["flow"]
        "The longest recovery time that the last rehearsal measured; absent where it measured none.";
    DRILL_RPO = Gauge "twinlog_drill_rpo_seconds" ["flow"]
        "The largest loss that the last rehearsal measured; absent where it measured none.";

    FAILOVER_READY = Gauge "twinlog_failover_ready" ["flow"]
        "1 when a failover now would lose nothing, as far as known; 0 when it would lose records, when something stands in the way (a source without an authorizer among it, where `--fence manual` is the way), and after a failover.";
    FAILOVER_LOSS_RECORDS = Gauge "twinlog_failover_loss_records" ["flow"]
        "Records that would be missing if the source were lost now, at most, by its log ends and rates.";
    FAILOVER_LOSS_BYTES = Gauge "twinlog_failover_loss_bytes" ["flow"]
        "The same in bytes, estimated from the mean record size.";
    FAILOVER_LOSS_SECONDS = Gauge "twinlog_failover_loss_seconds" ["flow"]
        "How long ago the oldest of them may have been written; 0 when none is missing.";
    FAILOVER_LOSS_UNKNOWN = Gauge "twinlog_failover_loss_unknown_partitions" ["flow"]
        "Partitions of which nobody can say what would be missing.";
    FAILOVER_REREAD_MAX = Gauge "twinlog_failover_reread_records_max" ["flow"]
        "Records that the group with the most of them would read again if the failover happened now, at most; the sum over all groups is twinlog_group_reread_records.";
    FAILOVER_UNPLACED = Gauge "twinlog_failover_unplaced_positions" ["flow"]
        "Positions of groups that the target does not have at all: there auto.offset.reset decides.";
    FAILOVER_CHECKS = Gauge "twinlog_failover_checks" ["flow", "weight"]
        "What was looked at for a failover, by weight (ok, warning, blocker, loses_data).";
    FAILOVER_SOURCE_AGE = Gauge "twinlog_failover_source_age_seconds" ["flow"]
        "Time since the source last told where its logs end, from which readiness is computed; absent before it did.";
    PRIMARY = Gauge "twinlog_primary" ["flow", "side"]
        "1 for who is the primary: source, promoting (neither, for a moment), target, or mixed where only some topics were failed over.";
    ORPHAN_OFFSETS = Gauge "twinlog_orphan_offsets" ["flow"]
        "Offsets on the old primary that were never copied; absent before a failover and until they were measured.";

    PARTITION_LAG_RECORDS = Gauge "twinlog_partition_lag_records" ["flow", "topic", "partition"]
        "Source offsets not yet on the target; absent while unknown.";
    PARTITION_LAG_BYTES = Gauge "twinlog_partition_lag_bytes" ["flow", "topic", "partition"]
        "The same in bytes, estimated from the mean record size.";
    PARTITION_LAG_SECONDS = Gauge "twinlog_partition_lag_seconds" ["flow", "topic", "partition"]
        "0 when caught up with the stable end, otherwise the time since it last was; never 0 when blocked or stopped.";
    PARTITION_NO_PROGRESS_SECONDS = Gauge "twinlog_partition_no_progress_seconds" ["flow", "topic", "partition"]
        "How long the partition has been behind without moving; 0 when nothing is left to copy.";
    PARTITION_SOURCE_POSITION = Gauge "twinlog_partition_source_position_offset" ["flow", "topic", "partition"]
        "The next source offset to be acknowledged on the target; absent while unknown.";
    PARTITION_TARGET_POSITION = Gauge "twinlog_partition_target_position_offset" ["flow", "topic", "partition"]
        "The target offset that the source position will get; absent while unknown.";
    PARTITION_SOURCE_STABLE_END = Gauge "twinlog_partition_source_stable_end_offset" ["flow", "topic", "partition"]
        "The source's last stable offset; absent while unknown.";
    PARTITION_RECORDS = Counter "twinlog_partition_records_total" ["flow", "topic", "partition"]
        "Records acknowledged by the target.";
    PARTITION_BYTES = Counter "twinlog_partition_bytes_total" ["flow", "topic", "partition"]
        "Bytes, as on the wire, acknowledged by the target.";
    PARTITION_BATCHES = Counter "twinlog_partition_batches_total" ["flow", "topic", "partition", "kind"]
        "Source batches by what was done with them: passed (unopened), coalesced, opened.";
    PARTITION_HOLES_FILLED = Counter "twinlog_partition_holes_filled_total" ["flow", "topic", "partition"]
        "Offsets filled with an invisible marker.";
    PARTITION_MISSED_DELETES = Gauge "twinlog_partition_missed_deletes" ["flow", "topic", "partition"]
        "1 when the copy may have missed deletes of the source; absent otherwise.";
    PARTITION_GAP_OFFSETS = Counter "twinlog_partition_gap_offsets_total" ["flow", "topic", "partition"]
        "Source offsets that retention took before they were copied.";
}
