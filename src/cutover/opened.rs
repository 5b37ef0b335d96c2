//! Opens a flow's state while brokers go away.
//!
//! Its leader may hang: connections to it are accepted and nothing is answered, for as long as a request may take. By
//! then another replica leads. So who leads is looked at meanwhile, and the state is opened there. One that is dead refuses
//! connections at once, and another one leads when the controller has missed it.

use std::time::Duration;

use kafka_protocol::ResponseError;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::state::{STATE_TOPIC, StateError, StateStore};
use crate::wire::{Cluster, WireError};

/// How often it is looked at who leads, and how long that may take.
const LOOK_EVERY: Duration = Duration::from_secs(2);
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);
/// How long a leader that can't be asked is waited for: `broker.session.timeout.ms` (9 s by default), and the election.
const ANOTHER_LEADS_WITHIN: Duration = Duration::from_secs(20);

/// As [`StateStore::open`]; begun anew where the state's leader is another one by then.
///
/// # Errors
/// When the leader that it has can't be asked, and no other one leads in time.
pub(super) async fn open(target: &Cluster, flow: &str) -> Result<StateStore, StateError> {
    let deadline = Instant::now() + ANOTHER_LEADS_WITHIN;
    loop {
        let leader = leader(target);
        tokio::select! {
            opened = StateStore::open(target, flow) => match opened {
                Err(StateError::Wire(error)) if is_its_leader_s(&error) => {
                    let moved = timeout_at(deadline, moved(target, leader));
                    moved.await.map_err(|_| StateError::Wire(error))?;
                }
                opened => return opened,
            },
            () = moved(target, leader) => {}
        }
    }
}

/// Whether another leader may answer where this one didn't.
fn is_its_leader_s(error: &WireError) -> bool {
    match error {
        WireError::Io { .. }
        | WireError::Disconnected { .. }
        | WireError::Unreachable { .. }
        | WireError::Silent { .. }
        | WireError::Timeout { .. } => true,
        WireError::Server { code, .. } => matches!(
            code,
            ResponseError::NotLeaderOrFollower | ResponseError::LeaderNotAvailable
        ),
        _ => false,
    }
}

fn leader(target: &Cluster) -> Option<(i32, i32)> {
    target.cached().leader(STATE_TOPIC, 0)
}

/// Waits until another broker leads.
async fn moved(target: &Cluster, before: Option<(i32, i32)>) {
    let topics = [STATE_TOPIC.to_owned()];
    loop {
        sleep(LOOK_EVERY).await;
        // Who doesn't say is asked again.
        let within = target.or_longer(ANSWERS_WITHIN);
        let _ = timeout(within, target.metadata(Some(&topics))).await;
        let now = leader(target);
        if now.is_some() && now.map(|it| it.0) != before.map(|it| it.0) {
            return;
        }
    }
}
