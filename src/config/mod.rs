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
    OnMissedDeletes, OnRecreate, RATE_HINT, Start,
};
pub use http::{HttpConfig, HttpTls};
pub use internal::{
    DRILL_PREFIX, OWN_PREFIX, is_internal_namespace, is_internal_to_flow, is_internal_topic,
    may_be_internal,
};
pub use metadata::{AclRules, ConfigRules, MetadataRules, OnDelete};
pub use problem::{Problem, Problems};
pub use rename::Rename;
pub use reversed::{back_name, forth_name};
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

impl Config {
    /// The flow that a command is about: the one that is named, or the only one.
    ///
    /// # Errors
    /// In words: which flows there are.
    pub fn flow(&self, name: Option<&str>) -> Result<&FlowConfig, String> {
        let names: Vec<&str> = self.flows.keys().map(String::as_str).collect();
        match name {
            Some(name) => {
                let name = values::reference(name, "flow", &names)?;
                Ok(&self.flows[&name])
            }
            None => match self.flows.values().next() {
                Some(only) if names.len() == 1 => Ok(only),
                _ => Err(format!(
                    "the config has {} flows: name one with --flow ({})",
                    names.len(),
                    reader::listed(&names, "or")
                )),
            },
        }
    }
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
    let (config, _) = load_for(path, Needs::EVERYTHING)?;
    Ok(config)
}

/// Whose secrets a command needs: a vault may be gone together with its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs<'a> {
    /// Of which clusters.
    pub of: NeededOf,
    /// Of this flow alone, where one is named.
    pub flow: Option<&'a str>,
}

/// See [`Needs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeededOf {
    /// All of them.
    Everything,
    /// The flows' targets.
    Targets,
    /// The flows' sources.
    Sources,
    /// None: another process is asked.
    NoCluster,
}

impl Needs<'_> {
    /// All that there is.
    const EVERYTHING: Self = Self {
        of: NeededOf::Everything,
        flow: None,
    };

    /// Whether a cluster can't be done without.
    fn is_needed(&self, cluster: &str, config: &Config) -> bool {
        let is_of = |flow: &FlowConfig| {
            let (source, target) = (flow.source == cluster, flow.target == cluster);
            match self.of {
                NeededOf::Everything => source || target,
                NeededOf::Targets => target,
                NeededOf::Sources => source,
                NeededOf::NoCluster => false,
            }
        };
        match self.flow {
            None if self.of == NeededOf::Everything => true,
            None => config.flows.values().any(is_of),
            Some(name) => config.flows.get(name).is_some_and(is_of),
        }
    }
}

/// As [`load`], but secrets of clusters that aren't needed may be missing: they come back as what is to be told.
///
/// # Errors
/// Every other problem, or the one that the file cannot be read.
pub fn load_for(path: &Path, needs: Needs<'_>) -> Result<(Config, Vec<Problem>), Problems> {
    let file = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => parse_for(&text, &file, &process_environment(), needs),
        Err(error) => Err(Problems(vec![Problem {
            file,
            line: None,
            column: None,
            path: String::new(),
            message: unreadable(path, &error),
        }])),
    }
}

/// Why a config can't be read, and what to look at.
fn unreadable(path: &Path, error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    let why = match error.kind() {
        ErrorKind::NotFound => match std::env::current_dir() {
            Ok(folder) if path.is_relative() => {
                format!("there is no such file in {}", folder.display())
            }
            _ => "there is no such file".to_owned(),
        },
        ErrorKind::PermissionDenied => {
            "the user that runs this command has no right to read it".to_owned()
        }
        ErrorKind::IsADirectory => "it is a folder; name the file in it".to_owned(),
        ErrorKind::InvalidData => "it isn't a text file (UTF-8)".to_owned(),
        _ => error.to_string(),
    };
    format!("can't read the config: {why}")
}

fn process_environment() -> BTreeMap<String, String> {
    // Names and values that are not UTF-8 cannot be meant here.
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Reads the text of a config with the process environment; `file_name` is for the problems.
///
/// # Errors
/// Every problem.
pub fn parse(text: &str, file_name: &str) -> Result<Config, Problems> {
    parse_with_environment(text, file_name, &process_environment())
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
    let (config, _) = parse_for(text, file_name, environment, Needs::EVERYTHING)?;
    Ok(config)
}

fn parse_for(
    text: &str,
    file_name: &str,
    environment: &BTreeMap<String, String>,
    needs: Needs<'_>,
) -> Result<(Config, Vec<Problem>), Problems> {
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
    let missing = reader.missing_secrets.into_iter();
    let (told, needed): (Vec<Problem>, Vec<Problem>) = missing.partition(|problem| {
        let config = config.as_ref();
        config.is_some_and(|config| is_dispensable(problem, config, needs))
    });
    problems.extend(needed);
    // The order of the file, what has no line last.
    problems.sort_by_key(|problem| (problem.line.is_none(), problem.line, problem.column));
    match config {
        Some(config) if problems.is_empty() => Ok((config, told)),
        _ => Err(Problems(problems)),
    }
}

/// Whether a missing secret is one of a cluster that isn't needed.
fn is_dispensable(problem: &Problem, config: &Config, needs: Needs<'_>) -> bool {
    // Names may have dots: the cluster is told by what its keys begin with.
    let is_of = |cluster: &&String| {
        let keys = problem.path.strip_prefix("clusters.");
        keys.is_some_and(|keys| keys.starts_with(&format!("{cluster}.")))
    };
    let clusters: Vec<&String> = config.clusters.keys().filter(is_of).collect();
    let mut of = clusters.iter();
    !clusters.is_empty() && !of.any(|cluster| needs.is_needed(cluster, config))
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
    let before = reader.problems.len();
    let table = reader.table(root.get("clusters"), &root.place, "clusters");
    let names: Vec<&str> = table.fields().map(|(name, _, _)| name).collect();
    // One that is there twice was meant to be two.
    let is_said = names.len() == 1 && reader.problems.len() > before;
    let is_said = is_said || !table.has_shape || !root.has_shape;
    if names.len() < 2 && !is_said {
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
    // Without two clusters there is no flow to write: that they are missing has been said.
    if table.fields().next().is_none() && table.has_shape && clusters.len() > 1 {
        let example = format!(
            "{{ dr: {{ source: {}, target: {} }} }}",
            clusters[0], clusters[1]
        );
        let message = format!(
            "no flow is given; write `flows: {example}`. It may be left out only where the two clusters are called \
             `{DEFAULT_SOURCE}` and `{DEFAULT_TARGET}`"
        );
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A key that the reference leaves out has its default all the same, so nothing else would tell.
    #[test]
    fn the_reference_spells_every_key_that_is_read() {
        let text = include_str!("../../configs/reference.yaml");
        let known: [&[&str]; 14] = [
            &["clusters", "flows", "http"],
            &cluster::KEYS,
            &flow::KEYS,
            &flow::SELECTOR_KEYS,
            &flow::GROUPS_KEYS,
            &flow::OFFSETS_KEYS,
            &flow::LIMITS_KEYS,
            &flow::FAILOVER_KEYS,
            &metadata::CONFIGS_KEYS,
            &metadata::ACLS_KEYS,
            &metadata::ON_DELETE_KEYS,
            &verify::KEYS,
            &http::KEYS,
            &http::TLS_KEYS,
        ];
        // The same key by librdkafka's other spelling.
        let other = "sasl.mechanisms";
        for key in known.into_iter().flatten().filter(|key| **key != other) {
            // What has no default is there as a comment.
            let written =
                regex::Regex::new(&format!(r"(?m)(?:^|[#{{,])[ #]*{}:", regex::escape(key)));
            assert!(
                written.expect("a pattern").is_match(text),
                "{key} isn't in configs/reference.yaml"
            );
        }
        assert!(text.contains(other));
    }
}
