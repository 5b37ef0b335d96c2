//! The flow that copies back, from the target to the source of a flow that was failed over.

use std::collections::BTreeSet;

use super::flow::{FlowConfig, OnGap, OnRecreate, Start};
use super::metadata::OnDelete;
use super::selector::Selector;

/// What its name ends with; no flow of a config can have it.
const BACK: &str = "~back";

impl FlowConfig {
    /// The name of the flow that copies back.
    pub fn back_name(&self) -> String {
        format!("{}{BACK}", self.name)
    }

    /// Whether this is such a flow.
    pub fn is_back(&self) -> bool {
        self.name.ends_with(BACK)
    }

    /// The flow that copies back, of these topics by their names on this flow's source; `None` for
    /// all that this flow takes, later ones too. Its source is this flow's target.
    ///
    /// # Errors
    /// When the names make no selector.
    pub fn reversed(&self, topics: Option<&BTreeSet<String>>) -> Result<Self, String> {
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
        let exclude: Vec<String> = self.topics.exclude().iter().map(turned).collect();
        let topics = if self.rename.is_identity() && topics.is_none() {
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
        back.metadata.configs.fixed.clear();
        let kept = |key: &str| {
            let rules = &self.metadata.configs;
            rules.fixed.contains_key(key) || rules.ignore.matches(key)
        };
        // A batch that a raised limit let in there must get in here.
        let follow = ["max.message.bytes"].into_iter().filter(|key| !kept(key));
        let follow: Vec<String> = follow.map(regex::escape).collect();
        back.metadata.configs.follow = Selector::new(&follow, &[])?;
        back.metadata.configs.keep_what_was_there = true;
        // What retention took on the primary is no longer its data.
        back.on_gap = OnGap::Record;
        back.verify.background = false;
        Ok(back)
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
        let back = flow.reversed(None).unwrap();
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
        assert_eq!(flow.reversed(None).unwrap().topics, flow.topics);
        let one = BTreeSet::from(["a.b".to_owned()]);
        let back = flow.reversed(Some(&one)).unwrap();
        assert!(back.topics.matches("a.b"));
        assert!(!back.topics.matches("aXb") && !back.topics.matches("c"));
    }
}
