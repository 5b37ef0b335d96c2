//! Consumer groups: who coordinates them, who is in them, what they committed.

pub mod classic;
pub mod offsets;
pub mod records;
