//! Flows that get in each other's way.
//!
//! Whether two sets of regular expressions share a name is looked for with names made from the
//! patterns themselves. What is found is real and named in the problem; what is not found is left
//! to run time, where a second writer in a mirror topic stops its partition.

use super::{FlowConfig, is_internal_topic};

/// How many patterns of a flow are combined with the other's: bounds the work for long lists.
const PAIRED_MAX: usize = 30;

/// A target topic that both flows would write, if one is found.
pub(super) fn written_by_both(left: &FlowConfig, right: &FlowConfig) -> Option<String> {
    if left.target != right.target {
        return None;
    }
    target_names(left, right)
        .into_iter()
        .find(|name| writes(left, name) && writes(right, name))
}

/// A topic that `left` writes and `right` would carry back to where it came from, if one is found.
pub(super) fn carried_back(left: &FlowConfig, right: &FlowConfig) -> Option<String> {
    if left.target != right.source || left.source != right.target {
        return None;
    }
    target_names(left, right)
        .into_iter()
        .find(|name| writes(left, name) && reads(right, name))
}

fn reads(flow: &FlowConfig, topic: &str) -> bool {
    flow.topics.matches(topic) && !is_internal_topic(topic)
}

fn writes(flow: &FlowConfig, name: &str) -> bool {
    let topic = flow.rename.unapply(&flow.source, name);
    topic.is_some_and(|topic| reads(flow, &topic))
}

/// Names worth trying: what both flows would make of topics that look like their patterns.
fn target_names(left: &FlowConfig, right: &FlowConfig) -> Vec<String> {
    let mut topics: Vec<String> = Vec::new();
    let (mine, theirs) = (skeletons(left), skeletons(right));
    topics.extend(mine.iter().chain(&theirs).cloned());
    for mine in mine.iter().take(PAIRED_MAX) {
        for theirs in theirs.iter().take(PAIRED_MAX) {
            topics.push(format!("{mine}{theirs}"));
            topics.push(format!("{theirs}{mine}"));
        }
    }
    topics.push("orders".to_owned());
    let mut names = Vec::new();
    for topic in &topics {
        for name in [topic.clone(), format!("{topic}x")] {
            names.push(left.rename.apply(&left.source, &name));
            names.push(right.rename.apply(&right.source, &name));
            names.push(name);
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// The literal letters of each alternative of each include pattern.
fn skeletons(flow: &FlowConfig) -> Vec<String> {
    let patterns = flow.topics.include().iter();
    patterns
        .flat_map(|pattern| pattern.split('|').map(skeleton))
        .collect()
}

fn skeleton(pattern: &str) -> String {
    let mut letters = String::new();
    let mut rest = pattern.chars();
    while let Some(letter) = rest.next() {
        match letter {
            '\\' => match rest.next() {
                Some('d') => letters.push('0'),
                Some('w') => letters.push('x'),
                Some(escaped) if "._-".contains(escaped) => letters.push(escaped),
                _ => {}
            },
            letter if letter.is_ascii_alphanumeric() || "_-".contains(letter) => {
                letters.push(letter);
            }
            _ => {}
        }
    }
    letters
}
