//! The client against a broker that misbehaves.

mod connection;
mod decode;
pub(crate) mod fake;
mod fuzz;
mod reach;
mod routing;
