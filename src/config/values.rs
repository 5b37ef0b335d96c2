//! How single values are spelled: sizes, durations, addresses, choices, names.

use std::net::SocketAddr;
use std::time::Duration;

use super::reader::{listed, nearest};

/// Bytes with a unit: `64MiB`, `500kB`, or a plain number of bytes.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 8] = [
        ("", 1),
        ("B", 1),
        ("KB", 1000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("KIB", 1 << 10),
        ("MIB", 1 << 20),
        ("GIB", 1 << 30),
    ];
    let (number, unit) = number_and_unit(text);
    let wrong = || {
        format!(
            "`{text}` is not a size; write a whole number and kB, MB, GB, KiB, MiB or GiB, such as `64MiB`"
        )
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit = unit.to_uppercase();
    let factor = UNITS.iter().find(|(name, _)| *name == unit);
    let (_, factor) = factor.ok_or_else(wrong)?;
    number
        .checked_mul(*factor)
        .ok_or_else(|| format!("`{text}` is too large"))
}

/// A duration with a unit: `500ms`, `1s`, `5m`, `2h`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = number_and_unit(text);
    let wrong = || {
        format!(
            "`{text}` is not a duration; write a whole number and ms, s, m or h, such as `500ms`"
        )
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(unit_ms)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("`{text}` is too large"))
}

fn number_and_unit(text: &str) -> (&str, &str) {
    let end = text
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

/// A whole number within a range.
pub(super) fn number(text: &str, min: u64, max: u64) -> Result<u64, String> {
    let number: u64 = text
        .parse()
        .map_err(|_| format!("`{text}` is not a whole number"))?;
    if (min..=max).contains(&number) {
        Ok(number)
    } else {
        Err(format!("{number} is not between {min} and {max}"))
    }
}

/// One of a few words.
pub(super) fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    let found = choices.iter().find(|(word, _)| *word == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        format!("unknown value `{text}`; expected {}", listed(&words, "or"))
    })
}

/// One of the user's own names.
pub(super) fn reference(text: &str, what: &str, names: &[&str]) -> Result<String, String> {
    if names.contains(&text) {
        return Ok(text.to_owned());
    }
    let hint = match nearest(text, names) {
        Some(near) => format!("did you mean `{near}`?"),
        None if names.is_empty() => format!("no {what} is defined"),
        None => format!("defined are {}", listed(names, "and")),
    };
    Err(format!("unknown {what} `{text}`; {hint}"))
}

/// A name that can stand in a topic name, a metric label and a file name.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let legal = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    if !name.is_empty() && name.len() <= 100 && name.chars().all(legal) {
        Ok(())
    } else {
        Err(format!(
            "`{name}` cannot be a name; use 1 to 100 letters, digits, `.`, `_` and `-`"
        ))
    }
}

/// `host:port, host:port`, each with its port.
pub(super) fn bootstrap(text: &str) -> Result<Vec<String>, String> {
    let servers: Vec<&str> = text
        .split(',')
        .map(str::trim)
        .filter(|server| !server.is_empty())
        .collect();
    if servers.is_empty() {
        return Err("no server given; write `host:port`, several with commas".to_owned());
    }
    servers.into_iter().map(server).collect()
}

fn server(text: &str) -> Result<String, String> {
    if let Some((scheme, rest)) = text.split_once("://") {
        return Err(format!(
            "`{text}`: remove `{scheme}://` and write `{rest}`; the protocol is `security.protocol`"
        ));
    }
    let (host, port) = text
        .rsplit_once(':')
        .filter(|(host, _)| !host.is_empty() && (!host.contains(':') || bracketed(host)))
        .ok_or_else(|| {
            format!("`{text}` is not an address; write `host:port`, IPv6 as `[::1]:9092`")
        })?;
    if host.contains(|letter: char| letter.is_whitespace() || letter == '/') {
        return Err(format!("`{host}` is not a host name"));
    }
    check_port(port, 1)?;
    Ok(text.to_owned())
}

fn bracketed(host: &str) -> bool {
    host.starts_with('[') && host.ends_with(']')
}

fn check_port(port: &str, min: u64) -> Result<(), String> {
    number(port, min, 65535)
        .map(|_| ())
        .map_err(|reason| format!("bad port: {reason}"))
}

/// The address to listen on, or `off`.
pub(super) fn listen(text: &str) -> Result<Option<SocketAddr>, String> {
    if text == "off" {
        return Ok(None);
    }
    if let Some((_, port)) = text.rsplit_once(':') {
        // Port 0 is any free port.
        check_port(port, 0)?;
    }
    text.parse().map(Some).map_err(|_| {
        format!("`{text}` is not an address to listen on; write `127.0.0.1:8088`, `0.0.0.0:8088` for every interface, or `off`")
    })
}
