//! The journal: what a plan is and how far it got, on the standby.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::CutoverError;
use super::lease::Lease;
use super::progress;
use crate::state::{CutoverRecord, CutoverState, StateStore, StepState, keys};
use crate::telemetry::progress::now_ms;

/// Tests end the process here: `STEP:MOMENT`.
const EXIT_AT: &str = "TWINLOG_CUTOVER_EXIT_AT";

/// A plan that this process carries out.
pub struct Journal {
    store: Arc<StateStore>,
    key: String,
    lease: Lease,
    /// As written last.
    pub record: CutoverRecord,
}

impl Journal {
    /// Begins or takes up a plan; `lease` is the right to.
    ///
    /// # Errors
    /// When it can't be written.
    pub async fn open(
        store: Arc<StateStore>,
        flow: &str,
        lease: Lease,
        record: CutoverRecord,
    ) -> Result<Self, CutoverError> {
        let journal = Self {
            store,
            key: keys::cutover(flow),
            lease,
            record,
        };
        journal.write().await?;
        Ok(journal)
    }

    /// Whether this process may still carry it out.
    ///
    /// # Errors
    /// When another one has taken it over.
    pub async fn check(&self) -> Result<(), CutoverError> {
        self.lease.check().await
    }

    async fn write(&self) -> Result<(), CutoverError> {
        self.lease.check().await?;
        Ok(self.store.put(&self.key, &self.record).await?)
    }

    /// Notes that a step is begun: `Doing` or `Undoing`.
    ///
    /// # Errors
    /// When that can't be written, or the lease is lost.
    pub async fn begin(&mut self, index: usize, state: StepState) -> Result<(), CutoverError> {
        progress::begin(&mut self.record.steps[index], state, now_ms());
        self.write().await?;
        self.exit_if_told(index, "begun");
        Ok(())
    }

    /// Notes what became of it.
    ///
    /// # Errors
    /// As [`Journal::begin`].
    pub async fn end(
        &mut self,
        index: usize,
        state: StepState,
        result: String,
    ) -> Result<(), CutoverError> {
        self.exit_if_told(index, "worked");
        progress::end(&mut self.record.steps[index], state, now_ms(), result);
        self.write().await?;
        self.exit_if_told(index, "ended");
        Ok(())
    }

    /// Notes where the whole plan stands.
    ///
    /// # Errors
    /// As [`Journal::begin`].
    pub async fn set_state(&mut self, state: CutoverState) -> Result<(), CutoverError> {
        self.record.state = state;
        self.write().await
    }

    /// Remembers what a step found; written with the step.
    pub fn note(&mut self, name: &str, fact: &impl Serialize) {
        // Facts are plain numbers, texts and lists, which always encode.
        let value = serde_json::to_value(fact).unwrap_or_default();
        self.record.facts.insert(name.to_owned(), value);
    }

    /// Writes what was noted so far.
    ///
    /// # Errors
    /// As [`Journal::begin`].
    pub async fn save(&self) -> Result<(), CutoverError> {
        self.write().await
    }

    /// What a step found, if it did.
    pub fn fact<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        fact(&self.record, name)
    }

    /// Ends with the plan, done or not.
    pub async fn close(self) -> CutoverRecord {
        self.lease.release().await;
        self.record
    }

    /// A crash at a moment that tests choose: what a `kill -9` there leaves.
    fn exit_if_told(&self, index: usize, moment: &str) {
        let step = &self.record.steps[index].step;
        if std::env::var(EXIT_AT).is_ok_and(|at| at == format!("{step}:{moment}")) {
            std::process::exit(137);
        }
    }
}

/// What a step of a plan found.
pub fn fact<T: DeserializeOwned>(record: &CutoverRecord, name: &str) -> Option<T> {
    let value = record.facts.get(name)?.clone();
    serde_json::from_value(value).ok()
}
