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

    /// What the taken names begin with, where the patterns say just that: every name that begins so
    /// is taken, and no other. `None` where they say more, or it isn't plain that they don't.
    pub fn namespaces(&self) -> Option<Vec<String>> {
        let whole = |pattern: &String| {
            let (head, rest) = literal_head(pattern)?;
            (rest == ".*").then_some(head)
        };
        let namespaces: Vec<String> = self
            .include_written
            .iter()
            .map(whole)
            .collect::<Option<_>>()?;
        let is_elsewhere = |pattern: &String| {
            literal_head(pattern).is_some_and(|(head, _)| {
                let meets = |it: &String| it.starts_with(&head) || head.starts_with(&**it);
                !namespaces.iter().any(meets)
            })
        };
        let is_whole = self.exclude_written.iter().all(is_elsewhere);
        is_whole.then_some(namespaces)
    }

    /// As [`Self::namespaces`], but none where everything is taken: `.*` is the default, and says that all that one
    /// cluster has is taken, not that all that the other one has belongs to it.
    pub fn own_namespaces(&self) -> Vec<String> {
        let namespaces = self.namespaces().unwrap_or_default();
        let are_all = namespaces.iter().any(String::is_empty);
        if are_all { Vec::new() } else { namespaces }
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

/// What every name that a pattern matches begins with, and the rest of the pattern. `None` where that
/// isn't plain.
fn literal_head(pattern: &str) -> Option<(String, &str)> {
    if pattern.contains('|') {
        return None;
    }
    let mut head = String::new();
    let mut rest = pattern;
    loop {
        let mut chars = rest.chars();
        let literal = match chars.next() {
            Some('\\') => chars.next().filter(char::is_ascii_punctuation),
            found => found.filter(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')),
        };
        let after = chars.as_str();
        // One that may be missing, or come twice, is no part of every name.
        let literal = literal.filter(|_| !after.starts_with(['*', '+', '?', '{']));
        let Some(literal) = literal else {
            return Some((head, rest));
        };
        head.push(literal);
        rest = after;
    }
}

/// The last line of the regex crate's drawing, which is the reason.
fn reason(error: &regex::Error) -> String {
    let text = error.to_string();
    let line = text.lines().last().unwrap_or_default();
    let line = line.trim().trim_start_matches("error: ");
    if line.starts_with("look-around") {
        format!("{line}; write what is wanted in `include` and what is not in `exclude`")
    } else if line.starts_with("repetition operator missing") {
        format!("{line}; any name is `.*`, what begins with shop is `shop.*`")
    } else {
        line.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_what_surely_all_and_only_the_taken_names_begin_with() {
        let of = |include: &[&str], exclude: &[&str]| {
            let selector = Selector::new(include, exclude).expect("patterns");
            selector.namespaces().map(|found| found.join(" "))
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(of(&["shop.*"], &[]), some("shop"));
        assert_eq!(of(&[r"shop\..*", "pay-.*"], &[]), some("shop. pay-"));
        assert_eq!(of(&["shop-.*"], &["console-consumer-.*"]), some("shop-"));
        assert_eq!(of(&[".*"], &[]), some(""));
        for (include, exclude) in [
            (&["shop..*"], &[][..]),
            (&["shop"], &[]),
            (&["shops?.*"], &[]),
            (&["shop{2}.*"], &[]),
            (&["shop|pay.*"], &[]),
            (&["(?i)shop.*"], &[]),
            (&[r"shop\d.*"], &[]),
            (&["shop.*"], &["shop-tmp"]),
            (&["shop.*"], &["sh?.*"]),
            (&["shop.*"], &[".*-tmp"]),
            (&["shop.*"], &["x|shop.*"]),
            (&[".*"], &["console-consumer-.*"]),
        ] {
            assert_eq!(of(include, exclude), None, "{include:?} {exclude:?}");
        }
    }
}
