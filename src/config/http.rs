//! The HTTP server's section.

use std::net::{Ipv4Addr, SocketAddr};

use super::reader::{Reader, Table};
use super::values;

/// Where metrics, health, the API and the page are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// The address, default `127.0.0.1:8088`; `None` (`off`) serves nothing. Port 0 is any free one.
    pub listen: Option<SocketAddr>,
}

pub(super) const KEYS: [&str; 1] = ["listen"];

pub(super) fn read(reader: &mut Reader, table: &Table) -> HttpConfig {
    let default = SocketAddr::from((Ipv4Addr::LOCALHOST, 8088));
    HttpConfig {
        listen: reader
            .value(table, "listen", values::listen)
            .unwrap_or(Some(default)),
    }
}
