//! What flows that go the other way made on this flow's source.
//!
//! It isn't the source's own. Taken for that, a grant that an operator removes on one cluster would
//! come back from the other one for ever, and a quota's new value would be overwritten with the old.

use std::collections::BTreeSet;

use super::acls;
use super::context::Context;
use super::pass::obstacle;
use super::quotas::Memory;
use crate::state::{STATE_TOPIC, StateError, StateStore};
use crate::telemetry::metadata::{DriftKind, Obstacle};
use crate::wire::AclBinding;

/// The state topic on the source, if there is such a flow.
#[derive(Debug, Default)]
pub(super) struct Opposite {
    store: Option<StateStore>,
}

/// What isn't the source's own.
#[derive(Debug, Default)]
pub(super) struct Foreign {
    pub acls: BTreeSet<AclBinding>,
    pub quotas: Memory,
}

impl Opposite {
    /// Reads it. This comes before the source is asked for what it has: what is taken away there
    /// meanwhile is known here yet.
    ///
    /// # Errors
    /// Why it isn't known. Nothing may follow then.
    pub(super) async fn look(&mut self, context: &Context) -> Result<Foreign, Obstacle> {
        if context.opposite.is_empty() {
            return Ok(Foreign::default());
        }
        self.read(context).await.map_err(|error| match &error {
            StateError::Wire(error) => {
                let grant = format!(
                    "grant READ on topic {STATE_TOPIC} on the source to Twinlog's principal: flow \
                     {} keeps there what it made",
                    context.opposite.join(", ")
                );
                obstacle(DriftKind::Acl, "source", error, &grant)
            }
            other => Obstacle {
                kind: DriftKind::Acl,
                cluster: "source".to_owned(),
                reason: "state".to_owned(),
                message: other.to_string(),
                hint: None,
                is_problem: true,
                since_ms: 0,
            },
        })
    }

    async fn read(&mut self, context: &Context) -> Result<Foreign, StateError> {
        if let Some(store) = &self.store {
            store.refresh().await?;
        } else {
            self.store = open(context).await?;
        }
        let mut foreign = Foreign::default();
        if let Some(store) = &self.store {
            for flow in &context.opposite {
                foreign.acls.extend(acls::made(store, flow)?);
                foreign.quotas.add(store, flow)?;
            }
        }
        Ok(foreign)
    }
}

/// `None` where nobody copies to the source: then nothing there is a copy.
async fn open(context: &Context) -> Result<Option<StateStore>, StateError> {
    StateStore::open_existing(&context.source).await
}
