//! The tasks that a flow is made of. Each lasts as long as the flow: one that panics, or ends before, is
//! told to whoever runs the flow, so that nothing looks alive without a part of it.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How a task ended that should have gone on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// It panicked.
    #[error("the {task} panicked: {message}")]
    Panicked {
        /// The task, in words.
        task: &'static str,
        /// The panic's words.
        message: String,
    },
    /// It returned.
    #[error("the {task} ended by itself")]
    Ended {
        /// The task, in words.
        task: &'static str,
    },
}

/// Spawns a flow's tasks and watches over them. Clones are the same.
#[derive(Clone, Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    cancel: CancellationToken,
    first: Arc<OnceLock<Broken>>,
    is_broken: CancellationToken,
}

impl Tasks {
    /// None yet; `cancel` is what tells them to end.
    pub fn new(cancel: CancellationToken) -> Self {
        Self {
            tracker: TaskTracker::new(),
            cancel,
            first: Arc::default(),
            is_broken: CancellationToken::new(),
        }
    }

    /// Spawns a task that lasts until it is told to end.
    pub fn spawn(&self, task: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let tasks = self.clone();
        self.tracker.spawn(async move {
            match caught(work).await {
                Ok(()) if tasks.cancel.is_cancelled() => {}
                Ok(()) => tasks.note(Broken::Ended { task }),
                Err(message) => tasks.note(Broken::Panicked { task, message }),
            }
        });
    }

    /// Spawns a task that is done some time.
    pub fn spawn_errand(
        &self,
        task: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let tasks = self.clone();
        self.tracker.spawn(async move {
            if let Err(message) = caught(work).await {
                tasks.note(Broken::Panicked { task, message });
            }
        });
    }

    /// Resolves when a task has ended that shouldn't have, and tells the first one.
    pub async fn broken(&self) -> Broken {
        loop {
            self.is_broken.cancelled().await;
            if let Some(first) = self.first.get() {
                return first.clone();
            }
        }
    }

    /// Waits until all have ended.
    pub async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    fn note(&self, broken: Broken) {
        tracing::error!("{broken}");
        // Others end because of the first.
        let _ = self.first.set(broken);
        self.is_broken.cancel();
    }
}

/// Runs to the end of the work, or of the panic in it, whose words come back.
async fn caught<T>(work: impl Future<Output = T>) -> Result<T, String> {
    let mut work = Box::pin(work);
    // What was half done is never touched again: the flow ends.
    poll_fn(
        |context| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(done)) => Poll::Ready(Ok(done)),
            Err(payload) => Poll::Ready(Err(words(&*payload))),
        },
    )
    .await
}

fn words(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    text.unwrap_or("without words").to_owned()
}

/// What a task has brought that nobody aborts. If it panicked, so does whoever waited for it: the panic
/// of a part is never taken for an empty answer.
pub fn brought<T>(joined: Result<T, JoinError>) -> T {
    joined.unwrap_or_else(|error| resume_unwind(error.into_panic()))
}

/// Goes on with the panic of a part. One that was aborted has none: the runtime is shutting down.
pub fn resume_panic(error: JoinError) {
    if let Ok(payload) = error.try_into_panic() {
        resume_unwind(payload);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn told(spawn: impl FnOnce(&Tasks)) -> Option<Broken> {
        let tasks = Tasks::new(CancellationToken::new());
        spawn(&tasks);
        tasks.ended().await;
        tasks.first.get().cloned()
    }

    #[tokio::test]
    async fn an_end_before_the_flow_s_is_told() {
        let ended = told(|tasks| tasks.spawn("lane", async {})).await;
        assert_eq!(ended, Some(Broken::Ended { task: "lane" }));
        let told_to = told(|tasks| {
            tasks.cancel.cancel();
            tasks.spawn("lane", async {});
        });
        assert_eq!(told_to.await, None);
        assert_eq!(
            told(|tasks| tasks.spawn_errand("lane", async {})).await,
            None
        );
    }

    #[tokio::test]
    async fn a_panic_is_told_also_of_a_part() {
        let part = async {
            let part = tokio::spawn(async { panic!("no {}", 7) });
            brought(part.await)
        };
        let panicked = told(|tasks| tasks.spawn_errand("lane", part)).await;
        let message = "no 7".to_owned();
        let task = "lane";
        assert_eq!(panicked, Some(Broken::Panicked { task, message }));
    }
}
