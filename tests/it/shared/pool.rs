//! The pool itself: what a test left on its pair reaches no other test.

use std::thread;

use crate::support::admin::topic_names;
use crate::support::groups::{commit, committed};
use crate::support::pool::{Leased, authorized_pair, pair};
use crate::support::{KafkaVersion, Load, acls, add_acls, create_topic, quotas};

/// A test's part: it has the pair as long as its thread.
fn as_a_test<T: Send>(part: impl FnOnce(Leased, Leased) -> T + Send) -> thread::Result<T> {
    thread::scope(|scope| {
        let test = scope.spawn(|| {
            let (source, target) = authorized_pair(KafkaVersion::V4_3);
            part(source, target)
        });
        test.join()
    })
}

#[test]
fn what_a_test_left_is_gone() {
    let whom = quotas::entity(&[("user", Some("alice"))]);
    for round in 0..2 {
        let one = as_a_test(|source, _| {
            let source = source.bootstrap();
            assert_eq!(topic_names(&source), [""; 0], "round {round}");
            assert!(acls(&source).is_empty());
            assert!(quotas::list(&source).is_empty());
            create_topic(&source, "left", 1, &[]);
            assert_eq!(committed(&source, "left", "left", 1), [None]);
            Load::new("left", 10).produce(&source);
            commit(&source, "left", &[("left", 0, 7)]);
            add_acls(&source, &["ALLOW READ User:alice * topic left"]);
            quotas::set(&source, &whom, &[("producer_byte_rate", Some(1e9))]);
        });
        one.expect("a pair that is as good as new");
    }
}

#[test]
fn the_pair_of_a_failed_test_is_not_lent_again() {
    let (told, heard) = std::sync::mpsc::channel();
    let failed = as_a_test(|source, _| {
        told.send(source.bootstrap()).expect("we listen");
        panic!("this is meant to fail");
    });
    assert!(failed.is_err());
    let broken = heard.recv().expect("it had a pair");
    let next = as_a_test(|source, _| source.bootstrap());
    assert_ne!(next.expect("a pair"), broken);
}

#[test]
fn a_test_has_one_pair_of_a_kind() {
    let (one, _) = pair(KafkaVersion::V4_3);
    let (same, _) = pair(KafkaVersion::V4_3);
    assert_eq!(one.bootstrap(), same.bootstrap());
}
