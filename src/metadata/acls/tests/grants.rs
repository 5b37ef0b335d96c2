//! Who may do what on the target, by a model of the brokers' authorizer.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::config::{Rename, Selector};
use crate::metadata::acls::binding::{operation, pattern, permission, resource};
use crate::metadata::acls::diff::Due;
use crate::metadata::acls::model::{NAMES, OWN, Request, acls, authorize, requests};
use crate::metadata::acls::release::{Release, due};
use crate::metadata::acls::translate::{Fate, Scope, Translated, translate};
use crate::state::AclState;
use crate::wire::AclBinding;

/// A flow to try, with the topics that the source has.
#[derive(Clone, Debug)]
struct Flow {
    selected: Selector,
    rename: Rename,
    /// Those of them that the flow takes.
    topics: BTreeSet<String>,
}

impl Flow {
    fn new(include: &str, exclude: &[&str], rename: &str, topics: &[&str]) -> Self {
        let selected = Selector::new(&[include], exclude).expect("patterns");
        let topics = topics.iter().filter(|topic| selected.matches(topic));
        Self {
            topics: topics.map(|&topic| topic.to_owned()).collect(),
            selected,
            rename: Rename::new(rename).expect("a template"),
        }
    }

    fn translate(&self, source: &[AclBinding]) -> Translated {
        let scope = Scope {
            selected: &self.selected,
            source_name: "src",
            rename: &self.rename,
            topics: &self.topics,
            own_principal: Some(OWN),
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
}

fn flows() -> impl Strategy<Value = Flow> {
    let topics = prop::sample::subsequence(NAMES.to_vec(), 0..=NAMES.len());
    let selected = prop::sample::select(vec![
        (".*", &[] as &[&str]),
        ("a.*", &[]),
        (".*", &["ab"]),
        (".*", &["a.*"]),
    ]);
    let rename = prop::sample::select(vec!["{topic}", "{source}.{topic}", "a{topic}", "{topic}.x"]);
    (selected, rename, topics).prop_map(|((include, exclude), rename, topics)| {
        Flow::new(include, exclude, rename, &topics)
    })
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

    #[test]
    fn nobody_gets_more_than_on_the_source(source in acls(), flow in flows()) {
        let translated = flow.translate(&source);
        let applied = applied(&translated);
        for request in flow.requests() {
            let on_target = authorize(applied.iter().copied(), &flow.target(&request));
            prop_assert!(!on_target || authorize(&source, &request), "{request:?} {translated:#?}");
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
            let is_copied = flow.topics.contains(&request.name);
            if request.resource_type == resource::TOPIC && !is_copied {
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
        "apply DENY READ User:y from * on topic *",
    ];
    assert_eq!(fates(&flow, &[wildcard, denial, other]), expected);
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
        "leave ALLOW operation 99 User:x from * on topic a",
    ];
    assert_eq!(fates(&flow, &[own, internal, cluster, unknown]), expected);
}
