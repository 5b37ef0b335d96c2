//! DescribeClientQuotas (`ClientQuotasImage.describe`).

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_client_quotas_request::ComponentData;
use kafka_protocol::messages::describe_client_quotas_response::{EntityData, EntryData, ValueData};
use kafka_protocol::messages::{DescribeClientQuotasRequest, DescribeClientQuotasResponse};
use kafka_protocol::protocol::StrBytes;

use super::{Asked, Reply, text};
use crate::acls::Operation;
use crate::api::Served;
use crate::quotas::{self, Match};
use crate::state::State;

/// `DescribeClientQuotasRequest`'s kinds of matches.
const EXACT: i8 = 0;
const DEFAULT: i8 = 1;
const SPECIFIED: i8 = 2;

type Refused = (ResponseError, String);

impl Served for DescribeClientQuotasRequest {
    fn refuse(&self, error: ResponseError) -> Option<DescribeClientQuotasResponse> {
        Some(refused((error, "Refused.".to_owned())))
    }
}

fn refused((error, message): Refused) -> DescribeClientQuotasResponse {
    DescribeClientQuotasResponse::default()
        .with_error_code(error.code())
        .with_error_message(Some(text(message)))
        .with_entries(None)
}

pub(in crate::api) fn handle(
    state: &mut State,
    asked: &Asked<'_>,
    request: DescribeClientQuotasRequest,
) -> Reply {
    if !state.allows_on_cluster(asked, Operation::DescribeConfigs) {
        let error = ResponseError::ClusterAuthorizationFailed;
        let message = "Cluster authorization failed.".to_owned();
        return asked.send(&refused((error, message)));
    }
    let filter = match filter(&request.components) {
        Ok(filter) => filter,
        Err(refusal) => return asked.send(&refused(refusal)),
    };
    let found = state.quotas.iter();
    let found = found.filter(|(entity, _)| quotas::matches(entity, &filter, request.strict));
    let entries = found.map(|(entity, values)| {
        let entity = entity.iter().map(|(kind, name)| {
            EntityData::default()
                .with_entity_type(text(kind.clone()))
                .with_entity_name(name.clone().map(text))
        });
        let values = values.iter().map(|(key, value)| {
            ValueData::default()
                .with_key(text(key.clone()))
                .with_value(*value)
        });
        EntryData::default()
            .with_entity(entity.collect())
            .with_values(values.collect())
    });
    let entries = Some(entries.collect());
    asked.send(&DescribeClientQuotasResponse::default().with_entries(entries))
}

fn filter(components: &[ComponentData]) -> Result<BTreeMap<String, Match>, Refused> {
    let invalid = |message: &str| (ResponseError::InvalidRequest, message.to_owned());
    let mut filter = BTreeMap::new();
    for component in components {
        let kind = component.entity_type.to_string();
        if kind.is_empty() {
            return Err(invalid("Invalid empty entity type."));
        }
        if !quotas::is_component(&kind) {
            let message = format!("Unsupported entity type {kind}");
            return Err((ResponseError::UnsupportedVersion, message));
        }
        let wanted = component._match.as_ref().map(StrBytes::to_string);
        let wanted = match (component.match_type, wanted) {
            (EXACT, Some(name)) => Match::Exact(Some(name)),
            (DEFAULT, None) => Match::Exact(None),
            (SPECIFIED, None) => Match::Any,
            _ => {
                return Err(invalid(
                    "The kind of match and the match don't go together.",
                ));
            }
        };
        if filter.insert(kind, wanted).is_some() {
            return Err(invalid("An entity type cannot appear more than once."));
        }
    }
    quotas::check_filter(&filter).map_err(|message| (ResponseError::InvalidRequest, message))?;
    Ok(filter)
}
