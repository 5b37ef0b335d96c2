//! Whether a failover may begin: each thing that was looked at, judged. Pure.

use super::check::{Check, Weight, named, named_up_to};
use super::facts::{Facts, GroupFacts, Room, Unfenceable};
use super::loss::{AcceptedLoss, Loss};
use super::versions::ability_checks;
use crate::telemetry::size::bytes;

/// A volume with less of it free than this is nearly full.
const FREE_PERCENT_MIN: u64 = 10;
/// Clocks that differ by more make ages wrong.
const SKEW_SECONDS_MAX: i64 = 5;

/// More groups of which nothing is known are counted.
const UNKNOWN_NAMED_MAX: usize = 100;

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// A failover with the source reachable.
    Planned,
    /// A failover with the source gone, that may lose so much.
    Unplanned(AcceptedLoss),
    /// To know whether one could be done now: the planned one, or, where the source doesn't answer,
    /// the unplanned one.
    Know,
}

/// Judges what was found.
pub fn judge(intent: Intent, facts: &Facts) -> Vec<Check> {
    let mut checks = vec![source(intent, facts)];
    copy(facts, &mut checks);
    trouble(intent, facts, &mut checks);
    if let Some(lag) = facts.lag {
        checks.push(self::lag(lag, facts.is_copied));
    }
    transactions(facts, &mut checks);
    unfollowed(facts, &mut checks);
    if let Some(of_groups) = &facts.groups {
        groups(intent, of_groups, &mut checks);
    }
    standby(facts, &mut checks);
    // Nobody is kept from a source that is gone.
    if facts.source_problem.is_none() {
        checks.extend(facts.unfenceable.iter().map(Unfenceable::check));
    }
    if let Some(room) = &facts.room {
        self::room(room, &mut checks);
    }
    if facts.source_abilities.is_some() || facts.standby_abilities.is_some() {
        checks.extend(ability_checks(
            facts.source_abilities.as_ref(),
            facts.standby_abilities.as_ref(),
            facts.groups.as_ref(),
        ));
    }
    clock(facts, &mut checks);
    metadata(facts, &mut checks);
    if let Some(loss) = &facts.loss {
        checks.push(self::loss(intent, facts, loss));
    }
    checks
}

fn source(intent: Intent, facts: &Facts) -> Check {
    let go_without = "when it is gone for good: `twinlog failover --unplanned`";
    match (&facts.source_problem, intent) {
        (Some(problem), Intent::Planned) => Check::new(
            "source",
            Weight::Blocker,
            format!("the source doesn't answer: {problem}"),
        )
        .with_hint(go_without),
        (Some(problem), Intent::Know) => Check::new(
            "source",
            Weight::Warning,
            format!("the source doesn't answer: {problem}"),
        )
        .with_hint(go_without),
        (Some(problem), Intent::Unplanned(_)) if facts.source_refuses => Check::new(
            "source",
            Weight::Warning,
            format!("it answers, and refuses us: whether it is gone isn't known: {problem}"),
        )
        .with_hint(
            "give Twinlog the right login or the missing secret and look again; or make sure that it accepts no more writes: \
             records that it acknowledges from now on stay there alone",
        ),
        (Some(problem), Intent::Unplanned(_)) if facts.is_source_unasked => Check::new(
            "source",
            Weight::Warning,
            format!("whether it is gone isn't known: {problem}"),
        )
        .with_hint("make sure that it takes nothing any more: what it acknowledges from now on stays there"),
        (Some(_), Intent::Unplanned(_)) => Check::new("source", Weight::Ok, "is gone, as said"),
        (None, Intent::Unplanned(_)) => Check::new(
            "source",
            Weight::Warning,
            "the source answers: a planned failover would lose nothing",
        )
        .with_hint("leave `--unplanned` out"),
        (None, _) => Check::new("source", Weight::Ok, "answers"),
    }
}

fn copy(facts: &Facts, checks: &mut Vec<Check>) {
    if let Some(problem) = &facts.copy_problem {
        let reason = format!("nothing is known of the copy here: {problem}");
        // With the source away the standby has to do, whatever is known of it here.
        let weight = match facts.source_problem {
            Some(_) => Weight::Warning,
            None => Weight::Blocker,
        };
        checks.push(
            Check::new("copy", weight, reason)
                .with_hint("`twinlog failover` without `--yes` looks at what is on the standby"),
        );
        return;
    }
    if facts.partitions == 0 {
        checks.push(
            Check::new(
                "copy",
                Weight::LosesData,
                "nothing is copied yet: the standby has none of the topics",
            )
            .with_hint("let `twinlog run` copy first"),
        );
    } else {
        let (topics, partitions) = (facts.topics, facts.partitions);
        checks.push(Check::new(
            "copy",
            Weight::Ok,
            format!("{topics} topic(s), {partitions} partition(s)"),
        ));
    }
    if let Some(percent) = facts.first_copy_percent {
        // With the source away the standby has to do: how much is missing is said as a loss.
        let weight = match facts.source_problem.is_some() || facts.first_copy_is_near {
            true => Weight::Warning,
            false => Weight::Blocker,
        };
        checks.push(
            Check::new(
                "first_copy",
                weight,
                format!(
                    "the first copy is at {percent:.1} %: a planned failover keeps writers away until its end"
                ),
            )
            .with_hint("let it come to its end first"),
        );
    }
    if !facts.behind.is_empty() {
        checks.push(
            Check::new(
                "behind",
                Weight::Warning,
                format!(
                    "partitions that have been behind for long: {}; writers are kept away until they are copied",
                    named(&facts.behind)
                ),
            )
            .with_hint("`twinlog status` says how long that takes: let them catch up first"),
        );
    }
    if !facts.without_copy.is_empty() {
        checks.push(
            Check::new(
                "without_copy",
                Weight::LosesData,
                format!("not copied (yet): {}", named(&facts.without_copy)),
            )
            .with_hint(
                "wait for `twinlog run`, exclude them in the config, or name topics with --topic",
            ),
        );
    }
}

/// Why a copy is stopped that is right as far as it goes. In one that is stopped for another reason (`misplaced`, `foreign_write`)
/// groups would go on at other records.
const RIGHT_SO_FAR: [&str; 12] = [
    "gap",
    "source_truncated",
    "source_diverges",
    "source_recreated",
    "source_replaced",
    "stale_leader",
    "topic_missing",
    "no_topic_id",
    "too_large",
    "rejected",
    "policy_violation",
    "unreadable_batch",
];

/// Without the source nothing of them can be mended: whoever accepts any loss gets what was copied.
fn stopped(intent: Intent, facts: &Facts) -> Check {
    let mut reasons = facts.stopped.iter().map(|(_, reason)| &**reason);
    let are_right = reasons.all(|reason| RIGHT_SO_FAR.contains(&reason));
    let (weight, hint) = match intent {
        Intent::Unplanned(AcceptedLoss::Any) if are_right => (
            Weight::Warning,
            "what they lack is lost, as accepted; or leave their topics out",
        ),
        Intent::Unplanned(AcceptedLoss::Records(_)) if are_right => (
            Weight::LosesData,
            "mend them first (`twinlog status` says how), leave their topics out, or take them as they are: `--accept-loss any`",
        ),
        _ => (
            Weight::LosesData,
            "mend them first (`twinlog status` says how), or leave their topics out",
        ),
    };
    let reason = format!(
        "partitions whose copy is stopped: {}",
        with_reasons(&facts.stopped)
    );
    Check::new("stopped", weight, reason).with_hint(hint)
}

fn with_reasons(partitions: &[(String, String)]) -> String {
    let all: Vec<String> = partitions
        .iter()
        .map(|(at, reason)| format!("{at} ({reason})"))
        .collect();
    named(&all)
}

fn trouble(intent: Intent, facts: &Facts, checks: &mut Vec<Check>) {
    if !facts.stopped.is_empty() {
        checks.push(stopped(intent, facts));
    }
    if !facts.retrying.is_empty() {
        let reason = format!(
            "partitions that aren't copied at the moment: {}",
            with_reasons(&facts.retrying)
        );
        checks.push(
            Check::new("retrying", Weight::Blocker, reason)
                .with_hint("they are tried again; `twinlog status` says more"),
        );
    }
    if !facts.no_progress.is_empty() {
        let reason = format!(
            "partitions that are behind and don't move: {}",
            named(&facts.no_progress)
        );
        checks.push(
            Check::new("no_progress", Weight::Blocker, reason)
                .with_hint("a planned failover would wait for them in vain; see `twinlog status`"),
        );
    }
    if facts.gap_offsets > 0 {
        checks.push(Check::new(
            "gaps",
            Weight::Warning,
            format!(
                "{} source offset(s) were gone before they could be copied",
                facts.gap_offsets
            ),
        ));
    }
    if !facts.missed_deletes.is_empty() {
        checks.push(
            Check::new(
                "missed_deletes",
                Weight::Warning,
                format!(
                    "keys that the source has deleted may live on in the copies of {}: they were behind for longer than \
                     delete.retention.ms",
                    named(&facts.missed_deletes)
                ),
            )
            .with_hint("`twinlog verify --full` lists them; `twinlog status` says more"),
        );
    }
    if let Some(differences) = facts.differences {
        checks.push(
            Check::new(
                "verify",
                Weight::Warning,
                format!("the last comparison found {differences} difference(s)"),
            )
            .with_hint("`twinlog verify` lists them"),
        );
    }
}

fn lag(lag: i64, is_copied: bool) -> Check {
    let (weight, reason) = match (lag, is_copied) {
        (0, _) => (Weight::Ok, "everything is copied".to_owned()),
        (lag, true) => (Weight::Ok, format!("{lag} offset(s) are left to copy")),
        (lag, false) => (
            Weight::Warning,
            format!(
                "{lag} offset(s) are left to copy, and `twinlog run` isn't copying: this command copies them"
            ),
        ),
    };
    Check::new("lag", weight, reason)
}

fn transactions(facts: &Facts, checks: &mut Vec<Check>) {
    if facts.open_transactions > 0 {
        checks.push(
            Check::new(
                "transactions",
                Weight::Warning,
                format!(
                    "{} partition(s) have an open transaction",
                    facts.open_transactions
                ),
            )
            .with_hint("they are waited for; a hanging one has to be aborted"),
        );
    }
    if !facts.hanging_transactions.is_empty() {
        let names = named(&facts.hanging_transactions);
        checks.push(
            Check::new(
                "transactions",
                Weight::Warning,
                format!("a transaction has been open for long: {names}"),
            )
            .with_hint("nothing behind it is copied; abort it (kafka-transactions abort)"),
        );
    }
}

/// Groups that the config leaves out, and whether these are all.
fn unfollowed(facts: &Facts, checks: &mut Vec<Check>) {
    let reset = "their consumers begin by auto.offset.reset on the standby";
    if !facts.unfollowed_groups.is_empty() {
        let names = named(&facts.unfollowed_groups);
        let reason = format!("not followed by the config: {names}");
        checks.push(Check::new("groups", Weight::Warning, reason).with_hint(reset));
    }
    if !facts.unfollowed_unseen.is_empty() {
        let why = named(&facts.unfollowed_unseen);
        let reason = format!("not all groups that the config leaves out could be asked for: {why}");
        checks.push(Check::new("groups", Weight::Warning, reason).with_hint(reset));
    }
    // Who follows some groups need not be told of the others.
    if facts.unfollowed_hidden {
        let reason =
            "groups that the config leaves out aren't all named: Twinlog has no DESCRIBE on them";
        checks.push(Check::new("groups", Weight::Ok, reason).with_hint(reset));
    }
}

fn groups(intent: Intent, groups: &GroupFacts, checks: &mut Vec<Check>) {
    let mut add = |weight, reason: String| checks.push(Check::new("groups", weight, reason));
    if groups.total > 0 {
        let members = groups.with_members.map_or_else(String::new, |members| {
            format!(", {members} with members on the source")
        });
        add(
            Weight::Ok,
            format!(
                "{} group(s) are followed{members}; {} of them are {} record(s) behind and go on \
                 there on the standby",
                groups.total, groups.behind, groups.behind_records
            ),
        );
    }
    let missing = groups.unplaced_positions + groups.outdated_positions;
    match intent {
        Intent::Planned if missing > 0 => add(
            Weight::Ok,
            format!("{missing} position(s) aren't on the standby yet: the plan brings them"),
        ),
        Intent::Unplanned(_) if groups.unplaced_positions > 0 => add(
            Weight::Warning,
            format!(
                "{} position(s) aren't on the standby: auto.offset.reset decides there",
                groups.unplaced_positions
            ),
        ),
        _ => {}
    }
    if groups.reread_records > 0 {
        add(
            Weight::Ok,
            format!(
                "{} group(s) would read up to {} record(s) again",
                groups.rereading, groups.reread_records
            ),
        );
    }
    for (what, names, hint) in [
        (
            "groups can't be watched",
            &groups.unwatched,
            "their newest positions may be missing on the standby",
        ),
        (
            "groups with members on the standby aren't moved",
            &groups.active_on_target,
            "stop their consumers there",
        ),
        (
            "groups with positions of their own on the standby keep them",
            &groups.diverged,
            "`twinlog groups --explain GROUP`; `groups.on_diverged: follow` overwrites them",
        ),
        (
            "groups whose positions the standby refuses",
            &groups.failed,
            "`twinlog groups --explain GROUP` says why; to be moved, a group needs READ for Twinlog on the standby",
        ),
        (
            "groups that may not be described can't be asked for their last commits, and go on where they were seen last",
            &groups.refused,
            "grant DESCRIBE on these groups to Twinlog, on the cluster that is named",
        ),
        (
            "there may be groups that can't be seen",
            &groups.hidden,
            "grant DESCRIBE on the cluster, or on all groups, to Twinlog there",
        ),
        (
            "groups of a type that this version doesn't know: only committed positions are followed",
            &groups.unknown_types,
            "look where their clients begin on the standby, and whether there is a newer version",
        ),
    ] {
        if !names.is_empty() {
            let reason = format!("{what}: {}", named(names));
            checks.push(Check::new("groups", Weight::Warning, reason).with_hint(hint));
        }
    }
    if !groups.unknown.is_empty() {
        // Nobody else knows them: they are named, not counted.
        let names = named_up_to(UNKNOWN_NAMED_MAX, &groups.unknown);
        let reason = format!(
            "groups whose coordinator can't be asked go on where they were seen last: {names}"
        );
        checks.push(Check::new("groups", Weight::Warning, reason).with_hint(
            "bring back the leaders of `__consumer_offsets`, or look where their consumers begin",
        ));
    }
}

fn standby(facts: &Facts, checks: &mut Vec<Check>) {
    let health = facts.standby;
    let mut add = |weight, reason: String, hint: Option<&str>| {
        let check = Check::new("standby", weight, reason);
        checks.push(match hint {
            Some(hint) => check.with_hint(hint),
            None => check,
        });
    };
    if let Some(problem) = &facts.standby_problem {
        add(
            Weight::Blocker,
            format!("the standby doesn't answer: {problem}"),
            Some("bring its brokers up"),
        );
    }
    if health.leaderless > 0 {
        add(
            Weight::Blocker,
            format!("{} partition(s) there have no leader", health.leaderless),
            Some("bring its brokers up"),
        );
    }
    if health.unsatisfiable > 0 {
        add(
            Weight::Blocker,
            format!(
                "{} partition(s) there have fewer replicas than min.insync.replicas: producers with \
                 acks=all would be refused for ever",
                health.unsatisfiable
            ),
            Some("lower min.insync.replicas, or add replicas"),
        );
    }
    if health.below_min_in_sync > 0 {
        add(
            Weight::Blocker,
            format!(
                "{} partition(s) there have fewer in-sync replicas than min.insync.replicas: \
                 producers with acks=all would be refused",
                health.below_min_in_sync
            ),
            Some("bring its brokers up, or lower min.insync.replicas"),
        );
    }
    if let Some((topics, why)) = &facts.unknown_min_in_sync {
        add(
            Weight::Warning,
            format!(
                "whether {topics} topic(s) there take writes with acks=all isn't known, for their \
                 min.insync.replicas can't be read: {why}"
            ),
            None,
        );
    }
    if health.under_replicated > 0 {
        add(
            Weight::Warning,
            format!(
                "{} partition(s) there have replicas out of sync",
                health.under_replicated
            ),
            None,
        );
    }
    if let Some((has, wanted)) = health.state_replicas {
        add(
            Weight::Warning,
            format!(
                "Twinlog's state topic there has {has} of {wanted} replicas: without a broker that has it, \
                 nothing can be failed over"
            ),
            Some("`twinlog check` names the command that adds them"),
        );
    }
}

fn room(room: &Room, checks: &mut Vec<Check>) {
    if let Some(problem) = &room.problem {
        // One broker that says nothing hides no other's disks.
        let is_all = room.fullest.is_none() && room.offline.is_empty();
        let which = if is_all {
            "the standby's disks"
        } else {
            "some of the standby's disks"
        };
        // Not being allowed to look is no reason to wait.
        let reason = format!("{which} can't be looked at: {problem}");
        let hint = "grant DESCRIBE on its cluster to Twinlog, if that is what is missing";
        checks.push(Check::new("capacity", Weight::Ok, reason).with_hint(hint));
        if is_all {
            return;
        }
    }
    if !room.offline.is_empty() {
        let reason = format!("log folders are offline there: {}", named(&room.offline));
        checks.push(
            Check::new("capacity", Weight::Warning, reason).with_hint("replace the failed disks"),
        );
    }
    let Some((volume, free, size)) = &room.fullest else {
        let reason = format!(
            "the standby has {} of logs; its brokers don't tell how much is free",
            bytes(room.log_bytes as f64)
        );
        checks.push(Check::new("capacity", Weight::Ok, reason));
        return;
    };
    let percent = free.saturating_mul(100) / (*size).max(1);
    // Those that can't be looked at may be fuller.
    let known = match room.problem {
        Some(_) => "the fullest volume that is known",
        None => "the fullest volume there",
    };
    let free = bytes(*free as f64);
    let reason = format!("{percent} % ({free}) are free on {volume}, {known}");
    let check = if percent < FREE_PERCENT_MIN {
        Check::new("capacity", Weight::Warning, reason)
            .with_hint("make room: the standby takes all of the source's writes")
    } else {
        Check::new("capacity", Weight::Ok, reason)
    };
    checks.push(check);
}

fn clock(facts: &Facts, checks: &mut Vec<Check>) {
    let Some(skew) = facts.clock_skew_seconds else {
        return;
    };
    if skew.abs() > SKEW_SECONDS_MAX {
        let reason = format!(
            "this machine's clock and that of the process that copies differ by {} s: ages and the \
             bound of a loss are wrong by that",
            skew.abs()
        );
        checks.push(Check::new("clock", Weight::Warning, reason).with_hint("synchronize them"));
    }
}

fn metadata(facts: &Facts, checks: &mut Vec<Check>) {
    if !facts.for_the_operator.is_empty() {
        let reason = format!("only you can mend: {}", named(&facts.for_the_operator));
        checks.push(
            Check::new("metadata", Weight::Warning, reason).with_hint("`twinlog plan` lists it"),
        );
    }
    if !facts.not_followed.is_empty() {
        let reason = format!("differs on the standby: {}", named(&facts.not_followed));
        checks.push(
            Check::new("metadata", Weight::Warning, reason)
                .with_hint("`twinlog status` says why, if `run` was refused"),
        );
    }
    if !facts.obstacles.is_empty() {
        let reason = format!("can't be compared: {}", named(&facts.obstacles));
        checks.push(Check::new("metadata", Weight::Warning, reason));
    }
}

fn loss(intent: Intent, facts: &Facts, loss: &Loss) -> Check {
    if intent == Intent::Know && facts.source_problem.is_none() {
        let reason = match (loss.records, loss.unknown_partitions) {
            (0, 0) => "nothing is known to be missing if the source were lost now".to_owned(),
            _ => format!("if the source were lost now, {}", loss.in_words()),
        };
        return Check::new("loss", Weight::Ok, reason);
    }
    let accepted = match intent {
        Intent::Unplanned(accepted) => accepted,
        Intent::Planned | Intent::Know => AcceptedLoss::Records(0),
    };
    let weight = match (loss.is_accepted(accepted), loss.records) {
        (false, _) => Weight::LosesData,
        (true, 0) if loss.unknown_partitions == 0 => Weight::Ok,
        (true, _) => Weight::Warning,
    };
    let check = Check::new("loss", weight, loss.in_words());
    if weight == Weight::LosesData {
        check.with_hint(loss.how_to_accept())
    } else {
        check
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::worst;
    use super::super::facts::StandbyHealth;
    use super::*;

    fn good() -> Facts {
        Facts {
            topics: 1,
            partitions: 3,
            lag: Some(0),
            is_copied: true,
            ..Facts::default()
        }
    }

    fn weight(intent: Intent, facts: &Facts) -> Weight {
        worst(&judge(intent, facts))
    }

    const NOTHING: Intent = Intent::Unplanned(AcceptedLoss::Records(0));

    #[test]
    fn a_copy_that_is_there_may_be_failed_over() {
        assert_eq!(weight(Intent::Planned, &good()), Weight::Ok);
        assert_eq!(weight(Intent::Know, &good()), Weight::Ok);
    }

    #[test]
    fn what_would_lose_data_refuses() {
        let lost = |loss| Facts {
            source_problem: Some("gone".to_owned()),
            loss: Some(loss),
            ..good()
        };
        let cases = [
            Facts {
                partitions: 0,
                ..good()
            },
            Facts {
                without_copy: vec!["orders".to_owned()],
                ..good()
            },
            Facts {
                stopped: vec![("orders-0".to_owned(), "gap".to_owned())],
                ..good()
            },
            lost(Loss {
                records: 1,
                ..Loss::default()
            }),
            lost(Loss {
                unknown_partitions: 1,
                ..Loss::default()
            }),
        ];
        for facts in cases {
            for intent in [Intent::Know, NOTHING] {
                assert_eq!(weight(intent, &facts), Weight::LosesData, "{facts:?}");
            }
        }
    }

    #[test]
    fn whoever_accepts_any_loss_gets_what_stopped_copies_have() {
        let stopped = |reasons: &[&str]| Facts {
            source_problem: Some("gone".to_owned()),
            stopped: reasons
                .iter()
                .map(|it| ("orders-0".to_owned(), (*it).to_owned()))
                .collect(),
            ..good()
        };
        let right = stopped(&["gap", "source_replaced"]);
        let unplanned = |accepted, facts| weight(Intent::Unplanned(accepted), facts);
        assert_eq!(unplanned(AcceptedLoss::Any, &right), Weight::Warning);
        let some = AcceptedLoss::Records(1_000);
        assert_eq!(unplanned(some, &right), Weight::LosesData);
        assert_eq!(weight(Intent::Planned, &right), Weight::LosesData);
        // Groups would go on at other records there.
        let wrong = stopped(&["gap", "misplaced"]);
        assert_eq!(unplanned(AcceptedLoss::Any, &wrong), Weight::LosesData);
    }

    #[test]
    fn what_can_not_work_blocks() {
        let gone = Facts {
            source_problem: Some("refused".to_owned()),
            ..good()
        };
        assert_eq!(weight(Intent::Planned, &gone), Weight::Blocker);
        assert_eq!(weight(NOTHING, &gone), Weight::Ok);
        assert_eq!(weight(Intent::Know, &gone), Weight::Warning);
        let mut sick = [StandbyHealth::default(); 3];
        sick[0].add(-1, 1, 1, 1);
        sick[1].add(1, 1, 3, 2);
        sick[2].add(1, 1, 1, 2);
        for standby in sick {
            let facts = Facts { standby, ..good() };
            assert_eq!(
                weight(Intent::Planned, &facts),
                Weight::Blocker,
                "{facts:?}"
            );
        }
    }

    #[test]
    fn what_the_operator_should_know_warns_with_what_to_do() {
        let mut standby = StandbyHealth {
            state_replicas: Some((1, 3)),
            ..StandbyHealth::default()
        };
        standby.add(1, 2, 3, 2);
        let facts = Facts {
            lag: Some(5),
            is_copied: false,
            open_transactions: 1,
            unfollowed_groups: (0..9).map(|n| format!("g{n}")).collect(),
            standby,
            for_the_operator: vec!["user alice".to_owned()],
            ..good()
        };
        let checks = judge(Intent::Planned, &facts);
        assert_eq!(worst(&checks), Weight::Warning);
        let warnings = checks.iter().filter(|it| it.weight == Weight::Warning);
        assert_eq!(warnings.count(), 6, "{checks:#?}");
        let groups = checks.iter().find(|check| check.subject == "groups");
        assert!(groups.is_some_and(|it| it.reason.ends_with("and 4 more")));
    }

    #[test]
    fn what_could_not_be_asked_for_is_said() {
        let facts = Facts {
            unfollowed_unseen: vec!["billing: it hangs".to_owned()],
            unfollowed_hidden: true,
            unknown_min_in_sync: Some((3, "orders: it hangs".to_owned())),
            ..good()
        };
        let checks = judge(Intent::Planned, &facts);
        let weight = |part: &str| {
            let found = checks.iter().find(|it| it.reason.contains(part));
            found.map(|it| it.weight)
        };
        assert_eq!(weight("billing: it hangs"), Some(Weight::Warning));
        assert_eq!(weight("aren't all named"), Some(Weight::Ok));
        let unknown = "3 topic(s) there take writes";
        assert_eq!(weight(unknown), Some(Weight::Warning), "{checks:#?}");
    }

    #[test]
    fn a_disk_that_can_not_be_looked_at_hides_no_other() {
        let room = Room {
            problem: Some("broker 2 is silent".to_owned()),
            fullest: Some(("/d of broker 1".to_owned(), 1, 100)),
            ..Room::default()
        };
        let facts = Facts {
            room: Some(room),
            ..good()
        };
        let checks = judge(Intent::Planned, &facts);
        let of_disks: Vec<Weight> = checks
            .iter()
            .filter(|it| it.subject == "capacity")
            .map(|it| it.weight)
            .collect();
        assert_eq!(of_disks, [Weight::Ok, Weight::Warning]);
        let last = checks.iter().rfind(|it| it.subject == "capacity");
        let reason = last.map(|it| it.reason.as_str()).unwrap_or_default();
        assert!(reason.contains("1 % (1 B) are free"), "{reason}");
        assert!(reason.contains("fullest volume that is known"), "{reason}");
    }

    #[test]
    fn an_accepted_loss_still_warns() {
        let facts = Facts {
            source_problem: Some("gone".to_owned()),
            loss: Some(Loss {
                records: 7,
                ..Loss::default()
            }),
            ..good()
        };
        let accepted = Intent::Unplanned(AcceptedLoss::Records(7));
        assert_eq!(weight(accepted, &facts), Weight::Warning);
    }

    #[test]
    fn what_would_be_lost_stands_in_nobodys_way_while_the_source_answers() {
        let facts = Facts {
            loss: Some(Loss {
                records: 7,
                ..Loss::default()
            }),
            ..good()
        };
        assert_eq!(weight(Intent::Know, &facts), Weight::Ok);
    }

    #[test]
    fn groups_warn_only_where_somebody_can_do_something() {
        let lively = GroupFacts {
            total: 3,
            with_members: Some(2),
            behind: 1,
            behind_records: 50,
            outdated_positions: 4,
            reread_records: 9,
            rereading: 1,
            ..GroupFacts::default()
        };
        let facts = |groups: &GroupFacts| Facts {
            groups: Some(groups.clone()),
            ..good()
        };
        assert_eq!(weight(Intent::Planned, &facts(&lively)), Weight::Ok);
        let names = vec!["billing".to_owned()];
        for groups in [
            GroupFacts {
                active_on_target: names.clone(),
                ..lively.clone()
            },
            GroupFacts {
                diverged: names.clone(),
                ..lively.clone()
            },
            GroupFacts {
                failed: names.clone(),
                ..lively.clone()
            },
            GroupFacts {
                refused: names.clone(),
                ..lively.clone()
            },
            GroupFacts {
                hidden: names.clone(),
                ..lively.clone()
            },
            GroupFacts {
                unknown_types: names.clone(),
                ..lively.clone()
            },
            GroupFacts {
                unwatched: names,
                ..lively
            },
        ] {
            let checks = judge(Intent::Planned, &facts(&groups));
            assert_eq!(worst(&checks), Weight::Warning, "{checks:#?}");
            assert!(
                checks
                    .iter()
                    .any(|it| it.reason.contains("billing") && it.hint.is_some())
            );
        }
    }

    #[test]
    fn a_disk_warns_when_it_is_nearly_full_and_never_blocks() {
        let with = |room: Room| Facts {
            room: Some(room),
            ..good()
        };
        let free = |free| Room {
            fullest: Some(("broker 1".to_owned(), free, 1_000)),
            ..Room::default()
        };
        assert_eq!(weight(Intent::Planned, &with(free(99))), Weight::Warning);
        assert_eq!(weight(Intent::Planned, &with(free(100))), Weight::Ok);
        assert_eq!(weight(Intent::Planned, &with(free(0))), Weight::Warning);
        assert_eq!(weight(Intent::Planned, &with(Room::default())), Weight::Ok);
        let offline = Room {
            offline: vec!["/data on broker 2".to_owned()],
            ..free(500)
        };
        assert_eq!(weight(Intent::Planned, &with(offline)), Weight::Warning);
        let forbidden = Room {
            problem: Some("not allowed".to_owned()),
            ..Room::default()
        };
        assert_eq!(weight(Intent::Planned, &with(forbidden)), Weight::Ok);
    }

    #[test]
    fn clocks_may_differ_a_little() {
        let with = |skew| Facts {
            clock_skew_seconds: Some(skew),
            ..good()
        };
        assert_eq!(weight(Intent::Planned, &with(-5)), Weight::Ok);
        assert_eq!(weight(Intent::Planned, &with(-6)), Weight::Warning);
        assert_eq!(weight(Intent::Planned, &with(600)), Weight::Warning);
    }
}
