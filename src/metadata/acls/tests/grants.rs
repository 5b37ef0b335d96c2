//! Who may do what on the target, by a model of the brokers' authorizer.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::config::{Rename, Selector, is_internal_topic};
use crate::metadata::acls::binding::{operation, pattern, permission, resource};
use crate::metadata::acls::diff::{Due, Others};
use crate::metadata::acls::keep_in::holds_rights;
use crate::metadata::acls::model::{
    INTERNAL, NAMES, OWN, Request, acls, authorize, requests, requests_of,
};
use crate::metadata::acls::named::EXPANDED_MAX;
use crate::metadata::acls::ours::{Ours, record};
use crate::metadata::acls::release::{Release, due};
use crate::metadata::acls::translate::{Fate, Scope, Translated, has_others, translate};
use crate::metadata::acls::trusted;
use crate::state::AclState;
use crate::wire::AclBinding;

/// A flow to try, with the topics that the source has.
#[derive(Clone, Debug)]
struct Flow {
    selected: Selector,
    rename: Rename,
    /// Those of them that the flow takes.
    topics: BTreeSet<String>,
    groups: Selector,
    /// Groups whose positions are kept.
    followed: BTreeSet<String>,
    /// Groups that have ACLs of ours.
    known: BTreeSet<String>,
    /// The target has topics that are left out.
    is_shared: bool,
    /// On the target what has no ACL is everybody's.
    is_open: bool,
    own_principal: Option<&'static str>,
}

/// Whom these, which no flow made, let change Twinlog's topics.
fn trusted_by(theirs: &[AclBinding]) -> BTreeSet<(String, i8)> {
    let theirs = theirs.iter().cloned().collect();
    trusted(&theirs, &Ours::new(), &Others::new())
}

impl Flow {
    fn new(include: &str, exclude: &[&str], rename: &str, topics: &[&str]) -> Self {
        let selected = Selector::new(&[include], exclude).expect("patterns");
        let topics = topics.iter().filter(|topic| selected.matches(topic));
        Self {
            topics: topics.map(|&topic| topic.to_owned()).collect(),
            selected,
            rename: Rename::new(rename).expect("a template"),
            groups: Selector::new(&[".*"], &["console-consumer-.*"]).expect("patterns"),
            followed: BTreeSet::new(),
            known: BTreeSet::new(),
            is_shared: false,
            is_open: false,
            own_principal: Some(OWN),
        }
    }

    fn with_groups(self, include: &str, followed: &[&str]) -> Self {
        let groups = Selector::new(&[include], &["console-consumer-.*"]).expect("patterns");
        let followed = followed.iter().filter(|group| groups.matches(group));
        Self {
            followed: followed.map(|&group| group.to_owned()).collect(),
            groups,
            ..self
        }
    }

    fn translate(&self, source: &[AclBinding]) -> Translated {
        self.translate_beside(source, &[])
    }

    /// Where the target has ACLs of its own.
    fn translate_beside(&self, source: &[AclBinding], theirs: &[AclBinding]) -> Translated {
        let scope = Scope {
            selected: &self.selected,
            source_name: "src",
            rename: &self.rename,
            topics: &self.topics,
            groups: &self.groups,
            followed: &self.followed,
            known: &self.known,
            trusted: &trusted_by(theirs),
            is_shared: self.is_shared,
            is_open: self.is_open,
            own_principal: self.own_principal,
        };
        translate(source, &scope)
    }

    fn target(&self, request: &Request) -> Request {
        let name = match request.resource_type {
            resource::TOPIC => self.rename.apply("src", &request.name),
            _ => request.name.clone(),
        };
        Request {
            name,
            ..request.clone()
        }
    }

    /// Every request about what the flow copies, as it is on the source.
    fn requests(&self) -> Vec<Request> {
        let topics = NAMES.iter().filter(|name| self.selected.matches(name));
        let topics = topics.flat_map(|name| requests(resource::TOPIC, name));
        let others = NAMES.iter().flat_map(|name| {
            let groups = requests(resource::GROUP, name).into_iter();
            groups.chain(requests(resource::TRANSACTIONAL_ID, name))
        });
        topics.chain(others).collect()
    }

    /// Whether the standby has topics and groups that this flow has nothing to do with.
    fn is_shared(&self) -> bool {
        !self.rename.is_identity() || !self.selected.include().iter().any(|it| it == ".*")
    }

    /// Whether something on the target is the flow's.
    fn is_ours(&self, source: &[AclBinding], resource_type: i8, name: &str) -> bool {
        let is_granted = |acl: &AclBinding| {
            let is_about = acl.resource_type == resource_type && acl.is_literal();
            let is_grant = acl.is_allow() && acl.principal != OWN;
            is_about && acl.name == name && (is_grant || resource_type == resource::GROUP)
        };
        let is_named = source.iter().any(is_granted);
        // All groups' selections of these tests are one beginning.
        let is_inside =
            self.groups.namespaces() == Some(vec!["a".to_owned()]) && name.starts_with('a');
        match resource_type {
            resource::TOPIC => {
                let topic = self.rename.unapply("src", name);
                !is_internal_topic(name) && topic.is_some_and(|topic| self.selected.matches(&topic))
            }
            resource::GROUP => {
                is_inside || self.groups.matches(name) && (is_named || self.followed.contains(name))
            }
            _ => is_inside || is_named,
        }
    }

    /// The request on the source that is the same; `None` if the source has no say in it.
    fn on_source(&self, source: &[AclBinding], request: &Request) -> Option<Request> {
        if self.is_shared() && !self.is_ours(source, request.resource_type, &request.name) {
            return None;
        }
        let name = match request.resource_type {
            resource::TOPIC if !is_internal_topic(&request.name) => {
                self.rename.unapply("src", &request.name)?.into_owned()
            }
            _ => request.name.clone(),
        };
        Some(Request {
            name,
            ..request.clone()
        })
    }
}

/// Every request on the target: about copies, about what is internal there, about its own.
fn requests_on_target(flow: &Flow) -> Vec<Request> {
    let copies = NAMES.iter().map(|name| flow.rename.apply("src", name));
    let others = INTERNAL
        .iter()
        .chain(&NAMES)
        .chain(&["own", "a.x", "_own", "src.own"]);
    let names: BTreeSet<String> = copies.chain(others.map(|&name| name.to_owned())).collect();
    // The prefix alone is no copy's name, but a pattern can't leave it out.
    let prefix = &flow.rename.as_prefix("src").unwrap_or_default();
    let of = |resource_type: i8| {
        let is_prefix_alone = resource_type == resource::TOPIC && !prefix.is_empty();
        let names = names.iter();
        let names = names.filter(move |name| !(is_prefix_alone && *name == prefix));
        names.flat_map(move |name| requests(resource_type, name))
    };
    let all = of(resource::TOPIC).chain(of(resource::GROUP));
    all.chain(of(resource::TRANSACTIONAL_ID)).collect()
}

fn flows() -> impl Strategy<Value = Flow> {
    let topics = prop::sample::subsequence(NAMES.to_vec(), 0..=NAMES.len());
    let followed = prop::sample::subsequence(NAMES.to_vec(), 0..=NAMES.len());
    let selected = prop::sample::select(vec![
        (".*", &[] as &[&str]),
        ("a.*", &[]),
        (".*", &["ab"]),
        (".*", &["a.*"]),
        ("[ab].*", &[]),
    ]);
    let groups = prop::sample::select(vec![".*", "a.*", "ab", "[bc]"]);
    let rename = prop::sample::select(vec![
        "{topic}",
        "{topic}",
        "{source}.{topic}",
        "a{topic}",
        "_{topic}",
        "{topic}.x",
    ]);
    (selected, rename, topics, groups, followed).prop_map(
        |((include, exclude), rename, topics, groups, followed)| {
            Flow::new(include, exclude, rename, &topics).with_groups(groups, &followed)
        },
    )
}

const CHANGES: [i8; 5] = [
    operation::WRITE,
    operation::CREATE,
    operation::DELETE,
    operation::ALTER,
    operation::ALTER_CONFIGS,
];

fn applied(translated: &Translated) -> Vec<&AclBinding> {
    let wanted = translated.wanted.iter();
    wanted
        .filter(|(_, wanted)| wanted.fate == Fate::Apply)
        .map(|(acl, _)| acl)
        .collect()
}

fn present(due: &BTreeMap<AclBinding, Due>) -> Vec<&AclBinding> {
    let present = due.iter().filter(|(_, due)| due.state != AclState::Held);
    present.map(|(acl, _)| acl).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Whatever it is about: copies, what is internal there, what is the standby's own; before the
    /// failover and after it.
    #[test]
    fn nobody_gets_more_than_on_the_source(source in acls(), theirs in acls(), flow in flows()) {
        let translated = flow.translate_beside(&source, &theirs);
        let trusted = trusted_by(&theirs);
        let is_trusted = |principal: &str, operation: i8| {
            let mut trusted = trusted.iter();
            trusted.any(|(it, lets)| *lets == operation && (it == principal || it == "User:*"))
        };
        let released = due(&translated.wanted, &Release::Everything);
        for acls in [applied(&translated), present(&released)] {
            for request in requests_on_target(&flow) {
                if !authorize(acls.iter().copied(), &request) {
                    continue;
                }
                let on_source = flow.on_source(&source, &request);
                let is_there = on_source.is_some_and(|it| authorize(&source, &it));
                prop_assert!(is_there, "{request:?} {acls:#?}");
                let is_state = request.resource_type == resource::TOPIC && request.name.starts_with("__twinlog");
                let is_change = is_state && CHANGES.contains(&request.operation);
                prop_assert!(!is_change || is_trusted(request.principal, request.operation), "{request:?} {acls:#?}");
            }
        }
    }

    /// Whoever works on the standby by rights that were given there goes on, on what isn't the flow's;
    /// and so does Twinlog, everywhere, until the failover.
    #[test]
    fn nobody_loses_what_is_the_standbys_own(source in acls(), theirs in acls(), flow in flows()) {
        let translated = flow.translate_beside(&source, &theirs);
        let released = due(&translated.wanted, &Release::Everything);
        for acls in [applied(&translated), present(&released)] {
            for request in requests_on_target(&flow) {
                if !flow.is_shared() || flow.is_ours(&source, request.resource_type, &request.name) {
                    continue;
                }
                // What begins as the rename says is the source's, whichever flow copies it.
                let prefix = flow.rename.as_prefix("src").unwrap_or_default();
                let is_topic = request.resource_type == resource::TOPIC;
                if is_topic && !prefix.is_empty() && request.name.starts_with(&prefix) {
                    continue;
                }
                let both = theirs.iter().chain(acls.iter().copied());
                let is_kept = !authorize(&theirs, &request) || authorize(both, &request);
                prop_assert!(is_kept, "{request:?} {acls:#?}");
            }
        }
        let applied = applied(&translated);
        for name in INTERNAL.iter().chain(&NAMES) {
            let topics = requests_of(OWN, resource::TOPIC, name).into_iter();
            for request in topics.chain(requests_of(OWN, resource::GROUP, name)) {
                let is_needed = match request.resource_type {
                    resource::TOPIC if *name == "__transaction_state" => false,
                    resource::TOPIC if *name == "__consumer_offsets" => {
                        [operation::READ, operation::DESCRIBE].contains(&request.operation)
                    }
                    resource::TOPIC => true,
                    _ => [operation::READ, operation::DESCRIBE].contains(&request.operation),
                };
                let both = theirs.iter().chain(applied.iter().copied());
                let is_kept = !is_needed || !authorize(&theirs, &request) || authorize(both, &request);
                prop_assert!(is_kept, "{request:?} {applied:#?}");
            }
        }
    }

    /// Where what has no ACL is everybody's, Twinlog is never shut out by the ACLs that it copies.
    #[test]
    fn on_an_open_target_twinlog_keeps_its_rights(source in acls(), flow in flows()) {
        let flow = Flow { is_open: true, ..flow };
        let translated = flow.translate(&source);
        let applied = applied(&translated);
        for request in requests_on_target(&flow) {
            if request.resource_type == resource::TRANSACTIONAL_ID {
                continue;
            }
            let is_closed = |acl: &&&AclBinding| {
                acl.resource_type == request.resource_type && acl.covers(&request.name)
            };
            let own = Request { principal: OWN, ..request.clone() };
            let is_needed = !INTERNAL[..2].contains(&&*own.name)
                && (own.resource_type == resource::TOPIC || own.operation == operation::READ);
            if is_needed && applied.iter().any(|acl| is_closed(&acl)) {
                prop_assert!(authorize(applied.iter().copied(), &own), "{own:?} {applied:#?}");
            }
        }
    }

    #[test]
    fn nobody_can_change_a_copy(source in acls(), flow in flows()) {
        let translated = flow.translate(&source);
        let applied = applied(&translated);
        for request in flow.requests() {
            if request.resource_type == resource::TOPIC && CHANGES.contains(&request.operation) {
                let on_target = authorize(applied.iter().copied(), &flow.target(&request));
                prop_assert!(!on_target, "{request:?}");
            }
        }
    }

    #[test]
    fn nothing_is_granted_on_the_standbys_own_topics(source in acls(), flow in flows()) {
        let translated = flow.translate(&source);
        let all: Vec<_> = translated.wanted.keys().collect();
        for name in NAMES.iter().chain(&["own", "src", "a.x"]) {
            // A name that no source topic has on the target, whatever topics come.
            let of = flow.rename.unapply("src", name);
            // The prefix alone is no topic's name, but a pattern can't leave it out.
            let is_prefix_alone = flow.rename.as_prefix("src").as_deref() == Some(*name);
            if is_prefix_alone
                || of.is_some_and(|topic| flow.selected.matches(&topic)) {
                continue;
            }
            for request in requests(resource::TOPIC, name) {
                prop_assert!(!authorize(all.iter().copied(), &request), "{request:?} {all:#?}");
            }
        }
    }

    #[test]
    fn after_the_failover_all_is_as_it_was_on_the_source(source in acls(), flow in flows()) {
        let translated = flow.translate(&source);
        let due = due(&translated.wanted, &Release::Everything);
        let present = present(&due);
        for request in flow.requests() {
            let is_copied = match request.resource_type {
                resource::TOPIC => flow.topics.contains(&request.name),
                other => !flow.is_shared() || flow.is_ours(&source, other, &request.name),
            };
            if !is_copied {
                continue;
            }
            let on_target = authorize(present.iter().copied(), &flow.target(&request));
            prop_assert_eq!(on_target, authorize(&source, &request), "{:?} {:#?}", request, present);
        }
    }

    #[test]
    fn one_topic_s_release_is_about_that_topic(source in acls(), flow in flows()) {
        let translated = flow.translate(&source);
        let Some(released) = flow.topics.first() else {
            return Ok(());
        };
        let target_name = flow.rename.apply("src", released);
        let release = Release::Topics([target_name.clone()].into());
        let due = due(&translated.wanted, &release);
        let present = present(&due);
        for request in flow.requests().into_iter().filter(|r| r.resource_type == resource::TOPIC) {
            let (target, on_source) = (flow.target(&request), authorize(&source, &request));
            let on_target = authorize(present.iter().copied(), &target);
            if target.name == target_name {
                prop_assert_eq!(on_target, on_source, "{:?} {:#?}", request, present);
            } else {
                let is_change = CHANGES.contains(&request.operation);
                prop_assert!(!on_target || (on_source && !is_change), "{request:?} {present:#?}");
            }
        }
    }
}

fn acl(allow: bool, operation: i8, principal: &str, pattern_type: i8, name: &str) -> AclBinding {
    AclBinding {
        resource_type: resource::TOPIC,
        pattern_type,
        name: name.to_owned(),
        principal: principal.to_owned(),
        host: "*".to_owned(),
        operation,
        permission: if allow {
            permission::ALLOW
        } else {
            permission::DENY
        },
    }
}

/// What becomes of the ACLs, in words: `apply ALLOW READ ...` or `hold ...`, and `leave ...`.
fn fates(flow: &Flow, source: &[AclBinding]) -> Vec<String> {
    let translated = flow.translate(source);
    let wanted = translated.wanted.iter().map(|(acl, wanted)| {
        let fate = match wanted.fate {
            Fate::Apply => "apply",
            Fate::Hold(_) => "hold",
        };
        format!("{fate} {acl}")
    });
    let left = translated.left.keys().map(|acl| format!("leave {acl}"));
    let mut fates: Vec<String> = wanted.chain(left).collect();
    fates.sort_unstable();
    fates
}

#[test]
fn a_grant_of_everything_is_read_now_and_the_rest_later() {
    let flow = Flow::new(".*", &[], "{topic}", &[]);
    let all = acl(true, operation::ALL, "User:x", pattern::LITERAL, "a");
    let expected = [
        "apply ALLOW DESCRIBE_CONFIGS User:x from * on topic a",
        "apply ALLOW READ User:x from * on topic a",
        "hold ALLOW ALL User:x from * on topic a",
    ];
    assert_eq!(fates(&flow, &[all]), expected);
}

#[test]
fn patterns_are_renamed_where_that_says_the_same() {
    let flow = Flow::new(".*", &[], "{source}.{topic}", &["a"]);
    let wildcard = acl(true, operation::READ, "User:x", pattern::LITERAL, "*");
    let prefix = acl(false, operation::READ, "User:y", pattern::PREFIXED, "a");
    let expected = [
        "apply ALLOW READ User:x from * on topic prefix src.",
        "apply DENY READ User:y from * on topic prefix src.a",
    ];
    assert_eq!(fates(&flow, &[wildcard, prefix]), expected);
}

#[test]
fn in_a_narrower_flow_a_pattern_grants_on_copied_topics_only() {
    let flow = Flow::new("a.*", &[], "{topic}", &["a", "ab", "b"]);
    let wildcard = acl(true, operation::READ, "User:x", pattern::LITERAL, "*");
    let denial = acl(false, operation::READ, "User:y", pattern::LITERAL, "*");
    let other = acl(true, operation::READ, "User:x", pattern::LITERAL, "b");
    let expected = [
        "apply ALLOW READ User:x from * on topic a",
        "apply ALLOW READ User:x from * on topic ab",
        "apply DENY READ User:y from * on topic prefix a",
    ];
    assert_eq!(fates(&flow, &[wildcard, denial, other]), expected);
}

#[test]
fn in_a_narrower_flow_a_pattern_denies_on_copied_topics_only() {
    let flow = Flow::new(".*", &["c"], "{topic}", &["a", "c"]);
    let denial = acl(false, operation::WRITE, "User:etl", pattern::LITERAL, "*");
    let later = acl(true, operation::READ, "User:x", pattern::LITERAL, "b");
    let expected = [
        "apply ALLOW READ User:x from * on topic b",
        "apply DENY WRITE User:etl from * on topic a",
        "apply DENY WRITE User:etl from * on topic b",
    ];
    assert_eq!(fates(&flow, &[denial, later]), expected);
}

#[test]
fn a_denial_on_an_internal_topic_goes_with_the_grant_that_it_limits() {
    let flow = Flow::new(".*", &[], "{topic}", &[]);
    let grant = acl(true, operation::READ, "User:bi", pattern::LITERAL, "*");
    let denial = |name| acl(false, operation::READ, "User:bi", pattern::LITERAL, name);
    let source = [
        grant,
        denial("__consumer_offsets"),
        denial("__share_group_state"),
    ];
    let expected = [
        "apply ALLOW READ User:bi from * on topic *",
        "apply DENY READ User:bi from * on topic __consumer_offsets",
        "apply DENY READ User:bi from * on topic __share_group_state",
    ];
    assert_eq!(fates(&flow, &source), expected);
    // A pattern that is renamed can't reach them.
    let hub = Flow::new(".*", &[], "{source}.{topic}", &[]);
    let expected = ["apply ALLOW READ User:bi from * on topic prefix src."];
    assert_eq!(fates(&hub, &source), expected);
}

#[test]
fn a_grant_on_all_topics_is_none_on_twinlogs_own() {
    let flow = Flow::new(".*", &[], "{topic}", &["a"]);
    let grant = |principal| acl(true, operation::WRITE, principal, pattern::LITERAL, "*");
    let expected = [
        "hold ALLOW WRITE User:app from * on topic *",
        "hold DENY WRITE User:app from * on topic prefix __twinlog",
    ];
    assert_eq!(fates(&flow, &[grant("User:app")]), expected);
    // A denial for everybody would be one for Twinlog.
    let expected = [
        "hold ALLOW WRITE User:* from * on topic a",
        "leave ALLOW WRITE User:* from * on topic *",
    ];
    assert_eq!(fates(&flow, &[grant("User:*")]), expected);
    let own_topics = acl(
        true,
        operation::ALL,
        "User:app",
        pattern::PREFIXED,
        "__twinlog_state",
    );
    let expected = ["leave ALLOW ALL User:app from * on topic prefix __twinlog_state"];
    assert_eq!(fates(&flow, &[own_topics]), expected);
    // Another Twinlog, which the target's own people let in.
    let other = acl(
        true,
        operation::WRITE,
        "User:app",
        pattern::LITERAL,
        "__twinlog_state",
    );
    let translated = flow.translate_beside(&[grant("User:app")], &[other]);
    assert_eq!(translated.wanted.len(), 1);
}

/// Another Twinlog may have its rights by a grant on all topics.
#[test]
fn whom_the_standbys_own_people_let_change_twinlogs_topics_is_denied_nothing_there() {
    let flow = Flow::new(".*", &[], "{topic}", &["a"]);
    let all = |operation, principal| acl(true, operation, principal, pattern::LITERAL, "*");
    let denied = |theirs: &[AclBinding]| -> Vec<i8> {
        let source = [all(operation::ALL, "User:app")];
        let translated = flow.translate_beside(&source, theirs);
        let denials = translated.wanted.keys().filter(|acl| acl.is_deny());
        denials.map(|acl| acl.operation).collect()
    };
    assert_eq!(denied(&[]).len(), CHANGES.len());
    assert!(denied(&[all(operation::ALL, "User:app")]).is_empty());
    assert!(denied(&[all(operation::ALL, "User:*")]).is_empty());
    let prefix = acl(true, operation::ALL, "User:app", pattern::PREFIXED, "__");
    assert!(denied(&[prefix]).is_empty());
    // Who may create topics may not write to the state for that.
    let others = denied(&[all(operation::CREATE, "User:app")]);
    assert_eq!(others.len(), CHANGES.len() - 1);
    assert!(!others.contains(&operation::CREATE));
    // What a flow made is nobody's word.
    let made = all(operation::ALL, "User:app");
    let target = BTreeSet::from([made.clone()]);
    let is_ours = Ours::from([(
        made.clone(),
        record(&made, String::new(), AclState::Released),
    )]);
    assert!(trusted(&target, &is_ours, &Others::new()).is_empty());
    let is_held = Ours::from([(made.clone(), record(&made, String::new(), AclState::Held))]);
    assert_eq!(
        trusted(&target, &is_held, &Others::new()).len(),
        CHANGES.len()
    );
    let anothers = Others::from([(made, BTreeSet::from(["other".to_owned()]))]);
    assert!(trusted(&target, &Ours::new(), &anothers).is_empty());
}

#[test]
fn rights_on_the_state_alone_are_none_on_the_copies() {
    let write = |pattern_type, name| acl(true, operation::WRITE, OWN, pattern_type, name);
    let state = write(pattern::LITERAL, "__twinlog_state");
    let holds = |given: &[&AclBinding], ours: &Ours| {
        let target = given.iter().map(|acl| (*acl).clone()).collect();
        holds_rights(
            &target,
            ours,
            Some(OWN),
            &["shop.a".to_owned(), "b".to_owned()],
        )
    };
    let nothing = Ours::new();
    assert!(!holds(&[&state], &nothing));
    let some = write(pattern::PREFIXED, "shop.");
    assert!(!holds(&[&state, &some], &nothing));
    let one = write(pattern::LITERAL, "b");
    assert!(holds(&[&state, &some, &one], &nothing));
    let is_ours = Ours::from([(one.clone(), record(&one, String::new(), AclState::Applied))]);
    assert!(!holds(&[&state, &some, &one], &is_ours));
}

#[test]
fn one_group_too_many_takes_nothing_from_anybody() {
    let mut flow = Flow::new("shop.*", &[], "{topic}", &[]);
    let names = |range: std::ops::Range<usize>| -> BTreeSet<String> {
        range.map(|number| format!("g{number:05}")).collect()
    };
    let all = AclBinding {
        resource_type: resource::GROUP,
        ..acl(true, operation::READ, "User:x", pattern::LITERAL, "*")
    };
    let given = |flow: &Flow| {
        let translated = flow.translate(std::slice::from_ref(&all));
        let groups = translated.wanted.keys().map(|acl| acl.name.clone());
        (groups.collect::<BTreeSet<_>>(), translated.groups_left)
    };
    flow.followed = names(0..EXPANDED_MAX);
    assert_eq!(given(&flow), (names(0..EXPANDED_MAX), 0));
    // The new ones come first by name, and those with ACLs keep theirs.
    flow.followed = names(0..EXPANDED_MAX + 5);
    flow.known = names(5..EXPANDED_MAX + 5);
    assert_eq!(given(&flow), (flow.known.clone(), 5));
    flow.known = names(EXPANDED_MAX + 4..EXPANDED_MAX + 5);
    let (groups, left) = given(&flow);
    assert_eq!((groups.len(), left), (EXPANDED_MAX, 5));
    assert!(groups.is_superset(&flow.known));
    // Where no pattern is about groups, nothing is left out.
    let literal = AclBinding {
        name: "g00001".to_owned(),
        ..all.clone()
    };
    assert_eq!(flow.translate(&[literal]).groups_left, 0);
}

/// The first ACL would shut out whoever isn't named, and Twinlog's name isn't known.
#[test]
fn on_an_open_target_nothing_is_released_while_twinlogs_name_is_unknown() {
    let mut flow = Flow::new(".*", &[], "{topic}", &["a"]);
    (flow.is_open, flow.own_principal) = (true, None);
    let source = [
        acl(true, operation::READ, "User:x", pattern::LITERAL, "*"),
        acl(true, operation::WRITE, "User:x", pattern::LITERAL, "a"),
        acl(false, operation::READ, "User:y", pattern::PREFIXED, "a"),
    ];
    let wanted = flow.translate(&source).wanted;
    assert!(!wanted.is_empty());
    let one = Release::Topics(BTreeSet::from(["a".to_owned()]));
    for release in [Release::Everything, one] {
        assert_eq!(present(&due(&wanted, &release)), Vec::<&AclBinding>::new());
    }
    // With it all is.
    flow.own_principal = Some(OWN);
    let wanted = flow.translate(&source).wanted;
    assert!(present(&due(&wanted, &Release::Everything)).len() > source.len());
}

#[test]
fn where_the_standby_has_groups_of_its_own_a_pattern_is_for_the_flow_s() {
    let about = |allow, resource_type, principal, pattern_type, name| AclBinding {
        resource_type,
        ..acl(allow, operation::ALL, principal, pattern_type, name)
    };
    let source = [
        about(true, resource::GROUP, "User:x", pattern::LITERAL, "*"),
        about(false, resource::GROUP, "User:y", pattern::PREFIXED, "shop"),
        about(true, resource::GROUP, "User:z", pattern::LITERAL, "named"),
        about(
            true,
            resource::TRANSACTIONAL_ID,
            "User:x",
            pattern::LITERAL,
            "*",
        ),
        about(
            true,
            resource::TRANSACTIONAL_ID,
            "User:z",
            pattern::LITERAL,
            "pay",
        ),
        about(
            false,
            resource::TRANSACTIONAL_ID,
            "User:x",
            pattern::LITERAL,
            "own",
        ),
    ];
    for (include, exclude, rename) in [
        ("shop.*", &[][..], "{topic}"),
        (".*", &[], "{source}.{topic}"),
    ] {
        let flow = Flow::new(include, exclude, rename, &[]);
        let flow = flow.with_groups(".*", &["shop-a"]);
        let expected = [
            "apply ALLOW ALL User:x from * on group named",
            "apply ALLOW ALL User:x from * on group shop-a",
            "apply ALLOW ALL User:x from * on transactional id pay",
            "apply ALLOW ALL User:z from * on group named",
            "apply ALLOW ALL User:z from * on transactional id pay",
            "apply DENY ALL User:y from * on group shop-a",
            "leave ALLOW ALL User:x from * on group *",
            "leave ALLOW ALL User:x from * on transactional id *",
        ];
        assert_eq!(fates(&flow, &source), expected, "{include} {rename}");
    }
    // What the config names by its beginning is given whole, and future groups with it.
    let flow = Flow::new("shop.*", &[], "{topic}", &[]).with_groups("shop-.*", &["shop-a"]);
    let expected = [
        "apply ALLOW ALL User:x from * on group prefix shop-",
        "apply ALLOW ALL User:x from * on transactional id pay",
        "apply ALLOW ALL User:x from * on transactional id prefix shop-",
        "apply ALLOW ALL User:z from * on transactional id pay",
        "apply DENY ALL User:y from * on group prefix shop-",
        "leave ALLOW ALL User:x from * on group *",
        "leave ALLOW ALL User:x from * on transactional id *",
    ];
    assert_eq!(fates(&flow, &source), expected);
    // A twin has nothing of its own.
    let mut twin = Flow::new(".*", &["tmp"], "{topic}", &[]).with_groups(".*", &["shop-a"]);
    assert_eq!(fates(&twin, &source).len(), source.len());
    // Where the target has a topic that is left out, somebody else has it, and groups beside it.
    twin.is_shared = true;
    let narrowed = fates(&twin, &source);
    let left = "leave ALLOW ALL User:x from * on group *".to_owned();
    assert!(narrowed.contains(&left), "{narrowed:?}");
    let denied = "apply DENY ALL User:y from * on group *".to_owned();
    assert!(!narrowed.contains(&denied), "{narrowed:?}");
}

#[test]
fn a_topic_that_the_flow_leaves_out_is_somebody_else_s() {
    let twin = Flow::new(".*", &["own[.].*"], "{topic}", &[]);
    let has_others = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        has_others(&twin.selected, names.iter())
    };
    assert!(!has_others(&[
        "orders",
        "__twinlog_state",
        "__consumer_offsets"
    ]));
    assert!(has_others(&["orders", "own.orders"]));
}

#[test]
fn on_an_open_target_whatever_gets_an_acl_keeps_twinlog_in() {
    let mut flow = Flow::new(".*", &[], "{topic}", &["a"]);
    flow.is_open = true;
    let read = acl(true, operation::READ, "User:alice", pattern::LITERAL, "a");
    let expected = [
        "apply ALLOW ALL User:twinlog from * on topic a",
        "apply ALLOW READ User:alice from * on topic a",
    ];
    assert_eq!(fates(&flow, &[read]), expected);
}

#[test]
fn a_denial_that_can_t_be_a_pattern_is_said() {
    let flow = Flow::new(".*", &[], "{topic}.x", &["a"]);
    let denial = acl(false, operation::READ, "User:y", pattern::PREFIXED, "a");
    let expected = [
        "apply DENY READ User:y from * on topic a.x",
        "leave DENY READ User:y from * on topic prefix a",
    ];
    assert_eq!(fates(&flow, &[denial]), expected);
}

#[test]
fn where_names_begin_as_internal_ones_no_pattern_is_kept() {
    let flow = Flow::new(".*", &[], "_{topic}", &["b"]);
    let grant = acl(true, operation::READ, "User:y", pattern::PREFIXED, "a");
    let denial = acl(false, operation::READ, "User:y", pattern::LITERAL, "*");
    let expected = [
        "apply DENY READ User:y from * on topic _b",
        "leave DENY READ User:y from * on topic *",
    ];
    assert_eq!(fates(&flow, &[grant, denial]), expected);
}

#[test]
fn a_denial_is_also_about_topics_that_do_not_exist_yet() {
    let flow = Flow::new(".*", &[], "{topic}.x", &[]);
    let denial = acl(false, operation::READ, "User:y", pattern::PREFIXED, "fut");
    let grant = acl(true, operation::READ, "User:y", pattern::LITERAL, "future");
    let expected = [
        "apply ALLOW READ User:y from * on topic future.x",
        "apply DENY READ User:y from * on topic future.x",
        "leave DENY READ User:y from * on topic prefix fut",
    ];
    assert_eq!(fates(&flow, &[denial, grant]), expected);
}

#[test]
fn a_denial_for_everybody_waits_with_what_it_overrides() {
    let flow = Flow::new(".*", &[], "{topic}", &[]);
    let denial = acl(false, operation::READ, "User:*", pattern::PREFIXED, "a");
    let inside = acl(true, operation::READ, "User:x", pattern::LITERAL, "ab");
    let outside = acl(true, operation::READ, "User:x", pattern::LITERAL, "b");
    let own = acl(false, operation::WRITE, OWN, pattern::LITERAL, "b");
    // What READ includes is denied, too.
    let denied_describe = acl(false, operation::DESCRIBE, "User:*", pattern::LITERAL, "c");
    let read = acl(true, operation::READ, "User:x", pattern::LITERAL, "c");
    let expected = [
        "apply ALLOW READ User:x from * on topic b",
        "hold ALLOW READ User:x from * on topic ab",
        "hold ALLOW READ User:x from * on topic c",
        "hold DENY DESCRIBE User:* from * on topic c",
        "hold DENY READ User:* from * on topic prefix a",
        "hold DENY WRITE User:twinlog from * on topic b",
    ];
    let source = [denial, inside, outside, own, denied_describe, read];
    assert_eq!(fates(&flow, &source), expected);
}

#[test]
fn twinlogs_own_grants_and_what_is_the_clusters_own_stay() {
    let flow = Flow::new(".*", &[], "{topic}", &["a"]);
    let own = acl(true, operation::ALL, OWN, pattern::LITERAL, "*");
    let internal = acl(
        true,
        operation::READ,
        "User:x",
        pattern::LITERAL,
        "__consumer_offsets",
    );
    let cluster = AclBinding {
        resource_type: resource::CLUSTER,
        ..acl(
            true,
            operation::ALTER,
            "User:x",
            pattern::LITERAL,
            "kafka-cluster",
        )
    };
    let unknown = acl(true, 99, "User:x", pattern::LITERAL, "a");
    let expected = [
        "leave ALLOW ALTER User:x from * on cluster kafka-cluster",
        "leave ALLOW READ User:x from * on topic __consumer_offsets",
        "leave ALLOW operation 99 User:x from * on topic a",
    ];
    assert_eq!(fates(&flow, &[own, internal, cluster, unknown]), expected);
}
