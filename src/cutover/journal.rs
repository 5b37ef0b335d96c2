//! The journal: what a plan is and how far it got, on the standby.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::error::CutoverError;
use super::lease::Lease;
use super::progress;
use super::steps::Step;
use crate::state::{
    CutoverRecord, CutoverState, StateError, StateRecord, StateStore, StepState, keys,
};
use crate::telemetry::progress::now_ms;

/// Tests end the process here: `STEP:MOMENT`.
const EXIT_AT: &str = "TWINLOG_CUTOVER_EXIT_AT";

/// A write that was sent so long ago stands for a look at the lease.
const JUST_SHOWN: Duration = Duration::from_secs(1);

/// A plan that this process carries out.
///
/// A write is a round trip to the state topic, and clients wait meanwhile. So only what the next thing
/// relies on is waited for: that a step is begun which has something to undo. The rest goes on beside the
/// work, one write after the other, and the next one that is waited for is behind it.
pub struct Journal {
    store: Arc<StateStore>,
    key: String,
    lease: Lease,
    /// A write that nobody waits for yet.
    under_way: Option<JoinHandle<Result<(), StateError>>>,
    /// When the broker last took a write of ours: nobody had the lease before that.
    held_at: Instant,
    /// The step that was noted as begun with what the one before it wrote.
    begun_ahead: Option<usize>,
    /// As written last, or being written.
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
        let mut journal = Self {
            store,
            key: keys::cutover(flow),
            lease,
            under_way: None,
            held_at: Instant::now(),
            begun_ahead: None,
            record,
        };
        journal.write().await?;
        Ok(journal)
    }

    /// Whether this process may still carry it out: a look at the lease, unless a write has just shown it.
    ///
    /// # Errors
    /// When another one has taken it over.
    pub async fn check(&self) -> Result<(), CutoverError> {
        self.lease.still_held()?;
        match self.held_at.elapsed() < JUST_SHOWN {
            true => Ok(()),
            false => self.lease.check().await,
        }
    }

    /// The broker refuses it from whoever has lost the lease.
    async fn write(&mut self) -> Result<(), CutoverError> {
        self.write_with(Vec::new()).await
    }

    /// Writes what was noted so far, and behind it these, as one.
    ///
    /// # Errors
    /// As [`Journal::begin`].
    pub async fn write_with(&mut self, records: Vec<StateRecord>) -> Result<(), CutoverError> {
        self.lease.still_held()?;
        self.written().await?;
        let mut all = vec![StateStore::record(self.key.clone(), &self.record)?];
        all.extend(records);
        let sent_at = Instant::now();
        match self.store.write_all(all).await {
            Ok(()) => {
                self.held_at = sent_at;
                Ok(())
            }
            // The look has the words for who it is.
            Err(StateError::Overtaken) => {
                self.lease.check().await?;
                Err(StateError::Overtaken.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for what is being written.
    async fn written(&mut self) -> Result<(), CutoverError> {
        let Some(under_way) = self.under_way.take() else {
            return Ok(());
        };
        match under_way.await {
            Ok(Err(StateError::Overtaken)) => {
                self.lease.check().await?;
                Err(StateError::Overtaken.into())
            }
            Ok(written) => Ok(written?),
            Err(error) => Err(CutoverError::failed(format!("a defect: {error}"))),
        }
    }

    /// Writes beside what comes next.
    async fn write_beside(&mut self) -> Result<(), CutoverError> {
        self.lease.still_held()?;
        self.written().await?;
        let (store, key, record) = (self.store.clone(), self.key.clone(), self.record.clone());
        self.under_way = Some(tokio::spawn(async move { store.put(&key, &record).await }));
        Ok(())
    }

    /// Notes that a step is begun which changes nothing: nobody has to undo it, and nobody waits for the note.
    ///
    /// # Errors
    /// As [`Journal::begin`].
    pub async fn begin_beside(&mut self, index: usize) -> Result<(), CutoverError> {
        progress::begin(&mut self.record.steps[index], StepState::Doing, now_ms());
        self.write_beside().await?;
        self.exit_if_told(index, "begun").await;
        Ok(())
    }

    /// Notes that a step is begun which writes that itself, with the first thing that it changes.
    ///
    /// # Errors
    /// As [`Journal::begin`].
    pub async fn begin_unwritten(&mut self, index: usize) -> Result<(), CutoverError> {
        self.lease.still_held()?;
        progress::begin(&mut self.record.steps[index], StepState::Doing, now_ms());
        self.exit_if_told(index, "begun").await;
        Ok(())
    }

    /// Notes what became of a step; the begin of the next one is written behind it. A crash in between is as one
    /// before: the step is done again, which changes nothing.
    ///
    /// # Errors
    /// As [`Journal::begin`].
    pub async fn end_beside(&mut self, index: usize, result: String) -> Result<(), CutoverError> {
        self.exit_if_told(index, "worked").await;
        progress::end(
            &mut self.record.steps[index],
            StepState::Done,
            now_ms(),
            result,
        );
        self.exit_if_told(index, "ended").await;
        Ok(())
    }

    /// The next write says, too, that the step behind this one is begun, where that needs no write of its own.
    pub fn begin_ahead_of(&mut self, step: Step) {
        let mut steps = self.record.steps.iter();
        let next = steps.position(|it| it.step == step.name());
        let next = next.map_or(usize::MAX, |index| index + 1);
        let Some(record) = self.record.steps.get_mut(next) else {
            return;
        };
        // One that is done stays done, where a step before it is looked at again.
        let is_next = record.state == StepState::Pending;
        if is_next && Step::named(&record.step).is_some_and(Step::is_begun_ahead) {
            progress::begin(record, StepState::Doing, now_ms());
            self.begun_ahead = Some(next);
        }
    }

    /// Notes that a step is begun: `Doing` or `Undoing`.
    ///
    /// # Errors
    /// When that can't be written, or the lease is lost.
    pub async fn begin(&mut self, index: usize, state: StepState) -> Result<(), CutoverError> {
        if self.begun_ahead.take() == Some(index) && state == StepState::Doing {
            return self.begin_unwritten(index).await;
        }
        progress::begin(&mut self.record.steps[index], state, now_ms());
        self.write().await?;
        self.exit_if_told(index, "begun").await;
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
        self.exit_if_told(index, "worked").await;
        progress::end(&mut self.record.steps[index], state, now_ms(), result);
        self.write().await?;
        self.exit_if_told(index, "ended").await;
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

    /// Whether there may be something of a step.
    pub fn may_have_done(&self, step: Step) -> bool {
        let mut steps = self.record.steps.iter();
        steps.any(|it| it.step == step.name() && progress::may_have_done(it))
    }

    /// What a step found before holds no more. Written with the next note.
    pub fn forget(&mut self, name: &str) {
        self.record.facts.remove(name);
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
    pub async fn save(&mut self) -> Result<(), CutoverError> {
        self.write().await
    }

    /// What a step found, if it did.
    pub fn fact<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        fact(&self.record, name)
    }

    /// Ends with the plan, done or not.
    pub async fn close(mut self) -> CutoverRecord {
        if let Err(error) = self.written().await {
            tracing::debug!(error = %error.message, "the journal could not be written");
        }
        self.lease.release().await;
        self.record
    }

    /// A crash at a moment that tests choose: what a `kill -9` there leaves.
    async fn exit_if_told(&mut self, index: usize, moment: &str) {
        let step = &self.record.steps[index].step;
        if std::env::var(EXIT_AT).is_ok_and(|at| at == format!("{step}:{moment}")) {
            // What that moment says must be there.
            if self.written().await.is_ok() && moment != "worked" {
                let _ = self.write().await;
            }
            std::process::exit(137);
        }
    }
}

/// What a step of a plan found.
pub fn fact<T: DeserializeOwned>(record: &CutoverRecord, name: &str) -> Option<T> {
    let value = record.facts.get(name)?.clone();
    serde_json::from_value(value).ok()
}
