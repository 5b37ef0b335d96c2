//! The file as written: a tree in which every key and value knows its place.
//!
//! Deserializing straight into structs would stop at the first error. A tree with places lets the
//! reader report all of them in one pass.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Location, NonFiniteFloatPolicy, Spanned};

/// Where a key or value stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    pub line: Option<u32>,
    pub column: Option<u32>,
    /// The environment variable that gave the value, instead of a place in the file.
    pub variable: Option<String>,
}

impl Place {
    pub(super) fn of(location: Location) -> Self {
        // Line 0 is the parser's way to say that it does not know.
        let known = |number: u64| u32::try_from(number).ok().filter(|number| *number > 0);
        Self {
            line: known(location.line()),
            column: known(location.column()),
            variable: None,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub place: Place,
    pub kind: Kind,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Null,
    /// Any single value, as text: what it means is the field's business.
    Text(String),
    /// A single value that the parser took for a number or a boolean. Only while a file is read: it
    /// becomes [`Kind::Text`] as it was written, since `1.10`, `1e5` and `0x1F` may be passwords.
    Taken(String),
    List(Vec<Node>),
    /// In order and with repeated keys, which are then reported as problems.
    Table(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub key: String,
    pub place: Place,
    pub value: Node,
}

/// Reads YAML. Fails only if the text is not YAML at all.
pub(super) fn read(text: &str) -> Result<Node, (Place, String)> {
    let options = serde_saphyr::options! {
        // Repeated keys arrive twice and are reported with both lines.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        // `off` is a word of ours, not a boolean.
        strict_booleans: true,
        // Numbers that would lose their spelling stay as they were written.
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        // What is too large for a number may be a password.
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        with_snippet: false,
    };
    let as_written = |spanned| {
        let mut root = node(spanned);
        respell(&mut root, &text.lines().collect::<Vec<_>>());
        root
    };
    serde_saphyr::from_str_with_options::<Spanned<Kind>>(text, options)
        .map(as_written)
        .map_err(|error| {
            let place = error.location().map(Place::of).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            explained(&place, &lines, one_line(&error.to_string()))
        })
}

/// So many lines before the one where the parser notices something it may be.
const NEAR: usize = 4;

/// What the parser stumbles over, in the words of who wrote it, and where that stands: it notices a tab, or a
/// line that is indented too far, when it is past it.
fn explained(place: &Place, lines: &[&str], message: String) -> (Place, String) {
    let at = place.line.and_then(|line| usize::try_from(line).ok());
    // It may stop at the end of the line before.
    let seen = at.map_or(lines.len(), |at| at + 1).min(lines.len());
    let seen = &lines[..seen];
    let indent = |line: &&str| line.len() - line.trim_start().len();
    let with_tab = seen
        .iter()
        .rposition(|line| line[..indent(line)].contains('\t'));
    let is_near = |index: &usize| index + NEAR >= seen.len();
    if let Some(index) = with_tab.filter(is_near) {
        let column = lines[index].chars().position(|letter| letter == '\t');
        let message = "not valid YAML: a tab; indent with spaces".to_owned();
        return (place_at(index, column.unwrap_or(0)), message);
    }
    if message.contains("mapping values are not allowed") {
        let is_key = |line: &&&str| line.contains(':') && !line.trim_start().starts_with('#');
        let is_deeper = |index: &usize| {
            let before = lines[..*index].iter().rfind(is_key);
            let has_value = |line: &&&str| !line.trim_end().ends_with(':');
            let before = before.filter(has_value);
            let is_key = is_key(&&lines[*index]);
            is_key && before.is_some_and(|before| indent(&lines[*index]) > indent(before))
        };
        let near = seen.len().saturating_sub(NEAR)..seen.len();
        if let Some(index) = near.into_iter().find(is_deeper) {
            let message = "not valid YAML: this line is indented deeper than the one before, which has a \
                           value already; or a value with `: ` in it isn't quoted";
            return (place_at(index, indent(&lines[index])), message.to_owned());
        }
    }
    // Keys of one table that don't begin in one column.
    if message.contains("did not find expected key") && at.is_some() {
        let message =
            "not valid YAML: this line is indented otherwise than the ones that it belongs to"
                .to_owned();
        return (place.clone(), message);
    }
    (place.clone(), message)
}

/// A place in the file, counted from 0.
fn place_at(line: usize, column: usize) -> Place {
    let from_1 = |number: usize| u32::try_from(number + 1).ok();
    Place {
        line: from_1(line),
        column: from_1(column),
        variable: None,
    }
}

/// Gives what was taken for a number or a boolean its own spelling back.
fn respell(node: &mut Node, lines: &[&str]) {
    match &mut node.kind {
        Kind::Null | Kind::Text(_) => {}
        Kind::Taken(text) => {
            let spelled = spelled_at(&node.place, lines);
            node.kind = Kind::Text(spelled.unwrap_or_else(|| std::mem::take(text)));
        }
        Kind::List(items) => items.iter_mut().for_each(|item| respell(item, lines)),
        Kind::Table(entries) => {
            let values = entries.iter_mut().map(|entry| &mut entry.value);
            values.for_each(|value| respell(value, lines));
        }
    }
}

/// The word that stands there. `None` where something else does: a tag, an anchor, an alias.
fn spelled_at(place: &Place, lines: &[&str]) -> Option<String> {
    let at = |number: Option<u32>| usize::try_from(number?).ok()?.checked_sub(1);
    let line = lines.get(at(place.line)?)?;
    // No number and no boolean has another letter in it.
    let is_part = |c: &char| c.is_ascii_alphanumeric() || "+-._".contains(*c);
    let word: String = line
        .chars()
        .skip(at(place.column)?)
        .take_while(is_part)
        .collect();
    (!word.is_empty()).then_some(word)
}

/// The parser's message without its own "at line, column", which the problem says already.
fn one_line(message: &str) -> String {
    let text = message.lines().next().unwrap_or_default();
    let text = match text.rfind(" at line ") {
        Some(end) => &text[..end],
        None => text,
    };
    format!("not valid YAML: {text}")
}

fn node(spanned: Spanned<Kind>) -> Node {
    Node {
        place: Place::of(spanned.referenced),
        kind: spanned.value,
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KindVisitor)
    }
}

struct KindVisitor;

impl<'de> Visitor<'de> for KindVisitor {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a value, a list or a table")
    }

    fn visit_unit<E>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_none<E>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Kind, D::Error> {
        Kind::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Kind, E> {
        Ok(Kind::Taken(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Kind, E> {
        Ok(Kind::Taken(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Kind, E> {
        Ok(Kind::Taken(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Kind, E> {
        Ok(Kind::Taken(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Kind, E> {
        Ok(Kind::Taken(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Kind, E> {
        Ok(Kind::Taken(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Kind, E> {
        Ok(Kind::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Kind, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Spanned<Kind>>()? {
            list.push(node(item));
        }
        Ok(Kind::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Kind, A::Error> {
        let mut table = Vec::new();
        while let Some(key) = entries.next_key::<Spanned<String>>()? {
            let value = node(entries.next_value::<Spanned<Kind>>()?);
            let place = Place::of(key.referenced);
            let key = key.value;
            table.push(Entry { key, place, value });
        }
        Ok(Kind::Table(table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(node: &Node, found: &mut Vec<String>) {
        match &node.kind {
            Kind::Null => found.push("null".to_owned()),
            Kind::Text(text) => found.push(text.clone()),
            Kind::Taken(text) => found.push(format!("taken {text}")),
            Kind::List(items) => items.iter().for_each(|item| texts(item, found)),
            Kind::Table(entries) => entries.iter().for_each(|entry| texts(&entry.value, found)),
        }
    }

    #[test]
    fn a_value_is_what_was_written() {
        let values = [
            "1.10",
            "0x1F",
            "1e5",
            "0o17",
            "+5",
            ".5",
            "5.",
            "1.0",
            "True",
            "true",
            "-0",
            "007",
            "1_000",
            "123456789012345678901234567890",
            "3",
            "-1.50",
            "1E+2",
            "0123",
            "1e400",
            ".inf",
            "-.Inf",
            ".nan",
            "yes",
            "No",
            "off",
            "12:30:45",
            "2001-02-03",
            "0b11",
            "1.2.3",
            "0xFFFFFFFFFFFFFFFFFFFF",
        ];
        for value in values {
            for text in [
                format!("a: {value}\n"),
                format!("a: {value} # no comment\n"),
                format!("ä: {{ ü: {value} }}\n"),
                format!("a:\n  - {value}\n"),
                format!("a: [{value}]\n"),
                format!("a:   {value}\r\n"),
                format!("a:\n  {value}\n"),
            ] {
                let root = read(&text).expect("YAML");
                let mut found = Vec::new();
                texts(&root, &mut found);
                assert_eq!(found, [value], "{text}");
            }
        }
    }

    #[test]
    fn what_is_quoted_or_referred_to_stays() {
        let root = read("a: '1.10'\nb: &x 1.5\nc: *x\nd: \"0x1F\"\n").expect("YAML");
        let mut found = Vec::new();
        texts(&root, &mut found);
        assert_eq!(found, ["1.10", "1.5", "1.5", "0x1F"]);
    }
}
