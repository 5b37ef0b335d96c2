//! What people change on the standby while it is the primary goes back with it, also what they took away.

use std::time::Duration;

use fake_kafka::faults::{Action, Fault};
use fake_kafka::kafka_protocol::error::ResponseError;
use fake_kafka::kafka_protocol::messages::ApiKey;

use crate::support::failover::{answer, await_copying, await_failed_over, failback, failover};
use crate::support::fake::fake_authorized_pair;
use crate::support::quotas::{self, entity};
use crate::support::{
    Load, Twinlog, acls, add_acls, await_caught_up, create_topic, eventually, remove_acls,
};

const DEADLINE: Duration = Duration::from_secs(60);
const STAYS: &str = "ALLOW READ User:alice * topic orders";
const GOES: &str = "ALLOW READ User:bob * topic orders";
const COMES: &str = "ALLOW READ User:carol * topic orders";
/// Only the old primary has it, and nobody took it away.
const THERE_ALONE: &str = "ALLOW ALTER User:alice * topic elsewhere";
const RATE: &str = "producer_byte_rate";

#[test]
fn acls_and_quotas_go_back_removals_too() {
    let (source, target) = fake_authorized_pair();
    let (old, new) = (source.bootstrap(), target.bootstrap());
    create_topic(&old, "orders", 1, &[]);
    Load::new("orders", 20).produce(&old);
    add_acls(&old, &[STAYS, GOES]);
    let user = |name| entity(&[("user", Some(name))]);
    quotas::set(&old, &user("alice"), &[(RATE, Some(1_000.0))]);
    quotas::set(&old, &user("bob"), &[(RATE, Some(2_000.0))]);
    let twinlog = Twinlog::start(&Twinlog::config(&old, &new, ""));
    await_caught_up(&twinlog, DEADLINE);
    eventually(DEADLINE, "ACLs and quotas have followed", || {
        let (acls, quotas) = (acls(&new), quotas::list(&new));
        match acls.contains(STAYS) && acls.contains(GOES) && quotas.len() == 2 {
            true => Ok(()),
            false => Err((acls, quotas.len())),
        }
    });
    add_acls(&old, &[THERE_ALONE]);
    let config = twinlog.config_file().to_owned();
    answer(&failover(&config, &["--yes", "--json"]), 0);
    await_failed_over(&twinlog);
    remove_acls(&new, &[GOES]);
    add_acls(&new, &[COMES]);
    quotas::set(&new, &user("alice"), &[(RATE, Some(1_500.0))]);
    quotas::set(&new, &user("bob"), &[(RATE, None)]);
    quotas::set(&new, &user("carol"), &[(RATE, Some(3_000.0))]);

    let report = answer(&failback(&config, &["--yes", "--json"]), 0);
    await_copying(&twinlog);
    let here = acls(&old);
    let expected = [STAYS, COMES, THERE_ALONE];
    assert!(expected.iter().all(|acl| here.contains(*acl)), "{here:?}");
    assert!(!here.contains(GOES), "{here:?}");
    assert!(!here.iter().any(|acl| acl.starts_with("DENY")), "{here:?}");
    let rates = quotas::list(&old);
    let rate = |name| {
        rates
            .get(&user(name))
            .and_then(|values| values.get(RATE))
            .copied()
    };
    let found = (rate("alice"), rate("bob"), rate("carol"));
    assert_eq!(found, (Some(1_500.0), None, Some(3_000.0)), "{rates:?}");
    let told = report["for_the_operator"].to_string();
    assert!(
        told.contains("ACL removed, as on the standby"),
        "{report:#}"
    );
    assert!(told.contains("quota carried over: user bob"), "{report:#}");
}

/// What couldn't be read at the failover isn't known to have changed, and that is said.
#[test]
fn what_could_not_be_read_is_told() {
    let (source, target) = fake_authorized_pair();
    let (old, new) = (source.bootstrap(), target.bootstrap());
    create_topic(&old, "orders", 1, &[]);
    Load::new("orders", 20).produce(&old);
    let twinlog = Twinlog::start(&Twinlog::config(&old, &new, ""));
    await_caught_up(&twinlog, DEADLINE);
    let config = twinlog.config_file().to_owned();
    let hidden = [
        (
            Fault::on(ApiKey::DescribeAcls),
            ResponseError::ClusterAuthorizationFailed,
        ),
        (
            Fault::on(ApiKey::DescribeConfigs).topic("orders"),
            ResponseError::TopicAuthorizationFailed,
        ),
    ];
    let hidden = hidden.map(|(fault, why)| target.fault(fault, Action::Refuse(why)));
    answer(&failover(&config, &["--yes", "--json"]), 0);
    await_failed_over(&twinlog);
    for fault in hidden {
        target.clear(fault);
    }
    let report = answer(&failback(&config, &["--yes", "--json"]), 0);
    let told = report["for_the_operator"].to_string();
    assert!(told.contains("which ACLs"), "{report:#}");
    assert!(told.contains("which settings"), "{report:#}");
}
