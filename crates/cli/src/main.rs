//! The program `ams`; all of it is the library's.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(ams_cli::main(std::env::args_os().collect()))
}
