//! What of a cluster's metadata follows: topic configs, ACLs, quotas, deletions.

use std::collections::BTreeMap;
use std::time::Duration;

use super::reader::{Reader, Table};
use super::tree::Kind;
use super::{Selector, flow, values};

/// What follows besides records and groups, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataRules {
    /// `metadata_interval`: how often both clusters are compared. Default 3 s.
    pub interval: Duration,
    /// `configs`: topic configs.
    pub configs: ConfigRules,
    /// `acls`.
    pub acls: AclRules,
    /// `quotas.enabled`: whether the quotas of users and client ids follow. Default true.
    pub quotas: bool,
    /// `on_delete`: what to do about the copy of a deleted topic. Default keep.
    pub on_delete: OnDelete,
}

/// How topic configs follow. For each key the first of `fixed`, `follow` and `ignore` that names it
/// decides, then the defaults (`metadata::configs::policy`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigRules {
    /// `configs.enabled`. Default true.
    pub enabled: bool,
    /// Keys that follow although the defaults leave them alone.
    pub follow: Selector,
    /// Keys that are left alone.
    pub ignore: Selector,
    /// Keys that have one value on the target, whatever the source has.
    pub fixed: BTreeMap<String, String>,
    /// Other rules for topics that were there before the copy: on the way back, where the target is
    /// an old primary, they keep their own.
    pub of_what_was_there: Option<Box<Self>>,
}

/// How ACLs follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclRules {
    /// `acls.enabled`. Default true.
    pub enabled: bool,
    /// `acls.principal`: whom the target's brokers take Twinlog for, such as `User:CN=twinlog`;
    /// `None` (`auto`) takes it from `sasl.username`. What would shut Twinlog itself out is held.
    pub principal: Option<String>,
}

/// What to do about the copy of a topic that was deleted on the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDelete {
    /// Keep it.
    Keep,
    /// Delete it, if this flow made it, after it has been gone on the source for this long.
    Delete {
        /// `on_delete.grace`. Default 24 h.
        grace: Duration,
    },
}

pub(super) const CONFIGS_KEYS: [&str; 4] = ["enabled", "follow", "ignore", "fixed"];
pub(super) const ACLS_KEYS: [&str; 2] = ["enabled", "principal"];
pub(super) const QUOTAS_KEYS: [&str; 1] = ["enabled"];
pub(super) const ON_DELETE_KEYS: [&str; 2] = ["mode", "grace"];

const INTERVAL: Duration = Duration::from_secs(3);
const INTERVAL_MIN: Duration = Duration::from_millis(100);
const GRACE: Duration = Duration::from_secs(24 * 3600);

pub(super) fn read(reader: &mut Reader, table: &Table) -> MetadataRules {
    let interval = reader
        .value(table, "metadata_interval", |text| {
            let interval = values::duration(text)?;
            if interval < INTERVAL_MIN {
                return Err(format!("`{text}` is too short; at least `100ms`"));
            }
            Ok(interval)
        })
        .unwrap_or(INTERVAL);
    let quotas = reader.inner(table, "quotas", &QUOTAS_KEYS);
    MetadataRules {
        interval,
        configs: configs(reader, table),
        acls: acls(reader, table),
        quotas: enabled(reader, &quotas),
        on_delete: on_delete(reader, table),
    }
}

fn enabled(reader: &mut Reader, table: &Table) -> bool {
    let choices = [("true", true), ("false", false)];
    reader
        .value(table, "enabled", |text| values::choice(text, &choices))
        .unwrap_or(true)
}

fn configs(reader: &mut Reader, table: &Table) -> ConfigRules {
    let inner = reader.inner(table, "configs", &CONFIGS_KEYS);
    let mut keys = |key: &str| {
        let patterns = flow::patterns(reader, &inner, key, &[]);
        Selector::new::<String>(&patterns, &[]).unwrap_or_else(|message| {
            reader.problem(&inner.place, &inner.path_of(key), message);
            Selector::new::<&str>(&[], &[]).expect("no pattern is no error")
        })
    };
    let (follow, ignore) = (keys("follow"), keys("ignore"));
    ConfigRules {
        enabled: enabled(reader, &inner),
        follow,
        ignore,
        fixed: fixed(reader, &inner),
        of_what_was_there: None,
    }
}

fn fixed(reader: &mut Reader, table: &Table) -> BTreeMap<String, String> {
    let place = table
        .fields()
        .find(|(key, _, _)| *key == "fixed")
        .map_or(&table.place, |(_, place, _)| place);
    let inner = reader.table(table.get("fixed"), place, &table.path_of("fixed"));
    let mut fixed = BTreeMap::new();
    for (key, _, node) in inner.fields() {
        if let Some(value) = reader.text(node, &inner.path_of(key)) {
            fixed.insert(key.to_owned(), value);
        }
    }
    fixed
}

fn acls(reader: &mut Reader, table: &Table) -> AclRules {
    let inner = reader.inner(table, "acls", &ACLS_KEYS);
    let principal = reader.value(&inner, "principal", |text| match text.split_once(':') {
        _ if text == "auto" => Ok(None),
        Some((kind, name)) if !kind.is_empty() && !name.is_empty() => Ok(Some(text.to_owned())),
        _ => Err(format!(
            "`{text}` is not a principal; write `User:NAME` as brokers do, or `auto`"
        )),
    });
    AclRules {
        enabled: enabled(reader, &inner),
        principal: principal.flatten(),
    }
}

fn on_delete(reader: &mut Reader, table: &Table) -> OnDelete {
    let choices = [("keep", false), ("delete", true)];
    let mode = |text: &str| values::choice(text, &choices);
    let (delete, grace) = match table.get("on_delete").map(|node| &node.kind) {
        // `on_delete: keep` is short for `on_delete: { mode: keep }`.
        Some(Kind::Text(_)) => (reader.value(table, "on_delete", mode), None),
        _ => {
            let inner = reader.inner(table, "on_delete", &ON_DELETE_KEYS);
            (
                reader.value(&inner, "mode", mode),
                reader.value(&inner, "grace", values::duration),
            )
        }
    };
    match delete {
        Some(true) => OnDelete::Delete {
            grace: grace.unwrap_or(GRACE),
        },
        _ => OnDelete::Keep,
    }
}
