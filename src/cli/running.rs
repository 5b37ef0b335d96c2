//! The running process, as a command asks it: where, how, and with which tokens.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::TlsConnector;

use super::pinned::{self, Pinned};
use super::{Exit, output};
use crate::config::{Config, HttpTls, Secret};
use crate::http;

/// Whom to ask. The config of the command is the config of the process.
pub(super) struct Running {
    pub address: SocketAddr,
    /// TLS to the one who has the key of the configured certificate.
    pub tls: Option<TlsConnector>,
    /// What a POST brings.
    pub token: Option<Secret>,
    /// What a GET brings. Where nobody needs one to read, none is sent: who listens there may be a stranger.
    pub read_token: Option<Secret>,
}

/// The process that `twinlog run` with this config is; `command` is who wants to know.
///
/// # Errors
/// The exit code, after the problem was printed, when the config doesn't say where it answers or
/// its certificate can't be read.
pub(super) fn find(config: &Config, path: &Path, command: &str) -> Result<Running, Exit> {
    let http = &config.http;
    let Some(listen) = http.listen else {
        let problem = format!(
            "http is off in {}: set http.listen, such as 127.0.0.1:8088, and restart `twinlog \
             run`; {command} asks there",
            path.display()
        );
        return Err(output::fail(Exit::Usage, &problem));
    };
    if listen.port() == 0 {
        let problem = format!(
            "http.listen has port 0, any free one, so {command} can't know where to ask: set a port"
        );
        return Err(output::fail(Exit::Usage, &problem));
    }
    let tls = http.tls.as_ref().map(connector).transpose();
    Ok(Running {
        address: reachable(listen),
        tls: tls.map_err(|problem| output::fail(Exit::Usage, &problem))?,
        token: http.token.clone(),
        read_token: http.read_token.clone(),
    })
}

/// Only the configured certificate is trusted; its name and dates don't matter then.
fn connector(tls: &HttpTls) -> Result<TlsConnector, String> {
    let path = tls.certificate.display();
    let pem = fs::read(&tls.certificate)
        .map_err(|error| format!("http.tls.certificate: cannot read {path}: {error}"))?;
    let certificate = http::certificates(&pem)
        .ok()
        .and_then(|chain| chain.into_iter().next())
        .ok_or_else(|| format!("http.tls.certificate: {path} has no certificate in PEM"))?;
    let config = pinned::client_config(Pinned::to(certificate));
    Ok(TlsConnector::from(Arc::new(config)))
}

/// A process that listens on every address is asked on the loopback one.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_means_the_loopback_one() {
        let ask = |listen: &str| reachable(listen.parse().expect("an address")).to_string();
        assert_eq!(ask("0.0.0.0:8088"), "127.0.0.1:8088");
        assert_eq!(ask("[::]:8088"), "[::1]:8088");
        assert_eq!(ask("10.1.2.3:80"), "10.1.2.3:80");
    }
}
