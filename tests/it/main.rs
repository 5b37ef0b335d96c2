//! Every integration test, in one binary. The first part of a test's name tells what it needs:
//!
//! - [`pure`]: no JVM.
//! - [`shared`]: brokers that other tests use at the same time.
//! - [`own`]: brokers that it starts for itself.

mod own;
mod pure;
mod shared;
mod support;
