//! The edgerec program.

use std::process::ExitCode;

fn main() -> ExitCode {
    edgerec::cli::main()
}
