//! Every integration test, in one binary. The first part of a test's name tells what it needs:
//!
//! - [`pure`]: no JVM.
//! - [`sim`]: whole processes on fake clusters in simulated time; no JVM.
//! - [`shared`]: brokers that are lent to one test after the other.
//! - [`own`]: brokers that it starts for itself.

mod own;
mod pure;
mod shared;
mod sim;
mod support;
