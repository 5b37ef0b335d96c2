//! From a cluster section of the config to both clients: our own (`wire`) and librdkafka.
//!
//! What a section says about TLS and authentication means the same to both, and what only one of
//! them could do is refused by the config.

mod access;
mod certificates;
mod check;
mod librdkafka;
mod oidc;
mod pem;
#[cfg(test)]
mod tests;
mod text;
mod tls;
mod verifiers;

use crate::config::ClusterSection;
use crate::wire::Cluster;

pub use access::Access;
pub use check::{check, notes};
pub use librdkafka::Context;
pub use text::base64;

/// Our own client for a cluster of the config. Connects nothing yet; a certificate or key that
/// can't be used is an error of connecting, and tried again like others.
pub fn cluster(section: &ClusterSection) -> Cluster {
    Access::new(section).cluster()
}

/// The configuration and the context of any rdkafka client for a cluster of the config.
pub fn librdkafka(section: &ClusterSection) -> (rdkafka::ClientConfig, Context) {
    Access::new(section).librdkafka()
}
