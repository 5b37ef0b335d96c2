//! What a topic is called on the target.

use std::borrow::Cow;

/// A template of a target topic's name: `{topic}` (identity) or such as `{source}.{topic}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rename {
    before: String,
    after: String,
    /// The other way: what would be put around a name is taken off it.
    is_turned: bool,
}

const TOPIC: &str = "{topic}";
const SOURCE: &str = "{source}";

impl Rename {
    /// Reads a template: `{topic}` exactly once, `{source}` (the source cluster's name) anywhere,
    /// and characters that Kafka allows in topic names.
    ///
    /// # Errors
    /// The reason why it is no template, in one line.
    pub fn new(template: &str) -> Result<Self, String> {
        let (before, after) = template.split_once(TOPIC).ok_or_else(|| {
            format!("`{template}` has no `{{topic}}`: every topic would get the same name")
        })?;
        if after.contains(TOPIC) {
            return Err(format!("`{template}` has `{{topic}}` more than once"));
        }
        let literal = format!("{before}{after}").replace(SOURCE, "");
        let illegal =
            literal.find(|letter: char| !letter.is_ascii_alphanumeric() && !"._-".contains(letter));
        if let Some(at) = illegal {
            let rest = &literal[at..];
            let reason = if rest.starts_with('{') {
                "placeholders are `{topic}` and `{source}`"
            } else {
                "a topic name has only letters, digits, `.`, `_` and `-`"
            };
            return Err(format!("`{template}` is wrong at `{rest}`; {reason}"));
        }
        Ok(Self {
            before: before.to_owned(),
            after: after.to_owned(),
            is_turned: false,
        })
    }

    /// From target names to source names, for the flow that goes the other way. `source_cluster` is
    /// this one's source. A name that doesn't have the form stays as it is.
    #[must_use]
    pub fn turned(&self, source_cluster: &str) -> Self {
        let (before, after) = self.around(source_cluster);
        Self {
            before,
            after,
            is_turned: !self.is_turned,
        }
    }

    /// The name on the target of a topic of the cluster that the config calls `source_cluster`.
    pub fn apply(&self, source_cluster: &str, topic: &str) -> String {
        let (before, after) = self.around(source_cluster);
        if self.is_turned {
            let inner = strip(topic, &before, &after);
            return inner.unwrap_or(topic).to_owned();
        }
        format!("{before}{topic}{after}")
    }

    /// The source topic that [`apply`](Self::apply) would give this name, if there is one.
    pub fn unapply<'n>(&self, source_cluster: &str, name: &'n str) -> Option<Cow<'n, str>> {
        let (before, after) = self.around(source_cluster);
        if self.is_turned {
            return Some(Cow::Owned(format!("{before}{name}{after}")));
        }
        strip(name, &before, &after).map(Cow::Borrowed)
    }

    /// What target names begin with, if that is all that differs from the source's: then a prefix
    /// of source names is one of target names, with this before it.
    pub fn as_prefix(&self, source_cluster: &str) -> Option<String> {
        let (before, after) = self.around(source_cluster);
        (after.is_empty() && (!self.is_turned || before.is_empty())).then_some(before)
    }

    /// Whether names stay as they are.
    pub fn is_identity(&self) -> bool {
        self.before.is_empty() && self.after.is_empty()
    }

    pub(super) fn around(&self, source_cluster: &str) -> (String, String) {
        (
            self.before.replace(SOURCE, source_cluster),
            self.after.replace(SOURCE, source_cluster),
        )
    }
}

fn strip<'n>(name: &'n str, before: &str, after: &str) -> Option<&'n str> {
    name.strip_prefix(before)?
        .strip_suffix(after)
        .filter(|topic| !topic.is_empty())
}
