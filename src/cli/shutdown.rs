//! SIGINT and SIGTERM: the first asks everything to finish, a second one ends at once. SIGHUP changes limits.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Exit;

/// The signals that end the process.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Takes the signals over; from here on they don't end the process by themselves.
    ///
    /// # Errors
    /// When the handlers can't be installed.
    pub(super) fn install() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// The name of the next signal.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }

    /// Waits for one that shall end a command which may be ended at any moment.
    pub(super) async fn first(mut self) {
        self.next().await;
    }

    /// Cancels at the first signal and ends the process at the second. Ending at once is
    /// safe: the target log is the checkpoint.
    pub(super) async fn drive(mut self, cancel: CancellationToken) {
        let name = self.next().await;
        info!("{name}: finishing what is under way; once more ends at once");
        cancel.cancel();
        let name = self.next().await;
        warn!("{name} again: ending at once");
        std::process::exit(i32::from(Exit::Failed.code()));
    }
}

/// SIGHUP, which ends nothing.
pub(super) struct Hangups(Signal);

impl Hangups {
    /// Takes it over.
    ///
    /// # Errors
    /// When the handler can't be installed.
    pub(super) fn install() -> std::io::Result<Self> {
        Ok(Self(signal(SignalKind::hangup())?))
    }

    /// Does this at each, for ever.
    pub(super) async fn each(mut self, mut what: impl FnMut()) {
        while self.0.recv().await.is_some() {
            what();
        }
    }
}
