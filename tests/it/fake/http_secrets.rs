//! Neither a secret nor anything of a record is served or logged, however much is logged.

use std::path::Path;
use std::time::Duration;

use crate::support::groups::commit;
use crate::support::ports::Port;
use crate::support::process::Process;
use crate::support::{Twinlog, create_topic, eventually, fake_pair, http, scratch};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer};

const DEADLINE: Duration = Duration::from_secs(60);
const TOKEN: &str = "changing-c0ffee-0123456789";
const READ_TOKEN: &str = "reading-c0ffee-0123456789";
const WRONG_TOKEN: &str = "wrong-c0ffee-0123456789";
/// A record's parts. Long, so that nothing else looks like them.
const RECORD: [&str; 4] = [
    "the-key-d5a1f7c0",
    "the-value-93bb0e12",
    "the-header-name-77ad01",
    "the-header-value-1c90fe",
];

#[test]
fn secrets_and_records_are_in_no_answer_and_no_log() {
    let (source, target) = fake_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "secrets", 1, &[]);
    produce(&source);
    commit(&source, "secrets-group", &[("secrets", 0, 1)]);

    let folder = scratch::folder("secrets");
    let port = Port::reserve();
    let config = folder.join("twinlog.yaml");
    std::fs::write(folder.join("token"), format!("{TOKEN}\n")).expect("writes");
    std::fs::write(folder.join("read_token"), format!("{READ_TOKEN}\n")).expect("writes");
    let flow = Twinlog::config(&source, &target, "topics: { include: [secrets] }");
    let text = format!(
        "{flow}http:\n  listen: \"{}\"\n  token: \"file:{}\"\n  read_token: \"file:{}\"\n",
        port.address(),
        folder.join("token").display(),
        folder.join("read_token").display(),
    );
    std::fs::write(&config, text).expect("writes");
    let log_file = folder.join("log");
    let mut process = Process::start(
        Path::new(env!("CARGO_BIN_EXE_twinlog")),
        [
            "run".as_ref(),
            "--log-level".as_ref(),
            "trace".as_ref(),
            "-c".as_ref(),
            config.as_os_str(),
        ],
        &log_file,
    );
    let call = |call: &str, token: &str| {
        let header = format!("Bearer {token}");
        http::call(&port.address(), call, &[("Authorization", &header)])
    };
    let status = eventually(DEADLINE, "the record and the group are copied", || {
        let status = call("GET /api/v1/status", READ_TOKEN).map_err(|error| error.to_string())?;
        let groups = call("GET /api/v1/groups", TOKEN).map_err(|error| error.to_string())?;
        let copied = status.body.contains("\"records\":1,");
        let followed = groups.body.contains("\"followed\"");
        if copied && followed {
            Ok(status.body)
        } else {
            Err(format!("{}\n{}", status.body, groups.body))
        }
    });
    assert!(status.contains("secrets"), "this isn't the flow: {status}");

    let mut seen = String::new();
    for token in [TOKEN, READ_TOKEN, WRONG_TOKEN] {
        for path in [
            "GET /",
            "GET /metrics",
            "GET /healthz",
            "GET /readyz",
            "GET /api/v1/status",
            "GET /api/v1/groups",
            "GET /api/v1/groups/secrets-group",
            "GET /nothing",
            "POST /api/v1/flows/dr/look",
            "POST /api/v1/flows/other/look",
        ] {
            let answer = call(path, token).expect("answers");
            seen.push_str(&answer.head);
            seen.push_str(&answer.body);
        }
    }
    process.terminate(DEADLINE).expect("ends");
    let log = std::fs::read_to_string(&log_file).expect("a log");
    assert!(log.contains(" INFO "), "this is no log to judge:\n{log}");
    assert!(
        log.contains("was asked for by 127.0.0.1"),
        "a changing call isn't logged"
    );
    seen.push_str(&log);
    for secret in [TOKEN, READ_TOKEN, WRONG_TOKEN].iter().chain(&RECORD) {
        if let Some(at) = seen.find(secret) {
            let from = seen.floor_char_boundary(at.saturating_sub(300));
            panic!("{secret} is shown: {}", &seen[from..at + secret.len()]);
        }
    }
    scratch::remove(&folder);
}

fn produce(bootstrap: &str) {
    let [key, value, name, header] = RECORD;
    let producer: rdkafka::producer::BaseProducer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create()
        .expect("a producer");
    let headers = OwnedHeaders::new().insert(Header {
        key: name,
        value: Some(header),
    });
    let record = BaseRecord::to("secrets")
        .key(key)
        .payload(value)
        .headers(headers);
    producer
        .send(record)
        .map_err(|(error, _)| error)
        .expect("taken");
    producer.flush(DEADLINE).expect("written");
}
