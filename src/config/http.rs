//! The HTTP server's section.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::reader::{Reader, Table};
use super::secret::{Secret, secret};
use super::tree::Kind;
use super::values;

/// Where metrics, health, the API and the page are served, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// The address, default `127.0.0.1:8088`; `None` (`off`) serves nothing. Port 0 is any free one.
    pub listen: Option<SocketAddr>,
    /// Whether another address than the loopback one may be served without TLS.
    pub insecure: bool,
    /// The server's certificate; `None` serves plain HTTP.
    pub tls: Option<HttpTls>,
    /// What a changing call must bring; `None` refuses them all. Reads everything too.
    pub token: Option<Secret>,
    /// What a reading call must bring, but for `/healthz` and the page; `None` asks for nothing.
    pub read_token: Option<Secret>,
    /// What the server is called, besides by its addresses and `localhost`.
    pub hosts: Vec<String>,
}

/// The files of the HTTP server's certificate. They are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpTls {
    /// PEM: the server's certificate first, then those that lead to its authority.
    pub certificate: PathBuf,
    /// PEM: the certificate's private key.
    pub key: PathBuf,
    /// Opens an encrypted key (`ENCRYPTED PRIVATE KEY`).
    pub key_password: Option<Secret>,
}

pub(super) const KEYS: [&str; 6] = ["listen", "insecure", "tls", "token", "read_token", "hosts"];
pub(super) const TLS_KEYS: [&str; 3] = ["certificate", "key", "key_password"];

/// Shorter tokens could be guessed over the network.
const TOKEN_LETTERS_MIN: usize = 16;

pub(super) fn read(reader: &mut Reader, table: &Table) -> HttpConfig {
    let default = SocketAddr::from((Ipv4Addr::LOCALHOST, 8088));
    let choices = [("true", true), ("false", false)];
    let config = HttpConfig {
        listen: reader
            .value(table, "listen", values::listen)
            .unwrap_or(Some(default)),
        insecure: reader
            .value(table, "insecure", |text| values::choice(text, &choices))
            .unwrap_or(false),
        tls: tls(reader, table),
        token: reader.value(table, "token", token),
        read_token: reader.value(table, "read_token", token),
        hosts: hosts(reader, table),
    };
    // A `tls` with problems of its own was meant to be there.
    let tls_is_meant = table.get("tls").is_some();
    if let (Some(listen), Some(node)) = (config.listen, table.get("listen"))
        && !is_loopback(listen)
        && !tls_is_meant
        && !config.insecure
    {
        let message = format!(
            "`{listen}` is reached by other machines, and without TLS everybody on the way reads \
             what is served and sent; set `tls: {{ certificate: FILE, key: FILE }}`, or `insecure: \
             true` where something else keeps strangers out"
        );
        reader.problem(&node.place, &table.path_of("listen"), message);
    }
    if let (Some(_), Some(node)) = (&config.token, table.get("read_token"))
        && config.token == config.read_token
    {
        let message = "is the same as `token`; then whoever may read could change too";
        reader.problem(&node.place, &table.path_of("read_token"), message);
    }
    config
}

/// Names of the server, the wrong ones reported and left out.
fn hosts(reader: &mut Reader, table: &Table) -> Vec<String> {
    let Some(node) = table.get("hosts") else {
        return Vec::new();
    };
    let path = table.path_of("hosts");
    let Kind::List(items) = &node.kind else {
        let message = "expected a list of names, such as `[\"twinlog.example.com\"]`";
        reader.problem(&node.place, &path, message);
        return Vec::new();
    };
    let mut hosts = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let Some(name) = reader.text(item, &path) else {
            continue;
        };
        let is_name = |letter: char| letter.is_ascii_alphanumeric() || ".-_".contains(letter);
        if name.is_empty() || !name.chars().all(is_name) {
            let message = format!(
                "`{name}` is no host name: write it without scheme, port and wildcards, as \
                 clients call it"
            );
            reader.problem(&item.place, &path, message);
            continue;
        }
        hosts.push(name.to_ascii_lowercase());
    }
    hosts
}

/// Whether only this machine reaches the address, also when it is IPv4 written as IPv6.
fn is_loopback(listen: SocketAddr) -> bool {
    listen.ip().to_canonical().is_loopback()
}

fn tls(reader: &mut Reader, table: &Table) -> Option<HttpTls> {
    table.get("tls")?;
    let tls = reader.inner(table, "tls", &TLS_KEYS);
    let certificate = reader.required(&tls, "certificate", "/etc/twinlog/tls.crt", file);
    let key = reader.required(&tls, "key", "/etc/twinlog/tls.key", file);
    let key_password = reader.value(&tls, "key_password", secret);
    Some(HttpTls {
        certificate: certificate?,
        key: key?,
        key_password,
    })
}

fn file(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        Err("is empty; write the path of a PEM file".to_owned())
    } else {
        Ok(PathBuf::from(text))
    }
}

/// A secret that can stand in an `Authorization` header and isn't guessed.
fn token(text: &str) -> Result<Secret, String> {
    let token = secret(text)?;
    let letters = token.expose().chars().count();
    if !token
        .expose()
        .chars()
        .all(|letter| letter.is_ascii_graphic())
    {
        // What it is exactly stays unsaid: problems are printed and logged.
        return Err(
            "has a space or a letter outside ASCII, which no HTTP header can bring; make one \
             with `openssl rand -hex 32`"
                .to_owned(),
        );
    }
    if letters < TOKEN_LETTERS_MIN {
        return Err(format!(
            "has {letters} letters, at least {TOKEN_LETTERS_MIN} are needed; make one with \
             `openssl rand -hex 32`"
        ));
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_known_in_every_spelling() {
        let loopback = |address: &str| is_loopback(address.parse().expect("an address"));
        for address in [
            "127.0.0.1:1",
            "127.9.9.9:1",
            "[::1]:1",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert!(loopback(address), "{address}");
        }
        for address in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1"] {
            assert!(!loopback(address), "{address}");
        }
    }
}
