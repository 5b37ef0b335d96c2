//! Fake clusters in the test's own process, behind real sockets: for a test that needs a broker's
//! answers and no broker. Everything that takes a `bootstrap` takes theirs.

use std::cell::RefCell;
use std::sync::Arc;

use fake_kafka::state::{Options, State};
use fake_kafka::tcp::Server;

/// A fake cluster. Clones are the same one; it listens until the last is dropped.
#[derive(Clone)]
pub struct FakeCluster {
    cluster: fake_kafka::Cluster,
    server: Arc<Server>,
}

impl FakeCluster {
    /// Starts one.
    pub fn start(options: Options) -> Self {
        let cluster = fake_kafka::Cluster::new(options);
        let server = Arc::new(Server::start(&cluster));
        Self { cluster, server }
    }

    /// Starts one broker with this cluster id.
    pub fn named(cluster_id: &str) -> Self {
        Self::start(options(cluster_id))
    }

    /// Where its clients connect.
    pub fn bootstrap(&self) -> String {
        self.server.bootstrap()
    }

    fn with(self, set_up: impl FnOnce(&mut State)) -> Self {
        self.cluster.control(set_up);
        self
    }
}

/// What a test may do to it, beyond what clients may.
impl std::ops::Deref for FakeCluster {
    type Target = fake_kafka::Cluster;

    fn deref(&self) -> &Self::Target {
        &self.cluster
    }
}

/// What a pair can do, as those of the [`pool`](super::pool).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    Authorized,
    Fenceable,
    Open,
}

type Pair = (FakeCluster, FakeCluster);

thread_local! {
    /// What this test has. Every test has a thread of its own, and its pairs listen until that ends.
    static STARTED: RefCell<Vec<(Kind, Pair)>> = const { RefCell::new(Vec::new()) };
}

/// The test's source and target without an authorizer, of one broker each.
pub fn fake_pair() -> Pair {
    pair(Kind::Plain)
}

/// The test's pair with an authorizer on both. Whoever comes without a name may do everything.
pub fn fake_authorized_pair() -> Pair {
    pair(Kind::Authorized)
}

/// A source whose ACLs bind whoever comes without a name, and a plain target. Where a resource has no
/// ACL, everybody may do everything.
pub fn fake_fenceable_pair() -> Pair {
    pair(Kind::Fenceable)
}

/// As that, and the target the same.
pub fn fake_open_pair() -> Pair {
    pair(Kind::Open)
}

fn pair(kind: Kind) -> Pair {
    let started = STARTED.with_borrow(|started| {
        let found = started.iter().find(|(of, _)| *of == kind);
        found.map(|(_, pair)| pair.clone())
    });
    started.unwrap_or_else(|| {
        let pair = start(kind);
        STARTED.with_borrow_mut(|started| started.push((kind, pair.clone())));
        pair
    })
}

fn start(kind: Kind) -> Pair {
    // A test that has two pairs has four clusters.
    let name = |side: &str| FakeCluster::named(&format!("{kind:?}-{side}").to_lowercase());
    let (source, target) = (name("source"), name("target"));
    match kind {
        Kind::Plain => (source, target),
        Kind::Authorized => (source.with(authorize), target.with(authorize)),
        Kind::Fenceable => (source.with(be_strict), target),
        Kind::Open => (source.with(be_strict), target.with(be_strict)),
    }
}

fn authorize(state: &mut State) {
    state.acls.is_on = true;
    state.acls.super_users.insert("User:ANONYMOUS".to_owned());
}

fn be_strict(state: &mut State) {
    state.acls.is_on = true;
    state.acls.allow_if_no_acl_found = true;
}

/// Options of one broker with this cluster id.
pub fn options(cluster_id: &str) -> Options {
    Options {
        cluster_id: cluster_id.to_owned(),
        ..Options::default()
    }
}
