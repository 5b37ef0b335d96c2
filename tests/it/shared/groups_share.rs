//! Share groups between real clusters, read by Kafka's own share consumer.

use std::time::Duration;

use crate::support::flow::flow_config;
use crate::support::groups::commit;
use crate::support::share::{
    ShareMember, begin_at_earliest, read_as_share, set_start_offset, start_offsets,
};
use crate::support::{KafkaVersion, Load, Twinlog, create_topic, delete_records, eventually, pair};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(60);
const RECORDS: i64 = 200;
/// Where the source's log begins.
const FIRST: i64 = 40;

/// A topic with one partition whose first records are gone, and a group of the same name.
struct Case {
    name: &'static str,
    source: String,
    target: String,
    twinlog: Twinlog,
    /// Source offset minus target offset.
    shift: i64,
}

impl Case {
    fn new(name: &'static str, offsets: &str) -> Self {
        let (source, target) = pair(KafkaVersion::V4_3);
        let (source, target) = (source.bootstrap(), target.bootstrap());
        create_topic(&source, name, 1, &[]);
        Load::new(name, RECORDS as u64).produce(&source);
        delete_records(&source, name, 0, FIRST);
        begin_at_earliest(&source, name);
        let lines = format!("groups: {{ include: [\"{name}\"] }}\noffsets: {offsets}");
        let config = flow_config(name, name, &source, &target, &lines);
        Self {
            name,
            source,
            target,
            twinlog: Twinlog::start(&config),
            shift: if offsets == "mapped" { FIRST } else { 0 },
        }
    }

    /// An operator sets the group's start offset on the source.
    fn move_on_source(&self, offset: i64) {
        set_start_offset(&self.source, self.name, self.name, 0, offset);
    }

    fn start_offset(&self, bootstrap: &str) -> Option<i64> {
        let found = start_offsets(bootstrap, self.name);
        found.get(&(self.name.to_owned(), 0)).copied()
    }

    /// Waits until the target has the place of this source offset.
    fn await_on_target(&self, source_offset: i64) {
        let wanted = Some(source_offset - self.shift);
        let what = format!("{} starts at {wanted:?} on the target", self.name);
        eventually(DEADLINE, &what, || match self.start_offset(&self.target) {
            found if found == wanted => Ok(()),
            found => Err((found, self.twinlog.groups())),
        });
    }

    /// Waits until the target has the place of the source's start offset, above `before`; returns
    /// that. Where exactly it is after a consumer has left is the broker's affair.
    fn await_moved(&self, before: i64) -> i64 {
        let what = format!("{} is past {before} on both clusters", self.name);
        let found = eventually(DEADLINE, &what, || {
            let source = self.start_offset(&self.source);
            let target = self.start_offset(&self.target);
            match source {
                Some(at) if at > before && target == Some(at - self.shift) => Ok(at),
                _ => Err((source, target, self.twinlog.groups())),
            }
        });
        self.await_followed(found);
        found
    }

    /// Waits until Twinlog has followed this start offset: it is on the target a moment before its answer.
    fn await_followed(&self, source_offset: i64) -> Value {
        let what = format!("{} is followed to {source_offset}", self.name);
        eventually(DEADLINE, &what, || {
            let found = self.await_seen(source_offset, "followed");
            if found["target_position"] == source_offset - self.shift {
                Ok(found)
            } else {
                Err(found)
            }
        })
    }

    /// Waits until Twinlog has seen this start offset on the source and stands so.
    fn await_seen(&self, source_offset: i64, state: &str) -> Value {
        let what = format!("{} is seen at {source_offset}, {state}", self.name);
        eventually(DEADLINE, &what, || {
            let found = self.twinlog.await_group(self.name, state, DEADLINE);
            if found["source_position"] == source_offset {
                Ok(found)
            } else {
                Err(found)
            }
        })
    }
}

/// A share group's life on both clusters: read, fail over, go on.
fn a_share_group_goes_on_where_its_start_offset_was(name: &'static str, offsets: &str) {
    let mut case = Case::new(name, offsets);
    for _ in 0..2 {
        read_as_share(&case.source, name, name, 10);
    }
    let from = case.await_moved(FIRST);
    let seen = case.await_followed(from);
    assert_eq!(seen["kind"], "share");
    assert_eq!(seen["reread_records"], 0);

    // What was set before a crash is known as ours after it.
    case.twinlog.kill9();
    for _ in 0..2 {
        read_as_share(&case.source, name, name, 10);
    }
    case.twinlog.launch();
    let from = case.await_moved(from);
    assert!(from <= FIRST + 40, "{from} is past what was read");

    // The failover: every record that the source's start offset doesn't count as done arrives.
    let rest = usize::try_from(RECORDS - from).expect("records are left");
    let read = read_as_share(&case.target, name, name, rest);
    let expected: Vec<(i64, String)> = (from..RECORDS)
        .map(|offset| (offset - case.shift, format!("{name}-{offset}")))
        .collect();
    assert_eq!(read, expected);
    case.twinlog.assert_quiet(&[]);
}

#[test]
fn a_share_group_goes_on_with_identical_offsets() {
    a_share_group_goes_on_where_its_start_offset_was("identical", "identical");
}

#[test]
fn a_share_group_goes_on_with_mapped_offsets() {
    a_share_group_goes_on_where_its_start_offset_was("mapped", "mapped");
}

#[test]
fn a_start_offset_that_somebody_else_moved_on_the_target_is_kept() {
    let name = "kept";
    let mut case = Case::new(name, "mapped");
    case.move_on_source(60);
    case.await_on_target(60);
    case.await_seen(60, "followed");

    set_start_offset(&case.target, name, name, 0, 90);
    case.move_on_source(70);
    case.await_seen(70, "diverged");
    case.twinlog.kill9();
    case.move_on_source(80);
    case.twinlog.launch();
    case.await_seen(80, "diverged");
    assert_eq!(case.start_offset(&case.target), Some(90));

    let shown = case.twinlog.command("groups", &["--explain", name]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("kafka-share-groups"), "{shown}");
    let shown = case.twinlog.command("groups", &[]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("kept (share)"), "{shown}");
    let shown = case.twinlog.command("groups", &["--remembered", "--json"]);
    let shown: Value = serde_json::from_slice(&shown.stdout).expect("it is JSON");
    let shown = &shown["groups"][0];
    assert_eq!(shown["kind"], "share");
    assert_eq!(shown["positions"][0]["target_offset"], 60 - FIRST);
    assert_eq!(shown["positions"][0]["on_target"], 90);

    // Where it would go anyway, it is followed again.
    set_start_offset(&case.target, name, name, 0, 80 - FIRST);
    case.await_seen(80, "followed");
    case.move_on_source(50);
    case.await_on_target(50);
    case.twinlog.assert_quiet(&[]);
}

#[test]
fn a_share_group_with_members_on_the_target_is_not_moved() {
    let name = "active";
    let case = Case::new(name, "identical");
    case.move_on_source(60);
    case.await_on_target(60);
    create_topic(&case.target, "active-idle", 1, &[]);
    let member = ShareMember::join(&case.target, name, "active-idle");
    case.move_on_source(70);
    case.await_seen(70, "active_on_target");
    assert_eq!(case.start_offset(&case.target), Some(60));
    member.leave();
    case.await_on_target(70);
    case.twinlog.assert_quiet(&[]);
}

#[test]
fn a_cluster_without_share_groups_is_no_trouble() {
    let name = "older";
    let (newer, _) = pair(KafkaVersion::V4_3);
    let (older, other) = pair(KafkaVersion::V3_9);
    create_topic(&newer.bootstrap(), name, 1, &[]);
    Load::new(name, 10).produce(&newer.bootstrap());
    set_start_offset(&newer.bootstrap(), name, name, 0, 5);
    let config = |source: String, target: String| {
        let lines = format!("groups: {{ include: [\"{name}\"] }}");
        flow_config(name, name, &source, &target, &lines)
    };
    let mut twinlog = Twinlog::start(&config(newer.bootstrap(), older.bootstrap()));
    twinlog.await_group(name, "not_supported", DEADLINE);
    twinlog.terminate();
    twinlog.assert_quiet(&[]);

    commit(&older.bootstrap(), name, &[(name, 0, 5)]);
    let mut twinlog = Twinlog::start(&config(older.bootstrap(), other.bootstrap()));
    let found = twinlog.await_group(name, "followed", DEADLINE);
    assert_eq!(found["kind"], "consumer");
    twinlog.terminate();
    twinlog.assert_quiet(&[]);
}
