//! Which topics or groups a flow takes.

use regex::RegexSet;

/// Whole-name regular expressions: a name is taken if any `include` matches all of it and no
/// `exclude` does. Compiled once; the time of a match is linear in the name's length.
#[derive(Clone, Debug)]
pub struct Selector {
    include: RegexSet,
    exclude: RegexSet,
    include_written: Vec<String>,
    exclude_written: Vec<String>,
}

impl Selector {
    /// Compiles the patterns.
    ///
    /// # Errors
    /// The reason why a pattern is none, in one line.
    pub fn new<S: AsRef<str>>(include: &[S], exclude: &[S]) -> Result<Self, String> {
        let written = |patterns: &[S]| patterns.iter().map(|p| p.as_ref().to_owned()).collect();
        Ok(Self {
            include: compile(include)?,
            exclude: compile(exclude)?,
            include_written: written(include),
            exclude_written: written(exclude),
        })
    }

    /// Whether the name is taken.
    pub fn matches(&self, name: &str) -> bool {
        self.include.is_match(name) && !self.exclude.is_match(name)
    }

    /// Whether every name is surely taken: also one that nobody has thought of yet.
    pub fn takes_all(&self) -> bool {
        self.exclude_written.is_empty() && self.include_written.iter().any(|p| p == ".*")
    }

    /// The include patterns as they were written.
    pub fn include(&self) -> &[String] {
        &self.include_written
    }

    /// The exclude patterns as they were written.
    pub fn exclude(&self) -> &[String] {
        &self.exclude_written
    }
}

impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        self.include_written == other.include_written
            && self.exclude_written == other.exclude_written
    }
}

impl Eq for Selector {}

fn compile<S: AsRef<str>>(patterns: &[S]) -> Result<RegexSet, String> {
    for pattern in patterns {
        // Alone first: `a)|(b` would become valid between the anchors' parentheses.
        check(pattern.as_ref())?;
    }
    let anchored = patterns.iter().map(|pattern| anchored(pattern.as_ref()));
    RegexSet::new(anchored).map_err(|error| reason(&error))
}

/// Whether a pattern alone is valid.
pub(super) fn check(pattern: &str) -> Result<(), String> {
    regex::Regex::new(pattern)
        .and_then(|_| regex::Regex::new(&anchored(pattern)))
        .map(|_| ())
        .map_err(|error| {
            format!(
                "`{pattern}` is not a regular expression: {}",
                reason(&error)
            )
        })
}

fn anchored(pattern: &str) -> String {
    format!(r"\A(?:{pattern})\z")
}

/// The last line of the regex crate's drawing, which is the reason.
fn reason(error: &regex::Error) -> String {
    let text = error.to_string();
    let line = text.lines().last().unwrap_or_default();
    let line = line.trim().trim_start_matches("error: ");
    if line.starts_with("look-around") {
        format!("{line}; write what is wanted in `include` and what is not in `exclude`")
    } else {
        line.to_owned()
    }
}
