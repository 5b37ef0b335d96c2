//! Single values set from the environment: `TWINLOG__HTTP__LISTEN=off` is `http.listen: off`.
//!
//! A variable's name has no case, dots or hyphens: a part of it finds the key that is the same
//! without them, in the file first and then among the known ones (`BOOTSTRAP_SERVERS`).

use config::Source as _;

use super::reader::{Environment, Reader};
use super::tree::{Entry, Kind, Node, Place};

const PREFIX: &str = "TWINLOG";
const SEPARATOR: &str = "__";

/// Puts the overrides into the tree, where they are checked like written values.
pub(super) fn apply(reader: &mut Reader, tree: &mut Node, environment: &Environment) {
    let variables = environment
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let collected = config::Environment::with_prefix(PREFIX)
        .prefix_separator(SEPARATOR)
        .separator(SEPARATOR)
        .source(Some(variables))
        .collect();
    let overrides = match collected {
        Ok(overrides) => overrides,
        Err(error) => {
            reader.problem(&Place::default(), "", error.to_string());
            return;
        }
    };
    let mut overrides: Vec<(String, String)> = overrides
        .into_iter()
        .filter_map(|(key, value)| Some((key, value.into_string().ok()?)))
        .collect();
    overrides.sort();
    for (key, value) in overrides {
        let variable = format!(
            "{PREFIX}{SEPARATOR}{}",
            key.to_uppercase().replace('.', SEPARATOR)
        );
        let place = Place {
            variable: Some(variable),
            ..Place::default()
        };
        let parts: Vec<&str> = key.split('.').collect();
        if !set(tree, &parts, &value, &place) {
            let message = "is not a single value; only those can be set from the environment";
            reader.problem(&place, &key, message);
        }
    }
}

/// Returns whether the place can hold a single value.
fn set(node: &mut Node, parts: &[&str], value: &str, place: &Place) -> bool {
    let [part, rest @ ..] = parts else {
        if !matches!(node.kind, Kind::Null | Kind::Text(_)) {
            return false;
        }
        *node = Node {
            place: place.clone(),
            kind: Kind::Text(value.to_owned()),
        };
        return true;
    };
    if matches!(node.kind, Kind::Null) {
        node.kind = Kind::Table(Vec::new());
    }
    let Kind::Table(entries) = &mut node.kind else {
        return false;
    };
    if let Some(entry) = entries
        .iter_mut()
        .find(|entry| plain(&entry.key) == plain(part))
    {
        return set(&mut entry.value, rest, value, place);
    }
    let mut new = Node {
        place: place.clone(),
        kind: Kind::Null,
    };
    let done = set(&mut new, rest, value, place);
    let known = super::cluster::KEYS
        .iter()
        .find(|key| plain(key) == plain(part));
    entries.push(Entry {
        key: known.map_or_else(|| (*part).to_owned(), |key| (*key).to_owned()),
        place: place.clone(),
        value: new,
    });
    done
}

fn plain(key: &str) -> String {
    key.to_lowercase().replace(['.', '-'], "_")
}
