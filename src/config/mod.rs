//! The config file: as written -> resolved, with every problem at once.
//!
//! The YAML is read into a tree that knows lines (`tree`), values from the environment are laid
//! over it (`overrides`), and each section takes its fields out of it through a `reader` that notes
//! what is wrong and goes on. What comes out is complete: no field is optional because it was not
//! written, and nobody below needs to know a default. `configs/reference.yaml` spells all of them.

mod cluster;
mod flow;
mod http;
mod internal;
mod metadata;
mod overlap;
mod overrides;
mod problem;
mod reader;
mod refused;
mod rename;
mod reversed;
mod secret;
mod secure;
mod security;
mod selector;
mod tree;
mod values;
mod verify;

use std::collections::BTreeMap;
use std::path::Path;

pub use cluster::ClusterSection;
pub use flow::{
    FailoverRules, FlowConfig, GroupRules, Limits, OffsetsMode, OnDiverged, OnForeignWrite, OnGap,
    OnMissedDeletes, OnRecreate, Start,
};
pub use http::{HttpConfig, HttpTls};
pub use internal::{
    DRILL_PREFIX, OWN_PREFIX, is_internal_namespace, is_internal_to_flow, is_internal_topic,
    may_be_internal,
};
pub use metadata::{AclRules, ConfigRules, MetadataRules, OnDelete};
pub use problem::{Problem, Problems};
pub use rename::Rename;
pub use reversed::back_name;
pub use secret::{Properties, Secret};
pub use security::{
    IdentitySection, Note, OidcSection, PasswordMechanism, Pem, SaslSection, SecuritySection,
    TlsCheck, TlsSection,
};
pub use selector::Selector;
pub use verify::VerifyRules;

pub(crate) use values::size as parse_size;

use reader::{Reader, Table};
use tree::{Node, Place};

/// A config in which everything is right and resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The clusters by name, at least two.
    pub clusters: BTreeMap<String, ClusterSection>,
    /// The flows by name, at least one.
    pub flows: BTreeMap<String, FlowConfig>,
    /// The HTTP server.
    pub http: HttpConfig,
}

/// The clusters and the flow that are meant when no flow is written.
const DEFAULT_SOURCE: &str = "primary";
const DEFAULT_TARGET: &str = "standby";
const DEFAULT_FLOW: &str = "dr";

/// Reads a config file; see [`parse`].
///
/// # Errors
/// Every problem, or the one that the file cannot be read.
pub fn load(path: &Path) -> Result<Config, Problems> {
    let file = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&text, &file),
        Err(error) => Err(Problems(vec![Problem {
            file,
            line: None,
            column: None,
            path: String::new(),
            message: format!("cannot read the config: {error}"),
        }])),
    }
}

/// Reads the text of a config with the process environment; `file_name` is for the problems.
///
/// # Errors
/// Every problem.
pub fn parse(text: &str, file_name: &str) -> Result<Config, Problems> {
    // Names and values that are not UTF-8 cannot be meant here.
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    parse_with_environment(text, file_name, &environment)
}

/// [`parse`] with the variables for `${NAME}` and `TWINLOG__SECTION__KEY` given.
///
/// # Errors
/// Every problem.
pub fn parse_with_environment(
    text: &str,
    file_name: &str,
    environment: &BTreeMap<String, String>,
) -> Result<Config, Problems> {
    let mut reader = Reader::new(file_name, environment);
    let config = match tree::read(text) {
        Ok(mut tree) => {
            overrides::apply(&mut reader, &mut tree, environment);
            Some(resolve(&mut reader, &tree))
        }
        Err((place, message)) => {
            reader.problem(&place, "", message);
            None
        }
    };
    let mut problems = reader.problems;
    // The order of the file, what has no line last.
    problems.sort_by_key(|problem| (problem.line.is_none(), problem.line, problem.column));
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(Problems(problems)),
    }
}

fn resolve(reader: &mut Reader, tree: &Node) -> Config {
    let root = reader.table_of(Some(tree), &tree.place, "", &["clusters", "flows", "http"]);
    let (clusters, names) = clusters(reader, &root);
    let flows = flows(reader, &root, &names);
    let http = reader.inner(&root, "http", &http::KEYS);
    let http = http::read(reader, &http);
    Config {
        clusters,
        flows,
        http,
    }
}

/// The clusters, and their names as written: a flow may name one that has problems of its own.
fn clusters<'n>(
    reader: &mut Reader,
    root: &Table<'n>,
) -> (BTreeMap<String, ClusterSection>, Vec<&'n str>) {
    let table = reader.table(root.get("clusters"), &root.place, "clusters");
    let names: Vec<&str> = table.fields().map(|(name, _, _)| name).collect();
    if names.len() < 2 {
        let example = "`clusters: { primary: { bootstrap.servers: \"...\" }, standby: { bootstrap.servers: \"...\" } }`";
        let message = format!("a source and a target are needed; for example {example}");
        reader.problem(&table.place, "clusters", message);
    }
    let mut clusters = BTreeMap::new();
    for (name, place, node) in table.fields() {
        let path = table.path_of(name);
        if let Err(message) = values::check_name(name) {
            reader.problem(place, &path, message);
        }
        let section = cluster::table(reader, node, place, &path);
        clusters.insert(name.to_owned(), cluster::read(reader, name, &section));
    }
    (clusters, names)
}

fn flows(reader: &mut Reader, root: &Table, clusters: &[&str]) -> BTreeMap<String, FlowConfig> {
    let table = reader.table(root.get("flows"), &root.place, "flows");
    let mut flows = BTreeMap::new();
    if root.get("flows").is_none() {
        let mut sorted = clusters.to_vec();
        sorted.sort_unstable();
        if sorted == [DEFAULT_SOURCE, DEFAULT_TARGET] {
            let pair = Some((DEFAULT_SOURCE, DEFAULT_TARGET));
            let flow = flow::read(reader, DEFAULT_FLOW, &table, clusters, pair);
            flows.insert(DEFAULT_FLOW.to_owned(), flow);
            return flows;
        }
    }
    if table.fields().next().is_none() {
        let message = "no flow is given; for example `flows: { dr: { source: primary, target: standby } }` (clusters named so need none)";
        reader.problem(&table.place, "flows", message);
    }
    let mut places: Vec<(&str, &Place)> = Vec::new();
    for (name, place, node) in table.fields() {
        let path = table.path_of(name);
        if let Err(message) = values::check_name(name) {
            reader.problem(place, &path, message);
        }
        let section = reader.table_of(Some(node), place, &path, &flow::KEYS);
        let flow = flow::read(reader, name, &section, clusters, None);
        flows.insert(name.to_owned(), flow);
        places.push((name, place));
    }
    for (index, (right, place)) in places.iter().enumerate() {
        for (left, _) in &places[..index] {
            collide(reader, &flows[*left], &flows[*right], place);
        }
    }
    let ends = |flow: &FlowConfig| (flow.name.clone(), flow.source.clone(), flow.target.clone());
    let all: Vec<_> = flows.values().map(ends).collect();
    for flow in flows.values_mut() {
        let others = all.iter();
        let opposite =
            others.filter(|(_, source, target)| *source == flow.target && *target == flow.source);
        flow.opposite = opposite.map(|(name, ..)| name.clone()).collect();
    }
    flows
}

fn collide(reader: &mut Reader, left: &FlowConfig, right: &FlowConfig, place: &Place) {
    if left.source.is_empty() || left.target.is_empty() || right.target.is_empty() {
        // Reported already: what they name does not exist.
        return;
    }
    let path = format!("flows.{}", right.name);
    if let Some(name) = overlap::written_by_both(left, right) {
        let message = format!(
            "flow `{}` writes the same topics to `{}`, such as `{name}`; give them different topics or a rename such as `{{source}}.{{topic}}`",
            left.name, right.target
        );
        reader.problem(place, &path, message);
    }
    let back = overlap::carried_back(left, right).map(|name| (left, right, name));
    let back = back.or_else(|| overlap::carried_back(right, left).map(|name| (right, left, name)));
    if let Some((first, second, name)) = back {
        let message = format!(
            "topics would go in a circle: `{}` writes `{name}` to `{}` and `{}` takes it back; exclude it there",
            first.name, first.target, second.name
        );
        reader.problem(place, &path, message);
    }
}
