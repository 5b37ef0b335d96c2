//! Fake clusters in this process, and whatever talks to them.

mod copy;
