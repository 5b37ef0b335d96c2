//! DeleteGroups (`KafkaApis.handleDeleteGroupsRequest`, `GroupCoordinatorShard.deleteGroups`).

use std::collections::BTreeSet;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse, GroupId};

use super::{Asked, Body, Reply, Subject, check, code, once_replicated, text};
use crate::acls::Operation;
use crate::api::Served;
use crate::groups::coordinator::{self, Written};
use crate::state::State;

impl Served for DeleteGroupsRequest {
    fn about(&self, _state: &State) -> Vec<Subject> {
        let groups = self.groups_names.iter();
        groups
            .map(|group| Subject::Group(group.to_string()))
            .collect()
    }
}

pub(in crate::api) fn handle(
    state: &mut State,
    asked: &Asked<'_>,
    request: DeleteGroupsRequest,
) -> Reply {
    let mut results = Vec::new();
    let mut all_written = Vec::new();
    let names: BTreeSet<&str> = request.groups_names.iter().map(|it| it.as_str()).collect();
    for group in names {
        match delete(state, asked, group) {
            Ok(written) => {
                all_written.extend(written);
                results.push((group.to_owned(), None));
            }
            Err(error) => results.push((group.to_owned(), Some(error))),
        }
    }
    let version = asked.api_version;
    once_replicated(state, all_written, move |failed| {
        let results = results.iter().map(|(group, error)| {
            DeletableGroupResult::default()
                .with_group_id(GroupId(text(group.clone())))
                .with_error_code(code(error.or(failed)))
        });
        let answer = DeleteGroupsResponse::default().with_results(results.collect());
        Body::of(&answer, version)
    })
}

fn delete(
    state: &mut State,
    asked: &Asked<'_>,
    group: &str,
) -> Result<Option<Written>, ResponseError> {
    if let Some(error) = asked.refused_about(&Subject::Group(group.to_owned())) {
        return Err(error);
    }
    check(state, asked, Operation::Delete, group)?;
    if group.is_empty() {
        return Err(ResponseError::InvalidGroupId);
    }
    let partition = coordinator::partition_of(state, group)?;
    let (deleted, written) =
        coordinator::on_shard(state, asked.broker, partition, |shard, step| {
            shard.delete(group, step)
        })?;
    deleted.map(|()| written)
}
