//! Where the running process is asked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::{Exit, output};
use crate::config::Config;

/// The address that `twinlog run` with this config answers at; `command` is who wants to know.
///
/// # Errors
/// The exit code, after the problem was printed, when the config has no such address.
pub(super) fn address(config: &Config, path: &Path, command: &str) -> Result<SocketAddr, Exit> {
    let Some(listen) = config.http.listen else {
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
    Ok(reachable(listen))
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
