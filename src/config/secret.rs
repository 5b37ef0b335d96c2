//! Values that must not be seen: passwords and tokens.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

/// What a secret begins with when it is in a file of its own.
const FILE: &str = "file:";

/// A password or token. It can't be printed or serialized, and is wiped from memory when dropped.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// The secret itself. Whoever asks must not log, serve or format it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
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

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for Secret {}

/// Reads a secret as written: `file:PATH` is the text of that file without the line end behind it,
/// anything else (usually `${NAME}`, already replaced) is the secret itself.
///
/// # Errors
/// When the file can't be read, or nothing is in it. The message never has the secret in it.
pub(super) fn secret(text: &str) -> Result<Secret, String> {
    let Some(path) = text.strip_prefix(FILE) else {
        return not_empty(text.to_owned());
    };
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))?;
    not_empty(text.trim_end_matches(['\r', '\n']).to_owned())
        .map_err(|reason| format!("{path}: {reason}"))
}

fn not_empty(text: String) -> Result<Secret, String> {
    if text.is_empty() {
        Err("is empty; write `${NAME}` or `file:PATH`".to_owned())
    } else {
        Ok(Secret::from(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_not_printed() {
        let text = format!("{:?}", Some(Secret::from("hunter2".to_owned())));
        assert_eq!(text, "Some([redacted])");
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
