//! The command line of the bench.

use std::path::PathBuf;

use crate::contestant::Contestant;
use crate::scenarios::Scenario;

/// What `--help` says.
pub const USAGE: &str = "\
usage: scripts/bench [OPTIONS]

  --only LIST          scenarios, with commas: throughput,small,latency,start,crash,idle,
                       longline,groups,metadata,failover,transactions,transactions-far
  --contestants LIST   mirrormaker2,librdkafka,twinlog (default: all three)
  --records N          records of throughput (default 4000000; small has 3/8 of it)
  --quick              a tenth of the records, shorter runs, fewer repetitions
  --out FILE           the report as JSON (default target/bench/report.json)";

/// What to run.
pub struct Options {
    /// In this order.
    pub scenarios: Vec<Scenario>,
    /// In this order.
    pub contestants: Vec<Contestant>,
    /// Records of the throughput scenario; the others derive theirs.
    pub records: u64,
    /// Shorter runs.
    pub quick: bool,
    /// Where the JSON goes.
    pub out: PathBuf,
    /// Only print the usage.
    pub help: bool,
}

impl Options {
    /// Reads the arguments.
    ///
    /// # Errors
    /// A sentence that names the argument.
    pub fn parse(arguments: Vec<String>) -> Result<Self, String> {
        let mut options = Self {
            scenarios: Scenario::ALL.to_vec(),
            contestants: Contestant::ALL.to_vec(),
            records: 0,
            quick: false,
            out: PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/bench/report.json"),
            help: false,
        };
        let mut rest = arguments.into_iter();
        while let Some(argument) = rest.next() {
            let mut value = || {
                rest.next()
                    .ok_or_else(|| format!("{argument} needs a value"))
            };
            match argument.as_str() {
                "--bench" => {}
                "--help" | "-h" => options.help = true,
                "--quick" => options.quick = true,
                "--out" => options.out = PathBuf::from(value()?),
                "--only" => options.scenarios = list(&value()?, Scenario::from_name)?,
                "--contestants" => options.contestants = list(&value()?, Contestant::from_name)?,
                "--records" => {
                    options.records = value()?
                        .replace('_', "")
                        .parse()
                        .map_err(|_| "--records needs a number".to_owned())?;
                }
                other => return Err(format!("unknown argument {other}")),
            }
        }
        if options.records == 0 {
            options.records = if options.quick { 400_000 } else { 4_000_000 };
        }
        Ok(options)
    }
}

fn list<T>(text: &str, from_name: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, String> {
    text.split(',')
        .map(|name| from_name(name.trim()).ok_or_else(|| format!("unknown name {name}")))
        .collect()
}
