//! What is copied lands at the same offsets, and a seed is a run.
