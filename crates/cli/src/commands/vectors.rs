//! `ams vectors`: the vectors of a pre-rank network, computed ahead.

use std::path::PathBuf;

use ams_bundle::Model;
use ams_bundle::vectors::{self, ADS, Exported, USERS};
use ams_data::dataset::{Dataset, SplitName};
use ams_location::Locations;
use serde::Serialize;

use crate::failure::Failure;
use crate::output::{Output, count};

/// Compute the ad and user vectors of a published pre-rank network ahead.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The bundle: a version folder, or a model folder for its newest version.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// The dataset whose items and users are meant.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Which users: those of the test, or of the training samples.
    #[arg(long, value_enum, default_value_t = Split::Test)]
    split: Split,
    /// Where ads.parquet and users.parquet go.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Split {
    Train,
    Test,
}

/// The object that `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    model: &'a str,
    version: u64,
    out: &'a std::path::Path,
    #[serde(flatten)]
    exported: Exported,
}

pub(crate) fn run(
    arguments: Arguments,
    locations: &Locations,
    output: Output,
) -> Result<(), Failure> {
    let model = Model::open(&locations.input_version(&arguments.model)?)?;
    let dataset = Dataset::open(&locations.input(&arguments.data)?)?;
    let split = match arguments.split {
        Split::Train => SplitName::Train,
        Split::Test => SplitName::Test,
    };
    let place = locations.destination(&arguments.out, true)?;
    let exported = vectors::export(&model, &dataset, split, place.local())?;
    place.publish()?;
    let (model, version, out) = (model.name(), model.version(), &arguments.out);
    output.finish(&Report { model, version, out, exported }, || {
        let Exported { ads, users, dim } = exported;
        let (ads, users) = (count(ads as u64), count(users as u64));
        format!(
            "{}: {ads} vectors in {ADS}, {users} in {USERS}, {dim} numbers each\n",
            out.display()
        )
    });
    Ok(())
}
