//! Checkpoints on their way into the topic.

use std::collections::HashMap;

use super::Checkpoint;

/// A record of the checkpoints topic: key and value.
pub(super) type Encoded = (Vec<u8>, Vec<u8>);

/// The last checkpoint of each group and partition, and whether the topic has it.
///
/// Holds one entry per position that any group ever had here, whatever is noted how often.
#[derive(Debug, Default)]
pub(super) struct Notes {
    last: HashMap<Vec<u8>, Note>,
}

#[derive(Debug)]
struct Note {
    value: Vec<u8>,
    written: bool,
}

impl Notes {
    /// Remembers a checkpoint in place of an older one. One that the topic has already is not
    /// written again: readers scan the whole topic at every call.
    pub(super) fn note(&mut self, checkpoint: &Checkpoint) {
        let value = checkpoint.value();
        match self.last.get_mut(&checkpoint.key()) {
            Some(note) if note.value == value => {}
            Some(note) => {
                *note = Note {
                    value,
                    written: false,
                };
            }
            None => {
                let note = Note {
                    value,
                    written: false,
                };
                self.last.insert(checkpoint.key(), note);
            }
        }
    }

    /// What the topic doesn't surely have. It stays so until [`Notes::written`].
    pub(super) fn unwritten(&self) -> Vec<Encoded> {
        let unwritten = self.last.iter().filter(|(_, note)| !note.written);
        unwritten
            .map(|(key, note)| (key.clone(), note.value.clone()))
            .collect()
    }

    /// The topic has these now. What was noted meanwhile isn't among them and stays unwritten.
    pub(super) fn written(&mut self, records: &[Encoded]) {
        for (key, value) in records {
            if let Some(note) = self.last.get_mut(key)
                && note.value == *value
            {
                note.written = true;
            }
        }
    }

    /// The topic is a new one: it has nothing.
    pub(super) fn forget_written(&mut self) {
        for note in self.last.values_mut() {
            note.written = false;
        }
    }
}

/// Cuts records into runs of at most `max_bytes` of keys and values; a longer record is alone.
pub(super) fn in_batches(records: &[Encoded], max_bytes: usize) -> Vec<&[Encoded]> {
    let mut batches = Vec::new();
    let (mut from, mut bytes) = (0, 0);
    for (at, (key, value)) in records.iter().enumerate() {
        let record_bytes = key.len() + value.len();
        if at > from && bytes + record_bytes > max_bytes {
            batches.push(&records[from..at]);
            (from, bytes) = (at, 0);
        }
        bytes += record_bytes;
    }
    if from < records.len() {
        batches.push(&records[from..]);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(group: &str, offset: i64) -> Checkpoint {
        Checkpoint::new(group, "t", 0, offset, offset, "").unwrap()
    }

    fn encoded(checkpoint: &Checkpoint) -> Encoded {
        (checkpoint.key(), checkpoint.value())
    }

    #[test]
    fn the_last_one_of_a_key_is_written_and_only_once() {
        let mut notes = Notes::default();
        notes.note(&checkpoint("a", 1));
        notes.note(&checkpoint("a", 2));
        let wanted = vec![encoded(&checkpoint("a", 2))];
        assert_eq!(notes.unwritten(), wanted);
        // A failure tells nobody: asked again, it is still there.
        assert_eq!(notes.unwritten(), wanted);
        notes.written(&wanted);
        notes.note(&checkpoint("a", 2));
        assert_eq!(notes.unwritten(), []);
        notes.note(&checkpoint("a", 1));
        assert_eq!(notes.unwritten(), [encoded(&checkpoint("a", 1))]);
    }

    #[test]
    fn what_is_noted_during_a_write_is_not_taken_for_written() {
        let mut notes = Notes::default();
        notes.note(&checkpoint("a", 1));
        let on_its_way = notes.unwritten();
        notes.note(&checkpoint("a", 2));
        notes.written(&on_its_way);
        assert_eq!(notes.unwritten(), [encoded(&checkpoint("a", 2))]);
    }

    #[test]
    fn a_new_topic_gets_everything_again() {
        let mut notes = Notes::default();
        notes.note(&checkpoint("a", 1));
        notes.written(&notes.unwritten());
        notes.forget_written();
        assert_eq!(notes.unwritten().len(), 1);
    }

    #[test]
    fn batches_keep_to_their_size_and_lose_nothing() {
        let record = |bytes: usize| (Vec::new(), vec![0; bytes]);
        let records = [3, 4, 4, 20, 1, 9, 1].map(record);
        let sizes: Vec<Vec<usize>> = in_batches(&records, 10)
            .iter()
            .map(|batch| batch.iter().map(|(_, value)| value.len()).collect())
            .collect();
        assert_eq!(sizes, [vec![3, 4], vec![4], vec![20], vec![1, 9], vec![1]]);
        assert!(in_batches(&[], 10).is_empty());
    }
}
