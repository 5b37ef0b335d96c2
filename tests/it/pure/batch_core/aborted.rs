//! The read_committed filter against a model that knows every transaction's fate.

use proptest::prelude::*;
use twinlog::batch::*;

use super::generate::*;

/// What a producer does next.
#[derive(Clone, Debug)]
enum Step {
    /// Writes records, in a transaction or outside of any.
    Data {
        producer: usize,
        count: i64,
        transactional: bool,
    },
    /// Ends its transaction, if it has one.
    End { producer: usize, commit: bool },
    /// A batch without a producer id.
    Plain { count: i64 },
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0usize..4, 1i64..4, prop::bool::weighted(0.85))
            .prop_map(|(producer, count, transactional)| Step::Data { producer, count, transactional }),
        3 => (0usize..4, any::<bool>()).prop_map(|(producer, commit)| Step::End { producer, commit }),
        1 => (1i64..4).prop_map(|count| Step::Plain { count }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn only_aborted_data_is_dropped(
        steps in prop::collection::vec(any_step(), 1..60),
        from in any::<prop::sample::Index>(), shuffle: bool,
    ) {
        let mut log: Vec<V2> = Vec::new();
        let mut aborted = Vec::new();
        // Per batch: whether its transaction was aborted.
        let mut fate: Vec<bool> = Vec::new();
        // Per producer: first offset of the open transaction and its batches in the log.
        let mut open: [Option<(i64, Vec<usize>)>; 4] = Default::default();
        let mut next = 0i64;
        let mut end = |log: &mut Vec<V2>, fate: &mut Vec<bool>, next: &mut i64,
                       open: &mut [Option<(i64, Vec<usize>)>; 4], producer: usize, commit: bool| {
            let Some((first, batches)) = open[producer].take() else { return };
            if !commit {
                // The marker's offset is kept to choose what an answer that starts later lists.
                aborted.push((producer as i64, first, *next));
                for batch in batches { fate[batch] = true; }
            }
            log.push(V2::marker(*next, producer as i64, commit.into()));
            fate.push(false);
            *next += 1;
        };
        for step in steps {
            let (producer, count, transactional) = match step {
                Step::End { producer, commit } => {
                    end(&mut log, &mut fate, &mut next, &mut open, producer, commit);
                    continue;
                }
                Step::Plain { count } => (None, count, false),
                Step::Data { producer, count, transactional } => (Some(producer), count, transactional),
            };
            // A broker takes no batch outside of it while a producer's transaction is open.
            let transactional = transactional || producer.is_some_and(|p| open[p].is_some());
            let records: Vec<_> = (next..next + count).map(|o| record(o, o, b"v")).collect();
            if let (true, Some(producer)) = (transactional, producer) {
                open[producer].get_or_insert((next, Vec::new())).1.push(log.len());
            }
            log.push(V2 {
                attributes: if transactional { 0x10 } else { 0 },
                producer_id: producer.map_or(-1, |p| p as i64),
                ..V2::of(&records)
            });
            fate.push(false);
            next += count;
        }
        for producer in 0..4 {
            end(&mut log, &mut fate, &mut next, &mut open, producer, producer % 2 == 0);
        }
        prop_assume!(!log.is_empty());
        // An answer may start anywhere; it lists the aborted transactions that reach into it.
        let from = from.index(log.len());
        let mut listed: Vec<_> = aborted
            .iter()
            .filter(|(_, _, marker)| *marker >= log[from].base_offset)
            .map(|(producer, first, _)| (*producer, *first))
            .collect();
        if shuffle { listed.reverse(); }
        let mut filter = AbortedFilter::new(listed);
        for (v2, expected) in log[from..].iter().zip(&fate[from..]) {
            prop_assert_eq!(filter.is_aborted(&v2.batch()).unwrap(), *expected, "{:?}", v2);
        }
    }
}

#[test]
fn an_emptied_marker_is_no_error() {
    let empty = V2 {
        count: 0,
        payload: vec![],
        ..V2::marker(5, 1, 0)
    }
    .batch();
    assert_eq!(AbortedFilter::new([(1, 0)]).is_aborted(&empty), Ok(false));
}
