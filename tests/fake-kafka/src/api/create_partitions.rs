//! CreatePartitions (`ReplicationControlManager.createPartitions`).

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};

use super::{Asked, Reply, Served, Subject, text};
use crate::acls::Operation;
use crate::partition::Partition;
use crate::state::State;
use crate::topics::Refusal;

impl Served for CreatePartitionsRequest {
    fn about(&self, _: &State) -> Vec<Subject> {
        let topics = self.topics.iter();
        topics
            .map(|topic| Subject::Topic(topic.name.to_string()))
            .collect()
    }
}

pub(crate) fn handle(
    state: &mut State,
    asked: &Asked<'_>,
    request: CreatePartitionsRequest,
) -> Reply {
    let mut results = Vec::new();
    for topic in &request.topics {
        let result = CreatePartitionsTopicResult::default().with_name(topic.name.clone());
        results.push(match grow(state, asked, topic, request.validate_only) {
            Ok(()) => result.with_error_message(None),
            Err((error, why)) => result
                .with_error_code(error.code())
                .with_error_message(Some(text(why))),
        });
    }
    asked.send(&CreatePartitionsResponse::default().with_results(results))
}

fn grow(
    state: &mut State,
    asked: &Asked<'_>,
    wanted: &CreatePartitionsTopic,
    validate_only: bool,
) -> Result<(), Refusal> {
    if let Some(error) = asked.refused_topic(&wanted.name) {
        return Err((error, "refused by a fault".to_owned()));
    }
    state
        .check_topic(asked, Operation::Alter, &wanted.name)
        .map_err(|error| (error, "Topic authorization failed.".to_owned()))?;
    let topic = state.topics.get(wanted.name.as_str()).ok_or((
        ResponseError::UnknownTopicOrPartition,
        "This server does not host this topic-partition.".to_owned(),
    ))?;
    let now = i32::try_from(topic.partitions.len()).expect("fits");
    if wanted.count <= now {
        return Err((
            ResponseError::InvalidPartitions,
            format!(
                "The topic {} currently has {now} partition(s); {} would not be an increase.",
                wanted.name.as_str(),
                wanted.count
            ),
        ));
    }
    let replication = topic.partitions[&0].replicas.len();
    let placed = place(
        state,
        wanted,
        now,
        i16::try_from(replication).expect("fits"),
    )?;
    if validate_only {
        return Ok(());
    }
    let topic = state
        .topics
        .get_mut(wanted.name.as_str())
        .expect("looked up before");
    topic
        .partitions
        .extend((now..).zip(placed.into_iter().map(Partition::new)));
    state.elect_where_needed();
    Ok(())
}

fn place(
    state: &State,
    wanted: &CreatePartitionsTopic,
    now: i32,
    replication: i16,
) -> Result<Vec<Vec<i32>>, Refusal> {
    let Some(assignments) = &wanted.assignments else {
        return (now..wanted.count)
            .map(|partition| state.replicas_for(partition, replication))
            .collect();
    };
    if i32::try_from(assignments.len()) != Ok(wanted.count - now) {
        return Err((
            ResponseError::InvalidReplicaAssignment,
            format!(
                "{} assignments for {} new partitions",
                assignments.len(),
                wanted.count - now
            ),
        ));
    }
    let replicas = assignments
        .iter()
        .map(|assignment| assignment.broker_ids.iter().map(|id| id.0).collect());
    let by_partition: BTreeMap<i32, Vec<i32>> = (now..).zip(replicas).collect();
    state.check_assignments(&by_partition, now)
}
