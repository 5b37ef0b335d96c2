//! Topics that belong to one cluster and are never mirrored.

/// Whether a topic is a cluster's own business, whatever the selectors say.
///
/// - Kafka's state: `__consumer_offsets`, `__transaction_state`, `__share_group_state`,
///   `__cluster_metadata`, `__remote_log_metadata`. What is in them is either meaningless on
///   another cluster or carried over by its own means (group offsets).
/// - Ours: `__twinlog*`.
/// - MirrorMaker 2's: `mm2-*.internal` (offset syncs and the Connect state of its dedicated mode)
///   and `*.checkpoints.internal`, with any separator that it can be told to use.
/// - Tools that write the same name on every cluster they watch, so that a copy would have two
///   writers: Cruise Control's metrics and samples, the canaries of Strimzi and Amazon MSK.
///
/// MirrorMaker 2 goes further and drops every `__*`, `.*`, `*.internal` and `*-internal` topic
/// without a word, a user's `orders-internal` included; a standby that misses a topic silently is
/// none, so here only names with a known owner are internal. `heartbeats` is MirrorMaker 2's too,
/// but it replicates that one like any topic and so does this.
pub fn is_internal_topic(name: &str) -> bool {
    const EXACT: [&str; 8] = [
        "__consumer_offsets",
        "__transaction_state",
        "__share_group_state",
        "__cluster_metadata",
        "__remote_log_metadata",
        "__CruiseControlMetrics",
        "__KafkaCruiseControlPartitionMetricSamples",
        "__KafkaCruiseControlModelTrainingSamples",
    ];
    const PREFIXES: [&str; 4] = [
        "__twinlog",
        "__strimzi_canary",
        "__strimzi-topic-operator",
        "__amazon_msk_canary",
    ];
    EXACT.contains(&name)
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || is_mirror_maker_internal(name)
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
