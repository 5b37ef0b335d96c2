//! Deleting groups.

use std::collections::HashMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{DeleteGroupsRequest, GroupId};

use super::coordinator::Question;
use crate::wire::calls::partition::text;
use crate::wire::{Cluster, WireError};

/// Deletes groups without members, with their positions. One that isn't there counts as deleted.
///
/// # Errors
/// Per group; NON_EMPTY_GROUP for one that has members.
pub async fn delete_groups(
    cluster: &Cluster,
    groups: &[String],
) -> HashMap<String, Result<(), WireError>> {
    let gone = ResponseError::GroupIdNotFound.code();
    let question = Question {
        cluster,
        groups: groups.to_vec(),
        at_once: 100,
        version_max: 2,
        request: &|asked: &[String]| {
            let names = asked.iter().map(|group| GroupId(text(group))).collect();
            DeleteGroupsRequest::default().with_groups_names(names)
        },
        answers: &|_, response| {
            let results = response.results.into_iter().map(|result| {
                let outcome = match result.error_code {
                    code if code == 0 || code == gone => Ok(()),
                    code => Err(code),
                };
                (result.group_id.0.to_string(), outcome)
            });
            results.collect()
        },
        may_repeat: true,
    };
    question.ask().await
}
