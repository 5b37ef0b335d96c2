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
use crate::telemetry::metadata::{DriftKind, MetadataReport};
use crate::telemetry::progress::{FlowProgress, now_ms};

/// Keeps the target like the source until cancelled. Each pass is published in `progress`, whose
/// `look_now` brings the next one forward.
///
/// Cancelling doesn't interrupt a call that is on its way: the next pass finds out what it did.
pub async fn follow(context: Context, progress: Arc<FlowProgress>, cancel: CancellationToken) {
    let mut aspects = Aspects::default();
    let mut report = MetadataReport::default();
    loop {
        let looked = cancel.run_until_cancelled(aspects.look(&context, &mut report));
        if looked.await.is_none() {
            return;
        }
        progress.set_metadata(Arc::new(report.clone()));
        tokio::select! {
            () = cancel.cancelled() => return,
            () = progress.look_now.notified() => {}
            () = tokio::time::sleep(context.rules.interval) => {}
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
    /// All aspects look at the same time: each waits for brokers most of the time.
    async fn look(&mut self, context: &Context, report: &mut MetadataReport) {
        let started = Instant::now();
        let foreign = self.opposite.look(context).await;
        let (configs, acls, quotas, users) = tokio::join!(
            self.configs.look(context),
            self.acls.look(context, &foreign),
            self.quotas.look(context, &foreign),
            self.users.look(context),
        );
        report.flow.clone_from(&context.flow);
        report.drift = context.topics.drift();
        report.obstacles.clear();
        for (kind, pass) in [
            (DriftKind::TopicConfig, configs),
            (DriftKind::Acl, acls),
            (DriftKind::Quota, quotas),
            (DriftKind::User, users),
        ] {
            add(report, kind, pass);
        }
        report.compared_at_ms = now_ms();
        report.took_ms = millis(started.elapsed());
    }
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
