//! The APIs of client quotas.

pub(super) mod alter;
pub(super) mod describe;

use super::{Asked, Reply, text};
