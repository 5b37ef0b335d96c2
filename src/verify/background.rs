//! Comparing everything again and again while a flow runs, at a limited rate.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::VerifyError;
use super::progress::Progress;
use super::remember::{last, remember_as};
use super::report::{Mode, Report, Verdict};
use super::run::{Request, verify};
use super::sample::Sampling;
use crate::config::{ClusterSection, FlowConfig};
use crate::state::StateStore;
use crate::telemetry::progress::FlowProgress;
use crate::telemetry::verify::{BackgroundRound, VerifySummary};

/// How often what is shown is brought up to date.
const SHOW_EVERY: Duration = Duration::from_secs(1);
/// The first round begins so long after the flow, or when the flow's interval is shorter then: a
/// flow that just begins has better things to do.
const FIRST_AFTER: Duration = Duration::from_secs(60);
/// The name of background rounds among the remembered results.
const MODE: &str = "background";

/// What the background needs of a flow.
pub struct Background {
    /// The flow.
    pub flow: FlowConfig,
    /// Its source.
    pub source: ClusterSection,
    /// Its target.
    pub target: ClusterSection,
    /// Its state, with its maps.
    pub store: Arc<StateStore>,
    /// Where what is known is shown.
    pub progress: Arc<FlowProgress>,
}

/// Shows what is remembered of comparisons, by whomever, and compares in the background where the
/// flow's config says so. Until cancelled.
pub async fn run(background: Background, cancel: CancellationToken) {
    let shown = Arc::new(Shown::default());
    let rounds = async {
        if background.flow.verify.background {
            rounds(&background, &shown, &cancel).await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    let show = async {
        loop {
            background.show(&shown);
            tokio::time::sleep(SHOW_EVERY).await;
        }
    };
    tokio::select! {
        () = cancel.cancelled() => {}
        () = rounds => {}
        () = show => {}
    }
}

/// What the present round shows.
#[derive(Default)]
struct Shown {
    progress: std::sync::Mutex<Option<Arc<Progress>>>,
    /// Of the rounds before.
    bytes: std::sync::atomic::AtomicU64,
    problem: std::sync::Mutex<Option<String>>,
}

impl Shown {
    fn round(&self) -> BackgroundRound {
        use std::sync::{PoisonError, atomic::Ordering};
        let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.bytes.load(Ordering::Relaxed);
        BackgroundRound {
            ratio: progress.as_ref().map_or(1.0, |progress| progress.ratio()),
            bytes: before + progress.as_ref().map_or(0, |progress| progress.bytes()),
            problem: problem.clone(),
        }
    }

    fn begin(&self) -> Arc<Progress> {
        let progress = Arc::new(Progress::default());
        *self
            .progress
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(progress.clone());
        progress
    }

    fn end(&self, problem: Option<String>) {
        use std::sync::{PoisonError, atomic::Ordering};
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(progress) = progress.take() {
            self.bytes.fetch_add(progress.bytes(), Ordering::Relaxed);
        }
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }
}

impl Background {
    fn show(&self, shown: &Shown) {
        let last = match last(&self.store, &self.flow.name) {
            Ok(record) => record.last,
            Err(error) => {
                tracing::debug!(%error, "what is remembered of comparisons can't be read");
                return;
            }
        };
        let background = self.flow.verify.background.then(|| shown.round());
        if !last.is_empty() || background.is_some() {
            let summary = VerifySummary { last, background };
            self.progress.set_verify(Some(Arc::new(summary)));
        }
    }

    fn request(&self) -> Request {
        Request {
            flow: self.flow.clone(),
            source: self.source.clone(),
            target: self.target.clone(),
            topics: None,
            mode: Mode::Full,
            sampling: Sampling {
                percent: 100.0,
                seed: 0,
            },
            bytes_per_second: Some(self.flow.verify.bytes_per_second),
            partitions_at_once: 1,
            again_within: None,
        }
    }

    fn tell(&self, report: &Report) {
        let flow = &self.flow.name;
        let differences: u64 = report.totals.differences.values().sum();
        match report.verdict {
            Verdict::Same => tracing::info!(
                flow,
                records = report.totals.records,
                "verified in the background: the same"
            ),
            Verdict::Different => tracing::error!(
                flow,
                differences,
                first = report.differences.first().map(|one| one.detail.as_str()),
                "verified in the background: the target differs; `twinlog verify --full` lists how"
            ),
            Verdict::Incomplete => tracing::warn!(
                flow,
                "verified in the background: not everything could be compared; `twinlog verify` \
                 says what"
            ),
        }
    }
}

async fn rounds(background: &Background, shown: &Shown, cancel: &CancellationToken) {
    let interval = background.flow.verify.interval;
    tokio::time::sleep(FIRST_AFTER.min(interval)).await;
    loop {
        let next = Instant::now() + interval;
        let progress = shown.begin();
        let request = background.request();
        let problem = match verify(&request, &background.store, progress, cancel).await {
            Ok(report) => {
                background.tell(&report);
                let remembered = remember_as(MODE, &background.store, &report).await;
                remembered.err().map(|error| error.to_string())
            }
            // The flow ends: nothing is wrong.
            Err(VerifyError::Cancelled) => return,
            Err(error) => Some(error.to_string()),
        };
        if let Some(problem) = &problem {
            tracing::warn!(flow = %background.flow.name, problem, "verifying in the background");
        }
        shown.end(problem);
        tokio::time::sleep_until(next.max(Instant::now() + SHOW_EVERY)).await;
    }
}
