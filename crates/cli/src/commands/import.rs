//! `ams import`: known public datasets.

use std::path::PathBuf;

use ams_data::movielens::{self, Clicks};
use ams_data::negatives::NegativeOptions;
use ams_data::prepare::Existing;
use ams_location::Locations;

use crate::commands::prepare::{SampleArguments, prepare, text};
use crate::failure::Failure;
use crate::output::Output;

/// Turn a known public dataset into samples.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    source: Source,
}

#[derive(Debug, clap::Subcommand)]
enum Source {
    Movielens(Movielens),
}

/// MovieLens: 1M (`ratings.dat`) or the small and latest layout (`ratings.csv`).
#[derive(Debug, clap::Args)]
struct Movielens {
    /// The folder as MovieLens ships it.
    dir: PathBuf,
    /// The dataset's folder.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The folder of posters, `<movie>.jpg`; `images` inside DIR unless given.
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Every rating is a positive and negatives are drawn, instead of ratings from 4 on being
    /// clicks.
    #[arg(long)]
    implicit: bool,
    /// Replace a dataset that is there already.
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    samples: SampleArguments,
}

/// Runs the command.
pub fn run(arguments: Arguments, locations: &Locations, output: Output) -> Result<(), Failure> {
    let Source::Movielens(arguments) = arguments.source;
    let negatives = arguments.samples.negatives();
    let clicks = match (arguments.implicit, negatives) {
        (true, negatives) => Clicks::Implicit(negatives.unwrap_or_else(NegativeOptions::default)),
        (false, None) => Clicks::Ratings,
        (false, Some(_)) => return Err(Failure::user("--negatives goes with --implicit")),
    };
    let mut options = movielens::options(&clicks);
    arguments.samples.apply(&mut options);
    let place = locations.destination(&arguments.out, arguments.replace)?;
    let dir = locations.input(&arguments.dir)?;
    let images = arguments.images.map(|images| locations.input(&images)).transpose()?;
    let (inputs, options) = movielens::inputs(&dir, images.as_deref(), options)?;
    let existing = if arguments.replace { Existing::Replace } else { Existing::Refuse };
    let report = prepare(inputs, options, place.local(), existing, output)?;
    place.publish()?;
    output.finish(&report, || text(&report, &arguments.out));
    Ok(())
}
