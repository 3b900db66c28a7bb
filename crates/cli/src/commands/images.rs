//! `ams images`: look after a feature store.

use std::path::PathBuf;

use ams_bundle::Model;
use ams_data::{ImageKey, PictureName};
use ams_image::edit::{self, Changed};
use ams_image::neighbors as near;
use ams_image::{FeatureStore, RowType};
use ams_location::{Locations, Unfinished};
use serde::Serialize;

use crate::failure::Failure;
use crate::locations::version;
use crate::output::{Output, bytes, count, table};

/// Look after a feature store: check it, take pictures out of it, make it compact.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    Verify(Verify),
    Remove(Remove),
    Compact(Compact),
    Neighbors(Neighbors),
}

/// Read everything: checksums, every number finite, every picture with a row.
#[derive(Debug, clap::Args)]
struct Verify {
    /// The folder of a feature store, as `ams encode` writes it.
    store: PathBuf,
}

/// Take pictures out; their rows stay in the files, unseen, until `compact`.
#[derive(Debug, clap::Args)]
struct Remove {
    /// The folder of a feature store, as `ams encode` writes it.
    store: PathBuf,
    /// Names of pictures, as the items spell them.
    #[arg(required_unless_present = "list")]
    names: Vec<String>,
    /// Further names, one a line.
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
}

/// Write every part as one file, without the rows that no picture shows.
#[derive(Debug, clap::Args)]
struct Compact {
    /// The folder of a feature store, as `ams encode` writes it.
    store: PathBuf,
}

/// Which pictures are near another one: by the encoder, and by each tower of a model.
#[derive(Debug, clap::Args)]
struct Neighbors {
    /// The picture's name, as the items spell it.
    key: String,
    /// The folder of a feature store, as `ams encode` writes it.
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// A bundle whose towers are compared by, too: a version folder, or a model folder for its
    /// newest version.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Number of neighbors by features, and of those by each tower.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=100))]
    count: u16,
    /// Draws them on this PNG file.
    #[arg(long, value_name = "FILE", requires = "images")]
    sheet: Option<PathBuf>,
    /// The folder of pictures, for `--sheet`.
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
}

/// What is near a picture.
#[derive(Debug, Serialize)]
struct Near {
    picture: String,
    key: String,
    by: Vec<NearBy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sheet: Option<PathBuf>,
}

/// What is near by one vector.
#[derive(Debug, Serialize)]
struct NearBy {
    /// `encoder`, or the name of a tower.
    vector: String,
    neighbors: Vec<Neighbor>,
}

/// One picture near another.
#[derive(Debug, Serialize)]
struct Neighbor {
    picture: String,
    cosine: f32,
}

/// What `verify` found sound.
#[derive(Debug, Serialize)]
struct Verified {
    generation: u64,
    encoder: String,
    dim: usize,
    rows: RowType,
    images: u64,
    names: u64,
    dead: u64,
    bytes: u64,
    files: usize,
}

pub(crate) fn run(
    arguments: Arguments,
    locations: &Locations,
    output: Output<'_>,
) -> Result<(), Failure> {
    match arguments.action {
        Action::Verify(Verify { store }) => verify(&store, locations, output),
        Action::Remove(Remove { store, mut names, list }) => {
            if let Some(list) = list {
                names.extend(lines(&list, locations)?);
            }
            let place = locations.update(&store, Unfinished::IsDropped)?;
            let changed = edit::remove(place.local(), &names)?;
            place.publish()?;
            output.finish(&changed, || text(&store, &changed));
            Ok(())
        }
        Action::Neighbors(arguments) => neighbors(arguments, locations, output),
        Action::Compact(Compact { store }) => {
            let place = locations.update(&store, Unfinished::IsDropped)?;
            let changed = edit::compact(place.local())?;
            place.publish()?;
            output.finish(&changed, || text(&store, &changed));
            Ok(())
        }
    }
}

/// The names in a file, one a line.
pub(crate) fn lines(path: &std::path::Path, locations: &Locations) -> Result<Vec<String>, Failure> {
    let mut lines = ams_image::listing::lines_of(&locations.input(path)?)?;
    lines.retain(|line| !line.is_empty());
    Ok(lines)
}

fn verify(
    path: &std::path::Path,
    locations: &Locations,
    output: Output<'_>,
) -> Result<(), Failure> {
    let store = FeatureStore::open(&locations.input(path)?)?;
    store.verify()?;
    let card = store.card();
    let verified = Verified {
        generation: card.generation,
        encoder: card.encoder.clone(),
        dim: card.dim,
        rows: card.rows,
        images: card.images,
        names: card.names,
        dead: card.dead,
        bytes: card.files.values().map(|file| file.bytes).sum(),
        files: card.files.len(),
    };
    output.finish(&verified, || {
        format!(
            "{}: sound; {} images of {} numbers by {}, {} pictures, {} in {} files, version {}\n",
            path.display(),
            count(verified.images),
            verified.dim,
            verified.encoder,
            count(verified.names),
            bytes(verified.bytes as f64),
            verified.files,
            verified.generation,
        )
    });
    Ok(())
}

fn neighbors(
    arguments: Neighbors,
    locations: &Locations,
    output: Output<'_>,
) -> Result<(), Failure> {
    let dir = locations.input(&arguments.store)?;
    let store = FeatureStore::open(&dir)?;
    let key = store.key(PictureName::of(&arguments.key));
    if !key.is_some() {
        let (store, name) = (arguments.store.display(), &arguments.key);
        return Err(Failure::user(format!("{store}: has no feature of a picture \"{name}\"")));
    }
    let model = arguments.model.as_deref().map(|model| version(locations, model));
    let model = model.transpose()?.map(|model| Model::open(&model)).transpose()?;
    let (keys, names) = (near::keys(&store), near::names(&dir, &store)?);
    let by = |vector: &str, of: &(dyn Fn(ImageKey, &mut Vec<f32>) -> bool + Sync)| {
        let found = near::nearest(key, &keys, arguments.count.into(), of);
        let named = |near::Neighbor { key, cosine }| {
            let picture = names.get(&key).cloned().unwrap_or_else(|| format!("{:016x}", key.0));
            Neighbor { picture, cosine }
        };
        NearBy { vector: vector.to_owned(), neighbors: found.into_iter().map(named).collect() }
    };
    let mut all = vec![by("encoder", &|key, out| near::feature(&store, key, out))];
    if let Some(model) = &model {
        for (tower, name) in model.image_towers().iter().enumerate() {
            let embedding = |key, out: &mut Vec<f32>| {
                out.clear();
                let found = model.embedding(tower, key);
                out.extend(found.into_iter().flatten());
                found.is_some()
            };
            all.push(by(name, &embedding));
        }
    }
    if let (Some(path), Some(images)) = (&arguments.sheet, &arguments.images) {
        let images = locations.input(images)?;
        let place = locations.destination(path, true)?;
        let line = |by: &NearBy| {
            let picture =
                |it: &Neighbor| near::Near { picture: it.picture.clone(), cosine: it.cosine };
            let near = by.neighbors.iter().map(picture).collect();
            near::Line { picture: arguments.key.clone(), near }
        };
        let lines: Vec<near::Line> = all.iter().map(line).collect();
        near::write_sheet(&images, &lines, place.local())?;
        place.publish()?;
    }
    let found = Near {
        picture: arguments.key,
        key: format!("{:016x}", key.0),
        by: all,
        sheet: arguments.sheet,
    };
    output.finish(&found, || {
        let rows =
            (0..found.by.iter().map(|by| by.neighbors.len()).max().unwrap_or(0)).map(|row| {
                let cell = |by: &NearBy| {
                    let near = by.neighbors.get(row);
                    near.map_or(String::new(), |it| format!("{} {:.3}", it.picture, it.cosine))
                };
                std::iter::once((row + 1).to_string()).chain(found.by.iter().map(cell)).collect()
            });
        let header = std::iter::once("").chain(found.by.iter().map(|by| &by.vector[..]));
        let rows: Vec<Vec<String>> = rows.collect();
        table(&header.collect::<Vec<&str>>(), &rows)
    });
    Ok(())
}

fn text(path: &std::path::Path, changed: &Changed) -> String {
    format!(
        "{}: {} images, {} pictures ({} removed), {} rows unseen, {}, version {}\n",
        path.display(),
        count(changed.images),
        count(changed.names),
        count(changed.removed),
        count(changed.dead),
        bytes(changed.bytes as f64),
        changed.generation,
    )
}
