//! Names to addresses, by the system's resolver, which may hang.
//!
//! A look-up can't be taken back: it has a thread until the resolver answers, which may be half a minute when the
//! resolver's own servers are gone. So there is one look-up of a name at a time, whoever asks, on a thread of its
//! own and not on those that others wait for, and a bound for each cluster. The addresses that a name had last
//! are kept: they are better than none.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// How long a name whose addresses are known may take to be looked up again.
const KNOWN_AFTER: Duration = Duration::from_secs(1);
/// Look-ups of a cluster at a time.
const LOOKUPS_MAX: usize = 32;
/// How long an address is tried last that took a connection and said nothing.
const SILENT_FOR: Duration = Duration::from_secs(60);

type Lookup = Arc<dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync>;
/// An error can't be shared as it is.
type Answer = Result<Vec<SocketAddr>, (io::ErrorKind, String)>;

/// The names of one cluster.
pub(super) struct Names {
    lookup: Lookup,
    names: Mutex<HashMap<String, Name>>,
}

#[derive(Default)]
struct Name {
    /// Its addresses when it was looked up last.
    addresses: Vec<SocketAddr>,
    /// The look-up that is under way.
    asked: Option<watch::Receiver<Option<Answer>>>,
    /// Where the last connection went.
    connected: Option<SocketAddr>,
    /// Until when they come last.
    silent: HashMap<SocketAddr, Instant>,
}

impl Default for Names {
    fn default() -> Self {
        Self::new(Arc::new(|name: &str| {
            name.to_socket_addrs().map(Iterator::collect)
        }))
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names")
    }
}

impl Names {
    pub(super) fn new(lookup: Lookup) -> Self {
        Self {
            lookup,
            names: Mutex::default(),
        }
    }

    /// The addresses of `host:port`, the best first. Whoever asks limits the time.
    pub(super) async fn addresses(self: &Arc<Self>, name: &str) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = name.parse() {
            return Ok(vec![address]);
        }
        let known = self.known(name);
        let answer = match self.look_up(name) {
            Err(error) => Err(error),
            Ok(asked) if known.is_empty() => answer_of(asked).await,
            Ok(asked) => tokio::time::timeout(KNOWN_AFTER, answer_of(asked))
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
        };
        match answer {
            Ok(_) => Ok(self.known(name)),
            Err(error) if known.is_empty() => Err(error),
            Err(error) => {
                tracing::debug!(name, %error, "a name can't be looked up; its last addresses are used");
                Ok(known)
            }
        }
    }

    /// Notes where a connection to the name went.
    pub(super) fn connected(&self, name: &str, address: SocketAddr) {
        if let Some(name) = self.lock().get_mut(name) {
            name.connected = Some(address);
        }
    }

    /// The address of the last connection said nothing. Whether the name has one that isn't known for that.
    pub(super) fn was_silent(&self, name: &str) -> bool {
        let mut names = self.lock();
        let Some(name) = names.get_mut(name) else {
            return false;
        };
        let Some(address) = name.connected.take() else {
            return false;
        };
        name.silent.insert(address, Instant::now() + SILENT_FOR);
        name.addresses.iter().any(|it| !name.is_silent(it))
    }

    /// What was looked up last: those that speak, then the silent ones.
    fn known(&self, name: &str) -> Vec<SocketAddr> {
        let mut names = self.lock();
        let Some(name) = names.get_mut(name) else {
            return Vec::new();
        };
        let now = Instant::now();
        name.silent.retain(|_, until| *until > now);
        let mut addresses = name.addresses.clone();
        addresses.sort_by_key(|address| name.is_silent(address));
        addresses
    }

    /// Asks the resolver, unless it is asked about this name already.
    fn look_up(self: &Arc<Self>, name: &str) -> io::Result<watch::Receiver<Option<Answer>>> {
        let mut names = self.lock();
        let asked = names.get(name).and_then(|name| name.asked.as_ref());
        // Whose sender is gone without an answer has failed.
        if let Some(asked) = asked.filter(|asked| asked.has_changed().is_ok()) {
            return Ok(asked.clone());
        }
        let under_way = names.values().filter(|name| name.asked.is_some()).count();
        if under_way >= LOOKUPS_MAX {
            let what = format!("the resolver doesn't answer: {under_way} names wait for it");
            return Err(io::Error::new(io::ErrorKind::TimedOut, what));
        }
        let (answer, asked) = watch::channel(None);
        let (all, of) = (self.clone(), name.to_owned());
        std::thread::Builder::new()
            .name("lookup".to_owned())
            .spawn(move || {
                let found = (all.lookup)(&of);
                let found = found.map_err(|error| failed(&of, &error));
                all.answered(&of, &found);
                let _ = answer.send(Some(found));
            })?;
        names.entry(name.to_owned()).or_default().asked = Some(asked.clone());
        Ok(asked)
    }

    fn answered(&self, name: &str, answer: &Answer) {
        let mut names = self.lock();
        let name = names.entry(name.to_owned()).or_default();
        name.asked = None;
        if let Ok(addresses) = answer
            && !addresses.is_empty()
        {
            name.addresses.clone_from(addresses);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Name>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Name {
    fn is_silent(&self, address: &SocketAddr) -> bool {
        self.silent.contains_key(address)
    }
}

/// What is told of a look-up that failed. The system has no kind of its own for a name that nobody knows.
fn failed(name: &str, error: &io::Error) -> (io::ErrorKind, String) {
    match error.kind() {
        kind @ (io::ErrorKind::TimedOut | io::ErrorKind::PermissionDenied) => {
            (kind, error.to_string())
        }
        _ => {
            let host = name.rsplit_once(':').map_or(name, |(host, _)| host);
            let what = format!("the name {host} can't be resolved ({error})");
            (io::ErrorKind::NotFound, what)
        }
    }
}

async fn answer_of(mut asked: watch::Receiver<Option<Answer>>) -> io::Result<()> {
    let answer = asked.wait_for(Option::is_some).await;
    let answer = answer.map_err(|_| io::Error::other("the look-up of the name has failed"))?;
    match answer.as_ref() {
        Some(Err((kind, what))) => Err(io::Error::new(*kind, what.clone())),
        Some(Ok(addresses)) if addresses.is_empty() => Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the name resolves to no address",
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A tenth of what the resolver takes that hangs.
    const SOON: Duration = Duration::from_secs(30);
    const MOMENT: Duration = Duration::from_secs(1);

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, last], 9_092))
    }

    /// A resolver that answers as long as it is told to, and hangs then.
    struct Resolver {
        asked: AtomicUsize,
        hangs_from: AtomicUsize,
    }

    fn names(hangs_from: usize) -> (Arc<Resolver>, Arc<Names>) {
        let resolver = Arc::new(Resolver {
            asked: AtomicUsize::new(0),
            hangs_from: AtomicUsize::new(hangs_from),
        });
        let asked = resolver.clone();
        let names = Names::new(Arc::new(move |_: &str| {
            let before = asked.asked.fetch_add(1, Ordering::SeqCst);
            if before >= asked.hangs_from.load(Ordering::SeqCst) {
                std::thread::sleep(10 * SOON);
            }
            Ok(vec![address(1), address(2)])
        }));
        (resolver, Arc::new(names))
    }

    #[tokio::test]
    async fn a_resolver_that_hangs_takes_a_bounded_number_of_threads_and_nobody_else_s_time() {
        let (resolver, away) = names(0);
        let mut waiting = tokio::task::JoinSet::new();
        for number in 0..200 {
            let away = away.clone();
            waiting.spawn(async move {
                away.addresses(&format!("broker-{}:9092", number % 50))
                    .await
            });
        }
        // Those for whom there is no thread left are told so.
        let mut refused = 0;
        while let Ok(Some(outcome)) = tokio::time::timeout(MOMENT, waiting.join_next()).await {
            let error = outcome.expect("no panic").expect_err("it hangs");
            assert!(
                error.to_string().contains("the resolver doesn't answer"),
                "{error}"
            );
            refused += 1;
        }
        assert!(refused > 0 && resolver.asked.load(Ordering::SeqCst) <= LOOKUPS_MAX);
        let (_, here) = names(usize::MAX);
        let found = tokio::time::timeout(SOON, here.addresses("other:9092")).await;
        assert_eq!(
            found.expect("soon").expect("found"),
            [address(1), address(2)]
        );
        // Nor does what the runtime's own threads are for.
        let file = tokio::time::timeout(SOON, tokio::fs::metadata("/")).await;
        assert!(file.expect("soon").is_ok());
    }

    #[tokio::test]
    async fn the_addresses_that_a_name_had_last_are_used_where_the_resolver_hangs() {
        let (_, names) = names(1);
        for _ in 0..3 {
            let found = tokio::time::timeout(SOON, names.addresses("broker:9092")).await;
            assert_eq!(
                found.expect("soon").expect("found"),
                [address(1), address(2)]
            );
        }
    }

    #[tokio::test]
    async fn an_address_is_no_name() {
        let (resolver, names) = names(0);
        let found = names.addresses("127.0.0.1:9092").await;
        assert_eq!(found.expect("found"), [address(1)]);
        assert_eq!(resolver.asked.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn an_address_that_said_nothing_comes_last() {
        let (_, names) = names(usize::MAX);
        let first = names.addresses("broker:9092").await.expect("found")[0];
        names.connected("broker:9092", first);
        assert!(names.was_silent("broker:9092"), "there is another");
        let found = names.addresses("broker:9092").await.expect("found");
        assert_eq!(found, [address(2), address(1)]);
        names.connected("broker:9092", address(2));
        assert!(!names.was_silent("broker:9092"), "that was the last");
    }
}
