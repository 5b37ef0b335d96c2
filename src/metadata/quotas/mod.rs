//! The aspect of quotas of users and client ids.

use super::context::Context;
use super::pass::Pass;

/// What is kept between looks at quotas of users and client ids.
#[derive(Debug, Default)]
pub(super) struct Quotas {}

impl Quotas {
    /// Compares both clusters, and applies what differs where `context.apply` says so.
    pub(super) async fn look(&mut self, _context: &Context) -> Pass {
        Pass::default()
    }
}
