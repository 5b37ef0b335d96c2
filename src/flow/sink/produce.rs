//! Produce requests: written by hand so that payloads aren't copied, and their answers.

use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{ProduceRequest, ProduceResponse, TopicName};

use super::Item;
use super::outcome::{finish, missing_answer, note_batch, topic_name};
use crate::flow::error::Trouble;
use crate::flow::work::{BatchWork, Work};
use crate::wire::{Connection, Pending, TopicPartition, WireError};

/// The newest Produce version without topic ids; 12 and 13 only concern transactions and ids.
pub(super) const PRODUCE_VERSION_MAX: i16 = 11;

/// The first flexible version, which the encoder below writes (Kafka 2.6 and later).
pub(in crate::flow) const PRODUCE_VERSION_MIN: i16 = 9;

/// The answer comes when all in-sync replicas have it, or there is none.
const ACKS_ALL: i16 = -1;
const ACKS_NONE: i16 = 0;

/// How long a broker may wait for its in-sync replicas, milliseconds.
const ACKS_TIMEOUT_MS: i32 = 20_000;

/// Writes the produce request by hand, so that the payload isn't copied: the body is a list of
/// slices that go to the socket as they are.
pub(super) fn start(
    connection: &Connection,
    items: &[Item],
) -> Result<Pending<ProduceResponse>, WireError> {
    let version =
        connection.version_at_least::<ProduceRequest>(PRODUCE_VERSION_MIN, PRODUCE_VERSION_MAX)?;
    let batches = nth_batches(items, 0);
    connection.start_raw::<ProduceRequest>(version, encode_produce(batches, ACKS_ALL))
}

/// The batches of steps, which nothing but the markers behind them is answered for. A request has one of each.
pub(super) fn start_unanswered(connection: &Connection, items: &[Item]) -> Result<u32, WireError> {
    let version =
        connection.version_at_least::<ProduceRequest>(PRODUCE_VERSION_MIN, PRODUCE_VERSION_MAX)?;
    let most = items.iter().map(|item| item.work.batches().len()).max();
    for nth in 0..most.unwrap_or(0) {
        let body = encode_produce(nth_batches(items, nth), ACKS_NONE);
        connection.start_unanswered::<ProduceRequest>(version, body)?;
    }
    Ok(u32::try_from(most.unwrap_or(0)).unwrap_or(u32::MAX))
}

/// A request without partitions, which is answered at once (see `quota`).
pub(super) fn encode_empty() -> Vec<Bytes> {
    encode_produce(Vec::new(), ACKS_ALL)
}

/// A batch and where it goes.
type Addressed<'a> = (&'a TopicPartition, &'a BatchWork);

/// One batch of each that has so many.
fn nth_batches(items: &[Item], nth: usize) -> Vec<Addressed<'_>> {
    let of_each = items.iter().filter_map(|item| {
        let batch = item.work.batches().get(nth)?;
        Some((&item.partition.target, batch))
    });
    of_each.collect()
}

fn encode_produce(mut batches: Vec<Addressed<'_>>, acks: i16) -> Vec<Bytes> {
    batches.sort_by(|(left, _), (right, _)| left.topic.cmp(&right.topic));
    let topics: Vec<&[Addressed<'_>]> = batches
        .chunk_by(|(left, _), (right, _)| left.topic == right.topic)
        .collect();
    let mut segments = Vec::with_capacity(3 * batches.len() + 2);
    let mut head = BytesMut::with_capacity(64);
    head.put_u8(0); // transactional_id: null
    head.put_i16(acks);
    head.put_i32(ACKS_TIMEOUT_MS);
    put_count(&mut head, topics.len());
    for topic in topics {
        let name = topic[0].0.topic.as_bytes();
        put_count(&mut head, name.len());
        head.put_slice(name);
        put_count(&mut head, topic.len());
        for (target, batch) in topic {
            head.put_i32(target.partition);
            put_count(&mut head, batch.size_bytes());
            segments.push(head.split().freeze());
            segments.push(batch.head.clone());
            if !batch.body.is_empty() {
                segments.push(batch.body.clone());
            }
            head.put_u8(0); // partition's tagged fields
        }
        head.put_u8(0); // topic's tagged fields
    }
    head.put_u8(0); // request's tagged fields
    segments.push(head.freeze());
    segments
}

/// A compact length: unsigned varint of `count + 1` (KIP-482).
pub(super) fn put_count(out: &mut BytesMut, count: usize) {
    let mut rest = count as u64 + 1;
    while rest >= 0x80 {
        out.put_u8((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

/// Whether one was refused as a service refuses that wants it slower.
pub(super) fn settle(cluster: &str, items: Vec<Item>, response: ProduceResponse) -> bool {
    let mut is_slower = false;
    let mut answers: HashMap<(TopicName, i32), PartitionProduceResponse> =
        HashMap::with_capacity(items.len());
    for topic in response.responses {
        for partition in topic.partition_responses {
            answers.insert((topic.name.clone(), partition.index), partition);
        }
    }
    for item in items {
        let Work::Batch(batch) = &item.work else {
            continue;
        };
        let answer =
            answers.remove(&(topic_name(&item.partition), item.partition.target.partition));
        let result = match answer {
            Some(answer) => check_append(cluster, batch, answer),
            None => Err(missing_answer(cluster)),
        };
        is_slower |= matches!(result, Err(Trouble::Slower { .. }));
        finish(
            &item.partition,
            result.map(|()| note_batch(&item.partition, batch)),
        );
    }
    is_slower
}

pub(super) fn check_append(
    cluster: &str,
    batch: &BatchWork,
    answer: PartitionProduceResponse,
) -> Result<(), Trouble> {
    if let Some(code) = ResponseError::try_from_code(answer.error_code) {
        let key = match code {
            ResponseError::MessageTooLarge => Some("max.message.bytes"),
            // No segment has room for it (`UnifiedLog.append`).
            ResponseError::RecordListTooLarge => Some("segment.bytes"),
            _ => None,
        };
        if let Some(key) = key {
            return Err(Trouble::TooLarge {
                cluster: format!("target ({cluster})"),
                bytes: batch.size_bytes(),
                key,
                is_cured: true,
            });
        }
        let message = answer.error_message.map(|message| message.to_string());
        if code == ResponseError::PolicyViolation {
            return Err(Trouble::Slower {
                cluster: format!("target ({cluster})"),
                bytes: batch.size_bytes(),
                message,
            });
        }
        return Err(Trouble::broker(
            &format!("target ({cluster})"),
            code,
            message,
        ));
    }
    Trouble::check_offset(batch.target_base, answer.base_offset)?;
    if is_stamped(batch.max_timestamp_ms, answer.log_append_time_ms) {
        return Err(Trouble::TimesReplaced {
            from: batch.target_base,
            to: batch.target_base + batch.count,
        });
    }
    Ok(())
}

/// Whether the broker gave the batch its own time (`LogValidator` under LogAppendTime). A batch that it had
/// already is answered with that one's largest timestamp, under CreateTime too (`UnifiedLog.append`).
fn is_stamped(max_timestamp_ms: i64, log_append_time_ms: i64) -> bool {
    log_append_time_ms >= 0 && log_append_time_ms != max_timestamp_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_the_broker_had_already_is_not_taken_for_a_stamped_one() {
        assert!(!is_stamped(1_500_000_000_000, -1));
        assert!(!is_stamped(1_500_000_000_000, 1_500_000_000_000));
        assert!(is_stamped(1_500_000_000_000, 1_700_000_000_000));
        assert!(is_stamped(-1, 1_700_000_000_000));
    }

    #[test]
    fn compact_lengths_follow_kip_482() {
        for (count, expected) in [
            (0_usize, vec![1_u8]),
            (126, vec![127]),
            (127, vec![0x80, 1]),
            (300, vec![0xad, 2]),
        ] {
            let mut out = BytesMut::new();
            put_count(&mut out, count);
            assert_eq!(out.to_vec(), expected, "count {count}");
        }
    }
}
