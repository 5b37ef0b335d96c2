//! What `orphans` says to a person.

use std::fmt::Write as _;

use super::format::{clean, count, plural};
use crate::cutover::operator_in_words;
use crate::orphans::{Decided, Listing, PartitionListing, Text, TopicListing};
use crate::state::{OrphanChoice, OrphanDecision};
use crate::telemetry::utc::to_the_millisecond as utc;

/// More partitions of a topic aren't shown; `--json` has all.
const SHOWN_MAX: usize = 50;
/// A longer key is cut.
const KEY_CHARS_MAX: usize = 40;

/// The list.
pub(super) fn listing(listing: &Listing) -> String {
    let mut text = String::new();
    let totals = &listing.totals;
    // Writing to a string can't fail.
    let _ = writeln!(
        text,
        "flow {}: {} on {} never reached {}, {} undecided",
        clean(&listing.flow),
        plural(totals.records, "record"),
        clean(&listing.source),
        clean(&listing.target),
        count(i64::try_from(totals.undecided_records).unwrap_or(i64::MAX)),
    );
    for topic in &listing.topics {
        add_topic(&mut text, topic);
    }
    for note in &listing.notes {
        let _ = writeln!(text, "  ! {}", clean(note));
    }
    text
}

fn add_topic(text: &mut String, topic: &TopicListing) {
    let _ = writeln!(
        text,
        "  {}: {}, {} undecided",
        clean(&topic.topic),
        plural(topic.records, "record"),
        topic.undecided_records
    );
    for partition in topic.partitions.iter().take(SHOWN_MAX) {
        add_partition(text, partition);
    }
    let more = topic.partitions.len().saturating_sub(SHOWN_MAX) as u64;
    if more > 0 {
        let _ = writeln!(
            text,
            "    and {} more; --json lists all",
            plural(more, "partition")
        );
    }
    if let Some(conflicts) = &topic.conflicts {
        let _ = writeln!(
            text,
            "    {} also written on the new primary since the fork ({}){}{}",
            plural(conflicts.keys, "key"),
            plural(conflicts.records, "record"),
            if conflicts.all_keys_compared {
                ""
            } else {
                ", of the first million keys"
            },
            keys(&conflicts.sample_keys),
        );
        for why in &conflicts.not_compared {
            let _ = writeln!(text, "    there may be more: {}", clean(why));
        }
    }
    for decision in &topic.decisions {
        let _ = writeln!(text, "    {}", decision_line(decision));
    }
}

fn add_partition(text: &mut String, partition: &PartitionListing) {
    let _ = write!(text, "    partition {}: ", partition.partition);
    if partition.from < partition.to {
        let _ = write!(text, "offsets {} to {}, ", partition.from, partition.to - 1);
    }
    let _ = write!(text, "{}", plural(partition.records, "record"));
    if let (Some(first), Some(last)) = (partition.first_timestamp_ms, partition.last_timestamp_ms) {
        let _ = write!(text, ", {} to {} UTC", utc(first), utc(last));
    }
    let about = if partition.distinct_keys_exact {
        ""
    } else {
        "about "
    };
    let _ = write!(
        text,
        ", {about}{}{}",
        plural(partition.distinct_keys, "key"),
        keys(&partition.sample_keys)
    );
    let _ = writeln!(text, "; {}", decided_so_far(partition));
    if let Some(from) = partition.open_transaction_at {
        let _ = writeln!(
            text,
            "      ! a transaction is open at {from}: what is behind it can't be read yet"
        );
    }
    if partition.expired_offsets > 0 {
        let _ = writeln!(
            text,
            "      ! {} offsets beyond the fork are deleted already",
            count(partition.expired_offsets)
        );
    }
}

fn decided_so_far(partition: &PartitionListing) -> String {
    let mut words: Vec<String> = partition
        .decided
        .iter()
        .map(|it| format!("{} to {} {}", it.from, it.to - 1, it.decision))
        .collect();
    let undecided = partition.undecided.iter();
    words.extend(undecided.map(|(from, to)| format!("{from} to {} undecided", to - 1)));
    if let Some(replayed) = &partition.replayed
        && partition
            .undecided
            .iter()
            .any(|(from, _)| *from < replayed.next)
    {
        words.push(format!("a replay got to {}", replayed.next));
    }
    if words.is_empty() {
        words.push("nothing is there".to_owned());
    }
    words.join(", ")
}

fn decision_line(decision: &OrphanDecision) -> String {
    format!(
        "{} {} at {} UTC by {}",
        plural(decision.records, "record"),
        decision.decision.word(),
        utc(decision.at_ms),
        clean(&operator_in_words(&decision.operator)),
    )
}

fn keys(sample: &[Text]) -> String {
    if sample.is_empty() {
        return String::new();
    }
    let keys: Vec<String> = sample.iter().map(key).collect();
    format!(" such as {}", keys.join(", "))
}

fn key(key: &Text) -> String {
    let text = String::from_utf8_lossy(&key.0);
    let cut: String = text.chars().take(KEY_CHARS_MAX).collect();
    let more = if cut.len() < text.len() { "..." } else { "" };
    format!("\"{}{more}\"", clean(&cut))
}

/// What `--yes` would do.
pub(super) fn would(choice: OrphanChoice, listing: &Listing) -> String {
    let records = plural(listing.totals.undecided_records, "record");
    let what = match choice {
        OrphanChoice::Replay => format!(
            "would append {records} to {}, behind what is there, with the header twinlog.orphan",
            clean(&listing.target)
        ),
        OrphanChoice::Dismiss => format!("would record that {records} are not wanted"),
        OrphanChoice::Keep => format!(
            "would record that {records} stay in the log of {}, at their own offsets",
            clean(&listing.source)
        ),
    };
    format!("{what}\nnothing was changed; --yes carries it out\n")
}

/// What was recorded.
pub(super) fn decided(decided: &[Decided]) -> String {
    if decided.is_empty() {
        return "there was nothing to decide\n".to_owned();
    }
    let line = |it: &Decided| {
        let records = plural(it.decision.records, "record");
        let word = it.decision.decision.word();
        format!("{}: {records} {word}\n", clean(&it.topic))
    };
    decided.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_can_not_tell_the_terminal_what_to_do() {
        let shown = key(&Text(b"a\x1b[2Jb\xff".to_vec()));
        assert_eq!(shown, "\"a [2Jb\u{fffd}\"");
        let long = key(&Text(vec![b'k'; 100]));
        assert_eq!(long.len(), KEY_CHARS_MAX + 5);
    }

    #[test]
    fn an_unfinished_replay_is_told() {
        let partition = PartitionListing {
            from: 10,
            to: 20,
            undecided: vec![(10, 20)],
            replayed: Some(crate::orphans::Replayed {
                next: 14,
                records: 4,
            }),
            ..PartitionListing::default()
        };
        assert_eq!(
            decided_so_far(&partition),
            "10 to 19 undecided, a replay got to 14"
        );
    }
}
