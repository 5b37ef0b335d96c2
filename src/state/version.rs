//! Which version a value has, and that a newer one is neither misread nor overwritten.
//!
//! Fields are only added within a version, and what reads a value doesn't mind those that it doesn't
//! know. A version goes up when a value means something else; whoever knows only the earlier one can do
//! nothing with it.

use serde::Deserialize;

use super::keys;
use super::store::StateError;

/// The newest version that this Twinlog reads, of every kind of value.
pub const VERSION: u32 = 1;

/// What a JSON value begins with.
const HEAD: &[u8] = b"{\"v\":";

/// A value's version; `None` where it has none, as something else than a record of ours.
fn version(key: &str, value: &[u8]) -> Option<u32> {
    if keys::is_segment(key) {
        return value.first().copied().map(u32::from);
    }
    // As all Twinlogs write it; this comes by for every value that is written.
    let digits = value.strip_prefix(HEAD).unwrap_or_default();
    let count = digits.iter().take_while(|it| it.is_ascii_digit()).count();
    if count > 0 && digits.get(count).is_some_and(|end| b",}".contains(end)) {
        // A number that is too large for this is newer than all that we know.
        let digits = std::str::from_utf8(&digits[..count]).ok()?;
        return Some(digits.parse().unwrap_or(u32::MAX));
    }
    #[derive(Deserialize)]
    struct Versioned {
        v: u32,
    }
    let versioned: Versioned = serde_json::from_slice(value).ok()?;
    Some(versioned.v)
}

/// Refuses a value that a newer Twinlog wrote.
pub(super) fn refuse_newer(key: &str, value: &[u8]) -> Result<(), StateError> {
    match version(key, value) {
        Some(version) if version > VERSION => Err(StateError::Newer {
            key: key.to_owned(),
            version,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_wherever_it_is() {
        let of = |value: &str| version("role/dr", value.as_bytes());
        assert_eq!(of(r#"{"v":1,"plan":"x"}"#), Some(1));
        assert_eq!(of(r#"{"v":12}"#), Some(12));
        assert_eq!(of(r#"{"plan":"x", "v": 3}"#), Some(3));
        assert_eq!(of(r#"{"v":99999999999}"#), Some(u32::MAX));
        assert_eq!(of(r#"{"plan":{"v":3}}"#), None);
        assert_eq!(of("7"), None);
        assert_eq!(of(""), None);
        assert_eq!(version("segment/dr/t/0/1", &[2, 0]), Some(2));
    }

    #[test]
    fn only_what_is_newer_is_refused() {
        assert!(refuse_newer("role/dr", br#"{"v":1}"#).is_ok());
        let refused = refuse_newer("role/dr", br#"{"v":2}"#).expect_err("newer");
        let words = refused.to_string();
        assert!(
            words.contains("role/dr") && words.contains("newer Twinlog"),
            "{words}"
        );
    }
}
