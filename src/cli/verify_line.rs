//! What `status` says about comparisons of the target with the source.

use super::format::{plural, seconds};
use crate::telemetry::verify::VerifySummary;

/// The lines about a flow's comparisons, indented under the flow.
pub(super) fn lines(summary: &VerifySummary, now_ms: i64) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some((mode, result)) = summary.newest() {
        // As old as its beginning: what was read first may have changed since.
        let age = seconds((now_ms - result.started_ms).max(0) as f64 / 1_000.0);
        let (mark, verdict) = match result.verdict.as_str() {
            "same" => (' ', "the same".to_owned()),
            "different" => {
                let count = plural(result.count(), "difference");
                ('!', format!("{count}; `twinlog verify` lists them"))
            }
            _ => ('!', "not everything could be compared".to_owned()),
        };
        let percent = (result.coverage * 1_000.0).floor() / 10.0;
        lines.push(format!(
            "  {mark} verified {percent:.1} % {age} ago ({mode}): {verdict}"
        ));
    }
    if let Some(round) = &summary.background {
        if round.ratio < 1.0 {
            lines.push(format!("    verifying: {:.1} %", round.ratio * 100.0));
        }
        if let Some(problem) = &round.problem {
            lines.push(format!("  ! verifying in the background: {problem}"));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::verify::{BackgroundRound, VerifyResult};

    #[test]
    fn what_was_found_is_said_with_its_age() {
        let mut summary = VerifySummary::default();
        assert!(lines(&summary, 0).is_empty());
        let result = VerifyResult {
            verdict: "same".to_owned(),
            coverage: 0.9999,
            ..VerifyResult::default()
        };
        summary.last.insert("full".to_owned(), result.clone());
        let said = lines(&summary, 7_200_000);
        assert_eq!(said, ["    verified 99.9 % 2 h 0 min ago (full): the same"]);
        let different = VerifyResult {
            verdict: "different".to_owned(),
            ended_ms: 1,
            differences: [("changed".to_owned(), 2)].into(),
            ..result
        };
        summary.last.insert("background".to_owned(), different);
        summary.background = Some(BackgroundRound {
            ratio: 0.5,
            bytes: 0,
            problem: None,
        });
        let said = lines(&summary, 0);
        assert!(
            said[0].contains("! verified") && said[0].contains("2 differences"),
            "{said:?}"
        );
        assert_eq!(said[1], "    verifying: 50.0 %");
    }
}
