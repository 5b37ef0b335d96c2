//! CreateAcls (`AclApis.handleCreateAcls`, `AclControlManager.validateNewAcl`).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::create_acls_response::AclCreationResult;
use kafka_protocol::messages::{CreateAclsRequest, CreateAclsResponse};

use super::{Asked, Refused, Reply, check, text};
use crate::acls::{Acl, CLUSTER_NAME, Operation, PatternType, Permission, ResourceType};
use crate::api::Served;
use crate::state::State;

/// ANY and MATCH, which filters have.
const ANY: i8 = 1;
const MATCH: i8 = 2;

impl Served for CreateAclsRequest {
    fn refuse(&self, error: ResponseError) -> Option<CreateAclsResponse> {
        Some(refused(self, (error, "Refused.")))
    }
}

fn refused(request: &CreateAclsRequest, (error, message): Refused) -> CreateAclsResponse {
    let results = request.creations.iter().map(|_| failed(error, message));
    CreateAclsResponse::default().with_results(results.collect())
}

fn failed(error: ResponseError, message: &str) -> AclCreationResult {
    AclCreationResult::default()
        .with_error_code(error.code())
        .with_error_message(Some(text(message)))
}

pub(in crate::api) fn handle(
    state: &mut State,
    asked: &Asked<'_>,
    request: CreateAclsRequest,
) -> Reply {
    let without = "No Authorizer is configured.";
    if let Err(refusal) = check(state, asked, Operation::Alter, without) {
        return asked.send(&refused(&request, refusal));
    }
    if request.creations.iter().any(is_a_filter) {
        let error = ResponseError::UnknownServerError;
        return asked.send(&refused(
            &request,
            (error, "The server experienced an unexpected error."),
        ));
    }
    let results = request
        .creations
        .iter()
        .map(|creation| match acl(creation) {
            Ok(acl) if state.acls.refused.contains(&acl) => {
                failed(ResponseError::PolicyViolation, "Refused by a rule.")
            }
            Ok(acl) => {
                state.acls.all.insert(acl);
                AclCreationResult::default()
            }
            Err(message) => failed(ResponseError::InvalidRequest, message),
        });
    let results = results.collect();
    asked.send(&CreateAclsResponse::default().with_results(results))
}

/// `ResourcePattern` and `AccessControlEntry` throw at what only filters may say, and nobody
/// catches it.
fn is_a_filter(creation: &AclCreation) -> bool {
    creation.resource_type == ANY
        || [ANY, MATCH].contains(&creation.resource_pattern_type)
        || creation.operation == ANY
        || creation.permission_type == ANY
}

fn acl(creation: &AclCreation) -> Result<Acl, &'static str> {
    let resource_type =
        ResourceType::from_number(creation.resource_type).ok_or("Invalid resourceType")?;
    let name = creation.resource_name.to_string();
    if resource_type == ResourceType::Cluster && name != CLUSTER_NAME {
        return Err("The only valid name for the CLUSTER resource is kafka-cluster");
    }
    if name.is_empty() {
        return Err("Invalid empty resource name");
    }
    // `SecurityUtils.parseKafkaPrincipal`.
    let principal = creation.principal.to_string();
    if !principal
        .split_once(':')
        .is_some_and(|(kind, name)| !kind.is_empty() && !name.is_empty())
    {
        return Err("Could not parse principal");
    }
    Ok(Acl {
        resource_type,
        pattern_type: PatternType::from_number(creation.resource_pattern_type)
            .ok_or("Invalid patternType")?,
        name,
        principal,
        host: creation.host.to_string(),
        operation: Operation::from_number(creation.operation).ok_or("Invalid operation")?,
        permission: Permission::from_number(creation.permission_type)
            .ok_or("Invalid permissionType")?,
    })
}
