//! The HTTP surface: metrics, health, the status API and the page. Read-only.

mod page;
mod routes;
mod server;

pub use routes::{GROUPS_PATH, STATUS_PATH};
pub use server::{bind, serve, serve_on};
