//! The `twinlog` command. Everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    twinlog::cli::main().into()
}
