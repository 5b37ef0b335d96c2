//! Tests in simulated time.

use std::future::Future;

/// Longest test, in simulated time.
const DAY_MS: i64 = 24 * 3_600_000;

/// Runs a test in which nothing waits for real time. Timers are looked at every few milliseconds.
pub(crate) fn simulated<F, Fut>(test: F)
where
    F: Fn() -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    fake_kafka::world::run(1, move |world| {
        let process = world.process("test", move |_| test());
        world.result(&process, DAY_MS);
    });
}
