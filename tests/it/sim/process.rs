//! Twinlog as a process of a simulated world.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fake_kafka::world::{Brokers, Ctx, MachineView, Phase, Process, World};
use tokio_util::sync::CancellationToken;
use twinlog::config::{self, Config};
use twinlog::cutover::{
    self, AcceptedLoss, BackScope, Check, CutoverError, FenceMode, KeptFence, Options, Report,
};
use twinlog::environment::{Environment, Machine};
use twinlog::flow::{self, AllEnded};
use twinlog::orphans::{self, OrphansError};
use twinlog::state::CutoverKind;
use twinlog::telemetry::progress::Registry;
use twinlog::telemetry::sampler;
use twinlog::telemetry::status::StatusReport;
use twinlog::wire::{Dial, Dialing, ReadHalf, TopicPartition, WriteHalf};

/// The simulated network and machine, as the engine wants to see them.
struct Simulated(Ctx);

impl fmt::Debug for Simulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.name)
    }
}

impl Dial for Simulated {
    fn dial<'a>(&'a self, address: &'a str) -> Dialing<'a> {
        Box::pin(async move {
            let (reader, writer) = self.0.connect(address).await?.into_split();
            let halves: (ReadHalf, WriteHalf) = (Box::new(reader), Box::new(writer));
            Ok(halves)
        })
    }
}

impl Machine for Simulated {
    fn host(&self) -> String {
        self.machine().host()
    }

    fn pid(&self) -> u32 {
        self.machine().pid()
    }

    fn runs(&self, pid: u32) -> bool {
        self.machine().runs(pid)
    }
}

impl Simulated {
    fn machine(&self) -> &MachineView {
        self.0.machine()
    }
}

/// A config of one flow `dr` from `source` to `target`; `lines` are more lines of the flow.
pub fn config(source: &Brokers, target: &Brokers, lines: &str) -> String {
    let mut text = format!(
        "clusters:\n  primary: {{ bootstrap.servers: \"{}\" }}\n  standby: {{ bootstrap.servers: \"{}\" }}\nflows:\n  dr:\n    source: primary\n    target: standby\nhttp:\n  listen: off\n",
        source.bootstrap(),
        target.bootstrap()
    );
    let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    text = text.replace(
        "    target: standby\n",
        &format!("    target: standby\n{lines}"),
    );
    text
}

/// Reads a config as a process of the world.
///
/// # Panics
/// When something is wrong in it.
pub fn read(ctx: &Ctx, text: &str) -> Config {
    let parsed = config::parse_with_environment(text, "sim.yaml", &BTreeMap::new());
    let mut config = parsed.unwrap_or_else(|problems| panic!("{problems}\n{text}"));
    let here = Arc::new(Simulated(ctx.clone()));
    for section in config.clusters.values_mut() {
        section.environment = Environment {
            dial: here.clone(),
            machine: here.clone(),
        };
    }
    config
}

/// A `twinlog run` in a world.
#[derive(Clone)]
pub struct Running {
    /// The process; its result is how its flows ended.
    pub process: Process<AllEnded>,
    registry: Arc<Mutex<Arc<Registry>>>,
}

impl Running {
    /// Its status, as `/api/v1/status` shows it. A process that doesn't run shows its last one.
    pub fn status(&self, world: &World) -> StatusReport {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        StatusReport::build(&registry, 1_768_464_000_000 + world.now_ms())
    }

    /// Whether it waits until another one is gone that has the flow.
    pub fn waits(&self, world: &World) -> bool {
        let status = self.status(world);
        let mut flows = status.flows.iter();
        flows.any(|flow| flow.reason.as_deref() == Some("superseded"))
    }

    /// Whether it runs, and doesn't wait for another one.
    pub fn has_the_flow(&self, world: &World) -> bool {
        self.process.phase() == Phase::Running && !self.waits(world)
    }
}

/// Starts `twinlog run` on a machine of its own.
pub fn run(world: &mut World, name: &str, text: &str) -> Running {
    run_on(world, &format!("machine-of-{name}"), name, text)
}

/// Starts `twinlog run` on a machine that others may share.
pub fn run_on(world: &mut World, machine: &str, name: &str, text: &str) -> Running {
    let registry = Arc::new(Mutex::new(Arc::new(Registry::default())));
    let (shown, text) = (registry.clone(), text.to_owned());
    let process = world.process_on(machine, name, move |ctx| {
        let config = read(&ctx, &text);
        let registry = Arc::new(Registry::default());
        *shown.lock().unwrap_or_else(PoisonError::into_inner) = registry.clone();
        async move {
            let cancel = CancellationToken::new();
            tokio::spawn(sampler::run(registry.clone(), cancel.clone()));
            let told = cancel.clone();
            tokio::spawn(async move {
                ctx.told_to_stop().await;
                told.cancel();
            });
            let ended = flow::run_flows(config, &registry, &cancel).await;
            ended.expect("the flows' clusters are in the config")
        }
    });
    Running { process, registry }
}

/// How a cut-over ended: its report, and what stopped it.
pub type CutOver = Result<(Report, Option<CutoverError>), CutoverError>;

/// The options of a `twinlog failover --yes`.
pub fn failover_options(kind: CutoverKind) -> Options {
    Options {
        kind,
        topics: std::collections::BTreeSet::new(),
        accept_loss: AcceptedLoss::Any,
        fence: FenceMode::Manual,
        padding: 1_000,
        wait: Duration::from_secs(60),
        quiet_for: None,
    }
}

/// Starts `twinlog failover --yes` for the config's only flow.
pub fn failover(world: &mut World, name: &str, text: &str, options: Options) -> Process<CutOver> {
    let text = text.to_owned();
    world.process(name, move |ctx| {
        let (config, options) = (read(&ctx, &text), options.clone());
        async move {
            let (flow, source, target) = only_flow(&config);
            let plan = cutover::look(flow, source, target, options).await?;
            cutover::apply(plan, Arc::new(|_: &str| {})).await
        }
    })
}

/// Starts `twinlog failover --abort --yes`.
pub fn abort(world: &mut World, name: &str, text: &str) -> Process<CutOver> {
    let text = text.to_owned();
    world.process(name, move |ctx| {
        let config = read(&ctx, &text);
        async move {
            let (flow, source, target) = only_flow(&config);
            cutover::abort(flow, source, target, Arc::new(|_: &str| {})).await
        }
    })
}

/// Starts `twinlog failback --abort --yes`.
pub fn abort_back(world: &mut World, name: &str, text: &str) -> Process<CutOver> {
    let text = text.to_owned();
    world.process(name, move |ctx| {
        let config = read(&ctx, &text);
        async move {
            let (flow, source, target) = only_flow(&config);
            cutover::abort_back(flow, source, target, Arc::new(|_: &str| {})).await
        }
    })
}

/// How a `twinlog failback --lift-fence` ended.
pub type Lifted = Result<KeptFence, CutoverError>;

/// Starts `twinlog failback --lift-fence --yes`.
pub fn lift_fence(world: &mut World, name: &str, text: &str) -> Process<Lifted> {
    let text = text.to_owned();
    world.process(name, move |ctx| {
        let config = read(&ctx, &text);
        async move {
            let (flow, _, target) = only_flow(&config);
            cutover::lift_kept_fence(flow, target).await
        }
    })
}

/// Starts `twinlog failback --yes`, with `--accept-orphans` or not.
pub fn failback(
    world: &mut World,
    name: &str,
    text: &str,
    accept_orphans: bool,
) -> Process<CutOver> {
    let text = text.to_owned();
    world.process(name, move |ctx| {
        let config = read(&ctx, &text);
        async move {
            let (flow, source, target) = only_flow(&config);
            let (undecided, unseen) = orphans::undecided_partitions(&flow.name, source, target)
                .await
                .expect("both clusters answer");
            let scope = BackScope {
                start_only: false,
                accept_orphans,
                undecided,
                unseen,
            };
            let options = Options {
                padding: 0,
                ..failover_options(CutoverKind::Failback)
            };
            let plan = cutover::look_back(flow, source, target, options, scope).await?;
            cutover::apply(plan, Arc::new(|_: &str| {})).await
        }
    })
}

/// Starts `twinlog failback --yes` with a fence of ACLs; there must be no orphans.
pub fn failback_by_acl(world: &mut World, name: &str, text: &str) -> Process<CutOver> {
    let text = text.to_owned();
    world.process(name, move |ctx| {
        let config = read(&ctx, &text);
        async move {
            let (flow, source, target) = only_flow(&config);
            let options = Options {
                fence: FenceMode::Acl,
                ..failover_options(CutoverKind::Failback)
            };
            let plan =
                cutover::look_back(flow, source, target, options, BackScope::default()).await?;
            cutover::apply(plan, Arc::new(|_: &str| {})).await
        }
    })
}

/// Starts `twinlog failback --start --yes`.
pub fn begin_back(world: &mut World, name: &str, text: &str) -> Process<CutOver> {
    let text = text.to_owned();
    world.process(name, move |ctx| {
        let config = read(&ctx, &text);
        async move {
            let (flow, source, target) = only_flow(&config);
            let scope = BackScope {
                start_only: true,
                ..BackScope::default()
            };
            let options = failover_options(CutoverKind::Failback);
            let plan = cutover::look_back(flow, source, target, options, scope).await?;
            cutover::apply(plan, Arc::new(|_: &str| {})).await
        }
    })
}

/// Starts `twinlog failover --report`.
pub fn last_report(
    world: &mut World,
    name: &str,
    text: &str,
) -> Process<Result<Report, CutoverError>> {
    let text = text.to_owned();
    world.process(name, move |ctx| {
        let config = read(&ctx, &text);
        async move {
            let (flow, source, target) = only_flow(&config);
            cutover::last_report(flow, source, target).await
        }
    })
}

/// Starts `twinlog failback --give-up --yes`.
pub fn give_up(world: &mut World, name: &str, text: &str) -> Process<CutOver> {
    let text = text.to_owned();
    world.process(name, move |ctx| {
        let config = read(&ctx, &text);
        async move {
            let (flow, source, target) = only_flow(&config);
            let plan = cutover::look_give_up(flow, source, target).await?;
            cutover::apply(plan, Arc::new(|_: &str| {})).await
        }
    })
}

/// The partitions that [`undecided`] finds, and apart from them those that can't be seen.
pub type Undecided = Result<(BTreeSet<TopicPartition>, BTreeSet<TopicPartition>), OrphansError>;

/// Which partitions have orphans that nobody has decided about, as a failback asks for them, and which can't be seen.
pub fn undecided(world: &mut World, name: &str, text: &str) -> Process<Undecided> {
    let text = text.to_owned();
    world.process(name, move |ctx| {
        let config = read(&ctx, &text);
        async move {
            let (flow, source, target) = only_flow(&config);
            orphans::undecided_partitions(&flow.name, source, target).await
        }
    })
}

/// What `twinlog orphans` finds.
pub fn stranded(
    world: &mut World,
    name: &str,
    text: &str,
) -> Process<Result<Vec<orphans::Stranded>, OrphansError>> {
    let text = text.to_owned();
    world.process(name, move |ctx| {
        let config = read(&ctx, &text);
        async move {
            let (flow, source, target) = only_flow(&config);
            let scene = orphans::Scene::open(flow, source, target, &[]).await?;
            Ok(scene.stranded)
        }
    })
}

/// Starts `twinlog failover`, which changes nothing.
pub fn look(world: &mut World, name: &str, text: &str, options: Options) -> Process<LookedBack> {
    let text = text.to_owned();
    world.process(name, move |ctx| {
        let (config, options) = (read(&ctx, &text), options.clone());
        async move {
            let (flow, source, target) = only_flow(&config);
            let plan = cutover::look(flow, source, target, options).await?;
            Ok(plan.checks)
        }
    })
}

/// What `twinlog failback` without `--yes` shows.
pub type LookedBack = Result<Vec<Check>, CutoverError>;

/// Starts `twinlog failback`, which changes nothing.
pub fn look_back(world: &mut World, name: &str, text: &str) -> Process<LookedBack> {
    let text = text.to_owned();
    world.process(name, move |ctx| {
        let config = read(&ctx, &text);
        async move {
            let (flow, source, target) = only_flow(&config);
            let looked = orphans::undecided_partitions(&flow.name, source, target);
            let (undecided, unseen) = looked.await.expect("both clusters answer");
            let scope = BackScope {
                undecided,
                unseen,
                ..BackScope::default()
            };
            let options = failover_options(CutoverKind::Failback);
            let plan = cutover::look_back(flow, source, target, options, scope).await?;
            Ok(plan.checks)
        }
    })
}

/// The config's only flow, with how its source and its target are reached.
pub fn only_flow(
    config: &Config,
) -> (
    &config::FlowConfig,
    &config::ClusterSection,
    &config::ClusterSection,
) {
    let flow = config.flows.values().next().expect("a flow");
    (
        flow,
        &config.clusters[&flow.source],
        &config.clusters[&flow.target],
    )
}
