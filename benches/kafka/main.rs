//! MirrorMaker 2, a plain librdkafka loop and Twinlog on the same data, machine and brokers, one
//! after the other. Run it with `scripts/bench`; what is measured how is in `docs/BENCHMARKS.md`.

// The modules are those of the integration tests, and only a part of them is used here.
#[allow(dead_code, unused_imports)]
#[path = "../../tests/it/support/mod.rs"]
mod support;

mod brokers;
mod contestant;
mod copy_loop;
mod load;
mod options;
mod proxy;
mod report;
mod scenarios;
mod usage;
mod watch;

use options::Options;
use report::Report;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().map(String::as_str) == Some(copy_loop::COMMAND) {
        copy_loop::run(&arguments[1..]);
        return;
    }
    // `cargo test --all-targets` runs benches too, without the argument that `cargo bench` adds.
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("nothing to test; run scripts/bench");
        return;
    }
    let options = match Options::parse(arguments) {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("{problem}\n\n{}", options::USAGE);
            std::process::exit(2);
        }
    };
    if options.help {
        println!("{}", options::USAGE);
        return;
    }
    let mut report = Report::new(&options);
    for scenario in &options.scenarios {
        eprintln!("== {}", scenario.name());
        let outcome = scenario.run(&options);
        println!("{}", outcome.table());
        report.add(outcome);
        // After each scenario, so that an interrupted run keeps what it has.
        if let Err(error) = report.write(&options.out) {
            eprintln!("cannot write {}: {error}", options.out.display());
            std::process::exit(1);
        }
    }
    eprintln!("report: {}", options.out.display());
}
