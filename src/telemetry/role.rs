//! Which side of a flow is the primary, and what became of the other one.

use serde::{Deserialize, Serialize};

use super::utc;

/// What `status` says after a failover.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleStatus {
    /// `source`, `promoting` or `target`.
    pub primary: String,
    /// Since when, milliseconds since the epoch.
    pub since_ms: i64,
    /// How many cut-overs the flow has had.
    pub epoch: u64,
    /// The plan that made it so.
    pub plan: String,
    /// The topics that this is about; `None` for all.
    pub topics: Option<Vec<String>>,
    /// Whether what is new on the target is being copied back to the old primary.
    #[serde(default)]
    pub is_copied_back: bool,
    /// `away`, `writable`, `fenced`, or `given_up`: the old primary as it was seen last. The last one: it is the primary
    /// again, and the target was given up.
    pub old_primary: String,
    /// Why writers can't be kept from the old primary, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence_problem: Option<String>,
    /// Offsets on the old primary that were never copied; absent until they were measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orphan_offsets: Option<i64>,
    /// The partitions that have any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub orphans: Vec<Orphans>,
}

/// What one partition of the old primary has that was never copied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orphans {
    /// The topic on the old primary.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The first offset that was not copied.
    pub from: i64,
    /// The log's end.
    pub to: i64,
}

impl RoleStatus {
    /// In one line.
    pub fn in_words(&self) -> String {
        let what = match &self.topics {
            None => "this flow".to_owned(),
            Some(topics) => format!("{} topic(s) of this flow", topics.len()),
        };
        if self.old_primary == "given_up" {
            return format!(
                "the target was given up and has {what} no more: the old primary is the primary again; keep clients away \
                 from the target, delete what it has and its __twinlog_state, and `twinlog run` builds it anew"
            );
        }
        let mut text = match self.primary.as_str() {
            "promoting" => format!("plan {} is failing over {what}", self.plan),
            _ => format!(
                "the target is the primary of {what} since {} by plan {}, and {}; the old primary \
                 is {}",
                utc::to_the_second(self.since_ms),
                self.plan,
                if self.is_copied_back {
                    "what is new there is copied back"
                } else {
                    "nothing is copied"
                },
                self.old_primary
            ),
        };
        if let Some(problem) = &self.fence_problem {
            text.push_str(&format!(" ({problem})"));
        }
        if let Some(offsets) = self.orphan_offsets {
            text.push_str(&format!(
                " and has {offsets} offset(s) that were never copied"
            ));
        }
        text
    }
}
