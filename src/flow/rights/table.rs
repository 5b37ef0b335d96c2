//! Every right that Twinlog uses: for what, on which side, and what happens without it.
//!
//! Made from the requests that are sent and from what brokers ask for them (`KafkaApis`,
//! `ControllerApis`, `AclApis`, `ConfigHelper`). READ, WRITE, DELETE and ALTER imply DESCRIBE, and
//! ALTER_CONFIGS implies DESCRIBE_CONFIGS, so these two are named only where nothing else brings
//! them. `InitProducerId` needs IDEMPOTENT_WRITE on the cluster or WRITE on any topic, which is
//! there.

use crate::config::{FlowConfig, OffsetsMode, OnDelete, OnRecreate};
use crate::wire::Operation;

/// A side of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    Source,
    Target,
}

impl Side {
    pub fn word(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Target => "target",
        }
    }
}

/// What a right is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum On {
    Cluster,
    /// The flow's topics, by their names on that side.
    Topics,
    /// Those of the flow's topics that aren't there yet; CREATE on the cluster does as well.
    NewTopics,
    /// `__twinlog_state`.
    State,
    /// `__twinlog_state` where it isn't there yet; CREATE on the cluster does as well.
    NewState,
    /// The selected groups.
    Groups,
}

/// Whether a flow works without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Required,
    Optional,
}

/// One right.
#[derive(Clone, Copy)]
pub(super) struct Right {
    pub side: Side,
    pub on: On,
    pub operation: Operation,
    pub need: Need,
    /// What happens without it, in one clause.
    pub without: &'static str,
    /// Whether a flow uses it.
    pub used: fn(&FlowConfig) -> bool,
}

/// All of them but CLUSTER_ACTION on the target, and READ on `__consumer_offsets` on both: those
/// are tried instead.
///
/// What brings DESCRIBE comes first: brokers tell rights on a topic only to whom may see it, so who
/// grants one after the other would never see another one as granted.
pub(super) const RIGHTS: &[Right] = &[
    // Fetch; ListOffsets and OffsetForLeaderEpoch want DESCRIBE.
    Right {
        side: Side::Source,
        on: On::Topics,
        operation: Operation::Read,
        need: Need::Required,
        without: "records can't be read",
        used: always,
    },
    // DescribeConfigs.
    Right {
        side: Side::Source,
        on: On::Topics,
        operation: Operation::DescribeConfigs,
        need: Need::Optional,
        without: "topic configs don't follow, and topics are created with the target's defaults",
        used: always,
    },
    // ListGroups, OffsetFetch, DescribeShareGroupOffsets.
    Right {
        side: Side::Source,
        on: On::Groups,
        operation: Operation::Describe,
        need: Need::Optional,
        without: "start offsets of share groups don't follow, nor positions where groups are polled; a planned failover can't ask for last commits",
        used: groups,
    },
    // DescribeAcls, DescribeUserScramCredentials.
    Right {
        side: Side::Source,
        on: On::Cluster,
        operation: Operation::Describe,
        need: Need::Optional,
        without: "ACLs don't follow, and missing SCRAM users can't be listed",
        used: always,
    },
    // DescribeClientQuotas.
    Right {
        side: Side::Source,
        on: On::Cluster,
        operation: Operation::DescribeConfigs,
        need: Need::Optional,
        without: "quotas don't follow",
        used: quotas,
    },
    Right {
        side: Side::Target,
        on: On::State,
        operation: Operation::Read,
        need: Need::Required,
        without: "what was done can't be read again, and nothing is copied",
        used: always,
    },
    // CreateTopics.
    Right {
        side: Side::Target,
        on: On::NewState,
        operation: Operation::Create,
        need: Need::Required,
        without: "the state topic can't be created, and nothing is copied",
        used: always,
    },
    Right {
        side: Side::Target,
        on: On::State,
        operation: Operation::Write,
        need: Need::Required,
        without: "nothing can be remembered, and nothing is copied",
        used: always,
    },
    // DescribeConfigs, IncrementalAlterConfigs.
    Right {
        side: Side::Target,
        on: On::State,
        operation: Operation::AlterConfigs,
        need: Need::Optional,
        without: "the state topic's configs aren't looked after",
        used: always,
    },
    // DescribeProducers, and Fetch where a log's end must be looked at.
    Right {
        side: Side::Target,
        on: On::Topics,
        operation: Operation::Read,
        need: Need::Required,
        without: "where the copy ends can't be found out, and nothing is copied",
        used: always,
    },
    Right {
        side: Side::Target,
        on: On::NewTopics,
        operation: Operation::Create,
        need: Need::Required,
        without: "missing topics can't be created",
        used: always,
    },
    // Produce, InitProducerId.
    Right {
        side: Side::Target,
        on: On::Topics,
        operation: Operation::Write,
        need: Need::Required,
        without: "records can't be written",
        used: always,
    },
    // DescribeConfigs: which batches the topic takes.
    Right {
        side: Side::Target,
        on: On::Topics,
        operation: Operation::DescribeConfigs,
        need: Need::Required,
        without: "which batches the topics take can't be found out, and they aren't copied",
        used: always,
    },
    // IncrementalAlterConfigs.
    Right {
        side: Side::Target,
        on: On::Topics,
        operation: Operation::AlterConfigs,
        need: Need::Optional,
        without: "changes of topic configs don't follow",
        used: configs,
    },
    // CreatePartitions.
    Right {
        side: Side::Target,
        on: On::Topics,
        operation: Operation::Alter,
        need: Need::Optional,
        without: "partitions that are added on the source can't be added, and the topic waits",
        used: always,
    },
    // DeleteRecords.
    Right {
        side: Side::Target,
        on: On::Topics,
        operation: Operation::Delete,
        need: Need::Optional,
        without: "topics whose first records are gone on the source can't be copied with the same offsets, and wait",
        used: identical,
    },
    // DeleteTopics.
    Right {
        side: Side::Target,
        on: On::Topics,
        operation: Operation::Delete,
        need: Need::Optional,
        without: "copies of deleted or recreated topics can't be deleted",
        used: |flow| !identical(flow) && deletes(flow),
    },
    // OffsetCommit, AlterShareGroupOffsets.
    Right {
        side: Side::Target,
        on: On::Groups,
        operation: Operation::Read,
        need: Need::Required,
        without: "positions can't be committed",
        used: groups,
    },
    // DeleteGroups.
    Right {
        side: Side::Target,
        on: On::Groups,
        operation: Operation::Delete,
        need: Need::Optional,
        without: "groups that are deleted on the source stay",
        used: |flow| groups(flow) && flow.group_rules.delete,
    },
    // DescribeAcls, DescribeUserScramCredentials; DescribeLogDirs before a failover.
    Right {
        side: Side::Target,
        on: On::Cluster,
        operation: Operation::Describe,
        need: Need::Optional,
        without: "ACLs don't follow, and missing SCRAM users can't be listed",
        used: always,
    },
    // CreateAcls, DeleteAcls.
    Right {
        side: Side::Target,
        on: On::Cluster,
        operation: Operation::Alter,
        need: Need::Optional,
        without: "ACLs are compared but not applied, and copies can't be protected",
        used: |flow| flow.metadata.acls.enabled || flow.protect,
    },
    // DescribeClientQuotas.
    Right {
        side: Side::Target,
        on: On::Cluster,
        operation: Operation::DescribeConfigs,
        need: Need::Optional,
        without: "quotas don't follow",
        used: quotas,
    },
    // AlterClientQuotas.
    Right {
        side: Side::Target,
        on: On::Cluster,
        operation: Operation::AlterConfigs,
        need: Need::Optional,
        without: "quotas are compared but not applied",
        used: quotas,
    },
];

fn always(_: &FlowConfig) -> bool {
    true
}

fn groups(flow: &FlowConfig) -> bool {
    !flow.groups.include().is_empty()
}

fn quotas(flow: &FlowConfig) -> bool {
    flow.metadata.quotas
}

fn configs(flow: &FlowConfig) -> bool {
    flow.metadata.configs.enabled
}

fn identical(flow: &FlowConfig) -> bool {
    flow.offsets != OffsetsMode::Mapped
}

fn deletes(flow: &FlowConfig) -> bool {
    flow.on_recreate == OnRecreate::Recreate
        || matches!(flow.metadata.on_delete, OnDelete::Delete { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise CREATE is granted, and `check` goes on to say that it isn't.
    #[test]
    fn a_topic_is_made_visible_before_anything_else_is_asked_for() {
        for (new, all) in [(On::NewState, On::State), (On::NewTopics, On::Topics)] {
            let of_target = RIGHTS.iter().filter(|right| right.side == Side::Target);
            let first = of_target
                .filter(|right| right.on == new || right.on == all)
                .map(|right| right.operation)
                .next();
            assert_eq!(first, Some(Operation::Read), "{new:?}");
        }
    }
}
