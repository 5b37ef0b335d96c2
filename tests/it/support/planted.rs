//! A copy with a fault, made by hand in the place of a good one.

use std::time::Duration;

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::admin::{client, create_topic, delete_topic, end_offset};
use super::produce::begin;
use super::read::{Isolation, Seen, read_all};
use super::wait::eventually;

const DEADLINE: Duration = Duration::from_secs(60);

/// What comes next in a partition.
#[derive(Clone, Debug)]
pub enum Piece {
    /// A record.
    Record(Seen),
    /// Two offsets without a record: one that was aborted, and its marker.
    TwoHoles,
}

/// The records of a one-partition topic as pieces, with what lies between them.
///
/// # Panics
/// When an odd number of offsets lies between two records.
pub fn pieces(records: &[Seen]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut next = 0;
    for record in records {
        let holes = record.offset - next;
        assert_eq!(holes % 2, 0, "holes before {record:?}");
        pieces.extend((0..holes / 2).map(|_| Piece::TwoHoles));
        pieces.push(Piece::Record(record.clone()));
        next = record.offset + 1;
    }
    pieces
}

/// Waits for the marker that ends a transaction: it is appended after the coordinator's answer.
pub fn await_end(bootstrap: &str, topic: &str, end: i64) {
    eventually(DEADLINE, "the marker is there", || {
        match end_offset(bootstrap, topic, 0) {
            found if found == end => Ok(()),
            found => Err(found),
        }
    });
}

/// Deletes a one-partition topic and writes it anew from pieces.
///
/// # Panics
/// When the broker refuses something.
pub fn rebuild(bootstrap: &str, topic: &str, pieces: &[Piece], configs: &[(&str, &str)]) {
    delete_topic(bootstrap, topic);
    create_topic(bootstrap, topic, 1, configs);
    let plain: BaseProducer = client(bootstrap)
        .set("enable.idempotence", "true")
        .set("message.max.bytes", "20000000")
        .create()
        .expect("valid settings");
    let aborting: BaseProducer = client(bootstrap)
        .set("transactional.id", format!("holes-{topic}"))
        .create()
        .expect("valid settings");
    let has_holes = pieces.iter().any(|piece| matches!(piece, Piece::TwoHoles));
    if has_holes {
        begin(&aborting).expect("the coordinator answers");
    }
    let mut next = 0;
    for piece in pieces {
        match piece {
            Piece::Record(record) => {
                send(&plain, topic, record);
                next += 1;
            }
            Piece::TwoHoles => {
                plain.flush(DEADLINE).expect("acknowledged");
                aborting.begin_transaction().expect("none is open");
                aborting
                    .send(
                        BaseRecord::<[u8], [u8]>::to(topic)
                            .partition(0)
                            .key(b"no")
                            .payload(b"no"),
                    )
                    .map_err(|(error, _)| error)
                    .expect("queued");
                aborting.flush(DEADLINE).expect("acknowledged");
                aborting.abort_transaction(DEADLINE).expect("aborted");
                next += 2;
                await_end(bootstrap, topic, next);
            }
        }
    }
    plain.flush(DEADLINE).expect("acknowledged");
}

fn send(producer: &BaseProducer, topic: &str, record: &Seen) {
    let headers = record
        .headers
        .iter()
        .fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header {
                key,
                value: value.as_deref(),
            })
        });
    let mut sent: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).partition(0);
    if let Some(key) = &record.key {
        sent = sent.key(key);
    }
    if let Some(value) = &record.value {
        sent = sent.payload(value);
    }
    if let Some(timestamp) = record.timestamp_ms {
        sent = sent.timestamp(timestamp);
    }
    if !record.headers.is_empty() {
        sent = sent.headers(headers);
    }
    producer
        .send(sent)
        .map_err(|(error, _)| error)
        .expect("queued");
    producer.poll(Duration::ZERO);
}

/// Every record of a one-partition topic as a consumer sees it.
pub fn records(bootstrap: &str, topic: &str) -> Vec<Seen> {
    read_all(bootstrap, topic, Isolation::ReadCommitted)
}
