//! `ams delta`: what changed since a bundle was published.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ams_bundle::request::{Cell, Text};
use ams_bundle::{Carried, Changes, Model};
use ams_data::catalogue::Catalogue;
use ams_data::dataset::Dataset;
use ams_data::schema::ITEM;
use ams_data::{PictureName, Side};
use ams_image::FeatureStore;
use ams_location::Locations;
use serde::Serialize;

use crate::commands::images::lines;
use crate::failure::Failure;
use crate::output::{Output, count};

/// Tell a published model of new pictures and items, and of those that are gone, without training:
/// a server that polls takes it up at once.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    disable_help_subcommand = true
)]
pub(crate) struct Arguments {
    /// The bundle: a version folder, or a model folder for its newest version.
    #[arg(required = true)]
    model: Option<PathBuf>,
    /// A feature store: its pictures that the model does not know, or knows otherwise, are
    /// embedded by the model's towers.
    #[arg(long, value_name = "STORE")]
    images: Option<PathBuf>,
    /// A prepared dataset: its items that the model does not know, or knows otherwise.
    #[arg(long, value_name = "DATASET")]
    items: Option<PathBuf>,
    /// Names of pictures that are gone, one a line.
    #[arg(long, value_name = "FILE")]
    remove_pictures: Option<PathBuf>,
    /// Items that are gone, one a line.
    #[arg(long, value_name = "FILE")]
    remove_items: Option<PathBuf>,
    /// Takes the pictures and items over from the deltas of the version before, a version folder. A
    /// name whose image the model does not know is carried if --images has the picture.
    #[arg(long, value_name = "VERSION")]
    carry: Option<PathBuf>,
    #[command(subcommand)]
    action: Option<Action>,
}

/// Operations on the deltas that are there.
#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Open a version and each of its deltas, and list their contents; fail at the first that is
    /// damaged or missing.
    Verify {
        /// The bundle: a version folder, or a model folder for its newest version.
        model: PathBuf,
    },
    /// Make all deltas of a version one. Servers go on as they were.
    Compact {
        /// The bundle: a version folder, or a model folder for its newest version.
        model: PathBuf,
    },
}

/// The object that `ams delta` prints with `--json`.
#[derive(Debug, Serialize)]
struct Written {
    path: PathBuf,
    /// The number of the delta; none if nothing has changed.
    delta: Option<u64>,
    pictures: usize,
    items: usize,
    removed_pictures: usize,
    removed_items: usize,
    /// With `--carry`: what the version before brought.
    #[serde(skip_serializing_if = "Option::is_none")]
    carried: Option<CarriedOver>,
}

/// What deltas of the version before brought.
#[derive(Debug, Serialize)]
struct CarriedOver {
    /// Names of pictures, with those that are gone.
    pictures: u64,
    /// Items, with those that are gone.
    items: u64,
    /// Names whose images the model does not know.
    left: u64,
}

/// The object that `ams delta verify` prints with `--json`.
#[derive(Debug, Serialize)]
struct Verified {
    path: PathBuf,
    version: u64,
    /// Hash of the bundle's manifest, in hexadecimal.
    hash: String,
    deltas: Vec<VerifiedDelta>,
}

/// One delta that is good.
#[derive(Debug, Serialize)]
struct VerifiedDelta {
    number: u64,
    hash: String,
    /// How many it was written as, before they were compacted.
    compacted: usize,
    ids: u64,
    images: u64,
    pictures: u64,
    items: u64,
}

/// What was made one.
#[derive(Debug, Serialize)]
struct Compacted {
    path: PathBuf,
    /// Folders of deltas before.
    before: u64,
    /// The number of the last delta.
    deltas: u64,
}

pub(crate) fn run(
    arguments: Arguments,
    locations: &Locations,
    output: Output<'_>,
) -> Result<(), Failure> {
    match &arguments.action {
        Some(Action::Verify { model }) => verify(model, output),
        Some(Action::Compact { model }) => compact(model, output),
        None => change(&arguments, locations, output),
    }
}

fn verify(model: &Path, output: Output<'_>) -> Result<(), Failure> {
    let mut verified = None;
    ams_bundle::verify(&ams_location::local(model)?, |model| {
        let verified = verified.get_or_insert_with(|| Verified {
            path: model.path().to_path_buf(),
            version: model.version(),
            hash: model.hash().to_owned(),
            deltas: Vec::new(),
        });
        verified.deltas.extend(model.last_delta().map(|(hash, meta)| VerifiedDelta {
            number: meta.number,
            hash: hash.to_owned(),
            compacted: meta.covers.len(),
            ids: meta.ids,
            images: meta.images,
            pictures: meta.pictures,
            items: meta.items,
        }));
    })?;
    let verified = verified.expect("a model is opened or an error is said");
    output.finish(&verified, || {
        let mut text = format!("{}: bundle {}\n", verified.path.display(), verified.hash);
        for delta in &verified.deltas {
            let compacted = match delta.compacted {
                0 => String::new(),
                many => format!(" ({many} in one)"),
            };
            text += &format!(
                "delta {}{compacted}: {}, {} rows, {} images, {} names of pictures, {} items\n",
                delta.number,
                delta.hash,
                count(delta.ids),
                count(delta.images),
                count(delta.pictures),
                count(delta.items)
            );
        }
        text
    });
    Ok(())
}

fn compact(model: &Path, output: Output<'_>) -> Result<(), Failure> {
    let done = ams_bundle::compact(&ams_location::local(model)?)?;
    let compacted = Compacted {
        path: done.model.path().to_path_buf(),
        before: done.before,
        deltas: done.model.deltas(),
    };
    output.finish(&compacted, || match compacted.before {
        0 | 1 => format!("{}: has nothing to compact\n", compacted.path.display()),
        many => format!("{}: {} deltas are one\n", compacted.path.display(), count(many)),
    });
    Ok(())
}

fn change(arguments: &Arguments, locations: &Locations, output: Output<'_>) -> Result<(), Failure> {
    let model = arguments.model.as_ref().expect("required without an action");
    // Says what is in the way of another delta, before anything is read or embedded.
    let model = ams_bundle::verify(&ams_location::local(model)?, |_| ())?;
    let mut changes = Changes::default();
    let pictures = match &arguments.images {
        Some(store) => new_pictures(&model, &locations.input(store)?, &mut changes)?,
        None => 0,
    };
    // After the images that it may need, and before what counts more.
    let carried = match &arguments.carry {
        Some(version) => Some(carry(&model, version, &mut changes)?),
        None => None,
    };
    let items = match &arguments.items {
        Some(dataset) => new_items(&model, &locations.input(dataset)?, &mut changes)?,
        None => 0,
    };
    let lines =
        |path: &Option<PathBuf>| path.as_ref().map_or(Ok(Vec::new()), |it| lines(it, locations));
    let (gone_pictures, gone_items) =
        (lines(&arguments.remove_pictures)?, lines(&arguments.remove_items)?);
    let (mut removed_pictures, mut removed_items) = (0, 0);
    for name in &gone_pictures {
        removed_pictures += usize::from(changes.remove_picture(&model, PictureName::of(name)));
    }
    for item in &gone_items {
        removed_items += usize::from(changes.remove_item(&model, item)?);
    }
    let delta = if changes.is_empty() { None } else { Some(model.change(&changes)?.deltas()) };
    let path = model.path().to_path_buf();
    let written =
        Written { path, delta, pictures, items, removed_pictures, removed_items, carried };
    output.finish(&written, || {
        let mut text = match delta {
            None => format!("{}: knows all of this already\n", written.path.display()),
            Some(number) => format!(
                "{}: delta {number}, {} pictures, {} items, and {} and {} removed\n",
                written.path.display(),
                count(pictures as u64),
                count(items as u64),
                count(removed_pictures as u64),
                count(removed_items as u64),
            ),
        };
        if let Some(CarriedOver { pictures, items, left }) = written.carried {
            text += &format!("carried: {} pictures, {} items\n", count(pictures), count(items));
            if left > 0 {
                text += &format!(
                    "{} pictures stay behind: a delta holds what the towers of its version made of them, not their features; \
                     `--images STORE` beside `--carry` embeds them again\n",
                    count(left)
                );
            }
        }
        text
    });
    Ok(())
}

/// Adds what the deltas of the version at `path` told.
fn carry(model: &Model, path: &Path, changes: &mut Changes) -> Result<CarriedOver, Failure> {
    let from = Model::open(&ams_location::local(path)?)?;
    if from.path() == model.path() {
        let what = format!(
            "--carry {}: is the version that is to be told; name the one before",
            path.display()
        );
        return Err(Failure::user(what));
    }
    let Carried { pictures, left, items } = changes.carry(model, &from)?;
    Ok(CarriedOver { pictures, items, left })
}

/// Adds the pictures of the store at `path` that are new or changed. Returns how many.
fn new_pictures(model: &Model, path: &Path, changes: &mut Changes) -> Result<usize, Failure> {
    let store = FeatureStore::open(path)?;
    let Some(source) = &model.spec().image_source else {
        let what = format!("{}: sees no pictures", model.path().display());
        return Err(Failure::user(what));
    };
    let card = store.card();
    if card.encoder_hash != source.encoder_hash {
        let what = format!(
            "{}: features by {} ({}), expected those of the model, by {} ({})",
            path.display(),
            card.encoder,
            card.encoder_hash,
            source.encoder,
            source.encoder_hash
        );
        return Err(Failure::user(what));
    }
    let mut added = 0;
    for (name, key) in store.pictures() {
        if model.image(name) == key && model.knows(key) {
            continue;
        }
        let row = store.row(key).expect("the store names this picture").halfs();
        let feature: Vec<f32> = row.iter().map(|half| half.to_f32()).collect();
        added += usize::from(changes.picture(model, 0, name, key, &feature)?);
    }
    Ok(added)
}

/// Adds the items of the dataset at `path` that are new or changed. Returns how many.
fn new_items(model: &Model, path: &Path, changes: &mut Changes) -> Result<usize, Failure> {
    let dataset = Dataset::open(path)?;
    let schema = dataset.schema();
    let fields = |schema: &ams_data::Schema| -> Vec<ams_data::Field> {
        schema.side(Side::Ad).filter(|field| field.name != ITEM).cloned().collect()
    };
    // Edges of numeric fields may differ: values are numbers, and the model's edges count.
    let (given, expected) = (fields(schema), fields(&model.spec().fields));
    let alike = given.len() == expected.len()
        && given.iter().zip(&expected).all(|(given, expected)| given.reads_alike(expected));
    if !alike {
        let names = |fields: Vec<ams_data::Field>| {
            let name = |field: ams_data::Field| match (&field.kind, field.multi) {
                (Some(ams_data::FieldKind::Numeric { .. }), _) => field.name + " (numeric)",
                (_, true) => field.name + " (multi)",
                _ => field.name,
            };
            fields.into_iter().map(name).collect::<Vec<_>>().join(", ")
        };
        let what = format!(
            "{}: item fields are {}, expected {} of the model",
            path.display(),
            names(given),
            names(expected)
        );
        return Err(Failure::user(what));
    }
    let catalogue = Catalogue::open(&dataset)?;
    let mut added = 0;
    for row in 0..catalogue.len() {
        let of_field = |(place, field): (usize, &ams_data::Field)| {
            let values = catalogue.values(place, row).map(|value| Text(value.to_owned()));
            (field.name.clone(), Cell::List(values.collect()))
        };
        let fields: BTreeMap<String, Cell> =
            catalogue.fields().iter().enumerate().map(of_field).collect();
        let (item, picture) = (catalogue.item(row), catalogue.image(row));
        if changes.item(model, item, picture, &fields)? {
            added += 1;
        }
    }
    Ok(added)
}
