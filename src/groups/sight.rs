//! Whether all groups of a cluster can be seen with our rights.
//!
//! A broker leaves out of its list what may not be described, without a word: all groups are listed to whom may
//! DESCRIBE the cluster, to others those that they may DESCRIBE (`KafkaApis.handleListGroupsRequest`). So a short
//! list, or an empty one, tells nothing before that right is known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::report::View;
use crate::config::Selector;
use crate::telemetry::groups::GroupSight;
use crate::wire::{
    self, Cluster, ListedGroups, OFFSETS_TOPIC, Operation, ResponseError, WireError,
};

/// A name that nobody has: who may describe it may describe every group, or topic.
pub(crate) const ANY: &str = "twinlog-looks-whether-groups-are-hidden";
/// What is tried behind the literal beginning of a pattern, to find a name that it takes.
const ENDINGS: [&str; 4] = [ANY, "", "x", "0"];

/// Why lists of the cluster's groups may lack some that are selected; `None` where all of them are listed.
///
/// A right on a name that nobody has yet tells the same as one on a real group: rights are on names and on
/// beginnings of names. What can't be told so are single groups that a DENY hides within a right that is wider.
///
/// # Errors
/// When nobody answers.
pub async fn hidden(cluster: &Cluster, groups: &Selector) -> Result<Option<String>, WireError> {
    if !hidden_of_all(cluster).await? {
        return Ok(None);
    }
    let names: Option<Vec<String>> = groups.include().iter().map(|it| one_of(it)).collect();
    let may_describe = match names {
        Some(names) if !names.is_empty() => may_describe(cluster, names).await?,
        _ => false,
    };
    let why = "without DESCRIBE on the cluster, or on all groups that are selected, brokers leave some out of their lists";
    Ok((!may_describe).then(|| why.to_owned()))
}

/// The selected groups that a cluster's coordinators list, and why there may be more, a line each.
///
/// # Errors
/// When no broker lists any.
pub async fn listed_of_consumers(
    cluster: &Cluster,
    groups: &Selector,
) -> Result<(Vec<String>, Vec<String>), WireError> {
    let (listed, hidden) = tokio::join!(wire::list_groups(cluster), hidden(cluster, groups));
    let listed = listed?;
    let mut unseen: Vec<String> = listed.why_incomplete().into_iter().collect();
    unseen.extend(hidden.unwrap_or_else(|error| Some(error.to_string())));
    let selected = listed
        .groups
        .into_iter()
        .filter(|group| group.is_of_consumers() && groups.matches(&group.group_id));
    let names = selected.map(|group| group.group_id).collect();
    Ok((names, unseen))
}

/// Whether lists of the cluster's groups may lack some, selected or not.
///
/// # Errors
/// When nobody answers.
pub async fn hidden_of_all(cluster: &Cluster) -> Result<bool, WireError> {
    let on_cluster = match wire::cluster_rights(cluster).await {
        // A service that tells nobody his rights on it: those on groups tell.
        Err(error) if wire::is_unsupported(&error) => None,
        rights => rights?,
    };
    if on_cluster.is_some_and(|rights| rights.allow(Operation::Describe)) {
        return Ok(false);
    }
    // Asked for a group, a broker makes the coordinators' topic where it isn't there. Nothing is hidden then.
    let metadata = cluster.metadata(Some(&[OFFSETS_TOPIC.to_owned()])).await?;
    if metadata.error_of(OFFSETS_TOPIC) == Some(ResponseError::UnknownTopicOrPartition) {
        return Ok(false);
    }
    Ok(!may_describe(cluster, vec![ANY.to_owned()]).await?)
}

async fn may_describe(cluster: &Cluster, names: Vec<String>) -> Result<bool, WireError> {
    for rights in wire::group_rights(cluster, &names).await.into_values() {
        if !rights?.allow(Operation::Describe) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A name that a pattern takes, with as much of its literal beginning as can be read.
pub(crate) fn one_of(pattern: &str) -> Option<String> {
    let selector = Selector::new(&[pattern], &[]).ok()?;
    let head = literal_head(pattern);
    let names = ENDINGS.iter().map(|ending| format!("{head}{ending}"));
    names.into_iter().find(|name| selector.matches(name))
}

/// The letters that every name begins with that the pattern takes. A dot is nearly always meant as one.
fn literal_head(pattern: &str) -> String {
    let mut head = String::new();
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        let escaped = rest.strip_prefix('\\').and_then(|it| it.chars().next());
        let class = rest.strip_prefix('[').and_then(|it| it.chars().next());
        let (letter, length) = match (first, escaped, class) {
            ('\\', Some(letter), _) if !letter.is_alphanumeric() => (letter, 1 + letter.len_utf8()),
            ('[', _, Some(letter)) if letter != '^' && letter != ']' => {
                let length = 1 + letter.len_utf8();
                if !rest[length..].starts_with(']') {
                    break;
                }
                (letter, length + 1)
            }
            (letter, ..) if letter.is_alphanumeric() || "._-: /#@".contains(letter) => {
                (letter, letter.len_utf8())
            }
            _ => break,
        };
        rest = &rest[length..];
        // It may be there or not, or be one of two.
        if rest.starts_with(['*', '?', '{', '|']) || (letter == '.' && rest.starts_with('+')) {
            break;
        }
        head.push(letter);
    }
    // Another way to begin.
    if rest.contains('|') && !rest.contains('(') {
        head.clear();
    }
    head
}

/// How often it is looked whether groups are hidden, and at rights on new ones.
const EVERY: Duration = Duration::from_secs(60);
/// So many looks go by between two at the rights on all groups.
const LOOKS_PER_ROUND: u32 = 10;
/// How soon it is tried again behind a failure, or before the groups are known.
const AGAIN: Duration = Duration::from_secs(2);

/// Looks again and again what a failover couldn't ask for on the source, so that nobody finds out behind the fence.
/// A log that is read to its end needs none of these rights; the last look at the groups does, when nobody copies
/// any more.
pub async fn watch_sight(
    source: Cluster,
    groups: Selector,
    view: Arc<View>,
    cancel: CancellationToken,
) {
    let mut watch = Watch {
        asked: BTreeSet::new(),
        sight: GroupSight::default(),
    };
    let watching = async {
        let mut looks = 0_u32;
        loop {
            while !view.is_source_known() {
                tokio::time::sleep(AGAIN).await;
            }
            let looked = watch.look(&source, &groups, &view).await;
            // Also what was seen before something else couldn't be asked for.
            view.set_sight(watch.sight.clone());
            let pause = match looked {
                Ok(()) => {
                    looks = looks.wrapping_add(1);
                    if looks.is_multiple_of(LOOKS_PER_ROUND) {
                        watch.asked.clear();
                    }
                    EVERY
                }
                Err(error) => {
                    tracing::debug!(%error, "it can't be told which groups may be seen");
                    AGAIN
                }
            };
            tokio::time::sleep(pause).await;
        }
    };
    cancel.run_until_cancelled(watching).await;
}

struct Watch {
    /// Whose rights are known.
    asked: BTreeSet<String>,
    sight: GroupSight,
}

impl Watch {
    async fn look(
        &mut self,
        source: &Cluster,
        groups: &Selector,
        view: &View,
    ) -> Result<(), WireError> {
        let listed = wire::list_groups(source).await?;
        self.sight.unknown_types = unknown_types(&listed, groups);
        let mut names = view.copied_groups();
        if view.is_source_polled() {
            // Which positions they have isn't known without the right.
            let listed = listed.groups.iter().filter(|it| it.is_of_consumers());
            let names_of = listed
                .map(|it| &it.group_id)
                .filter(|it| groups.matches(it));
            names.extend(names_of.cloned());
        }
        // Who was refused is until his coordinator says otherwise: one that can't be asked now says nothing of rights.
        let kept = self.sight.refused.iter().filter(|it| names.contains(*it));
        let mut refused: BTreeSet<String> = kept.cloned().collect();
        let new: Vec<String> = names.difference(&self.asked).cloned().collect();
        for (name, rights) in wire::group_rights(source, &new).await {
            let Ok(rights) = rights else { continue };
            match rights.allow(Operation::Describe) {
                true => refused.remove(&name),
                false => refused.insert(name.clone()),
            };
            self.asked.insert(name);
        }
        self.sight.refused = refused.into_iter().collect();
        self.sight.hidden = hidden(source, groups).await?;
        Ok(())
    }
}

/// The selected groups whose type this version doesn't know.
pub fn unknown_types(listed: &ListedGroups, groups: &Selector) -> BTreeMap<String, String> {
    let selected = listed
        .groups
        .iter()
        .filter(|it| groups.matches(&it.group_id));
    let unknown = selected.filter_map(|it| {
        let of_type = it.unknown_type()?;
        Some((it.group_id.clone(), of_type.to_owned()))
    });
    unknown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_s_beginning_is_read_as_far_as_it_is_sure() {
        for (pattern, head) in [
            (".*", ""),
            ("shop[.].*", "shop."),
            (r"shop\.orders-\d+", "shop.orders-"),
            ("orders", "orders"),
            ("orders?", "order"),
            ("(a|b)-.*", ""),
            ("ab|cd", ""),
            ("a.+", "a"),
        ] {
            assert_eq!(literal_head(pattern), head, "{pattern}");
        }
    }

    #[test]
    fn a_name_that_is_tried_is_one_that_the_pattern_takes() {
        for pattern in [".*", "shop[.].*", r"shop\.orders-\d+", "orders", "orders?"] {
            let selector = Selector::new(&[pattern], &[]).expect("a pattern");
            let name = one_of(pattern).expect("a name");
            assert!(selector.matches(&name), "{pattern}: {name}");
        }
        assert_eq!(one_of("(a|b)-[0-9]{3}"), None);
    }
}
