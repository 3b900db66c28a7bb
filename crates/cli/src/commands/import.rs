//! `ams import`: known public datasets.

use std::path::PathBuf;

use ams_data::barsctr::{self, Video};
use ams_data::edges;
use ams_data::movielens::{self, Clicks};
use ams_data::negatives::{Method, NegativeOptions};
use ams_data::prepare::Existing;
use ams_location::Locations;

use crate::commands::prepare::{SampleArguments, prepare, text};
use crate::failure::Failure;
use crate::output::{Output, count};

/// Turn a known public dataset into samples.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    source: Source,
}

#[derive(Debug, clap::Subcommand)]
enum Source {
    Movielens(Box<Movielens>),
    Barsctr(Barsctr),
    Edges(Edges),
}

/// MovieLens: 100K (`u.data`), 1M (`ratings.dat`) or the small and latest layout (`ratings.csv`).
#[derive(Debug, clap::Args)]
struct Movielens {
    /// The folder as MovieLens ships it.
    dir: PathBuf,
    /// Folder of the dataset to write.
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

/// Short videos of the open benchmark BARS-CTR, with its split and its histories.
#[derive(Debug, clap::Args)]
struct Barsctr {
    /// Which of the two data sets.
    #[arg(value_enum)]
    set: VideoName,
    /// The folder with `train.csv` and `test.csv`.
    dir: PathBuf,
    /// Folder of the dataset to write.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Behaviors a group keeps, the newest.
    #[arg(long, value_name = "N", default_value_t = barsctr::MAX_BEHAVIORS)]
    max_behaviors: usize,
    /// Replace a dataset that is there already.
    #[arg(long)]
    replace: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum VideoName {
    /// MicroVideo1.7M_x1.
    #[value(name = "microvideo1.7m", alias = "microvideo1.7m_x1")]
    Micro,
    /// KuaiVideo_x1.
    #[value(name = "kuaivideo", alias = "kuaivideo_x1")]
    Kuai,
}

/// Pairs of a user and an item without times, as collections for collaborative filtering have
/// them. Histories are leave-one-out.
#[derive(Debug, clap::Args)]
struct Edges {
    /// The pairs: lines `user item item ..` in a file called .txt, or a table (CSV, Parquet, ..).
    train: PathBuf,
    /// Pairs to test on, likewise; a share of each user's items unless given.
    #[arg(long, value_name = "FILE")]
    test: Option<PathBuf>,
    /// Folder of the dataset to write.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The column of users, of a table.
    #[arg(long, value_name = "COLUMN")]
    user: Option<String>,
    /// The column of items.
    #[arg(long, value_name = "COLUMN")]
    item: Option<String>,
    /// The column names of a table without a header: user,item.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    header: Option<Vec<String>>,
    /// Share of each user's items that is the test, unless there is a file.
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, conflicts_with = "test")]
    test_fraction: f64,
    /// Negatives drawn for each positive.
    #[arg(long, value_name = "N", default_value_t = 4)]
    negatives: u32,
    /// How they are drawn; there are no times to draw them by.
    #[arg(long, value_name = "HOW", value_enum, default_value_t = TimelessName::Popularity)]
    negatives_from: TimelessName,
    /// Seed of the draw and of the test's share.
    #[arg(long, value_name = "N", default_value_t = 1)]
    negatives_seed: u64,
    /// Behaviors a group keeps.
    #[arg(long, value_name = "N", default_value_t = 50)]
    max_behaviors: usize,
    /// Replace a dataset that is there already.
    #[arg(long)]
    replace: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum TimelessName {
    /// Every item alike.
    Uniform,
    /// In proportion to the training pairs.
    Popularity,
    /// The same, each negative of a positive from another of N strata of popularity.
    Stratified,
}

pub(crate) fn run(
    arguments: Arguments,
    locations: &Locations,
    output: Output<'_>,
) -> Result<(), Failure> {
    match arguments.source {
        Source::Movielens(arguments) => run_movielens(*arguments, locations, output),
        Source::Barsctr(arguments) => run_barsctr(arguments, locations, output),
        Source::Edges(arguments) => run_edges(arguments, locations, output),
    }
}

fn existing(replace: bool) -> Existing {
    if replace { Existing::Replace } else { Existing::Refuse }
}

fn run_barsctr(
    arguments: Barsctr,
    locations: &Locations,
    output: Output<'_>,
) -> Result<(), Failure> {
    let place = locations.destination(&arguments.out, arguments.replace)?;
    let dir = locations.input(&arguments.dir)?;
    let video = match arguments.set {
        VideoName::Micro => Video::Micro,
        VideoName::Kuai => Video::Kuai,
    };
    let options = barsctr::Options {
        name: None,
        max_behaviors: arguments.max_behaviors,
        existing: existing(arguments.replace),
    };
    let bar = output.bar("import", 0, "{prefix:>10} {msg}");
    let report = barsctr::import(&dir, video, place.local(), &options, &mut |rows| {
        bar.set_message(format!("{} rows read", count(rows)));
    });
    bar.finish_and_clear();
    let report = report?;
    place.publish()?;
    output.finish(&report, || text(&report, &arguments.out));
    Ok(())
}

fn run_edges(arguments: Edges, locations: &Locations, output: Output<'_>) -> Result<(), Failure> {
    let place = locations.destination(&arguments.out, arguments.replace)?;
    let train = locations.input(&arguments.train)?;
    let test = arguments.test.as_ref().map(|test| locations.input(test)).transpose()?;
    let options = edges::Options {
        name: None,
        user: arguments.user,
        item: arguments.item,
        header: arguments.header,
        test_fraction: arguments.test_fraction,
        negatives: NegativeOptions {
            count: arguments.negatives,
            method: match arguments.negatives_from {
                TimelessName::Uniform => Method::Uniform,
                TimelessName::Popularity => Method::Popularity,
                TimelessName::Stratified => Method::Stratified,
            },
            seed: arguments.negatives_seed,
            ..NegativeOptions::default()
        },
        max_behaviors: arguments.max_behaviors,
        existing: existing(arguments.replace),
    };
    let report = edges::import(&train, test.as_deref(), place.local(), &options)?;
    place.publish()?;
    output.finish(&report, || text(&report, &arguments.out));
    Ok(())
}

fn run_movielens(
    arguments: Movielens,
    locations: &Locations,
    output: Output<'_>,
) -> Result<(), Failure> {
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
    let existing = existing(arguments.replace);
    let report = prepare(inputs, options, place.local(), existing, output)?;
    place.publish()?;
    output.finish(&report, || text(&report, &arguments.out));
    Ok(())
}
