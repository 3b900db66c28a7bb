//! `ams delta`: what changed since a bundle was published, or from one version to another.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ams_bundle::request::{Cell, Text};
use ams_bundle::{
    Carried, Changes, Model, Rounded, RowCounts, RowFormat, VersionDelta, VersionDeltaOptions,
    version_delta,
};
use ams_data::catalogue::Catalogue;
use ams_data::dataset::Dataset;
use ams_data::schema::ITEM;
use ams_data::{PictureName, Side};
use ams_image::FeatureStore;
use ams_location::{Destination, Locations, Unfinished, is_remote};
use serde::Serialize;

use crate::commands::images::lines;
use crate::commands::publish::Rows;
use crate::failure::Failure;
use crate::locations::version;
use crate::output::{Output, count, table};

/// Tell a published model of new pictures and items, and of those that are gone, without training:
/// a server that polls takes it up at once. Or, with --from, write a trained version as its
/// difference from an earlier one.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    disable_help_subcommand = true
)]
pub(crate) struct Arguments {
    /// The bundle: a version folder, or a model folder for its newest version.
    #[arg(required_unless_present = "from")]
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
    /// The version that servers have: --to is written as its difference from this one.
    #[arg(long, value_name = "VERSION", requires_all = ["to", "out"],
        conflicts_with_all = ["model", "images", "items", "remove_pictures", "remove_items", "carry"])]
    from: Option<PathBuf>,
    /// The new version, of the same shape.
    #[arg(long, value_name = "VERSION", requires = "from")]
    to: Option<PathBuf>,
    /// The place of the version delta: a version folder beside the one that it follows, and above
    /// it.
    #[arg(long, value_name = "VERSION", requires = "from")]
    out: Option<PathBuf>,
    /// How changed and new rows of ids are told: half the bytes, for scores that differ a little.
    #[arg(long, value_name = "TYPE", requires = "from", default_value = "f32")]
    rows: Rows,
    /// Most by which a number of an image's embeddings may differ where the image keeps those of
    /// --from; 0 tells all that moved.
    #[arg(long, value_name = "DIFFERENCE", requires = "from", default_value_t = 0.0, value_parser = tolerance)]
    image_tolerance: f32,
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
    /// Make a whole version of a version delta; its hash and its scores stay.
    Unpack {
        /// The version delta: a version folder.
        model: PathBuf,
        /// The place of the whole version, a version folder.
        #[arg(long, value_name = "VERSION")]
        out: PathBuf,
    },
}

/// Reads a difference that is tolerated.
fn tolerance(text: &str) -> Result<f32, String> {
    let number: f32 = text.parse().map_err(|_| "expected a number".to_owned())?;
    if number.is_finite() && number >= 0.0 {
        Ok(number)
    } else {
        Err("expected a finite number of 0 or more".to_owned())
    }
}

/// The object that `ams delta --from` prints with `--json`.
#[derive(Debug, Serialize)]
struct Between {
    path: PathBuf,
    /// Hash of the version that opens from it.
    hash: String,
    /// The version that it follows, and its hash.
    base: u64,
    base_hash: String,
    /// Hash of the version that was told: `hash`, unless numbers were rounded.
    target: String,
    /// Bytes of its files.
    bytes: u64,
    /// Bytes of the whole version.
    whole_bytes: u64,
    /// Rows of each table.
    tables: BTreeMap<String, RowCounts>,
    /// Files of the version that are told whole.
    whole_files: Vec<String>,
    /// Largest differences from the version that was told; none if it is exact.
    rounded: Option<Rounded>,
}

/// The object that `ams delta unpack` prints with `--json`.
#[derive(Debug, Serialize)]
struct Unpacked {
    path: PathBuf,
    hash: String,
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
    /// The versions that a version delta needs, from the one it follows down to a whole one.
    bases: Vec<u64>,
    /// By how much it differs from the version that it was made of, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    rounded: Option<Rounded>,
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
        Some(Action::Verify { model }) => verify(model, locations, output),
        Some(Action::Compact { model }) => compact(model, locations, output),
        Some(Action::Unpack { model, out }) => unpack(model, out, locations, output),
        None => match (&arguments.from, &arguments.to, &arguments.out) {
            (Some(from), Some(to), Some(out)) => {
                between([from, to, out], &arguments, locations, output)
            }
            _ => change(&arguments, locations, output),
        },
    }
}

/// Writes the version `to` at `out` as its difference from `from`.
fn between(
    [from, to, out]: [&Path; 3],
    arguments: &Arguments,
    locations: &Locations,
    output: Output<'_>,
) -> Result<(), Failure> {
    let [from, to] = [version(locations, from)?, version(locations, to)?];
    let options = VersionDeltaOptions {
        rows: RowFormat::from(arguments.rows),
        image_tolerance: arguments.image_tolerance,
    };
    let place = locations.destination(out, false)?;
    let written = ams_bundle::write_version_delta(&from, &to, place.local(), options)?;
    place.publish()?;
    let VersionDelta { meta, hash, bytes, whole_bytes, whole } = written;
    let between = Between {
        path: out.to_path_buf(),
        hash,
        base: meta.base_version.number,
        base_hash: meta.base_version.hash,
        target: meta.target,
        bytes,
        whole_bytes,
        tables: meta.tables,
        whole_files: whole,
        rounded: meta.rounded,
    };
    output.finish(&between, || between_text(&between));
    Ok(())
}

fn between_text(between: &Between) -> String {
    let row = |(name, counts): (&String, &RowCounts)| {
        let RowCounts { same, changed, new, gone } = *counts;
        let counts = [same, changed, new, gone].map(count);
        std::iter::once(name.clone()).chain(counts).collect::<Vec<_>>()
    };
    let rows: Vec<Vec<String>> = between.tables.iter().map(row).collect();
    let share = between.bytes as f64 / between.whole_bytes as f64;
    format!(
        "{}{}: follows version {}; {} bytes, {:.1} % of the {} of the whole version\n{}hash {}\n",
        table(&["rows", "same", "changed", "new", "gone"], &rows),
        between.path.display(),
        between.base,
        count(between.bytes),
        100.0 * share,
        count(between.whole_bytes),
        match &between.rounded {
            None => "exact: opens with the bits of the whole version\n".to_owned(),
            Some(rounded) => rounded_text(rounded),
        },
        between.hash
    )
}

/// By how much a version differs from the one it was made of.
fn rounded_text(rounded: &Rounded) -> String {
    let Rounded { rows, embeddings, logits } = rounded;
    format!(
        "rounded: rows differ by up to {rows:.2e}, image embeddings by up to {embeddings:.2e}, \
         golden logits by up to {logits:.2e}\n"
    )
}

/// Writes the version delta `from` as a whole version.
fn unpack(
    from: &Path,
    out: &Path,
    locations: &Locations,
    output: Output<'_>,
) -> Result<(), Failure> {
    let from = version(locations, from)?;
    let place = locations.destination(out, false)?;
    let manifest = ams_bundle::unpack(&from, place.local())?;
    place.publish()?;
    let unpacked = Unpacked { path: out.to_path_buf(), hash: manifest.hash() };
    output.finish(&unpacked, || {
        format!("{}: a whole version, hash {}\n", unpacked.path.display(), unpacked.hash)
    });
    Ok(())
}

/// The version `named`, or the newest one of the model `named`, to be changed: of one in a bucket
/// its copy in the cache, beside the versions that it needs.
fn to_change<'l>(locations: &'l Locations, named: &Path) -> Result<Destination<'l>, Failure> {
    let mut named = named.to_path_buf();
    if is_remote(&named) {
        let place = version(locations, &named)?;
        let own = place.file_name().unwrap_or_default();
        if named.file_name() != Some(own) {
            named.push(own);
        }
    }
    Ok(locations.update(&named, Unfinished::GoesOn)?)
}

/// The path of `model` to show: that of its files, or its address.
fn shown(place: &Destination<'_>, model: &Model) -> PathBuf {
    if is_remote(place.named()) { place.named().to_path_buf() } else { model.path().to_path_buf() }
}

fn verify(model: &Path, locations: &Locations, output: Output<'_>) -> Result<(), Failure> {
    let mut verified = None;
    ams_bundle::verify(&version(locations, model)?, |model| {
        let verified = verified.get_or_insert_with(|| Verified {
            path: model.path().to_path_buf(),
            version: model.version(),
            hash: model.hash().to_owned(),
            bases: Vec::new(),
            rounded: None,
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
    let mut verified = verified.expect("a model is opened or an error is said");
    verified.bases = ams_bundle::bases(&verified.path)?;
    verified.rounded = version_delta(&verified.path)?.and_then(|meta| meta.rounded);
    output.finish(&verified, || {
        let mut text = format!("{}: bundle {}\n", verified.path.display(), verified.hash);
        if !verified.bases.is_empty() {
            let bases: Vec<String> = verified.bases.iter().map(u64::to_string).collect();
            text += &format!("version delta: needs version {}\n", bases.join(", "));
        }
        text += &verified.rounded.as_ref().map(rounded_text).unwrap_or_default();
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

fn compact(model: &Path, locations: &Locations, output: Output<'_>) -> Result<(), Failure> {
    let place = to_change(locations, model)?;
    let done = ams_bundle::compact(place.local())?;
    place.publish()?;
    let compacted = Compacted {
        path: shown(&place, &done.model),
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
    let place = to_change(locations, model)?;
    // Says what is in the way of another delta, before anything is read or embedded.
    let model = ams_bundle::verify(place.local(), |_| ())?;
    let mut changes = Changes::default();
    let pictures = match &arguments.images {
        Some(store) => new_pictures(&model, &locations.input(store)?, &mut changes)?,
        None => 0,
    };
    // After the images that it may need, and before what counts more.
    let carried = match &arguments.carry {
        Some(from) => Some(carry(&model, &version(locations, from)?, &mut changes)?),
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
    // Also what an earlier command could not publish.
    place.publish()?;
    let path = shown(&place, &model);
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
    let from = Model::open(path)?;
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
