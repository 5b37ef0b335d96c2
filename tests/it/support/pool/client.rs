//! The test's end of a lease.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;
use std::time::Duration;

use super::keeper::{self, Owner};
use super::{FINE, Kind, Lent, Place, Wish};
use crate::support::logins;
use crate::support::process::tail;
use crate::support::wait::eventually;

/// How long the keeper may take until it listens.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// One cluster of a pair that is the test's until its thread ends.
#[derive(Debug)]
pub struct Leased(Place);

impl Leased {
    /// Where its clients connect.
    pub fn bootstrap(&self) -> String {
        self.0.bootstrap.clone()
    }
}

/// The connection that holds a pair.
#[derive(Debug)]
struct Lease {
    kind: Kind,
    connection: UnixStream,
    places: [Place; 2],
    failed: Cell<bool>,
}

impl Lease {
    /// The test has failed: shows what the brokers said, and they are not used again.
    fn fail(&self) {
        if !self.failed.replace(true) {
            for place in &self.places {
                let (address, log) = (&place.bootstrap, tail(&place.log, 1_500));
                eprintln!("--- {address}: end of the broker's log\n{log}");
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.failed.get() {
            // A keeper that is gone needs no word.
            let _ = self.connection.write_all(&[FINE]);
        }
        for place in self.places.iter().filter(|place| place.entry.is_some()) {
            logins::forget(&place.bootstrap);
        }
    }
}

thread_local! {
    /// What this test holds. Every test has a thread of its own, and when that ends, nothing that
    /// the test started is writing any more.
    static HELD: RefCell<Vec<Lease>> = const { RefCell::new(Vec::new()) };
}

/// The pair of this kind that the test holds; waits for one if it holds none.
///
/// # Panics
/// When the keeper can't give one, with its log.
pub(super) fn lease(kind: Kind) -> (Leased, Leased) {
    let held = |held: &Vec<Lease>| {
        let lease = held.iter().find(|lease| lease.kind == kind);
        lease.map(|lease| lease.places.clone())
    };
    let [source, target] = HELD.with_borrow(held).unwrap_or_else(|| {
        notice_failures();
        let lease = ask(kind);
        let places = lease.places.clone();
        HELD.with_borrow_mut(|held| held.push(lease));
        places
    });
    (Leased(source), Leased(target))
}

/// When the thread of a test panics, its leases learn of it.
fn notice_failures() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            before(panic);
            // The thread may be ending, or just about to take a lease.
            let _ = HELD.try_with(|held| {
                if let Ok(held) = held.try_borrow() {
                    held.iter().for_each(Lease::fail);
                }
            });
        }));
    });
}

fn ask(kind: Kind) -> Lease {
    let owner = Owner::of_this_run();
    let folder = owner.folder();
    let mut connection = connect(owner, &folder);
    let wish = serde_json::to_string(&Wish(kind)).expect("it is JSON");
    let asked = writeln!(connection, "{wish}");
    let mut answer = String::new();
    let read = BufReader::new(&connection).read_line(&mut answer);
    let lent: Lent = serde_json::from_str(&answer).unwrap_or_else(|error| {
        let log = tail(&folder.join(keeper::LOG), 6_000);
        panic!("no pair: {error} in {answer:?} ({asked:?}, {read:?}); the keeper's log:\n{log}")
    });
    let places = [lent.source, lent.target];
    for place in &places {
        if let Some(entry) = &place.entry {
            logins::register(&place.bootstrap, entry.clone());
        }
    }
    Lease {
        kind,
        connection,
        places,
        failed: Cell::new(false),
    }
}

/// Connects to the run's keeper, and starts it if there is none.
fn connect(owner: Owner, folder: &Path) -> UnixStream {
    let socket = folder.join(keeper::SOCKET);
    if let Ok(connection) = UnixStream::connect(&socket) {
        return connection;
    }
    std::fs::create_dir_all(folder).expect("the temporary folder is writable");
    // One process starts it; the others wait here.
    let lock = File::create(folder.join("lock")).expect("our folder is writable");
    lock.lock().expect("a file can be locked");
    if let Ok(connection) = UnixStream::connect(&socket) {
        return connection;
    }
    start(owner, folder);
    eventually(START_DEADLINE, "the keeper listens", || {
        UnixStream::connect(&socket).map_err(|error| {
            let log = tail(&folder.join(keeper::LOG), 6_000);
            format!("{error}; the keeper's log:\n{log}")
        })
    })
}

/// Runs this binary as the keeper: away from this test's outputs and process group, with which it
/// would be waited for and killed.
fn start(owner: Owner, folder: &Path) {
    let log: PathBuf = folder.join(keeper::LOG);
    let open = || File::options().create(true).append(true).open(&log);
    let (output, errors) = (open(), open());
    let keeper = Command::new(std::env::current_exe().expect("this executable has a path"))
        .args(["--exact", keeper::TEST, "--ignored", "--nocapture"])
        .env(keeper::OWNER, owner.to_string())
        .env_remove("TWINLOG_TEST_SECURITY")
        .stdin(Stdio::null())
        .stdout(output.expect("our folder is writable"))
        .stderr(errors.expect("our folder is writable"))
        .process_group(0)
        .spawn()
        .expect("this executable can be run again");
    // It outlives this process, which has nothing to wait for.
    std::mem::forget(keeper);
}
