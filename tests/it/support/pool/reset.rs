//! Makes a cluster as it was when it was new, without the seconds that a new one costs.
//!
//! Deleting `__consumer_offsets`, `__transaction_state` and `__share_group_state` makes their
//! coordinators forget all that was in them (`BrokerMetadataPublisher.updateCoordinator`).

use std::time::Duration;

use kafka_protocol::messages::alter_user_scram_credentials_request::ScramCredentialDeletion;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::{
    AlterUserScramCredentialsRequest, DeleteAclsRequest, DeleteTopicsRequest,
    DescribeConfigsRequest, DescribeUserScramCredentialsRequest, IncrementalAlterConfigsRequest,
    TopicName,
};
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::support::admin::client;
use crate::support::operator::{DEADLINE, call, text};
use crate::support::quotas;
use crate::support::security::{ADMIN, TWINLOG};
use crate::support::wait::eventually;

const NONE: i16 = 0;
const SECURITY_DISABLED: i16 = 54;
const RESOURCE_NOT_FOUND: i16 = 91;
/// Matches everything in filters.
const ANY: i8 = 1;
const BROKER: i8 = 4;
/// Sources of configs that were set while the cluster ran: of one broker, of all.
const DYNAMIC: [i8; 2] = [2, 3];
/// What a new cluster of 4.x has set for all brokers, and lets nobody remove
/// (`ConfigurationControlManager`, KIP-966).
const OF_A_NEW_CLUSTER: &str = "min.insync.replicas";
/// How long an idle cluster may take to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// Whether the cluster answers and has no topic.
pub(super) fn is_empty(bootstrap: &str) -> bool {
    topics(bootstrap).is_ok_and(|topics| topics.is_empty())
}

/// Takes away all that a test may have left.
///
/// # Panics
/// When something stays.
pub(super) fn empty(bootstrap: &str) {
    // First of all what could stand in the way of the rest.
    remove_acls(bootstrap);
    remove_topics(bootstrap);
    remove_quotas(bootstrap);
    remove_users(bootstrap);
    for broker in ["", "1"] {
        remove_broker_configs(bootstrap, broker);
    }
}

fn topics(bootstrap: &str) -> Result<Vec<String>, String> {
    let consumer: BaseConsumer = client(bootstrap)
        .set("allow.auto.create.topics", "false")
        .create()
        .expect("valid settings");
    let metadata = consumer
        .fetch_metadata(None, ANSWER_DEADLINE)
        .map_err(|error| error.to_string())?;
    let topics = metadata.topics().iter();
    Ok(topics.map(|topic| topic.name().to_owned()).collect())
}

fn remove_topics(bootstrap: &str) {
    eventually(DEADLINE, "there is no topic any more", || {
        let left = topics(bootstrap)?;
        if left.is_empty() {
            return Ok(());
        }
        let state =
            |name: &String| DeleteTopicState::default().with_name(Some(TopicName(text(name))));
        let request = DeleteTopicsRequest::default()
            .with_topics(left.iter().map(state).collect())
            .with_timeout_ms(10_000);
        // Those that another try has deleted already are refused.
        call(bootstrap, request, 6);
        Err(format!("{left:?}"))
    });
}

fn remove_acls(bootstrap: &str) {
    let all = DeleteAclsFilter::default()
        .with_resource_type_filter(ANY)
        .with_resource_name_filter(None)
        .with_pattern_type_filter(ANY)
        .with_principal_filter(None)
        .with_host_filter(None)
        .with_operation(ANY)
        .with_permission_type(ANY);
    let request = DeleteAclsRequest::default().with_filters(vec![all]);
    for result in call(bootstrap, request, 3).filter_results {
        assert!(
            matches!(result.error_code, NONE | SECURITY_DISABLED),
            "{result:?}"
        );
    }
}

fn remove_quotas(bootstrap: &str) {
    for (whom, values) in quotas::list(bootstrap) {
        let removals: Vec<_> = values.keys().map(|key| (key.as_str(), None)).collect();
        quotas::set(bootstrap, &whom, &removals);
    }
}

fn remove_users(bootstrap: &str) {
    let all = DescribeUserScramCredentialsRequest::default().with_users(None);
    let response = call(bootstrap, all, 0);
    let strangers = response.results.iter();
    let strangers = strangers.filter(|user| user.error_code != RESOURCE_NOT_FOUND);
    for user in strangers.filter(|user| ![ADMIN, TWINLOG].contains(&user.user.as_str())) {
        // A request may name a user once only.
        for credential in &user.credential_infos {
            let deletion = ScramCredentialDeletion::default()
                .with_name(user.user.clone())
                .with_mechanism(credential.mechanism);
            let request =
                AlterUserScramCredentialsRequest::default().with_deletions(vec![deletion]);
            let results = call(bootstrap, request, 0).results;
            assert!(
                results.iter().all(|user| user.error_code == NONE),
                "{results:?}"
            );
        }
    }
}

/// `broker` is empty for what counts for all of them.
fn remove_broker_configs(bootstrap: &str, broker: &str) {
    let asked = DescribeConfigsResource::default()
        .with_resource_type(BROKER)
        .with_resource_name(text(broker))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default().with_resources(vec![asked]);
    let results = call(bootstrap, request, 4).results;
    let configs = results.into_iter().flat_map(|result| result.configs);
    let wanted = match broker {
        "" => DYNAMIC[1],
        _ => DYNAMIC[0],
    };
    let removals: Vec<_> = configs
        .filter(|config| config.config_source == wanted && config.name.as_str() != OF_A_NEW_CLUSTER)
        .map(|config| {
            AlterableConfig::default()
                .with_name(config.name)
                .with_config_operation(1)
        })
        .collect();
    if removals.is_empty() {
        return;
    }
    let resource = AlterConfigsResource::default()
        .with_resource_type(BROKER)
        .with_resource_name(text(broker))
        .with_configs(removals);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let responses = call(bootstrap, request, 1).responses;
    assert!(
        responses.iter().all(|response| response.error_code == NONE),
        "{responses:?}"
    );
}
