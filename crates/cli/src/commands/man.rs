//! `ams man`: the pages of the manual, from the same texts as `--help`.

use std::path::PathBuf;

use ams_data::staging::write_whole;
use clap::Command;
use clap_mangen::Man;
use serde::Serialize;

use crate::failure::Failure;
use crate::output::Output;

/// Write the pages of the manual: ams.1, and one for every command, such as ams-train.1.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The folder; it is made where it is missing, and pages of the same name are replaced.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// The object that `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    pages: Vec<String>,
}

/// `program` is the whole command line, as it is parsed.
pub(crate) fn run(
    arguments: Arguments,
    program: Command,
    output: Output<'_>,
) -> Result<(), Failure> {
    let out = &arguments.out;
    std::fs::create_dir_all(out)
        .map_err(|error| Failure::user(format!("{}: {error}", out.display())))?;
    let mut program = program.disable_help_subcommand(true);
    program.build();
    let mut report = Report { pages: Vec::new() };
    write(&program, out, &mut report.pages)?;
    output.finish(&report, || format!("{} pages in {}\n", report.pages.len(), out.display()));
    Ok(())
}

/// Writes the page of `command`, then those of its commands. Hidden ones have none.
fn write(command: &Command, out: &std::path::Path, pages: &mut Vec<String>) -> Result<(), Failure> {
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    man.render(&mut page).expect("memory takes every page");
    let name = man.get_filename();
    write_whole(&out.join(&name), page)?;
    pages.push(name);
    let mut shown = command.get_subcommands().filter(|command| !command.is_hide_set());
    shown.try_for_each(|command| write(command, out, pages))
}
