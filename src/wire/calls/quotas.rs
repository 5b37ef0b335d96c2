//! Client quotas (KIP-546): what users and client ids may use.
//!
//! Reading needs DESCRIBE_CONFIGS on the cluster, changing ALTER_CONFIGS
//! (`KafkaApis.handleDescribeClientQuotasRequest`, `ControllerApis.handleAlterClientQuotas`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_client_quotas_request::{EntityData, EntryData, OpData};
use kafka_protocol::messages::{AlterClientQuotasRequest, DescribeClientQuotasRequest};
use kafka_protocol::protocol::StrBytes;

use super::partition::text;
use super::retry::{BUDGET, ask_anyone, repeat_at_controller};
use super::topics::outcome;
use crate::wire::by_most::told_by_each;
use crate::wire::{Cluster, Connection, ErrorContext, WireError};

const VERSION_MAX: i16 = 1;

/// Whom a quota is for: by component (`user`, `client-id`, `ip`) the name, or `None` for the
/// default of all that have no quota of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuotaEntity {
    /// By component.
    pub components: BTreeMap<String, Option<String>>,
}

impl QuotaEntity {
    /// The component of users.
    pub const USER: &str = "user";
    /// The component of client ids.
    pub const CLIENT_ID: &str = "client-id";
    /// The component of addresses, which is never together with another.
    pub const IP: &str = "ip";

    /// An entity of components and their names, `None` for the default.
    pub fn new<'a>(components: impl IntoIterator<Item = (&'a str, Option<&'a str>)>) -> Self {
        let components = components.into_iter();
        Self {
            components: components
                .map(|(kind, name)| (kind.to_owned(), name.map(str::to_owned)))
                .collect(),
        }
    }
}

/// `user alice, client-id <default>`.
impl fmt::Display for QuotaEntity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `user` before `client-id`, as Kafka's tools have it.
        for (index, (kind, name)) in self.components.iter().rev().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            let name = name.as_deref().unwrap_or("<default>");
            write!(f, "{comma}{kind} {name}")?;
        }
        Ok(())
    }
}

/// The quotas of a cluster: by entity and key, such as `producer_byte_rate`.
pub type ClientQuotas = BTreeMap<QuotaEntity, BTreeMap<String, f64>>;

/// One quota to set, or to remove with `None`.
#[derive(Clone, Debug, PartialEq)]
pub struct QuotaChange {
    /// Whom it is for.
    pub entity: QuotaEntity,
    /// The quota.
    pub key: String,
    /// Its new value.
    pub value: Option<f64>,
}

/// All quotas of a cluster, those of addresses too.
///
/// # Errors
/// CLUSTER_AUTHORIZATION_FAILED without DESCRIBE_CONFIGS on the cluster.
pub async fn describe_client_quotas(cluster: &Cluster) -> Result<ClientQuotas, WireError> {
    ask_anyone(cluster, BUDGET, |connection| {
        described_by(connection, cluster.clone())
    })
    .await
}

/// Which quotas a cluster has, but for those that more than half of its brokers lack, each by its own image; `None`
/// where too few answer to tell.
pub async fn quotas_not_gone(cluster: &Cluster) -> Option<BTreeSet<(QuotaEntity, String)>> {
    let asked = cluster.clone();
    let told = told_by_each(cluster, move |connection| {
        let described = described_by(connection, asked.clone());
        async move {
            let quotas = described.await?.into_iter();
            let keys = quotas.flat_map(|(entity, values)| {
                let keys = values.into_keys();
                keys.map(move |key| (entity.clone(), key))
            });
            Ok(keys.collect())
        }
    });
    told.await.not_gone()
}

async fn described_by(connection: Connection, cluster: Cluster) -> Result<ClientQuotas, WireError> {
    // No component, not strict: everything.
    let request = DescribeClientQuotasRequest::default().with_strict(false);
    let response = connection.call(request, VERSION_MAX).await?;
    let answer = Some((response.error_code, response.error_message, ()));
    outcome(&cluster, &connection, "DescribeClientQuotas", "all", answer)?;
    let entries = response.entries.unwrap_or_default().into_iter();
    let quotas = entries.map(|entry| {
        let components = entry.entity.into_iter();
        let components = components.map(|c| (c.entity_type.to_string(), name(c.entity_name)));
        let entity = QuotaEntity {
            components: components.collect(),
        };
        let values = entry.values.into_iter();
        let values = values.map(|value| (value.key.to_string(), value.value));
        (entity, values.collect())
    });
    Ok(quotas.collect())
}

/// Makes changes, each of another entity, in one request. The outcomes are in their order; one that
/// is refused keeps no other from being made.
///
/// # Errors
/// When the request as a whole failed. After a transport error it may or may not have been done.
pub async fn alter_client_quotas(
    cluster: &Cluster,
    changes: &[QuotaChange],
) -> Result<Vec<Result<(), WireError>>, WireError> {
    repeat_at_controller(cluster, |connection| {
        let request = AlterClientQuotasRequest::default()
            .with_entries(changes.iter().map(entry).collect())
            .with_validate_only(false);
        async move {
            let response = connection.call(request, VERSION_MAX).await?;
            let mut answers = HashMap::new();
            for answer in response.entries {
                let components = answer.entity.into_iter();
                let entity = QuotaEntity {
                    components: components
                        .map(|c| (c.entity_type.to_string(), name(c.entity_name)))
                        .collect(),
                };
                answers.insert(entity, (answer.error_code, answer.error_message, ()));
            }
            let moved = answers
                .values()
                .all(|(code, _, ())| *code == ResponseError::NotController.code());
            if moved && !changes.is_empty() {
                // Nothing was done: the whole request goes to the new controller.
                let context = ErrorContext {
                    api: Some("AlterClientQuotas"),
                    ..ErrorContext::cluster(cluster.name())
                };
                return Err(WireError::server(
                    context,
                    ResponseError::NotController,
                    None,
                ));
            }
            let judge = |change: &QuotaChange| {
                let answer = answers.remove(&change.entity);
                let subject = format!("{}, {}", change.entity, change.key);
                outcome(cluster, &connection, "AlterClientQuotas", &subject, answer)
            };
            Ok(changes.iter().map(judge).collect())
        }
    })
    .await
}

fn entry(change: &QuotaChange) -> EntryData {
    let components = change.entity.components.iter();
    let operation = OpData::default()
        .with_key(text(&change.key))
        .with_value(change.value.unwrap_or_default())
        .with_remove(change.value.is_none());
    EntryData::default()
        .with_entity(
            components
                .map(|(kind, name)| {
                    EntityData::default()
                        .with_entity_type(text(kind))
                        .with_entity_name(name.as_deref().map(text))
                })
                .collect(),
        )
        .with_ops(vec![operation])
}

fn name(name: Option<StrBytes>) -> Option<String> {
    name.map(|name| name.to_string())
}
