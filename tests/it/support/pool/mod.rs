//! The pool: pairs of clusters that run as long as a test run, and are lent to one test after the
//! other.
//!
//! Every test is a process of its own, so a static can't hold what tests share. The first test that
//! wants a pair starts a [`keeper`], a process that lives as long as the run: it starts pairs when
//! they are wanted, and empties each before it is lent again. A test has a pair for itself as long as
//! its connection to the keeper is open: until its thread ends, however that ends.
//! One that comes back from a failed test, doesn't answer or can't be emptied is replaced.
//!
//! A run is what `cargo nextest` does, or one process of `cargo test`; with it everything ends.

mod client;
mod keeper;
mod reset;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use client::Leased;

use super::logins::Entry;
use super::version::KafkaVersion;

/// What a pair can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Kind {
    /// Two clusters without any security.
    Plain(KafkaVersion),
    /// The authorizer on both; whoever comes without a name may do everything.
    Authorized(KafkaVersion),
    /// A source whose writers can be refused (see [`strict`](super::strict)), and a plain target.
    Fenceable(KafkaVersion),
    /// Writers can be refused on both.
    FenceableBoth(KafkaVersion),
    /// TLS, SCRAM and the authorizer; Twinlog is a super user.
    Secured(KafkaVersion),
}

/// What a test must know of a cluster that another process started.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Place {
    bootstrap: String,
    /// How to get in, where it is secured.
    entry: Option<Entry>,
    /// The broker's log, for messages.
    log: PathBuf,
}

/// What a test asks the keeper for: one line of JSON on a new connection.
#[derive(Debug, Serialize, Deserialize)]
struct Wish(Kind);

/// What it answers, in one line, when the pair is ready.
#[derive(Debug, Serialize, Deserialize)]
struct Lent {
    source: Place,
    target: Place,
}

/// What a test says that didn't fail, before it hangs up.
const FINE: u8 = b'.';

/// Lends a pair of clusters without any security, or secured ones where `TWINLOG_TEST_SECURITY`
/// asks for them.
pub fn pair(version: KafkaVersion) -> (Leased, Leased) {
    let kind = match super::security::is_wanted() {
        true => Kind::Secured(version),
        false => Kind::Plain(version),
    };
    client::lease(kind)
}

/// Lends a pair with the authorizer on which anonymous clients may do everything, or a secured one
/// where `TWINLOG_TEST_SECURITY` asks for it.
pub fn authorized_pair(version: KafkaVersion) -> (Leased, Leased) {
    let kind = match super::security::is_wanted() {
        true => Kind::Secured(version),
        false => Kind::Authorized(version),
    };
    client::lease(kind)
}

/// Lends a source whose writers can be refused, and a plain target.
pub fn fenceable_pair(version: KafkaVersion) -> (Leased, Leased) {
    client::lease(Kind::Fenceable(version))
}

/// Lends a pair whose writers can be refused on both sides.
pub fn fenceable_both(version: KafkaVersion) -> (Leased, Leased) {
    client::lease(Kind::FenceableBoth(version))
}
