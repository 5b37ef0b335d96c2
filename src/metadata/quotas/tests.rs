//! The rules of quotas, on everything that a pair of clusters may have.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::decide::{Deed, Difference, Own, Seen, SourceIs, Why, decide, remember};
use super::memory::{Memory, same};
use crate::wire::{ClientQuotas, QuotaEntity};

const KEYS: [&str; 2] = ["producer_byte_rate", "request_percentage"];

fn own() -> Own {
    Own {
        user: Some("twinlog".to_owned()),
        client_id: "twinlog-client".to_owned(),
    }
}

/// Entities of every kind; the first four count for Twinlog.
fn entities() -> Vec<QuotaEntity> {
    fn of<const N: usize>(components: [(&str, Option<&str>); N]) -> QuotaEntity {
        QuotaEntity::new(components)
    }
    vec![
        of([("user", None)]),
        of([("client-id", Some("twinlog-client"))]),
        of([("user", Some("twinlog")), ("client-id", None)]),
        of([("user", None), ("client-id", None)]),
        of([("user", Some("alice"))]),
        of([("client-id", Some("app"))]),
        of([("user", Some("twinlog")), ("client-id", Some("app"))]),
        of([("user", Some("alice")), ("client-id", None)]),
        of([("ip", None)]),
        of([("team", Some("a"))]),
    ]
}

fn get(quotas: &ClientQuotas, entity: &QuotaEntity, key: &str) -> Option<f64> {
    quotas.get(entity)?.get(key).copied()
}

fn put(quotas: &mut ClientQuotas, entity: &QuotaEntity, key: &str, value: Option<f64>) {
    let of_entity = quotas.entry(entity.clone()).or_default();
    match value {
        Some(value) => of_entity.insert(key.to_owned(), value),
        None => of_entity.remove(key),
    };
    quotas.retain(|_, of_entity| !of_entity.is_empty());
}

fn is_same(one: Option<f64>, other: Option<f64>) -> bool {
    one.map(f64::to_bits) == other.map(f64::to_bits)
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// An operator changes the source: entity, key, value.
    Source(usize, usize, Option<f64>),
    /// An operator changes the target.
    Target(usize, usize, Option<f64>),
    /// Twinlog looks; of its changes only those arrive that the bits of the number say: it may
    /// crash in between, or be refused.
    Look(u64),
}

/// The source's values and those of the target's operators are different ones, so it is known
/// whose a value is.
fn step() -> impl Strategy<Value = Step> {
    let place = (0..10_usize, 0..2_usize);
    let source = prop_oneof![
        Just(None),
        Just(Some(0.5)),
        Just(Some(7.0)),
        Just(Some(f64::NAN))
    ];
    let target = prop_oneof![Just(None), Just(Some(101.0)), Just(Some(102.0))];
    prop_oneof![
        (place.clone(), source).prop_map(|((entity, key), v)| Step::Source(entity, key, v)),
        (place, target).prop_map(|((entity, key), v)| Step::Target(entity, key, v)),
        any::<u64>().prop_map(Step::Look),
        Just(Step::Look(u64::MAX)),
    ]
}

#[derive(Default)]
struct World {
    source: ClientQuotas,
    target: ClientQuotas,
    memory: Memory,
    others: Memory,
    /// What is on the target because we set it.
    set_by_us: BTreeMap<(QuotaEntity, String), f64>,
}

impl World {
    fn seen<'a>(&'a self, own: &'a Own, source_is: SourceIs) -> Seen<'a> {
        Seen {
            source: &self.source,
            target: &self.target,
            memory: &self.memory,
            others: &self.others,
            own,
            source_is,
        }
    }

    /// One look; returns what differed.
    fn look(&mut self, arrives: impl Fn(usize) -> bool) -> Vec<Difference> {
        let own = own();
        let seen = self.seen(&own, SourceIs::Known);
        let differences = decide(seen);
        self.memory = remember(seen, &differences);
        for (index, difference) in differences.iter().enumerate() {
            let (entity, key) = (&difference.entity, &difference.key);
            let place = (entity.clone(), key.clone());
            let value = match difference.deed {
                Deed::Set => difference.source,
                Deed::Remove => None,
                Deed::Hold | Deed::Leave(_) => continue,
            };
            if difference.deed == Deed::Remove {
                let ours = self.set_by_us.get(&place).copied();
                assert!(
                    is_same(ours, difference.target),
                    "{difference:?} isn't ours: {ours:?}"
                );
            }
            if !arrives(index) {
                continue;
            }
            put(&mut self.target, entity, key, value);
            match value {
                Some(value) => self.set_by_us.insert(place, value),
                None => self.set_by_us.remove(&place),
            };
        }
        differences
    }
}

fn is_change(difference: &Difference) -> bool {
    matches!(difference.deed, Deed::Set | Deed::Remove)
}

proptest! {
    #[test]
    fn the_target_becomes_like_the_source_and_keeps_its_own(steps in proptest::collection::vec(step(), 1..40)) {
        let entities = entities();
        let mut world = World::default();
        for step in steps {
            match step {
                Step::Source(entity, key, value) => {
                    put(&mut world.source, &entities[entity], KEYS[key], value);
                }
                Step::Target(entity, key, value) => {
                    let (entity, key) = (&entities[entity], KEYS[key]);
                    put(&mut world.target, entity, key, value);
                    world.set_by_us.remove(&(entity.clone(), key.to_owned()));
                }
                Step::Look(bits) => {
                    world.look(|index| bits >> (index % 64) & 1 == 1);
                }
            }
        }
        let before = world.target.clone();
        let ours = world.set_by_us.clone();
        world.look(|_| true);
        let again = world.look(|_| true);
        prop_assert!(!again.iter().any(is_change), "{again:?}");
        let memory = world.memory.clone();
        world.look(|_| true);
        prop_assert_eq!(&world.memory, &memory);

        for entity in &entities {
            for key in KEYS {
                let (source, target) = (get(&world.source, entity, key), get(&world.target, entity, key));
                let held = world.memory.held().find(|(e, k, _)| *e == entity && *k == key);
                let is_ours = ours.contains_key(&(entity.clone(), key.to_owned()));
                if entity.components.contains_key("ip") || entity.components.contains_key("team") {
                    prop_assert!(is_same(target, get(&before, entity, key)));
                } else if own().is_throttled_by(entity) {
                    prop_assert!(is_same(target, get(&before, entity, key)));
                    prop_assert!(is_same(source.filter(|_| !is_same(source, target)), held.map(|h| h.2)));
                } else if source.is_some() {
                    prop_assert!(is_same(source, target));
                    prop_assert!(held.is_none());
                } else if is_ours {
                    prop_assert!(target.is_none());
                } else {
                    prop_assert!(is_same(target, get(&before, entity, key)));
                }
            }
        }
    }

    /// What the failover sets can be taken back, whatever was there before.
    #[test]
    fn what_is_released_can_be_taken_back(
        held in proptest::collection::btree_map((0..4_usize, 0..2_usize), 1.0..9.0, 1..5),
        theirs in proptest::collection::btree_map((0..4_usize, 0..2_usize), 101.0..109.0, 0..5),
    ) {
        let entities = entities();
        let mut world = World::default();
        for ((entity, key), value) in &held {
            put(&mut world.source, &entities[*entity], KEYS[*key], Some(*value));
        }
        for ((entity, key), value) in &theirs {
            put(&mut world.target, &entities[*entity], KEYS[*key], Some(*value));
        }
        let before = world.target.clone();
        world.look(|_| true);
        prop_assert_eq!(&world.target, &before);
        let remembered = world.memory.clone();
        prop_assert_eq!(remembered.held().count(), held.len());

        for (entity, key, value) in remembered.held() {
            let target = get(&world.target, entity, key);
            world.memory.will_release(entity, key, target);
            put(&mut world.target, entity, key, Some(value));
        }
        prop_assert_eq!(world.memory.held().count(), 0);
        // Following leaves what the failover did.
        let differences = world.look(|_| true);
        prop_assert!(!differences.iter().any(is_change), "{differences:?}");

        let released = world.memory.clone();
        for (entity, key, made) in released.released() {
            put(&mut world.target, entity, key, made.before);
            world.memory.withdrawn(entity, key);
        }
        prop_assert_eq!(&world.target, &before);
        prop_assert_eq!(&world.memory, &remembered);
    }

    #[test]
    fn values_survive_as_text(bits in any::<u64>()) {
        let value = f64::from_bits(bits);
        let read: f64 = value.to_string().parse().expect("a number");
        // All NaNs are one for Kafka.
        prop_assert!(same(read, value) || (read.is_nan() && value.is_nan()));
    }
}

fn one(entity: &QuotaEntity, value: f64) -> ClientQuotas {
    let mut quotas = ClientQuotas::new();
    put(&mut quotas, entity, KEYS[0], Some(value));
    quotas
}

#[test]
fn what_was_the_same_before_we_came_is_never_removed() {
    let entity = &entities()[4];
    let mut world = World {
        source: one(entity, 7.0),
        target: one(entity, 7.0),
        ..World::default()
    };
    assert!(world.look(|_| true).is_empty());
    world.source.clear();
    let differences = world.look(|_| true);
    assert_eq!(differences[0].deed, Deed::Leave(Why::NotOurs));
    assert_eq!(world.target, one(entity, 7.0));
}

#[test]
fn two_flows_that_want_different_values_do_not_take_turns() {
    let entity = &entities()[4];
    let mut first = World {
        source: one(entity, 7.0),
        ..World::default()
    };
    first.look(|_| true);
    let mut second = World {
        source: one(entity, 9.0),
        target: first.target.clone(),
        others: first.memory.clone(),
        ..World::default()
    };
    let differences = second.look(|_| true);
    assert_eq!(differences[0].deed, Deed::Leave(Why::OtherFlow));
    assert_eq!(second.target, one(entity, 7.0));
    // What nobody of us has set is set.
    second.target = one(entity, 8.0);
    second.look(|_| true);
    assert_eq!(second.target, one(entity, 9.0));
}

/// Two clusters that follow each other: a change on one of them isn't undone by what the other one
/// has from it.
#[test]
fn what_the_opposite_flow_made_is_not_the_sources_own() {
    let entity = &entities()[4];
    let mut there = World {
        source: one(entity, 7.0),
        ..World::default()
    };
    there.look(|_| true);
    let mut back = World {
        source: there.target.clone(),
        target: one(entity, 9.0),
        ..World::default()
    };
    there.memory.take_from(&mut back.source);
    let differences = back.look(|_| true);
    assert_eq!(differences[0].deed, Deed::Leave(Why::NotOurs));
    assert_eq!(back.target, one(entity, 9.0));
    // What the other cluster's own people set follows.
    let mut own = one(entity, 5.0);
    there.memory.take_from(&mut own);
    assert_eq!(own, one(entity, 5.0));
}

#[test]
fn another_source_sets_nothing_and_holds_nothing() {
    let own = own();
    let (alice, default) = (&entities()[4], &entities()[0]);
    let mut world = World {
        source: one(alice, 7.0),
        ..World::default()
    };
    put(&mut world.source, default, KEYS[0], Some(9.0));
    let seen = world.seen(&own, SourceIs::Other);
    let differences = decide(seen);
    assert_eq!(differences.len(), 2);
    let is_left = |d: &Difference| d.deed == Deed::Leave(Why::OtherSource);
    assert!(differences.iter().all(is_left));
    assert_eq!(remember(seen, &differences), world.memory);
}

#[test]
fn another_source_removes_nothing_and_forgets_nothing() {
    let own = own();
    let (alice, default) = (&entities()[4], &entities()[0]);
    let mut world = World {
        source: one(alice, 7.0),
        ..World::default()
    };
    put(&mut world.source, default, KEYS[0], Some(9.0));
    world.look(|_| true);
    let memory = world.memory.clone();
    world.source.clear();
    let seen = world.seen(&own, SourceIs::Other);
    let differences = decide(seen);
    let deeds: Vec<_> = differences.iter().map(|d| d.deed).collect();
    assert_eq!(deeds, [Deed::Leave(Why::OtherSource)]);
    assert_eq!(remember(seen, &differences), memory);
    world.look(|_| true);
    assert!(world.target.is_empty());
}

#[test]
fn without_a_known_user_only_the_default_user_counts_as_twinlog() {
    let own = Own {
        user: None,
        ..own()
    };
    let counted: Vec<bool> = entities().iter().map(|e| own.is_throttled_by(e)).collect();
    let wanted = [
        true, true, false, true, false, false, false, false, true, false,
    ];
    assert_eq!(counted, wanted);
}

#[test]
fn what_was_set_under_another_name_is_taken_back_and_held() {
    let entity = &entities()[1];
    let mut world = World {
        source: one(entity, 7.0),
        ..World::default()
    };
    let stranger = Own {
        user: None,
        client_id: "another".to_owned(),
    };
    let seen = world.seen(&stranger, SourceIs::Known);
    let differences = decide(seen);
    world.memory = remember(seen, &differences);
    world.target = one(entity, 7.0);
    world
        .set_by_us
        .insert((entity.clone(), KEYS[0].to_owned()), 7.0);

    assert_eq!(world.look(|_| true)[0].deed, Deed::Remove);
    assert!(world.target.is_empty());
    assert_eq!(world.look(|_| true)[0].deed, Deed::Hold);
    assert_eq!(world.memory.held().count(), 1);
    assert!(
        world
            .memory
            .made(entity, KEYS[0])
            .is_some_and(|made| !made.released)
    );
}

#[test]
fn a_source_without_an_id_sets_and_takes_nothing_away() {
    let own = own();
    let alice = &entities()[4];
    let mut world = World {
        source: one(alice, 7.0),
        ..World::default()
    };
    let seen = world.seen(&own, SourceIs::Untold);
    let deeds: Vec<_> = decide(seen).iter().map(|it| it.deed).collect();
    assert_eq!(deeds, [Deed::Set]);
    world.look(|_| true);
    let memory = world.memory.clone();
    world.source.clear();
    let seen = world.seen(&own, SourceIs::Untold);
    let differences = decide(seen);
    let deeds: Vec<_> = differences.iter().map(|it| it.deed).collect();
    assert_eq!(deeds, [Deed::Leave(Why::UntoldSource)]);
    assert_eq!(remember(seen, &differences), memory);
}
