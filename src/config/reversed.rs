//! The flow that copies back, from the target to the source of a flow that was failed over.

use std::collections::{BTreeMap, BTreeSet};

use super::flow::{FlowConfig, OnGap, OnRecreate, Start};
use super::metadata::{ConfigRules, OnDelete};
use super::selector::Selector;

/// What its name ends with; no flow of a config can have it.
const BACK: &str = "~back";

/// The name of the flow that copies back what a failover of `flow` left.
pub fn back_name(flow: &str) -> String {
    format!("{flow}{BACK}")
}

/// The name of the flow that a flow copies back for, or its own.
pub fn forth_name(flow: &str) -> &str {
    flow.strip_suffix(BACK).unwrap_or(flow)
}

impl FlowConfig {
    /// The name of the flow that copies back.
    pub fn back_name(&self) -> String {
        back_name(&self.name)
    }

    /// Whether this is such a flow.
    pub fn is_back(&self) -> bool {
        self.name.ends_with(BACK)
    }

    /// The flow that copies back, of these topics by their names on this flow's source; `None` for
    /// all that this flow takes, later ones too. Its source is this flow's target, whose
    /// `own_topics` stay where they are.
    ///
    /// # Errors
    /// When the names make no selector.
    pub fn reversed(
        &self,
        topics: Option<&BTreeSet<String>>,
        own_topics: &BTreeSet<String>,
    ) -> Result<Self, String> {
        let (before, after) = self.rename.around(&self.source);
        let turned = |pattern: &String| {
            format!(
                "{}(?:{pattern}){}",
                regex::escape(&before),
                regex::escape(&after)
            )
        };
        let include: Vec<String> = match topics {
            None => self.topics.include().iter().map(turned).collect(),
            Some(topics) => topics
                .iter()
                .map(|topic| turned(&regex::escape(topic)))
                .collect(),
        };
        let mut exclude: Vec<String> = self.topics.exclude().iter().map(turned).collect();
        exclude.extend(own_topics.iter().map(|topic| regex::escape(topic)));
        let is_as_written = self.rename.is_identity() && topics.is_none() && own_topics.is_empty();
        let topics = if is_as_written {
            self.topics.clone()
        } else {
            Selector::new(&include, &exclude)?
        };
        let mut back = self.clone();
        back.name = self.back_name();
        (back.source, back.target) = (self.target.clone(), self.source.clone());
        back.opposite = vec![self.name.clone()];
        back.topics = topics;
        back.rename = self.rename.turned(&self.source);
        back.start = Start::Earliest;
        // How many replicas the standby has is no rule for the other cluster.
        back.replication_factor = None;
        back.metadata.configs = self.metadata.configs.reversed()?;
        back.on_recreate = OnRecreate::Stop;
        // Its source is the primary: what retention took there is gone as it should be, and the
        // old primary can't be waited for to get it.
        back.on_gap = OnGap::Record;
        // Tools that read checkpoints read them of the flow that the config names.
        back.mirrormaker_compat = false;
        // It says whom the other cluster takes us for.
        back.metadata.acls.principal = None;
        // The old primary is nobody's standby: what its topics, clients and people have there stays.
        // What was changed on the new one since is carried over by the failback.
        back.metadata.acls.enabled = false;
        back.metadata.quotas = false;
        back.metadata.on_delete = OnDelete::Keep;
        back.verify.background = false;
        Ok(back)
    }
}

/// On a standby with fewer replicas than the source it is capped.
const MIN_IN_SYNC: &str = "min.insync.replicas";
const LIMIT: &str = "max.message.bytes";

impl ConfigRules {
    /// What is true of the standby alone doesn't go back with it: a `retention.ms` that `fixed`
    /// keeps short there would delete the old primary's records, and a capped
    /// `min.insync.replicas` would let it acknowledge what a single broker has.
    fn reversed(&self) -> Result<Self, String> {
        let keys = self.fixed.keys().map(String::as_str);
        let standbys: Vec<String> = keys.chain([MIN_IN_SYNC]).map(regex::escape).collect();
        let with = |patterns: &[String]| [patterns, &standbys].concat();
        // A batch that a raised limit let in there must get in here.
        let is_kept = self.fixed.contains_key(LIMIT) || self.ignore.matches(LIMIT);
        let limit: Vec<String> = (!is_kept)
            .then(|| regex::escape(LIMIT))
            .into_iter()
            .collect();
        let old = Self {
            enabled: self.enabled,
            follow: Selector::new(&limit, &[])?,
            ignore: Selector::new(&[".*"], &[])?,
            fixed: BTreeMap::new(),
            of_what_was_there: None,
        };
        Ok(Self {
            enabled: self.enabled,
            of_what_was_there: Some(Box::new(old)),
            follow: Selector::new(self.follow.include(), &with(self.follow.exclude()))?,
            // Nothing is excluded from what is left alone.
            ignore: Selector::new::<String>(&with(self.ignore.include()), &[])?,
            fixed: BTreeMap::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn flow(lines: &str) -> FlowConfig {
        let text = format!(
            "clusters:\n  a: {{ bootstrap.servers: 'h:1' }}\n  b: {{ bootstrap.servers: 'h:2' }}\n\
             flows:\n  dr: {{ source: a, target: b, {lines} }}\n"
        );
        let mut config = config::parse(&text, "t.yaml").unwrap_or_else(|e| panic!("{e}"));
        config.flows.remove("dr").expect("it is there")
    }

    #[test]
    fn the_way_back_takes_the_same_topics_and_their_names() {
        let flow =
            flow("rename: '{source}.{topic}', topics: { include: ['x.*|y'], exclude: [xz] }");
        let back = flow.reversed(None, &BTreeSet::new()).unwrap();
        assert_eq!((&*back.source, &*back.target), ("b", "a"));
        for (topic, is_taken) in [("xa", true), ("y", true), ("xz", false), ("z", false)] {
            let there = flow.rename.apply("a", topic);
            assert_eq!(back.topics.matches(&there), is_taken, "{there}");
            assert_eq!(back.rename.apply("b", &there), topic);
            assert_eq!(back.rename.unapply("b", topic).as_deref(), Some(&*there));
        }
        assert!(!back.topics.matches("xa"), "the target's own");
        assert_ne!(back.name, flow.name);
    }

    #[test]
    fn some_topics_alone_can_be_copied_back() {
        let flow = flow("topics: { include: ['.*'] }");
        assert_eq!(
            flow.reversed(None, &BTreeSet::new()).unwrap().topics,
            flow.topics
        );
        let one = BTreeSet::from(["a.b".to_owned()]);
        let back = flow.reversed(Some(&one), &BTreeSet::new()).unwrap();
        assert!(back.topics.matches("a.b"));
        assert!(!back.topics.matches("aXb") && !back.topics.matches("c"));
    }

    #[test]
    fn what_the_standby_alone_has_does_not_go_back() {
        let flow = flow(
            "replication_factor: 1, configs: { follow: ['.*'], ignore: ['segment.*'], \
             fixed: { retention.ms: '3600000' } }",
        );
        let back = flow.reversed(None, &BTreeSet::new()).unwrap();
        let rules = &back.metadata.configs;
        assert!(rules.fixed.is_empty());
        for key in ["retention.ms", "min.insync.replicas", "segment.bytes"] {
            assert!(rules.ignore.matches(key), "{key}");
        }
        for key in ["retention.ms", "min.insync.replicas"] {
            assert!(!rules.follow.matches(key), "{key}");
        }
        assert!(!rules.ignore.matches("retentionxms"));
        assert!(rules.follow.matches("cleanup.policy"));
        assert_eq!(back.replication_factor, None);
    }
}
