//! Client quotas: set and listed as a cluster's operator.

use std::collections::BTreeMap;

use kafka_protocol::messages::alter_client_quotas_request::{EntityData, EntryData, OpData};
use kafka_protocol::messages::{AlterClientQuotasRequest, DescribeClientQuotasRequest};

use super::operator::{DEADLINE, call, text};
use super::wait::eventually;

/// Whom a quota is about: pairs of a type (`user`, `client-id` or `ip`) and a name, `None` for the
/// default of that type. Sorted by type.
pub type Entity = Vec<(String, Option<String>)>;

/// The quotas of one entity by Kafka's keys, such as `producer_byte_rate`.
pub type Values = BTreeMap<String, f64>;

/// An entity by its pairs, in any order.
pub fn entity(pairs: &[(&str, Option<&str>)]) -> Entity {
    let owned = |(kind, name): &(&str, Option<&str>)| ((*kind).into(), name.map(str::to_owned));
    let mut entity: Entity = pairs.iter().map(owned).collect();
    entity.sort();
    entity
}

/// Sets quotas of one entity, `None` removes one, and waits until a broker knows.
///
/// # Panics
/// When they are refused.
pub fn set(bootstrap: &str, whom: &Entity, values: &[(&str, Option<f64>)]) {
    let data = |(kind, name): &(String, Option<String>)| {
        EntityData::default()
            .with_entity_type(text(kind))
            .with_entity_name(name.as_deref().map(text))
    };
    let op = |(key, value): &(&str, Option<f64>)| {
        OpData::default()
            .with_key(text(key))
            .with_value(value.unwrap_or_default())
            .with_remove(value.is_none())
    };
    let entry = EntryData::default()
        .with_entity(whom.iter().map(data).collect())
        .with_ops(values.iter().map(op).collect());
    let request = AlterClientQuotasRequest::default().with_entries(vec![entry]);
    let entries = call(bootstrap, request, 1).entries;
    assert!(
        entries.iter().all(|entry| entry.error_code == 0),
        "{entries:?}"
    );
    eventually(DEADLINE, "the brokers have the quotas", || {
        let found = list(bootstrap).remove(whom).unwrap_or_default();
        match values
            .iter()
            .all(|(key, value)| found.get(*key).copied() == *value)
        {
            true => Ok(()),
            false => Err(found),
        }
    });
}

/// All quotas that a broker knows.
///
/// # Panics
/// When they can't be listed.
pub fn list(bootstrap: &str) -> BTreeMap<Entity, Values> {
    // No component: every entity.
    let request = DescribeClientQuotasRequest::default().with_strict(false);
    let response = call(bootstrap, request, 1);
    assert_eq!(response.error_code, 0, "{:?}", response.error_message);
    let entries = response.entries.unwrap_or_default().into_iter();
    entries
        .map(|entry| {
            let pairs = entry.entity.iter().map(|pair| {
                let name = pair.entity_name.as_ref().map(ToString::to_string);
                (pair.entity_type.to_string(), name)
            });
            let mut whom: Entity = pairs.collect();
            whom.sort();
            let values = entry.values.iter();
            let values = values.map(|value| (value.key.to_string(), value.value));
            (whom, values.collect())
        })
        .collect()
}
