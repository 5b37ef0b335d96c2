//! The aspect of topic configs.

use super::context::Context;
use super::pass::Pass;

/// What is kept between looks at topic configs.
#[derive(Debug, Default)]
pub(super) struct Configs {}

impl Configs {
    /// Compares both clusters, and applies what differs where `context.apply` says so.
    pub(super) async fn look(&mut self, _context: &Context) -> Pass {
        Pass::default()
    }
}
