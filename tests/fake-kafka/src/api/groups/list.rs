//! ListGroups (`KafkaApis.handleListGroupsRequest`, `GroupMetadataManager.listGroups`).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{GroupId, ListGroupsRequest, ListGroupsResponse};
use kafka_protocol::protocol::StrBytes;

use super::{Asked, Reply, check, text};
use crate::acls::Operation;
use crate::api::Served;
use crate::groups::coordinator;
use crate::state::State;

/// The types that the fake has (`Group.GroupType`).
const CLASSIC: &str = "classic";
const SHARE: &str = "share";
/// The first version that tells a group's state, and the first that tells its type.
const STATE_FROM: i16 = 4;
const TYPE_FROM: i16 = 5;

impl Served for ListGroupsRequest {
    fn refuse(&self, error: ResponseError) -> Option<ListGroupsResponse> {
        Some(ListGroupsResponse::default().with_error_code(error.code()))
    }
}

pub(in crate::api) fn handle(
    state: &mut State,
    asked: &Asked<'_>,
    request: ListGroupsRequest,
) -> Reply {
    let wanted = |filter: &[StrBytes], have: &str| {
        let mut filter = filter.iter();
        filter.len() == 0 || filter.any(|name| name.trim().eq_ignore_ascii_case(have))
    };
    let mut groups = Vec::new();
    if wanted(&request.types_filter, CLASSIC) {
        coordinator::on_all_shards(state, asked.broker, |shard| {
            for group in shard.groups.values() {
                if wanted(&request.states_filter, group.state().name()) {
                    let mut listed = ListedGroup::default()
                        .with_group_id(GroupId(text(group.id())))
                        .with_protocol_type(text(group.protocol_type().unwrap_or_default()));
                    if asked.api_version >= STATE_FROM {
                        listed.group_state = text(group.state().name());
                    }
                    if asked.api_version >= TYPE_FROM {
                        listed.group_type = text(CLASSIC);
                    }
                    groups.push(listed);
                }
            }
        });
    }
    // Brokers that know share groups know this version.
    if asked.api_version >= TYPE_FROM && wanted(&request.types_filter, SHARE) {
        let shares: Vec<String> = state.groups.shares.keys().cloned().collect();
        for group in shares {
            let partition = coordinator::partition_of(state, &group);
            let leader = partition.map(|it| coordinator::reign(state, it));
            if matches!(leader, Ok(Some((leader, _))) if leader == asked.broker) {
                let listed = ListedGroup::default()
                    .with_group_id(GroupId(text(group)))
                    .with_protocol_type(text(SHARE))
                    .with_group_state(text("Empty"))
                    .with_group_type(text(SHARE));
                groups.push(listed);
            }
        }
    }
    // Without DESCRIBE on the cluster, groups that may not be described are left out.
    if !state.allows_on_cluster(asked, Operation::Describe) {
        groups.retain(|group| check(state, asked, Operation::Describe, &group.group_id).is_ok());
    }
    asked.send(&ListGroupsResponse::default().with_groups(groups))
}
