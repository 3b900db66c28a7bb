//! `ams vectors`: vectors computed ahead, of a pre-rank network or of an alignment's pictures;
//! those of a tower for TensorBoard.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ams_bundle::Model;
use ams_bundle::vectors::{self, ADS, Exported, USERS};
use ams_data::catalogue::Catalogue;
use ams_data::dataset::{Dataset, SplitName};
use ams_image::FeatureStore;
use ams_location::Locations;
use ams_train::align::{self, Aligned, IMAGES};

use serde::Serialize;

use crate::commands::projector::Projector;
use crate::failure::Failure;
use crate::locations::version;
use crate::output::{Output, count};

/// Compute vectors ahead: the ad and user vectors of a published pre-rank network, those of
/// pictures by the map of `ams align`, or those of a model's image tower for TensorBoard.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The bundle: a version folder, or a model folder for its newest version.
    #[arg(long, value_name = "DIR", required_unless_present = "images")]
    model: Option<PathBuf>,
    /// The run folder of an alignment: aligned vectors of all pictures of the dataset's items.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["model", "split"])]
    images: Option<PathBuf>,
    /// The feature store that the map reads; `images` inside the dataset unless given.
    #[arg(long, value_name = "DIR", requires = "images")]
    store: Option<PathBuf>,
    /// The dataset whose items and users are meant.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Which users: those of the test, or of the training samples.
    #[arg(long, value_enum, default_value_t = Split::Test)]
    split: Split,
    /// Where ads.parquet and users.parquet go, or images.parquet.
    #[arg(long, value_name = "DIR", required_unless_present = "tensorboard")]
    out: Option<PathBuf>,
    /// Write the vectors of the items' pictures, by the model's first image tower, into this folder
    /// for the projector of TensorBoard.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["images", "out", "split"])]
    tensorboard: Option<PathBuf>,
    /// The folder that the names of pictures are relative to, to show small copies of them.
    #[arg(long, value_name = "DIR", requires = "tensorboard")]
    pictures: Option<PathBuf>,
}

impl Arguments {
    /// Where vectors go that are not TensorBoard's.
    fn out(&self) -> &Path {
        self.out.as_deref().expect("clap asks for one of them")
    }
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
    out: &'a Path,
    #[serde(flatten)]
    exported: Exported,
}

pub(crate) fn run(
    arguments: Arguments,
    locations: &Locations,
    output: Output<'_>,
) -> Result<(), Failure> {
    if let Some(run) = &arguments.images {
        return of_images(run, &arguments, locations, output);
    }
    let model = arguments.model.as_ref().expect("clap asks for one of them");
    let model = Model::open(&version(locations, model)?)?;
    let dataset = Dataset::open(&locations.input(&arguments.data)?)?;
    if let Some(out) = &arguments.tensorboard {
        let pictures = arguments.pictures.as_ref().map(|it| locations.input(it)).transpose()?;
        let place = locations.destination(out, true)?;
        let projector = Projector { model: &model, dataset: &dataset, pictures, out };
        projector.write(place.local(), output)?;
        return Ok(place.publish()?);
    }
    let out = arguments.out();
    let split = match arguments.split {
        Split::Train => SplitName::Train,
        Split::Test => SplitName::Test,
    };
    let place = locations.destination(out, true)?;
    let exported = vectors::export(&model, &dataset, split, place.local())?;
    place.publish()?;
    let (model, version) = (model.name(), model.version());
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

/// What `--json` prints of aligned vectors.
#[derive(Debug, Serialize)]
struct OfImages<'a> {
    run: &'a Path,
    out: &'a Path,
    #[serde(flatten)]
    exported: align::Exported,
}

/// Writes the vectors of pictures by the map in the folder `run`.
fn of_images(
    run: &Path,
    arguments: &Arguments,
    locations: &Locations,
    output: Output<'_>,
) -> Result<(), Failure> {
    let aligned = Aligned::open(&locations.input(run)?)?;
    let dataset = Dataset::open(&locations.input(&arguments.data)?)?;
    let store = match &arguments.store {
        Some(store) => locations.input(store)?,
        None => dataset.dir().join("images"),
    };
    let store = FeatureStore::open(&store)?;
    let catalogue = Catalogue::open(&dataset)?;
    let names = (0..catalogue.len()).filter_map(|row| catalogue.image(row)).map(str::to_owned);
    let names: BTreeSet<String> = names.collect();
    let out = arguments.out();
    let place = locations.destination(out, true)?;
    let exported = align::vectors(&aligned, &store, names, place.local())?;
    place.publish()?;
    output.finish(&OfImages { run, out, exported }, || {
        let align::Exported { images, without, dim } = exported;
        let file = out.join(IMAGES);
        let without = match without {
            0 => String::new(),
            count_of => format!("; {} pictures have no feature", count(count_of as u64)),
        };
        format!(
            "{}: {} vectors of {dim} numbers{without}\nams encode {} --features {} --out STORE makes a \
             feature store of them\n",
            file.display(),
            count(images as u64),
            arguments.data.display(),
            file.display(),
        )
    });
    Ok(())
}
