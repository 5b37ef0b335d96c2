//! What a leader has and readers may not see yet.
//!
//! `ListOffsets` answers with the high watermark. While an in-sync replica lags the log is longer,
//! and what lies between comes to light later: behind a proof that nothing is written, or behind a
//! base that was taken for the log's end.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::task::JoinSet;

use super::error::CutoverError;
use super::pairs::{Offsets, topics_of};
use crate::tasks::brought;
use crate::wire::{self, Cluster, FetchFrom, ResponseError, TopicPartition};

/// Partitions in one fetch.
const AT_ONCE: usize = 200;
const BYTES: i32 = 1;
/// How long a leader that doesn't answer is waited for.
const PATIENCE: Duration = Duration::from_secs(8);

/// The partitions whose logs don't end at `ends`, or about which their leader doesn't say.
///
/// # Errors
/// When a leader doesn't answer.
pub async fn hidden(
    cluster: &Cluster,
    ends: &Offsets,
) -> Result<Vec<TopicPartition>, CutoverError> {
    let asked: BTreeMap<TopicPartition, i64> =
        ends.iter().map(|(at, end)| (at.clone(), end + 1)).collect();
    let reached = reaches(cluster, &asked).await?;
    let mut hidden = Vec::new();
    for at in ends.keys() {
        if reached.get(at) != Some(&false) {
            hidden.push(at.clone());
        }
    }
    if !hidden.is_empty() {
        // A leader may have moved.
        cluster.metadata(Some(&topics_of(&hidden))).await?;
    }
    hidden.sort();
    Ok(hidden)
}

/// Where the logs end that are at `ends` as far as readers see. Of a leader that doesn't say it is what
/// readers see.
///
/// # Errors
/// When a leader doesn't answer.
pub async fn log_ends(cluster: &Cluster, mut ends: Offsets) -> Result<Offsets, CutoverError> {
    // A log reaches `sure`, and not beyond `beyond`; how far to look next while that isn't known.
    let mut open: BTreeMap<TopicPartition, Search> = BTreeMap::new();
    for at in hidden(cluster, &ends).await? {
        let end = ends.get(&at).copied().unwrap_or(0);
        open.insert(at, Search::behind(end));
    }
    while !open.is_empty() {
        let asked = open.iter().map(|(at, it)| (at.clone(), it.probe()));
        let reached = reaches(cluster, &asked.collect()).await?;
        open.retain(|at, search| {
            let told = reached.get(at);
            if let Some(reaches) = told {
                search.take(*reaches);
            }
            let goes_on = told.is_some() && !search.is_found();
            if !goes_on {
                ends.insert(at.clone(), search.sure);
            }
            goes_on
        });
    }
    Ok(ends)
}

/// A log's end by doubling and halving.
#[derive(Clone, Copy, Debug)]
struct Search {
    sure: i64,
    beyond: Option<i64>,
    step: i64,
}

impl Search {
    fn behind(end: i64) -> Self {
        Self {
            sure: end,
            beyond: None,
            step: 1,
        }
    }

    /// The next offset to ask for.
    fn probe(&self) -> i64 {
        match self.beyond {
            Some(beyond) => self.sure + (beyond - self.sure) / 2,
            None => self.sure.saturating_add(self.step),
        }
    }

    fn take(&mut self, reaches: bool) {
        let probe = self.probe();
        if reaches {
            self.sure = probe;
            self.step = self.step.saturating_mul(2);
        } else {
            self.beyond = Some(probe);
        }
    }

    fn is_found(&self) -> bool {
        self.beyond.is_some_and(|beyond| beyond <= self.sure + 1)
    }
}

/// Whether each log reaches an offset, where its leader says. A fetch between what readers see and the log's
/// end is answered with nothing, one beyond that is refused (`LocalLog.read`).
async fn reaches(
    cluster: &Cluster,
    asked: &BTreeMap<TopicPartition, i64>,
) -> Result<BTreeMap<TopicPartition, bool>, CutoverError> {
    let metadata = cluster.cached();
    let mut by_leader: BTreeMap<i32, Vec<FetchFrom>> = BTreeMap::new();
    for (at, offset) in asked {
        if let Some((leader, epoch)) = metadata.leader(&at.topic, at.partition) {
            let from = (at.clone(), *offset, epoch);
            by_leader.entry(leader).or_default().push(from);
        }
    }
    // Side by side: each of them may be a long way off, and one that leads thousands is asked in many pieces.
    let mut asking = JoinSet::new();
    for (leader, asked) in &by_leader {
        // It takes them up one behind the other, so each has its time behind those before.
        for (patience, chunk) in (1..).map(|it| PATIENCE * it).zip(asked.chunks(AT_ONCE)) {
            let (cluster, leader, chunk) = (cluster.clone(), *leader, chunk.to_vec());
            asking.spawn(async move { reaches_at(&cluster, leader, &chunk, patience).await });
        }
    }
    let mut reached = BTreeMap::new();
    while let Some(answered) = asking.join_next().await {
        reached.extend(brought(answered)?);
    }
    Ok(reached)
}

/// The same of some logs of one leader.
async fn reaches_at(
    cluster: &Cluster,
    leader: i32,
    asked: &[FetchFrom],
    patience: Duration,
) -> Result<BTreeMap<TopicPartition, bool>, CutoverError> {
    let question = wire::fetch_many(cluster, leader, asked, Duration::ZERO, BYTES);
    let Ok(answers) = tokio::time::timeout(patience, question).await else {
        return Err(CutoverError::failed(format!(
            "broker {leader} of {} doesn't say where its logs end within {} s",
            cluster.name(),
            patience.as_secs()
        )));
    };
    let mut reached = BTreeMap::new();
    for (at, answer) in answers? {
        match answer {
            Ok(_) => {
                reached.insert(at, true);
            }
            Err(error) if error.server_code() == Some(ResponseError::OffsetOutOfRange) => {
                reached.insert(at, false);
            }
            Err(_) => {}
        }
    }
    Ok(reached)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_logs_end_is_found_in_few_questions(end in 0..1_000_000i64, more in 1..100_000_000i64) {
            let log_end = end + more;
            let mut search = Search::behind(end);
            let mut questions = 0;
            while !search.is_found() {
                let probe = search.probe();
                search.take(probe <= log_end);
                questions += 1;
                prop_assert!(questions < 60);
            }
            prop_assert_eq!(search.sure, log_end);
        }
    }
}
