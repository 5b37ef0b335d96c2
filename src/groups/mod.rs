//! Consumer groups: what of them is carried to the standby.

pub mod mirrormaker;
