//! The APIs of logging in, and of who can.

pub(super) mod sasl;
pub(super) mod scram;

use super::{Asked, Reply, text};
