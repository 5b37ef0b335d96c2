//! Takes fields out of the tree and notes every problem on the way, instead of stopping.

use std::collections::BTreeMap;

use super::problem::Problem;
use super::tree::{Kind, Node, Place};

/// The environment: for `${NAME}` in values and for overrides.
pub(super) type Environment = BTreeMap<String, String>;

pub(super) struct Reader<'e> {
    file: String,
    environment: &'e Environment,
    pub problems: Vec<Problem>,
    /// What of clusters' sections can't be had: problems, unless nobody needs that cluster.
    pub missing_secrets: Vec<Problem>,
    /// The first of the problems that is a value which the environment doesn't have.
    unexpanded: Option<usize>,
}

/// One table of the file with its path. A key given twice is there with its first value.
pub(super) struct Table<'n> {
    pub path: String,
    /// Where the table's own key stands: where a missing field is reported.
    pub place: Place,
    /// Whether it was written as a table, or not at all. Of one that was written otherwise nothing is missing: that it
    /// isn't a table has been said.
    pub has_shape: bool,
    fields: Vec<(&'n str, &'n Place, &'n Node)>,
}

impl<'n> Table<'n> {
    pub(super) fn get(&self, key: &str) -> Option<&'n Node> {
        let found = self.fields.iter().find(|(name, _, _)| *name == key);
        found.map(|(_, _, node)| *node)
    }

    /// Key, place of the key, value; for tables whose keys are names that the user chose.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&'n str, &'n Place, &'n Node)> {
        self.fields.iter().copied()
    }

    pub(super) fn path_of(&self, key: &str) -> String {
        join(&self.path, key)
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

impl<'e> Reader<'e> {
    pub(super) fn new(file: &str, environment: &'e Environment) -> Self {
        Self {
            file: file.to_owned(),
            environment,
            problems: Vec::new(),
            missing_secrets: Vec::new(),
            unexpanded: None,
        }
    }

    pub(super) fn problem(&mut self, place: &Place, path: &str, message: impl Into<String>) {
        let mut message = message.into();
        if let Some(variable) = &place.variable {
            message.push_str(&format!(" (set by {variable})"));
        }
        self.problems.push(Problem {
            file: self.file.clone(),
            line: place.line,
            column: place.column,
            path: path.to_owned(),
            message,
        });
    }

    /// The node as a table. What is not a table is reported and read as an empty one; nothing at
    /// all (`http:`) is an empty one.
    pub(super) fn table<'n>(
        &mut self,
        node: Option<&'n Node>,
        place: &Place,
        path: &str,
    ) -> Table<'n> {
        self.table_with(node, place, path, &[])
    }

    /// The same; where it is something else, the keys that it may have are said.
    fn table_with<'n>(
        &mut self,
        node: Option<&'n Node>,
        place: &Place,
        path: &str,
        known: &[&str],
    ) -> Table<'n> {
        let mut fields: Vec<(&str, &Place, &Node)> = Vec::new();
        let mut has_shape = true;
        match node.map(|node| (&node.kind, node)) {
            None | Some((Kind::Null, _)) => {}
            Some((Kind::Table(entries), _)) => {
                for entry in entries {
                    let first = fields.iter().find(|(name, _, _)| *name == entry.key);
                    if let Some((_, first, _)) = first {
                        let line = first.line.unwrap_or_default();
                        let message = format!("given twice; the first is on line {line}");
                        self.problem(&entry.place, &join(path, &entry.key), message);
                        continue;
                    }
                    fields.push((&entry.key, &entry.place, &entry.value));
                }
            }
            Some((kind, node)) => {
                has_shape = false;
                let keys = match known {
                    [] => String::new(),
                    known => format!("; its keys are {}", listed(known, "and")),
                };
                let found = name(kind);
                let message = format!("expected a table of `key: value`, found {found}{keys}");
                self.problem(&node.place, path, message);
            }
        }
        Table {
            path: path.to_owned(),
            place: place.clone(),
            has_shape,
            fields,
        }
    }

    /// [`table`](Self::table) whose keys are ours: every other one is reported.
    pub(super) fn table_of<'n>(
        &mut self,
        node: Option<&'n Node>,
        place: &Place,
        path: &str,
        known: &[&str],
    ) -> Table<'n> {
        let table = self.table_with(node, place, path, known);
        self.unknown_keys(&table, known, |_| false);
        table
    }

    /// Reports every key of the table that isn't known, except those that are reported otherwise.
    pub(super) fn unknown_keys(
        &mut self,
        table: &Table<'_>,
        known: &[&str],
        except: impl Fn(&str) -> bool,
    ) {
        for (key, place, _) in table.fields() {
            if !known.contains(&key) && !except(key) {
                let hint = match nearest(key, known) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("known are {}", listed(known, "and")),
                };
                self.problem(place, &table.path_of(key), format!("unknown key; {hint}"));
            }
        }
    }

    /// A table inside a table.
    pub(super) fn inner<'n>(&mut self, table: &Table<'n>, key: &str, known: &[&str]) -> Table<'n> {
        let place = table
            .fields
            .iter()
            .find(|(name, _, _)| *name == key)
            .map_or(&table.place, |(_, place, _)| *place);
        self.table_of(table.get(key), place, &table.path_of(key), known)
    }

    /// A single value with `${NAME}` replaced; anything else is reported.
    pub(super) fn text(&mut self, node: &Node, path: &str) -> Option<String> {
        let message = match &node.kind {
            Kind::Text(text) | Kind::Taken(text) => match self.expand(text) {
                Ok(text) => return Some(text),
                Err(message) => {
                    self.unexpanded.get_or_insert(self.problems.len());
                    message
                }
            },
            Kind::Null => {
                "no value given; remove the key to get its default, or quote what is meant"
                    .to_owned()
            }
            kind => format!("expected a single value, found {}", name(kind)),
        };
        self.problem(&node.place, path, message);
        None
    }

    /// A field, if it is there and right. What is wrong is reported.
    pub(super) fn value<T>(
        &mut self,
        table: &Table<'_>,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let node = table.get(key)?;
        let path = table.path_of(key);
        let text = self.text(node, &path)?;
        parse(&text)
            .map_err(|message| self.problem(&node.place, &path, message))
            .ok()
    }

    /// [`value`](Self::value) of a field that must be there.
    pub(super) fn required<T>(
        &mut self,
        table: &Table<'_>,
        key: &str,
        example: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        if table.get(key).is_none() && table.has_shape {
            let message = format!("missing; for example `{key}: {example}`");
            self.problem(&table.place, &table.path_of(key), message);
        }
        self.value(table, key, parse)
    }

    /// Reads a section whose owner may be gone, and with it whoever told its values. Where one of them can't be had, what
    /// is wrong with the section's values is no problem but what is missing of it: a key without its certificate is none
    /// of its own. The second is the first value that can't be had, and why.
    pub(super) fn of_one_who_may_be_gone<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> T,
    ) -> (T, Option<String>) {
        let before = self.problems.len();
        self.unexpanded = None;
        let section = read(self);
        let Some(first) = self.unexpanded.take() else {
            return (section, None);
        };
        let lacks = self.problems.get(first);
        let lacks = lacks.map(|it| format!("{}: {}", it.path, it.message));
        let missing = self.problems.split_off(before);
        self.missing_secrets.extend(missing);
        (section, lacks)
    }

    /// `${NAME}` is the environment variable; `$${` is a `${` that stays as it is.
    fn expand(&self, text: &str) -> Result<String, String> {
        let mut expanded = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            if let Some(before) = rest[..at].strip_suffix('$') {
                expanded.push_str(before);
                expanded.push_str("${");
                rest = &rest[at + 2..];
                continue;
            }
            expanded.push_str(&rest[..at]);
            let (variable, after) = rest[at + 2..].split_once('}').ok_or(
                "`${` without a closing `}`; write `${NAME}`, or `$${` for the characters themselves",
            )?;
            let value = self
                .environment
                .get(variable)
                .ok_or_else(|| format!("environment variable `{variable}` is not set"))?;
            expanded.push_str(value);
            rest = after;
        }
        expanded.push_str(rest);
        Ok(expanded)
    }
}

fn name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Null => "nothing",
        Kind::Text(_) | Kind::Taken(_) => "a single value",
        Kind::List(_) => "a list",
        Kind::Table(_) => "a table",
    }
}

/// `a, b or c`.
pub(super) fn listed(words: &[&str], last: &str) -> String {
    match words {
        [] => String::new(),
        [only] => format!("`{only}`"),
        [head @ .., tail] => {
            let head: Vec<String> = head.iter().map(|word| format!("`{word}`")).collect();
            format!("{} {last} `{tail}`", head.join(", "))
        }
    }
}

/// The known word that `word` was probably meant to be: within a third of its letters, or the only one that begins with it.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let plain = |word: &str| word.to_lowercase().replace(['-', '_', '.'], "");
    let word = plain(word);
    let alike = known
        .iter()
        .map(|known| (distance(&word, &plain(known)), *known))
        .filter(|(distance, known)| *distance <= known.len().div_ceil(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known);
    alike.or_else(|| {
        // Or the only one that begins so: `bootstrap`.
        let is_begun = |known: &&&str| word.len() >= BEGUN_MIN && plain(known).starts_with(&word);
        let mut begun = known.iter().filter(is_begun);
        let only = begun.next().copied();
        only.filter(|_| begun.next().is_none())
    })
}

/// Fewer letters begin anything.
const BEGUN_MIN: usize = 3;

/// Levenshtein's: how many letters to insert, delete or change.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, letter) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in right.iter().enumerate() {
            let change = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}
