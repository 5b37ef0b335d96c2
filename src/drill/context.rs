//! What all parts of a rehearsal share.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::error::DrillError;
use super::names::{Kind, Names};
use super::scope::{Choice, Limits};
use crate::config::{ClusterSection, FlowConfig, Selector};
use crate::cutover::Tell;
use crate::cutover::context::{is_there, remembered};
use crate::cutover::pairs::{CutTopic, Maps, Pair, load_maps, pairs};
use crate::environment::Machine;
use crate::state::keys::MapKeys;
use crate::state::{StateStore, TopicSet, maps};
use crate::wire::Cluster;

/// What the operator asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Where the config was read from: the copying process reads it too.
    pub config_file: PathBuf,
    /// Only topics whose whole name matches.
    pub topics: Option<Selector>,
    /// How much is copied.
    pub limits: Limits,
    /// Bytes per second that are copied and compared at most.
    pub bytes_per_second: Option<u64>,
    /// What is rehearsed.
    pub kinds: Vec<Kind>,
    /// Whether a topic of the rehearsal's own may be made on the source.
    pub may_use_source: bool,
    /// Percent of the standby's records that are compared; `None` lets `limits` decide.
    pub verify_percent: Option<f64>,
    /// The recovery time that must be kept, seconds.
    pub rto_seconds_max: Option<f64>,
    /// The loss that is allowed, seconds.
    pub rpo_seconds_max: Option<f64>,
    /// How long each thing is waited for.
    pub wait: Duration,
    /// Leave everything for a look; the next rehearsal removes it.
    pub keep: bool,
}

/// The two clusters and the flow that is rehearsed.
pub struct Scene {
    /// The flow.
    pub flow: FlowConfig,
    /// How the source is reached.
    pub source_section: ClusterSection,
    /// How the target is reached.
    pub target_section: ClusterSection,
    /// The source.
    pub source: Cluster,
    /// The target.
    pub target: Cluster,
    /// The state on the target, opened for the flow.
    pub store: Arc<StateStore>,
    /// What everything is called.
    pub names: Names,
    /// What was asked for.
    pub request: Request,
    /// About how many bytes the selected topics have, copied or not.
    pub bytes_selected: u64,
    /// What is copied.
    pub choice: Choice,
    /// Tells the operator how it goes.
    pub tell: Tell,
}

/// The partitions that a flow copies, as its state on the target says now.
pub struct Copied {
    /// The topics.
    pub topics: Vec<CutTopic>,
    /// Their partitions.
    pub pairs: Vec<Pair>,
    /// The maps of those that have one.
    pub maps: Maps,
}

impl Scene {
    /// Where this process runs.
    pub fn machine(&self) -> &dyn Machine {
        self.target_section.environment.machine.as_ref()
    }

    /// What `flow` copies and can be translated; `store` is opened for it.
    ///
    /// # Errors
    /// When a cluster doesn't answer, or the state can't be read.
    pub async fn copied(
        &self,
        flow: &FlowConfig,
        store: &StateStore,
    ) -> Result<Copied, DrillError> {
        let (from, to) = tokio::join!(self.source.metadata(None), self.target.metadata(None));
        let (from, to) = (from?, to?);
        store.refresh().await?;
        let mut topics = remembered(store, flow, &TopicSet::All)?;
        topics.retain(|it| is_there(it, Some(&from), &to));
        // A map is stored some seconds after its topic.
        let mut without_map = HashSet::new();
        for pair in pairs(&topics).iter().filter(|pair| pair.mapped) {
            let keys = MapKeys::new(&flow.name, &pair.source.topic, pair.source.partition);
            if maps::load(store, &keys)?.is_none() {
                without_map.insert(pair.source.topic.clone());
            }
        }
        topics.retain(|topic| !without_map.contains(&topic.name));
        let pairs = pairs(&topics);
        let maps = load_maps(store, &flow.name, &pairs)?;
        Ok(Copied {
            topics,
            pairs,
            maps,
        })
    }
}

impl Copied {
    /// How many of these topics are copied with all their partitions.
    pub fn is_complete(&self, wanted: &[(String, usize)]) -> bool {
        let present: HashSet<(&str, usize)> = self
            .topics
            .iter()
            .map(|topic| (topic.name.as_str(), topic.record.origins.len()))
            .collect();
        wanted
            .iter()
            .all(|(name, partitions)| present.contains(&(name.as_str(), *partitions)))
    }
}
