//! Every integration test, in one binary. The first part of a test's name tells what it needs:
//!
//! - [`pure`]: no JVM.
//! - [`fake`]: no JVM, but fake clusters and the real `twinlog`.
//! - [`shared`]: brokers that are lent to one test after the other.
//! - [`own`]: brokers that it starts for itself.
//! - [`chaos`]: brokers that it starts for itself, and minutes; its rules need no JVM.
//! - [`sim`]: whole processes and brokers in simulated time; no JVM.

mod chaos;
mod fake;
mod own;
mod pure;
mod shared;
mod sim;
mod support;
