//! The flow that copies back to the old primary, while the role says so.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::all;
use super::error::FlowError;
use super::run::run_flow;
use crate::config::{ClusterSection, FlowConfig};
use crate::state::{ReignRecord, RoleRecord, StateStore, TopicSet, keys};
use crate::telemetry::progress::FlowProgress;

/// How long it may take to end in order; a flow takes 9 s at most.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// Starts and stops it.
pub struct CopyBack {
    /// The flow that was failed over.
    flow: FlowConfig,
    source: ClusterSection,
    target: ClusterSection,
    progress: Arc<FlowProgress>,
    cancel: CancellationToken,
    running: Option<Running>,
}

struct Running {
    topics: TopicSet,
    name: String,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl CopyBack {
    /// For a flow, as the config has it.
    pub fn new(
        flow: &FlowConfig,
        (source, target): (&ClusterSection, &ClusterSection),
        progress: &Arc<FlowProgress>,
        cancel: &CancellationToken,
    ) -> Self {
        Self {
            flow: flow.clone(),
            source: source.clone(),
            target: target.clone(),
            progress: progress.clone(),
            cancel: cancel.clone(),
            running: None,
        }
    }

    /// The flow that was failed over, as the config has it.
    pub fn flow(&self) -> &FlowConfig {
        &self.flow
    }

    /// Whom the old primary's brokers take us for, as far as is known.
    pub fn own_principal(&self) -> Option<String> {
        self.source.principal()
    }

    /// Copies back what the role says, and no more. A flow that ended by itself (another process
    /// copies) isn't begun again until the role is another.
    pub async fn follow(&mut self, store: &StateStore, role: Option<&RoleRecord>) {
        let wanted = role.and_then(RoleRecord::copied_back);
        if self.running.as_ref().map(|running| &running.topics) == wanted {
            return;
        }
        self.stop().await;
        if let Some(topics) = wanted {
            self.running = self.start(store, topics.clone());
        }
    }

    fn start(&self, store: &StateStore, topics: TopicSet) -> Option<Running> {
        let listed = match &topics {
            TopicSet::All => None,
            TopicSet::List(topics) => Some(topics),
        };
        let reign = store.get::<ReignRecord>(&keys::reign(&self.flow.name));
        // What can't be read is no reason to take the standby's own topics along.
        let reversed = reign.map_err(|error| error.to_string()).and_then(|reign| {
            let own_topics = reign.unwrap_or_default().own_topics;
            self.flow.reversed(listed, &own_topics)
        });
        let back = match reversed {
            Ok(back) => back,
            Err(error) => {
                tracing::error!(flow = %self.flow.name, error, "it can't be copied back");
                return None;
            }
        };
        tracing::info!(flow = %back.name, "copying back from {} to {}", back.source, back.target);
        let progress = self
            .progress
            .companion(&back.name, &back.source, &back.target);
        let name = back.name.clone();
        let cancel = self.cancel.child_token();
        let (from, to) = (self.target.clone(), self.source.clone());
        let running = run_boxed(back, from, to, progress.clone(), cancel.clone());
        // A task of its own, so that a panic in it is told.
        let running = tokio::spawn(running);
        let task = tokio::spawn(async move {
            let result = all::ended(running.await);
            if let Err(error) = &result {
                tracing::warn!(flow = %progress.name, %error, "copying back has ended");
            }
            all::note_end(&progress, &result);
        });
        Some(Running {
            topics,
            name,
            cancel,
            task,
        })
    }

    /// Ends it in order.
    pub async fn stop(&mut self) {
        let Some(running) = self.running.take() else {
            return;
        };
        running.cancel.cancel();
        if tokio::time::timeout(ENDS_WITHIN, running.task)
            .await
            .is_err()
        {
            tracing::warn!(flow = %running.name, "copying back did not end in time");
        }
        self.progress.remove_companion(&running.name);
    }
}

type Run = Pin<Box<dyn Future<Output = Result<(), FlowError>> + Send>>;

/// A flow that runs a flow: its type has an end only in a box.
fn run_boxed(
    flow: FlowConfig,
    source: ClusterSection,
    target: ClusterSection,
    progress: Arc<FlowProgress>,
    cancel: CancellationToken,
) -> Run {
    Box::pin(run_flow(flow, source, target, progress, cancel))
}
