//! Making changes to quotas on the target.

use std::collections::BTreeMap;

use crate::wire::{self, Cluster, QuotaChange, WireError};

/// Changes in one request. A controller takes 10,000 records at once.
const AT_ONCE: usize = 200;

/// Makes changes; the outcomes are in their order, and one that is refused keeps no other from
/// being made.
///
/// A broker judges a whole entity by its worst key, so each request has one key of an entity: in as
/// many rounds as the entity with the most keys needs.
///
/// When a request as a whole is refused, so would be all that come after: they aren't sent and have
/// the same outcome.
pub(super) async fn alter(target: &Cluster, changes: &[QuotaChange]) -> Vec<Result<(), WireError>> {
    let mut rounds: Vec<Vec<usize>> = Vec::new();
    let mut seen = BTreeMap::new();
    for (index, change) in changes.iter().enumerate() {
        let round: &mut usize = seen.entry(&change.entity).or_default();
        if rounds.len() <= *round {
            rounds.push(Vec::new());
        }
        rounds[*round].push(index);
        *round += 1;
    }
    let mut outcomes: Vec<Option<Result<(), WireError>>> = vec![None; changes.len()];
    let mut refused = None;
    for chunk in rounds.iter().flat_map(|round| round.chunks(AT_ONCE)) {
        let asked: Vec<_> = chunk.iter().map(|index| changes[*index].clone()).collect();
        let answers = match &refused {
            Some(error) => Err(WireError::clone(error)),
            None => wire::alter_client_quotas(target, &asked).await,
        };
        match answers {
            Ok(answers) => {
                let not_allowed = |answer: &&Result<(), WireError>| {
                    let code = answer.as_ref().err().and_then(WireError::server_code);
                    code == Some(wire::ResponseError::ClusterAuthorizationFailed)
                };
                refused = answers
                    .iter()
                    .find(not_allowed)
                    .and_then(|a| a.clone().err());
                for (index, answer) in chunk.iter().zip(answers) {
                    outcomes[*index] = Some(answer);
                }
            }
            Err(error) => {
                for index in chunk {
                    outcomes[*index] = Some(Err(error.clone()));
                }
                refused = Some(error);
            }
        }
    }
    // Each index is in one chunk, and each chunk gives an outcome to all of its indexes.
    outcomes.into_iter().flatten().collect()
}
