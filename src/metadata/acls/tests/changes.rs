//! Changes in an order that a crash or a refusal at any point doesn't spoil.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use crate::metadata::acls::apply::{Answers, Failure, Outcome, Standby, apply};
use crate::metadata::acls::binding::{WILDCARD, operation, pattern, permission, resource};
use crate::metadata::acls::diff::{Due, Note, Others, Sharing, diff};
use crate::metadata::acls::model::{NAMES, OWN, acls, authorize, requests};
use crate::metadata::acls::ours::Ours;
use crate::state::{AclState, StateError};
use crate::wire::{AclBinding, ErrorContext, ResponseError, WireError};

fn alone(others: &Others) -> Sharing<'_> {
    Sharing { flow: "dr", others }
}

/// A target in memory, where something goes wrong.
struct Fake {
    inner: Mutex<Inner>,
}

#[derive(Clone, Default)]
struct Inner {
    records: Ours,
    target: BTreeSet<AclBinding>,
    trouble: Trouble,
    /// What the target had at any time.
    history: Vec<BTreeSet<AclBinding>>,
}

#[derive(Clone, Debug, Default)]
struct Trouble {
    /// Calls that still work.
    calls_left: Option<u32>,
    /// Whether the first one that doesn't is done nevertheless.
    is_done_anyway: bool,
    /// ACLs that are refused, by a rest of their keys' lengths.
    refused: Option<usize>,
    refuses_denials: bool,
    /// What the controller makes isn't on any broker.
    is_blind: bool,
}

impl Inner {
    /// Whether a call is done, and whether it is answered.
    fn call(&mut self) -> (bool, bool) {
        match &mut self.trouble.calls_left {
            None => (true, true),
            Some(0) => (std::mem::take(&mut self.trouble.is_done_anyway), false),
            Some(left) => {
                *left -= 1;
                (true, true)
            }
        }
    }

    fn is_refused(&self, acl: &AclBinding) -> bool {
        if self.trouble.refuses_denials && acl.is_deny() {
            return true;
        }
        let refused = self.trouble.refused;
        refused.is_some_and(|rest| (acl.key().len() + usize::from(acl.is_deny())) % 3 == rest)
    }

    fn answers(
        &mut self,
        acls: &[AclBinding],
        mut change: impl FnMut(&mut Self, &AclBinding),
    ) -> Answers {
        let (is_done, is_answered) = self.call();
        let context = || Arc::new(ErrorContext::cluster("fake"));
        let mut answers = Vec::new();
        for acl in acls {
            if self.is_refused(acl) {
                let code = ResponseError::InvalidRequest;
                answers.push(Err(WireError::server(
                    ErrorContext::cluster("fake"),
                    code,
                    None,
                )));
            } else {
                if is_done {
                    change(self, acl);
                    let now = self.target.clone();
                    self.history.push(now);
                }
                answers.push(Ok(()));
            }
        }
        if is_answered {
            Ok(answers)
        } else {
            Err(WireError::Disconnected { context: context() })
        }
    }
}

impl Standby for Fake {
    async fn remember(&self, notes: &[Note]) -> Result<(), StateError> {
        let mut inner = self.inner.lock().expect("no panic");
        if notes.is_empty() {
            return Ok(());
        }
        let (is_done, is_answered) = inner.call();
        if is_done {
            for (acl, record) in notes {
                match record {
                    Some(record) => inner.records.insert(acl.clone(), record.clone()),
                    None => inner.records.remove(acl),
                };
            }
        }
        let context = Arc::new(ErrorContext::cluster("fake"));
        if is_answered {
            Ok(())
        } else {
            Err(StateError::Wire(WireError::Disconnected { context }))
        }
    }

    async fn create(&self, acls: &[AclBinding]) -> Answers {
        let mut inner = self.inner.lock().expect("no panic");
        for acl in acls {
            let record = inner.records.get(acl);
            let is_ours = record.is_some_and(|record| record.state != AclState::Held);
            assert!(is_ours, "{acl} is made before it is remembered");
        }
        inner.answers(acls, |inner, acl| {
            inner.target.insert(acl.clone());
        })
    }

    async fn delete(&self, acls: &[AclBinding]) -> Answers {
        let mut inner = self.inner.lock().expect("no panic");
        inner.answers(acls, |inner, acl| {
            inner.target.remove(acl);
        })
    }

    async fn unseen(&self, acls: &[AclBinding]) -> Result<BTreeSet<AclBinding>, WireError> {
        let mut inner = self.inner.lock().expect("no panic");
        let (_, is_answered) = inner.call();
        let context = Arc::new(ErrorContext::cluster("fake"));
        if !is_answered {
            return Err(WireError::Disconnected { context });
        }
        let is_unseen = |acl: &&AclBinding| inner.trouble.is_blind || !inner.target.contains(*acl);
        Ok(acls.iter().filter(is_unseen).cloned().collect())
    }
}

impl Fake {
    fn look(&self, due: &BTreeMap<AclBinding, Due>, trouble: Trouble) -> Outcome {
        self.look_as(None, due, trouble)
    }

    fn look_as(
        &self,
        own: Option<&str>,
        due: &BTreeMap<AclBinding, Due>,
        trouble: Trouble,
    ) -> Outcome {
        let (ours, target) = {
            let mut inner = self.inner.lock().expect("no panic");
            inner.trouble = trouble;
            inner.history = vec![inner.target.clone()];
            (inner.records.clone(), inner.target.clone())
        };
        let mut changes = diff(due, &target, &ours, alone(&Others::new()));
        changes.keep_in(own, &target);
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.expect("a runtime");
        runtime.block_on(apply(self, &changes, &BTreeSet::new()))
    }

    fn now(&self) -> Inner {
        self.inner.lock().expect("no panic").clone()
    }
}

fn dues() -> impl Strategy<Value = BTreeMap<AclBinding, Due>> {
    let state = prop::sample::select(vec![AclState::Applied, AclState::Held, AclState::Released]);
    let one = (acls(), proptest::collection::vec(state, 10));
    one.prop_map(|(acls, states)| {
        let due = |state| Due {
            state,
            source: "ALLOW".to_owned(),
            why: (state != AclState::Applied).then(|| "why".to_owned()),
            is_part: false,
        };
        acls.into_iter()
            .zip(states)
            .map(|(acl, state)| (acl, due(state)))
            .collect()
    })
}

fn troubles() -> impl Strategy<Value = Trouble> {
    let calls = proptest::option::of(0..6_u32);
    (calls, any::<bool>(), proptest::option::of(0..3_usize)).prop_map(
        |(calls_left, is_done_anyway, refused)| Trouble {
            calls_left,
            is_done_anyway,
            refused,
            refuses_denials: false,
            is_blind: false,
        },
    )
}

fn wanted_on_target(due: &BTreeMap<AclBinding, Due>) -> BTreeSet<AclBinding> {
    let present = due.iter().filter(|(_, due)| due.state != AclState::Held);
    present.map(|(acl, _)| acl.clone()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Source after source, trouble after trouble: in the end the target has what it had of its own
    /// people's and what is wanted, and when nothing is wanted, what it had.
    #[test]
    fn nothing_of_ours_is_orphaned_and_nothing_of_others_is_touched(
        theirs in acls(),
        rounds in proptest::collection::vec((dues(), troubles()), 1..5),
    ) {
        let theirs: BTreeSet<AclBinding> = theirs.into_iter().collect();
        let fake = Fake { inner: Mutex::new(Inner { target: theirs.clone(), ..Inner::default() }) };
        let mut last = BTreeMap::new();
        for (due, trouble) in rounds {
            fake.look(&due, trouble);
            last = due;
        }
        let outcome = fake.look(&last, Trouble::default());
        prop_assert!(outcome.failed.is_empty());
        let now = fake.now();
        let wanted = wanted_on_target(&last);
        prop_assert_eq!(&now.target, &theirs.union(&wanted).cloned().collect::<BTreeSet<_>>());
        let again = diff(&last, &now.target, &now.records, alone(&Others::new()));
        prop_assert!(again.is_empty(), "{again:#?}");

        fake.look(&BTreeMap::new(), Trouble::default());
        let now = fake.now();
        prop_assert_eq!(now.target, theirs);
        prop_assert!(now.records.is_empty());
    }

    /// At no moment somebody may do what nobody lets them, before or after.
    #[test]
    fn on_the_way_nobody_gets_more_than_before_or_after(
        theirs in acls(),
        old in dues(),
        new in dues(),
        trouble in troubles(),
    ) {
        let theirs: BTreeSet<AclBinding> = theirs.into_iter().collect();
        let fake = Fake { inner: Mutex::new(Inner { target: theirs.clone(), ..Inner::default() }) };
        fake.look(&old, Trouble::default());
        let before = fake.now().target;
        fake.look(&new, trouble);
        let wanted = wanted_on_target(&new);
        let after: BTreeSet<AclBinding> = theirs.union(&wanted).cloned().collect();
        for moment in fake.now().history {
            for name in NAMES {
                for request in requests(resource::TOPIC, name) {
                    let is_known = authorize(&before, &request) || authorize(&after, &request);
                    prop_assert!(!authorize(&moment, &request) || is_known, "{request:?}");
                }
            }
        }
    }
}

/// With each of them what keeps Twinlog in.
fn kept_in(due: BTreeMap<AclBinding, Due>) -> BTreeMap<AclBinding, Due> {
    let others = due.into_iter().filter(|(acl, _)| acl.principal != OWN);
    let others: BTreeMap<_, _> = others.collect();
    let keeping = others.keys().map(|acl| AclBinding {
        principal: OWN.to_owned(),
        host: "*".to_owned(),
        operation: operation::ALL,
        permission: permission::ALLOW,
        ..acl.clone()
    });
    let keeping: Vec<_> = keeping.map(|acl| (acl, applied())).collect();
    others.into_iter().chain(keeping).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Where the first ACL shuts out whom it isn't for, Twinlog isn't shut out at any moment.
    #[test]
    fn on_the_way_twinlog_is_never_shut_out(old in dues(), new in dues(), trouble in troubles()) {
        let fake = Fake { inner: Mutex::default() };
        let (old, new) = (kept_in(old), kept_in(new));
        fake.look_as(Some(OWN), &old, Trouble::default());
        let mut moments = fake.now().history;
        fake.look_as(Some(OWN), &new, trouble);
        moments.extend(fake.now().history);
        fake.look_as(Some(OWN), &BTreeMap::new(), Trouble::default());
        moments.extend(fake.now().history);
        prop_assert!(fake.now().target.is_empty());
        for moment in moments {
            for acl in &moment {
                let keeps = |it: &AclBinding| {
                    it.principal == OWN && it.is_allow() && (it.resource_type, it.pattern_type, &it.name) == (acl.resource_type, acl.pattern_type, &acl.name)
                };
                prop_assert!(moment.iter().any(keeps), "{acl} {moment:#?}");
            }
        }
    }
}

/// Nothing is held for a release that would shut Twinlog out, and nothing made, before what keeps it in is seen.
#[test]
fn before_what_keeps_twinlog_in_is_seen_nothing_is_made_or_held() {
    let mut keeping = acl(permission::ALLOW, OWN, pattern::LITERAL, "a");
    keeping.operation = operation::ALL;
    let bobs = acl(permission::ALLOW, "User:bob", pattern::LITERAL, "a");
    let writes = AclBinding {
        operation: operation::WRITE,
        ..bobs.clone()
    };
    let elsewhere = acl(permission::ALLOW, "User:bob", pattern::LITERAL, "b");
    let held = Due {
        state: AclState::Held,
        why: Some("why".to_owned()),
        ..applied()
    };
    let due = BTreeMap::from([
        (keeping.clone(), applied()),
        (bobs.clone(), applied()),
        (writes.clone(), held.clone()),
        (elsewhere.clone(), held),
    ]);
    let refused = Trouble {
        refused: Some(keeping.key().len() % 3),
        ..Trouble::default()
    };
    let lost = Trouble {
        calls_left: Some(1),
        ..Trouble::default()
    };
    let blind = Trouble {
        is_blind: true,
        ..Trouble::default()
    };
    for trouble in [refused, lost, blind] {
        let fake = Fake {
            inner: Mutex::default(),
        };
        let outcome = fake.look_as(Some(OWN), &due, trouble.clone());
        let now = fake.now();
        assert!(!now.target.contains(&bobs), "{trouble:?}");
        assert!(!now.records.contains_key(&writes), "{trouble:?}");
        assert!(outcome.failed.contains_key(&bobs), "{trouble:?}");
        fake.look_as(Some(OWN), &due, Trouble::default());
        let now = fake.now();
        assert_eq!(now.target, [keeping.clone(), bobs.clone()].into());
        assert!(now.records.contains_key(&writes) && now.records.contains_key(&elsewhere));
    }
}

fn acl(permission: i8, principal: &str, pattern_type: i8, name: &str) -> AclBinding {
    AclBinding {
        resource_type: resource::TOPIC,
        pattern_type,
        name: name.to_owned(),
        principal: principal.to_owned(),
        host: "*".to_owned(),
        operation: operation::READ,
        permission,
    }
}

fn applied() -> Due {
    Due {
        state: AclState::Applied,
        source: "ALLOW".to_owned(),
        why: None,
        is_part: false,
    }
}

#[test]
fn no_grant_comes_without_the_denial_that_limits_it() {
    let fake = Fake {
        inner: Mutex::default(),
    };
    let denial = acl(permission::DENY, "User:x", pattern::PREFIXED, "a");
    let limited = acl(permission::ALLOW, "User:*", pattern::LITERAL, "ab");
    let free = acl(permission::ALLOW, "User:*", pattern::LITERAL, "b");
    let all = [&denial, &limited, &free].map(|acl| (acl.clone(), applied()));
    let trouble = Trouble {
        refuses_denials: true,
        ..Trouble::default()
    };
    let outcome = fake.look(&all.clone().into(), trouble);
    assert_eq!(fake.now().target, [free.clone()].into());
    let reason = |acl| outcome.failed.get(acl).map(Failure::reason);
    assert_eq!(reason(&denial), Some("invalid_request"));
    assert_eq!(reason(&limited), Some("waits"));
    fake.look(&all.into(), Trouble::default());
    assert_eq!(fake.now().target.len(), 3);
}

#[test]
fn a_grant_that_is_refused_does_not_keep_an_old_denial() {
    let fake = Fake {
        inner: Mutex::default(),
    };
    let denial = acl(permission::DENY, "User:x", pattern::LITERAL, "b");
    let grant = acl(permission::ALLOW, "User:x", pattern::LITERAL, "a");
    let old = BTreeMap::from([(denial, applied())]);
    fake.look(&old, Trouble::default());
    let trouble = Trouble {
        refused: Some(grant.key().len() % 3),
        ..Trouble::default()
    };
    let outcome = fake.look(&BTreeMap::from([(grant, applied())]), trouble);
    assert_eq!(outcome.failed.len(), 1);
    assert!(fake.now().target.is_empty());
}

#[test]
fn what_is_refused_is_not_taken_for_ours() {
    let fake = Fake {
        inner: Mutex::default(),
    };
    let acl = acl(3, "User:x", 3, WILDCARD);
    let due = BTreeMap::from([(acl.clone(), applied())]);
    for refused in 0..3 {
        let refused = Some(refused);
        let trouble = Trouble {
            refused,
            ..Trouble::default()
        };
        let outcome = fake.look(&due, trouble);
        if !outcome.failed.is_empty() {
            assert!(fake.now().records.is_empty());
            // An operator makes it by hand; the source drops it.
            fake.inner
                .lock()
                .expect("no panic")
                .target
                .insert(acl.clone());
            fake.look(&due, Trouble::default());
            fake.look(&BTreeMap::new(), Trouble::default());
            assert!(fake.now().target.contains(&acl));
            return;
        }
        fake.look(&BTreeMap::new(), Trouble::default());
    }
    panic!("nothing was refused");
}

/// Two flows with records of their own on one target.
#[derive(Default)]
struct Shared {
    target: BTreeSet<AclBinding>,
    flows: BTreeMap<&'static str, Ours>,
}

impl Shared {
    fn others(&self, flow: &str) -> Others {
        let mut others = Others::new();
        for (other, records) in self.flows.iter().filter(|(other, _)| **other != flow) {
            let made = records.iter().filter(|(_, r)| r.state != AclState::Held);
            for (acl, _) in made {
                let flows = others.entry(acl.clone()).or_default();
                flows.insert((*other).to_owned());
            }
        }
        others
    }

    /// A look with what the flow saw of the others' records.
    fn look(&mut self, flow: &'static str, due: &BTreeMap<AclBinding, Due>, others: &Others) {
        let records = self.flows.entry(flow).or_default();
        let fake = Fake {
            inner: Mutex::new(Inner {
                records: records.clone(),
                target: self.target.clone(),
                ..Inner::default()
            }),
        };
        let changes = diff(due, &self.target, records, Sharing { flow, others });
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.expect("a runtime");
        let outcome = runtime.block_on(apply(&fake, &changes, &BTreeSet::new()));
        assert!(outcome.failed.is_empty());
        let now = fake.now();
        self.target = now.target;
        *records = now.records;
    }
}

#[test]
fn what_two_flows_want_goes_with_the_last_of_them() {
    let denial = acl(permission::DENY, "User:x", pattern::LITERAL, "g");
    let want = BTreeMap::from([(denial.clone(), applied())]);
    let nothing = BTreeMap::new();
    for order in [["a", "b"], ["b", "a"]] {
        for leaving in [["a", "b"], ["b", "a"]] {
            let mut shared = Shared::default();
            for flow in order {
                let others = shared.others(flow);
                shared.look(flow, &want, &others);
            }
            let [first, second] = leaving;
            let others = shared.others(first);
            shared.look(first, &nothing, &others);
            assert!(shared.target.contains(&denial), "{second} wants it yet");
            for _ in 0..2 {
                for flow in [second, first] {
                    let others = shared.others(flow);
                    shared.look(flow, &nothing, &others);
                }
            }
            assert!(shared.target.is_empty(), "{order:?} {leaving:?}");
            assert!(shared.flows.values().all(Ours::is_empty));
        }
    }
    // Both let go at once: what they saw of each other is from before.
    let mut shared = Shared::default();
    for flow in ["a", "b"] {
        let others = shared.others(flow);
        shared.look(flow, &want, &others);
    }
    let seen = ["a", "b"].map(|flow| (flow, shared.others(flow)));
    for (flow, others) in seen {
        shared.look(flow, &nothing, &others);
    }
    let others = shared.others("b");
    shared.look("b", &nothing, &others);
    assert!(shared.target.is_empty() && shared.flows.values().all(Ours::is_empty));
}

#[test]
fn what_we_made_goes_though_a_broker_that_lags_behind_does_not_show_it() {
    let grant = acl(permission::ALLOW, "User:x", pattern::LITERAL, "a");
    let held = Due {
        state: AclState::Held,
        why: Some("why".to_owned()),
        ..applied()
    };
    for due in [BTreeMap::new(), BTreeMap::from([(grant.clone(), held)])] {
        let fake = Fake {
            inner: Mutex::default(),
        };
        let want = BTreeMap::from([(grant.clone(), applied())]);
        fake.look(&want, Trouble::default());
        let ours = fake.now().records;
        let changes = diff(&due, &BTreeSet::new(), &ours, alone(&Others::new()));
        let deleted: Vec<_> = changes.delete.iter().map(|(acl, _)| acl).collect();
        assert_eq!(deleted, [&grant]);
    }
}

/// Whatever the reason why it isn't wanted any more.
#[test]
fn what_keeps_twinlog_in_stays_while_anybody_has_an_acl_there() {
    let mut keeping = acl(permission::ALLOW, OWN, pattern::LITERAL, "a");
    keeping.operation = operation::ALL;
    let bobs = acl(permission::ALLOW, "User:bob", pattern::LITERAL, "a");
    let alices = acl(permission::ALLOW, "User:alice", pattern::LITERAL, "a");
    let both = BTreeMap::from([(keeping.clone(), applied()), (bobs.clone(), applied())]);
    let only_bobs = BTreeMap::from([(bobs.clone(), applied())]);
    let start = |theirs: &[&AclBinding]| {
        let target = theirs.iter().map(|acl| (*acl).clone()).collect();
        let inner = Inner {
            target,
            ..Inner::default()
        };
        let fake = Fake {
            inner: Mutex::new(inner),
        };
        fake.look_as(Some(OWN), &both, Trouble::default());
        fake
    };
    let look = |fake: &Fake, due: &BTreeMap<AclBinding, Due>| {
        let outcome = fake.look_as(Some(OWN), due, Trouble::default());
        assert!(outcome.failed.is_empty());
        fake.now().target
    };
    // Ours.
    let fake = start(&[]);
    let all = BTreeSet::from([keeping.clone(), bobs.clone()]);
    assert_eq!(look(&fake, &only_bobs), all);
    assert_eq!(look(&fake, &BTreeMap::new()), BTreeSet::new());
    // Anybody's.
    let fake = start(&[&alices]);
    let all = BTreeSet::from([keeping.clone(), alices.clone()]);
    assert_eq!(look(&fake, &BTreeMap::new()), all);
    fake.inner.lock().expect("no panic").target.remove(&alices);
    assert_eq!(look(&fake, &BTreeMap::new()), BTreeSet::new());
    assert!(fake.now().records.is_empty());
    // What is about to be made.
    let fake = start(&[]);
    let new = BTreeMap::from([(alices.clone(), applied())]);
    assert_eq!(look(&fake, &new), BTreeSet::from([keeping, alices]));
}
