//! Answers that arrive damaged: whatever a broker, or somebody on the line, makes of them, no task of a process
//! panics, and nothing but the process's own judgement ends it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fake_kafka::world::{self, World};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_util::sync::CancellationToken;
use twinlog::config::Config;
use twinlog::flow::{self, AllEnded};
use twinlog::telemetry::progress::Registry;
use twinlog::wire::{Dial, Dialing, ReadHalf};

use crate::sim::model::{Place, Side};
use crate::sim::process::read;
use crate::sim::scene::{Scene, Write};

/// Larger ones arrive as they are.
const FRAME_BYTES_MAX: usize = 1 << 20;
/// One answer in so many is damaged.
const RARITY: usize = 12;
const PARTITIONS: i32 = 3;

/// Connections whose answers are damaged now and then.
struct Damaging {
    dial: Arc<dyn Dial>,
    next_seed: AtomicU64,
}

impl fmt::Debug for Damaging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Damaging")
    }
}

impl Dial for Damaging {
    fn dial<'a>(&'a self, address: &'a str) -> Dialing<'a> {
        Box::pin(async move {
            let (reader, writer) = self.dial.dial(address).await?;
            let (near, far) = duplex(FRAME_BYTES_MAX);
            let seed = self.next_seed.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(carry(reader, far, StdRng::seed_from_u64(seed)));
            let near: ReadHalf = Box::new(near);
            Ok((near, writer))
        })
    }
}

/// Hands on one answer after the other until either end is gone.
async fn carry(mut from: ReadHalf, mut to: DuplexStream, mut chance: StdRng) {
    while let Ok(length) = from.read_u32().await {
        let mut frame = vec![0; length as usize];
        if from.read_exact(&mut frame).await.is_err() {
            return;
        }
        if frame.len() < FRAME_BYTES_MAX && chance.random_range(0..RARITY) == 0 {
            damage(&mut frame, &mut chance);
        }
        let length = u32::try_from(frame.len()).expect("it was no longer");
        if to.write_u32(length).await.is_err() || to.write_all(&frame).await.is_err() {
            return;
        }
    }
}

/// Changes something behind the number that says whose answer it is.
fn damage(frame: &mut Vec<u8>, chance: &mut StdRng) {
    const BYTES: [u8; 7] = [0, 1, 2, 0x7f, 0x80, 0xfe, 0xff];
    for _ in 0..chance.random_range(1..4) {
        let at = chance.random_range(4..=frame.len().max(4));
        match chance.random_range(0..5) {
            0 => frame.truncate(at),
            1 => {
                let value = *[-1, i64::MIN, i64::MAX, 1 << 40].get(at % 4).expect("four");
                overwrite(frame, at, &value.to_be_bytes());
            }
            2 => overwrite(frame, at, &[0x80, 0x80, 0x80, 0x80, 0x0f]),
            3 => frame.extend(vec![BYTES[at % BYTES.len()]; at % 100]),
            _ => overwrite(frame, at, &[BYTES[at % BYTES.len()]]),
        }
    }
}

fn overwrite(frame: &mut [u8], at: usize, bytes: &[u8]) {
    for (to, from) in frame.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
}

fn play(world: &mut World) {
    let seed = world.seed() << 32;
    let mut scene = Scene::new(world, 2, "");
    scene.topic("t", PARTITIONS, 1, &[]);
    for brokers in [&scene.source, &scene.target] {
        brokers
            .cluster
            .control(|state| state.create_offsets_topic());
    }
    let text = scene.text.clone();
    world.process("twinlog", move |ctx| {
        let mut config = read(&ctx, &text);
        for section in config.clusters.values_mut() {
            section.environment.dial = Arc::new(Damaging {
                dial: section.environment.dial.clone(),
                next_seed: AtomicU64::new(seed),
            });
        }
        async move { ended(config).await }
    });
    let group = scene.commits(world, 50, 500);
    for _ in 0..20 {
        for partition in 0..PARTITIONS {
            let place = Place::new("t", partition);
            scene.write(world, Side::Primary, &place, 5, Write::COMMITTED);
            scene.write(world, Side::Primary, &place, 5, Write::default());
        }
        world.run_for(2_000);
    }
    drop(group);
}

async fn ended(config: Config) -> AllEnded {
    let registry = Arc::new(Registry::default());
    let ended = flow::run_flows(config, &registry, &CancellationToken::new()).await;
    ended.expect("the flows' clusters are in the config")
}

#[test]
fn damaged_answers_make_no_task_panic() {
    let rounds = std::env::var("TWINLOG_FUZZ_WORLDS");
    let rounds = rounds.ok().and_then(|it| it.parse().ok()).unwrap_or(6);
    for seed in 1..=rounds {
        world::run(seed, play);
    }
}
