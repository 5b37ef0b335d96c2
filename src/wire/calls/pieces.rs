//! One change in several requests.
//!
//! A request about hundreds of topics would wait for itself in the controller, so a large change goes in pieces. Over a line
//! of 100 ms a thousand topics in pieces of a hundred would wait for ten round trips one after the other.

use std::collections::BTreeMap;
use std::future::Future;

use tokio::task::JoinSet;

use crate::tasks::brought;

/// Pieces that are on the way at once. They go to one controller, on one connection: it does them one after the other, and
/// the last one waits for the others within the time that one has.
const ON_THE_WAY: usize = 2;

/// Sends the pieces, some at a time, and tells what became of each, in their order. Behind the first that failed as a
/// whole no other one is begun: so the answer may be shorter. What is about one topic must be in one piece.
pub async fn in_pieces<P, R, E, F>(
    pieces: impl IntoIterator<Item = P>,
    send: impl Fn(P) -> F,
) -> Vec<Result<R, E>>
where
    F: Future<Output = Result<R, E>> + Send + 'static,
    R: Send + 'static,
    E: Send + 'static,
{
    let mut pieces = pieces.into_iter().enumerate();
    let mut on_the_way = JoinSet::new();
    let mut came = BTreeMap::new();
    let mut has_failed = false;
    loop {
        while !has_failed
            && on_the_way.len() < ON_THE_WAY
            && let Some((nth, piece)) = pieces.next()
        {
            let sending = send(piece);
            on_the_way.spawn(async move { (nth, sending.await) });
        }
        let Some(done) = on_the_way.join_next().await else {
            return came.into_values().collect();
        };
        let (nth, outcome) = brought(done);
        has_failed |= outcome.is_err();
        came.insert(nth, outcome);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::simulated::simulated;

    const ROUND_TRIP: Duration = Duration::from_millis(100);

    #[test]
    fn some_are_on_the_way_at_once_and_not_all() {
        simulated(|| async {
            let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let began = Instant::now();
            let outcomes = in_pieces(0..10_u64, |piece| {
                let (now, most) = (now.clone(), most.clone());
                async move {
                    most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                    // The later ones are quicker.
                    tokio::time::sleep(ROUND_TRIP - Duration::from_millis(piece)).await;
                    now.fetch_sub(1, Ordering::Relaxed);
                    Ok::<u64, ()>(piece)
                }
            });
            let outcomes: Vec<u64> = outcomes.await.into_iter().filter_map(Result::ok).collect();
            assert_eq!(outcomes, (0..10).collect::<Vec<u64>>(), "in their order");
            assert!(began.elapsed() < 6 * ROUND_TRIP, "{:?}", began.elapsed());
            assert_eq!(most.load(Ordering::Relaxed), ON_THE_WAY);
        });
    }

    #[test]
    fn none_is_begun_behind_one_that_failed() {
        simulated(|| async {
            let outcomes = in_pieces(0..10, |piece| async move {
                // The one that fails is the first that is answered.
                tokio::time::sleep(if piece == 1 {
                    ROUND_TRIP / 2
                } else {
                    ROUND_TRIP
                })
                .await;
                match piece {
                    1 => Err("no answer"),
                    other => Ok(other),
                }
            });
            let outcomes = outcomes.await;
            assert_eq!(outcomes.len(), ON_THE_WAY);
            assert!(outcomes[0].is_ok() && outcomes[1].is_err(), "{outcomes:?}");
        });
    }
}
