//! Every command of `docs/runbooks`, word for word and in the order of the page, against two real
//! clusters: it ends with the exit code and shows the lines that the page says.

use std::time::Duration;

use crate::support::failover::{Writer, await_failed_over, failover, fenceable, words};
use crate::support::groups::commit;
use crate::support::runbook::{Item, Shell, parse};
use crate::support::{
    Cluster, KafkaVersion, Load, Twinlog, await_caught_up, create_topic, end_offset, eventually,
};

const DEADLINE: Duration = Duration::from_secs(60);
const VERSION: KafkaVersion = KafkaVersion::V4_3;
const ORDERS: i32 = 3;
/// In a stage where records are to be missing, so many are.
const STRANDED: i64 = 30;

/// Two clusters, Twinlog between them, a shop's producer and a group that has read a part.
struct World {
    source: Cluster,
    target: Cluster,
    twinlog: Twinlog,
    producer: Option<Writer>,
}

impl World {
    fn new() -> Self {
        let mut source = Cluster::launch(VERSION, fenceable("source"));
        let mut target = Cluster::launch(VERSION, fenceable("target"));
        source.await_ready();
        target.await_ready();
        create_topic(&source.bootstrap(), "orders", ORDERS, &[]);
        create_topic(&source.bootstrap(), "payments", 2, &[]);
        Load::new("orders", 300).produce(&source.bootstrap());
        Load::new("payments", 100).produce(&source.bootstrap());
        let positions: Vec<(&str, i32, i64)> = (0..ORDERS).map(|it| ("orders", it, 20)).collect();
        commit(&source.bootstrap(), "billing", &positions);
        let twinlog = Twinlog::between(&source.bootstrap(), &target.bootstrap());
        await_caught_up(&twinlog, DEADLINE);
        twinlog.await_group("billing", "followed", DEADLINE);
        Self {
            source,
            target,
            twinlog,
            producer: None,
        }
    }

    /// Carries out what a page's comment says.
    fn stage(&mut self, what: &str) {
        let (source, target) = (self.source.bootstrap(), self.target.bootstrap());
        match what {
            "producers write to the primary" => self.produce(&source),
            "the producers move to the standby" => self.produce(&target),
            "the producers move to the primary" => self.produce(&source),
            "the copy falls behind" => {
                self.twinlog.signal("STOP");
                let copied = orders(&target);
                eventually(DEADLINE, "the primary is ahead", || {
                    match orders(&source) - copied {
                        ahead if ahead > STRANDED => Ok(()),
                        ahead => Err(ahead),
                    }
                });
            }
            "the primary dies" => {
                self.source.kill(1);
                self.producer = None;
                self.twinlog.signal("CONT");
            }
            "the primary is back" => self.source.restart(1),
            "another day, failed over" => {
                *self = Self::new();
                self.fail_over(&["--yes"]);
            }
            "failed over, and producers write to the standby" => {
                if self.producer.is_some() {
                    *self = Self::new();
                }
                self.fail_over(&["--yes"]);
                self.produce(&self.target.bootstrap());
            }
            "another day, the primary was lost and is back" => {
                *self = Self::new();
                for before in ["producers write to the primary", "the copy falls behind"] {
                    self.stage(before);
                }
                self.stage("the primary dies");
                self.fail_over(&["--unplanned", "--accept-loss", "any", "--yes"]);
                self.produce(&self.target.bootstrap());
                self.stage("the primary is back");
            }
            other => panic!("nobody knows how to stage `{other}`"),
        }
    }

    fn fail_over(&self, arguments: &[&str]) {
        let output = failover(self.twinlog.config_file(), arguments);
        assert_eq!(output.status.code(), Some(0), "{}", words(&output));
        await_failed_over(&self.twinlog);
    }

    fn produce(&mut self, bootstrap: &str) {
        self.producer = None;
        // Its operators stop it when it is refused: a failback lets those in again who stay.
        let writer = Writer::start_until_refused(bootstrap, &["orders"], 200);
        eventually(DEADLINE, "records are acknowledged", || {
            match writer.ledger.acknowledged().len() {
                many if many > 100 => Ok(()),
                few => Err(few),
            }
        });
        self.producer = Some(writer);
    }

    /// Of this world: a stage may have made a new one.
    fn shell(&self) -> Shell {
        let folder = self.twinlog.config_file().parent().expect("a file");
        let (source, target) = (self.source.bootstrap(), self.target.bootstrap());
        let variables = [("PRIMARY", source.as_str()), ("STANDBY", target.as_str())];
        Shell::new(VERSION, folder, &variables)
    }

    fn carry_out(&mut self, name: &str, page: &str) {
        let items = parse(page);
        assert!(!items.is_empty(), "{name} has commands");
        for item in items {
            match item {
                Item::Stage(what) => {
                    println!("-- {what}");
                    self.stage(&what);
                }
                Item::Typed(typed) => self.shell().type_in(name, &typed),
            }
        }
    }
}

fn orders(bootstrap: &str) -> i64 {
    (0..ORDERS)
        .map(|partition| end_offset(bootstrap, "orders", partition))
        .sum()
}

#[test]
fn planned_failover() {
    let page = include_str!("../../../docs/runbooks/planned-failover.md");
    World::new().carry_out("planned-failover.md", page);
}

#[test]
fn unplanned_failover() {
    let page = include_str!("../../../docs/runbooks/unplanned-failover.md");
    World::new().carry_out("unplanned-failover.md", page);
}

#[test]
fn failback() {
    let page = include_str!("../../../docs/runbooks/failback.md");
    World::new().carry_out("failback.md", page);
}

#[test]
fn orphans() {
    let page = include_str!("../../../docs/runbooks/orphans.md");
    World::new().carry_out("orphans.md", page);
}

#[test]
fn drill() {
    let page = include_str!("../../../docs/runbooks/drill.md");
    World::new().carry_out("drill.md", page);
}

#[test]
fn what_clients_must_do() {
    let page = include_str!("../../../docs/runbooks/clients.md");
    World::new().carry_out("clients.md", page);
}
