//! The aspect of users that can log in (SCRAM).
//!
//! Kafka tells who they are and never their credentials, so nothing can be copied: those that the
//! target lacks are listed for an operator.

mod decide;

use self::decide::{Gap, gaps};
use super::context::Context;
use super::pass::{Pass, obstacle};
use super::quotas::own_user;
use crate::shell::Command;
use crate::telemetry::metadata::{Drift, DriftAction, DriftKind, Obstacle};
use crate::wire::{self, Cluster};

const READ_SOURCE: &str = "grant DESCRIBE on the source cluster to Twinlog's principal: \
    kafka-acls.sh --add --allow-principal User:... --operation Describe --cluster";
const READ_TARGET: &str = "grant DESCRIBE on the target cluster to Twinlog's principal: \
    kafka-acls.sh --add --allow-principal User:... --operation Describe --cluster";

/// What is kept between looks at users that can log in (SCRAM).
#[derive(Debug, Default)]
pub(super) struct Users {}

impl Users {
    /// Compares both clusters. There is nothing to apply.
    pub(super) async fn look(&mut self, context: &Context) -> Pass {
        let mut pass = Pass::default();
        let (source, target) = tokio::join!(
            wire::describe_scram_users(&context.source),
            wire::describe_scram_users(&context.target)
        );
        match (source, target) {
            (Ok(source), Ok(target)) => {
                let gaps = gaps(&source, &target, own_user(context));
                let target = &context.target;
                pass.drift
                    .extend(gaps.into_iter().map(|gap| drift(gap, target)));
            }
            (source, target) => {
                let sides = [
                    ("source", source, READ_SOURCE),
                    ("target", target, READ_TARGET),
                ];
                for (side, outcome, grant) in sides {
                    if let Err(error) = outcome {
                        let obstacle = obstacle(DriftKind::User, side, &error, grant);
                        pass.obstacles.push(Obstacle {
                            is_problem: obstacle.is_problem && !wire::is_unsupported(&error),
                            ..obstacle
                        });
                    }
                }
            }
        }
        pass
    }
}

fn drift(gap: Gap, target: &Cluster) -> Drift {
    let (action, why) = if gap.target.is_some() {
        (
            DriftAction::Leave,
            "the password is protected by fewer iterations than on the source".to_owned(),
        )
    } else {
        let command = Command::kafka("kafka-configs.sh", &target.config().bootstrap)
            .flag("--alter")
            .option("--entity-type", "users")
            .option("--entity-name", &gap.user)
            .option("--add-config", &format!("{}=[password=...]", gap.mechanism));
        let target_name = target.name();
        (
            DriftAction::Operator,
            format!(
                "the protocol can't read credentials: create the user on {target_name} with a password \
                 of its own: {command}"
            ),
        )
    };
    let iterations = |count: i32| format!("{count} iterations");
    Drift {
        kind: DriftKind::User,
        action,
        subject: format!("user {}", gap.user),
        detail: gap.mechanism.to_string(),
        source: Some(iterations(gap.source)),
        target: gap.target.map(iterations),
        why: Some(why),
        failure: None,
    }
}
