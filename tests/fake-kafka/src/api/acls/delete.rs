//! DeleteAcls (`AclApis.handleDeleteAcls`, `AclControlManager.deleteAcls`).

use std::collections::BTreeSet;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::delete_acls_response::{
    DeleteAclsFilterResult, DeleteAclsMatchingAcl,
};
use kafka_protocol::messages::{DeleteAclsRequest, DeleteAclsResponse};
use kafka_protocol::protocol::StrBytes;

use super::{Asked, Refused, Reply, check, text};
use crate::acls::{Acl, Filter, Operation};
use crate::api::Served;
use crate::state::State;

impl Served for DeleteAclsRequest {
    fn refuse(&self, error: ResponseError) -> Option<DeleteAclsResponse> {
        Some(refused(self, (error, "Refused.")))
    }
}

fn refused(request: &DeleteAclsRequest, (error, message): Refused) -> DeleteAclsResponse {
    let results = request.filters.iter().map(|_| failed(error, message));
    DeleteAclsResponse::default().with_filter_results(results.collect())
}

fn failed(error: ResponseError, message: &str) -> DeleteAclsFilterResult {
    DeleteAclsFilterResult::default()
        .with_error_code(error.code())
        .with_error_message(Some(text(message)))
}

pub(in crate::api) fn handle(
    state: &mut State,
    asked: &Asked<'_>,
    request: DeleteAclsRequest,
) -> Reply {
    let without = "No Authorizer is configured.";
    if let Err(refusal) = check(state, asked, Operation::Alter, without) {
        return asked.send(&refused(&request, refusal));
    }
    // All filters see the same ACLs; what several match is told by each.
    let mut gone: BTreeSet<Acl> = BTreeSet::new();
    let results = request.filters.iter().map(|asked_for| {
        let filter = filter(asked_for);
        if filter.is_unknown() {
            return failed(ResponseError::InvalidRequest, "Unknown filter.");
        }
        let matching = state.acls.all.iter().filter(|acl| filter.matches(acl));
        let matching: Vec<&Acl> = matching.collect();
        gone.extend(matching.iter().map(|acl| (*acl).clone()));
        DeleteAclsFilterResult::default()
            .with_matching_acls(matching.into_iter().map(described).collect())
    });
    let results = results.collect();
    state.acls.all.retain(|acl| !gone.contains(acl));
    asked.send(&DeleteAclsResponse::default().with_filter_results(results))
}

fn filter(asked_for: &DeleteAclsFilter) -> Filter {
    let string = |text: &Option<StrBytes>| text.as_ref().map(StrBytes::to_string);
    Filter {
        resource_type: asked_for.resource_type_filter,
        pattern_type: asked_for.pattern_type_filter,
        name: string(&asked_for.resource_name_filter),
        principal: string(&asked_for.principal_filter),
        host: string(&asked_for.host_filter),
        operation: asked_for.operation,
        permission: asked_for.permission_type,
    }
}

fn described(acl: &Acl) -> DeleteAclsMatchingAcl {
    DeleteAclsMatchingAcl::default()
        .with_resource_type(acl.resource_type as i8)
        .with_pattern_type(acl.pattern_type as i8)
        .with_resource_name(text(acl.name.clone()))
        .with_principal(text(acl.principal.clone()))
        .with_host(text(acl.host.clone()))
        .with_operation(acl.operation as i8)
        .with_permission_type(acl.permission as i8)
}
