//! The pages: that links lead somewhere, that what they name is there, and that somebody finds them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use regex::Regex;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of ours, as it is now: whoever only writes pages compiles nothing anew.
fn text(name: &str) -> String {
    let path = root().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Every page, by its path from the root.
fn pages() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join("docs")];
    let top = std::fs::read_dir(root()).expect("our own folder");
    let mut files: Vec<PathBuf> = top.map(|entry| entry.expect("an entry").path()).collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("our own folder") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => folders.push(path),
                false => files.push(path),
            }
        }
    }
    files.retain(|path| path.extension().is_some_and(|it| it == "md"));
    files.sort();
    for path in files {
        let text = std::fs::read_to_string(&path).expect("a page is text");
        let name = path.strip_prefix(root()).expect("ours").to_owned();
        found.push((name, text));
    }
    assert!(found.len() > 30, "only {} pages", found.len());
    found
}

/// A page without its blocks of code, in which a `#` is a comment and brackets are no links.
fn prose(page: &str) -> String {
    let mut in_block = false;
    let mut lines = Vec::new();
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            lines.push(line);
        }
    }
    lines.join("\n")
}

/// The anchors of a page's headings, as forges make them.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for line in prose(page).lines() {
        let heading = line.trim_start_matches('#');
        if heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        let kept = heading.trim().to_lowercase();
        let kept = kept.chars().filter_map(|it| match it {
            ' ' => Some('-'),
            it if it.is_alphanumeric() || "-_".contains(it) => Some(it),
            _ => None,
        });
        let anchor: String = kept.collect();
        let mut next = anchor.clone();
        let mut number = 0;
        while !anchors.insert(next) {
            number += 1;
            next = format!("{anchor}-{number}");
        }
    }
    anchors
}

/// The links of a page that lead to files of ours: file and anchor.
fn links(page: &str) -> Vec<(String, Option<String>)> {
    let link = Regex::new(r"\]\(([^)\s]+)\)").expect("a pattern");
    let prose = prose(page);
    let all = link.captures_iter(&prose).map(|it| it[1].to_owned());
    let ours = all.filter(|it| !it.contains("://") && !it.starts_with("mailto:"));
    ours.map(|it| match it.split_once('#') {
        Some((file, anchor)) => (file.to_owned(), Some(anchor.to_owned())),
        None => (it, None),
    })
    .collect()
}

#[test]
fn anchors_are_made_as_forges_make_them() {
    let page = "# What `it` is: one, two!\n## A\n```sh\n# a comment\n```\n## A\n#no heading\n";
    let expected = ["what-it-is-one-two", "a", "a-1"].map(str::to_owned);
    assert_eq!(anchors(page), BTreeSet::from(expected));
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    let mut count = 0;
    for (page, text) in pages() {
        let folder = root().join(&page);
        let folder = folder.parent().expect("a page is in a folder");
        for (file, anchor) in links(&text) {
            count += 1;
            let path = match file.as_str() {
                "" => root().join(&page),
                file => folder.join(file),
            };
            let Some(anchor) = anchor else {
                if !path.exists() {
                    broken.push(format!("{}: {file}", page.display()));
                }
                continue;
            };
            let target = std::fs::read_to_string(&path).unwrap_or_default();
            if !anchors(&target).contains(&anchor) {
                broken.push(format!("{}: {file}#{anchor}", page.display()));
            }
        }
    }
    assert!(count > 150, "only {count} links");
    assert!(broken.is_empty(), "{broken:#?}");
}

/// Whoever moves a file moves its name on the pages, too. A name is from the root or from `src`.
#[test]
fn every_source_file_that_is_named_is_there() {
    let name = Regex::new(r"`([a-z][\w./-]*/[\w./-]*)`").expect("a pattern");
    let mut broken = Vec::new();
    let mut count = 0;
    for (page, text) in pages() {
        for found in name.captures_iter(&prose(&text)) {
            let named = &found[1];
            let is_source = named.ends_with(".rs");
            let is_folder = ["src/", "tests/", "configs/", "scripts/", "flow/", "groups/"]
                .iter()
                .any(|it| named.starts_with(it));
            if !is_source && !is_folder {
                continue;
            }
            count += 1;
            let places = [root().join(named), root().join("src").join(named)];
            if !places.iter().any(|it| it.exists()) {
                broken.push(format!("{}: {named}", page.display()));
            }
        }
    }
    assert!(count > 150, "only {count} files are named");
    assert!(broken.is_empty(), "{broken:#?}");
}

/// The rooms of the map, from top to bottom.
fn rooms() -> Vec<String> {
    let page = text("docs/ARCHITECTURE.md");
    let (_, section) = page.split_once("## Map of rooms").expect("a section");
    let (section, _) = section.split_once("\n## ").expect("there are more");
    let room = Regex::new(r"(?m)^\| `src/(\w+)` \|").expect("a pattern");
    let rooms = room.captures_iter(section).map(|it| it[1].to_owned());
    rooms.collect()
}

/// What only tests see of a room.
const FOR_TESTS: &str = "fuzz";

/// The map of rooms has every room and no other.
#[test]
fn the_map_has_every_room() {
    let there: BTreeSet<String> = std::fs::read_dir(root().join("src"))
        .expect("our own folder")
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name != FOR_TESTS)
        .collect();
    let mapped: BTreeSet<String> = rooms().into_iter().collect();
    assert_eq!(mapped, there, "the map of rooms against src");
}

/// The source files in a folder, without those that only tests see.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("our own folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().expect("a name").to_string_lossy();
        if ["tests", FOR_TESTS].contains(&name.as_ref()) {
            continue;
        }
        match path.is_dir() {
            true => sources(&path, found),
            false => found.push(path),
        }
    }
}

/// Upward arrows that are known, and why is on the page.
const UPWARD: [(&str, &str); 1] = [("flow", "cutover")];

#[test]
fn a_room_uses_only_rooms_below_it() {
    let rooms = rooms();
    let used = Regex::new(r"\bcrate::(?:\{([^}]*)\}|(\w+))").expect("a pattern");
    let word = Regex::new(r"\w+").expect("a pattern");
    let mut upward = Vec::new();
    let mut count = 0;
    for (place, room) in rooms.iter().enumerate() {
        let mut files = Vec::new();
        sources(&root().join("src").join(room), &mut files);
        for file in files {
            let text = std::fs::read_to_string(&file).expect("source is text");
            let (text, _) = text
                .split_once("#[cfg(test)]\nmod tests")
                .unwrap_or((&text, ""));
            let code = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            let code: Vec<&str> = code.collect();
            for found in used.captures_iter(&code.join("\n")) {
                let names = found.get(1).or(found.get(2)).expect("one of both");
                for name in word.find_iter(names.as_str()).map(|it| it.as_str()) {
                    let Some(other) = rooms.iter().position(|it| it == name) else {
                        continue;
                    };
                    count += 1;
                    let is_known = UPWARD.contains(&(room.as_str(), name));
                    if other < place && !is_known {
                        upward.push(format!("{} uses {name}", file.display()));
                    }
                }
            }
        }
    }
    assert!(count > 500, "only {count} uses were found");
    assert!(upward.is_empty(), "{upward:#?}");
}

/// About two hundred words a minute, tables looked over.
#[test]
fn the_architecture_is_read_in_ten_minutes() {
    let page = text("docs/ARCHITECTURE.md");
    let words = page.split_whitespace().count();
    assert!(words < 2_200, "{words} words: move details to internals");
}

/// Who looks for a page begins at one list.
#[test]
fn every_page_is_listed() {
    let listed_in = |list: &str| -> BTreeSet<PathBuf> {
        let path = root().join(list);
        let text = std::fs::read_to_string(&path).expect("a list");
        let folder = path.parent().expect("in a folder");
        let files = links(&text)
            .into_iter()
            .filter_map(|(file, _)| folder.join(file).canonicalize().ok());
        files.collect()
    };
    let mut listed = listed_in("docs/README.md");
    listed.extend(listed_in("docs/decisions/README.md"));
    let unlisted: Vec<_> = pages()
        .into_iter()
        .map(|(page, _)| page)
        .filter(|page| page.starts_with("docs") && page != Path::new("docs/README.md"))
        .filter(|page| !listed.contains(&root().join(page).canonicalize().expect("it is there")))
        .collect();
    assert!(
        unlisted.is_empty(),
        "not in docs/README.md, nor among the decisions: {unlisted:?}"
    );
}

#[test]
fn decisions_are_short_and_of_one_shape() {
    let mut numbers = Vec::new();
    for (page, text) in pages() {
        let name = page.file_name().expect("a file").to_string_lossy();
        if !page.starts_with("docs/decisions") || name == "README.md" {
            continue;
        }
        let headings: Vec<&str> = text.lines().filter(|it| it.starts_with("## ")).collect();
        let expected = ["## Context", "## Decision", "## Consequence"];
        assert_eq!(headings, expected, "{name}");
        let lines = text.lines().count();
        assert!((8..=25).contains(&lines), "{name}: {lines} lines");
        let number: usize = name[..4].parse().expect("a number of four digits");
        assert!(text.starts_with(&format!("# {number:04}: ")), "{name}");
        numbers.push(number);
    }
    let all: Vec<usize> = (1..=numbers.len()).collect();
    assert_eq!(numbers, all, "numbers without gaps");
}

/// What stands between backquotes on a page.
fn spans(page: &str) -> BTreeSet<String> {
    let span = Regex::new(r"`([^`\n]+)`").expect("a pattern");
    span.captures_iter(page)
        .map(|it| it[1].to_owned())
        .collect()
}

/// The kinds of keys in the code are the rows of the page.
#[test]
fn the_state_format_has_every_key() {
    let keys = text("src/state/keys.rs");
    let kind = Regex::new(r#""([a-z][a-z-]*)/(?:[^"]*)""#).expect("a pattern");
    let in_code: BTreeSet<String> = kind
        .captures_iter(&keys)
        .map(|it| it[1].to_owned())
        .collect();
    assert!(in_code.len() > 25, "{in_code:?}");
    let page = text("docs/STATE_FORMAT.md");
    let row = Regex::new(r"(?m)^\| `([a-z-]+)/<flow>").expect("a pattern");
    let on_page: BTreeSet<String> = row
        .captures_iter(&page)
        .map(|it| it[1].to_owned())
        .collect();
    assert_eq!(on_page, in_code, "docs/STATE_FORMAT.md against keys.rs");
}

/// Every field of every record is on the page, and every record is named.
#[test]
fn the_state_format_has_every_field() {
    let page = spans(&text("docs/STATE_FORMAT.md"));
    let records = Regex::new(r"(?ms)^pub struct (\w+) \{\n(.*?)^\}").expect("a pattern");
    let field = Regex::new(r"(?m)^    pub (\w+): ").expect("a pattern");
    let mut missing = Vec::new();
    let mut count = 0;
    for source in [
        text("src/state/records.rs"),
        text("src/state/cutover.rs"),
        text("src/state/drill.rs"),
        text("src/state/orphans.rs"),
    ] {
        for record in records.captures_iter(&source) {
            let name = &record[1];
            if !page.contains(name) {
                missing.push(name.to_owned());
            }
            for field in field.captures_iter(&record[2]) {
                count += 1;
                if &field[1] != "v" && !page.contains(&field[1]) {
                    missing.push(format!("{name}.{}", &field[1]));
                }
            }
        }
    }
    assert!(count > 150, "only {count} fields");
    assert!(missing.is_empty(), "docs/STATE_FORMAT.md: {missing:#?}");
}
