//! `ams delta`: what changed since a bundle was published.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ams_bundle::{Changes, Model};
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

/// Tell a published model of new pictures and items, and of those that are gone, without training: a server that polls
/// takes it up at once.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The bundle: a version folder, or a model folder for its newest version.
    model: PathBuf,
    /// A feature store: its pictures that the model does not know, or knows otherwise, are embedded by the model's towers.
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
}

/// What was written.
#[derive(Debug, Serialize)]
struct Written {
    /// The version folder.
    path: PathBuf,
    /// The number of the delta; none if nothing has changed.
    delta: Option<u64>,
    pictures: usize,
    items: usize,
    removed_pictures: usize,
    removed_items: usize,
}

/// Runs the command.
pub fn run(arguments: Arguments, locations: &Locations, output: Output) -> Result<(), Failure> {
    let model = Model::open(&ams_location::local(&arguments.model)?)?;
    let mut changes = Changes::default();
    let pictures = match &arguments.images {
        Some(store) => new_pictures(&model, &locations.input(store)?, &mut changes)?,
        None => 0,
    };
    let items = match &arguments.items {
        Some(dataset) => new_items(&model, &locations.input(dataset)?, &mut changes)?,
        None => 0,
    };
    let lines =
        |path: &Option<PathBuf>| path.as_ref().map_or(Ok(Vec::new()), |it| lines(it, locations));
    let (gone_pictures, gone_items) =
        (lines(&arguments.remove_pictures)?, lines(&arguments.remove_items)?);
    for name in &gone_pictures {
        changes.remove_picture(&model, PictureName::of(name));
    }
    for item in &gone_items {
        changes.remove_item(&model, item)?;
    }
    let delta = match changes.is_empty() {
        true => None,
        false => Some(model.change(&changes)?.deltas()),
    };
    let written = Written {
        path: model.path().to_path_buf(),
        delta,
        pictures,
        items,
        removed_pictures: gone_pictures.len(),
        removed_items: gone_items.len(),
    };
    output.finish(&written, || match delta {
        None => format!("{}: knows all of this already\n", written.path.display()),
        Some(number) => format!(
            "{}: delta {number}, {} pictures, {} items, and {} and {} removed\n",
            written.path.display(),
            count(pictures as u64),
            count(items as u64),
            count(written.removed_pictures as u64),
            count(written.removed_items as u64),
        ),
    });
    Ok(())
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
        changes.picture(model, 0, name, key, &feature)?;
        added += 1;
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
            let values = catalogue.values(place, row).map(str::to_owned).collect();
            (field.name.clone(), values)
        };
        let fields: BTreeMap<String, Vec<String>> =
            catalogue.fields().iter().enumerate().map(of_field).collect();
        let (item, picture) = (catalogue.item(row), catalogue.image(row));
        if changes.item(model, item, picture, &fields)? {
            added += 1;
        }
    }
    Ok(added)
}
