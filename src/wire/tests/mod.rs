//! The client against a broker that misbehaves.

mod connection;
mod decode;
mod fake;
mod routing;
