//! Starts the CLI, nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    locktender::cli::main()
}
