//! `ams bench`: measurements that carry their answers.

mod placement;
mod step;
mod table2;

use crate::failure::Failure;
use crate::launch::Launch;
use crate::output::Output;

/// Measure this program on this machine.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Placement(placement::Arguments),
    Step(step::Arguments),
    Table2(table2::Arguments),
}

/// Runs the command.
pub fn run(arguments: Arguments, launch: &Launch, output: Output) -> Result<(), Failure> {
    match arguments.what {
        What::Placement(arguments) => placement::run(arguments, launch, output),
        What::Step(arguments) => step::run(arguments, launch, output),
        What::Table2(arguments) => table2::run(arguments, launch, output),
    }
}
