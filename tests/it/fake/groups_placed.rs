//! Whose a position on the standby is, where little is remembered of it, and what is said of those that don't go on where
//! they should.

use super::groups_rules::{Case, DEADLINE, LOG, put_record, record_of};
use crate::support::failover::{
    answer, await_copying, await_failed_over, failback, failover, words,
};
use crate::support::fake::fake_authorized_pair;
use crate::support::flow::{block_on, opened_state, wire_cluster, with_state};
use crate::support::groups::{commit, committed, has_had_groups};
use crate::support::{Load, Twinlog, await_caught_up, create_topic, eventually, fake_pair};
use fake_kafka::acls::{Acl, Operation, ResourceType};
use fake_kafka::faults::{Action, Fault};
use fake_kafka::state::State;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::ApiKey;
use twinlog::state::{Claim, keys};
use twinlog::wire::TopicPartition;

const EVERYBODY: &str = "User:ANONYMOUS";

/// Denies something to everybody. Where a resource has no ACL, everybody may do everything.
fn deny(state: &mut State, operation: Operation, kind: ResourceType, name: &str) {
    state.acls.is_on = true;
    state.acls.allow_if_no_acl_found = true;
    let denied = Acl::allow(EVERYBODY, operation, kind, name).denied();
    state.acls.all.insert(denied);
}

/// Somebody put it there before Twinlog saw it first. Nothing was ever committed for it, so nothing there is ours.
#[test]
fn a_group_that_was_never_committed_for_is_kept_by_a_failover_behind_a_crash() {
    let mut case = Case::new("untouched", "", "");
    // All that is there is read before anything is committed; what comes while Twinlog runs may be seen later than the source's.
    assert!(case.twinlog.terminate().success());
    commit(&case.target, "untouched", &[("untouched", 0, 77)]);
    case.twinlog.launch();
    case.commit_on_source(30);
    case.await_seen(30, "diverged");
    let config = case.twinlog.config_file().to_owned();
    case.twinlog.kill9();
    case.is_kept_by_a_failover(&config, "untouched", 77);
}

/// Nothing could be committed for it before the source was lost.
#[test]
fn a_group_that_only_waited_for_the_copy_is_counted_when_the_source_is_lost() {
    let case = Case::new("waited", "", "");
    let (source, target) = fake_pair();
    target.fault(
        Fault::on(ApiKey::Produce).topic("waited"),
        Action::Refuse(ResponseError::NotEnoughReplicas),
    );
    Load::new("waited", 100).first(100).produce(&case.source);
    case.commit_on_source(150);
    case.await_seen(150, "not_yet_copied");
    let at = TopicPartition::new("waited", 0);
    case.await_remembered(|record| record.known_on_source().get(&at) == Some(&150));
    let config = case.twinlog.config_file().to_owned();
    source.control(|state| state.stop_broker(1));
    let unplanned = ["--unplanned", "--accept-loss", "any"];
    let said = words(&failover(&config, &unplanned));
    let unplaced = "1 position(s) aren't on the standby";
    assert!(said.contains(unplaced), "{said}");
    let done = failover(&config, &[&unplanned[..], &["--yes"]].concat());
    let said = words(&done);
    assert_eq!(done.status.code(), Some(0), "{said}");
    assert!(
        said.contains("1 position(s) by auto.offset.reset"),
        "{said}"
    );
    assert!(!said.contains("nothing has to be reset"), "{said}");
}

/// A commit that comes late on the standby is no reason to leave the group behind. One that comes when Twinlog has moved
/// the group on is meant.
#[test]
fn a_group_that_is_set_back_on_the_standby_behind_a_failback_is_left_there() {
    let (source, target) = fake_authorized_pair();
    let (old, new) = (source.bootstrap(), target.bootstrap());
    has_had_groups(&new);
    create_topic(&old, "orders", 1, &[]);
    Load::new("orders", 100).produce(&old);
    commit(&old, "g", &[("orders", 0, 50)]);
    let twinlog = Twinlog::between(&old, &new);
    await_caught_up(&twinlog, DEADLINE);
    let await_at = |wanted: i64| {
        eventually(DEADLINE, &format!("it is at {wanted}"), || match committed(
            &new, "g", "orders", 1,
        )[0]
        {
            Some(found) if found == wanted => Ok(()),
            found => Err(found),
        });
    };
    await_at(50);
    let config = twinlog.config_file().to_owned();
    answer(&failover(&config, &["--yes", "--json"]), 0);
    await_failed_over(&twinlog);
    Load::new("orders", 20).first(100).produce(&new);
    answer(&failback(&config, &["--yes", "--json"]), 0);
    await_copying(&twinlog);
    // Its consumer leaves the standby late.
    commit(&new, "g", &[("orders", 0, 110)]);
    await_at(50);
    Load::new("orders", 20).first(120).produce(&old);
    commit(&old, "g", &[("orders", 0, 135)]);
    twinlog.await_followed("g", 135, DEADLINE);
    await_at(135);
    commit(&new, "g", &[("orders", 0, 110)]);
    twinlog.await_group("g", "diverged", DEADLINE);
    commit(&old, "g", &[("orders", 0, 138)]);
    eventually(DEADLINE, "the next one is seen", || {
        let found = twinlog.await_group("g", "diverged", DEADLINE);
        match found["source_position"] == 138 {
            true => Ok(()),
            false => Err(found),
        }
    });
    assert_eq!(committed(&new, "g", "orders", 1), [Some(110)]);
}

/// Who can't be moved is named, and then it isn't said that all is where it should be. Who is moved at the second try is
/// no trouble.
#[test]
fn what_the_standby_refuses_for_good_is_told_and_what_it_takes_later_is_not() {
    for (name, times) in [("refused", u64::MAX), ("refused-once", 1)] {
        let mut case = Case::new(name, "", "");
        let (_source, target) = fake_pair();
        case.commit_on_source(30);
        case.await_on_target(30);
        let config = case.twinlog.config_file().to_owned();
        assert!(case.twinlog.terminate().success());
        case.commit_on_source(40);
        target.fault(
            Fault::on(ApiKey::OffsetCommit).group(name).times(times),
            Action::Refuse(ResponseError::GroupAuthorizationFailed),
        );
        let done = failover(&config, &["--fence", "manual", "--yes", "--json"]);
        let report = answer(&done, 0);
        let is_brought = times == 1;
        assert_eq!(case.on_target(), Some(if is_brought { 40 } else { 30 }));
        let failed = report["groups"]["failed"].as_array().expect("a list");
        assert_eq!(failed.is_empty(), is_brought, "{report:#}");
        let told = report["for_clients"].to_string();
        let claims_all = told.contains("nothing has to be reset");
        assert_eq!(claims_all, is_brought, "{report:#}");
    }
}

/// Behind the fence it would be too late.
#[test]
fn a_group_that_may_not_be_committed_for_is_named_before_a_failover() {
    let mut case = Case::new("unreadable", "", "");
    let (_source, target) = fake_pair();
    case.commit_on_source(30);
    case.await_on_target(30);
    let config = case.twinlog.config_file().to_owned();
    assert!(case.twinlog.terminate().success());
    let look = || words(&failover(&config, &["--fence", "manual"]));
    let named = "unreadable (no READ on it there)";
    let said = look();
    assert!(!said.contains(named), "{said}");
    target.control(|state| {
        let group = ResourceType::Group;
        deny(state, Operation::Read, group, "unreadable");
        let may = Acl::allow(EVERYBODY, Operation::Describe, group, "unreadable");
        state.acls.all.insert(may);
    });
    let said = look();
    assert!(said.contains(named), "{said}");
}

/// Brokers that have just started may not know of it, and say that there is no such topic.
#[test]
fn a_log_of_groups_that_does_not_show_at_a_start_is_not_taken_for_none() {
    let mut case = Case::new("unshown", "", "");
    let (_source, target) = fake_pair();
    case.commit_on_source(20);
    case.await_on_target(20);
    case.commit_of_a_client(77);
    case.commit_on_source(30);
    case.await_seen(30, "diverged");
    case.await_remembered(|record| !record.foreign.is_empty());
    assert!(case.twinlog.terminate().success());
    let unshown = target.fault(
        Fault::on_topic(ApiKey::Metadata, LOG),
        Action::Refuse(ResponseError::UnknownTopicOrPartition),
    );
    case.twinlog.launch();
    eventually(
        DEADLINE,
        "it is looked for more than once",
        || match target.fired(unshown) {
            few @ ..4 => Err(few),
            _ => Ok(()),
        },
    );
    case.commit_on_source(31);
    target.clear(unshown);
    case.await_seen(31, "diverged");
    assert_eq!(case.on_target(), Some(77));
}

/// Where no times are told, all that has no epoch could be of the process before: as long as nobody has looked.
#[test]
fn what_a_tool_commits_when_the_positions_before_are_known_is_left_to_it_where_groups_are_asked_for()
 {
    let mut case = Case::new("asked-for", "", "");
    let (source, target) = fake_pair();
    target.control(|state| deny(state, Operation::Read, ResourceType::Topic, LOG));
    case.commit_on_source(30);
    case.await_on_target(30);
    case.await_remembered(|record| record.on_target("asked-for", 0) == Some(30));
    let key = keys::group("asked-for", "asked-for");
    let before = record_of(&case, &key);
    case.commit_on_source(40);
    case.await_on_target(40);
    case.twinlog.kill9();
    // As if it had died before it was stored.
    put_record(&case, &key, &before);
    // And as if it had ended, so that nothing of it is on the way any more.
    let key = keys::claim("asked-for");
    let claim: Option<Claim> = with_state(&case.target, |store| store.get(&key).expect("readable"));
    let claim = Claim {
        released: true,
        remembers_groups: false,
        ..claim.expect("a claim")
    };
    let cluster = wire_cluster(&case.target);
    block_on(async {
        let store = opened_state(&cluster, "asked-for").await;
        store.put(&key, &claim).await.expect("it is written");
    });
    // Where the group is on the source can't be told meanwhile: nothing is decided.
    let refuse = Action::Refuse(ResponseError::NotLeaderOrFollower);
    let away = source.fault(Fault::on_topic(ApiKey::ListOffsets, LOG), refuse);
    case.twinlog.launch();
    case.await_remembered(|record| record.also.contains_key("asked-for"));
    // It is committed while nobody looks.
    let unlisted = target.fault(
        Fault::on(ApiKey::ListGroups),
        Action::Refuse(ResponseError::UnknownServerError),
    );
    let await_target = |wanted: &str| {
        eventually(DEADLINE, "the target's groups", || {
            let groups = case.twinlog.groups();
            match groups["target"]["state"] == wanted {
                true => Ok(()),
                false => Err(groups),
            }
        });
    };
    await_target("failing");
    commit(&case.target, "asked-for", &[("asked-for", 0, 77)]);
    target.clear(unlisted);
    await_target("following");
    source.clear(away);
    case.commit_on_source(50);
    case.await_seen(50, "diverged");
    assert_eq!(case.on_target(), Some(77));
}
