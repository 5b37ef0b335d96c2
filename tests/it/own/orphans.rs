//! `twinlog orphans` after real failovers: what is stranded on the old primary is listed exactly,
//! exported without loss, replayed exactly once however often the command dies, and decided about.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::support::admin::client;
use crate::support::failover::{answer, await_failed_over, failover, start_fenceable_pair, words};
use crate::support::{
    Cluster, Codec, HeaderStyle, Isolation, KafkaVersion, Load, Seen, Transactions, Twinlog,
    await_caught_up, create_topic, end_offset, eventually, read_all,
};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::Value;
use twinlog::batch;
use twinlog::orphans::{BatchEntry, Manifest, Undecided};

pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const ORDERS: i32 = 3;

pub(crate) fn orphans(config: &Path, arguments: &[&str]) -> Output {
    command(config, arguments)
        .output()
        .expect("the built binary runs")
}

pub(crate) fn command(config: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_twinlog"));
    command.arg("orphans").arg("-c").arg(config).args(arguments);
    command
}

pub(crate) fn listed(config: &Path) -> Value {
    answer(&orphans(config, &["--json"]), 0)
}

fn ends(bootstrap: &str) -> Vec<i64> {
    (0..ORDERS)
        .map(|partition| end_offset(bootstrap, "orders", partition))
        .collect()
}

pub(crate) fn end_sum(bootstrap: &str) -> i64 {
    ends(bootstrap).iter().sum()
}

/// What the library tells a failback.
pub(crate) fn undecided(config: &Path) -> Vec<Undecided> {
    let config = twinlog::config::load(config).expect("a good config");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let source = twinlog::connect::cluster(&config.clusters["primary"]);
        let target = twinlog::connect::cluster(&config.clusters["standby"]);
        let store = twinlog::state::StateStore::open_existing(&target)
            .await
            .expect("the target answers")
            .expect("there is state");
        twinlog::orphans::undecided(&store, &source, "dr")
            .await
            .expect("the old primary answers")
    })
}

/// Records that no generator writes: empty key, empty value, bytes that aren't text.
fn produce_oddities(bootstrap: &str) {
    let producer: BaseProducer = client(bootstrap).create().expect("valid settings");
    type Odd<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);
    let odd: [Odd<'_>; 4] = [
        (Some(b""), Some(b"")),
        (None, Some(b"")),
        (Some(&[0xff, 0x00]), Some(&[0xfe, 0xed, 0x0a])),
        (Some(b"quoted \"\n"), None),
    ];
    for (key, value) in odd {
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to("orders").partition(1);
        record.key = key;
        record.payload = value;
        let headers = OwnedHeaders::new().insert(Header {
            key: "odd",
            value: Some(&[0x80_u8, 0x81][..]),
        });
        producer
            .send(record.headers(headers))
            .expect("room in the queue");
    }
    producer.flush(DEADLINE).expect("acknowledged");
}

/// A flow that was failed over without its source, which then came back.
struct Fallen {
    source: Cluster,
    target: Cluster,
    twinlog: Twinlog,
    /// What is on the source and was never copied.
    stranded: Vec<Seen>,
    /// What was copied.
    copied: Vec<Seen>,
    /// What clients wrote to the standby since.
    new: usize,
}

fn fall(version: KafkaVersion) -> Fallen {
    let (mut source_cluster, target_cluster) = start_fenceable_pair(version);
    let (source, target) = (source_cluster.bootstrap(), target_cluster.bootstrap());
    create_topic(&source, "orders", ORDERS, &[]);
    create_topic(&source, "quiet", 2, &[]);
    Load::new("quiet", 50).produce(&source);
    Load::new("orders", 300)
        .headers(HeaderStyle::Every)
        .produce(&source);
    let config = Twinlog::config(&source, &target, "failover: { padding: 500 }");
    let mut twinlog = Twinlog::start(&config);
    await_caught_up(&twinlog, DEADLINE);
    eventually(DEADLINE, "everything is copied", || {
        let quiet: i64 = (0..2).map(|it| end_offset(&target, "quiet", it)).sum();
        match (end_sum(&target), quiet) {
            (300, 50) => Ok(()),
            few => Err(few),
        }
    });
    // The copy stands still, the source goes on, and is gone.
    twinlog.signal("STOP");
    let load = |first, count| {
        let load = Load::new("orders", count)
            .first(first)
            .headers(HeaderStyle::Every);
        load.tombstone_every(7).codec(Codec::Lz4).produce(&source);
    };
    // What waits at the source for something new is answered with the first of these, and that is copied yet.
    load(300, 6);
    load(306, 594);
    Transactions::new(Load::new("orders", 10).first(5_000), 10).produce(&source);
    Load::new("orders", 20)
        .first(9_000)
        .keys(0)
        .produce(&source);
    produce_oddities(&source);
    source_cluster.kill(1);
    twinlog.signal("CONT");
    twinlog.wait_until(DEADLINE, "the source is missed", |status| {
        status["flows"][0]["state"] == "waiting"
    });
    let arguments = ["--unplanned", "--yes", "--json", "--accept-loss", "any"];
    let report = answer(&failover(twinlog.config_file(), &arguments), 0);
    assert_eq!(report["state"], "done", "{report:#}");
    await_failed_over(&twinlog);
    let copied = read_all(&target, "orders", Isolation::ReadCommitted);

    // What can't be asked isn't guessed.
    let away = orphans(twinlog.config_file(), &[]);
    assert_eq!(away.status.code(), Some(1), "{}", words(&away));
    assert!(
        words(&away).contains("primary doesn't answer"),
        "{}",
        words(&away)
    );

    // Keys 0 to 59 are written anew.
    Load::new("orders", 60).first(20_000).produce(&target);
    source_cluster.restart(1);
    twinlog.wait_until(DEADLINE, "the old primary is fenced", |status| {
        let role = &status["flows"][0]["role"];
        role["old_primary"] == "fenced" && role["orphan_offsets"].is_number()
    });
    let places: BTreeSet<(i32, i64)> = copied.iter().map(|it| (it.partition, it.offset)).collect();
    let stranded = read_all(&source, "orders", Isolation::ReadCommitted)
        .into_iter()
        .filter(|it| !places.contains(&(it.partition, it.offset)))
        .collect();
    Fallen {
        source: source_cluster,
        target: target_cluster,
        twinlog,
        stranded,
        copied,
        new: 60,
    }
}

#[test]
fn what_is_stranded_is_listed_exported_and_replayed_once() {
    let mut it = fall(KafkaVersion::V4_3);
    assert!(it.stranded.len() > 300, "{} stranded", it.stranded.len());
    it.is_listed();
    it.is_exported();
    it.is_replayed_once();
    it.later_ones_are_undecided();
    let log = it.twinlog.log();
    assert!(!log.contains("key-"), "keys are nobody's business: {log}");
}

impl Fallen {
    fn of(&self, partition: i32) -> Vec<&Seen> {
        let of = self.stranded.iter().filter(|it| it.partition == partition);
        of.collect()
    }

    fn is_listed(&self) {
        let config = self.twinlog.config_file();
        let status = self.twinlog.status().to_string();
        assert!(
            status.contains("orders") && !status.contains("key-"),
            "{status}"
        );
        let list = answer(&orphans(config, &["--json", "--conflicts"]), 0);
        let total = self.stranded.len();
        assert_eq!(list["totals"]["records"], total, "{list:#}");
        assert_eq!(list["totals"]["undecided_records"], total, "{list:#}");
        assert_eq!(list["topics"].as_array().map(Vec::len), Some(1), "{list:#}");
        let topic = &list["topics"][0];
        assert_eq!(topic["topic"], "orders");
        let source_ends = ends(&self.source.bootstrap());
        for partition in 0..ORDERS {
            let of = self.of(partition);
            let found = &topic["partitions"][partition as usize];
            assert_eq!(found["partition"], partition);
            assert_eq!(found["records"], of.len(), "{found:#}");
            assert_eq!(found["to"], source_ends[partition as usize], "{found:#}");
            let copied = self.copied.iter().filter(|it| it.partition == partition);
            let copied_end = copied.map(|it| it.offset).max().unwrap_or(-1) + 1;
            let from = found["from"].as_i64().expect("a number");
            assert!(from >= copied_end && from <= of[0].offset, "{found:#}");
            let times = of.iter().filter_map(|it| it.timestamp_ms);
            assert_eq!(found["first_timestamp_ms"].as_i64(), times.clone().min());
            assert_eq!(found["last_timestamp_ms"].as_i64(), times.max());
            let keys: BTreeSet<&Vec<u8>> = of.iter().filter_map(|it| it.key.as_ref()).collect();
            assert_eq!(found["distinct_keys"], keys.len(), "{found:#}");
            assert_eq!(found["distinct_keys_exact"], true);
            let bare = of.iter().filter(|it| it.key.is_none()).count();
            assert_eq!(found["records_without_key"], bare, "{found:#}");
            assert_eq!(found["undecided"][0][0], found["from"]);
        }
        let keys: BTreeSet<&[u8]> = self
            .stranded
            .iter()
            .filter_map(|it| it.key.as_deref())
            .collect();
        let both = (0..60).filter(|n| keys.contains(format!("key-{n}").as_bytes()));
        let conflicts = &topic["conflicts"];
        assert_eq!(conflicts["keys"], both.count(), "{conflicts:#}");
        assert_eq!(conflicts["all_keys_compared"], true);
        assert!(conflicts["keys"].as_u64() > Some(30), "{conflicts:#}");

        let text = words(&orphans(config, &[]));
        assert!(text.contains(&format!("{total} undecided")), "{text}");
        let open: i64 = undecided(config).iter().map(|it| it.to - it.from).sum();
        assert!(open >= total as i64, "{open}");
        let unknown = orphans(config, &["--topic", "nothing"]);
        assert_eq!(unknown.status.code(), Some(1), "{}", words(&unknown));
    }

    fn is_exported(&self) {
        let config = self.twinlog.config_file();
        let folder = config.with_file_name("export");
        let path = folder.to_str().expect("UTF-8");
        let manifest = answer(&orphans(config, &["--export", path, "--json"]), 0);
        let manifest: Manifest = serde_json::from_value(manifest).expect("as documented");
        assert_eq!(manifest.records as usize, self.stranded.len());
        for entry in &manifest.partitions {
            let of = self.of(entry.partition);
            assert_eq!(entry.records as usize, of.len());
            for file in [&entry.json, &entry.raw, &entry.index] {
                let content = std::fs::read(folder.join(&file.path)).expect("written");
                assert_eq!(content.len() as u64, file.bytes, "{file:?}");
                assert_eq!(format!("{:08x}", crc32c::crc32c(&content)), file.crc32c);
            }
            let json = std::fs::read_to_string(folder.join(&entry.json.path)).expect("text");
            let read: Vec<Seen> = json.lines().map(from_json).collect();
            assert_eq!(read.iter().collect::<Vec<_>>(), of, "JSON lines");
            let raw = std::fs::read(folder.join(&entry.raw.path)).expect("written");
            let index = std::fs::read_to_string(folder.join(&entry.index.path)).expect("text");
            let read = from_raw(&raw, &index, entry.from..entry.to, entry.partition);
            assert_eq!(read.iter().collect::<Vec<_>>(), of, "raw");
            if entry.partition == 0 {
                let batches = dumped(&folder.join(&entry.raw.path));
                assert_eq!(batches as u64, entry.batches, "Kafka's own tool reads it");
            }
        }
        let written: Manifest =
            serde_json::from_slice(&std::fs::read(folder.join("manifest.json")).expect("written"))
                .expect("JSON");
        assert_eq!(written.records, manifest.records);
        let again = orphans(config, &["--export", path]);
        assert_eq!(again.status.code(), Some(1), "{}", words(&again));
        assert!(words(&again).contains("--force"), "{}", words(&again));
        let forced = orphans(config, &["--export", path, "--force"]);
        assert_eq!(forced.status.code(), Some(0), "{}", words(&forced));
    }

    fn is_replayed_once(&self) {
        let config = self.twinlog.config_file();
        let target = self.target.bootstrap();
        let before = end_sum(&target);
        for arguments in [&["--replay"][..], &["--replay", "--dry-run"]] {
            let shown = orphans(config, arguments);
            assert_eq!(shown.status.code(), Some(0), "{}", words(&shown));
            assert!(
                words(&shown).contains("nothing was changed"),
                "{}",
                words(&shown)
            );
        }
        assert_eq!(end_sum(&target), before);

        // Dies with a transaction sent and not committed, and right behind a commit.
        for (moment, batch) in [("sent:2", "40"), ("committed:3", "40")] {
            let crashed = command(config, &["--replay", "--yes", "--batch", batch])
                .env("TWINLOG_ORPHANS_EXIT_AT", moment)
                .output()
                .expect("the built binary runs");
            assert_eq!(crashed.status.code(), Some(137), "{}", words(&crashed));
        }
        eventually(
            DEADLINE,
            "what was committed can be read",
            || match replayed(&target).len() {
                160 => Ok(()),
                other => Err(other),
            },
        );
        // What the first try had appended is recorded; the second one had no time for it.
        let list = listed(config);
        let left = self.stranded.len() - 40;
        assert_eq!(list["totals"]["undecided_records"], left, "{list:#}");
        assert_eq!(sum_of(&list, "/replayed/records"), 160, "{list:#}");
        let text = words(&orphans(config, &[]));
        assert!(text.contains("a replay got to"), "{text}");

        // Dies far in, with a transaction of another size open.
        let from = end_sum(&target);
        let crashed = command(config, &["--replay", "--yes", "--batch", "2"])
            .env("TWINLOG_ORPHANS_EXIT_AT", "sent:40")
            .output()
            .expect("the built binary runs");
        assert_eq!(crashed.status.code(), Some(137), "{}", words(&crashed));
        let many = end_sum(&target) - from;
        assert!(many > 60, "only {many} are under way");

        let ended = answer(&orphans(config, &["--replay", "--yes", "--json"]), 0);
        assert_eq!(ended["decision"], "replayed", "{ended:#}");
        assert!(ended["replay"]["records"].as_u64() > Some(0), "{ended:#}");
        // A commit is answered before its markers are written.
        eventually(DEADLINE, "all can be read", || {
            match replayed(&target).len() {
                all if all == self.stranded.len() => Ok(()),
                other => Err(other),
            }
        });
        self.assert_replayed_once();
        let done = end_sum(&target);

        let list = listed(config);
        assert_eq!(list["totals"]["undecided_records"], 0, "{list:#}");
        let decisions = list["topics"][0]["decisions"]
            .as_array()
            .expect("a list")
            .clone();
        assert!(
            decisions.iter().all(|it| it["decision"] == "replay"),
            "{list:#}"
        );
        let counted: u64 = decisions
            .iter()
            .filter_map(|it| it["records"].as_u64())
            .sum();
        assert_eq!(counted as usize, self.stranded.len(), "{list:#}");
        assert_eq!(undecided(config), []);
        let nothing = answer(&orphans(config, &["--replay", "--yes", "--json"]), 0);
        assert_eq!(nothing["replay"]["records"], 0, "{nothing:#}");
        assert_eq!(end_sum(&target), done, "nothing left to append");
    }

    fn assert_replayed_once(&self) {
        let target = self.target.bootstrap();
        let found = replayed(&target);
        assert_eq!(found.len(), self.stranded.len());
        let mut by_origin: BTreeMap<String, Seen> = BTreeMap::new();
        let mut last: BTreeMap<i32, i64> = BTreeMap::new();
        for (origin, record) in found {
            let offset = origin
                .rsplit('/')
                .next()
                .and_then(|it| it.parse::<i64>().ok());
            let offset = offset.expect("an origin ends with the offset");
            let before = last.insert(record.partition, offset);
            assert!(before < Some(offset), "{origin} is behind {before:?}");
            by_origin.insert(origin, record);
        }
        for wanted in &self.stranded {
            let origin = format!("primary/orders/{}/{}", wanted.partition, wanted.offset);
            let found = by_origin
                .get(&origin)
                .unwrap_or_else(|| panic!("{origin} is missing"));
            let same = Seen {
                offset: wanted.offset,
                ..found.clone()
            };
            assert_eq!(same, *wanted, "{origin}");
        }
        let all = read_all(&target, "orders", Isolation::ReadCommitted).len();
        assert_eq!(all, self.copied.len() + self.new + self.stranded.len());
    }

    fn later_ones_are_undecided(&mut self) {
        let config = self.twinlog.config_file().to_owned();
        let (source, target) = (self.source.bootstrap(), self.target.bootstrap());
        // Nobody fences the old primary, and somebody writes there again.
        self.twinlog.kill9();
        unfence(&source);
        Load::new("orders", 9).first(30_000).produce(&source);
        let list = listed(&config);
        assert_eq!(list["totals"]["undecided_records"], 9, "{list:#}");
        assert_eq!(
            list["totals"]["records"],
            self.stranded.len() + 9,
            "{list:#}"
        );
        assert_eq!(undecided(&config).len(), 3);

        let before = end_sum(&target);
        let shown = orphans(&config, &["--dismiss", "--json"]);
        assert_eq!(answer(&shown, 0)["applied"], false);
        assert_eq!(listed(&config)["totals"]["undecided_records"], 9);
        let dismissed = answer(&orphans(&config, &["--dismiss", "--yes", "--json"]), 0);
        let decision = &dismissed["decided"][0]["decision"];
        assert_eq!(decision["decision"], "dismiss", "{dismissed:#}");
        assert_eq!(decision["records"], 9, "{dismissed:#}");
        assert!(decision["operator"]["pid"].is_number(), "{dismissed:#}");
        assert_eq!(undecided(&config), []);

        Load::new("orders", 6).first(31_000).produce(&source);
        assert_eq!(
            undecided(&config).len(),
            3,
            "a decision covers what was there"
        );
        let kept = orphans(&config, &["--keep", "--topic", "orders", "--yes"]);
        assert_eq!(kept.status.code(), Some(0), "{}", words(&kept));
        assert!(
            words(&kept).contains("orders: 6 records kept"),
            "{}",
            words(&kept)
        );
        let list = listed(&config);
        assert_eq!(list["totals"]["undecided_records"], 0, "{list:#}");
        let words: Vec<&Value> = list["topics"][0]["partitions"][0]["decided"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|it| &it["decision"])
            .collect();
        assert_eq!(words.last().expect("one"), &"kept", "{list:#}");
        assert!(words.contains(&&Value::from("dismissed")), "{list:#}");

        // Markers and aborted data are no records: nobody has to decide about them.
        let aborted = Transactions {
            abort_percent: 100,
            ..Transactions::new(Load::new("orders", 6).first(40_000), 1)
        };
        aborted.produce(&source);
        assert_eq!(undecided(&config), []);
        assert_eq!(end_sum(&target), before, "deciding appends nothing");
    }
}

/// How many batches Kafka's own reader of log segments finds, all of them valid.
fn dumped(segment: &Path) -> usize {
    let output = Command::new("java")
        .args([
            "-Xmx256m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-cp",
        ])
        .arg(format!("{}/*", KafkaVersion::V4_3.libs().display()))
        .arg("org.apache.kafka.tools.DumpLogSegments")
        .arg("--files")
        .arg(segment)
        .output()
        .expect("java is installed");
    let text = words(&output);
    assert!(output.status.success(), "{text}");
    assert!(!text.contains("isvalid: false"), "{text}");
    text.matches("isvalid: true").count()
}

/// What was replayed, by the header that says so, without it.
pub(crate) fn replayed(target: &str) -> Vec<(String, Seen)> {
    let mut found = Vec::new();
    for mut record in read_all(target, "orders", Isolation::ReadCommitted) {
        if record
            .headers
            .last()
            .is_some_and(|(key, _)| key == "twinlog.orphan")
        {
            let (_, origin) = record.headers.pop().expect("it was there");
            let origin = String::from_utf8(origin.expect("a value")).expect("text");
            found.push((origin, record));
        }
    }
    found
}

fn sum_of(list: &Value, pointer: &str) -> u64 {
    let topics = list["topics"].as_array().expect("a list");
    let partitions = topics
        .iter()
        .filter_map(|it| it["partitions"].as_array())
        .flatten();
    partitions
        .filter_map(|it| it.pointer(pointer)?.as_u64())
        .sum()
}

/// Takes away every ACL of the topic.
pub(crate) fn unfence(bootstrap: &str) {
    for acl in crate::support::acls::list(bootstrap) {
        crate::support::acls::remove(bootstrap, &acl);
    }
    eventually(
        DEADLINE,
        "the old primary takes writes",
        || match crate::support::acls::list(bootstrap).len() {
            0 => Ok(()),
            left => Err(left),
        },
    );
}

fn from_json(line: &str) -> Seen {
    let value: Value = serde_json::from_str(line).expect("a line of JSON");
    let bytes = |value: &Value, name: &str| match (&value[name], &value[&*format!("{name}_base64")])
    {
        (Value::String(text), Value::Null) => Some(text.clone().into_bytes()),
        (Value::Null, Value::String(text)) => Some(from_base64(text)),
        (Value::Null, Value::Null) => None,
        both => panic!("{both:?}"),
    };
    let headers = value["headers"].as_array().expect("a list");
    Seen {
        partition: value["partition"].as_i64().expect("a number") as i32,
        offset: value["offset"].as_i64().expect("a number"),
        key: bytes(&value, "key"),
        value: bytes(&value, "value"),
        headers: headers
            .iter()
            .map(|header| {
                let key = bytes(header, "key").expect("a header has a key");
                (
                    String::from_utf8(key).expect("text"),
                    bytes(header, "value"),
                )
            })
            .collect(),
        timestamp_ms: value["timestamp"].as_i64(),
        log_append_time: value["timestamp_type"] == "append",
    }
}

fn from_base64(text: &str) -> Vec<u8> {
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut held, mut bits) = (Vec::new(), 0_u32, 0);
    for letter in text.bytes().filter(|it| *it != b'=') {
        let six = letters.iter().position(|it| *it == letter).expect("base64");
        held = held << 6 | six as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
        }
    }
    bytes
}

fn from_raw(raw: &[u8], index: &str, range: std::ops::Range<i64>, partition: i32) -> Vec<Seen> {
    let entries: Vec<BatchEntry> = index
        .lines()
        .map(|line| serde_json::from_str(line).expect("as documented"))
        .collect();
    let batches: Vec<batch::RawBatch> = batch::split(bytes::Bytes::copy_from_slice(raw))
        .collect::<Result<_, _>>()
        .expect("whole batches");
    assert_eq!(batches.len(), entries.len());
    assert!(
        entries.iter().any(|it| it.is_control),
        "markers are there too"
    );
    let (mut at, mut found) = (0, Vec::new());
    for (raw, entry) in batches.iter().zip(&entries) {
        batch::verify_crc(raw).expect("as the broker had it");
        assert_eq!((entry.position, entry.bytes), (at, raw.bytes.len() as u64));
        assert_eq!(entry.base_offset, raw.header.base_offset);
        assert_eq!(entry.crc, raw.header.crc);
        at += entry.bytes;
        if entry.is_control || entry.is_aborted {
            continue;
        }
        let records = batch::open(raw, 1 << 24).expect("readable");
        let within = records.into_iter().filter(|it| range.contains(&it.offset));
        found.extend(within.map(|record| {
            Seen {
                partition,
                offset: record.offset,
                headers: record
                    .header_list()
                    .expect("readable")
                    .into_iter()
                    .map(|(key, value)| {
                        let key = String::from_utf8(key.to_vec()).expect("text");
                        (key, value.map(|it| it.to_vec()))
                    })
                    .collect(),
                key: record.key.map(|it| it.to_vec()),
                value: record.value.map(|it| it.to_vec()),
                timestamp_ms: Some(record.timestamp),
                log_append_time: raw.header.is_log_append_time(),
            }
        }));
    }
    found
}

pub(crate) fn replaying(config: &Path, batch: &str) -> Child {
    command(config, &["--replay", "--yes", "--batch", batch])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the built binary runs")
}
