//! The aspect of ACLs.

use super::context::Context;
use super::pass::Pass;

/// What is kept between looks at ACLs.
#[derive(Debug, Default)]
pub(super) struct Acls {}

impl Acls {
    /// Compares both clusters, and applies what differs where `context.apply` says so.
    pub(super) async fn look(&mut self, _context: &Context) -> Pass {
        Pass::default()
    }
}
