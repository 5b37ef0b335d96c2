//! Plays every scenario on any broker: `cargo run -p fake-kafka --example truth -- HOST:PORT [PREFIX [aging | rights]]`.

use fake_kafka::scenarios;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let bootstrap = arguments
        .next()
        .expect("usage: truth HOST:PORT [PREFIX [aging | rights]]");
    let prefix = arguments.next().unwrap_or_default();
    match arguments.next().as_deref() {
        Some("aging") => scenarios::run_aging(&bootstrap, &prefix, &mut |_| {}),
        Some("rights") => scenarios::run(scenarios::WITH_AUTHORIZER, &bootstrap, &prefix),
        _ => scenarios::run_all(&bootstrap, &prefix),
    }
}
