//! Topics that belong to one cluster and are never mirrored.

/// Internal by its whole name.
const EXACT: [&str; 13] = [
    "__consumer_offsets",
    "__transaction_state",
    "__share_group_state",
    "__cluster_metadata",
    "__remote_log_metadata",
    "__CruiseControlMetrics",
    "__KafkaCruiseControlPartitionMetricSamples",
    "__KafkaCruiseControlModelTrainingSamples",
    "strimzi.cruisecontrol.metrics",
    "strimzi.cruisecontrol.partitionmetricsamples",
    "strimzi.cruisecontrol.modeltrainingsamples",
    "__strimzi_store_topic",
    "kminion-end-to-end",
];
/// Internal, whatever follows.
const PREFIXES: [&str; 11] = [
    "__twinlog",
    "__strimzi_canary",
    "__strimzi-topic-operator",
    "__amazon_msk_canary",
    "__amazon_msk_connect_",
    "_confluent-metrics",
    "_confluent-telemetry-metrics",
    "_confluent-monitoring",
    "_confluent-controlcenter-",
    "_confluent_balancer_",
    "_confluent-license",
];

/// Whether a topic is a cluster's own business, whatever the selectors say.
///
/// - Kafka's state: `__consumer_offsets`, `__transaction_state`, `__share_group_state`,
///   `__cluster_metadata`, `__remote_log_metadata`. What is in them is either meaningless on
///   another cluster or carried over by its own means (group offsets).
/// - Ours: `__twinlog*`.
/// - MirrorMaker 2's: `mm2-*.internal` (offset syncs and the Connect state of its dedicated mode)
///   and `*.checkpoints.internal`, with any separator that it can be told to use.
/// - Tools that write the same name on every cluster they watch, so that a copy would have two
///   writers: Cruise Control's metrics and samples (under Strimzi's names too), the canaries of Strimzi
///   and Amazon MSK, KMinion's probe, Confluent's monitoring. What `_confluent-ksql` begins is data.
///
/// MirrorMaker 2 goes further and drops every `__*`, `.*`, `*.internal` and `*-internal` topic
/// without a word, a user's `orders-internal` included; a standby that misses a topic silently is
/// none, so here only names with a known owner are internal. `heartbeats` is MirrorMaker 2's too,
/// but it replicates that one like any topic and so does this.
pub fn is_internal_topic(name: &str) -> bool {
    EXACT.contains(&name)
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || is_mirror_maker_internal(name)
}

/// What the names of all topics begin with that Twinlog makes for itself.
pub const OWN_PREFIX: &str = "__twinlog";

/// Whether a name that begins like this is internal, whatever follows.
pub fn is_internal_namespace(beginning: &str) -> bool {
    PREFIXES.iter().any(|prefix| beginning.starts_with(prefix))
}

/// Whether an internal topic may begin like this. MirrorMaker 2's, which are told by their ends, aren't asked about.
pub fn may_be_internal(beginning: &str) -> bool {
    let known = EXACT.iter().chain(&PREFIXES);
    is_internal_namespace(beginning) || known.into_iter().any(|it| it.starts_with(beginning))
}

/// What everything begins with that a rehearsal makes: topics, groups and flows. As an internal
/// name no flow of a config takes it, in either direction.
pub const DRILL_PREFIX: &str = "__twinlog_drill.";

/// Whether a topic is internal to a flow: as [`is_internal_topic`], but a rehearsal's own flow takes
/// the topics that were made for it, which bear the flow's name before theirs.
pub fn is_internal_to_flow(flow: &str, topic: &str) -> bool {
    let is_made_for_it = flow.starts_with(DRILL_PREFIX)
        && topic
            .strip_prefix(flow)
            .is_some_and(|rest| rest.starts_with('.'));
    is_internal_topic(topic) && !is_made_for_it
}

fn is_mirror_maker_internal(name: &str) -> bool {
    let Some(rest) = name.strip_suffix("internal") else {
        return false;
    };
    // Most separators are one of these; a name may contain no other punctuation.
    let without_separator = rest.trim_end_matches(['.', '-', '_']);
    if without_separator.len() == rest.len() {
        return false;
    }
    let separator = &rest[without_separator.len()..];
    name.starts_with("mm2-") || without_separator.ends_with(&format!("{separator}checkpoints"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_cluster_has_of_its_own_is_not_copied() {
        for name in [
            "strimzi.cruisecontrol.metrics",
            "strimzi.cruisecontrol.modeltrainingsamples",
            "strimzi.cruisecontrol.partitionmetricsamples",
            "__strimzi_store_topic",
            "kminion-end-to-end",
            "_confluent-telemetry-metrics",
            "_confluent-controlcenter-7-0-1-0-MetricsAggregateStore-changelog",
        ] {
            assert!(is_internal_topic(name), "{name}");
        }
        for name in [
            "strimzi.cruisecontrol.metrics.of-mine",
            "kminion-end-to-end-2",
            "_schemas",
            "_confluent-ksql-default_query_CTAS_ORDERS-Aggregate-changelog",
        ] {
            assert!(!is_internal_topic(name), "{name}");
        }
    }

    #[test]
    fn a_rehearsal_s_topics_are_taken_by_its_own_flow_alone() {
        let (flow, topic) = (
            "__twinlog_drill.1.planned",
            "__twinlog_drill.1.planned.canary",
        );
        assert!(!is_internal_to_flow(flow, topic));
        for other in [
            "dr",
            "",
            "__twinlog_drill.1.unplanned",
            "__twinlog_drill.1.plan",
        ] {
            assert!(is_internal_to_flow(other, topic), "{other}");
        }
        assert!(is_internal_to_flow(flow, "__twinlog_state"));
        assert!(!is_internal_to_flow(flow, "orders"));
        // Only a rehearsal's flow has topics of its own.
        assert!(is_internal_to_flow("__twinlog", "__twinlog.x"));
    }
}
