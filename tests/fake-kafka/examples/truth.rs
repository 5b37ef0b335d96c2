//! Plays every scenario on any broker: `cargo run -p fake-kafka --example truth -- HOST:PORT [PREFIX [aging]]`.

fn main() {
    let mut arguments = std::env::args().skip(1);
    let bootstrap = arguments.next().expect("usage: truth HOST:PORT [PREFIX]");
    let prefix = arguments.next().unwrap_or_default();
    if arguments.next().is_some() {
        fake_kafka::scenarios::run_aging(&bootstrap, &prefix, &mut |_| {});
    } else {
        fake_kafka::scenarios::run_all(&bootstrap, &prefix);
    }
}
