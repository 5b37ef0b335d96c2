//! The alerts that are shipped, against the metrics that there are and the page that explains them.

use std::collections::BTreeSet;
use std::path::Path;

use regex::Regex;
use serde::Deserialize;
use twinlog::telemetry::names;

#[derive(Deserialize)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    alert: String,
    expr: String,
    labels: Labels,
    annotations: Annotations,
}

#[derive(Deserialize)]
struct Labels {
    severity: String,
}

#[derive(Deserialize)]
struct Annotations {
    summary: String,
    action: String,
}

fn rules() -> Vec<Rule> {
    let file = include_str!("../../../configs/alerts.yaml");
    let rules: Rules = serde_saphyr::from_str(file).expect("a rules file");
    rules.groups.into_iter().flat_map(|it| it.rules).collect()
}

/// The labels that a metric has, and those that a scrape adds.
fn labels_of(metric: &str) -> Option<BTreeSet<&'static str>> {
    let found = names::ALL.iter().find(|it| it.name == metric)?;
    Some(found.labels.iter().copied().collect())
}

#[test]
fn alerts_use_metrics_and_labels_that_there_are() {
    let metric = Regex::new(r"(twinlog_\w+)(?:\{([^}]*)\})?").expect("a pattern");
    let label = Regex::new(r#"(\w+)(?:=~|!~|!=|=)""#).expect("a pattern");
    for rule in rules() {
        let mut used = 0;
        for found in metric.captures_iter(&rule.expr) {
            let name = &found[1];
            let has = labels_of(name).unwrap_or_else(|| panic!("{}: {name}?", rule.alert));
            for matcher in found
                .get(2)
                .iter()
                .flat_map(|it| label.captures_iter(it.as_str()))
            {
                assert!(
                    has.contains(&matcher[1]),
                    "{}: {name} has no {}",
                    rule.alert,
                    &matcher[1]
                );
            }
            used += 1;
        }
        assert!(used > 0, "{} looks at nothing", rule.alert);
    }
}

#[test]
fn every_alert_says_what_to_do_and_the_page_lists_it() {
    let rules = rules();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = Regex::new(r"docs/[\w./-]+\.md").expect("a pattern");
    for rule in &rules {
        let Annotations { summary, action } = &rule.annotations;
        assert!(
            summary.ends_with('.') && action.ends_with('.'),
            "{}",
            rule.alert
        );
        assert!(
            ["page", "ticket", "info"].contains(&rule.labels.severity.as_str()),
            "{}",
            rule.alert
        );
        for named in page.find_iter(action) {
            assert!(
                root.join(named.as_str()).exists(),
                "{}: {action}",
                rule.alert
            );
        }
    }
    let row = Regex::new(r"(?m)^\| `(Twinlog\w+)` \|").expect("a pattern");
    let listed: Vec<&str> = row
        .captures_iter(include_str!("../../../docs/METRICS.md"))
        .map(|it| it.extract::<1>().1[0])
        .collect();
    let shipped: Vec<&str> = rules.iter().map(|it| it.alert.as_str()).collect();
    assert_eq!(
        listed, shipped,
        "docs/METRICS.md against configs/alerts.yaml, in order"
    );
}
