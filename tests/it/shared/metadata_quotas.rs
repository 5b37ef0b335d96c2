//! Quotas follow, between real clusters: the fake tells the truth, and a thousand are one look's work.

use std::time::Duration;

use crate::fake::metadata_quotas::{missing_users_are_listed, quotas_of_every_kind};
use crate::support::flow::{block_on, flow_config, wire_cluster};
use crate::support::{KafkaVersion, Twinlog, eventually, pair};
use twinlog::wire::{self, QuotaChange, QuotaEntity};

const DEADLINE: Duration = Duration::from_secs(30);

#[test]
fn quotas_of_every_kind_follow_and_what_would_throttle_twinlog_is_held() {
    let (source, target) = pair(KafkaVersion::V4_3);
    quotas_of_every_kind(&source.bootstrap(), &target.bootstrap());
}

#[test]
fn a_user_that_the_standby_lacks_is_listed_until_it_is_made() {
    let (source, target) = pair(KafkaVersion::V4_3);
    missing_users_are_listed(&source.bootstrap(), &target.bootstrap());
}

/// Many entities are one look's work.
#[test]
fn a_thousand_users_follow() {
    let (source, target) = pair(KafkaVersion::V4_3);
    let (source, target) = (source.bootstrap(), target.bootstrap());
    let change = |number: usize, key: &str| QuotaChange {
        entity: QuotaEntity::new([("user", Some(format!("many-{number}").as_str()))]),
        key: key.to_owned(),
        value: Some(1024.0),
    };
    block_on(async {
        let cluster = wire_cluster(&source);
        for key in ["producer_byte_rate", "consumer_byte_rate"] {
            let changes: Vec<_> = (0..1_000).map(|number| change(number, key)).collect();
            let outcomes = wire::alter_client_quotas(&cluster, &changes).await;
            assert!(outcomes.expect("an answer").iter().all(Result::is_ok));
        }
    });
    let _twinlog = Twinlog::start(&flow_config("many", "many", &source, &target, ""));
    eventually(DEADLINE, "all quotas are there", || {
        let found = block_on(wire::describe_client_quotas(&wire_cluster(&target))).expect("quotas");
        let count: usize = found
            .iter()
            .filter(|(entity, _)| entity.to_string().starts_with("user many-"))
            .map(|(_, quotas)| quotas.len())
            .sum();
        if count == 2_000 { Ok(()) } else { Err(count) }
    });
}
