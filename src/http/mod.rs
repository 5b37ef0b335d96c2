//! The HTTP surface: metrics, health, the status API and the page. One call changes something,
//! and needs a token.

mod access;
mod certificate;
mod changes;
mod connections;
mod page;
mod routes;
mod server;
mod tls;

pub use certificate::CertificateError;
pub(crate) use certificate::certificates;
pub use changes::look_path;
pub use connections::CONNECTIONS_MAX;
pub use routes::{GROUPS_PATH, STATUS_PATH};
pub use server::{Door, bind, serve, serve_on};
