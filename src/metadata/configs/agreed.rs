//! Settings that take records from the copy need the word of most brokers of the source.
//!
//! A broker that is cut off from its controllers goes on telling what held before: a shorter retention, say. The target's
//! cleaner would act upon it within minutes, and what it takes doesn't come back when another broker is asked.

use super::chunk::Found;
use super::decide::Change;
use crate::metadata::context::Context;
use crate::wire;

/// What decides which records stay.
const KEYS: [&str; 6] = [
    "cleanup.policy",
    "delete.retention.ms",
    "local.retention.bytes",
    "local.retention.ms",
    "retention.bytes",
    "retention.ms",
];

/// Topic, key and the source's value.
type Told = (String, String, Option<String>);

/// Takes out what most brokers of the source don't tell: by topic on the target, the change.
pub(super) async fn take_out_doubtful(
    context: &Context,
    found: &mut [Found<'_>],
) -> Vec<(String, Change)> {
    let told = |found: &Found<'_>, change: &Change| -> Option<Told> {
        let topic = found.topic.source_topic.clone();
        let is_asked = KEYS.contains(&change.key.as_str());
        is_asked.then(|| (topic, change.key.clone(), change.source.clone()))
    };
    let mut wanted = Vec::new();
    for found in &*found {
        let changes = found.decision.changes.iter();
        wanted.extend(changes.filter_map(|change| told(found, change)));
    }
    if wanted.is_empty() {
        return Vec::new();
    }
    let mut topics: Vec<String> = wanted.iter().map(|(topic, _, _)| topic.clone()).collect();
    topics.dedup();
    let agreed = wire::configs_agreed_on(&context.source, &topics, wanted).await;
    let mut doubtful = Vec::new();
    for found in found {
        let changes = std::mem::take(&mut found.decision.changes);
        let (kept, out): (Vec<Change>, Vec<Change>) = changes
            .into_iter()
            .partition(|change| told(found, change).is_none_or(|told| agreed.contains(&told)));
        found.decision.changes = kept;
        let target = &found.topic.target_topic;
        doubtful.extend(out.into_iter().map(|change| (target.clone(), change)));
    }
    doubtful
}
