//! What our own principal may do on groups (KIP-430).

use std::collections::HashMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{DescribeGroupsRequest, GroupId};

use super::coordinator::{Answers, Question};
use crate::wire::calls::partition::text;
use crate::wire::calls::rights::Rights;
use crate::wire::{Cluster, WireError};

/// Version 3 is the first that tells rights; since version 6 a group that isn't there is an error.
const VERSION_MAX: i16 = 5;
/// Groups in one request.
const GROUPS_AT_ONCE: usize = 100;

/// What we may do on each group, whether it exists or not. A group that may not be seen (DESCRIBE)
/// has no rights.
pub async fn group_rights(
    cluster: &Cluster,
    groups: &[String],
) -> HashMap<String, Result<Rights, WireError>> {
    let question = Question {
        cluster,
        groups: groups.to_vec(),
        at_once: GROUPS_AT_ONCE,
        version_max: VERSION_MAX,
        request: &|asked: &[String]| {
            let groups = asked.iter().map(|group| GroupId(text(group)));
            DescribeGroupsRequest::default()
                .with_groups(groups.collect())
                .with_include_authorized_operations(true)
        },
        answers: &|_, response| -> Answers<Rights> {
            let groups = response.groups.into_iter();
            groups
                .map(|group| {
                    let rights = match group.error_code {
                        0 => Ok(Rights::from_bits(group.authorized_operations)),
                        code => Err(code),
                    };
                    (group.group_id.0.to_string(), rights)
                })
                .collect()
        },
        may_repeat: true,
    };
    let answers = question.ask().await.into_iter();
    answers
        .map(|(group, rights)| match rights {
            // Refused by the coordinator, or by whoever was asked for it.
            Err(error) if error.server_code() == Some(ResponseError::GroupAuthorizationFailed) => {
                (group, Ok(Rights::default()))
            }
            other => (group, other),
        })
        .collect()
}
