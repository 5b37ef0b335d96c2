//! Whether others are kept from the copies, as `status` shows it.

use serde::{Deserialize, Serialize};

use super::finding::counted;

/// Whom brokers take all clients for that show neither a certificate nor a password.
const ANONYMOUS: &str = "User:ANONYMOUS";

/// The protection of a flow's copies (`protect: true`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtectStatus {
    /// Copies that only Twinlog and super users may write to.
    pub topics: usize,
    /// Whom the target's brokers take Twinlog for: who else logs in as the same isn't kept out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// Why that isn't so, or not sure; absent where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// When the ACLs were compared last, milliseconds since the epoch.
    pub looked_at_ms: i64,
}

impl ProtectStatus {
    /// In one line.
    pub fn in_words(&self) -> String {
        match &self.problem {
            None => {
                let who = match self.principal.as_deref() {
                    Some(ANONYMOUS) => {
                        "those without a login (as Twinlog is here) and super users".to_owned()
                    }
                    Some(principal) => format!("Twinlog ({principal}) and super users"),
                    None => "Twinlog and super users".to_owned(),
                };
                format!(
                    "protected: only {who} may write to {}",
                    counted(self.topics, "topic")
                )
            }
            Some(problem) => format!("NOT protected: {problem}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where nobody logs in, ACLs tell nobody from Twinlog.
    #[test]
    fn who_is_kept_out_is_told_as_it_is() {
        let of = |principal: &str| {
            let status = ProtectStatus {
                topics: 2,
                principal: Some(principal.to_owned()),
                ..ProtectStatus::default()
            };
            status.in_words()
        };
        assert_eq!(
            of("User:twinlog"),
            "protected: only Twinlog (User:twinlog) and super users may write to 2 topics"
        );
        assert!(of(ANONYMOUS).contains("those without a login"));
    }
}
