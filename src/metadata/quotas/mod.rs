//! The aspect of quotas of users and client ids.

mod apply;
mod decide;
mod memory;
mod release;
#[cfg(test)]
mod tests;

use self::decide::{Deed, Difference, Own, Seen, SourceIs, Why, decide, remember};
pub(super) use self::memory::Memory;
use super::context::Context;
use super::opposite::Foreign;
use super::pass::{Pass, Refused, obstacle, reason_of};
use crate::state::{self, StateError};
use crate::telemetry::metadata::{Drift, DriftAction, DriftFailure, DriftKind, Obstacle};
use crate::telemetry::progress::now_ms;
use crate::wire::{self, ClientQuotas, Cluster, QuotaChange, WireError};

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
            source_is: which_source(context).await?,
        };
        let mut differences = decide(seen);
        let going = taken_away(&differences);
        let with_late;
        let seen = match context.apply && !going.is_empty() {
            false => seen,
            true => {
                let (source, few_answer) = with_late_ones(source, &going, &context.source).await;
                if few_answer {
                    pass.drift.extend(going.iter().map(undecided));
                }
                with_late = source;
                let source = &with_late;
                let seen = Seen { source, ..seen };
                differences = decide(seen);
                seen
            }
        };
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
async fn which_source(context: &Context) -> Result<SourceIs, StateError> {
    let Some(store) = &context.store else {
        return Ok(SourceIs::Known);
    };
    let asked = state::SourceIs::ask(store, &context.flow, &context.source).await?;
    Ok(match asked {
        Ok(state::SourceIs::Known) => SourceIs::Known,
        Ok(state::SourceIs::Untold { .. }) => SourceIs::Untold,
        // Nor is anything decided by what nobody answers for.
        Ok(state::SourceIs::Other { .. } | state::SourceIs::BuiltAnew { .. }) | Err(_) => {
            SourceIs::Other
        }
    })
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

/// What goes because the source doesn't have it any more.
fn taken_away(differences: &[Difference]) -> Vec<Difference> {
    let is_gone = |it: &&Difference| it.deed == Deed::Remove && it.source.is_none();
    differences.iter().filter(is_gone).cloned().collect()
}

/// What the source has, and of what would go what isn't gone by the word of most brokers, as the target has it: one
/// broker that is cut off from its controllers answers with what was before. And whether too few answer to say so.
async fn with_late_ones(
    source: &ClientQuotas,
    going: &[Difference],
    cluster: &Cluster,
) -> (ClientQuotas, bool) {
    let there = wire::quotas_not_gone(cluster).await;
    let mut source = source.clone();
    for it in going {
        let name = (it.entity.clone(), it.key.clone());
        let is_there = there.as_ref().is_none_or(|there| there.contains(&name));
        if let (true, Some(value)) = (is_there, it.target) {
            source.entry(name.0).or_default().insert(name.1, value);
        }
    }
    (source, there.is_none())
}

/// One that stays until most brokers of the source say that it is gone.
fn undecided(difference: &Difference) -> Drift {
    let why = "one broker of the source doesn't have it, and too few others answer to say so too: nothing is taken away";
    Drift {
        action: DriftAction::Operator,
        why: Some(why.to_owned()),
        ..drift(difference)
    }
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
                Why::UntoldSource => {
                    "the source tells no cluster id, so it may be another cluster: nothing is taken away"
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
        since_ms: 0,
    }
}
