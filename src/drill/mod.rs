//! `twinlog drill`: a failover rehearsed on copies, and the dated report that auditors ask for.
//!
//! ```text
//!  look (pure reading) -> lease -> note in the state topic
//!    production: checks, loss and groups now, comparison       only read
//!    planned:    a topic of its own, real fence ... promotion   __twinlog_drill.<id>.planned
//!    unplanned:  copies of the flow's topics, source "gone"     __twinlog_drill.<id>.unplanned
//!  -> everything removed -> verdict -> report, digest, `drill/<flow>`
//! ```
//!
//! Each rehearsal is a private flow: a `FlowConfig` made of the flow's own, copied by a process of
//! its own with the code of `twinlog run`, and cut over with the code of `twinlog failover`. Both
//! clusters' topics, groups, configs, ACLs and roles of the flow itself are only read. Whatever a
//! rehearsal makes has a name that begins with its root, and the root is in the state topic before
//! anything is made: so the next rehearsal removes what a killed one has left.

mod canary;
mod cleanup;
mod context;
pub mod copier;
mod derive;
mod error;
mod groups;
mod markdown;
mod names;
mod peek;
mod planned;
mod production;
mod rehearse;
mod report;
mod scope;
mod unplanned;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use canary::Account;
pub use context::Request;
pub use error::DrillError;
pub use names::Kind;
pub use report::{
    Cleanup, ClusterReport, Compared, Figures, GroupsNow, GroupsRehearsed, Missing, Phase,
    Production, REPORT_VERSION, Rehearsal, Report, RpoNow, Rto, Scope, Verdict,
};
pub use scope::{LeftOut, Limits};

use crate::telemetry::utc::to_the_second as utc;
use context::Scene;
use names::Names;
use scope::{Candidate, Choice, choose};

use crate::config::{ClusterSection, FlowConfig};
use crate::connect::cluster;
use crate::cutover::lease::{self, Lease, Wanted};
use crate::cutover::pairs::{ends, on_source};
use crate::cutover::{self, AcceptedLoss, Check, CutoverError, FenceMode, Options, Tell};
use crate::environment::Machine;
use crate::metadata::acls::Readers;
use crate::state::{CutoverKind, DrillRecord, OpenDrill, StateStore, keys};
use crate::telemetry::drill::DrillResult;
use crate::telemetry::progress::now_ms;
use crate::verify::Mode;
use crate::wire::{Cluster, OffsetSpec};

/// How long a cluster may take to answer first.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// A comparison looks at so many percent at least.
const PERCENT_MIN: f64 = 0.01;

/// What would be done.
pub struct Prepared {
    scene: Scene,
    /// What `twinlog failover` would look at.
    pub checks: Vec<Check>,
    /// Rehearsals that left something, which is removed first.
    pub leftovers: Vec<String>,
}

impl Prepared {
    /// The id.
    pub fn id(&self) -> &str {
        self.scene.names.id()
    }

    /// What everything that is made begins with.
    pub fn root(&self) -> String {
        self.scene.names.root()
    }

    /// What is copied for it.
    pub fn scope(&self) -> Scope {
        scope(&self.scene)
    }
}

/// Looks at both clusters and decides what is rehearsed. Changes nothing.
///
/// # Errors
/// When a cluster doesn't answer, nothing is copied, or it isn't the time: a failover is under way
/// or done.
pub async fn look(
    flow: &FlowConfig,
    source_section: &ClusterSection,
    target_section: &ClusterSection,
    request: Request,
    tell: Tell,
) -> Result<Prepared, DrillError> {
    let (source, target) = (cluster(source_section), cluster(target_section));
    tokio::try_join!(answers(&source), answers(&target))?;
    if StateStore::open_existing(&target).await?.is_none() {
        return Err(DrillError::refused(
            "nothing is copied yet: `twinlog run` never ran against this standby",
        ));
    }
    let options = Options {
        kind: CutoverKind::Planned,
        topics: std::collections::BTreeSet::new(),
        accept_loss: AcceptedLoss::Records(0),
        // How writers can be kept away is rehearsed on copies of our own.
        fence: FenceMode::Manual,
        padding: flow.failover.padding,
        wait: request.wait,
        quiet_for: None,
    };
    let plan = cutover::look(flow, source_section, target_section, options)
        .await
        .map_err(not_the_time)?;
    if let Some(open) = &plan.continues {
        return Err(DrillError::refused(format!(
            "failover plan {} of this flow is open: this is no rehearsal",
            open.plan
        ))
        .with_hint("finish it with `twinlog failover`, or undo it with `--abort`"));
    }
    let store = Arc::new(StateStore::open(&target, &flow.name).await?);
    let mut scene = Scene {
        flow: flow.clone(),
        source_section: source_section.clone(),
        target_section: target_section.clone(),
        source,
        target,
        store,
        names: Names::new(now_ms()),
        request,
        bytes_selected: 0,
        choice: Choice::default(),
        tell,
    };
    let candidates = candidates(&scene).await?;
    let bytes = candidates.iter().map(|topic| topic.bytes);
    scene.bytes_selected = bytes.fold(0, u64::saturating_add);
    scene.choice = choose(candidates, scene.request.limits);
    let has_copies = !scene.choice.taken.is_empty();
    let kinds = &mut scene.request.kinds;
    if !scene.request.may_use_source {
        kinds.retain(|kind| *kind == Kind::Unplanned && has_copies);
    }
    if kinds.is_empty() {
        return Err(DrillError::failed("nothing is left to rehearse").with_hint(
            "a planned failover needs a topic on the source (no --no-source), an unplanned one \
             without it topics that may be copied (--topic, --bytes, --partitions)",
        ));
    }
    let open = cleanup::open(&scene.store, &flow.name)?;
    Ok(Prepared {
        checks: plan.checks,
        leftovers: open.into_iter().map(|(id, _)| id).collect(),
        scene,
    })
}

fn not_the_time(error: CutoverError) -> DrillError {
    DrillError {
        is_refusal: true,
        ..DrillError::from(error)
    }
}

async fn answers(cluster: &Cluster) -> Result<(), DrillError> {
    match cluster.metadata_if_there(ANSWER_WITHIN).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(DrillError::failed(format!(
            "{} doesn't answer within {} s: a rehearsal needs both clusters",
            cluster.name(),
            ANSWER_WITHIN.as_secs()
        ))),
    }
}

/// The topics that could be copied: those that the flow copies and the command line selects.
async fn candidates(scene: &Scene) -> Result<Vec<Candidate>, DrillError> {
    let copied = scene.copied(&scene.flow, &scene.store).await?;
    let sources = on_source(&copied.pairs);
    let (starts, there) = tokio::try_join!(
        ends(&scene.source, &sources, OffsetSpec::Earliest),
        ends(&scene.source, &sources, OffsetSpec::Latest),
    )?;
    let asked = scene.request.topics.as_ref();
    let own = crate::flow::own_principal(&scene.flow, &scene.target_section);
    let readers = Readers::of(&scene.target, own).await;
    let shown_to = |topic: &str, target: &str| match &readers {
        Ok(readers) => readers.shown_to(target, &scene.names.copy_of(topic)),
        Err(error) => Some(format!(
            "Twinlog can't see who may read it on the standby ({error}): grant DESCRIBE and DESCRIBE_CONFIGS on that cluster"
        )),
    };
    let mut candidates: Vec<Candidate> = Vec::new();
    for topic in &copied.topics {
        if asked.is_some_and(|asked| !asked.matches(&topic.name)) {
            continue;
        }
        let mut records = 0_u64;
        for at in sources.iter().filter(|at| at.topic == topic.name) {
            let (start, end) = (starts.get(at), there.get(at));
            let count = end.zip(start).map_or(0, |(end, start)| end - start);
            records += u64::try_from(count).unwrap_or(0);
        }
        let size = production::record_bytes(scene, &topic.name)?;
        candidates.push(Candidate {
            name: topic.name.clone(),
            partitions: topic.record.origins.len(),
            records,
            bytes: records.saturating_mul(size),
            can_be_named: scene.names.can_name_copy_of(&topic.name),
            shown_to: shown_to(
                &topic.name,
                &scene.flow.rename.apply(&scene.flow.source, &topic.name),
            ),
        });
    }
    Ok(candidates)
}

fn scope(scene: &Scene) -> Scope {
    let taken = &scene.choice.taken;
    Scope {
        topics_selected: taken.len() + scene.choice.left_out.len(),
        topics_copied: taken.iter().map(|topic| topic.name.clone()).collect(),
        partitions_copied: taken.iter().map(|topic| topic.partitions).sum(),
        records_copied: taken.iter().map(|topic| topic.records).sum(),
        bytes_copied: taken.iter().map(|topic| topic.bytes).sum(),
        topics_left_out: scene.choice.left_out.clone(),
        used_source: scene.request.may_use_source,
    }
}

/// A report as it is filed.
pub struct Sealed {
    /// The report.
    pub report: Report,
    /// Its JSON, as it is written to the file.
    pub json: String,
    /// The digest of exactly these bytes, SHA-256 in hexadecimal.
    pub sha256: String,
}

impl Sealed {
    fn new(report: Report) -> Result<Self, DrillError> {
        let mut json = serde_json::to_string_pretty(&report)
            .map_err(|error| DrillError::failed(format!("the report can't be written: {error}")))?;
        json.push('\n');
        let digest = ring::digest::digest(&ring::digest::SHA256, json.as_bytes());
        let sha256 = digest
            .as_ref()
            .iter()
            .map(|it| format!("{it:02x}"))
            .collect();
        Ok(Self {
            report,
            json,
            sha256,
        })
    }

    /// For people, printable.
    pub fn markdown(&self) -> String {
        markdown::render(&self.report, &self.sha256)
    }
}

/// Rehearses. Everything that it makes is removed, however it ends.
///
/// # Errors
/// When it couldn't begin: another rehearsal of the flow runs, or the state can't be written; or it
/// was cancelled.
pub async fn run(prepared: Prepared, cancel: &CancellationToken) -> Result<Sealed, DrillError> {
    let Prepared { scene, checks, .. } = prepared;
    let lease = take_lease(&scene.store, &scene.flow.name, scene.machine()).await?;
    let result = rehearse(&scene, checks, cancel).await;
    lease.release().await;
    result
}

/// One rehearsal of a flow at a time.
async fn take_lease(
    store: &Arc<StateStore>,
    flow: &str,
    machine: &dyn Machine,
) -> Result<Lease, DrillError> {
    let wanted = Wanted {
        store,
        flow: &format!("{flow}/drill"),
        plan: Uuid::from_u128(rand::random::<u128>()),
        machine,
    };
    let lease = Lease::take_unless_held(wanted).await?;
    lease.map_err(|holder| {
        let who = lease::taken(&holder).message;
        DrillError::refused("another rehearsal of this flow runs").with_hint(who.replacen(
            "plan",
            "rehearsal",
            1,
        ))
    })
}

async fn rehearse(
    scene: &Scene,
    checks: Vec<Check>,
    cancel: &CancellationToken,
) -> Result<Sealed, DrillError> {
    let began_ms = now_ms();
    let began = tokio::time::Instant::now();
    let flow = &scene.flow.name;
    let mut done = Cleanup::default();
    clean(scene, &mut done).await?;
    let open = OpenDrill {
        v: 1,
        root: scene.names.root(),
        began_ms,
        operator: lease::operator(scene.machine()),
    };
    // Before anything is made.
    scene
        .store
        .put(&keys::open_drill(flow, scene.names.id()), &open)
        .await?;
    let rehearsing = act(scene, checks);
    let acted = cancel.run_until_cancelled(rehearsing).await;
    if scene.request.keep {
        done.kept = true;
    } else {
        (scene.tell)("everything that was made is removed");
        clean(scene, &mut done).await?;
    }
    let Some(acted) = acted else {
        return Err(DrillError::failed("interrupted; what was made is removed"));
    };
    let (production, rehearsals) = acted?;
    let ended_ms = now_ms();
    let mut report = Report {
        version: REPORT_VERSION,
        drill: scene.names.id().to_owned(),
        began: utc(began_ms),
        ended: utc(ended_ms),
        seconds: began.elapsed().as_secs_f64(),
        verdict: Verdict::Failed,
        failures: Vec::new(),
        remarks: Vec::new(),
        figures: Figures::default(),
        twinlog: env!("CARGO_PKG_VERSION").to_owned(),
        operator: lease::in_words(&open.operator),
        flow: flow.clone(),
        source: cluster_report(&scene.source),
        target: cluster_report(&scene.target),
        scope: scope(scene),
        production,
        rehearsals,
        not_rehearsed: not_rehearsed(scene),
        cleanup: done,
    };
    report.judge(scene.request.rto_seconds_max, scene.request.rpo_seconds_max);
    let sealed = Sealed::new(report)?;
    let result = DrillResult {
        id: sealed.report.drill.clone(),
        ended_ms,
        verdict: sealed.report.verdict.word().to_owned(),
        rto_seconds: sealed.report.figures.rto(),
        rpo_seconds: sealed.report.figures.rpo(),
        report_sha256: sealed.sha256.clone(),
    };
    let record = DrillRecord { v: 1, result };
    scene.store.put(&keys::drill(flow), &record).await?;
    Ok(sealed)
}

async fn act(
    scene: &Scene,
    checks: Vec<Check>,
) -> Result<(Production, Vec<Rehearsal>), DrillError> {
    (scene.tell)("the flow is looked at");
    let mut production = production::look(scene, checks).await?;
    production.verify = match percent(&scene.request, scene.bytes_selected) {
        percent if percent > 0.0 => {
            (scene.tell)(&format!(
                "{percent:.2} % of the standby's records are compared with the source"
            ));
            let topics = scene.request.topics.clone();
            let compared = production::compare(
                scene,
                &scene.flow,
                &scene.store,
                topics,
                Mode::Sample,
                percent,
            );
            Some(compared.await?)
        }
        _ => None,
    };
    let mut rehearsals = Vec::new();
    for kind in &scene.request.kinds {
        rehearsals.push(match kind {
            Kind::Planned => planned::rehearse(scene).await?,
            Kind::Unplanned => unplanned::rehearse(scene).await?,
        });
    }
    Ok((production, rehearsals))
}

/// How many percent of the standby are compared: as was asked for, or as many as the limit of bytes
/// allows.
fn percent(request: &Request, bytes_selected: u64) -> f64 {
    let allowed = request.limits.bytes_max as f64 / bytes_selected.max(1) as f64 * 100.0;
    let allowed = allowed.clamp(PERCENT_MIN, 100.0);
    request.verify_percent.unwrap_or(allowed)
}

/// Removes what open rehearsals of the flow have left.
async fn clean(scene: &Scene, done: &mut Cleanup) -> Result<(), DrillError> {
    scene.store.refresh().await?;
    for (id, record) in cleanup::open(&scene.store, &scene.flow.name)? {
        let clusters = (&scene.source, &scene.target);
        cleanup::remove(
            clusters,
            &scene.store,
            &scene.flow.name,
            (&id, &record),
            done,
        )
        .await?;
    }
    Ok(())
}

/// Removes what killed or kept rehearsals of a flow have left, and does nothing else.
///
/// # Errors
/// When a rehearsal runs, or the target doesn't answer.
pub async fn clean_up(
    flow: &FlowConfig,
    source_section: &ClusterSection,
    target_section: &ClusterSection,
) -> Result<Cleanup, DrillError> {
    let (source, target) = (cluster(source_section), cluster(target_section));
    answers(&target).await?;
    let mut done = Cleanup::default();
    if StateStore::open_existing(&target).await?.is_none() {
        return Ok(done);
    }
    let store = Arc::new(StateStore::open(&target, &flow.name).await?);
    let machine = target_section.environment.machine.as_ref();
    let lease = take_lease(&store, &flow.name, machine).await?;
    for (id, record) in cleanup::open(&store, &flow.name)? {
        cleanup::remove(
            (&source, &target),
            &store,
            &flow.name,
            (&id, &record),
            &mut done,
        )
        .await?;
    }
    lease.release().await;
    Ok(done)
}

/// What could be removed of a flow, without removing it.
///
/// # Errors
/// When the target doesn't answer.
pub async fn leftovers(
    flow: &FlowConfig,
    target_section: &ClusterSection,
) -> Result<Vec<String>, DrillError> {
    let target = cluster(target_section);
    answers(&target).await?;
    let Some(store) = StateStore::open_existing(&target).await? else {
        return Ok(Vec::new());
    };
    let open = cleanup::open(&store, &flow.name)?;
    Ok(open.into_iter().map(|(_, record)| record.root).collect())
}

fn cluster_report(cluster: &Cluster) -> ClusterReport {
    let known = cluster.cached();
    ClusterReport {
        name: cluster.name().to_owned(),
        cluster_id: known.cluster_id.clone(),
        brokers: known.brokers.len(),
    }
}

/// The honest part.
fn not_rehearsed(scene: &Scene) -> Vec<String> {
    let mut lines = Vec::new();
    for (kind, why) in [
        (Kind::Planned, "the planned failover"),
        (Kind::Unplanned, "the unplanned failover"),
    ] {
        if !scene.request.kinds.contains(&kind) {
            lines.push(why.to_owned());
        }
    }
    let left_out = scene.choice.left_out.len();
    if left_out > 0 && scene.request.kinds.contains(&Kind::Unplanned) {
        lines.push(format!(
            "{left_out} topic(s) that were not copied, named under scope"
        ));
    }
    lines.extend(
        [
            "your applications: the rehearsal's own clients moved at once; add what yours take to \
             notice, to be reconfigured and to start",
            "the decision: nobody was called and nobody hesitated",
            "the fence on the flow's own topics, and the release of its held grants and quotas: \
             they would touch production",
            "the standby under the whole load of production",
            "telling the source its new role, orphans, and the way back",
            "share groups, transactional producers, Kafka Streams, Connect and Schema Registry",
        ]
        .map(str::to_owned),
    );
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(bytes_max: u64, verify_percent: Option<f64>) -> Request {
        Request {
            config_file: std::path::PathBuf::new(),
            topics: None,
            limits: Limits {
                bytes_max,
                partitions_max: 1,
            },
            bytes_per_second: None,
            kinds: Vec::new(),
            may_use_source: false,
            verify_percent,
            rto_seconds_max: None,
            rpo_seconds_max: None,
            wait: Duration::ZERO,
            keep: false,
        }
    }

    #[test]
    fn as_much_is_compared_as_may_be_read() {
        let percent = |max, asked, bytes| percent(&request(max, asked), bytes);
        assert_eq!(percent(100, None, 50), 100.0);
        assert_eq!(percent(100, None, 0), 100.0);
        assert_eq!(percent(100, None, 400), 25.0);
        assert_eq!(percent(100, None, u64::MAX), PERCENT_MIN);
        assert_eq!(percent(100, Some(7.0), 400), 7.0);
        assert_eq!(percent(100, Some(0.0), 400), 0.0);
    }
}
