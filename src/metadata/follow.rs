//! The loop: every aspect looks, one report comes out.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::acls::Acls;
use super::configs::Configs;
use super::context::Context;
use super::opposite::Opposite;
use super::pass::Pass;
use super::quotas::Quotas;
use super::users::Users;
use crate::telemetry::metadata::{DriftKind, MetadataReport, Obstacle};
use crate::telemetry::progress::{FlowProgress, now_ms};
use crate::wire::uneven;

/// Keeps the target like the source until cancelled. Each pass is published in `progress`, whose
/// `look_now` brings the next one forward.
///
/// Cancelling doesn't interrupt a call that is on its way: the next pass finds out what it did.
pub async fn follow(context: Context, progress: Arc<FlowProgress>, cancel: CancellationToken) {
    let mut aspects = Aspects::default();
    let mut report = MetadataReport::default();
    let mut turn = 0_u32;
    loop {
        let looked = cancel.run_until_cancelled(aspects.look(&context, &mut report));
        if looked.await.is_none() {
            return;
        }
        progress.set_metadata(Arc::new(report.clone()));
        turn = turn.wrapping_add(1);
        tokio::select! {
            () = cancel.cancelled() => return,
            () = progress.look_now.notified() => aspects.hurry(),
            () = tokio::time::sleep(uneven(context.rules.interval, turn)) => {}
        }
    }
}

/// One look, for `plan`.
pub async fn look_once(context: &Context) -> MetadataReport {
    let mut report = MetadataReport::default();
    Aspects::default().look(context, &mut report).await;
    report
}

#[derive(Default)]
struct Aspects {
    configs: Configs,
    acls: Acls,
    quotas: Quotas,
    users: Users,
    opposite: Opposite,
}

impl Aspects {
    /// The next look asks for everything, however short ago the last one was.
    fn hurry(&mut self) {
        self.configs.hurry();
        self.acls.hurry();
    }

    /// All aspects look at the same time: each waits for brokers most of the time.
    async fn look(&mut self, context: &Context, report: &mut MetadataReport) {
        let started = Instant::now();
        // How often configs and ACLs are asked for goes by that.
        tokio::join!(context.source.ask_news(), context.target.ask_news());
        let foreign = self.opposite.look(context).await;
        let (configs, acls, quotas, users) = tokio::join!(
            self.configs.look(context),
            self.acls.look(context, &foreign),
            self.quotas.look(context, &foreign),
            self.users.look(context),
        );
        report.flow.clone_from(&context.flow);
        report.drift = context.topics.drift();
        let before = std::mem::take(&mut report.obstacles);
        for (kind, pass) in [
            (DriftKind::TopicConfig, configs),
            (DriftKind::Acl, acls),
            (DriftKind::Quota, quotas),
            (DriftKind::User, users),
        ] {
            add(report, kind, pass);
        }
        report.compared_at_ms = now_ms();
        let now = report.compared_at_ms;
        for obstacle in report.obstacles.iter_mut().filter(|it| it.is_problem) {
            obstacle.since_ms = since(obstacle, &before).unwrap_or(now);
        }
        report.took_ms = millis(started.elapsed());
    }
}

/// Since when something of the kind has been a problem there: the words may be others each time.
fn since(obstacle: &Obstacle, before: &[Obstacle]) -> Option<i64> {
    let same = before
        .iter()
        .filter(|it| it.is_problem && it.kind == obstacle.kind && it.cluster == obstacle.cluster);
    same.map(|it| it.since_ms).min()
}

fn add(report: &mut MetadataReport, kind: DriftKind, pass: Pass) {
    if pass.applied > 0 {
        let (flow, changes) = (&report.flow, pass.applied);
        tracing::info!(%flow, changes, "{} followed the source's", kind.plural());
    }
    report.drift.extend(pass.drift);
    report.obstacles.extend(pass.obstacles);
    *report.applied.entry(kind).or_default() += pass.applied;
    for reason in pass.failed {
        let failed = report.failed.entry(kind).or_default();
        *failed.entry(reason).or_default() += 1;
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_as_old_as_the_first_of_its_kind_there_in_a_row() {
        let obstacle = |kind, cluster: &str, is_problem, since_ms| Obstacle {
            kind,
            cluster: cluster.to_owned(),
            reason: "timeout".to_owned(),
            message: String::new(),
            hint: None,
            is_problem,
            since_ms,
        };
        let now = obstacle(DriftKind::Acl, "target", true, 0);
        let before = [
            obstacle(DriftKind::Acl, "source", true, 1),
            obstacle(DriftKind::Quota, "target", true, 2),
            obstacle(DriftKind::Acl, "target", false, 3),
            obstacle(DriftKind::Acl, "target", true, 5),
            obstacle(DriftKind::Acl, "target", true, 4),
        ];
        assert_eq!(since(&now, &before), Some(4));
        assert_eq!(since(&now, &before[..3]), None);
    }
}
