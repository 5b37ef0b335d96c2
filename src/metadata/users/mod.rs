//! The aspect of users that can log in (SCRAM).

use super::context::Context;
use super::pass::Pass;

/// What is kept between looks at users that can log in (SCRAM).
#[derive(Debug, Default)]
pub(super) struct Users {}

impl Users {
    /// Compares both clusters, and applies what differs where `context.apply` says so.
    pub(super) async fn look(&mut self, _context: &Context) -> Pass {
        Pass::default()
    }
}
