//! Vectors of items' pictures for the projector of TensorBoard.
//!
//! ```text
//! tensors.tsv             a vector per line
//! metadata.tsv            a header; item, picture and fields of each vector
//! sprite.png              the pictures in the same order, if a folder of them is given
//! projector_config.pbtxt  names the others; written last
//! ```
//! Other files of the folder stay, so it may be that of a run's curves.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use ams_bundle::Model;
use ams_data::catalogue::Catalogue;
use ams_data::staging::write_whole;
use ams_data::{Dataset, PictureName};
use ams_image::sprite::{cell, write_sprite};
use serde::Serialize;

use crate::failure::Failure;
use crate::output::{Output, count};

/// Items at most: the projector's own limit for its projections.
const ITEMS: usize = 10_000;

/// The object that `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    model: &'a str,
    version: u64,
    tower: &'a str,
    out: &'a Path,
    items: usize,
    dim: usize,
    /// Items with a vector that are left out, evenly over the catalogue.
    left_out: usize,
    /// Items of the sprite without a picture; none without a folder.
    without_picture: Option<usize>,
}

/// What is written, and where.
pub(crate) struct Projector<'a> {
    pub model: &'a Model,
    pub dataset: &'a Dataset,
    /// The folder that the names of pictures are relative to.
    pub pictures: Option<PathBuf>,
    /// The folder as it was named.
    pub out: &'a Path,
}

/// An item that has a vector.
struct Point<'a> {
    row: usize,
    vector: &'a [f32],
}

impl Projector<'_> {
    /// Writes the files into the folder `local`.
    pub(crate) fn write(&self, local: &Path, output: Output<'_>) -> Result<(), Failure> {
        let Projector { model, dataset, pictures, out } = self;
        let towers = model.image_towers();
        let Some(tower) = towers.first() else {
            return Err(Failure::user(format!(
                "model `{}` has no tower of images, whose vectors --tensorboard shows",
                model.name()
            )));
        };
        let catalogue = Catalogue::open(dataset)?;
        let mut points: Vec<Point<'_>> = Vec::new();
        for row in 0..catalogue.len() {
            let picture = PictureName::of(catalogue.image(row).unwrap_or_default());
            if let Some(vector) = model.embedding(0, model.image(picture)) {
                points.push(Point { row, vector });
            }
        }
        let all = points.len();
        if all == 0 {
            return Err(Failure::user(format!(
                "{}: no item has a picture that model `{}` knows; expected the dataset that it was trained on",
                dataset.dir().display(),
                model.name()
            )));
        }
        let taken = all.min(ITEMS);
        let points: Vec<&Point<'_>> = (0..taken).map(|at| &points[at * all / taken]).collect();
        std::fs::create_dir_all(local).map_err(ams_data::Error::io(local))?;
        write_whole(&local.join("tensors.tsv"), tensors(&points))?;
        write_whole(&local.join("metadata.tsv"), metadata(&catalogue, &points))?;
        let side = cell(taken);
        let names: Vec<Option<&str>> =
            points.iter().map(|point| catalogue.image(point.row)).collect();
        let sprite =
            |folder: &PathBuf| write_sprite(folder, &names, side, &local.join("sprite.png"));
        let without_picture = pictures.as_ref().map(sprite).transpose()?;
        let name = format!("{} {} {tower}", model.name(), model.version());
        let config = config(&name, pictures.as_ref().map(|_| side));
        write_whole(&local.join("projector_config.pbtxt"), config)?;
        let dim = points[0].vector.len();
        let report = Report {
            model: model.name(),
            version: model.version(),
            tower,
            out,
            items: taken,
            dim,
            left_out: all - taken,
            without_picture,
        };
        output.finish(&report, || {
            let items = count(taken as u64);
            format!(
                "{}: {items} vectors of tower {tower}, {dim} numbers each\ntensorboard --logdir {}\n",
                out.display(),
                out.display()
            )
        });
        Ok(())
    }
}

fn tensors(points: &[&Point<'_>]) -> String {
    let mut text = String::new();
    for point in points {
        for (at, value) in point.vector.iter().enumerate() {
            let tab = if at == 0 { "" } else { "\t" };
            write!(text, "{tab}{value}").expect("a text takes every number");
        }
        text.push('\n');
    }
    text
}

fn metadata(catalogue: &Catalogue, points: &[&Point<'_>]) -> String {
    let fields = catalogue.fields();
    let header = ["item", "picture"].into_iter().map(str::to_owned);
    let header = header.chain(fields.iter().map(|field| field.name.clone()));
    let mut text = line(header);
    for point in points {
        let names = [catalogue.item(point.row), catalogue.image(point.row).unwrap_or_default()];
        let values = (0..fields.len())
            .map(|field| catalogue.values(field, point.row).collect::<Vec<_>>().join(", "));
        text += &line(names.into_iter().map(str::to_owned).chain(values));
    }
    text
}

/// Cells in a line; what would end a cell or a line is a space.
fn line(cells: impl Iterator<Item = String>) -> String {
    let one = |cell: String| cell.replace(['\t', '\n', '\r'], " ");
    cells.map(one).collect::<Vec<_>>().join("\t") + "\n"
}

/// The configuration in the text form of Protocol Buffers; `side` is that of a sprite's cell.
fn config(name: &str, side: Option<u32>) -> String {
    let name = name.replace('\\', "\\\\").replace('"', "\\\"");
    let mut text = format!(
        "embeddings {{\n  tensor_name: \"{name}\"\n  tensor_path: \"tensors.tsv\"\n  metadata_path: \
         \"metadata.tsv\"\n"
    );
    if let Some(side) = side {
        text += &format!(
            "  sprite {{\n    image_path: \"sprite.png\"\n    single_image_dim: {side}\n    single_image_dim: \
             {side}\n  }}\n"
        );
    }
    text + "}\n"
}
