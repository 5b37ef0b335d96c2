//! What somebody else wrote to a copy, as real brokers and their clients see it.

use serde_json::Value;

use crate::fake::strangers::{TOPIC, strangers_are_kept};
use crate::support::failover::{answer, await_failed_over, failback, failover};
use crate::support::pool::fenceable_both;
use crate::support::{Isolation, KafkaVersion, Load, end_offset, read_all};

fn tells_of_strangers(report: &Value) {
    let lines = report["for_the_operator"].to_string();
    let said = "copies have 10 offset(s) that somebody else wrote";
    assert!(lines.contains(said), "{report:#}");
    assert!(lines.contains(&format!("{TOPIC}-0: 10")), "{report:#}");
}

/// They stay on the standby, and the way there and back knows them.
#[test]
fn what_somebody_else_wrote_is_known_everywhere_and_stays_where_it_is() {
    let (source, target) = fenceable_both(KafkaVersion::V4_3);
    let (source, target) = (source.bootstrap(), target.bootstrap());
    let twinlog = strangers_are_kept(&source, &target);
    let config = twinlog.config_file().to_owned();
    let report = answer(&failover(&config, &["--yes", "--json"]), 0);
    tells_of_strangers(&report);
    await_failed_over(&twinlog);
    Load::new(TOPIC, 20)
        .first(4_000)
        .partition(0)
        .produce(&target);
    let report = answer(&failback(&config, &["--yes", "--json"]), 0);
    assert_eq!(report["lost"]["is_proven"], true, "{report:#}");
    tells_of_strangers(&report);
    let values = |bootstrap: &str| -> Vec<Option<Vec<u8>>> {
        let all = read_all(bootstrap, TOPIC, Isolation::ReadCommitted);
        all.into_iter()
            .filter(|it| it.partition == 0)
            .map(|it| it.value)
            .collect()
    };
    let (mut there, back) = (values(&target), values(&source));
    there.drain(157..160);
    there.drain(100..107);
    assert_eq!(there, back, "lost, doubled or carried back");
    assert_eq!(end_offset(&source, TOPIC, 1), 150);
}
