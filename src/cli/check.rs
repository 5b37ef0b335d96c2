//! `twinlog check`: every problem at once, nothing changed.

use serde::Serialize;

use super::format::{clean, plural};
use super::{Exit, output};
use crate::config::Config;
use crate::telemetry::finding::{Finding, Level};
use crate::{flow, http};
use std::fmt::{Display, Write as _};

/// What is answered in JSON.
#[derive(Serialize)]
struct Answer<'a> {
    findings: &'a [Finding],
}

/// Checks a config that could be read, and the clusters in it.
pub(super) async fn run(config: &Config, json: bool) -> Exit {
    let mut findings = vec![Finding::ok(
        "config",
        format!(
            "{} and {}",
            plural(config.clusters.len() as u64, "cluster"),
            plural(config.flows.len() as u64, "flow")
        ),
    )];
    findings.extend(http_problem(config));
    findings.extend(flow::check(config).await);
    let written = write(&findings, json);
    if findings.iter().any(|f| f.level == Level::Error) {
        Exit::Failed
    } else {
        written
    }
}

/// What would keep `run` from serving HTTP, as far as files tell.
fn http_problem(config: &Config) -> Option<Finding> {
    config.http.listen?;
    let problem = http::Door::open(&config.http).err()?;
    Some(Finding::error("http", problem.to_string()))
}

/// Reports a config that can't be used, each problem in a line. The clusters in it can't
/// be looked at then.
pub(super) fn unusable_config(problems: &impl Display, json: bool) -> Exit {
    if !json {
        return output::fail(Exit::Usage, problems);
    }
    let findings: Vec<Finding> = problems
        .to_string()
        .lines()
        .map(|problem| Finding::error("config", problem))
        .collect();
    write(&findings, json);
    Exit::Usage
}

fn write(findings: &[Finding], json: bool) -> Exit {
    if json {
        output::print_answer(Answer { findings })
    } else {
        output::print(&render(findings))
    }
}

fn render(findings: &[Finding]) -> String {
    let mut text = String::new();
    let count = |level| findings.iter().filter(|f| f.level == level).count() as u64;
    for finding in findings {
        let mark = match finding.level {
            Level::Ok => "ok     ",
            Level::Warning => "warning",
            Level::Error => "error  ",
        };
        let (subject, message) = (clean(&finding.subject), clean(&finding.message));
        // Writing to a string can't fail.
        let _ = writeln!(text, "{mark}  {subject}: {message}");
        if let Some(hint) = &finding.hint {
            let _ = writeln!(text, "         -> {}", clean(hint));
        }
    }
    let (errors, warnings) = (count(Level::Error), count(Level::Warning));
    let summary = match (errors, warnings) {
        (0, 0) => "everything is fine".to_owned(),
        (0, _) => plural(warnings, "warning"),
        _ => format!(
            "{}, {}",
            plural(errors, "error"),
            plural(warnings, "warning")
        ),
    };
    let _ = writeln!(text, "{summary}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_stands_under_its_finding() {
        let text = render(&[
            Finding::ok("config", "2 clusters and 1 flow"),
            Finding::error("cluster standby", "refused").with_hint("start it"),
        ]);
        assert_eq!(
            text,
            "ok       config: 2 clusters and 1 flow\n\
             error    cluster standby: refused\n         -> start it\n\
             1 error, 0 warnings\n"
        );
    }
}
