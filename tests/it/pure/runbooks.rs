//! How a page of `docs/runbooks` is read, and what it shows compared.

use crate::support::runbook::{Item, Typed, compare, parse};

#[test]
fn a_page_is_read_as_it_is_meant() {
    let page = "text\n<!-- stage: rain -->\n```console\n$ one --two\nseen …\n[exit 3]\n$ three\n```\n\
                ```sh\nexport A=1\n```\n";
    let typed = |command: &str, seen: &[&str], exit, line| {
        Item::Typed(Typed {
            command: command.to_owned(),
            seen: seen.iter().map(|it| (*it).to_owned()).collect(),
            exit,
            line,
        })
    };
    assert_eq!(
        parse(page),
        [
            Item::Stage("rain".to_owned()),
            typed("one --two", &["seen …"], 3, 4),
            typed("three", &[], 0, 7),
        ]
    );
}

#[test]
fn what_is_seen_must_be_what_the_page_shows() {
    let shown = |lines: &[&str]| -> Vec<String> { lines.iter().map(|it| (*it).into()).collect() };
    let output = "lost: 0 records\n\ntook:   2.71 s\nprimary: standby\n";
    let good: [&[&str]; 4] = [
        &["lost: 0 records", "took: … s", "primary: standby"],
        &["…", "primary: standby"],
        &["lost: 0 records", "…"],
        &["lost: 0 …", "…", "primary: …by"],
    ];
    for lines in good {
        assert_eq!(compare(&shown(lines), output), Ok(()), "{lines:?}");
    }
    let bad: [&[&str]; 6] = [
        &["lost: 1 records", "…"],
        &["…", "took: … s"],
        &["lost: 0 records", "primary: standby"],
        &["primary: standby", "…", "lost: 0 records"],
        &["…", "primary: standby", "more"],
        &["lost: 0", "…"],
    ];
    for lines in bad {
        assert!(compare(&shown(lines), output).is_err(), "{lines:?}");
    }
}
