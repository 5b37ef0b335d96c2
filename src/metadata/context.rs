//! What following metadata needs: both clusters, what is remembered, the copied topics, the rules.

use std::sync::Arc;

use uuid::Uuid;

use super::configs::Needs;
use crate::config::{MetadataRules, Rename, Selector};
use crate::state::StateStore;
use crate::telemetry::metadata::Drift;
use crate::wire::Cluster;

/// A topic that is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirroredTopic {
    /// Its name on the source.
    pub source_topic: String,
    /// Its id there when the copy began.
    pub source_id: Uuid,
    /// Its name on the target.
    pub target_topic: String,
    /// The copy's id.
    pub target_id: Uuid,
    /// The smallest number of replicas that a partition has on the target. `None` while one of the
    /// two names isn't known to be the topic of that id: nothing about it is followed then.
    pub target_replicas: Option<usize>,
    /// Whether the target had the topic, with records, before the copy began.
    pub was_there: bool,
    /// What the copy must take although the source's topic doesn't any more.
    pub needs: Needs,
}

/// The copy, as metadata sees it. Answers come from memory; nothing here waits.
pub trait Topics: Send + Sync {
    /// The topics whose counterparts exist. The same list tells that nothing has changed.
    fn mirrored(&self) -> Arc<[MirroredTopic]>;

    /// What differs about topics as a whole: copies of topics that are gone from the source.
    fn drift(&self) -> Vec<Drift>;

    /// Configs of these source topics' copies were changed: what was derived from them is stale.
    fn configs_changed(&self, source_topics: &[String]);

    /// Tells the settings that a copy's rules are to be made from, as they are now on both sides, by
    /// [`fingerprint_of_rules`](super::fingerprint_of_rules). True if its rules were made from others, which makes them stale.
    fn rest_on_others(&self, source_topic: &str, fingerprint: u64) -> bool;
}

/// What every aspect needs.
#[derive(Clone)]
pub struct Context {
    /// The flow's name.
    pub flow: String,
    /// The source cluster's name in the config, for renaming.
    pub source_name: String,
    /// Where things are followed.
    pub source: Cluster,
    /// Where they are applied.
    pub target: Cluster,
    /// What is remembered on the target; `None` only where nothing is applied (`plan`) and there
    /// is none yet.
    pub store: Option<Arc<StateStore>>,
    /// The flows that go the other way, from the target to the source: what they made on the source
    /// isn't followed.
    pub opposite: Vec<String>,
    /// Which topics are copied.
    pub selected: Selector,
    /// What they are called on the target.
    pub rename: Rename,
    /// Which groups are followed.
    pub groups: Selector,
    /// The copied topics.
    pub topics: Arc<dyn Topics>,
    /// The rules.
    pub rules: MetadataRules,
    /// Whom the target's brokers take Twinlog for, if that is known.
    pub own_principal: Option<String>,
    /// The client id that Twinlog sends to the target.
    pub own_client_id: String,
    /// Whether differences are applied, or only shown.
    pub apply: bool,
}

impl Context {
    /// A source topic's name on the target.
    pub fn target_topic(&self, source_topic: &str) -> String {
        self.rename.apply(&self.source_name, source_topic)
    }
}
