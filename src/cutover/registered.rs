//! Transactions that have been told of a partition and have no record there.
//!
//! Such a one holds no end back, and its coordinator ends it with a marker there all the same, when its time is over: behind
//! a proof that nothing is written, or behind the first batch that is copied back.

use crate::wire::{self, Cluster, ResponseError, TRANSACTIONS_TOPIC, TopicPartition};

/// What the coordinators tell of some partitions.
#[derive(Debug, Default)]
pub struct Registered {
    /// Those that an open transaction has been told of, with the id of one.
    pub open: Vec<(TopicPartition, String)>,
    /// Why there may be more, as is known a moment later.
    pub not_yet: Option<String>,
    /// Why there may be more, of which nobody tells us.
    pub untold: Option<String>,
}

impl Registered {
    /// Nobody has said anything so far.
    pub fn unknown(why: &str) -> Self {
        Self {
            not_yet: Some(why.to_owned()),
            ..Self::default()
        }
    }

    /// The partitions by their names.
    pub fn names(&self) -> Vec<String> {
        self.open.iter().map(|(at, _)| at.to_string()).collect()
    }
}

/// Asks for those of these partitions.
pub async fn look(cluster: &Cluster, partitions: &[TopicPartition]) -> Registered {
    let told = wire::open_transactions(cluster).await;
    // Where there was never a transaction, a broker that doesn't answer hides none.
    if !told.not_yet.is_empty() && has_none(cluster).await {
        return Registered::default();
    }
    let concerned = partitions
        .iter()
        .filter_map(|at| Some((at.clone(), told.partitions.get(at)?.clone())));
    Registered {
        open: concerned.collect(),
        not_yet: told.not_yet.into_iter().next(),
        untold: told.untold.into_iter().next(),
    }
}

async fn has_none(cluster: &Cluster) -> bool {
    let topic = TRANSACTIONS_TOPIC.to_owned();
    let described = cluster.metadata(Some(std::slice::from_ref(&topic))).await;
    let unknown = Some(ResponseError::UnknownTopicOrPartition);
    described.is_ok_and(|known| known.error_of(&topic) == unknown)
}
