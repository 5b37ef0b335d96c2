//! Waits until every broker of the source shows the fence.
//!
//! A controller that has taken an ACL is no proof: each broker refuses by its own image of the metadata, and
//! one whose image is late goes on accepting (KAFKA-14535, KAFKA-19586). `DescribeAcls` is answered from that
//! very image (`AclApis.handleDescribeAcls` asks the broker's own authorizer), so each is asked itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::cutover::context::Cutover;
use crate::cutover::error::CutoverError;
use crate::wire;

const AGAIN: Duration = Duration::from_millis(100);
/// How long one broker may take for one answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// Whoever takes longer is named while he is waited for.
const TOLD_AFTER: Duration = Duration::from_secs(1);

/// Waits until every broker of the source refuses to write to these topics by its own word.
///
/// # Errors
/// When one doesn't within the time that the operator gives, or can't be asked: it is named.
pub(super) async fn await_fence(it: &Cutover, topics: &[String]) -> Result<(), CutoverError> {
    let source = &it.scene.source;
    let wanted: BTreeSet<String> = topics.iter().cloned().collect();
    let began = Instant::now();
    let mut shown = BTreeSet::new();
    let mut is_told = false;
    loop {
        // Who is no part of the cluster any more leads nothing of it, and whoever comes back hears of all first.
        let brokers: Vec<i32> = source.cached().brokers.keys().copied().collect();
        let open = brokers.iter().copied().filter(|id| !shown.contains(id));
        let (fenced, mut late) = ask(it, open.collect(), &wanted).await?;
        shown.extend(fenced);
        if brokers.is_empty() {
            // A broker that has just begun may answer with a cluster of nobody.
            late.insert(-1, "no broker is known".to_owned());
        }
        let Some((broker, why)) = late.first_key_value() else {
            return Ok(());
        };
        if began.elapsed() >= it.options.wait {
            return Err(not_shown(it, &late, began.elapsed()));
        }
        if !is_told && began.elapsed() >= TOLD_AFTER {
            is_told = true;
            (it.tell)(&format!(
                "broker {broker} doesn't refuse writers yet ({why}); nothing is proven before it does"
            ));
        }
        tokio::time::sleep(AGAIN).await;
        // What can't be asked is told by the next round.
        let _ = tokio::time::timeout(ANSWERS_WITHIN, source.metadata(None)).await;
    }
}

/// Brokers, and why each doesn't show the fence.
type Late = BTreeMap<i32, String>;

/// Asks each of these: who shows the fence, and who doesn't.
async fn ask(
    it: &Cutover,
    brokers: Vec<i32>,
    wanted: &BTreeSet<String>,
) -> Result<(Vec<i32>, Late), CutoverError> {
    let mut asking = JoinSet::new();
    for broker in brokers {
        let source = it.scene.source.clone();
        asking.spawn(async move {
            let asked = wire::denied_topics_at(&source, broker);
            (broker, tokio::time::timeout(ANSWERS_WITHIN, asked).await)
        });
    }
    let (mut fenced, mut late) = (Vec::new(), Late::new());
    while let Some(done) = asking.join_next().await {
        let (broker, answer) =
            done.map_err(|error| CutoverError::failed(format!("a defect: {error}")))?;
        let why = match answer {
            Ok(Ok(denied)) => match wanted.difference(&denied).next() {
                None => {
                    fenced.push(broker);
                    continue;
                }
                Some(topic) => format!("it would take records of {topic}"),
            },
            Ok(Err(error)) => format!("it can't be asked: {error}"),
            Err(_) => format!("no answer within {} s", ANSWERS_WITHIN.as_secs()),
        };
        late.insert(broker, why);
    }
    Ok((fenced, late))
}

fn not_shown(it: &Cutover, late: &Late, after: Duration) -> CutoverError {
    let named: Vec<String> = late
        .iter()
        .map(|(broker, why)| format!("broker {broker} ({why})"))
        .collect();
    CutoverError::failed(format!(
        "after {} s not every broker of {} refuses writers: {}",
        after.as_secs(),
        it.scene.source.name(),
        named.join(", ")
    ))
    .with_hint(
        "see why that broker is behind with its metadata, or stop it, and run this again; `--abort` undoes the fence",
    )
}
