//! The way back after a failover: a planned cut-over of the flow that copies back.
//!
//! The flow of the config has its state on its target, the new primary. The flow that copies back
//! has its own on the old primary: topics, maps, groups, journal, role. So either of them is known
//! with the cluster that it is about.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use super::adopt::{self, Adoption, adopt};
use super::context::{Scene, topics};
use super::error::CutoverError;
use super::facts;
use super::give_up;
use super::journal::fact;
use super::options::Options;
use super::pairs::{ends_or_why, present};
use super::preflight::{self, Check, Weight};
use super::steps::Step;
use super::unlisted;
use super::{Plan, SOURCE_FOR, Seen};
use crate::config::{ClusterSection, FlowConfig};
use crate::connect::cluster;
use crate::flow::restrain;
use crate::state::{
    CutoverKind, CutoverRecord, CutoverState, ForkRecord, Primary, ReignRecord, RoleRecord,
    StateStore, TopicSet, keys,
};
use crate::wire::{Cluster, Metadata, OffsetSpec, TopicPartition};

/// More of one thing are counted, not named.
const NAMED_MAX: usize = 5;
/// In the journal: the plan of the failover that is gone back from.
pub(super) const ENDED_PLAN: &str = "ended_plan";

/// Both flows of a failback.
pub(super) struct Ways {
    /// The flow that was failed over.
    pub ended: Scene,
    /// The one that copies back.
    pub back: Scene,
    /// The role of the first.
    pub role: Option<RoleRecord>,
}

impl Ways {
    /// Asks both clusters and reads what is remembered on each.
    ///
    /// # Errors
    /// When one of them doesn't answer.
    pub async fn open(
        flow: &FlowConfig,
        source_section: &ClusterSection,
        target_section: &ClusterSection,
    ) -> Result<Self, CutoverError> {
        let (source, target) = (cluster(source_section), cluster(target_section));
        let (from, to) = tokio::join!(answer(&source), answer(&target));
        to?;
        from.map_err(|error| {
            error.with_hint(
                "the old primary has to be back; until then the standby is the only copy there is",
            )
        })?;
        if !StateStore::exists(&target).await? {
            return Err(CutoverError::failed(format!(
                "flow {} was never failed over: {} has no state of it",
                flow.name,
                target.name()
            )));
        }
        let store = Arc::new(StateStore::open(&target, &flow.name).await?);
        let role: Option<RoleRecord> = store.get(&keys::role(&flow.name))?;
        let listed = role.as_ref().and_then(RoleRecord::not_copied);
        let listed = match listed {
            Some(TopicSet::List(topics)) => Some(topics),
            Some(TopicSet::All) | None => None,
        };
        let reign: Option<ReignRecord> = store.get(&keys::reign(&flow.name))?;
        let own_topics = reign.unwrap_or_default().own_topics;
        let reversed = flow.reversed(listed, &own_topics);
        let reversed = reversed.map_err(CutoverError::failed)?;
        let back_store = Arc::new(StateStore::open_to_look(&source, &reversed.name).await?);
        let back_topics = topics(&back_store, &reversed, &TopicSet::All, &source).await?;
        let ended_topics = topics(&store, flow, &TopicSet::All, &target).await?;
        let clusters = (source.clone(), target.clone());
        let sections = (source_section, target_section);
        let ended = Scene::new(flow, sections, clusters, store, ended_topics);
        let (clusters, sections) = ((target, source), (target_section, source_section));
        let back = Scene::new(&reversed, sections, clusters, back_store, back_topics);
        Ok(Self { ended, back, role })
    }

    /// The open plan of the way back, if there is one.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn journal(&self) -> Result<Option<CutoverRecord>, CutoverError> {
        Ok(self.back.store.get(&keys::cutover(&self.back.flow.name))?)
    }

    /// Whether a plan is about an earlier failover than the one that counts now. Its journal may
    /// not know that it was through: it died at the last moment, and the roles were as before.
    pub fn is_over(&self, record: &CutoverRecord) -> bool {
        let Some(role) = self.role.as_ref() else {
            return false;
        };
        let ended: Option<Uuid> = fact(record, ENDED_PLAN);
        role.primary != Primary::Source && ended.is_some_and(|ended| ended != role.plan)
    }

    /// A failover that was given up isn't gone back from, nor undone.
    ///
    /// # Errors
    /// When it was, or is about to be.
    pub fn refuse_given_up(&self) -> Result<(), CutoverError> {
        let journal = self.journal()?;
        let flow = &self.ended.flow.name;
        give_up::refuse_given_up(&self.back.store, flow, journal.as_ref(), self.role.as_ref())
    }

    fn forks(&self) -> Result<BTreeMap<String, ForkRecord>, CutoverError> {
        let topics = self.role.as_ref().map_or(&TopicSet::All, |it| &it.topics);
        let forks = restrain::forks(&self.ended.store, &self.ended.flow.name, topics)?;
        Ok(forks)
    }
}

async fn answer(cluster: &Cluster) -> Result<(), CutoverError> {
    match cluster.metadata_if_there(SOURCE_FOR).await {
        Ok(answer) => Ok(answer.map(drop)?),
        Err(_) => Err(CutoverError::failed(format!(
            "{}: no answer within {} s",
            cluster.name(),
            SOURCE_FOR.as_secs()
        ))),
    }
}

/// What a failback is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackScope {
    /// Only begin to copy back.
    pub start_only: bool,
    /// Go back although nobody has decided about what is stranded on the old primary.
    pub accept_orphans: bool,
    /// Partitions of the old primary with stranded records that nobody has decided about.
    pub undecided: BTreeSet<TopicPartition>,
    /// Those that couldn't be looked at: nothing says that they have any.
    pub unseen: BTreeSet<TopicPartition>,
}

/// Looks at everything a failback needs. Changes nothing.
///
/// # Errors
/// When a cluster can't be asked, or the flow isn't failed over.
pub async fn look_back(
    flow: &FlowConfig,
    source_section: &ClusterSection,
    target_section: &ClusterSection,
    options: Options,
    scope: BackScope,
) -> Result<Plan, CutoverError> {
    let ways = Ways::open(flow, source_section, target_section).await?;
    let seen = Seen::by_now(&ways.back, Some(&ways.ended))?;
    ways.refuse_given_up()?;
    let journal = ways.journal()?.filter(|it| !ways.is_over(it));
    let open = journal.clone().filter(|it| it.state == CutoverState::Open);
    let open = continued(open, scope.start_only)?;
    if let Some(undone) = journal.filter(|it| it.state == CutoverState::Aborting) {
        return Err(
            CutoverError::failed(format!("plan {} is being undone", undone.plan))
                .with_hint("finish that with `--abort`"),
        );
    }
    let open_failover: Option<CutoverRecord> = ways.ended.store.get(&keys::cutover(&flow.name))?;
    if let Some(failover) =
        open_failover.filter(|it| matches!(it.state, CutoverState::Open | CutoverState::Aborting))
    {
        return Err(
            CutoverError::failed(format!("the failover {} isn't finished", failover.plan))
                .with_hint(
                    "finish it with `twinlog failover`, or undo it with `twinlog failover --abort`",
                ),
        );
    }
    let is_primary = ways
        .role
        .as_ref()
        .is_some_and(|it| it.primary == Primary::Target);
    if !is_primary && open.is_none() {
        return Err(CutoverError::failed(format!(
            "{} is the primary: there is nothing to go back from",
            ways.ended.source.name()
        ))
        .with_hint("the way to the standby is `twinlog failover`"));
    }
    let mut checks = match &open {
        // It was judged when it began.
        Some(_) => Vec::new(),
        None => checks(&ways, &scope).await?,
    };
    // Also where a plan is continued: it goes no further without them.
    checks.extend(hidden_checks(&ways).await?);
    let is_fenced = open
        .as_ref()
        .is_some_and(|it| super::is_done(it, Step::Fence));
    if !scope.start_only && !is_fenced {
        let names: Vec<String> = ways
            .forks()?
            .into_values()
            .map(|it| it.target_topic)
            .collect();
        let (cluster, fence) = (&ways.back.source, options.fence);
        checks.extend(facts::fence_check(cluster, &names, fence).await);
    }
    let steps = match scope.start_only {
        true => vec![Step::Start],
        false => Step::of(CutoverKind::Failback).to_vec(),
    };
    let role = ways.back.role()?;
    Ok(Plan {
        seen,
        continues: open,
        steps,
        checks,
        scene: ways.back,
        role,
        options,
        ended: Some(ways.ended),
        facts: BTreeMap::new(),
        account: None,
    })
}

/// The open plan, if it is what is asked for: one that only begins is part of every other.
fn continued(
    open: Option<CutoverRecord>,
    start_only: bool,
) -> Result<Option<CutoverRecord>, CutoverError> {
    let Some(open) = open else {
        return Ok(None);
    };
    let only_begins = open.steps.len() == 1;
    match (only_begins, start_only) {
        (true, false) => Ok(None),
        (false, true) => Err(
            CutoverError::failed(format!("the failback {} is open", open.plan))
                .with_hint("continue it without `--start`, or undo it with `--abort`"),
        ),
        _ => Ok(Some(open)),
    }
}

/// Topics that lists of either cluster leave out as they are hidden from us: of a copied one nobody would keep the writers
/// away, prove anything, or judge the orphans.
async fn hidden_checks(ways: &Ways) -> Result<Vec<Check>, CutoverError> {
    let (new, old) = (&ways.back.source, &ways.back.target);
    let forks = ways.forks()?;
    let of_back = ways.back.topics.iter();
    let mut on_new: BTreeSet<&String> = of_back.clone().map(|it| &it.name).collect();
    let mut on_old: BTreeSet<&String> = of_back.map(|it| &it.record.target_topic).collect();
    on_new.extend(forks.values().map(|fork| &fork.target_topic));
    on_old.extend(forks.keys());
    let (_, _, others) = tokio::try_join!(
        new.describe_unlisted(on_new.iter().copied()),
        old.describe_unlisted(on_old.iter().copied()),
        unlisted::others_check(new, &ways.back.flow.topics),
    )?;
    let checks = [
        unlisted::check_back(new, &unlisted::hidden(new, on_new)),
        unlisted::check_back(old, &unlisted::hidden(old, on_old)),
        others,
    ];
    Ok(checks.into_iter().flatten().collect())
}

async fn checks(ways: &Ways, scope: &BackScope) -> Result<Vec<Check>, CutoverError> {
    let (ended, back) = (&ways.ended, &ways.back);
    let forks = ways.forks()?;
    let mut checks = Vec::new();
    let mut add = |subject: &str, weight: Weight, reason: String, hint: Option<&str>| {
        checks.push(Check {
            subject: subject.to_owned(),
            weight,
            reason,
            hint: hint.map(str::to_owned),
        });
    };
    let both = format!("{} and {} answer", ended.source.name(), ended.target.name());
    add("clusters", Weight::Ok, both, None);
    if forks.is_empty() {
        let text = "no fork is recorded: the failover had no topic".to_owned();
        add("forks", Weight::Warning, text, None);
    }
    let adoption = adopt(back, ended, &forks, false).await?;
    judge_adoption(&adoption, &mut add);
    let (new, orphans) = amounts(ways, &adoption.forks).await?;
    // Who couldn't look at a partition has seen nothing there: by itself that is no orphan.
    let doubted = scope.unseen.iter().filter(|_| orphans > 0);
    let undecided = undecided(ways, &adoption, scope.undecided.iter().chain(doubted))?;
    let text = format!("{new} offset(s) are new on {}", ended.target.name());
    add("to_copy", Weight::Ok, text, None);
    // Who counted is another one than who looked whether all of it is decided: what either has seen is judged.
    if orphans > 0 || !undecided.is_empty() {
        let text = format!(
            "{orphans} offset(s) on {} were never copied: they stay there, at their own offsets, \
             and who reads that far back meets them",
            ended.source.name()
        );
        let named: Vec<String> = undecided
            .iter()
            .take(NAMED_MAX)
            .map(ToString::to_string)
            .collect();
        let text = match named.is_empty() {
            true => format!("{text}; all of it is decided"),
            false => format!(
                "{text}; nobody has decided about {} partition(s), such as {}",
                undecided.len(),
                named.join(", ")
            ),
        };
        let (weight, hint) = match (named.is_empty(), scope.accept_orphans) {
            (true, _) => (Weight::Ok, "see `twinlog orphans`"),
            (false, true) => (Weight::Warning, "see `twinlog orphans`"),
            (false, false) => (
                Weight::LosesData,
                "decide about them with `twinlog orphans`, or leave them there: `--accept-orphans`",
            ),
        };
        add("orphans", weight, text, Some(hint));
    }
    let target = back.target.cached();
    let sick = |is_sick: &dyn Fn(&crate::wire::PartitionMetadata) -> bool| {
        let topics = forks.keys().filter_map(|topic| target.topics.get(topic));
        topics
            .flat_map(|topic| &topic.partitions)
            .filter(|partition| is_sick(partition))
            .count()
    };
    let leaderless = sick(&|partition| partition.leader < 0);
    let behind = sick(&|it| it.leader >= 0 && it.in_sync.len() < it.replicas.len());
    match (leaderless, behind) {
        (0, 0) => add(
            "old_primary",
            Weight::Ok,
            "every replica is in sync".into(),
            None,
        ),
        (0, behind) => {
            let text = format!("{behind} partition(s) have replicas out of sync");
            add("old_primary", Weight::Warning, text, None);
        }
        (leaderless, _) => {
            let text = format!("{leaderless} partition(s) have no leader");
            let hint = "wait until all its brokers are back";
            add("old_primary", Weight::Blocker, text, Some(hint));
        }
    }
    let records = ended.topics.iter().map(|topic| &topic.record);
    checks.extend(preflight::strangers(records));
    Ok(checks)
}

fn judge_adoption(adoption: &Adoption, add: &mut impl FnMut(&str, Weight, String, Option<&str>)) {
    let text = format!("{} topic(s) go on at the same offsets", adoption.identical);
    add("offsets", Weight::Ok, text, None);
    if !adoption.mapped.is_empty() {
        let named: Vec<String> = adoption
            .mapped
            .iter()
            .take(NAMED_MAX)
            .map(|(topic, why)| format!("{topic} ({why})"))
            .collect();
        let text = format!(
            "{} topic(s) get other offsets, and an exact map: {}",
            adoption.mapped.len(),
            named.join("; ")
        );
        let hint = "groups are translated; who keeps offsets elsewhere asks `twinlog translate`";
        add("offsets", Weight::Warning, text, Some(hint));
    }
    if !adoption.anew.is_empty() {
        let named: Vec<&str> = adoption
            .anew
            .iter()
            .take(NAMED_MAX)
            .map(String::as_str)
            .collect();
        let text = format!(
            "{} topic(s) are copied from their first record, for the old primary doesn't have \
             them (any more): {}",
            adoption.anew.len(),
            named.join(", ")
        );
        add("anew", Weight::Warning, text, None);
    }
    if let Some((first, _)) = adoption.lost.first_key_value() {
        let text = format!(
            "the old primary has lost {} offset(s) that were copied, in {} partition(s) such as {first}: they are \
             copied back, and the records that stand in their place now are orphans",
            adoption.lost.values().sum::<i64>(),
            adoption.lost.len()
        );
        let hint = "see `twinlog orphans`";
        add("old_primary_lost", Weight::Warning, text, Some(hint));
    }
    if !adoption.unseen.is_empty() {
        let named: Vec<&str> = adoption
            .unseen
            .values()
            .take(NAMED_MAX)
            .map(String::as_str)
            .collect();
        let text = format!(
            "it can't be said how {} partition(s) go on: {}",
            adoption.unseen.len(),
            named.join("; ")
        );
        add("unseen", Weight::Blocker, text, Some(adopt::UNSEEN_HINT));
    }
    for (topic, why) in &adoption.refused {
        let text = format!("{topic} can't be copied back: {why}");
        let hint = "exclude it in the config, or delete it on the old primary: then it is copied \
                    from its first record";
        add("refused", Weight::Blocker, text, Some(hint));
    }
}

/// Of the partitions about which nobody has decided, those that this failback begins with. What is copied back already was
/// judged when that began, and what can't be looked at is named as that.
fn undecided<'a>(
    ways: &Ways,
    adoption: &Adoption,
    undecided: impl Iterator<Item = &'a TopicPartition>,
) -> Result<Vec<&'a TopicPartition>, CutoverError> {
    let mut open = Vec::new();
    for at in undecided {
        let Some(fork) = adoption.forks.get(&at.topic) else {
            continue;
        };
        let key = keys::topic(&ways.back.flow.name, &fork.target_topic);
        let known: Option<crate::state::TopicRecord> = ways.back.store.get(&key)?;
        if !adopt::is_begun(known.as_ref(), fork) && !adoption.unseen.contains_key(at) {
            open.push(at);
        }
    }
    Ok(open)
}

/// Offsets that are new on the new primary, and those that only the old one has.
async fn amounts(
    ways: &Ways,
    forks: &BTreeMap<String, ForkRecord>,
) -> Result<(i64, i64), CutoverError> {
    let (from, to) = (ways.back.source.cached(), ways.back.target.cached());
    let of = |metadata: &Metadata, name: &str, fork: &ForkRecord| {
        present(metadata, name, fork.partitions.len())
    };
    let new_side: Vec<TopicPartition> = forks
        .values()
        .flat_map(|fork| of(&from, &fork.target_topic, fork))
        .collect();
    let old_side: Vec<TopicPartition> = forks
        .iter()
        .flat_map(|(topic, fork)| of(&to, topic, fork))
        .collect();
    // Who doesn't answer was named above, and isn't counted.
    let ((new_ends, _), (old_ends, _)) = tokio::join!(
        ends_or_why(&ways.back.source, &new_side, OffsetSpec::Latest),
        ends_or_why(&ways.back.target, &old_side, OffsetSpec::Latest),
    );
    let (mut new, mut orphans) = (0, 0);
    for (topic, fork) in forks {
        let key = keys::topic(&ways.back.flow.name, &fork.target_topic);
        let known: Option<crate::state::TopicRecord> = ways.back.store.get(&key)?;
        let is_begun = adopt::is_begun(known.as_ref(), fork);
        for (number, at_fork) in (0..).zip(&fork.partitions) {
            let there = new_ends.get(&TopicPartition::new(&*fork.target_topic, number));
            let here = old_ends.get(&TopicPartition::new(topic.as_str(), number));
            let (there, here) = (there.copied().unwrap_or(0), here.copied().unwrap_or(0));
            if is_begun {
                // What is beyond the fork on the old primary is mostly our copy.
                new += (there - here.max(at_fork.padded_end)).max(0);
                continue;
            }
            new += (there - at_fork.padded_end).max(0);
            orphans += (here - at_fork.source_end).max(0);
        }
    }
    Ok((new, orphans))
}
