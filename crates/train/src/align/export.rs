//! Aligned vectors as a file, which `ams encode --features` reads like any other features.
//!
//! ```text
//! images.parquet  image   text, the name of a picture
//!                 vector  fixed-size list of float (D), of length 1
//! ```

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use ams_data::PictureName;
use ams_data::staging::StagedFile;
use ams_image::FeatureStore;
use arrow_array::types::Float32Type;
use arrow_array::{ArrayRef, FixedSizeListArray, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::errors::ParquetError;
use serde::Serialize;

use crate::align::files::Aligned;
use crate::error::{Error, Result};

/// The file of the vectors.
pub const IMAGES: &str = "images.parquet";

/// Rows that are written at once.
const TOGETHER: usize = 8192;

/// Counts of an export, and the width of its vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// Number of rows of [`IMAGES`].
    pub images: usize,
    /// Names without a feature, which have no row.
    pub without: usize,
    /// Numbers of a vector (D).
    pub dim: usize,
}

/// Writes the vectors of the pictures called `names` that `store` has into the folder `out`, which
/// is made if needed; the file is there whole or not at all.
///
/// # Errors
/// If the map was made of other features than the store's, or the file cannot be written.
pub fn vectors(
    aligned: &Aligned,
    store: &FeatureStore,
    names: BTreeSet<String>,
    out: &Path,
) -> Result<Exported> {
    let all = names.len();
    let named = names.into_iter().map(|name| (store.key(PictureName::of(&name)), name));
    let rows: Vec<_> = named.filter(|(key, _)| key.is_some()).collect();
    // Before anything is written.
    aligned.of(store, &[])?;
    std::fs::create_dir_all(out).map_err(Error::io(out))?;
    let path = out.join(IMAGES);
    let failed = |error: ParquetError| Error::io(&path)(std::io::Error::other(error));
    let dim = aligned.width();
    let batch = |rows: &[_]| -> Result<RecordBatch> {
        let (keys, names): (Vec<u64>, Vec<&str>) = rows
            .iter()
            .map(|(key, name): &(ams_data::ImageKey, String)| (key.0, &name[..]))
            .unzip();
        let vectors = aligned.of(store, &keys)?;
        let lists = vectors.chunks_exact(dim).map(|vector| Some(vector.iter().copied().map(Some)));
        let width = i32::try_from(dim).expect("a checked width");
        let lists = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(lists, width);
        let names: ArrayRef = Arc::new(StringArray::from(names));
        let columns: [(_, ArrayRef); 2] = [("image", names), ("vector", Arc::new(lists))];
        Ok(RecordBatch::try_from_iter(columns).expect("columns of one length"))
    };
    let schema = batch(&[])?.schema();
    let file = StagedFile::create(&path)?;
    let mut writer = ArrowWriter::try_new(file, schema, None).map_err(failed)?;
    for rows in rows.chunks(TOGETHER) {
        writer.write(&batch(rows)?).map_err(failed)?;
    }
    writer.into_inner().map_err(failed)?.commit()?;
    Ok(Exported { images: rows.len(), without: all - rows.len(), dim })
}
