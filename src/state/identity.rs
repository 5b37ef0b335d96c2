//! Which cluster a flow's source is, by what the flow remembers. What another one lacks says nothing about what the
//! standby needs, and one that tells no id may be another one.
//!
//! Nor does one that was built anew under the id of the one before: a `docker-compose.yml` names the id, and so do most
//! scripts that format the disks. Nobody deletes `__consumer_offsets`, and a cluster makes it once. So its id tells one
//! build from another: it is remembered as soon as it is seen, and a cluster that has another one, or none, isn't the one
//! that was copied from.

use super::{BuildRecord, FlowRecord, RoleRecord, StateError, StateStore, keys};
use crate::wire::{Cluster, Metadata, OFFSETS_TOPIC, WireError, is_other_topic};

/// Whose word the source's is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SourceIs {
    /// That of the cluster that the flow, or its last cut-over, began with; also where none has begun.
    Known,
    /// Nobody knows: it tells no id, or told none when the flow began.
    Untold {
        /// It told one when the flow began.
        told_before: bool,
    },
    /// Another cluster's.
    Other {
        /// The id that the flow began with.
        known: String,
        /// The one that is told now.
        found: String,
    },
    /// That of a cluster that was built anew under the same id, or that can't be told from one. Only found by
    /// [`SourceIs::ask`].
    BuiltAnew {
        /// In words.
        why: String,
    },
}

impl SourceIs {
    /// By the id that is told now, and by what is remembered.
    ///
    /// # Errors
    /// When a record can't be read.
    pub fn of(store: &StateStore, flow: &str, told: Option<&str>) -> Result<Self, StateError> {
        let has_begun = store.bytes(&keys::flow(flow)).is_some();
        Ok(judge(has_begun, source_id(store, flow)?, told))
    }

    /// As [`SourceIs::of`], by what is known of the source without asking.
    ///
    /// # Errors
    /// When a record can't be read.
    pub fn of_cached(store: &StateStore, flow: &str, source: &Cluster) -> Result<Self, StateError> {
        Self::of(store, flow, source.cached().cluster_id.as_deref())
    }

    /// Asks whoever answers under the source's addresses now: before anything is taken away for what it lacks. Nobody
    /// may answer (the inner error).
    ///
    /// # Errors
    /// When a record can't be read.
    pub async fn ask(
        store: &StateStore,
        flow: &str,
        source: &Cluster,
    ) -> Result<Result<Self, WireError>, StateError> {
        let asked = [OFFSETS_TOPIC.to_owned()];
        let now = match source.metadata(Some(&asked)).await {
            Ok(now) => now,
            Err(error) => return Ok(Err(error)),
        };
        let is = Self::of(store, flow, now.cluster_id.as_deref())?;
        let build: Option<BuildRecord> = match is {
            Self::Known => store.get(&keys::build(flow))?,
            _ => None,
        };
        let why = build.and_then(|known| difference(&known, &now));
        Ok(Ok(why.map_or(is, |why| Self::BuiltAnew { why })))
    }
}

/// Remembers which build of the source it is, the first time that it shows. `source` is the list of all topics.
///
/// # Errors
/// When the state topic can't be read or written.
pub async fn note_build(
    store: &StateStore,
    flow: &str,
    source: &Metadata,
) -> Result<(), StateError> {
    let key = keys::build(flow);
    let shown = source.topics.get(OFFSETS_TOPIC);
    let shown = shown.filter(|it| it.error.is_none() && !it.topic_id.is_nil());
    let Some(shown) = shown.filter(|_| store.bytes(&key).is_none()) else {
        return Ok(());
    };
    let record = BuildRecord {
        v: 1,
        offsets_topic_id: shown.topic_id,
    };
    store.put(&key, &record).await
}

/// Why a source with the known id isn't the build that was copied from, if it shows.
fn difference(known: &BuildRecord, source: &Metadata) -> Option<String> {
    let found = match source.described(OFFSETS_TOPIC) {
        Ok(Some(topic)) if !is_other_topic(known.offsets_topic_id, topic.topic_id) => {
            return None;
        }
        Ok(Some(_)) => "another one now".to_owned(),
        Ok(None) => "gone".to_owned(),
        Err(code) => {
            return Some(format!(
                "the source can't be told from one that was built anew under the same cluster id: {OFFSETS_TOPIC} isn't \
                 described ({code})"
            ));
        }
    };
    Some(format!(
        "the source was built anew under the same cluster id: its {OFFSETS_TOPIC} is {found}"
    ))
}

fn judge(has_begun: bool, known: Option<String>, told: Option<&str>) -> SourceIs {
    match (known, told) {
        (None, _) if !has_begun => SourceIs::Known,
        (Some(known), Some(found)) if known == found => SourceIs::Known,
        (Some(known), Some(found)) => SourceIs::Other {
            known,
            found: found.to_owned(),
        },
        (known, _) => SourceIs::Untold {
            told_before: known.is_some(),
        },
    }
}

/// The id of the cluster that a flow's source is, where one was told.
///
/// # Errors
/// When a record can't be read.
pub fn source_id(store: &StateStore, flow: &str) -> Result<Option<String>, StateError> {
    // A cut-over may have made another cluster the source: a failback to one that was built anew.
    let role: Option<RoleRecord> = store.get(&keys::role(flow))?;
    let record: Option<FlowRecord> = store.get(&keys::flow(flow))?;
    let by_role = role.and_then(|role| role.source_cluster_id);
    Ok(by_role.or_else(|| record?.source_cluster_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_tells_no_id_may_be_anybody() {
        let judged = |known: Option<&str>, told| judge(true, known.map(str::to_owned), told);
        assert_eq!(judged(Some("a"), Some("a")), SourceIs::Known);
        let untold = |told_before| SourceIs::Untold { told_before };
        assert_eq!(judged(Some("a"), None), untold(true));
        assert_eq!(judged(None, None), untold(false));
        // An id that comes later isn't another cluster, and isn't known to be the one.
        assert_eq!(judged(None, Some("a")), untold(false));
        let other = SourceIs::Other {
            known: "a".to_owned(),
            found: "b".to_owned(),
        };
        assert_eq!(judged(Some("a"), Some("b")), other);
    }

    #[test]
    fn before_a_flow_has_begun_its_source_is_whoever_answers() {
        for told in [None, Some("a")] {
            assert_eq!(judge(false, None, told), SourceIs::Known);
        }
    }
}
