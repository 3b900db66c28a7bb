//! `ams completions`: what a shell needs to complete this program's words.

use clap_complete::Shell;
use serde::Serialize;

use crate::failure::Failure;
use crate::output::Output;

/// Print the script by which a shell completes commands, flags and their values.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The shell.
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// The object that `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    shell: String,
    script: String,
}

/// `program` is the whole command line, as it is parsed.
pub(crate) fn run(
    arguments: Arguments,
    mut program: clap::Command,
    output: Output<'_>,
) -> Result<(), Failure> {
    let mut script = Vec::new();
    let name = program.get_name().to_owned();
    clap_complete::generate(arguments.shell, &mut program, name, &mut script);
    let script = String::from_utf8(script).expect("help texts are UTF-8");
    let report = Report { shell: arguments.shell.to_string(), script };
    output.finish(&report, || report.script.clone());
    Ok(())
}
