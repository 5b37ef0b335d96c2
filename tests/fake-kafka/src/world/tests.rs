use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use kafka_protocol::messages::{ApiVersionsRequest, MetadataRequest};
use tokio::time::sleep;

use super::*;

/// Asks every 100 ms, a while, and says how often it was answered.
async fn asks(ctx: Ctx, bootstrap: String, seconds: u64) -> u32 {
    let mut client = Client::to(&ctx, &bootstrap).patience(Duration::from_secs(1));
    let until = tokio::time::Instant::now() + Duration::from_secs(seconds);
    let mut answered = 0;
    while tokio::time::Instant::now() < until {
        let answer = client.call(-1, &ApiVersionsRequest::default(), 0).await;
        answered += u32::from(answer.is_ok());
        sleep(Duration::from_millis(100)).await;
    }
    answered
}

#[test]
fn time_is_the_worlds() {
    let real = Instant::now();
    let (waited, mono, wall) = run(1, |world| {
        let process = world.process("sleeper", |_| async {
            let (began, mono, wall) = (
                tokio::time::Instant::now(),
                Instant::now(),
                SystemTime::now(),
            );
            sleep(Duration::from_secs(3_600)).await;
            (
                began.elapsed(),
                mono.elapsed(),
                wall.elapsed().expect("no jump"),
            )
        });
        world.result(&process, 3_700_000)
    });
    for time in [waited, mono, wall] {
        assert!(
            (3_600_000..3_600_010).contains(&time.as_millis()),
            "an hour, not {time:?}"
        );
    }
    assert!(
        real.elapsed() < Duration::from_secs(1_800),
        "{:?}",
        real.elapsed()
    );
}

#[test]
fn randomness_is_the_seeds() {
    let draw = |seed| {
        run(seed, |world| {
            let process = world.process("gambler", |_| async {
                // The order in a hash map goes by the thread's random keys.
                let map: HashMap<u32, u32> = (0..50).map(|n| (n, n)).collect();
                let order: Vec<u32> = map.into_keys().collect();
                let mut bytes = [0; 16];
                // As `getrandom` and with it `rand` look for it.
                assert!(unsafe_entropy(&mut bytes), "random bytes");
                let mut chosen = Vec::new();
                for _ in 0..50 {
                    tokio::select! {
                        () = async {} => chosen.push(1),
                        () = async {} => chosen.push(2),
                        () = async {} => chosen.push(3),
                    }
                }
                (order, bytes, chosen)
            });
            world.result(&process, 100)
        })
    };
    let (first, again, other) = (draw(7), draw(7), draw(8));
    assert_eq!(first, again, "the same seed");
    assert_ne!(first.0, other.0, "another order");
    assert_ne!(first.1, other.1, "other bytes");
    assert_ne!(first.2, other.2, "other choices");
    assert!(
        (1..=3).all(|n| first.2.contains(&n)),
        "choices: {:?}",
        first.2
    );
}

#[allow(unsafe_code)] // A local buffer and its length.
fn unsafe_entropy(bytes: &mut [u8]) -> bool {
    unsafe { libc::getentropy(bytes.as_mut_ptr().cast(), bytes.len()) == 0 }
}

#[test]
fn a_seed_is_a_run() {
    let play = |seed| {
        run(seed, |world| {
            let brokers = world.cluster("source", Options::default());
            let bootstrap = brokers.bootstrap();
            let asking = world.process("asker", move |ctx| asks(ctx, bootstrap.clone(), 3));
            world.run_for(1_000);
            let pause_ms = world.random(500);
            asking.freeze();
            world.run_for(pause_ms.cast_signed());
            asking.thaw();
            world.result(&asking, 5_000);
            (world.trace().hash(), world.trace().events())
        })
    };
    let first = play(3);
    assert!(first.1 > 40, "{first:?}");
    assert_eq!(first, play(3));
    assert_ne!(first, play(4));
}

#[test]
fn a_frozen_process_wakes_up_late_and_a_paused_one_knows_nothing_of_it() {
    let elapsed = |pause: bool| {
        run(5, move |world| {
            let process = world.process("sleeper", |_| async {
                let began = tokio::time::Instant::now();
                sleep(Duration::from_secs(1)).await;
                (began.elapsed().as_millis(), clock::now_us() / 1_000)
            });
            world.run_for(500);
            if pause {
                process.pause();
            } else {
                process.freeze();
            }
            world.run_for(10_000);
            assert_eq!(process.phase(), Phase::Frozen);
            process.thaw();
            world.result(&process, 2_000)
        })
    };
    let (frozen, frozen_until) = elapsed(false);
    assert!((10_500..10_510).contains(&frozen), "{frozen}");
    assert!((10_500..10_510).contains(&frozen_until), "{frozen_until}");
    let (paused, paused_until) = elapsed(true);
    assert!((1_000..1_010).contains(&paused), "{paused}");
    assert!((11_000..11_010).contains(&paused_until), "{paused_until}");
}

#[test]
fn a_killed_process_can_be_started_again() {
    run(6, |world| {
        let brokers = world.cluster("source", Options::default());
        let bootstrap = brokers.bootstrap();
        let asking = world.process("asker", move |ctx| asks(ctx, bootstrap.clone(), 2));
        world.run_for(1_000);
        asking.kill();
        world.run_for(5_000);
        assert_eq!(asking.phase(), Phase::Killed);
        assert!(asking.take_result().is_none());
        asking.restart();
        let answered = world.result(&asking, 3_000);
        assert!((15..=20).contains(&answered), "{answered}");
        assert_eq!(asking.starts(), 2);
    });
}

#[test]
fn nothing_passes_a_partition_and_a_cut_is_seen() {
    run(9, |world| {
        let brokers = world.cluster("source", Options::default());
        let bootstrap = brokers.bootstrap();
        let asking = world.process("asker", move |ctx| asks(ctx, bootstrap.clone(), 20));
        world.run_for(1_000);
        world.partition(&asking, &brokers);
        let before = world.trace().events();
        world.run_for(10_000);
        assert_eq!(world.trace().events(), before, "nothing arrives");
        world.heal(&asking, &brokers);
        world.run_for(1_000);
        assert!(world.trace().events() > before + 10, "all goes on");
        world.cut(&asking, &brokers, None);
        let answered = world.result(&asking, 20_000);
        // 10 of 20 s, one request lost by the cut at most.
        assert!((80..=105).contains(&answered), "{answered}");
    });
}

#[test]
fn a_stopped_broker_refuses_and_a_frozen_one_is_silent() {
    use crate::state::Condition;
    run(10, |world| {
        let brokers = world.cluster("source", Options::default());
        let bootstrap = brokers.bootstrap();
        let set = |condition| {
            brokers.cluster.control(|state| {
                state.brokers.get_mut(&1).expect("one broker").condition = condition;
            });
        };
        let ask = move |ctx: Ctx| {
            let bootstrap = bootstrap.clone();
            async move {
                let mut client = Client::to(&ctx, &bootstrap);
                let began = tokio::time::Instant::now();
                let answer = client.call(-1, &MetadataRequest::default(), 12).await;
                (
                    answer.map(|_| ()).map_err(|error| error.kind()),
                    began.elapsed(),
                )
            }
        };
        set(Condition::Stopped);
        let asking = world.process("asker", ask);
        let (answer, _) = world.result(&asking, 100);
        assert_eq!(answer, Err(std::io::ErrorKind::ConnectionRefused));
        set(Condition::Frozen);
        asking.restart();
        world.run_for(5_000);
        set(Condition::Up);
        let (answer, time) = world.result(&asking, 100);
        assert_eq!(answer, Ok(()));
        assert!((5_000..5_050).contains(&time.as_millis()), "{time:?}");
    });
}

#[test]
fn processes_know_who_else_lives_on_their_machine() {
    run(11, |world| {
        let on = |world: &mut World, machine: &str, name: &str| {
            world.process_on(machine, name, |ctx| async move {
                sleep(Duration::from_millis(50)).await;
                let machine = ctx.machine();
                (
                    machine.host(),
                    machine.pid(),
                    (0..200).filter(|pid| machine.runs(*pid)).count(),
                )
            })
        };
        let (a, b, c) = (
            on(world, "one", "a"),
            on(world, "one", "b"),
            on(world, "two", "c"),
        );
        b.freeze();
        let (host_a, pid_a, alive_a) = world.result(&a, 1_000);
        let (host_c, pid_c, alive_c) = world.result(&c, 1_000);
        assert_eq!((alive_a, alive_c), (2, 1), "a frozen process lives");
        assert_ne!(host_a, host_c);
        assert_ne!(pid_a, pid_c);
        b.kill();
        a.restart();
        assert_eq!(world.result(&a, 1_000).2, 1, "a killed one doesn't");
    });
}

#[test]
#[should_panic(expected = "asker: ")]
fn a_panic_in_any_task_of_a_process_is_a_failure() {
    run(12, |world| {
        world.process("asker", |_| async {
            tokio::spawn(async { panic!("nobody waits for this task") });
            sleep(Duration::from_secs(1)).await;
        });
        world.run_for(500);
    });
}

#[test]
fn the_number_of_processors_is_always_the_same() {
    let real = std::thread::available_parallelism().expect("Linux tells");
    let simulated = run(13, |_| {
        std::thread::available_parallelism().expect("we tell")
    });
    assert_eq!(simulated.get(), 1);
    assert_eq!(
        std::thread::available_parallelism().expect("Linux tells"),
        real
    );
}

#[test]
fn a_process_can_die_between_two_writes() {
    run(14, |world| {
        let brokers = world.cluster("source", Options::default());
        let bootstrap = brokers.bootstrap();
        let asking = world.process("asker", move |ctx| {
            let bootstrap = bootstrap.clone();
            async move {
                let mut clients: Vec<Client> =
                    (0..3).map(|_| Client::to(&ctx, &bootstrap)).collect();
                for client in &mut clients {
                    client
                        .call(-1, &ApiVersionsRequest::default(), 0)
                        .await
                        .expect("answers");
                }
                sleep(Duration::from_secs(1)).await;
                // All three in one moment.
                let mut asking = tokio::task::JoinSet::new();
                for mut client in clients {
                    asking.spawn(async move {
                        let _ = client.call(-1, &ApiVersionsRequest::default(), 0).await;
                    });
                }
                asking.join_all().await;
            }
        });
        world.run_for(500);
        let before = world.trace().events();
        asking.kill_after_writes(2);
        world.run_for(1_000);
        assert_eq!(asking.phase(), Phase::Killed);
        assert_eq!(
            world.trace().events() - before,
            2 + 2 + 2,
            "two of three requests and their answers; the order and the death"
        );
    });
}
