//! Some of many topics at a time, others the next time: what is asked for again and again costs as little for many as for
//! a few.

use std::hash::{DefaultHasher, Hash, Hasher};

/// Whose turn it is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct InTurn {
    rounds: u64,
    turn: u64,
}

impl InTurn {
    /// The next ones of so many, about `at_once`.
    pub(super) fn next(&mut self, count: usize, at_once: usize) {
        self.rounds = count.div_ceil(at_once).max(1) as u64;
        self.turn = (self.turn + 1) % self.rounds;
    }

    /// Whether this topic is among them, with all of its partitions: a question names it once then.
    pub(super) fn has(self, topic: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        topic.hash(&mut hasher);
        hasher.finish() % self.rounds.max(1) == self.turn
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn each_has_its_turn_and_few_have_it_at_once() {
        let topics: Vec<String> = (0..4_500).map(|it| format!("topic-{it}")).collect();
        let mut turns: HashMap<&str, usize> = HashMap::new();
        let mut in_turn = InTurn::default();
        for _ in 0..topics.len().div_ceil(300) {
            in_turn.next(topics.len(), 300);
            let now: Vec<&String> = topics.iter().filter(|it| in_turn.has(it)).collect();
            assert!((200..400).contains(&now.len()), "{}", now.len());
            now.into_iter()
                .for_each(|it| *turns.entry(it).or_default() += 1);
        }
        assert_eq!(turns.len(), topics.len());
        assert!(turns.values().all(|times| *times == 1));
        in_turn.next(300, 300);
        assert!(topics.iter().all(|it| in_turn.has(it)));
    }
}
