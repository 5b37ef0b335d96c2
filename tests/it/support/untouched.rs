//! What must be the same on a cluster before and after something that promises to touch nothing.

use std::collections::{BTreeMap, BTreeSet};

use twinlog::connect;
use twinlog::wire::{self, TopicPartition};

use super::flow::block_on;
use super::twinlog::Twinlog;

/// Topics, configs, ACLs, groups and their positions, and the ends of logs that nobody writes to.
#[derive(Debug, PartialEq, Eq)]
pub struct Picture {
    /// By topic: its id, partitions and configs.
    pub topics: BTreeMap<String, String>,
    /// As text.
    pub acls: BTreeSet<String>,
    /// By group.
    pub groups: BTreeMap<String, BTreeMap<TopicPartition, i64>>,
    /// Of the quiet topics.
    pub ends: BTreeMap<TopicPartition, i64>,
}

/// Takes a picture of a cluster; `quiet` are topics that nobody writes to.
pub fn picture(bootstrap: &str, quiet: &[&str]) -> Picture {
    let text = Twinlog::config(bootstrap, bootstrap, "");
    let config = twinlog::config::parse(&text, "a test's").expect("a valid config");
    let cluster = connect::cluster(&config.clusters["primary"]);
    block_on(async {
        let metadata = cluster.metadata(None).await.expect("metadata");
        let names: Vec<String> = metadata.topics.keys().cloned().collect();
        let configs = wire::describe_topic_configs(&cluster, &names).await;
        let mut topics = BTreeMap::new();
        for (name, topic) in &metadata.topics {
            let configs: BTreeMap<_, _> = configs
                .get(name)
                .and_then(|it| it.as_ref().ok())
                .into_iter()
                .flatten()
                .map(|(key, value)| (key.clone(), format!("{value:?}")))
                .collect();
            let text = format!("{} {} {configs:?}", topic.topic_id, topic.partitions.len());
            topics.insert(name.clone(), text);
        }
        let acls = match wire::describe_acls(&cluster).await {
            Ok(answer) => answer.acls(&cluster).unwrap_or_default(),
            // Without an authorizer there are none.
            Err(_) => Vec::new(),
        };
        let listed = wire::list_groups(&cluster).await.expect("groups");
        let names: Vec<String> = listed.groups.into_iter().map(|it| it.group_id).collect();
        let mut groups = BTreeMap::new();
        for (name, positions) in wire::fetch_group_offsets(&cluster, &names).await {
            let positions = positions.expect("positions").into_iter();
            groups.insert(name, positions.map(|(at, it)| (at, it.offset)).collect());
        }
        let quiet: Vec<TopicPartition> = quiet
            .iter()
            .flat_map(|topic| {
                let partitions = metadata
                    .topics
                    .get(*topic)
                    .map_or(0, |it| it.partitions.len());
                (0..)
                    .take(partitions)
                    .map(|number| TopicPartition::new(*topic, number))
            })
            .collect();
        let ends = wire::list_offsets(&cluster, &quiet, wire::OffsetSpec::Latest).await;
        let ends = ends
            .into_iter()
            .map(|(at, end)| (at, end.expect("an end")))
            .collect();
        Picture {
            topics,
            acls: acls.into_iter().map(|acl| format!("{acl:?}")).collect(),
            groups,
            ends,
        }
    })
}
