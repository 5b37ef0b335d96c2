//! DescribeAcls (`AclApis.handleDescribeAcls`).

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_acls_response::{AclDescription, DescribeAclsResource};
use kafka_protocol::messages::{DescribeAclsRequest, DescribeAclsResponse};

use super::{Asked, Refused, Reply, check, text};
use crate::acls::{Acl, Filter, Operation};
use crate::api::Served;
use crate::state::State;

impl Served for DescribeAclsRequest {
    fn refuse(&self, error: ResponseError) -> Option<DescribeAclsResponse> {
        Some(refused((error, "Refused.")))
    }
}

fn refused((error, message): Refused) -> DescribeAclsResponse {
    DescribeAclsResponse::default()
        .with_error_code(error.code())
        .with_error_message(Some(text(message)))
}

pub(in crate::api) fn handle(
    state: &mut State,
    asked: &Asked<'_>,
    request: DescribeAclsRequest,
) -> Reply {
    let without = "No Authorizer is configured on the broker";
    if let Err(refusal) = check(state, asked, Operation::Describe, without) {
        return asked.send(&refused(refusal));
    }
    let string = |text: &Option<kafka_protocol::protocol::StrBytes>| {
        text.as_ref().map(|text| text.to_string())
    };
    let filter = Filter {
        resource_type: request.resource_type_filter,
        pattern_type: request.pattern_type_filter,
        name: string(&request.resource_name_filter),
        principal: string(&request.principal_filter),
        host: string(&request.host_filter),
        operation: request.operation,
        permission: request.permission_type,
    };
    if filter.is_unknown() {
        // `DescribeAclsRequest.validate`.
        let error = ResponseError::InvalidRequest;
        return asked.send(&refused((
            error,
            "DescribeAclsRequest contains UNKNOWN elements",
        )));
    }
    let known = state.acls.known_to(asked.broker);
    let found = known.iter().filter(|acl| filter.matches(acl));
    asked.send(&DescribeAclsResponse::default().with_resources(resources(found)))
}

fn resources<'a>(acls: impl Iterator<Item = &'a Acl>) -> Vec<DescribeAclsResource> {
    let mut resources: BTreeMap<_, Vec<AclDescription>> = BTreeMap::new();
    for acl in acls {
        let resource = (acl.resource_type, acl.pattern_type, &acl.name);
        let description = AclDescription::default()
            .with_principal(text(acl.principal.clone()))
            .with_host(text(acl.host.clone()))
            .with_operation(acl.operation as i8)
            .with_permission_type(acl.permission as i8);
        resources.entry(resource).or_default().push(description);
    }
    let resources = resources.into_iter();
    resources
        .map(|((resource_type, pattern_type, name), acls)| {
            DescribeAclsResource::default()
                .with_resource_type(resource_type as i8)
                .with_pattern_type(pattern_type as i8)
                .with_resource_name(text(name.clone()))
                .with_acls(acls)
        })
        .collect()
}
