//! Vectors of a pre-rank network, computed ahead for an index of nearest neighbors.
//!
//! ```text
//! ads.parquet     item    text, every item of the catalogue
//!                 vector  fixed-size list of float (V)
//! users.parquet   user    uint64, hashed, every user of a split, with the newest of their groups
//!                 time    int64, unix seconds of that group's first impression
//!                 vector  fixed-size list of float (V)
//! ```
//! sigmoid(user vector . ad vector) is the predicted click-through rate, before a calibration.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ams_data::Groups;
use ams_data::catalogue::Catalogue;
use ams_data::dataset::{Dataset, SplitName};
use ams_data::samples::SampleFile;
use ams_data::staging::StagedFile;
use arrow_array::{
    ArrayRef, FixedSizeListArray, Float32Array, Int64Array, RecordBatch, StringArray, UInt64Array,
};
use arrow_schema::{DataType, Field};
use parquet::arrow::ArrowWriter;
use parquet::errors::ParquetError;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::model::{Model, Scratch};
use crate::page::resolve::{CANDIDATES_MAX, resolve};
use crate::request::{PageView, Text};

/// The file of the ads' vectors.
pub const ADS: &str = "ads.parquet";
/// The file of the users' vectors.
pub const USERS: &str = "users.parquet";

/// Numbers of exported vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// Rows of [`ADS`], one per item.
    pub ads: usize,
    /// Rows of [`USERS`], one per user.
    pub users: usize,
    /// Numbers of a vector (V).
    pub dim: usize,
}

/// Writes the vectors of all items of `dataset` and of the users of its `split` into the folder
/// `out`, which is made if needed; each file whole or not at all.
///
/// # Errors
/// If the model is no pre-rank network or has other fields than the dataset, or a file cannot be
/// read or written.
pub fn export(model: &Model, dataset: &Dataset, split: SplitName, out: &Path) -> Result<Exported> {
    // Edges of numeric fields may differ: the model's count.
    if !model.spec().fields.reads_alike(dataset.schema()) {
        let what = "has other fields than the data the model was trained on";
        return Err(Error::content(dataset.dir(), what));
    }
    // Before anything is written; also says what a model of another kind is.
    model.vectors(&Groups::new(&model.spec().fields), &mut Scratch::default())?;
    let dim = width(model)?;
    let (items, ad_vectors) = ads(model, &Catalogue::open(dataset)?)?;
    let users = users(model, dataset, split)?;
    std::fs::create_dir_all(out).map_err(Error::io(out))?;
    let exported = Exported { ads: items.len(), users: users.len(), dim };
    let items: ArrayRef = Arc::new(StringArray::from(items));
    write(&out.join(ADS), vec![("item", items)], ad_vectors, dim)?;
    let ids: ArrayRef = Arc::new(UInt64Array::from_iter_values(users.keys().copied()));
    let times: ArrayRef = Arc::new(Int64Array::from_iter_values(users.values().map(|(t, _)| *t)));
    let vectors = users.into_values().flat_map(|(_, vector)| vector).collect();
    write(&out.join(USERS), vec![("user", ids), ("time", times)], vectors, dim)?;
    Ok(exported)
}

/// Every item, and their vectors end to end.
pub(crate) fn ads(model: &Model, catalogue: &Catalogue) -> Result<(Vec<String>, Vec<f32>)> {
    let items: Vec<String> =
        (0..catalogue.len()).map(|row| catalogue.item(row).to_owned()).collect();
    let vectors = of_items(model, &items)?;
    Ok((items, vectors))
}

/// The vectors of `items`, end to end, by what the bundle knows of them.
///
/// # Errors
/// If the model is no pre-rank network, or a text cannot be an item.
pub fn of_items(model: &Model, items: &[String]) -> Result<Vec<f32>> {
    model.require_vectors()?;
    let (mut scratch, mut vectors) = (Scratch::default(), Vec::new());
    for items in items.chunks(CANDIDATES_MAX) {
        let mut page = PageView::default();
        page.candidates.item = items.iter().map(|item| Text(item.clone())).collect();
        let groups = resolve(model, &page)?.groups;
        vectors.extend_from_slice(model.vectors(&groups, &mut scratch)?.1);
    }
    Ok(vectors)
}

/// The vector of the user of a page view (V), which no candidate and no context has a part in. A
/// page view without candidates will do.
///
/// # Errors
/// As [`Model::score`], or if the model is no pre-rank network.
pub fn of_user(model: &Model, page: &PageView, scratch: &mut Scratch) -> Result<Vec<f32>> {
    model.require_vectors()?;
    // A group may be without impressions, a page view not without candidates.
    let mut asked = PageView { user: page.user.clone(), time: page.time, ..PageView::default() };
    asked.candidates.item = vec![Text::from("0")];
    let groups = resolve(model, &asked)?.groups;
    Ok(model.vectors(&groups, scratch)?.0.to_vec())
}

/// The width of the vectors of a pre-rank network (V).
///
/// # Errors
/// If the model is of another kind.
pub fn width(model: &Model) -> Result<usize> {
    model.require_vectors()?;
    Ok(*model.spec().network.pre_rank.last().expect("a checked spec has widths"))
}

/// By user, when their newest group was, and their vector then. Of two groups at one time the later
/// in the files counts.
fn users(
    model: &Model,
    dataset: &Dataset,
    split: SplitName,
) -> Result<BTreeMap<u64, (i64, Vec<f32>)>> {
    let mut newest = BTreeMap::<u64, (i64, Vec<f32>)>::new();
    let schema = &model.spec().fields;
    let (mut scratch, mut groups) = (Scratch::default(), Groups::new(schema));
    for part in 0..dataset.card().parts {
        let file = SampleFile::open(&dataset.part_path(split, part), schema)?;
        for block in 0..file.blocks() {
            groups.clear();
            file.read(block, &mut groups)?;
            let (vectors, _) = model.vectors(&groups, &mut scratch)?;
            let dim = vectors.len() / groups.len().max(1);
            for (group, vector) in vectors.chunks_exact(dim.max(1)).enumerate() {
                let time = groups.times[groups.impressions.range(group)].first().copied();
                let time = time.unwrap_or(i64::MIN);
                let known = newest.entry(groups.users[group].0).or_insert((time, Vec::new()));
                if time >= known.0 {
                    *known = (time, vector.to_vec());
                }
            }
        }
    }
    Ok(newest)
}

fn write(
    path: &Path,
    mut columns: Vec<(&str, ArrayRef)>,
    vectors: Vec<f32>,
    dim: usize,
) -> Result<()> {
    let failed = |error: ParquetError| Error::io(path)(std::io::Error::other(error));
    let field = Arc::new(Field::new_list_field(DataType::Float32, false));
    let values = Arc::new(Float32Array::from(vectors));
    let width = i32::try_from(dim).expect("a checked spec has sane widths");
    columns.push(("vector", Arc::new(FixedSizeListArray::new(field, width, values, None))));
    let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
    let file = StagedFile::create(path)?;
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).map_err(failed)?;
    writer.write(&batch).map_err(failed)?;
    Ok(writer.into_inner().map_err(failed)?.commit()?)
}
