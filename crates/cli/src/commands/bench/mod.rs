//! `ams bench`: measurements that carry their answers.

mod agree;
mod data;
mod gemm;
mod metrics;
mod placement;
mod rows;
mod serve;
mod step;
mod table2;

use crate::failure::Failure;
use crate::launch::Launch;
use crate::output::Output;

/// Measure this program on this machine.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Agree(agree::Arguments),
    Data(data::Arguments),
    Gemm(gemm::Arguments),
    Metrics(metrics::Arguments),
    Placement(placement::Arguments),
    Rows(rows::Arguments),
    Serve(serve::Arguments),
    Step(step::Arguments),
    Table2(table2::Arguments),
}

pub(crate) fn run(
    arguments: Arguments,
    launch: &Launch,
    output: Output<'_>,
) -> Result<(), Failure> {
    match arguments.what {
        What::Agree(arguments) => agree::run(arguments, launch, output),
        What::Data(arguments) => data::run(arguments, launch, output),
        What::Gemm(arguments) => gemm::run(arguments, launch, output),
        What::Metrics(arguments) => metrics::run(arguments, launch, output),
        What::Placement(arguments) => placement::run(arguments, launch, output),
        What::Rows(arguments) => rows::run(arguments, launch, output),
        What::Serve(arguments) => serve::run(arguments, launch, output),
        What::Step(arguments) => step::run(arguments, launch, output),
        What::Table2(arguments) => table2::run(arguments, launch, output),
    }
}
