//! WriteTxnMarkers, version 1 (`KafkaApis.handleWriteTxnMarkersRequest`).

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::write_txn_markers_request::WritableTxnMarker;
use kafka_protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use kafka_protocol::messages::{
    ProducerId, TopicName, WriteTxnMarkersRequest, WriteTxnMarkersResponse,
};

use super::{Asked, Body, Reply, Served, Subject, text};
use crate::acls::Operation;
use crate::batch::Marker;
use crate::state::State;

/// The broker waits as long as its own requests may take (`config.requestTimeoutMs`).
const APPEND_TIMEOUT_MS: i64 = 30_000;

impl Served for WriteTxnMarkersRequest {
    fn about(&self, _: &State) -> Vec<Subject> {
        let markers = self.markers.iter();
        markers
            .flat_map(partitions)
            .map(|(topic, partition)| Subject::Partition(topic, partition))
            .collect()
    }
}

fn partitions(marker: &WritableTxnMarker) -> impl Iterator<Item = (String, i32)> {
    marker.topics.iter().flat_map(|topic| {
        let name = topic.name.to_string();
        topic
            .partition_indexes
            .iter()
            .map(move |&partition| (name.clone(), partition))
    })
}

pub(crate) fn handle(
    state: &mut State,
    asked: &Asked<'_>,
    request: WriteTxnMarkersRequest,
) -> Reply {
    if !state.allows_on_cluster(asked, Operation::Alter)
        && let Err(error) = state.check_cluster(asked, Operation::ClusterAction)
    {
        return asked.send(&refused(&request, error));
    }
    // `if (numAppends.get == 0)`: nothing to append, nothing to wait for.
    if request.markers.is_empty() {
        return asked.send(&WriteTxnMarkersResponse::default());
    }
    let mut pending = Pending {
        broker: asked.broker,
        version: asked.api_version,
        markers: Vec::new(),
    };
    let mut skipped = 0;
    let mut appended_at_once = true;
    let mut last_was_skipped = false;
    for marker in &request.markers {
        let mut written = Written::new(marker);
        let mut hosted = false;
        for (topic, partition) in partitions(marker) {
            hosted |= written.append(state, asked, marker, &topic, partition);
        }
        last_was_skipped = !hosted;
        skipped += usize::from(!hosted);
        appended_at_once &= !hosted || written.is_done(state, asked.broker);
        pending.markers.push(written);
    }
    if skipped == request.markers.len() {
        return Reply::Send(pending.body());
    }
    // A skipped marker only counts down. The answer is sent by whichever append's callback counts to zero; if all of them were called
    // before, nobody is left to send it.
    if last_was_skipped && appended_at_once {
        return Reply::Silence;
    }
    Reply::Wait {
        until_ms: state.now_ms + APPEND_TIMEOUT_MS,
        ready: Box::new(move |state, timed_out| pending.ready(state, timed_out)),
    }
}

/// `WriteTxnMarkersRequest.getErrorResponse`.
fn refused(request: &WriteTxnMarkersRequest, error: ResponseError) -> WriteTxnMarkersResponse {
    let markers = request.markers.iter().map(|marker| {
        let topics = marker.topics.iter().map(|topic| {
            let partitions = topic.partition_indexes.iter().map(|&partition| {
                WritableTxnMarkerPartitionResult::default()
                    .with_partition_index(partition)
                    .with_error_code(error.code())
            });
            WritableTxnMarkerTopicResult::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions.collect())
        });
        WritableTxnMarkerResult::default()
            .with_producer_id(marker.producer_id)
            .with_topics(topics.collect())
    });
    WriteTxnMarkersResponse::default().with_markers(markers.collect())
}

struct Pending {
    broker: i32,
    version: i16,
    markers: Vec<Written>,
}

/// One marker of the request.
struct Written {
    producer_id: i64,
    partitions: Vec<(String, i32, Outcome)>,
}

enum Outcome {
    Done(i16),
    /// The high watermark must get there.
    Appended(i64),
}

impl Written {
    fn new(marker: &WritableTxnMarker) -> Self {
        Self {
            producer_id: marker.producer_id.0,
            partitions: Vec::new(),
        }
    }

    /// Appends to one partition; says whether the broker hosts it (`ReplicaManager.onlinePartition`).
    fn append(
        &mut self,
        state: &mut State,
        asked: &Asked<'_>,
        marker: &WritableTxnMarker,
        topic: &str,
        partition: i32,
    ) -> bool {
        let refused = asked.refused(topic, partition);
        if state.hosted(asked.broker, topic, partition).is_err() {
            // A broker says this of every partition that it doesn't host, also of those that others do.
            let error = ResponseError::UnknownTopicOrPartition.code();
            self.note(topic, partition, Outcome::Done(error));
            return false;
        }
        let outcome = match refused {
            Some(error) => Err(error),
            None => append(state, asked.broker, marker, topic, partition),
        };
        let outcome = match outcome {
            Ok(required) => Outcome::Appended(required),
            Err(error) => Outcome::Done(error.code()),
        };
        self.note(topic, partition, outcome);
        true
    }

    fn note(&mut self, topic: &str, partition: i32, outcome: Outcome) {
        self.partitions.push((topic.to_owned(), partition, outcome));
    }

    fn look(&mut self, state: &State, broker: i32, timed_out: bool) {
        for (topic, partition, outcome) in &mut self.partitions {
            if let Outcome::Appended(required) = outcome
                && let Some(code) =
                    replicated(state, broker, topic, *partition, *required, timed_out)
            {
                *outcome = Outcome::Done(code);
            }
        }
    }

    fn is_done(&mut self, state: &State, broker: i32) -> bool {
        self.look(state, broker, false);
        let mut outcomes = self.partitions.iter().map(|(_, _, outcome)| outcome);
        outcomes.all(|outcome| matches!(outcome, Outcome::Done(_)))
    }
}

/// As a coordinator does, with `acks=all`.
fn append(
    state: &mut State,
    broker: i32,
    marker: &WritableTxnMarker,
    topic: &str,
    partition: i32,
) -> Result<i64, ResponseError> {
    let led = state.led(broker, topic, partition, -1)?;
    if led.in_sync.len() < state.min_in_sync(topic, broker, led.replicas.len()) {
        return Err(ResponseError::NotEnoughReplicas);
    }
    let rules = state.append_rules(topic, broker);
    let now_ms = state.clock_ms(broker);
    let found = state
        .partition_mut(topic, partition)
        .expect("looked up before");
    let leader_epoch = found.leader_epoch;
    let end = Marker {
        commit: marker.transaction_result,
        coordinator_epoch: marker.coordinator_epoch,
    };
    let appended = found
        .leader_log_mut()
        .expect("led by this broker")
        .append_marker(
            end,
            marker.producer_id.0,
            marker.producer_epoch,
            &rules,
            leader_epoch,
            now_ms,
        )?;
    state.replicate(topic, partition);
    Ok(appended.last_offset + 1)
}

fn replicated(
    state: &State,
    broker: i32,
    topic: &str,
    partition: i32,
    required: i64,
    timed_out: bool,
) -> Option<i16> {
    match state.led(broker, topic, partition, -1) {
        Err(error) => Some(error.code()),
        Ok(led) => {
            let log = led.leader_log().expect("led by this broker");
            if log.high_watermark() >= required {
                Some(0)
            } else {
                timed_out.then(|| ResponseError::RequestTimedOut.code())
            }
        }
    }
}

impl Pending {
    fn ready(&mut self, state: &mut State, timed_out: bool) -> Option<Body> {
        let mut all = true;
        for marker in &mut self.markers {
            marker.look(state, self.broker, timed_out);
            all &= marker.is_done(state, self.broker);
        }
        all.then(|| self.body())
    }

    /// One result per producer id: several markers of one share theirs (`errors` is a map by producer id).
    fn body(&self) -> Body {
        let mut by_producer: BTreeMap<i64, BTreeMap<&str, BTreeMap<i32, i16>>> = BTreeMap::new();
        for marker in &self.markers {
            let topics = by_producer.entry(marker.producer_id).or_default();
            for (topic, partition, outcome) in &marker.partitions {
                let Outcome::Done(code) = outcome else {
                    continue;
                };
                topics
                    .entry(topic.as_str())
                    .or_default()
                    .insert(*partition, *code);
            }
        }
        let markers = by_producer.into_iter().map(|(id, topics)| {
            WritableTxnMarkerResult::default()
                .with_producer_id(ProducerId(id))
                .with_topics(topics.into_iter().map(topic_result).collect())
        });
        let answer = WriteTxnMarkersResponse::default().with_markers(markers.collect());
        Body::of(&answer, self.version)
    }
}

fn topic_result((topic, partitions): (&str, BTreeMap<i32, i16>)) -> WritableTxnMarkerTopicResult {
    let partitions = partitions.into_iter().map(|(partition, code)| {
        WritableTxnMarkerPartitionResult::default()
            .with_partition_index(partition)
            .with_error_code(code)
    });
    WritableTxnMarkerTopicResult::default()
        .with_name(TopicName(text(topic)))
        .with_partitions(partitions.collect())
}
