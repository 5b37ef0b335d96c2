//! The data: produced once per scenario, by librdkafka.

use std::fmt::Write as _;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::support::admin;

/// Different payloads; they come around again after a batch is long full.
const POOL: usize = 8_192;

/// What to produce.
pub struct Load<'a> {
    /// Into which topic.
    pub topic: &'a str,
    /// Over how many partitions, in turns of one batch.
    pub partitions: i32,
    /// How many records.
    pub records: u64,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// JSON, or bytes that don't compress.
    pub json: bool,
    /// librdkafka's properties.
    pub settings: &'a [(&'a str, &'a str)],
}

impl Load<'_> {
    /// Produces everything and waits for the acknowledgements.
    pub fn produce(&self, bootstrap: &str) {
        let mut config = admin::client(bootstrap);
        config
            .set("acks", "all")
            .set("queue.buffering.max.messages", "200000")
            .set("queue.buffering.max.kbytes", "262144");
        for (key, value) in self.settings {
            config.set(*key, *value);
        }
        let producer: BaseProducer = config.create().expect("valid settings");
        let pool = pool(self.value_bytes, self.json);
        for number in 0..self.records {
            let partition = number % u64::from(self.partitions.unsigned_abs());
            let key = (number % 100_000).to_string();
            let mut record = BaseRecord::to(self.topic)
                .partition(partition as i32)
                .key(&key)
                .payload(&pool[number as usize % POOL]);
            while let Err((error, returned)) = producer.send(record) {
                assert_eq!(
                    error,
                    KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)
                );
                producer.poll(Duration::from_millis(20));
                record = returned;
            }
            if number % 1_000 == 0 {
                producer.poll(Duration::ZERO);
            }
        }
        producer
            .flush(Duration::from_secs(120))
            .expect("the broker takes everything");
    }
}

fn pool(value_bytes: usize, json: bool) -> Vec<Vec<u8>> {
    // A fixed seed: every run has the same data.
    let mut random = StdRng::seed_from_u64(7);
    (0..POOL)
        .map(|number| {
            if json {
                order(&mut random, number, value_bytes)
            } else {
                (0..value_bytes).map(|_| random.random()).collect()
            }
        })
        .collect()
}

/// An order as a shop would log it, padded with line items up to the size.
fn order(random: &mut StdRng, number: usize, value_bytes: usize) -> Vec<u8> {
    const STATES: [&str; 5] = ["created", "paid", "packed", "shipped", "returned"];
    const CITIES: [&str; 6] = ["Hamburg", "Lyon", "Porto", "Gdansk", "Turin", "Ghent"];
    let mut text = format!(
        r#"{{"order_id":{},"customer":"{:016x}","state":"{}","city":"{}","amount_cents":{},"created_at":"2025-03-{:02}T{:02}:{:02}:{:02}Z","items":["#,
        10_000_000 + number,
        random.random::<u64>(),
        STATES[random.random_range(0..STATES.len())],
        CITIES[random.random_range(0..CITIES.len())],
        random.random_range(100..100_000),
        random.random_range(1..29),
        random.random_range(0..24),
        random.random_range(0..60),
        random.random_range(0..60),
    );
    while text.len() + 90 < value_bytes {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            r#"{{"sku":"{:08X}","quantity":{},"price_cents":{},"warehouse":"W{}"}},"#,
            random.random::<u32>(),
            random.random_range(1..9),
            random.random_range(99..20_000),
            random.random_range(1..40),
        );
    }
    text.push_str(r#"{}],"note":""#);
    while text.len() + 2 < value_bytes {
        text.push(char::from(random.random_range(b'a'..=b'z')));
    }
    text.push_str("\"}");
    text.truncate(value_bytes);
    text.into_bytes()
}
