//! Client quotas (`ClientQuotaControlManager`, `ClientQuotasImage`). They are kept and told; of all of them only a
//! client id's `producer_byte_rate` slows anybody down (`rates`).

pub(crate) mod rates;

use std::collections::BTreeMap;

/// The components of an entity.
const USER: &str = "user";
const CLIENT_ID: &str = "client-id";
const IP: &str = "ip";

/// Keys of users and clients that are whole numbers, and those that needn't be.
const WHOLE_KEYS: [&str; 2] = ["producer_byte_rate", "consumer_byte_rate"];
const KEYS: [&str; 2] = ["request_percentage", "controller_mutation_rate"];
/// The key of addresses.
const IP_KEY: &str = "connection_creation_rate";

/// Whom a quota is for: by component its name, or `None` for the default.
pub type Entity = BTreeMap<String, Option<String>>;

/// All quotas of a cluster: by entity and key.
pub type Quotas = BTreeMap<Entity, BTreeMap<String, f64>>;

/// How one component of an entity is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// This one.
    Exact(Option<String>),
    /// Any.
    Any,
}

/// Whether a filter means the entity (`ClientQuotasImage.matches`).
pub fn matches(entity: &Entity, filter: &BTreeMap<String, Match>, strict: bool) -> bool {
    let component = |(kind, wanted): (&String, &Match)| match (entity.get(kind), wanted) {
        (None, _) => false,
        (Some(_), Match::Any) => true,
        (Some(name), Match::Exact(wanted)) => name == wanted,
    };
    (!strict || entity.len() == filter.len()) && filter.iter().all(component)
}

/// Whether the filter makes sense (`ClientQuotasImage.describe`).
///
/// # Errors
/// What doesn't, for people.
pub fn check_filter(filter: &BTreeMap<String, Match>) -> Result<(), String> {
    let has = |kind: &str| filter.contains_key(kind);
    if has(IP) && (has(USER) || has(CLIENT_ID)) {
        return Err("Invalid entity filter component combination.".to_owned());
    }
    Ok(())
}

/// Whether there are entities with such a component.
pub fn is_component(kind: &str) -> bool {
    [USER, CLIENT_ID, IP].contains(&kind)
}

/// Changes one entity's quotas, or none of them (`ClientQuotaControlManager.alterClientQuotaEntity`).
///
/// # Errors
/// Why not, for people; the code is INVALID_REQUEST.
pub fn alter(
    quotas: &mut Quotas,
    entity: &Entity,
    changes: &BTreeMap<String, Option<f64>>,
    only_check: bool,
) -> Result<(), String> {
    check_entity(entity)?;
    for (key, value) in changes {
        if let Some(value) = value {
            check_value(entity, key, *value)?;
        }
    }
    if only_check {
        return Ok(());
    }
    let kept = quotas.entry(entity.clone()).or_default();
    for (key, value) in changes {
        match value {
            Some(value) => kept.insert(key.clone(), *value),
            None => kept.remove(key),
        };
    }
    if kept.is_empty() {
        quotas.remove(entity);
    }
    Ok(())
}

fn check_entity(entity: &Entity) -> Result<(), String> {
    if entity.is_empty() {
        return Err("Invalid empty client quota entity".to_owned());
    }
    if let Some(kind) = entity.keys().find(|kind| !is_component(kind)) {
        return Err(format!("Unhandled client quota entity type: {kind}"));
    }
    if entity.values().flatten().any(String::is_empty) {
        return Err("Empty client quota entity name".to_owned());
    }
    if entity.contains_key(IP) && entity.len() > 1 {
        return Err(
            "Invalid quota entity combination, IP entity should not be combined".to_owned(),
        );
    }
    Ok(())
}

fn check_value(entity: &Entity, key: &str, value: f64) -> Result<(), String> {
    let is_whole = match entity.contains_key(IP) {
        true if key == IP_KEY => true,
        false if WHOLE_KEYS.contains(&key) => true,
        false if KEYS.contains(&key) => false,
        _ => return Err(format!("Invalid configuration key {key}")),
    };
    if value <= 0.0 {
        return Err(format!("Quota {key} must be greater than 0"));
    }
    if is_whole && (value % 1.0).abs() > 1e-6 {
        return Err(format!("{key} cannot be a fractional value."));
    }
    if key == IP_KEY && value > f64::from(i32::MAX) {
        return Err(format!("Proposed value for {key} is too large for an INT."));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entity(components: &[(&str, Option<&str>)]) -> Entity {
        let components = components.iter();
        components
            .map(|(kind, name)| ((*kind).to_owned(), name.map(str::to_owned)))
            .collect()
    }

    fn change(key: &str, value: Option<f64>) -> BTreeMap<String, Option<f64>> {
        BTreeMap::from([(key.to_owned(), value)])
    }

    #[test]
    fn quotas_are_set_and_taken_back() {
        let mut quotas = Quotas::new();
        let alice = entity(&[(USER, Some("alice"))]);
        let rate = |value| change("producer_byte_rate", value);
        assert_eq!(alter(&mut quotas, &alice, &rate(Some(5.0)), true), Ok(()));
        assert!(quotas.is_empty(), "only checked");
        assert_eq!(alter(&mut quotas, &alice, &rate(Some(5.0)), false), Ok(()));
        assert_eq!(quotas[&alice]["producer_byte_rate"], 5.0);
        assert_eq!(alter(&mut quotas, &alice, &rate(None), false), Ok(()));
        assert!(quotas.is_empty());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let user = entity(&[(USER, None)]);
        let ip = entity(&[(IP, Some("10.0.0.1"))]);
        let both = entity(&[(USER, None), (IP, None)]);
        let none = entity(&[]);
        let other = entity(&[("group", None)]);
        for (entity, key, value) in [
            (&user, "producer_byte_rate", 0.0),
            (&user, "producer_byte_rate", 1.5),
            (&user, "connection_creation_rate", 1.0),
            (&user, "unknown", 1.0),
            (&ip, "producer_byte_rate", 1.0),
            (&ip, "connection_creation_rate", 3e9),
            (&both, "connection_creation_rate", 1.0),
            (&none, "producer_byte_rate", 1.0),
            (&other, "producer_byte_rate", 1.0),
        ] {
            let mut quotas = Quotas::new();
            let altered = alter(&mut quotas, entity, &change(key, Some(value)), false);
            assert!(altered.is_err(), "{entity:?} {key} {value}");
            assert!(quotas.is_empty());
        }
        let percent = change("request_percentage", Some(0.5));
        assert_eq!(alter(&mut Quotas::new(), &user, &percent, false), Ok(()));
    }

    #[test]
    fn a_filter_that_is_strict_means_all_components() {
        let both = entity(&[(USER, Some("a")), (CLIENT_ID, None)]);
        let user = BTreeMap::from([(USER.to_owned(), Match::Any)]);
        assert!(matches(&both, &user, false));
        assert!(!matches(&both, &user, true));
        assert!(matches(&both, &BTreeMap::new(), false));
        let default = Match::Exact(None);
        let named = BTreeMap::from([(USER.to_owned(), default.clone())]);
        assert!(!matches(&both, &named, false));
        let client = BTreeMap::from([(CLIENT_ID.to_owned(), default)]);
        assert!(matches(&both, &client, false));
    }
}
