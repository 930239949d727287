//! The program.

use std::process::ExitCode;

fn main() -> ExitCode {
    apixx_mcp::cli::main()
}
