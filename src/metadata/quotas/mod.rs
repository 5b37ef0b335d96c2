//! The aspect of quotas of users and client ids.

mod apply;
mod decide;
mod memory;
mod release;
#[cfg(test)]
mod tests;

use self::decide::{Deed, Difference, Own, Seen, Why, decide, remember};
pub(super) use self::memory::Memory;
use super::context::Context;
use super::opposite::Foreign;
use super::pass::{Pass, Refused, obstacle, reason_of};
use crate::state::{FlowRecord, StateError, keys};
use crate::telemetry::metadata::{Drift, DriftAction, DriftFailure, DriftKind, Obstacle};
use crate::telemetry::progress::now_ms;
use crate::wire::{self, ClientQuotas, QuotaChange, WireError};

pub use self::release::{HeldQuota, held, release, withdraw};

const READ_SOURCE: &str = "grant DESCRIBE_CONFIGS on the source cluster to Twinlog's principal: \
    kafka-acls.sh --add --allow-principal User:... --operation DescribeConfigs --cluster";
const READ_TARGET: &str = "grant DESCRIBE_CONFIGS on the target cluster to Twinlog's principal: \
    kafka-acls.sh --add --allow-principal User:... --operation DescribeConfigs --cluster";
const CHANGE_TARGET: &str = "grant ALTER_CONFIGS on the target cluster to Twinlog's principal: \
    kafka-acls.sh --add --allow-principal User:... --operation AlterConfigs --cluster";

/// What is kept between looks at quotas of users and client ids.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    refused: Refused,
    /// The right to change quotas is missing. It is tried again each time: one request tells.
    not_allowed: Option<DriftFailure>,
}

impl Quotas {
    /// Compares both clusters, and applies what differs where `context.apply` says so.
    pub(super) async fn look(
        &mut self,
        context: &Context,
        foreign: &Result<Foreign, Obstacle>,
    ) -> Pass {
        let mut pass = Pass::default();
        if !context.rules.quotas {
            return pass;
        }
        let foreign = match foreign {
            Ok(foreign) => &foreign.quotas,
            Err(why) => {
                pass.obstacles.push(Obstacle {
                    kind: DriftKind::Quota,
                    ..why.clone()
                });
                return pass;
            }
        };
        let (source, target) = tokio::join!(
            wire::describe_client_quotas(&context.source),
            wire::describe_client_quotas(&context.target)
        );
        match (source, target) {
            (Ok(mut source), Ok(target)) => {
                foreign.take_from(&mut source);
                let looked = self.compare(context, &source, &target, &mut pass).await;
                if let Err(error) = looked {
                    pass.obstacles.push(state_obstacle(&error));
                }
            }
            (source, target) => {
                let sides = [
                    ("source", source, READ_SOURCE),
                    ("target", target, READ_TARGET),
                ];
                for (side, outcome, grant) in sides {
                    if let Err(error) = outcome {
                        pass.obstacles.push(unreadable(side, &error, grant));
                    }
                }
            }
        }
        pass
    }

    async fn compare(
        &mut self,
        context: &Context,
        source: &ClientQuotas,
        target: &ClientQuotas,
        pass: &mut Pass,
    ) -> Result<(), StateError> {
        let (memory, others) = match &context.store {
            Some(store) => {
                // A failover in another process may have released what is held here.
                store.refresh().await?;
                let others = Memory::read_others(store, &context.flow)?;
                (Memory::read(store, &context.flow)?, others)
            }
            None => Default::default(),
        };
        let own = own(context);
        let seen = Seen {
            source,
            target,
            memory: &memory,
            others: &others,
            own: &own,
            is_known_source: is_known_source(context).await?,
        };
        let differences = decide(seen);
        let (Some(store), true) = (&context.store, context.apply) else {
            pass.drift.extend(differences.iter().map(drift));
            return Ok(());
        };
        let next = remember(seen, &differences);
        let changes = memory.changes(&next, &context.flow)?;
        store.write_all(changes).await?;
        self.apply(context, &differences, pass).await;
        Ok(())
    }

    async fn apply(&mut self, context: &Context, differences: &[Difference], pass: &mut Pass) {
        let changes: Vec<_> = differences.iter().map(change).collect();
        let names: Vec<_> = changes.iter().flatten().map(name).collect();
        self.refused
            .keep(|change| names.iter().any(|name| name == change));
        let mut asked = Vec::new();
        for (difference, change) in differences.iter().zip(changes) {
            let Some(change) = change else {
                pass.drift.push(drift(difference));
                continue;
            };
            match self.refused.resting(&name(&change)) {
                Some(failure) => pass.drift.push(Drift {
                    failure: Some(failure),
                    ..drift(difference)
                }),
                None => asked.push((difference, change)),
            }
        }
        let (differences, changes): (Vec<_>, Vec<_>) = asked.into_iter().unzip();
        let outcomes = apply::alter(&context.target, &changes).await;
        let mut not_allowed = None;
        for ((difference, change), outcome) in differences.into_iter().zip(&changes).zip(outcomes) {
            match outcome {
                Ok(()) => pass.applied += 1,
                Err(error) => {
                    let failure = self.failed(change, &error);
                    if failure.reason == "not_authorized" {
                        not_allowed = Some(failure.clone());
                    }
                    pass.failed.push(failure.reason.clone());
                    pass.drift.push(Drift {
                        failure: Some(failure),
                        ..drift(difference)
                    });
                }
            }
        }
        self.not_allowed = not_allowed;
    }

    /// Why a change failed. Only what a broker refuses for what it says rests.
    fn failed(&mut self, change: &QuotaChange, error: &WireError) -> DriftFailure {
        let reason = reason_of(error);
        let message = error.to_string();
        if reason != "not_authorized" && error.server_code().is_some() && !error.is_retriable() {
            return self.refused.note(&name(change), reason, message, None);
        }
        let known = self.not_allowed.as_ref().filter(|k| k.reason == reason);
        DriftFailure {
            reason: reason.to_owned(),
            message,
            hint: (reason == "not_authorized").then(|| CHANGE_TARGET.to_owned()),
            since_ms: known.map_or_else(now_ms, |known| known.since_ms),
        }
    }
}

fn own(context: &Context) -> Own {
    Own {
        user: own_user(context).map(str::to_owned),
        client_id: context.own_client_id.clone(),
    }
}

/// Twinlog's user name on the target.
pub(super) fn own_user(context: &Context) -> Option<&str> {
    let principal = context.own_principal.as_deref()?;
    principal.split_once(':').map(|(_, name)| name)
}

/// Whether the source is the cluster that the flow began with, if it has begun.
async fn is_known_source(context: &Context) -> Result<bool, StateError> {
    let key = keys::flow(&context.flow);
    let record = match &context.store {
        Some(store) => store.get::<FlowRecord>(&key)?,
        None => None,
    };
    let Some(FlowRecord {
        source_cluster_id: began_with,
        ..
    }) = record
    else {
        return Ok(true);
    };
    // Whoever answers under the source's addresses now.
    let now = context.source.metadata(Some(&[])).await.ok();
    let now = now.and_then(|metadata| metadata.cluster_id.clone());
    Ok(began_with.is_some() && began_with == now)
}

fn change(difference: &Difference) -> Option<QuotaChange> {
    let value = match difference.deed {
        Deed::Set => difference.source,
        Deed::Remove => None,
        Deed::Hold | Deed::Leave(_) => return None,
    };
    Some(QuotaChange {
        entity: difference.entity.clone(),
        key: difference.key.clone(),
        value,
    })
}

fn name(change: &QuotaChange) -> String {
    let value = change.value.map_or("none".to_owned(), |v| v.to_string());
    format!("{}, {}={value}", change.entity, change.key)
}

fn drift(difference: &Difference) -> Drift {
    let (action, why) = match difference.deed {
        Deed::Set if difference.target.is_none() => (DriftAction::Add, None),
        Deed::Set => (DriftAction::Change, None),
        Deed::Remove if difference.source.is_some() => (
            DriftAction::Remove,
            Some("it throttles Twinlog itself; it is held for the failover"),
        ),
        Deed::Remove => (DriftAction::Remove, None),
        Deed::Hold => (
            DriftAction::Hold,
            Some("it would throttle Twinlog itself and slow the copy; failover sets it"),
        ),
        Deed::Leave(why) => (
            DriftAction::Leave,
            Some(match why {
                Why::Address => "it is about addresses of the source's network",
                Why::UnknownKind => "it is for a kind of entity that Twinlog doesn't know",
                Why::NotOurs => "only the standby has it, and Twinlog didn't set it",
                Why::OtherSource => {
                    "the source isn't the cluster that this flow began with, so nothing follows"
                }
                Why::OtherFlow => "another flow to this cluster has set it",
            }),
        ),
    };
    Drift {
        kind: DriftKind::Quota,
        action,
        subject: difference.entity.to_string(),
        detail: difference.key.clone(),
        source: difference.source.map(|value| value.to_string()),
        target: difference.target.map(|value| value.to_string()),
        why: why.map(str::to_owned),
        failure: None,
    }
}

/// A cluster whose quotas can't be read. One that is too old has none to follow.
fn unreadable(side: &'static str, error: &WireError, grant: &str) -> Obstacle {
    let obstacle = obstacle(DriftKind::Quota, side, error, grant);
    Obstacle {
        is_problem: obstacle.is_problem && !wire::is_unsupported(error),
        ..obstacle
    }
}

fn state_obstacle(error: &StateError) -> Obstacle {
    Obstacle {
        kind: DriftKind::Quota,
        cluster: "target".to_owned(),
        reason: "state".to_owned(),
        message: error.to_string(),
        hint: None,
        is_problem: true,
    }
}
