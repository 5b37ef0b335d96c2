//! Plays every scenario on any broker: `cargo run -p fake-kafka --example truth -- HOST:PORT [PREFIX]`.

fn main() {
    let mut arguments = std::env::args().skip(1);
    let bootstrap = arguments.next().expect("usage: truth HOST:PORT [PREFIX]");
    let prefix = arguments.next().unwrap_or_default();
    fake_kafka::scenarios::run_all(&bootstrap, &prefix);
}
