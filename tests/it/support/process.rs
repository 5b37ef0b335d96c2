//! Child processes that cannot outlive the test process.
//!
//! `setpriv --pdeathsig KILL` asks the kernel to kill the child when its parent dies. To the
//! kernel the parent is the *thread* that spawned it, and the test runner ends a thread with
//! every test. So one thread that lives as long as the process spawns everything.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::wait::Patience;

/// A running child whose output goes to a file. Killed on drop.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Standard output and standard error, appended to.
    pub log: PathBuf,
}

type Job = (Command, Sender<io::Result<Child>>);

/// Spawns on the thread that lives as long as the process.
fn spawn_on_lasting_thread(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Mutex<Sender<Job>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, inbox) = channel::<Job>();
        std::thread::Builder::new()
            .name("spawner".into())
            .spawn(move || {
                for (mut command, reply) in inbox {
                    let _ = reply.send(command.spawn());
                }
            })
            .expect("a thread starts");
        Mutex::new(jobs)
    });
    let (reply, answer) = channel();
    spawner
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((command, reply))
        .expect("the spawner never ends");
    answer.recv().expect("the spawner answers every job")
}

impl Process {
    /// Starts `program` with `arguments`; its output is appended to `log`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start<A: AsRef<std::ffi::OsStr>>(
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
        log: &Path,
    ) -> Self {
        let open = || File::options().create(true).append(true).open(log);
        let output =
            open().unwrap_or_else(|error| panic!("cannot open {}: {error}", log.display()));
        let errors = output.try_clone().expect("an open file can be shared");
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors);
        let child = spawn_on_lasting_thread(command)
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", program.display()));
        Self {
            child,
            log: log.to_owned(),
        }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The exit status if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child
            .try_wait()
            .expect("our own child can be waited for")
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill9(&mut self) {
        // It may have ended by itself: then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and waits; `None` when it had to be killed at the deadline.
    pub fn terminate(&mut self, deadline: Duration) -> Option<ExitStatus> {
        self.signal("TERM");
        let mut patience = Patience::new(deadline);
        while !patience.is_over() {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            patience.pause();
        }
        self.kill9();
        None
    }

    /// Sends a signal by name, such as `TERM`, `STOP` or `CONT`.
    pub fn signal(&mut self, name: &str) {
        if self.ended().is_none() {
            let _ = Command::new("kill")
                .arg(format!("-{name}"))
                .arg(self.id().to_string())
                .status();
        }
    }

    /// The end of the log, for messages.
    pub fn log_tail(&self) -> String {
        tail(&self.log, 6_000)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// The last `bytes` of a file as text.
pub fn tail(path: &Path, bytes: u64) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
        let mut content = Vec::new();
        file.read_to_end(&mut content)?;
        Ok(String::from_utf8_lossy(&content).into_owned())
    };
    read().unwrap_or_else(|error| format!("(cannot read {}: {error})", path.display()))
}
