//! What must hold whatever the ACLs are.

mod changes;
mod grants;
