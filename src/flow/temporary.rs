//! Metadata started, until the flow does it.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::shared::Flow;
use crate::metadata::{self, Context, MirroredTopic, Topics};

impl Topics for Flow {
    fn mirrored(&self) -> Vec<MirroredTopic> {
        let target = self.target.cached();
        let mirrored = self.topics.iter().filter_map(|entry| {
            let target_topic = entry.value().record.target_topic.clone();
            let described = target.topics.get(&target_topic)?;
            let replicas = described.partitions.iter().map(|it| it.replicas.len());
            Some(MirroredTopic {
                source_topic: entry.key().to_string(),
                target_replicas: replicas.min().unwrap_or(1),
                target_topic,
            })
        });
        mirrored.collect()
    }

    fn configs_changed(&self, source_topics: &[String]) {
        self.note_stale(source_topics);
    }
}

pub(super) async fn follow(flow: Arc<Flow>, cancel: CancellationToken) {
    let context = Context {
        flow: flow.config.name.clone(),
        source_name: flow.config.source.clone(),
        source: flow.source.clone(),
        target: flow.target.clone(),
        store: Some(flow.store.clone()),
        selected: flow.config.topics.clone(),
        rename: flow.config.rename.clone(),
        topics: flow.clone(),
        rules: flow.config.metadata.clone(),
        own_principal: None,
        own_client_id: "twinlog".to_owned(),
        apply: true,
    };
    let look_now = Arc::new(Notify::new());
    metadata::follow(context, flow.progress.clone(), look_now, cancel).await;
    let _ = flow.gone_topics();
}
