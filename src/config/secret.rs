//! Values that must not be printed: passwords, keys, tokens.

use std::collections::BTreeMap;
use std::fmt;

use secrecy::{ExposeSecret, SecretString};

/// What a secret begins with when it is in a file of its own.
const FILE: &str = "file:";

/// A secret value. It has no `Display` and no `Serialize`, its `Debug` hides it, and its memory is
/// overwritten when it is dropped.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// The secret itself: only for whoever uses it, never for a message.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// The same in the type of the `secrecy` crate.
    pub fn to_secret_string(&self) -> SecretString {
        self.0.clone()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.expose().is_empty()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Compares every byte, wherever the first difference is.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        let (left, right) = (self.expose().as_bytes(), other.expose().as_bytes());
        let pairs = left.iter().zip(right);
        let different = pairs.fold(0, |different, (left, right)| different | (left ^ right));
        left.len() == right.len() && different == 0
    }
}

impl Eq for Secret {}

/// Reads a secret as written: `file:PATH` is what is in that file, anything else (usually `${NAME}`,
/// already replaced) is the secret itself.
///
/// # Errors
/// When the file can't be read, or nothing is in it. The message never has the secret in it.
pub(super) fn secret(text: &str) -> Result<Secret, String> {
    match path_of(text) {
        Some(path) => read(path),
        None if text.is_empty() => Err("is empty; write `${NAME}` or `file:PATH`".to_owned()),
        None => Ok(Secret::from(text.to_owned())),
    }
}

/// Where a secret is that isn't in the config itself.
pub(super) fn path_of(text: &str) -> Option<&str> {
    text.strip_prefix(FILE)
}

/// A secret out of a file: its text without the last line end.
///
/// # Errors
/// As [`secret`].
pub(super) fn read(path: &str) -> Result<Secret, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("cannot read `{path}`: {error}"))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    match text.strip_suffix('\r').unwrap_or(text) {
        "" => Err(format!("`{path}` is empty")),
        text => Ok(Secret::from(text.to_owned())),
    }
}

/// Properties for an rdkafka client, some of them secret. `Debug` shows the others only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties(BTreeMap<String, Value>);

#[derive(Clone, PartialEq, Eq)]
enum Value {
    Plain(String),
    Secret(Secret),
}

impl Properties {
    pub(super) fn set(&mut self, key: &str, value: impl Into<String>) {
        self.0.insert(key.to_owned(), Value::Plain(value.into()));
    }

    pub(super) fn set_secret(&mut self, key: &str, value: Secret) {
        self.0.insert(key.to_owned(), Value::Secret(value));
    }

    /// A value that isn't secret.
    pub fn get(&self, key: &str) -> Option<&str> {
        match self.0.get(key)? {
            Value::Plain(value) => Some(value),
            Value::Secret(_) => None,
        }
    }

    /// Every key with its value, secrets too: only for the configuration of a client.
    pub fn expose(&self) -> impl Iterator<Item = (String, String)> {
        self.0.iter().map(|(key, value)| {
            let value = match value {
                Value::Plain(value) => value,
                Value::Secret(secret) => secret.expose(),
            };
            (key.clone(), value.to_owned())
        })
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (key, value) in &self.0 {
            match value {
                Value::Plain(value) => map.entry(key, value),
                Value::Secret(secret) => map.entry(key, secret),
            };
        }
        map.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_nothing_and_compares_whole() {
        let secret = Secret::from("pa55".to_owned());
        assert_eq!(format!("{secret:?}"), "[redacted]");
        assert_eq!(secret, Secret::from("pa55".to_owned()));
        for other in ["", "pa5", "pa55word", "pa56", "qa55"] {
            assert_ne!(secret, Secret::from(other.to_owned()), "{other}");
        }
    }

    #[test]
    fn properties_show_what_is_not_secret() {
        let mut properties = Properties::default();
        properties.set("sasl.username", "bob");
        properties.set_secret("sasl.password", Secret::from("pa55".to_owned()));
        let shown = format!("{properties:?}");
        assert_eq!(
            shown,
            r#"{"sasl.password": [redacted], "sasl.username": "bob"}"#
        );
        assert_eq!(properties.get("sasl.username"), Some("bob"));
        assert_eq!(properties.get("sasl.password"), None);
        let exposed: Vec<_> = properties.expose().collect();
        assert!(exposed.contains(&("sasl.password".to_owned(), "pa55".to_owned())));
    }

    #[test]
    fn a_file_s_last_line_end_is_not_part_of_it() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let path = folder.path().join("token");
        std::fs::write(&path, " a b \r\n").expect("writes");
        let read = secret(&format!("file:{}", path.display())).expect("reads");
        assert_eq!(read.expose(), " a b ");
        std::fs::write(&path, "\n").expect("writes");
        let problem = secret(&format!("file:{}", path.display())).expect_err("empty");
        assert!(problem.contains("is empty"), "{problem}");
        let problem = secret("file:/does/not/exist").expect_err("missing");
        assert!(problem.contains("/does/not/exist"), "{problem}");
    }
}
