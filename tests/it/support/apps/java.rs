//! The applications of `tests/java/Apps.java`: one process for all of them.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;

use crate::support::book::{Book, Told};
use crate::support::java::{arguments, compiled};
use crate::support::logins;
use crate::support::process::tail;
use crate::support::scratch;
use crate::support::version::KafkaVersion;

const SOURCE: &str = include_str!("../../../java/Apps.java");

/// The process. Killed on drop.
#[derive(Debug)]
pub(super) struct JavaApps {
    child: Child,
    input: ChildStdin,
    /// Its standard error.
    log: PathBuf,
}

impl JavaApps {
    /// Starts these clients; what they tell goes to the book.
    pub(super) fn start(
        version: KafkaVersion,
        bootstrap: &str,
        clients: &[String],
        book: Arc<Book>,
    ) -> Self {
        let classes = compiled(version, "Apps", SOURCE);
        let log = scratch::folder("apps").join("errors");
        let errors = File::create(&log).expect("our folder is writable");
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", "java"])
            .args(arguments(version, &classes))
            .args(logins::java_argument(bootstrap))
            .args(["Apps", bootstrap])
            .args(clients)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .expect("java is installed");
        let input = child.stdin.take().expect("its input is piped");
        let output = child.stdout.take().expect("its output is piped");
        // It ends with the process: then there are no more lines.
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let told = Told::parse(&line);
                let unknown = || Told::Failed(format!("what is this: {line}"));
                book.note(told.unwrap_or_else(unknown));
            }
        });
        Self { child, input, log }
    }

    /// Tells all of them something.
    pub(super) fn command(&mut self, command: &str) {
        writeln!(self.input, "{command}").expect("the applications listen");
    }
}

impl Drop for JavaApps {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!(
                "--- end of what Java complained of\n{}",
                tail(&self.log, 3_000)
            );
        }
    }
}
