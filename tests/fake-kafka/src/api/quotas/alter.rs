//! AlterClientQuotas (`ClientQuotaControlManager.alterClientQuotas`).

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_client_quotas_request::EntryData as Change;
use kafka_protocol::messages::alter_client_quotas_response::{EntityData, EntryData};
use kafka_protocol::messages::{AlterClientQuotasRequest, AlterClientQuotasResponse};
use kafka_protocol::protocol::StrBytes;

use super::{Asked, Reply, text};
use crate::acls::Operation;
use crate::api::Served;
use crate::quotas::{self, Entity, Quotas};
use crate::state::State;

type Outcome = Result<(), (ResponseError, String)>;

impl Served for AlterClientQuotasRequest {
    fn refuse(&self, error: ResponseError) -> Option<AlterClientQuotasResponse> {
        Some(answer(self, |_| Err((error, "Refused.".to_owned()))))
    }
}

fn answer(
    request: &AlterClientQuotasRequest,
    mut outcome: impl FnMut(&Change) -> Outcome,
) -> AlterClientQuotasResponse {
    let entries = request.entries.iter().map(|change| {
        let entity = change.entity.iter().map(|component| {
            EntityData::default()
                .with_entity_type(component.entity_type.clone())
                .with_entity_name(component.entity_name.clone())
        });
        let entry = EntryData::default().with_entity(entity.collect());
        match outcome(change) {
            Ok(()) => entry.with_error_message(None),
            Err((error, message)) => entry
                .with_error_code(error.code())
                .with_error_message(Some(text(message))),
        }
    });
    AlterClientQuotasResponse::default().with_entries(entries.collect())
}

pub(in crate::api) fn handle(
    state: &mut State,
    asked: &Asked<'_>,
    request: AlterClientQuotasRequest,
) -> Reply {
    if !state.allows_on_cluster(asked, Operation::AlterConfigs) {
        return asked.send(&answer(&request, |_| {
            let error = ResponseError::ClusterAuthorizationFailed;
            Err((error, "Cluster authorization failed.".to_owned()))
        }));
    }
    let answer = answer(&request, |change| {
        alter(&mut state.quotas, change, request.validate_only)
            .map_err(|message| (ResponseError::InvalidRequest, message))
    });
    asked.send(&answer)
}

fn alter(quotas: &mut Quotas, change: &Change, only_check: bool) -> Result<(), String> {
    let mut entity = Entity::new();
    for component in &change.entity {
        let kind = component.entity_type.to_string();
        let name = component.entity_name.as_ref().map(StrBytes::to_string);
        if entity.insert(kind.clone(), name).is_some() {
            return Err(format!(
                "Invalid client quota entity, duplicate entity entry {kind}"
            ));
        }
    }
    let mut values = BTreeMap::new();
    for operation in &change.ops {
        let key = operation.key.to_string();
        let value = (!operation.remove).then_some(operation.value);
        if values.insert(key.clone(), value).is_some() {
            return Err(format!("Duplicate quota key {key}"));
        }
    }
    quotas::alter(quotas, &entity, &values, only_check)
}
