//! Numbers side by side: a Markdown table on standard output, JSON in a file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::brokers;
use crate::contestant::Contestant;
use crate::options::Options;

/// What the design asks of a number.
#[derive(Clone, Copy, Debug)]
pub enum Bar {
    /// Nothing.
    None,
    /// At most this.
    AtMost(f64),
    /// At least this.
    AtLeast(f64),
    /// At least this many times MirrorMaker 2's.
    TimesAtLeast(f64),
    /// At most this share of MirrorMaker 2's.
    ShareAtMost(f64),
}

/// One kind of number of a scenario.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its key in the JSON, with the unit last.
    pub key: &'static str,
    /// Its row in the table.
    pub title: &'static str,
    /// What is asked of Twinlog.
    pub bar: Bar,
}

/// A number, or why there is none.
#[derive(Clone, Debug)]
pub enum Number {
    /// Measured.
    Is(f64),
    /// It took longer than we waited: more than this.
    MoreThan(f64),
}

impl Number {
    fn value(&self) -> f64 {
        match self {
            Self::Is(value) | Self::MoreThan(value) => *value,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Is(value) => format_number(*value),
            Self::MoreThan(value) => format!("> {}", format_number(*value)),
        }
    }
}

/// One contestant's numbers, by metric key.
pub type Numbers = BTreeMap<&'static str, Number>;

/// A scenario's numbers.
pub struct Outcome {
    /// The scenario's name.
    pub scenario: &'static str,
    /// What was done, in a sentence.
    pub description: String,
    /// The rows.
    pub metrics: &'static [Metric],
    /// The columns.
    pub numbers: Vec<(Contestant, Numbers)>,
}

impl Outcome {
    fn number(&self, contestant: Contestant, key: &str) -> Option<&Number> {
        let (_, numbers) = self
            .numbers
            .iter()
            .find(|(found, _)| *found == contestant)?;
        numbers.get(key)
    }

    /// Twinlog's number divided by the other's.
    fn ratio(&self, other: Contestant, key: &str) -> Option<f64> {
        let ours = self.number(Contestant::Twinlog, key)?.value();
        let theirs = self.number(other, key)?.value();
        (theirs != 0.0).then_some(ours / theirs)
    }

    /// Whether the bar is reached; `None` when it can't be said.
    fn meets(&self, metric: &Metric) -> Option<bool> {
        let ours = || self.number(Contestant::Twinlog, metric.key);
        let ratio = || self.ratio(Contestant::MirrorMaker2, metric.key);
        match metric.bar {
            Bar::None => None,
            Bar::AtMost(most) => match ours()? {
                Number::Is(value) => Some(*value <= most),
                Number::MoreThan(_) => Some(false),
            },
            Bar::AtLeast(least) => Some(ours()?.value() >= least),
            Bar::TimesAtLeast(least) => Some(ratio()? >= least),
            Bar::ShareAtMost(most) => Some(ratio()? <= most),
        }
    }

    /// As Markdown.
    pub fn table(&self) -> String {
        let mut text = format!("\n**{}**: {}\n\n|", self.scenario, self.description);
        let others: Vec<Contestant> = self
            .numbers
            .iter()
            .map(|(contestant, _)| *contestant)
            .filter(|contestant| *contestant != Contestant::Twinlog)
            .collect();
        // Writing to a String cannot fail, here and below.
        for (contestant, _) in &self.numbers {
            let _ = write!(text, " | {}", contestant.title());
        }
        for other in &others {
            let _ = write!(text, " | : {}", other.title());
        }
        text.push_str(" | bar |\n|---");
        for _ in 0..self.numbers.len() + others.len() {
            text.push_str("|---:");
        }
        text.push_str("|---|\n");
        for metric in self.metrics {
            let _ = write!(text, "| {}", metric.title);
            for (_, numbers) in &self.numbers {
                let shown = numbers.get(metric.key).map(Number::text);
                let _ = write!(text, " | {}", shown.unwrap_or_else(|| "-".into()));
            }
            for other in &others {
                let shown = self.ratio(*other, metric.key).map(format_ratio);
                let _ = write!(text, " | {}", shown.unwrap_or_else(|| "-".into()));
            }
            let verdict = match self.meets(metric) {
                Some(true) => " met",
                Some(false) => " **missed**",
                None => "",
            };
            let _ = writeln!(text, " | {}{verdict} |", metric.bar.text());
        }
        text
    }

    fn json(&self) -> Value {
        let results: serde_json::Map<String, Value> = self
            .numbers
            .iter()
            .map(|(contestant, numbers)| {
                let fields: serde_json::Map<String, Value> = numbers
                    .iter()
                    .map(|(key, number)| {
                        let value = match number {
                            Number::Is(value) => json!(value),
                            Number::MoreThan(value) => json!({ "more_than": value }),
                        };
                        ((*key).to_owned(), value)
                    })
                    .collect();
                (contestant.name().to_owned(), Value::Object(fields))
            })
            .collect();
        let metrics: Vec<Value> = self
            .metrics
            .iter()
            .map(|metric| {
                json!({
                    "key": metric.key,
                    "title": metric.title,
                    "ratio_to_mirrormaker2": self.ratio(Contestant::MirrorMaker2, metric.key),
                    "ratio_to_librdkafka": self.ratio(Contestant::Librdkafka, metric.key),
                    "bar": metric.bar.text(),
                    "bar_met": self.meets(metric),
                })
            })
            .collect();
        json!({ "description": self.description, "results": results, "metrics": metrics })
    }
}

impl Bar {
    fn text(self) -> String {
        match self {
            Self::None => String::new(),
            Self::AtMost(most) => format!("<= {}", format_number(most)),
            Self::AtLeast(least) => format!(">= {}", format_number(least)),
            Self::TimesAtLeast(least) => format!(">= {least} x"),
            Self::ShareAtMost(most) => format!("<= 1/{:.0}", 1.0 / most),
        }
    }
}

fn format_number(value: f64) -> String {
    match value.abs() {
        large if large >= 10_000.0 => {
            let digits = format!("{value:.0}");
            let mut text = String::new();
            for (index, digit) in digits.chars().enumerate() {
                if index > 0 && (digits.len() - index) % 3 == 0 {
                    text.push(',');
                }
                text.push(digit);
            }
            text
        }
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        whole if whole.fract() == 0.0 => format!("{value:.0}"),
        small if small >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

fn format_ratio(ratio: f64) -> String {
    if ratio > 0.0 && ratio < 0.5 {
        format!("1/{:.1}", 1.0 / ratio)
    } else {
        format!("{ratio:.2} x")
    }
}

/// Everything of a run.
pub struct Report {
    value: Value,
}

impl Report {
    /// An empty report with what is known about the machine.
    pub fn new(options: &Options) -> Self {
        let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        Self {
            value: json!({
                "date": first_line("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
                "commit": first_line("git", &["rev-parse", "--short", "HEAD"]),
                "machine": {
                    "processor": field("/proc/cpuinfo", "model name"),
                    "cores": cores,
                    "memory": field("/proc/meminfo", "MemTotal"),
                    "kernel": first_line("uname", &["-sr"]),
                },
                "kafka": brokers::VERSION.number(),
                "quick": options.quick,
                "scenarios": {},
            }),
        }
    }

    /// Adds a scenario's numbers.
    pub fn add(&mut self, outcome: Outcome) {
        self.value["scenarios"][outcome.scenario] = outcome.json();
    }

    /// Writes the JSON.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn write(&self, file: &Path) -> std::io::Result<()> {
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(file, format!("{:#}\n", self.value))
    }
}

fn first_line(program: &str, arguments: &[&str]) -> String {
    Command::new(program)
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .and_then(|text| text.lines().next().map(str::to_owned))
        .unwrap_or_default()
}

fn field(file: &str, name: &str) -> String {
    std::fs::read_to_string(file)
        .unwrap_or_default()
        .lines()
        .find(|line| line.starts_with(name))
        .and_then(|line| line.split_once(':'))
        .map_or_else(String::new, |(_, value)| value.trim().to_owned())
}
