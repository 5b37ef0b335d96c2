//! Writes orphans to files: as JSON lines, and as the batches that the broker had.

use std::path::{Path, PathBuf};

use super::fetched::{self, Fetched};
use super::json_line::{self, Place};
use super::list::Listing;
use super::manifest::{BatchEntry, Manifest, PartitionEntry};
use super::new_file::{NewFile, at, make_folder};
use super::scene::{Scene, Stranded};
use super::{OrphansError, Phase, Progress};
use crate::telemetry::progress::now_ms;
use crate::wire::TopicPartition;

const MANIFEST: &str = "manifest.json";

/// Where to.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// The folder; it is made.
    pub folder: PathBuf,
    /// Files of an earlier export may be replaced.
    pub force: bool,
}

/// Writes everything that is stranded, decided or not. `listing` says how many records there are.
///
/// # Errors
/// When the folder isn't empty and may not be used, something can't be read or written, or another
/// number of records was read than was listed.
pub async fn export(
    scene: &Scene,
    listing: &Listing,
    options: &ExportOptions,
    progress: &Progress,
) -> Result<Manifest, OrphansError> {
    let folder = &options.folder;
    prepare(folder, options.force)?;
    let total = scene
        .stranded
        .iter()
        .map(|it| it.readable_to - it.from)
        .sum();
    progress.enter(Phase::Exporting, total);
    let mut manifest = Manifest {
        v: 1,
        flow: scene.flow.name.clone(),
        source: scene.flow.source.clone(),
        exported_ms: now_ms(),
        records: 0,
        batches: 0,
        partitions: Vec::new(),
        left_out: scene.left_out.clone(),
    };
    for stranded in scene.stranded.iter().filter(|it| it.from < it.readable_to) {
        let entry = partition(scene, stranded, folder, progress).await?;
        let listed = listed(listing, stranded);
        if entry.records != listed {
            return Err(OrphansError::new(format!(
                "{}-{}: {listed} records were listed and {} were written",
                entry.topic, entry.partition, entry.records
            ))
            .with_hint("did the old primary's retention delete some meanwhile? Try it again"));
        }
        manifest.records += entry.records;
        manifest.batches += entry.batches;
        manifest.partitions.push(entry);
    }
    let text = serde_json::to_vec_pretty(&manifest)
        .map_err(|error| OrphansError::doing(MANIFEST, error))?;
    let mut file = NewFile::create(folder, MANIFEST)?;
    file.write(&text)?;
    file.write(b"\n")?;
    file.finish()?;
    Ok(manifest)
}

fn listed(listing: &Listing, stranded: &Stranded) -> u64 {
    let topics = listing
        .topics
        .iter()
        .filter(|it| it.topic == stranded.topic);
    let mut partitions = topics.flat_map(|it| &it.partitions);
    let found = partitions.find(|it| it.partition == stranded.partition);
    found.map_or(0, |it| it.records)
}

fn prepare(folder: &Path, force: bool) -> Result<(), OrphansError> {
    make_folder(folder)?;
    let mut entries = std::fs::read_dir(folder).map_err(|error| at(folder, error))?;
    if entries.next().is_none() {
        return Ok(());
    }
    if !force {
        return Err(
            OrphansError::new(format!("{} isn't empty", folder.display()))
                .with_hint("name a new folder, or replace an earlier export with --force"),
        );
    }
    // What lies there isn't whole until the new manifest is.
    match std::fs::remove_file(folder.join(MANIFEST)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(at(&folder.join(MANIFEST), error))
        }
        _ => Ok(()),
    }
}

async fn partition(
    scene: &Scene,
    stranded: &Stranded,
    folder: &Path,
    progress: &Progress,
) -> Result<PartitionEntry, OrphansError> {
    let topic = &stranded.topic;
    if !is_a_topic_name(topic) {
        return Err(OrphansError::new(format!(
            "{topic:?} is no name for a folder"
        )));
    }
    // As in a broker's own folders, so that Kafka's tools read them.
    let inside = format!("{topic}-{}", stranded.partition);
    make_folder(&folder.join(&inside))?;
    let mut json = NewFile::create(folder, &format!("{inside}/records.jsonl"))?;
    let mut raw = NewFile::create(folder, &format!("{inside}/{:020}.log", stranded.from))?;
    let mut index = NewFile::create(folder, &format!("{inside}/batches.jsonl"))?;
    let (mut records, mut batches) = (0, 0);
    let range = stranded.from..stranded.readable_to;
    let source = TopicPartition::new(&**topic, stranded.partition);
    let mut fetched = Fetched::new(&scene.source, source, range.clone());
    let mut before = fetched.position();
    while let Some(found) = fetched.next().await? {
        for batch in &found {
            let shown = fetched::records(batch, &range)?;
            let header = &batch.raw.header;
            let place = Place {
                topic,
                partition: stranded.partition,
                is_append_time: header.is_log_append_time(),
            };
            for record in &shown {
                let line = json_line::line(place, record)
                    .map_err(|error| OrphansError::doing(&inside, error))?;
                json.write(&line)?;
            }
            let entry = BatchEntry {
                position: raw.bytes(),
                bytes: batch.raw.bytes.len() as u64,
                base_offset: header.base_offset,
                last_offset: header.last_offset(),
                records: shown.len() as u64,
                crc: header.crc,
                is_control: header.is_control(),
                is_aborted: batch.is_aborted,
            };
            raw.write(&batch.raw.bytes)?;
            let mut line =
                serde_json::to_vec(&entry).map_err(|error| OrphansError::doing(&inside, error))?;
            line.push(b'\n');
            index.write(&line)?;
            records += shown.len() as u64;
            batches += 1;
        }
        progress.passed(0, fetched.position() - before);
        before = fetched.position();
    }
    progress.passed(records, 0);
    Ok(PartitionEntry {
        topic: topic.clone(),
        partition: stranded.partition,
        plan: stranded.plan.to_string(),
        from: stranded.from,
        to: stranded.readable_to,
        held_back: stranded.to - stranded.readable_to,
        records,
        batches,
        json: json.finish()?,
        raw: raw.finish()?,
        index: index.finish()?,
    })
}

/// Kafka's own rule; the name came over the network and becomes a path.
fn is_a_topic_name(topic: &str) -> bool {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !topic.is_empty() && topic.len() <= 249 && topic.chars().all(is_legal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_name_leads_nowhere_else() {
        assert!(is_a_topic_name("orders.eu-1_x"));
        for name in ["", "../etc", "a/b", "a\0b", "größe"] {
            assert!(!is_a_topic_name(name), "{name}");
        }
    }

    #[test]
    fn what_is_there_is_not_overwritten_by_itself() {
        let folder = tempfile::tempdir().expect("a folder");
        let inner = folder.path().join("deep/er");
        prepare(&inner, false).expect("a new folder");
        prepare(&inner, false).expect("an empty one");
        let mut file = NewFile::create(&inner, MANIFEST).expect("a file");
        file.write(b"{}").expect("writable");
        drop(file);
        assert!(
            inner.read_dir().expect("there").next().is_none(),
            "a file that isn't finished leaves nothing"
        );
        let mut file = NewFile::create(&inner, MANIFEST).expect("a file");
        file.write(b"123456789").expect("writable");
        let entry = file.finish().expect("renamed");
        // The check value of CRC-32C.
        assert_eq!((entry.bytes, entry.crc32c.as_str()), (9, "e3069283"));
        std::fs::write(inner.join("other"), "stays").expect("writable");
        let refused = prepare(&inner, false).expect_err("not empty");
        assert!(refused.to_string().contains("--force"), "{refused}");
        assert!(inner.join(MANIFEST).exists());
        prepare(&inner, true).expect("forced");
        assert!(!inner.join(MANIFEST).exists(), "it isn't whole any more");
        assert!(inner.join("other").exists());
    }
}
