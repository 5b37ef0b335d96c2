//! What is seen from outside: progress, metrics, logs.

pub mod progress;
