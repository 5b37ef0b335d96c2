//! The target, as changes are made there.

use std::collections::BTreeSet;

use super::apply::{Answers, Standby};
use super::diff::Note;
use super::keep_in::SEEN_WITHIN;
use crate::state::{StateError, StateRecord, StateStore, keys};
use crate::wire::{self, AclBinding, Cluster, WireError};

/// A target cluster and the state on it.
pub(super) struct Target<'a> {
    /// Where ACLs are made.
    pub cluster: &'a Cluster,
    /// Where they are remembered.
    pub store: &'a StateStore,
    /// Whose they are.
    pub flow: &'a str,
}

impl Standby for Target<'_> {
    async fn remember(&self, notes: &[Note]) -> Result<(), StateError> {
        let records: Result<Vec<StateRecord>, StateError> = notes
            .iter()
            .map(|(acl, record)| {
                let key = keys::acl(self.flow, &acl.key());
                let value = record.as_ref().map(serde_json::to_vec).transpose();
                let value = value.map_err(|error| StateError::Value {
                    key: key.clone(),
                    reason: error.to_string(),
                })?;
                Ok((key, value.map(Into::into)))
            })
            .collect();
        self.store.write_all(records?).await
    }

    async fn create(&self, acls: &[AclBinding]) -> Answers {
        wire::create_acls(self.cluster, acls).await
    }

    async fn delete(&self, acls: &[AclBinding]) -> Answers {
        wire::delete_acls(self.cluster, acls).await
    }

    async fn unseen(&self, acls: &[AclBinding]) -> Result<BTreeSet<AclBinding>, WireError> {
        wire::unseen_acls(self.cluster, acls, SEEN_WITHIN).await
    }
}
